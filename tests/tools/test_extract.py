"""Text out of archives as they are served."""

import gzip
from pathlib import Path
from typing import List

import pytest

from tests.test_corpora import sgm, tgz, xml, zipped
from tests.tools.conftest import Nar


def run(nar: Nar, folder: Path, *words: object) -> List[List[str]]:
    """Runs the verb; the lines of both outputs."""
    outputs = [folder / "out.a", folder / "out.b"]
    ended = nar("extract", *words, "--output", *outputs)
    assert ended.code == 0, ended.stderr
    return [path.read_text(encoding="utf-8").split("\n")[:-1] for path in outputs]


def refused(nar: Nar, *words: object) -> str:
    """The one line that the verb ends with."""
    ended = nar("extract", *words, "--output", "out.a", "out.b")
    assert ended.code == 2 and ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


def test_texts_of_several_archives_follow_one_another(tmp_path: Path, nar: Nar) -> None:
    plain = tmp_path / "plain.tgz"
    plain.write_bytes(tgz({"./t/a.en": b"one\r\ntwo\n\n", "./t/a.de": "eins\nzwei \u2028 x\n\n".encode()}))
    other = tmp_path / "other.zip"
    other.write_bytes(zipped({"b.en": b"three", "b.de": b"drei\n", "README": b""}))
    from_both = ("--from", plain, "t/a.en", plain, "t/a.de", "--from", other, "b.e?", other, "b.de")
    expected = [["one", "two", "", "three"], ["eins", "zwei \u2028 x", "", "drei"]]
    assert run(nar, tmp_path, *from_both) == expected


def test_segments_are_lines_in_order_without_entities(tmp_path: Path, nar: Nar) -> None:
    texts = ["a <b> & c", 'say "x"', "last"]
    archive = tmp_path / "sets.tgz"
    archive.write_bytes(tgz({"set-src.en.sgm": sgm(texts), "set.xml": xml(texts)}))
    assert run(nar, tmp_path, "--from", archive, "set-src.en.sgm", archive, "*.xml") == [texts, texts]


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
def test_the_tags_of_a_talk_are_no_text(flags: List[str], titles: List[str], tmp_path: Path, nar: Nar) -> None:
    inner = tgz({"de-en/train.tags.de-en.de": TALK.encode(), "de-en/train.tags.de-en.en": TALK.encode()})
    archive = tmp_path / "2016-01.tgz"
    archive.write_bytes(tgz({"2016-01/de-en.tgz": inner}))
    members = [f"2016-01/de-en.tgz!de-en/train.tags.de-en.{lang}" for lang in ("de", "en")]
    lines, _ = run(nar, tmp_path, "--from", archive, members[0], archive, members[1], *flags)
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
    a: str, b: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nar: Nar
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.tgz").write_bytes(tgz({"x.en": b"a\n", "x.de": b"a\n", "long.de": b"a\nb\n"}))
    assert complaint in refused(nar, "--from", "text.tgz", a, "text.tgz", b)


@pytest.mark.parametrize(
    "content", [None, b"", b"no archive", tgz({"x.en": b"a\n" * 9999})[:-40]], ids=["none", "empty", "text", "cut"]
)
def test_a_file_that_is_no_archive_is_one_line(content: bytes, tmp_path: Path, nar: Nar) -> None:
    archive = tmp_path / "x.tgz"
    if content is not None:
        archive.write_bytes(content)
    assert refused(nar, "--from", archive, "x.en", archive, "x.en").startswith(f"nar extract: cannot read {archive}: ")


def test_a_file_may_be_the_text_itself_gzipped_or_not(tmp_path: Path, nar: Nar) -> None:
    source, target = "\ufeffone\r\n\ntwo \u2028 x\x0b y\n\n".encode(), b"eins\n\nzwei\n\n"
    (tmp_path / "a.en.gz").write_bytes(gzip.compress(source[:10]) + gzip.compress(source[10:]))  # gunzip joins parts
    (tmp_path / "a.de").write_bytes(target)
    lines = run(nar, tmp_path, "--from", tmp_path / "a.en.gz", "-", tmp_path / "a.de", "-")
    assert lines == [["one", "", "two \u2028 x\x0b y", ""], ["eins", "", "zwei", ""]]
    (tmp_path / "set.xml.gz").write_bytes(gzip.compress(xml(["a & b"])))
    assert run(nar, tmp_path, "--from", *[tmp_path / "set.xml.gz", "-"] * 2)[0] == ["a & b"]


def test_a_gzipped_text_comes_out_as_gunzip_gives_it(tmp_path: Path, nar: Nar) -> None:
    texts = [" a\tb \x0c \u2028\n\nÄ 😀 .\n".encode() * 999, b"x\n\n\n" * 999]
    for name, text in zip("ab", texts, strict=True):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text))
    run(nar, tmp_path, "--from", tmp_path / "a.gz", "-", tmp_path / "b.gz", "-")
    assert [(tmp_path / f"out.{side}").read_bytes() for side in "ab"] == texts


@pytest.mark.parametrize("cut", [2, 40])
def test_a_cut_or_absent_text_is_one_line(cut: int, tmp_path: Path, nar: Nar) -> None:
    text, absent = tmp_path / "a.gz", tmp_path / "absent.gz"
    text.write_bytes(gzip.compress(b"one two three\n" * 500)[:cut])
    assert f"cannot read {text}: " in refused(nar, "--from", text, "-", text, "-")
    assert f"cannot read {absent}: " in refused(nar, "--from", absent, "-", absent, "-")


def test_who_names_a_member_of_a_text_is_told_how_a_text_is_named(tmp_path: Path, nar: Nar) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"one\n"))
    assert "its member is -" in refused(nar, "--from", tmp_path / "a.gz", "a", tmp_path / "a.gz", "a")
