"""No sentence is too long to be decoded: it is cut to the model's limit, with a warning."""

import logging
from typing import Any, Optional, Tuple

import numpy as np
import torch
from fairseq.data import AppendTokenDataset, LanguagePairDataset, StripTokenDataset, TruncateDataset

logger = logging.getLogger(__name__)


def _cut(data: Any, sizes: np.ndarray, limit: int, eos: int, side: str) -> Tuple[Any, np.ndarray]:
    over = np.flatnonzero(sizes > limit)
    if not len(over):
        return data, sizes
    logger.warning(
        f"{len(over)} {side} sentences are longer than {limit} tokens and are cut there, first ids {over[:5].tolist()}"
    )
    if isinstance(data, list):
        end = torch.tensor([eos])
        return [x if len(x) <= limit else torch.cat([x[: limit - 1], end.to(x)]) for x in data], sizes.clip(max=limit)
    return AppendTokenDataset(TruncateDataset(StripTokenDataset(data, eos), limit - 1), eos), sizes.clip(max=limit)


def cut_to(dataset: Any, max_positions: Any) -> None:
    """Cut both sides of a language-pair dataset to the limits, in place, keeping ``</s>``. Others are left alone."""
    if not isinstance(max_positions, (tuple, list)) or not isinstance(dataset, LanguagePairDataset):
        return
    eos = dataset.eos if dataset.eos is not None else dataset.src_dict.eos()
    source, target = max_positions
    dataset.src, dataset.src_sizes = _cut(dataset.src, np.asarray(dataset.src_sizes), source, eos, "source")
    dataset.sizes = dataset.src_sizes
    if dataset.tgt is not None:
        dataset.tgt, dataset.tgt_sizes = _cut(dataset.tgt, np.asarray(dataset.tgt_sizes), target, eos, "target")
        dataset.sizes = np.vstack((dataset.src_sizes, dataset.tgt_sizes)).T


def at_least_longest(dataset: Any, max_tokens: Optional[int]) -> Optional[int]:
    if max_tokens is None or not len(dataset):
        return max_tokens
    sizes = getattr(dataset, "sizes", None)
    longest = int(max(map(dataset.num_tokens, range(len(dataset)))) if sizes is None else np.max(sizes))
    if max_tokens >= longest:
        return max_tokens
    logger.warning(f"--max-tokens {max_tokens} is raised to {longest}, the longest sentence")
    return longest
