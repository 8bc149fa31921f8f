"""Mask-predict as a whole: its behaviours, by number (tests/BEHAVIOURS.md)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from nar_plugin.architectures.mask_predict import MaskPredictModel, MaskPredictProposals
from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.methods import noise, unmasking
from nar_plugin.methods.contract import UsageError
from tests import tiny
from tests.architectures import golden
from tests.generators.fairseq_adapter import host_decode
from tests.methods import test_unmasking as definitions
from tests.tiny import BOS, EOS, MASK, PAD, POSITIONS, UNK, criterion, decode, random_rows, sample_of, texts, tiny_model

SOURCES = random_rows(12, 9, seed=5)
TARGETS = random_rows(12, 9, seed=6)


@contextmanager
def canvases_seen(model: MaskPredictModel) -> Iterator[list[Tensor]]:
    """The ids that every decoder pass reads."""
    seen: list[Tensor] = []
    handle = model.target_embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    try:
        yield seen
    finally:
        handle.remove()


def starts(lengths: list[int], passes: int) -> MaskPredictProposals:
    return MaskPredictProposals(lengths=torch.tensor(lengths), plan=unmasking.Plan(passes=passes))


def encoded_sources(model: MaskPredictModel, rows: list[list[int]]) -> Any:
    return model.encode(tiny.net_input_of(rows))


@torch.no_grad()
def states(model: MaskPredictModel, lengths: list[int], passes: int, seed: int = 5) -> list[Any]:
    """The state after every pass over canvases of the given lengths."""
    encoded = encoded_sources(model, random_rows(len(lengths), 9, seed))
    result = [model.start(encoded, starts(lengths, passes))]
    for step in range(1, passes):
        result.append(model.refine(result[-1], step, passes - 1))
    return result


def loving(*symbols: int) -> MaskPredictModel:
    """A model to which the given symbols are often the most probable of all."""
    model = tiny_model()
    with torch.no_grad():
        model.target_embedding.tokens.weight[list(symbols)] *= 4.0
    return model


@torch.no_grad()
def test_a_prediction_depends_on_tokens_to_its_left_and_to_its_right() -> None:
    """CMLM-1: no causal mask: a change of any token changes every position's output."""
    model = tiny_model()
    encoded, canvas = encoded_sources(model, SOURCES[:1]), torch.tensor([[5, MASK, 7, 8, EOS]])
    before = model.decode(encoded, canvas, None)
    for place in range(canvas.size(1)):
        changed = model.decode(encoded, canvas.clone().index_fill_(1, torch.tensor([place]), 9), None)
        # behind a causal mask the change would be exactly zero
        assert bool(((changed - before).abs().amax(-1) > 1e-6).all())


@torch.no_grad()
def test_padding_of_a_canvas_changes_no_output() -> None:
    """CMLM-2: neither more padding nor other content there."""
    model = tiny_model()
    encoded, canvas = encoded_sources(model, SOURCES[:1]), torch.tensor([[5, MASK, 7, EOS]])
    before = model.decode(encoded, canvas, None)
    for filler in ([PAD], [PAD] * 9, [7, MASK, EOS]):
        wider = torch.cat([canvas, torch.tensor([filler])], 1)
        is_token = (torch.arange(wider.size(1)) < 4)[None]
        torch.testing.assert_close(model.decode(encoded, wider, is_token)[:, :4], before)


@torch.no_grad()
def test_padding_of_a_source_changes_neither_lengths_nor_tokens() -> None:
    """CMLM-3: the length and the outputs are the same for left and right padding of any width."""
    model, row = tiny_model(), [5, 6, 7, 8]
    plain = encoded_sources(model, [row])
    features = model.decode(plain, torch.tensor([[MASK] * 5]), None)
    for is_left in (False, True):
        padded = model.encode(tiny.net_input_of([row], is_left=is_left, width=11))
        torch.testing.assert_close(padded.length_log_probs, plain.length_log_probs)
        torch.testing.assert_close(model.decode(padded, torch.tensor([[MASK] * 5]), None), features)


@torch.no_grad()
def test_the_length_token_is_read_by_the_encoder_and_not_by_the_decoder() -> None:
    """CMLM-3: class 0 is impossible, and cross-attention sees the source's positions only."""
    model, outputs = tiny_model(), []
    model.encoder.register_forward_hook(lambda _, __, output: outputs.append(output))
    encoded = encoded_sources(model, SOURCES[:3])
    assert bool((encoded.length_log_probs[:, 0] == -torch.inf).all())
    assert bool(encoded.length_log_probs[:, 1:].isfinite().all())
    torch.testing.assert_close(encoded.length_log_probs.exp().sum(1), torch.ones(3))
    assert encoded.is_source.shape == tiny.stacked(SOURCES[:3]).shape
    for layer, memory in zip(model.decoder.layers, encoded.memory, strict=True):
        for seen, of_source in zip(memory, layer.cross_attention.memory(outputs[0][:, 1:]), strict=True):
            torch.testing.assert_close(seen, of_source)
    model.length_table.weight[0] += 1.0
    assert not torch.allclose(encoded_sources(model, SOURCES[:3]).length_log_probs, encoded.length_log_probs)


@torch.no_grad()
def test_the_length_logits_are_tied_to_the_length_table() -> None:
    """CMLM-3: logit N is the LENGTH state times row N."""
    model, seen = tiny_model(), []
    model.encoder.register_forward_hook(lambda _, __, out: seen.append(out[:, 0]))
    log_probs = encoded_sources(model, SOURCES[:3]).length_log_probs
    logits = seen[0] @ model.length_table.weight[1:].T
    torch.testing.assert_close(log_probs[:, 1:], logits.log_softmax(1))


def masked_in_training(model: MaskPredictModel, targets: list[list[int]], epochs: int) -> tuple[Tensor, Tensor]:
    """(epochs * B, T) canvases of training, and their targets."""
    canvas, gold = [], []
    for epoch in range(epochs):
        sample = sample_of(SOURCES[: len(targets)], targets, epoch=epoch)
        with torch.no_grad(), canvases_seen(model) as seen:
            tiny.terms_of(model, sample)
        canvas.append(seen[0])
        gold.append(sample["target"])
    return torch.cat(canvas), torch.cat(gold)


@pytest.mark.parametrize("release_compat", [False, True])
def test_training_masks_one_to_n_tokens_or_as_released(release_compat: bool) -> None:
    """CMLM-4: ``--release-compat`` reaches the masks; ``</s>`` is masked like any token, padding never."""
    model = tiny_model(release_compat=release_compat)
    canvas, gold = masked_in_training(model, [[5, 6, 7], [8, 9], [10]], 200)
    masked = canvas == MASK
    assert torch.equal(canvas[~masked], gold[~masked]) and not masked[gold == PAD].any()
    assert bool(masked[gold == EOS].any()) and not bool(masked[gold == EOS].all())
    four = masked[(gold != PAD).sum(1) == 4].sum(1)
    assert set(four.tolist()) == ({1, 2, 3} if release_compat else {1, 2, 3, 4})


def test_training_may_mask_a_span() -> None:
    """CMLM-4: ``--mask-span`` reaches the masks."""
    canvas, _ = masked_in_training(tiny_model(mask_span=True), [[5, 6, 7, 8, 9, 10]], 100)
    for row in (canvas == MASK).tolist():
        places = [i for i, is_masked in enumerate(row) if is_masked]
        assert places == list(range(places[0], places[0] + len(places)))


def test_training_masks_depend_on_the_key_alone() -> None:
    model = tiny_model()
    sample = sample_of(SOURCES, TARGETS)
    with torch.no_grad(), canvases_seen(model) as seen:
        for _ in range(2):
            tiny.terms_of(model, sample)
        alone = slice(4, 5)
        net_input = {name: value[alone] for name, value in sample["net_input"].items()}
        model(net_input, sample["target"][alone], keys=sample["columns"]["keys"][alone])
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0][alone], seen[2])


def glancing(ratio: float, **options: Any) -> MaskPredictModel:
    """A model in training that is shown so much of what it has wrong."""
    return tiny_model(glance=f"{ratio}:{ratio}", max_update=100, **options).train()


def seen_in_training(model: MaskPredictModel) -> tuple[list[Tensor], Any]:
    """The canvases of the passes of a loss, and its terms."""
    sample = sample_of(SOURCES, TARGETS)
    target = sample["target"]
    with canvases_seen(model) as seen:
        terms = model(sample["net_input"], target, keys=noise.training_keys(1, 1, sample["id"]))
    return seen, terms


@pytest.mark.parametrize("ratio", [0.3, 0.5, 1.0])
def test_glancing_shows_a_share_of_as_many_words_as_are_wrong(ratio: float) -> None:
    """CMLM-25: ⌊ratio · d⌋ words of the reference, anywhere; the others are masked, and they alone are taught."""
    model = glancing(ratio)
    (first, second), (tokens, _) = seen_in_training(model)
    target = sample_of(SOURCES, TARGETS)["target"]
    is_token = target != PAD
    assert first.eq(MASK).equal(is_token)
    with torch.no_grad():
        encoded = encoded_sources(model, SOURCES)
        said = model.project(model.decode(encoded, first, is_token)).argmax(-1)
    wrong = ((said != target) & is_token).sum(1)
    is_shown = is_token & (second != MASK)
    assert is_shown.sum(1).tolist() == [int(ratio * count + 1e-6) for count in wrong.tolist()] and is_shown.any()
    assert second[is_shown].equal(target[is_shown]) and tokens.target.equal(target[is_token & ~is_shown])


def test_both_passes_of_a_glance_have_the_same_dropout() -> None:
    """CMLM-25."""
    model = glancing(1e-6, dropout=0.5)  # of which no word is shown
    outputs: list[Tensor] = []
    handle = model.decoder.register_forward_hook(lambda _, __, output: outputs.append(output))
    seen_in_training(model)
    handle.remove()
    assert len(outputs) == 2 and outputs[0].equal(outputs[1]) and not outputs[0].requires_grad


def test_a_validation_sees_masks_alone_in_one_pass() -> None:
    """CMLM-25."""
    for model in (glancing(0.5).eval(), glancing(0.0)):
        (only,), (tokens, _) = seen_in_training(model)
        target = sample_of(SOURCES, TARGETS)["target"]
        assert only.eq(MASK).equal(target != PAD) and tokens.target.equal(target[target != PAD])


def test_a_first_glance_takes_no_gradient_away_under_autocast() -> None:
    model = glancing(0.5)
    with torch.autocast("cpu", torch.bfloat16):
        loss = tiny.criterion_of(model)(model, sample_of(SOURCES, TARGETS))[0]
    loss.backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in model.decoder.parameters())


@pytest.mark.parametrize("other", ["mask_span", "release_compat"])
def test_glancing_alone_says_what_is_masked(other: str) -> None:
    with pytest.raises(UsageError, match="--glance chooses what is masked"):
        tiny_model(glance="0.5:0.1", max_update=9, **{other: True})


@pytest.mark.parametrize("passes", [1, 2, 3, 10])
@pytest.mark.parametrize("candidates", [1, 3])
def test_t_passes_are_t_passes(passes: int, candidates: int) -> None:
    """CMLM-6: one encoder pass and exactly T decoder passes, none of them skipped."""
    model, calls = tiny_model(), []
    model.encoder.register_forward_hook(lambda *_: calls.append("encoder"))
    model.decoder.register_forward_hook(lambda *_: calls.append("decoder"))
    decode(model, sample_of(SOURCES), iterations=passes - 1, lengths=candidates)
    assert calls == ["encoder"] + ["decoder"] * passes


@torch.no_grad()
def test_one_pass_is_the_plain_argmax() -> None:
    """CMLM-6: T = 1 takes the best word of every position of a fully masked canvas."""
    model = tiny_model()
    for row, text in zip(SOURCES, texts(decode(model, sample_of(SOURCES))), strict=True):
        encoded = encoded_sources(model, [row])
        length = max(2, int(encoded.length_log_probs.argmax()))
        logits = model.project(model.decode(encoded, torch.full((1, length), MASK), None))[0]
        logits[:, [PAD, BOS]] = -torch.inf
        assert text == logits.argmax(-1).tolist()


@pytest.mark.parametrize("passes", [2, 3, 4, 10])
def test_every_pass_masks_as_many_as_the_paper_says(passes: int) -> None:
    """CMLM-7: max(1, floor(N (T - t) / T)) masks in pass t + 1, for every row of its own length."""
    model, lengths = tiny_model(), list(range(1, 30))
    with canvases_seen(model) as seen:
        states(model, lengths, passes)
    assert len(seen) == passes
    for t, canvas in enumerate(seen):
        expected = [max(1, n * (passes - t) // passes) for n in lengths]
        assert (canvas == MASK).sum(1).tolist() == expected


def test_what_is_not_masked_stays_bit_for_bit() -> None:
    """CMLM-8: tokens and scores of observed positions survive a pass; masked positions get new ones."""
    model, lengths = tiny_model(), [3, 17, 9, 30]
    with canvases_seen(model) as seen:
        steps = states(model, lengths, 6)
    for before, after, canvas in zip(steps[:-1], steps[1:], seen[1:], strict=True):
        observed = canvas != MASK
        assert torch.equal(after.tokens[observed], before.tokens[observed])
        assert torch.equal(after.scores[observed], before.scores[observed])
        assert bool((after.scores != before.scores)[~observed].any())


def test_a_pass_leaves_the_state_before_it_alone() -> None:
    model = tiny_model()
    first = states(model, [3, 17, 9], 4)[0]
    tokens, scores = first.tokens.clone(), first.scores.clone()
    with torch.no_grad():
        model.refine(first, 1, 3)
    assert torch.equal(first.tokens, tokens) and torch.equal(first.scores, scores)


def test_the_least_confident_positions_are_masked() -> None:
    """CMLM-9: what a pass masks are the lowest scores of the pass before, ties from the left, padding never."""
    model, lengths = tiny_model(), [3, 17, 9, 30]
    with canvases_seen(model) as seen:
        steps = states(model, lengths, 6)
    for t, (before, canvas) in enumerate(zip(steps, seen[1:], strict=False), 1):
        for n, scores, row in zip(lengths, before.scores.tolist(), canvas.tolist(), strict=True):
            order = sorted(range(n), key=lambda i, s=scores: (round(s[i] / unmasking.GRID), i))
            expected = set(order[: max(1, n * (6 - t) // 6)])
            assert {i for i, token in enumerate(row) if token == MASK} == expected


def test_saturated_predictions_are_masked_from_the_left() -> None:
    """CMLM-9: where every probability is 1, neither padding nor chance is chosen (fairseq masks ``<s>`` there)."""
    model = tiny_model()
    with torch.no_grad():
        model.target_embedding.tokens.weight[7] *= 100.0
        model.decoder.layers[-1].around_feed.norm.bias += model.target_embedding.tokens.weight[7]
    with canvases_seen(model) as seen:
        steps = states(model, [12, 5, 2], 4)
    assert not steps[0].scores.any() and set(steps[0].tokens.flatten().tolist()) == {7, PAD}
    for t, canvas in enumerate(seen):
        for n, row in zip([12, 5, 2], canvas.tolist(), strict=True):
            masked = max(1, n * (4 - t) // 4)
            assert row[:n] == [MASK] * masked + [7] * (n - masked) and set(row[n:]) <= {PAD}


@pytest.mark.parametrize("passes", range(1, 21))
def test_no_output_holds_a_mask_a_pad_or_a_begin(passes: int) -> None:
    """CMLM-10: for every length from 1 to 50, though the model would like to say pad and ``<s>``."""
    lengths = list(range(1, 51))
    last = states(loving(PAD, BOS), lengths, passes)[-1]
    for n, row in zip(lengths, last.tokens.tolist(), strict=True):
        assert not {MASK, PAD, BOS} & set(row[:n]) and set(row[n:]) <= {PAD}


@torch.no_grad()
def test_the_model_of_the_test_above_would_say_pad_and_begin() -> None:
    """CMLM-10: without the ban the most probable words are these: the test above is none of an empty set."""
    model = loving(PAD, BOS)
    canvas = torch.full((12, 50), MASK)
    said = model.project(model.decode(encoded_sources(model, SOURCES), canvas, None)).argmax(-1)
    assert {PAD, BOS} <= set(said.flatten().tolist())


def every_candidate(model: MaskPredictModel, row: list[int], passes: int, n: int) -> list[tuple[list[int], float]]:
    """Each length decoded in a batch of its own, with its mean log-probability."""
    encoded = encoded_sources(model, [row])
    best = sorted(range(1, tiny.POSITIONS + 1), key=lambda k: -float(encoded.length_log_probs[0, k]))[:n]
    result = []
    for length in best:
        state = model.start(encoded, starts([max(2, length)], passes))
        for step in range(1, passes):
            state = model.refine(state, step, passes - 1)
        result.append((state.tokens[0].tolist(), float(state.scores[0].double().mean())))
    return result


@torch.no_grad()
@pytest.mark.parametrize("passes", [1, 4])
def test_the_best_candidate_has_the_highest_mean_log_probability(passes: int) -> None:
    """CMLM-11: arg max of the sum of log p over N, recomputed candidate by candidate."""
    model, winners = tiny_model(), set()
    for row, group in zip(SOURCES, decode(model, sample_of(SOURCES), iterations=passes - 1, lengths=5), strict=True):
        candidates = every_candidate(model, row, passes, 5)
        best = max(range(5), key=lambda i: candidates[i][1])
        winners.add(best)
        assert group[0]["tokens"].tolist() == candidates[best][0]
        assert float(group[0]["score"]) == pytest.approx(candidates[best][1], abs=1e-5)
        assert float(group[0]["score"]) == pytest.approx(float(group[0]["positional_scores"].mean()), abs=1e-6)
    assert len(winners) > 2


def with_lengths(model: MaskPredictModel, best_first: list[int]) -> MaskPredictModel:
    """The same weights, with the length softmax replaced by a typed-in order."""
    encode = model.encode

    def with_typed_lengths(*args: Any, **kwargs: Any) -> Any:
        encoded = encode(*args, **kwargs)
        encoded.length_log_probs.fill_(-50.0)
        for rank, length in enumerate(best_first):
            encoded.length_log_probs[:, length] = -float(rank)
        return encoded

    model.encode = with_typed_lengths  # type: ignore[method-assign]
    return model


def test_equal_candidates_change_nothing() -> None:
    """CMLM-11: lengths 1 and 2 are both decoded at 2; the repeated candidate changes no result."""
    model = with_lengths(tiny_model(), [1, 2])
    one, two = (decode(model, sample_of(SOURCES), iterations=2, lengths=n) for n in (1, 2))
    assert texts(one) == texts(two) and {len(text) for text in texts(one)} == {2}
    both = decode(model, sample_of(SOURCES), iterations=2, lengths=2, nbest=2)
    assert all(group[0]["tokens"].tolist() == group[1]["tokens"].tolist() for group in both)


@torch.no_grad()
def test_candidates_are_the_most_probable_lengths() -> None:
    """CMLM-12: the canvases are those of the n best classes of the length softmax."""
    model = tiny_model()
    for n in (1, 3):
        with canvases_seen(model) as seen:
            decode(model, sample_of(SOURCES), lengths=n)
        widths = (seen[0] == MASK).sum(1).view(-1, n).tolist()
        best = encoded_sources(model, SOURCES).length_log_probs.topk(n, 1).indices.clamp(min=2).tolist()
        assert widths == best


def test_gold_lengths_make_a_window_around_the_references() -> None:
    """CMLM-13: n canvases around the reference's length, end symbol counted."""
    model, sample = tiny_model(), sample_of(SOURCES, TARGETS)
    for n in (1, 4):
        with canvases_seen(model) as seen:
            hypotheses = decode(model, sample, lengths=n, gold_target_len=True)
        widths = (seen[0] == MASK).sum(1).view(-1, n).tolist()
        for target, row in zip(TARGETS, widths, strict=True):
            centre = len(target) + 1
            window = range(centre - (n - 1) // 2, centre + n // 2 + 1)
            assert sorted(row) == [max(2, length) for length in window] and row[0] == max(2, centre)
        if n == 1:
            assert [len(text) for text in texts(hypotheses)] == [max(2, len(target) + 1) for target in TARGETS]


def batches_of(rows: list[list[int]], size: int, is_left: bool) -> Iterator[dict[str, Any]]:
    for first in range(0, len(rows), size):
        yield sample_of(rows[first : first + size], is_left=is_left)


@pytest.mark.parametrize("candidates", [1, 3])
def test_a_hypothesis_does_not_depend_on_its_batch(candidates: int) -> None:
    """CMLM-14: alone, by seven, by 64, backwards, left or right padded: the same tokens, the same scores."""
    model, rows = tiny_model(), random_rows(64, 9, seed=8)
    options = {"iterations": 3, "lengths": candidates, "nbest": candidates}
    together = decode(model, sample_of(rows), **options)
    for size, is_left in [(1, False), (7, False), (7, True), (64, True)]:
        pieces = [group for sample in batches_of(rows, size, is_left) for group in decode(model, sample, **options)]
        tiny.assert_same(pieces, together)
    tiny.assert_same(decode(model, sample_of(rows[::-1]), **options)[::-1], together)


RULES: dict[str, list[float | None]] = {
    "linear": [None],
    "cosine": [None],
    "threshold": [0.3, 0.9],
    "entropy": [0.5, 4.0],
    "gap": [0.15, 0.4],
}
"""By rule, thresholds under which rows end early and late."""
UNMASKINGS = [(rule, value) for rule, values in RULES.items() for value in values]
ENDING = [(rule, value) for rule, value in UNMASKINGS if value is not None]


def passes_of(hypotheses: list[list[dict[str, Any]]]) -> list[int]:
    return [group[0]["steps"] + 1 for group in hypotheses]


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize(("rule", "value"), UNMASKINGS)
def test_under_every_rule_a_hypothesis_and_its_passes_do_not_depend_on_its_batch(
    rule: str, value: float | None, candidates: int
) -> None:
    """CMLM-14, CMLM-23: rows that end beside others, and those that go on, are as they would be alone."""
    model, rows = tiny_model(), random_rows(40, 9, seed=8)
    options = {"iterations": 12, "lengths": candidates, "unmask": rule, "unmask_threshold": value}
    together = tiny.decode_in_any_batch(model, rows, **options)
    tiny.assert_same(decode(model, sample_of(rows[::-1]), **options)[::-1], together)
    tiny.assert_same(decode(model, sample_of(rows), max_candidate_tokens=30, **options), together)
    assert (len(set(passes_of(together))) > 1) == (value is not None), "they end together, so this tests little"


@torch.no_grad()
def decoded_plainly(model: MaskPredictModel, row: list[int], rule: str, value: float, passes: int) -> tuple[Any, ...]:
    """A sentence alone, all positions projected in every pass: its tokens, their scores, its passes."""
    encoded = encoded_sources(model, [row])
    n = max(2, int(encoded.length_log_probs.argmax()))
    tokens, scores, evidence, masked = [MASK] * n, [0.0] * n, [0.0] * n, set(range(n))
    for step in range(1, passes + 1):
        canvas = torch.tensor([[MASK if i in masked else tokens[i] for i in range(n)]])
        log_probs = model.project(model.decode(encoded, canvas, None))[0].log_softmax(-1)
        log_probs[:, [PAD, BOS]] = -torch.inf
        for i in masked:
            best = log_probs[i].sort(descending=True)
            tokens[i], scores[i] = int(best.indices[0]), float(best.values[0])
            words = best.values[:-2]
            evidence[i] = float(-(words.exp() * words).sum() if rule == "entropy" else words[0] - words[1])
        masked = definitions.ORACLES[rule](scores, evidence, masked, value, step, passes)
        if not masked:
            return tokens, scores, step
    return tokens, scores, passes


@pytest.mark.parametrize("passes", [1, 2, 6, 15])
@pytest.mark.parametrize(("rule", "value"), UNMASKINGS)
def test_the_loop_does_what_a_rule_says_pass_by_pass(rule: str, value: float | None, passes: int) -> None:
    """CMLM-22, CMLM-23: each sentence held against a loop over positions; the bound commits what is left."""
    model, sources = tiny_model(), SOURCES[:8]
    found = decode(model, sample_of(sources), iterations=passes - 1, unmask=rule, unmask_threshold=value)
    for row, (hypothesis,), made in zip(sources, found, passes_of(found), strict=True):
        tokens, scores, wanted = decoded_plainly(model, row, rule, value or 0.0, passes)
        assert (hypothesis["tokens"].tolist(), made) == (tokens, wanted)
        torch.testing.assert_close(hypothesis["positional_scores"], torch.tensor(scores), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("passes", [1, 2, 3, 5, 20])
@pytest.mark.parametrize(("rule", "value"), UNMASKINGS)
def test_no_output_of_a_rule_holds_a_mask(rule: str, value: float | None, passes: int) -> None:
    """CMLM-10, CMLM-23: whatever the bound leaves masked is committed."""
    options = {"iterations": passes - 1, "unmask": rule, "unmask_threshold": value}
    found = decode(loving(PAD, BOS), sample_of(random_rows(30, 9, seed=8)), **options)
    assert not {MASK, PAD, BOS} & {token for text in texts(found) for token in text}
    assert max(passes_of(found)) <= passes


@pytest.mark.parametrize("rule", RULES)
def test_with_a_bound_of_one_pass_all_rules_are_the_same(rule: str) -> None:
    """CMLM-24: the first pass is everybody's."""
    model, sample = tiny_model(), sample_of(SOURCES)
    tiny.assert_same(decode(model, sample, unmask=rule), decode(model, sample))


def test_the_ends_of_each_rule_are_one_word_a_pass_or_one_pass() -> None:
    """CMLM-24: through the whole loop, with a bound that no sentence comes to."""
    model, sample = tiny_model(), sample_of(SOURCES)

    def decoded(rule: str, value: float | None = None) -> Any:
        return decode(model, sample, iterations=POSITIONS, unmask=rule, unmask_threshold=value)

    one_pass = decode(model, sample)
    for rule, value in (("threshold", 0.0), ("entropy", 1e6), ("gap", 0.0)):
        tiny.assert_same(decoded(rule, value), one_pass)
    for rule, value in (("threshold", 1.0), ("entropy", 0.0)):
        found = decoded(rule, value)
        assert passes_of(found) == [len(text) for text in texts(found)]
    never, linear = decoded("gap", 1e30), decoded("linear")
    assert texts(never) == texts(linear) and passes_of(never) == passes_of(linear) == [POSITIONS + 1] * len(SOURCES)
    assert all(torch.equal(a[0]["positional_scores"], b[0]["positional_scores"]) for a, b in zip(never, linear))


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize(("rule", "value"), ENDING)
def test_passes_are_counted_a_sentence(rule: str, value: float, candidates: int) -> None:
    """CMLM-23: in the hypotheses and in the report, where the rows that have ended are counted no more."""
    model = tiny_model()
    options = {"iterations": 12, "lengths": candidates, "nbest": candidates, "unmask": rule, "unmask_threshold": value}
    generator = RefinementGenerator(model, model.symbols, tiny.options_of(model, **options))
    found = [h["steps"] + 1 for group in generator.generate([model], sample_of(SOURCES)) for h in group]
    assert generator.counters.rows["decoder"] == sum(found) < max(found) * len(found)
    assert generator.counters.calls["decoder"] == max(found)


def test_a_gold_unknown_word_is_no_mask() -> None:
    """CMLM-15: in training an observed ``<unk>`` stays in the canvas, a masked one is predicted and scored."""
    model = tiny_model()
    canvas, gold = masked_in_training(model, [[5, UNK, 7], [UNK, UNK]], 60)
    unknown = gold == UNK
    assert set(canvas[unknown].tolist()) == {UNK, MASK}
    sample = sample_of(SOURCES[:2], [[5, UNK, 7], [UNK, UNK]])
    tokens = tiny.terms_of(model, sample)[0]
    with canvases_seen(model) as seen, torch.no_grad():
        tiny.terms_of(model, sample)
    assert tokens.target.tolist() == sample["target"][seen[0] == MASK].tolist() and UNK in tokens.target.tolist()


def test_a_predicted_unknown_word_is_final() -> None:
    """CMLM-15: ``<unk>`` is kept or masked by its confidence alone, as any word, and is not predicted for ever."""
    model, lengths = loving(UNK), [8, 12, 20]
    with canvases_seen(model) as seen:
        steps = states(model, lengths, 5)
    pairs = zip(steps[:-1], seen[1:], strict=True)
    kept = sum(int(((canvas == UNK) & (before.tokens == UNK)).sum()) for before, canvas in pairs)
    assert kept > 2, "hardly a pass observed an <unk>: the test shows nothing"
    for t, canvas in enumerate(seen):
        assert (canvas == MASK).sum(1).tolist() == [max(1, n * (5 - t) // 5) for n in lengths]
    assert UNK in steps[-1].tokens.flatten().tolist()


@torch.no_grad()
def test_targets_longer_than_255_are_decoded() -> None:
    """CMLM-17: lengths have as many classes as there are positions (fairseq clamps them at 255)."""
    model = with_lengths(tiny_model(longest=400), [300, 400])
    best = decode(model, sample_of(SOURCES[:2]), iterations=1, lengths=2, nbest=2)
    assert {len(hypothesis["tokens"]) for group in best for hypothesis in group} == {300, 400}
    sample = sample_of(SOURCES[:1], random_rows(1, 280, seed=2, shortest=280))
    terms = tiny.terms_of(model, sample)
    assert terms[1].target.tolist() == [281] and terms[1].logits.size(1) == 401
    assert [len(text) for text in texts(decode(model, sample, gold_target_len=True))] == [281]


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("passes", [1, 2, 4, 10])
def test_fairseqs_own_loop_gives_the_same_hypotheses(passes: int, candidates: int) -> None:
    """CMLM-18: T passes are fairseq's max_iter = T - 1 with its early stop forced off, token by token."""
    model, calls = tiny_model(), []
    model.decoder.register_forward_hook(lambda *_: calls.append(1))
    sample = sample_of(SOURCES, is_left=True)
    ours = decode(model, sample, iterations=passes - 1, lengths=candidates)
    assert len(calls) == passes
    calls.clear()
    hosts = host_decode(model, tiny.dictionary(), sample, passes, candidates)
    assert len(calls) == passes
    assert texts(ours) == texts(hosts)
    for a, b in zip(ours, hosts, strict=True):
        torch.testing.assert_close(a[0]["score"], b[0]["score"], atol=1e-5, rtol=1e-5)


def test_everything_runs_on_the_cpu() -> None:
    """CMLM-19: a loss, its gradients and a decode, with no other device in sight."""
    model, sample = tiny_model(), sample_of(SOURCES, TARGETS)
    loss, size, _ = criterion()(model, sample)
    (loss / size).backward()
    hypotheses = decode(model, sample, iterations=3, lengths=2)
    tensors = [*model.parameters(), loss, *(h[0]["tokens"] for h in hypotheses), *(h[0]["score"] for h in hypotheses)]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert all(weight.grad is not None and bool(weight.grad.isfinite().all()) for weight in model.parameters())


def two_ways_to_say_it(count: int, seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Each source has two targets equally right: itself, and itself one place later behind another word.

    A model that says every word independently mixes the two, and says words twice.
    """
    sources = random_rows(count, 9, seed, shortest=6, words=12)
    early = [row + [18] for row in sources]
    late = [[19, *row] for row in sources]
    return sources * 2, early + late


def repetition(hypotheses: list[list[int]]) -> float:
    """Words equal to their left neighbour, in a hundred words."""
    words = [[w for w in row if w != EOS] for row in hypotheses]
    repeated = sum(a == b for row in words for a, b in zip(row, row[1:], strict=False))
    return 100 * repeated / sum(map(len, words))


def test_repetition_falls_with_the_passes() -> None:
    """CMLM-20: on a corpus of two modes, one pass mixes them, each further pass less."""
    sources, targets = two_ways_to_say_it(60, seed=3)
    model = tiny_model(is_lively=False)
    tiny.train(model, sample_of(sources, targets), steps=400, rate=8e-3)
    sample, rates = sample_of(sources[:60], targets[:60]), {}
    for passes in (1, 2, 4):
        rates[passes] = repetition(texts(decode(model, sample, iterations=passes - 1, gold_target_len=True)))
    assert rates[1] > rates[2] > rates[4] and rates[1] > 1.5 * rates[4], rates


def test_a_tiny_model_learns_sixteen_pairs_by_heart() -> None:
    torch.manual_seed(1)
    sources, targets = random_rows(16, 9, seed=3, shortest=3), random_rows(16, 9, seed=4, shortest=3)
    model = tiny_model(is_lively=False)
    sample = sample_of(sources, targets)
    tiny.train(model, sample, steps=400, rate=1e-2)
    correct = scored = 0
    for epoch in range(1000, 1010):
        keys = noise.training_keys(1, epoch, sample["id"])
        with torch.no_grad():
            sums = criterion()(model, {**sample, "columns": {"keys": keys}})[2]
        correct, scored = correct + int(sums["words/all/correct"]), scored + sums["words/all/count"]
    assert correct >= 0.99 * scored and scored > 500
    for iterations in (0, 3):
        assert texts(decode(model, sample, iterations=iterations)) == [[*row, EOS] for row in targets]


@torch.no_grad()
def test_a_reference_is_scored_from_a_fully_masked_canvas() -> None:
    model = tiny_model()
    encoded = encoded_sources(model, SOURCES[:3])
    target = tiny.stacked(TARGETS[:3])
    scored = model.score(encoded, target)
    assert scored.kind == "exact"
    for i, row in enumerate(TARGETS[:3]):
        n = len(row) + 1
        alone = encoded_sources(model, SOURCES[i : i + 1])
        log_probs = model.project(model.decode(alone, torch.full((1, n), MASK), None))[0].log_softmax(-1)
        expected = log_probs[torch.arange(n), torch.tensor([*row, EOS])]
        torch.testing.assert_close(scored.tokens[i, :n], expected, atol=1e-5, rtol=1e-5)
        assert not scored.tokens[i, n:].any()
        torch.testing.assert_close(scored.extra[i], alone.length_log_probs[0, n])


def test_names_shapes_and_counts_of_parameters_are_those_written_down() -> None:
    """Old checkpoints load only so. Regenerate: python -m tests.architectures.golden --write"""
    assert json.loads(golden.FILE.read_text(encoding="utf-8")) == golden.current()


@pytest.mark.parametrize(("arch", "layers", "dim", "hidden"), [("small", 4, 128, 256), ("tiny", 1, 32, 64)])
def test_the_count_of_parameters_is_that_of_the_description(arch: str, layers: int, dim: int, hidden: int) -> None:
    attention, feed, norm = 4 * (dim * dim + dim), 2 * dim * hidden + dim + hidden, 2 * dim
    blocks = layers * (attention + feed + 2 * norm) + layers * (2 * attention + feed + 3 * norm)
    # source, target and mask, LENGTH and its 64 classes; the tiny one learns the positions of both sides, the small one
    # has fixed ones, and a last norm in each stack
    tables = 100 + 101 + 65
    blocks += 2 * 64 * dim if arch == "tiny" else 2 * norm
    assert golden.count(f"mask_predict_{arch}") == blocks + tables * dim
    assert golden.count(f"mask_predict_{arch}", share_all_embeddings=True) == blocks + (tables - 100) * dim


def test_every_sentence_has_its_own_dropout_of_the_length_token() -> None:
    model = tiny_model()
    model.length_dropout.p, model.training, model.length_dropout.training = 0.5, True, True
    seen: list[torch.Tensor] = []
    model.length_dropout.register_forward_hook(lambda module, inputs, output: seen.append(output))
    encoded_sources(model, SOURCES[:2])
    assert not torch.equal(seen[0][0], seen[0][1])


def test_no_output_layer_has_the_mask() -> None:
    model = tiny_model()
    assert model.project(torch.zeros(1, 32)).size(1) == MASK == model.target_embedding.tokens.num_embeddings - 1


def test_one_table_serves_both_sides_when_asked() -> None:
    model = tiny_model(share_all_embeddings=True)
    assert model.source_embedding.tokens is model.target_embedding.tokens
    assert tiny_model().source_embedding.tokens is not tiny_model().target_embedding.tokens


def test_initial_weights_are_those_of_bert() -> None:
    weights = {
        name: w.detach() for name, w in tiny_model(is_lively=False, words=500).named_parameters() if w.dim() == 2
    }
    assert all(abs(float(w.std()) - 0.02) < 0.002 for w in weights.values() if w.numel() > 2000)
    assert len([w for w in weights.values() if w.numel() > 2000]) > 5


OTHER_MODELS = {
    "initialization": "xavier",
    "positions": "sinusoidal",
    "normalize_before": True,
    "activation_fn": "relu",
}


@torch.no_grad()
@pytest.mark.parametrize("name", OTHER_MODELS)
def test_an_option_of_the_network_makes_another_network(name: str) -> None:
    usual, other = tiny_model(), tiny_model(**{name: OTHER_MODELS[name]})
    lengths = [encoded_sources(model, SOURCES[:2]).length_log_probs for model in (usual, other)]
    assert not torch.allclose(*lengths, atol=1e-3)


def test_under_glorots_initialisation_tokens_are_scaled_by_the_root_of_the_width() -> None:
    assert tiny_model(initialization="xavier").target_embedding.scale == 32**0.5
    assert tiny_model().target_embedding.scale == 1.0


@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "activation_dropout"])
def test_every_dropout_drops_in_training_and_only_there(name: str) -> None:
    model = tiny_model(**{name: 0.5})
    once, again = (encoded_sources(model, SOURCES[:2]).length_log_probs for _ in range(2))
    assert torch.equal(once, again)
    model.train()
    once, again = (encoded_sources(model, SOURCES[:2]).length_log_probs for _ in range(2))
    assert not torch.equal(once, again)


def test_a_preset_fills_in_only_what_was_left_out() -> None:
    assert tiny.config("mask_predict_small", encoder_layers=2).encoder_layers == 2
    assert tiny.config("mask_predict_small").encoder_layers == 4


def test_another_task_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="--arch mask_predict_tiny needs --task translation_nar"):
        MaskPredictModel.build_model(tiny.config(), object())


def test_shared_embeddings_need_one_dictionary() -> None:
    task = tiny.StandInTask(tiny.dictionary(5), tiny.dictionary(6))
    with pytest.raises(UsageError, match="--share-all-embeddings needs a joint dictionary"):
        MaskPredictModel.build_model(tiny.config(share_all_embeddings=True), task)


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match="--encoder-embed-dim 33"):
        MaskPredictModel.build_model(tiny.config(encoder_embed_dim=33), tiny.stand_in_task())


def test_the_call_of_another_criterion_is_refused_in_one_line() -> None:
    net_input = sample_of(SOURCES)["net_input"]
    with pytest.raises(UsageError, match="--criterion token_length"):
        tiny_model()(**net_input, prev_output_tokens=torch.zeros(1, 1))


def test_the_counted_passes_are_those_that_the_model_declares() -> None:
    model = tiny_model()
    generator = RefinementGenerator(model, model.symbols, tiny.options_of(model))
    with torch.no_grad():
        generator.generate([model], sample_of(SOURCES))
    assert set(generator.counters.calls) == {"encoder", "decoder"}
    assert {part.counts_as for part in model.passes.values()} == {"encoder", "decoder", ""}
