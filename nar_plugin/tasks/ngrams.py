"""Files of ``--ngram``: a language model of n-grams of target subwords, in the ARPA format or as kenlm's own binary.

The package ``kenlm`` reads them. It is optional, as pip builds it from its source (a C++ compiler): ``pip install
kenlm``. Its program ``lmplz`` makes such files of a binarised text's subwords, one sentence a line.
"""

import math
import os
from typing import Any

import torch
from torch import Tensor

from ..methods.contract import UsageError
from ..methods.symbols import Symbols


class NgramModel:
    """``generators.candidates.Judge`` by n-grams."""

    def __init__(self, model: Any, dictionary: Any, symbols: Symbols) -> None:
        self.model, self.words, self.first = model, dictionary.symbols, symbols.first_word
        self.unk = symbols.unk

    def log_probs(self, tokens: Tensor) -> Tensor:
        """(N, T) ids to the (N,) log-probabilities in nats of their words and the end of the sentence."""
        texts = [" ".join(self.words[i] for i in row if i >= self.first or i == self.unk) for row in tokens.tolist()]
        scores = [self.model.score(text, bos=True, eos=True) for text in texts]
        return torch.tensor(scores, device=tokens.device, dtype=torch.float32) * math.log(10)


def read(path: str, dictionary: Any, symbols: Symbols) -> NgramModel:
    """The model in a file. Raises UsageError, one line, where kenlm is missing, or the file is none of its."""
    try:
        import kenlm
    except ImportError:
        raise UsageError("--ngram needs the package kenlm: pip install kenlm (it builds with a C++ compiler)") from None
    if not os.path.isfile(path):
        raise UsageError(f"--ngram {path}: there is no such file")
    try:
        model = kenlm.Model(path)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"--ngram {path}: kenlm cannot read it: {reason}") from None
    known = sum(word in model for word in dictionary.symbols[symbols.first_word :])
    if known < len(dictionary.symbols[symbols.first_word :]) / 2:
        raise UsageError(f"--ngram {path} knows {known} of the dictionary's words: it is of another text")
    return NgramModel(model, dictionary, symbols)
