"""Files of ``--word-counts``: rows by sentence; what is not of this text is refused in one line."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nar_plugin.compat import parallel_digest
from nar_plugin.methods.contract import UsageError
from nar_plugin.tasks.word_counts import WordCounts
from tests.tiny import EOS, dictionary

SOURCES = [[5, 6, 7], [8], [9, 10], [11, 12]]
TARGETS = [[5, 5, 6, 7], [8], [9], []]
LINES = ["2 1 1", "1", "0 1", "0 0"]


def dataset(sources: list[list[int]] = SOURCES, targets: list[list[int]] = TARGETS, words: int = 20) -> Any:
    """What a text looks like to fairseq."""
    sides = [[torch.tensor([*row, EOS]) for row in rows] for rows in (sources, targets)]
    sizes = [np.array([len(row) for row in side]) for side in sides]
    known = dictionary(words)
    return SimpleNamespace(
        src=sides[0], tgt=sides[1], src_sizes=sizes[0], tgt_sizes=sizes[1], src_dict=known, tgt_dict=known
    )


def head_of(data: Any, lines: int = 4) -> str:
    sizes, dictionaries = (data.src_sizes, data.tgt_sizes), (data.src_dict, data.tgt_dict)
    text = parallel_digest(dictionaries, sizes, lambda i: (data.src[i].tolist(), data.tgt[i].tolist()))
    return json.dumps({"text": text, "lines": lines})


def loaded(folder: Path, head: str, lines: list[str], data: Any = None) -> WordCounts:
    (folder / "train").write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    counts = WordCounts(str(folder))
    counts.load("train", data or dataset())
    return counts


def test_each_sentence_has_its_row_in_any_order(tmp_path: Path) -> None:
    """FERT-4: with 1 for the end, and 0 behind it."""
    counts, sizes = loaded(tmp_path, head_of(dataset()), LINES), dataset().src_sizes
    assert counts.rows(torch.tensor([2, 0, 1]), "train", sizes).tolist() == [[0, 1, 1, 0], [2, 1, 1, 1], [1, 1, 0, 0]]
    assert counts.rows(torch.tensor([1, 1]), "train", sizes).tolist() == [[1, 1], [1, 1]]
    assert counts.rows(torch.tensor([3]), "train", sizes).tolist() == [[0, 0, 1]]


def test_a_source_that_is_cut_has_the_counts_of_what_is_left(tmp_path: Path) -> None:
    counts = loaded(tmp_path, head_of(dataset()), LINES)
    assert counts.rows(torch.tensor([0, 2]), "train", np.array([2, 2, 2, 2])).tolist() == [[2, 1], [0, 1]]


OTHER = dataset([[5, 6, 8], *SOURCES[1:]])


@pytest.mark.parametrize(
    ("head", "lines", "complaint"),
    [
        (head_of(OTHER), LINES, "was made of another text"),
        (head_of(dataset(words=21)), LINES, "was made of another text"),
        (head_of(dataset()), LINES[:3], "has 3 lines of 4"),
        (head_of(dataset(), 3), LINES[:3], "has 3 lines, of a text of 4 sentences"),
        (
            head_of(dataset()),
            ["2 2", *LINES[1:]],
            "line 2: 2 numbers, 4 together, of a sentence of 3 words whose target",
        ),
        (head_of(dataset()), [LINES[0], "2", *LINES[2:]], "line 3: 1 numbers, 2 together, of a sentence of 1 words"),
        (head_of(dataset()), [*LINES[:3], ""], "line 5: 0 numbers, 0 together, of a sentence of 2 words"),
        (head_of(dataset()), [LINES[0], "one", *LINES[2:]], "line 3: it takes whole numbers from 0 on"),
        (head_of(dataset()), ["3 -1 2", *LINES[1:]], "line 2: it takes whole numbers from 0 on"),
        (head_of(dataset()), ["99999 1 1", *LINES[1:]], "line 2: it takes whole numbers from 0 on"),
        (LINES[0], LINES[1:], "is no file of nar align --word-counts"),
        ('{"text": ""}', LINES, "is no file of nar align --word-counts"),
        ("", [], "is no file of nar align --word-counts"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(head: str, lines: list[str], complaint: str, tmp_path: Path) -> None:
    """FERT-4: in one line, with the file and the place."""
    with pytest.raises(UsageError) as error:
        loaded(tmp_path, head, lines)
    said = str(error.value)
    assert complaint in said and str(tmp_path / "train") in said and "\n" not in said


def test_no_file_and_what_is_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train").write_bytes(b"\xff\xfe\x00")
    for split, words in (("valid", "valid: No such file"), ("train", "is no file of nar align")):
        with pytest.raises(UsageError, match=words):
            WordCounts(str(tmp_path)).load(split, dataset())


def test_the_hash_of_a_text_is_of_every_length_and_of_words() -> None:
    """FERT-4: of a large text a thousand pairs are read, and the lengths of all."""
    count, read = 5000, []
    sizes = [np.full(count, 3), np.full(count, 4)]
    known = dictionary(), dictionary()

    def sentence(i: int) -> Any:
        read.append(i)
        return [i, 1, 2], [i, 3, 4, 5]

    first = parallel_digest(known, sizes, sentence)
    assert len(read) == 1000 and read[:3] == [0, 5, 10]
    sizes[1][4999] = 5
    assert parallel_digest(known, sizes, sentence) != first
    sizes[1][4999] = 4
    assert parallel_digest(known, sizes, sentence) == first
    assert parallel_digest(known, sizes, lambda i: ([i, 1, 2], [i, 3, 4, 5 + (i == 4995)])) != first
