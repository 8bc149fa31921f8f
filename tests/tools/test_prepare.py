"""Preparation of text: fairseq's own tokens, one line out for each line in, and files that are whole or not there."""

import random
from argparse import Namespace
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import pytest
from fairseq.data.encoders.moses_tokenizer import MosesTokenizer
from fairseq.data.encoders.subword_nmt_bpe import SubwordNMTBPE

from nar_tools import files
from nar_tools.text import subwords
from tests.end_to_end.programs import console, script
from tests.tools.conftest import Nar

WORDS = (
    "the house houses housing der die das Häuser großes façade naïve don't it's l'été 3.14 1,000 U.S. Mr. z.B. www.a.de"
).split()
ODDITIES = (
    "- -- – — well-known e-mail- -x & < > | [ ] &amp; &lt;b&gt; &#124; a&b <s> </s> <unk> <mask> a|b @@ @@@ a@@ @@b "
    "x@@@@ @-@ 😀 👩‍👩‍👧 ❤️ 日本語 العربية \u00a0 a\u00a0b \u2009 \u3000 \u200b \ufeff \u00ad \t "
    "“quoted” «so» … ... !? % $ £5 # \\ ` ''"
).split(" ")
ENDS_OF_LINES = "\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029\x00"
Ended = Tuple[int, str]
Run = Callable[..., Ended]


def mixed_lines(count: int) -> List[str]:
    """Words and oddities in any order, some lines with spaces on both sides."""
    draw = random.Random(3)
    lines = [" ".join(draw.choices(WORDS + ODDITIES, k=draw.randint(1, 12))) for _ in range(count)]
    return [f"  {line} " if draw.random() < 0.1 else line for line in lines]


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BPE codes with few merges, so that most words fall apart."""
    folder = tmp_path_factory.mktemp("codes")
    write(folder / "text", [" ".join(WORDS)] * 3 + mixed_lines(20))
    subwords.learn([f"{folder / 'text'}:en"], 40, folder / "codes")
    return folder / "codes"


@pytest.fixture
def run(nar: Nar) -> Run:
    """Runs `nar prepare`; its exit code and what it wrote on stderr."""

    def prepare(*words: Any) -> Ended:
        outcome = nar("prepare", *words)
        return outcome.code, outcome.stderr

    return prepare


def write(path: Path, lines: List[str]) -> Path:
    path.write_bytes("".join(line + "\n" for line in lines).encode("utf-8"))
    return path


def apply(run: Run, codes: Path, folder: Path, raw: bytes, lang: str = "en") -> bytes:
    """What `apply` makes of a file."""
    (folder / "raw").write_bytes(raw)
    arguments = ("--input", folder / "raw", "--lang", lang, "--codes", codes, "--output", folder / "applied")
    code, error = run("apply", *arguments)
    assert code == 0, error
    return (folder / "applied").read_bytes()


def fairseq_encoders(codes: Path, lang: str) -> Tuple[MosesTokenizer, SubwordNMTBPE]:
    moses = Namespace(source_lang=lang, target_lang=lang, moses_no_dash_splits=False, moses_no_escape=False)
    return MosesTokenizer(moses), SubwordNMTBPE(Namespace(bpe_codes=str(codes), bpe_separator="@@"))


@pytest.mark.parametrize("lang", ["en", "de", "fr"])
def test_a_line_becomes_what_fairseq_s_own_encoders_make_of_it(
    lang: str, run: Run, codes: Path, tmp_path: Path
) -> None:
    lines = mixed_lines(400) + ODDITIES
    moses, bpe = fairseq_encoders(codes, lang)
    expected = [bpe.encode(moses.encode(line.strip())) for line in lines]  # fairseq-interactive strips its lines
    applied = apply(run, codes, tmp_path, "\n".join([*lines, ""]).encode(), lang).decode().split("\n")[:-1]
    assert applied == expected
    assert sum("@@ " in line for line in expected) > 200, "hardly a word was parted, so this tests little"


@pytest.mark.parametrize("lang", ["en", "de", "fr"])
def test_tokens_become_the_text_that_fairseq_s_own_decoders_make_of_them(
    lang: str, run: Run, codes: Path, tmp_path: Path
) -> None:
    moses, bpe = fairseq_encoders(codes, lang)
    tokens = [bpe.encode(moses.encode(line.strip())) for line in mixed_lines(400)]
    tokens += ["", "a@@", "@@", "cut@@ off@@", "&amp;lt;", "a @-@ b", "<unk> <unk>", "&#124; &quot; &apos;s"]
    write(tmp_path / "tokens", tokens)
    code, _ = run("detokenize", "--input", tmp_path / "tokens", "--lang", lang, "--output", tmp_path / "plain")
    assert code == 0
    plain = (tmp_path / "plain").read_text(encoding="utf-8").split("\n")[:-1]
    assert plain == [moses.decode(bpe.decode(line)) for line in tokens]


def test_plain_sentences_come_back_from_there_and_back(run: Run, codes: Path, tmp_path: Path) -> None:
    lines = [
        "The houses of Mr. Smith aren't big, are they?",
        "A well-known e-mail: 3.14 & 1,000 < 2 > 1 | 5 [six] 'seven' \"eight\"!",
        "It costs $5 (or 10%); don't pay.",
        "",
        "Häuser, façades and 日本 😀.",
    ]
    write(tmp_path / "tokens", apply(run, codes, tmp_path, "\n".join([*lines, ""]).encode()).decode().split("\n")[:-1])
    run("detokenize", "--input", tmp_path / "tokens", "--lang", "en", "--output", tmp_path / "plain")
    assert (tmp_path / "plain").read_text(encoding="utf-8").split("\n")[:-1] == lines


def random_bytes(draw: random.Random) -> bytes:
    return bytes(draw.choices(range(256), k=600)) + b"\n" * draw.randint(0, 2)


def random_unicode(draw: random.Random) -> bytes:
    kinds = (range(0x20), range(0x20, 0x7F), range(0x7F, 0x300), range(0x2000, 0x2070), range(0x10000, 0x1F700))
    text = "".join(chr(draw.choice(draw.choice(kinds))) for _ in range(600))
    return (text + draw.choice(["", "\n", ENDS_OF_LINES])).encode("utf-8")


@pytest.mark.parametrize("make", [random_bytes, random_unicode])
def test_every_line_of_any_file_becomes_one_line_for_every_reader(
    make: Callable[[random.Random], bytes], run: Run, codes: Path, tmp_path: Path
) -> None:
    for seed in range(25):
        raw = make(random.Random(seed))
        lines = raw.count(b"\n") + (not raw.endswith(b"\n"))
        applied = apply(run, codes, tmp_path, raw)
        run("detokenize", "--input", tmp_path / "applied", "--lang", "en", "--output", tmp_path / "plain")
        for out in (applied, (tmp_path / "plain").read_bytes()):
            assert out.count(b"\n") == len(out.decode("utf-8").splitlines()) == lines
            assert out.endswith(b"\n")


def test_empty_lines_stay_and_no_line_is_made_of_nothing(run: Run, codes: Path, tmp_path: Path) -> None:
    assert apply(run, codes, tmp_path, b"") == b""
    assert apply(run, codes, tmp_path, b"\n") == b"\n"
    assert apply(run, codes, tmp_path, b"\n\n , \n\n \t\n") == b"\n\n,\n\n\n"
    assert apply(run, codes, tmp_path, b",\n,") == b",\n,\n"


@pytest.mark.parametrize("end", ENDS_OF_LINES, ids=lambda end: f"U+{ord(end):04X}")
def test_what_some_program_takes_for_an_end_of_line_is_a_space(end: str, run: Run, codes: Path, tmp_path: Path) -> None:
    dirty = apply(run, codes, tmp_path, f"the{end}house{end}\n{end}\n".encode())
    assert dirty == apply(run, codes, tmp_path, b"the house\n\n")
    _, error = run(
        "detokenize", "--input", write(tmp_path / "dirty", [f"a{end}b"]), "--lang", "en", "--output", tmp_path / "plain"
    )
    assert "1 lines, 1 repaired" in error


def test_repaired_lines_are_counted_and_clean_ones_are_not(run: Run, codes: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes("the\tHäuser 😀\n".encode() + b"latin \xe9\nold\r\n\xc3\n")
    _, error = run("apply", "--input", tmp_path / "raw", "--lang", "en", "--codes", codes, "--output", tmp_path / "out")
    assert error == f"{tmp_path / 'raw'}: 4 lines, 3 repaired (wrong encoding or control characters)\n"
    assert "\ufffd" in (tmp_path / "out").read_text(encoding="utf-8").split("\n")[1]


@pytest.mark.parametrize("missing", ["input", "codes", "a text to learn from", "an input that is a folder"])
def test_a_file_that_cannot_be_read_ends_in_one_line_with_code_2(
    missing: str, run: Run, codes: Path, tmp_path: Path
) -> None:
    text, absent, output = write(tmp_path / "text", ["the house"]), tmp_path / "absent", tmp_path / "out"
    place = tmp_path if "folder" in missing else absent
    if missing == "a text to learn from":
        code, error = run("learn", "--input", f"{absent}:en", "--merges", 5, "--codes", output)
    else:
        given = (text, absent) if missing == "codes" else (place, codes)
        code, error = run("apply", "--input", given[0], "--lang", "en", "--codes", given[1], "--output", output)
    reason = "Is a directory" if "folder" in missing else "No such file or directory"
    assert (code, error) == (2, f"nar prepare: cannot read {place}: {reason}\n")
    assert not output.exists()


def test_a_file_that_holds_no_codes_ends_in_one_line_with_code_2(run: Run, tmp_path: Path) -> None:
    (tmp_path / "codes").write_bytes(b"#version: 0.2\n\xff\xfe t\n")
    text = write(tmp_path / "text", ["the house"])
    code, error = run(
        *("apply", "--input", text, "--lang", "en", "--codes", tmp_path / "codes", "--output", tmp_path / "out")
    )
    assert code == 2 and error.count("\n") == 1 and str(tmp_path / "codes") in error
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_written_ends_in_one_line_with_code_2(run: Run, tmp_path: Path) -> None:
    text = write(tmp_path / "text", ["the house"])
    code, error = run("detokenize", "--input", text, "--lang", "en", "--output", text / "below a file")
    assert code == 2 and error.count("\n") == 2  # the number of lines read, and the complaint
    assert error.split("\n")[1].startswith(f"nar prepare: cannot write {text / 'below a file'}: ")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [("train.de", "--input wants FILE:LANG, not train.de"), ("{text}:en", "no word of two letters to learn from")],
)
def test_nothing_to_learn_from_ends_in_one_line_with_code_2(
    given: str, complaint: str, run: Run, tmp_path: Path
) -> None:
    text = write(tmp_path / "text", ["a b c", "", ", ."])
    code, error = run("learn", "--input", given.format(text=text), "--merges", 5, "--codes", tmp_path / "codes")
    assert code == 2 and error.split("\n")[-2] == f"nar prepare: {complaint}"
    assert not (tmp_path / "codes").exists()


def test_a_failure_in_the_middle_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    def lines_and_a_failure() -> Iterator[str]:
        yield from ["new"] * 10000  # more than a buffer, so that some of it is written
        raise ValueError("no more")

    output = write(tmp_path / "out", ["old"])
    with pytest.raises(ValueError, match="no more"):
        files.write_lines(output, lines_and_a_failure())
    assert output.read_bytes() == b"old\n"
    assert list(tmp_path.iterdir()) == [output], "an unfinished file was left behind"


def test_codes_learnt_from_two_languages_join_the_pairs_of_both(run: Run, tmp_path: Path) -> None:
    english, german = write(tmp_path / "a", ["zzzz zzzz"]), write(tmp_path / "b", ["qqqq qqqq qqqq"])
    code, _ = run("learn", "--input", f"{english}:en", f"{german}:de", "--merges", 6, "--codes", tmp_path / "codes")
    learned = (tmp_path / "codes").read_text(encoding="utf-8").split("\n")
    assert code == 0 and learned[0].startswith("#version") and learned[-1] == ""
    assert {"".join(line.split()) for line in learned[1:-1]} >= {"zzzz</w>", "qqqq</w>"}
    assert apply(run, tmp_path / "codes", tmp_path, b"zzzz qqqq zqz\n") == b"zzzz qqqq z@@ q@@ z\n"


def test_the_program_works_as_a_user_starts_it(codes: Path, tmp_path: Path) -> None:
    text = write(tmp_path / "text", ["the house"])
    flags = ["--input", text, "--lang", "en", "--codes", codes, "--output", tmp_path / "new" / "out"]
    outcome = console([script("nar"), "prepare", "apply", *flags], folder=tmp_path)
    assert (outcome.code, outcome.stderr) == (0, f"{text}: 1 lines\n")
    assert (tmp_path / "new" / "out").read_text().replace("@@ ", "") == "the house\n"
    assert console([script("nar"), "prepare", "apply", *flags[2:]]).code == 2


def test_tokens_written_first_give_the_same_subwords(run: Run, codes: Path, tmp_path: Path) -> None:
    write(tmp_path / "text", mixed_lines(50))
    assert (
        run("apply", "--input", tmp_path / "text", "--lang", "en", "--codes", codes, "--output", tmp_path / "a")[0] == 0
    )
    assert (
        run("tokenize", "--input", tmp_path / "text", "--lang", "en", "--output", tmp_path / "t", "--jobs", 2)[0] == 0
    )
    tokenized = ("apply", "--tokenized", "--input", tmp_path / "t", "--lang", "en", "--codes", codes, "--jobs", 2)
    assert run(*tokenized, "--output", tmp_path / "b")[0] == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_codes_learnt_from_tokens_are_those_of_the_text(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "text", mixed_lines(50))
    run("tokenize", "--input", tmp_path / "text", "--lang", "en", "--output", tmp_path / "t")
    learn = ("learn", "--merges", 20, "--input")
    assert run(*learn, f"{tmp_path / 'text'}:en", "--codes", tmp_path / "a", "--jobs", 2)[0] == 0
    assert run(*learn, f"{tmp_path / 't'}:en", "--codes", tmp_path / "b", "--tokenized")[0] == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "Şi “ Ţara ” ȘI TÂNĂR"),
        (("--romanian", "comma"), "Și “ Țara ” ȘI TÂNĂR"),
        (("--romanian", "plain"), "Si “ Tara ” SI TANAR"),
        (("--romanian", "plain", "--lowercase"), "si “ tara ” si tanar"),
        (("--normalize-punctuation",), "Şi &quot; Ţara &quot; ȘI TÂNĂR"),
    ],
)
def test_what_some_papers_did_to_a_text(flags: Tuple[str, ...], expected: str, run: Run, tmp_path: Path) -> None:
    write(tmp_path / "text", ["Şi “Ţara” ȘI TÂNĂR"])
    assert run("tokenize", "--input", tmp_path / "text", "--lang", "ro", "--output", tmp_path / "t", *flags)[0] == 0
    assert (tmp_path / "t").read_text(encoding="utf-8") == expected + "\n"


def test_romanian_rules_are_for_romanian_alone(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "text", ["Beşiktaş"])
    plain = ("--input", tmp_path / "text", "--lang", "en", "--output", tmp_path / "t", "--romanian", "plain")
    assert run("tokenize", *plain)[0] == 0 and (tmp_path / "t").read_text(encoding="utf-8") == "Beşiktaş\n"


def test_several_files_become_as_many(run: Run, codes: Path, tmp_path: Path) -> None:
    texts = [write(tmp_path / name, [f"the {name} houses"]) for name in ("one", "two")]
    flags = ("apply", "--lang", "en", "--codes", codes, "--input", *texts)
    code, error = run(*flags, "--output", tmp_path / "a", tmp_path / "b")
    assert (code, error) == (0, f"{texts[0]}: 1 lines\n{texts[1]}: 1 lines\n")
    assert run(*flags, "--output-dir", tmp_path / "out")[0] == 0
    for name, text, output in zip(("one", "two"), texts, ("a", "b"), strict=True):
        alone = apply(run, codes, tmp_path, text.read_bytes())
        assert (tmp_path / output).read_bytes() == (tmp_path / "out" / name).read_bytes() == alone


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ((), "say either --output FILE... or --output-dir DIR"),
        (("--output", "a", "--output-dir", "b"), "say either --output FILE... or --output-dir DIR"),
        (("--output", "a"), "2 files of --input, 1 of --output"),
        (("--output-dir", "a"), "two files of --input have the same name: only one would be left in --output-dir"),
    ],
)
def test_outputs_that_do_not_go_with_the_inputs_are_one_line(
    flags: Tuple[str, ...], complaint: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    texts = [write(tmp_path / "text", ["a"]), write(tmp_path / "sub" / "text", ["b"])]
    ended = run("detokenize", "--lang", "en", "--input", *texts, *flags)
    assert ended == (2, f"nar prepare: {complaint}\n")


def test_a_folder_of_input_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    text = write(tmp_path / "text", ["&amp;"])
    code, error = run("detokenize", "--lang", "en", "--input", text, "--output-dir", tmp_path)
    assert code == 2 and error.count("\n") == 1 and text.read_text() == "&amp;\n"


@pytest.mark.parametrize(
    ("merges", "told"),
    [(2, "2 merges learnt"), (5000, "3 merges learnt (5,000 asked for; no pair occurs twice any more)")],
)
def test_how_many_merges_were_learnt_is_said_in_plain_words(merges: int, told: str, run: Run, tmp_path: Path) -> None:
    text, codes = write(tmp_path / "text", ["abcd abcd xy"]), tmp_path / "codes"
    ended = run("learn", "--input", f"{text}:en", "--merges", merges, "--codes", codes)
    assert ended == (0, f"{text}: 1 lines\n{codes}: {told}\n")


def test_a_line_that_is_no_merge_is_named_in_one_line(run: Run, tmp_path: Path) -> None:
    text, codes = write(tmp_path / "text", ["a"]), write(tmp_path / "codes", ["#version: 0.2", "a b", "a b c"])
    code, error = run("apply", "--input", text, "--lang", "en", "--codes", codes, "--output", tmp_path / "out")
    assert (code, error) == (2, f"nar prepare: {codes} holds no BPE codes: invalid line 3 in BPE codes file: a b c\n")
