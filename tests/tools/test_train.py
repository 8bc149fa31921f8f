"""Trainings that may be killed and called again: which is the same one, what is mended, what is said of them."""

import fcntl
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, List

import pytest
import torch

from nar_tools.jobs.training import Progress, mend
from tests.end_to_end.programs import Outcome, script
from tests.tools.conftest import Nar

FAKE = """#!/bin/bash
echo "train $*" >>calls
[[ $* =~ --save-dir\\ ([^ ]+) ]] && folder=${BASH_REMATCH[1]} update=0
if [[ -s $folder/checkpoint_last.pt ]]; then update=$(<"$folder/checkpoint_last.pt"); fi
echo "begins at $update" >>calls
echo $((update + 10)) >"$folder/checkpoint_last.pt"
if [[ -e says ]]; then source ./says; fi
exit "${STATUS:-0}"
"""
"""Stands in for fairseq-train: a checkpoint is the number of updates; it says what the file `says` makes it say."""
LOG = Path("logs", "tiny.log")
FOLDER = Path("models", "tiny")
Train = Callable[..., Outcome]


@pytest.fixture
def train(nar: Nar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """``train(flags)``: `nar train` in an empty folder, with data from long ago."""
    program = tmp_path / "programs" / "fairseq-train"
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    for data in ("bin", "other"):
        (tmp_path / data).mkdir()
        os.utime(data, (1_000_000, 1_000_000))

    def run(flags: str = "--lr 1", *, data: str = "bin", ours: str = "", name: str = "tiny") -> Outcome:
        command = f"fairseq-train {data} --save-dir models/{name} {flags}"
        return nar("train", name, "--log", Path("logs", f"{name}.log"), *ours.split(), "--", *command.split())

    return run


@pytest.fixture
def trained(train: Train) -> Train:
    """The same, where a model was trained for ten updates."""
    assert train().code == 0 and begins() == [0]
    return train


def begins() -> List[int]:
    """The updates at which trainings began."""
    return [int(line.split()[-1]) for line in Path("calls").read_text().splitlines() if line.startswith("begins")]


def test_a_training_is_the_command_that_was_said(trained: Train) -> None:
    assert Path("calls").read_text().startswith("train bin --save-dir models/tiny --lr 1\n")


def test_a_training_with_the_same_flags_goes_on(trained: Train) -> None:
    assert trained().code == 0 and begins() == [0, 10]


@pytest.mark.parametrize(("flags", "data"), [("--lr 2", "bin"), ("--lr 1 --clip-norm 1", "bin"), ("--lr 1", "other")])
def test_a_training_with_other_flags_or_data_starts_afresh(flags: str, data: str, trained: Train) -> None:
    (FOLDER / "checkpoint_1_5.pt").write_text("of the training before")
    LOG.write_text("of the training before")
    outcome = trained(flags, data=data)
    assert outcome.code == 0 and f"{FOLDER} is another training: put aside as {FOLDER}.before\n" in outcome.stdout
    assert "before" not in LOG.read_text()
    assert begins() == [0, 0]
    assert not (FOLDER / "checkpoint_1_5.pt").exists() and Path(f"{FOLDER}.before/checkpoint_1_5.pt").exists()
    assert trained(flags, data=data).code == 0 and begins() == [0, 0, 10]


@pytest.mark.parametrize(
    "flags",
    [
        "--fp16 --lr 1",
        "--lr 1 --cpu",
        "--bf16 --cpu-autocast --lr 1",
        "--lr 1 --max-tokens 9 --update-freq 4 --distributed-world-size 2 --distributed-port 29500",
        "--max-update 99 --lr 1",
        "--lr 1 --max-epoch 7 --keep-best-checkpoints 3",
    ],
)
def test_another_end_another_device_or_another_split_of_an_update_is_the_same_training(
    flags: str, trained: Train
) -> None:
    assert trained(flags).code == 0 and begins() == [0, 10]


def test_other_tokens_an_update_are_another_training(train: Train) -> None:
    for tokens, split in (("900", "300"), ("900", "450"), ("1000", "450")):
        assert train(f"--lr 1 --max-tokens {split}", ours=f"--tokens {tokens}").code == 0
    assert begins() == [0, 10, 0]


def test_what_starts_a_training_on_many_machines_makes_no_other(trained: Train, nar: Nar) -> None:
    words = "fairseq-train bin --save-dir models/tiny --lr 1".split()
    assert nar("train", "tiny", "--log", LOG, "--", "env", "RANK=0", *words).code == 0 and begins() == [0, 10]


@pytest.mark.parametrize("flag", ["--latent-model", "--finetune-from-model"])
def test_a_training_on_a_model_trained_anew_starts_afresh(flag: str, train: Train) -> None:
    for weights in ("a", "a", "b"):
        Path("base.pt").write_text(weights)
        assert train(f"{flag} base.pt").code == 0
    assert begins() == [0, 10, 0]


def test_a_training_on_data_made_anew_starts_afresh(trained: Train) -> None:
    os.utime("bin", (1_000_001, 1_000_001))
    assert trained().code == 0 and begins() == [0, 0]


def test_another_training_leaves_the_first_alone(trained: Train) -> None:
    assert trained(name="second").code == 0
    assert (FOLDER / "checkpoint_last.pt").read_text() == "10\n" and not Path(f"{FOLDER}.before").exists()


@pytest.mark.parametrize("newest", ["checkpoint_1_300.pt", "checkpoint12.pt"])
def test_a_training_that_was_killed_goes_on_from_the_newest_checkpoint(newest: str, trained: Train) -> None:
    (FOLDER / newest).write_text("300\n")
    (FOLDER / "checkpoint_last.pt").write_text("")
    assert trained().code == 0 and begins()[-1] == 300


def test_a_training_that_fails_is_one_line_and_goes_on_the_next_time(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATUS", "3")
    outcome = trained()
    assert outcome.code == 2 and outcome.stderr == f"nar train: training tiny failed with status 3; see {LOG}\n"
    monkeypatch.delenv("STATUS")
    assert trained().code == 0 and begins()[-1] == 20


def test_a_program_or_data_that_is_not_there_is_one_line(trained: Train, nar: Nar) -> None:
    assert trained(data="absent").stderr == "nar train: absent: No such file or directory\n"
    outcome = nar("train", "tiny", "--log", LOG, "--", "no-such-program", "bin", "--save-dir", "models/other")
    assert outcome.code == 2 and outcome.stderr == "nar train: no-such-program: No such file or directory\n"


@pytest.mark.parametrize("words", ["", "--", "-- fairseq-train", "-- fairseq-train bin --lr 1"])
def test_a_command_without_a_folder_is_one_line(words: str, train: Train, nar: Nar) -> None:
    outcome = nar("train", "tiny", "--log", LOG, *words.split())
    assert outcome.code == 2 and not Path("models").exists()
    assert re.search("say the command after --|put -- before the command", outcome.stderr)


def test_two_trainings_do_not_work_on_one_folder(trained: Train) -> None:
    lock = os.open(FOLDER, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        outcome = trained()
    finally:
        os.close(lock)
    assert outcome.code == 2 and outcome.stderr.startswith(f"nar train: another training is at work on {FOLDER}: ")
    assert begins() == [0] and trained().code == 0


def test_another_machine_leaves_the_folder_to_the_first(trained: Train) -> None:
    """It has another command, and the first holds the folder."""
    lock = os.open(FOLDER, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        outcome = trained("--lr 1 --rank 8", ours="--machine 1")
    finally:
        os.close(lock)
    assert outcome == Outcome(0, "", "") and LOG.with_name("tiny.1.log").exists()
    assert trained().code == 0 and begins() == [0, 10, 20]


def checkpoint(path: Path, updates: int, *, seconds: int, iterations: int = 70_000, note: str = "") -> None:
    """Writes what fairseq writes, in small: weights, and where in its data the training stands."""
    iterator = {"epoch": 2, "iterations_in_epoch": iterations, "shuffle": True}
    state = {"extra_state": {"note": note, "iterator": iterator}, "model": {"w": torch.full((100,), float(updates))}}
    with open(path, "wb") as file:  # as fairseq does it: else the file holds its own name and is as long as that
        torch.save(state, file)
    os.utime(path, (1_000_000 + seconds,) * 2)


def updates_in(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["model"]["w"][0])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with the checkpoints of updates 800 and 1000, and the last, a copy of the latter."""
    folder = tmp_path / "models of mine"
    folder.mkdir()
    checkpoint(folder / "checkpoint_9_1000.pt", 1000, seconds=20)
    checkpoint(folder / "checkpoint_10_800.pt", 800, seconds=10)  # its name sorts behind the other's
    checkpoint(folder / "checkpoint_last.pt", 1000, seconds=20)
    return folder


@pytest.mark.parametrize("harm", [cut, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_a_last_checkpoint_that_was_cut_is_replaced_by_the_newest(harm: Callable[[Path], Any], models: Path) -> None:
    harm(models / "checkpoint_last.pt")
    mend(models)
    assert (models / "checkpoint_last.pt").read_bytes() == (models / "checkpoint_9_1000.pt").read_bytes()


def test_a_last_checkpoint_that_is_whole_is_left_alone(models: Path) -> None:
    checkpoint(models / "checkpoint_last.pt", 1100, seconds=30)
    before = (models / "checkpoint_last.pt").read_bytes()
    mend(models)
    assert (models / "checkpoint_last.pt").read_bytes() == before and updates_in(models / "checkpoint_last.pt") == 1100


def test_a_last_checkpoint_that_is_whole_and_smaller_is_left_alone(models: Path) -> None:
    """At the end of an epoch the place in the data is zero, a byte and no more: some files are smaller for it."""
    last, newest = models / "checkpoint_last.pt", models / "checkpoint_9_1000.pt"
    for length in range(64):  # records begin at multiples of 64 bytes
        checkpoint(newest, 1000, seconds=20, note="x" * length)
        checkpoint(last, 1100, seconds=30, note="x" * length, iterations=0)
        if last.stat().st_size < newest.stat().st_size:
            break
    assert last.stat().st_size < newest.stat().st_size, "never smaller, so this tests nothing"
    mend(models)
    assert updates_in(last) == 1100


def test_where_no_checkpoint_was_saved_there_is_nothing_to_mend(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_best.pt").write_text("best")
    mend(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_best.pt"]


TIME = "2020-01-01 00:00:00 | INFO |"
REPORTS = f"""\
{TIME} fairseq_cli.train | training on 1 devices (GPUs/TPUs)
{TIME} train_inner | epoch 001:    100 / 250 loss=9.871, nll_loss=8.1, ppl=1.2, num_updates=100, lr=1e-05, wall=12
{TIME} valid | epoch 001 | loss 7.25 | nll_loss 6.5 | bleu 31.4 | num_updates 250 | best_bleu 33
{TIME} train | epoch 001 | loss 8.5 | nll_loss 8 | num_updates 250 | train_wall 20
{TIME} train_inner | epoch 002:     50 / 250 loss=-2e-05, num_updates=300, lr=1e-05, wall=3600
{TIME} valid | epoch 002 | loss 7 | num_updates 500
Traceback (most recent call last):
RuntimeError: out of memory
"""


def said(flags: str, pace: float = 60) -> List[str]:
    """What is shown of REPORTS, a line of which comes every so many seconds."""
    progress = Progress("tiny", ["fairseq-train", "bin", *flags.split()])
    lines = [progress.line(line, 1000 + pace * i) for i, line in enumerate(REPORTS.splitlines())]
    return [line for line in lines if line is not None]


def test_progress_is_a_short_line_for_each_report() -> None:
    assert said("--lr 1") == [
        "[tiny] update 100, loss 9.871 bits",
        "[tiny] validated after update 250: loss 7.25 bits, BLEU 31.4",
        "[tiny] update 300, loss -2e-05 bits",
        "[tiny] validated after update 500: loss 7 bits, BLEU -",
        "[tiny] RuntimeError: out of memory",
    ]


@pytest.mark.parametrize(
    ("flags", "total", "left"),
    [
        ("--max-update 1300", "1,300", ", 15 min left"),  # of 200 updates in 3 minutes
        ("--max-epoch 4", "1,000", ", 10 min left"),
        ("--max-epoch 4 --max-update 20000", "1,000", ", 10 min left"),
        ("--max-epoch 400 --max-update 300", "300", ""),
        ("--max-update 1300 --max-update 20300", "20,300", ", 5 h 0 min left"),
    ],
)
def test_progress_says_of_how_many_updates_and_how_long_they_take(flags: str, total: str, left: str) -> None:
    updates = [line for line in said(flags) if " update " in line and "validated" not in line]
    assert updates == [
        f"[tiny] update 100 of {total}, loss 9.871 bits",
        f"[tiny] update 300 of {total}, loss -2e-05 bits{left}",
    ]


def test_all_that_a_training_says_is_in_its_log_and_its_reports_are_shown(trained: Train) -> None:
    Path("reports").write_text(REPORTS)
    Path("says").write_text("head -2 reports; sed -n 3p reports >&2\n")
    outcome = trained()
    assert LOG.read_text() == "".join(REPORTS.splitlines(keepends=True)[:3])
    assert [line.split()[1] for line in outcome.stdout.splitlines()] == ["goes", "update", "validated"]


def begun(shown: Any) -> subprocess.Popen:
    """`nar train` as a process of its own, which Ctrl-C reaches even where these tests run in the background."""
    words = [script("nar"), "train", "tiny", "--log", LOG, "--", "fairseq-train", "bin", "--save-dir", FOLDER]
    return subprocess.Popen(words, stdout=shown, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def wait_for(condition: Callable[[], bool]) -> bool:
    return any(condition() or time.sleep(0.05) for _ in range(400))


def test_progress_does_not_wait_for_the_next_report(train: Train) -> None:
    Path("reports").write_text(REPORTS)
    Path("says").write_text(
        "head -n 2 reports\nfor i in {1..200}; do grep -q update shown && break; sleep 0.1; done\n"
        "grep -q update shown || touch late\n"
    )
    with open("shown", "wb") as shown:
        assert begun(shown).wait(60) == 0
    assert Path("shown").read_text().splitlines()[1:] == ["[tiny] update 100, loss 9.871 bits"]
    assert not Path("late").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_interrupted_ends_its_program_too(number: int, train: Train) -> None:
    Path("says").write_text('echo "$BASHPID" >number; mv number asleep; exec sleep 600\n')
    process = begun(subprocess.DEVNULL)
    assert wait_for(Path("asleep").exists)
    process.send_signal(number)
    assert process.wait(60) == 130
    asleep = Path("/proc", Path("asleep").read_text().strip(), "cmdline")
    assert wait_for(lambda: not asleep.exists() or not asleep.read_bytes())


def test_a_training_that_outlived_its_caller_keeps_others_away(trained: Train) -> None:
    Path("says").write_text("touch asleep; for i in {1..300}; do [[ -e wake ]] && break; sleep 0.1; done\n")
    process = begun(subprocess.DEVNULL)
    assert wait_for(Path("asleep").exists)
    process.kill()
    process.wait(60)
    outcome = trained("")
    Path("wake").touch()
    assert outcome.code == 2 and "another training is at work" in outcome.stderr


def test_other_trainings_are_put_aside_one_after_another(trained: Train) -> None:
    for dropout in ("0.1", "0.2", "0.3"):
        assert trained(f"--dropout {dropout}").code == 0
    assert all(Path(f"{FOLDER}{end}").is_dir() for end in ("", ".before", ".before1"))


def test_another_display_is_the_same_training(trained: Train) -> None:
    for flags in ("--lr 1 --log-interval 10", "--lr 1 --log-interval 20 --log-format json", "--lr 1"):
        outcome = trained(flags)
        assert outcome.code == 0 and "put aside" not in outcome.stdout
    assert "goes on from its last checkpoint" in outcome.stdout


def test_a_training_that_has_ended_is_not_begun_again(train: Train) -> None:
    Path("says").write_text("echo '2026-11-28 | INFO | fairseq_cli.train | done training in 3.1 seconds'\n")
    assert "begins" in train("").stdout
    last = (FOLDER / "checkpoint_last.pt").read_text()
    assert train("").stdout == "[tiny] done before\n" and (FOLDER / "checkpoint_last.pt").read_text() == last
    assert "goes on" in train("--max-update 20").stdout, "its end is another"


@pytest.mark.parametrize(("flags", "said"), [("--cpu", "1"), ("--lr 1", "unset")])
def test_on_a_cpu_a_training_has_one_thread(
    flags: str, said: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several are far slower on few cores; what the user has set stays."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    Path("says").write_text('echo "${OMP_NUM_THREADS:-unset}" >threads\n')
    assert train(flags).code == 0 and Path("threads").read_text() == f"{said}\n"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert train(flags).code == 0 and Path("threads").read_text() == "3\n"
