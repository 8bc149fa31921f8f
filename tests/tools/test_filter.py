"""Which pairs of a training text stay."""

import random
from pathlib import Path
from typing import Any, List, Tuple

import pytest

from tests.tools.conftest import Nar

Pairs = List[Tuple[str, str]]


def run(nar: Nar, folder: Path, pairs: Pairs, *flags: Any) -> Pairs:
    """Runs the verb on the pairs; those that stay."""
    given = [folder / "a", folder / "b"]
    for side, path in enumerate(given):
        path.write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
    ended = nar("filter", "--input", *given, "--output", folder / "kept.a", folder / "kept.b", *flags)
    assert ended.code == 0, ended.stderr
    return pairs_of(folder / "kept.a", folder / "kept.b")


def pairs_of(*paths: Path) -> Pairs:
    sides = [path.read_text(encoding="utf-8").split("\n")[:-1] for path in paths]
    return list(zip(*sides, strict=True))


def test_pairs_stay_that_are_neither_empty_nor_long_nor_unlike(tmp_path: Path, nar: Nar) -> None:
    """Moses' rules by brute force: both sides of 1 to 6 tokens, neither more than 1.5 times as long as the other."""
    draw = random.Random(1)
    pairs = [(" ".join("a" * draw.randint(0, 8)), " ".join("b" * draw.randint(0, 8))) for _ in range(500)]
    pairs += [("a \u2028 b", "a b c"), ("  a  b ", "x y")]
    fits = [
        (a, b)
        for a, b in pairs
        if 1 <= (n := len(a.split())) <= 6 and 1 <= (m := len(b.split())) <= 6 and n <= 1.5 * m and m <= 1.5 * n
    ]
    assert run(nar, tmp_path, pairs, "--longest", 6, "--ratio", 1.5) == fits and 50 < len(fits) < 300


def test_every_kth_pair_that_stays_is_held_out(tmp_path: Path, nar: Nar) -> None:
    pairs = [(f"a{i}", "" if i % 3 == 0 else f"b{i}") for i in range(30)]
    held = (tmp_path / "held.a", tmp_path / "held.b")
    kept = run(nar, tmp_path, pairs, "--longest", 9, "--hold-out", 4, *held)
    stay = [pair for pair in pairs if pair[1]]
    assert pairs_of(*held) == stay[3::4] and sorted(kept + stay[3::4]) == sorted(stay)


def test_how_many_pairs_stay_and_why_others_do_not_is_said(tmp_path: Path, nar: Nar) -> None:
    (tmp_path / "a").write_text("a\n\na a a a\na a a\na\n")
    (tmp_path / "b").write_text("b\nb\nb\nb\nb\n")
    files = [tmp_path / name for name in ("a", "b")]
    outputs = [tmp_path / name for name in ("kept.a", "kept.b", "held.a", "held.b")]
    flags = ("--longest", 3, "--ratio", 2, "--hold-out", 2, *outputs[2:])
    told = nar("filter", "--input", *files, "--output", *outputs[:2], *flags).stderr
    assert told == (
        f"{outputs[0]}, {outputs[1]}: 2 of 5 pairs kept, 1 of them to {outputs[2]} and {outputs[3]}; "
        "left out: 1 empty, 1 too long, 1 unlike in length\n"
    )


@pytest.mark.parametrize(("a", "b"), [("x\ny\n", "x\n"), ("x\n", "x\ny\n"), ("x x x\n", "x\n"), ("", "")])
def test_unequal_texts_and_texts_of_which_nothing_is_left_are_one_line(
    a: str, b: str, tmp_path: Path, nar: Nar
) -> None:
    (tmp_path / "a").write_text(a)
    (tmp_path / "b").write_text(b)
    files = [tmp_path / name for name in ("a", "b")]
    outputs = [tmp_path / name for name in ("kept.a", "kept.b")]
    ended = nar("filter", "--input", *files, "--output", *outputs, "--longest", 9, "--ratio", 2)
    assert ended.code == 2 and ended.stderr.count("\n") == 1
    assert not list(tmp_path.glob("kept*"))


@pytest.mark.parametrize("flags", [("--longest", 0), ("--longest", 9, "--ratio", 0.5)])
def test_numbers_below_one_are_one_line(flags: Tuple[Any, ...], tmp_path: Path, nar: Nar) -> None:
    ended = nar("filter", "--input", "a", "b", "--output", "c", "d", *flags)
    assert ended.code == 2 and ended.stderr.count("\n") == 1


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path, nar: Nar) -> None:
    text = tmp_path / "a"
    text.write_text("x\n")
    ended = nar("filter", "--input", text, text, "--output", text / "below", text / "a file", "--longest", 9)
    assert ended.code == 2 and ended.stderr.startswith("nar filter: cannot write ") and ended.stderr.count("\n") == 1
