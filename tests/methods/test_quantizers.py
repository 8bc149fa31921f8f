"""Ways to make a vector a code, against plain loops and against another library's mathematics."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nar_plugin.methods import quantizers, schedules
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.quantizers import Progress

DIM, SIZE = 8, 16
NOW = Progress(50, 100)


def made(kind: str, seed: int = 1, **options: Any) -> Any:
    torch.manual_seed(seed)
    if kind == "semhash":
        return quantizers.SemanticHashing(DIM, SIZE, **{"hidden": 12, "noise_dev": 1.0, "ramp": 100, **options})
    if kind == "gumbel":
        return quantizers.Gumbel(DIM, SIZE, **{"noise_ramp": 30000, "temperature_ramp": 150000, **options})
    if kind == "fsq":
        return quantizers.FiniteScalar(DIM, options.get("levels", (5, 4, 3)))
    parts = {"vq": 1, "residual": 1, "learnt": 1}.get(kind, 2)
    of_kind = {"is_projected": kind == "projected", "is_learnt": kind == "learnt"}
    residuals = 2 if kind.startswith("residual") else 1
    return quantizers.VectorQuantiser(
        DIM, SIZE, **{"parts": parts, "residuals": residuals, "decay": 0.9, **of_kind, **options}
    )


KINDS = ("semhash", "gumbel", "vq", "sliced", "projected", "residual", "residual slices", "learnt", "fsq")
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
OF_VECTORS = pytest.mark.parametrize("kind", ["vq", "sliced", "projected"])


def vectors(rows: int = 5, latents: int = 6, seed: int = 2) -> Tensor:
    return torch.randn(rows, latents, DIM, generator=torch.Generator().manual_seed(seed))


def run(quantiser: Any, h: Tensor, is_counted: Tensor | None = None, progress: Progress = NOW) -> quantizers.Quantised:
    is_counted = torch.ones(h.shape[:2], dtype=torch.bool) if is_counted is None else is_counted
    return quantiser(h, is_counted, torch.arange(len(h)), progress)


def nearest(points: Tensor, book: Tensor) -> list[int]:
    """By a loop."""
    return [min(range(len(book)), key=lambda j: float((point - book[j]).square().sum())) for point in points]


@EVERY_KIND
def test_what_is_embedded_of_codes_is_what_was_quantised(kind: str) -> None:
    """LT-2: in eval mode, for every code that there is, each of its own."""
    quantiser, h = made(kind).eval(), vectors(20)
    found = run(quantiser, h)
    assert torch.allclose(quantiser.embed(found.codes), found.vectors, atol=1e-5)
    assert found.codes.min() >= 0 and found.codes.max() < quantiser.size and found.codes.unique().numel() > 3
    assert quantiser.embed(torch.arange(quantiser.size)).unique(dim=0).size(0) == quantiser.size


def test_codes_and_bits_are_each_others_inverse() -> None:
    """LT-2: the lowest bit first."""
    codes = torch.arange(64)
    bits = quantizers.bits_of(codes, 6)
    assert quantizers.of_bits(bits).equal(codes) and bits[5].tolist() == [1, 0, 1, 0, 0, 0]


def test_one_slice_is_the_whole_codebook() -> None:
    """LT-1: DVQ of one part is VQ, in codes, vectors, loss and what it learns."""
    one, other = made("vq"), made("sliced", parts=1)
    other.load_state_dict(one.state_dict())
    some, others = run(one.train(), vectors()), run(other.train(), vectors())
    for mine, theirs in zip(some, others, strict=True):
        assert mine is theirs is None or torch.equal(mine, theirs)
    one.commit(), other.commit()
    assert torch.equal(one.codebook, other.codebook)


def test_parts_are_the_nearest_of_a_product_of_codebooks() -> None:
    """LT-3: by a loop over all pairs; part 0 is in the lowest bits."""
    quantiser, h = made("sliced").eval(), vectors()
    first, second = quantiser.codebook
    pairs = torch.stack([torch.cat([a, b]) for b in second for a in first])
    codes = run(quantiser, h).codes.flatten()
    assert codes.tolist() == nearest(h.flatten(0, 1), pairs) and torch.equal(quantiser.embed(codes), pairs[codes])


def test_projected_parts_are_the_nearest_to_fixed_projections() -> None:
    """LT-2: which are no weights, and saved."""
    quantiser, h = made("projected").eval(), vectors()
    codes = run(quantiser, h).codes.flatten()
    for part, (projection, book) in enumerate(zip(quantiser.projections, quantiser.codebook, strict=True)):
        assert (codes // 4**part % 4).tolist() == nearest(h.flatten(0, 1) @ projection, book)
    assert not list(quantiser.parameters()) and "projections" in quantiser.state_dict()


@OF_VECTORS
def test_the_gradient_passes_straight_through(kind: str) -> None:
    """LT-4, LT-5: to the quantised as it came to the code, plus the commitment's 2 β (h − e) / D; none to codes."""
    quantiser, h = made(kind).eval(), vectors().requires_grad_()
    found = run(quantiser, h)
    assert torch.allclose(found.vectors, quantiser.embed(found.codes), atol=1e-6)
    weights = torch.randn(found.vectors.shape, generator=torch.Generator().manual_seed(3))
    (found.vectors * weights).sum().backward()
    assert torch.allclose(h.grad, weights)
    h.grad = None
    found = run(quantiser, h)
    found.commitment.sum().backward()
    distance = quantiser.compared(h.detach()) - quantiser.embed(found.codes)
    assert torch.allclose(found.commitment, 0.25 * distance.square().mean(2))
    expected = 2 * 0.25 * distance / DIM
    if kind == "projected":
        expected = torch.einsum("rmpd,phd->rmh", expected.unflatten(2, (2, -1)), quantiser.projections)
    assert torch.allclose(h.grad, expected, atol=1e-6)


def test_an_update_without_memory_is_the_means_of_what_was_assigned() -> None:
    """LT-6, LT-7: K-means' second step; a code that nothing was assigned to stays; distances only fall."""
    quantiser, h = made("vq", decay=0.0).train(), vectors(4)
    points, before = h.flatten(0, 1), quantiser.codebook[0].clone()
    for _ in range(5):
        codes, loss = nearest(points, quantiser.codebook[0]), float(quantiser.distances(points[None]).amin(2).sum())
        run(quantiser, h)
        quantiser.commit()
        for code in range(SIZE):
            mine = points[[i for i, one in enumerate(codes) if one == code]]
            expected = mine.mean(0) if len(mine) else before[code]
            assert torch.allclose(quantiser.codebook[0, code], expected, atol=1e-5)
        before = quantiser.codebook[0].clone()
        assert float(quantiser.distances(points[None]).amin(2).sum()) <= loss + 1e-3


def test_averages_come_to_the_means_of_fixed_assignments() -> None:
    """LT-6: and what is long unused neither moves nor vanishes."""
    quantiser = quantizers.VectorQuantiser(2, 4, decay=0.9).train()
    start = torch.tensor([[[5.0, 5.0], [-5.0, 5.0], [-5.0, -5.0], [500.0, 0.0]]])
    quantiser.sums.copy_(start)
    points = torch.tensor([[[5.5, 4.0], [4.0, 5.5], [-6.0, 5.0], [-5.0, -7.0]]])
    for _ in range(400):
        run(quantiser, points)
        quantiser.commit()
    expected = torch.tensor([[4.75, 4.75], [-6.0, 5.0], [-5.0, -7.0], [500.0, 0.0]])
    assert torch.allclose(quantiser.codebook[0], expected, atol=1e-3)


@pytest.mark.parametrize(("count", "least", "most"), [(1.0, 40, 64), (0.0, 0, 2)], ids=["ours", "released"])
def test_codes_stay_in_use(count: float, least: int, most: int) -> None:
    """LT-6: 64 clusters keep 40 codes and more of 512; from counts of zero, as in a released code, the first updates
    throw all others away, for good."""
    generator = torch.Generator().manual_seed(7)
    centres = 3 * torch.randn(64, DIM, generator=generator)
    quantiser = quantizers.VectorQuantiser(DIM, 512, decay=0.99).train()
    used: set[int] = set()
    for step in range(1000):
        which = torch.randint(64, (1, 128), generator=generator)
        h = centres[which] + 0.1 * torch.randn(1, 128, DIM, generator=generator)
        if not step and not count:
            quantiser.counts.fill_(1e-4)  # next to nothing, with vectors of their full size
        found = run(quantiser, h)
        quantiser.commit()
        used = set(found.codes.unique().tolist()) if step < 999 else used | set(found.codes.unique().tolist())
    assert least <= len(used) <= most


def by_residuals(point: Tensor, books: list[Tensor]) -> tuple[list[int], Tensor, float]:
    """By a loop over codebooks: the number in each, the sum of the codes, the mean squares of what each leaves."""
    numbers, read, squares = [], torch.zeros_like(point), 0.0
    for book in books:
        (number,) = nearest([point - read], book)  # type: ignore[arg-type]
        numbers.append(number)
        read = read + book[number]
        squares += float((point - read).square().mean())
    return numbers, read, squares


def test_codebooks_one_after_the_other_are_for_what_is_left() -> None:
    """LT-22: by a loop; the first codebook is in the lowest bits, what is read is the sum, and every codebook has its
    commitment."""
    quantiser, h = made("residual").eval(), vectors()
    found, books = run(quantiser, h), list(quantiser.codebook)
    assert [len(book) for book in books] == [4, 4]
    for i, point in enumerate(h.flatten(0, 1)):
        numbers, read, squares = by_residuals(point, books)
        assert int(found.codes.flatten()[i]) == numbers[0] + 4 * numbers[1]
        assert torch.allclose(found.vectors.flatten(0, 1)[i], read, atol=1e-6)
        assert float(found.commitment.flatten()[i]) == pytest.approx(0.25 * squares, rel=1e-4)
    slices = made("residual slices").eval()
    found = run(slices, h)
    for part, point in enumerate(h.flatten(0, 1).split(DIM // 2, 1)):
        mine = [by_residuals(one, [slices.codebook[part], slices.codebook[2 + part]])[0] for one in point]
        for book, place in ((0, part), (1, 2 + part)):
            assert (found.codes.flatten() // 2**place % 2).tolist() == [numbers[book] for numbers in mine]


def test_every_codebook_moves_to_what_is_left_for_it() -> None:
    """LT-22: to the mean of what was assigned to its codes; and two codebooks come nearer than one."""
    quantiser, h = made("residual", decay=0.0).train(), vectors(40)
    points, before = h.flatten(0, 1), quantiser.codebook.clone()
    run(quantiser, h)
    quantiser.commit()
    left = points
    for book in range(2):
        numbers = torch.tensor(nearest(left, before[book]))
        for number in numbers.unique():
            assert torch.allclose(quantiser.codebook[book, number], left[numbers == number].mean(0), atol=1e-5)
        left = left - before[book][numbers]
    one = made("vq", decay=0.0)
    one.each = one.size = 4
    one.sums, one.counts = before[:1].clone(), torch.ones(1, 4)
    for _ in range(10):
        for each in (quantiser, one.train()):
            run(each, h)
            each.commit()
    errors = [float((run(each.eval(), h).vectors - h).square().mean()) for each in (quantiser, one)]
    assert errors[0] < 0.9 * errors[1]


def test_a_learnt_codebook_has_a_loss_of_its_own() -> None:
    """LT-23: the mean over the width of (h − e)², whose gradient goes to codes alone; no other loss moves them, and
    there are no statistics."""
    quantiser, h = made("learnt").train(), vectors().requires_grad_()
    points = h.detach().flatten(0, 1)
    found = run(quantiser, h)
    codes = found.codes.flatten()
    assert codes.tolist() == nearest(points, quantiser.table[0].detach()) and not list(quantiser.buffers())
    book = quantiser.table[0].detach()
    assert torch.allclose(found.attraction.flatten(), (points - book[codes]).square().mean(1), atol=1e-6)
    found.attraction.sum().backward()
    expected = torch.zeros_like(book)
    for point, code in zip(points, codes.tolist(), strict=True):
        expected[code] += 2 / DIM * (book[code] - point)
    assert torch.allclose(quantiser.table.grad[0], expected, atol=1e-5) and h.grad is None
    quantiser.table.grad = None
    found = run(quantiser, h)
    (found.commitment.sum() + found.vectors.sum()).backward()
    assert quantiser.table.grad is None and not quantiser.embed(codes).requires_grad
    quantiser.commit(), quantiser.discard()
    assert torch.equal(quantiser.table[0], book) and made("vq").train() and run(made("vq"), h).attraction is None


def test_a_step_of_a_learnt_codebook_is_towards_the_means() -> None:
    """LT-23: of the rate D / 2n for n vectors it goes all the way, as an update without memory does."""
    quantiser, other, h = made("learnt").train(), made("vq", decay=0.0).train(), vectors(4)
    other.sums.copy_(quantiser.table.detach())
    run(quantiser, h).attraction.sum().backward()
    counts = run(quantiser, h).codes.flatten().bincount(minlength=SIZE).clamp(min=1)
    with torch.no_grad():
        quantiser.table -= DIM / 2 / counts[:, None] * quantiser.table.grad
    run(other, h)
    other.commit()
    assert torch.allclose(quantiser.codebook, other.codebook, atol=1e-5)
    half = made("learnt").half().train()
    found = run(half, h.half())
    assert half.table.dtype == torch.float16 and found.attraction.dtype == torch.float32


def test_terms_for_usage_of_codes() -> None:
    """LT-24: by a loop over codes, over what is counted alone; in training alone, and none without a weight."""
    quantiser, h = made("gumbel", usage=2.0).train(), vectors(20)
    is_counted = torch.ones(20, 6, dtype=torch.bool)
    is_counted[3:9, 2:] = False
    found = run(quantiser, h, is_counted)
    log_probs = quantiser.to_logits(h)[is_counted].log_softmax(-1)
    best, codes = log_probs.max(-1)
    variances = []
    for code in range(SIZE):
        column = torch.where(codes == code, best, torch.zeros_like(best))
        variances.append((column - column.mean()).square().mean())
    expected = 2.0 * (-5 * torch.stack(variances).mean() - 0.002 * best)
    assert torch.allclose(found.usage[is_counted], expected, atol=1e-5)
    found.usage[is_counted].sum().backward()
    assert quantiser.to_logits.weight.grad.abs().sum() > 0
    other = torch.where(is_counted[..., None], h, 7.0)
    assert torch.allclose(run(quantiser, other, is_counted).usage[is_counted], expected, atol=1e-5)
    assert run(quantiser.eval(), h).usage is None and run(made("gumbel").train(), h).usage is None


def soft(samples: int = 10, **options: Any) -> Any:
    return made("vq", samples=samples, **options).train()


def test_soft_codes_are_drawn_by_distance() -> None:
    """LT-8: as often as softmax(−d²) says; a power check: not as softmax(−d) says."""
    quantiser, point = soft(samples=1000), vectors(1, 1)
    shares = run(quantiser, point.expand(40, 1, DIM)).shares[:, 0].mean(0).double()
    distances = quantiser.distances(point[0][None])[0, 0].double()

    def chi_square(expected: Tensor) -> float:
        return float(40000 * ((shares - expected).square() / expected.clamp(min=1e-12))[expected > 1e-3].sum())

    assert chi_square((-distances).softmax(0)) < 40 < chi_square((-distances.sqrt()).softmax(0))


def test_shares_of_codes() -> None:
    """LT-8: multiples of 1 / samples that sum to 1; the mean of their vectors is read; their sum over what is counted
    is what moves the codes; in eval mode the nearest alone."""
    quantiser, h = soft(), vectors()
    is_counted = torch.ones(5, 6, dtype=torch.bool)
    is_counted[2, 3:] = False
    found = run(quantiser, h, is_counted)
    assert torch.allclose(found.shares.sum(2), torch.ones(5, 6))
    assert torch.allclose(found.shares * 10, (found.shares * 10).round(), atol=1e-5)
    assert torch.allclose(found.vectors, found.shares @ quantiser.codebook[0], atol=1e-6)
    assert torch.allclose(quantiser.embed_shares(found.shares), found.vectors, atol=1e-6)
    counts, sums = quantiser.seen[0]
    assert float(counts.sum()) == pytest.approx(27) and torch.allclose(counts[0], found.shares[is_counted].sum(0))
    assert torch.allclose(sums[0], found.shares[is_counted].T @ h[is_counted], atol=1e-5)
    quantiser.eval()
    plain = run(quantiser, h)
    assert plain.shares is None and plain.codes.flatten().tolist() == nearest(h.flatten(0, 1), quantiser.codebook[0])


def test_soft_codes_of_far_vectors_are_the_nearest() -> None:
    """LT-8: where distances are great, one sample is hard EM."""
    one, other = soft(samples=1), made("vq").train()
    for quantiser in (one, other):
        quantiser.sums.mul_(100)
    assert run(one, 100 * vectors()).codes.equal(run(other, 100 * vectors()).codes)


@OF_VECTORS
def test_padding_leaves_no_trace(kind: str) -> None:
    """LT-9: whatever stands there, infinities of half precision among it."""
    one, other = made(kind).train(), made(kind).train()
    h, is_counted = vectors(), torch.ones(5, 6, dtype=torch.bool)
    is_counted[:, 4:] = False
    run(one, h[:, :4])
    run(other, torch.where(is_counted[..., None], h, torch.inf), is_counted)
    one.commit(), other.commit()
    assert torch.allclose(one.codebook, other.codebook, atol=1e-6)


@OF_VECTORS
def test_statistics_move_in_training_alone(kind: str) -> None:
    """LT-10: not in eval mode, and not by a dummy batch; saved and loaded to the bit; never in half precision."""
    quantiser = made(kind)
    before = copy.deepcopy(quantiser.state_dict())
    run(quantiser.eval(), vectors())
    quantiser.train()
    run(quantiser, vectors(seed=5))
    quantiser.discard()
    quantiser.commit()
    # all that was seen is nothing: counts and sums fade alike
    assert torch.allclose(quantiser.codebook, before["sums"] / before["counts"][..., None], atol=1e-5)
    run(quantiser, vectors())
    quantiser.commit()
    assert not torch.allclose(quantiser.codebook, before["sums"] / before["counts"][..., None], atol=1e-3)
    saved = copy.deepcopy(quantiser.state_dict())
    quantiser.half()
    assert all(
        torch.equal(saved[name], value) and value.dtype == torch.float32
        for name, value in quantiser.state_dict().items()
    )


@OF_VECTORS
def test_parts_of_a_batch_move_codes_as_the_whole(kind: str) -> None:
    """LT-10: what is accumulated over several batches is summed before an update."""
    one, other, h = made(kind).train(), made(kind).train(), vectors()
    run(one, h)
    run(other, h[:2])
    run(other, h[2:])
    one.commit(), other.commit()
    assert torch.allclose(one.codebook, other.codebook, atol=1e-6)


def test_the_sigmoid_saturates() -> None:
    """LT-11: exactly 0 and 1 beyond ± 2.4, a half at 0."""
    found = quantizers.saturating_sigmoid(torch.tensor([-2.4, -2.39, 0.0, 2.39, 2.4]))
    assert found[0] == 0 and found[1] > 0 and found[2] == 0.5 and found[3] < 1 and found[4] == 1


def test_hashing_reads_numbers_and_bits() -> None:
    """LT-11: bits are the signs; as many rows as the schedule says are read as bits; the gradient is that of the
    numbers in either case."""
    quantiser = made("semhash")
    h = vectors(2000, 1)
    assert run(quantiser.eval(), h).codes.equal(quantizers.of_bits(quantiser.to_bits(h) > 0))
    quantiser.train()
    seen: list[Tensor] = []
    quantiser.set_bits.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    run(quantiser, h, progress=Progress(100, 100))
    is_bits = ((seen[0] == 0) | (seen[0] == 1)).all(2)[:, 0]
    share = quantiser.share_of_bits(Progress(100, 100))
    assert share == 0.5 and abs(float(is_bits.float().mean()) - share) < 0.1
    seen.clear()
    gradients = []
    for progress in (Progress(0, 100), Progress(10**6, 100)):
        leaf = h.clone().requires_grad_()
        run(quantiser, leaf, progress=progress).vectors.sum().backward()
        gradients.append(leaf.grad)
    assert torch.allclose(*gradients, atol=1e-6) and not torch.equal(*seen)


def test_gumbel_in_training_and_out_of_it() -> None:
    """LT-12: a mean of codes in training, one in eval mode; noise and temperature by their closed forms."""
    quantiser, h = made("gumbel"), vectors(300)
    for update, noise, temperature in (
        (0, 0.005, 1.19),
        (15000, 0.05, 1.091),
        (30000, 0.5, 0.992),
        (150000, 0.5, 0.2),
        (300000, 0.5, 0.2),
    ):
        assert quantiser.noise_scale(Progress(update, 0)) == pytest.approx(noise)
        assert quantiser.temperature(Progress(update, 0)) == pytest.approx(temperature)
    found = run(quantiser.train(), h, progress=Progress(0, 0))
    assert not torch.allclose(quantiser.embed(found.codes), found.vectors, atol=1e-2)
    found = run(quantiser.eval(), h)
    assert found.codes.equal(quantiser.to_logits(h).argmax(-1)) and torch.equal(
        found.vectors, quantiser.embed(found.codes)
    )


def test_gumbel_weights_are_a_distribution() -> None:
    """LT-12: each code's vector the same, the mean is that vector."""
    quantiser = made("gumbel").train()
    with torch.no_grad():
        quantiser.table.weight.copy_(torch.ones_like(quantiser.table.weight))
    assert torch.allclose(run(quantiser, vectors()).vectors, torch.ones(5, 6, DIM), atol=1e-5)


@pytest.mark.parametrize("levels", [(3,), (4,), (5,), (6,), (7,), (8,), (8, 5, 5, 5), (4, 3)])
def test_the_grid_has_all_its_codes(levels: tuple[int, ...]) -> None:
    """LT-21: as many as the product of levels, all within reach, 0 at 0; each number's neighbours the next codes."""
    quantiser = made("fsq", levels=levels)
    assert quantiser.size == math.prod(levels)
    z = torch.cartesian_prod(*[torch.linspace(-6, 6, 41)] * len(levels)).view(-1, len(levels))
    with torch.no_grad():
        bounded = quantiser.bounded(z)
        grid = bounded.round()
        codes = ((grid.long() + quantiser.whole) * quantiser.places).sum(-1)
        assert quantiser.bounded(torch.zeros(len(levels))).abs().max() < 1e-6
    for i, count in enumerate(levels):
        assert grid[:, i].unique().tolist() == list(range(-(count // 2), (count + 1) // 2))
    assert codes.unique().numel() == quantiser.size and codes.min() == 0


def test_the_grid_passes_gradients() -> None:
    """LT-21: those of the bounded numbers, as if they were not rounded."""
    quantiser, h = made("fsq"), vectors().requires_grad_()
    run(quantiser, h).vectors.sum().backward()
    rounded, h.grad = h.grad, None
    quantiser.up(quantiser.bounded(quantiser.down(h)) / quantiser.whole).sum().backward()
    assert torch.allclose(rounded, h.grad, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: made("semhash").__class__(DIM, 12, hidden=4, noise_dev=1.0, ramp=1), "--codebook-size 12"),
        (lambda: quantizers.VectorQuantiser(DIM, 8, parts=2), "--codebook-size 8"),
        (lambda: quantizers.VectorQuantiser(DIM, 8, parts=3), "--dvq-parts 3"),
        (lambda: quantizers.VectorQuantiser(DIM, 16, parts=2, samples=3), "--vq-em soft"),
        (lambda: quantizers.VectorQuantiser(DIM, 16, residuals=2, samples=3), "--vq-em soft"),
        (lambda: quantizers.VectorQuantiser(DIM, 16, is_learnt=True, samples=3), "--codebook averages"),
        (lambda: quantizers.VectorQuantiser(DIM, 16, residuals=3), r"4 bits cannot be .* 3 codebooks \(--residual"),
        (lambda: quantizers.VectorQuantiser(DIM, 64, parts=2, residuals=2), r"\(--dvq-parts\) of 2 codebooks"),
        (lambda: quantizers.VectorQuantiser(DIM, 12, residuals=2), "--codebook-size 12: --residual-codebooks"),
        (lambda: quantizers.levels_of("", 100), "--codebook-size 100"),
        (lambda: quantizers.levels_of("8,x", 256), "--fsq-levels 8,x"),
        (lambda: quantizers.FiniteScalar(DIM, (1, 5)), "--fsq-levels 1,5"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        make()


@pytest.mark.parametrize(("size", "about"), [(256, 240), (1024, 1000), (4096, 4375), (2**14, 15360), (2**16, 64000)])
def test_levels_make_about_as_many_codes(size: int, about: int) -> None:
    """LT-21."""
    assert math.prod(quantizers.levels_of("", size)) == about and quantizers.levels_of("4,3", size) == (4, 3)


def test_schedules_have_their_closed_forms() -> None:
    """LT-16: m(s) for an end of 50,000, pc(s) for 10,000, pd(s) for 20,000."""

    def mixed(s: int) -> float:
        return schedules.climbing(s, 50000) * schedules.rising(s, 12500)

    expected = {0: 1e-4, 5000: 0.0069, 10000: 0.0828, 12500: 0.2575, 25000: 0.505, 50000: 1.0, 90000: 1.0}
    assert {s: pytest.approx(mixed(s), abs=1e-3) for s in expected} == expected
    assert [round(schedules.rising(s, 10000), 3) for s in (0, 5000, 10000, 20000)] == [0.01, 0.1, 1.0, 1.0]
    assert [round(0.5 * schedules.rising(s, 20000), 4) for s in (0, 10000, 20000)] == [0.005, 0.05, 0.5]
    assert schedules.rising(5, 0) == schedules.climbing(5, 0) == 1.0
    assert Progress(3, 1000).until(0.2) == 200 and Progress(3, 1000).until(50000) == 50000
