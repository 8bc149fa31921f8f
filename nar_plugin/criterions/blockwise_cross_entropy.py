"""Token cross-entropy of several heads: the objective of blockwise parallel decoding.

Stern, Shazeer & Uszkoreit 2018, section 6: the mean over the heads, or one of them a minibatch. Divided by the target's
tokens, whichever heads there are and although the later ones have fewer to say, so that the mean over draws of a head
is the mean over heads.
"""

from typing import Any, List

from fairseq.criterions import register_criterion

from . import base


@register_criterion("blockwise_cross_entropy", dataclass=base.TermsConfig)
class BlockwiseCrossEntropyCriterion(base.TermsCriterion):
    name = "blockwise_cross_entropy"

    def sample_size(self, terms: List[Any], sums: base.Sums) -> int:
        return sums["ntokens"] if self.normalize == "token" else sums["nsentences"]
