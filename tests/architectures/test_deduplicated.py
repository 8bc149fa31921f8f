"""Decoding without equal neighbours (``--deduplicate``), by every architecture whose canvas is the target."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nar_plugin.architectures.base import DecodingModel
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.options import Deduplication
from nar_plugin.methods.shortlist import Lexicon
from nar_plugin.tasks import engines
from tests.conftest import CRITERIONS
from tests.methods.test_deduplication import through_all_words
from tests.methods.test_options import OF_MODELS
from tests.tiny import (
    EOS,
    FIRST_WORD,
    PAD,
    SYMBOLS,
    Row,
    assert_same,
    decode,
    decode_in_any_batch,
    random_rows,
    sample_of,
    texts,
    tiny_model,
)

CODES = {"latent": "fsq", "max_update": 100}
SOURCES = [[], *random_rows(9, 8, seed=41, shortest=2)]
DECODES: dict[str, list[dict[str, Any]]] = {
    "mask_predict": [{}, {"lengths": 3, "nbest": 2}, {"gold_target_len": True}],
    "iterative_refinement": [{}, {"iterations": 2, "lengths": 2}, {"iterations": 1, "decode_samples": 2}],
    "lanmt": [{}, {"iterations": 2}, {"iterations": 1, "decode_samples": 3}],
    "lanmt_continuous": [{}, {"iterations": 1, "lengths": 2, "decode_samples": 2}],
    "lanmt_refiner": [{"iterations": 2}, {"iterations": 1, "latent_inference": "delta"}],
    "latent_transformer": [{}, {"lengths": 3}, {"iterations": 1, "decode_samples": 2}, {"gold_target_len": True}],
    "fertility_nat": [{}, {"decode_samples": 3}, {"fertility": "search", "decode_samples": 2}],
}
CASES = pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name, some in DECODES.items() for options in some],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "plain",
)


def model_of(name: str, engine: str = "eager") -> Any:
    """``lanmt`` is the Gaussian latent_transformer."""
    model = tiny_model(arch=f"{name}_tiny", **(CODES if name == "latent_transformer" else {}))
    engines.prepare([model], engine)
    return model


def repeats(row: Row) -> int:
    return sum(a == b != EOS for a, b in zip(row, row[1:]))


def test_every_architecture_that_has_the_option_is_here() -> None:
    having = {
        name.split()[0].removesuffix("_tiny") for name, kind in OF_MODELS.items() if issubclass(kind, Deduplication)
    }
    assert having == set(DECODES) - {"lanmt"}
    assert set(CRITERIONS) - having == {"ctc", "blockwise_transformer"}


@CASES
def test_no_word_is_said_twice_in_a_row_in_any_batch(name: str, options: dict[str, Any]) -> None:
    """ODD-5: nor in any hypothesis of several, and the option that costs nothing changes nothing."""
    model, sample = model_of(name), sample_of(SOURCES, SOURCES)
    plain = decode(model, sample, **options)
    assert sum(map(repeats, texts(plain))) > 3, "there is nothing to do"
    found = decode(model, sample, deduplicate=True, **options)
    assert not sum(repeats(one["tokens"].tolist()) for group in found for one in group)
    assert_same(decode(model, sample, deduplicate=True, duplicate_penalty=0.0, **options), plain)
    assert_same(decode(model, sample, deduplicate=True, duplicate_penalty=1e4, **options), found)
    if "gold_target_len" not in options:
        assert_same(decode_in_any_batch(model, SOURCES, deduplicate=True, **options), found)


@pytest.mark.parametrize("penalty", [None, 0.7])
@pytest.mark.parametrize("name", DECODES)
def test_what_a_pass_says_is_the_best_of_all_that_it_could_say(
    name: str, penalty: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ODD-5: by a search among all words in the logits of the pass; scores are the model's own log-probabilities."""
    seen: list[Tensor] = []
    projected = DecodingModel.projected

    def noting(self: Any, *given: Any) -> Tensor:
        logits = projected(self, *given)
        seen.append(logits.clone())
        return logits

    monkeypatch.setattr(DecodingModel, "projected", noting)
    model = model_of(name)
    found = decode(
        model, sample_of(SOURCES, SOURCES), gold_target_len=True, deduplicate=True, duplicate_penalty=penalty
    )
    log_probs = seen[-1].view(len(SOURCES), -1, SYMBOLS.size).log_softmax(-1)
    cost = math.inf if penalty is None else penalty
    log_probs_of_words = log_probs.clone()
    for banned in model.banned:
        log_probs_of_words[..., banned] = -math.inf
    order = torch.arange(SYMBOLS.size)
    order[1], order[EOS] = EOS, 1  # the search has its end symbol there
    for row, own, (one,) in zip(log_probs_of_words[..., order], log_probs, found, strict=True):
        tokens = one["tokens"]
        if tokens.tolist() == [EOS]:
            continue  # nothing to translate
        torch.testing.assert_close(one["positional_scores"], own[range(len(tokens)), tokens], atol=1e-5, rtol=0)
        times = repeats(tokens.tolist())
        value = float(one["positional_scores"].sum()) - (cost * times if times else 0.0)
        assert value == pytest.approx(through_all_words(row[: len(tokens)], cost), abs=1e-4)


@pytest.mark.parametrize("engine", ["int8", "bf16", pytest.param("compiled", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", DECODES)
def test_under_every_engine_no_word_is_said_twice_in_a_row(name: str, engine: str) -> None:
    """ODD-5."""
    found = decode(model_of(name, engine), sample_of(SOURCES), deduplicate=True)
    assert not sum(repeats(one["tokens"].tolist()) for group in found for one in group)


@pytest.mark.parametrize("name", DECODES)
def test_a_sentence_gets_words_of_its_shortlist_and_none_twice(name: str) -> None:
    """ODD-5: also one that gets no word but `</s>` and `<unk>`."""
    words = [[word] if word < FIRST_WORD + 12 else [] for word in range(SYMBOLS.size)]
    lexicon, few = Lexicon(words, [FIRST_WORD], SYMBOLS), Lexicon([[]] * SYMBOLS.size, [], SYMBOLS)
    model, sample = model_of(name), sample_of(SOURCES)
    found = texts(decode(model, sample, lexicon=lexicon, deduplicate=True))
    for source, row in zip(SOURCES, found, strict=True):
        assert set(row) <= {EOS, SYMBOLS.unk, FIRST_WORD, *(word for word in source if word < FIRST_WORD + 12)}
        assert not repeats(row)
    least = texts(decode(model, sample, lexicon=few, deduplicate=True))
    assert not sum(map(repeats, least)) and {word for row in least for word in row} <= {EOS, SYMBOLS.unk}


@pytest.mark.parametrize("name", ["mask_predict", "latent_transformer"])
def test_hypotheses_are_compared_by_what_they_say(name: str) -> None:
    """ODD-5: the choice among several is made of de-duplicated ones, by their own log-probabilities."""
    model, sample = model_of(name), sample_of(SOURCES)
    group = decode(model, sample, deduplicate=True, lengths=4, nbest=4)[3]
    best = decode(model, sample, deduplicate=True, lengths=4)[3][0]
    assert [float(one["score"]) for one in group] == sorted((float(one["score"]) for one in group), reverse=True)
    assert best["tokens"].equal(group[0]["tokens"])
    if name == "mask_predict":
        for one in group:
            assert float(one["score"]) == pytest.approx(float(one["positional_scores"].mean()), abs=1e-6)


def test_what_is_cut_off_behind_the_end_has_no_say() -> None:
    """ODD-6: where a canvas ends at the first `</s>`, other words behind it change nothing before it."""
    model = model_of("latent_transformer")
    sample, changed = sample_of(SOURCES), 0
    plain = texts(decode(model, sample, deduplicate=True))
    project = type(model).project

    def other_words_behind(states: Tensor, shortlist: Any = None) -> Tensor:
        logits = project(model, states, shortlist)
        behind = model.is_after_end(model.best(logits.clone(), None)[0])
        nonlocal changed
        changed += int(behind.sum())
        logits[behind] = torch.randn(int(behind.sum()), logits.size(-1), generator=torch.Generator().manual_seed(1))
        return logits

    with torch.no_grad():  # so that many sentences end early
        model.output.weight[EOS] *= 2.5
    plain = texts(decode(model, sample, deduplicate=True))
    model.project = other_words_behind
    assert texts(decode(model, sample, deduplicate=True)) == plain and changed > 5
    assert all(PAD not in row and EOS not in row[:-1] for row in plain)


def test_where_several_passes_say_some_words_each_it_is_refused() -> None:
    """ODD-7."""
    kind = OF_MODELS["mask_predict_tiny"]
    for given in ({}, {"iterations": 1}):
        with pytest.raises(UsageError, match="--deduplicate: .*--iter-decode-max-iter 0") as error:
            kind(deduplicate=True, **given)
        assert "\n" not in str(error.value)
    assert kind(deduplicate=True, iterations=0).penalty == math.inf


def test_a_penalty_goes_with_the_option() -> None:
    """ODD-7."""
    assert Deduplication(duplicate_penalty=2.0).ineffective() == {"duplicate_penalty": "without --deduplicate"}
    assert not Deduplication(deduplicate=True, duplicate_penalty=2.0).ineffective()
    assert [Deduplication(deduplicate=flag, duplicate_penalty=2.0).penalty for flag in (False, True)] == [None, 2.0]
