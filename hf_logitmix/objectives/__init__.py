"""Axis 2, objectives: which losses of which logits. Their mathematics are pure functions of tensors."""

from hf_logitmix.objectives.base import Loss, Objective
from hf_logitmix.objectives.cross_entropy import CrossEntropy
from hf_logitmix.objectives.distillation import Distillation
from hf_logitmix.objectives.lamix import LaMix
from hf_logitmix.objectives.logitmix import LogitMix
from hf_logitmix.objectives.mixed import MixedCrossEntropy
from hf_logitmix.output import MixedOutput

__all__ = [
    "CrossEntropy",
    "Distillation",
    "LaMix",
    "LogitMix",
    "Loss",
    "MixedCrossEntropy",
    "MixedOutput",
    "Objective",
]
