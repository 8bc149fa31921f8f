"""CTC: a canvas several times as long as the source, of which every position says a word or a blank, in one pass: the
networks, and what of the target is shown in training.

Libovický & Helcl 2018 (arXiv 1811.04719); with the source's words on the canvas, and one stack alone: Saharia, Chan,
Saxena & Norouzi 2020 (arXiv 2004.07437). Glancing (``methods.glancing``) on the best alignment: Gu & Kong 2021 (arXiv
2012.15833). Deep supervision, with what a layer says fed to the next: Huang,
Zhou, Zaïane & Mou 2022 (DSLP, arXiv 2110.07515, section 3). Alignments: ``methods.alignments``.
"""

from typing import Callable

import torch
from torch import Tensor, nn

from . import alignments, glancing
from .prediction import greatest
from .transformer import Memory, Projection, Stack, TokenEmbedding

HIDDEN = -1
"""In place of an id: the position is not shown what it should say."""


class Encoder(nn.Module):
    """The source, read once."""

    def __init__(self, embedding: TokenEmbedding, encoder: Stack, decoder: Stack) -> None:
        super().__init__()
        self.embedding, self.encoder, self.decoder = embedding, encoder, decoder

    def forward(self, source: Tensor, mask: Tensor | None) -> tuple[Memory, ...]:
        """(B, S) ids to the decoder's memory."""
        return self.decoder.memory(self.encoder(self.embedding(source), mask))


class LayerPredictions(nn.Module):
    """What each layer but the last says, joined to its states for the next: W [h; e(ŷ)], without a bias (DSLP).

    It begins with W = [1 0], as if nothing were joined."""

    def __init__(self, layers: int, embedding: TokenEmbedding, projection: Projection) -> None:
        super().__init__()
        self.embedding, self.projection = embedding, projection
        dim = embedding.tokens.embedding_dim
        self.joined = nn.ModuleList(nn.Linear(2 * dim, dim, bias=False) for _ in range(layers - 1))

    @torch.no_grad()
    def reset(self) -> None:
        for linear in self.joined:
            weight: Tensor = linear.weight  # type: ignore[assignment]
            weight.copy_(torch.eye(*weight.shape))

    def forward(self, layer: int, states: Tensor, normed: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, D) states, also as the projection reads them, to what the next layer reads, and (R, C, V + 1) logits.
        No gradient goes through the choice of the words."""
        logits = self.projection(normed)
        words = self.embedding.scale * self.embedding.tokens(greatest(logits.detach())[1])
        return self.joined[layer](torch.cat([states, words], -1)), logits


class Decoder(nn.Module):
    """The one pass over the canvas: a stack that attends to the source, or one that reads nothing else."""

    def __init__(
        self, source: nn.Embedding, embedding: TokenEmbedding, stack: Stack, predictions: LayerPredictions | None
    ) -> None:
        """``source``: the table by which the source's words stand on the canvas; ``embedding``: of what is said there,
        and of the canvas's positions."""
        super().__init__()
        self.source, self.embedding, self.stack, self.predictions = source, embedding, stack, predictions

    def forward(
        self,
        canvas: Tensor,
        mask: Tensor | None,
        memory: tuple[Memory, ...] | None,
        is_source: Tensor | None,
        shown: Tensor | None = None,
        keeps_lower: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """(R, C) ids of the source to the (R, C, D) states of the last layer and, if asked for and if it predicts, the
        (R, C, V + 1) logits of each layer below. ``shown``: (R, C) ids of what is shown, ``HIDDEN`` elsewhere."""
        words = self.source(canvas)
        if shown is not None:
            words = torch.where((shown >= 0)[..., None], self.embedding.tokens(shown.clamp(min=0)), words)
        read = self.embedding.dropout(self.embedding.scale * words + self.embedding.places(canvas.size(1)))
        lower: list[Tensor] = []
        between = self.between(lower if keeps_lower else None)
        return self.stack(read, mask, memory, is_source, between=between), lower

    def between(self, kept: list[Tensor] | None) -> Callable[[int, Tensor], Tensor] | None:
        """What stands between two layers; logits go to ``kept``."""
        predictions = self.predictions
        if predictions is None:
            return None

        def join(layer: int, states: Tensor) -> Tensor:
            joined, logits = predictions(layer, states, self.stack.norm(states))
            if kept is not None:
                kept.append(logits)
            return joined

        return join


def glimpse(keys: Tensor, said: Tensor, aligned: Tensor, is_canvas: Tensor, is_fitting: Tensor, ratio: float) -> Tensor:
    """What is shown of the best alignment (``methods.glancing``): (B, C) ids, ``HIDDEN`` elsewhere.

    Wrong are the positions at which ``said`` and ``aligned``, (B, C) ids each, differ: nothing is shown of a sentence
    that is right already, nor of one that does not fit.
    """
    wrong = ((said != aligned) & is_canvas).sum(1) * is_fitting
    is_shown = glancing.shown(keys, is_canvas, wrong, ratio)
    return aligned.masked_fill(~is_shown, HIDDEN)


@torch.no_grad()
def said_and_aligned(
    logits: Tensor, words: Tensor, lengths: Tensor, is_canvas: Tensor, blank: int
) -> tuple[Tensor, Tensor]:
    """(B, C, V + 1) logits to what each position says and what the best alignment has there, (B, C) ids each."""
    said = alignments.states(words, blank)
    emitted = alignments.emissions(logits, said, is_canvas, blank)
    return greatest(logits)[1], alignments.best(emitted, said, lengths, blank)
