"""Files are written whole or not at all, and what is no regular file is never replaced."""

import os
from pathlib import Path

import pytest

from files import whole, write_lines


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
