"""What a checkpoint says is what was trained, and nothing in a file can run."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
import torch
from sacrebleu import corpus_bleu

from nar_plugin import compat
from tests.conftest import ADAM, LIMITS, STUDENT
from tests.end_to_end.programs import TASK, Outcome, complains, logged, program, succeed, texts


@pytest.fixture(scope="module")
def with_bleu(data: Path, student: Path, once: Any) -> Path:
    """The folder of a short training with BLEU in validation, which goes on from the student; ``log`` is its output."""

    def make(folder: Path) -> None:
        bleu = ("--eval-bleu", "--eval-bleu-args", '{"iter_decode_max_iter": 3, "iter_decode_with_beam": 2}')
        best = ("--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric", "--log-format", "json")
        start = ("--finetune-from-model", student, "--max-update", 2, "--max-tokens", 500, "--save-dir", folder)
        outcome = succeed("fairseq-train", data, *TASK, *STUDENT, *LIMITS, *ADAM, *bleu, *best, *start)
        (folder / "log").write_text(json.dumps(logged(outcome, "valid")))

    return once("with_bleu", make)


def test_the_model_that_was_validated_is_the_model_that_is_loaded(corpus: Path, data: Path, with_bleu: Path) -> None:
    (log,) = json.loads((with_bleu / "log").read_text())
    path = ("--path", with_bleu / "checkpoint_last.pt", "--gen-subset", "valid", "--batch-size", 5)
    flags = ("--iter-decode-max-iter", 3, "--iter-decode-with-beam", 2)
    decoded = texts(succeed("fairseq-generate", data, *TASK, *path, *flags))
    references = (corpus / "valid.tgt").read_text(encoding="utf-8").split("\n")[:-1]
    assert float(log["valid_bleu"]) == pytest.approx(corpus_bleu(decoded, [references]).score, abs=0.02)
    assert float(log["valid_bleu"]) > 50


def test_a_checkpoint_read_and_written_again_decodes_the_same(data: Path, student: Path, tmp_path: Path) -> None:
    torch.save(compat.load_checkpoint(str(student)), tmp_path / "again.pt")
    once, again = (
        succeed("fairseq-generate", data, *TASK, "--path", path) for path in (student, tmp_path / "again.pt")
    )
    results = [[line for line in outcome.lines if line[:2] in ("H-", "P-")] for outcome in (once, again)]
    assert len(results[0]) == 120 and results[0] == results[1]


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_a_checkpoint_that_was_saved_before_an_option_came_has_its_default(
    name: str, data: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    state = compat.load_checkpoint(str(request.getfixturevalue(name)))
    options = state["cfg"]["model"] if name == "student" else vars(state["cfg"]["model"])
    for option in ("freeze", "gradient_checkpointing"):  # one of ours, and one that the file may never have had
        options.pop(option, None)
    torch.save(state, tmp_path / "old.pt")
    assert succeed("fairseq-generate", data, *TASK, "--path", tmp_path / "old.pt").stdout.count("\nH-") == 60


def test_a_checkpoint_of_this_plugin_is_safe_to_load_without_the_plugin(student: Path) -> None:
    """Options are plain values: no Namespace, no class of the plugin stands in the file."""
    state = torch.load(student, weights_only=True)
    assert state["cfg"]["model"]["_name"] == "mask_predict_tiny" and state["cfg"]["task"]["_name"] == "translation_nar"


def test_checkpoints_with_bleu_and_of_stock_fairseq_are_read_with_allowed_types_only(
    with_bleu: Path, teacher: Path
) -> None:
    assert compat.load_checkpoint(str(with_bleu / "checkpoint_best.pt"))["extra_state"]["best"] > 50
    assert compat.load_checkpoint(str(teacher))["cfg"]["model"].arch == "transformer"


def test_a_stock_checkpoint_decodes_under_this_task_as_under_its_own(data: Path, teacher: Path) -> None:
    options = ("--path", teacher, "--beam", 2, "--required-batch-size-multiple", 1)
    ours = succeed("fairseq-generate", data, *TASK, *options)
    stock = succeed("fairseq-generate", data, *TASK, *options, "--task", "translation")
    assert len(texts(ours)) == 60 and texts(ours) == texts(stock)


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def as_pickle(state: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(state))


def as_old_torch(state: Any, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


LOADERS: Dict[str, Callable[[Path, Path, Path, Path], Outcome]] = {
    "generate": lambda data, bad, good, out: program("fairseq-generate", data, *TASK, "--path", bad),
    "interactive": lambda data, bad, good, out: program("fairseq-interactive", data, *TASK, "--path", bad),
    "validate": lambda data, bad, good, out: program(
        *("fairseq-validate", data, *TASK, "--path", bad, "--batch-size", 8)
    ),
    "reranker": lambda data, bad, good, out: program(
        *("fairseq-generate", data, *TASK, "--path", f"{good}:{bad}", "--iter-decode-with-external-reranker")
    ),
    "resume": lambda data, bad, good, out: program(
        *("fairseq-train", data, *TASK, *STUDENT, *LIMITS, *ADAM, "--max-tokens", 500, "--max-update", 1),
        *("--save-dir", out, "--restore-file", bad),
    ),
    "finetune": lambda data, bad, good, out: program(
        *("fairseq-train", data, *TASK, *STUDENT, *LIMITS, *ADAM, "--max-tokens", 500, "--max-update", 1),
        *("--save-dir", out, "--finetune-from-model", bad),
    ),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(
    loader: str, data: Path, student: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    state = torch.load(student, weights_only=True)
    state["extra_state"]["bomb"] = Bomb(marker)
    torch.save(state, tmp_path / "bomb.pt")
    outcome = LOADERS[loader](data, tmp_path / "bomb.pt", student, tmp_path)
    complains(outcome, str(tmp_path / "bomb.pt"), "system")
    assert not marker.exists()
    with pytest.raises(pickle.UnpicklingError):  # the control: the object is in the file indeed
        torch.load(tmp_path / "bomb.pt", weights_only=True)
    torch.load(tmp_path / "bomb.pt", weights_only=False)
    assert marker.exists()  # and it works


@pytest.mark.parametrize("call", [os.system, eval, exec, shutil.rmtree, pickle.loads])
def test_the_object_that_was_refused_is_named(call: Callable[..., Any], tmp_path: Path) -> None:
    class Calling:
        def __reduce__(self) -> Any:
            return call, ("0",)

    torch.save({"model": {}, "bomb": Calling()}, tmp_path / "bomb.pt")
    with pytest.raises(compat.UsageError, match=rf"bomb\.pt is not .* it holds \S*{call.__name__};"):
        compat.load_checkpoint(str(tmp_path / "bomb.pt"))


@pytest.mark.parametrize("write", [as_pickle, as_old_torch])
def test_no_file_format_lets_code_run(write: Callable[[Any, Path], None], data: Path, tmp_path: Path) -> None:
    write({"model": {}, "bomb": Bomb(tmp_path / "marker")}, tmp_path / "bomb.pt")
    outcome = program("fairseq-generate", data, *TASK, "--path", tmp_path / "bomb.pt")
    complains(outcome, str(tmp_path / "bomb.pt"))
    assert not (tmp_path / "marker").exists()


def truncated(path: Path, student: Path) -> None:
    whole = student.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def weights_alone(path: Path, student: Path) -> None:
    torch.save(torch.load(student, weights_only=True)["model"], path)


NO_CHECKPOINTS: Dict[str, Callable[[Path, Path], Any]] = {
    "truncated": truncated,
    "weights_alone": weights_alone,
    "empty": lambda path, student: path.touch(),
    "text": lambda path, student: path.write_text("no checkpoint\n" * 50),
    "missing": lambda path, student: None,
    "folder": lambda path, student: path.mkdir(),
}


@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
def test_a_file_that_is_no_checkpoint_ends_decoding_in_one_line(
    kind: str, data: Path, student: Path, tmp_path: Path
) -> None:
    path = tmp_path / "given.pt"
    NO_CHECKPOINTS[kind](path, student)
    complains(program("fairseq-generate", data, *TASK, "--path", path), str(path))


@pytest.mark.parametrize("kind", ["truncated", "text", "missing"])
@pytest.mark.parametrize("loader", ["interactive", "validate", "reranker", "finetune"])
def test_every_program_ends_in_one_line_where_a_checkpoint_cannot_be_read(
    loader: str, kind: str, data: Path, student: Path, tmp_path: Path
) -> None:
    path = tmp_path / "given.pt"
    NO_CHECKPOINTS[kind](path, student)
    complains(LOADERS[loader](data, path, student, tmp_path), str(path))


@pytest.mark.parametrize("kind", ["truncated", "text"])
def test_resuming_from_a_file_that_is_no_checkpoint_ends_in_one_line(
    kind: str, data: Path, student: Path, tmp_path: Path
) -> None:
    path = tmp_path / "given.pt"
    NO_CHECKPOINTS[kind](path, student)
    complains(LOADERS["resume"](data, path, student, tmp_path), str(path))
