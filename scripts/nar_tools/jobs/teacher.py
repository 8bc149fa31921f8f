"""A teacher's answers to the train split, by fairseq-generate in shards; those that are whole are not done again."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import List, Tuple

from ..errors import ToolError
from ..provenance import sha256
from .distilled import Distillation, lines_of
from .shards import Progress, Shard, ending_on_signals, gpus, is_whole, program, translate


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
    shards = [Shard(folder, number) for number in range(made.shards)]
    total = sum(1 for _ in lines_of(made.source_text))
    with ending_on_signals(), Progress("nar distill", folder, total) as progress:
        todo = []
        for shard in shards[machine[0] :: machine[1]]:
            if is_whole(shard.done):
                progress.say(f"shard {shard.number}: done before")
            else:
                todo.append(shard)
        for first in range(0, len(todo), jobs):
            batch = todo[first : first + jobs]
            progress.say(f"shards {' '.join(str(shard.number) for shard in batch)} of {made.shards} begin")
            translate([(shard, command(made, shard.number)) for shard in batch], gpus(devices), lock, progress)
        missing = next((shard.number for shard in shards if not is_whole(shard.done)), None)
        if missing is not None:
            others = f"shard {missing} is not: another machine's, or call again"
            progress.say(f"the shards of this machine are done, {others}")
    return [] if missing is not None else [shard.done for shard in shards]
