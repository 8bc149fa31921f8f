"""Token cross-entropy plus the length: the objective of mask-predict and its kin.

Ghazvininejad et al. 2019, section 3.1: L = Σ_masked smoothed CE + Σ_sentence −log p(N | X). The length counts once a
sentence, so after division by tokens it weighs about one length term to N tokens; fairseq's 0.1 × mean is not used.
"""

from dataclasses import dataclass, field
from typing import Any

from fairseq.criterions import register_criterion
from torch import Tensor

from ..methods.terms import Classes
from . import base


@dataclass
class TokenLengthConfig(base.TermsConfig):
    length_loss_factor: float = field(default=1.0, metadata={"help": "weight of the length term, once a sentence"})


@register_criterion("token_length", dataclass=TokenLengthConfig)
class TokenLengthCriterion(base.TermsCriterion):
    name = "token_length"

    def __init__(self, task: Any, label_smoothing: float, normalize: str, length_loss_factor: float) -> None:
        super().__init__(task, label_smoothing, normalize)
        self.length_loss_factor = length_loss_factor

    def class_loss(self, term: Classes, sums: base.Sums) -> Tensor:
        return self.length_loss_factor * super().class_loss(term, sums)
