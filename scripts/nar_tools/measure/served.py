"""The child's side of a benchmark: a process that loads one system and answers the parent's calls."""

import os
from contextlib import suppress
from typing import Any, List, Optional, Sequence

from ..errors import ToolError
from .entrants import COMPUTE_TYPES
from .simulated import simulate
from .system import quietly
from .timed import Timed
from .translated import Translated


def system_of(argv: Sequence[str], engine: str, simulated: Optional[int] = None) -> Timed:
    """The system under the clock; ``engine``: what its networks are computed by; ``simulated``: tokens a call."""
    system = Translated(argv, engine) if engine in COMPUTE_TYPES else Timed(argv)
    if simulated is not None:
        simulate(system.generator, simulated)
    return system


def serve(pipe: Any, argv: List[str], engine: str, threads: int, simulated: Optional[int] = None) -> None:
    """Loads a system, then answers (method, arguments) by (True, result) until the pipe closes; a failure ends it."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # by children that are waited for, so that their time is known
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    try:
        with quietly():
            system = system_of(argv, engine, simulated)
            answer: Any = system.facts()
        while True:
            pipe.send((True, answer))
            method, arguments = pipe.recv()
            with quietly():
                answer = getattr(system, method)(*arguments)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except ToolError as error:
        with suppress(OSError):  # nobody listens: another system failed first
            pipe.send((False, str(error)))
