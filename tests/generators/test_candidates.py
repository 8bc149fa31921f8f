"""Cutting, comparing and choosing candidates, and teachers that are real models of fairseq."""

from argparse import Namespace
from typing import Any

import pytest
import torch
from fairseq.models.transformer import TransformerModel, base_architecture
from fairseq.sequence_scorer import SequenceScorer

from nar_plugin.generators.candidates import Teacher, best, chunks, normalised
from tests.tiny import BOS, EOS, PAD, SYMBOLS, dictionary, random_rows, sample_of, stacked, stand_in_task


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 7), (9, [1] * 7), (10, [1] * 7), (20, [2, 2, 2, 1]), (70, [7])])
def test_runs_hold_at_most_the_limit_and_at_least_one_row(limit: int, sizes: list[int]) -> None:
    rows = torch.arange(7)
    cuts = chunks(rows, 10, limit)
    assert [len(cut) for cut in cuts] == sizes and torch.equal(torch.cat(list(cuts)), rows)


def test_a_canvas_without_width_can_be_cut() -> None:
    assert [len(cut) for cut in chunks(torch.arange(3), 0, 2)] == [2, 1]


def test_scores_are_normalised_as_named() -> None:
    total, lengths = torch.tensor([-6.0, -6.0, -6.0]), torch.tensor([1, 4, 0])
    assert normalised(total, lengths, "sum", 3.0).tolist() == [-6.0, -6.0, -6.0]
    assert normalised(total, lengths, "mean", 3.0).tolist() == [-6.0, -1.5, -6.0]
    assert normalised(total, lengths, "lenpen", 0.5).tolist() == [-6.0, -3.0, -6.0]
    assert normalised(total, lengths, "lenpen", 0.0).tolist() == [-6.0, -6.0, -6.0]


def best_of(scores: torch.Tensor, owner: list[int], nbest: int) -> list[list[int]]:
    return best(scores, torch.tensor(owner), nbest)


def test_the_best_rows_are_those_of_their_own_sentence() -> None:
    scores = torch.tensor([-3.0, -1.0, -2.0, -1.0, -9.0, -1.0])
    assert best_of(scores, [0, 0, 0, 1, 1, 1], 1) == [[1], [3]]
    assert best_of(scores, [0, 0, 0, 1, 1, 1], 3) == [[1, 2, 0], [3, 5, 4]]
    assert best_of(scores, [0, 1, 2, 3, 4, 5], 1) == [[i] for i in range(6)]


def test_sentences_may_have_different_numbers_of_hypotheses() -> None:
    scores = torch.tensor([-3.0, -1.0, -2.0, -1.0, -9.0, -1.0])
    assert best_of(scores, [0, 1, 1, 1, 1, 2], 3) == [[0], [1, 3, 2], [5]]


def test_of_equals_the_first_wins_in_any_number() -> None:
    assert best_of(torch.zeros(200), [0] * 100 + [1] * 100, 100) == [list(range(100)), list(range(100, 200))]


@pytest.fixture(scope="module")
def transformer() -> Any:
    torch.manual_seed(3)
    sizes = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 1), ("embed_dim", 16))}
    sizes |= {
        f"{side}_{name}": n
        for side in ("encoder", "decoder")
        for name, n in (("ffn_embed_dim", 32), ("attention_heads", 2))
    }
    args = Namespace(**sizes, dropout=0.0, max_source_positions=64, max_target_positions=64)
    base_architecture(args)
    model = TransformerModel.build_model(args, stand_in_task())
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight *= 2.0
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("is_left", [True, False])
def test_a_teacher_agrees_with_fairseqs_own_scorer(transformer: Any, is_left: bool) -> None:
    sources, targets = random_rows(9, 8, seed=51), random_rows(9, 8, seed=52)
    sample = sample_of(sources, targets, is_left=is_left)
    sample["net_input"]["prev_output_tokens"] = torch.tensor(
        [[EOS, *row] + [PAD] * (sample["target"].size(1) - len(row) - 1) for row in targets]
    )
    total, lengths = Teacher(transformer, SYMBOLS).score(sample["net_input"], sample["target"], torch.arange(9))
    host = SequenceScorer(dictionary()).generate([transformer], sample)
    assert lengths.tolist() == [len(row) + 1 for row in targets]
    torch.testing.assert_close(
        total / lengths, torch.stack([group[0]["score"] for group in host]), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_a_teacher_scores_the_candidates_of_a_sentence_as_if_alone(transformer: Any) -> None:
    sources, candidates = random_rows(4, 8, seed=53), random_rows(12, 9, seed=54)
    teacher, net_input = Teacher(transformer, SYMBOLS), sample_of(sources, is_left=True)["net_input"]
    total, _ = teacher.score(net_input, stacked(candidates), torch.arange(4).repeat_interleave(3))
    for row, candidate in enumerate(candidates):
        alone = sample_of([sources[row // 3]])["net_input"]
        one, _ = teacher.score(alone, stacked([candidate]), torch.tensor([0]))
        torch.testing.assert_close(total[row], one[0], atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_a_teacher_reads_what_candidates_of_a_sentence_share_once(transformer: Any) -> None:
    """LANMT-22: equal texts of one sentence are one row, of two sentences two; the scores are as if each was read."""
    candidates = [[5, 6], [7], [5, 6], [5, 6], [5, 6], [8, 9]]
    net_input = sample_of([[4, 5, 6], [7, 8]])["net_input"]
    owner, rows = torch.arange(2).repeat_interleave(3), list[int]()
    hook = transformer.decoder.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    total, count = Teacher(transformer, SYMBOLS).score(net_input, stacked(candidates), owner)
    hook.remove()
    assert rows == [4] and count.tolist() == [3, 2, 3, 3, 3, 3]
    each = {name: x[owner] for name, x in net_input.items()}
    alone, _ = Teacher(transformer, SYMBOLS).score(each, stacked(candidates), torch.arange(6))
    torch.testing.assert_close(total, alone)


@torch.no_grad()
def test_stray_symbols_do_not_change_what_a_teacher_reads(transformer: Any) -> None:
    net_input = sample_of([[5, 6, 7]])["net_input"]
    forms = [[8, 9, 10, EOS], [8, 9, 10], [8, EOS, 9, EOS, 10, EOS], [BOS, 8, 9, 10, EOS]]
    only = torch.tensor([0])
    scores = [Teacher(transformer, SYMBOLS).score(net_input, torch.tensor([form]), only) for form in forms]
    assert {int(n) for _, n in scores} == {4}
    for total, _ in scores[1:]:
        torch.testing.assert_close(total, scores[0][0])


def test_a_score_that_is_no_number_never_wins() -> None:
    assert best_of(torch.tensor([-1.0, float("nan"), -2.0]), [0, 0, 0], 3) == [[0, 2, 1]]


@torch.no_grad()
def test_a_candidate_that_a_teacher_cannot_read_loses(transformer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net_input = sample_of([[5, 6, 7]])["net_input"]
    tokens = stacked([[5, 6, 7], [5, 6, 7, 8, 9, 10, 11]])
    teacher = Teacher(transformer, SYMBOLS)
    free, _ = teacher.score(net_input, tokens, torch.tensor([0, 0]))
    monkeypatch.setattr(transformer, "max_decoder_positions", lambda: 6)
    total, count = teacher.score(net_input, tokens, torch.tensor([0, 0]))
    assert float(total[0]) == pytest.approx(float(free[0]), abs=1e-5) and total[1] == -torch.inf
    assert count.tolist() == [4, 8]
