"""Competitors and throughput: the arithmetic of rows, who is asked for what, the table with its words."""

from pathlib import Path
from typing import Any

import pytest

from nar_tools import cli
from nar_tools.commands import benchmark
from nar_tools.errors import ToolError
from nar_tools.measure import clock, results, runs, throughput
from tests.tools.rows import forced, row


def test_batches_are_sorted_by_length_and_of_one_size_but_for_the_last() -> None:
    lengths = [5, 9, 1, 5, 2]
    assert clock.batches_of([1, 4, 3, 0], lengths, 3) == [[4, 0, 3], [1]]
    assert clock.batches_of([1, 4, 3, 0], lengths, 1) == [[4], [0], [3], [1]]


class RateWorker:
    """Notes its calls; takes so many seconds for all batches, one after the other."""

    def __init__(self, name: str, notes: list[Any], seconds: list[float]) -> None:
        self.name, self.notes, self.seconds = name, notes, iter(seconds)

    def call(self, method: str, batches: list[list[int]]) -> float:
        assert method == "seconds"
        self.notes.append((self.name, len(batches)))
        return next(self.seconds)


def test_throughput_is_of_the_median_of_the_repeats_and_the_systems_take_turns() -> None:
    notes: list[Any] = []
    workers = [RateWorker("A", notes, [4.0, 1.0, 8.0, 2.0, 2.0, 0.5]), RateWorker("B", notes, [1.0] * 6)]
    found = clock.measure_throughput(workers, [0, 1, 2, 3], [1, 2, 3, 4], [1, 4], repeats=3)
    assert found == [{"1": 1.0, "4": 4.0}, {"1": 4.0, "4": 4.0}]
    assert notes == [("A", 4), ("B", 4), ("A", 1), ("B", 1)] * 3


def test_a_competitor_is_what_all_rows_are_compared_with_beside_their_baselines() -> None:
    rows: list[results.Row] = [
        {"id": name, "baseline": None, "ms_per_sentence": ms, "bleu": 30.0, "throughput": rates}
        for name, ms, rates in (("ar-beam5", 60.0, {"1": 2.0}), ("ct2", 15.0, {"1": 8.0}), ("a", 10.0, None))
    ]
    runs.compare(rows, {"ar-beam5": "beam5"}, "ct2")
    assert [one["competitor"] for one in rows] == ["ct2"] * 3
    assert [one["competitor_ratio"] for one in rows] == [0.25, 1.0, 1.5]
    assert [one["speedups"] for one in rows] == [{"beam5": 1.0}, {"beam5": 4.0}, {"beam5": 6.0}]
    assert [one["competitor_throughput"] for one in rows] == [{"1": 8.0}] * 3


def test_without_a_competitor_rows_name_none() -> None:
    rows: list[results.Row] = [{"id": "a", "baseline": None, "ms_per_sentence": 10.0, "bleu": 30.0}]
    runs.compare(rows, {})
    assert "competitor" not in rows[0]


THEIRS = {"1": 10.0, "8": 50.0, "64": 100.0}


def rival(name: str, rates: dict[str, float], **changes: Any) -> results.Row:
    compared = {"competitor": "ct2", "competitor_ratio": 2.0, "competitor_throughput": THEIRS}
    return row(name, **{**compared, "throughput": rates, **changes})


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"1": 40.0, "8": 60.0, "64": 70.0}, "a: at batch 64 already slower than ct2"),
        ({"1": 9.0, "8": 60.0, "64": 70.0}, "a: at batch 1 already slower than ct2"),
        ({"1": 10.0, "8": 60.0, "64": 100.0}, "a: at no size of batch slower than ct2"),
        ({"1": 40.0, "16": 0.1}, "a: at no size of batch slower than ct2"),
    ],
)
def test_words_say_at_which_batch_a_system_falls_behind(rates: dict[str, float], words: str) -> None:
    assert throughput.verdict(rival("a", rates)) == words


def test_the_table_has_a_column_for_each_size_and_the_words_below() -> None:
    rows = [rival("a", {"1": 40.0, "64": 70.0}), rival("ct2", THEIRS, engine="ctranslate2"), row("untimed")]
    lines = throughput.table(rows).split("\n")
    assert lines[0].split() == ["system", "engine", "1", "8", "64"]
    assert lines[1].split() == ["a", "eager", "40.0", "-", "70.0"]
    assert lines[2].split() == ["ct2", "ctranslate2", "10.0", "50.0", "100.0"]
    assert lines[4] == "sentences a second, by sentences in a batch, sorted by length (cpu, threads: 1, size: small)"
    assert lines[5:] == ["a: at batch 64 already slower than ct2"]


def test_noise_and_forced_lengths_are_said() -> None:
    text = throughput.table([forced("a", 25, throughput={"1": 3.0}, noisy=True)])
    assert "a, 25 tokens" in text and "these times mean nothing" in text


def test_the_program_prints_the_table_of_throughput(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [rival("a", THEIRS)]
    results.write(tmp_path / "results.json", rows)
    cli.main(["report", str(tmp_path / "results.json"), "--table", "throughput", "--markdown"])
    assert capsys.readouterr().out == throughput.table(rows, markdown=True) + "\n"


def test_rows_without_throughput_make_no_table() -> None:
    with pytest.raises(ToolError, match=r"^no row has a throughput \(nar benchmark --batch-sizes\)$"):
        throughput.table([row()])


def arguments(*words: str) -> Any:
    return benchmark.parse(["bin", "--reference", "test.en", "--output", "r.json", *words])


def test_batches_are_no_larger_than_the_sample() -> None:
    plan = benchmark.plan_of(arguments("--batch-sizes", "8", "1", "8", "--sentences", "10"), 60)
    assert (len(plan.sentences), plan.sizes, plan.competitor) == (10, (1, 8), None)
    with pytest.raises(ToolError, match=r"^--batch-sizes 64: only 60 sentences are timed \(--sentences\)$"):
        benchmark.plan_of(arguments("--batch-sizes", "1", "64"), 60)


def test_a_competitor_that_is_no_system_of_the_run_is_refused_before_the_work() -> None:
    with pytest.raises(ToolError, match="^--competitor ct2: no system of this run$"):
        benchmark.measured(arguments("--system", "a", "--path a.pt", "--competitor", "ct2"), [])
