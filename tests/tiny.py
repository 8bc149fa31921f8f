"""Small models, dictionaries and batches that live in memory only.

Weights are drawn large on purpose: at BERT's initialisation every logit is near zero, an argmax is decided by noise,
and a test of decoding would hold whatever the decoder did.
"""

import math
from argparse import Namespace
from dataclasses import dataclass, fields
from typing import Any, Iterable, Optional

import torch
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_NAME_REGISTRY, ARCH_MODEL_REGISTRY, MODEL_DATACLASS_REGISTRY
from fairseq.models.transformer import TransformerModel
from torch import Tensor

import nar_plugin  # noqa: F401  (registers the architectures)
from nar_plugin.criterions.alignment import AlignmentCriterion
from nar_plugin.criterions.blockwise_cross_entropy import BlockwiseCrossEntropyCriterion
from nar_plugin.criterions.elbo_length import ElboLengthCriterion
from nar_plugin.criterions.score_matching import ScoreMatchingCriterion
from nar_plugin.criterions.token_length import TokenLengthCriterion
from nar_plugin.generators.loop import Hypothesis, RefinementGenerator
from nar_plugin.methods import noise
from nar_plugin.methods.contract import Request
from nar_plugin.methods.options import Options, about_of
from nar_plugin.methods.symbols import Symbols
from nar_plugin.methods.transformer import SelfAttention

WORDS = 20
POSITIONS = 64
FIRST_WORD = 4
"""fairseq's dictionary begins with <s>, <pad>, </s>, <unk>."""

Row = list[int]


def dictionary(words: int = WORDS) -> Dictionary:
    result = Dictionary()
    for i in range(words):
        result.add_symbol(f"w{i}")
    return result


def symbols_of(words: Dictionary) -> Symbols:
    return Symbols(words.bos(), words.pad(), words.eos(), words.unk(), len(words))


SYMBOLS = symbols_of(dictionary())
PAD, EOS, BOS, UNK, MASK = SYMBOLS.pad, SYMBOLS.eos, SYMBOLS.bos, SYMBOLS.unk, SYMBOLS.mask


@dataclass
class StandInTask:
    """What a model and a criterion ask of a task."""

    source_dictionary: Dictionary
    target_dictionary: Dictionary

    @property
    def symbols(self) -> Symbols:
        return symbols_of(self.target_dictionary)


def stand_in_task(words: int = WORDS) -> StandInTask:
    shared = dictionary(words)
    return StandInTask(shared, shared)


def config(arch: str = "mask_predict_tiny", longest: int = POSITIONS, **options: Any) -> Any:
    """The options of a preset as the command line would give them."""
    args = Namespace(**options)
    ARCH_CONFIG_REGISTRY[arch](args)
    kind = MODEL_DATACLASS_REGISTRY[ARCH_MODEL_NAME_REGISTRY[arch]]
    limits = {"max_source_positions", "max_target_positions"} & {field.name for field in fields(kind)}
    cfg = kind(**dict.fromkeys(limits, longest))
    cfg._name = arch
    for name, value in vars(args).items():
        setattr(cfg, name, value)
    return cfg


def enliven(model: Any, seed: int) -> None:
    """Weights so large that every output depends strongly on the source, the canvas and the position.

    The mask's own row stays small: it is tied to no output, and a large one would make all masked positions alike.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                is_table = "embedding" in name or "table" in name or "first_output" in name
                weight.normal_(std=0.5 if is_table else 1.5 / math.sqrt(weight.size(1)), generator=generator)
        for module in (model.decoder or model.encoder).modules():
            if isinstance(module, SelfAttention):
                module.output.weight *= 2.0
        if str(model.cfg.positions) == "learned":
            model.target_embedding.positions.weight *= 3.0
        model.target_embedding.tokens.weight[model.symbols.mask :] *= 0.1
        if hasattr(model, "length_table"):
            model.length_table.weight *= 0.6
        if hasattr(model, "fertility_head"):  # a word becomes about one, so that a source has many lengths
            model.fertility_head.bias -= (torch.arange(len(model.fertility_head.bias)) - 1.0).abs()


def tiny_model(
    seed: int = 3, words: int = WORDS, *, arch: str = "mask_predict_tiny", is_lively: bool = True, **options: Any
) -> Any:
    """A model of random weights, in eval mode."""
    torch.manual_seed(seed)
    if arch.startswith("blockwise_transformer"):
        options = {name: x for name, x in options.items() if name != "longest"}
        return tiny_blockwise(arch, tiny_transformer(seed, words), **options)
    if arch.startswith("lanmt_refiner"):
        return tiny_refiner(arch, tiny_model(seed, words, arch="lanmt_continuous_tiny", is_lively=is_lively), **options)
    model = ARCH_MODEL_REGISTRY[arch].build_model(config(arch, **options), stand_in_task(words))
    if is_lively:
        enliven(model, seed)
    return model.eval()


def tiny_transformer(seed: int = 3, words: int = WORDS, longest: int = POSITIONS, **options: Any) -> Any:
    """A transformer of fairseq's own with large random weights, in eval mode, whose outputs are of many lengths."""
    torch.manual_seed(seed)
    sizes = {"embed_dim": 32, "ffn_embed_dim": 64, "attention_heads": 2}
    given: dict[str, Any] = {f"{side}_{name}": x for side in ("encoder", "decoder") for name, x in sizes.items()}
    given |= {"encoder_layers": 1, "decoder_layers": 2, "dropout": 0.0}
    given |= {"max_source_positions": longest, "max_target_positions": longest, **options}
    model: Any = TransformerModel.build_model(Namespace(**given), stand_in_task(words))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=1.8 / math.sqrt(weight.size(1)), generator=generator)
        for layer in model.decoder.layers:  # what was said and the source decide, not the last word alone
            for attention in filter(None, (layer.self_attn, layer.encoder_attn)):
                attention.out_proj.weight *= 3.0
        if model.decoder.output_projection is not None:
            model.decoder.output_projection.weight[EOS] *= 1.7
        model.decoder.embed_tokens.weight *= 0.5
        for table in (model.encoder.embed_tokens, model.decoder.embed_tokens):
            table.weight[PAD] = 0.0
    return model.eval()


def tiny_blockwise(arch: str = "blockwise_transformer_tiny", transformer: Any = None, **options: Any) -> Any:
    """Heads of random weights on a transformer, a small one unless another is given."""
    base = transformer or tiny_transformer()
    symbols = symbols_of(base.decoder.dictionary)
    model = ARCH_MODEL_REGISTRY[arch](config(arch, **{"seed": 1, **options}), base, symbols)
    return model.eval()


def tiny_refiner(arch: str, latent: Any, **options: Any) -> Any:
    """A refiner of a model that is there."""
    return ARCH_MODEL_REGISTRY[arch](config(arch, **options), latent).eval()


def criterion(label_smoothing: float = 0.0, normalize: str = "token", length_loss_factor: float = 1.0) -> Any:
    return TokenLengthCriterion(stand_in_task(), label_smoothing, normalize, length_loss_factor)


def criterion_of(model: Any) -> Any:
    """One that trains this model."""
    if "alignment" in model.criterions:
        return AlignmentCriterion(stand_in_task(), 0.0, "token")
    if "blockwise_cross_entropy" in model.criterions:
        return BlockwiseCrossEntropyCriterion(stand_in_task(), 0.0, "token")
    if "elbo_length" in model.criterions:
        return ElboLengthCriterion(stand_in_task(), 0.0, "sentence", 1.0, 0.0, 0, 0)
    return ScoreMatchingCriterion(stand_in_task()) if "score_matching" in model.criterions else criterion()


def random_rows(count: int, longest: int, seed: int, words: int = WORDS, shortest: int = 1) -> list[Row]:
    """``count`` sentences of ``shortest`` to ``longest`` words, without ``</s>``."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(shortest, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(FIRST_WORD, FIRST_WORD + words, (n,), generator=generator).tolist() for n in sizes]


def stacked(rows: Iterable[Row], *, is_left: bool = False, width: int = 0, eos: Optional[int] = EOS) -> Tensor:
    """Rows with ``</s>`` put at their ends, padded to one width (or to ``width``) on either side."""
    ended = [row if eos is None else [*row, eos] for row in rows]
    width = max(width, *(len(row) for row in ended), 0) if ended else width
    pads = [[PAD] * (width - len(row)) for row in ended]
    return torch.tensor([p + row if is_left else row + p for p, row in zip(pads, ended, strict=True)])


def word_counts_of(sources: list[Row], targets: list[Row]) -> Tensor:
    """(B, S) target words of each source word, spread as evenly as they can be, and 1 of each end."""
    counts = torch.zeros(len(sources), max(map(len, sources), default=0) + 1, dtype=torch.int64)
    for row, source, target in zip(counts, sources, targets, strict=True):
        for i in range(len(target) if source else 0):
            row[i * len(source) // len(target)] += 1
        row[len(source)] = 1
    return counts


def sample_of(
    sources: list[Row], targets: Optional[list[Row]] = None, *, is_left: bool = False, epoch: int = 1, first_id: int = 0
) -> dict[str, Any]:
    """A batch as the task hands it to the criterion or the generator."""
    src_tokens = stacked(sources, is_left=is_left)
    ids = torch.arange(first_id, first_id + len(sources))
    sample: dict[str, Any] = {
        "id": ids,
        "nsentences": len(sources),
        "ntokens": sum(len(row) + 1 for row in targets or []),
        "net_input": {"src_tokens": src_tokens, "src_lengths": (src_tokens != PAD).sum(1)},
        "columns": {"keys": noise.training_keys(1, epoch, ids)},
    }
    if targets is not None:
        sample["target"] = stacked(targets)
        sample["columns"]["word_counts"] = word_counts_of(sources, targets)
    return sample


def net_input_of(rows: list[Row], *, is_left: bool = False, width: int = 0) -> dict[str, Tensor]:
    """Sources as a model encodes them."""
    tokens = stacked(rows, is_left=is_left, width=width)
    return {"src_tokens": tokens, "src_lengths": (tokens != PAD).sum(1)}


def terms_of(model: Any, sample: dict[str, Any]) -> Any:
    """The loss terms of a batch."""
    return model(sample["net_input"], sample["target"], **sample["columns"])


def options_of(model: Any, **given: Any) -> Options:
    """The model's options as given; unless told otherwise it makes one pass, and no rule stops it."""
    known = about_of(model.decode_options)
    quiet = {name: value for name, value in (("iterations", 0), ("stop_rule", "none")) if name in known}
    return model.decode_options(**{**quiet, **given})


@torch.no_grad()
def decode(
    model: Any, sample: dict[str, Any], seed: int = 1, lexicon: Any = None, **options: Any
) -> list[list[Hypothesis]]:
    """The hypotheses of a batch under the given options of the model; ``lexicon``: which words it may give."""
    given = options_of(model, **options)
    return RefinementGenerator(model, model.symbols, given, seed, lexicon=lexicon).generate([model], sample)


def texts(hypotheses: list[list[Hypothesis]]) -> list[Row]:
    """The best hypothesis of every sentence as ids."""
    return [group[0]["tokens"].tolist() for group in hypotheses]


def assert_same(some: list[list[Hypothesis]], others: list[list[Hypothesis]]) -> None:
    """The same tokens, the same number of steps, nearly the same scores."""
    for a, b in zip(some, others, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x["tokens"].tolist() == y["tokens"].tolist() and x["steps"] == y["steps"]
            torch.testing.assert_close(x["positional_scores"], y["positional_scores"], atol=1e-4, rtol=1e-4)


def decode_in_any_batch(model: Any, rows: list[Row], **options: Any) -> list[list[Hypothesis]]:
    """The hypotheses of sentences in one batch; alone and padded on the left they must be the same."""
    together = decode(model, sample_of(rows), **options)
    assert_same([decode(model, sample_of([row]), **options)[0] for row in rows], together)
    assert_same(decode(model, sample_of(rows, is_left=True), **options), together)
    return together


def decode_until_one_is_left(model: Any, rows: list[Row], **options: Any) -> None:
    """The same, with a stop rule under which sentences end at different steps, the last one alone."""
    together = decode_in_any_batch(model, rows, stop_rule="fixed-point", **options)
    steps = sorted(group[0]["steps"] for group in together)
    assert steps[0] < steps[-2] < steps[-1], "they end together, so this tests nothing"


def train(model: Any, sample: dict[str, Any], steps: int, rate: float = 3e-3) -> None:
    """Adam on one batch, with other masks in every step, the rate falling to zero."""
    loss_of, ids = criterion_of(model), sample["id"]
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    model.train()
    for step in range(steps):
        loss, size, _ = loss_of(
            model, {**sample, "columns": {**sample["columns"], "keys": noise.training_keys(1, step, ids)}}
        )
        optimizer.zero_grad()
        (loss / size).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def request(model: Any, encoded: Any, seed: int = 1, gold: Optional[Tensor] = None, **given: Any) -> Request[Any]:
    """What the loop would ask of the model for these sources."""
    keys = noise.decoding_keys(seed, encoded.keys)
    return Request(options=options_of(model, **given), keys=lambda: keys, lengths=gold)


OTHER = 10
"""Word w + 10 says what word w says."""


def two_ways(count: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Sources of ten words, each to be copied, or to be said in ten other words throughout, by a coin."""
    generator = torch.Generator().manual_seed(seed)
    rows = [(torch.randint(0, OTHER, (2 + i % 6,), generator=generator) + 4).tolist() for i in range(count)]
    coins = (torch.rand(count, generator=generator) < 0.5).tolist()
    return rows, [row if coin else [word + OTHER for word in row] for row, coin in zip(rows, coins, strict=True)]


def two_ways_model(arch: str, updates: int = 450, **options: Any) -> Any:
    """A small latent-variable model that has learnt to say a sentence in one of two ways."""
    torch.manual_seed(1)
    model = tiny_model(arch=arch, is_lively=False, **options).train()
    loss_of = ElboLengthCriterion(stand_in_task(), 0.0, "sentence", 1.0, 1.0, 0, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(updates):
        loss, size, _ = loss_of(model, sample_of(*two_ways(64, seed=100 + step), epoch=step))
        optimizer.zero_grad()
        (loss / size).backward()
        optimizer.step()
    return model.eval()
