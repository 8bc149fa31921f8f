"""A checkpoint and data that do not belong together are told apart before anything is decoded or trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from nar_plugin.compat import load_checkpoint, text_of
from tests.conftest import ADAM, LIMITS, QUIET, STUDENT
from tests.end_to_end.programs import PLUGIN, TASK, complains, program, succeed
from tests.tools.conftest import nar

__all__ = ["nar"]
ALLOWED = "--allow-other-dictionary"
UPDATE = (*LIMITS, *ADAM, *QUIET, "--max-tokens", 500, "--max-update", 1)


@pytest.fixture(scope="module")
def joint_student(joint_data: Path, once: Any) -> Path:
    """An untrained model of one dictionary for both sides."""
    words = (joint_data, *TASK, *STUDENT, *UPDATE)
    folder = once("joint_student", lambda folder: succeed("fairseq-train", *words, "--save-dir", folder))
    return folder / "checkpoint_last.pt"


def test_another_order_of_the_words_is_one_line(data: Path, reordered: Path, student: Path) -> None:
    words = (*TASK, "--path", student)
    complains(program("fairseq-generate", reordered, *words), f"{student} was trained", "target dictionary", ALLOWED)
    complains(program("fairseq-interactive", reordered, *words, stdin=b"bana\n"), "target dictionary", ALLOWED)
    complains(program("fairseq-validate", reordered, *words, "--max-tokens", 500), "target dictionary", ALLOWED)
    outcome = succeed("fairseq-generate", reordered, *words, ALLOWED, "--gen-subset", "test1")
    assert "was trained with another target dictionary" in outcome.stderr


def test_training_does_not_go_on_from_another_text(reordered: Path, student: Path, tmp_path: Path) -> None:
    words = (reordered, *TASK, *STUDENT, *UPDATE, "--no-save", "--save-dir", tmp_path)
    for flag in ("--finetune-from-model", "--restore-file"):
        complains(program("fairseq-train", *words, flag, student), "target dictionary", ALLOWED)
    succeed("fairseq-train", *words, "--finetune-from-model", student, ALLOWED)


def test_the_other_direction_with_one_dictionary_is_one_line(joint_data: Path, joint_student: Path) -> None:
    words = ("fairseq-generate", joint_data, *TASK, "--path", joint_student, "--gen-subset", "test1")
    complains(program(*words, "--source-lang", "tgt", "--target-lang", "src"), "src-tgt", "tgt-src", ALLOWED)
    succeed(*words, "--source-lang", "src", "--target-lang", "tgt")


def test_a_teacher_or_a_base_of_another_text_is_one_line(
    data: Path, reordered: Path, student: Path, stands_on: Any, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher.pt"
    state = dict(torch.load(student, weights_only=False))
    flags = ("--arch", "transformer", "--criterion", "cross_entropy", "--encoder-layers", 1, "--decoder-layers", 1)
    small = ("--encoder-embed-dim", 16, "--decoder-embed-dim", 16, "--save-dir", tmp_path)
    succeed("fairseq-train", reordered, *TASK, *flags, *small, *UPDATE)
    (tmp_path / "checkpoint_last.pt").rename(teacher)
    words = (data, *TASK, "--path", f"{student}:{teacher}", "--iter-decode-with-external-reranker")
    complains(program("fairseq-generate", *words, "--iter-decode-with-beam", 2), f"{teacher} was", ALLOWED)
    refiner = ("--arch", "lanmt_refiner_tiny", "--criterion", "score_matching", *stands_on("lanmt_refiner"))
    complains(program("fairseq-train", reordered, *TASK, *refiner, *UPDATE, "--no-save"), "target dictionary", ALLOWED)
    assert text_of(state)["direction"] == "src-tgt"


def test_a_checkpoint_that_says_nothing_is_a_warning(data: Path, teacher: Path) -> None:
    outcome = succeed("fairseq-generate", data, *TASK, "--path", teacher, "--gen-subset", "test1")
    assert "nothing is compared" in outcome.stderr
    outcome = succeed("fairseq-generate", data, "--user-dir", PLUGIN, "--path", teacher, "--gen-subset", "test1")
    assert "nothing is compared" not in outcome.stderr  # the host's task knows of no such thing


def test_the_manifest_beside_a_released_file_speaks_for_it(
    joint_data: Path, joint_student: Path, tmp_path: Path, nar: Any
) -> None:
    state = torch.load(joint_student, weights_only=False)
    told = state["task_state"].pop("text")
    torch.save(state, tmp_path / "teacher.pt")
    shutil.copy(joint_data / "dict.src.txt", tmp_path / "dict.txt")
    assert text_of(load_checkpoint(str(tmp_path / "teacher.pt"))) is None
    about = {"files": {"teacher.pt": "…"}, "made_from": {"train.src": "…", "train.tgt": "…"}}
    (tmp_path / "manifest.json").write_text(json.dumps(about))
    assert text_of(load_checkpoint(str(tmp_path / "teacher.pt"))) == told
    shutil.copy(tmp_path / "teacher.pt", tmp_path / "unlisted.pt")
    assert text_of(load_checkpoint(str(tmp_path / "unlisted.pt"))) is None
    swapped = ("--source-lang", "tgt", "--target-lang", "src")
    complains(program("fairseq-generate", joint_data, *TASK, "--path", tmp_path / "teacher.pt", *swapped), "src-tgt")
    average = tmp_path / "away" / "average.pt"
    average.parent.mkdir()
    assert nar("average", "--inputs", tmp_path / "teacher.pt", joint_student, "--output", average).code == 0
    assert text_of(load_checkpoint(str(average))) == told


def test_models_of_two_texts_have_no_average(student: Path, tmp_path: Path, nar: Any) -> None:
    state = torch.load(student, weights_only=False)
    state["task_state"]["text"] = {**state["task_state"]["text"], "direction": "tgt-src"}
    torch.save(state, tmp_path / "other.pt")
    done = nar("average", "--inputs", student, tmp_path / "other.pt", "--output", tmp_path / "average.pt")
    assert done.code == 2 and "other.pt cannot be averaged" in done.stderr and "direction" in done.stderr
    assert not (tmp_path / "average.pt").exists()
