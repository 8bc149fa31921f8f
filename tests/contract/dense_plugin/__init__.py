"""A user's folder whose sources are no tokens but a matrix of numbers a sentence: a task, its data and three models."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import nar_plugin  # noqa: E402,F401  (registers the task and the criterions)

from . import data, models  # noqa: E402,F401
