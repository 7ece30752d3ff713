"""Train Transformers classifiers with LogitMix, Mixup and friends: swap `Trainer` for `MixTrainer`, name a method."""

# ruff: noqa: E402
from hf_logitmix import _requirements

_requirements.require(_requirements.CORE, "hf_logitmix")

from hf_logitmix._version import __version__
from hf_logitmix.calibration.folding import fold_temperature
from hf_logitmix.calibration.pipelines import (
    CalibratedImageClassificationPipeline,
    CalibratedTextClassificationPipeline,
    calibrated_pipeline,
)
from hf_logitmix.calibration.served import calibrate, calibrated_logits
from hf_logitmix.forward import mixed_forward
from hf_logitmix.methods import METHODS, Method, get_method
from hf_logitmix.objectives import MixedOutput
from hf_logitmix.plan import MixPlan
from hf_logitmix.training.arguments import MixTrainingArguments
from hf_logitmix.training.collator import MixCollator
from hf_logitmix.training.trainer import MixTrainer, MixTrainerMixin

__all__ = [
    "METHODS",
    "CalibratedImageClassificationPipeline",
    "CalibratedTextClassificationPipeline",
    "Method",
    "MixCollator",
    "MixPlan",
    "MixTrainer",
    "MixTrainerMixin",
    "MixTrainingArguments",
    "MixedOutput",
    "__version__",
    "calibrate",
    "calibrated_logits",
    "calibrated_pipeline",
    "fold_temperature",
    "get_method",
    "mixed_forward",
]
