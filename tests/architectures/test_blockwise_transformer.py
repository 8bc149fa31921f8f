"""Blockwise parallel decoding: heads on a transformer, which draft for it."""

import math
from typing import Any

import pytest
import torch
from fairseq.logging import metrics
from torch import Tensor

from nar_plugin.criterions.blockwise_cross_entropy import BlockwiseCrossEntropyCriterion
from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.options import Heads
from nar_plugin.methods.symbols import shifted
from nar_plugin.tasks import engines
from tests.generators.test_speculative import LIMITS, PRENORM, SOURCES, assert_greedy, greedy
from tests.tiny import (
    EOS,
    PAD,
    SYMBOLS,
    Row,
    assert_same,
    random_rows,
    sample_of,
    stand_in_task,
    terms_of,
    texts,
    tiny_blockwise,
    tiny_transformer,
    train,
)

PAIRS = random_rows(8, 7, seed=21), random_rows(8, 9, seed=22)


def model_of(dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    model = tiny_blockwise(transformer=tiny_transformer(**PRENORM), **options)
    with torch.no_grad():
        for weight in model.heads.parameters():
            weight.mul_(2.0)
    return model.to(dtype)


def run(model: Any, sources: list[Row] = SOURCES, seed: int = 1, **options: Any) -> tuple[Any, RefinementGenerator]:
    generator = RefinementGenerator(model, SYMBOLS, Heads(**{**LIMITS, **options}), seed)
    return generator.generate([model], sample_of(sources)), generator


@torch.no_grad()
def greedy_of_head_1(model: Any, sources: list[Row]) -> list[Row]:
    """One sentence and one word after the other, everything read anew by fairseq's own forward."""
    longest = int(LIMITS["max_len_a"] * (max(map(len, sources)) + 1) + LIMITS["max_len_b"])
    found = []
    for source in sources:
        said: Row = []
        encoded = model.base.encoder(**sample_of([source])["net_input"])
        while not said or said[-1] != EOS:
            states, _ = model.base.decoder(torch.tensor([[EOS, *said]]), encoder_out=encoded, features_only=True)
            logits = model.base.decoder.output_layer(model.heads(states[0, -1], 0, 1)[0])
            logits[PAD] = -torch.inf
            if not said:
                logits[EOS] = -torch.inf
            said.append(EOS if len(said) == longest else int(logits.argmax()))
        found.append(said)
    return found


# --- heads


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("is_identity", [False, True])
def test_a_dense_block_has_the_papers_weights(k: int, is_identity: bool) -> None:
    """BPD-26: d·n·f + n·f·n·d of n heads that go through it, and one vocabulary projection for all."""
    model = tiny_blockwise(block_heads=k, identity_head_1="yes" if is_identity else "no")
    n, d, f = k - is_identity, 32, 64
    counted = sum(weight.numel() for weight in model.heads.parameters())
    assert counted == (d * n * f + n * f + n * f * n * d + n * d if n else 0)
    assert model.passes["project"].module is model.base.decoder.output_projection
    separate = tiny_blockwise(block_heads=k, block_head="block", identity_head_1="yes" if is_identity else "no")
    assert sum(weight.numel() for weight in separate.heads.parameters()) == n * (2 * d * f + f + d)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dense", "block"])
@pytest.mark.parametrize("identity", ["yes", "no"])
def test_heads_are_the_formula(kind: str, identity: str) -> None:
    """BPD-26: oᵢ = h + W₂ ReLU(W₁ h), each head alone or all at once."""
    model = tiny_blockwise(block_heads=3, block_head=kind, identity_head_1=identity)
    h, skipped = torch.randn(5, 32, generator=torch.Generator().manual_seed(1)), int(identity == "yes")
    outputs = [h] * skipped
    for i in range(3 - skipped):
        if kind == "dense":
            inside = (h @ model.heads.block.inner.weight.T + model.heads.block.inner.bias).relu()
            outer = model.heads.block.outer[i]
        else:
            block = model.heads.block.heads[i]
            inside, outer = (h @ block.inner.weight.T + block.inner.bias).relu(), block.outer
        outputs.append(h + inside @ outer.weight.T + outer.bias)
    for first in range(3):
        for end in range(first + 1, 4):
            torch.testing.assert_close(model.heads(h, first, end), torch.stack(outputs[first:end], 1))


# --- decoding


@pytest.mark.parametrize("options", [{}, {"block_head": "block"}, {"identity_head_1": "yes"}, {"freeze": "base"}])
@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_the_output_is_the_greedy_one_of_head_1(options: dict[str, Any], k: int) -> None:
    """BPD-27: of any number of heads, in batches of any size."""
    if k == 1 and "freeze" in options:
        options = {**options, "identity_head_1": "no"}  # else no head would learn
    model = model_of(block_heads=k, **options)
    expected = greedy_of_head_1(model, SOURCES)
    found, generator = run(model)
    assert texts(found) == expected
    calls, lengths = [group[0]["steps"] + 1 for group in found], [len(row) for row in expected]
    assert all(1 + math.ceil((n - 1) / k) <= one <= n for n, one in zip(lengths, calls, strict=True))
    assert k > 1 or calls == lengths
    assert generator.counters.calls == {"encoder": 1, "decoder": max(calls)}, "one call verifies and predicts"
    same = {"max_len_a": 0.0, "max_len_b": 20}
    assert_same([run(model, [row], **same)[0][0] for row in SOURCES], run(model, **same)[0])


@pytest.mark.parametrize("k", [2, 4])
def test_on_a_frozen_base_the_output_is_the_bases(k: int) -> None:
    """BPD-28: as fairseq's search gives it, before and after a training of which the base learns nothing."""
    base = tiny_transformer(**PRENORM)
    model = tiny_blockwise(transformer=base, block_heads=k, freeze="base")
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    expected = greedy(base, SOURCES)
    assert_greedy(run(model)[0], expected)
    train(model, sample_of(*PAIRS), 20)
    assert all(torch.equal(weight, before[name]) for name, weight in model.base.state_dict().items())
    assert_greedy(run(model)[0], expected)


def test_fewer_heads_may_be_used() -> None:
    """BPD-29: --block-size, and not more than there are."""
    model = model_of(block_heads=4, freeze="base")
    outputs = [run(model, block_size=k)[0] for k in (0, 1, 2, 4)]
    assert all(texts(one) == texts(outputs[0]) for one in outputs)
    steps = [sum(group[0]["steps"] for group in one) for one in outputs]
    assert steps[0] == steps[3] <= steps[2] <= steps[1]
    with pytest.raises(UsageError, match="--block-size 5: this model has 4 heads"):
        run(model, block_size=5)


def test_sentences_that_are_learnt_by_heart_are_said_several_words_a_call() -> None:
    """BPD-30: fine-tuned heads nearly always agree; heads on a frozen base that has learnt the same, less often."""
    tuned = tiny_blockwise(block_heads=4, dropout=0.0)
    sample = sample_of(*PAIRS)
    train(tuned, sample, 300)
    found, generator = run(tuned, PAIRS[0])
    assert texts(found) == [[*row, EOS] for row in PAIRS[1]]
    fewest = sum(1 + math.ceil(len(row) / 4) for row in PAIRS[1])
    assert generator.counters.rows["decoder"] <= 1.1 * fewest
    frozen = tiny_blockwise(transformer=tuned.base, block_heads=4, dropout=0.0, freeze="base", identity_head_1="no")
    train(frozen, sample, 100)
    _, of_frozen = run(frozen, PAIRS[0])
    assert of_frozen.counters.tokens_a_call <= generator.counters.tokens_a_call


@pytest.mark.parametrize("by_block", [False, True])
def test_heads_draft_for_samples(by_block: bool) -> None:
    """BPD-31: what is drawn with drafts of the heads has the log-probabilities that head 1 gives it."""
    model = model_of(block_heads=3)
    found, generator = run(model, sampling=True, block_verification=by_block, temperature=0.8)
    assert generator.counters.calls["decoder"] < max(len(row) for row in texts(found)) + 1
    encoded = model.encode(sample_of(SOURCES)["net_input"])
    for i, group in enumerate(found):
        target = group[0]["tokens"][None]
        one = encoded.select(torch.tensor([i]))
        states, _ = model.extend(
            model.reading(one), shifted(target, SYMBOLS), target != PAD, torch.arange(target.size(1))[None]
        )
        expected = (model.logits(states) / 0.8).float().log_softmax(-1).gather(2, target[..., None])[0, :, 0]
        torch.testing.assert_close(group[0]["positional_scores"], expected, atol=1e-4, rtol=1e-4)


def test_whole_numbers_give_the_same_in_every_batch() -> None:
    model = tiny_blockwise(transformer=tiny_transformer(**PRENORM), block_heads=4)
    engines.prepare([model], "int8")
    same = {"max_len_a": 0.0, "max_len_b": 20}
    together, _ = run(model, **same)
    alone = [run(model, [row], **same)[0][0] for row in SOURCES]
    assert texts(alone) == texts(together)
    assert len(set(map(tuple, texts(together)))) > 10


# --- training


def criterion(**options: Any) -> Any:
    return BlockwiseCrossEntropyCriterion(stand_in_task(), 0.0, options.get("normalize", "token"))


@torch.no_grad()
def loss_by_hand(model: Any, sample: dict[str, Any], head: int) -> Tensor:
    """The summed loss of one head, sentence by sentence and place by place."""
    total = torch.zeros((), dtype=torch.float64)
    for source, target in zip(*PAIRS, strict=True):
        words = [*target, EOS]
        one = sample_of([source])["net_input"]
        tokens = torch.tensor([[EOS, *words[:-1]]])
        states, _ = model.base.decoder(tokens, encoder_out=model.base.encoder(**one), features_only=True)
        for place in range(len(words) - head):
            logits = model.base.decoder.output_layer(model.heads(states[0, place], head, head + 1)[0])
            total -= logits.log_softmax(-1)[words[place + head]]
    return total


@pytest.mark.parametrize("options", [{}, {"block_head": "block"}, {"identity_head_1": "yes"}])
def test_the_loss_is_the_mean_over_heads_each_of_which_says_what_is_further_on(options: dict[str, Any]) -> None:
    """BPD-32: head i is taught what stands i − 1 places further on, and nothing beyond the end."""
    model, sample = model_of(block_heads=3, dropout=0.0, **options), sample_of(*PAIRS)
    loss, size, sums = criterion()(model, sample)
    by_hand = [loss_by_hand(model, sample, head) for head in range(3)]
    assert size == sample["ntokens"]
    torch.testing.assert_close(loss.double(), sum(by_hand) / 3, atol=1e-3, rtol=1e-5)
    assert float(sums["words/all/nats"]) == pytest.approx(float(by_hand[0]), rel=1e-5)
    counts = [sums[f"classes/head{i + 1}/count"] for i in range(3)]
    lengths = [len(row) + 1 for row in PAIRS[1]]
    assert counts == [sum(max(0, n - i) for n in lengths) for i in range(3)]


def test_one_head_that_is_drawn_is_the_mean_on_the_average() -> None:
    """BPD-33: over all heads that may be drawn, each as often; the same one in every process and after a resume."""
    whole = tiny_blockwise(block_heads=4, dropout=0.0).train()
    drawn = tiny_blockwise(block_heads=4, dropout=0.0, block_loss="random").train()
    drawn.load_state_dict(whole.state_dict())
    sample, found, losses = sample_of(*PAIRS), [], {}
    for update in range(400):
        drawn.set_num_updates(update)
        found.append(drawn.drawn_head())
        if found[-1] not in losses:
            losses[found[-1]] = float(criterion()(drawn, sample)[0].detach())
    assert all(70 < found.count(head) < 130 for head in range(4))
    mean = float(criterion()(whole, sample)[0].detach())
    assert sum(losses.values()) / 4 == pytest.approx(mean, rel=1e-5)
    again = tiny_blockwise(block_heads=4, block_loss="random")
    again.set_num_updates(17)
    assert again.drawn_head() == found[17]
    frozen = tiny_blockwise(block_heads=2, block_loss="random", freeze="base")
    assert {frozen.drawn_head() for frozen.update in range(20)} == {1}
    assert terms_of(drawn.eval(), sample)[0].name == "head1", "in validation all heads are looked at"


def test_sentences_too_short_for_the_last_heads_are_no_fault() -> None:
    """BPD-32: there is nothing to be said so far ahead, and it is logged as nothing."""
    _, size, sums = criterion()(tiny_blockwise(block_heads=4), sample_of([[5], [6]], [[7], []]))
    assert size == 3 and [sums[f"classes/head{i}/count"] for i in (1, 2, 3, 4)] == [3, 1, 0, 0]
    with metrics.aggregate(new_root=True) as found:
        BlockwiseCrossEntropyCriterion.reduce_metrics([{**sums, "sample_size": size}])
    assert found.get_smoothed_values()["head4_loss"] == 0


@pytest.mark.parametrize("options", [{}, {"freeze": "base"}, {"block_loss": "random"}])
def test_every_weight_that_learns_has_a_gradient(options: dict[str, Any]) -> None:
    model = tiny_blockwise(block_heads=3, **options).train()
    loss, _, _ = criterion()(model, sample_of(*PAIRS))
    loss.backward()
    without = {name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None}
    assert without == set()
    is_frozen = "freeze" in options
    assert all(weight.requires_grad != is_frozen for weight in model.base.parameters())


def test_a_frozen_base_has_no_dropout() -> None:
    base = tiny_transformer(dropout=0.5)
    sample = sample_of(*PAIRS)
    frozen = tiny_blockwise(transformer=base, freeze="base").train()
    states = [frozen.decoder_states(sample["net_input"], sample["target"]) for _ in range(2)]
    assert torch.equal(*states) and frozen.heads.training
    tuned = tiny_blockwise(transformer=base).train()
    states = [tuned.decoder_states(sample["net_input"], sample["target"]) for _ in range(2)]
    assert not torch.equal(*states)


def test_a_reference_has_the_score_of_head_1() -> None:
    model, sample = model_of(block_heads=3), sample_of(*PAIRS)
    with torch.no_grad():
        scored = model.score(model.encode(sample["net_input"]), sample["target"])
    assert scored.kind == "exact"
    assert float(-scored.tokens.sum()) == pytest.approx(float(loss_by_hand(model, sample, 0)), rel=1e-5)


def test_what_cannot_be_is_refused_in_one_line() -> None:
    for options, line in (
        ({"block_heads": 0}, "--block-heads 0: it takes 1 or more"),
        ({"block_heads": 1, "freeze": "base"}, "--block-heads 1: with --freeze base no head is left"),
    ):
        with pytest.raises(UsageError, match=line):
            tiny_blockwise(**options)
