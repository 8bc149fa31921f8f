"""Trainings that start from a teacher, by fairseq's programs: what they refuse, and that they need it no more."""

import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import pytest
import torch

from nar_plugin import compat
from nar_plugin.tasks.translation_nar import TranslationNarConfig, TranslationNarTask
from tests.conftest import ADAM, CRITERIONS, LIMITS, QUIET, STUDENT, TINY_TRANSFORMER
from tests.end_to_end.programs import TASK, Outcome, complains, program, succeed, texts

ONE_UPDATE = (*LIMITS, *ADAM, *QUIET, "--max-tokens", 500, "--max-update", 1)
LATENT = ("--arch", "latent_transformer_tiny", "--criterion", "elbo_length")
FROZEN = (*LATENT, "--post-norm", "--freeze", "encoder")
"""As the teacher, which norms after each block."""


def begun(data: Path, folder: Path, *options: Any) -> Outcome:
    return program("fairseq-train", data, *TASK, *ONE_UPDATE, "--save-dir", folder, *options)


def test_the_log_says_once_what_came_from_the_teacher(data: Path, teacher: Path, tmp_path: Path) -> None:
    outcome = begun(data, tmp_path, *STUDENT, "--activation-fn", "relu", "--warm-start", teacher)
    (line,) = [line for line in outcome.lines if "--warm-start" in line and "| INFO |" in line]
    assert line.split(" | ")[-1].startswith(f"--warm-start {teacher}: ") and "tensors" in line and "% of" in line


def task_of(data: Path) -> TranslationNarTask:
    return TranslationNarTask.setup_task(TranslationNarConfig(data=str(data), seed=1))


def test_a_checkpoint_stands_alone_once_the_teacher_is_gone(data: Path, teacher: Path, tmp_path: Path) -> None:
    """The same command goes on, and it decodes; its frozen encoder has the teacher's states on 100 sources still."""
    copy, kept = Path(shutil.copy(teacher, tmp_path / "teacher.pt")), tmp_path / "student"
    options = (*FROZEN, "--warm-start", copy)
    assert begun(data, kept, *options).code == 0
    copy.unlink()
    outcome = succeed("fairseq-train", data, *TASK, *ONE_UPDATE, "--save-dir", kept, *options, "--max-update", 20)
    assert "tensors" not in outcome.stdout, "the warm start was made again"
    path = kept / "checkpoint_last.pt"
    assert len(texts(succeed("fairseq-generate", data, *TASK, "--path", path))) == 60

    task = task_of(data)
    ours, theirs = (compat.load_model(str(file), task) for file in (path, teacher))
    generator = torch.Generator().manual_seed(1)
    sources = torch.randint(4, len(task.source_dictionary), (100, 12), generator=generator)
    with torch.no_grad():
        states = ours.encode({"src_tokens": sources}).states
        expected = theirs.encoder(sources, torch.full((100,), 12))["encoder_out"][0].transpose(0, 1)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)


def cut_short(good: Path, path: Path) -> None:
    path.write_bytes(good.read_bytes()[:2000])


FILES: Dict[str, Tuple[Callable[[Path, Path], Any], str]] = {
    "missing": (lambda good, path: None, "file not found"),
    "cut": (cut_short, "cannot be read as a checkpoint"),
    "text": (lambda good, path: path.write_text("no checkpoint\n"), "checkpoint"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_checkpoint_is_named(kind: str, data: Path, teacher: Path, tmp_path: Path) -> None:
    make, words = FILES[kind]
    make(teacher, tmp_path / "given.pt")
    outcome = begun(data, tmp_path / "out", *STUDENT, "--warm-start", tmp_path / "given.pt")
    complains(outcome, "--warm-start: ", str(tmp_path / "given.pt"), words)


def test_a_model_that_is_no_transformer_is_no_teacher(data: Path, student: Path, tmp_path: Path) -> None:
    outcome = begun(data, tmp_path, *STUDENT, "--warm-start", student)
    complains(outcome, str(student), "no transformer of fairseq's", "MaskPredictModel")


def test_a_teacher_of_other_words_is_refused(data: Path, joint_data: Path, teacher: Path, tmp_path: Path) -> None:
    """One of another size, and one of as many other words, which the teacher's checkpoint says."""
    complains(begun(joint_data, tmp_path / "a", *STUDENT, "--warm-start", teacher), str(teacher), "dictionary")
    objective = ("--criterion", "label_smoothed_cross_entropy", "--task", "translation_nar")
    ours = tmp_path / "ours"
    succeed("fairseq-train", data, *TASK, *TINY_TRANSFORMER, *objective, *ONE_UPDATE, "--save-dir", ours)
    other = shutil.copytree(data, tmp_path / "other")
    words = (other / "dict.src.txt").read_text().splitlines(keepends=True)
    (other / "dict.src.txt").write_text("".join(words[::-1]))
    path = ours / "checkpoint_last.pt"
    complains(begun(other, tmp_path / "b", *STUDENT, "--warm-start", path), str(path), "another source dictionary")


def test_a_teacher_of_another_width_is_refused(data: Path, teacher: Path, tmp_path: Path) -> None:
    outcome = begun(data, tmp_path, *STUDENT, "--encoder-embed-dim", 64, "--warm-start", teacher)
    complains(outcome, "--warm-start", "nothing of the teacher fits", "width 64, the teacher's 32")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((*STUDENT, "--warm-start-parts", "encoder,head"), ("--warm-start-parts head",)),
        ((*STUDENT, "--finetune-from-model", "any.pt"), ("--warm-start and --finetune-from-model",)),
        ((*STUDENT, "--freeze", "encoder"), ("--freeze encoder", "mask_predict_tiny")),
        ((*LATENT, "--freeze", "encoder"), ("--freeze encoder", "norm before each block, the teacher's after")),
        ((*TINY_TRANSFORMER, "--criterion", "cross_entropy"), ("--warm-start", "--arch transformer")),
    ],
)
def test_what_cannot_be_started_so_says_why(
    options: Tuple[Any, ...], words: Tuple[str, ...], data: Path, teacher: Path, tmp_path: Path
) -> None:
    complains(begun(data, tmp_path, "--warm-start", teacher, *options), *words)


def test_a_refiner_takes_nothing_from_a_teacher(data: Path, teacher: Path, stands_on: Any, tmp_path: Path) -> None:
    arch = ("--arch", "lanmt_refiner_tiny", "--criterion", CRITERIONS["lanmt_refiner"], *stands_on("lanmt_refiner"))
    complains(begun(data, tmp_path, *arch, "--warm-start", teacher), "--warm-start", "--latent-model")


@pytest.mark.parametrize("flag", [("--freeze", "encoder"), ("--warm-start-parts", "encoder")])
def test_flags_of_a_warm_start_need_the_teacher(flag: Tuple[str, str], data: Path, tmp_path: Path) -> None:
    complains(begun(data, tmp_path, *LATENT, *flag), f"{flag[0]}", "needs --warm-start")


@pytest.mark.parametrize("name", ["fairseq-generate", "fairseq-interactive", "fairseq-validate"])
def test_a_program_that_does_not_train_has_no_use_for_a_teacher(
    name: str, data: Path, student: Path, teacher: Path
) -> None:
    outcome = program(name, data, *TASK, "--path", student, "--batch-size", 8, "--warm-start", teacher)
    complains(outcome, "--warm-start", "how a training begins", name.removeprefix("fairseq-"))
