"""LaNMT: Gaussian latents on source positions, how they come to stand on target positions, and the networks.

Shu, Lee, Nakayama & Cho 2020, "Latent-Variable Non-Autoregressive Neural Machine Translation with Deterministic
Inference using a Delta Posterior", arXiv 1908.07181, section 3.
"""

import torch
from torch import Tensor, nn

from . import gaussian
from .transformer import Memory, Stack, TokenEmbedding, mean_over


def length_transform(
    values: Tensor,
    is_source: Tensor,
    lengths: Tensor,
    width: int,
    sigma: Tensor,
    is_prefix: bool = False,
    kind: torch.dtype = torch.float32,
) -> Tensor:
    """Monotonic location-based attention (section 3.3): (B, S, D) on sources to (B, width, D) on targets, 0 beyond.

    Position j of a target of l tokens attends around j · n / l of a source of n, with a Gaussian of spread ``sigma``, a
    learnt scalar. ``is_prefix`` has the kernel of the released code, whose base and exponent changed places: −2^(k − μ)
    in place of −(k − μ)², an average of all that stands before. ``kind``: the precision that it is computed in.
    """
    weights = attention(is_source, lengths, width, sigma, is_prefix, kind)
    with torch.autocast(values.device.type, enabled=False):  # which would take the product in half precision
        return (weights @ values.to(kind)).to(values.dtype)


def attention(
    is_source: Tensor,
    lengths: Tensor,
    width: int,
    sigma: Tensor,
    is_prefix: bool = False,
    kind: torch.dtype = torch.float32,
) -> Tensor:
    """The weights of ``length_transform``: (B, width, S), rows sum to 1 on real sources, 0 beyond a target's end."""
    sizes, device = is_source.sum(1, keepdim=True).float(), is_source.device
    targets = torch.arange(width, device=device).float()
    centres = targets * sizes / lengths[:, None].clamp(min=1)
    distance = torch.arange(is_source.size(1), device=device).float() - centres[..., None]
    kernel = 2.0 ** distance.clamp(-100, 100) if is_prefix else distance.square()
    logits = -kernel / (2 * sigma.float().square()).clamp(min=1e-8)
    weights = logits.masked_fill(~is_source[:, None], -torch.inf).softmax(-1, dtype=kind)
    return weights.masked_fill((targets >= lengths[:, None])[..., None], 0.0)


class Encoder(nn.Module):
    """The source encoder, which is the prior's too."""

    def __init__(self, embedding: TokenEmbedding, encoder: Stack, prior: nn.Linear, decoder: Stack) -> None:
        super().__init__()
        self.embedding, self.encoder, self.prior, self.decoder = embedding, encoder, prior, decoder

    def forward(self, source: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, tuple[Memory, ...], Tensor, Tensor]:
        """(B, S) ids that begin with ``<s>`` to embeddings, states, the decoder's memory, the prior's mean and standard
        deviation, (B, S, Z) each."""
        embedded = self.embedding(source)
        states = self.encoder(embedded, mask)
        mean, std = gaussian.split(self.prior(states))
        return embedded, states, self.decoder.memory(states), mean, std


class Posterior(nn.Module):
    """q(z | x, y): source embeddings attend to each other and to an encoder of the target (section 3.1)."""

    def __init__(self, target: Stack, source: Stack, dim: int, latent_size: int) -> None:
        super().__init__()
        self.target, self.source = target, source
        self.output = nn.Linear(dim, 2 * latent_size)

    def forward(
        self, embedded: Tensor, mask: Tensor | None, target: Tensor, is_token: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(B, S, D) source and (B, T, D) target embeddings to the mean and standard deviation, (B, S, Z) each."""
        memory = self.source.memory(self.target(target, is_token))
        return gaussian.split(self.output(self.source(embedded, mask, memory, is_token)))


class Inference(nn.Module):
    """The posterior, from target ids."""

    def __init__(self, embedding: TokenEmbedding, posterior: Posterior) -> None:
        super().__init__()
        self.embedding, self.posterior = embedding, posterior

    def forward(
        self, embedded: Tensor, mask: Tensor | None, target: Tensor, is_token: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(B, S, D) source embeddings and (B, T) ids that begin with ``<s>`` to mean and standard deviation."""
        return self.posterior(embedded, mask, self.embedding(target), is_token)


class Lift(nn.Module):
    """Latents to the width of the model."""

    def __init__(self, lift: nn.Linear) -> None:
        super().__init__()
        self.lift = lift

    def forward(self, latents: Tensor) -> Tensor:
        """(B, S, Z) to (B, S, D)."""
        return self.lift(latents)


class Length(nn.Module):
    """The length, from the mean over the source of latents and states together."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, lifted: Tensor, states: Tensor, is_source: Tensor) -> Tensor:
        """(B, S, D) lifted latents and (B, S, D) states to (B, 100) logits of ``lengths.offset_classes``."""
        return self.head(mean_over(lifted + states, is_source))


class Decoder(nn.Module):
    """The factorised decoder, over latents brought to target positions, positions and the length."""

    is_exact = False

    def __init__(
        self,
        embedding: TokenEmbedding,
        lengths: nn.Embedding,
        decoder: Stack,
        is_prefix: bool,
    ) -> None:
        super().__init__()
        self.embedding, self.lengths, self.decoder = embedding, lengths, decoder
        self.is_prefix = is_prefix

    def forward(
        self,
        lifted: Tensor,
        is_source: Tensor,
        lengths: Tensor,
        is_token: Tensor,
        mask: Tensor | None,
        memory: tuple[Memory, ...],
        source_mask: Tensor | None,
        sigma: Tensor,
    ) -> Tensor:
        """(R, S, D) lifted latents and (R,) lengths to (R, T, D) states, T that of the (R, T) ``is_token``.

        ``sigma``: the spread of the length transform.
        """
        width = is_token.size(1)
        kind = torch.float64 if self.is_exact else torch.float32
        placed = length_transform(lifted, is_source, lengths, width, sigma, self.is_prefix, kind)
        read = 0.5**0.5 * placed + 0.5 * (self.embedding.places(width) + self.lengths(lengths)[:, None])
        return self.decoder(read, mask, memory, source_mask)
