"""The average of checkpoints: exact means, the right files, one line for what cannot be averaged."""

from argparse import Namespace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Tuple

import pytest
import torch

from nar_plugin.compat import load_checkpoint
from nar_tools.errors import ToolError
from nar_tools.jobs import averages
from tests.end_to_end.programs import TASK, Outcome, console, script, succeed
from tests.tools.conftest import Nar

Run = Callable[..., Outcome]


def checkpoint(value: float, arch: str = "tiny", **more: Any) -> Dict[str, Any]:
    """A checkpoint whose weights follow from ``value``; ``more`` replaces entries of the model."""
    draw = torch.Generator().manual_seed(round(value * 1000))
    shared = torch.randn(5, 3, generator=draw)
    model = {
        "embed.weight": shared,
        "output.weight": shared,
        "half": torch.randn(4, generator=draw).half(),
        "steps": torch.tensor([round(value)]),
        "flags": torch.tensor([value > 2]),
    }
    return {
        "cfg": {"model": {"_name": arch}},
        "args": None,
        "model": {name: tensor for name, tensor in {**model, **more}.items() if tensor is not None},
        "last_optimizer_state": {"exp_avg": torch.ones(15)},
        "optimizer_history": [{"num_updates": round(value)}],
        "extra_state": {"ema": {"embed.weight": shared}, "ema_fp32_params": {}, "epoch": round(value)},
    }


def save(path: Path, value: float, **more: Any) -> Path:
    torch.save(checkpoint(value, **more), path)
    return path


@pytest.fixture
def run(nar: Nar) -> Run:
    """Runs `nar average` here."""
    return partial(nar, "average")


def averaged(run: Run, output: Path, *args: Any) -> Tuple[Dict[str, Any], List[str]]:
    """The checkpoint that the script wrote and the names of the files that it says it read."""
    outcome = run(*args, "--output", output)
    assert outcome.code == 0, outcome.stderr
    lines = outcome.stdout.split("\n")[:-1]
    assert lines[0] == f"{output}: average of {len(lines) - 1}:"
    return load_checkpoint(str(output)), [Path(line.strip()).name for line in lines[1:]]


def refused(run: Run, output: Path, *args: Any) -> str:
    """The one line with which the script refuses, without the program's name."""
    outcome = run(*args, "--output", output)
    assert outcome.code == 2 and outcome.stderr.count("\n") == 1, outcome.stderr
    assert outcome.stderr.startswith("nar average: ") and not output.exists()
    return outcome.stderr[len("nar average: ") : -1]


def test_every_weight_is_the_mean(run: Run, tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{value}.pt", value) for value in (1, 2, 7)]
    state, files = averaged(run, tmp_path / "out.pt", "--inputs", *paths)
    models = [load_checkpoint(str(path))["model"] for path in paths]
    for name in ("embed.weight", "output.weight", "half"):
        mean = torch.stack([model[name].double() for model in models]).mean(0)
        assert state["model"][name].dtype == torch.float32
        torch.testing.assert_close(state["model"][name].double(), mean, rtol=0, atol=1e-6)
    assert files == ["1.pt", "2.pt", "7.pt"]
    assert state["model"].keys() == models[0].keys()


def test_half_precision_is_summed_in_single_precision(run: Run, tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{i}.pt", i, half=torch.full((4,), 60000.0).half()) for i in range(3)]
    state, _ = averaged(run, tmp_path / "out.pt", "--inputs", *paths)
    assert state["model"]["half"].tolist() == [float(torch.tensor(60000.0).half())] * 4  # the sum overflows a half


@pytest.mark.parametrize("order", [(1, 2, 7), (7, 2, 1)])
def test_integers_and_flags_are_those_of_the_last(order: Tuple[int, ...], run: Run, tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{value}.pt", value) for value in order]
    state, _ = averaged(run, tmp_path / "out.pt", "--inputs", *paths)
    assert state["model"]["steps"].dtype == torch.int64 and state["model"]["steps"].tolist() == [order[-1]]
    assert state["model"]["flags"].dtype == torch.bool and state["model"]["flags"].tolist() == [order[-1] > 2]
    assert state["extra_state"]["epoch"] == order[-1]


def test_half_stores_float16(run: Run, tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{value}.pt", value) for value in (1, 2)]
    whole, _ = averaged(run, tmp_path / "whole.pt", "--inputs", *paths)
    half, _ = averaged(run, tmp_path / "half.pt", "--inputs", *paths, "--half")
    for name in ("embed.weight", "output.weight", "half"):
        assert half["model"][name].dtype == torch.float16
        assert torch.equal(half["model"][name], whole["model"][name].half())
    assert half["model"]["steps"].dtype == torch.int64


def test_what_is_to_be_released_names_no_folder_of_the_machine(run: Run, tmp_path: Path) -> None:
    said = {"_name": "tiny", "save_dir": "/home/me/models", "ratio": 0.5, "restore": None, "data": "bin/a"}
    old = {"arch": "tiny", "inputs": ["/data/a", "b"]}
    state = {**checkpoint(1), "cfg": {"model": Namespace(**said), "task": said}, "args": Namespace(**old)}
    torch.save(state, tmp_path / "1.pt")
    kept, _ = averaged(run, tmp_path / "kept.pt", "--inputs", tmp_path / "1.pt")
    assert vars(kept["cfg"]["model"]) == said
    released, _ = averaged(run, tmp_path / "released.pt", "--inputs", tmp_path / "1.pt", "--forget-paths")
    expected = {**said, "save_dir": "models"}
    assert vars(released["cfg"]["model"]) == released["cfg"]["task"] == expected
    assert vars(released["args"]) == {"arch": "tiny", "inputs": ["a", "b"]}


@pytest.mark.parametrize("flags", [(), ("--half",)])
def test_tied_weights_stay_tied(flags: Tuple[str, ...], run: Run, tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{value}.pt", value) for value in (1, 2)]
    state, _ = averaged(run, tmp_path / "out.pt", "--inputs", *paths, *flags)
    tied, other, apart = (state["model"][name] for name in ("embed.weight", "output.weight", "half"))
    assert tied.data_ptr() == other.data_ptr() and tied.data_ptr() != apart.data_ptr()


def test_equal_weights_that_are_not_tied_stay_apart(run: Run, tmp_path: Path) -> None:
    ones = {"first": torch.ones(3), "second": torch.ones(3)}
    paths = [save(tmp_path / f"{value}.pt", value, **ones) for value in (1, 2)]
    state, _ = averaged(run, tmp_path / "out.pt", "--inputs", *paths)
    assert state["model"]["first"].data_ptr() != state["model"]["second"].data_ptr()


def test_the_same_average_has_the_same_bytes_whatever_its_name(run: Run, tmp_path: Path) -> None:
    """What is made of a teacher is made again where the file has another hash."""
    paths = [save(tmp_path / f"{value}.pt", value) for value in (1, 2)]
    for name in ("once.pt", "again and longer.pt"):
        averaged(run, tmp_path / name, "--inputs", *paths)
    assert (tmp_path / "once.pt").read_bytes() == (tmp_path / "again and longer.pt").read_bytes()


def test_neither_optimizer_state_nor_moving_averages_are_kept(run: Run, tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{value}.pt", value) for value in (1, 2)]
    state, _ = averaged(run, tmp_path / "out.pt", "--inputs", *paths)
    assert state["last_optimizer_state"] is None
    assert state["extra_state"] == {"epoch": 2}
    assert state["cfg"] == {"model": {"_name": "tiny"}}


def test_the_last_are_those_of_most_updates_by_number(run: Run, tmp_path: Path) -> None:
    names = ["checkpoint_1_900.pt", "checkpoint_2_1000.pt", "checkpoint_10_1100.pt", "checkpoint_9_950.pt"]
    for value, name in enumerate([*names, "checkpoint12.pt", "checkpoint_last.pt", "checkpoint_best.pt"], 1):
        save(tmp_path / name, value)
    state, files = averaged(run, tmp_path / "out.pt", "--dir", tmp_path, "--last", 3)
    assert files == ["checkpoint_9_950.pt", "checkpoint_2_1000.pt", "checkpoint_10_1100.pt"]
    assert state["extra_state"]["epoch"] == 3, "the last of them is checkpoint_10_1100.pt"


def test_the_last_are_epochs_where_no_updates_were_saved(run: Run, tmp_path: Path) -> None:
    for value, name in enumerate(["checkpoint9.pt", "checkpoint10.pt", "checkpoint2.pt", "checkpoint_last.pt"], 1):
        save(tmp_path / name, value)
    _, files = averaged(run, tmp_path / "out.pt", "--dir", tmp_path, "--last", 2)
    assert files == ["checkpoint9.pt", "checkpoint10.pt"]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("bleu", ["9.9002", "10.1001"]),  # the highest; by number, not by name
        ("loss", ["9.9002", "8.5000"]),  # the lowest
        ("nll_loss", ["9.9002", "8.5000"]),
        ("ppl", ["9.9002", "8.5000"]),
    ],
)
def test_the_best_are_the_highest_bleu_or_the_lowest_loss(
    metric: str, expected: List[str], run: Run, tmp_path: Path
) -> None:
    for value, score in enumerate(["9.9002", "10.1001", "8.5000"], 1):
        save(tmp_path / f"checkpoint.best_{metric}_{score}.pt", value)
    save(tmp_path / "checkpoint.best_other_99.9990.pt", 4)
    _, files = averaged(run, tmp_path / "out.pt", "--dir", tmp_path, "--best", 2, "--metric", metric)
    assert files == [f"checkpoint.best_{metric}_{score}.pt" for score in expected]


@pytest.mark.parametrize(("other", "is_far"), [("0.3400", True), ("30.0000", False)])
def test_checkpoints_that_are_far_apart_are_averaged_with_a_warning(
    other: str, is_far: bool, run: Run, tmp_path: Path
) -> None:
    for value in ("30.1230", other):
        save(tmp_path / f"checkpoint.best_bleu_{value}.pt", 1)
    outcome = run("--dir", tmp_path, "--best", 2, "--output", tmp_path / "out.pt")
    assert outcome.code == 0 and ("checkpoint_best.pt" in outcome.stderr) == is_far


def test_a_folder_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    assert refused(run, tmp_path / "out.pt", "--dir", tmp_path / "absent", "--best", 2).endswith("absent")


def test_the_best_are_those_of_bleu_where_no_metric_is_said(run: Run, tmp_path: Path) -> None:
    save(tmp_path / "checkpoint.best_bleu_30.1230.pt", 1)
    save(tmp_path / "checkpoint.best_loss_1.1230.pt", 2)
    _, files = averaged(run, tmp_path / "out.pt", "--dir", tmp_path, "--best", 1)
    assert files == ["checkpoint.best_bleu_30.1230.pt"]


def test_fewer_than_asked_for_are_averaged_only_where_that_is_said(run: Run, tmp_path: Path) -> None:
    save(tmp_path / "checkpoint.best_bleu_30.1230.pt", 1)
    command = ("--dir", tmp_path, "--best", 5)
    assert "5 checkpoints asked for, 1 found" in refused(run, tmp_path / "out.pt", *command)
    _, files = averaged(run, tmp_path / "out.pt", *command, "--or-fewer")
    assert files == ["checkpoint.best_bleu_30.1230.pt"]


UNLIKE: Dict[str, Tuple[Dict[str, Any], str]] = {
    "more parameters": ({"extra": torch.ones(1)}, "parameter extra stands in one only"),
    "fewer parameters": ({"half": None}, "parameter half stands in one only"),
    "another shape": ({"half": torch.ones(5).half()}, "parameter half is [5], not [4]"),
    "another architecture": ({"arch": "base"}, "architecture base, not tiny"),
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_models_that_differ_are_refused_by_name(kind: str, run: Run, tmp_path: Path) -> None:
    more, complaint = UNLIKE[kind]
    paths = [save(tmp_path / "a.pt", 1), save(tmp_path / "b.pt", 2, **more)]
    line = refused(run, tmp_path / "out.pt", "--inputs", *paths)
    assert line == f"{paths[1]} cannot be averaged with {paths[0]}: {complaint}"


@pytest.mark.parametrize("way", [("--last", 3), ("--last", 0), ("--last", -1), ("--best", 1)])
def test_more_checkpoints_than_there_are_are_refused(way: Tuple[str, int], run: Run, tmp_path: Path) -> None:
    for update in (100, 200):
        save(tmp_path / f"checkpoint_1_{update}.pt", update)
    line = refused(run, tmp_path / "out.pt", "--dir", tmp_path, *way)
    found = 2 if way[0] == "--last" else 0
    assert line.startswith(f"{way[1]} checkpoints asked for, {found} found: checkpoint") and str(tmp_path) in line


def test_a_missing_file_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    paths = [save(tmp_path / "a.pt", 1), tmp_path / "absent.pt"]
    line = refused(run, tmp_path / "out.pt", "--inputs", *paths)
    assert line == f"checkpoint not found: {paths[1]}"


def test_a_file_with_an_object_that_would_run_code_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "marker"), "w")

    state = {**checkpoint(2), "bomb": Bomb()}
    torch.save(state, tmp_path / "bomb.pt")
    line = refused(run, tmp_path / "out.pt", "--inputs", save(tmp_path / "a.pt", 1), tmp_path / "bomb.pt")
    assert str(tmp_path / "bomb.pt") in line and "open" in line and "not a checkpoint that is safe to load" in line
    assert not (tmp_path / "marker").exists()
    torch.load(tmp_path / "bomb.pt", weights_only=False)
    assert (tmp_path / "marker").exists()  # the control: the object works


def test_a_model_without_its_settings_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    torch.save({"model": checkpoint(1)["model"]}, tmp_path / "bare.pt")
    line = refused(run, tmp_path / "out.pt", "--inputs", tmp_path / "bare.pt", tmp_path / "bare.pt")
    assert str(tmp_path / "bare.pt") in line


@pytest.mark.parametrize(
    "args",
    [(), ("--dir", "."), ("--last", 2), ("--inputs", "a.pt", "--dir", "."), ("--dir", ".", "--last", 1, "--best", 1)],
)
def test_an_unclear_choice_is_refused_in_one_line(args: Tuple[Any, ...], run: Run, tmp_path: Path) -> None:
    line = refused(run, tmp_path / "out.pt", *args)
    assert line == "say either --inputs A.pt B.pt ..., or --dir D --last K, or --dir D --best K"


def test_an_output_that_cannot_be_written_ends_in_one_line(run: Run, tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", 1)
    line = refused(run, path / "below a file", "--inputs", path)
    assert str(path / "below a file") in line


def test_a_failure_while_writing_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(state: Any, place: Any) -> None:
        place.write_bytes(b"half") if isinstance(place, Path) else place.write(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "out.pt").write_bytes(b"old")
    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(ToolError, match="No space left"):
        averages.save({}, tmp_path / "out.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["out.pt"], "an unfinished file was left behind"
    assert (tmp_path / "out.pt").read_bytes() == b"old"


@pytest.fixture
def one(request: pytest.FixtureRequest, tmp_path: Path) -> SimpleNamespace:
    """The student or the teacher, and the average of it alone, made as a user makes it."""
    path, output = request.getfixturevalue(request.param), tmp_path / "new" / "average.pt"
    outcome = console([script("nar"), "average", "--inputs", path, "--output", output], folder=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert [file.name for file in output.parent.iterdir()] == ["average.pt"]
    return SimpleNamespace(path=path, average=output)


@pytest.mark.parametrize("one", ["student", pytest.param("teacher", marks=pytest.mark.slow)], indirect=True)
def test_the_average_of_one_checkpoint_decodes_as_the_checkpoint(one: SimpleNamespace, data: Path) -> None:
    outcomes = [succeed("fairseq-generate", data, *TASK, "--path", path) for path in (one.path, one.average)]
    answers = [[line for line in outcome.lines if line[:2] in ("H-", "P-")] for outcome in outcomes]
    assert len(answers[0]) == 120 and answers[0] == answers[1]
    assert one.average.stat().st_size < one.path.stat().st_size / 2, "the optimizer's state is still there"


def test_the_average_of_real_checkpoints_of_another_architecture_is_refused(
    student: Path, teacher: Path, run: Run, tmp_path: Path
) -> None:
    line = refused(run, tmp_path / "out.pt", "--inputs", student, teacher)
    assert line.endswith("architecture transformer, not mask_predict_tiny")
