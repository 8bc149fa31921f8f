"""No sentence: decoding gives nothing and ends well, a training or a validation says so in one line."""

from pathlib import Path

from tests.conftest import ADAM, LIMITS, STUDENT, TINY_TRANSFORMER
from tests.end_to_end.programs import TASK, complains, hypotheses, logged, program, spy, succeed

UPDATE = (*ADAM, "--max-tokens", 500, "--max-update", 1, "--no-save")


def test_a_split_without_a_sentence_is_decoded_to_nothing(empty: Path, student: Path, teacher: Path) -> None:
    for model in (student, teacher):
        outcome = succeed("fairseq-generate", empty, *TASK, "--path", model)
        assert hypotheses(outcome) == [] and "BLEU4 = 0.00" in outcome.stdout
    for scorer in ("sacrebleu", "chrf"):
        outcome = succeed("fairseq-generate", empty, *TASK, "--path", student, "--scoring", scorer)
        assert outcome.lines[-2].endswith("nothing to score")
    assert hypotheses(succeed("fairseq-interactive", empty, *TASK, "--path", student)) == []


def test_shards_of_which_one_has_no_batch_give_all_sentences(data: Path, student: Path) -> None:
    words = (data, *TASK, "--path", student, "--gen-subset", "test1")
    ranks = [("--distributed-world-size", 2, "--distributed-rank", rank) for rank in (0, 1)]
    found = [hypotheses(succeed("fairseq-generate", *words, *rank)) for rank in ranks]
    assert [len(part) for part in found] == [9, 0]
    apart = [hypotheses(succeed("fairseq-generate", *words, *rank, "--batch-size", 5)) for rank in ranks]
    assert sorted(part.id for part in sum(apart, [])) == list(range(9))


def test_outputs_without_a_word_have_a_score(data: Path, student: Path, tmp_path: Path) -> None:
    body = "from nar_plugin.tasks import translation_nar as t\nreal = t.TranslationTask.inference_step\n"
    body += "def step(*args, **kwargs):\n    return [[t.nothing_of(o) for o in s] for s in real(*args, **kwargs)]\n"
    body += "t.TranslationTask.inference_step = step\n"
    words = (data, *TASK, *spy(tmp_path, body), "--path", student, "--gen-subset", "test1")
    outcome = succeed("fairseq-generate", *words)
    assert {hypothesis.text for hypothesis in hypotheses(outcome)} == {""} and "BLEU4 = 0.00" in outcome.stdout


def test_a_training_without_a_sentence_is_one_line(data: Path, empty: Path) -> None:
    complains(program("fairseq-train", empty, *TASK, *STUDENT, *LIMITS, *UPDATE), "train", str(empty))
    short = ("--max-source-positions", 1, "--max-target-positions", 1)
    for model in (STUDENT, TINY_TRANSFORMER):
        outcome = program("fairseq-train", data, *TASK, *model, *UPDATE, *short)
        complains(outcome, "--max-source-positions", "no sentence is left", str(data))


def test_a_validation_without_a_sentence_is_one_line(empty: Path, student: Path) -> None:
    outcome = program("fairseq-validate", empty, *TASK, "--path", student, "--max-tokens", 500)
    complains(outcome, f"valid in {empty}")
    words = (*TASK, *STUDENT, *LIMITS, *UPDATE, "--valid-subset", "test", "--log-format", "json")
    outcome = program("fairseq-train", empty, *words, "--train-subset", "test1")
    complains(outcome, f"test in {empty}")
    assert not logged(outcome, "train_inner"), "it was said after an update"
