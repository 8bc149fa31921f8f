"""Every command of every README and recipe parses with the parser of the program that it is for."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List
from unittest import mock

import pytest
from fairseq import options

import engine
import nar_plugin  # noqa: F401  (registers what the commands name)

ROOT = Path(__file__).resolve().parent.parent
READMES = sorted(path for path in ROOT.rglob("README.md") if not {".venv", "out"} & set(path.parts))
RECIPES = sorted(ROOT.glob("examples/*/run.sh"))
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
        words = shlex.split(line, comments=True)
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
    """Raises or exits where the program would refuse the flags; programs of others are not our concern."""
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


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_readme_parses(readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for command in commands_of(readme.read_text(encoding="utf-8")):
        assert_parses(command)


def test_a_wrong_flag_in_a_readme_is_found() -> None:
    (command,) = commands_of(
        "```bash\nfairseq-train data --user-dir nar_plugin --arch mask_predict --no-such-flag\n```"
    )
    with pytest.raises(SystemExit):
        assert_parses(command)


def recorded(recipe: Path, out: Path, *arguments: str) -> List[List[str]]:
    """What a recipe runs, by a run with stubs in place of the programs."""
    record = out / "commands"
    variables = {"BASH_ENV": str(ROOT / "tests" / "recipe_stubs.sh"), "OUT": str(out), "RECORD": str(record)}
    done = subprocess.run(
        ["bash", str(recipe), *arguments], env={**os.environ, **variables}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(record.iterdir())]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
def test_every_command_of_a_recipe_parses_and_a_second_run_repeats_nothing(recipe: Path, tmp_path: Path) -> None:
    commands = recorded(recipe, tmp_path, "--all")
    programs = [command[0] for command in commands]
    assert {"fairseq-preprocess", "fairseq-train", "fairseq-generate"} <= set(programs)
    for command in commands:
        assert_parses(command)
        if command[0].endswith("benchmark.py"):
            systems = [command[i + 2] for i, word in enumerate(command) if word == "--system"]
            for flags in [*systems, command[command.index("--teacher") + 1]]:
                words = shlex.split(flags)
                assert words[0] == "--train"
                engine.configuration(["data", *words[2:]])
    again = recorded(recipe, tmp_path, "--all")[len(commands) :]
    assert [Path(command[0]).name for command in again] == ["report.py"], "a finished step was done again"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
def test_a_step_whose_input_was_made_anew_is_done_again(recipe: Path, tmp_path: Path) -> None:
    commands = recorded(recipe, tmp_path)
    teacher = next(tmp_path.rglob("teacher.pt"))
    os.utime(teacher, (1, 1))
    again = [Path(command[0]).name for command in recorded(recipe, tmp_path)[len(commands) :]]
    assert "collect_distilled.py" in again and "benchmark.py" in again and "make_corpus.py" not in again
    (tmp_path / "codes").write_text("cut")
    again = recorded(recipe, tmp_path)[len(commands) + len(again) :]
    assert "prepare_text.py" in [Path(command[0]).name for command in again]
