"""The host's programs: how they end, and what is looked at before they begin."""

import ast
import contextlib
import functools
import multiprocessing
import os
import re
import signal
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, Callable, Sequence

from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging.meters import StopwatchMeter
from hydra._internal import utils as hydra_utils
from torch.multiprocessing import ProcessRaisedException

from ..methods.contract import UsageError
from . import checkpoints

TASK = "translation_nar"
DECODERS = ("generate", "interactive")
PROGRAMS = ("train", "validate", *DECODERS)
HALVES = ("fp16", "bf16", "memory_efficient_fp16", "memory_efficient_bf16", "amp")
NOT_ANSWERED = ("print_step", "retain_iter_history", "prefix_size", "score_reference")
"""Decode flags that fairseq-interactive takes and never looks at."""
Hook = Callable[..., Any]


def is_decoder() -> bool:
    """Whether this process is one of the host's programs that decode, and not somebody's Python."""
    return is_program(DECODERS)


def is_program(names: Sequence[str] = PROGRAMS) -> bool:
    """Whether this process is one of the host's programs of these names, and not somebody's Python."""
    program = Path(sys.argv[0]).name.removeprefix("fairseq-").removesuffix(".py")
    return program in names and host_module(program) is not None


def host_module(name: str) -> Any:
    """The program ``fairseq_cli.<name>`` where this process has it, also as ``python -m``; None where it has not."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return main if getattr(spec, "name", "") == f"fairseq_cli.{name}" else sys.modules.get(f"fairseq_cli.{name}")


def program_of(main: Callable[..., Any]) -> str:
    """Which of the host's programs a ``main`` is of; "" for anybody else's."""
    module = getattr(main, "__module__", None) or ""
    if module == "__main__":
        module = getattr(sys.modules[module].__spec__, "name", "")
    package, _, name = module.rpartition(".")
    return name if package == "fairseq_cli" else ""


def end_like_cat() -> None:
    """A program that decodes ends quietly when nobody reads its output any more. Can go when the host does so."""
    if is_decoder() and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, _end_at_once)


def _end_at_once(number: int, frame: Any) -> None:
    """Dies of the signal, after the processes that load batches, which would show tracebacks of a lost parent."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes the end of a loader for an accident
    loaders = multiprocessing.active_children()
    for loader in loaders:
        loader.terminate()
    for loader in loaders:
        loader.join(1.0)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def one_line_hook(hook: Hook) -> Hook:
    """``sys.excepthook`` that prints the line of a UsageError alone; every other error has its traceback."""

    @functools.wraps(hook)
    def excepthook(kind: Any, error: BaseException, trace: Any) -> None:
        if isinstance(error, UsageError):
            print(error, file=sys.stderr)
        else:
            hook(kind, error, trace)

    return excepthook


def checked_main(call_main: Callable[..., None]) -> Callable[..., None]:
    """The host's start of a program: looks at what it would stumble over later, and passes on the line of a child.

    A child that torch spawned is known by the text of its traceback alone.
    """

    @functools.wraps(call_main)
    def checked_call_main(cfg: Any, main: Callable[..., None], **kwargs: Any) -> None:
        try:
            check(cfg, program_of(main))
            call_main(cfg, main, **kwargs)
        except ProcessRaisedException as error:
            found = re.search(r"\.UsageError: (.*)\s*$", str(error))
            if not found:
                raise
            raise UsageError(found[1]) from None

    return checked_call_main


def let_hydra_pass_on_our_line() -> None:
    """hydra prints the tracebacks of a job itself, unless it is told to raise them: a UsageError it shall raise.

    Can go when fairseq-hydra-train imports the user's folder before hydra begins, so that its job can be wrapped.
    """
    is_set = hydra_utils._is_env_set

    @functools.wraps(is_set)
    def _is_env_set(name: str) -> bool:
        return is_set(name) or (name == "HYDRA_FULL_ERROR" and isinstance(sys.exc_info()[1], UsageError))

    hydra_utils._is_env_set = _is_env_set


def check_hydra_train_too() -> None:
    """fairseq-hydra-train imports the user's folder after ``call_main``. Can go when it does so before."""
    trainer = sys.modules.get("fairseq.trainer")
    if trainer is None:
        return
    init = trainer.Trainer.__init__

    @functools.wraps(init)
    def checked(self: Any, cfg: Any, *args: Any, **kwargs: Any) -> None:
        check(cfg, "train")
        init(self, cfg, *args, **kwargs)

    trainer.Trainer.__init__ = checked


def check_generate_too() -> None:
    """fairseq-generate begins without ``call_main``. Can go when it takes the same way as all others."""
    generate = host_module("generate")
    if generate is None or not hasattr(generate, "main"):
        return
    main = generate.main

    @functools.wraps(main)
    def checked(args: Any) -> Any:
        cfg = convert_namespace_to_omegaconf(args) if isinstance(args, Namespace) else args
        check(cfg, "generate")
        return main(cfg)

    generate.main = checked


def check(cfg: Any, program: str) -> None:
    """Raises UsageError for flags of a program that would end in a traceback, or would do nothing, under our task."""
    if getattr(cfg.task, "_name", None) != TASK:
        return
    if program == "interactive":
        idle = [name for name in NOT_ANSWERED if getattr(cfg.generation, name, None)]
        if idle:
            flags = ", ".join("--" + name.replace("_", "-") for name in idle)
            raise UsageError(f"{flags}: fairseq-interactive does not heed this; take fairseq-generate, or nar show")
    if program in ("generate", "interactive") and (cfg.dataset.num_shards > 1 or cfg.dataset.shard_id):
        raise UsageError(
            "--num-shards, --shard-id: no effect in this release of fairseq; fairseq-generate takes the sentences of a "
            "shard with --distributed-world-size N --distributed-rank R"
        )
    begins = [name for name in ("warm_start", "warm_start_parts") if getattr(cfg.task, name, None)]
    if begins and program not in ("train", "hydra_train"):
        flags = ", ".join("--" + name.replace("_", "-") for name in begins)
        raise UsageError(f"{flags}: how a training begins; leave it out of {program}, a checkpoint stands alone")
    if program in DECODERS and getattr(cfg.task, "word_counts", None):
        raise UsageError(f"--word-counts: what a training reads; leave it out of {program}")
    if program in ("train", "hydra_train", "validate"):
        if cfg.dataset.max_tokens is None and cfg.dataset.batch_size is None:
            raise UsageError("how large is a batch? --max-tokens, or --batch-size")
        if str(cfg.task.engine) != "eager":
            raise UsageError(f"--engine {cfg.task.engine}: how a decode computes; leave it out of {program}")
        check_devices(cfg.common, cfg.distributed_training)


def check_devices(common: Any, distributed: Any) -> None:
    """Half precision on a CPU fails deep inside the host, and so do processes that it starts itself, one a GPU."""
    size, is_started = distributed.distributed_world_size, distributed.distributed_no_spawn or "RANK" in os.environ
    if common.cpu and size > 1 and not is_started:
        raise UsageError(
            f"--distributed-world-size {size} with --cpu: fairseq starts a process for each GPU; take one process, or "
            f"start them: torchrun --nproc-per-node {size} --no-python fairseq-train ... --distributed-backend gloo "
            "--distributed-no-spawn --ddp-backend legacy_ddp"
        )
    halves = [name for name in HALVES if getattr(common, name, False)]
    if common.cpu and halves:
        flags = ", ".join("--" + name.replace("_", "-") for name in halves)
        raise UsageError(f"{flags}: not with --cpu; on a CPU --cpu-autocast trains with products in bfloat16")


class Stopwatch(StopwatchMeter):
    """Of fairseq-generate, which divides by its time: where nothing was decoded there is none. Can go when it asks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sum = 1e-9

    @property
    def avg(self) -> float:
        return self.sum / self.n if self.n else float("inf")


def scorer_of_nothing(build: Hook) -> Hook:
    """No sentence, or no word in any, has a score too; a scorer whose library is missing says so in one line.

    The host's BLEU divides by the number of words, and sacreBLEU looks at the first sentence. Can go when they do not.
    """

    @functools.wraps(build)
    def build_scorer(choice: Any, tgt_dict: Any) -> Any:
        try:
            scorer = build(choice, tgt_dict)
        except ImportError as error:
            raise UsageError(f"--scoring {getattr(choice, '_name', choice)}: {error}") from None
        count = scorer.result_string
        scorer.result_string = lambda *args, **kwargs: _nothing_in(scorer) or count(*args, **kwargs)
        return scorer

    return build_scorer


def _nothing_in(scorer: Any) -> str:
    """What is said of outputs of which there is nothing to count."""
    if hasattr(scorer, "stat"):
        said, known = scorer.stat.predlen, scorer.stat.reflen
        zeros = f"BLEU4 = 0.00, 0.0/0.0/0.0/0.0 (BP=0.000, ratio=0.000, syslen={said}, reflen={known})"
        return "" if said and known else zeros
    return "" if getattr(scorer, "pred", True) else "nothing to score"


class _Literals:
    """``ast`` for those of the host's programs that read ``--model-overrides`` with it."""

    @staticmethod
    def literal_eval(text: str) -> Any:
        found = None
        with contextlib.suppress(SyntaxError, ValueError):
            found = ast.literal_eval(text)
        if not isinstance(found, dict):
            example = "\"{'dropout': 0.1}\""
            raise UsageError(f"--model-overrides wants a dict of Python, such as {example}, not {text}")
        checkpoints.asked_overrides = set(map(str, found))
        return found


def say_what_is_wrong_with_overrides() -> None:
    """A slip in ``--model-overrides`` is a SyntaxError from the depths; fairseq-validate runs it as a program.

    Can go when the host says which flag it is.
    """
    for name, reader in {"generate": "ast", "interactive": "ast", "validate": "eval"}.items():
        module = host_module(name)
        if module is not None:
            setattr(module, reader, _Literals if reader == "ast" else _Literals.literal_eval)


def allow_empty_output() -> None:
    """A split or a shard without a sentence is decoded to nothing."""
    generate = host_module("generate")
    if generate is not None:
        generate.StopwatchMeter = Stopwatch
