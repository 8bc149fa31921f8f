"""Discrete latents: a vector becomes one of K codes, and a code a vector that a decoder reads.

Ways to do so, by name in ``QUANTISERS``: improved semantic hashing and Gumbel-softmax (Kaiser et al. 2018, arXiv
1803.03382, sections 3.1 and 3.2), a codebook of nearest neighbours, VQ (van den Oord et al. 2017), the same in parts,
DVQ, sliced or projected (Kaiser et al., section 3.4), VQ by hard or Monte-Carlo soft EM (Roy et al. 2018, arXiv
1805.11063), and a rounding grid, FSQ (Mentzer et al. 2023, arXiv 2309.15505).

Codebooks are moving averages of what was assigned to them, no weights (but where they ``is_learnt``: then a loss moves
them, as at first in van den Oord et al., equation 3). What a forward in training sees is kept apart,
and enters the averages only by ``commit``, once an optimiser step, summed over all workers. A code begins with the
count of one vector, its own: with a count of zero (a released code) the first update throws all but the chosen codes
far away, for good. Statistics are float32 whatever the model is.

Shapes: ``B`` rows, ``M`` latents, ``D`` width, ``K`` codes, ``P`` parts of a vector, ``Q`` codebooks of each, one after
the other. Noise is drawn for (B,) keys, so
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
    predictor is to learn. ``commitment``: (B, M) in nats, what binds the quantised to its code, where anything does;
    ``attraction``: what brings codes to the quantised, where that is a loss; ``usage``: what keeps codes in use.
    """

    vectors: Tensor
    codes: Tensor
    shares: Tensor | None = None
    commitment: Tensor | None = None
    attraction: Tensor | None = None
    usage: Tensor | None = None


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
    is drawn from 0.5 to 1.

    ``usage``: weight of the released code's terms for usage of the codes, 1 there, of which the paper does not speak.
    With d the log-probability of a latent's most probable code, before noise, and a vector for each latent that is d at
    that code and 0 elsewhere, they are −5 times the variance of these vectors over the latents of a batch, a mean over
    codes, and −0.002 d. The variance, alone of all that is trained here, is another where a batch is split.
    """

    SPREAD: ClassVar[float] = 5.0
    SURENESS: ClassVar[float] = 0.002

    def __init__(self, dim: int, size: int, *, noise_ramp: float, temperature_ramp: float, usage: float = 0.0) -> None:
        super().__init__()
        self.size, self.noise_ramp, self.temperature_ramp, self.usage = size, noise_ramp, temperature_ramp, usage
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
        plain = logits.log_softmax(-1)
        logits = plain - self.noise_scale(progress) * (-draw.log()).log()
        any_row, drawn = uniform(noise.fold(keys, 2), 2).split(1, 1)
        temperature = torch.where(any_row < 0.1, 0.5 + 0.5 * drawn, self.temperature(progress))
        weights = (logits / temperature[..., None]).softmax(-1)
        usage = self.usage_terms(plain, is_counted) if self.usage else None
        return Quantised(weights.to(h.dtype) @ self.table.weight, weights.argmax(-1), usage=usage)

    def usage_terms(self, log_probs: Tensor, is_counted: Tensor) -> Tensor:
        """(B, M, K) log-probabilities to the (B, M) terms for usage, of which each latent has its share."""
        best, codes = log_probs.max(-1)
        best = best.masked_fill(~is_counted, 0.0)
        count = is_counted.sum().clamp(min=1)
        means = best.new_zeros(self.size).index_add(0, codes.flatten(), best.flatten()) / count
        variance = (best.square().sum() / count - means.square().sum()) / self.size
        return -self.usage * (self.SPREAD * variance + self.SURENESS * best)


class VectorQuantiser(Quantiser):
    """A code is the nearest of K vectors, or of parts of the vector each the nearest of its own K^(1 / P Q).

    ``parts``: P > 1 are slices of the vector (sliced DVQ), or, where it ``is_projected``, fixed random projections of
    it. ``residuals``: Q codebooks, each for what those before it left (residual quantisation, ``num_residuals`` of the
    released code, whose later codebooks are looked up with the whole vector again); the vector read is the sum.
    ``samples``: in training, so many codes are drawn by softmax(−distance²) in place of the nearest one, and the
    mean of theirs is read (Monte-Carlo soft EM); 0: the nearest (hard EM). The combined code has part 0 of the first
    codebook in its lowest bits. ``decay``: λ of the averages c ← λ c + (1 − λ) n and m ← λ m + (1 − λ) Σ h; a code is
    at m / c. ``beta``: of the commitment β · mean over D of (h − e)², summed over the codebooks, h being what was left.
    ``is_learnt``: codes are weights, moved by the mean over D of (h − e)² with the gradient to e, and by no other loss.
    """

    counts: Tensor | None
    sums: Tensor | None
    table: nn.Parameter | None
    projections: Tensor | None
    EPSILON: ClassVar[float] = 1e-5

    def __init__(
        self,
        dim: int,
        size: int,
        *,
        parts: int = 1,
        residuals: int = 1,
        is_projected: bool = False,
        is_learnt: bool = False,
        samples: int = 0,
        decay: float = 0.999,
        beta: float = 0.25,
    ) -> None:
        super().__init__()
        if samples and parts * residuals > 1:
            raise UsageError("--vq-em soft: a vector in parts has no shares of codes (--latent vq, one codebook)")
        if samples and is_learnt:
            raise UsageError("--vq-em soft: its codes are moving averages (--codebook averages)")
        if dim % parts:
            raise UsageError(f"--dvq-parts {parts}: the width {dim} is no multiple")
        books = parts * residuals
        self.each = size if books == 1 else 1 << _bits_each(size, parts, residuals)
        self.size, self.parts, self.residuals, self.samples = size, parts, residuals, samples
        self.decay, self.beta = decay, beta
        start = torch.randn(books, self.each, dim // parts)
        self.register_buffer("counts", None if is_learnt else torch.ones(books, self.each))
        self.register_buffer("sums", None if is_learnt else start)
        self.register_parameter("table", nn.Parameter(start) if is_learnt else None)
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
        """(Q P, K^(1 / P Q), D / P) where the codes are, those of all parts in the first codebook first."""
        if self.table is not None:
            return self.table.detach().float()
        assert self.sums is not None and self.counts is not None
        return self.sums / self.counts[..., None]

    def in_parts(self, h: Tensor) -> Tensor:
        """(…, D) to (P, N, D / P), float32."""
        h = h.float().flatten(0, -2)
        return h.unflatten(1, (self.parts, -1)).transpose(0, 1) if self.projections is None else h @ self.projections

    def embed(self, codes: Tensor) -> Tensor:
        book = self.codebook
        numbers = codes.flatten()[None] // self.places(book.device)[:, None] % self.each
        found = chosen_of(book, numbers).unflatten(0, (self.residuals, -1)).sum(0)
        return side_by_side(found).view(*codes.shape, -1)

    def places(self, device: torch.device) -> Tensor:
        """(Q P,) what a number is multiplied by in the combined code."""
        return self.each ** torch.arange(self.parts * self.residuals, device=device)

    def distances(self, parted: Tensor, book: Tensor | None = None) -> Tensor:
        """(P, N, D / P) to (P, N, K^(1 / P Q)) squared distances to all codes of a codebook, the first unless given."""
        book = self.codebook[: self.parts] if book is None else book
        cross = torch.baddbmm(book.square().sum(2)[:, None], parted, book.transpose(1, 2), alpha=-2)
        return (cross + parted.square().sum(2, keepdim=True)).clamp(min=0)

    def forward(self, h: Tensor, is_counted: Tensor, keys: Tensor, progress: Progress) -> Quantised:
        with torch.autocast(h.device.type, enabled=False), torch.no_grad():
            parted = self.in_parts(h)
            shares: Tensor | None = None
            if self.training and self.samples:
                shares = self.drawn_shares(-self.distances(parted)[0].view(*h.shape[:2], -1), keys)
                codes, vectors = shares.argmax(-1), shares @ self.codebook[0]
                reached = [vectors]
                self.see(parted, shares.flatten(0, 1)[None], is_counted)
            else:
                numbers, left, reached = self.nearest(parted)
                codes = (numbers * self.places(numbers.device)[:, None]).sum(0).view(h.shape[:2])
                reached = [side_by_side(found).view(*h.shape[:2], -1) for found in reached]
                vectors = reached[-1]
                if self.training and self.table is None:
                    self.see(left, F.one_hot(numbers, self.each).float(), is_counted)
        squares = [(self.compared(h) - found).square().mean(2) for found in reached]
        mean_square = sum(squares[1:], squares[0])
        attraction = None if self.table is None else self.attraction(left, numbers).view(h.shape[:2])
        return Quantised(straight_through(h, vectors), codes, shares, self.beta * mean_square, attraction)

    def nearest(self, parted: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(P, N, D / P) to (Q P, N) numbers of the nearest codes, (Q P, N, D / P) what was left for each codebook, and
        the sums of the codes of the first, the first two, … codebooks, (P, N, D / P) each."""
        numbers: list[Tensor] = []
        left: list[Tensor] = []
        reached: list[Tensor] = []
        for book in self.codebook.split(self.parts):
            rest = parted if not reached else parted - reached[-1]
            number = self.distances(rest, book).argmin(2)
            found = chosen_of(book, number)
            numbers.append(number)
            left.append(rest)
            reached.append(found if not reached else reached[-1] + found)
        return torch.cat(numbers), torch.cat(left), reached

    def attraction(self, left: Tensor, numbers: Tensor) -> Tensor:
        """(N,) mean over D of the squared distances of codes to what is left for them, with the gradient to codes."""
        assert self.table is not None
        square = (left - chosen_of(self.table.float(), numbers)).square()
        return square.sum((0, 2)) / (self.parts * square.size(2))

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
        """Adds to what the next ``commit`` moves the codes by: (Q P, N, D / P) vectors, (Q P, N, K^(1 / P Q))
        assignments."""
        is_sound = is_counted.flatten() & parted.isfinite().all(2).all(0)  # of half precision that overflowed
        weights = weights * is_sound[None, :, None]
        parted = parted.masked_fill(~is_sound[None, :, None], 0.0)
        self.seen.append((weights.sum(1), weights.transpose(1, 2) @ parted))

    def commit(self) -> None:
        if self.counts is None or self.sums is None:
            return
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


def chosen_of(book: Tensor, numbers: Tensor) -> Tensor:
    """(C, E, D) codebooks and (C, N) numbers of codes in them to the (C, N, D) codes."""
    return book.gather(1, numbers[..., None].expand(-1, -1, book.size(2)))


def side_by_side(parted: Tensor) -> Tensor:
    """(P, N, D / P) parts put side by side: (N, D)."""
    return parted.transpose(0, 1).flatten(1)


def _bits_each(size: int, parts: int, residuals: int) -> int:
    bits = log2_of(size, "--latent dvq" if parts > 1 else "--residual-codebooks")
    told = {f"{parts} parts (--dvq-parts)": parts, f"{residuals} codebooks (--residual-codebooks)": residuals}
    if bits % (parts * residuals):
        shared = " of ".join(name for name, count in told.items() if count > 1)
        raise UsageError(f"--codebook-size {size}: its {bits} bits cannot be shared by {shared}")
    return bits // (parts * residuals)


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
