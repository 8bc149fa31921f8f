"""Quality and speed of several systems in one run, as rows of results.json (its fields: results.py).

    benchmark.py DATA_BIN --reference test.en --output results.json
        --teacher "--train raw --path teacher.pt --user-dir nar_plugin --task translation_nar"
        --system cmlm-t4 "--train distilled --baseline beam4 --path student.pt --user-dir nar_plugin
                          --task translation_nar --iter-decode-max-iter 3 --iter-decode-with-beam 2"

A system is an id and the flags of fairseq-generate as one would type them, and three more: --train WORDS (what it was
trained on), --baseline NAME (which of the teacher's searches its speed is compared with, by default beam5) and
--curve FILE (of training_curve.py: whether it has converged). --teacher stands for the systems ar-greedy, ar-beam3 and
ar-beam5, and ar-beam4 where it is named. Hypotheses lose subword-nmt's marks and are detokenised by Moses, whatever the
flags say of it.

Every system is a process of its own, and only one of them computes at a time. Each first decodes all sentences in
batches, for the scores. Then all decode the same sample, a sentence at a time, in short turns, A-B-A-B, several times.

With --forced-length N in place of --reference there are no scores, only times: of systems whose flags force N tokens on
every hypothesis, which is checked (--min-len N --max-len-a 0 --max-len-b N for fairseq's own search; for ours
--gold-target-len and references of N tokens).
"""

import argparse
import multiprocessing
import os
import random
import re
import shlex
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

import report
import results
import training_curve
from engine import BenchmarkError, Timing, serve
from files import write_lines
from prepare_text import detokenizer, read_lines
from provenance import commit, now, sha256
from results import ID, Row
from scores import scores

WARM_UP = 10
TURN = 20
"""Sentences that a system decodes before the next one has its turn."""
BUCKET = 10
"""Width of a range of source lengths."""
BUSY = 0.1
"""Processor cores that others may use while a machine counts as quiet."""


@dataclass(frozen=True)
class System:
    id: str
    flags: str
    train: Optional[str]
    baseline: Optional[str]
    converged: Optional[bool]

    @property
    def search(self) -> Optional[str]:
        """Which of the teacher's searches this is, if any: the name of a baseline."""
        found = re.fullmatch(r"ar-(greedy|beam\d+)", self.id)
        return found.group(1) if found else None


class Worker:
    """A system in a process of its own, idle unless called."""

    def __init__(self, system: System, argv: List[str], threads: int) -> None:
        self.system, self.facts = system, {}  # type: System, Dict[str, Any]
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, argv, threads), daemon=True)
        self.process.start()
        theirs.close()

    def answer(self) -> Any:
        try:
            succeeded, value = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            raise BenchmarkError(f"{self.system.id}: its process died with {self.process.exitcode}") from None
        if not succeeded:
            raise BenchmarkError(f"{self.system.id}: {value}")
        return value

    def call(self, method: str, *arguments: Any) -> Any:
        self.pipe.send((method, arguments))
        return self.answer()

    def close(self) -> None:
        self.pipe.close()
        self.process.join(timeout=5)
        self.process.terminate()  # where it still computes
        self.process.join()


def system_of(name: str, words: str) -> System:
    """Takes what is ours from a system's flags. Raises BenchmarkError where a quotation does not end."""
    ours = argparse.ArgumentParser(prog=f"benchmark.py: {name}", add_help=False, allow_abbrev=False)
    ours.add_argument("--train")
    ours.add_argument("--baseline", choices=report.BASELINES)
    ours.add_argument("--curve", type=Path)
    try:
        told, flags = ours.parse_known_args(shlex.split(words))
        converged = training_curve.is_converged(training_curve.load(told.curve)) if told.curve else None
    except (ValueError, OSError) as error:
        raise BenchmarkError(f"{name}: {error}") from None
    return System(name, shlex.join(flags), told.train, told.baseline, converged)


def systems_of(given: Sequence[Sequence[str]], teacher: Optional[str]) -> List[System]:
    """The teacher's searches, if there is a teacher, and the systems that are given. Raises BenchmarkError."""
    systems = [system_of(name, words) for name, words in given]
    if teacher:
        systems = [s if s.search or s.baseline else replace(s, baseline="beam5") for s in systems]
        wanted = {"greedy", "beam3", "beam5", *(s.baseline for s in systems)}
        beams = {name: 1 if name == "greedy" else int(name[4:]) for name in report.BASELINES if name in wanted}
        systems = [system_of(f"ar-{name}", f"{teacher} --beam {beam}") for name, beam in beams.items()] + systems
    if not systems:
        raise BenchmarkError("nothing to measure: give --teacher, --system or both")
    searches = {s.search for s in systems}
    for s in systems:
        if not ID.fullmatch(s.id) or sum(other.id == s.id for other in systems) > 1:
            raise BenchmarkError(f"{s.id!r} is no name, or that of two systems")
        if s.baseline and s.baseline not in searches:
            raise BenchmarkError(f"{s.id}: its baseline {s.baseline} is not measured in this run (--teacher)")
    return systems


def cpu_usage(workers: Sequence[Worker]) -> Tuple[float, float]:
    """Seconds of wall, and of processor used by all but us, since some moment. Linux only: raises BenchmarkError."""
    try:
        ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    except OSError:
        raise BenchmarkError("cannot tell whether the machine is quiet (no /proc/stat): --allow-noise") from None
    busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting for disks
    return time.monotonic(), busy - time.process_time() - sum(worker.call("cpu_seconds") for worker in workers)


def cores_of_others(since: Tuple[float, float], workers: Sequence[Worker]) -> float:
    """How many cores others have used on average, time stolen by other virtual machines included."""
    wall, busy = cpu_usage(workers)
    return (busy - since[1]) / (wall - since[0])


def is_noisy(seconds: float, allowed: bool) -> bool:
    """Watches the machine; raises BenchmarkError where others use it and that is not allowed."""
    try:
        since = cpu_usage([])
        time.sleep(seconds)
        cores = cores_of_others(since, [])
    except BenchmarkError:
        if allowed:
            return True
        raise
    if cores > BUSY and not allowed:
        raise BenchmarkError(f"others use {cores:.1f} cores of this machine; wait until it is quiet, or --allow-noise")
    return cores > BUSY


def measure_times(workers: Sequence[Any], sentences: List[int], warm_up: List[int], repeats: int) -> List[List[Timing]]:
    """For each worker the timings of every sentence, repeats one after the other: (repeats * sentences) each."""
    turns = [sentences[first : first + TURN] for first in range(0, len(sentences), TURN)]
    timings: List[List[Timing]] = [[] for _ in workers]
    for worker in workers:
        worker.call("time", warm_up)
    for _ in range(repeats):
        for turn in turns:
            for worker, found in zip(workers, timings):
                found += worker.call("time", turn)
    return timings


def medians(values: Sequence[float], sentences: int) -> List[float]:
    """Over the repeats, for each sentence."""
    return [statistics.median(values[i::sentences]) for i in range(sentences)]


def by_length(times: List[float], lengths: List[int]) -> Dict[str, float]:
    """The median time of each range of source lengths, shortest first."""
    ranges: Dict[int, List[float]] = {}
    for ms, length in sorted(zip(times, lengths), key=lambda pair: pair[1]):
        ranges.setdefault(max(0, length - 1) // BUCKET, []).append(ms)
    return {f"{n * BUCKET + 1}-{(n + 1) * BUCKET}": round(statistics.median(ms), 3) for n, ms in ranges.items()}


def time_fields(timings: List[Timing], lengths: List[int]) -> Row:
    """The fields of a row that say how long it took; ``lengths``: of the sentences' sources."""
    times, bare = medians([ms for ms, _, _ in timings], len(lengths)), [b for _, _, b in timings if b is not None]
    return {
        "passes": round(statistics.mean(calls for _, calls, _ in timings), 3),
        "ms_per_sentence": round(statistics.median(times), 3),
        "ms_mean": round(statistics.mean(times), 3),
        "ms_p95": round(float(np.percentile(times, 95)), 3),
        "ms_by_length": by_length(times, lengths),
        "bare_ms": round(statistics.median(medians(bare, len(lengths))), 3) if bare else None,
        "timed_sentences": len(lengths),
    }


def repetition(lines: Sequence[str]) -> float:
    """Percentage of tokens that equal their left neighbour."""
    tokens = [line.split() for line in lines]
    repeated = sum(left == right for words in tokens for left, right in zip(words, words[1:]))
    return 100 * repeated / max(1, sum(map(len, tokens)))


def quality_fields(subwords: List[str], references: List[str], lang: str) -> Tuple[List[str], Row]:
    """Detokenised hypotheses, and the fields of a row that say how good they are."""
    texts = list(map(detokenizer(lang), subwords))
    try:
        return texts, {**scores(texts, references), "repetition": round(repetition(subwords), 3)}
    except ValueError as error:
        raise BenchmarkError(str(error)) from None


def common_facts(workers: Sequence[Worker]) -> Row:
    """Fields that all rows of a run share. Raises BenchmarkError for two teachers or different sentences."""
    teachers = {sha256(Path(w.facts["checkpoint"])) for w in workers if w.system.search}
    if len(teachers) > 1:
        raise BenchmarkError("the baselines are not all of one teacher")
    if len({(w.facts["size"], w.facts["device"]) for w in workers}) > 1:
        raise BenchmarkError("the systems are not of one size and on one device: a speed-up would compare the two")
    if any(w.facts["source_lengths"] != workers[0].facts["source_lengths"] for w in workers):
        raise BenchmarkError("the systems do not decode the same sentences (--gen-subset?)")
    return {
        "teacher_sha256": next(iter(teachers), None),
        "command": shlex.join(["scripts/benchmark.py", *sys.argv[1:]]),
        "commit": commit(),
        "date": now(),
    }


def row_of(worker: Worker, measured: Row, common: Row) -> Row:
    """Everything but what compares it with the baselines."""
    system, facts = worker.system, worker.facts
    return {
        **dict.fromkeys(results.FIELDS),
        **{name: facts[name] for name in ("arch", "size", "device", "updates", "epochs", "seed")},
        **{name: getattr(system, name) for name in ("id", "train", "converged", "baseline")},
        "decode_flags": system.flags,
        **common,
        **measured,
    }


def compare(rows: List[Row], searches: Dict[str, str]) -> None:
    """Fills in what depends on the baselines of the run; ``searches``: their names by the ids of their rows."""
    baselines = {searches[row["id"]]: row for row in rows if row["id"] in searches}
    for row in rows:
        ours = row["ms_per_sentence"]
        row["speedups"] = {name: round(b["ms_per_sentence"] / ours, 3) for name, b in baselines.items()}
        row["teacher_bleu"] = baselines["beam5"]["bleu"] if "beam5" in baselines else None
        row["greedy_bleu"] = baselines["greedy"]["bleu"] if "greedy" in baselines else None
        if row["baseline"]:
            row["baseline_ms"] = baselines[row["baseline"]]["ms_per_sentence"]
            row["speedup"] = row["speedups"][row["baseline"]]


def measure_quality(workers: Sequence[Worker], common: Row, references: List[str]) -> Tuple[List[Row], List[List[str]]]:
    """Rows without times, and the hypotheses of each."""
    rows, hypotheses = [], []
    for worker in workers:
        texts, measured = quality_fields(worker.call("decode_all"), references, worker.facts["target_lang"])
        rows.append(row_of(worker, measured, common))
        hypotheses.append(texts)
        print(f"{worker.system.id}: BLEU {measured['bleu']}", file=sys.stderr)
    return rows, hypotheses


def add_times(rows: List[Row], workers: Sequence[Worker], args: argparse.Namespace, noisy: bool) -> None:
    """Times every system and fills in its row; ``noisy``: whether others used the machine before."""
    lengths = workers[0].facts["source_lengths"]
    order = random.Random(args.sample_seed).sample(range(len(lengths)), len(lengths))
    chosen = order[: args.sentences]
    warm_up = [chosen[i % len(chosen)] for i in range(WARM_UP)]
    since = None if noisy else cpu_usage(workers)
    timings = measure_times(workers, chosen, warm_up, args.repeats)
    if since and cores_of_others(since, workers) > BUSY:
        noisy = True
        print("benchmark.py: the machine did not stay quiet; the rows are marked as noisy", file=sys.stderr)
    for row, found in zip(rows, timings):
        row.update(time_fields(found, [lengths[i] for i in chosen]), noisy=noisy)
    compare(rows, {w.system.id: w.system.search for w in workers if w.system.search})


def check_lengths(workers: Sequence[Worker], length: int) -> None:
    """Raises BenchmarkError where a hypothesis of a system has not ``length`` tokens and the end symbol."""
    for worker in workers:
        others = set(worker.call("lengths")) - {length + 1}
        if others:
            raise BenchmarkError(f"{worker.system.id}: hypotheses of {min(others) - 1} tokens, not of {length}")


def write(output: Path, folder: Path, rows: List[Row], hypotheses: List[List[str]]) -> None:
    """The hypotheses, then the rows that name them, so that an unfinished run changes neither."""
    for row, texts in zip(rows, hypotheses):
        path = folder / f"{row['id']}.txt"
        write_lines(path, texts)
        row.update(hypotheses=f"{folder.name}/{path.name}", hypotheses_sha256=sha256(path))
    results.update(output, rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("data", help="folder that fairseq-preprocess wrote")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--reference", type=Path, help="raw text, a line a sentence")
    what.add_argument("--forced-length", type=int, metavar="N", help="no scores; every hypothesis has N tokens")
    add("--output", type=Path, required=True, help="rows are put into this results.json")
    add("--hypotheses", type=Path, metavar="DIR", help="for ID.txt (default: hypotheses/ beside --output)")
    add("--system", nargs=2, action="append", default=[], metavar=("ID", "FLAGS"), help="more than once")
    add("--teacher", metavar="FLAGS", help="without --beam")
    add("--source-lang")
    add("--target-lang")
    add("--batch-size", type=int, default=50, help="for the scores; times are at batch 1")
    add("--sentences", type=int, default=200, help="how many are timed (default 200)")
    add("--sample-seed", type=int, default=1, help="which are timed")
    add("--repeats", type=int, default=3)
    add("--threads", type=int, default=1, help="of each process")
    add("--allow-noise", action="store_true", help="measure even if other processes run, and mark the rows")
    args = parser.parse_args()
    if min(args.batch_size, args.sentences, args.repeats, args.threads) < 1:
        parser.error("--batch-size, --sentences, --repeats and --threads need 1 or more")
    return args


def command_line(system: System, args: argparse.Namespace) -> List[str]:
    """The arguments of fairseq-generate: the system's own flags win, but no sentence may be dropped."""
    langs = {"--source-lang": args.source_lang, "--target-lang": args.target_lang}
    first = [word for flag, lang in langs.items() if lang for word in (flag, lang)]
    batch = ["--batch-size", str(args.batch_size)]
    return [args.data, *first, *batch, *shlex.split(system.flags), "--required-batch-size-multiple", "1"]


def main() -> None:
    args = parse()
    os.environ.update(OMP_NUM_THREADS=str(args.threads), MKL_NUM_THREADS=str(args.threads))
    workers: List[Worker] = []
    try:
        systems = systems_of(args.system, args.teacher)
        references = read_lines(args.reference) if args.reference else None
        noisy = is_noisy(2.0, args.allow_noise)
        workers += [Worker(system, command_line(system, args), args.threads) for system in systems]
        for worker in workers:
            worker.facts = worker.answer()
        common = {**common_facts(workers), "threads": args.threads, "forced_length": args.forced_length}
        hypotheses: List[List[str]] = []
        if references is None:
            check_lengths(workers, args.forced_length)
            rows = [row_of(worker, {}, common) for worker in workers]
        else:
            rows, hypotheses = measure_quality(workers, common, references)
        add_times(rows, workers, args, noisy)
        write(args.output, args.hypotheses or args.output.parent / "hypotheses", rows, hypotheses)
    except (BenchmarkError, results.ResultsError, OSError) as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        for worker in workers:
            worker.close()
    print(report.table(rows))


if __name__ == "__main__":
    main()
