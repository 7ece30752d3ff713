"""Temperature scaling, under the name that scripts import it by; see `hf_logitmix.calibration.temperature`."""

from hf_logitmix.calibration.temperature import (
    cross_fit,
    fit_temperature,
)

__all__ = [
    "cross_fit",
    "fit_temperature",
]
