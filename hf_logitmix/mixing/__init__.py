"""Axis 1, mixing: how two inputs become one. It knows models and inputs, but no losses and no Trainer."""

from hf_logitmix.mixing.base import Mixing, NoMixing
from hf_logitmix.mixing.image import CutMix
from hf_logitmix.mixing.linear import Linear
from hf_logitmix.mixing.puzzle import PuzzleMix

__all__ = ["CutMix", "Linear", "Mixing", "NoMixing", "PuzzleMix"]
