"""What decoding cost: forward passes of a model's networks, sentences, tokens, seconds."""

import logging
import time
from contextlib import contextmanager
from typing import Any, Iterator

from torch import nn

from ..methods.contract import AnyModel

logger = logging.getLogger(__name__)


class Counters:
    """Counted by forward hooks, so that nothing that a model does inside can escape.

    ``calls[name]`` counts forward calls; ``rows[name]`` the rows they held: a batch of 8 in one call is 8 rows. Rows
    that are finished and still in the batch are not counted: ``live_share``, which the loop sets, is that of others.
    Names are ``Pass.counts_as``. ``seconds`` is wall time within ``generate``. ``is_drafted``: a call of the decoder
    gives several tokens, and the report says how many.
    """

    def __init__(self, is_drafted: bool = False) -> None:
        self.is_drafted = is_drafted
        self.calls: dict[str, int] = {}
        self.rows: dict[str, int] = {}
        self.sentences = self.tokens = 0
        self.live_share = 1.0
        self.seconds = 0.0

    def _hook(self, name: str) -> Any:
        def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self.calls[name] += 1
            self.rows[name] += round(self.live_share * len(inputs[0]))

        return count

    @contextmanager
    def running(self, model: AnyModel, teacher: Any = None) -> Iterator[None]:
        """Count the passes of the model, and of a teacher that rescores, and the time inside."""
        counted = {one.module: one.counts_as for one in model.passes.values() if one.counts_as}
        if teacher is not None and isinstance(teacher.model.decoder, nn.Module):
            counted[teacher.model.decoder] = "teacher"
        handles = []
        for module, name in counted.items():
            self.calls.setdefault(name, 0)
            self.rows.setdefault(name, 0)
            handles.append(module.register_forward_hook(self._hook(name)))
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
            self.live_share = 1.0  # also where a refinement step failed
            for handle in handles:
                handle.remove()

    def passes(self, name: str) -> float:
        """Passes of ``name`` a sentence, candidates counted."""
        return self.rows.get(name, 0) / max(1, self.sentences)

    @property
    def tokens_a_call(self) -> float:
        """Tokens that a sentence gets by a call of the decoder, on the average over calls."""
        return self.tokens / max(1, self.rows.get("decoder", 0))

    def report(self) -> None:
        """One line to the log; nothing if nothing was decoded."""
        if self.sentences:
            passes = ", ".join(
                f"{name} {self.calls[name]:,} passes over {rows:,} rows ({rows / self.sentences:.2f} a sentence)"
                for name, rows in self.rows.items()
            )
            speed = f"{self.seconds:.2f} s ({1000 * self.seconds / self.sentences:.1f} ms a sentence)"
            drafted = f", {self.tokens_a_call:.2f} tokens a call" if self.is_drafted else ""
            logger.info(f"decoded {self.sentences:,} sentences, {self.tokens:,} tokens: {passes}{drafted}, {speed}")
