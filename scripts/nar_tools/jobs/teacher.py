"""A teacher's answers to the train split, by fairseq-generate in shards; those that are whole are not done again."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import List, Tuple

from ..errors import ToolError
from ..provenance import sha256
from .distilled import Distillation, lines_of
from .shards import done_in_shards, program


def parts_of(made: Distillation) -> Path:
    """The folder of the shards. Of another teacher, of other data, or searched otherwise, they are other shards."""
    data = [path for pattern in ("dict.*", "train.*") for path in sorted(made.data.glob(pattern))]
    hashes = [sha256(path) for path in [*made.teachers, *data]]
    search = f"{made.beam} {made.lenpen} {made.nbest} {made.shards} {made.task} {' '.join(made.further)}"
    text = "".join(f"{line}\n" for line in [*hashes, search])
    return made.output / f"parts-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def plugin() -> str:
    """The folder of nar_plugin, which is not imported for it."""
    spec = find_spec("nar_plugin")
    if not spec or not spec.origin:
        raise ToolError("nar_plugin is not installed: nar doctor says what to do")
    return str(Path(spec.origin).parent)


def command(made: Distillation, shard: int) -> List[str]:
    """A shard's sentences follow from fairseq's own splitting of the batches; ids stay those of the whole set."""
    source_lang, target_lang = made.pair
    words = [
        *(program("fairseq-generate"), made.data, "--user-dir", plugin(), "--task", made.task),
        *("--source-lang", source_lang, "--target-lang", target_lang, "--path", made.teacher),
        *("--beam", made.beam, "--lenpen", made.lenpen, "--nbest", made.nbest, "--max-tokens", made.max_tokens),
        *("--skip-invalid-size-inputs-valid-test", "--required-batch-size-multiple", 1),
        *("--distributed-world-size", made.shards, "--distributed-rank", shard, "--no-progress-bar"),
        *(*made.further, "--gen-subset", "train"),
    ]
    return [str(word) for word in words]


def translated(
    made: Distillation, folder: Path, machine: Tuple[int, int], jobs: int, devices: int, lock: int
) -> List[Path]:
    """Does the shards of machine R of N. The files of all shards, or none if another machine's is not done."""
    total = sum(1 for _ in lines_of(made.source_text))
    commands = [command(made, shard) for shard in range(made.shards)]
    return done_in_shards("nar distill", folder, commands, total, machine, jobs, devices, lock)
