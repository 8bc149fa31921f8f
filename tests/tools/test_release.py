"""A release: packed with its hashes, and refused where a file is not what it was."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.programs import Outcome
from tests.tools.conftest import Nar


def run(nar: Nar, action: str, folder: Path, *more: Any) -> Outcome:
    return nar("release", action, folder, "--made-from", folder.parent / "train.de", *more)


@pytest.fixture
def packed(nar: Nar, tmp_path: Path) -> Path:
    folder = tmp_path / "teacher"
    folder.mkdir()
    (tmp_path / "train.de").write_text("ein Haus\n")
    (folder / "teacher.pt").write_bytes(b"weights")
    (folder / "codes").write_text("e i\n")
    done = run(nar, "pack", folder, "--command", "fairseq-train data", "--command", "average")
    assert done.code == 0, done.stderr
    return folder


def test_a_release_says_what_it_is_and_how_it_was_made(packed: Path) -> None:
    manifest = json.loads((packed / "manifest.json").read_text())
    assert set(manifest["files"]) == {"teacher.pt", "codes"} and manifest["bytes"] == {"teacher.pt": 7, "codes": 4}
    assert set(manifest["made_from"]) == {"train.de"} and manifest["commands"] == ["fairseq-train data", "average"]


def test_a_whole_release_is_accepted_and_packing_it_again_changes_no_hash(nar: Nar, packed: Path) -> None:
    assert run(nar, "check", packed).code == 0
    before = json.loads((packed / "manifest.json").read_text())["files"]
    assert run(nar, "pack", packed).code == 0 and json.loads((packed / "manifest.json").read_text())["files"] == before


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("teacher/teacher.pt", "weight", "teacher.pt is not the file that was released"),
        ("teacher/codes", None, "cannot read "),
        ("train.de", "zwei Haus\n", "was made from another train.de"),
        ("teacher/manifest.json", "{}", "is no manifest"),
        ("teacher/manifest.json", None, "cannot read "),
    ],
)
def test_what_is_not_as_it_was_is_refused_in_one_line(
    name: str, content: Any, complaint: str, nar: Nar, packed: Path, tmp_path: Path
) -> None:
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    done = run(nar, "check", packed)
    assert done.code == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("nar release: ") and complaint in done.stderr


def test_a_text_that_the_release_does_not_know_is_refused(nar: Nar, packed: Path, tmp_path: Path) -> None:
    (tmp_path / "train.fr").write_text("une maison\n")
    done = nar("release", "check", packed, "--made-from", tmp_path / "train.fr")
    assert done.code == 2 and "was made from another train.fr" in done.stderr


def test_an_empty_or_absent_folder_cannot_be_packed(nar: Nar, tmp_path: Path) -> None:
    (tmp_path / "train.de").write_text("x\n")
    assert "there is no folder" in run(nar, "pack", tmp_path / "teacher").stderr
    (tmp_path / "teacher").mkdir()
    assert "is empty" in run(nar, "pack", tmp_path / "teacher").stderr
