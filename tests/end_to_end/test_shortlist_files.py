"""Files of ``--shortlist``: what is not one, or not of these dictionaries, is refused in one line."""

import json
from pathlib import Path
from typing import Any, List

import pytest

from nar_plugin.compat import digest
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.shortlist import Lexicon
from nar_plugin.tasks import shortlists
from tests.end_to_end.programs import TASK, complains, program, succeed, texts
from tests.tiny import EOS, PAD, SYMBOLS, UNK, dictionary

SOURCE, TARGET = dictionary(5), dictionary()
LINES = ["\t</s> <unk> w7", "w0\tw1 w2", "w1\t", "w3\tw19", "w4\tw0 w1 w5"]


def head_of(source: Any = SOURCE, target: Any = TARGET, lines: int = len(LINES)) -> str:
    return json.dumps({"source": digest(source), "target": digest(target), "lines": lines})


def read(path: Path, head: str, lines: List[str], end: str = "\n") -> Lexicon:
    path.write_text("\n".join([head, *lines]) + end, encoding="utf-8")
    return shortlists.read(str(path), SOURCE, TARGET, SYMBOLS)


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_file_is_read_as_it_was_written(end: str, tmp_path: Path) -> None:
    lexicon = read(tmp_path / "list", head_of(), LINES, end)
    word = TARGET.index
    assert lexicon.always.tolist() == [EOS, UNK, word("w7")]
    rows = {SOURCE[i]: sorted(set(row) - {EOS}) for i, row in enumerate(lexicon.rows.tolist())}
    assert rows.pop("w4") == [word("w0"), word("w1"), word("w5")]
    assert rows.pop("w0") == [word("w1"), word("w2")] and rows.pop("w3") == [word("w19")]
    assert not any(rows.values()) and PAD not in lexicon.rows


def test_a_file_of_no_source_word_has_what_every_sentence_gets(tmp_path: Path) -> None:
    assert read(tmp_path / "list", head_of(lines=0), []).always.tolist() == [EOS, UNK]


@pytest.mark.parametrize(
    ("head", "lines", "complaint"),
    [
        (head_of(source=TARGET), LINES, "was made with another source dictionary; make one with nar align --dict"),
        (head_of(target=SOURCE), LINES, "was made with another target dictionary; make one with nar align --dict"),
        (head_of(TARGET, SOURCE), LINES, "was made with another source and another target dictionary; make one"),
        (head_of(), LINES[:3], "has 3 lines of 5: make it anew (nar align)"),
        (head_of(), [*LINES[:4], "w4\tw0 w"], ", line 6: no dictionary has 'w'; make it anew (nar align)"),
        (head_of(), ["\tw1", "w7\tw0", *LINES[2:]], ", line 3: no dictionary has 'w7'; make it anew (nar align)"),
        (head_of(), ["\tw1", "w0 w1", *LINES[2:]], ", line 3: there is no tab; make it anew (nar align)"),
        (LINES[0], LINES[1:], "is no file of nar align"),
        ("[1]", LINES, "is no file of nar align"),
        ('{"source": ""}', LINES, "is no file of nar align"),
        ("", [], "is no file of nar align"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(head: str, lines: List[str], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read(tmp_path / "list", head, lines)
    said = str(error.value)
    assert said.startswith(f"--shortlist {tmp_path / 'list'}") and complaint in said and "\n" not in said


def test_no_file_a_folder_and_what_is_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").write_bytes(b"")
    cases = {"none": "No such file", ".": "Is a directory", "bytes": "is no file of", "empty": "is no file of"}
    for name, words in cases.items():
        with pytest.raises(UsageError, match=words):
            shortlists.read(str(tmp_path / name), SOURCE, TARGET, SYMBOLS)
    with pytest.raises(UsageError, match="are no text"):
        shortlists.read(str(tmp_path / "empty"), None, TARGET, SYMBOLS)


def test_a_program_heeds_the_list_and_refuses_it_where_it_does_nothing(
    data: Path, student: Path, teacher: Path, tmp_path: Path
) -> None:
    source, target = (dictionary_of(data / f"dict.{side}.txt") for side in ("src", "tgt"))
    (tmp_path / "list").write_text(head_of(source, target, 1) + "\n\tan-AB ter-ED\n")
    flags = (data, *TASK, "--gen-subset", "test", "--cpu", "--shortlist", tmp_path / "list")
    found = texts(succeed("fairseq-generate", *flags, "--path", student))
    assert {word for line in found for word in line.split()} <= {"an-AB", "ter-ED", "<unk>"}
    done = program("fairseq-generate", *flags, "--path", student, "--score-reference")
    complains(done, "--shortlist: no effect beside --score-reference")
    complains(program("fairseq-generate", *flags, "--path", teacher), "--shortlist: an autoregressive --arch")
    other = (*flags[:-1], tmp_path / "none")
    complains(program("fairseq-generate", *other, "--path", student), "--shortlist", "No such file")


def dictionary_of(path: Path) -> Any:
    from fairseq.data import Dictionary

    return Dictionary.load(str(path))
