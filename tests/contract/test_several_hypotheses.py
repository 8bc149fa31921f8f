"""A pass that gives several hypotheses a row: candidates, the n best and a teacher take them as if one by one."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.methods import noise
from nar_plugin.methods.contract import Request, UsageError
from nar_plugin.methods.options import Options
from tests.contract.dense_plugin.data import DenseTask, Frames
from tests.contract.dense_plugin.models import MOST_A_ROW
from tests.contract.frames import (
    PAD,
    FrameTeacher,
    batch_of,
    decode,
    generator_of,
    model_of,
    rows,
    scores,
    split_of,
    task_of,
)

SAMPLES = 3


class Ranked(NamedTuple):
    score: float
    words: list[int]
    row: int


@pytest.fixture(scope="module")
def task() -> DenseTask:
    return task_of(decode_samples=SAMPLES)


@pytest.fixture(scope="module")
def model(task: DenseTask) -> Any:
    return model_of(task, "dense_beam").eval()


@pytest.fixture(scope="module")
def data(task: DenseTask) -> Frames:
    return split_of(task, "test")


@torch.no_grad()
def everything_of(model: Any, options: Options, sample: dict[str, Any], steps: int) -> list[Ranked]:
    """All hypotheses of the one sentence of a batch, each row decoded alone, ranked by their means."""
    encoded = model.encode(sample["net_input"])
    keys = noise.decoding_keys(1, encoded.keys)
    proposals = model.propose(encoded, Request(options=options, keys=lambda: keys))
    found = []
    for row in range(options.candidates):
        state = model.start(encoded, proposals.select(torch.tensor([row])))
        for step in range(1, steps + 1):
            state = model.refine(state, step, steps)
        done = model.finish(state)
        for tokens, values, extra in zip(done.tokens, done.scores, done.extra, strict=True):
            words = tokens[tokens != PAD].tolist()
            found.append(Ranked((float(values.sum()) + float(extra)) / len(words), words, row))
    return sorted(found, key=lambda one: -one.score)


def oracle(generator: RefinementGenerator, data: Frames, steps: int) -> list[list[Ranked]]:
    return [everything_of(generator.model, generator.options, batch_of(data, [i]), steps) for i in range(len(data))]


def batch(data: Frames) -> dict[str, Any]:
    return batch_of(data, list(range(len(data))))


def shares_of_first_rows(found: list[list[Ranked]]) -> Tensor:
    """Of which candidate the best hypothesis of each sentence is: how often each."""
    return torch.tensor([group[0].row for group in found]).bincount(minlength=SAMPLES)


@pytest.mark.parametrize("steps", [0, 2])
def test_all_hypotheses_are_ranked_across_rows_that_have_different_numbers_of_them(
    task: DenseTask, model: Any, data: Frames, steps: int
) -> None:
    most = SAMPLES * MOST_A_ROW
    expected = oracle(generator_of(task, model), data, steps)
    assert len({len(group) for group in expected}) > 3, "all sentences have as many, so this tests little"
    assert shares_of_first_rows(expected).min() > 0, "the best are all of one row, so this tests little"
    found = decode(task, model, batch(data), nbest=most, iter_decode_max_iter=steps)
    assert rows(found) == [[one.words for one in group] for group in expected]
    for got, group in zip(scores(found), expected, strict=True):
        assert got == pytest.approx([one.score for one in group], abs=1e-4)


@pytest.mark.parametrize("nbest", [1, 2, 5])
def test_the_n_best_are_the_first_of_all(task: DenseTask, model: Any, data: Frames, nbest: int) -> None:
    expected = oracle(generator_of(task, model), data, steps=0)
    found = rows(decode(task, model, batch(data), nbest=nbest))
    assert found == [[one.words for one in group[:nbest]] for group in expected]
    assert any(len(group) < nbest for group in found) == (nbest == 5)


def test_the_batch_and_its_cuts_change_nothing(task: DenseTask, model: Any, data: Frames) -> None:
    options = {"nbest": 4, "iter_decode_max_iter": 1}
    together = rows(decode(task, model, batch(data), **options))
    assert [rows(decode(task, model, batch_of(data, [i]), **options))[0] for i in range(len(data))] == together
    task_with_cuts = task_of(decode_samples=SAMPLES, max_candidate_tokens=15)
    assert rows(decode(task_with_cuts, model, batch(data), **options)) == together


def test_one_candidate_may_have_several_hypotheses(model: Any, data: Frames) -> None:
    task = task_of()
    found = rows(decode(task, model, batch(data), nbest=MOST_A_ROW))
    assert {len(group) for group in found} == {1, 2, 3, 4}
    with pytest.raises(UsageError, match="--nbest 5"):
        generator_of(task, model, nbest=5)


def test_a_teacher_ranks_them_all(task: DenseTask, model: Any, data: Frames) -> None:
    teacher, most = FrameTeacher(), SAMPLES * MOST_A_ROW
    everything = oracle(generator_of(task, model), data, steps=0)
    found = decode(task, model, batch(data), teacher, nbest=most)
    for frames, group, got, words in zip(data.sources, everything, scores(found), rows(found), strict=True):
        liked = [teacher.likes(frames, one.words) for one in group]
        assert got == pytest.approx(sorted(liked, reverse=True), abs=1e-4)
        assert sorted(words) == sorted(one.words for one in group)
        assert got == pytest.approx([teacher.likes(frames, one) for one in words], abs=1e-4)
    best = rows(decode(task, model, batch(data), FrameTeacher(), nbest=1))
    assert best == [group[:1] for group in rows(found)]


def test_a_history_is_of_the_best_of_each_row(task: DenseTask, model: Any, data: Frames) -> None:
    options = {"nbest": SAMPLES * MOST_A_ROW, "iter_decode_max_iter": 1, "retain_iter_history": True}
    passes = [oracle(generator_of(task, model), data, steps) for steps in (0, 1)]
    found = decode(task, model, batch(data), **options)
    for i, group in enumerate(found):
        first, last = ([one for one in said[i]] for said in passes)
        for hypothesis, ranked in zip(group, last, strict=True):
            expected = [next(one.words for one in said if one.row == ranked.row) for said in (first, last)]
            assert [told["tokens"].tolist() for told in hypothesis["history"]] == expected


def test_an_empty_source_is_answered_by_as_many_empty_hypotheses(task: DenseTask, model: Any, data: Frames) -> None:
    nothing = Frames([data.sources[0], torch.zeros(0, data.sources[0].size(1))], data.targets[:2], PAD, data.eos)
    found = rows(decode(task, model, batch_of(nothing, [0, 1]), nbest=2))
    assert found[1] in ([[data.eos]], [[data.eos]] * 2) and [data.eos] not in found[0]


def test_a_beam_holds_the_most_probable_rows_of_words() -> None:
    """The oracle above takes a row's hypotheses as they come, so they are held against all rows of words here."""
    from itertools import product

    from tests.contract.dense_plugin.models import beam

    log_probs = torch.randn(4, 5, generator=torch.Generator().manual_seed(2)).log_softmax(-1)
    every = sorted(product(range(5), repeat=4), key=lambda row: -sum(float(log_probs[i, w]) for i, w in enumerate(row)))
    assert [tuple(one.tokens) for one in beam(log_probs, 4)] == every[:4]
