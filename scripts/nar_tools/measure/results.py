"""results.json: a list of rows, one a system, size, device and forced length, written by programs and never by hand.

Every field stands in every row; null where it is not known. Times are wall milliseconds of ``task.inference_step`` (of
CTranslate2: of its ``translate_batch``, from lists of words to lists of words) at batch 1 over ``timed_sentences``
sentences, for each the median of the repeats; ratios are of medians over sentences.

| field | unit | meaning |
|---|---|---|
| id | | `ar-greedy` and `ar-beamN` are the teacher, other `ar-` and `ct2-` ones are autoregressive too |
| arch | | architecture of the first checkpoint of `--path` |
| train | words | the training choice: raw, distilled, ... |
| decode_flags | | the flags of fairseq-generate |
| forced_length | tokens | of every hypothesis, forced (else of the sources), without the end symbol; null if free |
| passes | calls | decoder calls a sentence at batch 1; several candidates count once; null for CTranslate2's beams |
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
| engine | | what computed the networks: eager, int8, bf16, compiled, ctranslate2 or ctranslate2-int8 |
| engine_version | | of CTranslate2 |
| compile_s | s | what `compiled` took to compile all that the run decoded; less where an earlier run had done so |
| compute_type | | as CTranslate2 names it |
| agreement | % | sentences whose tokens are fairseq's, where CTranslate2 computes in float32 |
| as_greedy | % | sentences whose text is that of `ar-greedy` in the same run, of systems whose drafts are verified |
| psnr | dB | of images: 10 log10(255² / mean squared error), over all pixels; null, too, where nothing differs |
| pixel_difference | | of images: the mean absolute difference, in intensities of 255 |
| pixels_equal | % | of images: equal pixels |
| simulated | tokens | that a call gave, because acceptance was simulated: the words mean nothing, the times alone do |
| competitor | | id of the system of the run that all rows are compared with |
| competitor_ratio | ratio | the competitor's `ms_per_sentence` / this row's: above 1 this row is faster |
| throughput | 1/s | sentences a second by size of batch, of sentences sorted by length |
| competitor_throughput | 1/s | the same of the competitor in the same run |
| noisy | | true where other processes ran: the times mean nothing |
| length_ratio | ratio | words of the hypotheses to words of the references, as sacreBLEU counts them |
| repetition | % | subwords equal to their left neighbour, of all subwords |
| repeats | % | of sentences, words, words of the references, and n-grams, those that repeat |
| updates | | updates that the checkpoint was trained |
| epochs | | epochs that the checkpoint was trained |
| converged | | true where the best valid BLEU is at least 5 epochs old |
| seed | | of the training |
| device | | cpu or gpu |
| size | | small, or base from a width of 512 |
| width | | of the model's states |
| threads | | of each process |
| hypotheses | | detokenised text, one line a sentence; a path from the folder of the assembled results.json |
| hypotheses_sha256 | | of that file |
| command | | what wrote the row |
| commit | | of this project, `-dirty` with changes that are not committed |
| date | | UTC, ISO 8601 |

`id`, `size`, `device` and `forced_length` together stand once in a file. A row of a forced length has times alone:
its words are those that a length brings forth, so scores of them are null.

`repeats` has `sentences` with a repeated subword; `words` and `reference words` of detokenised text that equal the one
before; `2-grams` to `4-grams` of subwords that are not new in their sentence.
"""

import json
import math
import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..errors import ToolError
from ..files import read as read_file
from ..files import write_lines
from ..provenance import sha256

Row = Dict[str, Any]
Key = Tuple[str, str, str, Optional[int]]

FIELDS: Dict[str, type] = {
    **dict.fromkeys("id arch train decode_flags signature teacher_sha256 baseline device size".split(), str),
    **dict.fromkeys("hypotheses hypotheses_sha256 command commit date".split(), str),
    **dict.fromkeys("engine engine_version compute_type competitor".split(), str),
    **dict.fromkeys("passes bleu chrf teacher_bleu greedy_bleu length_ratio repetition".split(), float),
    **dict.fromkeys("ms_per_sentence baseline_ms speedup bare_ms ms_mean ms_p95".split(), float),
    **dict.fromkeys("agreement as_greedy competitor_ratio compile_s".split(), float),
    **dict.fromkeys("psnr pixel_difference pixels_equal simulated".split(), float),
    **dict.fromkeys("forced_length sentences timed_sentences updates epochs seed threads width".split(), int),
    **dict.fromkeys("speedups ms_by_length throughput competitor_throughput repeats".split(), dict),
    **dict.fromkeys("noisy converged".split(), bool),
}
REQUIRED = frozenset("id arch decode_flags device size threads engine noisy command date".split())
"""Fields that are never null."""
LATER: Row = {
    "engine": "eager",
    **dict.fromkeys("engine_version compute_type agreement as_greedy competitor competitor_ratio".split()),
    **dict.fromkeys("throughput competitor_throughput width compile_s repeats".split()),
    **dict.fromkeys("psnr pixel_difference pixels_equal simulated".split()),
}
"""What stands for the fields that the rows of older files lack."""
ENGINES = ("eager", "int8", "bf16", "compiled", "ctranslate2", "ctranslate2-int8")
QUALITY = "bleu chrf signature length_ratio repetition repeats as_greedy hypotheses hypotheses_sha256".split()
"""Fields that are null where the length is forced."""

BASELINES = ("greedy", "beam3", "beam4", "beam5")
"""The teacher's searches that speeds are compared with."""
ID = re.compile(r"\w[\w.-]*", re.ASCII)
"""An id names a file too."""


def is_a(value: Any, kind: type) -> bool:
    """Whether a value fits its field: an integer is a number too, true is not, NaN and infinity are neither."""
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is dict:
        return type(value) is dict and all(is_a(number, float) for number in value.values())
    return type(value) is kind


def check(row: Row) -> None:
    """Raises ToolError where a row is not as the table above says."""
    name = row.get("id") if isinstance(row, dict) else row
    if not isinstance(name, str) or not ID.fullmatch(name):
        raise ToolError(f"a row needs an id of letters, digits, '.', '_' and '-', not {name!r}")
    for what, names in (("lacks", FIELDS.keys() - row.keys()), ("has an unknown", row.keys() - FIELDS.keys())):
        if names:
            raise ToolError(f"row {name} {what} {', '.join(sorted(names))}")
    for field, kind in FIELDS.items():
        value = row[field]
        if value is None and field in REQUIRED or value is not None and not is_a(value, kind):
            raise ToolError(f"row {name}: {field} is no {kind.__name__}: {value!r}")
        if field.endswith("sha256") and value is not None and not re.fullmatch("[0-9a-f]{64}", value):
            raise ToolError(f"row {name}: {field} is no sha256: {value!r}")
    if row["engine"] not in ENGINES:
        raise ToolError(f"row {name}: engine {row['engine']} is none of {', '.join(ENGINES)}")
    speedup, ours, theirs = row["speedup"], row["ms_per_sentence"], row["baseline_ms"]
    if speedup is not None and not (ours and theirs and math.isclose(speedup, theirs / ours, rel_tol=0.01)):
        raise ToolError(f"row {name}: speedup {speedup} is not baseline_ms / ms_per_sentence")
    if row["forced_length"] is not None:
        check_forced(row)
    elif row["simulated"] is not None:
        raise ToolError(f"row {name}: acceptance is simulated at forced lengths alone: its words mean nothing")


def check_forced(row: Row) -> None:
    if row["forced_length"] < 1:
        raise ToolError(f"row {row['id']}: forced_length {row['forced_length']} is less than 1")
    scored = [field for field in QUALITY if row[field] is not None]
    if scored:
        raise ToolError(f"row {row['id']}: {', '.join(scored)} of a forced length")


def key(row: Row) -> Key:
    """What identifies a row: id, size, device and forced length."""
    return row["id"], row["size"], row["device"], row["forced_length"]


def name_of(row: Row) -> str:
    """The key for a reader."""
    forced = row["forced_length"]
    return f"{row['id']} (size {row['size']}, {row['device']}{f', forced length {forced}' if forced else ''})"


def short_name(row: Row) -> str:
    """The id, and the forced length where there is one: for tables and figures that hold rows of several."""
    return f"{row['id']}, {row['forced_length']} tokens" if row["forced_length"] else str(row["id"])


def read(path: Path) -> List[Row]:
    """The rows of a file, checked."""
    try:
        rows = json.loads(read_file(path).decode("utf-8"))
    except ValueError as error:
        raise ToolError(f"{path} is no JSON: {error}") from None
    if not isinstance(rows, list):
        raise ToolError(f"{path} holds no list of rows")
    rows = [{**LATER, **row} if isinstance(row, dict) else row for row in rows]
    check_all(rows)
    return rows


def check_all(rows: List[Row]) -> None:
    for row in rows:
        check(row)
    keys = [key(row) for row in rows]
    twice = sorted({name_of(row) for row in rows if keys.count(key(row)) > 1})
    if twice:
        raise ToolError(f"two rows are called {', '.join(twice)}")


def write(path: Path, rows: List[Row]) -> None:
    """Checks the rows and writes the file whole or not at all; fields stand in the order of FIELDS."""
    check_all(rows)
    text = json.dumps([{name: row[name] for name in FIELDS} for row in rows], indent=1, ensure_ascii=False)
    write_lines(path, text.split("\n"))


def update(path: Path, rows: List[Row]) -> None:
    """Puts rows into a file that may not exist yet: one of a known key takes the old one's place, others follow."""
    check_all(rows)
    merged = {key(row): row for row in (read(path) if path.exists() else [])}
    merged.update({key(row): row for row in rows})
    write(path, list(merged.values()))


def assembled(tables: Sequence[List[Row]]) -> List[Row]:
    """The rows of all tables in their order; of a key that several have, the row of the first.

    The others' times of such a row belong to their own run, and stand in the speedups of that run already. Raises
    ToolError for two teachers of one size, or where a system does not say the same in every run.
    """
    rows: Dict[Key, Row] = {}
    teachers: Dict[str, Row] = {}
    for row in (row for table in tables for row in table):
        first = rows.setdefault(key(row), row)
        if first["hypotheses_sha256"] != row["hypotheses_sha256"]:
            raise ToolError(f"{name_of(row)} has other hypotheses in another file")
        if row["teacher_sha256"] is None:
            continue
        first = teachers.setdefault(row["size"], row)
        if first["teacher_sha256"] != row["teacher_sha256"]:
            raise ToolError(f"{name_of(first)} and {name_of(row)} are of two teachers")
    return list(rows.values())


def check_hypotheses(rows: Sequence[Row], folder: Path) -> None:
    """Raises ToolError unless every hypotheses file that a row has a hash of is there, and has that hash."""
    for row in rows:
        if row["hypotheses_sha256"] is None:
            continue
        if row["hypotheses"] is None:
            raise ToolError(f"{name_of(row)} names no file of its hypotheses")
        path = folder / row["hypotheses"]
        try:
            found = sha256(path)
        except OSError as error:
            raise ToolError(f"{name_of(row)}: cannot read {path}: {error.strerror}") from None
        if found != row["hypotheses_sha256"]:
            raise ToolError(f"{name_of(row)}: {path} does not have the sha256 of the row")


def matches(value: Any, text: str) -> bool:
    """Whether a field is what a user wrote: words as they are, all else as in JSON (4, true, null)."""
    if isinstance(value, str):
        return value == text
    try:
        return bool(json.loads(text) == value)
    except ValueError:
        return False


def select(rows: Sequence[Row], conditions: Sequence[str]) -> List[Row]:
    """Rows that meet every FIELD=VALUE; of several values of one field, any. Raises ToolError if none do."""
    wanted: Dict[str, List[str]] = {}
    for condition in conditions:
        field, equals, value = condition.partition("=")
        if not equals or field not in FIELDS:
            raise ToolError(f"--where wants FIELD=VALUE of a field of results.json, not {condition}")
        wanted.setdefault(field, []).append(value)
    chosen = [row for row in rows if all(any(matches(row[f], v) for v in values) for f, values in wanted.items())]
    if not chosen:
        raise ToolError(f"no row has {' and '.join(conditions)}" if conditions else "no rows")
    return chosen
