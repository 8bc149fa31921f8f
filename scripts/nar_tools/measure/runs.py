"""One run of a benchmark: the rows that its systems' hypotheses and times make."""

import random
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from ..errors import ToolError
from ..files import write_lines
from ..provenance import commit, now, sha256
from ..text.subwords import detokenizer
from . import clock, results
from .clock import Worker
from .entrants import COMPUTE_TYPES
from .results import Row
from .scores import scores


def repetition(lines: Sequence[str]) -> float:
    """Percentage of tokens that equal their left neighbour."""
    tokens = [line.split() for line in lines]
    repeated = sum(left == right for words in tokens for left, right in zip(words, words[1:]))
    return 100 * repeated / max(1, sum(map(len, tokens)))


def repeated_ngrams(lines: Sequence[str], n: int) -> float:
    """Percentage of the n-grams of sentences that are not new in their sentence."""
    grams = [list(zip(*(words[i:] for i in range(n)))) for words in map(str.split, lines)]
    return 100 * sum(len(some) - len(set(some)) for some in grams) / max(1, sum(map(len, grams)))


def repeats(subwords: Sequence[str], texts: Sequence[str], references: Sequence[str]) -> Dict[str, float]:
    """Percentages that say how much is repeated, of words by the side of those of the references."""
    having = sum(repetition([line]) > 0 for line in subwords)
    found = {
        "sentences": 100 * having / max(1, len(subwords)),
        "words": repetition(texts),
        "reference words": repetition(references),
        **{f"{n}-grams": repeated_ngrams(subwords, n) for n in (2, 3, 4)},
    }
    return {name: round(share, 3) for name, share in found.items()}


def quality_fields(subwords: List[str], references: List[str], lang: str) -> Tuple[List[str], Row]:
    """Detokenised hypotheses, and the fields of a row that say how good they are."""
    texts = list(map(detokenizer(lang), subwords))
    found = {"repetition": round(repetition(subwords), 3), "repeats": repeats(subwords, texts, references)}
    return texts, {**scores(texts, references), **found}


def common_facts(workers: Sequence[Worker], argv: Sequence[str]) -> Row:
    """Fields that all rows of a run share; ``argv``: of the verb. Refuses two teachers and different sentences."""
    teachers = {sha256(Path(w.facts["checkpoint"])) for w in workers if w.entrant.search}
    if len(teachers) > 1:
        raise ToolError("the baselines are not all of one teacher")
    if len({(w.facts["size"], w.facts["device"]) for w in workers}) > 1:
        raise ToolError("the systems are not of one size and on one device: a speed-up would compare the two")
    if any(w.facts["source_lengths"] != workers[0].facts["source_lengths"] for w in workers):
        raise ToolError("the systems do not decode the same sentences (--gen-subset?)")
    return {
        "teacher_sha256": next(iter(teachers), None),
        "command": shlex.join(["nar", "benchmark", *argv]),
        "commit": commit(),
        "date": now(),
    }


def check_agreement(workers: Sequence[Worker], sentences: Optional[List[int]]) -> None:
    """Raises ToolError where CTranslate2 does not find fairseq's tokens; the share joins the facts of its system.

    ``sentences``: which are compared; None: all.
    """
    for worker in workers:
        if worker.entrant.engine in COMPUTE_TYPES:
            worker.facts.update(worker.call("agreement", sentences))


def row_of(worker: Worker, measured: Row, common: Row) -> Row:
    """Everything but what compares it with the baselines."""
    entrant, facts = worker.entrant, worker.facts
    return {
        **dict.fromkeys(results.FIELDS),
        **{name: facts[name] for name in ("arch", "size", "width", "device", "updates", "epochs", "seed")},
        **{name: facts.get(name) for name in ("agreement", "compute_type", "engine_version")},
        **{name: getattr(entrant, name) for name in ("id", "train", "converged", "baseline", "engine", "simulated")},
        "decode_flags": entrant.flags,
        **common,
        **measured,
    }


def compare(rows: List[Row], searches: Dict[str, str], competitor: Optional[str] = None) -> None:
    """Fills in what depends on other rows of the run.

    ``searches``: names of the baselines by the ids of their rows; ``competitor``: an id that all are compared with.
    """
    baselines = {searches[row["id"]]: row for row in rows if row["id"] in searches}
    for row in rows:
        ours = row["ms_per_sentence"]
        row["speedups"] = {name: round(b["ms_per_sentence"] / ours, 3) for name, b in baselines.items()}
        row["teacher_bleu"] = baselines["beam5"]["bleu"] if "beam5" in baselines else None
        row["greedy_bleu"] = baselines["greedy"]["bleu"] if "greedy" in baselines else None
        if row["baseline"]:
            row["baseline_ms"] = baselines[row["baseline"]]["ms_per_sentence"]
            row["speedup"] = row["speedups"][row["baseline"]]
    for other in (row for row in rows if row["id"] == competitor):
        for row in rows:
            ratio = round(other["ms_per_sentence"] / row["ms_per_sentence"], 3)
            row.update(competitor=competitor, competitor_ratio=ratio)
            row["competitor_throughput"] = other["throughput"]


def measure_quality(workers: Sequence[Worker], common: Row, references: List[str]) -> Tuple[List[Row], List[List[str]]]:
    """Rows without times, and the hypotheses of each."""
    rows, hypotheses = [], []
    for worker in workers:
        texts, measured = quality_fields(worker.call("decode_all"), references, worker.facts["target_lang"])
        rows.append(row_of(worker, measured, common))
        hypotheses.append(texts)
        print(f"{worker.entrant.id}: BLEU {measured['bleu']}", file=sys.stderr)
    for row, share in zip(rows, as_greedy(workers, hypotheses)):
        row["as_greedy"] = share
    return rows, hypotheses


def as_greedy(workers: Sequence[Worker], hypotheses: List[List[str]]) -> List[Optional[float]]:
    """Of each system whose drafts are verified the % of its sentences that are those of greedy search in this run."""
    known = [texts for worker, texts in zip(workers, hypotheses) if worker.entrant.search == "greedy"]
    if not known:
        return [None] * len(hypotheses)
    shares = [100 * sum(map(str.__eq__, texts, known[0])) / max(1, len(texts)) for texts in hypotheses]
    return [share if worker.facts.get("is_verified") else None for worker, share in zip(workers, shares)]


def unscored(workers: Sequence[Worker], common: Row, length: int) -> List[Row]:
    """Rows without scores or times, of systems whose hypotheses are checked to have ``length`` tokens each."""
    check_lengths(workers, length)
    return [row_of(worker, {}, common) for worker in workers]


def check_lengths(workers: Sequence[Worker], length: int) -> None:
    """Raises ToolError where a hypothesis of a system has not ``length`` tokens and the end symbol.

    Of a system that can be given no length, the source's sets the work, and nothing is asked.
    """
    for worker in workers:
        if not worker.facts["has_length"]:
            continue
        others = set(worker.call("lengths")) - {length + 1}
        if others:
            raise ToolError(f"{worker.entrant.id}: hypotheses of {min(others) - 1} tokens, not of {length}")


def sample(count: int, size: int, seed: int) -> List[int]:
    """Which of ``count`` sentences are timed, in the order of their turns."""
    return random.Random(seed).sample(range(count), count)[:size]


@dataclass(frozen=True)
class Plan:
    """What is timed in a run, and how often; ``sizes``: of batches for the throughput; ``competitor``: an id."""

    sentences: List[int]
    repeats: int
    sizes: Tuple[int, ...] = ()
    competitor: Optional[str] = None


def add_times(rows: List[Row], workers: Sequence[Worker], plan: Plan, noisy: bool) -> None:
    """Times every system on the chosen sentences and fills in its row; ``noisy``: whether others ran before."""
    lengths, chosen = workers[0].facts["source_lengths"], plan.sentences
    warm_up = [chosen[i % len(chosen)] for i in range(clock.WARM_UP)]
    since = None if noisy else clock.cpu_usage(workers)
    timings = clock.measure_times(workers, chosen, warm_up, plan.repeats)
    rates = clock.measure_throughput(workers, chosen, lengths, plan.sizes, plan.repeats)
    if since and clock.cores_of_others(since, workers) > clock.BUSY:
        noisy = True
        print("nar benchmark: the machine did not stay quiet; the rows are marked as noisy", file=sys.stderr)
    for row, worker, found, rate in zip(rows, workers, timings, rates):
        row.update(clock.time_fields(found, [lengths[i] for i in chosen]), noisy=noisy, throughput=rate or None)
        row["compile_s"] = worker.call("compile_seconds")
    compare(rows, {w.entrant.id: w.entrant.search for w in workers if w.entrant.search}, plan.competitor)


def write(output: Path, folder: Path, rows: List[Row], hypotheses: List[List[str]]) -> None:
    """The hypotheses, then the rows that name them, so that an unfinished run changes neither."""
    for row, texts in zip(rows, hypotheses):
        path = folder / f"{row['id']}.txt"
        write_lines(path, texts)
        row.update(hypotheses=f"{folder.name}/{path.name}", hypotheses_sha256=sha256(path))
    results.update(output, rows)
