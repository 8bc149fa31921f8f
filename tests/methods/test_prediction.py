"""From logits to words."""

import pytest
import torch

from nar_plugin.methods import noise, prediction


def test_predictions_are_the_best_ids_with_the_models_own_probabilities() -> None:
    logits = torch.tensor([[[1.0, 5.0, 3.0, 2.0]], [[0.0, 1.0, 2.0, 4.0]]])
    token, score = prediction.most_probable(logits.clone(), ())
    assert token.tolist() == [[1], [3]]
    torch.testing.assert_close(score, logits.log_softmax(-1).amax(-1))


def test_banned_ids_are_never_predicted_and_keep_their_mass() -> None:
    """CMLM-10: a ban changes the choice, not the probability of what is chosen."""
    logits = torch.tensor([[1.0, 5.0, 3.0, 2.0]])
    token, score = prediction.most_probable(logits.clone(), (1,))
    assert token.tolist() == [2]
    torch.testing.assert_close(score, logits.log_softmax(-1)[:, 2])
    assert prediction.most_probable(logits.clone(), (1, 2))[0].tolist() == [3]
    assert prediction.most_probable(logits - 9, (1,))[0].tolist() == [2]


@pytest.mark.parametrize("size", [1, 7, 8, 24, 64, 127, 128, 129, 640, 1000])
def test_the_greatest_is_that_of_torch_and_of_equals_the_first(size: int) -> None:
    x = torch.randint(-9, 9, (40, 3, size), generator=torch.Generator().manual_seed(size)).float()
    best, place = prediction.greatest(x)
    assert best.equal(x.amax(-1)) and place.equal((x == best[..., None]).byte().argmax(-1))
    assert prediction.greatest(x[0, 0])[1].equal(place[0, 0])


def test_half_precision_logits_are_scored_in_float32() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0]]).half()
    assert prediction.most_probable(logits.clone(), ())[1].dtype == torch.float32


def test_samples_are_as_frequent_as_their_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]]).expand(40000, -1)
    draw = noise.uniform(torch.arange(40000), 1)[:, 0]
    counts = prediction.sampled(logits, draw).bincount(minlength=4)
    expected = logits[0].softmax(0) * 40000
    assert ((counts - expected) ** 2 / expected).sum() < 21  # 3 degrees of freedom, 1 - 1e-4
    assert prediction.sampled(logits[:7], draw[:7]).equal(prediction.sampled(logits, draw)[:7])


def test_the_ends_of_the_draw_are_words_too() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, -1)
    assert prediction.sampled(logits, torch.tensor([0.0, 1 - 2.0**-24])).tolist() == [1, 2]


def test_the_mean_is_of_probabilities_and_one_run_is_itself() -> None:
    logits = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(prediction.mean_log_probs(logits).exp(), logits.softmax(-1).mean(1))
    torch.testing.assert_close(prediction.mean_log_probs(logits[:, :1]), logits[:, 0].log_softmax(-1))
