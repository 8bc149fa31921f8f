"""The one loader of models: a system is what fairseq-generate or fairseq-interactive makes of its flags.

torch and fairseq are imported when a system is loaded, not before: who only starts other processes needs neither.
"""

import argparse
import ast
import importlib
import logging
import sys
import warnings
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Iterator, List, Sequence
from unittest import mock

from ..errors import ToolError


def parsed(program: str, argv: Sequence[str]) -> Any:
    """What ``fairseq-<program>`` makes of a command line, by its own hands."""
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    def refuse(parser: argparse.ArgumentParser, message: str) -> None:
        raise ToolError(message)

    module = importlib.import_module(f"fairseq_cli.{program}")
    seen: List[Any] = []
    with (
        mock.patch.object(sys, "argv", [f"fairseq-{program}", *argv]),
        mock.patch.object(argparse.ArgumentParser, "error", refuse),
        mock.patch.object(module, "main", seen.append),
    ):
        module.cli_main()
    cfg = convert_namespace_to_omegaconf(seen[0]) if isinstance(seen[0], argparse.Namespace) else seen[0]
    if cfg.common_eval.path is None:
        raise ToolError("--path is missing")
    return cfg


def complaint(error: BaseException) -> str:
    """One line on what went wrong; what neither we nor the plugin foresaw is named by its kind."""
    message = " ".join(f"{error}".split())[:300]
    if "_lang=null" in message:  # the host could not compose its options
        return "--tokenizer needs --source-lang and --target-lang"
    is_foreseen = isinstance(error, (SystemExit, ToolError)) or type(error).__name__ == "UsageError"
    return message if is_foreseen else f"{type(error).__name__}: {message}"


@contextmanager
def quietly() -> Iterator[None]:
    """The libraries say nothing but warnings on stderr, and whatever they die of is a ToolError."""
    logging.basicConfig(level=logging.WARNING)  # on stderr; fairseq's programs log on stdout
    logging.getLogger("fairseq.dataclass.utils").disabled = True  # it lists all options that do not go together
    warnings.simplefilter("ignore")  # of the libraries; ours are logged
    try:
        yield
    except BrokenPipeError:  # who reads our output has seen enough
        raise
    except (SystemExit, Exception) as error:
        if isinstance(error, SystemExit) and not isinstance(error.code, str):
            raise
        raise ToolError(complaint(error)) from error


class System:
    """Models, their task and, when they are asked for, their generator and their sentences."""

    def __init__(self, argv: Sequence[str]) -> None:
        import torch
        from fairseq import checkpoint_utils, tasks, utils

        from nar_plugin import compat

        self.cfg = cfg = self.configuration(argv)
        utils.set_torch_seed(cfg.common.seed)
        compat.keep_freed_memory()  # as fairseq's programs do under our task
        self.is_gpu = torch.cuda.is_available() and not cfg.common.cpu
        self.task = tasks.setup_task(cfg.task)
        self.paths = utils.split_paths(cfg.common_eval.path)
        overrides = ast.literal_eval(cfg.common_eval.model_overrides)
        self.models, self.saved = checkpoint_utils.load_model_ensemble(self.paths, overrides, task=self.task)
        for model in self.models:
            model = model.half() if cfg.common.fp16 else model
            (model.cuda() if self.is_gpu else model).prepare_for_inference_(cfg)

    @staticmethod
    def configuration(argv: Sequence[str]) -> Any:
        """What is made of the flags, before anything is loaded."""
        return parsed("generate", argv)

    def options_are(self, kind: type) -> bool:
        """Whether the first model's options of decoding are such; a stock model has none."""
        return issubclass(getattr(self.models[0], "decode_options", object), kind)

    def load_generator(self) -> None:
        """Now, not at the first batch, so that flags without effect are said before the work."""
        assert self.generator is not None

    @cached_property
    def generator(self) -> Any:
        return self.task.build_generator(self.models, self.cfg.generation)

    @cached_property
    def dataset(self) -> Any:
        """The sentences of --gen-subset."""
        subset = self.cfg.dataset.gen_subset
        self.task.load_dataset(subset, task_cfg=self.saved.task)
        return self.task.dataset(subset)

    def batches(self) -> Any:
        """All sentences, as fairseq-generate takes them."""
        from fairseq import utils

        data, limits = self.cfg.dataset, [model.max_positions() for model in self.models]
        return self.task.get_batch_iterator(
            self.dataset,
            max_tokens=data.max_tokens,
            max_sentences=data.batch_size,
            max_positions=utils.resolve_max_positions(self.task.max_positions(), *limits),
            ignore_invalid_inputs=data.skip_invalid_size_inputs_valid_test,
            required_batch_size_multiple=data.required_batch_size_multiple,
            seed=self.cfg.common.seed,
        ).next_epoch_itr(shuffle=False)

    def on_device(self, sample: Any) -> Any:
        from fairseq import utils

        return utils.move_to_cuda(sample) if self.is_gpu else sample

    def step(self, sample: Any) -> Any:
        """The hypotheses of a batch."""
        return self.task.inference_step(self.generator, self.models, sample)
