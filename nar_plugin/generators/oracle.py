"""The best stop that a rule could make, for comparison: it looks at the references.

Lee, Mansimov & Cho 2018, released code: a sentence ends with the first output that none of the next W − 1 beats.
"""

from typing import Sequence

from sacrebleu.metrics import BLEU
from torch import Tensor

_SENTENCE_BLEU = BLEU(tokenize="none", effective_order=True)


def sentence_bleu(tokens: Tensor, reference: Tensor, ignored: Sequence[int]) -> float:
    """BLEU of (T,) ids against (N,) ids, on the ids themselves (sub-words are not joined), 0 … 100."""
    output, wanted = (" ".join(str(i) for i in row.tolist() if i not in ignored) for row in (tokens, reference))
    return _SENTENCE_BLEU.sentence_score(output, [wanted]).score


def first_unbeaten(scores: Sequence[float], window: int) -> int:
    """The first index of which none of the next ``window`` − 1 scores is higher."""
    return next(k for k, score in enumerate(scores) if score >= max(scores[k : k + window]))


def best_stops(
    outputs: Sequence[Sequence[Tensor]], references: Tensor, window: int, ignored: Sequence[int]
) -> list[int]:
    """Which of a row's outputs, (T,) ids each, the oracle ends it with; ``references``: (R, N) padded ids."""
    scored = (
        [sentence_bleu(tokens, reference, ignored) for tokens in row]
        for row, reference in zip(outputs, references, strict=True)
    )
    return [first_unbeaten(scores, max(2, window)) for scores in scored]
