"""Calibration metrics, under the name that scripts import it by; see `hf_logitmix.calibration.metrics`."""

from hf_logitmix.calibration.metrics import (
    calibration_by_class,
    calibration_metrics,
    calibration_of,
    one_class_remark,
    scaled_metrics,
)
from hf_logitmix.calibration.registry import METRICS, Metric
from hf_logitmix.calibration.rows import as_logits_and_labels
from hf_logitmix.calibration.statistics import bin_means, bin_of

__all__ = [
    "METRICS",
    "Metric",
    "as_logits_and_labels",
    "bin_means",
    "bin_of",
    "calibration_by_class",
    "calibration_metrics",
    "calibration_of",
    "one_class_remark",
    "scaled_metrics",
]
