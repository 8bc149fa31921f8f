"""The EM loop of the recipes: its rounds, its control, what is done again, and what becomes of it when it is killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest

from tests.test_recipes import (
    CORPORA,
    IMAGES,
    MULTI30K,
    QUICKSTART,
    RECIPES,
    ROOT,
    Command,
    assert_parses,
    assert_systems_parse,
    called,
    name_of,
    option,
    printed,
    program,
    programs,
    recorded,
)

BEFORE = ("download", "prepare", "teacher", "distil", "students")
ONE = {
    "METHODS": "mask_predict",
    "DATA": "distilled",
    "EM_ROUNDS": "1",
    "NBEST": "3",
    "JOBS": "1",
    "AT_ONCE": "1",
    "GPUS": "0",
}


def begun(out: Path, *steps: str, **variables: str) -> subprocess.CompletedProcess:
    """A call of the quickstart with texts that go through it."""
    paths = os.pathsep.join([str(ROOT / "scripts"), str(ROOT), str(Path(sys.executable).parent)])
    stubs = {"BASH_ENV": str(ROOT / "tests" / "em_stubs.sh"), "RECORD": str(out / "commands"), "OUT": str(out)}
    return called(QUICKSTART, *steps, **{**stubs, **ONE, "PYTHONPATH": paths, **variables})


def went(out: Path, *steps: str, **variables: str) -> None:
    done = begun(out, *steps, **variables)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]


def commands_of(out: Path) -> List[Command]:
    return [path.read_text(encoding="utf-8").split("\0")[:-1] for path in sorted((out / "commands").iterdir())]


def manifest(out: Path) -> Dict[str, Any]:
    """Of the loop, without the folder in which it stands."""
    text = (out / "em.mask_predict.json").read_text(encoding="utf-8")
    return json.loads(text.replace(str(out), "OUT"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "out"
    went(out, *BEFORE, "em")
    return out


def test_the_manifest_has_arguments_seeds_and_hashes_of_every_round(unbroken: Path) -> None:
    """EM-9: and no date, so that it is the same however often the loop was begun."""
    told = manifest(unbroken)
    assert told["student"] == "mask_predict" and told["kind"] == "exact" and told["alpha"] == 1
    assert [one["round"] for one in told["rounds"]] == list(range(len(told["rounds"]))) and len(told["rounds"]) > 1
    for one in told["rounds"]:
        assert one["seed"] == "1" and set(map(len, one["made_of_sha256"].values())) == {64}
        assert set(map(len, one["selection"]["outputs_sha256"].values())) == {64}
    trainings = [line for line in told["rounds"][1]["commands"] if line.startswith("fairseq-train ")]
    assert len(trainings) == 3 and all("--finetune-from-model" in line for line in trainings)
    hashes = [one["made_of_sha256"] for one in told["rounds"]]
    assert len({one["dict.de.txt"] for one in hashes}) == 1, "one dictionary for all rounds"


def test_a_loop_that_is_done_is_not_done_again(unbroken: Path) -> None:
    """EM-9: what is asked again is whether another round is worth it."""
    before = len(commands_of(unbroken))
    went(unbroken, "em")
    again = commands_of(unbroken)[before:]
    assert {tuple(command[:3]) for command in again} <= {("nar", "em", "goes-on")}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_loop_that_is_killed_at_every_stage_comes_to_the_same_manifest(
    moment: str, unbroken: Path, tmp_path: Path
) -> None:
    """EM-8: every program is killed once, before it wrote anything or when it had, and with it the recipe."""
    out = tmp_path / "out"
    went(out, *BEFORE)
    kills = 0
    while (done := begun(out, "em", KILL=moment)).returncode:
        assert done.returncode == -signal.SIGKILL, (done.stdout + done.stderr)[-2000:]
        kills += 1
        assert kills < 100
    stages = {program(command) + command[2] * (command[1] == "em") for command in commands_of(unbroken)}
    assert kills >= 25 and {"fairseq-train", "nar distill", "nar emselect", "nar emscore", "nar emmeasure"} <= stages
    assert manifest(out) == manifest(unbroken)


def test_each_round_learns_from_what_the_one_before_selected(unbroken: Path) -> None:
    """EM-7: the teacher from the selection, its student from the teacher's first answers, the control from round 0."""
    data = {
        Path(option(each, "--save-dir")).name: Path(each[1]).relative_to(unbroken)
        for each in commands_of(unbroken)
        if each[0] == "fairseq-train"
    }
    assert data["mask_predict-em1-teacher"] == Path("em/mask_predict/1/bin-teacher")
    assert data["mask_predict-em1"] == Path("em/mask_predict/1/bin")
    assert data["mask_predict-control1"] == Path("bin-distilled")
    loop = unbroken / "em" / "mask_predict"
    texts = [loop / "0" / "selected" / "train.de", loop / "1" / "bin-teacher" / "train.en-de.de.bin"]
    assert texts[0].read_bytes() == texts[1].read_bytes()
    texts = [loop / "1" / "answers" / "train.de", loop / "1" / "bin" / "train.en-de.de.bin"]
    assert texts[0].read_bytes() == texts[1].read_bytes()


def test_sources_and_dictionaries_are_those_of_round_0(unbroken: Path) -> None:
    """EM-6: the text that a round learns from has the sources to the last byte; the dictionary is the first one."""
    sources = (unbroken / "bpe" / "train.en").read_bytes()
    for path in (unbroken / "em").rglob("train.en"):
        assert path.read_bytes() == sources
    binarised = [command for command in commands_of(unbroken) if command[0] == "fairseq-preprocess"]
    further = [command for command in binarised if "/em/" in option(command, "--destdir")]
    assert further and {option(each, "--srcdict") for each in further} == {str(unbroken / "bin" / "dict.en.txt")}


@pytest.mark.parametrize("recipe", [each for each in RECIPES if each != IMAGES], ids=name_of)
def test_every_recipe_has_the_loop(recipe: Path, tmp_path: Path) -> None:
    """EM-7: a third of the updates at half the rate for both, and as much for the control."""
    commands = printed(recipe, tmp_path / "out", "em", "em_measure", METHODS="mask_predict ctc", RETRAIN="1", GPUS="0")
    for command in commands:
        assert_parses(command)
    trainings = {Path(option(each, "--save-dir")).name: each for each in commands if each[0] == "fairseq-train"}
    rounds = {
        f"{method}-{kind}" for method in ("mask_predict", "ctc") for kind in ("em1", "em2", "control1", "control2")
    }
    assert set(trainings) == rounds | {f"{name}-teacher" for name in rounds if "-em" in name}
    for method in ("mask_predict", "ctc"):
        for kind in ("em", "control"):
            first, second = (trainings[f"{method}-{kind}{t}"] for t in (1, 2))
            assert Path(option(first, "--finetune-from-model")).name == f"{method}-distilled.pt"
            assert Path(option(second, "--finetune-from-model")).name == f"{method}-{kind}1.pt"
        assert [option(trainings[f"{method}-{kind}1"], "--lr") for kind in ("em", "control")] == [
            option(trainings[f"{method}-em2"], "--lr")
        ] * 2
        assert "--warm-start" not in trainings[f"{method}-em1"]
    plain = printed(recipe, tmp_path / "out", "mask_predict", DATA="distilled", RETRAIN="1", GPUS="0")
    (before,) = [command for command in plain if command[0] == "fairseq-train"]
    further = trainings["mask_predict-em1"]
    assert int(option(further, "--max-update")) == int(option(before, "--max-update")) // 3
    assert float(option(further, "--lr")) == pytest.approx(float(option(before, "--lr")) / 2)
    assert option(further, "--glance") == "0:0"


def test_from_scratch_no_round_begins_with_the_last_one_s_weights(tmp_path: Path) -> None:
    commands = printed(QUICKSTART, tmp_path / "out", "em", METHODS="mask_predict", FROM_SCRATCH="1")
    trainings = [command for command in commands if command[0] == "fairseq-train"]
    assert trainings and not any("--finetune-from-model" in command for command in trainings)
    assert {option(command, "--max-update") for command in trainings} == {"1600"}


def test_any_method_may_be_the_student(tmp_path: Path) -> None:
    commands = printed(QUICKSTART, tmp_path / "out", "em", EM_STUDENTS="latent_transformer", EM_ROUNDS="1")
    trainings = {Path(option(each, "--save-dir")).name: each for each in commands if each[0] == "fairseq-train"}
    assert set(trainings) == {
        f"latent_transformer-{kind}1{end}" for kind, end in (("em", ""), ("control", ""), ("em", "-teacher"))
    }
    assert option(trainings["latent_transformer-em1"], "--budget") == "0"


def test_the_released_list_serves_round_0(tmp_path: Path) -> None:
    commands = printed(MULTI30K, tmp_path / "out", "em", METHODS="ctc")
    assert ["cp", "examples/multi30k/teacher/nbest.gz", str(tmp_path / "out" / "nbest" / "nbest.gz")] in commands
    answers = [option(each, "--output") for each in commands if program(each) == "nar distill"]
    assert answers == [str(tmp_path / "out" / "em" / "ctc" / t / "answers") for t in ("1", "2")]


def test_several_machines_are_refused(tmp_path: Path) -> None:
    done = called(CORPORA[0], "em", DRY_RUN="1", OUT=str(tmp_path), MACHINES="2", MASTER="host:1")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].endswith("the step em is for one machine")


def test_rows_are_of_the_last_student_and_of_its_control(tmp_path: Path) -> None:
    one = {"METHODS": "mask_predict ctc", "RETRAIN": "1"}
    commands = recorded(QUICKSTART, tmp_path, *BEFORE, "em", "em_measure", **one)
    (table,) = [command for command in commands if program(command) == "nar benchmark"]
    assert_systems_parse(table)
    rows = [table[i + 1] for i, word in enumerate(table) if word == "--system"]
    ends = ("argmax", "odd", "collapsed", "rescored")
    assert rows == [f"em-{kind}{end}" for kind in ("", "control-") for end in ends] + [
        f"em-ctc-{kind}{end}" for kind in ("", "control-") for end in ("argmax", "rescored")
    ]
    assert "nar em" in programs(commands)
    again = programs(recorded(QUICKSTART, tmp_path, *BEFORE, "em", "em_measure", **one))
    assert set(again) == {"nar em"}, "only whether another round is worth it"
