"""The plugin in somebody's Python: errors that can be caught, nothing left over, and true errors in full."""

import gc
import resource
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
import torch
from fairseq import checkpoint_utils
from torch.multiprocessing import ProcessRaisedException

from nar_plugin.compat import checkpoints, programs
from nar_plugin.methods.contract import UsageError
from tests.conftest import ADAM, LIMITS, STUDENT
from tests.end_to_end.programs import PLUGIN, ROOT, TASK, complains, console, program, script, spy

UPDATE = (*LIMITS, *ADAM, "--max-tokens", 500, "--max-update", 1, "--no-save", "--disable-validation")
BROKEN = """
from nar_plugin.architectures.mask_predict import MaskPredictModel
def encode(*args, **kwargs):
    raise ValueError("inside the model")
MaskPredictModel.encode = encode
"""


def test_an_error_that_is_not_the_user_s_shows_its_traceback(data: Path, student: Path, tmp_path: Path) -> None:
    broken = (*TASK, *spy(tmp_path, BROKEN))
    for outcome in (
        program("fairseq-generate", data, *broken, "--path", student),
        program("fairseq-interactive", data, *broken, "--path", student, stdin=b"bana\n"),
        program("fairseq-train", data, *broken, *STUDENT, *UPDATE),
    ):
        assert (
            outcome.code == 1 and "Traceback" in outcome.stderr and 'encode\n    raise ValueError("' in outcome.stderr
        )
        assert outcome.complaint == "ValueError: inside the model"


SERVER = """
import sys
sys.path.insert(0, {root!r})
from fairseq import checkpoint_utils, tasks
import nar_plugin
from nar_plugin.tasks.translation_nar import TranslationNarConfig, TranslationNarTask
task = TranslationNarTask.setup_task(TranslationNarConfig(data={data!r}, seed=1))
for path in {paths!r}:
    try:
        checkpoint_utils.load_model_ensemble([path], task=task)
        print("loaded")
    except Exception as error:
        print("caught", type(error).__name__, error)
print("still here")
raise {error}
"""


@pytest.mark.parametrize("error", ["nar_plugin.compat.UsageError('one line')", "ValueError('a fault')"])
def test_a_server_survives_what_it_catches(error: str, data: Path, student: Path, reordered: Path) -> None:
    paths = [str(student), "/none/here.pt"]
    source = SERVER.format(root=str(ROOT), paths=paths, data=str(data), error=error)
    outcome = console([sys.executable, "-c", source])
    loaded, caught, here = outcome.lines[:3]
    assert loaded == "loaded" and caught.startswith("caught UsageError") and "/none/here.pt" in caught
    assert here == "still here" and outcome.code == 1
    if "Usage" in error:
        assert outcome.complaint == "one line" and "Traceback" not in outcome.stderr
    else:
        assert outcome.complaint == "ValueError: a fault" and "Traceback" in outcome.stderr


def fail(rank: int, message: str) -> None:
    raise UsageError(message) if message.startswith("--") else ValueError(message)


def main(cfg: Any) -> None:
    torch.multiprocessing.spawn(fail, args=(cfg.message,), nprocs=1)


class _Config:
    task = None

    def __init__(self, message: str) -> None:
        self.message = message


def test_the_line_of_a_spawned_child_is_that_of_the_program() -> None:
    start = programs.checked_main(lambda cfg, main, **kwargs: main(cfg, **kwargs))
    with pytest.raises(UsageError, match="^--say this instead$"):
        start(_Config("--say this instead"), main)
    with pytest.raises(ProcessRaisedException, match="ValueError: a fault"):
        start(_Config("a fault"), main)


def test_two_processes_end_with_the_line(data: Path) -> None:
    typed = (data, *TASK, *STUDENT, *UPDATE, "--cpu", "--distributed-backend", "gloo", "--distributed-no-spawn")
    start = (script("torchrun"), "--nproc-per-node", 2, "--no-python", script("fairseq-train"))
    outcome = console([*start, *typed, "--max-source-positions", 1, "--max-target-positions", 1])
    lines = [line for line in outcome.stderr.split("\n") if line.startswith("train in ")]
    assert outcome.code != 0 and lines and "no sentence is left" in lines[0]
    assert 'File "' not in outcome.stderr.split(lines[0])[0]


def test_hydra_ends_with_the_line(data: Path, tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(
        f"defaults: [_self_]\ncommon: {{user_dir: {PLUGIN}, cpu: true, fp16: true}}\n"
        f"task: {{_name: translation_nar, data: {data}}}\nmodel: {{_name: mask_predict_tiny}}\n"
        "criterion: {_name: token_length}\noptimizer: {_name: adam}\nlr_scheduler: {_name: fixed}\n"
        "dataset: {max_tokens: 500}\noptimization: {max_update: 1, lr: [0.001]}\n"
    )
    command = [script("fairseq-hydra-train"), "--config-dir", tmp_path, "--config-name", "toy"]
    outcome = console(command, folder=tmp_path)
    complains(outcome, "--fp16", "--cpu-autocast")
    outcome = console([*command, "common.fp16=false", "criterion._name=cross_entropy"], folder=tmp_path)
    complains(outcome, "--criterion token_length")


def test_an_error_of_ours_that_the_host_covers_up_is_uncovered() -> None:
    def load(cfg: Any, trainer: Any) -> None:
        try:
            raise UsageError("--latent-model is another")
        except Exception:
            raise Exception("Cannot load model parameters from checkpoint x") from None

    with pytest.raises(UsageError, match="^--latent-model is another$"):
        checkpoints.guarded_resume(load)(None, _Config(""))


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "argv", ["server.py"])
    yield


def used_once(student: Path, data: Path) -> None:
    (model,), cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(student)], {"data": str(data)})
    generator = task.build_generator([model], cfg.generation)
    tokens = task.source_dictionary.encode_line("bana deret", add_if_not_exist=False).long()
    dataset = task.build_dataset_for_inference([tokens], [tokens.numel()])
    batch = dataset.collater([dataset[0]])
    assert task.inference_step(generator, [model], batch)[0][0]["tokens"].numel()


LEFT_OVER = """
import sys, logging
sys.path[:0] = [{root!r}]
import nar_plugin
from pathlib import Path
from tests.faults.test_library_use import used_once
logging.basicConfig(level=logging.INFO)
logging.getLogger("fairseq").setLevel(logging.ERROR)
for _ in range(20):
    used_once(Path({student!r}), Path({data!r}))
print("the end", file=sys.stderr)
"""


def test_nothing_is_left_of_models_that_were_used(data: Path, student: Path) -> None:
    source = LEFT_OVER.format(root=str(ROOT), student=str(student), data=str(data))
    outcome = console([sys.executable, "-c", source])
    assert outcome.code == 0 and outcome.complaint == "the end", outcome.stderr[-1500:]
    assert "decoded" not in outcome.stderr


def test_memory_is_steady_over_two_hundred_loads(data: Path, student: Path, quiet: None) -> None:
    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB

    for _ in range(30):
        used_once(student, data)
    before, objects = peak(), len(gc.get_objects())
    for _ in range(170):
        used_once(student, data)
    gc.collect()
    assert peak() - before < 30_000 and len(gc.get_objects()) - objects < 2_000


def test_programs_still_say_what_they_decoded(data: Path, student: Path) -> None:
    command = [script("fairseq-generate"), data, *TASK, "--path", student, "--gen-subset", "test1"]
    outcome = console(command)
    assert outcome.stderr.count("decoded 9 sentences") == 1
