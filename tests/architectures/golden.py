"""Names and shapes of parameters, which old checkpoints rely on, and how to write them down anew.

python -m tests.architectures.golden --write
"""

import json
import sys
from pathlib import Path
from typing import Any

from tests.conftest import CRITERIONS
from tests.tiny import tiny_model

FILE = Path(__file__).with_name("parameters.json")
WORDS, POSITIONS = 96, 64
"""96 words and fairseq's 4 symbols: a dictionary of 100."""
METHODS = tuple(CRITERIONS)
COUNTED = tuple(f"{method}_{size}" for method in METHODS for size in ("tiny", "small"))
STANDING = ("blockwise_transformer", "lanmt_refiner")
"""Those of which a further option is not theirs but that of the model which they stand on."""


def shapes(arch: str, **options: Any) -> dict[str, str]:
    model = tiny_model(words=WORDS, is_lively=False, arch=arch, longest=POSITIONS, **options)
    return {name: "x".join(map(str, weight.shape)) or "scalar" for name, weight in model.state_dict().items()}


def count(arch: str, **options: Any) -> int:
    model = tiny_model(words=WORDS, is_lively=False, arch=arch, longest=POSITIONS, **options)
    return sum(weight.numel() for weight in model.parameters())


def current() -> dict[str, Any]:
    """What the file should say of the code as it is."""
    return {
        "dictionary": WORDS + 4,
        "positions": POSITIONS,
        "shapes": {f"{method}_tiny": shapes(f"{method}_tiny") for method in METHODS},
        "counts": {arch: count(arch) for arch in COUNTED},
        "counts_with_shared_embeddings": {
            arch: count(arch, share_all_embeddings=True) for arch in COUNTED if not arch.startswith(STANDING)
        },
    }


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    FILE.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {FILE.name}")
