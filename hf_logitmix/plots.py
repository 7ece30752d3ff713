"""Pictures, under the name that scripts import it by; see `hf_logitmix.calibration.plots`."""

from hf_logitmix.calibration.plots import (
    class_matrix,
    reliability_diagram,
    risk_coverage,
)

__all__ = [
    "class_matrix",
    "reliability_diagram",
    "risk_coverage",
]
