"""results.json: a list of rows, one a system, written by programs and never by hand.

Every field stands in every row; null where it is not known. Times are wall milliseconds of ``task.inference_step`` at
batch 1 over ``timed_sentences`` sentences, for each the median of the repeats; ratios are of medians over sentences.

| field | unit | meaning |
|---|---|---|
| id | | name of the system, once a file; `ar-greedy` and `ar-beamN` are the teacher |
| arch | | architecture of the first checkpoint of `--path` |
| train | words | the training choice: raw, distilled, ... |
| decode_flags | | the flags of fairseq-generate |
| passes | calls | decoder calls a sentence at batch 1; a call that holds several candidates counts once |
| bleu | % | detokenised sacreBLEU on the raw reference, of all sentences |
| chrf | % | chrF2, likewise |
| signature | | sacreBLEU's signatures of both |
| sentences | | hypotheses, equal to the references |
| teacher_bleu | % | of `ar-beam5` in the same run |
| greedy_bleu | % | of `ar-greedy` in the same run |
| teacher_sha256 | | of the teacher's checkpoint |
| baseline | | the teacher's search that `speedup` is over: greedy, beam3, beam4 or beam5 |
| ms_per_sentence | ms | median over the sentences |
| baseline_ms | ms | the baseline's `ms_per_sentence` in the same run |
| speedup | ratio | baseline_ms / ms_per_sentence |
| speedups | ratio | the same over each of the teacher's searches in the run |
| bare_ms | ms | the forward passes alone, projections included; null for fairseq's own generator |
| ms_mean | ms | mean over the sentences |
| ms_p95 | ms | 95th percentile over the sentences |
| ms_by_length | ms | median for each range of source lengths, in subwords without the end symbol |
| timed_sentences | | sentences that the times are of |
| noisy | | true where other processes ran: the times mean nothing |
| length_ratio | ratio | words of the hypotheses to words of the references, as sacreBLEU counts them |
| repetition | % | subwords equal to their left neighbour, of all subwords |
| updates | | updates that the checkpoint was trained |
| epochs | | epochs that the checkpoint was trained |
| converged | | true where the best valid BLEU is at least 5 epochs old |
| seed | | of the training |
| device | | cpu or gpu |
| size | | small, or base from a width of 512 |
| threads | | of each process |
| hypotheses | | detokenised text, one line a sentence, beside results.json |
| hypotheses_sha256 | | of that file |
| command | | what wrote the row |
| commit | | of this project, `-dirty` with changes that are not committed |
| date | | UTC, ISO 8601 |
"""

import json
import math
import os
import re
from pathlib import Path
from typing import Any, Dict, List

Row = Dict[str, Any]

FIELDS: Dict[str, type] = {
    **dict.fromkeys("id arch train decode_flags signature teacher_sha256 baseline device size".split(), str),
    **dict.fromkeys("hypotheses hypotheses_sha256 command commit date".split(), str),
    **dict.fromkeys("passes bleu chrf teacher_bleu greedy_bleu length_ratio repetition".split(), float),
    **dict.fromkeys("ms_per_sentence baseline_ms speedup bare_ms ms_mean ms_p95".split(), float),
    **dict.fromkeys("sentences timed_sentences updates epochs seed threads".split(), int),
    **dict.fromkeys("speedups ms_by_length".split(), dict),
    **dict.fromkeys("noisy converged".split(), bool),
}
REQUIRED = frozenset("id arch decode_flags device size threads noisy command date".split())
"""Fields that are never null."""

ID = re.compile(r"\w[\w.-]*", re.ASCII)
"""An id names a file too."""


class ResultsError(ValueError):
    """One line: what is wrong with a row or a file of results."""


def is_a(value: Any, kind: type) -> bool:
    """Whether a value fits its field: an integer is a number too, true is not, NaN and infinity are neither."""
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is dict:
        return type(value) is dict and all(is_a(number, float) for number in value.values())
    return type(value) is kind


def check(row: Row) -> None:
    """Raises ResultsError where a row is not as the table above says."""
    name = row.get("id") if isinstance(row, dict) else row
    if not isinstance(name, str) or not ID.fullmatch(name):
        raise ResultsError(f"a row needs an id of letters, digits, '.', '_' and '-', not {name!r}")
    for what, names in (("lacks", FIELDS.keys() - row.keys()), ("has an unknown", row.keys() - FIELDS.keys())):
        if names:
            raise ResultsError(f"row {name} {what} {', '.join(sorted(names))}")
    for field, kind in FIELDS.items():
        value = row[field]
        if value is None and field in REQUIRED or value is not None and not is_a(value, kind):
            raise ResultsError(f"row {name}: {field} is no {kind.__name__}: {value!r}")
        if field.endswith("sha256") and value is not None and not re.fullmatch("[0-9a-f]{64}", value):
            raise ResultsError(f"row {name}: {field} is no sha256: {value!r}")
    speedup, ours, theirs = row["speedup"], row["ms_per_sentence"], row["baseline_ms"]
    if speedup is not None and not (ours and theirs and math.isclose(speedup, theirs / ours, rel_tol=0.01)):
        raise ResultsError(f"row {name}: speedup {speedup} is not baseline_ms / ms_per_sentence")


def read(path: Path) -> List[Row]:
    """The rows of a file, checked. Raises ResultsError, also where there is no such file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ResultsError(f"{path} is no JSON: {error}") from None
    if not isinstance(rows, list):
        raise ResultsError(f"{path} holds no list of rows")
    check_all(rows)
    return rows


def check_all(rows: List[Row]) -> None:
    for row in rows:
        check(row)
    ids = [row["id"] for row in rows]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise ResultsError(f"two rows are called {', '.join(twice)}")


def write(path: Path, rows: List[Row]) -> None:
    """Checks the rows and writes the file whole or not at all; fields stand in the order of FIELDS."""
    check_all(rows)
    text = json.dumps([{name: row[name] for name in FIELDS} for row in rows], indent=1, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(path)


def update(path: Path, rows: List[Row]) -> None:
    """Puts rows into a file that may not exist yet: one of a known id takes the old one's place, others follow."""
    check_all(rows)
    merged = {row["id"]: row for row in (read(path) if path.exists() else [])}
    merged.update({row["id"]: row for row in rows})
    write(path, list(merged.values()))
