"""Transformer blocks for decoders that see every position at once (Vaswani et al. 2017, section 3).

Own blocks rather than a library's because the refinement loop calls the same decoder on the same source many times: a
source's keys and values, its memory, are made once (``CrossAttention.memory``), not once a pass.

Shapes: ``B`` batch, ``T`` target, ``S`` source, ``D`` model, ``H`` heads. ``seen`` says which states are attended to:
(B, S) True at real tokens, or (B, T, S) where each position has a view of its own (``others``, a cache's causal mask);
None means all, which is faster.

Modules that sum over positions have an attribute ``is_exact``: the sum then does not depend on how many positions of
padding are summed along (``methods.int8``).
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


Join = Callable[[Tensor, Tensor], Memory]
"""What puts keys and values of new states behind those of the states before (``methods.cache``)."""


def others(is_token: Tensor) -> Tensor:
    """(B, T) ``is_token`` to the (B, T, T) mask under which a state sees all but itself, or itself if it is alone."""
    itself = torch.eye(is_token.size(1), dtype=torch.bool, device=is_token.device)
    seen = ~itself & is_token[:, None, :]
    return seen | (itself & ~seen.any(2, keepdim=True))


def mean_over(states: Tensor, is_token: Tensor) -> Tensor:
    """The mean of (B, T, D) states over real positions, (B, D), summed in double precision; 0 where there is none."""
    total = (states * is_token[..., None]).sum(1, dtype=torch.float64)
    return (total / is_token.sum(1, keepdim=True).clamp(min=1)).to(states.dtype)


def _attend(
    query: Tensor,
    memory: Memory,
    seen: Tensor | None,
    dropout: float,
    is_exact: bool,
    is_query: Tensor | None = None,
) -> Tensor:
    """``is_query``: (B, T) where the queries are real, None where all are; of use where the sum is exact alone."""
    mask = seen
    if mask is not None:
        mask = mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]
    if is_exact and (seen is not None or is_query is not None):
        mixed = _attend_exactly(query, memory, seen, is_query)
    elif query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # torch's bfloat16 kernel is ten times slower there in its backward pass
        with torch.autocast("cpu", enabled=False):
            query, key, value = (x.float() for x in (query, *memory))
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    else:
        mixed = F.scaled_dot_product_attention(query, *memory, attn_mask=mask, dropout_p=dropout)
    return mixed.transpose(1, 2).flatten(2)


def _attend_exactly(query: Tensor, memory: Memory, seen: Tensor | None, is_query: Tensor | None) -> Tensor:
    """As if each row came alone, to the bit: rows of equal lengths together, without their padding. Where each position
    has a view of its own the sums are made in double precision and rounded, which takes three times as long."""
    if (seen is not None and seen.dim() > 2) or (is_query is not None and is_query.dim() > 2):
        key, value = memory
        mask = None if seen is None else seen[:, None] if seen.dim() > 2 else seen[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query.double(), key.double(), value.double(), attn_mask=mask)
        return mixed.to(query.dtype)
    rows, sizes = len(query), (query.size(2), memory[0].size(2))
    masks = zip(sizes, (is_query, seen), strict=True)
    lengths = [[size] * rows if mask is None else mask.sum(1).tolist() for size, mask in masks]
    of_lengths: dict[tuple[int, int], list[int]] = {}
    for row, pair in enumerate(zip(*lengths, strict=True)):
        of_lengths.setdefault(pair, []).append(row)
    mixed = torch.zeros_like(query)
    for (width, size), found in of_lengths.items():
        key, value = (x[found, :, :size] for x in memory)
        mixed[found, :, :width] = F.scaled_dot_product_attention(query[found, :, :width], key, value)
    return mixed


class SelfAttention(nn.Module):
    """Attention of (B, T, D) states to each other, and to those before them where there is a cache."""

    is_exact = False

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, seen: Tensor | None, join: Join | None = None) -> Tensor:
        query, key, value = (_heads(y, self.heads) for y in self.query_key_value(x).chunk(3, -1))
        memory = (key, value) if join is None else join(key, value)
        return self.output(_attend(query, memory, seen, self.dropout if self.training else 0.0, self.is_exact, seen))


class CrossAttention(nn.Module):
    """Attention of (B, T, D) states to the memory of a source."""

    is_exact = False

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)

    def memory(self, source: Tensor) -> Memory:
        """(B, S, D) encoder states to the keys and values that every later pass attends to."""
        key, value = (_heads(y, self.heads).contiguous() for y in self.key_value(source).chunk(2, -1))
        return key, value

    def forward(self, x: Tensor, memory: Memory, is_source: Tensor | None, is_query: Tensor | None = None) -> Tensor:
        """``is_query``: (B, T) where the states are real, or None where all are."""
        query = _heads(self.query(x), self.heads)
        dropout = self.dropout if self.training else 0.0
        return self.output(_attend(query, memory, is_source, dropout, self.is_exact, is_query))


class PositionalAttention(nn.Module):
    """Attention of positions to positions: (B, T, D) states are mixed by where they stand, whatever they hold.

    Query and key are position embeddings, the value is the state (Gu et al. 2018, section 3.3; Lee et al. 2018).
    """

    is_exact = False

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_key = nn.Linear(dim, 2 * dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, positions: Tensor, seen: Tensor | None) -> Tensor:
        """``positions``: (T, D) embeddings."""
        places = self.query_key(positions)[None].expand(len(x), -1, -1).chunk(2, -1)
        query, key, value = (_heads(y, self.heads) for y in (*places, self.value(x)))
        dropout = self.dropout if self.training else 0.0
        return self.output(_attend(query, (key, value), seen, dropout, self.is_exact, seen))


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
        new = self.dropout(f(read))
        mixed = new + self.gate(read).sigmoid() * (x - new)  # lerp would want one type, which autocast does not give
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
    ) -> None:
        super().__init__()
        self.self_attention = SelfAttention(dim, heads, attention_dropout)
        self.around_self = Residual(dim, dropout, is_prenorm)
        self.positional_attention = None
        if has_positions:
            self.positional_attention = PositionalAttention(dim, heads, attention_dropout)
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
        seen: Tensor | None,
        memory: Memory | None = None,
        is_source: Tensor | None = None,
        positions: Tensor | None = None,
        join: Join | None = None,
    ) -> Tensor:
        x = self.around_self(x, lambda y: self.self_attention(y, seen, join))
        if self.positional_attention is not None and self.around_positional is not None:
            by_place = self.positional_attention
            x = self.around_positional(x, lambda y: by_place(y, positions, seen))
        if self.cross_attention is not None and self.around_cross is not None:
            cross = self.cross_attention
            x = self.around_cross(x, lambda y: cross(y, memory, is_source, seen))
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

    @property
    def last_norm(self) -> nn.LayerNorm:
        """The layer norm that makes the states which ``forward`` returns."""
        norm = self.norm if isinstance(self.norm, nn.LayerNorm) else cast(Any, self.layers[-1]).around_feed.norm
        return cast(nn.LayerNorm, norm)

    @property
    def cache_shapes(self) -> list[tuple[int, int, int]]:
        """(H, 0, D / H) of every layer: what a row of an empty cache holds."""
        attentions = [cast(Layer, layer).self_attention for layer in self.layers]
        return [(one.heads, 0, one.output.in_features // one.heads) for one in attentions]

    def memory(self, source: Tensor | Sequence[Tensor]) -> tuple[Memory, ...]:
        """The source's keys and values for every layer, once a sentence; of states a layer, each layer gets its own."""
        states = [source] * len(self.layers) if isinstance(source, Tensor) else source
        pairs = zip(self.layers, states, strict=True)
        return tuple(cast(Any, layer).cross_attention.memory(state) for layer, state in pairs)

    def states(self, x: Tensor, is_token: Tensor | None) -> list[Tensor]:
        """What every layer of an encoder gives, (B, T, D) each, the last of them what ``forward`` returns."""
        found = []
        for layer in self.layers:
            x = layer(x, is_token)
            found.append(self.norm(x))
        return found

    def forward(
        self,
        x: Tensor,
        seen: Tensor | None,
        memory: tuple[Memory, ...] | None = None,
        is_source: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Sequence[Join] | None = None,
        between: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """(B, T, D) inputs to (B, T, D) states; what stands at padding never reaches a real position.

        ``memory``, ``is_source``: a source's, for attention to it. ``positions``: (T, D), for attention by position.
        ``cache``: a layer's access to what it has read before (``methods.cache``), which ``seen`` then covers too.
        ``between``: of a layer's number and states, what the next one reads in place of them.
        """
        first = x
        for i, layer in enumerate(self.layers):
            of_layer, join = memory and memory[i], cache and cache[i]
            x = layer(x, seen, of_layer, is_source, positions, join)
            if self.has_input_skip:
                x = (first + x) * 0.5**0.5
            if between is not None and i + 1 < len(self.layers):
                x = between(i, x)
        return self.norm(x)


class TokenEmbedding(nn.Module):
    """Token embedding + position embedding, then dropout; batches are right-padded.

    With ``is_scaled`` tokens are scaled by √d (Vaswani et al. 2017, section 3.4). Positions are learned, or sinusoids.
    """

    def __init__(self, table: nn.Embedding, longest: int, *, dropout: float, is_scaled: bool, is_learned: bool) -> None:
        super().__init__()
        self.tokens, self.dropout = table, nn.Dropout(dropout)
        self.scale = table.embedding_dim**0.5 if is_scaled else 1.0
        kind = nn.Embedding if is_learned else Sinusoids
        self.positions = kind(longest, table.embedding_dim)

    def places(self, width: int) -> Tensor:
        """(width, D) embeddings of the first positions."""
        return self.positions.weight[:width]

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, T) ids to (B, T, D), before dropout."""
        return self.scale * self.tokens(tokens) + self.places(tokens.size(1))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.embed(tokens))


class SourceMemory(nn.Module):
    """A source's memory for a stack that not every decode needs."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, states: Tensor) -> tuple[Memory, ...]:
        return self.stack.memory(states)


class Projection(nn.Module):
    """The vocabulary projection: (…, D) states to (…, size) logits, by the first rows of a table of embeddings; or to
    (…, U) logits of some words, by the rows that were ``chosen`` for them.
    """

    def __init__(self, table: nn.Embedding, size: int) -> None:
        super().__init__()
        self.table, self.size = table, size

    def chosen(self, words: Tensor, rows: int) -> Tensor:
        """The rows of (U,) words, for ``forward``: (U, D), however many ``rows`` of states it is for."""
        return self.table.weight[words]

    def forward(self, states: Tensor, bias: Tensor | None = None, chosen: Tensor | None = None) -> Tensor:
        """``bias``: (size,), or (U,) beside ``chosen``."""
        if chosen is not None:
            return F.linear(states, chosen, bias)
        weight = self.table.weight
        # a view of the whole would hide from autocast that it has cast this weight before
        return F.linear(states, weight if self.size == len(weight) else weight[: self.size], bias)


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
    """Fixed position embeddings: sines, then cosines, of wavelengths 2π to 10000 · 2π. ``weight``: (width, dim).

    ``first``: the number of the first position; fairseq's transformers begin behind the padding index.
    """

    weight: Tensor

    def __init__(self, width: int, dim: int, first: int = 0) -> None:
        super().__init__()
        rates = torch.exp(torch.arange(dim // 2) * (-math.log(10000.0) / max(1, dim // 2 - 1)))
        angles = torch.arange(first, first + width)[:, None] * rates
        waves = torch.cat([angles.sin(), angles.cos()], 1)
        self.register_buffer("weight", F.pad(waves, (0, dim - waves.size(1))), persistent=False)


def padding_mask(is_token: Tensor) -> Tensor | None:
    """None when nothing is padding (one look at the device), else the mask itself."""
    return None if bool(is_token.all()) else is_token
