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
import numpy as np

from hf_logitmix.calibration.metrics import calibration_metrics
from hf_logitmix.calibration.registry import METRICS

_INPUTS = """
Args:
    predictions: logits, one list of K numbers an example.
    references: class ids.
"""
_BINS = "    n_bins (int): bins of equal width; 10 by default, or what the module was made with.\n"


class _OfLogits(evaluate.Metric):
    """A module whose predictions are logits."""

    inputs: ClassVar[str] = _INPUTS

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=(self.__doc__ or "").strip(),
            citation="",
            inputs_description=self.inputs,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add logits and class ids of several examples."""
        if predictions is not None and len(predictions):
            self._check(predictions[0])
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add the logits and the class id of one example."""
        self._check(kwargs.get("predictions", prediction))  # by which name combined modules are given it
        super().add(prediction=prediction, reference=reference, **kwargs)

    def _check(self, row: Any) -> None:
        if np.ndim(row) == 0:
            raise ValueError(
                f"{self.name} was given {row!r} as the prediction of an example, and takes its K logits: pass logits, "
                "and combine it with modules of class ids as ArgMax(evaluate.load('accuracy'))."
            )


class Calibration(_OfLogits):
    """All of `hf_logitmix.calibration.metrics.calibration_metrics`; `module` gives a class for one of them.

    Args:
        n_bins: bins of equal width, where ``compute`` is given no other number.
        config_name, others: as `evaluate.Metric`.
    """

    names: ClassVar[tuple[str, ...]] = tuple(METRICS)
    inputs = _INPUTS + _BINS

    def __init__(self, config_name: str | None = None, *, n_bins: int = 10, **others: Any) -> None:
        super().__init__(config_name, **others)
        self.n_bins = n_bins

    def _compute(self, *, predictions: Any, references: Any, n_bins: int | None = None) -> dict[str, float]:
        values = calibration_metrics(predictions, references, self.n_bins if n_bins is None else n_bins)
        return {name: values[name] for name in self.names}


class ArgMax(_OfLogits):
    """A module of class ids, such as accuracy or F1, that takes logits: it is given the class with the highest one.

    So it can be combined with the modules here, which need logits.

    Args:
        module: of `evaluate`, whose predictions are class ids.
        others: as `evaluate.Metric`.

    Example:
        >>> both = evaluate.combine([ECE(), ArgMax(evaluate.load("f1"))])  # doctest: +SKIP
        >>> both.compute(predictions=[[2.0, 0.0], [0.0, 1.0]], references=[0, 1])  # doctest: +SKIP
        {'ece': 0.194..., 'f1': 1.0}
    """

    def __init__(self, module: evaluate.EvaluationModule, **others: Any) -> None:
        super().__init__(**others)
        self.module = module
        self.info.module_name = module.name  # which heads a value that another module gives too

    def _compute(self, *, predictions: Any, references: Any, **options: Any) -> dict[str, float]:
        return self.module.compute(
            predictions=np.argmax(np.asarray(predictions), axis=1), references=references, **options
        )


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
