"""Every architecture through fairseq's programs by ``--user-dir`` alone: trained, resumed, decoded, typed to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.models import MODEL_REGISTRY

from nar_plugin.architectures.base import DecodingModel
from tests.conftest import ADAM, CRITERIONS, LIMITS, QUIET
from tests.end_to_end.programs import TASK, complains, hypotheses, program, succeed, texts

UPDATES = {
    "blockwise_transformer": 60,
    "ctc": 400,
    "fertility_nat": 100,
    "iterative_refinement": 60,
    "lanmt_continuous": 150,
    "lanmt_refiner": 40,
    "latent_transformer": 150,
    "mask_predict": 300,
}
"""Few, but enough that different sources get different words (by alignments, nothing but blanks is said at first)."""
DECODES = {
    "blockwise_transformer": [
        ("--block-size", 2),
        ("--accept", "top-k", "--accept-top-k", 2),
        ("--accept", "distance", "--accept-distance", 1, "--min-block", 2),
        ("--max-len-b", 5, "--min-len", 2),
    ],
    "ctc": [
        ("--iter-decode-with-beam", 4),
        ("--iter-decode-with-beam", 3, "--rescore-norm", "lenpen", "--lenpen", 0.5),
    ],
    "fertility_nat": [
        ("--fertility", "average"),
        ("--fertility", "sample", "--decode-samples", 4, "--fertility-temperature", 2.0),
        ("--fertility", "search", "--decode-samples", 4, "--collapse-repeats"),
    ],
    "iterative_refinement": [
        ("--stop-rule", "none"),
        ("--stop-rule", "jaccard", "--stop-window", 5),
        ("--stop-rule", "oracle", "--iter-decode-max-iter", 4),
        ("--decode-samples", 2, "--iter-decode-with-beam", 3, "--collapse-repeats"),
        ("--iter-decode-max-iter", 1, "--deduplicate"),
    ],
    "lanmt_continuous": [
        ("--latent-inference", "mean", "--deduplicate", "--duplicate-penalty", 0.5),
        ("--decode-samples", 2, "--iter-decode-with-beam", 2, "--iter-decode-max-iter", 1),
    ],
    "lanmt_refiner": [
        ("--iter-decode-max-iter", 2, "--latent-step-size", 0.5),
        ("--latent-inference", "delta", "--iter-decode-max-iter", 2),
        ("--decode-samples", 2, "--iter-decode-with-beam", 2, "--iter-decode-max-iter", 1),
    ],
    "latent_transformer": [
        ("--iter-decode-max-iter", 1),
        ("--iter-decode-max-iter", 1, "--decode-samples", 5, "--decode-sample-noise", 0.7),
    ],
    "mask_predict": [
        ("--collapse-repeats",),
        ("--iter-decode-max-iter", 0, "--deduplicate", "--iter-decode-with-beam", 2),
        ("--iter-decode-with-beam", 3),
        ("--unmask", "cosine", "--iter-decode-max-iter", 3),
        ("--unmask", "threshold", "--unmask-threshold", 0.6),
        ("--unmask", "entropy", "--unmask-threshold", 1.0, "--iter-decode-with-beam", 2),
        ("--unmask", "gap", "--unmask-threshold", 0.5),
    ],
}


KINDS = {
    **dict.fromkeys(("blockwise_transformer", "ctc", "iterative_refinement", "mask_predict"), "exact"),
    **dict.fromkeys(("lanmt_continuous", "lanmt_refiner", "latent_transformer"), "proxy"),
    "fertility_nat": "bound",
}
"""What the scores of references are; with discrete latents (another file) bounds."""


def test_every_architecture_is_here() -> None:
    ours = {name for name, model in MODEL_REGISTRY.items() if issubclass(model, DecodingModel)}
    assert ours == set(CRITERIONS) == set(UPDATES) == set(DECODES) == set(KINDS)


def trained(data: Path, folder: Path, name: str, updates: int, *more: Any) -> Any:
    flags = (*LIMITS, *ADAM, *QUIET, "--dropout", 0.1, "--max-tokens", 500, "--max-update", updates)
    arch = ("--arch", f"{name}_tiny", "--criterion", CRITERIONS[name])
    succeed("fairseq-train", data, *TASK, *arch, *flags, *more, "--save-dir", folder)
    return torch.load(folder / "checkpoint_last.pt", weights_only=True)["model"]


@pytest.fixture(params=sorted(CRITERIONS), scope="module")
def model(
    request: pytest.FixtureRequest, data: Path, stands_on: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    trained(data, folder, request.param, UPDATES[request.param], *stands_on(request.param))
    return request.param, folder / "checkpoint_last.pt"


def test_a_resumed_training_is_the_unbroken_one(
    model: tuple[str, Path], data: Path, stands_on: Any, tmp_path: Path
) -> None:
    """LEE-8: weights, optimizer and noise come back."""
    name, whole = model
    trained(data, tmp_path, name, UPDATES[name] // 2, *stands_on(name))
    weights = trained(data, tmp_path, name, UPDATES[name], *stands_on(name))
    for key, value in torch.load(whole, weights_only=True)["model"].items():
        assert torch.equal(value, weights[key]), key


def assert_the_same_everywhere(
    path: Path, flags: tuple[Any, ...], sizes: tuple[int, ...], corpus: Path, data: Path
) -> None:
    """fairseq-generate at these batch sizes, and fairseq-interactive."""
    command = ("fairseq-generate", data, *TASK, "--path", path, *flags)
    together = texts(succeed(*command, "--batch-size", 64))
    assert len(together) == 60 and len(set(together)) > 5
    for size in sizes:
        assert texts(succeed(*command, "--batch-size", size)) == together
    if "oracle" in flags:
        return  # there are no references to typed sentences
    typed = succeed(
        *("fairseq-interactive", data, *TASK, "--path", path, *flags, "--buffer-size", 9, "--batch-size", 9),
        stdin=(corpus / "test.src").read_bytes(),
    )
    assert texts(typed) == together


def test_what_a_checkpoint_says_does_not_depend_on_program_or_batch(
    model: tuple[str, Path], corpus: Path, data: Path
) -> None:
    """LEE-8: generate and interactive, at any batch size: the same line for every source; one candidate or several."""
    name, path = model
    assert_the_same_everywhere(path, (), (1, 7), corpus, data)
    for flags in DECODES[name]:
        assert_the_same_everywhere(path, flags, (7,), corpus, data)


def test_references_are_scored_and_it_is_said_by_what(model: tuple[str, Path], corpus: Path, data: Path) -> None:
    """EM-1: in the order of the texts, the same in any batch."""
    name, path = model
    command = ("fairseq-generate", data, *TASK, "--path", path, "--score-reference", "--rescore-norm", "sum")
    runs = [succeed(*command, "--batch-size", size) for size in (7, 64)]
    for run in runs:
        assert texts(run) == (corpus / "test.tgt").read_text(encoding="utf-8").split("\n")[:-1]
        assert (run.stdout + run.stderr).count(f"--score-reference: {KINDS[name]}") == 1
    scores = [[found.score for found in sorted(hypotheses(run))] for run in runs]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3) and max(scores[0]) < 0


def test_an_oracle_without_references_is_refused_in_one_line(model: tuple[str, Path], data: Path) -> None:
    flags = ("--path", model[1], "--stop-rule", "oracle")
    complains(program("fairseq-interactive", data, *TASK, *flags, stdin=b"bana deret\n"), "--stop-rule")
