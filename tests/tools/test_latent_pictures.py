"""Pictures of latents: the plane, the bounds by step, and what cannot be drawn."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nar_tools.measure import latents
from tests.conftest import ADAM, LIMITS, QUIET
from tests.end_to_end.programs import TASK, Outcome, complains, console, succeed

VERB = (sys.executable, "-m", "nar_tools", "latents")
BOTH = ("--source-lang", "src", "--target-lang", "tgt")


@pytest.fixture(scope="module")
def refiner(data: Path, stands_on: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refiner")
    arch = ("--arch", "lanmt_refiner_tiny", "--criterion", "score_matching", *stands_on("lanmt_refiner"))
    flags = (*arch, *LIMITS, *ADAM, *QUIET, "--max-tokens", 500, "--max-update", 30, "--save-dir", folder)
    succeed("fairseq-train", data, *TASK, *flags)
    return folder / "checkpoint_last.pt"


def drawn(*words: Any) -> Outcome:
    outcome = console([*VERB, *words])
    assert outcome.code == 0, outcome.stderr
    return outcome


def test_the_plane_holds_the_points_that_it_was_laid_through() -> None:
    """Three points are in their plane, at their distances; lifting is the inverse."""
    generator = torch.Generator().manual_seed(1)
    points = [torch.randn(4, 8, generator=generator) for _ in range(3)]
    plane = latents.Plane(points)
    flat = torch.tensor([plane.flat(point) for point in points])
    assert flat[0].tolist() == [0.0, 0.0]
    for i in range(3):
        for j in range(3):
            assert float((flat[i] - flat[j]).norm()) == pytest.approx(float((points[i] - points[j]).norm()), abs=1e-4)
    torch.testing.assert_close(plane.lifted(flat), torch.stack(points).flatten(1))


def test_pictures_and_figures_are_made(refiner: Path, corpus: Path, data: Path, tmp_path: Path) -> None:
    """Both kinds begin at the same place, and delta steps change what is said: BLEU is that of fairseq-generate."""
    flags = ("--path", refiner, "--gen-subset", "test", *BOTH)
    ours = ("--output", tmp_path / "fig" / "x", "--reference", corpus / "test.tgt", "--steps", 2, "--sentence", 3)
    told = drawn(data, *TASK, *flags, *ours)
    rows = [line.split() for line in told.lines if line.split()[:1] in (["score"], ["delta"])]
    assert [row[:2] for row in rows] == [[kind, str(step)] for kind in ("score", "delta") for step in range(3)]
    assert rows[0][2:] == rows[3][2:] and rows[3][2:] != rows[4][2:]
    decode = (*flags, "--iter-decode-max-iter", 2, "--latent-inference", "delta", "--scoring", "sacrebleu")
    said = succeed("fairseq-generate", data, *TASK, *decode)
    assert f"BLEU = {rows[-1][-1]} " in "\n".join(said.lines)
    for name in ("plane", "bound", "bleu"):
        for kind in ("png", "svg"):
            assert (tmp_path / "fig" / f"x.{name}.{kind}").stat().st_size > 1000
    assert "Arrows" in (tmp_path / "fig" / "x.plane.svg").read_text()


def test_delta_steps_are_drawn_without_a_refiner(
    stands_on: Any, corpus: Path, data: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of either model with Gaussian latents; the network's field is what is missing then."""
    folder = tmp_path_factory.mktemp("lanmt")
    arch = ("--arch", "latent_transformer_tiny", "--criterion", "elbo_length")
    flags = (*arch, *LIMITS, *ADAM, *QUIET, "--max-tokens", 500, "--max-update", 20, "--save-dir", folder)
    succeed("fairseq-train", data, *TASK, *flags)
    for path in (folder / "checkpoint_last.pt", stands_on("lanmt_refiner")[-1]):
        ours = ("--output", tmp_path / "x", "--reference", corpus / "test.tgt", "--steps", 1)
        told = drawn(data, *TASK, "--path", path, *BOTH, *ours)
        rows = [line.split()[:2] for line in told.lines if line.startswith("delta")]
        assert rows == [["delta", "0"], ["delta", "1"]]
        assert "Arrows" not in (tmp_path / "x.plane.svg").read_text()


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--sentence", 600), "--sentence 600"),
        (("--reference", "gone"), "gone"),
        (("--iter-decode-max-iter", 3), "--iter-decode-max-iter"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(flags: Any, word: str, refiner: Path, data: Path, tmp_path: Path) -> None:
    ours = ("--path", refiner, *BOTH, "--output", tmp_path / "x", *flags)
    complains(console([*VERB, data, *TASK, *ours]), word)


def test_only_latents_are_drawn(student: Path, data: Path, tmp_path: Path) -> None:
    flags = ("--path", student, *BOTH, "--output", tmp_path / "x")
    complains(console([*VERB, data, *TASK, *flags]), "no latents")
