"""Text out of archives as they are served."""

import sys
from pathlib import Path
from typing import List

import pytest

import extract_text
from tests.test_corpora import sgm, tgz, xml, zipped


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: object) -> List[List[str]]:
    """Runs the script; the lines of both outputs."""
    outputs = [folder / "out.a", folder / "out.b"]
    monkeypatch.setattr(sys, "argv", ["extract_text.py", *map(str, words), "--output", *map(str, outputs)])
    extract_text.main()
    return [path.read_text(encoding="utf-8").split("\n")[:-1] for path in outputs]


def test_texts_of_several_archives_follow_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "plain.tgz"
    plain.write_bytes(tgz({"./t/a.en": b"one\r\ntwo\n\n", "./t/a.de": "eins\nzwei \u2028 x\n\n".encode()}))
    other = tmp_path / "other.zip"
    other.write_bytes(zipped({"b.en": b"three", "b.de": b"drei\n", "README": b""}))
    from_both = ("--from", plain, "t/a.en", plain, "t/a.de", "--from", other, "b.e?", other, "b.de")
    expected = [["one", "two", "", "three"], ["eins", "zwei \u2028 x", "", "drei"]]
    assert run(monkeypatch, tmp_path, *from_both) == expected


def test_segments_are_lines_in_order_without_entities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a <b> & c", 'say "x"', "last"]
    archive = tmp_path / "sets.tgz"
    archive.write_bytes(tgz({"set-src.en.sgm": sgm(texts), "set.xml": xml(texts)}))
    assert run(monkeypatch, tmp_path, "--from", archive, "set-src.en.sgm", archive, "*.xml") == [texts, texts]


TALK = """<url>http://x</url>
<keywords>a, b</keywords>
<speaker>C. D.</speaker>
<talkid>7</talkid>
<title>The title</title>
<description>TED Talk: about</description>
<reviewer href="http://x">R</reviewer>
 first line
<laughter> is no tag of a talk
</doc>
"""


@pytest.mark.parametrize(
    ("flags", "titles"), [((), []), (("--titles",), ["The title", "TED Talk: about"])], ids=["text", "titles"]
)
def test_the_tags_of_a_talk_are_no_text(
    flags: List[str], titles: List[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tgz({"de-en/train.tags.de-en.de": TALK.encode(), "de-en/train.tags.de-en.en": TALK.encode()})
    archive = tmp_path / "2016-01.tgz"
    archive.write_bytes(tgz({"2016-01/de-en.tgz": inner}))
    members = [f"2016-01/de-en.tgz!de-en/train.tags.de-en.{lang}" for lang in ("de", "en")]
    lines, _ = run(monkeypatch, tmp_path, "--from", archive, members[0], archive, members[1], *flags)
    assert lines == [*titles, "first line", "<laughter> is no tag of a talk"]


@pytest.mark.parametrize(
    ("a", "b", "complaint"),
    [
        ("x.en", "absent.de", "holds 0 members absent.de"),
        ("*.*", "x.de", "holds 3 members *.*"),
        ("x.en", "long.de", "x.en of text.tgz has 1 lines, long.de of text.tgz has 2"),
    ],
)
def test_what_does_not_fit_is_one_line(
    a: str, b: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.tgz").write_bytes(tgz({"x.en": b"a\n", "x.de": b"a\n", "long.de": b"a\nb\n"}))
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, tmp_path, "--from", "text.tgz", a, "text.tgz", b)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and complaint in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "content", [None, b"", b"no archive", tgz({"x.en": b"a\n" * 9999})[:-40]], ids=["none", "empty", "text", "cut"]
)
def test_a_file_that_is_no_archive_is_one_line(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "x.tgz").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, tmp_path, "--from", tmp_path / "x.tgz", "x.en", tmp_path / "x.tgz", "x.en")
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("extract_text.py: cannot read ")
