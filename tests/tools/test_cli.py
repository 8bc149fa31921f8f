"""The command `nar`: its verbs, its help, and how it ends."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from nar_plugin.methods.usage import UsageError
from nar_tools import cli
from nar_tools.errors import ToolError
from tests.end_to_end.programs import ROOT, console, script
from tests.tools.conftest import Nar

TEXT = ("prepare", "extract", "filter", "join", "curve", "score", "release", "images")
"""Verbs whose help needs no library that is slow to import."""
SLOW = re.compile(r"\| *(torch|fairseq|matplotlib|sacrebleu|sacremoses|subword_nmt)\b")


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_all_verbs_are_listed(words: tuple[str, ...], nar: Nar) -> None:
    done = nar(*words)
    assert done.code == 0 and done.stderr == ""
    listed = re.findall(r"^  (\w+)  +\S", done.stdout, re.MULTILINE)
    assert listed == list(cli.VERBS)


def test_every_verb_is_a_file_and_every_file_a_verb() -> None:
    files = {path.stem for path in (Path(cli.__file__).parent / "commands").glob("*.py")} - {"__init__"}
    assert files == set(cli.VERBS)


def test_the_list_of_verbs_comes_at_once() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert console([script("nar"), "--help"]).code == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_with_an_example(verb: str, nar: Nar) -> None:
    done = nar(verb, "--help")
    assert done.code == 0 and done.stderr == ""
    assert done.stdout.startswith(f"usage: nar {verb}")
    example = done.stdout.partition("Example:")[2]
    assert re.search(rf"^ +(.*\| )?nar {verb}\b", example, re.MULTILINE), "no example"


@pytest.mark.parametrize("verb", TEXT)
def test_help_imports_nothing_slow(verb: str) -> None:
    done = console([sys.executable, "-X", "importtime", script("nar"), verb, "--help"])
    assert done.code == 0 and not SLOW.search(done.stderr), SLOW.findall(done.stderr)


def test_a_verb_that_is_nearly_right_is_guessed(nar: Nar) -> None:
    assert "no verb distil (did you mean distill?)" in nar("distil").stderr


def test_an_unknown_verb_is_one_line(nar: Nar) -> None:
    done = nar("translate")
    assert done.code == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("nar: there is no verb translate; there are: prepare, ")


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    done = console([sys.executable, "-m", "nar_tools", "join", "--help"], folder=tmp_path)
    assert done.code == 0 and done.stdout.startswith("usage: nar join")


def test_what_cannot_be_done_is_one_line_with_status_2(nar: Nar, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(argv: list[str]) -> None:
        raise {"tool": ToolError, "plugin": UsageError}[argv[0]]("two\nlines")

    monkeypatch.setattr("nar_tools.commands.join.main", main)
    for kind in ("tool", "plugin"):
        done = nar("join", kind)
        assert (done.code, done.stdout, done.stderr) == (2, "", "nar join: two lines\n")


def test_an_interruption_is_quiet(nar: Nar, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(argv: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nar_tools.commands.join.main", main)
    done = nar("join")
    assert (done.code, done.stderr) == (130, "")


@pytest.mark.parametrize("words", [("--help",), ("join", "--help")])
def test_a_closed_pipe_is_quiet(words: tuple[str, ...]) -> None:
    command = [script("nar"), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 141)  # argparse writes its help whether or not someone reads it
