"""A flag is heeded, or refused in one line: never taken without a word."""

from pathlib import Path
from typing import Any, Sequence, Tuple

import pytest

from nar_plugin.compat.programs import HALVES
from tests.conftest import ADAM, LIMITS, STUDENT, TINY_TRANSFORMER
from tests.end_to_end.programs import TASK, complains, console, program, script, succeed, tagged

INTERACTIVE: Sequence[Tuple[str, Tuple[Any, ...]]] = [
    ("student", ("--print-step",)),
    ("student", ("--retain-iter-history", "--print-step")),
    ("teacher", ("--prefix-size", 2)),
    ("teacher", ("--score-reference",)),
    ("student", ("--num-shards", 2, "--shard-id", 1)),
]


def test_interactive_refuses_what_it_does_not_heed(data: Path, student: Path, teacher: Path) -> None:
    models = {"student": student, "teacher": teacher}
    for model, options in INTERACTIVE:
        outcome = program("fairseq-interactive", data, *TASK, "--path", models[model], *options, stdin=b"bana\n")
        complains(outcome, *(word for word in options if str(word).startswith("--")), "fairseq-generate")


def test_generate_refuses_what_it_does_not_heed(data: Path, student: Path, teacher: Path) -> None:
    for model in (student, teacher):
        words = (data, *TASK, "--path", model, "--gen-subset", "test1")
        complains(program("fairseq-generate", *words, "--sacrebleu"), "--sacrebleu", "--scoring sacrebleu")
    sharded = program("fairseq-generate", *words, "--num-shards", 2)
    complains(sharded, "--num-shards", "--distributed-world-size N --distributed-rank R")
    complains(program("fairseq-generate", *words, "--constraints"), "--constraints", "fairseq-interactive")
    complains(program("fairseq-generate", *words, "--scoring", "wer"), "--scoring wer", "editdistance")


def test_a_teacher_heeds_constraints_from_stdin_and_a_prefix_from_references(data: Path, teacher: Path) -> None:
    words = (data, *TASK, "--path", teacher)
    given = b"bana deret\tlis-IK\n"
    bound = succeed("fairseq-interactive", *words, "--constraints", "--batch-size", 1, stdin=given)
    assert "lis-IK" in tagged(bound, "H")[0][1][1].split()
    begun = succeed("fairseq-generate", *words, "--gen-subset", "test1", "--prefix-size", 1)
    references = dict(tagged(begun, "T"))
    for number, (_, text) in tagged(begun, "H"):
        assert text.split()[0] == references[number][0].split()[0]


def test_a_wrong_flag_for_the_data_is_one_line(data: Path, student: Path) -> None:
    words = (data, *TASK, "--path", student)
    for kind in ("raw", "lazy", "cached"):
        outcome = program("fairseq-generate", *words, "--dataset-impl", kind)
        complains(outcome, f"--dataset-impl {kind}", "test", str(data))
    short = (*LIMITS, *ADAM, "--max-tokens", 500, "--no-save")
    complains(program("fairseq-train", data, *TASK, *STUDENT, *short, "--dataset-impl", "raw"), "--dataset-impl raw")
    for wrong in ("{'a':", "[1]", "dropout=0.1"):
        complains(program("fairseq-generate", *words, "--model-overrides", wrong), "--model-overrides", wrong)
    for name in ("fairseq-generate", "fairseq-validate"):
        unknown = program(name, *words, "--max-tokens", 500, "--model-overrides", "{'droput': 0.1, 'dropout': 0.1}")
        complains(unknown, "--model-overrides", "droput")
    interactive = program("fairseq-interactive", *words, "--model-overrides", "{")
    complains(interactive, "--model-overrides")
    validate = program("fairseq-validate", *words, "--max-tokens", 500, "--model-overrides", "__import__('os')")
    complains(validate, "--model-overrides")
    complains(program("fairseq-validate", *words), "--max-tokens", "--batch-size")
    succeed("fairseq-validate", *words, "--max-tokens", 500, "--model-overrides", "{'dropout': 0.1}")


@pytest.mark.parametrize("model", [STUDENT, TINY_TRANSFORMER], ids=["student", "teacher"])
def test_a_cpu_refuses_half_precision_and_processes_that_fairseq_starts(model: Tuple[Any, ...], data: Path) -> None:
    words = (data, *TASK, *model, *LIMITS, *ADAM, "--max-tokens", 500, "--max-update", 1, "--no-save", "--cpu")
    for half in HALVES if model is STUDENT else HALVES[:2]:
        flag = "--" + half.replace("_", "-")
        complains(program("fairseq-train", *words, flag), flag, "--cpu-autocast")
    complains(program("fairseq-train", *words, "--distributed-world-size", 2), "--distributed-world-size 2", "torchrun")


def test_words_are_deduplicated_or_the_line_says_why_not(data: Path, student: Path, tmp_path: Path) -> None:
    """ODD-7: by fairseq-generate."""
    words = ("fairseq-generate", data, *TASK, "--path", student)
    complains(program(*words, "--deduplicate"), "--deduplicate", "--iter-decode-max-iter 0")
    one_pass = (*words, "--iter-decode-max-iter", 0)
    complains(program(*one_pass, "--duplicate-penalty", 1), "--duplicate-penalty", "--deduplicate")
    complains(program(*one_pass, "--deduplicate", "--duplicate-penalty", -1), "--duplicate-penalty -1", "0 or more")
    plain, found = (tagged(succeed(*one_pass, *flags), "H") for flags in ((), ("--deduplicate",)))
    repeated = [sum(map(str.__eq__, text.split(), text.split()[1:])) for _, (_, text) in (*plain, *found)]
    assert sum(repeated[: len(plain)]) > 0 == sum(repeated[len(plain) :])
    ctc = ("--arch", "ctc_tiny", "--criterion", "alignment", *LIMITS, *ADAM, "--max-tokens", 500, "--max-update", 1)
    succeed("fairseq-train", data, *TASK, *ctc, "--disable-validation", "--save-dir", tmp_path)
    alignment = program(*words[:-1], tmp_path / "checkpoint_last.pt", "--deduplicate")
    complains(alignment, "--deduplicate", "--arch ctc_tiny", "equal neighbours")


def test_a_line_that_is_said_of_a_flag_ends_a_real_process_with_status_one(data: Path, student: Path) -> None:
    outcome = console([script("fairseq-interactive"), data, *TASK, "--path", student, "--print-step"], stdin=b"bana\n")
    complains(outcome, "--print-step")
    assert outcome.code == 1
