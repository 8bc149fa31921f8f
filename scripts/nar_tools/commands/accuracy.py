"""Measures how well a mask-predict model fills masks of references, by the share that is masked, and predicts lengths.

Example:

    nar accuracy DATA_BIN --path student.pt --user-dir nar_plugin --task translation_nar --gen-subset valid

The flags are those of fairseq-generate. For each share of masked tokens (drawn at random, </s> among them, at least one
token): how many of them the most probable prediction gets right, and their cross-entropy in bits. With all tokens
masked, the model sees what the first decoding pass sees; with one masked, the best that the last pass can see. Then the
lengths: for how many sentences the true length (with </s>) is the model's first guess, or among its first two or five.
"""

from typing import Dict, List, Sequence

from ..cli import parser


def lines_of(tokens: Dict[float, List[float]], lengths: List[float], candidates: Sequence[int]) -> List[str]:
    """What is printed."""
    lines = ["masked %  tokens  right %  bits"]
    for share, (count, right, bits) in tokens.items():
        name = "one" if share == 0 else f"{100 * share:.0f}"
        lines.append(f"{name:>8}  {count:6.0f}  {100 * right / count:7.2f}  {bits / count:4.2f}")
    for first, right in zip(candidates, lengths[1:]):
        lines.append(f"length among the first {first}: {100 * right / lengths[0]:.2f} %")
    return lines


def main(argv: Sequence[str]) -> None:
    if not argv or {"-h", "--help"} & set(argv):
        options = parser("accuracy", __doc__)
        options.usage = "nar accuracy DATA_BIN --path CHECKPOINT [flags of fairseq-generate]"
        options.print_help()
        return
    from ..measure.system import System, quietly

    with quietly():
        from ..measure import masks

        tokens, lengths = masks.accuracy(System(argv))
    print("\n".join(lines_of(tokens, lengths, masks.CANDIDATES)))
