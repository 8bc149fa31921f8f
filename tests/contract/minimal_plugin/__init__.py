"""A user's folder with the least model that the contract asks for, and nothing more."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import nar_plugin  # noqa: E402,F401  (registers the task and the criterions)

from . import model  # noqa: E402,F401
