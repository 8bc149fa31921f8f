"""The latent transformer: a target is compressed to a shorter sequence of codes, the codes are predicted one after the
other, and everything is decoded from them at once.

Kaiser et al. 2018 (arXiv 1803.03382) and Roy et al. 2018 (arXiv 1805.11063): the networks. What makes a vector a code:
``methods.quantizers``; the search for codes: ``methods.autoregressive``.

Convolutions are linear maps of neighbours put side by side, so that they are matrix products like all others. What
stands beyond a row's own canvas is zero before each of them: a row is the same beside longer ones.

Shapes: ``B`` rows, ``L`` positions of a canvas, ``M`` latents, L = M · 2^steps, ``D`` width.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import noise
from .cache import KVCache
from .quantizers import Quantiser
from .transformer import Memory, Projection, Stack, TokenEmbedding, mean_over
from .usage import UsageError

KERNEL = 3
"""Positions that a convolution sees, in each of the three of a block."""


def canvas_lengths(lengths: Tensor, compression: int) -> Tensor:
    """(B,) lengths to those of their canvases, multiples of ``compression``."""
    return (lengths + compression - 1).div(compression, rounding_mode="floor") * compression


def hidden_beyond(x: Tensor, is_there: Tensor | None) -> Tensor:
    """(B, L, D) with zeros where (B, L) ``is_there`` is False."""
    return x if is_there is None else x * is_there[..., None].to(x.dtype)


class Neighbours(nn.Module):
    """A convolution over three positions: (B, L, D) to (B, L, D), with zeros around."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(KERNEL * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        left, right = F.pad(x, (0, 0, 1, 0))[:, :-1], F.pad(x, (0, 0, 0, 1))[:, 1:]
        return self.linear(torch.cat([left, x, right], 2))


class Convolutions(nn.Module):
    """Norm, three times ReLU, convolution and norm, dropout, and the input added."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)
        self.convolutions = nn.ModuleList(Neighbours(dim) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x: Tensor, is_there: Tensor | None) -> Tensor:
        y = self.norm(x)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            y = norm(convolution(hidden_beyond(F.relu(y), is_there)))
        return x + self.dropout(y)


class Compressor(nn.Module):
    """(B, L, D) embedded targets to (B, M, D): as many blocks of convolutions as steps, attention to the source where
    there is any, and in each step two neighbours become one."""

    def __init__(self, dim: int, steps: int, dropout: float, attention: Stack | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Convolutions(dim, dropout) for _ in range(steps))
        self.attention = attention
        self.halves = nn.ModuleList(nn.Linear(2 * dim, dim) for _ in range(steps))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(steps))

    def forward(
        self, x: Tensor, is_there: Tensor | None, memory: tuple[Memory, ...] | None, is_source: Tensor | None
    ) -> Tensor:
        for block in self.blocks:
            x = block(x, is_there)
        if self.attention is not None:
            x = self.attention(x, is_there, memory, is_source)
        for half, norm in zip(self.halves, self.norms, strict=True):
            x = norm(half(F.relu(x).unflatten(1, (-1, 2)).flatten(2)))
        return x


class Decompressor(nn.Module):
    """(B, M, D) vectors of codes to (B, L, D): in each step a block of convolutions, attention to the source where
    there is any, and one position becomes two."""

    def __init__(self, dim: int, steps: int, dropout: float, attentions: list[Stack]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Convolutions(dim, dropout) for _ in range(steps))
        self.attentions = nn.ModuleList(attentions)
        self.doubles = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in range(steps))
        self.norms = nn.ModuleList(nn.LayerNorm(2 * dim) for _ in range(steps))

    def forward(
        self,
        x: Tensor,
        is_latent: Tensor | None,
        memories: tuple[tuple[Memory, ...], ...],
        is_source: Tensor | None,
    ) -> Tensor:
        is_there = is_latent
        for i, (block, double, norm) in enumerate(zip(self.blocks, self.doubles, self.norms, strict=True)):
            x = block(x, is_there)
            if len(self.attentions):
                x = self.attentions[i](x, is_there, memories[i], is_source)
            x = norm(double(F.relu(x) if i else x)).unflatten(2, (2, -1)).flatten(1, 2)
            is_there = None if is_there is None else is_there.repeat_interleave(2, 1)
        return x


class Encoder(nn.Module):
    """The source, read once, for all that attends to it, and the target's length where it is predicted."""

    def __init__(
        self, embedding: TokenEmbedding, encoder: Stack, readers: list[Stack], length_head: nn.Module | None
    ) -> None:
        super().__init__()
        self.embedding, self.encoder, self.readers = embedding, encoder, nn.ModuleList(readers)
        self.length_head = length_head

    def forward(
        self, source: Tensor, is_source: Tensor, mask: Tensor | None
    ) -> tuple[tuple[tuple[Memory, ...], ...], Tensor | None]:
        """(B, S) ids to the memory of every reader, and (B, 100) log-probabilities of the length."""
        encoded = self.encoder(self.embedding(source), mask)
        memories = tuple(cast(Stack, reader).memory(encoded) for reader in self.readers)
        if self.length_head is None:
            return memories, None
        logits = self.length_head(mean_over(encoded, is_source))
        return memories, logits.float().log_softmax(1)


class Embed(nn.Module):
    """Codes to what is read of them."""

    def __init__(self, quantiser: Quantiser) -> None:
        super().__init__()
        self.quantiser = quantiser

    def forward(self, codes: Tensor) -> Tensor:
        """(…,) codes to (…, D)."""
        return self.quantiser.embed(codes)


class Digits(nn.Module):
    """Codes predicted digit by digit, each by a softmax of its own: (…, D) states to (…, K) logits, whose softmax is
    the product of those (``num_decode_blocks`` of the released code).

    With P digits in base K^(1/P) there are P K^(1/P) rows of weights, not K, and digits are independent given the codes
    before.
    """

    def __init__(self, table: nn.Embedding, parts: int) -> None:
        """``table``: the rows of all digits, those of the lowest first."""
        super().__init__()
        self.parts, self.projection = parts, Projection(table, len(table.weight))

    def forward(self, states: Tensor) -> Tensor:
        digits = self.projection(states).unflatten(-1, (self.parts, -1))
        logits = digits[..., 0, :]
        for part in range(1, self.parts):
            logits = (digits[..., part, :, None] + logits[..., None, :]).flatten(-2)
        return logits


def base_of(size: int, parts: int) -> int:
    """The base in which the codes below ``size`` are the numbers of ``parts`` digits.

    Raises UsageError where there is none.
    """
    base = round(size ** (1 / parts))
    if base < 2 or base**parts != size:
        raise UsageError(f"--predictor-parts {parts}: {size} codes are no numbers of {parts} digits in any base")
    return base


class Autoencoder(nn.Module):
    """Targets to what is made codes."""

    def __init__(self, embedding: TokenEmbedding, compressor: Compressor) -> None:
        super().__init__()
        self.embedding, self.compressor = embedding, compressor

    def forward(
        self,
        target: Tensor,
        is_token: Tensor,
        is_canvas: Tensor | None,
        memory: tuple[Memory, ...] | None,
        is_source: Tensor | None,
        is_kept: Tensor | None = None,
    ) -> Tensor:
        """(B, L) ids on their canvas to (B, M, D). What is no word, or not ``is_kept``, is its position alone."""
        words = hidden_beyond(self.embedding.scale * self.embedding.tokens(target), is_token)
        if is_kept is not None:
            words = hidden_beyond(words, is_kept)
        x = self.embedding.dropout(words + self.embedding.places(target.size(1)))
        return self.compressor(x, is_canvas, memory, is_source)


class Predictor(nn.Module):
    """(B, M, D) states of codes given those before, and a first one that is zero."""

    def __init__(self, places: Any, dropout: float, stack: Stack) -> None:
        """``places``: a module with a ``weight``, the embeddings of positions."""
        super().__init__()
        self.places, self.dropout, self.stack = places, nn.Dropout(dropout), stack

    def forward(self, embedded: Tensor, memory: tuple[Memory, ...], is_source: Tensor | None) -> Tensor:
        """(B, M, D) embedded codes to the states that predict each from those before it."""
        width = embedded.size(1)
        weight = self.places.weight[:width].to(embedded.dtype)
        x = self.dropout(F.pad(embedded, (0, 0, 1, 0))[:, :-1] + weight)
        return self.stack(x, causal(width, x.device), memory, is_source)


class PredictorStep(nn.Module):
    """The same, one code at a time."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(
        self,
        embedded: Tensor,
        place: Tensor,
        layers: tuple[Memory, ...],
        memory: tuple[Memory, ...],
        is_source: Tensor | None,
    ) -> tuple[Tensor, tuple[Memory, ...]]:
        """(R, D) the last code, embedded, (1, D) the position, what was read before, (R, H, C, D / H) keys and values a
        layer: to (R, D) states and the same with one more column."""
        rows, columns = len(embedded), layers[0][0].size(2)
        is_live = torch.ones(rows, columns, dtype=torch.bool, device=embedded.device)
        cache = KVCache(layers=layers, is_live=is_live)
        x = self.predictor.dropout((embedded + place.to(embedded.dtype))[:, None])
        is_token = torch.ones(rows, 1, dtype=torch.bool, device=embedded.device)
        states, cache = cache.read(self.predictor.stack, x, is_token, memory, is_source)
        return states[:, 0], cache.layers


class Decoder(nn.Module):
    """The parallel pass: codes' vectors to states of all positions.

    Causal, as in the papers, it reads the decompressed sequence one position late, so that it could as well read the
    target itself; otherwise each position sees all.
    """

    def __init__(
        self, places: Any, embedding: TokenEmbedding, decompressor: Decompressor, stack: Stack, is_causal: bool
    ) -> None:
        """``places``: a module with a ``weight``, the embeddings of the latents' positions."""
        super().__init__()
        self.places, self.embedding, self.decompressor, self.stack = places, embedding, decompressor, stack
        self.is_causal = is_causal

    def forward(
        self,
        vectors: Tensor,
        is_latent: Tensor | None,
        is_token: Tensor | None,
        width: int,
        memories: tuple[tuple[Memory, ...], ...],
        is_source: Tensor | None,
        target: Tensor | None = None,
        is_latents: Tensor | None = None,
    ) -> Tensor:
        """(B, M, D) to (B, ``width``, D). ``memories``: the stack's, then those of the decompressor.

        ``is_token``: (B, width) what the positions of others may see. In training, ``target``: (B, width) ids, which
        stand in place of what was decompressed where (B, width) ``is_latents`` is False.
        """
        vectors = vectors.to(memories[0][0][0].dtype)  # codebooks are float32
        x = vectors + self.places.weight[: vectors.size(1)].to(vectors.dtype)
        x = self.decompressor(x, is_latent, memories[1:], is_source)[:, :width]
        if target is not None and is_latents is not None:
            words = self.embedding.scale * self.embedding.tokens(target)
            x = torch.where(is_latents[..., None], x, words.to(x.dtype))
        seen = is_token
        if self.is_causal:
            x, seen = F.pad(x, (0, 0, 1, 0))[:, :-1], causal(width, x.device)
        x = self.embedding.dropout(x + self.embedding.places(width).to(x.dtype))
        return self.stack(x, seen, memories[0], is_source)


def causal(width: int, device: torch.device) -> Tensor:
    """(1, width, width) True where a position may look: at itself and before."""
    return torch.ones(width, width, dtype=torch.bool, device=device).tril()[None]


def word_order(keys: Tensor, is_token: Tensor, rate: float) -> Tensor:
    """(B, T) places of words that were shuffled a little: sorted by i + U(0, 1 + rate) (Roy et al., for denoising)."""
    places = torch.arange(is_token.size(1), device=keys.device)
    draw = noise.uniform(noise.fold(keys, 11), is_token.size(1)) * (1 + rate)
    return torch.where(is_token, places + draw, torch.inf).argsort(dim=1, stable=True)
