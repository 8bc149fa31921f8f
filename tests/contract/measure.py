"""A program: what ``scripts/engine.py`` says of a system, as JSON. Its arguments are those of fairseq-generate."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from engine import Engine  # noqa: E402

if __name__ == "__main__":
    engine = Engine(sys.argv[1:])
    print(json.dumps({"facts": engine.facts(), "lines": engine.decode_all(), "times": engine.time([0, 1, 2])}))
