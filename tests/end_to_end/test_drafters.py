"""``--drafter`` and blockwise heads through fairseq's programs: the file that greedy decoding writes."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ADAM, CRITERIONS, LIMITS, QUIET
from tests.end_to_end.programs import TASK, Outcome, complains, hypotheses, program, spy, succeed, texts

GREEDY = ("--beam", 1)


def generated(data: Path, path: Path, *flags: Any) -> Outcome:
    return succeed("fairseq-generate", data, *TASK, "--path", path, *flags)


def assert_the_same_file(found: Outcome, expected: Outcome) -> None:
    """Every sentence, in its place, and nearly its score."""
    assert texts(found) == texts(expected)
    for one, other in zip(sorted(hypotheses(found)), sorted(hypotheses(expected)), strict=True):
        assert one.id == other.id and one.score == pytest.approx(other.score, abs=2e-4)


@pytest.mark.parametrize("flags", [(), ("--batch-size", 1), ("--batch-size", 16, "--max-len-b", 3, "--min-len", 3)])
def test_what_is_drafted_by_whomever_is_the_verifiers_greedy_file(
    flags: tuple[Any, ...], data: Path, teacher: Path, student: Path
) -> None:
    """BPD-7: a student of one pass and of three, n-grams, and the verifier itself, by fairseq-generate."""
    expected = generated(data, teacher, *GREEDY, *flags)
    drafters: list[tuple[Any, ...]] = [(student,), (student, "--iter-decode-max-iter", 2), (student, "--redraft")]
    for words in [*drafters, ("ngram",), ("ngram", "--draft-length", 2), (teacher, "--draft-length", 3)]:
        found = generated(data, teacher, *GREEDY, *flags, "--drafter", *words)
        assert_the_same_file(found, expected)
        assert "tokens a call" in found.stdout + found.stderr, words


def test_typed_sentences_are_answered_too(data: Path, corpus: Path, teacher: Path, student: Path) -> None:
    """BPD-7: by fairseq-interactive, an empty line and a long one among them."""
    lines = (corpus / "test.src").read_bytes() + b"\n" + b"bana " * 90 + b"\n"
    command = ("fairseq-interactive", data, *TASK, "--path", teacher, *GREEDY, "--buffer-size", 9, "--batch-size", 4)
    expected = succeed(*command, stdin=lines)
    assert texts(succeed(*command, "--drafter", student, stdin=lines)) == texts(expected)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--drafter", "nowhere.pt"), "--drafter: Model file not found: nowhere.pt"),
        (("--drafter", "ngram", "--beam", 4), "--beam 4: drafts are verified by greedy decoding or sampling"),
        (("--drafter", "ngram", "--redraft"), "--redraft: no effect on --arch transformer with --drafter"),
        (("--drafter", "ngram", "--min-len", 9, "--max-len-b", 4), "--min-len 9: a sentence of this batch"),
        (("--drafter", "ngram", "--accept-top-k", 3), "--accept-top-k: no effect on --accept exact"),
        (("--drafter", "ngram", "--prefix-size", 2), "--prefix-size"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(flags: tuple[Any, ...], line: str, data: Path, teacher: Path) -> None:
    """BPD-13."""
    complains(program("fairseq-generate", data, *TASK, "--path", teacher, *flags), line)


def test_a_drafter_of_a_student_is_refused(data: Path, student: Path) -> None:
    """BPD-13: what writes a sentence at once verifies nothing."""
    complains(program("fairseq-generate", data, *TASK, "--path", student, "--drafter", "ngram"), "--drafter: no effect")


@pytest.fixture(scope="module")
def blockwise(data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads on the frozen teacher, trained a little."""
    folder = tmp_path_factory.mktemp("blockwise")
    arch = ("--arch", "blockwise_transformer_tiny", "--criterion", "blockwise_cross_entropy", "--freeze", "base")
    flags = ("--base-checkpoint", teacher, "--max-tokens", 1000, "--max-update", 100, "--save-dir", folder)
    succeed("fairseq-train", data, *TASK, *arch, *LIMITS, *ADAM, *QUIET, *flags)
    return folder / "checkpoint_last.pt"


def test_heads_on_a_frozen_base_write_its_greedy_file(blockwise: Path, data: Path, teacher: Path) -> None:
    """BPD-7: with any number of heads, from a checkpoint that stands alone."""
    expected = generated(data, teacher, *GREEDY)
    for flags in ((), ("--block-size", 2), ("--batch-size", 1)):
        assert_the_same_file(generated(data, blockwise, *flags), expected)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ((), "needs --base-checkpoint"),
        (("--base-checkpoint", "nowhere.pt"), "checkpoint not found: nowhere.pt"),
        (
            ("--base-options", "{}"),
            "--base-options is for the program to write; --base-checkpoint names the checkpoint",
        ),
    ],
)
def test_heads_need_a_base(flags: tuple[Any, ...], line: str, data: Path, tmp_path: Path) -> None:
    """BPD-13."""
    arch = ("--arch", "blockwise_transformer_tiny", "--criterion", "blockwise_cross_entropy", "--max-tokens", 500)
    complains(program("fairseq-train", data, *TASK, *arch, *ADAM, *QUIET, *flags, "--save-dir", tmp_path), line)


def test_a_base_that_is_no_transformer_is_refused(data: Path, student: Path, tmp_path: Path) -> None:
    """BPD-13: in one line that says what it is."""
    arch = ("--arch", "blockwise_transformer_tiny", "--criterion", "blockwise_cross_entropy", "--max-tokens", 500)
    flags = ("--base-checkpoint", student, "--save-dir", tmp_path)
    line = "holds --arch mask_predict_tiny, which is no transformer of fairseq's"
    complains(program("fairseq-train", data, *TASK, *arch, *ADAM, *QUIET, *flags), line)


COUNT_READS = """
from nar_plugin.tasks.translation_nar import TranslationNarTask
drafted = TranslationNarTask.drafted
def counting(self, verifier, drafter, args):
    model = drafted(self, verifier, drafter, args)  # which compares the two, once
    for name, encoder in (("VERIFIER", verifier.encoder), ("DRAFTER", drafter.encoder)):
        encoder.layers[0].register_forward_hook(lambda *_, name=name: print(name, "READS"))
    return model
TranslationNarTask.drafted = counting
"""


@pytest.mark.parametrize("is_frozen", [True, False])
def test_an_encoder_that_a_student_kept_reads_for_both(
    is_frozen: bool, data: Path, teacher: Path, tmp_path: Path
) -> None:
    """BPD-38: of its own teacher; not that of a student which trained it on."""
    arch = ("--arch", "ctc_tiny", "--criterion", CRITERIONS["ctc"], "--warm-start", teacher, "--max-tokens", 500)
    freeze = ("--freeze", "encoder") if is_frozen else ()
    folder = tmp_path / "student"
    flags = (*LIMITS, *ADAM, *QUIET, "--max-update", 30, "--save-dir", folder)
    succeed("fairseq-train", data, *TASK, *arch, *freeze, *flags)
    batches = ("--batch-size", 16)
    expected = generated(data, teacher, *GREEDY, *batches)
    drafter = ("--drafter", folder / "checkpoint_last.pt", *spy(tmp_path, COUNT_READS))
    found = generated(data, teacher, *GREEDY, *batches, *drafter)
    assert_the_same_file(found, expected)
    said, reads = found.stdout + found.stderr, found.stdout.count("VERIFIER READS")
    assert reads >= 4, "one for every batch"
    assert found.stdout.count("DRAFTER READS") == (0 if is_frozen else reads)
    assert said.count("--drafter: its encoder is the verifier's, whose states serve both") == is_frozen
    assert f"encoder {reads} passes" in said and ("drafter's encoder" in said) is not is_frozen
