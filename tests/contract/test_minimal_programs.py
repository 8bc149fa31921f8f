"""The least model goes through every program: trained, validated, decoded, rescored, measured and shown."""

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ADAM, LIMITS, SIZES
from tests.contract import measure
from tests.end_to_end.programs import Outcome, complains, console, hypotheses, logged, program, succeed, tagged, texts

FOLDER = Path(__file__).parent / "minimal_plugin"
TASK = ("--user-dir", FOLDER, "--task", "translation_nar")
VERB = (sys.executable, "-m", "nar_tools")
LANGUAGES = ("--source-lang", "src", "--target-lang", "tgt")
QUIET = ("--no-progress-bar", "--no-epoch-checkpoints", "--num-workers", 0, "--log-format", "json")
UPDATES = 150
SENTENCES = SIZES["test"]
CANDIDATES = ("--iter-decode-with-beam", 3)
REFINED = ("--iter-decode-max-iter", 1)
RESCORED = ("--iter-decode-with-external-reranker", *CANDIDATES, *REFINED)


@pytest.fixture(scope="module")
def trained(data: Path, once: Any) -> Path:
    """The folder of a checkpoint, and what its training said."""
    bleu = ("--eval-bleu", "--eval-bleu-args", '{"iter_decode_with_beam": 2}', "--eval-bleu-remove-bpe")
    options = (*LIMITS, *ADAM, *QUIET, "--max-tokens", 4000, "--max-update", UPDATES, "--lr", 1e-2)

    def make(folder: Path) -> None:
        arch = ("--arch", "minimal", "--criterion", "token_length", "--log-interval", 10, "--validate-interval", 10**6)
        outcome = succeed("fairseq-train", data, *TASK, *arch, *options, *bleu, "--save-dir", folder)
        (folder / "log").write_text(outcome.stdout)

    return once("minimal", make)


@pytest.fixture(scope="module")
def checkpoint(trained: Path) -> Path:
    return trained / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def decoded(data: Path, checkpoint: Path) -> Outcome:
    """The best of three candidates, with all that can be asked beside it."""
    told = ("--nbest", 2, "--retain-iter-history", "--print-step")
    return succeed("fairseq-generate", data, *TASK, "--path", checkpoint, *CANDIDATES, *REFINED, *told)


@pytest.fixture(scope="module")
def rescored(data: Path, checkpoint: Path, teacher: Path) -> Outcome:
    return succeed("fairseq-generate", data, *TASK, "--path", f"{checkpoint}:{teacher}", *RESCORED, "--nbest", 3)


def best_of(outcome: Outcome) -> list[str]:
    """The first text that was printed of each sentence."""
    found = {id: text for id, _, text in reversed(hypotheses(outcome))}
    return [found[id] for id in range(SENTENCES)]


def history(outcome: Outcome, sentence: int) -> list[str]:
    """What each pass said of the hypotheses of a sentence, in the order printed."""
    lines = [line[2:].split("\t") for line in outcome.lines if line.startswith(f"E-{sentence}_")]
    return [text for _, text in lines]


def test_training_lowers_the_loss_and_validation_decodes(trained: Path) -> None:
    outcome = Outcome(0, (trained / "log").read_text(), "")
    losses = [float(log["loss"]) for log in logged(outcome)]
    assert losses[-1] < 0.9 * losses[0]
    valid = logged(outcome, "valid")[-1]
    assert 0 < float(valid["valid_bleu"]) <= 100 and 0 < float(valid["valid_accuracy"]) < 100


def test_validation_in_other_batches_gives_the_same_loss(data: Path, trained: Path, checkpoint: Path) -> None:
    there = logged(Outcome(0, (trained / "log").read_text(), ""), "valid")[-1]
    options = ("--path", checkpoint, "--batch-size", 1, "--log-format", "json")
    (valid,) = logged(succeed("fairseq-validate", data, *TASK, *options), "valid")
    for key in ("valid_loss", "valid_nll_loss", "valid_accuracy"):
        assert float(valid[key]) == pytest.approx(float(there[key]), abs=2e-3)


def test_every_sentence_has_its_best_hypotheses_in_order(decoded: Outcome) -> None:
    found = hypotheses(decoded)
    assert Counter(h.id for h in found) == dict.fromkeys(range(SENTENCES), 2)
    pairs = list(zip(found[::2], found[1::2], strict=True))
    assert all(first.id == second.id and first.score >= second.score for first, second in pairs)
    assert any(first.text != second.text for first, second in pairs)


def test_every_hypothesis_has_its_history_and_its_steps(decoded: Outcome) -> None:
    by_id: dict[int, list[str]] = {}
    for hypothesis in hypotheses(decoded):
        by_id.setdefault(hypothesis.id, []).append(hypothesis.text)
    assert sorted(tagged(decoded, "I")) == sorted((id, ["1"]) for id in by_id for _ in range(2))
    passes = {id: history(decoded, id) for id in by_id}
    assert {len(told) for told in passes.values()} == {4}, "two passes of each of the two best"
    for id, told in passes.items():
        assert told[1::2] == by_id[id]
    assert any(told[0] != told[1] for told in passes.values()), "no refinement changed a word"


def test_the_line_of_counters_names_the_passes_of_the_model(decoded: Outcome) -> None:
    (line,) = [line for line in decoded.stderr.split("\n") + decoded.lines if "decoded 60 sentences" in line]
    assert re.search(r"reader \d+ passes over 60 rows \(1\.00 a sentence\)", line)
    assert re.search(r"decoder \d+ passes over 360 rows \(6\.00 a sentence\)", line), "3 candidates, 2 passes each"


@pytest.mark.parametrize("batching", [(1,), (64, "--max-candidate-tokens", 20)])
def test_hypotheses_are_the_same_in_any_batch(batching: tuple, decoded: Outcome, data: Path, checkpoint: Path) -> None:
    options = ("--path", checkpoint, *CANDIDATES, *REFINED, "--batch-size", *batching)
    assert texts(succeed("fairseq-generate", data, *TASK, *options)) == best_of(decoded)


def test_it_never_makes_more_steps_than_it_says(data: Path, checkpoint: Path) -> None:
    """The host's programs ask for ten where the user says nothing."""
    outcome = succeed("fairseq-generate", data, *TASK, "--path", checkpoint, "--print-step")
    assert sorted(tagged(outcome, "I")) == [(id, ["1"]) for id in range(SENTENCES)]


def test_references_are_scored(corpus: Path, data: Path, checkpoint: Path) -> None:
    runs = [
        succeed("fairseq-generate", data, *TASK, "--path", checkpoint, "--score-reference", "--batch-size", size)
        for size in (1, 64)
    ]
    for outcome in runs:
        assert texts(outcome) == (corpus / "test.tgt").read_text(encoding="utf-8").split("\n")[:-1]
    alone, together = ([h.score for h in sorted(hypotheses(outcome))] for outcome in runs)
    assert alone == pytest.approx(together, abs=1e-4) and max(alone) < 0


def test_interactive_decoding_says_the_same_and_answers_an_empty_line(
    corpus: Path, decoded: Outcome, data: Path, checkpoint: Path
) -> None:
    lines = (corpus / "test.src").read_bytes() + b"\n"
    options = ("--path", checkpoint, *CANDIDATES, *REFINED, "--buffer-size", 100, "--batch-size", 20)
    outcome = succeed("fairseq-interactive", data, *TASK, *options, stdin=lines)
    assert texts(outcome) == [*best_of(decoded), ""]


def test_references_give_the_length_where_that_is_asked_for(data: Path, checkpoint: Path, corpus: Path) -> None:
    outcome = succeed("fairseq-generate", data, *TASK, "--path", checkpoint, "--gold-target-len")
    positions = {id: fields[0].split() for id, fields in tagged(outcome, "P")}
    references = (corpus / "test.tgt").read_text(encoding="utf-8").split("\n")[:-1]
    assert [len(positions[id]) for id in range(SENTENCES)] == [max(2, len(r.split()) + 1) for r in references]


def test_a_teacher_chooses_among_the_candidates(rescored: Outcome, data: Path, checkpoint: Path, teacher: Path) -> None:
    own = succeed("fairseq-generate", data, *TASK, "--path", checkpoint, *CANDIDATES, *REFINED, "--nbest", 3)
    for id in range(SENTENCES):
        chosen = [h for h in hypotheses(rescored) if h.id == id]
        assert sorted(h.text for h in chosen) == sorted(h.text for h in hypotheses(own) if h.id == id)
        assert [h.score for h in chosen] == sorted((h.score for h in chosen), reverse=True)
    assert best_of(own) != best_of(rescored), "the teacher changes no choice, so this tests little"
    alone = ("--path", f"{checkpoint}:{teacher}", *RESCORED, "--batch-size", 1)
    assert texts(succeed("fairseq-generate", data, *TASK, *alone)) == best_of(rescored)


def test_what_it_does_not_heed_is_refused(data: Path, checkpoint: Path) -> None:
    outcome = program("fairseq-generate", data, *TASK, "--path", checkpoint, "--decode-samples", 3)
    complains(outcome, "--decode-samples", "--arch minimal")


def test_another_criterion_is_refused(data: Path, tmp_path: Path) -> None:
    arch = ("--arch", "minimal", "--criterion", "elbo_length", "--save-dir", tmp_path)
    complains(program("fairseq-train", data, *TASK, *arch, *ADAM, "--max-tokens", 500), "token_length", "minimal")


def test_its_refinement_is_shown(data: Path, checkpoint: Path, decoded: Outcome, corpus: Path) -> None:
    sentence = (corpus / "test.src").read_text(encoding="utf-8").split("\n")[0]
    options = (data, *TASK, *LANGUAGES, "--path", checkpoint, *CANDIDATES, *REFINED, "--sentence", sentence)
    outcome = console([*VERB, "show", *options])
    assert outcome.code == 0, outcome.stderr
    assert "pass 1" in outcome.stdout and "pass 2" in outcome.stdout and "pass 3" not in outcome.stdout
    assert " ".join(line.strip() for line in outcome.lines if "output" in line).endswith(best_of(decoded)[0])


@pytest.fixture(scope="module")
def measured(data: Path, checkpoint: Path, teacher: Path) -> Any:
    """What the benchmark's engine says of the model, rescored by the teacher."""
    options = ("--path", f"{checkpoint}:{teacher}", *RESCORED, "--batch-size", 16)
    return json.loads(succeed(measure.__file__, data, *TASK, *options).lines[-2])


def test_it_is_measured(measured: Any, rescored: Outcome) -> None:
    facts = measured["facts"]
    assert (facts["arch"], facts["size"], facts["device"], facts["updates"]) == ("minimal", "small", "cpu", UPDATES)
    assert measured["lines"] == best_of(rescored)
    assert all(whole > 0 and bare > 0 for whole, _, bare in measured["times"])


def test_its_passes_are_counted_by_the_clock(measured: Any) -> None:
    assert [calls for _, calls, _ in measured["times"]] == [2, 2, 2]


@pytest.mark.slow
def test_the_benchmark_gives_it_a_row(data: Path, corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    flags = " ".join(map(str, [*TASK, "--path", checkpoint, *CANDIDATES, *REFINED]))
    outcome = console(
        [
            *(*VERB, "benchmark", data, "--reference", corpus / "test.tgt", *LANGUAGES),
            *("--output", tmp_path / "results.json", "--system", "least", flags),
            *("--sentences", 4, "--repeats", 1, "--allow-noise"),
        ]
    )
    assert outcome.code == 0, outcome.stderr
    (row,) = json.loads((tmp_path / "results.json").read_text())
    assert row["arch"] == "minimal" and row["timed_sentences"] == 4
    assert row["bare_ms"] > 0 and row["ms_per_sentence"] > 0
    assert len((tmp_path / row["hypotheses"]).read_text(encoding="utf-8").split("\n")) == SENTENCES + 1
