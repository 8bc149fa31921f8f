"""What a training takes, measured on one batch and extrapolated."""

import io
import shlex
from typing import Any, List, Tuple

import pytest

from nar_tools.commands import cost
from nar_tools.errors import ToolError
from nar_tools.measure import costs
from tests.tools.conftest import Nar

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # hydra's, on what fairseq asks of it
FLAGS = (
    "/nonexistent/bin --user-dir nar_plugin --task translation_nar --cpu --source-lang en --target-lang de --seed 1 "
    "--optimizer adam --adam-betas '(0.9, 0.98)' --eval-bleu --eval-bleu-detok moses --share-all-embeddings --lr 1e-3 "
    "--eval-bleu-args '{\"beam\": 1}' --label-smoothing 0.1 --max-tokens 100 --update-freq 4 --max-update 1000 "
)
MODELS = {
    "transformer_tiny": "--criterion label_smoothed_cross_entropy",
    "mask_predict_tiny": "--criterion token_length",
    "iterative_refinement_tiny": "--criterion token_length",
    "latent_transformer_tiny": "--criterion elbo_length",
}


def command(arch: str, *more: str) -> List[str]:
    """The flags of a training."""
    return shlex.split(f"{FLAGS} --arch {arch} {MODELS[arch]} {' '.join(more)}")


def row(arch: str, *more: str) -> Any:
    return costs.row_of(command(arch, *more), types=50, length=10, tokens=200, utilization=0.5)


@pytest.mark.parametrize("arch", MODELS)
def test_the_hours_are_the_operations_of_all_tokens(arch: str) -> None:
    found = row(arch)
    assert (found["tokens"], found["update"], found["updates"]) == (200, 400, 1000)
    for name, peak in costs.PEAKS.items():
        expected = found["tflop"] * 2 * 1000 / (peak * 0.5) / 3600
        assert found["hours"][name] == pytest.approx(expected, rel=1e-6)
    assert found["seconds"] > 0 and found["memory"] > 0.05


def test_the_operations_of_mask_predict_are_those_of_its_products() -> None:
    """By hand: thrice the forward pass, two operations a weight and token; the vocabulary at masked positions only."""
    dim, hidden, types, tokens, sentences = 32, 64, 50, 200, 20
    attention, feed = 4 * dim * dim, 2 * dim * hidden
    slots = tokens + sentences  # the LENGTH token in front of every source
    encoder = slots * (attention + feed)
    decoder = tokens * (attention + feed + 2 * dim * dim) + tokens * 2 * dim * dim
    scores = 2 * dim * sentences * (11 * 11 + 10 * 10 + 10 * 10)
    lengths = sentences * dim * 1025
    least = 3 * 2 * (encoder + decoder + scores + lengths) / 1e12
    most = least + 3 * 2 * tokens * dim * types / 1e12
    assert 0.9 * least < row("mask_predict_tiny")["tflop"] < 1.1 * most


@pytest.mark.parametrize("flags", [("--distributed-world-size", "3"), ("--distributed-world-size=3",)])
def test_every_process_has_tokens_of_its_own(flags: Tuple[str, ...]) -> None:
    assert row("mask_predict_tiny", *flags)["update"] == 3 * 400


def test_a_teacher_to_start_from_need_not_be_there() -> None:
    """It costs nothing; a frozen encoder saves its backward pass."""
    start = ("--warm-start", "/nonexistent/teacher.pt", "--warm-start-parts", "encoder,embeddings")
    cold, warm, frozen = (row("latent_transformer_tiny", *more) for more in ((), start, (*start, "--freeze encoder")))
    assert warm["tflop"] == cold["tflop"] > frozen["tflop"]


def test_commands_are_found_among_other_lines() -> None:
    lines = ["== a step", "an update of 25 tokens", "fairseq-train bin --lr 1 --adam-betas \\(0.9\\,\\ 0.98\\) ", ""]
    lines += [
        "torchrun --nnodes 2 --no-python fairseq-train bin --lr 2",
        "srun --nodes 2 fairseq-train bin --lr 3 2>&1 | nar follow x",
    ]
    lines += [
        "nar average --dir x",
        "fairseq-train-not x",
        "  fairseq-train indented",
        "fairseq-generate fairseq-train",
    ]
    assert cost.trainings(lines) == [
        ["bin", "--lr", "1", "--adam-betas", "(0.9, 0.98)"],
        ["bin", "--lr", "2"],
        ["bin", "--lr", "3"],
    ]


@pytest.mark.parametrize("line", ["", "torchrun train.py", "fairseq-train 'open"])
def test_no_command_is_an_error(line: str) -> None:
    with pytest.raises(ToolError):
        cost.trainings([line])


@pytest.mark.slow
def test_a_pipe_of_commands_is_a_table(nar: Nar, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    text = "".join(f"echo\nfairseq-train {shlex.join(command(arch))}\n" for arch in list(MODELS)[:2])
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    sizes = ("--types", 50, "--length", 10, "--tokens", 200)
    done = nar("cost", *sizes)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.split("\n")[:-1]]
    assert done.code == 0, done.stderr
    assert lines[0][0] == "system" and [line[0] for line in lines[2:]] == list(MODELS)[:2]
    assert {line[5] for line in lines[2:]} == {"400"} and {line[6] for line in lines[2:]} == {"1,000"}
    (tmp_path / "commands").write_text(f"fairseq-train {shlex.join(command('mask_predict_tiny'))} --max-update many\n")
    done = nar("cost", tmp_path / "commands", *sizes)
    assert (done.code, done.stderr) == (2, "nar cost: argument --max-update: invalid int value: 'many'\n")


def test_what_cannot_be_measured_is_one_line(nar: Nar, tmp_path: Any) -> None:
    for words in ((tmp_path / "absent",), (tmp_path / "absent", "--utilization", 2), (tmp_path, "--length", 1)):
        done = nar("cost", *words)
        assert done.code == 2 and done.stderr.startswith("nar cost: ") and done.stderr.count("\n") == 1
