"""The latent transformer as a whole: its behaviours, by number (tests/BEHAVIOURS.md)."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.optim import FairseqOptimizer
from fairseq.optim.lr_scheduler import build_lr_scheduler
from omegaconf import OmegaConf
from torch import Tensor

from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.methods import latent_transformer as method
from nar_plugin.methods import lengths as length_classes
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.symbols import right_padded
from tests import tiny
from tests.tiny import EOS, PAD, SYMBOLS, decode, random_rows, sample_of, terms_of, texts

SOURCES, TARGETS = random_rows(12, 9, seed=5), random_rows(12, 9, seed=6)
KINDS: dict[str, dict[str, Any]] = {
    "semhash": {},
    "gumbel": {},
    "vq": {},
    "soft": {"latent": "vq", "vq_em": "soft"},
    "sliced": {"latent": "dvq"},
    "projected": {"latent": "dvq", "dvq": "projected"},
    "residual": {"latent": "dvq", "residual_codebooks": 2},
    "learnt": {"latent": "vq", "codebook": "gradient"},
    "digits": {"latent": "vq", "predictor_parts": 2},
    "fsq": {},
    "predicted": {"latent": "fsq", "latent_length": "predicted"},
    "full": {"latent": "vq", "latent_decoder_self_attn": "full", "latent_curriculum": "none"},
    "attending": {"latent": "fsq", "attend_compress": True, "attend_decompress": True, "latent_length": "predicted"},
    "bypass": {"latent": "vq", "latent_curriculum": "bypass"},
    "deep": {"latent": "fsq", "compression": 8, "predictor_layers": 2, "normalize_before": True},
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
SEARCHES = {"greedy": {}, "beam": {"lengths": 3}, "samples": {"decode_samples": 3}, "again": {"iterations": 2}}


def model_of(kind: str = "fsq", **options: Any) -> Any:
    given = {"latent": kind, "compression": 4, "codebook_size": 256, "max_update": 100, **KINDS[kind], **options}
    return tiny.tiny_model(arch="latent_transformer_tiny", **given)


def encoded_of(model: Any, rows: list[list[int]]) -> Any:
    return model.encode(tiny.net_input_of(rows))


def target_of(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    return right_padded(tiny.stacked(rows), PAD)


@EVERY_KIND
@pytest.mark.parametrize("search", SEARCHES)
def test_no_hypothesis_depends_on_its_batch(kind: str, search: str) -> None:
    """LT-17: alone, beside longer ones, left or right padded."""
    tiny.decode_in_any_batch(model_of(kind), random_rows(10, 9, seed=8), **SEARCHES[search])


@EVERY_KIND
def test_no_loss_depends_on_its_batch(kind: str) -> None:
    """LT-9, LT-17: a sentence's terms alone and beside others, in training."""
    model = model_of(kind).train()
    model.set_num_updates(30)
    whole = terms_of(model, sample_of(SOURCES[:4], TARGETS[:4]))
    parts = [terms_of(model, sample_of(SOURCES[i : i + 1], TARGETS[i : i + 1], first_id=i)) for i in range(4)]
    for number, term in enumerate(whole):
        if term.name == "token":
            assert torch.allclose(term.logits, torch.cat([part[number].logits for part in parts]), atol=1e-4)
        if term.name == "codes":
            assert torch.equal(term.codes, torch.cat([part[number].codes for part in parts]))
        if term.name == "code":
            assert torch.allclose(term.logits, torch.cat([part[number].logits for part in parts]), atol=1e-4)


@pytest.mark.parametrize("compression", [2, 4, 8, 16])
def test_lengths_of_canvas_and_codes(compression: int) -> None:
    """LT-13: a canvas is a multiple of the compression, of which there are as many codes as it is times as long; the
    decompressor has it whole again."""
    model = model_of("fsq", compression=compression)
    encoded, (target, is_token) = encoded_of(model, SOURCES), target_of(TARGETS)
    lengths = is_token.sum(1)
    canvas = model.whole_canvas(encoded, lengths)
    assert (canvas % compression == 0).all()
    assert (canvas >= torch.maximum(lengths, 2 * encoded.sizes)).all()
    assert (canvas < torch.maximum(lengths, 2 * encoded.sizes) + compression).all()
    h, is_latent = model.compress(encoded, target, canvas)
    assert h.size(1) * compression == int(canvas.max()) and torch.equal(is_latent.sum(1) * compression, canvas)
    restored = model.decompressor(h, is_latent, (), None)
    assert restored.size(1) == int(canvas.max())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["fsq", "vq", "predicted"])
def test_a_causal_decoder_does_not_see_what_it_predicts(kind: str) -> None:
    """LT-14: neither what was decompressed there, nor, where targets are fed, the target there or after."""
    model = model_of(kind)
    encoded, (target, is_token) = encoded_of(model, SOURCES[:3]), target_of(TARGETS[:3])
    width = target.size(1)
    codes, is_code = model.codes_of(encoded, target, model.whole_canvas(encoded, is_token.sum(1)))
    vectors = model.run("embed", codes)
    changed = target.clone()
    place = 3
    changed[:, place:] = torch.where(is_token, tiny.FIRST_WORD + 1, PAD)[:, place:]
    fed = torch.zeros_like(is_token)  # targets alone
    some = model.decode(encoded, vectors, is_code, width, target, fed)
    others = model.decode(encoded, vectors, is_code, width, changed, fed)
    assert torch.allclose(some[:, : place + 1], others[:, : place + 1], atol=1e-6)
    assert not torch.allclose(some[:, place + 1 :], others[:, place + 1 :], atol=1e-3)
    mixed = fed.clone()
    mixed[:, :place] = True
    read = model.decode(encoded, vectors, is_code, width, target, mixed)
    again = model.decode(encoded, vectors, is_code, width, changed, mixed)
    assert torch.allclose(read[:, : place + 1], again[:, : place + 1], atol=1e-6)


@torch.no_grad()
def test_a_decoder_that_sees_all() -> None:
    """LT-14: needs no shift: the first position depends on the last code."""
    model = model_of("full")
    encoded, (target, is_token) = encoded_of(model, [[5] * 9]), target_of([[6] * 9])
    codes, is_code = model.codes_of(encoded, target, model.whole_canvas(encoded, is_token.sum(1)))
    other = codes.clone()
    other[:, -1] = (other[:, -1] + 1) % 256
    some, others = (model.word_log_probs(encoded, c, is_code, 10) for c in (codes, other))
    assert not torch.allclose(some[:, 0], others[:, 0], atol=1e-4)


@torch.no_grad()
@EVERY_KIND
def test_the_predictor_sees_the_codes_before(kind: str) -> None:
    """LT-15: of no code its own or a later one; step by step, with what was read kept, as all at once."""
    model = model_of(kind)
    encoded, codes = encoded_of(model, SOURCES[:4]), torch.randint(model.quantiser.size, (4, 5))
    whole, changed = model.code_log_probs(encoded, codes), codes.clone()
    changed[:, 2:] = (changed[:, 2:] + 7) % model.quantiser.size
    others = model.code_log_probs(encoded, changed)
    assert torch.allclose(whole[:, :3], others[:, :3], atol=1e-5)
    assert not torch.allclose(whole[:, 3:], others[:, 3:], atol=1e-3)
    state, last = model.reading(encoded, torch.arange(4)), None
    for step in range(5):
        logits, state = model.read(state, last, step)
        assert torch.allclose(logits.log_softmax(1), whole[:, step], atol=1e-4)
        last = codes[:, step]


@pytest.mark.parametrize("parts", [2, 4])
def test_digits_of_a_code_are_predicted_each_by_a_softmax(parts: int) -> None:
    """LT-25: their product is the probability of the code, the lowest digit first; there are as many rows as digits."""
    base = {2: 16, 4: 4}[parts]
    model = model_of("vq", predictor_parts=parts)
    assert model.code_output.weight.size(0) == parts * base
    states = torch.randn(3, 2, model.cfg.encoder_embed_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model.run("project_codes", states).softmax(-1)
        rows = [model.code_output.weight[i * base : (i + 1) * base] for i in range(parts)]
        digits = [(states @ row.T).softmax(-1) for row in rows]
    for code in range(256):
        expected = torch.ones(3, 2)
        for i, digit in enumerate(digits):
            expected = expected * digit[..., code // base**i % base]
        assert torch.allclose(found[..., code], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "parts", "base"), [(64, 2, 8), (64, 3, 4), (64, 6, 2), (2**16, 4, 16), (15**3, 3, 15)]
)
def test_codes_are_numbers_in_a_base(size: int, parts: int, base: int) -> None:
    """LT-25."""
    assert method.base_of(size, parts) == base
    for wrong in (size + 1, size - 1):
        with pytest.raises(UsageError, match=f"--predictor-parts {parts}: {wrong} codes"):
            method.base_of(wrong, parts)


def test_a_learnt_codebook_learns_in_a_training_from_its_own_loss() -> None:
    """LT-23: from `attraction` alone, whatever the predictor says, and by the optimiser."""
    model, sample = model_of("learnt", latent_curriculum="none").train(), sample_of(SOURCES, TARGETS)
    terms = {term.name: term for term in terms_of(model, sample)}
    words = terms["token"].logits.float().log_softmax(-1).gather(1, terms["token"].target[:, None]).sum()
    codes = terms["code"].logits.float().log_softmax(-1).gather(1, terms["code"].target[:, None]).sum()
    (words + codes + terms["commitment"].values.sum()).backward(retain_graph=True)
    assert model.quantiser.table.grad is None
    terms["attraction"].values.sum().backward()
    assert model.quantiser.table.grad.abs().sum() > 0
    before, distances = model.quantiser.table.detach().clone(), []
    for _ in range(2):
        terms = {term.name: term for term in terms_of(model.train(), sample)}
        distances.append(float(terms["attraction"].values[terms["attraction"].is_counted].detach().mean()))
        tiny.train(model, sample, 60, rate=1e-2)
    assert distances[1] < distances[0] and not torch.allclose(before, model.quantiser.table)


class Rate(FairseqOptimizer):
    """An optimiser that is nothing but its rate."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[no-untyped-call]
        self.rate = 0.0

    def set_lr(self, lr: float) -> None:
        self.rate = lr


def test_a_rate_may_decay_exponentially_after_its_warm_up() -> None:
    """LT-26: as in Roy et al., by a schedule of fairseq's own."""
    given = {"_name": "step", "lr": [2.0], "warmup_updates": 100, "lr_decay": 0.99, "lr_deacy_period": 1}
    optimizer = Rate()
    schedule = build_lr_scheduler(OmegaConf.create(given), optimizer)
    for update in (0, 30, 99, 100, 101, 350):
        schedule.step_update(update)
        assert optimizer.rate == pytest.approx(2.0 * (update / 100 if update < 100 else 0.99 ** (update - 100)))


def test_schedules_follow_the_training() -> None:
    """LT-16: at the papers' constants, and as shares of the run; the predictor is taught from the end of the first."""
    model = model_of("semhash", schedules="papers")
    for update, share in ((0, 1e-4), (12500, 0.2575), (50000, 1.0)):
        model.set_num_updates(update)
        assert model.share_of_latents == pytest.approx(share, abs=1e-3)
        assert model.predictor_weight == 0
    model.set_num_updates(50001)
    assert model.predictor_weight == 1 and model.quantiser.share_of_bits(model.progress) == 0.5
    model = model_of("bypass", schedules="papers")
    for update, share in ((0, 0.01), (5000, 0.1), (10000, 1.0)):
        model.set_num_updates(update)
        assert model.share_of_codes == pytest.approx(share) and model.predictor_weight == 1
    model = model_of("semhash", max_update=1000)
    for update, weight in ((200, 0), (201, 1)):
        model.set_num_updates(update)
        assert model.predictor_weight == weight and model.share_of_latents == 1
    assert model_of("semhash", target_feeding=300.0, max_update=1000).end("target_feeding", 300.0) == 300


def test_terms_of_the_loss() -> None:
    """LT-9, LT-16: codes count towards no sample size; the predictor weighs nothing at first, and 1 in validation."""
    model, sample = model_of("vq"), sample_of(SOURCES[:4], TARGETS[:4])
    model.set_num_updates(3)
    terms = {term.name: term for term in terms_of(model.train(), sample)}
    assert list(terms) == ["token", "code", "codes", "commitment"]
    assert terms["code"].weight == 0 and not terms["code"].is_counted and not terms["code"].is_reported
    assert len(terms["token"].target) == sum(len(row) + 1 for row in TARGETS[:4])
    latents = model.whole_canvas(encoded_of(model, SOURCES[:4]), torch.tensor([len(t) + 1 for t in TARGETS[:4]])) // 4
    assert len(terms["code"].target) == int(latents.sum()) == len(terms["codes"].codes)
    assert {term.name: term for term in terms_of(model.eval(), sample)}["code"].weight == 1
    soft = {term.name: term for term in terms_of(model_of("soft").train(), sample)}
    assert torch.allclose(soft["code"].target.sum(1), torch.ones(len(soft["code"].target)))
    assert [term.name for term in terms_of(model_of("predicted"), sample)] == ["token", "code", "codes", "length"]


def gradient_of_codes(model: Any) -> float:
    """What the predictor's loss alone says to the compressor."""
    model.train().set_num_updates(100)
    term = next(t for t in terms_of(model, sample_of(SOURCES[:4], TARGETS[:4])) if t.name == "code")
    model.zero_grad()
    target = term.target if term.target.is_floating_point() else term.target
    torch.nn.functional.cross_entropy(term.logits, target).backward()
    return sum(float(p.grad.abs().sum()) for p in model.compressor.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", ["vq", "soft", "semhash", "fsq", "projected"])
def test_whether_the_predictor_teaches_the_compressor(kind: str) -> None:
    """LT-4: not unless it is asked for."""
    assert gradient_of_codes(model_of(kind)) == 0 < gradient_of_codes(model_of(kind, lp_grad_to_ae=True))


def test_what_is_fed_at_first() -> None:
    """LT-14, LT-16: nearly all positions read the target in the first update, none at the end, and never in
    validation; under the other curriculum latents that are no codes."""
    model, sample = model_of("vq"), sample_of(SOURCES, TARGETS)
    fed: list[Any] = []
    model.passes["decode"].module.register_forward_pre_hook(lambda _, given: fed.append(given[7]))
    for update in (0, 15, 100):
        model.train().set_num_updates(update)
        terms_of(model, sample)
    terms_of(model.eval(), sample)
    shares = [None if one is None else float(one.float().mean()) for one in fed]
    assert shares[0] < 0.05 < shares[1] < 0.95 and shares[2:] == [None, None]
    model = model_of("bypass").train()
    read: list[Tensor] = []
    model.passes["decode"].module.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    for update in (0, 100):
        model.set_num_updates(update)
        terms_of(model, sample)
    book = model.quantiser.codebook[0]

    def share_of_codes(vectors: Tensor) -> float:
        return float(torch.isclose(vectors[:, :, None], book, atol=1e-4).all(3).any(2).all(1).float().mean())

    assert share_of_codes(read[0]) < 0.2 and share_of_codes(read[1]) == 1


def test_sentences_by_heart() -> None:
    """LT-18: decoded from the codes of their targets, and from the predictor's."""
    model = model_of("predicted", encoder_embed_dim=32, latent_curriculum="none", codebook_size=256)
    sample = sample_of(SOURCES, TARGETS)
    tiny.train(model, sample, 300)
    with torch.no_grad():
        encoded, (target, is_token) = encoded_of(model, SOURCES), target_of(TARGETS)
        codes, is_code = model.codes_of(encoded, target, model.whole_canvas(encoded, is_token.sum(1)))
        said = model.word_log_probs(encoded, codes, is_code, target.size(1)).argmax(-1)
    assert torch.equal(said[is_token], target[is_token])
    assert texts(decode(model, sample)) == [[*row, EOS] for row in TARGETS]


@pytest.mark.parametrize("kind", ["fsq", "predicted"])
def test_passes_of_a_decode(kind: str) -> None:
    """LT-19: a call of the predictor for each code of the longest row, one of the encoder, one of the decoder."""
    model = model_of(kind)
    generator = RefinementGenerator(model, SYMBOLS, tiny.options_of(model))
    generator.generate([model], sample_of(SOURCES))
    encoded = encoded_of(model, SOURCES)
    lengths = model.lengths_of(encoded, tiny.request(model, encoded))
    steps = int(model.canvas_of(lengths).max()) // 4
    calls = generator.counters.calls
    assert calls["encoder"] == calls["decoder"] == 1 and calls["latent"] == steps and calls["posterior"] == 0


def test_a_canvas_ends_at_the_first_end() -> None:
    """LT-17: what a row says after its first </s> is not read; of a known length all is."""
    model = model_of("fsq")
    with torch.no_grad():
        state = model.start(*started(model, SOURCES))
    for tokens, canvas in zip(state.tokens, state.lengths, strict=True):
        row = tokens[tokens != PAD].tolist()
        assert EOS not in row[:-1] and (row[-1:] == [EOS] or len(row) == int(canvas))


def started(model: Any, rows: list[list[int]], **options: Any) -> tuple[Any, Any]:
    encoded = encoded_of(model, rows)
    request = tiny.request(model, encoded, **options)
    n = request.n
    return encoded.select(torch.arange(len(rows)).repeat_interleave(n)), model.propose(encoded, request)


@pytest.mark.parametrize("search", [{"lengths": 4}, {"decode_samples": 4}, {"latent_lengths": 2, "lengths": 2}])
def test_candidates_are_ranked_by_codes_and_words(search: dict[str, Any]) -> None:
    """LT-20: log p(codes | x) + log p(y | codes, x), by the norm that is asked for; the first is the most probable."""
    model = model_of("predicted" if "latent_lengths" in search else "fsq")
    with torch.no_grad():
        encoded, proposals = started(model, SOURCES[:5], **search)
        done = model.finish(model.start(encoded, proposals))
        is_code = length_classes.is_within(model.canvas_of(proposals.lengths) // 4, proposals.codes.size(1))
        of_codes = model.code_log_probs(encoded, proposals.codes).gather(2, proposals.codes[..., None])[..., 0]
    of_codes = of_codes.masked_fill(~is_code, 0.0).sum(1)
    assert torch.allclose(done.extra, of_codes, atol=1e-3)
    total = (done.scores.sum(1) + done.extra).view(5, 4)
    found = decode(model, sample_of(SOURCES[:5]), rescore_norm="sum", **search)
    assert [round(float(group[0]["score"]), 2) for group in found] == [round(float(t), 2) for t in total.amax(1)]


class OneByOne:
    """A teacher that likes candidates by a fixed hash of their words."""

    model = SimpleNamespace(decoder=None)

    def score(self, net_input: Any, tokens: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        return (tokens * torch.arange(1, tokens.size(1) + 1)).sum(1).sin().float(), (tokens != PAD).sum(1)


def test_a_teacher_chooses_among_candidates() -> None:
    """LT-20: one candidate is chosen whatever it says; among more the teacher's score never falls."""
    model = model_of("fsq")
    best = []
    for n in (1, 2, 4, 8):
        options = tiny.options_of(model, decode_samples=n, is_rescored=True, rescore_norm="sum")
        generator = RefinementGenerator(model, SYMBOLS, options, teacher=OneByOne())  # type: ignore[arg-type]
        found = generator.generate([model], sample_of(SOURCES))
        best.append([float(group[0]["score"]) for group in found])
        if n == 1:
            assert texts(found) == texts(decode(model, sample_of(SOURCES)))
    assert all(
        a <= b + 1e-6 for some, more in zip(best, best[1:], strict=False) for a, b in zip(some, more, strict=True)
    )
    assert best[0] != best[-1]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["vq", "predicted"])
def test_a_reference_has_a_bound(kind: str) -> None:
    """LT-2: of its codes given the source, of its words given these, and of its length where that is predicted."""
    model = model_of(kind)
    encoded, (target, is_token) = encoded_of(model, SOURCES), target_of(TARGETS)
    scored = model.score(encoded, target)
    codes, is_code = model.codes_of(encoded, target, model.whole_canvas(encoded, is_token.sum(1)))
    words = model.word_log_probs(encoded, codes, is_code, target.size(1)).gather(2, target[..., None])[..., 0]
    assert torch.allclose(scored.tokens, words.masked_fill(~is_token, 0.0), atol=1e-5) and scored.kind == "bound"
    extra = model.code_log_probs(encoded, codes).gather(2, codes[..., None])[..., 0].masked_fill(~is_code, 0.0).sum(1)
    if kind == "predicted":
        classes = length_classes.offset_classes(encoded.sizes, is_token.sum(1))
        extra = extra + encoded.length_log_probs.gather(1, classes[:, None])[:, 0]
    assert torch.allclose(scored.extra, extra, atol=1e-4)


def test_output_is_encoded_again() -> None:
    """LT-18: a round of refinement decodes the codes of what was said."""
    model = model_of("vq")
    with torch.no_grad():
        encoded, proposals = started(model, SOURCES)
        state = model.start(encoded, proposals)
        codes, is_code = model.codes_of(encoded, state.tokens, model.canvas_of(state.lengths))
        again = model.refine(state, 1, 1)
    assert torch.equal(again.codes, codes)
    said = model.word_log_probs(encoded, codes, is_code, state.tokens.size(1))
    said[..., list(model.banned)] = -torch.inf
    assert torch.equal(again.tokens[:, 0], said.argmax(-1)[:, 0])


def test_words_are_hidden_and_shuffled() -> None:
    """LT-9: for the compressor in training alone; a shuffled word moves by at most the rate and one place, and padding
    stays behind."""
    keys = torch.arange(50)
    is_token = length_classes.is_within(keys % 9 + 1, 10)
    order = method.word_order(keys, is_token, 2.0)
    for row, here in zip(order, is_token, strict=True):
        n = int(here.sum())
        assert sorted(row[:n].tolist()) == list(range(n)) and row[n:].tolist() == list(range(n, 10))
        assert max(abs(int(row[i]) - i) for i in range(n)) <= 3
    assert torch.equal(method.word_order(keys, is_token, 0.0), torch.arange(10).expand(50, 10))
    model = model_of("vq", word_dropout=0.9)
    sample = sample_of(SOURCES, TARGETS)
    plain = model_of("vq")
    codes = [next(t for t in terms_of(m.train(), sample) if t.name == "codes").codes for m in (model, plain)]
    assert not torch.equal(*codes)
    assert torch.equal(
        *(next(t for t in terms_of(m.eval(), sample) if t.name == "codes").codes for m in (model, plain))
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"latent": "gaussian", "compression": 4}, "--compression has no effect with --latent gaussian"),
        ({"latent": "vq", "latent_size": 4}, "--latent-size has no effect with --latent vq"),
        ({"latent": "vq", "fsq_levels": "8,5"}, "--fsq-levels has no effect with --latent vq"),
        ({"latent": "vq", "vq_em_samples": 5}, "--vq-em-samples has no effect without --vq-em soft"),
        ({"latent": "fsq", "fsq_levels": "8,5", "codebook_size": 8}, "--codebook-size has no effect beside"),
        ({"latent": "vq", "bypass": 5.0}, "--bypass has no effect with --latent-curriculum targets"),
        ({"latent": "vq", "compression": 6}, "--compression 6"),
        ({"latent": "vq", "latent_decoder_self_attn": "full"}, "not with --latent-curriculum targets"),
        ({"latent": "fsq", "codebook": "gradient"}, "--codebook has no effect with --latent fsq"),
        ({"latent": "semhash", "residual_codebooks": 2}, "--residual-codebooks has no effect with --latent semhash"),
        ({"latent": "vq", "gumbel_usage": 1.0}, "--gumbel-usage has no effect with --latent vq"),
        ({"predictor_parts": 2}, "--predictor-parts has no effect with --latent gaussian"),
        ({"latent": "vq", "codebook": "gradient", "codebook_decay": 0.9}, "--codebook-decay has no effect with --cod"),
        ({"latent": "fsq", "predictor_parts": 2}, "--predictor-parts 2: 4375 codes are no numbers of 2 digits"),
        ({"latent": "vq", "predictor_parts": 0}, "--predictor-parts 0: it takes 1 or more"),
        ({"latent": "gumbel", "gumbel_usage": -1.0}, "--gumbel-usage -1.0: it takes 0 or more"),
        ({"latent": "vq", "max_update": 0}, "--schedules run needs --max-update"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        tiny.tiny_model(arch="latent_transformer_tiny", **{"max_update": 100, **options})


def test_one_length_of_a_canvas() -> None:
    model = model_of("vq")
    with pytest.raises(UsageError, match="--latent-lengths 2"):
        decode(model, sample_of(SOURCES), latent_lengths=2)
    with pytest.raises(UsageError, match="not both"):
        decode(model, sample_of(SOURCES), lengths=2, decode_samples=2)


def test_codebooks_are_saved() -> None:
    """LT-10: to the bit, with the weights."""
    model = model_of("vq").train()
    for _ in range(3):
        terms_of(model, sample_of(SOURCES, TARGETS))
        model.commit()
    other = model_of("vq", seed=9)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(model.quantiser.codebook, other.quantiser.codebook)


OWN = [
    ("fsq", {"compression": 2}),
    ("fsq", {"fsq_levels": "3,3", "codebook_size": 4096}),
    ("fsq", {"attend_compress": True}),
    ("fsq", {"attend_decompress": True}),
    ("fsq", {"predictor_layers": 3}),
    ("fsq", {"latent_length": "predicted"}),
    ("fsq", {"latent_curriculum": "none", "latent_decoder_self_attn": "full"}),
    ("fsq", {"latent_curriculum": "none"}),
    ("fsq", {"latent_curriculum": "bypass"}),
    ("bypass", {"bypass": 0.9}),
    ("fsq", {"target_feeding": 0.9}),
    ("fsq", {"schedules": "papers"}),
    ("vq", {"word_dropout": 0.5}),
    ("vq", {"word_shuffle": 3.0}),
    ("vq", {"codebook_size": 64}),
    ("vq", {"commitment": 0.5}),
    ("vq", {"codebook_decay": 0.5}),
    ("vq", {"vq_em": "soft"}),
    ("soft", {"vq_em_samples": 3}),
    ("sliced", {"dvq_parts": 4}),
    ("sliced", {"dvq": "projected"}),
    ("semhash", {"hash_noise": 3.0}),
    ("semhash", {"hash_ramp": 0.9}),
    ("gumbel", {"gumbel_noise_ramp": 0.9}),
    ("gumbel", {"gumbel_ramp": 0.9}),
    ("gumbel", {"gumbel_usage": 1.0}),
    ("vq", {"residual_codebooks": 4}),
    ("sliced", {"residual_codebooks": 2}),
    ("vq", {"codebook": "gradient"}),
    ("vq", {"predictor_parts": 2}),
    ("semhash", {"predictor_parts": 4}),
]


def seen_of(model: Any) -> list[Tensor]:
    """What two batches of a training show: logits, codes, values, and the codebook after the first."""
    found: list[Tensor] = []
    model.train().set_num_updates(12)
    for _ in range(2):
        for term in terms_of(model, sample_of(SOURCES, TARGETS)):
            found += [x for x in vars(term).values() if isinstance(x, Tensor)]
            found.append(torch.tensor(float(term.weight)))
        model.commit()
    return [x.detach() for x in found]


@pytest.mark.parametrize(("kind", "option"), OWN, ids=str)
def test_no_option_is_ignored(kind: str, option: dict[str, Any]) -> None:
    """Each changes what a training computes."""
    some, others = (seen_of(model_of(kind, **more)) for more in ({}, option))
    assert len(some) != len(others) or any(
        a.shape != b.shape or not torch.equal(a, b) for a, b in zip(some, others, strict=True)
    )
    again = seen_of(model_of(kind))
    assert all(torch.equal(a, b) for a, b in zip(some, again, strict=True)), "by chance alone"
