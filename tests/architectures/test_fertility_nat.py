"""The architecture: what its decoder sees, what it is taught, and what its decodes give."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nar_plugin.generators.candidates import Teacher
from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.generators.reference import ReferenceScorer
from nar_plugin.methods import fertility_nat as method
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.transformer import others
from tests import tiny
from tests.tiny import EOS, PAD, SYMBOLS, decode, decode_in_any_batch, net_input_of, random_rows, sample_of, texts

SOURCES, TARGETS = random_rows(12, 8, seed=61), random_rows(12, 8, seed=62)
WAYS: list[dict[str, Any]] = [
    {},
    {"fertility": "average"},
    {"fertility": "sample", "decode_samples": 6, "nbest": 3},
    {"fertility": "search", "decode_samples": 6, "nbest": 3},
    {"fertility": "sample", "decode_samples": 4, "fertility_temperature": 2.0, "max_candidate_tokens": 20},
]


def nat(**options: Any) -> Any:
    return tiny.tiny_model(arch="fertility_nat_tiny", **options)


def encoded_of(model: Any, rows: list[tiny.Row] = SOURCES) -> Any:
    with torch.no_grad():
        return model.encode(net_input_of(rows))


@pytest.mark.parametrize("options", WAYS)
def test_a_hypothesis_does_not_depend_on_its_batch(options: dict[str, Any]) -> None:
    """FERT-19: alone, in a batch, with padding on either side; and there is something to depend on."""
    found = decode_in_any_batch(nat(), SOURCES, **options)
    assert len({len(text) for text in texts(found)}) > 4
    assert {len(group) for group in found} == {options.get("nbest", 1)}


def test_decoding_gives_the_same_again_and_nothing_that_is_given_is_changed() -> None:
    """FERT-19: draws depend on the seed and the source alone."""
    model, sample = nat(), sample_of(SOURCES)
    before = sample["net_input"]["src_tokens"].clone()
    some = decode(model, sample, **WAYS[2])
    tiny.assert_same(some, decode(model, sample, **WAYS[2]))
    assert texts(decode(model, sample, seed=2, **WAYS[2])) != texts(some)
    assert sample["net_input"]["src_tokens"].equal(before)


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 2, 6])
def test_no_position_sees_itself_but_one_that_is_alone(length: int) -> None:
    """FERT-1: neither in self-attention nor in attention by position; the states are numbers at every length."""
    model, seen = nat(), []
    layer = model.decoder.layers[0]
    layer.self_attention.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    layer.positional_attention.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    is_token = torch.arange(6) < torch.tensor([[length], [6]])
    states = model.decode(encoded_of(model, SOURCES[:2]), torch.ones(2, 9, dtype=torch.int64), 6, is_token)
    assert bool(states.isfinite().all()) and len(seen) == 2
    for mask in seen:
        assert mask.equal(others(is_token))
        weights = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf).softmax(-1)
        torch.testing.assert_close(weights.sum(2), torch.ones(2, 6))
        itself = weights[0].diagonal()[:length]
        assert itself.tolist() == [1.0] if length == 1 else not itself.any()


@torch.no_grad()
@pytest.mark.parametrize("attend_top", [False, True])
def test_a_layer_attends_to_its_own_layer_of_the_encoder(attend_top: bool) -> None:
    """FERT-22: or all to the top one; to silence one changes what comes out."""
    model = nat(encoder_layers=3, decoder_layers=3, attend_top=attend_top)
    states: list[Any] = []
    whole = model.encoder.states
    model.encoder.states = lambda *given: states.append(whole(*given)) or states[-1]
    encoded, ones = encoded_of(model, SOURCES[:2]), torch.ones(2, 9, dtype=torch.int64)
    before = model.decode(encoded, ones, 5, None)
    for i, (layer, memory) in enumerate(zip(model.decoder.layers, encoded.memory, strict=True)):
        for found, wanted in zip(memory, layer.cross_attention.memory(states[0][-1 if attend_top else i]), strict=True):
            torch.testing.assert_close(found, wanted)
        silent = tuple((k, 0 * v) if j == i else (k, v) for j, (k, v) in enumerate(encoded.memory))
        assert not torch.allclose(model.decode(replace(encoded, memory=silent), ones, 5, None), before, atol=1e-3)


def test_layers_of_unequal_count_are_refused() -> None:
    with pytest.raises(UsageError, match="--attend-top"):
        nat(encoder_layers=2)
    nat(encoder_layers=2, attend_top=True)


@torch.no_grad()
def test_the_decoder_reads_source_embeddings_with_both_positions() -> None:
    """FERT-2: the scaled embedding of the word that is copied, with its position and that of the copy."""
    model, read = nat(), []
    model.decoder.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    encoded = encoded_of(model, [[5, 6, 7, 8]])
    model.decode(encoded, torch.tensor([[2, 0, 1, 3, 1]]), 7, None)
    words = torch.tensor([5, 5, 7, 8, 8, 8, EOS])
    source, target = model.source_embedding, model.target_embedding
    wanted = source.scale * source.tokens(words) + source.places(9)[[0, 0, 2, 3, 3, 3, 4]] + target.places(7)
    torch.testing.assert_close(read[0][0], wanted)


# --- training


def terms(model: Any, sample: Any) -> tuple[Any, Any]:
    token, fertility = tiny.terms_of(model, sample)
    assert (token.name, fertility.name) == ("token", "fertility")
    return token, fertility


def test_the_objective_is_a_mean_over_target_words_and_one_over_source_words() -> None:
    """FERT-5: of a sentence alone, 1:1; in a batch, sentences count by their targets' tokens. Padding never counts."""
    model, loss_of = nat(), tiny.criterion()
    total, tokens = 0.0, 0
    for source, target in zip(SOURCES, TARGETS, strict=True):
        sample = sample_of([source], [target])
        loss, size, _ = loss_of(model, sample)
        token, fertility = terms(model, sample)
        assert len(token.target) == size == len(target) + 1 and len(fertility.target) == len(source)
        plain = F.cross_entropy(token.logits, token.target) + F.cross_entropy(fertility.logits, fertility.target)
        assert float(loss.detach() / size) == pytest.approx(float(plain.detach()), rel=1e-5)
        total, tokens = total + float(loss.detach()), tokens + size
    loss, size, _ = loss_of(model, sample_of(SOURCES, TARGETS))
    assert size == tokens and float(loss.detach()) == pytest.approx(total, rel=1e-5)


def test_fertilities_are_classes_of_the_words_and_teach_head_and_encoder() -> None:
    """FERT-5, FERT-6: one of more than 49 counts as 49, and is copied as often as it is; the end has no class."""
    model, source, target = nat(), [[5, 6]], [random_rows(1, 60, seed=3, shortest=60)[0]]
    sample = sample_of(source, target)
    sample["columns"]["word_counts"] = torch.tensor([[0, 60, 1]])
    token, fertility = terms(model, sample)
    assert fertility.target.tolist() == [0, 49] and len(token.target) == 61
    F.cross_entropy(fertility.logits, fertility.target).backward()
    for weight in (model.fertility_head.weight, model.encoder.layers[0].feed_forward.inner.weight):
        assert weight.grad is not None and bool(weight.grad.abs().sum() > 0)
    assert model.decoder.layers[0].feed_forward.inner.weight.grad is None


def test_wider_batches_than_their_counts_are_taught_the_same() -> None:
    """FERT-5: a column is as wide as the longest sentence, a batch may be wider."""
    model, sample = nat(), sample_of(SOURCES, TARGETS)
    loss = tiny.criterion()(model, sample)[0]
    sample["net_input"]["src_tokens"] = F.pad(sample["net_input"]["src_tokens"], (3, 0), value=PAD)
    assert float(tiny.criterion()(model, sample)[0].detach()) == pytest.approx(float(loss.detach()), rel=1e-5)


def test_a_tiny_model_learns_sixteen_pairs_by_heart() -> None:
    """FERT-5: at least 99 words in a hundred, and the fertilities, so that its argmax decode says them."""
    sources, targets = random_rows(16, 7, seed=3, shortest=3), random_rows(16, 7, seed=4, shortest=3)
    model = nat(is_lively=False)
    tiny.train(model, sample_of(sources, targets), 250)
    token, fertility = terms(model, sample_of(sources, targets))
    assert float((token.logits.argmax(-1) == token.target).float().mean()) >= 0.99
    said = texts(decode(model, sample_of(sources)))
    assert sum(a[:-1] == b for a, b in zip(said, targets, strict=True)) >= 14


# --- decoding


def fertilities_of(model: Any, **options: Any) -> Tensor:
    encoded = encoded_of(model)
    return model.propose(encoded, tiny.request(model, encoded, **options)).fertilities.unflatten(0, (len(SOURCES), -1))


def test_candidates_are_those_that_are_asked_for() -> None:
    """FERT-11, FERT-12, FERT-13: the argmax, the average, drawn ones behind the argmax, the most probable ones; what is
    drawn for few candidates is drawn for more."""
    model = nat()
    encoded = encoded_of(model)
    best = model.possible(encoded, method.most_probable(encoded.log_probs))
    assert fertilities_of(model)[:, 0].equal(best)
    middle = model.possible(encoded, method.average(encoded.log_probs))
    assert fertilities_of(model, fertility="average")[:, 0].equal(middle) and not middle.equal(best)
    for way in ("sample", "search"):
        few, many = (fertilities_of(model, fertility=way, decode_samples=n) for n in (3, 8))
        assert few[:, 0].equal(best) and many[:, :3].equal(few)
        assert fertilities_of(model, fertility=way, decode_samples=1)[:, 0].equal(best)
        assert len({tuple(row) for row in many[0].tolist()}) > 4
    likely = torch.stack([method.log_prob(encoded.log_probs, f) for f in many.unbind(1)], 1)
    assert bool((likely.diff(dim=1) <= 1e-5).float().mean() > 0.8), "cut ones aside, they are ranked"


@pytest.mark.parametrize("way", ["sample", "search"])
def test_one_candidate_is_the_argmax_decode(way: str) -> None:
    """FERT-12: whatever a teacher says."""
    model, teacher = nat(), Teacher(tiny.tiny_transformer(), SYMBOLS)
    options = tiny.options_of(model, fertility=way, decode_samples=1, is_rescored=True)
    found = RefinementGenerator(model, SYMBOLS, options, 1, teacher).generate([model], sample_of(SOURCES))
    assert texts(found) == texts(decode(model, sample_of(SOURCES)))


@torch.no_grad()
def test_a_teacher_chooses_among_the_candidates() -> None:
    """FERT-13: the one that it likes best, better the more there are, and no worse than the argmax's."""
    model, judge = nat(), Teacher(tiny.tiny_transformer(), SYMBOLS)
    sample = sample_of(SOURCES)
    net_input, reached = sample["net_input"], []
    for n in (1, 3, 12):
        options = tiny.options_of(model, fertility="sample", decode_samples=n, is_rescored=True)
        found = RefinementGenerator(model, SYMBOLS, options, 1, judge).generate([model], sample)
        every = decode(model, sample, fertility="sample", decode_samples=n, nbest=n)
        for i, (group, some) in enumerate(zip(found, every, strict=True)):
            rows = [one["tokens"].tolist()[:-1] if one["tokens"][-1] == EOS else one["tokens"].tolist() for one in some]
            alone = {name: x[i : i + 1] for name, x in net_input.items()}
            total, count = judge.score(alone, tiny.stacked(rows), torch.zeros(len(rows), dtype=torch.int64))
            assert float(group[0]["score"]) == pytest.approx(float((total / count).max()), abs=1e-4)
            assert group[0]["tokens"].tolist() in [one["tokens"].tolist() for one in some]
        reached.append(torch.stack([group[0]["score"] for group in found]))
    assert all(bool((a <= b + 1e-4).all()) for a, b in zip(reached, reached[1:], strict=False))
    assert bool((reached[-1] > reached[0] + 1e-3).any())


@torch.no_grad()
def test_a_teacher_says_in_one_pass_what_it_says_word_by_word() -> None:
    """FERT-14: with the end; a mean, or the sum."""
    transformer = tiny.tiny_transformer()
    for source, target in zip(SOURCES[:4], TARGETS[:4], strict=True):
        net_input = net_input_of([source])
        total, count = Teacher(transformer, SYMBOLS).score(net_input, tiny.stacked([target]), torch.tensor([0]))
        encoded, plain = transformer.encoder(**net_input), 0.0
        for i, word in enumerate([*target, EOS]):
            logits, _ = transformer.decoder(torch.tensor([[EOS, *target[:i]]]), encoder_out=encoded)
            plain += float(logits[0, -1].log_softmax(-1)[word])
        assert float(total) == pytest.approx(plain, abs=1e-4) and int(count) == len(target) + 1


@pytest.mark.parametrize("n", [1, 10])
def test_encoders_run_once_and_so_do_decoders(n: int) -> None:
    """FERT-17, FERT-18: of model and teacher, once a batch, for any number of candidates and any length."""
    model, transformer = nat(), tiny.tiny_transformer()
    options = tiny.options_of(model, fertility="sample", decode_samples=n, is_rescored=True)
    generator = RefinementGenerator(model, SYMBOLS, options, 1, Teacher(transformer, SYMBOLS))
    calls: list[str] = []
    for part in ("encoder", "decoder"):
        getattr(transformer, part).register_forward_hook(lambda *_, name=part: calls.append(name))
    for batch, rows in enumerate((SOURCES[:5], random_rows(3, 40, seed=9, shortest=40)), 1):
        generator.generate([model], sample_of(rows))
        assert calls == ["encoder", "decoder"] * batch
        counted = generator.counters
        assert (counted.calls["encoder"], counted.calls["decoder"]) == (batch, batch)
    assert generator.counters.rows["encoder"] == 8 and generator.counters.rows["decoder"] == 8 * n


@pytest.mark.parametrize("shift", [0, 3])
def test_a_decode_may_be_given_the_length_of_the_reference(shift: int) -> None:
    """FERT-21: every canvas has it."""
    targets = [row + [4] * shift for row in TARGETS]
    found = decode(nat(), sample_of(SOURCES, targets), gold_target_len=True)
    assert [len(group[0]["tokens"]) for group in found] == [len(row) + 1 for row in targets]


def test_what_would_do_nothing_is_named() -> None:
    """FERT-21: beside the other options."""
    kind = nat().decode_options
    assert kind(decode_samples=9).candidates == 1 and kind(fertility="search", decode_samples=9).candidates == 9
    assert set(kind().ineffective()) >= {"decode_samples", "fertility_temperature"}
    assert set(kind(fertility="search", decode_samples=3).ineffective()) >= {"gold_target_len", "fertility_temperature"}
    assert not {"decode_samples", "fertility_temperature"} & set(kind(fertility="sample").ineffective())


# --- scores


@torch.no_grad()
def test_a_reference_is_scored_by_the_best_fertilities_of_its_length() -> None:
    """FERT-20: which bounds its log-probability; where the argmax has the length, they are the argmax."""
    model = nat()
    said = texts(decode(model, sample_of(SOURCES)))
    sample = sample_of(SOURCES, [row[:-1] if row[-1] == EOS else row for row in said])
    encoded = encoded_of(model)
    scored = model.score(encoded, tiny.stacked(said, eos=None))
    assert scored.kind == "bound"
    best = model.possible(encoded, method.most_probable(encoded.log_probs))
    for i, row in enumerate(said):
        if best[i].equal(method.most_probable(encoded.log_probs[i : i + 1])[0]):
            assert float(scored.extra[i]) == pytest.approx(float(method.log_prob(encoded.log_probs, best)[i]), abs=1e-4)
            hypothesis = decode(model, sample_of(SOURCES))[i][0]
            torch.testing.assert_close(scored.tokens[i, : len(row)], hypothesis["positional_scores"], atol=1e-4, rtol=0)
    found = ReferenceScorer(model, SYMBOLS, tiny.options_of(model, score_reference=True)).generate([model], sample)
    assert {group[0]["kind"] for group in found} == {"bound"}


@torch.no_grad()
def test_the_score_of_a_reference_bounds_the_sum_over_all_fertilities() -> None:
    """FERT-20: by enumeration, for two words and three tokens."""
    model = nat()
    encoded, target = encoded_of(model, [[5, 6]]), torch.tensor([[7, 8, EOS]])
    scored = model.score(encoded, target)
    total = []
    for vector in ([0, 2, 1], [1, 1, 1], [2, 0, 1]):
        fertilities = torch.tensor([vector])
        logits = model.project(model.decode(encoded, fertilities, 3, None))
        words = logits.log_softmax(-1).gather(2, target[..., None]).sum()
        total.append(float(words + method.log_prob(encoded.log_probs, fertilities)))
    bound = float(scored.tokens.sum() + scored.extra)
    assert bound <= float(torch.tensor(total).logsumexp(0)) and min(abs(bound - one) for one in total) < 1e-4
    none = model.score(encoded_of(model, [[5]]), tiny.stacked([[4] * 60]))
    assert none.extra.tolist() == [-torch.inf]
