"""Discrete latents through fairseq's programs: trained, resumed, in two processes, decoded, measured."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from nar_tools.errors import ToolError
from nar_tools.measure import codes
from tests.conftest import ADAM, LIMITS, QUIET, training_set
from tests.end_to_end.programs import TASK, complains, console, program, script, succeed, texts
from tests.end_to_end.test_two_processes import Ranks, options, weights

KINDS: dict[str, tuple[Any, ...]] = {
    "semhash": ("--latent", "semhash"),
    "gumbel": ("--latent", "gumbel"),
    "vq": ("--latent", "vq"),
    "vq-em": ("--latent", "vq", "--vq-em", "soft"),
    "dvq": ("--latent", "dvq"),
    "projected": ("--latent", "dvq", "--dvq", "projected"),
    "fsq": ("--latent", "fsq", "--latent-length", "predicted"),
}
SMALL = ("--compression", 4, "--codebook-size", 256, "--target-feeding", 10)
ARCH = ("--arch", "latent_transformer_tiny", "--criterion", "elbo_length")


def trained(data: Path, folder: Path, updates: int, *more: Any) -> tuple[Any, str]:
    flags = (
        *LIMITS,
        *ADAM,
        *QUIET,
        "--dropout",
        0.1,
        "--max-tokens",
        500,
        "--max-update",
        updates,
        "--schedules",
        "papers",
    )
    done = succeed("fairseq-train", data, *TASK, *ARCH, *SMALL, *flags, *more, "--save-dir", folder)
    return torch.load(folder / "checkpoint_last.pt", weights_only=True)["model"], done.stdout + done.stderr


OFTEN = ("semhash", "vq-em", "fsq")
"""The others take as long, and differ in what tests of quantisers show."""
ALL = [pytest.param(kind, marks=() if kind in OFTEN else pytest.mark.slow) for kind in KINDS]


@pytest.fixture(params=ALL, scope="module")
def model(
    request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, str]:
    folder = tmp_path_factory.mktemp(request.param)
    _, log = trained(data, folder, 120, *KINDS[request.param])
    return request.param, folder / "checkpoint_last.pt", log


def test_a_resumed_training_is_the_unbroken_one(model: tuple[str, Path, str], data: Path, tmp_path: Path) -> None:
    """LT-10, LT-16: weights, codebooks, schedules and noise come back."""
    name, whole, _ = model
    trained(data, tmp_path, 60, *KINDS[name])
    resumed, _ = trained(data, tmp_path, 120, *KINDS[name])
    for key, value in torch.load(whole, weights_only=True)["model"].items():
        assert torch.equal(value, resumed[key]), key
    if name in ("vq", "vq-em", "dvq", "projected"):
        assert not torch.equal(resumed["quantiser.counts"], torch.ones_like(resumed["quantiser.counts"]))


def test_a_training_says_which_codes_it_uses(model: tuple[str, Path, str]) -> None:
    """LT-10: at the end of an epoch, with their perplexity."""
    found = re.findall(
        r"([\d,]+) of ([\d,]+) codes were used in this epoch, ([\d,]+) never; their perplexity is", model[2]
    )
    assert found
    for used, size, never in found:
        assert int(used) + int(never) == int(size) == (240 if model[0] == "fsq" else 256)


@pytest.mark.parametrize(
    "flags", [("--iter-decode-with-beam", 3), ("--decode-samples", 3, "--latent-temperature", 0.7)]
)
def test_what_it_says_does_not_depend_on_program_or_batch(
    model: tuple[str, Path, str], data: Path, corpus: Path, flags: tuple[Any, ...]
) -> None:
    """LT-17."""
    command = ("fairseq-generate", data, *TASK, "--path", model[1], *flags)
    together = texts(succeed(*command, "--batch-size", 64))
    assert len(together) == 60
    assert texts(succeed(*command, "--batch-size", 7)) == together
    typed = succeed(
        *("fairseq-interactive", data, *TASK, "--path", model[1], *flags, "--buffer-size", 9, "--batch-size", 9),
        stdin=(corpus / "test.src").read_bytes(),
    )
    assert texts(typed) == together


def test_a_line_says_how_many_codes_were_predicted(model: tuple[str, Path, str], data: Path) -> None:
    """LT-19."""
    done = succeed("fairseq-generate", data, *TASK, "--path", model[1], "--batch-size", 64)
    assert re.search(r"latent \d+ passes over [\d,]+ rows \(\d+\.\d+ a sentence\)", done.stdout + done.stderr)


def test_references_are_scored_by_a_bound(model: tuple[str, Path, str], data: Path) -> None:
    """LT-2."""
    done = succeed("fairseq-generate", data, *TASK, "--path", model[1], "--score-reference", "--batch-size", 9)
    assert len(texts(done)) == 60


def test_two_processes_move_codebooks_as_one(data: Path, once: Any, tmp_path: Path) -> None:
    """LT-10: each sees half of the batch."""
    thirty_two = once("thirty_two", lambda folder: training_set(data, folder, 32, 4))
    more = ("--latent", "vq", *SMALL, "--schedules", "papers", "--max-update", 6, "--no-epoch-checkpoints")
    named = "latent_transformer"
    succeed("fairseq-train", thirty_two, *options(named, tmp_path / "one", *more, "--update-freq", 2))
    first, second = Ranks(thirty_two, tmp_path / "two", options(named, tmp_path / "two", *more)).end()
    assert (first.code, second.code) == (0, 0), first.stderr[-2000:] + second.stderr[-2000:]
    for key, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[key], value, rtol=1e-4, atol=1e-5)


def test_what_has_no_effect_is_one_line(data: Path, tmp_path: Path) -> None:
    command = ("fairseq-train", data, *TASK, *ARCH, *LIMITS, *ADAM, *QUIET, "--max-tokens", 500, "--max-update", 2)
    complains(program(*command, "--codebook-size", 64, "--save-dir", tmp_path), "--codebook-size", "--latent gaussian")
    complains(program(*command, "--latent", "vq", "--latent-size", 4, "--save-dir", tmp_path), "--latent-size")


def test_what_is_lost_in_codes(model: tuple[str, Path, str], data: Path, corpus: Path) -> None:
    """LT-2: by the tool, which says the same at any size of batch but of foreign codes, those of the row before."""
    flags = (data, *TASK, "--path", model[1], "--gen-subset", "test", "--reference", corpus / "test.tgt", "--cpu")
    command = [script("nar"), "codes", *flags]
    lines = console([*command, "--batch-size", 60]).stdout.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["codes", *codes.SOURCES]
    others = console([*command, "--batch-size", 7, "--show", 2]).stdout.splitlines()
    shown = [line for line in others if " -> " in line]
    others = others[: len(lines)]
    assert [line for line in lines if "foreign" not in line] == [line for line in others if "foreign" not in line]
    assert all(0 <= float(line.split()[1]) <= 100 for line in lines[1:5]) and shown


def test_foreign_codes_are_those_of_the_row_before() -> None:
    found = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6]])
    is_code = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    assert codes.foreign(found, is_code).tolist() == [[4, 5, 6], [1, 2, 1], [3, 3, 3]]


def test_a_model_without_codes_is_refused() -> None:
    class Other:
        models, paths, task = [torch.nn.Linear(1, 1)], ["model.pt"], None

    with pytest.raises(ToolError, match="^model.pt has no codes"):
        codes.found(Other())  # type: ignore[arg-type]
