"""The plan of a mixed batch, under the name that scripts import it by; see `hf_logitmix.pairing`."""

from hf_logitmix.pairing.plan import MixPlan, check_plan, sample_plan

__all__ = ["MixPlan", "check_plan", "sample_plan"]
