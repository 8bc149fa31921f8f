"""Fine-tuning of fertilities beside a teacher, term by term."""

from typing import Any

import pytest
import torch

from nar_plugin import compat
from nar_plugin.criterions.fertility_finetune import RELEASED_SHARE, FertilityFinetuneCriterion
from nar_plugin.methods import fertility_nat as method
from nar_plugin.methods import noise
from nar_plugin.methods.contract import UsageError
from tests import tiny

SOURCES, TARGETS = tiny.random_rows(6, 6, seed=71), tiny.random_rows(6, 6, seed=72)
SAMPLE = tiny.sample_of(SOURCES, TARGETS)


@pytest.fixture(autouse=True)
def transformer(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = tiny.tiny_transformer()
    monkeypatch.setattr(compat, "load_transformer", lambda path, task: found)
    return found


def nat() -> Any:
    return tiny.tiny_model(arch="fertility_nat_tiny")


def criterion(share: float = 0.25, form: str = "paper", is_training: bool = True) -> Any:
    found = FertilityFinetuneCriterion(tiny.stand_in_task(), 0.0, "token", "teacher.pt", share, form)
    return found.train(is_training)


def loss(share: float, form: str = "paper", is_training: bool = True) -> float:
    return float(criterion(share, form, is_training)(nat(), SAMPLE)[0].detach())


def gradients(share: float, form: str = "paper", drawn: Any = None) -> dict[str, torch.Tensor]:
    model = nat()
    criterion(share, form)(model, SAMPLE)[0].backward()
    return {name: torch.zeros(()) if w.grad is None else w.grad for name, w in model.named_parameters()}


def test_without_a_share_it_is_the_loss_of_before() -> None:
    """FERT-7: and every term is as large as its share says."""
    before = float(tiny.criterion()(nat(), SAMPLE)[0].detach())
    assert loss(0.0) == pytest.approx(before, rel=1e-6)
    none, some, whole = (loss(share) for share in (0.0, 0.25, 1.0))
    assert some == pytest.approx(0.75 * none + 0.25 * whole, rel=1e-4) and abs(whole - none) > 1
    judged = loss(1.0, is_training=False)
    assert loss(0.4, is_training=False) == pytest.approx(0.6 * none + 0.4 * judged, rel=1e-4)


def parts(model: Any, found: Any) -> tuple[Any, Any, Any]:
    """What a definition needs: terms, the teacher's sources."""
    words, facts = tiny.terms_of(model, SAMPLE)
    return words, facts, found.encoded(SAMPLE["net_input"], torch.device("cpu"))


@torch.no_grad()
def test_the_teacher_reads_what_the_student_says(transformer: Any) -> None:
    """FERT-8: its probabilities at a word are given the student's words before it, sentence by sentence."""
    model, found = nat(), criterion(1.0, is_training=False)
    words, facts, encoded = parts(model, found)
    said = words.logits.index_fill(-1, torch.tensor([tiny.PAD, tiny.BOS]), -torch.inf).argmax(-1)
    rows = said.split(facts.is_token.sum(1).tolist())
    total = 0.0
    for source, row, logits in zip(SOURCES, rows, words.logits.split([len(r) for r in rows]), strict=True):
        alone = transformer.encoder(**tiny.net_input_of([source]))
        output = transformer.decoder(torch.tensor([[tiny.EOS, *row.tolist()[:-1]]]), encoder_out=alone)[0][0]
        p, q = logits.log_softmax(-1), output.log_softmax(-1)
        total += float((p.exp() * (p - q)).sum())
    assert loss(1.0, is_training=False) == pytest.approx(total, rel=1e-4)
    released = loss(1.0, "release", is_training=False)
    entropy = -float((words.logits.log_softmax(-1).exp() * words.logits.log_softmax(-1)).sum())
    assert released == pytest.approx(total + entropy, rel=1e-4)


def test_the_teacher_is_left_as_it_was(transformer: Any) -> None:
    """FERT-8: neither trained nor saved with the objective, nor in another mode."""
    before = {name: weight.clone() for name, weight in transformer.state_dict().items()}
    asked = {name: weight.requires_grad for name, weight in transformer.named_parameters()}
    found = criterion()
    found(nat().train(), SAMPLE)[0].backward()
    assert not transformer.training and not found.state_dict() and not list(found.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in transformer.state_dict().items())
    assert asked == {name: weight.requires_grad for name, weight in transformer.named_parameters()}
    assert all(weight.grad is None for weight in transformer.parameters())


def drawn_alone(form: str = "paper", share: float = 1.0) -> dict[str, torch.Tensor]:
    """Gradients of L_RL: all less those of a validation, which has none."""
    model, found = nat(), criterion(share, form)
    words, facts, encoded = parts(model, found)
    found.drawn_loss(encoded, facts, SAMPLE["columns"]["keys"], {}).backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def test_drawn_fertilities_teach_what_predicts_fertilities_alone() -> None:
    """FERT-9: head, encoder and the source's embeddings, by the difference of two losses times ∇ log p; not at pads."""
    found = drawn_alone()
    assert {name.split(".")[0] for name in found} == {"fertility_head", "encoder", "source_embedding"}
    model, loss_of = nat(), criterion(1.0)
    _, facts, encoded = parts(model, loss_of)
    draws = noise.uniform(noise.fold(SAMPLE["columns"]["keys"], 0), facts.log_probs.size(1))
    drawn, middle = method.sampled(facts.log_probs, draws), method.average(facts.log_probs)
    with torch.no_grad():
        reward, base = (loss_of.mean_divergence(encoded, *facts.write(f)) for f in (drawn, middle))
    plain = sum(
        len(TARGETS[b] + [0]) * float(reward[b] - base[b]) * facts.log_probs[b, s, int(drawn[b, s])]
        for b, source in enumerate(SOURCES)
        for s in range(len(source))
    )
    (wanted,) = torch.autograd.grad(plain, model.fertility_head.weight)
    torch.testing.assert_close(found["fertility_head.weight"], wanted, atol=1e-3, rtol=1e-4)
    assert bool((reward - base).abs().max() > 0.1)


def test_where_what_is_drawn_is_the_average_nothing_is_learnt_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """FERT-9: in validation nothing is drawn."""
    monkeypatch.setattr(method, "sampled", lambda log_probs, draw: method.average(log_probs))
    assert all(float(one.abs().max()) < 1e-6 for one in drawn_alone().values())
    with_draws, without = loss(0.5), loss(0.5, is_training=False)
    assert with_draws == pytest.approx(without, rel=1e-6)


def test_the_released_form_has_its_own_weights() -> None:
    """FERT-7: no entropy, and the drawn loss at a tenth whatever the share."""
    drawn = loss(1.0) - loss(1.0, is_training=False)
    assert abs(drawn) > 0.1 and RELEASED_SHARE == 0.1
    assert loss(0.3) - loss(0.3, is_training=False) == pytest.approx(0.3 * drawn, rel=1e-3)
    shares = [loss(share, "release") - loss(share, "release", is_training=False) for share in (0.25, 0.75)]
    assert shares[0] == pytest.approx(shares[1], rel=1e-3) and abs(shares[0]) > 0.01


def test_splitting_a_batch_changes_nothing() -> None:
    """FERT-7: each sentence's losses are its own."""
    model, loss_of = nat(), criterion(0.5)
    whole = float(loss_of(model, SAMPLE)[0].detach())
    each = [tiny.sample_of([s], [t], first_id=i) for i, (s, t) in enumerate(zip(SOURCES, TARGETS, strict=True))]
    assert sum(float(loss_of(model, one)[0].detach()) for one in each) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("teacher.pt", 1.5, "paper"), "--finetune-lambda 1.5: it needs a number from 0 to 1"),
        (("", 0.25, "paper"), "needs --finetune-teacher"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(given: Any, words: str) -> None:
    with pytest.raises(UsageError) as error:
        FertilityFinetuneCriterion(tiny.stand_in_task(), 0.0, "token", *given)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_another_architecture_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="trains an --arch fertility_nat"):
        criterion()(tiny.tiny_model(), SAMPLE)
