"""Accuracy of masked tokens: what is masked, and the same figures as one sentence and one token at a time."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List

import pytest
import torch

from nar_tools.errors import ToolError
from nar_tools.measure import masks
from tests.end_to_end.programs import TASK, complains, console, script
from tests.tiny import PAD, tiny_model

EOS = 2


def system_of(model: Any, sources: List[List[int]], targets: List[List[int]]) -> Any:
    """One batch, as a system gives it."""

    def padded(rows: List[List[int]]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, PAD)

    sample = {"net_input": {"src_tokens": padded(sources)}, "target": padded(targets), "id": torch.arange(len(sources))}
    return SimpleNamespace(models=[model], batches=lambda: [sample], on_device=lambda s: s, paths=["model.pt"])


def test_a_share_is_rounded_to_tokens_and_is_never_none() -> None:
    lengths = torch.tensor([1, 4, 10])
    assert masks.counts_of(lengths, 0.0).tolist() == [1, 1, 1]
    assert masks.counts_of(lengths, 0.75).tolist() == [1, 3, 8]
    assert masks.counts_of(lengths, 1.0).tolist() == [1, 4, 10]


def test_the_figures_are_those_of_one_sentence_at_a_time() -> None:
    model = tiny_model().eval()
    sources, targets = [[5, 6, 7, EOS], [8, EOS]], [[9, 10, EOS], [11, 5, 6, 7, EOS]]
    tokens, lengths = masks.accuracy(system_of(model, sources, targets))
    assert tokens[0.0][0] == 2 and tokens[1.0][0] == 8 and tokens[0.5][0] == 2 + 2
    right, bits, first = 0, 0.0, 0
    with torch.no_grad():
        for source, target in zip(sources, targets, strict=True):
            encoded = model.encode({"src_tokens": torch.tensor([source])})
            hidden = torch.full((1, len(target)), model.symbols.mask)
            log_probs = model.project(model.decode(encoded, hidden, None))[0].log_softmax(-1)
            right += sum(int(log_probs[i].argmax()) == token for i, token in enumerate(target))
            bits -= sum(float(log_probs[i, token]) for i, token in enumerate(target)) / math.log(2)
            first += int(encoded.length_log_probs.argmax()) == len(target)
    assert tokens[1.0][1] == right and tokens[1.0][2] == pytest.approx(bits, rel=1e-4)
    assert lengths[:2] == [2, first]


def test_another_model_is_refused() -> None:
    system = system_of(torch.nn.Linear(1, 1), [[5, EOS]], [[5, EOS]])
    with pytest.raises(ToolError, match="^model.pt is no mask-predict model$"):
        masks.accuracy(system)


@pytest.mark.slow
def test_the_program_prints_a_line_a_share_and_one_error_line(data: Path, student: Path, teacher: Path) -> None:
    done = console([script("nar"), "accuracy", data, *TASK, "--path", student])
    assert done.code == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "masked",
        "one",
        "10",
        "25",
        "50",
        "75",
        "90",
        "100",
    ] + ["length"] * 3
    complains(console([script("nar"), "accuracy", data, *TASK, "--path", teacher]), "nar accuracy: ", "no mask-predict")
    complains(console([script("nar"), "accuracy", data, *TASK, "--path", "none.pt"]), "nar accuracy: ", "none.pt")
