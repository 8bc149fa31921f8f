"""A process that has done its work ends well, whatever the host's threads are at."""

import itertools
import sys
import threading

from fairseq.data import iterators

from nar_plugin.compat import end_loading
from tests.end_to_end.programs import console

ABANDONED = """
import atexit, itertools, threading
from fairseq.data import iterators
atexit.register(lambda: print("threads left", threading.active_count() - 1))
import nar_plugin
endless = iterators.BufferedIterator(2, range(10**9))
next(endless)
"""


def test_a_loader_that_nobody_reads_any_more_is_ended() -> None:
    endless = iterators.BufferedIterator(1, range(10**9))
    assert [next(endless) for _ in range(3)] == [0, 1, 2]
    consumer = endless._consumer
    assert isinstance(consumer, threading.Thread) and consumer.is_alive()
    end_loading()
    assert not consumer.is_alive()


def test_a_loader_that_hangs_is_not_waited_for_long() -> None:
    never = threading.Event()
    hanging = iterators.BackgroundConsumer(
        iterators.queue.Queue(1), (never.wait() for _ in itertools.count()), None, None
    )
    hanging.daemon = True
    hanging.start()
    end_loading(seconds=0.2)
    assert hanging.is_alive()
    never.set()
    end_loading()
    assert not hanging.is_alive()


def test_loaders_end_before_the_interpreter_does() -> None:
    """Else the process aborts now and then, with status 134."""
    outcome = console([sys.executable, "-c", ABANDONED])
    assert (outcome.code, outcome.lines[-2]) == (0, "threads left 0")
