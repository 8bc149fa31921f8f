"""A run of fairseq-train that may be killed and called again: what makes it the same training, and how far it is."""

import fcntl
import itertools
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Optional, Sequence

from ..errors import ToolError
from ..provenance import sha256
from .shards import ending_on_signals

ELSEWHERE = {"--cpu", "--cpu-autocast", "--fp16", "--bf16"}
SPLIT = {"--max-tokens", "--update-freq", "--distributed-world-size", "--distributed-port"}
SEEN = {"--log-interval", "--log-format", "--no-progress-bar"}
END = {"--max-update", "--max-epoch", "--keep-best-checkpoints"}
"""Flags that do not make another training: devices, how an update's tokens are split, what is shown, where it ends."""
STANDS_ON = {"--latent-model", "--finetune-from-model"}
END_OF_ZIP = b"PK\005\006"
EPOCH = re.compile(r"epoch 0*(\d+):\s*(\d+) / (\d+)")


def option(command: Sequence[str], name: str) -> Optional[str]:
    """Its last value, which is the one that counts; None if it is not given."""
    values = [value for flag, value in zip(command, command[1:]) if flag == name]
    return values[-1] if values else None


def identity(command: Sequence[str], tokens: str) -> str:
    """What tells trainings apart: the data as they are now, the flags, the bytes of the models that it stands on."""
    told = [tokens, *(f"{path} {Path(path).stat().st_mtime_ns}" for path in command[1:2])]
    for last, word in zip(command[1:], command[2:]):
        if last in STANDS_ON:
            told.append(sha256(Path(word)))
        elif last not in SPLIT | SEEN | END and word not in ELSEWHERE | SPLIT | SEEN | END:
            told.append(word)
    return "\n".join(told)


def begin(folder: Path, log: Path, told: str) -> int:
    """The folder of a training, locked; what another one left there is put aside. Returns the lock's descriptor."""
    mark = folder / "command"
    if folder.exists() and not (mark.exists() and mark.read_text(encoding="utf-8") == told):
        names = (folder.with_name(f"{folder.name}.before{i or ''}") for i in itertools.count())
        aside = next(name for name in names if not name.exists())
        print(f"{folder} is another training: put aside as {aside}", flush=True)
        folder.rename(aside)
        log.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ToolError(
            f"another training is at work on {folder}: wait for it, or end it (pgrep -f {folder})"
        ) from None
    mark.write_text(told, encoding="utf-8")
    mend(folder)
    return lock


def is_done(folder: Path, told: str) -> bool:
    """Whether the very same command, its end included, has run to its end here."""
    mark = folder / "done"
    return any(folder.glob("*.pt")) and mark.exists() and mark.read_text(encoding="utf-8") == told


def is_whole(checkpoint: Path) -> bool:
    """A checkpoint is a zip file, and the last thing written of one is a record of 22 bytes."""
    if not checkpoint.exists() or checkpoint.stat().st_size < 22:
        return False
    with open(checkpoint, "rb") as content:
        content.seek(-22, os.SEEK_END)
        return content.read(4) == END_OF_ZIP


def mend(folder: Path) -> None:
    """A kill may cut the host's copy of the newest checkpoint to checkpoint_last.pt; the newest is always whole."""
    newest = max(folder.glob("checkpoint*[0-9].pt"), key=lambda path: path.stat().st_mtime, default=None)
    last = folder / "checkpoint_last.pt"
    if newest and not is_whole(last):
        shutil.copyfile(newest, last)


def value(name: str, line: str) -> str:
    found = re.search(rf"[ |:]{name}[ =]([-0-9.e]+)", line)
    return found[1] if found else "-"


def minutes(seconds: float) -> str:
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest} min" if hours else f"{max(1, rest)} min"


class Progress:
    """What is said of the lines of a training: updates done, of how many, and about how long the rest takes."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.updates, self.epochs = (int(option(command, flag) or 0) for flag in ("--max-update", "--max-epoch"))
        self.first: Optional[tuple[int, float]] = None
        self.is_done = False

    def total(self, line: str) -> int:
        found = EPOCH.search(line)
        by_epochs = int(found[3]) * self.epochs if found else 0
        return min((n for n in (self.updates, by_epochs) if n > 0), default=0)

    def line(self, line: str, now: float) -> Optional[str]:
        """The short form of a line, at a time in seconds; None for one that is not shown."""
        self.is_done |= "| done training in" in line
        if "| train_inner |" in line:
            done, total = int(float(value("num_updates", line))), self.total(line)
            self.first = self.first or (done, now)
            left = ""
            if self.first[0] < done < total:
                left = f", {minutes((now - self.first[1]) / (done - self.first[0]) * (total - done))} left"
            of = f" of {total:,}" if total else ""
            return f"[{self.name}] update {done:,}{of}, loss {value('loss', line)} bits{left}"
        if "| valid |" in line:
            told = f"loss {value('loss', line)} bits, BLEU {value('bleu', line)}"
            return f"[{self.name}] validated after update {value('num_updates', line)}: {told}"
        return f"[{self.name}] {line}" if re.search("[Ee]rror|Exception", line) else None


def follow(command: Sequence[str], log: Path, progress: Optional[Progress], lock: Sequence[int]) -> int:
    """Runs a command, adds what it prints to the log, and prints its progress. Returns its status."""
    log.parent.mkdir(parents=True, exist_ok=True)
    threads = {"OMP_NUM_THREADS": "1"} if "--cpu" in command else {}  # several a process are far slower on few cores
    environment = {**threads, **os.environ, "PYTHONUNBUFFERED": "1"}
    with open(log, "a", encoding="utf-8", buffering=1) as out, ending_on_signals():
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            pass_fds=lock,
        )
        try:
            for line in process.stdout or ():
                out.write(line)
                shown = progress and progress.line(line.rstrip("\n"), time.monotonic())
                if shown:
                    print(shown, flush=True)
        except BaseException:
            process.terminate()
            raise
        return process.wait()
