"""Calibration as modules of the `evaluate` library, which need no network.

Example:
    >>> ECE().compute(predictions=[[2.0, 0.0], [0.0, 1.0]], references=[0, 1])  # doctest: +ELLIPSIS
    {'ece': 0.194...}
"""

# ruff: noqa: E402
from __future__ import annotations

from hf_logitmix import _requirements

_requirements.require(_requirements.EVALUATE, "hf_logitmix.calibration.evaluate_modules")

from typing import Any, ClassVar

import datasets
import evaluate

from hf_logitmix.calibration.metrics import calibration_metrics
from hf_logitmix.calibration.registry import METRICS

_INPUTS = """
Args:
    predictions: logits, one list of K numbers an example.
    references: class ids.
    n_bins (int): bins of equal width; 10 by default.
"""


class Calibration(evaluate.Metric):
    """All of `hf_logitmix.calibration.metrics.calibration_metrics`; `module` gives a class for one of them."""

    names: ClassVar[tuple[str, ...]] = tuple(METRICS)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=(self.__doc__ or "").strip(),
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, *, predictions: Any, references: Any, n_bins: int = 10) -> dict[str, float]:
        values = calibration_metrics(predictions, references, n_bins)
        return {name: values[name] for name in self.names}


def module(name: str) -> type[Calibration]:
    """The module of one metric of `hf_logitmix.metrics.METRICS`.

    Example:
        >>> module("aurc")().compute(predictions=[[2.0, 0.0], [0.0, 1.0]], references=[0, 1])
        {'aurc': 0.0}

    Raises:
        KeyError: for another name.
    """
    told = METRICS[name].told
    title = name.title().replace("_", "")
    return type(title, (Calibration,), {"names": (name,), "__doc__": f"{told[:1].upper()}{told[1:]}."})


ECE, OE, NLL, Brier = map(module, ("ece", "oe", "nll", "brier"))
