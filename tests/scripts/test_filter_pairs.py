"""Which pairs of a training text stay."""

import random
import sys
from pathlib import Path
from typing import Any, List, Tuple

import pytest

import filter_pairs

Pairs = List[Tuple[str, str]]


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, pairs: Pairs, *flags: Any) -> Pairs:
    """Runs the script on the pairs; those that stay."""
    given = [folder / "a", folder / "b"]
    for side, path in enumerate(given):
        path.write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
    files = [*map(str, given), "--output", str(folder / "kept.a"), str(folder / "kept.b")]
    monkeypatch.setattr(sys, "argv", ["filter_pairs.py", "--input", *files, *map(str, flags)])
    filter_pairs.main()
    return pairs_of(folder / "kept.a", folder / "kept.b")


def pairs_of(*paths: Path) -> Pairs:
    sides = [path.read_text(encoding="utf-8").split("\n")[:-1] for path in paths]
    return list(zip(*sides, strict=True))


def test_pairs_stay_that_are_neither_empty_nor_long_nor_unlike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moses' rules by brute force: both sides of 1 to 6 tokens, neither more than 1.5 times as long as the other."""
    draw = random.Random(1)
    pairs = [(" ".join("a" * draw.randint(0, 8)), " ".join("b" * draw.randint(0, 8))) for _ in range(500)]
    pairs += [("a \u2028 b", "a b c"), ("  a  b ", "x y")]
    fits = [
        (a, b)
        for a, b in pairs
        if 1 <= (n := len(a.split())) <= 6 and 1 <= (m := len(b.split())) <= 6 and n <= 1.5 * m and m <= 1.5 * n
    ]
    assert run(monkeypatch, tmp_path, pairs, "--longest", 6, "--ratio", 1.5) == fits and 50 < len(fits) < 300


def test_every_kth_pair_that_stays_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [(f"a{i}", "" if i % 3 == 0 else f"b{i}") for i in range(30)]
    held = (tmp_path / "held.a", tmp_path / "held.b")
    kept = run(monkeypatch, tmp_path, pairs, "--longest", 9, "--hold-out", 4, *held)
    stay = [pair for pair in pairs if pair[1]]
    assert pairs_of(*held) == stay[3::4] and sorted(kept + stay[3::4]) == sorted(stay)
    assert "20 of 30 pairs kept, 5 of them to" in capsys.readouterr().err


@pytest.mark.parametrize(("a", "b"), [("x\ny\n", "x\n"), ("x\n", "x\ny\n"), ("x x x\n", "x\n"), ("", "")])
def test_unequal_texts_and_texts_of_which_nothing_is_left_are_one_line(
    a: str, b: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_text(a)
    (tmp_path / "b").write_text(b)
    files = [str(tmp_path / name) for name in ("a", "b")]
    outputs = [str(tmp_path / name) for name in ("kept.a", "kept.b")]
    words = ["filter_pairs.py", "--input", *files, "--output", *outputs, "--longest", "9", "--ratio", "2"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        filter_pairs.main()
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.glob("kept*"))
