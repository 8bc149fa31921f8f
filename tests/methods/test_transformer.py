"""The blocks, against attention written out by hand."""

import math
from typing import Any, Callable

import pytest
import torch
from torch import Tensor, nn

from nar_plugin.methods import transformer

OPTIONS = {"activation": "gelu", "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}


def stack(
    *, has_source: bool, is_prenorm: bool = False, layers: int = 2, dropout: float = 0.0, **more: bool
) -> transformer.Stack:
    torch.manual_seed(5)
    options: dict[str, Any] = {**OPTIONS, "dropout": dropout, **more}
    return transformer.Stack(layers, 16, 24, 4, is_prenorm=is_prenorm, has_source=has_source, **options).eval()


def noise_like(*shape: int, seed: int = 9) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attention_by_hand(query: Tensor, key: Tensor, value: Tensor, heads: int, is_token: list[bool]) -> Tensor:
    """One sentence, one head and one position at a time."""
    size, out = query.size(-1) // heads, torch.zeros_like(query)
    real = [j for j, token in enumerate(is_token) if token]
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        for i in range(len(query)):
            weights = torch.stack([query[i, part] @ key[j, part] for j in real]).div(math.sqrt(size)).softmax(0)
            out[i, part] = sum(w * value[j, part] for w, j in zip(weights, real, strict=True))
    return out


def test_self_attention_is_that_of_the_paper() -> None:
    torch.manual_seed(1)
    block, x = transformer.SelfAttention(16, 4, 0.0), noise_like(1, 5, 16)
    is_token = [True, True, False, True, False]
    query, key, value = block.query_key_value(x[0]).chunk(3, -1)
    expected = block.output(attention_by_hand(query, key, value, 4, is_token))
    torch.testing.assert_close(block(x, torch.tensor([is_token]))[0], expected)


def test_cross_attention_reads_the_projected_source_only() -> None:
    torch.manual_seed(1)
    block, x, source = transformer.CrossAttention(16, 4, 0.0), noise_like(1, 3, 16), noise_like(1, 5, 16, seed=2)
    is_source = [True, True, True, True, False]
    key, value = block.key_value(source[0]).chunk(2, -1)
    expected = block.output(attention_by_hand(block.query(x[0]), key, value, 4, is_source))
    torch.testing.assert_close(block(x, block.memory(source), torch.tensor([is_source]))[0], expected)


def test_positional_attention_mixes_states_by_their_places() -> None:
    torch.manual_seed(1)
    block, x, positions = transformer.PositionalAttention(16, 4, 0.0), noise_like(2, 5, 16), noise_like(5, 16, seed=2)
    is_token = [True, True, False, True, False]
    query, key = block.query_key(positions).chunk(2, -1)
    for found, states in zip(block(x, positions, torch.tensor([is_token] * 2)), x, strict=True):
        expected = block.output(attention_by_hand(query, key, block.value(states), 4, is_token))
        torch.testing.assert_close(found, expected)


def test_positional_attention_has_the_same_weights_for_every_sentence_of_a_length() -> None:
    """LEE-5: so it is linear in the states; attention by content is not."""
    torch.manual_seed(1)
    by_place, by_content = transformer.PositionalAttention(16, 4, 0.0), transformer.SelfAttention(16, 4, 0.0)
    x, y, positions = noise_like(1, 5, 16), noise_like(1, 5, 16, seed=2), noise_like(5, 16, seed=3)
    zero = torch.zeros_like(x)

    def is_linear(f: Callable[[Tensor], Tensor]) -> bool:
        return torch.allclose(f(x + y) - f(zero), f(x) + f(y) - 2 * f(zero), atol=1e-5)

    assert is_linear(lambda states: by_place(states, positions, None))
    assert not is_linear(lambda states: by_content(states, None))


@pytest.mark.parametrize("is_prenorm", [False, True])
def test_a_highway_weighs_what_comes_in_against_what_is_made_of_it(is_prenorm: bool) -> None:
    torch.manual_seed(1)
    around, f, x = transformer.Highway(16, 24, 0.0, is_prenorm), torch.nn.Linear(16, 16), noise_like(2, 3, 16) * 3
    read = around.norm(x) if is_prenorm else x
    g = torch.sigmoid(around.gate.outer(torch.relu(around.gate.inner(read))))
    mixed = g * x + (1 - g) * f(read)
    torch.testing.assert_close(around(x, f), mixed if is_prenorm else around.norm(mixed))
    assert g.shape == x.shape, "a gate for every component"


def test_a_highway_stands_around_the_feed_forward_block_alone() -> None:
    blocks = stack(has_source=True, is_highway=True, has_positions=True)
    highways = [name for name, module in blocks.named_modules() if isinstance(module, transformer.Highway)]
    assert highways == ["layers.0.around_feed", "layers.1.around_feed"]


@pytest.mark.parametrize("is_prenorm", [False, True])
def test_every_decoder_layer_may_have_an_encoder_layer_of_its_own(is_prenorm: bool) -> None:
    """LEE-7: a layer's source reaches that layer first."""
    encoder, blocks = stack(has_source=False, is_prenorm=is_prenorm), stack(has_source=True, is_prenorm=is_prenorm)
    states = encoder.states(noise_like(1, 4, 16), None)
    assert len(states) == 2 and torch.equal(states[-1], encoder(noise_like(1, 4, 16), None))
    x, own = noise_like(1, 3, 16, seed=4), blocks.memory(states)
    for i, state in enumerate(states):
        expected = blocks.layers[i].cross_attention.memory(state)
        assert all(map(torch.equal, own[i], expected))
        others = [torch.zeros_like(s) if j == i else s for j, s in enumerate(states)]
        assert not torch.allclose(blocks(x, None, blocks.memory(others)), blocks(x, None, own))
    top = blocks.memory(states[-1])
    assert torch.equal(blocks(x, None, top), blocks(x, None, blocks.memory([states[-1]] * 2)))


@pytest.mark.parametrize("is_prenorm", [False, True])
def test_every_position_reads_every_other(is_prenorm: bool) -> None:
    """CMLM-1: no causal mask: each output depends on each input, left and right."""
    blocks = stack(has_source=False, is_prenorm=is_prenorm, layers=1)
    x, direction = noise_like(1, 4, 16).requires_grad_(), noise_like(16, seed=8)
    for i in range(4):
        (gradient,) = torch.autograd.grad(blocks(x, None)[0, i] @ direction, x)
        assert bool((gradient[0].abs().sum(-1) > 1e-3).all())


@pytest.mark.parametrize("is_prenorm", [False, True])
def test_padding_reaches_no_real_position(is_prenorm: bool) -> None:
    """CMLM-2: what stands at padding, on both sides, changes no output."""
    blocks, is_token = stack(has_source=True, is_prenorm=is_prenorm), torch.tensor([[True, True, True, False, False]])
    x, source = noise_like(1, 5, 16), noise_like(1, 5, 16, seed=3)
    other_x = torch.where(is_token[..., None], x, noise_like(1, 5, 16, seed=4) * 50)
    other_source = torch.where(is_token[..., None], source, noise_like(1, 5, 16, seed=6) * 50)
    first = blocks(x, is_token, blocks.memory(source), is_token)[:, :3]
    second = blocks(other_x, is_token, blocks.memory(other_source), is_token)[:, :3]
    bare = blocks(x[:, :3], None, blocks.memory(source[:, :3]), None)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, bare)


def test_layer_norm_stands_after_each_block_or_before() -> None:
    x = noise_like(2, 3, 16) * 10
    after = stack(has_source=False, is_prenorm=False, layers=1)
    torch.testing.assert_close(after(x, None).mean(-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    assert isinstance(after.norm, torch.nn.Identity)
    before = stack(has_source=False, is_prenorm=True, layers=1)
    layer = before.layers[0]
    middle = x + layer.self_attention(layer.around_self.norm(x), None)
    expected = before.norm(middle + layer.feed_forward(layer.around_feed.norm(middle)))
    torch.testing.assert_close(before(x, None), expected)


@pytest.mark.parametrize("is_prenorm", [False, True])
def test_the_input_of_a_stack_may_be_added_after_every_layer(is_prenorm: bool) -> None:
    skipping, plain = (
        stack(has_source=False, is_prenorm=is_prenorm, has_input_skip=has_skip) for has_skip in (True, False)
    )
    x, (lower, upper) = noise_like(2, 3, 16), skipping.layers
    middle = (x + lower(x, None)) / math.sqrt(2)
    expected = (x + upper(middle, None)) / math.sqrt(2)
    torch.testing.assert_close(skipping(x, None), skipping.norm(expected))
    torch.testing.assert_close(plain(x, None), plain.norm(upper(lower(x, None), None)))


def test_the_source_is_projected_once_a_sentence_not_once_a_pass() -> None:
    blocks, calls = stack(has_source=True), []
    for layer in blocks.layers:
        layer.cross_attention.key_value.register_forward_hook(lambda *_: calls.append(1))
    memory = blocks.memory(noise_like(1, 4, 16))
    for _ in range(3):
        blocks(noise_like(1, 2, 16), None, memory, None)
    assert len(calls) == 2


def test_dropout_acts_in_training_only() -> None:
    blocks, x = stack(has_source=False, dropout=0.5), noise_like(1, 3, 16)
    assert torch.equal(blocks(x, None), blocks(x, None))
    blocks.train()
    assert not torch.equal(blocks(x, None), blocks(x, None))


def test_attention_dropout_acts_in_training_only() -> None:
    block, x = transformer.SelfAttention(16, 4, 0.5), noise_like(1, 6, 16)
    assert not torch.equal(block(x, None), block(x, None))
    block.eval()
    assert torch.equal(block(x, None), block(x, None))


def test_initialisation_is_that_of_bert() -> None:
    torch.manual_seed(2)
    linear, table = torch.nn.Linear(300, 300), torch.nn.Embedding(300, 300)
    for module in (linear, table):
        transformer.bert_init(module)
        weight = module.weight.detach()
        assert abs(float(weight.std()) - 0.02) < 5e-4 and abs(float(weight.mean())) < 5e-4
    assert not linear.bias.any()


def test_layer_norm_has_the_epsilon_of_the_release() -> None:
    norms = [m for m in stack(has_source=True, is_prenorm=True).modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) == 7 and {norm.eps for norm in norms} == {1e-12}


def test_a_batch_without_padding_needs_no_mask() -> None:
    assert transformer.padding_mask(torch.ones(2, 3, dtype=torch.bool)) is None
    ragged = torch.tensor([[True, False]])
    assert transformer.padding_mask(ragged) is ragged


def test_sinusoids_are_those_of_the_formula_and_no_parameter() -> None:
    table = transformer.Sinusoids(7, 6)
    for place in range(7):
        for i in range(3):
            rate = 10000.0 ** (-i / 2)
            assert math.isclose(table.weight[place, i], math.sin(place * rate), abs_tol=1e-5)
            assert math.isclose(table.weight[place, 3 + i], math.cos(place * rate), abs_tol=1e-5)
    assert not list(table.parameters()) and not table.state_dict()
    assert transformer.Sinusoids(3, 5).weight[:, 4].eq(0).all(), "an odd width ends in a zero column"


def test_sinusoids_may_begin_at_a_later_position() -> None:
    """As fairseq's do, whose first position is the one behind the padding index."""
    assert transformer.Sinusoids(5, 6, first=2).weight.equal(transformer.Sinusoids(7, 6).weight[2:])


def test_glorots_initialisation_keeps_the_size_of_a_signal_at_any_width() -> None:
    torch.manual_seed(0)
    for width in (64, 512):
        linear, table = nn.Linear(width, width), nn.Embedding(1000, width)
        nn.ModuleList([linear, table]).apply(transformer.xavier_init)
        signal = torch.randn(256, width)
        assert 0.9 < linear(signal).std() / signal.std() < 1.1 and not linear.bias.any()
        assert 0.95 < table.weight.std() * width**0.5 < 1.05
