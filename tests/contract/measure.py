"""A program: what the benchmark measures of a system, as JSON. Its arguments are those of fairseq-generate."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from nar_tools.measure.timed import Timed  # noqa: E402

if __name__ == "__main__":
    system = Timed(sys.argv[1:])
    print(json.dumps({"facts": system.facts(), "lines": system.decode_all(), "times": system.time([0, 1, 2])}))
