"""Whatever stands in a line of raw text, it is answered in its place."""

import random
import shutil
from pathlib import Path
from typing import Any, List

import pytest

from tests.conftest import ADAM, LIMITS, LONGEST, QUIET, SOURCE_WORDS, STUDENT, toy_pairs
from tests.end_to_end.programs import PLUGIN, TASK, Outcome, console, hypotheses, script, succeed, tagged, texts

LANGUAGES = ("--source-lang", "src", "--target-lang", "tgt")
MALFORMED = [
    b"",
    b" ",
    b"\t",
    b" \t  \t ",
    b"bana",
    b"xyzzy",
    b"xyzzy plugh bana",
    b" ".join([b"bana"] * 2000),
    b"bana\rderet",
    b"bana deret\r",
    b"\r",
    b"ba\x00na kisil",
    b"\x00",
    b"bana\x0bderet",
    b"\x0b",
    b"bana\x0cderet",
    b"\x0c",
    b"bana\x1cderet\x1dkisil\x1eloton",
    b"\x1c",
    "bana\x85deret".encode(),
    "\x85".encode(),
    "bana\u2028deret\u2029kisil".encode(),
    "\u2028".encode(),
    "\ufeffbana".encode(),
    "\u00a0bana\u3000deret".encode(),
    b"\xff\xfe\xfa",
    b"bana \xc3",
    b"\xed\xa0\x80 deret",
    b"bana\tderet\tkisil",
    "bana \U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 deret".encode(),
    b"x" * 20000,
    b"-",
    b"--help",
    b"<unk> <s> </s> <pad> <mask> bana",
    b"</s>",
    b"H-0\t-1.0\tbana",
    b"& < > | [ ] ' \" &amp; &lt; @@ @-@",
    b"bana @@",
    b"\\ %s {} ${HOME} $(exit 3)",
    b"bana" + b" " * 5000 + b"deret",
]


def malformed_lines() -> List[bytes]:
    """200 lines: each kind alone, then joined at random with each other and with honest words."""
    draw = random.Random(5)
    lines = list(MALFORMED)
    short = [line for line in MALFORMED if len(line) < 200]
    while len(lines) < 200:
        parts = draw.choices(short, k=2) + [word.encode() for word in draw.choices(SOURCE_WORDS, k=2)]
        draw.shuffle(parts)
        lines.append(draw.choice([b" ", b"", b"\r", b"\x0c"]).join(parts))
    assert not any(b"\n" in line for line in lines)
    return lines


def is_empty(line: bytes) -> bool:
    return not line.decode(errors="replace").split()


def assert_answered_in_place(outcome: Outcome, lines: List[bytes]) -> None:
    """Ids 0 … n − 1, each once and in order."""
    answers = hypotheses(outcome)
    assert [answer.id for answer in answers] == list(range(len(lines)))
    assert [id for id, _ in tagged(outcome, "S")] == list(range(len(lines)))


def assert_empty_where_empty(outcome: Outcome, lines: List[bytes]) -> None:
    for answer, line in zip(hypotheses(outcome), lines, strict=True):
        assert not (is_empty(line) and answer.text), (line, answer)


@pytest.fixture(scope="module")
def raw_text(once: Any) -> Path:
    """``train`` and ``valid`` in raw sentences with capitals and punctuation, which a tokeniser must part."""

    def make(folder: Path) -> None:
        for seed, (split, count) in enumerate({"train": 600, "valid": 20}.items()):
            pairs = toy_pairs(count, 100 + seed)
            for side, language in enumerate(("src", "tgt")):
                text = "".join(pair[side].capitalize().replace(" ", ", ", 1) + "!\n" for pair in pairs)
                (folder / f"{split}.{language}").write_text(text, encoding="utf-8")

    return once("raw_text", make)


def prepare(command: str, *args: Any) -> None:
    outcome = console([script("nar"), "prepare", command, *args])
    assert outcome.code == 0, outcome.stderr


@pytest.fixture(scope="module")
def raw_model(raw_text: Path, once: Any) -> Path:
    """``codes``, binarised ``data`` and a ``checkpoint_last.pt`` of a model of BPE tokens."""

    def make(folder: Path) -> None:
        inputs = (f"{raw_text / 'train.src'}:de", f"{raw_text / 'train.tgt'}:en")
        prepare("learn", "--input", *inputs, "--merges", 40, "--codes", folder / "codes")
        for split in ("train", "valid"):
            for side, language in (("src", "de"), ("tgt", "en")):
                files = ("--input", raw_text / f"{split}.{side}", "--output", folder / f"{split}.{side}")
                prepare("apply", *files, "--lang", language, "--codes", folder / "codes")
        prefixes = ("--trainpref", folder / "train", "--validpref", folder / "valid", "--destdir", folder / "data")
        succeed("fairseq-preprocess", "--user-dir", PLUGIN, *LANGUAGES, *prefixes)
        training = (*STUDENT, *LIMITS, *ADAM, *QUIET, "--max-tokens", 2000, "--max-update", 60, "--save-dir", folder)
        succeed("fairseq-train", folder / "data", *TASK, *training)

    return once("raw_model", make)


def raw_options(raw_model: Path) -> tuple:
    tokens = ("--tokenizer", "moses", "--bpe", "subword_nmt", "--bpe-codes", raw_model / "codes")
    return (*TASK, *tokens, *LANGUAGES, "--path", raw_model / "checkpoint_last.pt")


def test_raw_text_is_decoded_as_the_prepared_text_is(raw_text: Path, raw_model: Path) -> None:
    raw = (raw_text / "valid.src").read_bytes()
    interactive = succeed("fairseq-interactive", raw_model / "data", *raw_options(raw_model), stdin=raw)
    subset = ("--gen-subset", "valid")
    generated = succeed("fairseq-generate", raw_model / "data", *raw_options(raw_model), *subset)
    assert len(texts(interactive)) == 20 and len(set(texts(interactive))) > 1
    assert texts(interactive) == texts(generated)
    plain = [fields[1] for _, fields in sorted(tagged(interactive, "D"))]
    assert plain == [fields[1] for _, fields in sorted(tagged(generated, "D"))]
    assert not any("@@" in line or "&" in line for line in plain)


@pytest.mark.parametrize("model", ["student", "teacher"])
def test_every_malformed_line_on_stdin_is_answered_in_its_place(
    model: str, data: Path, request: pytest.FixtureRequest
) -> None:
    path, lines = request.getfixturevalue(model), malformed_lines()
    options = (*TASK, "--path", path, "--buffer-size", 32, "--max-tokens", 500, "--beam", 1, *LIMITS)
    outcome = succeed("fairseq-interactive", data, *options, stdin=b"\n".join(lines) + b"\n")
    assert_answered_in_place(outcome, lines)
    if model == "student":  # fairseq's own generator always says a word
        assert_empty_where_empty(outcome, lines)
    assert f"1 source sentences are longer than {LONGEST} tokens" in outcome.stdout + outcome.stderr


def test_every_malformed_line_of_a_file_is_answered_in_its_place(raw_model: Path, tmp_path: Path) -> None:
    lines = malformed_lines()
    (tmp_path / "input").write_bytes(b"\n".join(lines))  # no line feed at the end
    options = (*raw_options(raw_model), "--input", tmp_path / "input", "--buffer-size", 64, "--batch-size", 16)
    outcome = succeed("fairseq-interactive", raw_model / "data", *options)
    assert_answered_in_place(outcome, lines)
    assert_empty_where_empty(outcome, lines)
    assert f"source sentences are longer than {LONGEST} tokens" in outcome.stdout + outcome.stderr


def test_malformed_lines_do_not_change_the_answers_of_their_neighbours(data: Path, student: Path) -> None:
    honest = [source.encode() for source, _ in toy_pairs(len(MALFORMED), 7)]
    mixed = [line for pair in zip(honest, MALFORMED, strict=True) for line in pair]
    options = (data, *TASK, "--path", student, "--buffer-size", 100, "--batch-size", 8)
    among = texts(succeed("fairseq-interactive", *options, stdin=b"\n".join(mixed) + b"\n"))
    alone = texts(succeed("fairseq-interactive", *options, stdin=b"\n".join(honest) + b"\n"))
    assert among[::2] == alone


@pytest.mark.parametrize("has_target", [False, True], ids=["only_source", "with_targets"])
def test_fairseq_generate_answers_every_malformed_line_that_was_prepared(
    has_target: bool, raw_model: Path, tmp_path: Path
) -> None:
    lines = malformed_lines()
    (tmp_path / "raw").write_bytes(b"\n".join(lines) + b"\n")
    files = ("--input", tmp_path / "raw", "--output", tmp_path / "test.src")
    prepare("apply", *files, "--lang", "de", "--codes", raw_model / "codes")
    (tmp_path / "test.tgt").write_text("Mot-an\n" * len(lines), encoding="utf-8")
    dictionaries = ("--srcdict", raw_model / "data" / "dict.src.txt")
    dictionaries += ("--tgtdict", raw_model / "data" / "dict.tgt.txt") if has_target else ("--only-source",)
    binarised = ("--testpref", tmp_path / "test", "--destdir", tmp_path / "data")
    succeed("fairseq-preprocess", "--user-dir", PLUGIN, *LANGUAGES, *binarised, *dictionaries)
    shutil.copy(raw_model / "data" / "dict.tgt.txt", tmp_path / "data")
    outcome = succeed("fairseq-generate", tmp_path / "data", *raw_options(raw_model), "--max-tokens", 500)
    answers = {hypothesis.id: hypothesis for hypothesis in hypotheses(outcome)}
    assert sorted(h.id for h in hypotheses(outcome)) == list(range(len(lines)))
    assert not any(answers[i].text for i, line in enumerate(lines) if is_empty(line))
    assert f"source sentences are longer than {LONGEST} tokens" in outcome.stdout + outcome.stderr


def test_interactive_without_a_line_ends_well(data: Path, student: Path) -> None:
    outcome = succeed("fairseq-interactive", data, *TASK, "--path", student, stdin=b"")
    assert hypotheses(outcome) == []
