"""The best stop that a rule could make."""

import itertools

import pytest
import torch
from sacrebleu.metrics import BLEU

from nar_plugin.generators import oracle
from tests.tiny import EOS, PAD


@pytest.mark.parametrize("window", [2, 3, 5])
def test_it_ends_with_the_first_output_that_none_of_the_next_beats(window: int) -> None:
    """LEE-32: by the rule's own words: wait while a later score of the window is higher."""
    for scores in itertools.product(range(3), repeat=6):
        stop = 0
        while any(later > scores[stop] for later in scores[stop + 1 : stop + window]):
            stop += 1
        assert oracle.first_unbeaten(scores, window) == stop


def test_a_sentence_is_scored_by_its_ids_without_specials() -> None:
    expected = BLEU(tokenize="none", effective_order=True).sentence_score("5 6 7 9", ["5 6 7 8 9"]).score
    found = oracle.sentence_bleu(torch.tensor([5, 6, 7, 9, EOS, PAD]), torch.tensor([5, 6, 7, 8, 9, EOS]), (PAD, EOS))
    assert found == expected > 0
    assert oracle.sentence_bleu(torch.tensor([5, 6]), torch.tensor([5, 6, PAD]), (PAD,)) == pytest.approx(100)
    assert oracle.sentence_bleu(torch.tensor([EOS]), torch.tensor([5, 6]), (EOS,)) == 0


def test_every_row_has_its_own_reference_and_a_window_of_at_least_two() -> None:
    outputs = [[torch.tensor(row) for row in rows] for rows in ([[5, 6], [5, 7], [8, 9]], [[5, 6], [5, 7], [8, 9]])]
    references = torch.tensor([[5, 7], [8, 9]])
    assert oracle.best_stops(outputs, references, 1, (PAD,)) == [1, 0]
    assert oracle.best_stops(outputs, references, 9, (PAD,)) == [1, 2]
