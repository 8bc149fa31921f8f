"""What the decoder shows of its work: steps, history, scores of references."""

from pathlib import Path

import pytest

from tests.end_to_end.programs import TASK, Outcome, complains, hypotheses, program, succeed, tagged, texts


@pytest.fixture(scope="module")
def told(data: Path, student: Path) -> Outcome:
    flags = ("--retain-iter-history", "--print-step", "--iter-decode-max-iter", 3)
    return succeed("fairseq-generate", data, *TASK, "--path", student, *flags)


def test_the_steps_that_were_asked_for_are_printed(told: Outcome) -> None:
    assert sorted(tagged(told, "I")) == [(id, ["3"]) for id in range(60)]


def test_the_history_has_every_pass_and_ends_in_the_hypothesis(told: Outcome) -> None:
    lines = [line[2:].split("\t") for line in told.lines if line.startswith("E-")]
    history = {tuple(map(int, name.split("_"))): text for name, text in lines}
    assert len(lines) == len(history)
    assert sorted(history) == [(id, step) for id in range(60) for step in range(4)]
    assert [history[id, 3] for id in range(60)] == texts(told)
    assert any(history[id, 0] != history[id, 3] for id in range(60))


def test_the_first_pass_in_the_history_is_a_decode_of_one_pass(told: Outcome, data: Path, student: Path) -> None:
    one_pass = succeed("fairseq-generate", data, *TASK, "--path", student, "--iter-decode-max-iter", 0)
    first = {line.split("_")[0]: line.split("\t")[1] for line in told.lines if line.startswith("E-") and "_0\t" in line}
    assert [first[f"E-{id}"] for id in range(60)] == texts(one_pass)


def test_a_score_is_the_mean_of_its_positions(told: Outcome) -> None:
    positions = {id: [float(value) for value in fields[0].split()] for id, fields in tagged(told, "P")}
    for hypothesis in hypotheses(told):
        values = positions[hypothesis.id]
        assert len(values) == len(hypothesis.text.split()) + 1 or "</s>" not in hypothesis.text
        assert hypothesis.score == pytest.approx(sum(values) / len(values), abs=1e-3)


def test_references_are_scored_with_their_length(corpus: Path, data: Path, student: Path) -> None:
    scored = succeed("fairseq-generate", data, *TASK, "--path", student, "--score-reference")
    assert texts(scored) == (corpus / "test.tgt").read_text(encoding="utf-8").split("\n")[:-1]
    positions = {id: [float(value) for value in fields[0].split()] for id, fields in tagged(scored, "P")}
    for reference in hypotheses(scored):
        values = positions[reference.id]
        assert len(values) == len(reference.text.split()) + 1, "one score a word and one for the end"
        assert reference.score * len(values) < sum(values) + 1e-3, "the length's log-probability is missing"


def test_scores_of_references_do_not_depend_on_the_batch(data: Path, student: Path) -> None:
    runs = [
        sorted(hypotheses(succeed("fairseq-generate", data, *TASK, "--path", student, "--score-reference", *batching)))
        for batching in (("--batch-size", 1), ("--batch-size", 16))
    ]
    assert [h.score for h in runs[0]] == pytest.approx([h.score for h in runs[1]], abs=1e-4)


def test_interactive_has_no_references_to_score(data: Path, student: Path) -> None:
    outcome = program("fairseq-interactive", data, *TASK, "--path", student, "--score-reference", stdin=b"bana\n")
    complains(outcome, "--score-reference")
