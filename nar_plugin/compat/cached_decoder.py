"""A stock transformer of fairseq's as a verifier: a cached forward of several tokens at once.

The host's own cache reads one token a call, with one position for all rows. Here its layers' maps and norms are called
from outside, in the order of its own forward (``TransformerDecoderLayerBase``), with keys and values that are kept in a
``KVCache``: each row may accept another number of tokens. Positions are taken from the host's table by row; the first
is two behind the padding index, as everywhere in fairseq.

What is not known here is refused in one line: adaptive softmax, quantisation noise, layers without attention to the
source or with scales of their own. Alignment heads and LayerDrop change nothing in a decode.
"""

from typing import Any, List, Mapping, Optional, Tuple

import torch
import torch.nn.functional as F
from fairseq.models.transformer import TransformerDecoder, TransformerDecoderBase, TransformerModelBase
from fairseq.modules.transformer_layer import TransformerDecoderLayerBase
from torch import Tensor, nn

from ..methods import noise
from ..methods.cache import KVCache
from ..methods.contract import NetInput, Pass, UsageError
from ..methods.speculative import Reading, SourceEncoded
from ..methods.symbols import Symbols, right_padded
from ..methods.transformer import Memory, padding_mask

SCALES = ("attn_ln", "c_attn", "ffn_layernorm", "w_resid")
"""What some of the host's layers have and a stock one has not."""


def heads_of(x: Tensor, attention: Any) -> Tensor:
    """(R, T, D) to (R, H, T, D / H)."""
    return x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)


def memory_of(attention: Any, states: Tensor) -> Memory:
    """(R, S, D) states to the keys and values by which one of the host's attentions sees them."""
    return heads_of(attention.k_proj(states), attention), heads_of(attention.v_proj(states), attention)


def attended(attention: Any, x: Tensor, memory: Memory, seen: Optional[Tensor], is_exact: bool) -> Tensor:
    """The host's attention of (R, K, D) states to a memory. ``seen``: (R, K, C) or (R, S), None: all of it."""
    query = heads_of(attention.q_proj(x), attention)
    if seen is not None:
        seen = seen[:, None, None, :] if seen.dim() == 2 else seen[:, None]
    key, value = memory
    if is_exact:
        query, key, value = query.double(), key.double(), value.double()
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen).to(x.dtype)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def around(norm: nn.Module, is_prenorm: bool, x: Tensor, block: Any) -> Tensor:
    """x + block(x) with the norm before or after."""
    return x + block(norm(x)) if is_prenorm else norm(x + block(x))


class SourceMemory(nn.Module):
    """The encoder's states, and what every layer of the decoder sees of them."""

    def __init__(self, model: TransformerModelBase) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder

    def forward(self, source: Tensor, lengths: Optional[Tensor]) -> Tuple[Tensor, Tuple[Memory, ...]]:
        """(B, S) ids, padded on either side, to (B, S, D) states, and keys and values."""
        states = self.encoder(source, lengths)["encoder_out"][0].transpose(0, 1)
        layers: List[Any] = list(self.decoder.layers)
        return states, tuple(memory_of(layer.encoder_attn, states) for layer in layers)


class Extension(nn.Module):
    """The decoder, from new tokens to their states.

    ``is_exact``: sums over positions in double precision, as beside maps in whole numbers (``methods.int8``).
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder
        self.is_exact = not isinstance(decoder.layers[0].self_attn.q_proj, nn.Linear)

    def embedded(self, tokens: Tensor, places: Tensor) -> Tensor:
        """(R, K) ids at (R, K) places, from 0, to (R, K, D)."""
        decoder = self.decoder
        x = decoder.embed_scale * decoder.embed_tokens(tokens)
        if decoder.project_in_dim is not None:
            x = decoder.project_in_dim(x)
        if decoder.embed_positions is not None:
            positions = decoder.embed_positions
            table = positions.weight if isinstance(positions, nn.Embedding) else positions.weights
            x = x + table[(decoder.padding_idx + 1 + places).clamp(max=len(table) - 1)]
        return x if decoder.layernorm_embedding is None else decoder.layernorm_embedding(x)

    def forward(
        self,
        tokens: Tensor,
        places: Tensor,
        past: Tuple[Memory, ...],
        seen: Tensor,
        memory: Tuple[Memory, ...],
        is_source: Optional[Tensor],
    ) -> Tuple[Tensor, Tuple[Memory, ...]]:
        """(R, K) ids at (R, K) places to (R, K, D) states, and every layer's (R, H, C + K, D / H) keys and values.

        ``past``: those of the C tokens before; ``seen``: (R, K, C + K); ``memory``, ``is_source``: of the source.
        """
        x, grown = self.embedded(tokens, places), []
        for layer, before, source in zip(self.decoder.layers, past, memory, strict=True):
            x, both = self.layer(layer, x, before, seen, source, is_source)
            grown.append(both)
        if self.decoder.layer_norm is not None:
            x = self.decoder.layer_norm(x)
        if self.decoder.project_out_dim is not None:
            x = self.decoder.project_out_dim(x)
        return x, tuple(grown)

    def layer(
        self, layer: Any, x: Tensor, past: Memory, seen: Tensor, source: Memory, is_source: Optional[Tensor]
    ) -> Tuple[Tensor, Memory]:
        is_prenorm, grown = layer.normalize_before, []

        def to_words(y: Tensor) -> Tensor:
            key, value = memory_of(layer.self_attn, y)
            grown.append((torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)))
            return attended(layer.self_attn, y, grown[0], seen, self.is_exact)

        def to_source(y: Tensor) -> Tensor:
            return attended(layer.encoder_attn, y, source, is_source, self.is_exact)

        def feed(y: Tensor) -> Tensor:
            return layer.fc2(layer.activation_fn(layer.fc1(y)))

        x = around(layer.self_attn_layer_norm, is_prenorm, x, to_words)
        x = around(layer.encoder_attn_layer_norm, is_prenorm, x, to_source)
        return around(layer.final_layer_norm, is_prenorm, x, feed), grown[0]


def refuse_unknown(model: Any) -> None:
    """Raises UsageError for a model that ``Extension`` would not compute rightly."""
    decoder: Any = getattr(model, "decoder", None)
    if not isinstance(model, TransformerModelBase) or type(decoder) not in (TransformerDecoder, TransformerDecoderBase):
        raise UsageError(f"drafts are verified by fairseq's transformer alone; this is a {type(model).__name__}")
    layers, cfg = list(decoder.layers), decoder.cfg
    unknown = {
        "--adaptive-softmax-cutoff": decoder.adaptive_softmax is not None,
        "--quant-noise-pq": decoder.quant_noise is not None or cfg.quant_noise.pq > 0,
        "--cross-self-attention": decoder.cross_self_attention,
        "--no-cross-attention": any(getattr(layer, "encoder_attn", None) is None for layer in layers),
        "--base-layers": not all(isinstance(layer, TransformerDecoderLayerBase) for layer in layers),
        "scales of layers, heads or residuals": any(
            getattr(one, x, None) is not None for one in layers for x in SCALES
        ),
        "no decoder layers": not layers,
    }
    named = [name for name, is_there in unknown.items() if is_there]
    if named:
        raise UsageError(f"drafts are not verified by a transformer with {', '.join(named)}")


class CachedTransformer:
    """``speculative.Verifier``: an encoder-decoder of the host's, in eval mode, beside the drafts that it judges.

    ``passes``: its networks, by which everything is computed; an engine may put others in their places.
    """

    def __init__(self, model: Any, symbols: Symbols) -> None:
        refuse_unknown(model)
        self.model, self.symbols = model, symbols
        self.passes: Mapping[str, Pass] = {
            "encode": Pass(SourceMemory(model), "encoder"),
            "extend": Pass(Extension(model.decoder), "decoder"),
            "project": Pass(model.decoder.output_projection),
        }

    @property
    def positions(self) -> int:
        """Tokens that the decoder can read."""
        return int(self.model.max_decoder_positions())

    @property
    def longest_source(self) -> int:
        """Tokens that the encoder can read."""
        return int(self.model.max_positions()[0])

    def encode(self, net_input: NetInput) -> SourceEncoded:
        source = net_input["src_tokens"]
        states, memory = self.passes["encode"].module(source, net_input.get("src_lengths"))
        aligned, is_token = right_padded(source, self.symbols.pad)
        return SourceEncoded(
            keys=noise.source_keys(aligned, is_token),
            is_empty=~(is_token & (aligned != self.symbols.eos)).any(1),
            states=states,
            memory=memory,
            is_source=padding_mask(source != self.symbols.pad),
            width=source.size(1),
        )

    def reading(self, encoded: SourceEncoded) -> Reading:
        rows = len(encoded.keys)
        layers = tuple((key.new_empty(rows, *self.shape(key)),) * 2 for key, _ in encoded.memory)
        is_live = torch.empty(rows, 0, dtype=torch.bool, device=encoded.keys.device)
        cache = KVCache(layers=layers, is_live=is_live)
        return Reading(cache=cache, memory=encoded.memory, is_source=encoded.is_source)

    @staticmethod
    def shape(key: Tensor) -> Tuple[int, int, int]:
        """(H, 0, D / H) of the keys of nothing, as those of the source, (B, H, S, D / H)."""
        return key.size(1), 0, key.size(3)

    def extend(self, reading: Reading, tokens: Tensor, is_token: Tensor, places: Tensor) -> Tuple[Tensor, Reading]:
        cache = reading.cache
        states, layers = self.passes["extend"].module(
            tokens, places, cache.layers, cache.seen(is_token), reading.memory, reading.is_source
        )
        grown = KVCache(layers=layers, is_live=torch.cat([cache.is_live, is_token], 1))
        return states, Reading(cache=grown, memory=reading.memory, is_source=reading.is_source)

    def logits(self, states: Tensor) -> Tensor:
        return self.passes["project"].module(states)
