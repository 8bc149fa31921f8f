"""Where a file or a figure comes from: hashes, the commit of this project, the date."""

import datetime
import hashlib
import subprocess
from pathlib import Path
from typing import Optional

CODE = ("nar_plugin", "scripts", "examples/*.sh", "examples/*/*.sh")
"""What figures depend on, as git's patterns."""


def digest(path: Path, kind: str) -> str:
    """Hexadecimal hash of a file, read in pieces; ``kind`` is sha256, md5, ... Raises OSError."""
    total = hashlib.new(kind)
    with open(path, "rb") as content:
        while piece := content.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


def sha256(path: Path) -> str:
    """Hexadecimal hash of a file. Raises OSError."""
    return digest(path, "sha256")


def commit() -> Optional[str]:
    """The commit of this project, ``-dirty`` where its code differs from it; None outside of git."""
    here = Path(__file__).resolve().parent
    root = here.parents[1]
    if here != root / "scripts" / "nar_tools":
        return None  # installed elsewhere, perhaps within another project's repository

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", *CODE) else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
