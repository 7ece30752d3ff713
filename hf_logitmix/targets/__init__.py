"""Targets: which row of numbers stands for a label."""

from hf_logitmix.targets.base import OneHot, TargetMatrix, Targets, as_targets
from hf_logitmix.targets.class_similarity import MCEL, mcel
from hf_logitmix.targets.class_weights import Infogain, infogain
from hf_logitmix.targets.learned import GMCEL, SGMCEL
from hf_logitmix.targets.smoothing import LabelSmoothing, label_smoothing
from hf_logitmix.training.training_set import TrainingSet

__all__ = [
    "GMCEL",
    "MCEL",
    "SGMCEL",
    "Infogain",
    "LabelSmoothing",
    "OneHot",
    "TargetMatrix",
    "Targets",
    "TrainingSet",
    "as_targets",
    "infogain",
    "label_smoothing",
    "mcel",
]
