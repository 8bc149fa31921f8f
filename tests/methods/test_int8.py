"""Linear maps in whole numbers: against a plain loop, alone and beside others."""

import pytest
import torch
from torch import nn

from nar_plugin.methods import int8
from nar_plugin.methods.transformer import CrossAttention, Projection, SelfAttention, Stack


def by_hand(x: list[float], weight: list[list[float]], bias: list[float], most: int) -> list[float]:
    """One row of the input: whole numbers of Python, which never overflow."""
    scale = max(map(abs, x)) / most
    of_x = [round(value / scale) for value in x] if scale else [0] * len(x)
    found = []
    for row, shift in zip(weight, bias, strict=True):
        step = max(max(map(abs, row)), 1e-30) / int8.MOST
        of_row = [round(value / step) for value in row]
        found.append(scale * step * sum(a * b for a, b in zip(of_x, of_row, strict=True)) + shift)
    return found


def test_a_map_is_that_of_the_formula() -> None:
    torch.manual_seed(1)
    linear, x = nn.Linear(24, 10), torch.randn(7, 24) * torch.logspace(-3, 3, 7)[:, None]
    x[3] = 0
    found = int8.Linear(linear)(x)
    bias, weight = linear.bias.tolist(), linear.weight.tolist()
    expected = torch.tensor([by_hand(row.tolist(), weight, bias, int8.input_most()) for row in x])
    size = expected.abs().amax(1, keepdim=True)
    # an entry may stand between two whole numbers, and be rounded to either
    assert ((found - expected).abs() / size).max() < 0.02
    assert ((found - expected).abs() < 1e-5 * size).float().mean() > 0.9
    assert found[3].equal(linear.bias)


def test_whole_numbers_do_not_overflow_at_their_largest() -> None:
    for width in (8, 64, 512, 2048):
        linear = nn.Linear(width, 16, bias=False)
        nn.init.constant_(linear.weight, 0.5)
        for sign in (1, -1):
            x = torch.full((3, width), 2.0 * sign)
            torch.testing.assert_close(int8.Linear(linear)(x), torch.full((3, 16), float(sign * width)))


@pytest.mark.parametrize("width", [16, 128, 512])
def test_a_row_is_the_same_to_the_bit_beside_any_others(width: int) -> None:
    torch.manual_seed(2)
    layer = int8.Linear(nn.Linear(width, 3 * width))
    x = torch.randn(2, 33, width)
    together = layer(torch.cat([x, 100 * torch.randn(40, 33, width)]))[:2]
    alone = torch.stack([torch.stack([layer(row[None])[0] for row in rows]) for rows in x])
    assert together.equal(alone)


def test_the_error_is_that_of_rounding() -> None:
    torch.manual_seed(3)
    linear = nn.Linear(256, 512)
    x = torch.randn(50, 256)
    exact = linear(x)
    assert (int8.Linear(linear)(x) - exact).abs().mean() < 0.02 * exact.std()


def test_no_row_and_no_axis_are_lost() -> None:
    layer = int8.Linear(nn.Linear(8, 4))
    assert layer(torch.zeros(0, 8)).shape == (0, 4)
    assert layer(torch.randn(2, 3, 5, 8)).shape == (2, 3, 5, 4)


def test_a_projection_has_the_rows_of_words_alone_and_the_bias_of_the_call() -> None:
    torch.manual_seed(4)
    projection = Projection(nn.Embedding(21, 16), 20)
    replaced = int8.quantised(projection, {})
    x, bias = torch.randn(2, 5, 16), torch.randn(20)
    for given in (None, bias):
        assert replaced(x, given).shape == (2, 5, 20)
        torch.testing.assert_close(replaced(x, given), projection(x, given), atol=0.2, rtol=0.1)


def test_every_map_is_replaced_and_what_is_shared_stays_shared() -> None:
    options = {"has_source": True, "activation": "relu", "dropout": 0.0, "attention_dropout": 0.0}
    stack = Stack(2, 16, 32, 2, is_prenorm=True, activation_dropout=0.0, **options)
    shared = nn.Linear(16, 16)
    first, second = nn.ModuleDict({"stack": stack, "head": shared}), nn.ModuleDict({"head": shared})
    done: dict[nn.Module, nn.Module] = {}
    for module in (first, second):
        assert int8.quantised(module, done) is module
        assert not any(isinstance(one, nn.Linear) for one in module.modules())
    assert first["head"] is second["head"] and isinstance(first["head"], int8.Linear)
    kinds = (SelfAttention, CrossAttention)
    assert all(one.is_exact for one in stack.modules() if isinstance(one, kinds))


@torch.no_grad()
def test_attention_is_the_same_to_the_bit_whatever_stands_behind_it() -> None:
    torch.manual_seed(5)
    options = {"has_source": True, "activation": "relu", "dropout": 0.0, "attention_dropout": 0.0}
    stack = Stack(2, 32, 64, 4, is_prenorm=True, activation_dropout=0.0, **options).eval()
    int8.quantised(stack, {})
    for width, source in ((1, 1), (5, 9), (25, 23), (60, 70)):
        x, memory = torch.randn(1, width, 32), torch.randn(1, source, 32)
        alone = stack(x, None, stack.memory(memory), None)
        padded = torch.cat([torch.cat([x, torch.randn(1, 13, 32)], 1), torch.randn(6, width + 13, 32)])
        behind = torch.cat([torch.cat([memory, torch.randn(1, 8, 32)], 1), torch.randn(6, source + 8, 32)])
        is_token, is_source = torch.ones(7, width + 13).bool(), torch.ones(7, source + 8).bool()
        is_token[0, width:], is_source[0, source:] = False, False
        together = stack(padded, is_token, stack.memory(behind), is_source)
        assert together[:1, :width].equal(alone)
