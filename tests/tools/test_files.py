"""Files are written whole or not at all, and what is no regular file is never replaced."""

import os
from pathlib import Path

import pytest

from nar_tools.errors import ToolError
from nar_tools.files import read_lines, whole, write_lines


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_lines(path, ["one"])
    with whole(path) as unfinished:
        unfinished.write_text("two")
        assert path.read_text() == "one\n"
    assert path.read_text() == "two" and os.listdir(path.parent) == ["file"]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ValueError), whole(path) as unfinished:
        unfinished.write_text("half")
        raise ValueError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_lines(tmp_path / "link", ["one"])
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "one\n"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """As /dev/null and other devices, which a program of root could replace."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_lines(path, ["one"])
        assert os.read(reader, 100) == b"one\n"
    finally:
        os.close(reader)
    assert path.is_fifo() and os.listdir(tmp_path) == ["pipe"]


def test_the_null_device_takes_everything(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to(os.devnull)  # were the link replaced, the device would live
    write_lines(tmp_path / "null", ["one"])
    assert (tmp_path / "null").is_char_device()


def test_lines_are_parted_by_line_feeds_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("a\r\n\u2028b\x0b\x85\n\n".encode() + b"\xff c")
    assert read_lines(tmp_path / "file") == ["a\r", "\u2028b\x0b\x85", "", "\ufffd c"]
    (tmp_path / "file").write_bytes(b"")
    assert read_lines(tmp_path / "file") == []


def test_cleaned_lines_have_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    path.write_bytes("a\tb\nc\x85\u2029d\r\n".encode() + b"\xff\n")
    assert read_lines(path, clean=True) == ["a\tb", "c  d ", "\ufffd"]
    assert capsys.readouterr().err == f"{path}: 3 lines, 2 repaired (wrong encoding or control characters)\n"


def test_a_file_that_cannot_be_read_or_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ToolError, match="^cannot read .*/none: No such file or directory$"):
        read_lines(tmp_path / "none")
    with pytest.raises(ToolError, match="^cannot write .*/file/below: "):
        write_lines(tmp_path / "file" / "below", ["a"])
