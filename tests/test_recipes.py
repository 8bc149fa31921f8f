"""Every command of every README and recipe parses with the parser of the program that it is for."""

import argparse
import gzip
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Set, Tuple
from unittest import mock

import pytest
from fairseq import options
from fairseq.models import MODEL_REGISTRY

import benchmark
import engine
import nar_plugin  # noqa: F401  (registers what the commands name)
from nar_plugin.architectures.base import DecodingModel

ROOT = Path(__file__).resolve().parent.parent
READMES = sorted(path for path in ROOT.rglob("README.md") if not {".venv", "out"} & set(path.parts))
RECIPES = sorted(ROOT.glob("examples/*/run.sh"))
WHOLE = {"quickstart": ["--all"], "multi30k": ["--retrain"]}
"""The arguments with which a recipe does everything; those of WMT and IWSLT do so without any."""
CORPORA = [recipe for recipe in RECIPES if recipe.parent.name not in WHOLE]
PARSERS: Dict[str, Callable[[], object]] = {
    "fairseq-preprocess": options.get_preprocessing_parser,
    "fairseq-train": options.get_training_parser,
    "fairseq-generate": options.get_generation_parser,
    "fairseq-interactive": options.get_interactive_generation_parser,
}


def commands_of(text: str) -> List[List[str]]:
    """The command lines in the bash blocks of a README, pipes taken apart and redirections left out."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    commands: List[List[str]] = []
    for line in lines:
        words = shlex.split(re.sub(r"^(\w+=\S+ )+", "", line), comments=True)
        commands.append([])
        for word in words:
            if word in ("|", "&&", ";"):
                commands.append([])
            elif word in (">", "2>", "<"):
                commands[-1].append("\0")
            elif commands[-1][-1:] == ["\0"]:
                commands[-1].pop()
            else:
                commands[-1].append(word)
    return [command for command in commands if command]


def assert_parses(command: List[str]) -> None:
    """Raises or exits where the program would refuse the flags; programs of others are not our concern.

    Of commands that differ in folders and digits alone one is parsed.
    """
    shape = tuple(re.sub(r"\d+", "0", re.sub(r"/\S*/", "/", word)) for word in command)
    if shape in PARSED:
        return
    program, *flags = command
    if program == "fairseq-generate":
        engine.configuration(flags)
    elif program in PARSERS:
        flags = [str(ROOT / "nar_plugin") if flag == "nar_plugin" else flag for flag in flags]
        with mock.patch.object(sys, "argv", [program, *flags]):
            if program == "fairseq-preprocess":
                PARSERS[program]().parse_args(flags)
            else:
                options.parse_args_and_arch(PARSERS[program](), input_args=flags)
    elif program in ("bash", "python") and flags[0].endswith((".sh", ".py")):
        assert (ROOT / flags[0]).exists(), f"{flags[0]} does not exist"
        assert_parses(flags)
    elif program.startswith("scripts/") and program.endswith(".py"):
        assert_script_parses(program, flags)
    PARSED.add(shape)


PARSED: Set[Tuple[str, ...]] = set()
ARCHITECTURES = tuple(name for name, model in MODEL_REGISTRY.items() if issubclass(model, DecodingModel))


class Parsed(BaseException):
    """The flags were accepted; the program need not go on."""


def assert_script_parses(script: str, flags: List[str]) -> None:
    """Runs a script of ours until its flags are parsed."""

    def stop_after(parse: Any) -> Callable[..., Any]:
        def parse_and_stop(*args: Any, **options: Any) -> Any:
            parse(*args, **options)
            raise Parsed

        return parse_and_stop

    if script.endswith("masked_accuracy.py"):
        engine.configuration(flags)
        return
    parser = argparse.ArgumentParser
    main = importlib.import_module(Path(script).stem).main
    is_partly_ours = script.endswith("show_refinement.py") or flags[:1] == ["latents"]  # the rest is fairseq's
    name = "parse_known_args" if is_partly_ours else "parse_args"
    with (
        mock.patch.object(sys, "argv", [script, *flags]),
        mock.patch.object(parser, name, stop_after(getattr(parser, name))),
        pytest.raises(Parsed),
    ):
        main()


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_readme_parses(readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for command in commands_of(readme.read_text(encoding="utf-8")):
        assert_parses(command)


@pytest.mark.parametrize(
    "command", ["python scripts/report.py results.json --nothing", "python scripts/release.py eat folder"]
)
def test_a_wrong_flag_of_a_script_is_found(command: str) -> None:
    with pytest.raises(SystemExit):
        assert_parses(shlex.split(command))


def test_a_wrong_flag_in_a_readme_is_found() -> None:
    (command,) = commands_of(
        "```bash\nfairseq-train data --user-dir nar_plugin --arch mask_predict --no-such-flag\n```"
    )
    with pytest.raises(SystemExit):
        assert_parses(command)


def recorded(recipe: Path, out: Path, *arguments: str, **more: str) -> List[List[str]]:
    """What a recipe runs, by a run with stubs in place of the programs, under more variables."""
    record = out / "commands"
    stubs = {"BASH_ENV": str(ROOT / "tests" / "recipe_stubs.sh"), "RECORD": str(record)}
    variables = {**stubs, "OUT": str(out), "CHECKSUMS": os.devnull, **more}
    done = subprocess.run(
        ["bash", str(recipe), *arguments], env={**os.environ, **variables}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [path.read_text(encoding="utf-8").split("\0")[:-1] for path in sorted(record.iterdir())]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
def test_every_command_of_a_recipe_parses_and_a_second_run_repeats_nothing(recipe: Path, tmp_path: Path) -> None:
    whole = WHOLE.get(recipe.parent.name, [])
    commands = recorded(recipe, tmp_path, *whole)
    programs = [command[0] for command in commands]
    assert {"fairseq-preprocess", "fairseq-train", "fairseq-generate"} <= set(programs)
    for command in commands:
        assert_parses(command)
        if command[0].endswith("benchmark.py"):
            systems = [command[i + 2] for i, word in enumerate(command) if word == "--system"]
            for flags in [*systems, command[command.index("--teacher") + 1]]:
                assert shlex.split(flags)[0] == "--train"
                assert_parses(["fairseq-generate", "data", *shlex.split(benchmark.system_of("a", flags).flags)])
    if recipe in CORPORA:
        assert_every_architecture_is_trained(commands, recipe.parent.name)
    if recipe == MULTI30K:
        assert_seeds_are_trained_and_measured(commands)
    again = recorded(recipe, tmp_path, *whole)[len(commands) :]
    last = "report.py" if whole else "expected.py"
    assert [Path(command[0]).name for command in again] == [last], "a finished step was done again"
    if recipe == MULTI30K:
        next(tmp_path.rglob("lanmt_refiner_energy-distilled-seed3.pt")).unlink()
        with pytest.raises(AssertionError, match="gap-lanmt_refiner needs .*energy-distilled-seed3"):
            recorded(recipe, tmp_path, "--only", "gap-lanmt_refiner")


def assert_every_architecture_is_trained(commands: List[List[str]], size: str) -> None:
    archs = {command[command.index("--arch") + 1] for command in commands if "--arch" in command}
    assert {f"{name}_{size}" for name in ARCHITECTURES} <= archs, "a 5_*.sh is missing"


def assert_seeds_are_trained_and_measured(commands: List[List[str]]) -> None:
    trainings = {Path(option(command, "--save-dir")).name: command for command in commands if "--arch" in command}
    measured = " ".join(word for command in commands if command[0].endswith("benchmark.py") for word in command)
    seeded = {name: command for name, command in trainings.items() if "-seed" in name}
    assert seeded
    for name, command in seeded.items():
        plain = trainings[name[: name.index("-seed")]]
        assert option(command, "--seed") == name[name.index("-seed") + 5 :] != option(plain, "--seed")
        assert f"{name}.pt" in measured


def option(command: List[str], name: str) -> str:
    """Its last value, which is the one that counts."""
    return command[len(command) - command[::-1].index(name)]


@pytest.mark.parametrize(
    ("recipe", "cluster"), [(CORPORA[0], {"MASTER": "host:29500"}), (CORPORA[-1], {"SLURM_JOB_ID": "1"})]
)
def test_a_dry_run_prints_the_commands_for_many_gpus(recipe: Path, cluster: Dict[str, str], tmp_path: Path) -> None:
    many = {"GPUS": "8", "MACHINES": "2", "PRECISION": "bf16", **cluster}
    environment = {**os.environ, "DRY_RUN": "1", "OUT": str(tmp_path / "out"), **many}
    done = subprocess.run(["bash", str(recipe)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    printed = [shlex.split(line) for line in done.stdout.splitlines() if line.endswith(" ")]
    commands = [command[command.index("fairseq-train") :] for command in printed if "fairseq-train" in command]
    assert len(commands) >= 4 and all("--bf16" in command and "--cpu" not in command for command in commands)
    starts = {command[0] for command in printed if "--arch" in command}
    assert starts == {"fairseq-train", "srun" if "SLURM_JOB_ID" in cluster else "torchrun"}, "small ones by one machine"
    for command in [*commands, *(command for command in printed if "fairseq-train" not in command)]:
        assert_parses(command)
    assert not any("find-unused" in word for command in printed for word in command)
    assert not list(tmp_path.rglob("*.*")), "it did something"


@pytest.mark.parametrize(
    "recipe", [recipe for recipe in RECIPES if recipe not in CORPORA], ids=lambda path: path.parent.name
)
def test_a_step_whose_input_was_made_anew_is_done_again(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = WHOLE[recipe.parent.name]
    monkeypatch.setenv("METHODS", "mask_predict")
    commands = recorded(recipe, tmp_path, *arguments)
    os.utime(tmp_path / "models" / "teacher.pt", (1, 1))
    again = [Path(command[0]).name for command in recorded(recipe, tmp_path, *arguments)[len(commands) :]]
    assert "collect_distilled.py" in again and "benchmark.py" in again and "make_corpus.py" not in again
    (tmp_path / "codes").write_text("cut")
    again = recorded(recipe, tmp_path, *arguments)[len(commands) + len(again) :]
    assert "prepare_text.py" in [Path(command[0]).name for command in again]


MULTI30K = ROOT / "examples" / "multi30k" / "run.sh"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """What stands in for the released teacher."""
    folder = tmp_path / "release"
    folder.mkdir()
    for name in ("teacher.pt", "codes", "dict.txt", "distilled.json", "manifest.json"):
        (folder / name).write_text(name)
    (folder / "teacher.curve.json").write_text("[]")
    (folder / "train.en.gz").write_bytes(gzip.compress(b"a house\n"))
    return folder


def test_multi30k_begins_with_the_released_teacher(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELEASE", str(release))
    monkeypatch.setenv("METHODS", "mask_predict")
    out = tmp_path / "out"
    commands = recorded(MULTI30K, out)
    for command in commands:
        assert_parses(command)
    scripts = [[Path(command[0]).name, *command[1:]] for command in commands]
    assert ["release.py", "check", str(release)] in scripts
    texts = [str(out / "bpe" / f"train.{lang}") for lang in ("de", "en")]
    assert ["release.py", "check", str(release), "--made-from", *texts] in scripts
    assert not any(name == "collect_distilled.py" or "learn" in words[:1] for name, *words in scripts)
    saved = [command[command.index("--save-dir") + 1] for command in commands if command[0] == "fairseq-train"]
    assert str(out / "models" / "teacher") not in saved and str(out / "models" / "mask_predict-distilled") in saved
    first = next(command for command in commands if command[0] == "fairseq-preprocess")
    assert first[first.index("--srcdict") + 1] == str(release / "dict.txt")
    assert (out / "codes").read_text() == "codes" and (out / "distilled" / "train.en").read_text() == "a house\n"
    again = recorded(MULTI30K, out)[len(commands) :]
    assert [Path(command[0]).name for command in again] == ["report.py"]
    (release / "codes").write_text("of a newer release")
    names = [Path(command[0]).name for command in recorded(MULTI30K, out)[len(commands) + len(again) :]]
    assert "prepare_text.py" in names and "fairseq-train" in names


@pytest.mark.parametrize(
    ("variables", "done_again"),
    [
        ({"MERGES": "100"}, "prepare_text.py"),
        ({"TEST": "test_2017_flickr"}, "curl"),
        ({"URL": "http://elsewhere"}, "curl"),
        ({"ALLOW_NOISE": "1"}, "benchmark.py"),
        ({"SEED": "2"}, "fairseq-train"),
    ],
)
def test_what_depends_on_a_variable_is_done_again_when_it_changes(
    variables: Dict[str, str], done_again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METHODS", "mask_predict")
    commands = recorded(MULTI30K, tmp_path, "--retrain")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    again = recorded(MULTI30K, tmp_path, "--retrain")[len(commands) :]
    assert done_again in [Path(command[0]).name for command in again]


def test_one_method_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An autoregressive one: its rows make no figure of steps."""
    monkeypatch.setenv("METHODS", "deep_shallow")
    commands = recorded(MULTI30K, tmp_path, "--retrain")
    figures = [command[command.index("--figure") + 1] for command in commands if "--figure" in command]
    assert figures[:2] == ["latency", "speed"] and "steps" not in figures
    assert not any("mask_predict" in word for command in commands for word in command)


def test_wrong_options_of_a_recipe_are_one_line(tmp_path: Path) -> None:
    for arguments in (["--nothing"], ["--only"]):
        done = subprocess.run(["bash", str(MULTI30K), *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and arguments[0] in done.stderr
