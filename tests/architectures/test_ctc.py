"""CTC as a whole: its behaviours, by number (tests/BEHAVIOURS.md)."""

import math
from itertools import groupby
from typing import Any

import pytest
import torch
from torch import Tensor

from nar_plugin.generators.candidates import Teacher
from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.generators.reference import ReferenceScorer
from nar_plugin.methods import alignments, ctc
from nar_plugin.methods.contract import UsageError
from nar_plugin.tasks import engines
from tests import tiny
from tests.architectures.test_warm_start import ALL, like, stock
from tests.tiny import BOS, EOS, FIRST_WORD, MASK, PAD, SYMBOLS, decode, random_rows, sample_of, terms_of, texts

SOURCES = random_rows(12, 9, seed=5)
TARGETS = random_rows(12, 9, seed=6)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "three": {"upsample": 3},
    "alone": {"decoder_layers": 0, "encoder_layers": 2},
    "deep": {"deep_supervision": True, "decoder_layers": 3},
    "deep-alone": {"deep_supervision": True, "decoder_layers": 0, "encoder_layers": 2},
    "prenorm": {"normalize_before": True, "deep_supervision": True, "decoder_layers": 2},
    "shared": {"share_all_embeddings": True},
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
SEARCH = {"lengths": 4, "nbest": 4}


def model_of(kind: str = "plain", **options: Any) -> Any:
    return tiny.tiny_model(arch="ctc_tiny", **{**KINDS[kind], **options})


def glancing(**options: Any) -> Any:
    return model_of(**{"glance": "0.5:0.1", "max_update": 100, **options}).train()


@torch.no_grad()
def log_probs_of(model: Any, row: list[int]) -> Tensor:
    """(C, V + 1) of one sentence, in double precision."""
    states, _ = model.decode(model.encode(tiny.net_input_of([row])))
    return model.project(states)[0].double().log_softmax(-1)


def likelihood(log_probs: Tensor, words: list[int]) -> float:
    """The sum over alignments, by torch's loss; a canvas that is too short has none."""
    row, sizes = torch.tensor([[*words, 0]]), torch.tensor([len(words)])
    canvas = torch.tensor([len(log_probs)])
    if int(alignments.least_canvas(row, sizes)) > len(log_probs):
        return -math.inf
    return -float(alignments.minus_log_likelihood(log_probs[None], row, sizes, canvas, MASK))


@EVERY_KIND
def test_the_words_are_those_of_the_most_probable_symbols(kind: str) -> None:
    """CTC-4: argmax at every position, repeats merged, blanks dropped, one end; the score is of that alignment."""
    model = model_of(kind)
    for row, (found,) in zip(SOURCES, decode(model, sample_of(SOURCES)), strict=True):
        log_probs = log_probs_of(model, row)
        log_probs[:, [PAD, BOS, EOS]] = -math.inf
        best, said = log_probs.max(1)
        assert found["tokens"].tolist() == [*(w for w, _ in groupby(said.tolist()) if w != MASK), EOS]
        assert float(found["score"]) == pytest.approx(float(best.sum()), abs=1e-3)
        assert len(said) == model.cfg.upsample * (len(row) + 1) and found["positional_scores"][-1] == 0


@EVERY_KIND
@pytest.mark.parametrize("options", [{}, SEARCH], ids=["best", "beam"])
def test_no_hypothesis_depends_on_its_batch(kind: str, options: dict[str, Any]) -> None:
    """CTC-9: alone, among longer ones, padded on either side. In double precision: two beginnings of an untrained model
    may be 1e-6 nats apart, which is what single precision rounds by, and a beam keeps one of them."""
    tiny.decode_in_any_batch(model_of(kind).double(), SOURCES, **options)


@EVERY_KIND
def test_no_loss_and_no_score_depends_on_its_batch(kind: str) -> None:
    """CTC-9."""
    model, whole = model_of(kind), sample_of(SOURCES, TARGETS)
    loss_of = tiny.criterion_of(model)
    with torch.no_grad():
        together, size, _ = loss_of(model, whole)
        alone = [loss_of(model, sample_of([a], [b])) for a, b in zip(SOURCES, TARGETS, strict=True)]
    assert float(together) == pytest.approx(sum(float(loss) for loss, _, _ in alone), rel=1e-5)
    assert size == sum(size for _, size, _ in alone) == sum(len(row) + 1 for row in TARGETS)
    wide = tiny.net_input_of(SOURCES, is_left=True, width=20)
    with torch.no_grad():
        scores = [
            model.score(model.encode(net_input), whole["target"]).tokens for net_input in (whole["net_input"], wide)
        ]
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("engine", ["int8", pytest.param("compiled", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["plain", "alone", "deep"])
def test_no_hypothesis_depends_on_its_batch_under_any_engine(kind: str, engine: str) -> None:
    """CTC-9."""
    model = model_of(kind)
    engines.prepare([model], engine)
    for options in ({}, SEARCH):
        tiny.decode_in_any_batch(model, SOURCES[:5], **options)


@EVERY_KIND
@pytest.mark.parametrize("options", [{}, SEARCH], ids=["best", "beam"])
def test_one_pass_is_one_pass(kind: str, options: dict[str, Any]) -> None:
    """CTC-8: one encoder pass and one decoder pass a sentence, whatever the beam; the encoder alone is the one pass."""
    model = model_of(kind)
    generator = RefinementGenerator(model, SYMBOLS, tiny.options_of(model, **options))
    generator.generate([model], sample_of(SOURCES))
    passes = {"decoder": 1} if kind.endswith("alone") else {"encoder": 1, "decoder": 1}
    assert generator.counters.calls == passes
    assert generator.counters.rows == {name: len(SOURCES) for name in passes}


@pytest.mark.parametrize("kind", ["plain", "alone", "deep"])
def test_hypotheses_are_ranked_by_their_sums_over_alignments(kind: str) -> None:
    """CTC-7: by torch's loss; the scores of the words add up to it, the first of all is the best."""
    model = model_of(kind)
    for row, group in zip(SOURCES, decode(model, sample_of(SOURCES), **SEARCH), strict=True):
        log_probs = log_probs_of(model, row)
        found = [likelihood(log_probs, one["tokens"][:-1].tolist()) for one in group]
        assert [float(one["score"]) for one in group] == pytest.approx(found, abs=1e-3)
        assert [float(one["positional_scores"].sum()) for one in group] == pytest.approx(found, abs=1e-3)
        assert found == sorted(found, reverse=True) and len(group) == 4
        assert len({tuple(one["tokens"].tolist()) for one in group}) == 4


def test_a_wider_beam_finds_nothing_worse() -> None:
    """CTC-7: nor is the best alignment's text better than the best of a beam."""
    model, sample = model_of(), sample_of(SOURCES)
    log_probs = [log_probs_of(model, row) for row in SOURCES]

    def reached(**options: Any) -> list[float]:
        return [
            likelihood(p, text[:-1]) for p, text in zip(log_probs, texts(decode(model, sample, **options)), strict=True)
        ]

    best, narrow, wide = reached(), reached(lengths=3), reached(lengths=30)
    assert all(a <= c + 1e-6 and b <= c + 1e-6 for a, b, c in zip(best, narrow, wide, strict=True))
    assert sum(wide) > sum(best)


class Liking:
    """A teacher that likes the words with low numbers, and short texts."""

    def __init__(self) -> None:
        self.model = type("Model", (), {"decoder": None})()

    def score(self, net_input: Any, tokens: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        is_word = (tokens != PAD) & (tokens != EOS)
        return -(tokens * is_word).float().sum(1), is_word.sum(1) + 1


def test_a_teacher_chooses_among_the_hypotheses_of_the_pass() -> None:
    """CTC-10: its own scores, by their means, through the one piece for candidates."""
    model, sample = model_of(), sample_of(SOURCES)
    options = tiny.options_of(model, **SEARCH)
    teacher: Any = Liking()
    judged = RefinementGenerator(model, SYMBOLS, options, teacher=teacher).generate([model], sample)
    for own, group in zip(decode(model, sample, **SEARCH), judged, strict=True):
        liked = [-sum(one["tokens"][:-1].tolist()) / len(one["tokens"]) for one in group]
        assert [float(one["score"]) for one in group] == pytest.approx(liked) == sorted(liked, reverse=True)
        assert sorted(one["tokens"].tolist() for one in own) == sorted(one["tokens"].tolist() for one in group)


def test_a_transformer_of_fairseqs_chooses_too() -> None:
    """CTC-10."""
    model, sample = model_of(), sample_of(SOURCES)
    teacher = Teacher(stock(), SYMBOLS)
    found = RefinementGenerator(model, SYMBOLS, tiny.options_of(model, **SEARCH), teacher=teacher).generate(
        [model], sample
    )
    for group in found:
        assert [float(one["score"]) for one in group] == sorted((float(one["score"]) for one in group), reverse=True)


@EVERY_KIND
def test_references_have_their_exact_log_probability(kind: str) -> None:
    """CTC-2: in nats, all alignments summed up, also where a word repeats; −∞ where the canvas is too short."""
    model = model_of(kind)
    targets = [*TARGETS[:-2], [5, 5, 5], [7] * 60]
    scorer = ReferenceScorer(model, SYMBOLS, tiny.options_of(model, score_reference=True))
    found = scorer.generate([model], sample_of(SOURCES, targets))
    for source, target, (one,) in zip(SOURCES, targets, found, strict=True):
        exact = likelihood(log_probs_of(model, source), target)
        assert float(one["score"]) == pytest.approx(exact, abs=1e-3) and one["kind"] == "exact"
        assert one["tokens"].tolist() == [*target, EOS] and not one["positional_scores"].isnan().any()
    assert float(found[-1][0]["score"]) == -math.inf


def test_what_a_search_scores_a_reference_scores_alike() -> None:
    """CTC-2: a hypothesis as a reference."""
    model = model_of()
    group = [one[0] for one in decode(model, sample_of(SOURCES), **SEARCH)]
    references = [one["tokens"][:-1].tolist() for one in group]
    scorer = ReferenceScorer(model, SYMBOLS, tiny.options_of(model, score_reference=True))
    for one, (scored,) in zip(group, scorer.generate([model], sample_of(SOURCES, references)), strict=True):
        torch.testing.assert_close(scored["positional_scores"], one["positional_scores"], atol=1e-3, rtol=1e-3)


def test_no_special_symbol_is_read_though_the_model_would_like_to_say_it() -> None:
    """CTC-4: neither padding, nor ``<s>``, nor an end before the end, nor the blank."""
    model = model_of()
    with torch.no_grad():
        model.target_embedding.tokens.weight[[PAD, BOS, EOS]] *= 4.0
    said = [log_probs_of(model, row).argmax(1).tolist() for row in SOURCES]
    assert {PAD, BOS, EOS} & {symbol for row in said for symbol in row}, "it would not, so this tests nothing"
    for options in ({}, SEARCH):
        for group in decode(model, sample_of(SOURCES), **options):
            for one in group:
                assert one["tokens"][-1] == EOS and not {PAD, BOS, EOS, MASK} & set(one["tokens"][:-1].tolist())


@pytest.mark.parametrize("options", [{}, SEARCH], ids=["best", "beam"])
def test_an_empty_source_is_answered_by_nothing(options: dict[str, Any]) -> None:
    for kind in ("plain", "alone"):
        found = decode(model_of(kind), sample_of([SOURCES[0], [], SOURCES[1]]), **options)
        assert all(one["tokens"].tolist() == [EOS] for one in found[1]) and len(found[0][0]["tokens"]) > 1
        assert decode(model_of(kind), sample_of([[], []]), **options)[0][0]["tokens"].tolist() == [EOS]


# --- the loss


def by_hand(model: Any, logits: Tensor) -> float:
    """Of (B, C, V + 1) logits: the mean over nothing, the sum over sentences that fit."""
    found = 0.0
    for source, target, row in zip(SOURCES, TARGETS, logits.detach().double().log_softmax(-1), strict=True):
        exact = likelihood(row[: model.cfg.upsample * (len(source) + 1)], target)
        found -= exact if exact > -math.inf else 0.0
    return found


@EVERY_KIND
def test_the_loss_is_that_of_every_layer_that_is_taught(kind: str) -> None:
    """CTC-12: K layers have K losses of weight 1 / K, else the last one has the only one."""
    model, sample = model_of(kind), sample_of(SOURCES, TARGETS)
    states, lower = model.decode(model.encode(sample["net_input"]), keeps_lower=True)
    terms = terms_of(model, sample)
    layers = [*lower, model.project(states)]
    assert [term.name for term in terms] == [*(f"layer{i + 1}" for i in range(len(lower))), "alignment"]
    assert {term.weight for term in terms} == {1 / len(layers)}
    assert len(layers) == {"deep": 3, "deep-alone": 2, "prenorm": 2}.get(kind, 1)
    for term, logits in zip(terms, layers, strict=True):
        assert float(term.values.detach().sum()) == pytest.approx(by_hand(model, logits), rel=1e-4)


@pytest.mark.parametrize("kind", ["deep", "deep-alone", "prenorm"])
def test_what_a_layer_says_is_read_by_the_next_without_a_gradient_through_the_choice(kind: str) -> None:
    """CTC-12: and a decode says what the last layer says, with all layers below it."""
    model, net_input = model_of(kind), tiny.net_input_of(SOURCES)
    states, lower = model.decode(model.encode(net_input), keeps_lower=True)
    gradients = torch.autograd.grad(states.sum(), lower, allow_unused=True, retain_graph=True)
    assert set(gradients) == {None}
    torch.testing.assert_close(states, model.decode(model.encode(net_input))[0])
    with torch.no_grad():
        model.predictions.embedding.tokens.weight[int(lower[0].argmax(-1)[0, 0])] += 1.0
    assert not torch.allclose(states, model.decode(model.encode(net_input))[0]), "what is said is not read"


def test_deep_supervision_of_one_layer_is_none_and_of_more_begins_as_none() -> None:
    """CTC-12."""
    one, plain = model_of(deep_supervision=True), model_of()
    assert one.state_dict().keys() == plain.state_dict().keys()
    deep = tiny.tiny_model(arch="ctc_tiny", is_lively=False, decoder_layers=3, deep_supervision=True)
    base = tiny.tiny_model(arch="ctc_tiny", is_lively=False, decoder_layers=3)
    base.load_state_dict(deep.state_dict(), strict=False)
    net_input = tiny.net_input_of(SOURCES)
    torch.testing.assert_close(*(model.decode(model.encode(net_input))[0] for model in (deep, base)))


@pytest.mark.parametrize("kind", ["plain", "deep"])
def test_nothing_of_the_size_of_all_logits_is_kept_twice(kind: str) -> None:
    """CTC-15: for the backward pass, a layer that is taught."""
    model = tiny.tiny_model(words=400, arch="ctc_tiny", **KINDS[kind]).train()
    rows = random_rows(8, 9, seed=3, words=400)
    sample, kept = sample_of(rows, rows), {}
    size = 8 * sample["net_input"]["src_tokens"].size(1) * 2 * (400 + FIRST_WORD + 1)

    def keep(tensor: Tensor) -> Tensor:
        if tensor.numel() >= size:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _, _ = tiny.criterion_of(model)(model, sample)
    assert len(kept) == (3 if kind == "deep" else 1)
    loss.backward()


@pytest.mark.parametrize("autocast", [False, True])
def test_the_loss_is_made_in_float32_under_half_precision(autocast: bool) -> None:
    """CTC-1."""
    model, sample = model_of().train(), sample_of(SOURCES, TARGETS)
    exact = float(tiny.criterion_of(model)(model, sample)[0].detach())
    if not autocast:
        model = model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        (term,) = terms_of(model, sample)
        loss = tiny.criterion_of(model)(model, sample)[0]
    assert term.values.dtype == torch.float32 and float(loss.detach()) == pytest.approx(exact, rel=0.05)
    loss.backward()


def test_an_empty_source_and_an_empty_target_have_a_loss() -> None:
    model = model_of().train()
    loss, size, _ = tiny.criterion_of(model)(model, sample_of([[], SOURCES[0], []], [[4, 5], [], []]))
    loss.backward()
    assert loss.isfinite() and size == 5
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


# --- glancing


def canvases(model: Any, sample: dict[str, Any]) -> list[Tensor]:
    """What the decoder pass of every call reads, behind the dropout."""
    seen: list[Tensor] = []
    handle = model.target_embedding.dropout.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    terms_of(model, sample)
    handle.remove()
    return seen


def shown_of(model: Any, sample: dict[str, Any]) -> Tensor:
    """(B, C) ids that the second pass is shown."""
    seen: list[Tensor] = []
    decoder = model.passes["decode"].module
    handle = decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[4]))
    terms_of(model, sample)
    handle.remove()
    assert len(seen) == 2 and seen[0] is None
    return seen[1]


@pytest.mark.parametrize("kind", ["plain", "alone", "deep"])
def test_both_passes_have_the_same_dropout_and_differ_where_something_is_shown(kind: str) -> None:
    """CTC-11."""
    model, sample = glancing(kind=kind, dropout=0.3), sample_of(SOURCES, TARGETS)
    torch.manual_seed(1)
    shown = shown_of(model, sample)
    torch.manual_seed(1)
    first, second = canvases(model, sample)
    is_shown = shown != ctc.HIDDEN
    assert first[~is_shown].equal(second[~is_shown]) and first[is_shown].ne(second[is_shown]).any(1).all()
    assert first.eq(0).equal(second.eq(0)) and first.eq(0).any(), "another dropout"


@pytest.mark.parametrize("kind", ["plain", "alone"])
def test_a_first_pass_takes_no_gradient_away(kind: str) -> None:
    """CTC-11: nor under autocast, which keeps weights that it has cast, here by a pass without gradients."""
    sample, found = sample_of(SOURCES, TARGETS), []
    for precision in (torch.float32, torch.bfloat16):
        model = glancing(kind=kind)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = tiny.criterion_of(model)(model, sample)[0]
        loss.backward()
        found.append({name: weight.grad for name, weight in model.named_parameters()})
    exact, rough = found
    for name, gradient in exact.items():
        assert gradient.any() and (rough[name] - gradient).norm() < 0.5 * gradient.norm(), name


def test_as_much_is_shown_as_a_first_pass_has_wrong() -> None:
    """CTC-11: against the best alignment, position by position."""
    model, sample = glancing(), sample_of(SOURCES, TARGETS)
    shown = shown_of(model, sample)
    for source, target, row in zip(SOURCES, TARGETS, shown.tolist(), strict=True):
        log_probs = log_probs_of(model, source)
        words, sizes = torch.tensor([[*target, 0]]), torch.tensor([len(target)])
        is_canvas, said = torch.ones(1, len(log_probs), dtype=torch.bool), alignments.states(words, MASK)
        best = alignments.best(alignments.emissions(log_probs[None], said, is_canvas, MASK), said, sizes, MASK)[0]
        wrong = int((log_probs.argmax(1) != best).sum())
        is_fitting = likelihood(log_probs, target) > -math.inf
        assert sum(token != ctc.HIDDEN for token in row) == (wrong // 2 if is_fitting else 0)
        for token, aligned in zip(row, best.tolist(), strict=False):
            assert token in (ctc.HIDDEN, aligned)


def test_the_share_falls_in_a_line_from_the_first_update_to_the_last() -> None:
    """CTC-11."""
    model = glancing()
    for update, ratio in ((0, 0.5), (25, 0.4), (100, 0.1), (400, 0.1)):
        model.set_num_updates(update)
        assert model.glance.ratio == pytest.approx(ratio)
    rising = glancing(glance="0:1")
    rising.set_num_updates(50)
    assert rising.glance.ratio == pytest.approx(0.5) and model_of().glance.ratio == 0


def test_a_validation_never_glances_nor_does_a_share_of_nothing() -> None:
    """CTC-11."""
    sample = sample_of(SOURCES, TARGETS)
    assert len(canvases(glancing(), sample)) == 2
    assert len(canvases(glancing().eval(), sample)) == len(canvases(glancing(glance="0:0"), sample)) == 1


def test_glancing_needs_an_end() -> None:
    with pytest.raises(UsageError, match="^--glance needs --max-update, over which the share changes$"):
        model_of(glance="0.5:0.1", max_update=0)


# --- what a teacher gives


def test_the_row_of_the_blank_begins_as_the_mean_of_all_words() -> None:
    """CTC-13."""
    model = tiny.tiny_model(arch="ctc_tiny", is_lively=False)
    teacher = stock(**like(model))
    model.warm_start(teacher, ALL)
    rows = teacher.decoder.embed_tokens.weight
    torch.testing.assert_close(model.target_embedding.tokens.weight[MASK], rows.mean(0))


def test_the_encoder_alone_takes_the_layers_of_the_teachers_encoder() -> None:
    """CTC-13: spread evenly where it has more or fewer."""
    model = tiny.tiny_model(arch="ctc_tiny", is_lively=False, encoder_layers=4, decoder_layers=0)
    teacher = stock(**like(model), layers=2)
    told = model.warm_start(teacher, ALL)
    for layer, i in zip(model.encoder.layers, (0, 0, 1, 1), strict=True):
        assert layer.feed_forward.inner.weight.equal(teacher.encoder.layers[i].fc1.weight)
    assert "encoder: 4 layers, which took 1 1 2 2 of the teacher's 2" in told
    assert model.source_embedding.tokens.weight.equal(teacher.encoder.embed_tokens.weight)


def test_an_encoder_that_is_all_there_is_cannot_be_frozen() -> None:
    """CTC-13."""
    with pytest.raises(UsageError, match="--freeze encoder: beside --decoder-layers 0 nothing is left"):
        model_of("alone", freeze="encoder")


@pytest.mark.parametrize("kind", ["plain", "alone", "deep"])
def test_sixteen_sentences_are_learnt_by_heart(kind: str) -> None:
    """CTC-14."""
    sources = random_rows(16, 6, seed=8)
    targets = [[FIRST_WORD + (7 * word + i) % tiny.WORDS for i, word in enumerate(row)][::-1] for row in sources]
    model = tiny.tiny_model(arch="ctc_tiny", is_lively=False, **KINDS[kind], normalize_before=True)
    sample = sample_of(sources, targets)
    tiny.train(model, sample, 300, rate=5e-3)
    assert texts(decode(model, sample)) == [[*row, EOS] for row in targets]
