"""Lexical shortlists: a sentence gets only words that go with one of its own source words.

The projection on the vocabulary, the dearest product of a pass, is then made over a few hundred words, and
probabilities are those among the words that the sentence may get. A batch has one product, over the words of all its
sentences, in which each sees its own alone: what a sentence gets depends on no other.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .contract import Shortlist
from .symbols import Symbols

BLOCK = 64
"""Words of a batch are filled up to a multiple: products and searches over such widths are faster."""
MOST = 0.75
"""The share of the vocabulary from which on a batch has the product over all words, whose weights need not be taken."""


class Lexicon:
    """Which target words go with which source word, and which with all."""

    def __init__(self, rows: list[list[int]], always: list[int], symbols: Symbols) -> None:
        """``rows``: by source id, the ids of its words; ``always``: those of every sentence. ``</s>`` and ``<unk>`` are
        always allowed; padding and ``<s>`` never are.
        """
        width = max(map(len, rows))
        filled = torch.tensor([row + [symbols.eos] * (width - len(row)) for row in rows], dtype=torch.int32)
        self.rows = filled.masked_fill_((filled == symbols.pad) | (filled == symbols.bos), symbols.eos)
        self.always = torch.tensor(sorted({*always, symbols.eos, symbols.unk} - {symbols.pad, symbols.bos}))
        self.size = symbols.size

    def shortlist(self, source: Tensor) -> Shortlist:
        """Of (B, S) source ids, padded on either side. It waits for the device once."""
        self.rows, self.always = self.rows.to(source.device), self.always.to(source.device)
        is_allowed = torch.zeros(len(source), self.size, dtype=torch.bool, device=source.device)
        is_allowed.scatter_(1, self.rows[source].flatten(1).long(), True)
        is_allowed[:, self.always] = True
        words = is_allowed.any(0).nonzero()[:, 0]
        if len(words) > MOST * self.size:
            return Shortlist(words=torch.arange(self.size, device=source.device), is_allowed=is_allowed, is_whole=True)
        missing = -len(words) % BLOCK
        return Shortlist(words=F.pad(words, (0, missing)), is_allowed=F.pad(is_allowed[:, words], (0, missing)))
