"""Pairing: who meets whom in a batch, how much of each input, and how much of each label."""

from hf_logitmix.pairing.base import Pairing
from hf_logitmix.pairing.c_mixup import CMixup
from hf_logitmix.pairing.distributions import Beta, Constant, Distribution, Uniform
from hf_logitmix.pairing.mutual_pairs import MutualPairs
from hf_logitmix.pairing.plan import MixPlan, check_plan, sample_plan
from hf_logitmix.pairing.random_pairs import RandomPairs
from hf_logitmix.pairing.remix import Remix

__all__ = [
    "Beta",
    "CMixup",
    "Constant",
    "Distribution",
    "MixPlan",
    "MutualPairs",
    "Pairing",
    "RandomPairs",
    "Remix",
    "Uniform",
    "check_plan",
    "sample_plan",
]
