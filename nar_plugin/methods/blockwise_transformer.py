"""Blockwise parallel decoding (Stern, Shazeer & Uszkoreit 2018, "Blockwise Parallel Decoding for Deep Autoregressive
Models", arXiv 1811.03115): heads that say what follows several tokens ahead, from one state of a decoder.

One feed-forward block between the decoder and the vocabulary projection (section 6): u = W₂ ReLU(W₁ h) with W₁ of d to
k · f and W₂ of k · f to k · d, both dense; head i reads oᵢ = h + uᵢ, and all heads share the projection. Head 1, the
next token, is the verifier. It goes through the block too, so that even on a frozen base p₁ is not the base's;
``is_identity`` leaves it out of the block (footnote 1).
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .transformer import FeedForward


class DenseBlock(nn.Module):
    """The paper's: each head reads what the hidden units of all heads say. W₂ is held head by head."""

    def __init__(self, dim: int, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, heads * hidden)
        self.outer = nn.ModuleList(nn.Linear(heads * hidden, dim) for _ in range(heads))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, first: int, end: int) -> Tensor:
        """(…, D) states to (…, N, D) outputs of the heads ``first`` … ``end`` − 1."""
        inside = self.dropout(F.relu(self.inner(states)))
        return torch.stack([head(inside) for head in self.outer[first:end]], -2)


class SeparateBlocks(nn.Module):
    """A block a head: k times fewer weights in W₂."""

    def __init__(self, dim: int, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = nn.ModuleList(FeedForward(dim, hidden, "relu", dropout) for _ in range(heads))

    def forward(self, states: Tensor, first: int, end: int) -> Tensor:
        return torch.stack([head(states) for head in self.heads[first:end]], -2)


BLOCKS = {"dense": DenseBlock, "block": SeparateBlocks}


class Heads(nn.Module):
    """All heads, numbered from 0: head i says the token i + 1 places ahead."""

    def __init__(
        self,
        dim: int,
        hidden: int,
        heads: int,
        *,
        kind: str,
        dropout: float,
        activation_dropout: float,
        is_identity: bool,
    ) -> None:
        """``is_identity``: head 0 reads the decoder's state as it is, and the block has one head less."""
        super().__init__()
        self.skipped = int(is_identity)
        blocks = heads - self.skipped
        self.block = BLOCKS[kind](dim, hidden, blocks, activation_dropout) if blocks else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, first: int, end: int) -> Tensor:
        """(…, D) states to (…, N, D): what the vocabulary projection reads of the heads ``first`` … ``end`` − 1."""
        parts = [states[..., None, :]] if first < self.skipped else []
        begin = max(first, self.skipped)
        if begin < end:
            block = cast(nn.Module, self.block)
            outputs = block(states, begin - self.skipped, end - self.skipped)
            parts.append(states[..., None, :] + self.dropout(outputs))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -2)


def ahead(target: Tensor, is_token: Tensor, head: int) -> tuple[Tensor, Tensor]:
    """(B, T) right-padded targets to what head ``head``, from 0, is to say at each place, (B, T − ``head``), and where
    there is anything to be said."""
    return target[:, head:], is_token[:, head:]
