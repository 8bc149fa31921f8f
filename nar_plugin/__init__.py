"""Fast sequence generation as a fairseq plugin: ``--user-dir nar_plugin``.

The host imports nothing but ``tasks`` by itself, and not even that where this package is imported already, so
everything that registers is imported here, explicitly and in a fixed order.
"""

from . import compat

compat.apply()

from .architectures import (  # noqa: E402,F401
    blockwise_transformer,
    ctc,
    fertility_nat,
    iterative_refinement,
    lanmt,
    lanmt_continuous,
    lanmt_refiner,
    latent_transformer,
    mask_predict,
)
from .criterions import (  # noqa: E402,F401
    alignment,
    blockwise_cross_entropy,
    elbo_length,
    fertility_finetune,
    score_matching,
    token_length,
)  # noqa: E402,F401
from .tasks import translation_nar  # noqa: E402,F401

__version__ = "0.1.0"
