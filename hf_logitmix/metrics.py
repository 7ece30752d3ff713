"""Calibration metrics, under the name that scripts import it by; see `hf_logitmix.calibration.metrics`."""

from hf_logitmix.calibration.metrics import (
    as_logits_and_labels,
    bin_means,
    bin_of,
    calibration_metrics,
    calibration_of,
    one_class_remark,
)

__all__ = [
    "as_logits_and_labels",
    "bin_means",
    "bin_of",
    "calibration_metrics",
    "calibration_of",
    "one_class_remark",
]
