"""Pictures, under the name that scripts import them by: `hf_logitmix.calibration.plots`, `hf_logitmix.mixing.plots`."""

from hf_logitmix.calibration.plots import class_matrix, reliability_diagram, risk_coverage
from hf_logitmix.mixing.plots import mixed_batch

__all__ = ["class_matrix", "mixed_batch", "reliability_diagram", "risk_coverage"]
