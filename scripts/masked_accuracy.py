"""How well a mask-predict model fills its masks, by how much of the sentence is masked, and how well it knows lengths.

masked_accuracy.py DATA_BIN --path student.pt --user-dir nar_plugin --task translation_nar [--gen-subset valid]

The flags are fairseq-generate's. For each share of masked tokens (a uniform subset, </s> among them, at least one): how
many of them the most probable prediction gets right, and their cross-entropy in bits. With all tokens masked the model
sees what the first decoding pass sees; with one masked, the best that the last pass can see. Then the length: how many
sentences' true length (</s> counted) is the first, or among the first two and five.
"""

import sys
from typing import Dict, Iterator, List, Tuple

import torch
from torch import Tensor

from engine import BenchmarkError, Engine
from nar_plugin.methods import mask_predict, noise
from nar_plugin.methods.symbols import right_padded

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
CANDIDATES = (1, 2, 5)
SEED = 1


def counts_of(lengths: Tensor, share: float) -> Tensor:
    """Tokens to mask, (B,): the share rounded to whole tokens, at least 1."""
    return (lengths * share).round().long().clamp(min=1)


def batches(engine: Engine) -> Iterator[Tuple[Dict[str, Tensor], Tensor, Tensor]]:
    """Inputs of the model, targets (B, T) and noise keys (B,)."""
    for sample in engine.batches():
        sample = engine.on_device(sample)
        yield sample["net_input"], sample["target"], noise.training_keys(SEED, 0, sample["id"])


@torch.no_grad()
def measure(engine: Engine) -> Tuple[Dict[float, List[float]], List[float]]:
    """By share: masked tokens, right ones, summed bits. And sentences, then right lengths for each of CANDIDATES."""
    model = engine.models[0]
    if not hasattr(model, "masked_logits"):
        raise BenchmarkError(f"{engine.paths[0]} is no mask-predict model")
    tokens: Dict[float, List[float]] = {share: [0, 0, 0.0] for share in SHARES}
    lengths: List[float] = [0] * (1 + len(CANDIDATES))
    for net_input, target, keys in batches(engine):
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


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    try:
        tokens, lengths = measure(Engine(sys.argv[1:]))
    except (Exception, SystemExit) as error:
        print(f"masked_accuracy.py: {' '.join(f'{error}'.split())[:300]}", file=sys.stderr)
        sys.exit(2)
    print("masked %  tokens  right %  bits")
    for share, (count, right, bits) in tokens.items():
        name = "one" if share == 0 else f"{100 * share:.0f}"
        print(f"{name:>8}  {count:6.0f}  {100 * right / count:7.2f}  {bits / count:4.2f}")
    for candidates, right in zip(CANDIDATES, lengths[1:]):
        print(f"length among the first {candidates}: {100 * right / lengths[0]:.2f} %")


if __name__ == "__main__":
    main()
