"""Special symbols and padding, in one place.

Lengths here count the end symbol ``</s>`` and no begin symbol: a target is exactly fairseq's ``y_1 … y_n </s>``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Symbols:
    """Ids of the special symbols. ``mask`` is one past the dictionary's end: an input row only, never predicted."""

    bos: int
    pad: int
    eos: int
    unk: int
    size: int

    @property
    def mask(self) -> int:
        return self.size

    @property
    def first_word(self) -> int:
        """The least id that is no special symbol."""
        return max(self.bos, self.pad, self.eos, self.unk) + 1


def compact(tokens: Tensor, is_kept: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Move the kept ids of (B, T) to the left, in order, and pad the rest: (B, T) ids and (B, T) ``is_token``."""
    order = (~is_kept).to(torch.uint8).argsort(dim=1, stable=True)
    is_token = is_kept.gather(1, order)
    return tokens.gather(1, order).masked_fill(~is_token, pad), is_token


def right_padded(tokens: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """(B, S) ids with all padding on the right, and (B, S) ``is_token``: left and right padding become the same."""
    is_token = tokens != pad
    return (tokens, is_token) if bool(is_token.all()) else compact(tokens, is_token, pad)


def closed(tokens: Tensor, symbols: Symbols) -> tuple[Tensor, Tensor]:
    """The text of a decode: every ``</s>``, ``<s>`` and pad dropped, one ``</s>`` put at the end.

    (B, T) to (B, T + 1) ids and ``is_token``: the form in which a teacher scores it.
    """
    is_kept = (tokens != symbols.pad) & (tokens != symbols.bos) & (tokens != symbols.eos)
    text, is_text = compact(tokens, is_kept, symbols.pad)
    lengths = is_text.sum(1, keepdim=True)
    text = torch.cat([text, text.new_full((len(text), 1), symbols.pad)], 1).scatter(1, lengths, symbols.eos)
    return text, text != symbols.pad


def collapsed(tokens: Tensor, scores: Tensor, symbols: Symbols) -> tuple[Tensor, Tensor]:
    """Drop every word equal to the word before it, also across a ``</s>``, which is not read, and every symbol equal to
    its left neighbour; (B, T) ids and (B, T) scores (0 at pads)."""
    is_word = (tokens != symbols.pad) & (tokens != symbols.bos) & (tokens != symbols.eos)
    places = torch.arange(tokens.size(1), device=tokens.device)
    last_word = torch.where(is_word, places, -1).cummax(1).values[:, :-1]
    before = torch.where(is_word[:, 1:] & (last_word >= 0), tokens.gather(1, last_word.clamp(min=0)), tokens[:, :-1])
    is_kept = tokens != symbols.pad
    is_kept[:, 1:] &= tokens[:, 1:] != before
    kept, is_token = compact(tokens, is_kept, symbols.pad)
    order = (~is_kept).to(torch.uint8).argsort(dim=1, stable=True)
    return kept, scores.gather(1, order).masked_fill(~is_token, 0.0)


def shifted(target: Tensor, symbols: Symbols) -> Tensor:
    """Teacher-forced input of fairseq's decoders: ``</s> y_1 … y_n`` for (B, T) right-padded ``y_1 … y_n </s>``."""
    shifted_target = target.roll(1, dims=1)
    shifted_target[:, 0] = symbols.eos
    return shifted_target.masked_fill(target == symbols.pad, symbols.pad)


def begin_padded(tokens: Tensor, is_token: Tensor, bos: int) -> tuple[Tensor, Tensor]:
    """(B, T) right-padded ids and ``is_token`` with ``<s>`` in front: (B, T + 1) each."""
    pad = torch.nn.functional.pad
    return pad(tokens, (1, 0), value=bos), pad(is_token, (1, 0), value=True)
