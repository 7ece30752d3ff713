"""Pairing: who meets whom in a batch, how much of each input, and how much of each label."""

from hf_logitmix.pairing.base import Pairing
from hf_logitmix.pairing.distributions import Beta, Constant, Distribution, Uniform
from hf_logitmix.pairing.plan import MixPlan, check_plan, sample_plan
from hf_logitmix.pairing.random_pairs import RandomPairs

__all__ = [
    "Beta",
    "Constant",
    "Distribution",
    "MixPlan",
    "Pairing",
    "RandomPairs",
    "Uniform",
    "check_plan",
    "sample_plan",
]
