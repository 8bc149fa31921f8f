"""Where a file or a figure comes from: hashes, the commit of this project, the date."""

import datetime
import hashlib
import subprocess
from pathlib import Path
from typing import Optional


def sha256(path: Path) -> str:
    """Hexadecimal hash of a file. Raises OSError."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def commit() -> Optional[str]:
    """The commit of this project, ``-dirty`` where its code differs from it; None outside of git."""

    code = ("nar_plugin", "scripts", "examples/lib.sh", "examples/*/run.sh", "examples/*/systems")

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).resolve().parents[1]), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", *code) else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
