"""Discrete latents: a vector becomes one of K codes, and a code a vector that a decoder reads.

Ways to do so, by name in ``QUANTISERS``: improved semantic hashing and Gumbel-softmax (Kaiser et al. 2018, arXiv
1803.03382, sections 3.1 and 3.2), a codebook of nearest neighbours, VQ (van den Oord et al. 2017), the same in parts,
DVQ, sliced or projected (Kaiser et al., section 3.4), VQ by hard or Monte-Carlo soft EM (Roy et al. 2018, arXiv
1805.11063), and a rounding grid, FSQ (Mentzer et al. 2023, arXiv 2309.15505).

Codebooks are moving averages of what was assigned to them, no weights. What a forward in training sees is kept apart,
and enters the averages only by ``commit``, once an optimiser step, summed over all workers. A code begins with the
count of one vector, its own: with a count of zero (a released code) the first update throws all but the chosen codes
far away, for good. Statistics are float32 whatever the model is.

Shapes: ``B`` rows, ``M`` latents, ``D`` width, ``K`` codes, ``P`` parts of a vector. Noise is drawn for (B,) keys, so
that a row's does not depend on its batch.
"""

import math
from typing import Any, Callable, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import noise, schedules
from .usage import UsageError


class Quantised(NamedTuple):
    """``vectors``: (B, M, D) for the decoder; the gradient passes to what was quantised. ``codes``: (B, M) ids.

    ``shares``: (B, M, K) the shares that codes have in a vector, where there may be several; they are then what a
    predictor is to learn. ``commitment``: (B, M) in nats, what binds the quantised to its code, where anything does.
    """

    vectors: Tensor
    codes: Tensor
    shares: Tensor | None = None
    commitment: Tensor | None = None


class Progress(NamedTuple):
    """How far a training is: ``update`` of ``updates`` (0: unknown)."""

    update: int
    updates: int

    def until(self, end: float) -> float:
        """The update at which a schedule ends: ``end`` itself, or where it is below 1 that share of all updates."""
        return end * self.updates if 0 < end < 1 else end


class Quantiser(nn.Module):
    """Base of the ways. ``size``: K. In eval mode the same vector has the same code."""

    size: int

    def forward(self, h: Tensor, is_counted: Tensor, keys: Tensor, progress: Progress) -> Quantised:
        """(B, M, D) vectors; ``is_counted``: (B, M) False at padding, which leaves no trace in any statistics."""
        raise NotImplementedError

    def embed(self, codes: Tensor) -> Tensor:
        """(…,) codes to the (…, D) vectors that a decoder reads."""
        raise NotImplementedError

    def embed_shares(self, shares: Tensor) -> Tensor:
        """(…, K) shares to the (…, D) mean of the codes' vectors."""
        return shares @ self.embed(torch.arange(self.size, device=shares.device)).to(shares.dtype)

    def commit(self) -> None:
        """An optimiser step was made: statistics move."""

    def discard(self) -> None:
        """What was seen last counts for nothing."""


def straight_through(h: Tensor, vectors: Tensor) -> Tensor:
    """``vectors`` forward; backward the gradient passes to ``h`` as it is (Bengio et al. 2013)."""
    return h + (vectors.to(h.dtype) - h).detach()


def bits_of(codes: Tensor, bits: int) -> Tensor:
    """(…,) codes to (…, bits) of 0 and 1, the lowest bit first."""
    return (codes[..., None] >> torch.arange(bits, device=codes.device)) & 1


def of_bits(bits: Tensor) -> Tensor:
    """The inverse: (…, bits), True or 1 where set, to (…,) codes."""
    return (bits.long() << torch.arange(bits.size(-1), device=bits.device)).sum(-1)


def uniform(keys: Tensor, *shape: int) -> Tensor:
    """(B,) keys to (B, *shape) float32 numbers in (0, 1)."""
    return (noise.uniform(keys, math.prod(shape)) + 2.0**-25).view(len(keys), *shape)


def saturating_sigmoid(x: Tensor) -> Tensor:
    """max(0, min(1, 1.2 σ(x) − 0.1)), exactly 0 or 1 beyond ± 2.4."""
    return (1.2 * x.sigmoid() - 0.1).clamp(0, 1)


def log2_of(size: int, why: str) -> int:
    """Raises UsageError where a codebook's size is no power of two."""
    bits = size.bit_length() - 1
    if size < 2 or size != 1 << bits:
        raise UsageError(f"--codebook-size {size}: {why} needs a power of two")
    return bits


def perplexity(counts: Tensor) -> float:
    """Of what is used so often: 2 to the entropy in bits, at most as many as there are."""
    shares = counts.double() / counts.sum().clamp(min=1)
    return round(math.exp(-float(torch.special.xlogy(shares, shares).sum())), 1)


class SemanticHashing(Quantiser):
    """A code is the signs of log₂ K numbers, which noise makes far from zero (Kaiser et al., section 3.2).

    In training the decoder reads saturating sigmoids of some rows, bits of others: of as many as ``ramp`` says (up to a
    half). ``noise_dev``: standard deviation of the noise, 1 in the paper (released code: 0.5). The dense side is the
    paper's two tables, a bit's value choosing a row of either, through ``hidden`` units without an activation.
    """

    def __init__(self, dim: int, size: int, *, hidden: int, noise_dev: float, ramp: float) -> None:
        super().__init__()
        self.size, self.bits, self.noise_dev, self.ramp = size, log2_of(size, "--latent semhash"), noise_dev, ramp
        self.to_bits = nn.Linear(dim, self.bits)
        self.set_bits, self.unset_bits = nn.Linear(self.bits, hidden), nn.Linear(self.bits, hidden)
        self.output = nn.Linear(hidden, dim)

    def dense(self, bits: Tensor) -> Tensor:
        """(…, log₂ K) numbers from 0 to 1 to (…, D)."""
        return self.output(self.set_bits(bits) + self.unset_bits(1 - bits))

    def embed(self, codes: Tensor) -> Tensor:
        return self.dense(bits_of(codes, self.bits).to(self.output.bias.dtype))

    def share_of_bits(self, progress: Progress) -> float:
        """Probability that a row of a training batch is read as bits."""
        return 0.5 * schedules.rising(progress.update, progress.until(self.ramp))

    def forward(self, h: Tensor, is_counted: Tensor, keys: Tensor, progress: Progress) -> Quantised:
        values = self.to_bits(h)
        if not self.training:
            codes = of_bits(values > 0)
            return Quantised(self.embed(codes), codes)
        spread = torch.special.ndtri(uniform(noise.fold(keys, 1), *values.shape[1:]).double()).to(values.dtype)
        values = values + self.noise_dev * spread
        soft, hard = saturating_sigmoid(values), values > 0
        is_hard = uniform(noise.fold(keys, 2), 1) < self.share_of_bits(progress)
        read = torch.where(is_hard[..., None], straight_through(soft, hard), soft)
        return Quantised(self.dense(read), of_bits(hard))


class Gumbel(Quantiser):
    """A code is the greatest of K logits; in training the decoder reads a mean of all codes' vectors, by softmax with
    noise, ever sharper (Kaiser et al., section 3.1; Jang et al. 2016).

    Noise grows to a half and the temperature falls from 1.2 to 0.2 until two ends; in every tenth row the temperature
    is drawn from 0.5 to 1. The released code's terms for usage of the codes, one of them a variance over the batch, are
    left out.
    """

    def __init__(self, dim: int, size: int, *, noise_ramp: float, temperature_ramp: float) -> None:
        super().__init__()
        self.size, self.noise_ramp, self.temperature_ramp = size, noise_ramp, temperature_ramp
        self.to_logits, self.table = nn.Linear(dim, size), nn.Embedding(size, dim)

    def noise_scale(self, progress: Progress) -> float:
        return 0.5 * schedules.rising(progress.update, progress.until(self.noise_ramp))

    def temperature(self, progress: Progress) -> float:
        return 1.2 - schedules.climbing(progress.update, progress.until(self.temperature_ramp))

    def embed(self, codes: Tensor) -> Tensor:
        return self.table(codes)

    def forward(self, h: Tensor, is_counted: Tensor, keys: Tensor, progress: Progress) -> Quantised:
        logits = self.to_logits(h).float()
        if not self.training:
            codes = logits.argmax(-1)
            return Quantised(self.embed(codes), codes)
        draw = uniform(noise.fold(keys, 1), *logits.shape[1:]).clamp(1e-5, 0.99998)
        logits = logits.log_softmax(-1) - self.noise_scale(progress) * (-draw.log()).log()
        any_row, drawn = uniform(noise.fold(keys, 2), 2).split(1, 1)
        temperature = torch.where(any_row < 0.1, 0.5 + 0.5 * drawn, self.temperature(progress))
        weights = (logits / temperature[..., None]).softmax(-1)
        return Quantised(weights.to(h.dtype) @ self.table.weight, weights.argmax(-1))


class VectorQuantiser(Quantiser):
    """A code is the nearest of K vectors, or of parts of the vector each the nearest of its own K^(1/P).

    ``parts``: P > 1 are slices of the vector (sliced DVQ), or, where it ``is_projected``, fixed random projections of
    it. ``samples``: in training, so many codes are drawn by softmax(−distance²) in place of the nearest one, and the
    mean of theirs is read (Monte-Carlo soft EM); 0: the nearest (hard EM). The combined code has part 0 in its lowest
    bits. ``decay``: λ of the averages c ← λ c + (1 − λ) n and m ← λ m + (1 − λ) Σ h; a code is at m / c. ``beta``: of
    the commitment β · mean over D of (h − e)².
    """

    counts: Tensor
    sums: Tensor
    projections: Tensor | None
    EPSILON: ClassVar[float] = 1e-5

    def __init__(
        self,
        dim: int,
        size: int,
        *,
        parts: int = 1,
        is_projected: bool = False,
        samples: int = 0,
        decay: float = 0.999,
        beta: float = 0.25,
    ) -> None:
        super().__init__()
        if samples and parts > 1:
            raise UsageError("--vq-em soft: a vector in parts has no shares of codes (--latent vq)")
        if dim % parts:
            raise UsageError(f"--dvq-parts {parts}: the width {dim} is no multiple")
        self.each = size if parts == 1 else 1 << _bits_each(size, parts)
        self.size, self.parts, self.samples = size, parts, samples
        self.decay, self.beta = decay, beta
        self.register_buffer("counts", torch.ones(parts, self.each))
        self.register_buffer("sums", torch.randn(parts, self.each, dim // parts))
        drawn = nn.init.xavier_uniform_(torch.empty(dim, dim)).view(dim, parts, -1).transpose(0, 1).contiguous()
        self.register_buffer("projections", drawn if is_projected else None)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def _apply(self, fn: Callable[[Tensor], Tensor], *others: Any) -> Any:
        """To another device as any module, and never to another type."""
        before = dict(self.named_buffers())
        super()._apply(fn, *others)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    @property
    def codebook(self) -> Tensor:
        """(P, K^(1/P), D / P) where the codes are."""
        return self.sums / self.counts[..., None]

    def in_parts(self, h: Tensor) -> Tensor:
        """(…, D) to (P, N, D / P), float32."""
        h = h.float().flatten(0, -2)
        return h.unflatten(1, (self.parts, -1)).transpose(0, 1) if self.projections is None else h @ self.projections

    def embed(self, codes: Tensor) -> Tensor:
        places = codes.flatten()[None] // self.places[:, None] % self.each
        found = self.codebook.gather(1, places[..., None].expand(-1, -1, self.codebook.size(2)))
        return found.transpose(0, 1).flatten(1).view(*codes.shape, -1)

    @property
    def places(self) -> Tensor:
        """(P,) what a part's number is multiplied by in the combined code."""
        return self.each ** torch.arange(self.parts, device=self.counts.device)

    def distances(self, parted: Tensor) -> Tensor:
        """(P, N, D / P) to (P, N, K^(1/P)) squared distances to all codes."""
        book = self.codebook
        cross = torch.baddbmm(book.square().sum(2)[:, None], parted, book.transpose(1, 2), alpha=-2)
        return (cross + parted.square().sum(2, keepdim=True)).clamp(min=0)

    def forward(self, h: Tensor, is_counted: Tensor, keys: Tensor, progress: Progress) -> Quantised:
        with torch.autocast(h.device.type, enabled=False), torch.no_grad():
            parted = self.in_parts(h)
            distances = self.distances(parted)
            shares: Tensor | None = None
            if self.training and self.samples:
                shares = self.drawn_shares(-distances[0].view(*h.shape[:2], -1), keys)
                codes, vectors = shares.argmax(-1), shares @ self.codebook[0]
                self.see(parted, shares.flatten(0, 1)[None], is_counted)
            else:
                nearest = distances.argmin(2)
                codes = (nearest * self.places[:, None]).sum(0).view(h.shape[:2])
                vectors = self.embed(codes)
                if self.training:
                    self.see(parted, F.one_hot(nearest, self.each).float(), is_counted)
        mean_square = (self.compared(h) - vectors).square().mean(2)
        return Quantised(straight_through(h, vectors), codes, shares, self.beta * mean_square)

    def compared(self, h: Tensor) -> Tensor:
        """(B, M, D) what is drawn to its code: the parts of ``h``, with its gradient."""
        return h.float() if self.projections is None else self.in_parts(h).transpose(0, 1).reshape(h.shape)

    def drawn_shares(self, logits: Tensor, keys: Tensor) -> Tensor:
        """(B, M, K) logits to the shares that ``samples`` draws of a code give to each, which sum to 1."""
        draw = uniform(noise.fold(keys, 1), logits.size(1), self.samples)
        cumulated = logits.double().softmax(-1).cumsum(-1)
        drawn = torch.searchsorted(cumulated, draw.double() * cumulated[..., -1:], right=True)
        return F.one_hot(drawn.clamp(max=self.size - 1), self.size).float().mean(2)

    def see(self, parted: Tensor, weights: Tensor, is_counted: Tensor) -> None:
        """Adds to what the next ``commit`` moves the codes by: (P, N, D / P) vectors, (P, N, K^(1/P)) assignments."""
        is_sound = is_counted.flatten() & parted.isfinite().all(2).all(0)  # of half precision that overflowed
        weights = weights * is_sound[None, :, None]
        parted = parted.masked_fill(~is_sound[None, :, None], 0.0)
        self.seen.append((weights.sum(1), weights.transpose(1, 2) @ parted))

    def commit(self) -> None:
        nothing = torch.zeros_like(self.counts), torch.zeros_like(self.sums)
        counts, sums = (sum(parts[1:], parts[0]) for parts in zip(nothing, *self.seen, strict=True))
        self.seen.clear()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            both = torch.cat([counts.flatten(), sums.flatten()])
            torch.distributed.all_reduce(both)
            flat = both.split([counts.numel(), sums.numel()])
            counts, sums = flat[0].view_as(counts), flat[1].view_as(sums)
        new_counts = self.counts.lerp(counts, 1 - self.decay)
        is_moved = new_counts > self.EPSILON  # a code that is long unused stays where it is
        self.sums.copy_(torch.where(is_moved[..., None], self.sums.lerp(sums, 1 - self.decay), self.sums))
        self.counts.copy_(torch.where(is_moved, new_counts, self.counts))

    def discard(self) -> None:
        if self.seen:
            self.seen.pop()


def _bits_each(size: int, parts: int) -> int:
    bits = log2_of(size, "--latent dvq")
    if bits % parts:
        raise UsageError(f"--codebook-size {size}: its {bits} bits cannot be shared by {parts} parts (--dvq-parts)")
    return bits // parts


LEVELS: dict[int, tuple[int, ...]] = {
    2**8: (8, 6, 5),
    2**10: (8, 5, 5, 5),
    2**12: (7, 5, 5, 5, 5),
    2**14: (8, 8, 8, 6, 5),
    2**16: (8, 8, 8, 5, 5, 5),
}
"""Levels of each dimension by about how many codes they make (Mentzer et al. 2023, table 1)."""


def levels_of(written: str, size: int) -> tuple[int, ...]:
    """Levels as ``--fsq-levels`` writes them, or those that make about ``size`` codes.

    Raises UsageError for what is no list of numbers, and for a size that nobody has levels for.
    """
    if not written:
        if size not in LEVELS:
            known = ", ".join(map(str, LEVELS))
            raise UsageError(f"--codebook-size {size}: there are levels for {known}; others are given as --fsq-levels")
        return LEVELS[size]
    try:
        return tuple(int(part) for part in written.split(","))
    except ValueError:
        raise UsageError(f"--fsq-levels {written}: whole numbers between commas, as 8,5,5,5") from None


class FiniteScalar(Quantiser):
    """A few numbers, each rounded to one of a few levels: a grid of codes, all of them in reach, and nothing to learn
    or to lose (Mentzer et al. 2023).

    ``levels``: L of each dimension; K is their product. The code is Σ (q_i + ⌊L_i / 2⌋) Π_{j<i} L_j.
    """

    EPSILON: ClassVar[float] = 1e-3
    reach: Tensor
    offset: Tensor
    whole: Tensor
    places: Tensor

    def __init__(self, dim: int, levels: tuple[int, ...]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise UsageError(f"--fsq-levels {','.join(map(str, levels))}: two levels or more for each dimension")
        self.size, self.levels = math.prod(levels), levels
        self.down, self.up = nn.Linear(dim, len(levels)), nn.Linear(len(levels), dim)
        counts = torch.tensor(levels)
        self.register_buffer("reach", (counts - 1) * (1 + self.EPSILON) / 2, persistent=False)
        self.register_buffer("offset", torch.where(counts % 2 == 0, 0.5, 0.0), persistent=False)
        self.register_buffer("whole", counts // 2, persistent=False)
        places = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("places", torch.tensor(places), persistent=False)

    def bounded(self, z: Tensor) -> Tensor:
        """(…, d) numbers to within the levels: reach · tanh(z + shift) − offset, 0 at 0."""
        reach, offset = self.reach.float(), self.offset.float()
        return reach * (z.float() + (offset / reach).atanh()).tanh() - offset

    def embed(self, codes: Tensor) -> Tensor:
        levels = 2 * self.whole + (self.offset == 0)
        grid = codes[..., None] // self.places % levels - self.whole
        return self.up((grid / self.whole).to(self.up.bias.dtype))

    def forward(self, h: Tensor, is_counted: Tensor, keys: Tensor, progress: Progress) -> Quantised:
        bounded = self.bounded(self.down(h))
        grid = bounded.round()
        codes = ((grid.long() + self.whole) * self.places).sum(-1)
        read = straight_through(bounded, grid) / self.whole
        return Quantised(self.up(read.to(self.up.bias.dtype)), codes)
