"""Fertilities in fairseq's programs: fine-tuned beside a teacher, judged by it, and what is missing is one line."""

from pathlib import Path
from typing import Any

import pytest

from nar_plugin import compat
from tests.conftest import ADAM, LIMITS, QUIET
from tests.end_to_end.programs import TASK, complains, logged, program, succeed, texts

ARCH = ("--arch", "fertility_nat_tiny", *LIMITS, *ADAM, "--max-tokens", 500)
SHORT = ("--max-update", 5, "--no-save")


@pytest.fixture(scope="module")
def trained(data: Path, stands_on: Any, once: Any) -> Path:
    flags = (*ARCH, "--criterion", "token_length", *stands_on("fertility_nat"), *QUIET, "--max-update", 200)
    folder = once("fertilities", lambda folder: succeed("fairseq-train", data, *TASK, *flags, "--save-dir", folder))
    return folder / "checkpoint_last.pt"


def test_a_model_is_fine_tuned_beside_a_teacher_which_then_chooses(
    trained: Path, data: Path, teacher: Path, stands_on: Any, tmp_path: Path
) -> None:
    """FERT-8: whose weights are not in the checkpoint; the fine-tuned model decodes without it too."""
    finetune = ("--criterion", "fertility_finetune", "--finetune-teacher", teacher, "--finetune-from-model", trained)
    flags = (*ARCH, *finetune, *stands_on("fertility_nat"), "--lr", 1e-4, "--max-update", 20, "--log-format", "json")
    outcome = succeed("fairseq-train", data, *TASK, *flags, "--no-epoch-checkpoints", "--save-dir", tmp_path)
    assert {"train_divergence_position", "train_drawn_divergence"} <= logged(outcome, "train")[-1].keys()
    assert (
        "valid_divergence_position" in logged(outcome, "valid")[-1]
        and "valid_drawn_divergence" not in logged(outcome, "valid")[-1]
    )
    path = tmp_path / "checkpoint_last.pt"
    assert compat.load_checkpoint(str(path))["model"].keys() == compat.load_checkpoint(str(trained))["model"].keys()
    plain = texts(succeed("fairseq-generate", data, *TASK, "--path", path))
    judge = ("--path", f"{path}:{teacher}", "--iter-decode-with-external-reranker")
    npd = ("--fertility", "sample", "--decode-samples", 5, "--fertility-temperature", 3.0)
    assert texts(succeed("fairseq-generate", data, *TASK, *judge, *npd)) != plain
    assert texts(succeed("fairseq-generate", data, *TASK, *judge, *npd[:2])) == plain


def test_what_a_training_lacks_is_one_line(data: Path, teacher: Path, stands_on: Any, tmp_path: Path) -> None:
    """FERT-4: no counts, those of no text, of another text, and counts that nobody reads."""
    counts = stands_on("fertility_nat")
    supervised = (*ARCH, "--criterion", "token_length", *SHORT)
    complains(program("fairseq-train", data, *TASK, *supervised), "--word-counts", "nar align")
    missing = ("--word-counts", tmp_path)
    complains(program("fairseq-train", data, *TASK, *supervised, *missing), "No such file", "nar align")
    other = tmp_path / "other"
    other.mkdir()
    for split in ("train", "valid"):
        text = (counts[1] / split).read_text().replace('"text": "', '"text": "0')
        (other / split).write_text(text)
    complains(program("fairseq-train", data, *TASK, *supervised, "--word-counts", other), "another text")
    student = ("--arch", "mask_predict_tiny", "--criterion", "token_length", *LIMITS, *ADAM, *SHORT)
    outcome = program("fairseq-train", data, *TASK, *student, "--max-tokens", 500, *counts)
    complains(outcome, "--word-counts", "mask_predict_tiny", "leave it out")
    finetune = (*ARCH, "--criterion", "fertility_finetune", *counts, *SHORT)
    complains(program("fairseq-train", data, *TASK, *finetune), "--finetune-teacher")
    nobody = ("--finetune-teacher", tmp_path / "none.pt")
    complains(program("fairseq-train", data, *TASK, *finetune, *nobody), "--finetune-teacher", "none.pt")


def test_flags_without_an_effect_are_one_line(trained: Path, data: Path) -> None:
    """FERT-21: candidates of one vector, a length beside candidates, a refinement."""
    command = ("fairseq-generate", data, *TASK, "--path", trained)
    complains(program(*command, "--decode-samples", 5), "--decode-samples", "--fertility argmax")
    complains(program(*command, "--fertility", "search", "--gold-target-len"), "--gold-target-len")
    complains(program(*command, "--iter-decode-max-iter", 3), "--iter-decode-max-iter")
    complains(program(*command, "--word-counts", "counts"), "--word-counts", "leave it out of generate")
