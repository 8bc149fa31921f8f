"""A training that was killed goes on as if it never had been."""

import shutil
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import torch

from tests.conftest import ADAM, LIMITS, STUDENT
from tests.end_to_end.programs import TASK, logged, program, spy, succeed

KILLED_AFTER = 36
UPDATES = 50
DIES_ONCE = f"""
import os, signal
from pathlib import Path
from nar_plugin.tasks.translation_nar import TranslationNarTask
marker = Path(__file__).with_name("was_killed")
train_step = TranslationNarTask.train_step
def mortal(self, sample, model, criterion, optimizer, update_num, *args, **kwargs):
    if update_num == {KILLED_AFTER} and not marker.exists():
        marker.touch()
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return train_step(self, sample, model, criterion, optimizer, update_num, *args, **kwargs)
TranslationNarTask.train_step = mortal
"""
# dropout, and more than two epochs of 23 updates: the random state, the order of the batches, the place in the
# epoch and the epoch that the noise is drawn for must all come back
OPTIONS = (*LIMITS, *ADAM, "--dropout", 0.1, "--label-smoothing", 0.1, "--max-tokens", 500)
FROZEN = ("--arch", "latent_transformer_tiny", "--criterion", "elbo_length", "--post-norm", "--freeze", "encoder")
STARTS: Dict[str, Tuple[Tuple[Any, ...], bool]] = {"cold": (STUDENT, False), "warm": (STUDENT, True)}
STARTS["frozen"] = FROZEN, True
"""Which model, and whether it starts from the teacher."""
OFTEN = ("--save-interval-updates", 10, "--log-format", "json", "--log-interval", 1, "--validate-interval-updates", 10)


def losses(logs: List[Dict[str, Any]]) -> Dict[int, Any]:
    keys = ("loss", "nll_loss", "length_loss", "accuracy", "gnorm", "lr", "wpb", "bsz")
    return {int(log["num_updates"]): [log[key] for key in keys] for log in logs}


def final(folder: Path) -> Dict[str, Any]:
    return torch.load(folder / "checkpoint_last.pt", weights_only=True)


@pytest.mark.parametrize("start", STARTS)
def test_a_killed_training_resumed_by_the_same_command_is_the_unbroken_one(
    start: str, data: Path, teacher: Path, tmp_path: Path
) -> None:
    """Also of a student that started from a teacher, which is gone when the training goes on."""
    student, is_warm = STARTS[start]
    copy = Path(shutil.copy(teacher, tmp_path / "teacher.pt"))
    warm = ("--warm-start", copy) if is_warm else ()
    command = ("fairseq-train", data, *TASK, *student, *OPTIONS, *warm, *OFTEN, "--max-update", UPDATES, "--save-dir")
    unbroken = losses(logged(succeed(*command, tmp_path / "unbroken")))
    assert sorted(unbroken) == list(range(1, UPDATES + 1))

    mortal = (*command, tmp_path / "killed", *spy(tmp_path, DIES_ONCE))
    killed = program(*mortal)
    assert killed.code == -9
    copy.unlink()
    before = losses(logged(killed))
    assert KILLED_AFTER - 1 <= max(before) <= KILLED_AFTER
    after = losses(logged(succeed(*mortal)))
    assert sorted(after) == list(range(31, UPDATES + 1)), "it did not go on from the last checkpoint, update 30"

    assert before == {update: unbroken[update] for update in before}
    assert after == {update: unbroken[update] for update in after}
    ours, theirs = final(tmp_path / "killed"), final(tmp_path / "unbroken")
    assert ours["optimizer_history"][-1]["num_updates"] == theirs["optimizer_history"][-1]["num_updates"] == UPDATES
    for name, value in theirs["model"].items():
        assert torch.equal(ours["model"][name], value), name


def test_the_noise_of_training_is_drawn_anew_in_every_epoch(data: Path, tmp_path: Path) -> None:
    """At learning rate 0 nothing but the masks can change the loss."""
    still = ("--optimizer", "sgd", "--lr", 0.0, "--max-epoch", 3, "--batch-size", 2000, "--no-save", "--log-format")
    outcome = succeed("fairseq-train", data, *TASK, *STUDENT, *LIMITS, *still, "json")
    trained, validated = logged(outcome, "train"), logged(outcome, "valid")
    assert len({log["train_accuracy"] for log in trained}) == 3
    assert len(validated) == 3
    for key in ("valid_loss", "valid_nll_loss", "valid_length_loss", "valid_accuracy"):
        assert len({log[key] for log in validated}) == 1, "validation noise is not the same every time"
