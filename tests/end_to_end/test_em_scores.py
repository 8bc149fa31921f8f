"""A teacher's list of answers and a student's scores of it, by the real programs."""

import math
import sys
from pathlib import Path
from typing import List

import pytest

from nar_tools.files import gzip_lines
from nar_tools.jobs import selection
from nar_tools.text import nbest
from nar_tools.text.nbest import Candidate
from tests.end_to_end.programs import PLUGIN, TASK, Hypothesis, console, hypotheses, succeed, tagged
from tests.end_to_end.test_rescoring import teacher_scores

LENPEN = 0.8
LANGS = ("--source-lang", "src", "--target-lang", "tgt")


@pytest.fixture(scope="module")
def answers(data: Path, teacher: Path) -> List[Hypothesis]:
    """Three of each of 60 sentences, best first."""
    search = ("--beam", 3, "--nbest", 3, "--lenpen", LENPEN, "--batch-size", 20)
    return sorted(hypotheses(succeed("fairseq-generate", data, *TASK, *search, "--path", teacher)), key=lambda h: h.id)


@pytest.fixture(scope="module")
def listed(answers: List[Hypothesis], corpus: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``nbest.gz``, and its candidates binarised in ``bin`` as a train split."""
    folder = tmp_path_factory.mktemp("listed")
    gzip_lines(folder / "nbest.gz", (f"{h.id} ||| {h.text} ||| {h.score}" for h in answers))
    files = ("--nbest", folder / "nbest.gz", "--source-text", corpus / "test.src", "--output", folder / "pairs")
    done = console([sys.executable, "-m", "nar_tools", "em", "candidates", *files, *LANGS])
    assert done.code == 0, done.stderr
    dictionaries = ("--srcdict", data / "dict.src.txt", "--tgtdict", data / "dict.tgt.txt")
    texts = ("--trainpref", folder / "pairs", "--destdir", folder / "bin")
    succeed("fairseq-preprocess", "--user-dir", PLUGIN, *LANGS, *texts, *dictionaries)
    return folder


def test_the_log_probability_in_a_list_is_the_one_that_fairseq_gives_the_text(
    answers: List[Hypothesis], corpus: Path, data: Path, teacher: Path, tmp_path: Path
) -> None:
    """EM-2: the length penalty of the search taken back, by fairseq's own --score-reference."""
    some = answers[:45]
    means = teacher_scores(some, corpus, data, teacher, tmp_path)
    for answer, mean in zip(some, means, strict=True):
        candidate = Candidate(answer.text, answer.score)
        assert candidate.log_prob(LENPEN) == pytest.approx(mean * math.log(2) * candidate.tokens, abs=1e-3)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_student_s_scores_are_its_log_probabilities_of_words_and_length(
    shards: int, answers: List[Hypothesis], listed: Path, student: Path, tmp_path: Path
) -> None:
    """EM-1: a line a candidate, in the order of the list, whatever the shards."""
    files = ("--data", listed / "bin", "--student", student, "--output", tmp_path / "scores.gz", "--shards", shards)
    verb = (sys.executable, "-m", "nar_tools", "em", "score", *files, *LANGS)
    done = console([*verb, "--", "--cpu"])
    assert done.code == 0 and "scores are exact" in done.stdout, done.stderr
    scores = list(selection.read_scores(tmp_path / "scores.gz"))
    assert len(scores) == len(answers) == sum(map(len, nbest.lists(listed / "nbest.gz", 60)))
    flags = ("--gen-subset", "train", "--path", student, "--score-reference", "--batch-size", 50)
    said = succeed("fairseq-generate", listed / "bin", *TASK, *flags)
    words = {id: sum(float(value) for value in fields[0].split()) for id, fields in tagged(said, "P")}
    for found in hypotheses(said):
        score, answer = scores[found.id], answers[found.id]
        assert found.text == answer.text and score.tokens == len(answer.text.split()) + 1
        assert score.log_prob == pytest.approx(found.score * math.log(2) * score.tokens, abs=1e-3)
        assert score.log_prob < words[found.id] * math.log(2) + 1e-3, "the length's log-probability is missing"
    before = (tmp_path / "scores.gz").read_bytes()
    again = console([*verb, "--", "--cpu"])
    assert again.stdout.count("done before") == shards and (tmp_path / "scores.gz").read_bytes() == before
