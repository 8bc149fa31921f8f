"""Decoders that begin with the source: its embeddings are copied to the places of the target.

Gu et al. 2018 (arXiv 1711.02281) copy each word as often as its fertility says, Lee et al. 2018 (arXiv
1802.06901) the whole evenly. What stands here is what both do with the places that their formulas give.
"""

import torch
from torch import Tensor, nn

from .transformer import Memory, Stack, TokenEmbedding, others


class Source(nn.Module):
    """The source, read once: its embeddings, which are copied, and what a decoder attends to."""

    def __init__(self, embedding: TokenEmbedding, encoder: Stack, attends_top: bool) -> None:
        """``attends_top``: every decoder layer attends to the top encoder layer, not to the one at its own height."""
        super().__init__()
        self.embedding, self.encoder, self.attends_top = embedding, encoder, attends_top

    def read(self, source: Tensor, mask: Tensor | None) -> tuple[Tensor, list[Tensor], Tensor | list[Tensor]]:
        """(B, S) ids to (B, S, D) embeddings, the states of every layer, and those that are attended to."""
        copied = self.embedding.embed(source)
        states = self.encoder.states(self.embedding.dropout(copied), mask)
        return copied, states, states[-1] if self.attends_top else states


class Decoder(nn.Module):
    """Attention among positions of which, with ``is_blind``, none sees itself (Gu et al. 2018)."""

    def __init__(self, embedding: TokenEmbedding, decoder: Stack, is_blind: bool) -> None:
        super().__init__()
        self.embedding, self.decoder, self.is_blind = embedding, decoder, is_blind

    def decoded(self, x: Tensor, mask: Tensor | None, memory: tuple[Memory, ...], is_source: Tensor | None) -> Tensor:
        """(R, T, D) inputs to (R, T, D) states."""
        seen = mask
        if self.is_blind:
            seen = others(torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask)
        return self.decoder(self.embedding.dropout(x), seen, memory, is_source, self.embedding.places(x.size(1)))


class CopyPass(Decoder):
    """The pass over the source's embeddings copied to the target's places."""

    def forward(
        self,
        copied: Tensor,
        places: Tensor,
        mask: Tensor | None,
        memory: tuple[Memory, ...],
        is_source: Tensor | None,
    ) -> Tensor:
        """(R, S, D) embeddings and the (R, T) places that are copied to (R, T, D) states."""
        chosen = copied.gather(1, places[..., None].expand(-1, -1, copied.size(-1)))
        return self.decoded(chosen + self.embedding.places(places.size(1)), mask, memory, is_source)
