"""Decoding from a shortlist: every architecture gives what it would if all other words had no probability."""

from typing import Any

import pytest
import torch
from torch import Tensor

from nar_plugin.architectures.base import DecodingModel
from nar_plugin.methods import int8
from nar_plugin.methods.contract import Shortlist
from nar_plugin.methods.shortlist import Lexicon
from nar_plugin.methods.transformer import Projection
from nar_plugin.tasks import engines
from tests.conftest import CRITERIONS
from tests.tiny import (
    BOS,
    EOS,
    FIRST_WORD,
    PAD,
    UNK,
    Row,
    assert_same,
    decode,
    decode_in_any_batch,
    dictionary,
    random_rows,
    sample_of,
    symbols_of,
    texts,
    tiny_model,
)

WORDS = 150
SYMBOLS = symbols_of(dictionary(WORDS))
ROWS = [[], [], [], [], *random_rows(WORDS, 7, seed=31, words=WORDS, shortest=0)]
"""By source id, the words that go with it: none to seven."""
ALWAYS = random_rows(1, 4, seed=32, words=WORDS, shortest=4)[0]
SOURCES = [[], *random_rows(11, 7, seed=33, words=WORDS), []]
DECODES: dict[str, list[dict[str, Any]]] = {
    "blockwise_transformer": [],  # whose words are the base's, which may be any
    "ctc": [{}, {"lengths": 4, "nbest": 3}, {"lengths": 3, "max_candidate_tokens": 20}],
    "fertility_nat": [{}, {"fertility": "search", "decode_samples": 3, "max_candidate_tokens": 20}],
    "iterative_refinement": [
        {"iterations": 3, "lengths": 2},
        {"iterations": 2, "decode_samples": 3},
        {"iterations": 6, "stop_rule": "fixed-point"},
    ],
    "lanmt_continuous": [{"iterations": 2, "lengths": 2, "decode_samples": 2}],
    "lanmt_refiner": [{"iterations": 2}, {"iterations": 2, "latent_inference": "delta"}],
    "latent_transformer": [{"iterations": 3, "decode_samples": 2}, {"iterations": 5, "stop_rule": "fixed-point"}],
    "mask_predict": [
        {"iterations": 4, "lengths": 2},
        {"iterations": 3, "max_candidate_tokens": 20},
        {"iterations": 9, "unmask": "threshold"},
        {"iterations": 9, "unmask": "entropy"},
        {"iterations": 9, "unmask": "gap", "unmask_threshold": 0.3},
    ],
}
CASES = pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name, some in DECODES.items() for options in some],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
ENGINES = pytest.mark.parametrize("engine", ["eager", "int8", pytest.param("compiled", marks=pytest.mark.slow)])


def test_every_architecture_is_here() -> None:
    assert set(DECODES) == set(CRITERIONS)


def model_of(name: str, engine: str = "eager") -> Any:
    model = tiny_model(words=WORDS, arch=f"{name}_tiny")
    engines.prepare([model], engine)
    return model


def lexicon() -> Lexicon:
    return Lexicon(ROWS, ALWAYS, SYMBOLS)


def allowed(source: Row) -> set[int]:
    """Of a sentence, as the definition has it."""
    return {EOS, UNK, *ALWAYS}.union(*(ROWS[word] for word in source))


class PlainLexicon:
    """The whole vocabulary, of which a sentence may get its own words alone."""

    def shortlist(self, source: Tensor) -> Shortlist:
        is_allowed = torch.zeros(len(source), SYMBOLS.size, dtype=torch.bool)
        for i, row in enumerate(source.tolist()):
            for word in allowed(row):
                is_allowed[i, word] = True
        return Shortlist(words=torch.arange(SYMBOLS.size), is_allowed=is_allowed)


def projected_whole(self: Any, name: str, states: Tensor, shortlist: Shortlist) -> Tensor:
    """All logits, those that are not allowed masked."""
    logits = self.run(name, states, self.output_bias)
    for i, is_allowed in enumerate(shortlist.is_allowed):
        logits[i][..., ~is_allowed] = -torch.inf
    return logits


@ENGINES
@CASES
def test_it_is_as_if_the_other_words_had_no_probability(
    name: str, options: dict[str, Any], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sample = model_of(name, engine), sample_of(SOURCES)
    short = decode(model, sample, lexicon=lexicon(), **options)
    monkeypatch.setattr(DecodingModel, "projected", projected_whole)
    assert_same(short, decode(model, sample, lexicon=PlainLexicon(), **options))


@ENGINES
@CASES
def test_no_sentence_gets_a_word_that_only_another_one_may_get(name: str, options: dict[str, Any], engine: str) -> None:
    model = model_of(name, engine)
    found = texts(decode(model, sample_of(SOURCES), lexicon=lexicon(), **options))
    for source, words in zip(SOURCES, found, strict=True):
        assert set(words) <= allowed(source)
    assert found[0] == found[-1] == [EOS]
    whole = texts(decode(model, sample_of(SOURCES), **options))
    assert whole != found, "the shortlist forbids nothing that the model would say"


@ENGINES
@CASES
def test_a_batch_of_any_size_gives_the_same(name: str, options: dict[str, Any], engine: str) -> None:
    model, sources = model_of(name, engine), random_rows(64, 6, seed=34, words=WORDS)
    together = decode(model, sample_of(sources), lexicon=lexicon(), **options)
    first = decode_in_any_batch(model, sources[:3], lexicon=lexicon(), **options)
    assert_same(first, together[:3])


@pytest.mark.parametrize("name", [name for name, found in DECODES.items() if found])
def test_a_shortlist_of_all_words_changes_nothing(name: str) -> None:
    model, sample = model_of(name), sample_of(SOURCES[:8])
    every = list(range(FIRST_WORD, SYMBOLS.size))
    options = DECODES[name][0]
    whole = decode(model, sample, **options)
    short = decode(model, sample, lexicon=Lexicon([[]] * SYMBOLS.size, every, SYMBOLS), **options)
    assert texts(short) == texts(whole)


@pytest.mark.parametrize("name", [name for name, found in DECODES.items() if found])
def test_what_is_made_of_the_words_is_made_once_a_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = model_of(name), []
    for key, one in model.passes.items():
        if key.startswith("project"):
            choose = one.module.chosen
            monkeypatch.setattr(one.module, "chosen", lambda *asked, k=key, f=choose: made.append(k) or f(*asked))
    decode(model, sample_of(SOURCES), lexicon=lexicon(), **DECODES[name][0])
    assert made and len(made) == len(set(made))


def test_special_symbols_are_never_allowed_but_the_end_and_the_unknown_word() -> None:
    table = Lexicon([[], [], [], [], [PAD, BOS, 9], *[[]] * (SYMBOLS.size - 5)], [BOS, PAD, 7], SYMBOLS)
    found = table.shortlist(torch.tensor([[4, EOS, PAD]]))
    assert found.words[found.is_allowed[0]].tolist() == [EOS, UNK, 7, 9]


def test_each_sentence_is_allowed_its_own_words_and_those_of_all() -> None:
    found = lexicon().shortlist(sample_of(SOURCES)["net_input"]["src_tokens"])
    assert found.words.size(0) % 64 == 0 == found.is_allowed.size(1) % 64
    for source, row in zip(SOURCES, found.is_allowed, strict=True):
        assert found.words[row].tolist() == sorted(allowed(source))


def test_rows_are_dropped_and_repeated_and_the_words_stay() -> None:
    found = lexicon().shortlist(sample_of(SOURCES)["net_input"]["src_tokens"])
    chosen = found.select(torch.tensor([4, 4, 1]))
    assert chosen.words is found.words and chosen.kept is found.kept
    assert chosen.is_allowed.equal(found.is_allowed[[4, 4, 1]])


@pytest.mark.parametrize("rows", [int8.PACKED_FROM - 1, int8.PACKED_FROM])
@pytest.mark.parametrize("has_bias", [False, True])
def test_whole_numbers_of_some_words_give_what_those_of_all_words_give(rows: int, has_bias: bool) -> None:
    """To the bit, packed or not: also for a row of zeros, and for inputs that lie between two numbers."""
    projection = int8.VocabularyProjection(Projection(torch.nn.Embedding(40, 96), 39))
    words, bias = torch.tensor([0, 7, 7, 38]), torch.randn(39) if has_bias else None
    states = torch.cat([torch.randn(1, 40, 96), torch.zeros(1, 1, 96), between(96)], dim=1)
    whole = projection(states, bias)[..., words]
    chosen = projection.chosen(words, rows)
    assert isinstance(chosen, tuple) == (rows < int8.PACKED_FROM)
    some = projection(states, None if bias is None else bias[words], chosen)
    assert some.equal(whole) and (bias is None or some[0, 40].equal(bias[words]))


def between(width: int) -> Tensor:
    """(1, N, width): rows of one entry each beside their largest, which is 1.

    It is halfway between two numbers, or next to that by a few of the smallest differences.
    """
    most = int8.input_most()
    entries = [(torch.arange(-most, most).float() + 0.5) / most]
    for end in (2.0, -2.0):
        entry = entries[0]
        for _ in range(4):
            entry = torch.nextafter(entry, torch.tensor(end))
            entries.append(entry)
    rows = torch.zeros(1, sum(map(len, entries)), width)
    rows[0, :, 0], rows[0, :, 1] = torch.cat(entries), 1
    return rows


def test_where_nearly_all_words_are_allowed_the_product_is_over_all() -> None:
    """Of the same tokens; nothing is taken of the weights."""
    every, few = list(range(FIRST_WORD, SYMBOLS.size)), list(range(FIRST_WORD, FIRST_WORD + WORDS // 2))
    source = torch.tensor([[FIRST_WORD, EOS]])
    whole = Lexicon([[]] * SYMBOLS.size, every, SYMBOLS).shortlist(source)
    assert whole.is_whole and whole.words.equal(torch.arange(SYMBOLS.size))
    assert whole.is_allowed.nonzero()[:, 1].tolist() == sorted({EOS, UNK, *every})
    assert not Lexicon([[]] * SYMBOLS.size, few, SYMBOLS).shortlist(source).is_whole
