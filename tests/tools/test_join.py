"""Joined sentences: exactly as long as asked for, from the text's own sentences in their order."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from nar_tools.text import join
from tests.end_to_end.programs import Outcome
from tests.tools.conftest import Nar

PAIRS = [("a b c".split(), "A B".split()), ("d".split(), "D E F".split()), ("e f".split(), "G".split())]


def test_pairs_are_joined_in_order_until_both_sides_are_long_enough_and_cut_there() -> None:
    first, second, third = islice(join.joined(PAIRS, 4), 3)
    assert first == ("a b c d".split(), "A B D E".split())
    assert second == ("e f a b".split(), "G A B D".split()), "begins with the next sentence, and with the text anew"
    assert third == ("e f a b".split(), "G A B D".split())


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_every_pair_has_the_length_asked_for(length: int) -> None:
    for source, target in islice(join.joined(PAIRS, length), 5):
        assert len(source) == len(target) == length


def run(nar: Nar, folder: Path, source: str, target: str, *more: Any) -> Outcome:
    (folder / "in.de").write_text(source)
    (folder / "in.en").write_text(target)
    sides = ("--input", folder / "in.de", folder / "in.en", "--output", folder / "out.de", folder / "out.en")
    return nar("join", *sides, *more)


@pytest.mark.parametrize(("length", "count"), [(10, 20), (100, 20), (250, 8), (1000, 3), (5000, 3)])
def test_so_many_sentences_are_timed_if_nobody_says(length: int, count: int, nar: Nar, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("a b c\n" * 7)
    done = nar("join", "--input", text, text, "--output", tmp_path / "a", tmp_path / "b", "--length", length)
    assert done.code == 0 and len((tmp_path / "a").read_text().splitlines()) == count


def test_the_program_writes_as_many_lines_as_asked_for_and_leaves_empty_sentences_out(nar: Nar, tmp_path: Path) -> None:
    assert run(nar, tmp_path, "a b\n\nc\n", "A\nB\nC D\n", "--length", 3, "--lines", 2).code == 0
    assert (tmp_path / "out.de").read_text() == "a b c\na b c\n"
    assert (tmp_path / "out.en").read_text() == "A C D\nA C D\n"


@pytest.mark.parametrize(
    ("source", "target", "length", "complaint"),
    [
        ("a\nb\n", "A\n", 3, "2 lines of source, 1 of target"),
        ("\n", "A\n", 3, "there is no sentence to join"),
        ("a\n", "A\n", 0, "--length and --lines need 1 or more"),
    ],
)
def test_what_cannot_be_joined_is_refused_in_one_line(
    source: str, target: str, length: int, complaint: str, nar: Nar, tmp_path: Path
) -> None:
    done = run(nar, tmp_path, source, target, "--length", length)
    assert done.code == 2 and done.stderr.splitlines()[-1] == f"nar join: {complaint}"
    assert not (tmp_path / "out.de").exists()
