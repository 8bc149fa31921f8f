"""The one task: fairseq's ``translation``, unchanged batches, plus what decoding in parallel needs.

A batch is exactly that of ``--task translation``, so that an autoregressive architecture trains and decodes here too
and a teacher sees the sources it knows. Unlike the host's, this task never drops a sentence in validation or decoding.
"""

import json
import logging
import struct
from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple, get_args

import numpy as np
import torch
from fairseq import utils
from fairseq.data import FairseqDataset
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
from ..methods.shortlist import Lexicon
from ..methods.symbols import Symbols
from . import engines, ngrams, scoring, shortlists, texts
from .truncation import at_least_longest, cut_to
from .word_counts import WordCounts

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
    eval_bleu_tokenize: Optional[str] = field(
        default=None,
        metadata={"help": "sacreBLEU's tokeniser in validation (default: that of the target language; 13a for most)"},
    )
    allow_other_dictionary: bool = field(
        default=False,
        metadata={"help": "use a checkpoint with other dictionaries, or another direction, than it was trained with"},
    )
    warm_start: Optional[str] = field(
        default=None,
        metadata={"help": "begin the training with the weights of this checkpoint of fairseq's transformer that fit"},
    )
    warm_start_parts: str = field(
        default="", metadata={"help": "what of it --warm-start takes (default: embeddings,encoder,decoder)"}
    )
    word_counts: Optional[str] = field(
        default=None,
        metadata={"help": "folder of nar align --word-counts: in training, how many target words a source word has"},
    )
    save_dir: str = II("checkpoint.save_dir")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    seed: int = II("common.seed")
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")
    disable_validation: bool = II("dataset.disable_validation")
    valid_subsets: str = II("dataset.valid_subset")


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
        self.criterion: Any = None
        self.is_validation_checked = bool(cfg.disable_validation)
        self.word_counts = WordCounts(cfg.word_counts) if cfg.word_counts else None
        self.text = texts.Text.of(src_dict, tgt_dict, cfg.source_lang, cfg.target_lang)
        if cfg.upsample_primary == -1:  # the host's default, under which several training sets have a size below 0
            cfg.upsample_primary = 1
        if cfg.upsample_primary < 1:
            raise UsageError(f"--upsample-primary wants 1 or more, not {cfg.upsample_primary}")

    @classmethod
    def setup_task(cls, cfg: TranslationNarConfig, **kwargs: Any) -> "TranslationNarTask":
        compat.tolerate_bad_text()
        if compat.is_program():
            compat.keep_freed_memory()
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
        kind = self.cfg.dataset_impl
        told = f", or --dataset-impl {kind} is not what it wrote: leave it out" if kind else ""
        try:
            super().load_dataset(split, *args, **kwargs)
        except FileNotFoundError as error:
            raise UsageError(f"{error}: fairseq-preprocess wrote no such split{told}") from None
        except (AssertionError, ValueError, struct.error) as error:
            raise UsageError(
                f"{split} in {self.cfg.data} cannot be read: {' '.join(str(error).split())}{told}"
            ) from None
        if self.word_counts is not None and split in (self.cfg.train_subset, *self.cfg.valid_subsets.split(",")):
            self.word_counts.load(split, self.datasets[split])

    def state_dict(self) -> Dict[str, Any]:
        return {**super().state_dict(), compat.TEXT: self.text.as_dict()}

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        state = dict(state_dict)
        self.check_text({"task_state": state_dict})
        state.pop(compat.TEXT, None)
        super().load_state_dict(state)

    def check_text(self, state: Dict[str, Any]) -> None:
        """Raises UsageError where the checkpoint that was just loaded is of another text than the data."""
        self.text.check(compat.text_of(state), compat.last_read(), self.cfg.allow_other_dictionary)

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> torch.nn.Module:
        cfg = compat.with_new_options(cfg)
        if self.architecture is not None:
            # a second model, a teacher or a base: the host would make its generator that of the validation
            return FairseqTask.build_model(self, cfg, from_checkpoint)
        self._check_bleu_args()
        self.architecture = getattr(cfg, "_name", None) or getattr(cfg, "arch", None)
        kind = compat.registered_model(self.architecture)
        base = kind.read_base(cfg) if hasattr(kind, "read_base") and not from_checkpoint else None
        if base is not None:
            self.check_text(base)
        model = super().build_model(cfg, from_checkpoint)
        if base is not None:
            model.load_base(base)
        if factory.is_decoding_model(model):
            self.criterions, self.inputs = tuple(model.criterions), tuple(model.inputs)
        if self.word_counts is not None and "word_counts" not in self.inputs:
            raise UsageError(f"--word-counts: --arch {self.architecture} reads none; leave it out")
        is_frozen = getattr(model, "is_encoder_frozen", False)
        if not from_checkpoint and (self.cfg.warm_start or self.cfg.warm_start_parts or is_frozen):
            self._warm_start(model, self.cfg.warm_start)
        return model

    def _warm_start(self, model: Any, path: Optional[str]) -> None:
        """``--warm-start``, where a training begins: one that goes on has its own weights, and needs no teacher.

        Raises UsageError where the checkpoint cannot be read, is of another text, or has nothing for this model.
        """
        if not hasattr(model, "warm_start"):
            raise UsageError(f"--warm-start: --arch {self.architecture} takes nothing from a teacher")
        if compat.is_resumed(self.cfg.save_dir, self.cfg.restore_file):
            return
        if path and self.cfg.finetune_from_model:
            raise UsageError("--warm-start and --finetune-from-model both say what to begin with: leave one out")
        if path:
            parts = [part for part in self.cfg.warm_start_parts.split(",") if part]
            try:
                teacher = compat.load_transformer(path, self)
            except UsageError as error:
                raise UsageError(f"--warm-start: {error}") from None
            logger.info(f"--warm-start {path}: {model.warm_start(teacher, parts)}")
        elif self.cfg.warm_start_parts:
            raise UsageError("--warm-start-parts needs --warm-start, which names the checkpoint")
        elif not self.cfg.finetune_from_model:
            raise UsageError("--freeze encoder needs --warm-start: what is not trained comes from a teacher")

    @property
    def bleu_tokenizer(self) -> str:
        return self.cfg.eval_bleu_tokenize or scoring.tokenizer_of(self.cfg.target_lang)

    def _check_bleu_args(self) -> None:
        """Raises UsageError for JSON that the host would stumble over, or a decode flag that it would not heed."""
        try:
            names = set({**json.loads(self.cfg.eval_bleu_args or "{}")})
            json.loads(self.cfg.eval_bleu_detok_args or "{}")
        except (TypeError, ValueError) as error:
            raise UsageError(f"--eval-bleu-args and --eval-bleu-detok-args are JSON objects: {error}") from None
        if self.cfg.eval_bleu and not self.cfg.eval_tokenized_bleu:
            logger.info(f"BLEU in validation: {scoring.signature_of(self.bleu_tokenizer)}")
        unknown = sorted(names - set(GenerationConfig.__dataclass_fields__))
        if unknown:
            raise UsageError(f"--eval-bleu-args knows no {', '.join(unknown)} (the task's own flags go beside it)")

    def build_criterion(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        name = getattr(cfg, "_name", None)
        if self.criterions and name not in self.criterions:
            raise UsageError(
                f"--arch {self.architecture} is trained with --criterion {' or '.join(self.criterions)}, not {name}"
            )
        self.criterion = criterion = super().build_criterion(cfg, from_checkpoint)
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
        if compat.is_decoder():
            compat.end_like_cat()
        if getattr(args, "sacrebleu", False):
            raise UsageError(
                "--sacrebleu has no effect in this release of fairseq: leave it out, take --scoring sacrebleu"
            )
        host_flags = compat.decode_flags()
        is_autoregressive = not factory.is_decoding_model(models[0])
        drafter = self.drafter(models[0]) if is_autoregressive and self.cfg.drafter else None
        engines.prepare([*models, *([] if drafter is None else [drafter])], str(self.cfg.engine))
        if is_autoregressive and any(map(factory.is_decoding_model, models)):
            raise UsageError("the student comes first: --path student.pt:teacher.pt")
        if is_autoregressive and self.cfg.drafter:
            models = [self.drafted(models[0], drafter, args), *models[1:]]
        elif is_autoregressive:
            factory.warn_of_idle_task_flags(args, self.cfg, host_flags)
            return super().build_generator(models, args, seq_gen_cls, extra_gen_cls_kwargs, **kwargs)
        is_program = compat.is_decoder() and not isinstance(args, Namespace)
        return factory.build(
            *(models, args, self.cfg, self.symbols),
            host_flags=host_flags,
            is_program=is_program,
            lexicon=self.lexicon(),
            judge=ngrams.read(self.cfg.ngram, self.tgt_dict, self.symbols) if self.cfg.ngram else None,
        )

    def drafter(self, verifier: torch.nn.Module) -> Optional[torch.nn.Module]:
        """The model whose checkpoint ``--drafter`` names, where the verifier is; None for n-grams.

        Raises UsageError where it cannot be read or is of another text.
        """
        path = str(self.cfg.drafter)
        if path == factory.NGRAM:
            return None
        try:
            return compat.load_model(path, self).to(next(verifier.parameters()))
        except UsageError as error:
            raise UsageError(f"--drafter: {error}") from None

    def drafted(self, verifier: torch.nn.Module, drafter: Optional[torch.nn.Module], args: Any) -> Any:
        """The model that decodes what the drafter drafts and the verifier verifies."""
        if drafter is None or factory.is_decoding_model(drafter):
            found: Any = drafter
        else:
            found = compat.CachedTransformer(drafter, self.symbols)
        return factory.drafted(
            *(compat.CachedTransformer(verifier, self.symbols), found, args, self.cfg, self.symbols),
            name=f"{self.architecture} with --drafter",
            is_joint=self.src_dict == self.tgt_dict,
        )

    def lexicon(self) -> Optional[Lexicon]:
        """What ``--shortlist`` names."""
        path = self.cfg.shortlist
        return shortlists.read(path, self.src_dict, self.tgt_dict, self.symbols) if path else None

    def inference_step(
        self, generator: Any, models: Any, sample: Any, prefix_tokens: Any = None, constraints: Any = None
    ) -> Any:
        """As the host's; an empty source is answered by an empty output, by autoregressive models too."""
        search = getattr(generator, "search", None)
        if constraints is None and getattr(search, "supports_constraints", False):
            raise UsageError(
                "--constraints: fairseq-generate hands over none; fairseq-interactive reads them (TAB-parted)"
            )
        found = super().inference_step(generator, models, sample, prefix_tokens, constraints)
        if search is None:
            return found
        source = sample["net_input"]["src_tokens"]
        is_word = (source != self.source_dictionary.eos()) & (source != self.source_dictionary.pad())
        for i in (~is_word.any(1)).nonzero().flatten().tolist():
            found[i] = [nothing_of(one) for one in found[i][:1]]
        return found

    def _inference_with_bleu(self, generator: Any, sample: Any, model: Any) -> Any:
        with scoring.tokenized(self.bleu_tokenizer):
            return super()._inference_with_bleu(generator, sample, model)

    def begin_epoch(self, epoch: int, model: torch.nn.Module) -> None:
        super().begin_epoch(epoch, model)
        self.epoch = epoch
        if not self.is_validation_checked:
            self.is_validation_checked = True
            self._check_validation(model)

    def _check_validation(self, model: torch.nn.Module) -> None:
        """Raises UsageError, before the first update, for a validation without a sentence or without the metric."""
        splits = [split for split in self.cfg.valid_subsets.split(",") if split in self.datasets]
        if self.criterion is None or not splits:
            return
        for split in splits:
            self._refuse_empty(split)
        if self.cfg.best_checkpoint_metric != "loss":  # which every criterion gives
            self._check_metric(model, self.datasets[splits[0]])

    def _check_metric(self, model: torch.nn.Module, dataset: Any) -> None:
        """Raises UsageError where the validation of a sentence gives no such --best-checkpoint-metric."""
        device = next(model.parameters()).device
        sample = utils.apply_to_sample(lambda tensor: tensor.to(device), dataset.collater([dataset[0]]))
        was_training = model.training
        with metrics.aggregate(new_root=True) as found, torch.random.fork_rng():
            _, _, log = self.valid_step(sample, model, self.criterion)
            self.reduce_metrics([log], self.criterion)
        model.train(was_training)
        names = sorted(set(found.get_smoothed_values()) - {"wps", "wpb", "bsz"})
        if self.cfg.best_checkpoint_metric not in names:
            told = " (--eval-bleu gives bleu)" if self.cfg.best_checkpoint_metric == "bleu" else ""
            raise UsageError(
                f"--best-checkpoint-metric {self.cfg.best_checkpoint_metric}: validation gives {', '.join(names)}{told}"
            )

    def _refuse_empty(self, split: str) -> None:
        if not len(self.datasets[split]):
            raise UsageError(f"{split} in {self.cfg.data}: no sentence to validate on")

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
            found = super().train_step(sample, model, criterion, optimizer, update_num, *args, **kwargs)
        is_dummy = kwargs.get("ignore_grad", args[0] if args else False)
        if is_dummy and hasattr(model, "discard"):
            model.discard()
        return found

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """As the host's, and what a model keeps beside its weights (codebooks) moves too."""
        super().optimizer_step(optimizer, model, update_num)
        if hasattr(model, "commit"):
            model.commit()

    def valid_step(self, sample: Dict[str, Any], model: torch.nn.Module, criterion: Any) -> Any:
        return super().valid_step(self.with_columns(sample, self.valid_subset, VALIDATION_EPOCH), model, criterion)

    def reduce_metrics(self, logging_outputs: List[Dict[str, Any]], criterion: Any) -> None:
        """As the host's, but empty hypotheses score 0, where the host leaves BLEU out and then misses it."""
        FairseqTask.reduce_metrics(self, logging_outputs, criterion)
        meters = metrics.get_meters("train")
        if criterion.training and meters and hasattr(criterion, "end_epoch") and self._is_epoch_over():
            criterion.end_epoch(meters)
        if not any("_bleu_sys_len" in log for log in logging_outputs):
            return
        for name in ("counts", "totals"):
            orders = range(EVAL_BLEU_ORDER)
            sums = [sum(float(log.get(f"_bleu_{name}_{i}", 0)) for log in logging_outputs) for i in orders]
            metrics.log_scalar(f"_bleu_{name}", np.array(sums))
        for name in ("sys_len", "ref_len"):
            metrics.log_scalar(f"_bleu_{name}", sum(float(log.get(f"_bleu_{name}", 0)) for log in logging_outputs))
        metrics.log_derived("bleu", _bleu)

    def _is_epoch_over(self) -> bool:
        """Whether all batches of the present epoch of training were handed out."""
        iterator = self.dataset_to_epoch_iter.get(self.datasets.get(self.cfg.train_subset))
        return iterator is not None and iterator.iterations_in_epoch > 0 and iterator.end_of_epoch()

    def with_columns(self, sample: Dict[str, Any], split: str, epoch: int) -> Dict[str, Any]:
        """The batch with the side columns that the model names in ``inputs``."""
        columns = {name: self.column(name, sample["id"], split, epoch) for name in self.inputs}
        return {**sample, "columns": columns}

    def column(self, name: str, ids: torch.Tensor, split: str, epoch: int) -> torch.Tensor:
        """A side column of the sentences ``ids`` (B,) of a split: what a model wants beside source and target.

        Here ``keys``, (B,) noise keys: a resumed, split or re-ordered training draws the same noise, and so does every
        validation; and ``word_counts``, (B, S) target words of each source word (``--word-counts``). Another task adds
        what it knows by sentence (weights). Raises UsageError for a column that nobody knows.
        """
        if name == "word_counts":
            return self._word_counts(ids, split)
        if name != "keys":
            raise UsageError(
                f"--arch {self.architecture} needs {name} of each sentence, which this --task does not have"
            )
        return noise.training_keys(self.cfg.seed, epoch, ids)

    def _word_counts(self, ids: torch.Tensor, split: str) -> torch.Tensor:
        if self.word_counts is None:
            raise UsageError(f"--arch {self.architecture} is trained with --word-counts (nar align --word-counts)")
        return self.word_counts.rows(ids, split, self.datasets[split].src_sizes)

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
            if self.criterion is not None and self.valid_subset:
                self._refuse_empty(self.valid_subset)
            cut_to(dataset, max_positions)
            max_tokens = at_least_longest(dataset, max_tokens)
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
        if is_training and not iterator.frozen_batches:
            raise UsageError(
                f"{self.cfg.train_subset} in {self.cfg.data}: no sentence is left to train on, of {len(dataset)} "
                "(--max-source-positions, --max-target-positions, --max-tokens)"
            )
        if not is_training:
            batched = sum(len(batch) for batch in iterator.frozen_batches)
            assert batched == len(dataset), (
                f"{len(dataset) - batched} of {len(dataset)} sentences were lost in batching"
            )
        return iterator


def nothing_of(hypothesis: Dict[str, Any]) -> Dict[str, Any]:
    """The empty output in place of a hypothesis: its end symbol alone, with certainty."""
    tokens, scores = hypothesis["tokens"], hypothesis["positional_scores"].new_zeros(1)
    certain = {"score": scores[0], "positional_scores": scores, "alignment": tokens[:0]}
    return {**hypothesis, "tokens": tokens[-1:], **certain}


def _bleu(meters: Any) -> float:
    score = BLEU.compute_bleu(
        correct=meters["_bleu_counts"].sum.tolist(),
        total=meters["_bleu_totals"].sum.tolist(),
        sys_len=int(meters["_bleu_sys_len"].sum),
        ref_len=int(meters["_bleu_ref_len"].sum),
        smooth_method="exp",
    )
    return round(score.score, 2)
