"""The clock: what is timed, in which order, against what; and that a real run agrees with fairseq's own program."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sacrebleu.metrics import BLEU

from nar_plugin.compat import load_checkpoint
from nar_plugin.generators.loop import RefinementGenerator
from nar_tools.commands import benchmark
from nar_tools.errors import ToolError
from nar_tools.measure import clock, entrants, results, runs, timed
from tests import tiny
from tests.end_to_end.programs import PLUGIN, TASK, Outcome, complains, console, succeed, tagged
from tests.tools.conftest import FORCED, VERB


class StubWorker:
    """Notes who was asked for what; answers that sentence i took i ms, and 1 ms more each time."""

    def __init__(self, name: str, notes: list[tuple[str, list[int]]]) -> None:
        self.name, self.notes, self.asked = name, notes, 0

    def call(self, method: str, sentences: list[int]) -> list[timed.Timing]:
        assert method == "time"
        self.notes.append((self.name, sentences))
        self.asked += 1
        return [(float(i + self.asked), 4, None) for i in sentences]


def test_systems_take_turns_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "TURN", 2)
    notes: list[tuple[str, list[int]]] = []
    workers = [StubWorker("A", notes), StubWorker("B", notes)]
    timings = clock.measure_times(workers, [7, 5, 3], [9], repeats=2)
    once = [("A", [7, 5]), ("B", [7, 5]), ("A", [3]), ("B", [3])]
    assert notes == [("A", [9]), ("B", [9]), *once, *once]
    assert [ms for ms, _, _ in timings[0]] == [9.0, 7.0, 6.0, 11.0, 9.0, 8.0], "the warm-up must not be among them"
    assert timings[0] == timings[1]


def test_times_are_medians_over_sentences_of_medians_over_repeats() -> None:
    repeats = [[10.0, 20.0, 30.0], [12.0, 500.0, 31.0], [11.0, 21.0, 1.0]]
    timings: list[timed.Timing] = [(ms, 4 + i, ms / 2) for times in repeats for i, ms in enumerate(times)]
    found = clock.time_fields(timings, [10, 11, 20])
    assert found["ms_per_sentence"] == 21 and found["bare_ms"] == 10.5
    assert found["ms_mean"] == pytest.approx((11 + 21 + 30) / 3, abs=1e-3)
    assert found["ms_p95"] == pytest.approx(29.1)
    assert found["ms_by_length"] == {"1-10": 11.0, "11-20": 25.5}
    assert (found["passes"], found["timed_sentences"]) == (5, 3)


def test_without_forward_passes_of_its_own_a_system_has_no_bare_time() -> None:
    assert clock.time_fields([(3.0, 7, None)], [4])["bare_ms"] is None


def test_repetition_is_the_share_of_tokens_that_equal_their_left_neighbour() -> None:
    assert runs.repetition(["a a b a", "a", ""]) == pytest.approx(100 / 5)
    assert runs.repetition([""]) == 0


def test_shares_of_what_is_repeated() -> None:
    """Within sentences: an n-gram of another sentence is new."""
    assert runs.repeated_ngrams(["a b a b a b", "a b"], 2) == pytest.approx(100 * 3 / 6)
    assert runs.repeated_ngrams(["a b c", ""], 4) == 0
    found = runs.repeats(["a@@ a@@ a b", "b c", "c c"], ["aab", "b c", "c c"], ["a b", "d d", "e"])
    assert found == {
        **{"sentences": round(200 / 3, 3), "words": 20.0, "reference words": 20.0},
        **{"2-grams": 0.0, "3-grams": 0.0, "4-grams": 0.0},
    }


def test_hypotheses_lose_the_marks_of_subwords_and_are_detokenised_before_they_are_scored() -> None:
    texts, fields = runs.quality_fields(["a do@@ g &apos;s bone .", "it runs ."], ["a dog's bone.", "it ran."], "en")
    assert texts == ["a dog's bone.", "it runs."]
    assert fields["bleu"] == round(BLEU().corpus_score(texts, [["a dog's bone.", "it ran."]]).score, 2)
    assert fields["sentences"] == 2 and "tok:13a" in fields["signature"]


def test_other_numbers_of_hypotheses_and_references_are_refused() -> None:
    with pytest.raises(ToolError, match="1 hypotheses for 2 lines"):
        runs.quality_fields(["a"], ["a", "b"], "en")


def test_only_the_outermost_calls_are_recorded_and_the_functions_come_back() -> None:
    made: list[str] = []

    class Model:
        def inner(self, x: int) -> int:
            made.append(f"inner {x}")
            return x

        def outer(self, x: int, *, more: int) -> int:
            made.append(f"outer {x}")
            return self.inner(x + more)

    model = Model()
    with timed.recorded([(model, "outer"), (model, "inner")]) as calls:
        assert model.outer(1, more=1) == 2
        assert model.inner(5) == 5
    assert vars(model) == {}, "the recorders were left in place"
    made.clear()
    timed.replay(calls)
    assert made == ["outer 1", "inner 2", "inner 5"]


def test_the_replay_makes_every_pass_of_a_decode_once() -> None:
    model = tiny.tiny_model()
    generator = RefinementGenerator(model, model.symbols, tiny.options_of(model, iterations=3))
    with timed.recorded(timed.forward_passes([model])) as calls, torch.no_grad():
        generator.generate([model], tiny.sample_of(tiny.random_rows(1, 9, seed=1)))
    names, made = {part.module: name for name, part in model.passes.items()}, list[str]()
    assert [names[call[0].__self__] for call in calls] == ["encode"] + ["decode", "project"] * 4  # type: ignore[attr-defined]
    for stack in ("encoder", "decoder"):
        getattr(model, stack).register_forward_hook(lambda *_, stack=stack: made.append(stack))
    timed.replay(calls)
    assert made == ["encoder"] + ["decoder"] * 4 and generator.counters.calls == {"encoder": 1, "decoder": 4}


def test_options_of_a_system_that_are_not_the_programs_leave_its_flags() -> None:
    found = entrants.entrant_of("a", "--path 'my file.pt' --train 'distilled twice' --beam 2 --baseline beam4 --cpu")
    assert (found.train, found.baseline, found.converged) == ("distilled twice", "beam4", None)
    assert found.flags == "--path 'my file.pt' --beam 2 --cpu" and found.engine == "eager"


def test_flags_that_no_shell_could_read_are_refused() -> None:
    with pytest.raises(ToolError, match="a: No closing quotation"):
        entrants.entrant_of("a", "--path 'my file.pt")


def test_a_teacher_is_searched_in_three_ways_and_those_that_systems_name() -> None:
    systems = entrants.entrants_of([("a", "--path a.pt --baseline beam4"), ("b", "--path b.pt")], "--path t.pt")
    flags = {s.id: s.flags for s in systems if s.search}
    assert flags == {
        "ar-greedy": "--path t.pt --beam 1",
        "ar-beam3": "--path t.pt --beam 3",
        "ar-beam4": "--path t.pt --beam 4",
        "ar-beam5": "--path t.pt --beam 5",
    }
    assert [s.baseline for s in systems] == [None] * 4 + ["beam4", "beam5"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([], "nothing to measure"),
        ([("a", ""), ("a", "")], "that of two systems"),
        ([("../a", "")], "no name"),
        ([("a", "--baseline beam4")], "beam4 is not measured in this run"),
        ([("a", "--engine onnx")], "a: argument --engine: invalid choice: 'onnx'"),
        ([("ar-beam5", "--engine ctranslate2")], "ar-beam5 is fairseq's own search"),
    ],
)
def test_a_wrong_choice_of_systems_is_refused(given: list[tuple[str, str]], complaint: str) -> None:
    with pytest.raises(ToolError, match=complaint):
        entrants.entrants_of(given, None)


def test_speeds_are_over_the_searches_of_the_same_run() -> None:
    rows = [
        {"id": name, "baseline": baseline, "ms_per_sentence": ms, "bleu": bleu}
        for name, baseline, ms, bleu in (
            ("ar-greedy", None, 30.0, 34.0),
            ("ar-beam5", None, 60.0, 35.0),
            ("a", "beam5", 20.0, 33.0),
        )
    ]
    runs.compare(rows, {"ar-greedy": "greedy", "ar-beam5": "beam5"})
    assert rows[2]["speedups"] == {"greedy": 1.5, "beam5": 3.0}
    assert (rows[2]["baseline_ms"], rows[2]["speedup"]) == (60.0, 3.0)
    assert (rows[2]["greedy_bleu"], rows[2]["teacher_bleu"]) == (34.0, 35.0)
    assert "speedup" not in rows[1] and rows[1]["speedups"] == {"greedy": 0.5, "beam5": 1.0}


def loaded(name: str, checkpoint: Path, lengths: list[int], size: str = "small") -> Any:
    """A worker that has told its facts."""
    facts = {"checkpoint": str(checkpoint), "source_lengths": lengths, "size": size, "device": "cpu"}
    return SimpleNamespace(entrant=entrants.entrant_of(name, ""), facts=facts)


def test_two_teachers_in_one_run_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    workers = [loaded("ar-greedy", tmp_path / "a", [3]), loaded("ar-beam5", tmp_path / "b", [3])]
    with pytest.raises(ToolError, match="not all of one teacher"):
        runs.common_facts(workers, [])
    workers[1] = loaded("cmlm-t4", tmp_path / "b", [3])
    assert runs.common_facts(workers, [])["teacher_sha256"] == hashlib.sha256(b"a").hexdigest()


def test_models_of_two_sizes_in_one_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="not of one size"):
        runs.common_facts([loaded("a", tmp_path, [3]), loaded("b", tmp_path, [3], "base")], [])


def test_few_sentences_are_warmed_up_as_long_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(clock, "cpu_usage", lambda workers: (0.0, 0.0))
    monkeypatch.setattr(clock, "cores_of_others", lambda since, workers: 0.0)
    worker: Any = StubWorker("A", [])
    worker.entrant, worker.facts = entrants.entrant_of("a", ""), {"source_lengths": [5, 6, 7]}
    answer = {"time": worker.call, "compile_seconds": lambda method: 4.5}
    worker.call = lambda method, *words: asked.append(words) or answer[method](method, *words)
    rows: list[results.Row] = [{"id": "a", "baseline": None}]
    runs.add_times(rows, [worker], runs.Plan(runs.sample(3, 2, seed=1), repeats=1), noisy=False)
    (warm_up,), (timed,), nothing = asked
    assert len(warm_up) == clock.WARM_UP and set(warm_up) == set(timed) and len(timed) == 2 and not nothing
    assert (rows[0]["timed_sentences"], rows[0]["throughput"], rows[0]["compile_s"]) == (2, None, 4.5)


def test_the_time_of_a_compiler_is_that_of_the_system_that_called_it() -> None:
    """A compiled system would else make the machine look busy."""
    system = timed.Timed.__new__(timed.Timed)
    before = system.cpu_seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
    assert system.cpu_seconds() - before >= 0.45, "it is counted in hundredths of a second"


def test_systems_that_decode_other_sentences_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="do not decode the same sentences"):
        runs.common_facts([loaded("a", tmp_path, [3]), loaded("b", tmp_path, [4])], [])


def busy_machine(monkeypatch: pytest.MonkeyPatch, cores: float) -> None:
    """Others use so many cores from now on."""
    moments = iter([(100.0, 50.0), (102.0, 50.0 + 2 * cores)])
    monkeypatch.setattr(clock, "cpu_usage", lambda workers: next(moments))


@pytest.mark.parametrize(("cores", "allowed", "noisy"), [(0.02, False, False), (0.02, True, False), (1.5, True, True)])
def test_noise_that_is_allowed_marks_the_rows(
    monkeypatch: pytest.MonkeyPatch, cores: float, allowed: bool, noisy: bool
) -> None:
    busy_machine(monkeypatch, cores)
    assert clock.is_noisy(0.0, allowed) is noisy


def test_a_busy_machine_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    busy_machine(monkeypatch, 1.5)
    with pytest.raises(ToolError, match=r"^others use 1\.5 cores .*--allow-noise$"):
        clock.is_noisy(0.0, False)


def test_a_machine_that_cannot_be_watched_counts_as_noisy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(clock, "Path", lambda name: tmp_path / "nothing")
    assert clock.is_noisy(0.0, True)
    with pytest.raises(ToolError, match="no /proc/stat"):
        clock.is_noisy(0.0, False)


def test_our_own_processes_are_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = clock.os.sysconf("SC_CLK_TCK")
    stat = f"cpu {10 * ticks} 0 {2 * ticks} {900 * ticks} {7 * ticks} 0 0 {3 * ticks} 0 0\ncpu0 ..."
    monkeypatch.setattr(clock, "Path", lambda name: SimpleNamespace(read_text=lambda: stat))
    monkeypatch.setattr(clock.time, "process_time", lambda: 1.0)
    workers: Any = [SimpleNamespace(call=lambda method: 4.0)] * 2
    assert clock.cpu_usage(workers)[1] == pytest.approx(10 + 2 + 3 - 1 - 4 - 4)


class LengthsWorker:
    def __init__(self, name: str, lengths: list[int]) -> None:
        self.entrant, self.lengths, self.facts = SimpleNamespace(id=name), lengths, {"has_length": True}

    def call(self, method: str) -> list[int]:
        assert method == "lengths"
        return self.lengths


def test_a_forced_length_is_checked_for_every_system() -> None:
    good: Any = LengthsWorker("good", [11, 11])
    runs.check_lengths([good], 10)
    bad: Any = LengthsWorker("bad", [11, 9])
    with pytest.raises(ToolError, match="^bad: hypotheses of 8 tokens, not of 10$"):
        runs.check_lengths([good, bad], 10)
    bad.facts = {"has_length": False}  # what can be given no length is not asked for one
    runs.check_lengths([good, bad], 10)


def test_a_curve_says_whether_a_system_has_converged(tmp_path: Path) -> None:
    curve = tmp_path / "curve.json"
    for bleus, converged in (([9, 1, 1, 1, 1, 1], True), ([1, 9], False), ([], None)):
        curve.write_text(json.dumps([{"epoch": i, "bleu": bleu} for i, bleu in enumerate(bleus)]))
        assert entrants.entrant_of("a", f"--curve {curve}").converged is converged
    assert entrants.entrant_of("a", "--path x").converged is None
    for told in ("nothing.json", str(tmp_path)):
        with pytest.raises(ToolError, match="^a: "):
            entrants.entrant_of("a", f"--curve {told}")


def run(data: Path, reference: Path, output: Path, *more: Any) -> Outcome:
    return console([*VERB, "benchmark", data, "--reference", reference, "--output", output, "--allow-noise", *more])


@pytest.mark.slow
def test_a_run_gives_checked_rows_with_the_hypotheses_of_the_program(
    data: Path, corpus: Path, student: Path, teacher: Path, tmp_path: Path
) -> None:
    ours, decode = f"--user-dir {PLUGIN} --task translation_nar", "--iter-decode-max-iter 3 --iter-decode-with-beam 2"
    output = tmp_path / "results.json"
    options = ["--teacher", f"--train raw --path {teacher} {ours}", "--repeats", 1]
    done = run(data, corpus / "test.tgt", output, *options, "--system", "cmlm-t4", f"--path {student} {ours} {decode}")
    assert done.code == 0, done.stderr
    rows = {row["id"]: row for row in results.read(output)}
    assert list(rows) == ["ar-greedy", "ar-beam3", "ar-beam5", "cmlm-t4"]
    row, greedy = rows["cmlm-t4"], rows["ar-greedy"]
    assert (row["passes"], row["sentences"], row["timed_sentences"]) == (4, 60, 60)
    trained = load_checkpoint(str(student))["optimizer_history"][-1]["num_updates"]
    assert (row["arch"], row["updates"], row["seed"]) == ("mask_predict_tiny", trained, 1)
    assert (greedy["arch"], greedy["train"], greedy["bare_ms"]) == ("transformer", "raw", None)
    words = (tmp_path / greedy["hypotheses"]).read_text().split()
    assert greedy["passes"] == pytest.approx(len(words) / 60 + 1, abs=1e-3), "one call a word and one for the end"
    assert 0 < row["bare_ms"] and row["baseline_ms"] == rows["ar-beam5"]["ms_per_sentence"]
    assert row["teacher_sha256"] == hashlib.sha256(teacher.read_bytes()).hexdigest()

    text = (tmp_path / row["hypotheses"]).read_bytes()
    assert hashlib.sha256(text).hexdigest() == row["hypotheses_sha256"]
    moses = ("--tokenizer", "moses", "--source-lang", "src", "--target-lang", "tgt")
    printed = succeed("fairseq-generate", data, *TASK, "--path", student, *decode.split(), *moses)
    hypotheses = text.decode().split("\n")[:-1]
    references = (corpus / "test.tgt").read_text().split("\n")[:-1]
    assert row["bleu"] == round(BLEU().corpus_score(hypotheses, [references]).score, 2)
    assert hypotheses == [text for _, (_, text) in sorted(tagged(printed, "D"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--path nothing.pt", "a: Model file not found: nothing.pt"),
        ("--path nothing.pt --no-such-flag", "unrecognized arguments: --no-such-flag"),
        ("", "--path is missing"),
        ("--path {student} --score-reference", "not measured here"),
        ("--path {student} --gen-subset test1", "60 lines for 9 sentences"),
    ],
)
def test_a_system_that_cannot_be_measured_ends_the_run_with_one_line(
    data: Path, corpus: Path, student: Path, tmp_path: Path, flags: str, complaint: str
) -> None:
    words = f"--user-dir {PLUGIN} --task translation_nar {flags.format(student=student)}"
    done = run(data, corpus / "test.tgt", tmp_path / "results.json", "--system", "a", words)
    complains(done, "nar benchmark: ", complaint)
    assert done.code == 2
    assert not (tmp_path / "results.json").exists()


@pytest.mark.slow
def test_times_of_a_forced_length_have_no_scores(joined: Path, student: Path, teacher: Path, tmp_path: Path) -> None:
    ours, output = f"--user-dir {PLUGIN} --task translation_nar", tmp_path / "results.json"
    systems = ("--teacher", f"--path {teacher} {ours} {FORCED.format(7)}", "--repeats", 1, "--allow-noise")
    cmlm = ("--system", "cmlm-t4", f"--path {student} {ours} --iter-decode-max-iter 3 --gold-target-len")
    done = console([*VERB, "benchmark", joined, "--forced-length", 7, "--output", output, *systems, *cmlm])
    assert done.code == 0, done.stderr
    rows = {row["id"]: row for row in results.read(output)}
    assert list(rows) == ["ar-greedy", "ar-beam3", "ar-beam5", "cmlm-t4"]
    for row in rows.values():
        assert row["forced_length"] == 7 and row["bleu"] is None and row["hypotheses"] is None
        assert row["timed_sentences"] == 4 and row["ms_per_sentence"] > 0 and row["speedups"]["beam5"] > 0
    assert rows["ar-greedy"]["passes"] == 8 and rows["cmlm-t4"]["passes"] == 4
    assert not (tmp_path / "hypotheses").exists()


def test_of_several_lengths_each_run_has_its_own_data_flags_and_number_of_sentences() -> None:
    words = ["--teacher", "--min-len LENGTH", "--system", "a", "--path a.pt --max-len-b LENGTH", "--output", "r.json"]
    args = benchmark.parse(["joined/LENGTH/bin", "--forced-length", "10", "250", "1000", *words])
    runs = [benchmark.at_length(args, length) for length in args.forced_length]
    assert [run.data for run in runs] == ["joined/10/bin", "joined/250/bin", "joined/1000/bin"]
    assert [run.sentences for run in runs] == [20, 8, 3]
    assert runs[1].teacher == "--min-len 250" and runs[1].system == [("a", "--path a.pt --max-len-b 250")]
    assert [run.forced_length for run in runs] == [10, 250, 1000]
    assert args.data == "joined/LENGTH/bin", "the arguments of one run are not those of the next"


@pytest.mark.slow
def test_a_system_that_does_not_heed_the_forced_length_ends_the_run(
    joined: Path, teacher: Path, tmp_path: Path
) -> None:
    words = f"--user-dir {PLUGIN} --task translation_nar --path {teacher} {FORCED.format(6)}"
    options = ("--output", tmp_path / "results.json", "--allow-noise", "--system", "a", words)
    done = console([*VERB, "benchmark", joined, "--forced-length", 7, *options])
    complains(done, "nar benchmark: ", "a: hypotheses of 6 tokens, not of 7")
    assert not (tmp_path / "results.json").exists()
