"""Shards of a translation: processes of fairseq-generate that run side by side, and the files of what they said.

Shard 3 is ``3.part`` while it is translated, ``3.txt`` once it is whole, and ``3.log`` is its stderr. Of what
fairseq-generate prints the sources (S-), the hypotheses (H-) and the last line are kept.
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import IO, Any, Dict, Iterator, List, Optional, Sequence, Tuple

from ..errors import ToolError

KEPT = re.compile(rb"[SH]-|Generate ")
LAST = b"Generate "
PATIENCE = 10
"""Seconds that a program has to end after it was asked to."""
EVERY = {True: 1.0, False: 20.0}
"""Seconds between two looks at the progress: on a terminal, and elsewhere."""
CHUNK = 1 << 20


def program(name: str) -> str:
    """The path of a console script: of this Python's environment, else the first on PATH."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if not found:
        raise ToolError(f"{name} is neither beside {sys.executable} nor on PATH: nar doctor says more")
    return found


def is_whole(path: Path) -> bool:
    """fairseq-generate ends with a line of its own, and every source it printed has an answer."""
    if not path.is_file():
        return False
    sources = answers = 0
    line = answered = b""
    with open(path, "rb") as lines:
        for line in lines:
            name = line.split(b"\t", 1)[0]
            sources += name.startswith(b"S-")
            if name.startswith(b"H-"):
                answers += name != answered
                answered = name
    return line.startswith(LAST) and sources == answers


def last_lines(path: Path, count: int) -> List[bytes]:
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - CHUNK))
        return file.read().splitlines()[-count:]


@contextmanager
def locked(folder: Path, machine: int) -> Iterator[int]:
    """The file descriptor of a lock that no other call for this machine gets, while one of its processes lives."""
    with open(folder / f".lock-{machine}", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ToolError(f"another call is at work on {folder}") from None
        yield lock.fileno()


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as SIGINT does, unless they are ignored (nohup)."""

    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Shard:
    """The files of a shard, and the process that fills them."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.part, self.log, self.done = (folder / f"{number}.{ending}" for ending in ("part", "log", "txt"))
        self.process: Optional[subprocess.Popen] = None
        self._error = ""

    def start(self, command: Sequence[str], environment: Dict[str, str], lock: int) -> None:
        """The process holds the lock too: should this one be killed, no other fills the same files beside it."""
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                pass_fds=[lock],
            )
        assert self.process.stdout
        self._reader = Thread(target=self._read, args=[self.process.stdout], daemon=True)
        self._reader.start()

    def _read(self, pipe: IO[bytes]) -> None:
        try:
            # closing the pipe, whatever happens here, ends the program: nobody would read it
            with pipe as output, open(self.part, "wb", buffering=0) as part:
                for line in output:
                    if KEPT.match(line):
                        part.write(line)
        except OSError as error:
            self._error = f"cannot write {self.part}: {error.strerror}"

    def is_read_after(self, seconds: float) -> bool:
        """Waits at most so long until all that it says has been read."""
        self._reader.join(seconds)
        return not self._reader.is_alive()

    def settle(self) -> Optional[str]:
        """Accepts what the process said if it is whole, and else says why it is not."""
        assert self.process
        status = self.process.wait()
        if not self._error and is_whole(self.part):
            self.part.replace(self.done)
            return None
        said = b"".join(last_lines(self.log, 1)).decode(errors="replace")
        reason = self._error or said or f"fairseq-generate ended with status {status}"
        return f"shard {self.number} failed: {reason} (all of it: {self.log})"


class Heard:
    """How many sources the files of all shards hold, those of other machines too; a byte is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: Dict[str, Tuple[int, bytes, int]] = {}  # of a shard: bytes read, the last two, sources in them

    def count(self) -> int:
        # a shard has both only where it is done again: the part is what counts
        files = {path.stem: path for ending in ("txt", "part") for path in self.folder.glob(f"*.{ending}")}
        return sum(self._count(shard, path) for shard, path in files.items())

    def _count(self, shard: str, path: Path) -> int:
        beginning = (0, b"\n", 0)
        read, tail, sources = self._seen.get(shard, beginning)
        try:
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size < read:
                    read, tail, sources = beginning  # begun again
                file.seek(read)
                while chunk := file.read(CHUNK):
                    read += len(chunk)
                    sources += (tail + chunk).count(b"\nS-")
                    tail = (tail + chunk)[-2:]
        except FileNotFoundError:
            pass  # another machine has just renamed it
        self._seen[shard] = read, tail, sources
        return sources


class Progress:
    """What has been done of ``total`` lines: a bar where stderr is a terminal, else a line now and then."""

    def __init__(self, name: str, folder: Path, total: int) -> None:
        self.name, self.total, self.heard = name, total, Heard(folder)
        self.every = EVERY[sys.stderr.isatty()]
        self.due = time.monotonic() + self.every
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=self.heard.count(), unit=" lines", dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def say(self, message: str) -> None:
        if self.bar is not None:
            self.bar.clear()
        print(f"{self.name}: {message}", flush=True)
        if self.bar is not None:
            self.bar.refresh()

    def report(self) -> None:
        self.due = time.monotonic() + self.every
        if self.bar is None:
            self.say(f"{self.heard.count()} of {self.total} lines")
        else:
            self.bar.update(self.heard.count() - self.bar.n)

    def look(self) -> None:
        """A report if it is time for one."""
        if time.monotonic() >= self.due:
            self.report()


def gpus(count: int) -> List[str]:
    """The first ``count`` GPUs that are ours to use, by the names that CUDA_VISIBLE_DEVICES gives them."""
    ours = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    seen = ours.split(",") if ours else []
    return [*seen[:count], *map(str, range(len(seen), count))]


def surroundings(nth: int, devices: Sequence[str]) -> Dict[str, str]:
    """The environment of the nth of the processes that run at once."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # more threads a process are far slower
    gpu = {"CUDA_VISIBLE_DEVICES": devices[nth % len(devices)]} if devices else {}
    return {**threads, **os.environ, **gpu, "PYTHONUNBUFFERED": "1"}


def end(processes: Sequence[subprocess.Popen]) -> None:
    """Ends those that still run, by force where asking does not help."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def translate(shards: Sequence[Tuple[Shard, List[str]]], devices: Sequence[str], lock: int, progress: Progress) -> None:
    """Runs the commands of these shards at once, and waits for their end. Raises ToolError for one that fails.

    Those that are whole are kept, whatever becomes of the others.
    """
    try:
        for nth, (shard, command) in enumerate(shards):
            shard.start(command, surroundings(nth, devices), lock)
        for shard, _ in shards:
            while not shard.is_read_after(0.2):
                progress.look()
    except BaseException:
        end([shard.process for shard, _ in shards if shard.process])
        raise
    failures = [failure for failure in [shard.settle() for shard, _ in shards] if failure]
    if failures:
        raise ToolError(failures[0])
    progress.report()


def done_in_shards(
    name: str,
    folder: Path,
    commands: Sequence[List[str]],
    total: int,
    machine: Tuple[int, int],
    jobs: int,
    devices: int,
    lock: int,
) -> List[Path]:
    """Does those shards of machine R of N that are not whole, ``jobs`` at once; ``commands``: of all shards; ``total``:
    of lines, for the progress. The files of all shards, or none if another machine's is not done."""
    shards = [Shard(folder, number) for number in range(len(commands))]
    with ending_on_signals(), Progress(name, folder, total) as progress:
        todo = []
        for shard in shards[machine[0] :: machine[1]]:
            if is_whole(shard.done):
                progress.say(f"shard {shard.number}: done before")
            else:
                todo.append(shard)
        for first in range(0, len(todo), jobs):
            batch = todo[first : first + jobs]
            progress.say(f"shards {' '.join(str(shard.number) for shard in batch)} of {len(shards)} begin")
            translate([(shard, commands[shard.number]) for shard in batch], gpus(devices), lock, progress)
        missing = next((shard.number for shard in shards if not is_whole(shard.done)), None)
        if missing is not None:
            others = f"shard {missing} is not: another machine's, or call again"
            progress.say(f"the shards of this machine are done, {others}")
    return [] if missing is not None else [shard.done for shard in shards]
