"""EM training: which answer the next teacher learns, what the corpus costs the student, when the rounds end."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from nar_tools.errors import ToolError
from nar_tools.files import gzip_lines, read_gzip_lines
from nar_tools.jobs import distilled, scored, selection
from nar_tools.jobs.selection import Rule, Score, Tally, multimodality, selected
from nar_tools.measure import rounds
from nar_tools.text import nbest
from nar_tools.text.nbest import Candidate
from tests.tools.conftest import Nar

LANGS = ("--source-lang", "de", "--target-lang", "en")
IMPOSSIBLE, UNREAD = Score(-math.inf, 3), Score(-math.inf, 0)


def answers(*texts: str, scores: Any = None) -> List[Candidate]:
    return (
        [Candidate(text, -float(k + 1)) for k, text in enumerate(texts)]
        if scores is None
        else list(map(Candidate, texts, scores))
    )


def of(*log_probs: float) -> List[Score]:
    return [Score(log_prob, 3) for log_prob in log_probs]


HARD = Rule(0.0, "none", 1.0)


# --- the list


def test_a_list_is_read_by_sentence_and_those_without_answers_are_empty(tmp_path: Path) -> None:
    gzip_lines(tmp_path / "nbest.gz", ["1 ||| ein ||| Haus ||| -0.5", "1 |||  ||| -0.7", "3 ||| x ||| -1e-05"])
    found = list(nbest.lists(tmp_path / "nbest.gz", 5))
    assert [len(group) for group in found] == [0, 2, 0, 1, 0]
    assert found[1] == [Candidate("ein ||| Haus", -0.5), Candidate("", -0.7)]
    pairs = list(nbest.pairs(tmp_path / "nbest.gz", ["a", "b", "c", "d"], 4))
    assert pairs == [("b", "ein ||| Haus"), ("b", ""), ("d", "x")]


@pytest.mark.parametrize(
    "lines", [["1 ||| a ||| -1", "0 ||| b ||| -1"], ["a ||| b ||| -1"], ["1 a -1"], ["7 ||| a ||| 0"]]
)
def test_what_is_no_list_of_this_text_is_refused(lines: List[str], tmp_path: Path) -> None:
    gzip_lines(tmp_path / "nbest.gz", lines)
    with pytest.raises(ToolError, match="nbest.gz"):
        list(nbest.lists(tmp_path / "nbest.gz", 5))


def test_a_list_that_was_cut_is_refused(tmp_path: Path) -> None:
    gzip_lines(tmp_path / "whole.gz", [f"{i} ||| a b c ||| -1" for i in range(1000)])
    (tmp_path / "nbest.gz").write_bytes((tmp_path / "whole.gz").read_bytes()[:-20])
    with pytest.raises(ToolError):
        list(nbest.groups(tmp_path / "nbest.gz"))


def test_the_same_lines_are_the_same_bytes_whatever_the_file_is_called(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        gzip_lines(tmp_path / name, ["a", "b"])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert list(read_gzip_lines(tmp_path / "a.gz")) == ["a", "b"]


@pytest.mark.parametrize("lenpen", [0.0, 0.8, 1.0, 1.5])
def test_the_teacher_s_log_probability_is_that_before_the_length_penalty(lenpen: float) -> None:
    """EM-2: of 4 tokens, with the end, each of probability 1/8."""
    total = 4 * math.log(1 / 8)
    printed = total / 4**lenpen / math.log(2)
    assert Candidate("a b c", printed).log_prob(lenpen) == pytest.approx(total)


# --- the choice


def test_what_is_chosen_is_an_answer_and_no_worse_than_the_first() -> None:
    """EM-3: under every rule; of equal ones the first is taken."""
    texts, scores = answers("a b", "c", "d e f", "g h"), of(-3, -2.5, -9, -2.5)
    for rule in (HARD, Rule(1, "none", 1), Rule(1, "len", 1), Rule(0, "len", 0.5)):
        at = rule.choice(texts, scores)
        values = [rule.value(*pair) for pair in zip(texts, scores)]
        assert values[at] == max(values) >= values[0] and at == values.index(max(values))
    assert HARD.choice(texts, scores) == 1
    assert HARD.choice(texts, of(-2, -2, -2, -2)) == 0
    assert HARD.choice(texts, [IMPOSSIBLE] * 4) == 0, "where none is possible, the teacher's first"


def test_alpha_weighs_the_teacher() -> None:
    """EM-4: at 0 the student alone chooses, at 1 the product, at much more the teacher; in nats."""
    texts, scores = answers("a b", "c d", "e f", scores=[-0.1, -0.5, -3.0]), of(-5, -3.9, -3.5)
    bits = math.log(2) * 3
    assert [HARD.value(*pair) for pair in zip(texts, scores)] == [-5, -3.9, -3.5]
    assert HARD.choice(texts, scores) == 2
    one = Rule(1.0, "none", 1.0)
    assert one.value(texts[1], scores[1]) == pytest.approx(-3.9 - 0.5 * bits)
    assert one.choice(texts, scores) == 1 and Rule(100.0, "none", 1.0).choice(texts, scores) == 0
    small = Rule(1e-9, "none", 1.0)
    assert small.choice(texts, scores) == HARD.choice(texts, scores), "the hard form is the limit"


def test_compared_by_the_token_short_answers_lose_their_advantage() -> None:
    """EM-4: a sum is the more the fewer words there are."""
    texts, scores = answers("a", "a b c d"), [Score(-4.0, 2), Score(-5.0, 5)]
    assert HARD.choice(texts, scores) == 0
    assert Rule(0, "len", 1).choice(texts, scores) == 1
    assert Rule(0, "len", 1).value(texts[1], scores[1]) == -1.0


@pytest.mark.parametrize("text", ["", "a <unk>"])
def test_what_cannot_be_a_target_is_never_chosen(text: str) -> None:
    """EM-3: nor is what the student could not read, though it cost nothing."""
    assert HARD.choice(answers(text, "a b"), of(0, -9)) == 1
    assert HARD.choice(answers("a b", "c"), [Score(-9, 3), UNREAD]) == 0


def chosen(lists: List[List[Candidate]], scores: List[Score], targets: List[str]) -> Tuple[List[str], Tally]:
    tally = Tally()
    return list(selected(HARD, lists, iter(scores), targets, tally)), tally


def test_every_line_has_a_target_and_one_without_an_answer_keeps_its_own() -> None:
    """EM-5: whatever sentences have no answers, others are not moved."""
    lists = [answers("a", "b"), [], answers("<unk>"), answers("c", "d", "e"), []]
    found, tally = chosen(lists, of(-2, -1, -1, -1, -2, -3), ["1", "2", "3", "4", "5"])
    assert found == ["b", "2", "3", "c", "5"]
    assert (tally.lines, tally.changed, tally.kept) == (5, 1, 3)


@pytest.mark.parametrize("count", [1, 3])
def test_scores_of_another_list_are_refused(count: int) -> None:
    with pytest.raises(ToolError, match="score it anew"):
        chosen([answers("a", "b")], of(*range(count)), ["1"])


def test_with_one_answer_each_the_selection_is_plain_distillation(tmp_path: Path) -> None:
    """EM-6: the same text that nar distill writes, whatever the student thinks of it."""
    (tmp_path / "0.txt").write_text("H-0\t-1\ta b\nH-2\t-1\t<unk>\nH-3\t-2\tc\nGenerate train\n", encoding="utf-8")
    originals = ["1", "2", "3", "4"]
    with distilled.Answers([tmp_path / "0.txt"]) as said:
        plain = list(distilled.targets(said, originals, Counter()))
        distilled.write_nbest(tmp_path / "nbest.gz", said)
    lists = list(nbest.lists(tmp_path / "nbest.gz", 4))
    found, tally = chosen(lists, of(-1, -2, -3), originals)
    assert found == plain == ["a b", "2", "3", "c"] and tally.changed == 0


# --- what a corpus costs


def test_multi_modality_is_nats_over_tokens() -> None:
    """EM-10: of a uniform student log |V|, and log |L| a sentence for its length."""
    lengths, words, most = [3, 5, 4], 50, 20
    scores = [Score(-(n * math.log(words) + math.log(most)), n) for n in lengths]
    expected = math.log(words) + math.log(most) / (sum(lengths) / len(lengths))
    assert multimodality(scores).value == pytest.approx(expected)


def test_pairs_that_cannot_be_said_are_counted_and_left_out() -> None:
    """EM-10: a target longer than a CTC canvas has no alignment; one beyond the positions was not read."""
    found = multimodality([Score(-6, 3), IMPOSSIBLE, UNREAD, Score(-2, 1)])
    assert (found.value, found.impossible, found.tokens) == (2.0, 1, 4)


def test_what_the_student_selects_has_no_more_multi_modality_than_the_first_answers() -> None:
    """EM-11: by the student alone, of answers of one length: else the fewer tokens may outweigh the fewer nats."""
    lists = [answers("a b", "c d"), answers("e f", "g h")]
    _, tally = chosen(lists, of(-3, -2, -1, -4), ["", ""])
    assert tally.selected.value == pytest.approx(3 / 6) and tally.first.value == pytest.approx(4 / 6)


class Places:
    """A student of words at places, independent of each other given the kind of the source: relative frequencies, and
    all words alike before it learnt anything."""

    def __init__(self, words: int) -> None:
        self.words, self.seen = words, Counter()  # type: ignore[var-annotated]

    def learn(self, pairs: List[Tuple[str, str]]) -> None:
        self.seen = Counter((kind, i, word) for kind, text in pairs for i, word in enumerate(text.split()))
        self.total = Counter(kind for kind, _ in pairs)

    def score(self, kind: str, text: str) -> Score:
        shares = [
            (self.seen[kind, i, word] + 0.01) / (self.total[kind] + 0.01 * self.words) if self.seen else 1 / self.words
            for i, word in enumerate(text.split())
        ]
        return Score(sum(map(math.log, shares)), len(shares) + 1)

    def says(self, kind: str) -> str:
        """The most frequent word of each place."""
        places = max(i for k, i, _ in self.seen if k == kind) + 1
        return " ".join(
            max((n, w) for (k, i, w), n in self.seen.items() if (k, i) == (kind, at))[1] for at in range(places)
        )


def test_a_round_leaves_one_mode_of_two() -> None:
    """EM-12: sources have two right targets; the teacher says either first, the next one learns the same for all."""
    modes = {"x": ("heute gehen wir", "wir gehen heute"), "y": ("um neun kommt sie", "sie kommt um neun")}
    sources = [kind for kind in "xy" for _ in range(10)]
    lists, first = [], []
    for i, kind in enumerate(sources):
        order = modes[kind] if i % 10 < 5 else modes[kind][::-1]
        lists.append(answers(*order))
        first.append((kind, order[0]))
    student = Places(words=9)
    before = multimodality(student.score(*pair) for pair in first).value
    student.learn(first)
    after = multimodality(student.score(*pair) for pair in first).value
    assert after < before, "the M-step"
    mixed = {kind: student.says(kind) for kind in "xy"}
    assert not any(mixed[kind] in modes[kind] for kind in "xy"), "places that mix two modes say neither"
    student.learn([*first, ("x", modes["x"][0]), ("y", modes["y"][0])])  # what breaks the tie
    scores = [student.score(kind, one.text) for kind, group in zip(sources, lists) for one in group]
    found, tally = chosen(lists, scores, [""] * len(sources))
    assert [len({text for k, text in zip(sources, found) if k == kind}) for kind in "xy"] == [1, 1]
    assert tally.changed == 10
    student.learn(list(zip(sources, found)))
    assert all(student.says(kind) in modes[kind] for kind in "xy")
    assert multimodality(student.score(k, t) for k, t in zip(sources, found)).value < after


# --- rounds


def a_round(number: int = 0, student: float = 30.0, ncmm: Any = (1.0, 0.9, 1.1), **changes: Any) -> Dict[str, Any]:
    return {
        "round": number,
        "teacher": 35.0,
        "student": student,
        "signature": "BLEU|x",
        "ncmm": dict(zip(("first", "selected", "valid"), ncmm)),
        "rule": {"kind": "exact", "alpha": 1.0, "norm": "none", "lenpen": 1.0},
        "changed": 0.25,
        **changes,
    }


@pytest.mark.parametrize(
    ("last", "ends"),
    [
        (a_round(1, 30.0), True),
        (a_round(1, 30.1), True),
        (a_round(1, 30.11), False),
        (a_round(1, 20.0, (1.0, 0.894, 1.1)), False),
        (a_round(1, 20.0, (0.1, 0.896, 1.1)), True),
        (a_round(1, 20.0, (1.0, 0.9, 1.09)), False),
    ],
)
def test_rounds_end_when_neither_bleu_nor_multi_modality_is_better(last: Dict[str, Any], ends: bool) -> None:
    """EM-13: by more than 0.1 and 0.5 %, than in any round before; one round says nothing."""
    assert (rounds.verdict([a_round(), last]) is not None) == ends
    assert rounds.verdict([a_round()]) is None
    assert rounds.verdict([a_round(), a_round(1, 31.0), a_round(2, 31.05)]) is not None


def test_the_program_says_by_its_status_whether_to_go_on(nar: Nar, tmp_path: Path) -> None:
    """EM-13: 1 is no error, 2 is one."""
    for name, one in (("0", a_round()), ("better", a_round(1, 31)), ("worse", a_round(1, 29)), ("third", a_round(3))):
        (tmp_path / name).write_text(json.dumps(one))
    assert nar("em", "goes-on", tmp_path / "0").code == 0
    assert nar("em", "goes-on", tmp_path / "0", tmp_path / "better").code == 0
    assert nar("em", "goes-on", tmp_path / "0", tmp_path / "worse").code == 1
    assert nar("em", "goes-on", tmp_path / "0", tmp_path / "third").code == 2


def test_one_loop_keeps_to_one_student_and_one_rule(nar: Nar, tmp_path: Path) -> None:
    """EM-14: scores of two kinds are not compared."""
    (tmp_path / "0").write_text(json.dumps(a_round()))
    for changes in ({"kind": "bound"}, {"alpha": 0.0}, {"norm": "len"}):
        (tmp_path / "1").write_text(json.dumps(a_round(1, rule={**a_round()["rule"], **changes})))
        done = nar("em", "report", tmp_path / "0", tmp_path / "1", "--output", tmp_path / "em.json")
        assert done.code == 2 and "one loop has one student" in done.stderr and not (tmp_path / "em.json").exists()


def test_the_report_is_a_table_two_figures_and_the_manifest(nar: Nar, tmp_path: Path) -> None:
    """EM-15: BLEU of teacher, student and control, and multi-modality, by round."""
    found = [a_round(), a_round(1, 31.5, (0.8, 0.7, 1.0), control=30.25)]
    for one in found:
        (tmp_path / str(one["round"])).write_text(json.dumps(one))
    files = (tmp_path / "0", tmp_path / "1")
    done = nar(
        "em", "report", *files, "--output", tmp_path / "em.json", "--name", "ctc", "--figure", tmp_path / "em.ctc"
    )
    assert done.code == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[:3]]
    assert rows[1] == ["0", "35.00", "30.00", "-", "1.0000", "0.9000", "1.1000", "25.00"]
    assert rows[2] == ["1", "35.00", "31.50", "30.25", "0.8000", "0.7000", "1.0000", "25.00"]
    told = json.loads((tmp_path / "em.json").read_text())
    assert told["rounds"] == found and (told["student"], told["kind"]) == ("ctc", "exact")
    for ending in ("bleu.png", "bleu.svg", "ncmm.png", "ncmm.svg"):
        assert (tmp_path / f"em.ctc.{ending}").stat().st_size > 1000
    charts = rounds.charts(found, "ctc")
    assert {s.label: s.points for s in charts["bleu"].series} == {
        "teacher": ((0.0, 35.0), (1.0, 35.0)),
        "student": ((0.0, 30.0), (1.0, 31.5)),
        "control": ((1.0, 30.25),),
    }
    assert charts["ncmm"].series[1].points == ((0.0, 0.9), (1.0, 0.7))


# --- the verb


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """Two sources with two answers each, their scores, and a valid set of two lines."""
    (tmp_path / "train.de").write_text("x\u2028 y\r\nz\n", encoding="utf-8", newline="")
    (tmp_path / "train.en").write_text("1\n2\n")
    gzip_lines(tmp_path / "nbest.gz", ["0 ||| a b ||| -1", "0 ||| a c ||| -2", "1 ||| d ||| -1", "1 ||| e ||| -1"])
    selection.write_scores(tmp_path / "scores.gz", "exact", [Score(s, 3) for s in (-9, -1, -1, -2)])
    selection.write_scores(tmp_path / "valid.gz", "exact", [Score(-3, 3), Score(-5, 1)])
    for name in ("reference", "student", "teacher"):
        (tmp_path / name).write_text("the cat sat on the mat\nthe dog stood in the fog\n")
    return tmp_path


def select_words(loop: Path, *more: Any) -> Tuple[Any, ...]:
    files = ("--nbest", loop / "nbest.gz", "--scores", loop / "scores.gz", "--source-text", loop / "train.de")
    return (
        "em",
        "select",
        *files,
        "--target-text",
        loop / "train.en",
        "--lenpen",
        1,
        "--output",
        loop / "out",
        *LANGS,
        *more,
    )


def measure_words(loop: Path, *more: Any) -> Tuple[Any, ...]:
    files = (
        "--selection",
        loop / "out" / "manifest.json",
        "--valid-scores",
        loop / "valid.gz",
        "--reference",
        loop / "reference",
    )
    said = ("--hypotheses", "teacher", loop / "teacher", "--hypotheses", "student", loop / "student")
    return ("em", "measure", "--round", 0, *files, *said, "--output", loop / "round.json", *more)


def test_a_text_is_selected_and_its_source_is_copied_byte_by_byte(nar: Nar, loop: Path) -> None:
    """EM-5, EM-6: a line for each line; only a line feed parts them."""
    done = nar(*select_words(loop))
    assert done.code == 0, done.stderr
    assert (loop / "out" / "train.de").read_bytes() == (loop / "train.de").read_bytes()
    assert (loop / "out" / "train.en").read_text() == "a c\nd\n"
    told = json.loads((loop / "out" / "manifest.json").read_text())
    assert (told["kind"], told["alpha"], told["norm"], told["lines"], told["changed"]) == ("exact", 1.0, "none", 2, 1)
    assert told["ncmm_first"] == pytest.approx(10 / 6) and told["ncmm_selected"] == pytest.approx(2 / 6)


def test_a_round_is_measured(nar: Nar, loop: Path) -> None:
    """EM-15: seed, commands and hashes are kept."""
    assert nar(*select_words(loop)).code == 0
    done = nar(*measure_words(loop, "--seed", 7, "--command", "fairseq-train data", "--made-of", loop / "nbest.gz"))
    assert done.code == 0, done.stderr
    told = json.loads((loop / "round.json").read_text())
    assert told["student"] == told["teacher"] == 100.0 and told["ncmm"]["valid"] == 2.0 and told["changed"] == 0.5
    assert (told["seed"], told["commands"], set(told["made_of_sha256"])) == ("7", ["fairseq-train data"], {"nbest.gz"})


def test_scores_of_two_kinds_make_no_round(nar: Nar, loop: Path) -> None:
    """EM-14: those of the valid set are the same student's as those of the list."""
    assert nar(*select_words(loop)).code == 0
    selection.write_scores(loop / "valid.gz", "proxy", [Score(-3, 3)])
    done = nar(*measure_words(loop))
    assert done.code == 2 and "proxy" in done.stderr and "exact" in done.stderr


def test_candidates_are_a_pair_of_texts(nar: Nar, loop: Path) -> None:
    files = ("--nbest", loop / "nbest.gz", "--source-text", loop / "train.de", "--output", loop / "pairs")
    done = nar("em", "candidates", *files, *LANGS)
    assert done.code == 0 and "4 pairs" in done.stdout
    assert (loop / "pairs.en").read_text() == "a b\na c\nd\ne\n"
    assert (loop / "pairs.de").read_bytes().decode().split("\n") == ["x\u2028 y\r"] * 2 + ["z"] * 2 + [""]


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    given = [Score(-1 / 3, 7), IMPOSSIBLE, UNREAD]
    selection.write_scores(tmp_path / "scores.gz", "bound", given)
    assert selection.kind_of(tmp_path / "scores.gz") == "bound"
    assert list(selection.read_scores(tmp_path / "scores.gz")) == given


def test_what_fairseq_generate_said_becomes_scores_in_nats(tmp_path: Path) -> None:
    """EM-1: a line a pair in the order of the data; one that was skipped has no score."""
    (tmp_path / "1.txt").write_text("S-2\tx\nH-2\t-2.0\ta b\nS-0\ty\nH-0\t-inf\tc\nGenerate train\n")
    (tmp_path / "1.log").write_text("2026 | INFO | x | --score-reference: bound of it\n")
    with distilled.Answers([tmp_path / "1.txt"]) as said:
        found = list(scored.scores(said, 4))
    assert found == [Score(-math.inf, 2), UNREAD, Score(-2 * math.log(2), 3), UNREAD]
    assert scored.kind_said(tmp_path) == "bound"
    (tmp_path / "1.log").write_text("nothing\n")
    with pytest.raises(ToolError, match="does not say what its scores are"):
        scored.kind_said(tmp_path)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--alpha", -1), "--alpha"),
        (("--alpha", "nan"), "--alpha"),
        (("--nbest", "nothing.gz"), "nothing.gz"),
        (("--scores", "{loop}/nbest.gz"), "no scores"),
        (("--target-text", "{loop}/nbest.gz"), "no pair of texts"),
        (("--", "--fp16"), "nothing stands behind --"),
    ],
)
def test_what_cannot_be_is_one_line(more: Any, complaint: str, nar: Nar, loop: Path) -> None:
    done = nar(*select_words(loop, *(str(word).format(loop=loop) for word in more)))
    assert done.code == 2 and len(done.stderr.splitlines()) == 1 and complaint in done.stderr
    assert not (loop / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--hypotheses", "critic", "{loop}/student"), "critic"),
        (("--reference", "{loop}/train.en", "--hypotheses", "student", "{loop}/nothing"), "nothing"),
        (("--made-of", "{loop}/nothing"), "nothing"),
        (("--selection", "{loop}/valid.gz"), "no manifest"),
    ],
)
def test_what_is_no_round_is_one_line(more: Any, complaint: str, nar: Nar, loop: Path) -> None:
    assert nar(*select_words(loop)).code == 0
    done = nar(*measure_words(loop, *(word.format(loop=loop) for word in more)))
    assert done.code == 2 and len(done.stderr.splitlines()) == 1 and complaint in done.stderr
