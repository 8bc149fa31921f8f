"""The one task: fairseq's ``translation``, unchanged batches, plus what decoding in parallel needs.

A batch is exactly that of ``--task translation``, so that an autoregressive architecture trains and decodes here too
and a teacher sees the sources it knows. Unlike the host's, this task never drops a sentence in validation or decoding.
"""

import json
import logging
from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple, get_args

import numpy as np
import torch
from fairseq.data import AppendTokenDataset, FairseqDataset, LanguagePairDataset, StripTokenDataset, TruncateDataset
from fairseq.dataclass import ChoiceEnum
from fairseq.dataclass.configs import GenerationConfig
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask, register_task
from fairseq.tasks.translation import EVAL_BLEU_ORDER, TranslationConfig, TranslationTask
from omegaconf import II
from sacrebleu.metrics import BLEU

from .. import compat
from ..generators import factory
from ..methods import noise, options
from ..methods.contract import UsageError
from ..methods.symbols import Symbols

logger = logging.getLogger(__name__)

VALIDATION_EPOCH = 0
"""The epoch that validation noise is drawn for: the same masks in every validation."""


def with_decode_flags(config: type) -> type:
    """A configuration with a field for every decode option of ``methods.options`` that is no flag of fairseq's own."""
    for name, option in options.every_option().items():
        about: options.About = option.metadata[options.ABOUT]
        if about.host_flag:
            continue
        kind = next((kind for kind in get_args(option.type) if kind is not type(None)), option.type)
        kind = ChoiceEnum(list(about.choices)) if about.choices else kind
        config.__annotations__[name] = Optional[kind] if about.unset is None else kind
        setattr(config, name, field(default=about.unset, metadata={"help": about.help}))
    return config


@dataclass
@with_decode_flags
class TranslationNarConfig(TranslationConfig):
    """The task's options; its decode flags are those of ``methods.options``."""

    cpu_autocast: bool = field(
        default=False,
        metadata={"help": "train on a CPU with bfloat16 products, weights and sums in float32 (torch.autocast)"},
    )
    seed: int = II("common.seed")


@register_task("translation_nar", dataclass=TranslationNarConfig)
class TranslationNarTask(TranslationTask):
    """Raises UsageError, one line, for a missing dictionary, an unfit criterion or a flag that would be ignored."""

    cfg: TranslationNarConfig

    def __init__(self, cfg: TranslationNarConfig, src_dict: Any, tgt_dict: Any) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self.symbols = Symbols(tgt_dict.bos(), tgt_dict.pad(), tgt_dict.eos(), tgt_dict.unk(), len(tgt_dict))
        self.epoch = 1
        self.architecture: Any = None
        self.criterions: Tuple[str, ...] = ()
        self.inputs: Tuple[str, ...] = ()
        self.valid_subset = ""

    @classmethod
    def setup_task(cls, cfg: TranslationNarConfig, **kwargs: Any) -> "TranslationNarTask":
        compat.tolerate_bad_text()
        if not cfg.data:
            raise UsageError("--task translation_nar needs the folder that fairseq-preprocess wrote")
        try:
            return super().setup_task(cfg, **kwargs)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UsageError(f"{cfg.data} is no folder that fairseq-preprocess wrote: {error}") from None
        except Exception as error:
            if "infer language pair" in str(error):
                raise UsageError(f"{cfg.data}: {error}: --source-lang, --target-lang") from None
            raise

    @classmethod
    def load_dictionary(cls, filename: str) -> Any:
        try:
            return super().load_dictionary(filename)
        except OSError:
            raise
        except Exception as error:  # the host raises every kind, even Exception itself
            raise UsageError(
                f"{filename} is no dictionary of fairseq-preprocess: {' '.join(str(error).split())}"
            ) from None

    def load_dataset(self, split: str, *args: Any, **kwargs: Any) -> None:
        try:
            super().load_dataset(split, *args, **kwargs)
        except FileNotFoundError as error:
            raise UsageError(f"{error}: fairseq-preprocess wrote no such split") from None

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> torch.nn.Module:
        if self.architecture is not None:
            # a second model, a teacher or a base: the host would make its generator that of the validation
            return FairseqTask.build_model(self, cfg, from_checkpoint)
        self._check_bleu_args()
        self.architecture = getattr(cfg, "_name", None) or getattr(cfg, "arch", None)
        kind = compat.registered_model(self.architecture)
        base = kind.read_base(cfg) if hasattr(kind, "read_base") and not from_checkpoint else None
        model = super().build_model(cfg, from_checkpoint)
        if base is not None:
            model.load_base(base)
        if factory.is_decoding_model(model):
            self.criterions, self.inputs = tuple(model.criterions), tuple(model.inputs)
        return model

    def _check_bleu_args(self) -> None:
        """Raises UsageError for JSON that the host would stumble over, or a decode flag that it would not heed."""
        try:
            names = set({**json.loads(self.cfg.eval_bleu_args or "{}")})
            json.loads(self.cfg.eval_bleu_detok_args or "{}")
        except (TypeError, ValueError) as error:
            raise UsageError(f"--eval-bleu-args and --eval-bleu-detok-args are JSON objects: {error}") from None
        unknown = sorted(names - set(GenerationConfig.__dataclass_fields__))
        if unknown:
            raise UsageError(f"--eval-bleu-args knows no {', '.join(unknown)} (the task's own flags go beside it)")

    def build_criterion(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        name = getattr(cfg, "_name", None)
        if self.criterions and name not in self.criterions:
            raise UsageError(
                f"--arch {self.architecture} is trained with --criterion {' or '.join(self.criterions)}, not {name}"
            )
        criterion = super().build_criterion(cfg, from_checkpoint)
        if not self.criterions and hasattr(criterion, "loss_of"):
            raise UsageError(f"--criterion {name} trains no --arch {self.architecture}; take one of fairseq's own")
        return criterion

    def build_generator(
        self,
        models: List[torch.nn.Module],
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: Optional[Dict[str, Any]] = None,
        **kwargs: Any,
    ) -> Any:
        host_flags = compat.decode_flags()
        if not factory.is_decoding_model(models[0]):
            if any(map(factory.is_decoding_model, models)):
                raise UsageError("the student comes first: --path student.pt:teacher.pt")
            factory.warn_of_idle_task_flags(args, self.cfg, host_flags)
            return super().build_generator(models, args, seq_gen_cls, extra_gen_cls_kwargs, **kwargs)
        is_program = not isinstance(args, Namespace)
        return factory.build(models, args, self.cfg, self.symbols, host_flags=host_flags, is_program=is_program)

    def begin_epoch(self, epoch: int, model: torch.nn.Module) -> None:
        super().begin_epoch(epoch, model)
        self.epoch = epoch

    def train_step(
        self,
        sample: Dict[str, Any],
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if hasattr(criterion, "set_num_updates"):  # the host tells the model alone
            criterion.set_num_updates(update_num)
        if self.cfg.cpu_autocast and sample["id"].device.type != "cpu":
            raise UsageError("--cpu-autocast is for training on a CPU (--cpu); on a GPU take --bf16 or --fp16")
        sample = self.with_columns(sample, self.cfg.train_subset, self.epoch)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.cfg.cpu_autocast):
            return super().train_step(sample, model, criterion, optimizer, update_num, *args, **kwargs)

    def valid_step(self, sample: Dict[str, Any], model: torch.nn.Module, criterion: Any) -> Any:
        return super().valid_step(self.with_columns(sample, self.valid_subset, VALIDATION_EPOCH), model, criterion)

    def reduce_metrics(self, logging_outputs: List[Dict[str, Any]], criterion: Any) -> None:
        """As the host's, but empty hypotheses score 0, where the host leaves BLEU out and then misses it."""
        FairseqTask.reduce_metrics(self, logging_outputs, criterion)
        if not any("_bleu_sys_len" in log for log in logging_outputs):
            return
        for name in ("counts", "totals"):
            orders = range(EVAL_BLEU_ORDER)
            sums = [sum(float(log.get(f"_bleu_{name}_{i}", 0)) for log in logging_outputs) for i in orders]
            metrics.log_scalar(f"_bleu_{name}", np.array(sums))
        for name in ("sys_len", "ref_len"):
            metrics.log_scalar(f"_bleu_{name}", sum(float(log.get(f"_bleu_{name}", 0)) for log in logging_outputs))
        metrics.log_derived("bleu", _bleu)

    def with_columns(self, sample: Dict[str, Any], split: str, epoch: int) -> Dict[str, Any]:
        """The batch with the side columns that the model names in ``inputs``."""
        columns = {name: self.column(name, sample["id"], split, epoch) for name in self.inputs}
        return {**sample, "columns": columns}

    def column(self, name: str, ids: torch.Tensor, split: str, epoch: int) -> torch.Tensor:
        """A side column of the sentences ``ids`` (B,) of a split: what a model wants beside source and target.

        Here ``keys``, (B,) noise keys: a resumed, split or re-ordered training draws the same noise, and so does every
        validation. Another task adds what it knows by sentence (fertilities, weights). Raises UsageError for a column
        that nobody knows.
        """
        if name != "keys":
            raise UsageError(
                f"--arch {self.architecture} needs {name} of each sentence, which this --task does not have"
            )
        return noise.training_keys(self.cfg.seed, epoch, ids)

    def get_batch_iterator(
        self,
        dataset: FairseqDataset,
        max_tokens: Optional[int] = None,
        max_sentences: Optional[int] = None,
        max_positions: Any = None,
        ignore_invalid_inputs: bool = False,
        required_batch_size_multiple: int = 1,
        **kwargs: Any,
    ) -> Any:
        """As the host's, but nothing is lost.

        The host drops the last (longest) sentences of a split that are no multiple of
        ``--required-batch-size-multiple``; here that multiple is always 1. In validation and decoding an over-long side
        is cut to the limit with a warning, and a sentence longer than ``--max-tokens`` is a batch of its own. Only a
        training that may skip leaves out over-long pairs, as fairseq-train does.
        """
        is_training = ignore_invalid_inputs and dataset is self.datasets.get(self.cfg.train_subset)
        if not is_training:
            self.valid_subset = next((name for name, one in self.datasets.items() if one is dataset), "")
            _cut_to(dataset, max_positions)
            max_tokens = _at_least_longest(dataset, max_tokens)
        # the host orders a split by the epoch in which its iterator was made, which after a resume is another one
        epoch, is_new = kwargs.pop("epoch", 1), dataset not in self.dataset_to_epoch_iter
        iterator = super().get_batch_iterator(
            dataset,
            max_tokens=max_tokens,
            max_sentences=max_sentences,
            max_positions=max_positions,
            ignore_invalid_inputs=ignore_invalid_inputs,
            required_batch_size_multiple=1,
            epoch=1,
            **kwargs,
        )
        if is_new:
            iterator.epoch = epoch
        if not is_training:
            batched = sum(len(batch) for batch in iterator.frozen_batches)
            assert batched == len(dataset), (
                f"{len(dataset) - batched} of {len(dataset)} sentences were lost in batching"
            )
        return iterator


def _bleu(meters: Any) -> float:
    score = BLEU.compute_bleu(
        correct=meters["_bleu_counts"].sum.tolist(),
        total=meters["_bleu_totals"].sum.tolist(),
        sys_len=int(meters["_bleu_sys_len"].sum),
        ref_len=int(meters["_bleu_ref_len"].sum),
        smooth_method="exp",
    )
    return round(score.score, 2)


def _cut(data: Any, sizes: np.ndarray, limit: int, eos: int, side: str) -> Tuple[Any, np.ndarray]:
    over = np.flatnonzero(sizes > limit)
    if not len(over):
        return data, sizes
    logger.warning(
        f"{len(over)} {side} sentences are longer than {limit} tokens and are cut there, first ids {over[:5].tolist()}"
    )
    if isinstance(data, list):
        end = torch.tensor([eos])
        return [x if len(x) <= limit else torch.cat([x[: limit - 1], end.to(x)]) for x in data], sizes.clip(max=limit)
    return AppendTokenDataset(TruncateDataset(StripTokenDataset(data, eos), limit - 1), eos), sizes.clip(max=limit)


def _cut_to(dataset: Any, max_positions: Any) -> None:
    """Cut both sides of a language-pair dataset to the limits, in place, keeping ``</s>``. Others are left alone."""
    if not isinstance(max_positions, (tuple, list)) or not isinstance(dataset, LanguagePairDataset):
        return
    eos = dataset.eos if dataset.eos is not None else dataset.src_dict.eos()
    source, target = max_positions
    dataset.src, dataset.src_sizes = _cut(dataset.src, np.asarray(dataset.src_sizes), source, eos, "source")
    dataset.sizes = dataset.src_sizes
    if dataset.tgt is not None:
        dataset.tgt, dataset.tgt_sizes = _cut(dataset.tgt, np.asarray(dataset.tgt_sizes), target, eos, "target")
        dataset.sizes = np.vstack((dataset.src_sizes, dataset.tgt_sizes)).T


def _at_least_longest(dataset: Any, max_tokens: Optional[int]) -> Optional[int]:
    if max_tokens is None or not len(dataset):
        return max_tokens
    sizes = getattr(dataset, "sizes", None)
    longest = int(max(map(dataset.num_tokens, range(len(dataset)))) if sizes is None else np.max(sizes))
    if max_tokens >= longest:
        return max_tokens
    logger.warning(f"--max-tokens {max_tokens} is raised to {longest}, the longest sentence")
    return longest
