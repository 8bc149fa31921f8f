"""What glancing shows: as many positions as the formula says, drawn by the key."""

import math

import pytest
import torch

from nar_plugin.methods import ctc, noise

WIDTHS = torch.tensor([12, 9, 6, 12, 3])
IS_CANVAS = torch.arange(12) < WIDTHS[:, None]
KEYS = noise.training_keys(1, 1, torch.arange(5))
SAID = torch.randint(0, 3, (5, 12), generator=torch.Generator().manual_seed(1))
ALIGNED = torch.randint(0, 3, (5, 12), generator=torch.Generator().manual_seed(2))
FITTING = torch.ones(5, dtype=torch.bool)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 1.0])
def test_as_many_are_shown_as_the_share_of_wrong_positions_says(ratio: float) -> None:
    """CTC-11: ⌊ratio · d⌋ of the canvas, and what is shown is the alignment's."""
    shown = ctc.glimpse(KEYS, SAID, ALIGNED, IS_CANVAS, FITTING, ratio)
    for row, said, aligned, width in zip(*(x.tolist() for x in (shown, SAID, ALIGNED, WIDTHS)), strict=True):
        wrong = sum(a != b for a, b in zip(said[:width], aligned[:width], strict=True))
        places = [i for i, token in enumerate(row) if token != ctc.HIDDEN]
        assert len(places) == math.floor(ratio * wrong) and all(i < width for i in places)
        assert all(row[i] == aligned[i] for i in places)


def test_nothing_is_shown_of_what_is_right_or_does_not_fit() -> None:
    """CTC-11."""
    assert (ctc.glimpse(KEYS, ALIGNED, ALIGNED, IS_CANVAS, FITTING, 1.0) == ctc.HIDDEN).all()
    fitting = torch.tensor([True, False, True, False, True])
    shown = (ctc.glimpse(KEYS, 1 - ALIGNED, ALIGNED, IS_CANVAS, fitting, 1.0) != ctc.HIDDEN).any(1)
    assert shown.equal(fitting)


def test_every_position_may_be_shown_and_the_key_alone_decides() -> None:
    """CTC-11: right ones too; another epoch draws others."""
    counts = torch.zeros(12)
    said, aligned = torch.zeros(1, 12).long(), torch.zeros(1, 12).long()
    said[0, :4] = 1
    for epoch in range(400):
        key = noise.training_keys(1, epoch, torch.tensor([3]))
        shown = ctc.glimpse(key, said, aligned, IS_CANVAS[:1], FITTING[:1], 0.75)
        assert shown.equal(ctc.glimpse(key, said, aligned, IS_CANVAS[:1], FITTING[:1], 0.75))
        counts += shown[0] != ctc.HIDDEN
    assert counts.sum() == 400 * 3
    assert counts.min() > 60 and counts.max() < 140
