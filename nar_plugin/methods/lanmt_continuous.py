"""The networks of a latent-variable model whose latents stand on target positions (Lee, Shu & Cho 2020, "Iterative
Refinement in the Continuous Space for Non-Autoregressive Neural Machine Translation", arXiv 2009.07177, section 3)."""

from torch import Tensor, nn

from .gaussian import GaussianStack
from .transformer import Memory, Stack, TokenEmbedding, mean_over


class Encoder(nn.Module):
    """The source, its memory for prior and decoder, and the target's length."""

    def __init__(
        self, embedding: TokenEmbedding, encoder: Stack, prior: Stack, decoder: Stack, length_head: nn.Module
    ) -> None:
        super().__init__()
        self.embedding, self.encoder, self.prior, self.decoder = embedding, encoder, prior, decoder
        self.length_head = length_head

    def forward(
        self, source: Tensor, is_source: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, tuple[Memory, ...], tuple[Memory, ...]]:
        """(B, S) ids to states, (B, 100) log-probabilities of the length, and the memories of prior and decoder."""
        states = self.encoder(self.embedding(source), mask)
        log_probs = self.length_head(mean_over(states, is_source)).float().log_softmax(1)
        return states, log_probs, self.prior.memory(states), self.decoder.memory(states)


class Prior(nn.Module):
    """p(z | x, T), whose queries are positions alone."""

    def __init__(self, embedding: TokenEmbedding, prior: GaussianStack) -> None:
        super().__init__()
        self.embedding, self.prior = embedding, prior

    def forward(
        self, is_token: Tensor, mask: Tensor | None, memory: tuple[Memory, ...], is_source: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (R, T, Z) each, R and T those of the (R, T) ``is_token``."""
        places = self.embedding.places(is_token.size(1)).expand(len(is_token), -1, -1)
        return self.prior(self.embedding.dropout(places), mask, memory, is_source)


class Posterior(nn.Module):
    """q(z | x, y)."""

    def __init__(self, embedding: TokenEmbedding, posterior: GaussianStack) -> None:
        super().__init__()
        self.embedding, self.posterior = embedding, posterior

    def forward(
        self, target: Tensor, mask: Tensor | None, memory: tuple[Memory, ...], is_source: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(R, T) ids to mean and standard deviation, (R, T, Z) each."""
        return self.posterior(self.embedding(target), mask, memory, is_source)


class Decoder(nn.Module):
    """From latents and the source alone: no positions are added."""

    def __init__(self, lift: nn.Linear, decoder: Stack) -> None:
        super().__init__()
        self.lift, self.decoder = lift, decoder

    def forward(
        self, latents: Tensor, mask: Tensor | None, memory: tuple[Memory, ...], is_source: Tensor | None
    ) -> Tensor:
        """(R, T, Z) latents to (R, T, D) states."""
        return self.decoder(self.lift(latents.to(memory[0][0].dtype)), mask, memory, is_source)  # latents are float32
