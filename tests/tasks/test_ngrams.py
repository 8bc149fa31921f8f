"""``--ngram``: a language model that has a say in the choice among hypotheses."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.methods.contract import UsageError
from nar_plugin.tasks import ngrams
from tests import tiny
from tests.end_to_end.programs import TASK, complains, program
from tests.tiny import EOS, FIRST_WORD, PAD, SYMBOLS, random_rows, sample_of, texts

WORDS = tiny.dictionary()


class Lengths:
    """In place of kenlm's model: knows all words, and every one of them is a decade less probable."""

    def __init__(self, path: str) -> None:
        if not open(path).read().startswith("\\data\\"):  # noqa: SIM115
            raise OSError(f"Cannot read model '{path}' (bad format)")

    def __contains__(self, word: str) -> bool:
        return word in WORDS.symbols

    def score(self, text: str, bos: bool, eos: bool) -> float:
        assert bos and eos
        return -float(len(text.split()))


@pytest.fixture
def arpa(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[str]:
    """A file, and a stand-in for the package."""
    module = ModuleType("kenlm")
    module.Model = Lengths  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kenlm", module)
    path = tmp_path / "lm.arpa"
    path.write_text("\\data\\\n")
    yield str(path)


def test_words_and_their_end_are_scored(arpa: str) -> None:
    """In nats; special symbols are no words, but the unknown one."""
    model = ngrams.read(arpa, WORDS, SYMBOLS)
    tokens = torch.tensor([[FIRST_WORD, FIRST_WORD + 1, EOS, PAD], [SYMBOLS.unk, EOS, PAD, PAD], [EOS, PAD, PAD, PAD]])
    assert model.log_probs(tokens).tolist() == pytest.approx([-2 * 2.302585, -2.302585, 0.0])


@pytest.mark.parametrize("weight", [0.0, 0.1, 5.0])
def test_it_is_added_to_the_models_own(arpa: str, weight: float) -> None:
    """As often as its weight says, before candidates are compared."""
    model = tiny.tiny_model(arch="ctc_tiny")
    sample = sample_of(random_rows(8, 9, seed=5))
    plain = RefinementGenerator(model, SYMBOLS, tiny.options_of(model, lengths=5, nbest=5)).generate([model], sample)
    options = tiny.options_of(model, lengths=5, ngram=arpa, ngram_weight=weight)
    judge = ngrams.read(arpa, WORDS, SYMBOLS)
    found = RefinementGenerator(model, SYMBOLS, options, judge=judge).generate([model], sample)
    for group, (chosen,) in zip(plain, found, strict=True):
        totals = [float(one["score"]) - weight * 2.302585 * (len(one["tokens"]) - 1) for one in group]
        assert float(chosen["score"]) == pytest.approx(max(totals), abs=1e-3)
    if not weight:
        assert texts(found) == texts(plain)


def test_what_cannot_be_read(arpa: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """One line: a missing file, another one, a model of other words, a package that is not installed."""
    (tmp_path / "other").write_text("nothing")
    for path, told in ((tmp_path / "none", "there is no such file"), (tmp_path / "other", "kenlm cannot read it")):
        with pytest.raises(UsageError, match=told):
            ngrams.read(str(path), WORDS, SYMBOLS)
    monkeypatch.setattr(Lengths, "__contains__", lambda self, word: False)
    with pytest.raises(UsageError, match="knows 0 of the dictionary's words"):
        ngrams.read(arpa, WORDS, SYMBOLS)
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(UsageError, match="pip install kenlm"):
        ngrams.read(arpa, WORDS, SYMBOLS)


def test_the_programs_read_it(data: Path, student: Path) -> None:
    """One line where it cannot be read, or the package is missing."""
    command = ("fairseq-generate", data, *TASK, "--path", student, "--ngram", "none.arpa")
    complains(program(*command, "--iter-decode-with-beam", 2), "--ngram")
