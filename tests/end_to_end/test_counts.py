"""No sentence is lost, and the batch a sentence stands in does not change its translation."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ADAM, LIMITS, SIZES, STUDENT, TINY_TRANSFORMER
from tests.end_to_end.programs import TASK, Outcome, hypotheses, spy, succeed, tagged, texts

LIMIT = 6


@pytest.fixture(scope="module")
def one_by_one(data: Path, student: Path) -> Outcome:
    """The test set decoded in batches of one, which no other sentence can disturb."""
    return succeed("fairseq-generate", data, *TASK, "--path", student, "--batch-size", 1)


@pytest.fixture(scope="module")
def sources(corpus: Path) -> list:
    return (corpus / "test.src").read_text(encoding="utf-8").split("\n")[:-1]


def assert_same(one: Outcome, other: Outcome) -> None:
    assert texts(one) == texts(other)
    scores, others = ([h.score for h in sorted(hypotheses(outcome))] for outcome in (one, other))
    assert scores == pytest.approx(others, abs=1e-4)


@pytest.mark.parametrize(
    "batching",
    [
        ("--batch-size", 7),
        ("--batch-size", 64),
        ("--max-tokens", 10),
        ("--max-tokens", 100),
        ("--max-tokens", 4000),
        ("--batch-size", 7, "--left-pad-source"),
        ("--batch-size", 64, "--left-pad-source", "--left-pad-target"),
        ("--batch-size", 64, "--iter-decode-with-beam", 1, "--max-candidate-tokens", 20),
    ],
    ids=lambda flags: "_".join(str(flag).lstrip("-") for flag in flags),
)
def test_every_sentence_is_decoded_alike_in_any_batch(
    batching: Any, one_by_one: Outcome, data: Path, student: Path
) -> None:
    batched = succeed("fairseq-generate", data, *TASK, "--path", student, *batching)
    assert len(texts(batched)) == SIZES["test"]
    assert_same(batched, one_by_one)


def test_the_shards_of_a_test_set_together_are_the_whole(one_by_one: Outcome, data: Path, student: Path) -> None:
    two = ("--distributed-world-size", 2, "--distributed-rank")  # the host reads no --num-shards
    shards = [
        hypotheses(succeed("fairseq-generate", data, *TASK, "--path", student, *two, rank, "--batch-size", 7))
        for rank in (0, 1)
    ]
    assert all(shards)
    whole = {h.id: h.text for h in hypotheses(one_by_one)}
    assert sorted(h.id for shard in shards for h in shard) == sorted(whole)
    assert {h.id: h.text for shard in shards for h in shard} == whole


@pytest.mark.parametrize("model", ["student", "teacher"])
def test_nine_sentences_stay_nine_at_the_default_batch_multiple(
    model: str, data: Path, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(model)
    outcome = succeed("fairseq-generate", data, *TASK, "--path", path, "--gen-subset", "test1", "--beam", 1)
    assert len(texts(outcome)) == SIZES["nine"]
    assert "Translated 9 sentences" in outcome.stdout + outcome.stderr


@pytest.mark.parametrize("model", ["student", "teacher"])
def test_over_long_sentences_are_cut_with_a_warning_and_none_is_lost(
    model: str, data: Path, sources: list, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(model)
    limits = ("--max-source-positions", LIMIT, "--beam", 1)
    outcome = succeed("fairseq-generate", data, *TASK, "--path", path, *limits)
    words = [source.split() for source in sources]
    over = sum(len(sentence) + 1 > LIMIT for sentence in words)
    assert over >= 5, "the test set has too few long sentences"
    assert f"{over} source sentences are longer than {LIMIT} tokens" in outcome.stdout + outcome.stderr
    assert len(texts(outcome)) == SIZES["test"]
    decoded = [fields[0].split() for _, fields in sorted(tagged(outcome, "S"))]
    assert decoded == [sentence[: LIMIT - 1] for sentence in words]


def test_a_cut_sentence_is_decoded_as_its_beginning_alone(data: Path, student: Path, sources: list) -> None:
    cut = succeed("fairseq-generate", data, *TASK, "--path", student, "--max-source-positions", LIMIT)
    beginnings = "".join(" ".join(source.split()[: LIMIT - 1]) + "\n" for source in sources)
    alone = succeed("fairseq-interactive", data, *TASK, "--path", student, stdin=beginnings.encode())
    assert texts(cut) == texts(alone)


COUNT_SENTENCES = """
from nar_plugin.tasks.translation_nar import TranslationNarTask
valid_step = TranslationNarTask.valid_step
def counting(self, sample, *args, **kwargs):
    print("VALIDATED", *sample["id"].tolist())
    return valid_step(self, sample, *args, **kwargs)
TranslationNarTask.valid_step = counting
"""


@pytest.mark.parametrize("is_cut", [False, True], ids=["all_fit", "some_are_over_long"])
@pytest.mark.parametrize("model", ["mask_predict", "transformer"])
def test_validation_while_training_uses_every_sentence(model: str, is_cut: bool, data: Path, tmp_path: Path) -> None:
    stock = (*TINY_TRANSFORMER, "--criterion", "cross_entropy")
    options = (*(STUDENT if model == "mask_predict" else stock), *ADAM, "--max-update", 1, "--save-dir", tmp_path)
    limits = ("--max-source-positions", 6, "--max-target-positions", 6) if is_cut else LIMITS
    # 50 sentences in batches of 8: the host drops the last two
    skipping = ("--batch-size", 8, "--skip-invalid-size-inputs-valid-test", "--no-save")
    outcome = succeed("fairseq-train", data, *TASK, *spy(tmp_path, COUNT_SENTENCES), *options, *limits, *skipping)
    validated = [int(id) for line in outcome.lines if line.startswith("VALIDATED") for id in line.split()[1:]]
    assert sorted(validated) == list(range(SIZES["valid"]))
