"""Axis 2, objectives: which losses of which logits. Pure functions of tensors; they know no model and no Trainer."""

from hf_logitmix.objectives.base import Loss, MixedOutput, Objective
from hf_logitmix.objectives.cross_entropy import CrossEntropy
from hf_logitmix.objectives.logitmix import LogitMix
from hf_logitmix.objectives.mixed import MixedCrossEntropy

__all__ = ["CrossEntropy", "LogitMix", "Loss", "MixedCrossEntropy", "MixedOutput", "Objective"]
