"""Deterministic iterative refinement as a whole: its behaviours, by number (tests/BEHAVIOURS.md)."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nar_plugin.architectures.iterative_refinement import (
    LONGEST_OFFSET,
    IterativeRefinementProposals,
    IterativeRefinementState,
)
from nar_plugin.generators import oracle
from nar_plugin.methods import iterative_refinement as method
from nar_plugin.methods import noise
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.terms import Classes, Tokens
from nar_plugin.methods.transformer import others
from tests import tiny
from tests.tiny import BOS, EOS, PAD, criterion, decode, random_rows, sample_of, texts

SOURCES = random_rows(12, 9, seed=5)
TARGETS = random_rows(12, 9, seed=6)


def lee(**options: Any) -> Any:
    return tiny.tiny_model(arch="iterative_refinement_tiny", **options)


def training(**options: Any) -> Any:
    """A model that trains, without dropout: only the corruption and the coin are random."""
    return lee(**options).train()


def terms(model: Any, *, epoch: int = 1, rows: int = 12) -> dict[str, Any]:
    sample = sample_of(SOURCES[:rows], TARGETS[:rows], epoch=epoch)
    return {t.name: t for t in tiny.terms_of(model, sample)}


def losses(model: Any, **options: Any) -> dict[str, float]:
    """The summed cross-entropy of every term, in nats, unweighted."""
    found = terms(model, **options)
    return {name: float(F.cross_entropy(t.logits, t.target, reduction="sum").detach()) for name, t in found.items()}


def encoded_sources(model: Any, rows: list[list[int]] = SOURCES) -> Any:
    return model.encode(tiny.net_input_of(rows))


@torch.no_grad()
def run_passes(model: Any, source: list[int], length: int, passes: int) -> list[Tensor]:
    """The words of one sentence after every pass, by the parts of the model and no loop of ours."""
    encoded = encoded_sources(model, [source])
    hidden, outputs = model.first_pass(encoded, torch.tensor([length]), None, length), []
    for k in range(passes):
        logits = model.project(hidden, step=k)
        logits[..., [PAD, BOS]] = -torch.inf
        outputs.append(logits.argmax(-1)[0])
        hidden = model.next_pass(encoded, outputs[-1][None], hidden, None)
    return outputs


@pytest.mark.parametrize("options", [{}, {"decode_samples": 2}])
def test_a_hypothesis_does_not_depend_on_its_batch(options: dict[str, int]) -> None:
    """LEE-1: alone, in a batch, left or right padded: the same words, scores and length."""
    model, rows = lee(), random_rows(16, 9, seed=8)
    chosen: dict[str, Any] = {"iterations": 4, "lengths": 3, "nbest": 3, **options}
    together = tiny.decode_in_any_batch(model, rows, **chosen)
    assert len({len(group[0]["tokens"]) for group in together}) > 2


@torch.no_grad()
@pytest.mark.parametrize("length_head", ["mlp", "linear"])
def test_padding_of_a_source_changes_no_length(length_head: str) -> None:
    """LEE-1: the means of the length head leave padding out (the released code's do not)."""
    model = lee(length_head=length_head)
    together = encoded_sources(model).offset_log_probs
    for row, among in zip(SOURCES, together, strict=True):
        torch.testing.assert_close(encoded_sources(model, [row]).offset_log_probs[0], among)


@pytest.mark.parametrize("options", [{}, {"decode_samples": 3}])
def test_decoding_twice_gives_the_same(options: dict[str, int]) -> None:
    """LEE-2: nothing is random but what the seed decides."""
    once, again = (texts(decode(lee(), sample_of(SOURCES), iterations=3, **options)) for _ in range(2))
    assert once == again


def test_nothing_that_is_given_is_changed() -> None:
    """LEE-3: neither a batch, nor what was encoded, nor the state before a pass."""
    model, sample = training(), sample_of(SOURCES, TARGETS)
    given = sample["net_input"]["src_tokens"], sample["target"]
    before = [x.clone() for x in given]
    tiny.terms_of(model, sample)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    model.eval()
    with torch.no_grad():
        encoded = encoded_sources(model)
        copied, memory = encoded.copied.clone(), encoded.memories[1][0][0].clone()
        state = started(model, encoded)
        words, hidden = state.words.clone(), state.hidden.clone()
        model.refine(state, 1, 2)
    assert torch.equal(encoded.copied, copied) and torch.equal(encoded.memories[1][0][0], memory)
    assert torch.equal(state.words, words) and torch.equal(state.hidden, hidden)


def started(model: Any, encoded: Any, samples: int = 0) -> IterativeRefinementState:
    lengths = 2 + torch.arange(len(encoded.keys)) % 7
    keys = torch.arange(len(lengths)) if samples else None
    return model.start(encoded, IterativeRefinementProposals(lengths=lengths, samples=samples, keys=keys))


@torch.no_grad()
def test_neither_pads_nor_begins_are_predicted_and_lengths_are_as_planned() -> None:
    """LEE-4: though they are the most probable."""
    model = lee()
    for table in (model.target_embedding.tokens, model.first_output):
        table.weight[[PAD, BOS]] *= 6.0
    encoded, seen = encoded_sources(model), set()
    for samples in (0, 2):
        state = started(model, encoded, samples)
        for step in range(1, 6):
            seen |= set(model.project(state.hidden, step=step - 1).argmax(-1).flatten().tolist())
            for words in (state.tokens, *state.words.unbind(1)):
                assert not (((words == PAD) | (words == BOS)) & state.is_token).any()
                assert bool((words == PAD)[~state.is_token].all())
            state = model.refine(state, step, 5)
    assert {PAD, BOS} <= seen, "the model never wanted to"


def attention_weights(model: Any, kind: str, rows: list[list[int]]) -> Tensor:
    """(B, H, T, T) of the first layer of decoder 2 in the second pass over two equally long targets."""
    layer, seen = model.decoder.later.layers[0], []
    part = getattr(layer, kind)
    handle = part.register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    with torch.no_grad():
        encoded = encoded_sources(model, rows)
        state = model.refine(started_at(model, encoded, 6), 1, 1)
    handle.remove()
    assert state.tokens.size(1) == 6
    x, second = seen[0][:2]
    if kind == "self_attention":
        query, key, _ = part.query_key_value(x).chunk(3, -1)
    else:
        query, key = (y[None].expand(len(x), -1, -1) for y in part.query_key(second).chunk(2, -1))
    query, key = (y.unflatten(-1, (part.heads, -1)).transpose(1, 2) for y in (query, key))
    return (query @ key.transpose(2, 3) / query.size(-1) ** 0.5).softmax(-1)


def started_at(model: Any, encoded: Any, length: int) -> IterativeRefinementState:
    return model.start(encoded, starts_of([length] * len(encoded.keys)))


def starts_of(lengths: list[int]) -> Any:
    return IterativeRefinementProposals(lengths=torch.tensor(lengths), samples=0, keys=None)


def test_attention_by_position_does_not_depend_on_the_sentence() -> None:
    """LEE-5: while self-attention does."""
    model, rows = lee(), SOURCES[:2]
    by_position = attention_weights(model, "positional_attention", rows)
    by_content = attention_weights(model, "self_attention", rows)
    assert torch.equal(by_position[0], by_position[1]) and by_position.std() > 1e-3
    assert not torch.allclose(by_content[0], by_content[1], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 2, 6])
def test_a_masked_diagonal_hides_a_position_from_itself(length: int) -> None:
    """LEE-6: rows still sum to 1, and a sentence of one token is no NaN."""
    model, encoded = lee(mask_diagonal=True), encoded_sources(lee(), SOURCES[:2])
    is_token = torch.arange(8) < torch.tensor([[length], [8]])
    seen = others(is_token)
    assert torch.equal(seen[0, :, length:], torch.zeros_like(seen[0, :, length:])) and bool(seen.any(2).all())
    assert not seen[:, range(length), range(length)].any() if length > 1 else bool(seen[0, 0, 0])
    weights = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf).softmax(-1)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 8))
    states = model.first_pass(encoded_sources(model, SOURCES[:2]), torch.tensor([length, 8]), is_token, 8)
    assert bool(states.isfinite().all())
    assert not torch.allclose(states, lee().first_pass(encoded, torch.tensor([length, 8]), is_token, 8), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("mask_diagonal", [False, True])
def test_both_decoders_see_all_positions_or_all_others(mask_diagonal: bool, is_padded: bool) -> None:
    """LEE-6: where nothing is padded, all is no mask."""
    model, seen = lee(mask_diagonal=mask_diagonal), []
    for stack in (model.decoder.first, model.decoder.later):
        stack.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    encoded, lengths = encoded_sources(model, SOURCES[:2]), torch.tensor([3 if is_padded else 5, 5])
    is_token = torch.arange(5) < lengths[:, None]
    mask = is_token if is_padded else None
    hidden = model.first_pass(encoded, lengths, mask, 5)
    model.next_pass(encoded, torch.full((2, 5), 7), hidden, mask)
    assert len(seen) == 2
    for given in seen:
        if mask_diagonal:
            assert given is not None and given.equal(others(is_token))
        else:
            assert given is mask


@torch.no_grad()
def test_a_blind_block_has_no_path_from_a_position_to_itself() -> None:
    """LEE-6: where attention is uniform, another value at t changes every other position, and not t."""
    model = lee(mask_diagonal=True)
    layer, x = model.decoder.later.layers[0], torch.randn(1, 5, 32)
    layer.self_attention.query_key_value.weight[:64] = 0  # the queries and keys
    other = x + F.one_hot(torch.tensor([2]), 5)[..., None]
    positions, seen = model.target_embedding.places(5), others(torch.ones(1, 5, dtype=torch.bool))
    for block in (
        lambda y: layer.self_attention(y, seen),
        lambda y: layer.positional_attention(y, positions, seen),
    ):
        moved = (block(other) - block(x)).abs().amax(-1)[0] > 1e-6
        assert moved.tolist() == [True, True, False, True, True]


@torch.no_grad()
@pytest.mark.parametrize("attend_top", [False, True])
def test_a_decoder_layer_attends_to_its_own_encoder_layer(attend_top: bool) -> None:
    """LEE-7: layer i of the decoder reads layer i of the encoder, or all read the top one."""
    model = lee(encoder_layers=3, decoder_layers=3, attend_top=attend_top)
    states = []
    whole = model.encoder.states
    model.encoder.states = lambda *inputs: states.append(whole(*inputs)) or states[-1]
    encoded = encoded_sources(model, SOURCES[:2])
    for decoder, memories in zip((model.decoder.first, model.decoder.later), encoded.memories, strict=True):
        for i, (layer, memory) in enumerate(zip(decoder.layers, memories, strict=True)):
            read = states[0][-1 if attend_top else i]
            for seen, expected in zip(memory, layer.cross_attention.memory(read), strict=True):
                torch.testing.assert_close(seen, expected)
    before = model.first_pass(encoded, torch.tensor([5, 5]), None, 5)
    for i in range(3):
        silent = [replace_at(encoded.memories[0], i), encoded.memories[1]]
        changed = model.first_pass(replace(encoded, memories=tuple(silent)), torch.tensor([5, 5]), None, 5)
        assert not torch.allclose(changed, before, atol=1e-3)


def replace_at(memories: tuple[Any, ...], i: int) -> tuple[Any, ...]:
    return tuple((k, torch.zeros_like(v)) if j == i else (k, v) for j, (k, v) in enumerate(memories))


def test_layers_of_unequal_count_need_the_top() -> None:
    with pytest.raises(UsageError, match="--attend-top"):
        lee(encoder_layers=2)
    lee(encoder_layers=2, attend_top=True)


@pytest.mark.parametrize(
    "options", [{}, {"share_decoders": True}, {"exact_mixture": True, "corruption": "probability"}]
)
def test_a_tiny_model_learns_sixteen_pairs_by_heart(options: dict[str, Any]) -> None:
    """LEE-9: given the length, the first pass predicts at least 99 tokens in a hundred."""
    sources, targets = random_rows(16, 9, seed=3, shortest=3), random_rows(16, 9, seed=4, shortest=3)
    model, sample = lee(is_lively=False, **options), sample_of(sources, targets)
    tiny.train(model, sample, steps=250, rate=1e-2)
    rows = zip(texts(decode(model, sample, gold_target_len=True)), targets, strict=True)
    right = [a == b for row, target in rows for a, b in zip(row, [*target, EOS], strict=True)]
    assert sum(right) >= 0.99 * len(right)
    assert texts(decode(model, sample, iterations=4)) == [[*row, EOS] for row in targets]


@torch.no_grad()
def test_the_first_pass_reads_the_copied_source() -> None:
    """LEE-10: √d E[source] with its own positions, copied, and the target's positions on top."""
    model, seen = lee(), []
    model.decoder.first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoded = encoded_sources(model)
    model.first_pass(encoded, torch.tensor([7] * 12), None, 7)
    for row, source in zip(seen[0], SOURCES, strict=True):
        size = len(source) + 1
        table = model.source_embedding
        embedded = 32**0.5 * table.tokens.weight[[*source, EOS]] + table.positions.weight[:size]
        places = [round(t * (size - 1) / 6) for t in range(7)]
        torch.testing.assert_close(row, embedded[places] + model.target_embedding.positions.weight[:7])


def test_one_pass_is_plain_cross_entropy() -> None:
    """LEE-13: and decoder 2 gets no gradient from it."""
    model, sample = training(train_refinements=0), sample_of(SOURCES, TARGETS)
    assert set(terms(model)) == {"pass0", "length"}
    encoded, expected = encoded_sources(model), 0.0
    for i, row in enumerate(TARGETS):
        rows, n = torch.tensor([i]), len(row) + 1
        logits = model.project(model.first_pass(encoded.select(rows), torch.tensor([n]), None, n), step=0)[0]
        expected += float(F.cross_entropy(logits, torch.tensor([*row, EOS]), reduction="sum").detach())
    assert losses(model)["pass0"] == pytest.approx(expected, rel=1e-5)
    loss, _, _ = criterion(length_loss_factor=0.0)(model, sample)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert all(weight.grad is None for weight in model.decoder.later.parameters())
    assert model.target_embedding.tokens.weight.grad is None


@pytest.mark.parametrize(("pass_loss", "divisor"), [("sum", 1), ("mean", 3)])
@pytest.mark.parametrize("exact_mixture", [False, True])
def test_the_objective_sums_the_passes(pass_loss: str, divisor: int, exact_mixture: bool) -> None:
    """LEE-14: Σ CE a token, or that sum over K, with the length once a sentence."""
    model = training(train_refinements=2, lvm_share=1.0, pass_loss=pass_loss, exact_mixture=exact_mixture)
    each, tokens = losses(model), sum(len(row) + 1 for row in TARGETS)
    loss, size, _ = criterion(length_loss_factor=0.5)(model, sample_of(SOURCES, TARGETS))
    expected = sum(each[f"pass{k}"] for k in range(3)) / divisor + 0.5 * each["length"] / divisor
    assert float(loss.detach()) / size == pytest.approx(expected / tokens, rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_exact_mixture_weighs_both_losses(share: float) -> None:
    """LEE-15: α = 1 is J_LVM, α = 0 is J_DAE beside the first pass, 0.5 is half of either."""
    found = terms(training(train_refinements=2, exact_mixture=True, lvm_share=share))
    weights = {name: t.weight for name, t in found.items()}
    assert weights["pass0"] == 1 and weights["pass1"] == weights["pass2"] == share
    if share < 1:
        assert weights["denoise1"] == weights["denoise2"] == 1 - share
    else:
        assert not any(name.startswith("denoise") for name in found)


def test_the_first_pass_knows_nothing_of_the_mixture() -> None:
    """LEE-15: its loss never depends on α, on the kind of mixture or on the corruption."""
    settings: list[dict[str, Any]] = [
        {"lvm_share": s, "exact_mixture": e} for s in (0.0, 0.3, 1.0) for e in (False, True)
    ]
    settings += [{"corruption_rate": 0.9}, {"corruption": "probability"}]
    assert len({losses(training(**options))["pass0"] for options in settings}) == 1


def test_the_coin_gives_the_mixture_on_average() -> None:
    """LEE-16: over many draws the mean of the sampled losses is that of the weighted ones."""
    share, epochs = 0.3, 200
    options: dict[str, Any] = {"train_refinements": 1, "lvm_share": share, "next_input": "words"}
    sampled, exact = training(**options), training(exact_mixture=True, **options)
    drawn = torch.tensor([losses(sampled, epoch=e)["pass1"] for e in range(epochs)])
    both = [losses(exact, epoch=e) for e in range(epochs)]
    weighted = torch.tensor([share * each["pass1"] + (1 - share) * each["denoise1"] for each in both])
    deviation = float((drawn - weighted).std()) / epochs**0.5
    assert abs(float((drawn - weighted).mean())) < 3 * deviation and deviation < 0.02 * float(weighted.mean())


def test_a_coin_of_one_side_is_no_coin() -> None:
    """LEE-16: at α = 0 and 1 the sampled loss is the one of the exact mixture."""
    sure = {share: losses(training(train_refinements=1, lvm_share=share)) for share in (0.0, 1.0)}
    exact = losses(training(train_refinements=1, lvm_share=0.5, exact_mixture=True))
    assert sure[0.0]["pass1"] == pytest.approx(exact["denoise1"], rel=1e-6)
    assert sure[1.0]["pass1"] == pytest.approx(exact["pass1"], rel=1e-6)


@pytest.mark.parametrize(("next_input", "leaks"), [("words", False), ("both", True)])
def test_a_corrupted_reference_hides_the_output_before(next_input: str, leaks: bool) -> None:
    """LEE-17: at α = 0 later losses know the passes before them by their hidden states only."""
    model = training(train_refinements=2, lvm_share=0.0, next_input=next_input)
    before = losses(model)
    with torch.no_grad():
        # another first pass, for which decoder 1 alone is to blame
        for weight in model.decoder.first.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)), alpha=0.3)
    after = losses(model)
    assert before["pass0"] != pytest.approx(after["pass0"], rel=1e-3)
    same = [before[name] == pytest.approx(after[name], rel=1e-6) for name in ("pass1", "pass2")]
    assert same == [not leaks, not leaks]


@pytest.mark.parametrize(
    ("options", "flows"),
    [
        ({"stop_gradient": "none"}, True),
        ({"stop_gradient": "length"}, True),
        ({"stop_gradient": "none", "next_input": "hidden"}, True),
        ({"stop_gradient": "hidden"}, False),
        ({"stop_gradient": "both"}, False),
        ({"stop_gradient": "none", "next_input": "words"}, False),
        ({}, False),
    ],
)
def test_where_the_second_pass_teaches_the_first(options: dict[str, Any], flows: bool) -> None:
    """LEE-18: through hidden states unless stopped, never through words; the default is the talk's drawing."""
    model = training(train_refinements=1, lvm_share=1.0, **options)
    second = terms(model)["pass1"]
    F.cross_entropy(second.logits, second.target).backward()
    reached = [w.grad is not None and bool(w.grad.any()) for w in model.decoder.first.parameters()]
    assert any(reached) == flows
    assert any(w.grad is not None and bool(w.grad.any()) for w in model.decoder.later.parameters())


@torch.no_grad()
@pytest.mark.parametrize("next_input", ["both", "words", "hidden"])
def test_what_a_refinement_reads(next_input: str) -> None:
    """LEE-19: √d E₂[ŷ] + h + PE, or less of it."""
    model, seen = lee(next_input=next_input), []
    encoded = encoded_sources(model)
    state = started_at(model, encoded, 6)
    model.decoder.later.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.refine(state, 1, 1)
    parts = {"words": 32**0.5 * model.target_embedding.tokens.weight[state.tokens], "hidden": state.hidden[:, 0]}
    read = [part for name, part in parts.items() if next_input in (name, "both")]
    torch.testing.assert_close(seen[0], sum(read) + model.target_embedding.positions.weight[:6])


@pytest.mark.parametrize("share_decoders", [False, True])
def test_one_decoder_refines_however_often(share_decoders: bool) -> None:
    """LEE-19: decoder 2 is one object; decoder 1 another one, unless they are shared."""
    model = lee(share_decoders=share_decoders)
    assert (model.decoder.first is model.decoder.later) == share_decoders
    assert (model.first_output is model.target_embedding.tokens) == share_decoders
    calls: list[Any] = []
    for stack in {model.decoder.first, model.decoder.later}:
        stack.register_forward_hook(lambda module, *_: calls.append(module))
    decode(model, sample_of(SOURCES), iterations=3)
    assert calls == [model.decoder.first] + [model.decoder.later] * 3


def test_three_tables_or_one() -> None:
    model, shared = lee(), lee(share_all_embeddings=True)
    tables = [model.source_embedding.tokens, model.first_output, model.target_embedding.tokens]
    assert len(set(map(id, tables))) == 3
    tied = [shared.source_embedding.tokens, shared.first_output, shared.target_embedding.tokens]
    assert len(set(map(id, tied))) == 1


def test_every_pass_is_taught_the_reference() -> None:
    """LEE-20: never the output of the pass before, unless one asks for what the talk prints."""
    reference = torch.tensor([token for row in TARGETS for token in (*row, EOS)])
    for name, term in terms(training(exact_mixture=True)).items():
        assert name == "length" or term.target.tolist() == reference.tolist()
    own = terms(training(train_target="prediction", lvm_share=1.0))
    assert own["pass4"].target.tolist() == reference.tolist()
    for k in range(4):
        assert own[f"pass{k}"].target.tolist() == own[f"pass{k}"].logits.argmax(-1).tolist() != reference.tolist()


def noisy_inputs(model: Any, epoch: int = 1) -> list[Tensor]:
    """The words that every refinement reads in training, at the real positions."""
    seen: list[Tensor] = []
    whole = model.next_pass
    model.next_pass = lambda encoded, words, *rest: seen.append(words) or whole(encoded, words, *rest)
    terms(model, epoch=epoch)
    return seen


def test_every_refinement_has_its_own_rate_of_corruption() -> None:
    """LEE-21: the first reads the noisiest reference; ``--corruption-rate`` is one for all."""
    target = tiny.stacked(TARGETS)
    keys = sample_of(SOURCES, TARGETS)["columns"]["keys"]
    for options, rates in (({}, [0.7, 0.5, 0.3, 0.1]), ({"corruption_rate": 0.4}, [0.4] * 4)):
        read = noisy_inputs(training(lvm_share=0.0, **options))
        for k, (words, rate) in enumerate(zip(read, rates, strict=True)):
            fold = noise.fold(keys, 3 * k + 1)
            expected = method.corruption(fold, target, (target != PAD).sum(1), rate, 4, tiny.WORDS + 4)
            assert torch.equal(words, expected) and not torch.equal(words, target)


@pytest.mark.parametrize("exact_mixture", [False, True])
def test_a_validation_has_neither_noise_nor_coins(exact_mixture: bool) -> None:
    """LEE-24: it is J_LVM, the same whatever the keys."""
    model = lee(exact_mixture=exact_mixture, lvm_share=0.2, sampled_words=True)
    once, again = losses(model, epoch=1), losses(model, epoch=2)
    assert once == again and set(once) == {"pass0", "pass1", "pass2", "pass3", "pass4", "length"}
    assert losses(model.train(), epoch=1) != losses(model, epoch=2)


@pytest.mark.parametrize(
    ("source", "target", "expected"), [(5, 5, 20), (5, 30, 40), (2, 27, 40), (30, 5, 0), (9, 7, 18)]
)
def test_the_length_is_a_class_of_offsets(source: int, target: int, expected: int) -> None:
    """LEE-25: T − S, both with ``</s>``, cut at ± 20."""
    sample = sample_of([[5] * source], [[6] * target])
    found = tiny.terms_of(lee(), sample)[-1]
    assert isinstance(found, Classes) and found.target.tolist() == [expected]
    assert found.logits.size(1) == 2 * LONGEST_OFFSET + 1 == 41


@pytest.mark.parametrize(
    ("options", "flows"),
    [
        ({}, True),
        ({"stop_gradient": "hidden"}, True),
        ({"stop_gradient": "none"}, True),
        ({"stop_gradient": "length"}, False),
        ({"stop_gradient": "both"}, False),
        ({"length_head": "linear", "stop_gradient": "none"}, False),
    ],
)
def test_where_the_length_teaches_the_encoder(options: dict[str, Any], flows: bool) -> None:
    """LEE-25: jointly trained as in the talk, or detached as in the code."""
    model = training(**options)
    length = terms(model)["length"]
    F.cross_entropy(length.logits, length.target).backward()
    reached = [w.grad is not None and bool(w.grad.any()) for w in model.encoder.parameters()]
    assert any(reached) == flows
    assert all(bool(w.grad.any()) for w in model.length_head.parameters())


@torch.no_grad()
def test_the_linear_head_reads_all_states_and_the_other_two_layers_the_top() -> None:
    for head, layers in (("linear", 1), ("mlp", 2)):
        model, states = lee(encoder_layers=2, decoder_layers=2, length_head=head), []
        whole = model.encoder.states
        model.encoder.states = lambda *inputs, w=whole, s=states: s.extend(w(*inputs)) or s
        encoded = encoded_sources(model, SOURCES[:1])
        read = encoded.copied + states[0] + states[1] if head == "linear" else states[1]
        expected = model.length_head(read.mean(1)).log_softmax(1)
        torch.testing.assert_close(encoded.offset_log_probs, expected)
        assert sum(isinstance(part, torch.nn.Linear) for part in model.length_head) == layers


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_k_passes_are_the_parts_one_after_another(passes: int) -> None:
    """LEE-26, LEE-27: decoder 1, then decoder 2; line k of a history is what a run of k + 1 passes gives."""
    model = lee()
    decoded = decode(model, sample_of(SOURCES), iterations=passes - 1, keep_history=True)
    for source, group in zip(SOURCES, decoded, strict=True):
        history = [past["tokens"].tolist() for past in group[0]["history"]]
        length = len(history[0])
        assert history == [words.tolist() for words in run_passes(model, source, length, passes)]
        assert group[0]["tokens"].tolist() == history[-1]
    distinct = [len({tuple(past["tokens"].tolist()) for past in group[0]["history"]}) for group in decoded]
    assert max(distinct) >= min(passes, 3), "refinements change nothing: the test shows nothing"


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_k_passes_are_k_passes(passes: int) -> None:
    """LEE-27: the encoder runs once, the decoders exactly K times, none hidden."""
    model, calls = lee(), []
    stacks = (("encoder", model.encoder), ("decoder", model.decoder.first), ("decoder", model.decoder.later))
    for name, stack in stacks:
        stack.layers[0].register_forward_hook(lambda *_, name=name: calls.append(name))
    decode(model, sample_of(SOURCES), iterations=passes - 1)
    assert calls == ["encoder"] + ["decoder"] * passes


RULES: list[dict[str, Any]] = [
    {"stop_rule": "fixed-point"},
    {"stop_rule": "jaccard", "stop_window": 5},
    {"stop_rule": "jaccard", "stop_distance": 0.3},
]


def settling() -> Any:
    """A model that comes to rest, each sentence in its own time."""
    sources, targets = random_rows(16, 9, seed=3, shortest=3), random_rows(16, 9, seed=4, shortest=3)
    model = lee(is_lively=False)
    tiny.train(model, sample_of(sources, targets), steps=40, rate=1e-2)
    return model


def test_a_stopped_sentence_is_that_of_so_many_passes() -> None:
    """LEE-28: whatever the others of its batch do; and never more passes than asked for."""
    model, rows = settling(), random_rows(24, 9, seed=3, shortest=3)
    fixed = [texts(decode(model, sample_of(rows), iterations=k)) for k in range(13)]
    for rule in RULES:
        stopped = decode(model, sample_of(rows), iterations=12, **rule)
        steps = [group[0]["steps"] for group in stopped]
        assert len(set(steps)) > 1 and max(steps) <= 12
        for i, (row, group) in enumerate(zip(rows, stopped, strict=True)):
            assert group[0]["tokens"].tolist() == fixed[steps[i]][i]
            alone = decode(model, sample_of([row]), iterations=12, **rule)[0][0]
            assert (alone["steps"], alone["tokens"].tolist()) == (steps[i], group[0]["tokens"].tolist())


def test_the_released_rule_waits_four_passes_longer() -> None:
    """LEE-29: where a sentence has come to rest, the window of five ends four passes after it did."""
    model, rows = settling(), random_rows(24, 9, seed=3, shortest=3)
    history = decode(model, sample_of(rows), iterations=19, keep_history=True)
    stopped = decode(model, sample_of(rows), iterations=19, stop_rule="jaccard", stop_window=5)
    rested = 0
    for past, group in zip(history, stopped, strict=True):
        outputs = [sorted(step["tokens"].tolist()) for step in past[0]["history"]]
        first = next((i for i in range(16) if outputs[i] in outputs[i + 1 : i + 5]), None)
        assert group[0]["steps"] == (19 if first is None else first + 4)
        rested += first is not None
    assert rested > 12


def test_the_oracle_needs_references_and_looks_ahead() -> None:
    """LEE-32: refused without them; no later output in its window is better."""
    model = settling()
    with pytest.raises(UsageError, match="--stop-rule oracle needs references"):
        decode(model, sample_of(SOURCES), iterations=3, stop_rule="oracle")
    sources, targets = random_rows(16, 9, seed=3, shortest=3), random_rows(16, 9, seed=4, shortest=3)
    sample, ignored = sample_of(sources, targets), (PAD, BOS, EOS)
    past = decode(model, sample, iterations=6, keep_history=True)
    better = 0
    for window in (1, 3, 20):
        best = decode(model, sample, iterations=6, stop_rule="oracle", stop_window=window)
        for group, all_passes, target in zip(best, past, targets, strict=True):
            outputs = [step["tokens"] for step in all_passes[0]["history"]]
            scores = [oracle.sentence_bleu(output, torch.tensor(target), ignored) for output in outputs]
            k = group[0]["steps"]
            assert group[0]["tokens"].tolist() == outputs[k].tolist()
            assert scores[k] == max(scores[k : k + max(2, window)])
            assert all(scores[j] < max(scores[j : j + max(2, window)]) for j in range(k))
            better += scores[k] > scores[-1]
        assert all(not group[0]["history"] for group in best)
        kept = decode(model, sample, iterations=6, stop_rule="oracle", stop_window=window, keep_history=True)
        assert all(len(group[0]["history"]) == group[0]["steps"] + 1 for group in kept)
    assert better > 0


def test_lengths_are_those_around_the_most_probable_one() -> None:
    """LEE-33: one candidate is the plain decode, more are around it, and the best score wins."""
    model, sample = lee(), sample_of(SOURCES)
    one = decode(model, sample, iterations=2)
    five = decode(model, sample, iterations=2, lengths=5, nbest=5)
    best = encoded_sources(model).offset_log_probs.argmax(1) - LONGEST_OFFSET
    for plain, group, source, offset in zip(one, five, SOURCES, best.tolist(), strict=True):
        middle = len(source) + 1 + offset
        assert len(plain[0]["tokens"]) == max(2, middle)
        lengths = sorted(len(h["tokens"]) for h in group)
        assert lengths == [min(tiny.POSITIONS, max(2, middle + d)) for d in range(-2, 3)]
        assert any(torch.equal(plain[0]["tokens"], h["tokens"]) for h in group)
        scores = [float(h["score"]) for h in group]
        assert scores == sorted(scores, reverse=True)
        for h in group:
            assert float(h["score"]) == pytest.approx(float(h["positional_scores"].mean()), abs=1e-5)


def test_no_samples_are_the_plain_decode() -> None:
    """LEE-35: S = 0 is the argmax; S > 0 is something else."""
    model, sample = lee(), sample_of(SOURCES)
    plain, none, some = (
        decode(model, sample, iterations=3, **flags) for flags in ({}, {"decode_samples": 0}, {"decode_samples": 4})
    )
    assert texts(plain) == texts(none) != texts(some)


@torch.no_grad()
def test_samples_are_averaged_pass_by_pass() -> None:
    """The mean of the runs' distributions; the first run reads its own argmax, the others what they drew."""
    model = lee()
    encoded = encoded_sources(model, SOURCES[:4])
    state, alone = started(model, encoded, samples=3), started(model, encoded)
    assert torch.equal(state.tokens, alone.tokens) and torch.equal(state.words[:, 0], alone.words[:, 0])
    for step in (1, 2):
        read, state, alone = state, model.refine(state, step, 2), model.refine(alone, step, 2)
        assert torch.equal(state.words[:, 0], alone.words[:, 0])
        for i in range(4):
            n = int(state.is_token[i].sum())
            row = encoded.select(torch.tensor([i]))
            probabilities = [
                model.project(
                    model.next_pass(row, read.words[i : i + 1, run, :n], read.hidden[i : i + 1, run, :n], None)
                )[0].softmax(-1)
                for run in range(4)
            ]
            mean = torch.stack(probabilities).mean(0)
            mean[:, [PAD, BOS]] = 0
            assert state.tokens[i, :n].tolist() == mean.argmax(-1).tolist()
            torch.testing.assert_close(state.scores[i, :n], mean.amax(-1).log(), atol=1e-4, rtol=1e-4)
    runs = state.words[3].tolist()
    assert len(set(map(str, runs))) > 2


@torch.no_grad()
def test_samples_have_the_probabilities_of_the_model() -> None:
    model = lee()
    encoded = encoded_sources(model, SOURCES[:1])
    many = 3000
    starts = IterativeRefinementProposals(lengths=torch.tensor([3]), samples=many, keys=torch.tensor([7]))
    state = model.start(encoded, starts)
    logits = model.project(state.hidden[0, 0], step=0)
    probability = logits.index_fill(-1, torch.tensor([PAD, BOS]), -torch.inf).softmax(-1)
    for place in range(3):
        drawn = state.words[0, 1:, place].bincount(minlength=tiny.WORDS + 4) / many
        deviation = (probability[place] * (1 - probability[place]) / many).sqrt()
        assert bool(((drawn - probability[place]).abs() <= 4 * deviation + 1e-3).all())


@torch.no_grad()
@pytest.mark.parametrize("next_input", ["both", "words"])
def test_the_marginal_of_a_toy_and_its_two_approximations(next_input: str) -> None:
    """Three words, targets of two tokens, one refinement: log p(Y|X) by summing over all Ŷ⁰.

    The deterministic approximation, one term of the sum, is at most the marginal; the mean over samples is unbiased.
    """
    model = lee(words=3, train_refinements=1, lvm_share=1.0, sampled_words=True, next_input=next_input)
    source, target, size = [4, 6, 5], [6, EOS], 7
    encoded = encoded_sources(model, [source])
    hidden = model.first_pass(encoded, torch.tensor([2]), None, 2)
    first = model.project(hidden, step=0)[0].softmax(-1)
    every = torch.tensor(list(itertools.product(range(size), repeat=2)))
    prior = first[0, every[:, 0]] * first[1, every[:, 1]]
    rows = torch.zeros(len(every), dtype=torch.long)
    states = model.next_pass(encoded.select(rows), every, hidden[rows], None)
    likelihood = model.project(states).softmax(-1)[:, [0, 1], target].prod(1)
    torch.testing.assert_close(prior.sum(), torch.tensor(1.0))
    marginal, mode = float((prior * likelihood).sum()), prior.argmax()
    assert 0.05 < float(prior[mode]) < 0.95, "the first pass is sure: the test shows nothing"
    assert float(prior[mode] * likelihood[mode]) <= marginal

    count = 4000
    sample = sample_of([source] * count, [target[:1]] * count)
    found = tiny.terms_of(model.train(), sample)[1]
    assert isinstance(found, Tokens) and found.name == "pass1"
    drawn = found.logits.softmax(-1).gather(1, found.target[:, None]).view(count, 2).prod(1)
    assert abs(float(drawn.mean()) - marginal) < 3 * float(drawn.std()) / count**0.5
    assert float(drawn.std()) > 0.05 * marginal
    # and without samples the loss is that of the mode
    plain = lee(words=3, train_refinements=1, lvm_share=1.0, next_input=next_input)
    found = tiny.terms_of(plain, sample)[1]
    one = found.logits.softmax(-1).gather(1, found.target[:, None]).view(count, 2).prod(1)
    torch.testing.assert_close(one, likelihood[mode].expand(count), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_reference_is_scored_in_the_first_pass_by_decoder_1() -> None:
    model = lee(train_refinements=2)
    encoded, target = encoded_sources(model, SOURCES[:3]), tiny.stacked(TARGETS[:3])
    scored = model.score(encoded, target)
    assert scored.kind == "exact"
    for i, row in enumerate(TARGETS[:3]):
        n, one = len(row) + 1, encoded.select(torch.tensor([i]))
        hidden = model.first_pass(one, torch.tensor([n]), None, n)
        log_probs = model.project(hidden, step=0)[0].log_softmax(-1)
        expected = log_probs[torch.arange(n), torch.tensor([*row, EOS])]
        torch.testing.assert_close(scored.tokens[i, :n], expected, atol=1e-5, rtol=1e-5)
        assert not scored.tokens[i, n:].any()
        offset = n - len(SOURCES[i]) - 1 + LONGEST_OFFSET
        torch.testing.assert_close(scored.extra[i], one.offset_log_probs[0, offset])


@pytest.mark.parametrize("wrong", [{"train_refinements": -1}, {"lvm_share": 1.5}, {"corruption_rate": -0.1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--" + next(iter(wrong)).replace("_", "-")):
        lee(**wrong)


def test_the_count_of_parameters_is_that_of_the_description() -> None:
    layers, dim, hidden, heads = 1, 32, 64, 41
    attention, feed, norm = 4 * (dim * dim + dim), 2 * dim * hidden + dim + hidden, 2 * dim
    encoder = layers * (attention + 2 * feed + 2 * norm)
    decoder = layers * (3 * attention + 2 * feed + 4 * norm)
    length = dim * dim + dim + dim * heads + heads
    tables = 3 * (tiny.WORDS + 4) * dim
    assert sum(w.numel() for w in lee().parameters()) == encoder + 2 * decoder + length + tables
