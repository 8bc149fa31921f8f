"""What a model takes over from a trained autoregressive transformer of fairseq's (``--warm-start``).

A student that starts so needs a fraction of the updates. Gu et al. 2018 (arXiv 1711.02281, section 4) start the encoder
from the teacher; Guo, Xu & Chen 2020 (arXiv 1911.08717) fine-tune the whole teacher into a parallel decoder. Here what
means the same is copied: tables of words, and of each layer self-attention, attention to the source, feed-forward block
and norms. A stack that attends to a source takes the teacher's decoder, any other its encoder; the student's i-th of n
layers takes the teacher's ⌊i · N / n⌋-th of N, which are all of them, or every second one. A row of a table that the
teacher lacks, that of ``<mask>``, begins as the mean of those it has; a block that it lacks adds nothing at first
(``settle``); other weights keep their random values.

fairseq counts positions from the second row behind the padding index; the student's positions stay its own, to which
training adapts at once. Where nothing may adapt, under ``--freeze encoder``, they are the teacher's.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Sequence, Set, Tuple

import torch
from fairseq.models.transformer import TransformerModelBase
from torch import Tensor, nn

from ..methods.contract import UsageError
from ..methods.transformer import ACTIVATIONS, Highway, Layer, Stack, TokenEmbedding

EPSILON = 1e-5
"""Of fairseq's layer norms."""
PARTS = ("embeddings", "encoder", "decoder")


@dataclass
class Account:
    """What was taken: ``taken`` holds the weights, ``elements`` counts those that are the teacher's; ``notes`` says of
    which part what did not fit, and why."""

    taken: Set[nn.Parameter] = field(default_factory=set)
    elements: int = 0
    notes: Dict[str, List[str]] = field(default_factory=dict)

    def take(self, own: Any, *theirs: Any) -> None:
        """Weight and bias of a linear map or a norm; those of several are put together along their outputs."""
        for name in ("weight", "bias"):
            self.put(getattr(own, name), torch.cat([getattr(one, name) for one in theirs]))

    def put(self, own: nn.Parameter, theirs: Tensor) -> None:
        """The first rows of a weight; the mean of these rows into further ones."""
        rows = len(theirs)
        with torch.no_grad():
            own[:rows].copy_(theirs)
            if rows < len(own):
                own[rows:].copy_(theirs.float().mean(0))
        self.taken.add(own)
        self.elements += theirs.numel()

    def note(self, name: str, reason: str) -> None:
        reasons = self.notes.setdefault(name, [])
        if reason not in reasons:
            reasons.append(reason)

    def __bool__(self) -> bool:
        return bool(self.notes)

    def __str__(self) -> str:
        return "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in self.notes.items())


def facts(layer: Layer) -> Dict[str, Any]:
    """What two layers must have in common."""
    feed, of_name = layer.feed_forward, {f: name for name, f in ACTIVATIONS.items()}
    return {
        "width": layer.self_attention.output.in_features,
        "norm": "before each block" if layer.around_self.is_prenorm else "after each block",
        "attention heads": layer.self_attention.heads,
        "width of the feed-forward block": feed.inner.out_features,
        "activation": of_name[feed.activation],
    }


def facts_of_teacher(layer: Any, activation: str) -> Dict[str, Any]:
    """The same of a layer of fairseq's."""
    return {
        "width": layer.embed_dim,
        "norm": "before each block" if layer.normalize_before else "after each block",
        "attention heads": layer.self_attn.num_heads,
        "width of the feed-forward block": layer.fc1.out_features,
        "activation": activation,
    }


def take_layer(account: Account, own: Layer, theirs: Any, unlike: Set[str]) -> None:
    """The blocks of a layer for which it does not matter what the two do not have in common."""
    if "attention heads" not in unlike:
        attention = theirs.self_attn
        account.take(own.self_attention.query_key_value, attention.q_proj, attention.k_proj, attention.v_proj)
        account.take(own.self_attention.output, attention.out_proj)
        account.take(own.around_self.norm, theirs.self_attn_layer_norm)
    if "attention heads" not in unlike and own.cross_attention is not None and own.around_cross is not None:
        attention = theirs.encoder_attn
        account.take(own.cross_attention.query, attention.q_proj)
        account.take(own.cross_attention.key_value, attention.k_proj, attention.v_proj)
        account.take(own.cross_attention.output, attention.out_proj)
        account.take(own.around_cross.norm, theirs.encoder_attn_layer_norm)
    if "width of the feed-forward block" not in unlike:
        account.take(own.feed_forward.inner, theirs.fc1)
        account.take(own.feed_forward.outer, theirs.fc2)
        account.take(own.around_feed.norm, theirs.final_layer_norm)


def settle(own: Layer, depth: int) -> None:
    """Blocks that no teacher has begin so that the layer computes what the teacher's does.

    Attention by position adds nothing. A highway begins half open, (x + f(x)) / 2, which a norm behind it does not
    see. Where norms come first, the states that all blocks add to have been halved ``depth`` times before this layer,
    and what its blocks add is made as small; the last norm does not see that.
    """
    if own.positional_attention is not None:
        scale(own.positional_attention.output, 0.0)
    if isinstance(own.around_feed, Highway):
        scale(own.around_feed.gate.outer, 0.0)
        if own.around_self.is_prenorm:
            attentions = [one for one in (own.self_attention, own.cross_attention) if one is not None]
            for linear in (own.feed_forward.outer, *(one.output for one in attentions)):
                scale(linear, 0.5**depth)


def scale(linear: nn.Linear, factor: float) -> None:
    with torch.no_grad():
        linear.weight.mul_(factor)
        linear.bias.mul_(factor)


def take_stack(account: Account, name: str, own: Stack, theirs: Any, activation: str) -> None:
    """The layers of the teacher's encoder or decoder, spread evenly over those of a stack."""
    ours: List[Any] = list(own.layers)
    layers = list(theirs.layers)
    if not layers or (has_source(own) and layers[0].encoder_attn is None):
        account.note(name, "the teacher has no such layers")
        return
    mine, its = facts(ours[0]), facts_of_teacher(layers[0], activation)
    unlike = {fact for fact, value in mine.items() if its[fact] != value}
    for fact in mine:
        if fact in unlike:
            account.note(name, f"{fact} {mine[fact]}, the teacher's {its[fact]}")
    if unlike & {"width", "norm"}:
        return
    chosen = [i * len(layers) // len(ours) for i in range(len(ours))]
    if chosen != list(range(len(layers))):
        numbers = " ".join(str(i + 1) for i in chosen)
        account.note(name, f"{len(ours)} layers, which took {numbers} of the teacher's {len(layers)}")
    for depth, (layer, i) in enumerate(zip(ours, chosen, strict=True)):
        take_layer(account, layer, layers[i], unlike)
        settle(layer, depth)
    if isinstance(own.norm, nn.LayerNorm) and theirs.layer_norm is not None:
        account.take(own.norm, theirs.layer_norm)
    elif isinstance(own.norm, nn.LayerNorm):
        account.note(name, "a norm behind the last layer, which the teacher lacks")


def has_source(stack: Stack) -> bool:
    """Whether its layers attend to a source."""
    first: Any = stack.layers[0]
    return first.cross_attention is not None


def take_tables(account: Account, tables: List[Tuple[str, nn.Embedding]], teacher: Any) -> None:
    """Tables of words by their use, ``source``, ``output`` or ``target``; one of several uses is filled by the last."""
    encoder, decoder = teacher.encoder, teacher.decoder
    known = {"source": encoder.embed_tokens, "output": decoder.output_projection, "target": decoder.embed_tokens}
    uses: Dict[Any, str] = {own: use for use, own in tables}
    for own, use in uses.items():
        theirs = getattr(known[use], "weight", None)
        if theirs is None:
            account.note("embeddings", f"the teacher has no such table for the {use}")
        elif theirs.size(1) != own.embedding_dim:
            account.note("embeddings", f"width {own.embedding_dim}, the teacher's {theirs.size(1)}")
        else:
            account.put(own.weight, theirs)


def stacks(model: nn.Module) -> Iterator[Tuple[str, Stack]]:
    """All stacks of a model, each once, by the names of the parts that hold them."""
    return ((name, one) for name, one in model.named_modules() if isinstance(one, Stack))


def take(
    model: nn.Module, tables: List[Tuple[str, nn.Embedding]], teacher: TransformerModelBase, parts: Sequence[str]
) -> Account:
    """Copies from a teacher whatever of ``parts`` fits; ``tables`` as in ``take_tables``.

    Raises UsageError for parts that there are not, and where nothing fits.
    """
    if unknown := sorted(set(parts) - set(PARTS)):
        raise UsageError(f"--warm-start-parts {','.join(unknown)}: the parts are {', '.join(PARTS)}")
    account, activation = Account(), str(teacher.cfg.activation_fn)
    if "embeddings" in parts:
        take_tables(account, tables, teacher)
    for name, stack in stacks(model):
        part = "decoder" if has_source(stack) else "encoder"
        if part in parts:
            take_stack(account, name, stack, getattr(teacher, part), activation)
    if not account.taken:
        raise UsageError(f"--warm-start: nothing of the teacher fits; {account}")
    return account


@torch.no_grad()
def is_same_encoder(embedding: TokenEmbedding, encoder: Stack, teacher: TransformerModelBase) -> bool:
    """Whether an encoder gives the states of the teacher's."""
    theirs: Any = teacher.encoder
    first, device = theirs.padding_idx + 1, embedding.tokens.weight.device
    words = torch.arange(first, min(first + 50, embedding.tokens.num_embeddings), device=device)[None]
    states = theirs(words, torch.tensor([words.size(1)], device=device))["encoder_out"][0].transpose(0, 1)
    own = encoder(embedding(words), None)
    return own.shape == states.shape and torch.allclose(own, states, atol=1e-4)


def check_encoder(embedding: TokenEmbedding, encoder: Stack, teacher: TransformerModelBase, account: Account) -> None:
    """Raises UsageError where an encoder that is to be frozen does not give the teacher's states."""
    if not is_same_encoder(embedding, encoder, teacher):
        raise UsageError(f"--freeze encoder: the student's would not be the teacher's; {account or 'other embeddings'}")
