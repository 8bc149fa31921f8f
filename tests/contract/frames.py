"""The task with frames for sources, in memory, and what decodes under it."""

from argparse import Namespace
from dataclasses import replace
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from tests.contract.dense_plugin.data import DenseConfig, DenseTask, Frames, frames_of, words

PAD, EOS = words().pad(), words().eos()
LONGEST_TARGET = 12


def task_of(kind: type[DenseTask] = DenseTask, seed: int = 1, **options: Any) -> DenseTask:
    """A task as the programs make it."""
    config = DenseConfig(**options)
    config.train_subset, config.max_target_positions, config.seed = "train", LONGEST_TARGET, seed
    return kind.setup_task(config)


def model_of(task: DenseTask, arch: str = "dense", seed: int = 3, scale: float = 2.0) -> Any:
    """A model of random weights, so large that its words depend on what it reads."""
    torch.manual_seed(seed)
    model = task.build_model(OmegaConf.create({"_name": arch, "max_target_positions": LONGEST_TARGET}))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(scale)
    return model


def split_of(task: DenseTask, split: str) -> Frames:
    task.load_dataset(split)
    return task.datasets[split]


def batch_of(data: Frames, ids: list[int]) -> dict[str, Any]:
    return data.collater([data[i] for i in ids])


def generator_of(task: DenseTask, model: Any, teacher: Any = None, **options: Any) -> Any:
    """What ``--flags`` of the host and of the task give; those of the task by the names of its configuration."""
    ours = {name: options.pop(name) for name in list(options) if hasattr(task.cfg, name)}
    before, task.cfg = task.cfg, replace(task.cfg, **ours)
    models = [model.eval()] if teacher is None else [model.eval(), teacher]
    args = Namespace(**options, iter_decode_with_external_reranker=teacher is not None)
    try:
        return task.build_generator(models, args)
    finally:
        task.cfg = before


def decode(task: DenseTask, model: Any, sample: dict[str, Any], teacher: Any = None, **options: Any) -> Any:
    generator = generator_of(task, model, teacher, **options)
    return task.inference_step(generator, [model], sample)


def rows(hypotheses: Any) -> list[list[list[int]]]:
    """The words of all hypotheses of each sentence."""
    return [[one["tokens"].tolist() for one in group] for group in hypotheses]


def scores(hypotheses: Any) -> list[list[float]]:
    return [[float(one["score"]) for one in group] for group in hypotheses]


class FrameTeacher:
    """An autoregressive teacher as fairseq has them, but of frames: it likes the words that go with their mean."""

    def __init__(self, seed: int = 11) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weights = torch.randn(frames_of([0], 0).size(1), len(words()), generator=generator)
        self.encoder = self
        self.read = 0

    def __call__(self, frames: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, V) log-probabilities of any word."""
        self.read += len(frames)
        return (self.mean(frames, frame_lengths) @ self.weights).log_softmax(-1)

    @staticmethod
    def mean(frames: Tensor, frame_lengths: Tensor) -> Tensor:
        is_frame = torch.arange(frames.size(1)) < frame_lengths[:, None]
        return (frames * is_frame[..., None]).sum(1) / frame_lengths.clamp(min=1)[:, None]

    def reorder_encoder_out(self, encoded: Tensor, order: Tensor) -> Tensor:
        return encoded[order]

    def decoder(self, previous: Tensor, encoder_out: Tensor) -> tuple[Tensor, Tensor]:
        return previous, encoder_out

    def get_normalized_probs(self, output: tuple[Tensor, Tensor], log_probs: bool) -> Tensor:
        assert log_probs
        previous, encoded = output
        return encoded[:, None].expand(-1, previous.size(1), -1)

    def max_decoder_positions(self) -> int:
        return 100

    def likes(self, frames: Tensor, tokens: list[int]) -> float:
        """The mean log-probability that it gives to one row of words and one end symbol, said plainly."""
        text = [token for token in tokens if token not in (PAD, EOS)]
        log_probs = self(frames[None], torch.tensor([len(frames)]))[0]
        return sum(float(log_probs[token]) for token in [*text, EOS]) / (len(text) + 1)
