"""Two processes on one machine, on CPUs: they are one with twice the update frequency; a killed pair goes on.

fairseq starts them in one way only on a CPU, with ``--ddp-backend legacy_ddp``, which does not mind parameters without
a gradient. torch's own DistributedDataParallel does, so that each model is put into it as well.
"""

import os
import signal
import socket
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, List, Sequence, Tuple

import pytest
import torch
from torch import distributed

from nar_plugin import compat
from tests import tiny
from tests.conftest import CRITERIONS, LIMITS, training_set
from tests.end_to_end.programs import ROOT, TASK, Outcome, begun, logged, read, succeed

PAIR = ("--distributed-no-spawn", "--distributed-world-size", 2, "--distributed-backend", "gloo")
SGD = ("--optimizer", "sgd", "--momentum", 0.9, "--lr", 0.05, "--lr-scheduler", "fixed", "--clip-norm", 1)
LOG = ("--log-format", "json", "--log-interval", 1, "--no-progress-bar", "--disable-validation", "--num-workers", 0)


@pytest.fixture(scope="module")
def thirty_two(data: Path, once: Any) -> Path:
    """A training set of 32 sentences of very different lengths."""
    return once("thirty_two", lambda folder: training_set(data, folder, 32, 4))


def options(name: str, folder: Path, *more: Any) -> List[Any]:
    arch = ("--arch", f"{name}_tiny", "--criterion", CRITERIONS[name], "--dropout", 0)
    return [*TASK, *arch, *LIMITS, *SGD, *LOG, "--cpu", "--batch-size", 8, "--save-dir", folder, *more]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Ranks:
    """Both processes of one training; each writes what it says into the folder."""

    def __init__(self, data: Path, folder: Path, words: Sequence[Any]) -> None:
        folder.mkdir(exist_ok=True)
        address = ("--distributed-init-method", f"tcp://127.0.0.1:{free_port()}", *PAIR, "--ddp-backend", "legacy_ddp")
        self.streams = [[os.devnull, str(folder / f"out{rank}"), str(folder / f"err{rank}")] for rank in (0, 1)]
        self.processes: List[BaseProcess] = []
        for rank, streams in enumerate(self.streams):
            for stream in streams[1:]:
                Path(stream).write_bytes(b"")
            command = ["fairseq-train", data, *words, *address, "--distributed-rank", rank]
            self.processes.append(begun([str(word) for word in command], str(ROOT), streams, dict(os.environ)))

    def end(self, seconds: float = 240) -> Tuple[Outcome, Outcome]:
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                for each in self.processes:
                    each.kill()
                raise TimeoutError(read(Path(self.streams[0][2]))[-2000:])
        first, second = (
            Outcome(process.exitcode or 0, read(Path(out)), read(Path(err)))
            for process, (_, out, err) in zip(self.processes, self.streams, strict=True)
        )
        return first, second


def weights(folder: Path) -> Any:
    return compat.load_checkpoint(str(folder / "checkpoint_last.pt"))["model"]


@pytest.mark.parametrize("name", sorted(CRITERIONS))
def test_two_processes_are_one_with_twice_the_update_frequency(
    name: str, thirty_two: Path, stands_on: Any, tmp_path: Path
) -> None:
    more = ("--max-update", 6, "--no-epoch-checkpoints", *stands_on(name, thirty_two))
    one = succeed("fairseq-train", thirty_two, *options(name, tmp_path / "one", *more, "--update-freq", 2))
    first, second = Ranks(thirty_two, tmp_path / "two", options(name, tmp_path / "two", *more)).end()
    assert (first.code, second.code) == (0, 0), first.stderr[-2000:] + second.stderr[-2000:]
    alone, together = logged(one), logged(first)
    assert len(alone) == len(together) == 6
    for a, b in zip(alone, together, strict=True):
        for key in {"loss", "nll_loss", "length_loss", "kl", "cosine", "gnorm"} & a.keys():
            assert float(a[key]) == pytest.approx(float(b[key]), abs=2e-3), key
        assert a["wpb"] == b["wpb"] and a["bsz"] == b["bsz"] == "16"
    for key, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[key], value, rtol=1e-4, atol=1e-6)


def updates_of(folder: Path) -> int:
    """Updates of the last checkpoint."""
    return int(compat.load_checkpoint(str(folder / "checkpoint_last.pt"))["optimizer_history"][-1]["num_updates"])


@pytest.mark.parametrize("name", sorted(CRITERIONS))
def test_where_one_process_is_killed_the_other_ends_and_both_go_on(
    name: str, thirty_two: Path, stands_on: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "two"
    saving = ("--save-interval-updates", 3, "--no-epoch-checkpoints", *stands_on(name, thirty_two))
    ranks = Ranks(thirty_two, folder, options(name, folder, *saving, "--max-update", 100_000))
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoint_*_9.pt")):
        assert time.monotonic() < deadline and all(process.is_alive() for process in ranks.processes)
        time.sleep(0.1)
    os.kill(ranks.processes[1].pid or 0, signal.SIGKILL)
    first, second = ranks.end(120)
    assert second.code == -signal.SIGKILL and first.code != 0, "the other went on, or ended as if all were well"
    saved = updates_of(folder)
    assert saved >= 9
    first, second = Ranks(thirty_two, folder, options(name, folder, *saving, "--max-update", saved + 4)).end()
    assert (first.code, second.code) == (0, 0), first.stderr[-2000:]
    assert "Loaded checkpoint" in first.stdout + first.stderr and updates_of(folder) == saved + 4


@pytest.fixture
def alone(tmp_path: Path) -> Any:
    """A group of this process only: enough for torch to look for parameters without a gradient."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def trained_twice(model: torch.nn.Module) -> None:
    """Two updates under DistributedDataParallel, which raises in the second where a parameter had no gradient."""
    wrapped, loss_of = torch.nn.parallel.DistributedDataParallel(model), tiny.criterion_of(model)
    rows = tiny.random_rows(4, 6, seed=1)
    for _ in range(2):
        loss, _, _ = loss_of(wrapped, tiny.sample_of(rows, rows))
        loss.backward()


OPTIONS = {
    "blockwise_transformer": [
        {},
        {"freeze": "base"},
        {"freeze": "base", "identity_head_1": "no"},
        {"block_head": "block", "block_loss": "random"},
        {"identity_head_1": "yes", "block_loss": "random"},
    ],
    "ctc": [
        {},
        {"freeze": "encoder", "share_all_embeddings": True},
        {"decoder_layers": 0, "positions": "learned"},
        {"decoder_layers": 0, "share_all_embeddings": True},
        {"deep_supervision": True, "decoder_layers": 3},
        {"glance": "0.5:0.1", "max_update": 100},
    ],
    "fertility_nat": [
        {},
        {"attend_top": True},
        {"share_all_embeddings": True},
        {"freeze": "encoder", "share_all_embeddings": True},
    ],
    "iterative_refinement": [
        {},
        *({"stop_gradient": value} for value in ("none", "length", "both")),
        *({"next_input": value} for value in ("words", "hidden")),
        {"length_head": "linear", "share_decoders": True},
        {"share_all_embeddings": True, "exact_mixture": True},
        {"train_refinements": 1, "attend_top": True},
        {"freeze": "encoder", "share_all_embeddings": True},
    ],
    "lanmt_continuous": [
        {},
        {"freeze": "encoder"},
        {"share_all_embeddings": True},
        {"share_all_embeddings": True, "untie_output": True},
    ],
    "lanmt_refiner": [
        {"refiner": "score"},
        {"refiner": "energy"},
        {"rollout_start": 0},
        {"refiner": "energy", "rollout_start": 0},
    ],
    "latent_transformer": [
        *({}, {"share_all_embeddings": True}, {"length_kernel": "prefix"}, {"post_norm": True}),
        {"freeze": "encoder"},
        *({"latent": kind, "max_update": 100} for kind in ("semhash", "gumbel", "vq", "dvq", "fsq")),
        {"latent": "dvq", "codebook": "gradient", "residual_codebooks": 2, "predictor_parts": 2, "max_update": 100},
        {"latent": "gumbel", "gumbel_usage": 1.0, "max_update": 100},
        {"latent": "vq", "vq_em": "soft", "max_update": 100, "latent_length": "predicted", "freeze": "encoder"},
        {"latent": "fsq", "max_update": 100, "attend_compress": True, "attend_decompress": True, "lp_grad_to_ae": True},
        {"latent": "vq", "max_update": 100, "latent_curriculum": "bypass", "latent_decoder_self_attn": "full"},
    ],
    "mask_predict": [{}, {"share_all_embeddings": True}, {"release_compat": True}, {"mask_span": True}],
}


@pytest.mark.parametrize(("name", "more"), [(name, more) for name, found in OPTIONS.items() for more in found])
def test_no_parameter_is_without_a_gradient(name: str, more: Any, alone: Any) -> None:
    assert OPTIONS.keys() == CRITERIONS.keys()
    trained_twice(tiny.tiny_model(arch=f"{name}_tiny", **more).train())


def test_a_parameter_without_a_gradient_is_found(alone: Any) -> None:
    model = tiny.tiny_model(arch="mask_predict_tiny").train()
    model.idle = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
        trained_twice(model)
