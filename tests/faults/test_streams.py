"""Text through pipes: answers at once, in UTF-8, a line for a line, and quietly to the end."""

import os
import random
import select
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

import pytest

from tests.conftest import ADAM, LIMITS, QUIET, SOURCE_WORDS
from tests.end_to_end.programs import ROOT, TASK, Outcome, script, shell, succeed, tagged, texts

LATIN: Dict[str, str] = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}


def surroundings(**more: str) -> Dict[str, str]:
    """Of a user who has not set PYTHONUNBUFFERED, which would hide what is looked at here."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def interactive(data: Path, model: Path, *options: Any) -> List[str]:
    return [str(word) for word in (script("fairseq-interactive"), data, *TASK, "--path", model, *options)]


def answer(process: subprocess.Popen, line: bytes, seconds: float = 100) -> List[bytes]:
    """The lines S to P that a program says to one line, its stdin still open."""
    assert process.stdin and process.stdout
    process.stdin.write(line)
    process.stdin.flush()
    said: List[bytes] = []
    while not said or not said[-1].startswith(b"P-"):
        assert select.select([process.stdout], [], [], seconds)[0], f"no answer within {seconds} s, after {said}"
        said.append(process.stdout.readline())
        assert said[-1], "it ended"
    return said


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_a_program_at_the_other_end_of_a_pipe_gets_its_answer_at_once(
    kind: str, data: Path, request: pytest.FixtureRequest
) -> None:
    command = interactive(data, request.getfixturevalue(kind), "--buffer-size", 1)
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "bufsize": 0}
    with subprocess.Popen(command, env=surroundings(), cwd=ROOT, **pipes) as process:
        for number in range(3):
            said = answer(process, f"{SOURCE_WORDS[number]}\n".encode())
            assert said[0].startswith(f"S-{number}\t{SOURCE_WORDS[number]}".encode())
        assert process.stdin
        process.stdin.close()
        assert process.wait(60) == 0


def test_text_is_utf8_whatever_the_locale_and_whatever_bytes_come(data: Path, student: Path, tmp_path: Path) -> None:
    given = "é 漢字 🙂\u2028x bana\n".encode() + b"\xff\xfe bana\n" + b"de\x00ret\n"
    (tmp_path / "given").write_bytes(given)
    for options in (("--input", tmp_path / "given"), ()):
        command = interactive(data, student, *options)
        done = subprocess.run(command, input=given, capture_output=True, env=surroundings(**LATIN), cwd=ROOT)
        said = done.stdout.decode("utf-8")
        assert done.returncode == 0, done.stderr[-500:]
        assert [int(line.split("\t")[0][2:]) for line in said.split("\n") if line.startswith("H-")] == [0, 1, 2]


def test_a_reader_that_has_seen_enough_ends_a_program_quietly(data: Path, student: Path, teacher: Path) -> None:
    for model in (student, teacher):
        words = " ".join(map(str, (data, *TASK, "--path", model, "--batch-size", 1)))
        outcome = shell(f"fairseq-generate {words} | head -1")
        assert outcome.code == 141 and outcome.stdout.count("\n") == 1  # pipefail: 128 + SIGPIPE
        assert "Traceback" not in outcome.stderr and "BrokenPipe" not in outcome.stderr


def test_an_empty_line_is_answered_by_an_empty_line(data: Path, student: Path, teacher: Path) -> None:
    given = b"bana\n\n   \nkisil\n\n"
    for options in (("--path", student), ("--path", teacher), ("--path", teacher, "--nbest", 2), ("--path", teacher)):
        found = tagged(succeed("fairseq-interactive", data, *TASK, *options, stdin=given), "H")
        empty = [text for number, (_, text) in found if number in (1, 2, 4)]
        assert empty == ["", "", ""] and {number for number, _ in found} == {0, 1, 2, 3, 4}
        assert all(text for number, (_, text) in found if number in (0, 3))
    together = succeed("fairseq-interactive", data, *TASK, *options, "--buffer-size", 5, stdin=given)
    assert texts(together) == [fields[1] for _, fields in found]


@pytest.fixture(scope="module")
def fuzz() -> bytes:
    """1,000 lines of words of the language and of characters from all of Unicode, control characters among them."""
    draw = random.Random(1)
    planes = [(0, 0x80), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x110000)]

    def word() -> str:
        if draw.random() < 0.5:
            return draw.choice(SOURCE_WORDS)
        return "".join(chr(draw.randrange(*draw.choice(planes))) for _ in range(draw.randint(1, 4)))

    lines = [draw.choice(" \t\u2028").join(word() for _ in range(draw.randint(0, 9))) for _ in range(1000)]
    return "".join(line.replace("\n", " ") + "\n" for line in lines).encode()


METHODS: Sequence[str] = ("mask_predict", "iterative_refinement", "lanmt_continuous")


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_thousand_lines_of_all_of_unicode_come_back_as_a_thousand(
    name: str, data: Path, fuzz: bytes, tmp_path: Path, stands_on: Callable[[str], Any]
) -> None:
    criterion = {"lanmt_continuous": "elbo_length"}.get(name, "token_length")
    model = ("--arch", f"{name}_tiny", "--criterion", criterion, *stands_on(name))
    limits = (*LIMITS, *ADAM, *QUIET, "--max-tokens", 1000, "--max-update", 30, "--save-dir", tmp_path)
    succeed("fairseq-train", data, *TASK, *model, *limits)

    def decoded(size: int) -> Outcome:
        path = ("--path", tmp_path / "checkpoint_last.pt", "--batch-size", size, "--buffer-size", size)
        return succeed("fairseq-interactive", data, *TASK, *path, stdin=fuzz)

    one, many = texts(decoded(1)), texts(decoded(64))
    assert len(one) == 1000 and one == many
