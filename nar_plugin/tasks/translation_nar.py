"""The one task: fairseq's ``translation``, unchanged batches, plus what decoding in parallel needs.

A batch is exactly that of ``--task translation``, so that an autoregressive architecture trains and decodes here too
and a teacher sees the sources it knows. Unlike the host's, this task never drops a sentence in validation or decoding.
"""

import json
import logging
from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import torch
from fairseq.data import AppendTokenDataset, FairseqDataset, StripTokenDataset, TruncateDataset
from fairseq.dataclass import ChoiceEnum
from fairseq.dataclass.configs import GenerationConfig
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask, register_task
from fairseq.tasks.translation import EVAL_BLEU_ORDER, TranslationConfig, TranslationTask
from omegaconf import II
from sacrebleu.metrics import BLEU

from .. import compat
from ..generators import factory
from ..methods import noise
from ..methods.contract import UsageError
from ..methods.symbols import Symbols

logger = logging.getLogger(__name__)

VALIDATION_EPOCH = 0
"""The epoch that validation noise is drawn for: the same masks in every validation."""


@dataclass
class TranslationNarConfig(TranslationConfig):
    rescore_norm: ChoiceEnum(list(factory.NORMS)) = field(  # type: ignore[valid-type]
        default="mean", metadata={"help": "how candidates' summed log-probabilities are made comparable"}
    )
    stop_rule: Optional[ChoiceEnum(list(factory.RULES))] = field(  # type: ignore[valid-type]
        default=None, metadata={"help": "when a sentence needs no further refinement (default: the architecture's own)"}
    )
    stop_window: int = field(
        default=1, metadata={"help": "outputs a stop rule compares with the oldest of them; 1: two passes in a row"}
    )
    stop_distance: float = field(
        default=0.0, metadata={"help": "a stop rule ends a sentence at this share of differing tokens, or below"}
    )
    max_candidate_tokens: Optional[int] = field(
        default=None, metadata={"help": "decode at most so many candidate tokens at a time; changes memory, no result"}
    )
    gold_target_len: bool = field(
        default=False, metadata={"help": "decode with the reference's length, or a window of candidates around it"}
    )
    collapse_repeats: bool = field(default=False, metadata={"help": "drop words equal to the word before, once chosen"})
    decode_samples: int = field(
        default=0,
        metadata={
            "help": "iterative refinement: refine so many samples beside the most probable words, and average; latent "
            "models: so many candidates, the first without noise"
        },
    )
    decode_sample_noise: Optional[float] = field(
        default=None,
        metadata={
            "help": "spread of latent candidates, in standard deviations of the prior (default: the papers', 0.5 of "
            "latent_transformer, 1 of lanmt_continuous)"
        },
    )
    latent_inference: Optional[ChoiceEnum(list(factory.INFERENCES))] = field(  # type: ignore[valid-type]
        default=None,
        metadata={
            "help": "how latents are refined: not at all (mean), by delta steps, by the steps of a refiner (default: "
            "by those of a lanmt_refiner, else delta)"
        },
    )
    latent_step_size: float = field(default=1.0, metadata={"help": "size of a refiner's steps (released IWSLT: 0.8)"})
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
        if from_checkpoint or not getattr(cfg, "latent_model", None):
            if not from_checkpoint and getattr(cfg, "latent_options", None):
                raise UsageError("--latent-options is for the program to write; --latent-model names the checkpoint")
            return super().build_model(cfg, from_checkpoint)
        # a model that stands on a trained one: the checkpoints to come hold the other's options and weights too
        base = compat.load_checkpoint(cfg.latent_model)
        cfg.latent_options = compat.model_options(base, cfg.latent_model)
        model = super().build_model(cfg, from_checkpoint)
        compat.load_weights(model.latent, base, cfg.latent_model)
        model.stands_on = cfg.latent_model
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
        allowed = getattr(compat.registered_model(self.architecture), "criterions", None)
        name = getattr(cfg, "_name", None)
        if allowed is not None and name not in allowed:
            raise UsageError(
                f"--arch {self.architecture} is trained with --criterion {' or '.join(allowed)}, not {name}"
            )
        criterion = super().build_criterion(cfg, from_checkpoint)
        if allowed is None and hasattr(criterion, "loss_of"):
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
        if not hasattr(models[0], "generator"):
            if any(hasattr(model, "generator") for model in models):
                raise UsageError("the student comes first: --path student.pt:teacher.pt")
            factory.warn_of_idle_task_flags(args, self.cfg)
            return super().build_generator(models, args, seq_gen_cls, extra_gen_cls_kwargs, **kwargs)
        return factory.build(models, args, self.cfg, self.symbols, is_program=not isinstance(args, Namespace))

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
        sample = self.with_keys(sample, self.epoch)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.cfg.cpu_autocast):
            return super().train_step(sample, model, criterion, optimizer, update_num, *args, **kwargs)

    def valid_step(self, sample: Dict[str, Any], model: torch.nn.Module, criterion: Any) -> Any:
        return super().valid_step(self.with_keys(sample, VALIDATION_EPOCH), model, criterion)

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

    def with_keys(self, sample: Dict[str, Any], epoch: int) -> Dict[str, Any]:
        """The batch with a noise key a sentence: a resumed, split or re-ordered run draws the same noise."""
        return {**sample, "keys": noise.training_keys(self.cfg.seed, epoch, sample["id"])}

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
    """Cut both sides of a language-pair dataset to the limits, in place, keeping ``</s>``."""
    if not isinstance(max_positions, (tuple, list)):
        return
    eos = dataset.eos if dataset.eos is not None else dataset.src_dict.eos()
    source, target = max_positions
    dataset.src, dataset.src_sizes = _cut(dataset.src, np.asarray(dataset.src_sizes), source, eos, "source")
    dataset.sizes = dataset.src_sizes
    if dataset.tgt is not None:
        dataset.tgt, dataset.tgt_sizes = _cut(dataset.tgt, np.asarray(dataset.tgt_sizes), target, eos, "target")
        dataset.sizes = np.vstack((dataset.src_sizes, dataset.tgt_sizes)).T


def _at_least_longest(dataset: Any, max_tokens: Optional[int]) -> Optional[int]:
    longest = int(np.max(dataset.sizes)) if len(dataset) else 0
    if max_tokens is None or max_tokens >= longest:
        return max_tokens
    logger.warning(f"--max-tokens {max_tokens} is raised to {longest}, the longest sentence")
    return longest
