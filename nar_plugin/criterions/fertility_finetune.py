"""The objective that fine-tunes a model of fertilities beside its teacher.

Gu et al. 2018 (arXiv 1711.02281): L = λ (L_RL + L_BP) + (1 − λ) L_KD. L_KD is the loss of before (``token_length``).
L_BP is the reverse divergence KL(student ‖ teacher) of the words that the student says for the aligned fertilities, the
teacher reading what the student says. L_RL is the same for fertilities drawn from the model, less that for its average
ones, by REINFORCE: it teaches fertilities alone, and in training alone. Each is a mean over the words of a sentence;
sentences count by the words of their reference, so that to split a batch changes nothing.

``--finetune-form release`` is the released code's: cross-entropy in place of the divergence, L_RL at 0.1 and outside of
λ. There the rewards of a batch are centred and their losses summed, which depends on how a batch is split; not here.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, List

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from torch import Tensor

from .. import compat
from ..methods import fertility_nat as method
from ..methods import noise, prediction
from ..methods.contract import UsageError
from ..methods.symbols import shifted
from ..methods.terms import Fertilities, Tokens
from . import base

RELEASED_SHARE = 0.1
"""Of L_RL in the released code, whatever λ is."""


@dataclass
class FertilityFinetuneConfig(base.TermsConfig):
    finetune_teacher: str = field(default="", metadata={"help": "checkpoint of the autoregressive teacher"})
    finetune_lambda: float = field(
        default=0.25, metadata={"help": "share of the losses that the teacher judges, of the loss of before the rest"}
    )
    finetune_form: ChoiceEnum(["paper", "release"]) = field(  # type: ignore[valid-type]
        default="paper",
        metadata={"help": "with the student's entropy and all within the share, or the released code's"},
    )


@register_criterion("fertility_finetune", dataclass=FertilityFinetuneConfig)
class FertilityFinetuneCriterion(base.TermsCriterion):
    """The teacher is no part of it: it is neither trained nor saved. Logs ``divergence_position``, L_BP in nats a word,
    and ``drawn_divergence``, that of drawn fertilities less that of average ones, a sentence. Raises UsageError where
    there is no teacher."""

    name = "fertility_finetune"

    def __init__(
        self,
        task: Any,
        label_smoothing: float,
        normalize: str,
        finetune_teacher: str,
        finetune_lambda: float,
        finetune_form: str,
    ) -> None:
        super().__init__(task, label_smoothing, normalize)
        if not 0 <= finetune_lambda <= 1:
            raise UsageError(f"--finetune-lambda {finetune_lambda}: it needs a number from 0 to 1")
        if not finetune_teacher:
            raise UsageError("--criterion fertility_finetune needs --finetune-teacher, the checkpoint of the teacher")
        self.share, self.is_released = finetune_lambda, str(finetune_form) == "release"
        self.symbols = task.symbols
        try:
            self.teacher = (compat.load_transformer(finetune_teacher, task),)  # in a tuple, lest it be a module of this
        except UsageError as error:
            raise UsageError(f"--finetune-teacher: {error}") from None

    def summed(self, terms: List[Any], sample: Dict[str, Any], sums: base.Sums) -> Tensor:
        """λ (L_RL + L_BP) + (1 − λ) L_KD, times what the sample size will divide by. Raises UsageError for terms of
        another architecture."""
        words = next((term for term in terms if isinstance(term, Tokens)), None)
        facts = next((term for term in terms if isinstance(term, Fertilities)), None)
        if words is None or facts is None:
            raise UsageError("--criterion fertility_finetune trains an --arch fertility_nat")
        loss = (1 - self.share) * super().summed(terms, sample, sums)
        encoded = self.encoded(sample["net_input"], words.logits.device)
        judged = self.divergences(encoded, words.logits, facts.is_token)
        base.add(sums, "nats", "divergence", nats=judged.sum().detach(), positions=facts.is_token.sum())
        loss = loss + self.share * judged.sum()
        if not self.training:
            return loss
        drawn = self.drawn_loss(encoded, facts, sample["columns"]["keys"], sums)
        return loss + (RELEASED_SHARE if self.is_released else self.share) * drawn

    def drawn_loss(self, encoded: Any, facts: Fertilities, keys: Tensor, sums: base.Sums) -> Tensor:
        """L_RL of the batch, each sentence as often as its reference has words."""
        log_probs = facts.log_probs.detach()
        draws = noise.uniform(noise.fold(keys, 0), log_probs.size(1))
        drawn, middle = method.sampled(log_probs, draws), method.average(log_probs)
        loss, baseline = (self.mean_divergence(encoded, *facts.write(found)) for found in (drawn, middle))
        base.add(sums, "nats", "drawn_divergence", nats=(loss - baseline).sum())
        return (facts.is_token.sum(1) * method.reinforced(facts.log_probs, drawn, loss, baseline)).sum()

    @torch.no_grad()
    def encoded(self, net_input: Dict[str, Tensor], device: torch.device) -> Any:
        """The sources as the teacher has them, once a batch."""
        (teacher,) = self.teacher
        sources = {name: x for name, x in net_input.items() if name != "prev_output_tokens"}
        return teacher.to(device).encoder(**sources)

    def divergences(self, encoded: Any, logits: Tensor, is_token: Tensor) -> Tensor:
        """Of (M, V) logits at the real places of (B, T), the teacher reading the most probable words: (B, T) nats, 0 at
        pads."""
        teacher = self.judgement(encoded, logits.detach(), is_token)
        found = method.divergence(logits, teacher, has_entropy=not self.is_released)
        return torch.zeros(is_token.shape, device=is_token.device).masked_scatter(is_token, found)

    def mean_divergence(self, encoded: Any, logits: Tensor, is_token: Tensor) -> Tensor:
        """(B,) nats a word."""
        return self.divergences(encoded, logits, is_token).sum(1) / is_token.sum(1)

    @torch.no_grad()
    def judgement(self, encoded: Any, logits: Tensor, is_token: Tensor) -> Tensor:
        """(M, V) log-probabilities of the teacher at each word, given the student's words before it."""
        (teacher,) = self.teacher
        banned = torch.tensor((self.symbols.pad, self.symbols.bos), device=logits.device)
        _, said = prediction.greatest(logits.float().index_fill(-1, banned, -torch.inf))
        tokens = torch.full(is_token.shape, self.symbols.pad, device=said.device).masked_scatter(is_token, said)
        output = teacher.decoder(shifted(tokens, self.symbols), encoder_out=encoded)
        return teacher.get_normalized_probs(output, log_probs=True)[is_token].float()
