"""Scaling after training, under the name that scripts import it by.

See `hf_logitmix.calibration.temperature`, `.vector_scaling` and `.prediction_sets`.
"""

from hf_logitmix.calibration.prediction_sets import PredictionSets, fit_prediction_sets, prediction_sets
from hf_logitmix.calibration.temperature import Temperature, cross_fit, fit_temperature, fit_ts_mix
from hf_logitmix.calibration.vector_scaling import VectorScaling, fit_vector_scaling

__all__ = [
    "PredictionSets",
    "Temperature",
    "VectorScaling",
    "cross_fit",
    "fit_prediction_sets",
    "fit_temperature",
    "fit_ts_mix",
    "fit_vector_scaling",
    "prediction_sets",
]
