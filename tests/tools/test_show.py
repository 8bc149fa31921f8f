"""What a refinement looks like: what is marked, on the terminal and on the page, and what a real decode shows."""

import io
import logging
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import pytest

from nar_tools import cli
from nar_tools.commands import show
from nar_tools.measure import interactive, pages
from nar_tools.measure.history import Refinement, Step, changes, compared, refined
from nar_tools.measure.pages import as_html, as_text, parts, width
from tests.conftest import ADAM, LIMITS, QUIET, toy_pairs
from tests.end_to_end.programs import STOCK, TASK, Outcome, complains, console, hypotheses, succeed, tagged

SCRIPT = Path(show.__file__)
LANGUAGES = ("--source-lang", "src", "--target-lang", "tgt")
Run = Callable[..., Outcome]


def step(name: str, words: str, *scores: float) -> Step:
    """A state of these words; without scores, all of probability 1."""
    tokens = words.split()
    return Step(name, tokens, scores or [0.0] * len(tokens))


def refinement(*states: str, output: str = "out", **more: Any) -> Refinement:
    steps = [step(f"pass {i + 1}", words) for i, words in enumerate(states)]
    return refined("in", steps, output, **more)


def plain(shown: Refinement, has_scores: bool = False, columns: int = 100) -> List[str]:
    return as_text(shown, is_colored=False, has_scores=has_scores, columns=columns).split("\n")[:-1]


class Page(HTMLParser):
    """The tables of a page as rows of (text, is marked, attributes); elements must be closed as they were opened."""

    VOID = ("meta",)

    def __init__(self, lines: List[str]) -> None:
        super().__init__()
        self.tables: List[List[List[Tuple[str, bool, Dict[str, Optional[str]]]]]] = []
        self.entries: List[Tuple[str, str]] = []
        self.open: List[str] = []
        self.feed("\n".join(lines))
        assert not self.open

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.open += [tag] * (tag not in self.VOID)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append(("", False, dict(attrs)))
        elif tag == "dt":
            self.entries.append(("", ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            text, is_marked, attributes = self.tables[-1][-1].pop()
            self.tables[-1][-1].append((text + data, is_marked or "mark" in self.open, attributes))
        elif self.open[-1:] == ["dt"] or self.open[-1:] == ["dd"]:
            name, words = self.entries.pop()
            self.entries.append((name + data, words) if self.open[-1] == "dt" else (name, words + data))

    def words(self, table: int) -> List[List[str]]:
        """The rows of a table without their names."""
        return [[text for text, _, _ in row[1:]] for row in self.tables[table]]


def test_tokens_are_compared_by_position_where_the_length_stays() -> None:
    assert changes("a b c d".split(), "a x c d".split()) == [False, True, False, False]
    assert changes("a b c".split(), "b c d".split()) == [True, True, True], "a shift is a change of every position"
    assert changes(["a"], ["a"]) == [False]
    assert changes([], []) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("a b c", "a x b c", " x  "),
        ("a b c", "x a b c", "x   "),
        ("a b c", "a c", "  "),
        ("a b c d", "a x y z d", " xxx "),
        ("a b", "", ""),
        ("", "a b", "xx"),
    ],
)
def test_tokens_are_aligned_where_the_length_changes(before: str, after: str, expected: str) -> None:
    assert changes(before.split(), after.split()) == [mark == "x" for mark in expected]


def test_frequent_tokens_of_a_long_sentence_are_aligned_too() -> None:
    """difflib takes frequent elements of 200 and more for junk unless it is told not to."""
    many = ["a"] * 300
    assert changes(["x", *many], ["y", "z", *many]) == [True, True, *[False] * 300]


def test_the_first_pass_has_no_mark_and_the_others_those_against_the_pass_before() -> None:
    passes = refinement("a a a", "a b a", "a b c", "a b c").passes
    marks = [[False] * 3, [False, True, False], [False, False, True], [False] * 3]
    assert [p.marked for p in passes] == marks
    assert [p.change for p in passes] == ["3 tokens", "1 changed", "1 changed", "0 changed"]


def test_a_change_of_length_is_said() -> None:
    passes = refinement("a b c", "a x b c", "a b c").passes
    assert [p.change for p in passes] == ["3 tokens", "1 changed, 3 → 4", "0 changed, 4 → 3"]


def test_a_sentence_without_passes_is_shown_as_empty() -> None:
    shown = refined("", [], "")
    assert plain(shown) == ["source     (empty)", "output     (empty)"]
    page = Page(as_html([shown], ""))
    assert page.tables == [] and page.entries == [("source", "(empty)"), ("output", "(empty)")]


def test_without_colours_changed_tokens_stand_in_brackets_below_each_other() -> None:
    assert plain(refinement("the the dog .", "the old dog .", output="The old dog.", reference="Ref.")) == [
        "source             in",
        "pass 1: 4 tokens   the the   dog .",
        "pass 2: 1 changed  the [old] dog .",
        "output             The old dog.",
        "reference          Ref.",
    ]


def test_probabilities_stand_below_their_tokens() -> None:
    steps = [step("pass 1", "a bcd", math.log(0.5), 0.0), step("pass 2", "a x", math.log(0.25), math.log(0.031))]
    shown = refined("in", steps, "out")
    assert plain(shown, has_scores=True)[1:-1] == [
        "pass 1: 2 tokens   a  bcd",
        "  probability, %   50 100",
        "pass 2: 1 changed  a  [x]",
        "  probability, %   25 3",
    ]


def test_a_score_above_0_is_no_more_than_certain() -> None:
    assert compared([Step("pass 1", ["a"], [1e-7])])[0].probabilities == [1.0]


def test_with_colours_the_marks_are_codes_and_the_columns_the_same() -> None:
    shown = refinement("run@@ s </s>", "walk@@ s </s>")
    lines = as_text(shown, is_colored=True, has_scores=True, columns=100).split("\n")
    assert "\033[1;4;35mwalk\033[0m\033[2;4;35m@@\033[0m" in lines[3], "the changed token is marked, its @@ faintly"
    assert "\033[2m</s>\033[0m" in lines[3] and "\033[1;4;35ms" not in lines[3]
    bare = [pages.ANSI_CODE.sub("", line) for line in lines]
    assert bare[1:4:2] == ["pass 1: 3 tokens   run@@  s   </s>", "pass 2: 1 changed  walk@@ s   </s>"]
    assert bare[2] == "  probability, %   100    100 100"


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_long_sentence_is_parted_by_columns(columns: int) -> None:
    words = [f"word{i}" for i in range(30)]
    lines = plain(refinement(" ".join(words), " ".join(words[:29] + ["new"])), columns=columns)
    assert max(map(len, lines)) <= max(columns, 19 + pages.LEAST_ROOM)
    rows = [[line[19:] for line in lines if line.startswith(name)] for name in ("pass 1", "pass 2")]
    assert " ".join(rows[0]).split() == words and " ".join(rows[1]).split() == words[:29] + ["[new]"]
    for upper, lower in zip(rows[0][:-1], rows[1][:-1], strict=True):
        assert upper == lower
    first, gap = lines.index(""), len(rows[0]) - 1
    assert first == 3 and lines.count("") == gap, "an empty line between the parts alone"


def test_parts_fill_the_room_and_no_more() -> None:
    def ends(widths: Sequence[int], room: int) -> List[Tuple[int, int]]:
        return [(part.start, part.stop) for part in parts(widths, room)]

    assert ends([3, 3, 3], 7) == [(0, 2), (2, 3)]
    assert ends([3, 3, 3], 6) == [(0, 1), (1, 2), (2, 3)]
    assert ends([9, 1, 1, 9], 5) == [(0, 1), (1, 3), (3, 4)]
    assert ends([], 5) == [(0, 0)]


def test_passes_of_another_length_are_aligned_among_themselves() -> None:
    shown = refinement("aaaaaaaa b", "aaaaaaaa x b", "a x b")
    assert [line[26:] for line in plain(shown)[1:-1]] == ["aaaaaaaa b", "aaaaaaaa [x] b", "[a]      x   b"]
    page = Page(as_html([shown], ""))
    assert [len(table) for table in page.tables] == [1, 2]
    assert page.words(1) == [["aaaaaaaa", "x", "b"], ["a", "x", "b"]]


def test_wide_and_combining_characters_keep_their_columns() -> None:
    assert [width(text) for text in ("ab", "日本", "e\u0301", "\033[1;4;35mab\033[0m", "")] == [2, 4, 1, 2, 0]
    assert [line[19:] for line in plain(refinement("日本 a", "日 a"))[1:3]] == ["日本 a", "[日] a"]


@pytest.mark.parametrize("where", range(4))
def test_no_text_steers_the_terminal(where: int) -> None:
    evil = ["b", "b", "b", "b"]
    evil[where] = "\033[2J\x07a\x9b"
    shown = refined(evil[0], [step("pass 1", evil[1])], evil[2], evil[3])
    assert not re.search("[\033\x07\x9b]", as_text(shown, is_colored=False, has_scores=False, columns=80))
    assert not re.search("[\033\x07\x9b]", "".join(as_html([shown], "")))


def test_the_page_has_a_row_a_pass_and_a_cell_a_token() -> None:
    steps = [step("pass 1", "a@@ b c", 0.0, math.log(0.5), math.log(0.25)), step("pass 2", "a@@ x c")]
    page = Page(as_html([refined("in", steps, "ax c", "ref")], "model.pt"))
    assert [row[0][0] for row in page.tables[0]] == ["pass 1: 3 tokens", "pass 2: 1 changed"]
    assert page.words(0) == [["a@@", "b", "c"], ["a@@", "x", "c"]]
    assert [[is_marked for _, is_marked, _ in row[1:]] for row in page.tables[0]] == [[False] * 3, [False, True, False]]
    assert [attributes["title"] for _, _, attributes in page.tables[0][0][1:]] == ["100.0 %", "50.0 %", "25.0 %"]
    assert [attributes["style"] for _, _, attributes in page.tables[0][0][1:]] == ["--p:0.00", "--p:0.50", "--p:0.75"]
    assert page.entries == [("source", "in"), ("output", "ax c"), ("reference", "ref")]


def test_nothing_on_the_page_is_taken_for_html() -> None:
    evil = "<script>alert('1')</script>&amp;\"$body"
    shown = refined(evil, [step("pass 1", evil), step("pass 2", f"{evil}@@")], evil, evil)
    lines = as_html([shown], evil)
    page = Page(lines)
    assert "<script" not in "\n".join(lines)
    assert page.words(0) == [[evil], [f"{evil}@@"]]
    assert page.entries == [("source", evil), ("output", evil), ("reference", evil)]
    assert "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&amp;amp;" in "\n".join(lines[: lines.index("</header>")])


def test_the_page_needs_no_other_resource() -> None:
    page = "\n".join(as_html([refinement("a", "b")], "model.pt")).lower()
    for foreign in ("http", "src=", "href", "url(", "@import", "<link", "<script"):
        assert foreign not in page
    assert "prefers-color-scheme: dark" in page and "width=device-width" in page and 'charset="utf-8"' in page


@pytest.mark.parametrize(
    ("choice", "is_tty", "no_color", "expected"),
    [
        ("auto", True, "", True),
        ("auto", True, "1", False),
        ("auto", False, "", False),
        ("always", False, "1", True),
        ("never", True, "", False),
    ],
)
def test_colours_are_for_terminals(
    choice: str, is_tty: bool, no_color: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_tty)
    monkeypatch.setenv("NO_COLOR", no_color)
    assert bool(show.wants_color(choice)) == expected


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the script here."""

    def run_script(*args: Any, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        monkeypatch.setattr(logging.getLogger("fairseq.dataclass.utils"), "disabled", False)  # and thereby set back
        capsys.readouterr()
        try:
            cli.main(["show", *map(str, args)])
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return run_script


def refused(outcome: Outcome, *words: str) -> None:
    """It ended with 2 and one line, in which these words stand."""
    complains(outcome, "nar show: ", *words)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr.count("\n") == 1, outcome.stderr


def sections(outcome: Outcome) -> List[List[Tuple[str, str]]]:
    """The lines of each sentence, each as its name and the rest."""
    assert outcome.code == 0, outcome.stderr
    line_of = re.compile("^ *(pass [0-9]+|[a-z]+).*?  +(.*)")
    blocks = [block.split("\n") for block in outcome.stdout.rstrip("\n").split("\n\n")]
    return [[line_of.findall(line)[0] for line in block] for block in blocks]


def unmarked(cells: str) -> str:
    return " ".join(cells.replace("[", "").replace("]", "").replace("</s>", "").split())


LINES = [source.encode() for source, _ in toy_pairs(6, 99)]
HARD = [LINES[0], b"", LINES[1], b"bana \xff\x1b[31m deret", b"<script> bana", *LINES[2:]]


def test_lines_on_stdin_are_shown_as_fairseq_interactive_decodes_them(
    run: Run, data: Path, student: Path, tmp_path: Path
) -> None:
    flags = (data, *TASK, "--path", student, "--iter-decode-max-iter", 3)
    shown = sections(run(*flags, "--html", tmp_path / "page.html", stdin=b"\n".join(HARD)))
    decoded = hypotheses(succeed("fairseq-interactive", *flags, stdin=b"\n".join(HARD) + b"\n"))
    assert [section[-1] for section in shown] == [("output", answer.text or "(empty)") for answer in decoded]
    names = ["source", *["pass " + str(i) for i in (1, 2, 3, 4)], "output"]
    assert [[name for name, _ in section] for section in shown] == [
        ["source", "output"] if not line else names for line in HARD
    ]
    assert shown[1] == [("source", "(empty)"), ("output", "(empty)")]
    assert shown[3][0] == ("source", "bana \ufffd\ufffd[31m deret")
    assert all(unmarked(section[4][1]) == section[5][1] for section in shown if len(section) == 6)
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8").split("\n"))
    assert len(page.tables) == len(HARD) - 1 and all(len(table) == 4 for table in page.tables)
    assert [words for name, words in page.entries if name == "output"] == [section[-1][1] for section in shown]


def test_the_first_pass_is_a_decode_of_one_pass_and_changes_are_counted(run: Run, data: Path, student: Path) -> None:
    flags = (data, *TASK, "--path", student)
    whole = run(*flags, "--iter-decode-max-iter", 2, stdin=b"\n".join(LINES))
    one_pass = sections(run(*flags, "--iter-decode-max-iter", 0, stdin=b"\n".join(LINES)))
    assert [unmarked(section[1][1]) for section in sections(whole)] == [section[-1][1] for section in one_pass]
    rows = re.findall("^pass [23]: .*", whole.stdout, re.MULTILINE)
    counts = [int(row.split()[2]) for row in rows]
    assert counts == [row.count("[") for row in rows] and sum(counts) > 0


@pytest.mark.parametrize(
    ("states", "spans", "is_non_local"),
    [
        (("a b c d", "a x c d"), [0, 1], False),
        (("a b c d", "x y c d"), [0, 1], False),
        (("a b c d", "x b y d"), [0, 2], True),
        (("a b c d", "x b c d", "x b c y"), [0, 1, 1], False),
        (("a b", "a b"), [0, 0], False),
    ],
)
def test_a_change_of_separate_spans_in_one_step_is_non_local(
    states: Tuple[str, ...], spans: List[int], is_non_local: bool
) -> None:
    shown = refinement(*states)
    assert [step.spans for step in shown.passes] == spans and shown.is_non_local == is_non_local


def test_only_non_local_changes_are_shown_with_their_share(
    run: Run, data: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([refinement("a b c", "a b"), refinement("a b c", "x b y"), *[refinement("a b c", "x b c")] * 4])
    monkeypatch.setattr(interactive.Interactive, "show", lambda *_: next(found))
    outcome = run(data, *TASK, "--path", student, "--non-local", stdin=b"\n".join(LINES))
    assert outcome.code == 0, outcome.stderr
    *shown, last = outcome.stdout.rstrip("\n").split("\n")
    assert last == "non-local changes: 1 of 6 sentences, 16.7 %"
    assert shown == plain(refinement("a b c", "x b y"))


def test_sentences_and_references_of_the_command_line(run: Run, data: Path, student: Path, tmp_path: Path) -> None:
    told = [
        ("--sentence", "bana\n deret "),
        ("--sentence", "kisil"),
        ("--reference", "first\n\nline"),
        ("--reference", ""),
    ]
    flags = (data, *TASK, "--path", student, "--iter-decode-max-iter", 1, "--color", "always", "--scores")
    outcome = run(*flags, *(word for pair in told for word in pair), "--html", tmp_path / "new" / "page.html")
    shown = sections(outcome)
    assert [(section[0][1], section[-1]) for section in shown] == [
        ("bana  deret", ("reference", "first  line")),
        ("kisil", ("reference", "(empty)")),
    ]
    assert "\033[2m</s>\033[0m" in outcome.stdout and outcome.stdout.count("  probability, %") == 4
    page = Page((tmp_path / "new" / "page.html").read_text(encoding="utf-8").split("\n"))
    assert [words for name, words in page.entries if name == "reference"] == ["first  line", "(empty)"]


def test_sentences_and_references_of_files_up_to_the_first_so_many(
    run: Run, data: Path, student: Path, tmp_path: Path
) -> None:
    for name, text in {"source": "bana\nkisil\nderet\n", "target": "first\n\nthird\n"}.items():
        (tmp_path / name).write_text(text)
    texts = ("--input", tmp_path / "source", "--references", tmp_path / "target")
    outcome = run(data, *TASK, "--path", student, "--iter-decode-max-iter", 0, *texts, "--first", 2)
    assert [(section[0][1], section[-1][1]) for section in sections(outcome)] == [
        ("bana", "first"),
        ("kisil", "(empty)"),
    ]


def test_tokens_that_are_dropped_after_the_last_pass_are_shown_as_gone(run: Run, data: Path, student: Path) -> None:
    flags = (data, *TASK, "--path", student, "--iter-decode-max-iter", 0, "--sentence", "bana bana bana bana")
    rows = dict(sections(run(*flags, "--collapse-repeats"))[0])
    assert rows["kept"].split() == ["an-AB", "</s>"] and rows["output"] == "an-AB"
    assert rows["pass 1"].split().count("an-AB") > 1


def test_text_is_parted_and_joined_as_by_fairseq_interactive(
    run: Run, corpus: Path, data: Path, student: Path, tmp_path: Path
) -> None:
    """Under a mark that some words of the toy language end in, they are taken for subwords."""
    learn = ("learn", "--input", f"{corpus / 'valid.src'}:de", "--merges", "60", "--codes", str(tmp_path / "codes"))
    cli.main(["prepare", *learn])
    subwords = (*LANGUAGES, "--tokenizer", "moses", "--bpe", "subword_nmt", "--bpe-codes", tmp_path / "codes")
    flags = (data, *TASK, "--path", student, "--iter-decode-max-iter", 1, *subwords, "--bpe-separator", "AB")
    lines = b"deret bana\nbanaderet kisil deret\n"
    outputs = [section[-1][1] for section in sections(run(*flags, stdin=lines))]
    assert outputs == [fields[1] for _, fields in tagged(succeed("fairseq-interactive", *flags, stdin=lines), "D")]
    assert outputs[0] == "an-ter-ED"


def test_no_line_makes_an_empty_page(run: Run, data: Path, student: Path, tmp_path: Path) -> None:
    outcome = run(data, *TASK, "--path", student, "--input", "/dev/null", "--html", tmp_path / "page.html")
    assert (outcome.code, outcome.stdout) == (0, "")
    assert Page((tmp_path / "page.html").read_text(encoding="utf-8").split("\n")).tables == []


def test_a_process_of_its_own_shows_the_same(run: Run, data: Path, student: Path) -> None:
    """So that nothing here hangs on how the tests start the script."""
    flags = (data, *TASK, "--path", student, "--iter-decode-max-iter", 1)
    outcome = console([sys.executable, "-m", "nar_tools", "show", *flags], stdin=b"\n".join(HARD))
    assert outcome == run(*flags, stdin=b"\n".join(HARD))
    assert (outcome.code, outcome.stderr) == (0, "") and len(sections(outcome)) == len(HARD)


@pytest.mark.parametrize("task", [TASK, STOCK], ids=["ours", "stock"])
def test_an_autoregressive_model_is_refused(task: Tuple[str, ...], run: Run, data: Path, teacher: Path) -> None:
    refused(run(data, *task, "--path", teacher, "--sentence", "bana"), str(teacher), "history")


WRONG: Dict[str, Tuple[Tuple[Any, ...], Tuple[str, ...]]] = {
    "another task": (("--task", "translation"), ("--task translation_nar",)),
    "an unknown task": (("--task", "nonsense"), ("--task", "nonsense")),
    "an unknown flag": (("--iter-decode-max-itre", 3), ("--iter-decode-max-itre",)),
    "an idle flag": (("--sampling", "--beam", 1), ("--sampling", "mask_predict")),
    "a tokenizer without languages": (("--tokenizer", "moses"), ("--source-lang", "--target-lang")),
    "a missing plugin": (("--user-dir", "absent_plugin"), ("absent_plugin",)),
    "a missing file of sentences": (("--input", "absent.txt"), ("absent.txt",)),
    "a page that is a folder": (("--html", "/"), ("cannot write /: it is a folder",)),
    "a page below a file": (
        ("--html", SCRIPT / "page.html", "--sentence", "a"),
        (f"cannot write {SCRIPT / 'page.html'}",),
    ),
    "too few references": (("--sentence", "a", "--sentence", "b", "--reference", "c"), ("1 references for 2",)),
    "references told twice": (("--reference", "c", "--references", SCRIPT), ("--reference and --references",)),
    "a missing file of references": (
        ("--sentence", "a", "--references", "absent.txt"),
        ("cannot read absent.txt",),
    ),
    "the first none": (("--sentence", "a", "--first", "0"), ("--first needs 1 or more",)),
    "too many references": (("--reference", "c"), ("1 references for 0",)),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_one_line(what: str, run: Run, data: Path, student: Path) -> None:
    flags, words = WRONG[what]
    refused(run(data, *TASK, "--path", student, *flags), *words)


@pytest.mark.parametrize("task", [TASK, STOCK], ids=["ours", "stock"])
def test_a_missing_folder_of_data_is_named(task: Tuple[str, ...], run: Run, student: Path, tmp_path: Path) -> None:
    refused(run(tmp_path / "absent", *task, *LANGUAGES, "--path", student), str(tmp_path / "absent"))


def test_a_missing_checkpoint_is_said_in_the_words_of_the_plugin(run: Run, data: Path) -> None:
    outcome = run(data, *TASK, "--path", "absent.pt")
    assert outcome.stderr == "nar show: Model file not found: absent.pt\n"


def test_an_unforeseen_error_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(flags: List[str]) -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr(interactive, "Interactive", fail)
    refused(run("data"), "ValueError: two lines")


def test_a_missing_path_is_said(run: Run, data: Path) -> None:
    refused(run(data, *TASK), "--path is missing")


@pytest.fixture(scope="module")
def one_pass(data: Path, once: Any) -> Path:
    """The checkpoint of a CTC model that has learnt the toy language."""
    arch = ("--arch", "ctc_tiny", "--criterion", "alignment", *LIMITS)
    flags = (*TASK, *arch, *ADAM, *QUIET, "--max-tokens", 2000, "--max-update", 300)
    folder = once("one_pass", lambda folder: succeed("fairseq-train", data, *flags, "--save-dir", folder))
    return folder / "checkpoint_last.pt"


def test_a_canvas_is_shown_with_what_is_read_of_it(
    run: Run, data: Path, one_pass: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the words that stand on it those are read that repeat no word before; what is read is the output."""
    monkeypatch.setenv("COLUMNS", "1000")
    flags = (data, *TASK, "--path", one_pass)
    shown = sections(run(*flags, "--scores", stdin=b"\n".join([*LINES[:3], b""]) + b"\n"))
    generated = succeed("fairseq-interactive", *flags, "--buffer-size", 9, stdin=b"\n".join(LINES[:3]) + b"\n")
    outputs = [one.text for one in sorted(hypotheses(generated))]
    for lines, source, output in zip(shown, LINES, outputs):
        assert [name for name, _ in lines] == ["source", "canvas", "probability", "read", "probability", "output"]
        canvas = lines[1][1].split()
        assert len(canvas) == 2 * (len(source.split()) + 1) and interactive.BLANK in canvas
        before = [interactive.BLANK, *canvas]
        read = [word for word, last in zip(canvas, before) if word not in (interactive.BLANK, last)]
        assert lines[3][1].split() == read == output.split() == lines[5][1].split()
    assert shown[3] == [("source", "(empty)"), ("output", "(empty)")]


def test_drafts_are_shown_call_by_call_with_what_was_refused(data: Path, teacher: Path, student: Path) -> None:
    """What is said in all calls together is the output; what was refused is marked."""
    flags = [str(data), *map(str, TASK), "--path", str(teacher), "--drafter", "ngram", "--draft-length", "3", "--cpu"]
    for drafter in ("ngram", str(student)):
        given = [drafter if word == "ngram" else word for word in flags]
        if drafter != "ngram":
            given = [word for word in given if word not in ("--draft-length", "3")]
        system = interactive.Interactive(given)
        for source in ("bana deret kisil", "lotom muna bana bana"):
            shown = system.show(source)
            said = [t for step in shown.passes for t, m in zip(step.tokens, step.marked, strict=True) if not m]
            assert said[-1] == "</s>" and " ".join(said[:-1]) == shown.output
            assert all(step.change == "no draft" or step.change.endswith(" drafts") for step in shown.passes)
    assert any(any(step.marked) for step in shown.passes) or len(shown.passes) < len(said)
