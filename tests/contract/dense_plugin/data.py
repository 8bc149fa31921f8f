"""Frames that say words: each word of a target is two rows of numbers. And the task that has them."""

from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
import torch
from fairseq.data import Dictionary, FairseqDataset, data_utils
from fairseq.tasks import register_task
from torch import Tensor

from nar_plugin.tasks.translation_nar import TranslationNarConfig, TranslationNarTask

WORDS, FEATURES, FRAMES_A_WORD, LONGEST = 12, 6, 2, 8
SIZES = {"train": 128, "valid": 24, "test": 20}


def words() -> Dictionary:
    result = Dictionary()
    for i in range(WORDS):
        result.add_symbol(f"w{i}")
    return result


def prototypes() -> Tensor:
    """(WORDS, FEATURES): what the words look like."""
    return torch.randn(WORDS, FEATURES, generator=torch.Generator().manual_seed(5))


def frames_of(sentence: list[int], seed: int) -> Tensor:
    """(S, F) frames of a sentence, the words numbered from 0, with a little noise."""
    blur = torch.randn(FRAMES_A_WORD * len(sentence), FEATURES, generator=torch.Generator().manual_seed(seed))
    return prototypes()[torch.tensor(sentence, dtype=torch.int64)].repeat_interleave(FRAMES_A_WORD, 0) + 0.1 * blur


class Frames(FairseqDataset):
    """Sentence ``i`` has ``sources[i]``, (S, F), and ``targets[i]``, (T,)."""

    def __init__(self, sources: list[Tensor], targets: list[Tensor], pad: int, eos: int) -> None:
        self.sources, self.targets, self.pad, self.eos = sources, targets, pad, eos

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"id": int(index), "frames": self.sources[index], "target": self.targets[index]}

    def __len__(self) -> int:
        return len(self.sources)

    def num_tokens(self, index: int) -> int:
        return max(len(self.sources[index]), len(self.targets[index]))

    def size(self, index: int) -> tuple[int, int]:
        return len(self.sources[index]), len(self.targets[index])

    @property
    def sizes(self) -> np.ndarray:
        """What the host's iterator of batches does not ask for."""
        return np.array([self.size(i) for i in range(len(self))])

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        if not samples:
            return {}
        frames = torch.nn.utils.rnn.pad_sequence([sample["frames"] for sample in samples], batch_first=True)
        lengths = torch.tensor([len(sample["frames"]) for sample in samples])
        target = data_utils.collate_tokens([sample["target"] for sample in samples], self.pad)
        return {
            "id": torch.tensor([sample["id"] for sample in samples]),
            "nsentences": len(samples),
            "ntokens": sum(len(sample["target"]) for sample in samples),
            "net_input": {"frames": frames, "frame_lengths": lengths},
            "target": target,
        }


def toy_frames(count: int, seed: int, dictionary: Dictionary, shortest: int = 1) -> Frames:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(shortest, LONGEST, (count,), generator=generator).tolist()
    sentences = [torch.randint(0, WORDS, (n,), generator=generator).tolist() for n in sizes]
    sources = [frames_of(sentence, 1000 * seed + i) for i, sentence in enumerate(sentences)]
    targets = [torch.tensor([*(w + dictionary.nspecial for w in s), dictionary.eos()]) for s in sentences]
    return Frames(sources, targets, dictionary.pad(), dictionary.eos())


@dataclass
class DenseConfig(TranslationNarConfig):
    spread: Optional[float] = field(default=None, metadata={"help": "of --arch dense: how far the noise goes"})


@register_task("dense_frames", dataclass=DenseConfig)
class DenseTask(TranslationNarTask):
    """It has no source dictionary, and no files."""

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> "DenseTask":
        return cls(cfg, None, words())

    def load_dataset(self, split: str, *args: Any, **kwargs: Any) -> None:
        self.datasets[split] = toy_frames(SIZES[split], list(SIZES).index(split), self.target_dictionary)

    def max_positions(self) -> None:
        """No limit: limits are cut to, and only sentence pairs can be cut."""


@register_task("weighted_frames", dataclass=DenseConfig)
class WeightedTask(DenseTask):
    """It knows a weight of each sentence, another one in each split."""

    def weight(self, index: int, split: str) -> float:
        return 1.0 + index + 1000.0 * list(SIZES).index(split)

    def column(self, name: str, ids: Tensor, split: str, epoch: int) -> Tensor:
        if name != "weights":
            return super().column(name, ids, split, epoch)
        return torch.tensor([self.weight(i, split) for i in ids.tolist()])
