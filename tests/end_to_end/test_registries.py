"""The names that commands use are ours: the host silently keeps its own class where a name is taken."""

import pytest
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.models import ARCH_MODEL_NAME_REGISTRY, ARCH_MODEL_REGISTRY, MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY

from nar_plugin.architectures import base
from nar_plugin.architectures.blockwise_transformer import BlockwiseTransformerConfig, BlockwiseTransformerModel
from nar_plugin.architectures.ctc import CtcConfig, CtcModel
from nar_plugin.architectures.fertility_nat import FertilityNatConfig, FertilityNatModel
from nar_plugin.architectures.iterative_refinement import IterativeRefinementConfig, IterativeRefinementModel
from nar_plugin.architectures.lanmt_continuous import LanmtContinuousConfig, LanmtContinuousModel
from nar_plugin.architectures.lanmt_refiner import LanmtRefinerConfig, LanmtRefinerModel
from nar_plugin.architectures.latent_transformer import LatentTransformerConfig, LatentTransformerModel
from nar_plugin.architectures.mask_predict import MaskPredictConfig, MaskPredictModel
from nar_plugin.criterions.alignment import AlignmentCriterion
from nar_plugin.criterions.base import TermsConfig
from nar_plugin.criterions.blockwise_cross_entropy import BlockwiseCrossEntropyCriterion
from nar_plugin.criterions.elbo_length import ElboLengthConfig, ElboLengthCriterion
from nar_plugin.criterions.fertility_finetune import FertilityFinetuneConfig, FertilityFinetuneCriterion
from nar_plugin.criterions.score_matching import ScoreMatchingConfig, ScoreMatchingCriterion
from nar_plugin.criterions.token_length import TokenLengthConfig, TokenLengthCriterion
from nar_plugin.tasks.translation_nar import TranslationNarConfig, TranslationNarTask

MODELS = {
    "blockwise_transformer": (BlockwiseTransformerModel, BlockwiseTransformerConfig),
    "ctc": (CtcModel, CtcConfig),
    "fertility_nat": (FertilityNatModel, FertilityNatConfig),
    "iterative_refinement": (IterativeRefinementModel, IterativeRefinementConfig),
    "lanmt_continuous": (LanmtContinuousModel, LanmtContinuousConfig),
    "lanmt_refiner": (LanmtRefinerModel, LanmtRefinerConfig),
    "latent_transformer": (LatentTransformerModel, LatentTransformerConfig),
    "mask_predict": (MaskPredictModel, MaskPredictConfig),
}
CRITERIONS = {
    "alignment": (AlignmentCriterion, TermsConfig),
    "blockwise_cross_entropy": (BlockwiseCrossEntropyCriterion, TermsConfig),
    "elbo_length": (ElboLengthCriterion, ElboLengthConfig),
    "fertility_finetune": (FertilityFinetuneCriterion, FertilityFinetuneConfig),
    "score_matching": (ScoreMatchingCriterion, ScoreMatchingConfig),
    "token_length": (TokenLengthCriterion, TokenLengthConfig),
}


def test_the_task_is_ours() -> None:
    assert TASK_REGISTRY["translation_nar"] is TranslationNarTask
    assert TASK_DATACLASS_REGISTRY["translation_nar"] is TranslationNarConfig


@pytest.mark.parametrize("name", MODELS)
def test_the_model_and_its_presets_are_ours(name: str) -> None:
    model, config = MODELS[name]
    assert MODEL_REGISTRY[name] is model and MODEL_DATACLASS_REGISTRY[name] is config
    for arch in (name, *(f"{name}_{size}" for size in base.SIZES)):
        assert ARCH_MODEL_REGISTRY[arch] is model and ARCH_MODEL_NAME_REGISTRY[arch] == name


@pytest.mark.parametrize("name", CRITERIONS)
def test_the_criterion_is_ours(name: str) -> None:
    criterion, config = CRITERIONS[name]
    assert CRITERION_REGISTRY[name] is criterion and CRITERION_DATACLASS_REGISTRY[name] is config


def test_no_model_or_criterion_of_the_plugin_is_missing_above() -> None:
    ours = {name for name, model in MODEL_REGISTRY.items() if model.__module__.startswith("nar_plugin")}
    assert ours == set(MODELS)
    ours = {name for name, kind in CRITERION_REGISTRY.items() if kind.__module__.startswith("nar_plugin")}
    assert ours == set(CRITERIONS)
