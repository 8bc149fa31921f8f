"""Two processes on one machine, on CPUs: they train, and a killed pair goes on."""

import socket
import subprocess
from pathlib import Path
from typing import List

from tests.conftest import ADAM, LIMITS, STUDENT
from tests.end_to_end.programs import TASK, script

PAIR = ("--distributed-no-spawn", "--distributed-world-size", 2, "--distributed-backend", "gloo")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def train_pair(data: Path, folder: Path, updates: int) -> List[str]:
    """The outputs of both ranks; raises where one fails."""
    address = ("--distributed-init-method", f"tcp://127.0.0.1:{free_port()}", *PAIR)
    options = (*TASK, *STUDENT, *LIMITS, *ADAM, "--cpu", "--ddp-backend", "legacy_ddp", "--max-tokens", 250)
    saving = ("--disable-validation", "--no-progress-bar", "--save-dir", folder, "--max-update", updates)
    ranks = [
        subprocess.Popen(
            [str(word) for word in (script("fairseq-train"), data, *options, *saving, *address, *rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (("--distributed-rank", 0), ("--distributed-rank", 1))
    ]
    outputs = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs[1][-2000:] + outputs[0][-2000:]
    return outputs


def test_two_processes_train_and_go_on(data: Path, tmp_path: Path) -> None:
    train_pair(data, tmp_path, 4)
    first, _ = train_pair(data, tmp_path, 8)
    assert "Loaded checkpoint" in first and "@ 4 updates" in first
