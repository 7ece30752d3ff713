"""Mixing: how two inputs become one, and where in the model. It knows neither objectives nor a Trainer."""

from hf_logitmix.mixing.base import Mixing, NoMixing
from hf_logitmix.mixing.cutmix import CutMix
from hf_logitmix.mixing.linear import Linear
from hf_logitmix.mixing.puzzle import PuzzleMix
from hf_logitmix.mixing.span import SpanMix
from hf_logitmix.mixing.switch import Switch

__all__ = ["CutMix", "Linear", "Mixing", "NoMixing", "PuzzleMix", "SpanMix", "Switch"]
