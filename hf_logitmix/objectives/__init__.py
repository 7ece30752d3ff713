"""Objectives: which logits are compared with what, and with which weights."""

from hf_logitmix.objectives.base import Objective, Term, Terms, total_of
from hf_logitmix.objectives.clean import Clean
from hf_logitmix.objectives.distillation import Distillation
from hf_logitmix.objectives.lamix import LaMix
from hf_logitmix.objectives.logitmix import LogitMix
from hf_logitmix.objectives.mit import MIT
from hf_logitmix.objectives.mixed import Mixed
from hf_logitmix.objectives.regmixup import RegMixup
from hf_logitmix.output import MixedOutput

CrossEntropy, MixedCrossEntropy = Clean, Mixed  # their names before the criterion was a choice of its own

__all__ = [
    "MIT",
    "Clean",
    "CrossEntropy",
    "Distillation",
    "LaMix",
    "LogitMix",
    "Mixed",
    "MixedCrossEntropy",
    "MixedOutput",
    "Objective",
    "RegMixup",
    "Term",
    "Terms",
    "total_of",
]
