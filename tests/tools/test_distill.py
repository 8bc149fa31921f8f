"""Distillation: the teacher's own words, a line for each line, whatever the shards and however often it was begun."""

import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import pytest

from nar_tools import cli
from nar_tools.errors import ToolError
from nar_tools.jobs import distilled, shards
from tests.conftest import toy_pairs, write_pairs
from tests.end_to_end.programs import PLUGIN, ROOT, TASK, Outcome, console, hypotheses, script, succeed

SCRIPT = ROOT / "scripts" / "distill.sh"
NAR = script("nar")
SEARCH = ("--beam", 3, "--lenpen", 0.8, "--nbest", 2, "--max-tokens", 150)
LONG, SILENT = 17, 40
"""Lines of the text: a source beyond the teacher's positions, and a target without words."""
GENERATE = """#!/usr/bin/env bash
[[ $* =~ --distributed-rank\\ ([0-9]+) ]] && rank=${BASH_REMATCH[1]}
echo "$rank" >>"$CALLS"
echo "$rank on ${CUDA_VISIBLE_DEVICES:-}" >>"$CALLS.gpu"
if [[ $rank == "${HANG:-}" ]]; then
  head -n 4 "$ANSWERS/$rank.txt"
  echo $$ >"$CALLS.pid"
  exec sleep 100
fi
if [[ $rank == "${BREAK:-}" ]]; then
  head -n 4 "$ANSWERS/$rank.txt"
  echo "RuntimeError: out of memory" >&2
  exit 1
fi
if [[ $rank == "${VANISH:-}" ]]; then
  kill -9 $$
fi
echo "T-0 what nobody keeps"
cat "$ANSWERS/$rank.txt"
"""
"""A fairseq-generate that repeats what the real one said, and writes down which shard was asked."""
VERB = """
import sys
from nar_tools import cli
from nar_tools.commands import distill
sys.executable = {python!r}  # the programs of fairseq are looked for beside it
distill.check = lambda *_: None  # imports fairseq, in seconds
cli.main(["distill", *sys.argv[1:]])
"""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hashes(folder: Path) -> Dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def lines(path: Path) -> List[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


@pytest.fixture(scope="session")
def shelf(corpus: Path, data: Path, once: Any) -> Path:
    """A small set: the text ``train`` and ``valid``, and the same binarised in ``bin`` with the toy's dictionaries."""

    def make(folder: Path) -> None:
        pairs = toy_pairs(90, 77)
        pairs[LONG] = ("bana " * 1100).strip(), pairs[LONG][1]
        pairs[SILENT] = pairs[SILENT][0], ""
        write_pairs(folder / "train", pairs)
        write_pairs(folder / "valid", toy_pairs(5, 78))
        texts = ("--trainpref", folder / "train", "--validpref", folder / "valid", "--testpref", folder / "valid")
        dictionaries = ("--srcdict", data / "dict.src.txt", "--tgtdict", data / "dict.tgt.txt")
        languages = ("--source-lang", "src", "--target-lang", "tgt", "--destdir", folder / "bin")
        succeed("fairseq-preprocess", "--user-dir", PLUGIN, *texts, *dictionaries, *languages)

    return once("shelf", make)


def arguments(shelf: Path, teacher: Path, output: Path, *more: Any) -> List[str]:
    texts = ("--source-text", shelf / "train", "--target-text", shelf / "train.tgt")
    files = ("--data", shelf / "bin", "--teacher", teacher, "--output", output)
    languages = ("--source-lang", "src", "--target-lang", "tgt")
    return [str(word) for word in (*files, *languages, *texts, *SEARCH, *more)]


@pytest.fixture(scope="session")
def real(shelf: Path, teacher: Path, once: Any) -> Path:
    """``out`` is what the toy's teacher wrote in three shards; ``before`` holds the hashes of the data before it."""

    def make(folder: Path) -> None:
        (folder / "before").write_text(json.dumps([hashes(shelf), hashes(shelf / "bin")]))
        words = arguments(shelf, teacher, folder / "out", "--shards", 3, "--teacher-bleu", "99.9, toy")
        outcome = console(["bash", SCRIPT, *words])
        assert outcome.code == 0, outcome.stderr

    return once("distilled", make)


@pytest.fixture(scope="module")
def said(shelf: Path, teacher: Path) -> Outcome:
    """What fairseq-generate says of all in one process."""
    options = ("--gen-subset", "train", "--skip-invalid-size-inputs-valid-test", "--required-batch-size-multiple", 1)
    return succeed("fairseq-generate", shelf / "bin", *TASK, *options, *SEARCH, "--path", teacher)


def best_of(outcome: Outcome) -> Dict[int, str]:
    """The first hypothesis of each sentence."""
    best: Dict[int, str] = {}
    for hypothesis in hypotheses(outcome):
        best.setdefault(hypothesis.id, hypothesis.text)
    return best


def manifest(folder: Path) -> Dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def test_each_source_has_what_fairseq_generate_says_of_it_in_the_order_of_the_text(
    real: Path, shelf: Path, said: Outcome
) -> None:
    assert (real / "out" / "train.src").read_bytes() == (shelf / "train.src").read_bytes()
    answers, originals = best_of(said), lines(shelf / "train.tgt")
    assert sorted(answers) == [i for i in range(90) if i != LONG]
    assert lines(real / "out" / "train.tgt") == [answers.get(i, originals[i]) for i in range(90)]
    assert all(answers.values()) and sum(answers[i] != originals[i] for i in answers) > 1


def test_a_line_over_the_limits_keeps_its_target_and_is_counted(real: Path, shelf: Path) -> None:
    assert lines(real / "out" / "train.tgt")[LONG] == lines(shelf / "train.tgt")[LONG]
    assert manifest(real / "out")["counts"] == {"lines": 90, "distilled": 89, "restored": {"skipped": 1}}


def test_all_hypotheses_are_kept_best_first_in_the_order_of_the_text(real: Path, said: Outcome) -> None:
    with gzip.open(real / "out" / "nbest.gz", "rt", encoding="utf-8") as file:
        found = [line.rstrip("\n").split(" ||| ") for line in file]
    assert [int(id) for id, _, _ in found] == [i for i in range(90) if i != LONG for _ in range(2)]
    scores = [float(score) for _, _, score in found]
    assert all(first >= second for first, second in zip(scores[::2], scores[1::2], strict=True))
    expected = sorted(hypotheses(said), key=lambda hypothesis: hypothesis.id)  # stable: the ranks stay
    assert [text for _, text, _ in found] == [hypothesis.text for hypothesis in expected]
    assert scores == pytest.approx([hypothesis.score for hypothesis in expected], abs=1e-4)


def test_the_manifest_says_how_it_was_made_with_the_hashes_of_the_files(real: Path, shelf: Path, teacher: Path) -> None:
    about = manifest(real / "out")
    assert about["teacher"] == {str(teacher): sha256(teacher)}
    assert about["inputs_sha256"] == {str(path): sha256(path) for path in (shelf / "train.src", shelf / "train.tgt")}
    assert about["outputs_sha256"] == {n: sha256(real / "out" / n) for n in ("train.src", "train.tgt", "nbest.gz")}
    told = [about[name] for name in ("split", "languages", "beam", "lenpen", "nbest", "teacher_bleu")]
    assert told == ["train", ["src", "tgt"], 3, 0.8, 2, "99.9, toy"]
    assert about["command"].startswith("nar distill --data ")
    assert about["command"].endswith("--shards 3 --teacher-bleu '99.9, toy'")
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?|unknown", about["commit"])


def test_the_data_and_the_text_stay_as_they_were(real: Path, shelf: Path) -> None:
    assert json.loads((real / "before").read_text()) == [hashes(shelf), hashes(shelf / "bin")]
    names = sorted(path.name for path in (real / "out").iterdir() if path.is_file())
    assert names == ["manifest.json", "nbest.gz", "train.src", "train.tgt"], "nothing of valid or test, nothing else"


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_other_shards_give_the_same_text(count: int, real: Path, shelf: Path, teacher: Path, tmp_path: Path) -> None:
    outcome = console([NAR, "distill", *arguments(shelf, teacher, tmp_path, "--shards", count, "--jobs", 1)])
    assert outcome.code == 0, outcome.stderr
    for name in ("train.src", "train.tgt"):
        assert (tmp_path / name).read_bytes() == (real / "out" / name).read_bytes()


@pytest.mark.slow
def test_there_may_be_more_shards_than_batches(shelf: Path, real: Path, teacher: Path, tmp_path: Path) -> None:
    outcome = console([NAR, "distill", *arguments(shelf, teacher, tmp_path, "--shards", 2, "--max-tokens", 8000)])
    assert outcome.code == 0, outcome.stderr
    assert lines(tmp_path / "train.tgt") == lines(real / "out" / "train.tgt")


@pytest.mark.slow
def test_one_hypothesis_needs_no_file_of_its_own(shelf: Path, teacher: Path, tmp_path: Path) -> None:
    outcome = console([NAR, "distill", *arguments(shelf, teacher, tmp_path, "--nbest", 1, "--shards", 1)])
    assert outcome.code == 0, outcome.stderr
    assert not (tmp_path / "nbest.gz").exists() and manifest(tmp_path)["outputs_sha256"].keys() == {
        "train.src",
        "train.tgt",
    }


class Stubbed:
    """nar distill with a fairseq-generate of our own."""

    def __init__(self, folder: Path, words: Callable[..., List[str]], answers: Path) -> None:
        self.folder, self.words, self.answers = folder, words, answers
        self.output, self.calls = folder / "out", folder / "calls"
        (folder / "bin").mkdir()
        (folder / "bin" / "fairseq-generate").write_text(GENERATE)
        (folder / "bin" / "fairseq-generate").chmod(0o755)

    def start(self, *more: Any, stderr: int = subprocess.PIPE, **variables: Any) -> subprocess.Popen:
        self.calls.write_text("")
        verb = VERB.format(python=str(self.folder / "bin" / "python"))
        told = {"CALLS": self.calls, "ANSWERS": self.answers, **variables}
        return subprocess.Popen(
            [sys.executable, "-c", verb, *self.words(self.output, "--shards", 3, *more)],
            env={**os.environ, **{name: str(value) for name, value in told.items()}},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def run(self, *more: Any, **variables: Any) -> Outcome:
        process = self.start(*more, **variables)
        stdout, stderr = process.communicate(timeout=120)
        return Outcome(process.returncode, stdout, stderr)

    def asked(self) -> List[str]:
        return sorted(lines(self.calls))

    def shard(self, number: int) -> Path:
        (path,) = self.output.glob(f"parts-*/{number}.txt")
        return path


@pytest.fixture
def stubbed(real: Path, shelf: Path, teacher: Path, tmp_path: Path) -> Stubbed:
    """A distillation that was done before."""
    shutil.copytree(real / "out", tmp_path / "out")
    (parts,) = (real / "out").glob("parts-*")
    return Stubbed(tmp_path, lambda output, *more: arguments(shelf, teacher, output, *more), parts)


def assert_as_real(stubbed: Stubbed, real: Path) -> None:
    for name in ("train.src", "train.tgt"):
        assert (stubbed.output / name).read_bytes() == (real / "out" / name).read_bytes()
    assert manifest(stubbed.output)["counts"] == manifest(real / "out")["counts"]


def test_what_was_done_is_not_done_again(stubbed: Stubbed, real: Path) -> None:
    outcome = stubbed.run()
    assert outcome.code == 0 and stubbed.asked() == [], outcome.stderr
    assert outcome.stdout.count("done before") == 3
    assert_as_real(stubbed, real)


def without_its_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def without_an_answer(path: Path) -> None:
    kept = lines(path)
    last = kept[-2].split("\t")[0]
    path.write_text("".join(line + "\n" for line in kept if not line.startswith(last + "\t")), encoding="utf-8")


@pytest.mark.parametrize("harm", [without_its_end, without_an_answer, Path.unlink, lambda path: path.write_text("")])
def test_a_shard_that_is_not_whole_is_done_again_and_no_other(
    harm: Callable[[Path], Any], stubbed: Stubbed, real: Path
) -> None:
    harm(stubbed.shard(1))
    for name in ("train.tgt", "manifest.json"):
        (stubbed.output / name).unlink()
    before = [stubbed.shard(number).stat().st_mtime_ns for number in (0, 2)]
    outcome = stubbed.run()
    assert outcome.code == 0 and stubbed.asked() == ["1"], outcome.stderr
    assert [stubbed.shard(number).stat().st_mtime_ns for number in (0, 2)] == before
    assert_as_real(stubbed, real)


@pytest.mark.parametrize(
    "more",
    [
        ("--lenpen", 2),
        pytest.param(("--beam", 4), marks=pytest.mark.slow),
        pytest.param(("--", "--sampling"), marks=pytest.mark.slow),
    ],
)
def test_another_search_does_all_shards_again_and_leaves_the_first_alone(more: Sequence[Any], stubbed: Stubbed) -> None:
    assert stubbed.run(*more).code == 0 and stubbed.asked() == ["0", "1", "2"]
    assert stubbed.run().code == 0 and stubbed.asked() == []


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def waited_for(condition: Callable[[], Any], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


@pytest.mark.parametrize("end", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_stops_its_teacher_and_goes_on_when_called_again(
    end: int, stubbed: Stubbed, real: Path
) -> None:
    shutil.rmtree(stubbed.output)
    process = stubbed.start("--jobs", 1, HANG=1)
    pid_file = Path(f"{stubbed.calls}.pid")
    assert waited_for(lambda: pid_file.exists() and pid_file.read_text()), "the second shard never began"
    process.send_signal(end)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert waited_for(lambda: not is_alive(int(pid_file.read_text())), 10), "the teacher runs on"
    assert not (stubbed.output / "manifest.json").exists() and not (stubbed.output / "train.tgt").exists()
    assert stubbed.run("--jobs", 1).code == 0 and stubbed.asked() == ["1", "2"]
    assert_as_real(stubbed, real)


def test_machines_share_the_shards_and_the_last_one_puts_them_together(stubbed: Stubbed, real: Path) -> None:
    shutil.rmtree(stubbed.output)
    first = stubbed.run("--machine", "1/2")
    assert first.code == 0 and stubbed.asked() == ["1"]
    assert "shard 0 is not: another machine's" in first.stdout and not (stubbed.output / "manifest.json").exists()
    assert stubbed.run("--machine", "0/2").code == 0 and stubbed.asked() == ["0", "2"]
    assert_as_real(stubbed, real)
    assert stubbed.run("--machine", "1/2").code == 0 and stubbed.asked() == []


def test_shards_that_run_at_once_are_spread_over_the_gpus(stubbed: Stubbed) -> None:
    shutil.rmtree(stubbed.output)
    assert stubbed.run("--gpus", 2, "--jobs", 3).code == 0
    assert sorted(lines(Path(f"{stubbed.calls}.gpu"))) == ["0 on 0", "1 on 1", "2 on 0"]


def test_only_the_gpus_that_are_ours_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for ours, count, expected in (("5,3", 2, ["5", "3"]), ("5,3", 1, ["5"]), ("5", 2, ["5", "1"]), ("", 2, ["0", "1"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ours)
        assert shards.gpus(count) == expected
    assert shards.gpus(0) == [] and "CUDA_VISIBLE_DEVICES" in shards.surroundings(0, [])


def test_a_shard_that_fails_ends_with_its_reason_in_one_line_and_writes_nothing(stubbed: Stubbed) -> None:
    shutil.rmtree(stubbed.output)
    outcome = stubbed.run(BREAK=1)
    assert outcome.code == 2 and outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith("nar distill: shard 1 failed: RuntimeError: out of memory (all of it: ")
    assert [path.name[:6] for path in stubbed.output.iterdir()] == ["parts-"]
    assert stubbed.run().code == 0 and "0" not in stubbed.asked(), "the shard that was whole is kept"


def test_a_shard_that_fails_takes_none_with_it_that_ran_beside_it(stubbed: Stubbed) -> None:
    shutil.rmtree(stubbed.output)
    assert stubbed.run("--jobs", 3, BREAK=0).code == 2
    assert stubbed.run().code == 0 and stubbed.asked() == ["0"]


def test_a_teacher_that_is_killed_without_a_word_is_said_to_be(stubbed: Stubbed) -> None:
    shutil.rmtree(stubbed.output)
    outcome = stubbed.run(VANISH=0)
    assert outcome.code == 2 and "shard 0 failed: fairseq-generate ended with status -9 (" in outcome.stderr


def test_a_teacher_whose_caller_is_killed_outright_keeps_the_lock_while_it_lives(stubbed: Stubbed) -> None:
    shutil.rmtree(stubbed.output)
    first, pid_file = stubbed.start("--jobs", 1, HANG=0), Path(f"{stubbed.calls}.pid")
    assert waited_for(lambda: pid_file.exists() and pid_file.read_text())
    first.kill()
    first.communicate(timeout=30)
    refused = stubbed.run("--jobs", 1)
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    assert refused.code == 2 and "another call is at work" in refused.stderr
    assert waited_for(lambda: not is_alive(int(pid_file.read_text())))
    assert stubbed.run().code == 0


def test_progress_is_lines_on_stdout_and_on_a_terminal_a_bar(stubbed: Stubbed) -> None:
    shutil.rmtree(stubbed.output)
    said = stubbed.run("--jobs", 1).stdout.split("\n")
    assert [line for line in said if " of 90 lines" in line][-1] == "nar distill: 89 of 90 lines"
    assert said[0] == "nar distill: shards 0 of 3 begin" and not any("T-0" in line for line in said)
    shutil.rmtree(stubbed.output)
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = stubbed.start("--jobs", 1, stderr=theirs)
    os.close(theirs)
    stdout, _ = process.communicate(timeout=60)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert process.returncode == 0 and "89/90" in shown
    assert "shards 0 of 3 begin" in stdout and " of 90 lines" not in stdout


def test_sources_are_counted_once_wherever_a_reading_ends(tmp_path: Path) -> None:
    heard, part = shards.Heard(tmp_path), tmp_path / "0.part"
    said = b"S-4\tone S-5\nH-4\t-1\tone\nS-6\ttwo\nH-6\t-1\ttwo\n"
    for end in range(len(said) + 1):
        part.write_bytes(said[:end])
        expected = said[:end].startswith(b"S-") + said[:end].count(b"\nS-")
        assert heard.count() == expected
    part.replace(tmp_path / "0.txt")
    (tmp_path / "1.txt").write_bytes(said)
    assert heard.count() == 4
    (tmp_path / "1.part").write_bytes(b"S-4\t")
    assert heard.count() == 3, "a shard that is done again is not counted twice"


def test_a_shard_without_a_batch_is_whole_and_one_that_failed_is_not(tmp_path: Path) -> None:
    shard = shards.Shard(tmp_path, 0)
    silent = "print('Generate train with beam=5: nothing to score')"
    for words, failure in ((silent, None), ("import sys; sys.exit('no memory')", "shard 0 failed: no memory (")):
        with shards.locked(tmp_path, 0) as lock:
            shard.start([sys.executable, "-c", words], dict(os.environ), lock)
        assert waited_for(lambda: shard.is_read_after(1))
        assert str(shard.settle()).startswith(str(failure)) and shards.is_whole(shard.done)


def test_a_program_that_is_nowhere_is_missed_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="^fairseq-generate is neither beside .* nor on PATH"):
        shards.program("fairseq-generate")
    (tmp_path / "fairseq-generate").touch(0o755)
    assert shards.program("fairseq-generate") == str(tmp_path / "fairseq-generate")


def test_a_second_call_on_the_same_shards_is_refused_while_the_first_is_at_work(stubbed: Stubbed) -> None:
    shutil.rmtree(stubbed.output)
    first = stubbed.start("--jobs", 1, HANG=0)
    pid_file = Path(f"{stubbed.calls}.pid")
    assert waited_for(lambda: pid_file.exists() and pid_file.read_text())
    second = stubbed.run("--jobs", 1)
    first.terminate()
    first.communicate(timeout=30)
    assert second.code == 2 and "another call is at work" in second.stderr and stubbed.asked() == []


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--gen-subset", "valid"], "--gen-subset is not an option"),
        (["--gen-subset=valid"], "--gen-subset is not an option"),
        (["--", "--gen-subset", "valid"], "--gen-subset is not an option"),
        (["--", "--quiet", "--gen-subset=test"], "--gen-subset is not an option"),
        (["--sampling"], "unknown option --sampling"),
        (["beam"], "unknown option beam"),
        (["--beam"], "--beam wants a value"),
        (["--shards", "0"], "--shards wants a whole number above 0, not 0"),
        (["--jobs", "two"], "--jobs wants a whole number above 0, not two"),
        (["--gpus", "all"], "--gpus wants a whole number, not all"),
        (["--machine", "2/2"], "--machine wants R/N with R from 0 to N - 1, not 2/2"),
        (["--machine", "1"], "--machine wants R/N with R from 0 to N - 1, not 1"),
        (["--lenpen", "long"], "--lenpen wants a number, not long"),
        (["--nbest", "4"], "--nbest 4 is more than --beam 3"),
        (["--teacher", ""], "--teacher is missing"),
        (["--teacher", "/absent.pt"], "teacher not found: /absent.pt"),
        (["--data", "/absent"], "data not found: /absent"),
        (["--source-text", "/absent"], "text not found: /absent"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    more: List[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.src").write_text("bana\n")
    (tmp_path / "train.tgt").write_text("an-AB\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "teacher.pt").write_text("")
    with pytest.raises(SystemExit, match="^2$"):
        cli.main(["distill", *arguments(tmp_path, tmp_path / "teacher.pt", tmp_path / "out", *more)])
    stderr = capsys.readouterr().err
    assert stderr.startswith("nar distill: ") and stderr.count("\n") == 1 and complaint in stderr
    assert not (tmp_path / "out").exists()


def test_the_shell_script_is_the_verb() -> None:
    helped = console(["bash", SCRIPT, "--help"])
    assert helped.code == 0 and helped == console([NAR, "distill", "--help"])
    refused = console(["bash", SCRIPT, "--data", "some where", "--beam"])
    assert (refused.code, refused.stderr) == (2, "nar distill: --beam wants a value\n")


def checked(shelf: Path, text: Path) -> Optional[str]:
    """The complaint about a text, None if there is none."""
    try:
        distilled.check(shelf / "bin", ["src", "tgt"], "src", text)
    except ToolError as error:
        return str(error)
    return None


def test_a_text_that_is_not_the_one_that_was_binarised_is_refused(shelf: Path, tmp_path: Path) -> None:
    text, original = tmp_path / "text", lines(shelf / "train.src")

    def complaint(changed: List[str]) -> Optional[str]:
        text.write_text("".join(line + "\n" for line in changed), encoding="utf-8")
        return checked(shelf, text)

    assert complaint(original) is None
    assert "has 89 lines, the train split" in str(complaint(original[:-1]))
    assert f"line 6 of {text} is not what" in str(complaint(original[:5] + ["deret bana kitom"] + original[6:]))


def collected(folder: Path, text: str, originals: List[str], nbest: int = 1) -> Path:
    """What `collect` makes of the output of fairseq-generate."""
    (folder / "0.txt").write_text(text, encoding="utf-8", newline="\n")
    for side in ("src", "tgt"):
        (folder / side).write_text("".join(line + "\n" for line in originals), encoding="utf-8", newline="\n")
    (folder / "teacher.pt").write_text("weights")
    (folder / "out").mkdir()
    made = distilled.Distillation(
        pair=("en", "de"),
        source_text=folder / "src",
        target_text=folder / "tgt",
        data=folder,
        output=folder / "out",
        teacher=str(folder / "teacher.pt"),
        task="translation",
        beam=5,
        lenpen="1",
        nbest=nbest,
        max_tokens=100,
        shards=1,
    )
    distilled.collect(made, [folder / "0.txt"], "x", "y")
    return folder / "out"


def test_answers_that_are_no_targets_leave_the_originals_and_are_counted_by_reason(tmp_path: Path) -> None:
    text = "H-3\t-1\ta <unk> c\nH-1\t-0.5\t\nH-1\t-2\tzweiter\nH-0\t-0.1\tein Haus\nH-0\t-0.9\tHaus\nGenerate train\n"
    out = collected(tmp_path, text, ["null", "eins", "zwei", "drei"])
    assert lines(out / "train.de") == ["ein Haus", "eins", "zwei", "drei"]
    counts = manifest(out)["counts"]
    assert counts == {"lines": 4, "distilled": 1, "restored": {"empty": 1, "skipped": 1, "unknown words": 1}}


def test_only_a_line_feed_parts_lines(tmp_path: Path) -> None:
    originals = ["a\x0bb", "c\u2028d", "e\x85f", "g\rh"]
    out = collected(tmp_path, "H-1\t-1\tx\u2028y\nH-3\t-1\tz\x85\x1dz\n", originals)
    assert (out / "train.de").read_bytes().decode().split("\n") == ["a\x0bb", "x\u2028y", "e\x85f", "z\x85\x1dz", ""]
    assert (out / "train.en").read_bytes() == (tmp_path / "src").read_bytes()


def test_what_is_written_is_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    out = collected(tmp_path, "H-0\t-1\ta\nH-0\t-2\tb\n", ["x"], nbest=2)
    assert sorted(hashes(out)) == ["manifest.json", "nbest.gz", "train.de", "train.en"]
    assert gzip.decompress((out / "nbest.gz").read_bytes()).decode() == "0 ||| a ||| -1\n0 ||| b ||| -2\n"
