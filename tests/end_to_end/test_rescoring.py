"""A stock autoregressive teacher chooses among the student's candidates."""

from itertools import groupby
from pathlib import Path
from typing import Dict, List

import pytest

from tests.end_to_end.programs import PLUGIN, TASK, Hypothesis, Outcome, hypotheses, program, succeed, texts

CANDIDATES = ("--iter-decode-with-beam", 3, "--iter-decode-max-iter", 2)
RESCORED = ("--iter-decode-with-external-reranker", *CANDIDATES)


def teacher_scores(sentences: List[Hypothesis], corpus: Path, data: Path, teacher: Path, folder: Path) -> List[float]:
    """fairseq's own score of each sentence, by its own task: mean log-probability in bits, ``</s>`` counted."""
    sources = (corpus / "test.src").read_text(encoding="utf-8").split("\n")
    (folder / "test.src").write_text("".join(sources[sentence.id] + "\n" for sentence in sentences), encoding="utf-8")
    (folder / "test.tgt").write_text("".join(sentence.text + "\n" for sentence in sentences), encoding="utf-8")
    dictionaries = ("--srcdict", data / "dict.src.txt", "--tgtdict", data / "dict.tgt.txt")
    files = (
        "--testpref",
        folder / "test",
        "--destdir",
        folder / "data",
        "--source-lang",
        "src",
        "--target-lang",
        "tgt",
    )
    succeed("fairseq-preprocess", "--user-dir", PLUGIN, *files, *dictionaries)
    stock = ("--user-dir", PLUGIN, "--task", "translation", "--required-batch-size-multiple", 1, "--batch-size", 8)
    outcome = succeed("fairseq-generate", folder / "data", *stock, "--path", teacher, "--score-reference")
    return [scored.score for scored in sorted(hypotheses(outcome))]


def by_sentence(outcome: Outcome) -> Dict[int, List[Hypothesis]]:
    found = sorted(hypotheses(outcome), key=lambda hypothesis: hypothesis.id)  # stable: the order printed is kept
    return {id: list(group) for id, group in groupby(found, key=lambda hypothesis: hypothesis.id)}


@pytest.fixture(scope="module")
def three_best(data: Path, student: Path, teacher: Path) -> Outcome:
    options = ("--path", f"{student}:{teacher}", *RESCORED, "--nbest", 3)
    return succeed("fairseq-generate", data, *TASK, *options)


def test_rescored_candidates_are_complete_and_ordered(three_best: Outcome) -> None:
    groups = by_sentence(three_best)
    assert list(groups) == list(range(60))
    for group in groups.values():
        assert len(group) == 3
        assert [h.score for h in group] == sorted((h.score for h in group), reverse=True)


def test_a_rescored_candidate_has_the_score_that_fairseq_gives_it(
    three_best: Outcome, corpus: Path, data: Path, teacher: Path, tmp_path: Path
) -> None:
    sentences = hypotheses(three_best)
    assert len({sentence.text for sentence in sentences}) > 60, "all candidates are alike, so this tests little"
    expected = teacher_scores(sentences, corpus, data, teacher, tmp_path)
    assert [sentence.score for sentence in sentences] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("batching", [("--batch-size", 1), ("--batch-size", 16, "--max-candidate-tokens", 30)])
def test_the_best_rescored_candidate_is_the_same_in_any_batch(
    batching: tuple, three_best: Outcome, data: Path, student: Path, teacher: Path
) -> None:
    best = succeed("fairseq-generate", data, *TASK, "--path", f"{student}:{teacher}", *RESCORED, *batching)
    assert texts(best) == [group[0].text for group in by_sentence(three_best).values()]


def test_the_teacher_changes_choices_but_not_candidates(three_best: Outcome, data: Path, student: Path) -> None:
    own = by_sentence(succeed("fairseq-generate", data, *TASK, "--path", student, *CANDIDATES, "--nbest", 3))
    rescored = by_sentence(three_best)
    for id, group in own.items():
        assert sorted(h.text for h in group) == sorted(h.text for h in rescored[id])
        assert [h.score for h in group] == sorted((h.score for h in group), reverse=True)
    assert any(own[id][0].text != rescored[id][0].text for id in own)


def test_interactive_decoding_is_rescored_too(
    three_best: Outcome, corpus: Path, data: Path, student: Path, teacher: Path
) -> None:
    options = (*TASK, "--path", f"{student}:{teacher}", *RESCORED, "--buffer-size", 60, "--batch-size", 20)
    outcome = succeed("fairseq-interactive", data, *options, stdin=(corpus / "test.src").read_bytes())
    assert texts(outcome) == [group[0].text for group in by_sentence(three_best).values()]


def test_another_dictionary_than_the_teacher_s_is_refused(
    data: Path, joint_data: Path, student: Path, teacher: Path
) -> None:
    outcome = program("fairseq-generate", joint_data, *TASK, "--path", f"{student}:{teacher}", *RESCORED)
    assert outcome.code != 0 and "Traceback" not in outcome.stderr
    assert "dictionary" in outcome.complaint
