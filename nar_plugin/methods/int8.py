"""Linear maps in whole numbers of eight bits: a scale a row of the weights, and one a row of the input.

y = s_x · s_w · (x̂ ŵᵀ) + b, with x̂ = round(x / s_x), s_x the largest entry of the row over the largest number, so for
the rows of w. Whole numbers add up exactly, and no row of the input has a part in the scale of another, so a row's
result does not depend on what stands beside it in the batch. (One scale for the whole input, as
``torch.ao.quantization.quantize_dynamic`` has it, is a little faster and breaks that.)

Sums over positions beside such maps do not depend on padding (``is_exact``): what a sum in another order differs by,
the next rounding to eight bits would enlarge. Attention is computed as if each row came alone; other sums, and
attention in which each position has a view of its own, are made in double precision.
"""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .transformer import Projection
from .usage import UsageError

MOST = 127
"""The largest whole number of a weight."""
KERNELS = "fbgemm"
"""Of torch's libraries of such maps the one that lets its caller scale the input."""
PACKED_FROM = 384
"""Rows of an input from which on it pays to pack the weights that it alone is multiplied by."""


@contextmanager
def _kernels() -> Iterator[None]:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = KERNELS
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def rounded(weight: Tensor) -> Tensor:
    """(O, I) weights in whole numbers, with a scale a row."""
    weight = weight.detach().float().cpu()
    scales = weight.abs().amax(1).double().clamp(min=1e-30) / MOST
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is to give up tensors of such a type for torchao
        return torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)


def packed(weight: Tensor) -> Any:
    """(O, I) weights as the kernel wants them, rounded."""
    numbers = rounded(weight)
    return prepacked(numbers.int_repr(), numbers.q_per_channel_scales())


def prepacked(numbers: Tensor, scales: Tensor) -> Any:
    """The same of (O, I) whole numbers in int8 and (O,) scales. The one place that asks torch to pack."""
    zeros = torch.zeros(len(numbers), dtype=torch.int64)
    with _kernels():
        whole = torch._make_per_channel_quantized_tensor(numbers.contiguous(), scales, zeros, 0)
        return torch.ops.quantized.linear_prepack(whole, None)


def product(x: Tensor, weight: Any, most: int) -> Tensor:
    """(…, I) numbers from −1 to 1, as whole numbers up to ``most``, by packed weights: (…, O) in float32."""
    kernel = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    return kernel(x, 1 / most, most + 1, weight)


@functools.cache
def input_most() -> int:
    """The largest whole number of an input: 127, or 63 on a processor that adds products of bytes in 16 bits.

    Found by a product that overflows there. Raises UsageError where torch has no such kernels for this processor.
    """
    if KERNELS not in torch.backends.quantized.supported_engines:
        raise UsageError("--engine int8: this torch has no 8-bit kernels for this processor (nar doctor)")
    largest = torch.full((1, 64), float(MOST))
    exact = float(MOST) * 64
    return MOST if bool(torch.isclose(product(largest / MOST, packed(largest), MOST), torch.tensor(exact))) else 63


def by_rows(x: Tensor, weight: Any, bias: Tensor | None, most: int) -> Tensor:
    """The map of (…, I) to (…, O): each row divided by its largest entry, and multiplied back in place."""
    scale = x.abs().amax(-1, keepdim=True)
    # a row of zeros: the quotients are no numbers, the product is some number, and times 0 it is right
    y = product(x / scale, weight, most)
    return y.mul_(scale) if bias is None else torch.addcmul(bias, y, scale, out=y)


def by_rows_unpacked(x: Tensor, numbers: Tensor, scales: Tensor, bias: Tensor | None, most: int) -> Tensor:
    """The same map, to the bit, by (O, I) whole numbers in float32 and (O,) scales.

    Sums of whole numbers are exact there too, below 2^24: up to a width I of 1,040. What the kernel does beside them is
    done as it does it: one rounding of x̂ · (1 / s) + zero, where a product of float32 is exact in double precision.
    """
    scale = x.abs().amax(-1, keepdim=True)
    step, zero = torch.tensor(1 / most, dtype=torch.float32), most + 1
    quotient = (x / scale.clamp(min=1e-30)).double() * step.reciprocal().double() + zero
    y = F.linear(quotient.float().round_() - zero, numbers).mul_(scales * step)
    return y.mul_(scale) if bias is None else torch.addcmul(bias, y, scale, out=y)


class Linear(nn.Module):
    """In place of an ``nn.Linear``."""

    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())
        self.packed, self.most = packed(linear.weight), input_most()

    def forward(self, x: Tensor) -> Tensor:
        return by_rows(x, self.packed, self.bias, self.most)


class VocabularyProjection(nn.Module):
    """In place of a ``Projection``.

    The whole numbers stand beside the packed ones, of which rows cannot be taken. Some words' are packed for an input
    of many rows; for one sentence, whose product by them takes less than that, they are multiplied unpacked.
    """

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        weight = projection.table.weight[: projection.size]
        self.packed, self.most = packed(weight), input_most()
        numbers = rounded(weight)
        self.numbers, self.scales = numbers.int_repr(), numbers.q_per_channel_scales()

    def chosen(self, words: Tensor, rows: int) -> Any:
        """The rows of (U,) words, for ``forward`` with inputs of about so many ``rows``."""
        numbers, scales = self.numbers[words], self.scales[words]
        return prepacked(numbers, scales) if rows >= PACKED_FROM else (numbers.float(), scales.float())

    def forward(self, states: Tensor, bias: Tensor | None = None, chosen: Any = None) -> Tensor:
        if isinstance(chosen, tuple):
            numbers, scales = chosen
            return by_rows_unpacked(states, numbers, scales, bias, self.most)
        return by_rows(states, self.packed if chosen is None else chosen, bias, self.most)


def quantised(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """The module with all linear maps in it replaced, in place; itself replaced where it is one.

    ``done``: what took the place of what, so that shared maps stay shared.
    """
    if module in done:
        return done[module]
    done[module] = module
    if hasattr(module, "is_exact"):
        cast(Any, module).is_exact = True
    if type(module) is nn.Linear:
        done[module] = Linear(module)
    elif isinstance(module, Projection):
        done[module] = VocabularyProjection(module)
    else:
        for name, child in module.named_children():
            setattr(module, name, quantised(child, done))
    return done[module]
