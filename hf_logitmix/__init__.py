"""Train Transformers classifiers with LogitMix, Mixup and friends: swap `Trainer` for `MixTrainer`, name a method."""

# ruff: noqa: E402
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_logitmix import _requirements

_requirements.require(_requirements.CORE, "hf_logitmix")

from hf_logitmix._version import __version__

if TYPE_CHECKING:
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
# What is imported when it is first asked for, so that `hf-logitmix --help` waits for neither torch nor transformers.
_PLACES = {
    "CalibratedImageClassificationPipeline": "calibration.pipelines",
    "CalibratedTextClassificationPipeline": "calibration.pipelines",
    "METHODS": "methods",
    "Method": "methods",
    "MixCollator": "training.collator",
    "MixPlan": "plan",
    "MixTrainer": "training.trainer",
    "MixTrainerMixin": "training.trainer",
    "MixTrainingArguments": "training.arguments",
    "MixedOutput": "objectives",
    "calibrate": "calibration.served",
    "calibrated_logits": "calibration.served",
    "calibrated_pipeline": "calibration.pipelines",
    "fold_temperature": "calibration.folding",
    "get_method": "methods",
    "mixed_forward": "forward",
}

if not TYPE_CHECKING:  # where it would hide misspelled names

    def __getattr__(name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
