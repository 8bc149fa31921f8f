"""Mask-predict (Ghazvininejad, Levy, Liu & Zettlemoyer 2019, "Mask-Predict: Parallel Decoding of Conditional Masked
Language Models", arXiv 1904.09324): the networks, and which positions are masked in training (section 3). Which are in
decoding (section 4): ``methods.unmasking``.

Differs from fairseq's ``cmlm_transformer`` on purpose: ``</s>`` is masked and predicted like any token, at least one
position is masked in every pass, no pass is skipped, and a score changes only when its position is predicted anew.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import noise
from .transformer import Memory, Stack, TokenEmbedding


def training_counts(keys: Tensor, lengths: Tensor, release_compat: bool = False) -> Tensor:
    """How many positions to mask in training, (B,): uniform on 1 … N (paper, section 3.1).

    ``release_compat``: uniform on 1 … N − 1 as the released code draws it (1 when N is 1), which never shows a fully
    masked target, the input of the first decoding pass.
    """
    most = (lengths - 1).clamp(min=1) if release_compat else lengths
    draw = noise.uniform(noise.fold(keys, 0), 1)[:, 0]
    return torch.minimum(1 + (draw * most).long(), most)


def random_mask(keys: Tensor, is_token: Tensor, counts: Tensor) -> Tensor:
    """(B, T) True at ``counts`` (B,) of the right-padded real positions, a uniform subset."""
    return noise.subset(noise.fold(keys, 1), is_token, counts)


def training_mask(keys: Tensor, is_token: Tensor, release_compat: bool = False, span: bool = False) -> Tensor:
    """(B, T) True at the positions to mask: a uniform subset of the right-padded real ones, or one ``span`` of them."""
    lengths = is_token.sum(1)
    counts = training_counts(keys, lengths, release_compat)
    if not span:
        return random_mask(keys, is_token, counts)
    draw = noise.uniform(noise.fold(keys, 1), 1)
    first = (draw[:, 0] * (lengths - counts + 1)).long()
    place = torch.arange(is_token.size(1), device=keys.device)
    return (place >= first[:, None]) & (place < (first + counts)[:, None])


class Encoder(nn.Module):
    """The source with a LENGTH token in front, whose state predicts the target's length (section 2.3)."""

    def __init__(
        self, embedding: TokenEmbedding, lengths: nn.Embedding, dropout: nn.Dropout, encoder: Stack, decoder: Stack
    ) -> None:
        """``lengths``: row 0 is the LENGTH token that the encoder reads, row N the class «N tokens», tied."""
        super().__init__()
        self.embedding, self.lengths, self.dropout = embedding, lengths, dropout
        self.encoder, self.decoder = encoder, decoder

    def forward(self, source: Tensor, mask: Tensor | None) -> tuple[tuple[Memory, ...], Tensor]:
        """(B, S) ids to the decoder's memory, which leaves LENGTH out, and (B, L) log-probabilities of lengths."""
        slot = self.dropout(self.lengths.weight[:1].expand(len(source), 1, -1))
        with_slot = torch.cat([slot, self.embedding(source)], 1)
        states = self.encoder(with_slot, None if mask is None else F.pad(mask, (1, 0), value=True))
        logits = F.linear(states[:, 0], self.lengths.weight).float()
        logits[:, 0] = -torch.inf
        return self.decoder.memory(states[:, 1:]), logits.log_softmax(1)


class Decoder(nn.Module):
    """The decoder, without a causal mask."""

    def __init__(self, embedding: TokenEmbedding, decoder: Stack) -> None:
        super().__init__()
        self.embedding, self.decoder = embedding, decoder

    def forward(
        self, tokens: Tensor, mask: Tensor | None, memory: tuple[Memory, ...], is_source: Tensor | None
    ) -> Tensor:
        """(R, T) ids, some of them masks, to (R, T, D) states."""
        return self.decoder(self.embedding(tokens), mask, memory, is_source)
