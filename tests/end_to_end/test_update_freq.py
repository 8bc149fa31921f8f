"""A batch cut in two by ``--update-freq`` is the same update."""

from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import torch

from nar_plugin import compat
from tests.conftest import LIMITS, QUIET, STUDENT, training_set
from tests.end_to_end.programs import TASK, logged, succeed

SGD = ("--optimizer", "sgd", "--momentum", 0.9, "--lr", 0.05, "--lr-scheduler", "fixed")


@pytest.fixture(scope="module")
def sixteen(data: Path, once: Any) -> Path:
    """A training set of 16 sentences of very different lengths."""
    return once("sixteen", lambda folder: training_set(data, folder, 16, 3))


LATENT = ("--arch", "latent_transformer_tiny", "--criterion", "elbo_length", "--budget", 0.5, "--lr", 1e-3)


def train(data: Path, folder: Path, *options: Any) -> Tuple[List[Dict[str, Any]], Dict[str, torch.Tensor]]:
    log = ("--log-format", "json", "--log-interval", 1, "--save-dir", folder, "--max-update", 6)
    outcome = succeed("fairseq-train", data, *TASK, *LIMITS, *SGD, *QUIET, *log, *options)
    weights = compat.load_checkpoint(str(folder / "checkpoint_last.pt"))["model"]
    return logged(outcome), weights


@pytest.mark.parametrize(
    ("arch", "normalize"), [(STUDENT, "token"), (STUDENT, "sentence"), (LATENT, "token"), (LATENT, "sentence")]
)
def test_two_half_batches_are_one_batch(arch: Any, normalize: str, sixteen: Path, tmp_path: Path) -> None:
    """LANMT-5, and of every criterion."""
    options = (*arch, "--label-smoothing", 0.1, "--normalize", normalize)
    whole, whole_weights = train(sixteen, tmp_path / "whole", *options, "--batch-size", 16)
    halves, half_weights = train(sixteen, tmp_path / "halves", *options, "--batch-size", 8, "--update-freq", 2)
    assert len(whole) == len(halves) == 6
    for one, other in zip(whole, halves, strict=True):
        for key in ("loss", "nll_loss", "length_loss", "accuracy", "gnorm"):
            assert float(one[key]) == pytest.approx(float(other[key]), abs=2e-3), key
        assert one["wpb"] == other["wpb"] and one["bsz"] == other["bsz"] == "16"
    assert float(whole[-1]["loss"]) < float(whole[0]["loss"])
    for name, value in whole_weights.items():
        torch.testing.assert_close(half_weights[name], value, rtol=1e-4, atol=1e-6)
