"""BLEU in validation."""

from pathlib import Path
from typing import Any, Tuple

import pytest
import torch

from nar_plugin import compat
from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.tasks.translation_nar import TranslationNarConfig, TranslationNarTask
from tests.conftest import ADAM, LIMITS, STUDENT, TINY_TRANSFORMER
from tests.end_to_end.programs import TASK, logged, spy, succeed

BEST = ("--eval-bleu", "--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric", "--log-format", "json")
TRANSFORMER = (*TINY_TRANSFORMER, "--criterion", "label_smoothed_cross_entropy")
SHOW_PASSES = """
from nar_plugin.tasks.translation_nar import TranslationNarTask
def post_validate(self, model, stats, agg):
    print("PASSES", self.sequence_generator.counters.passes("decoder"))
TranslationNarTask.post_validate = post_validate
"""
SAY_NOTHING = """
from nar_plugin.generators.loop import RefinementGenerator
real = RefinementGenerator.hypotheses
def hypotheses(self, decoded, score, chosen, is_empty):
    return real(self, decoded, score, chosen, [True] * len(is_empty))
RefinementGenerator.hypotheses = hypotheses
"""


@pytest.mark.parametrize(("arch", "arguments"), [(STUDENT, "{}"), (TRANSFORMER, '{"beam": 1, "max_len_b": 20}')])
def test_the_best_checkpoint_is_the_one_of_the_best_bleu(
    arch: Tuple[Any, ...], arguments: str, data: Path, tmp_path: Path
) -> None:
    """CMLM-21: --eval-bleu logs a BLEU key in every validation, and best-checkpoint by BLEU works."""
    often = ("--max-tokens", 1000, "--max-update", 60, "--validate-interval-updates", 15, "--save-interval-updates", 15)
    options = (*arch, *LIMITS, *ADAM, *BEST, *often, "--eval-bleu-args", arguments, "--save-dir", tmp_path)
    validated = logged(succeed("fairseq-train", data, *TASK, *options), "valid")
    scores = {int(log["valid_num_updates"]): float(log["valid_bleu"]) for log in validated}
    assert {15, 30, 45, 60} <= set(scores) and max(scores.values()) > 0
    assert float(validated[-1]["valid_best_bleu"]) == max(scores.values())
    best = compat.load_checkpoint(str(tmp_path / "checkpoint_best.pt"))
    assert best["extra_state"]["best"] == max(scores.values())
    update = best["optimizer_history"][-1]["num_updates"]
    assert scores[update] == max(scores.values())


@pytest.mark.parametrize(
    ("arguments", "passes"),
    [
        ("{}", 10),
        ('{"iter_decode_max_iter": 0}', 1),
        ('{"iter_decode_max_iter": 3}', 4),
        ('{"iter_decode_max_iter": 1, "iter_decode_with_beam": 3}', 6),
    ],
)
def test_validation_heeds_the_decode_flags(arguments: str, passes: float, data: Path, tmp_path: Path) -> None:
    options = (*STUDENT, *LIMITS, *ADAM, *BEST, "--max-tokens", 500, "--max-update", 1, "--no-save")
    counting = (*spy(tmp_path, SHOW_PASSES), "--eval-bleu-args", arguments)
    outcome = succeed("fairseq-train", data, *TASK, *options, *counting)
    assert [float(line.split()[1]) for line in outcome.lines if line.startswith("PASSES")] == [passes]


def test_validation_heeds_the_task_s_decode_flags(data: Path, student: Path) -> None:
    options = (*STUDENT, *LIMITS, *ADAM, *BEST, "--max-tokens", 1000, "--max-update", 1, "--no-save")
    options += ("--finetune-from-model", student)
    scores = [
        float(logged(succeed("fairseq-train", data, *TASK, *options, *flags), "valid")[-1]["valid_bleu"])
        for flags in ((), ("--gold-target-len",))
    ]
    assert scores[0] != scores[1]


def test_a_bleu_of_nothing_is_zero_and_training_goes_on(data: Path, tmp_path: Path) -> None:
    options = (*STUDENT, *LIMITS, *ADAM, *BEST, "--max-tokens", 1000, "--max-update", 2, "--save-dir", tmp_path)
    outcome = succeed("fairseq-train", data, *TASK, *options, *spy(tmp_path, SAY_NOTHING))
    assert [float(log["valid_bleu"]) for log in logged(outcome, "valid")] == [0.0]
    assert (tmp_path / "checkpoint_best.pt").exists()


def test_validating_a_checkpoint_gives_the_bleu_of_its_training(data: Path, student: Path, tmp_path: Path) -> None:
    options = (*STUDENT, *LIMITS, *ADAM, *BEST, "--max-tokens", 1000, "--max-update", 2, "--save-dir", tmp_path)
    start = ("--finetune-from-model", student)
    trained = logged(succeed("fairseq-train", data, *TASK, *options, *start), "valid")[-1]
    path = ("--path", tmp_path / "checkpoint_last.pt", "--log-format", "json", "--batch-size", 3)
    (validated,) = logged(succeed("fairseq-validate", data, *TASK, *path), "valid")
    assert float(trained["valid_bleu"]) > 0
    assert float(validated["valid_bleu"]) == float(trained["valid_bleu"])


def test_saved_meters_of_bleu_do_not_stop_a_resume(data: Path, tmp_path: Path) -> None:
    command = ("fairseq-train", data, *TASK, *STUDENT, *LIMITS, *ADAM, *BEST, "--max-tokens", 1000)
    succeed(*command, "--max-update", 2, "--save-dir", tmp_path)
    resumed = succeed(*command, "--max-update", 4, "--save-dir", tmp_path)
    assert [log["valid_num_updates"] for log in logged(resumed, "valid")] == ["4"]
    state = compat.load_checkpoint(str(tmp_path / "checkpoint_last.pt"))
    assert state["optimizer_history"][-1]["num_updates"] == 4
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_a_second_model_does_not_take_over_the_validation(data: Path, student: Path, teacher: Path) -> None:
    """A task that loads a teacher while it trains a student still validates the student."""
    task = TranslationNarTask.setup_task(TranslationNarConfig(data=str(data), eval_bleu=True, seed=1))
    model = compat.load_model(str(student), task)
    compat.load_model(str(teacher), task)
    assert isinstance(task.sequence_generator, RefinementGenerator) and task.sequence_generator.model is model
