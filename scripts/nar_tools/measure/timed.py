"""One system of a benchmark, in a process of its own: loaded as fairseq-generate loads it, timed a sentence a time."""

import argparse
import json
import os
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from ..errors import ToolError
from ..progress import progress
from .system import System, parsed

BASE_WIDTH = 512
"""Models of this width and above are of the size ``base``."""
REFUSED = ("prefix_size", "constraints", "lm_path", "replace_unk", "score_reference")
"""Options of fairseq-generate under which the program does more than ``inference_step``, or no decoding at all."""

Place = Tuple[Any, str]
Call = Tuple[Callable[..., Any], Tuple[Any, ...], Dict[str, Any]]
Timing = Tuple[float, Optional[int], Optional[float]]
"""Of one sentence: ms of inference_step, decoder calls, ms of the forward passes alone; None: not known."""


@contextmanager
def recorded(places: Sequence[Place]) -> Iterator[List[Call]]:
    """The calls of these functions, (object, name) each, while inside; a call within a recorded call is part of it."""
    calls: List[Call] = []
    depth = 0

    def recorder(function: Callable[..., Any]) -> Callable[..., Any]:
        def record(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            if not depth:
                calls.append((function, args, kwargs))
            depth += 1
            try:
                return function(*args, **kwargs)
            finally:
                depth -= 1

        return record

    own = [vars(owner).get(name) for owner, name in places]  # a compiled module has a forward of its own
    for owner, name in places:
        setattr(owner, name, recorder(getattr(owner, name)))
    try:
        yield calls
    finally:
        for (owner, name), before in zip(places, own):
            if before is None:
                delattr(owner, name)
            else:
                setattr(owner, name, before)


def replay(calls: List[Call]) -> None:
    """Makes recorded calls again, without what stood between them."""
    for function, args, kwargs in calls:
        function(*args, **kwargs)


def forward_passes(models: Sequence[Any]) -> List[Place]:
    """Where the passes of a decode are made: the model's networks, and the halves of a teacher that rescores."""
    model, teachers = models[0], models[1:]
    modules = [one.module for one in model.passes.values()]
    modules += [half for teacher in teachers for half in (teacher.encoder, teacher.decoder)]
    return [(module, "forward") for module in dict.fromkeys(modules)]


class Timed(System):
    """A system under the clock. ``decode_all`` or ``lengths`` comes before ``time``."""

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__(argv)
        self.is_ours = hasattr(self.generator, "counters")
        self.calls = 0
        if not self.is_ours:
            self.count_calls(self.models[0].decoder)

    @staticmethod
    def configuration(argv: Sequence[str]) -> Any:
        """Refuses flags that have no place in a clock."""
        cfg = parsed("generate", argv)
        if any(getattr(cfg.generation, name) for name in REFUSED):
            raise ToolError(f"not measured here: {', '.join('--' + name.replace('_', '-') for name in REFUSED)}")
        return cfg

    def count_calls(self, decoder: Any) -> None:
        """fairseq's generator calls ``decoder.forward`` itself, which no forward hook sees."""
        forward = decoder.forward

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return forward(*args, **kwargs)

        decoder.forward = counted

    def decoder_calls(self) -> int:
        return self.generator.counters.calls.get("decoder", 0) if self.is_ours else self.calls

    def facts(self) -> Dict[str, Any]:
        """What the parent must know of the system; of the training, what the first checkpoint says."""
        from fairseq import checkpoint_utils

        state = checkpoint_utils.load_checkpoint_to_cpu(self.paths[0])
        model = state["cfg"]["model"]
        options = vars(model) if isinstance(model, argparse.Namespace) else model
        # of the model that this one stands on
        refined = json.loads(options.get("latent_options") or options.get("base_options") or "{}")
        width = options.get("encoder_embed_dim") or refined.get("encoder_embed_dim", 0)
        trained = (state.get("extra_state") or {}).get("train_iterator", {})
        done = trained.get("iterations_in_epoch")  # 0: the epoch is the next one, of which nothing is done
        return {
            "arch": str(options.get("_name") or options.get("arch")),
            "size": "base" if width >= BASE_WIDTH else "small",
            "width": width,
            "updates": (state.get("optimizer_history") or [{}])[-1].get("num_updates"),
            "epochs": trained["epoch"] - (not done) if "epoch" in trained else None,
            "seed": state["cfg"]["common"]["seed"],
            "device": "gpu" if self.is_gpu else "cpu",
            "target_lang": self.task.cfg.target_lang,
            "checkpoint": self.paths[0],
            "source_lengths": self.source_lengths(),
            "has_length": self.has_length(),
            "is_verified": self.is_verified(),
        }

    def has_length(self) -> bool:
        """Whether the length of a hypothesis can be forced: not where it comes of what is said on a canvas."""
        from nar_plugin.methods.options import GoldLength, Greedy

        return not self.is_ours or isinstance(self.generator.options, (GoldLength, Greedy))

    def is_verified(self) -> bool:
        """Whether its words are drafted, and verified by an autoregressive model."""
        from nar_plugin.methods.options import Verified

        return self.is_ours and isinstance(self.generator.options, Verified)

    def source_lengths(self) -> List[int]:
        """Of every sentence without its end symbol; of sources that are no text, what their dataset calls tokens."""
        sizes = getattr(self.dataset, "src_sizes", None)
        if sizes is None:
            return [int(self.dataset.num_tokens(i)) for i in range(len(self.dataset))]
        return [int(size) - 1 for size in sizes]

    def best(self) -> Iterator[Tuple[int, Any]]:
        """Every sentence's number and the tokens of its best hypothesis, decoded in batches."""
        for sample in progress(self.batches(), "decode", "batches"):
            yield from zip(sample["id"].tolist(), self.tokens(self.step(self.prepared(sample))))

    def prepared(self, sample: Any) -> Any:
        """What ``step`` takes of a batch, made before the clock starts."""
        return self.on_device(sample)

    def tokens(self, found: Any) -> List[Any]:
        """Of what ``step`` found: the ids of each best hypothesis, the end symbol last."""
        return [group[0]["tokens"] for group in found]

    def decode_all(self) -> List[str]:
        """The best hypothesis of every sentence as subwords, in the order of the file."""
        string, ignored = self.task.target_dictionary.string, {self.generator.eos}
        found = {i: string(tokens.int().cpu(), extra_symbols_to_ignore=ignored) for i, tokens in self.best()}
        if len(found) != len(self.dataset):
            raise ToolError(f"{len(found)} of {len(self.dataset)} sentences were decoded")
        return [found[i] for i in range(len(found))]

    def lengths(self) -> List[int]:
        """Tokens of the best hypothesis of every sentence, the end symbol counted."""
        return [tokens.numel() for _, tokens in self.best()]

    def clocked(self, function: Callable[..., Any], argument: Any) -> float:
        """Wall milliseconds of ``function(argument)``, the device's work included."""
        import torch

        if self.is_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        function(argument)
        if self.is_gpu:
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - start)

    def time(self, sentences: List[int]) -> List[Timing]:
        """Each sentence at batch 1. One goes before, uncounted, since another process has just had the caches."""
        samples = [self.batch_of([i]) for i in sentences]
        self.step(samples[0])
        timings = []
        for sample in samples:
            before = self.decoder_calls()
            timings.append((self.clocked(self.step, sample), self.decoder_calls() - before))
        return [(ms, calls, self.bare_ms(sample)) for (ms, calls), sample in zip(timings, samples)]

    def batch_of(self, sentences: List[int]) -> Any:
        """These sentences as one batch, ready for ``step``."""
        return self.prepared(self.dataset.collater([self.dataset[i] for i in sentences]))

    def seconds(self, batches: List[List[int]]) -> float:
        """Of wall, for sentences in given batches. The first batch goes before, uncounted, as in ``time``."""
        samples = [self.batch_of(sentences) for sentences in batches]
        self.step(samples[0])
        return sum(self.clocked(self.step, sample) for sample in samples) / 1000

    def bare_ms(self, sample: Any) -> Optional[float]:
        """The forward passes of a decode alone, on the very inputs that they had in it."""
        import torch

        if not self.is_ours:
            return None
        with recorded(forward_passes([self.generator.model, *self.models[1:]])) as calls:
            self.step(sample)
        with torch.no_grad():
            return self.clocked(replay, calls)

    def compile_seconds(self) -> Optional[float]:
        """What torch.compile took up to now; None: nothing is compiled."""
        if getattr(self.task.cfg, "engine", None) != "compiled":
            return None
        from nar_plugin import compat

        return round(compat.seconds_of_compiling(), 1)

    def cpu_seconds(self) -> float:
        """Of this process and of the compilers that it called."""
        return sum(os.times()[:4])
