"""What fairseq tells models and criterions reaches them under this task."""

from pathlib import Path

import pytest

from tests.conftest import ADAM, LIMITS, QUIET, STUDENT
from tests.end_to_end.programs import TASK, logged, spy, succeed

SHOW_UPDATES = """
from nar_plugin.architectures.mask_predict import MaskPredictModel
from nar_plugin.criterions.token_length import TokenLengthCriterion
MaskPredictModel.set_num_updates = lambda self, number: print("MODEL", number)
TokenLengthCriterion.set_num_updates = lambda self, number: print("CRITERION", number)
"""


@pytest.mark.parametrize("who", ["MODEL", "CRITERION"])
def test_the_number_of_updates_reaches(who: str, data: Path, tmp_path: Path) -> None:
    options = (*STUDENT, *LIMITS, *ADAM, *QUIET, "--max-tokens", 500, "--max-update", 4, "--no-save")
    outcome = succeed("fairseq-train", data, *TASK, *options, *spy(tmp_path, SHOW_UPDATES))
    told = [int(line.split()[1]) for line in outcome.lines if line.startswith(who)]
    assert told == sorted(told) and {0, 1, 2, 3} <= set(told)


def test_the_validation_loss_does_not_depend_on_the_batches(data: Path, student: Path) -> None:
    logs = [
        logged(succeed("fairseq-validate", data, *TASK, "--path", student, "--log-format", "json", *batching), "valid")
        for batching in (("--batch-size", 1), ("--batch-size", 7), ("--max-tokens", 2000), ("--batch-size", 1))
    ]
    for key in ("valid_loss", "valid_nll_loss", "valid_length_loss", "valid_accuracy", "valid_length_accuracy"):
        values = [float(log[key]) for (log,) in logs]
        assert values == pytest.approx([values[0]] * 4, abs=1.1e-3), key


def test_the_seed_changes_the_validation_noise(data: Path, student: Path) -> None:
    """Or the loss above would be the same for want of any noise."""
    values = []
    for seed in (1, 2):
        options = (*STUDENT, *LIMITS, "--optimizer", "sgd", "--lr", 0.0, "--batch-size", 2000, "--max-update", 1)
        start = ("--finetune-from-model", student, "--no-save", "--log-format", "json", "--seed", seed)
        outcome = succeed("fairseq-train", data, *TASK, *options, *start)
        values.append(logged(outcome, "valid")[0]["valid_nll_loss"])
    assert values[0] != values[1]
