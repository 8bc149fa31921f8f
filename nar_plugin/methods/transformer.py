"""Transformer blocks for decoders that see every position at once (Vaswani et al. 2017, section 3).

Own blocks rather than a library's because the refinement loop calls the same decoder on the same source many times: a
source's keys and values are projected once (``CrossAttention.project``), not once a pass.

Shapes: ``B`` batch, ``T`` target, ``S`` source, ``D`` model, ``H`` heads. Masks are True at real tokens; None means
that no position is padding, which is faster.
"""

import math
from typing import Any, Callable, Sequence, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}
Memory = tuple[Tensor, Tensor]
"""Keys and values of a source, (B, H, S, D / H) each."""


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def of_others(x: Tensor, is_token: Tensor | None) -> Tensor:
    """(B, T, T) True where one of (B, T, D) states is seen by another, or by itself if there is no other."""
    itself = torch.eye(x.size(1), dtype=torch.bool, device=x.device)
    others = (~itself).expand(len(x), -1, -1)
    if is_token is not None:
        others = others & is_token[:, None, :]
    return others | (itself & ~others.any(2, keepdim=True))


def _attend(query: Tensor, memory: Memory, is_token: Tensor | None, dropout: float) -> Tensor:
    mask = is_token
    if mask is not None:
        mask = mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]
    if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # torch's bfloat16 kernel is ten times slower there in its backward pass
        with torch.autocast("cpu", enabled=False):
            query, key, value = (x.float() for x in (query, *memory))
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    else:
        mixed = F.scaled_dot_product_attention(query, *memory, attn_mask=mask, dropout_p=dropout)
    return mixed.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Attention among (B, T, D) states without a causal mask; with ``is_blind`` no position sees itself."""

    def __init__(self, dim: int, heads: int, dropout: float, is_blind: bool = False) -> None:
        super().__init__()
        self.heads, self.dropout, self.is_blind = heads, dropout, is_blind
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, is_token: Tensor | None) -> Tensor:
        query, key, value = (_heads(y, self.heads) for y in self.query_key_value(x).chunk(3, -1))
        seen = of_others(x, is_token) if self.is_blind else is_token
        return self.output(_attend(query, (key, value), seen, self.dropout if self.training else 0.0))


class CrossAttention(nn.Module):
    """Attention of (B, T, D) states to a projected source."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)

    def project(self, source: Tensor) -> Memory:
        """(B, S, D) encoder states to the keys and values that every later pass attends to."""
        key, value = (_heads(y, self.heads).contiguous() for y in self.key_value(source).chunk(2, -1))
        return key, value

    def forward(self, x: Tensor, memory: Memory, is_source: Tensor | None) -> Tensor:
        query = _heads(self.query(x), self.heads)
        return self.output(_attend(query, memory, is_source, self.dropout if self.training else 0.0))


class PositionalAttention(nn.Module):
    """Attention of positions to positions: (B, T, D) states are mixed by where they stand, whatever they say.

    Query and key are position embeddings, the value is the state (Gu et al. 2018, section 3.3; Lee et al. 2018). With
    ``is_blind`` no position sees itself.
    """

    def __init__(self, dim: int, heads: int, dropout: float, is_blind: bool = False) -> None:
        super().__init__()
        self.heads, self.dropout, self.is_blind = heads, dropout, is_blind
        self.query_key = nn.Linear(dim, 2 * dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, positions: Tensor, is_token: Tensor | None) -> Tensor:
        """``positions``: (T, D) embeddings."""
        places = self.query_key(positions)[None].expand(len(x), -1, -1).chunk(2, -1)
        query, key, value = (_heads(y, self.heads) for y in (*places, self.value(x)))
        seen = of_others(x, is_token) if self.is_blind else is_token
        return self.output(_attend(query, (key, value), seen, self.dropout if self.training else 0.0))


class FeedForward(nn.Module):
    """Two linear maps with an activation between, at each position alone."""

    def __init__(self, dim: int, hidden: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.inner, self.outer, self.dropout = nn.Linear(dim, hidden), nn.Linear(hidden, dim), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.dropout(self.activation(self.inner(x))))


class Residual(nn.Module):
    """x + f(x) with layer norm after (the default) or before f."""

    def __init__(self, dim: int, dropout: float, is_prenorm: bool) -> None:
        super().__init__()
        # BERT's epsilon; the released mask-predict has it too
        self.norm, self.dropout, self.is_prenorm = nn.LayerNorm(dim, eps=1e-12), nn.Dropout(dropout), is_prenorm

    def forward(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        if self.is_prenorm:
            return x + self.dropout(f(self.norm(x)))
        return self.norm(x + self.dropout(f(x)))


class Highway(nn.Module):
    """g · x + (1 − g) · f(x) with layer norm after or before, g = σ(W₂ ReLU(W₁ x)) (Srivastava et al. 2015, as Lee et
    al. 2018 put it around the feed-forward block)."""

    def __init__(self, dim: int, hidden: int, dropout: float, is_prenorm: bool) -> None:
        super().__init__()
        self.gate = FeedForward(dim, hidden, "relu", 0.0)
        self.norm, self.dropout, self.is_prenorm = nn.LayerNorm(dim, eps=1e-12), nn.Dropout(dropout), is_prenorm

    def forward(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        read = self.norm(x) if self.is_prenorm else x
        said = self.dropout(f(read))
        mixed = said + self.gate(read).sigmoid() * (x - said)  # lerp would want one type, which autocast does not give
        return mixed if self.is_prenorm else self.norm(mixed)


class Layer(nn.Module):
    """Self-attention, then attention by position where there is one, then (in a decoder) attention to the source, then
    feed-forward."""

    def __init__(
        self,
        dim: int,
        hidden: int,
        heads: int,
        *,
        has_source: bool,
        activation: str,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
        is_prenorm: bool,
        has_positions: bool = False,
        is_highway: bool = False,
        is_blind: bool = False,
    ) -> None:
        super().__init__()
        self.self_attention = SelfAttention(dim, heads, attention_dropout, is_blind)
        self.around_self = Residual(dim, dropout, is_prenorm)
        self.positional_attention = None
        if has_positions:
            self.positional_attention = PositionalAttention(dim, heads, attention_dropout, is_blind)
        self.around_positional = Residual(dim, dropout, is_prenorm) if has_positions else None
        self.cross_attention = CrossAttention(dim, heads, attention_dropout) if has_source else None
        self.around_cross = Residual(dim, dropout, is_prenorm) if has_source else None
        self.feed_forward = FeedForward(dim, hidden, activation, activation_dropout)
        self.around_feed: nn.Module = Residual(dim, dropout, is_prenorm)
        if is_highway:
            self.around_feed = Highway(dim, hidden, dropout, is_prenorm)

    def forward(
        self,
        x: Tensor,
        is_token: Tensor | None,
        memory: Memory | None = None,
        is_source: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        x = self.around_self(x, lambda y: self.self_attention(y, is_token))
        if self.positional_attention is not None and self.around_positional is not None:
            by_place = self.positional_attention
            x = self.around_positional(x, lambda y: by_place(y, positions, is_token))
        if self.cross_attention is not None and self.around_cross is not None:
            cross = self.cross_attention
            x = self.around_cross(x, lambda y: cross(y, memory, is_source))
        return self.around_feed(x, self.feed_forward)


class Stack(nn.Module):
    """Layers one above another, with a final layer norm where the layers norm before.

    With ``has_input_skip`` the stack's input x₀ is added after every layer: (x₀ + layer(x)) / √2 (LaNMT's decoder).
    """

    def __init__(
        self,
        layers: int,
        dim: int,
        hidden: int,
        heads: int,
        *,
        is_prenorm: bool,
        has_input_skip: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.has_input_skip = has_input_skip
        self.layers = nn.ModuleList(Layer(dim, hidden, heads, is_prenorm=is_prenorm, **options) for _ in range(layers))
        self.norm = nn.LayerNorm(dim, eps=1e-12) if is_prenorm else nn.Identity()

    def project(self, source: Tensor | Sequence[Tensor]) -> tuple[Memory, ...]:
        """The source's keys and values for every layer, once a sentence; of states a layer, each layer gets its own."""
        states = [source] * len(self.layers) if isinstance(source, Tensor) else source
        pairs = zip(self.layers, states, strict=True)
        return tuple(cast(Any, layer).cross_attention.project(state) for layer, state in pairs)

    def states(self, x: Tensor, is_token: Tensor | None) -> list[Tensor]:
        """What every layer of an encoder says, (B, T, D) each, the last of them what ``forward`` returns."""
        found = []
        for layer in self.layers:
            x = layer(x, is_token)
            found.append(self.norm(x))
        return found

    def forward(
        self,
        x: Tensor,
        is_token: Tensor | None,
        memory: tuple[Memory, ...] | None = None,
        is_source: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) inputs to (B, T, D) states; what stands at padding never reaches a real position."""
        first = x
        for i, layer in enumerate(self.layers):
            x = layer(x, is_token, None if memory is None else memory[i], is_source, positions)
            if self.has_input_skip:
                x = (first + x) * 0.5**0.5
        return self.norm(x)


def bert_init(module: nn.Module) -> None:
    """N(0, 0.02) for every matrix, zero biases (Devlin et al. 2019), for ``module.apply``."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def xavier_init(module: nn.Module) -> None:
    """Glorot-uniform matrices, zero biases, embeddings N(0, 1/√d), for ``module.apply``."""
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


INITIALIZATIONS = {"bert": bert_init, "xavier": xavier_init}


class Sinusoids(nn.Module):
    """Fixed position embeddings: sines, then cosines, of wavelengths 2π to 10000 · 2π. ``weight``: (width, dim)."""

    weight: Tensor

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        rates = torch.exp(torch.arange(dim // 2) * (-math.log(10000.0) / max(1, dim // 2 - 1)))
        angles = torch.arange(width)[:, None] * rates
        waves = torch.cat([angles.sin(), angles.cos()], 1)
        self.register_buffer("weight", F.pad(waves, (0, dim - waves.size(1))), persistent=False)


def padding_mask(is_token: Tensor) -> Tensor | None:
    """None when nothing is padding (one look at the device), else the mask itself."""
    return None if bool(is_token.all()) else is_token
