"""How well a mask-predict model fills the masks of references, and how well it knows their lengths."""

from typing import Any, Dict, Iterator, List, Tuple

import torch
from torch import Tensor

from nar_plugin.methods import mask_predict, noise
from nar_plugin.methods.symbols import right_padded

from ..errors import ToolError

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
CANDIDATES = (1, 2, 5)
SEED = 1


def counts_of(lengths: Tensor, share: float) -> Tensor:
    """Tokens to mask, (B,): the share rounded to whole tokens, at least 1."""
    return (lengths * share).round().long().clamp(min=1)


def batches(system: Any) -> Iterator[Tuple[Dict[str, Tensor], Tensor, Tensor]]:
    """Inputs of the model, targets (B, T) and noise keys (B,)."""
    for sample in system.batches():
        sample = system.on_device(sample)
        yield sample["net_input"], sample["target"], noise.training_keys(SEED, 0, sample["id"])


@torch.no_grad()
def accuracy(system: Any) -> Tuple[Dict[float, List[float]], List[float]]:
    """By share: masked tokens, right ones, summed bits. And sentences, then right lengths for each of CANDIDATES."""
    model = system.models[0]
    if not hasattr(model, "masked_logits"):
        raise ToolError(f"{system.paths[0]} is no mask-predict model")
    tokens: Dict[float, List[float]] = {share: [0, 0, 0.0] for share in SHARES}
    lengths: List[float] = [0] * (1 + len(CANDIDATES))
    for net_input, target, keys in batches(system):
        target, is_token = right_padded(target, model.symbols.pad)
        encoded, count = model.encode(net_input), is_token.sum(1)
        for share, sums in tokens.items():
            masked = mask_predict.random_mask(keys, is_token, counts_of(count, share))
            log_probs = model.masked_logits(encoded, target, masked).float().log_softmax(-1)
            sums[0] += int(masked.sum())
            sums[1] += int((log_probs.argmax(-1) == target[masked]).sum())
            sums[2] -= float(log_probs.gather(1, target[masked][:, None]).sum() / torch.tensor(2.0).log())
        ranked = model.length_log_probs(encoded).topk(max(CANDIDATES)).indices == count[:, None]
        lengths[0] += len(count)
        for i, candidates in enumerate(CANDIDATES):
            lengths[1 + i] += int(ranked[:, :candidates].sum())
    return tokens, lengths
