"""Calibration that travels with a model: fitted once, kept in its config, applied to the logits that it serves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from hf_logitmix.calibration.rows import Rows
from hf_logitmix.calibration.temperature import Temperature, fit_temperature, fit_ts_mix
from hf_logitmix.calibration.vector_scaling import VectorScaling, fit_vector_scaling
from hf_logitmix.models import under_peft_model, unwrap

Scaling = Temperature | VectorScaling

FITS: dict[str, Callable[[Any, Any], Scaling]] = {
    "temperature": fit_temperature,
    "ts_mix": fit_ts_mix,
    "vector": fit_vector_scaling,
}
NAME = "calibration"  # of the entry in a config
FOLDED = "folded_calibration"  # of the entry that lists what is in the weights, and is not applied


def calibrate(
    model: nn.Module,
    logits: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    method: str = "temperature",
    *,
    fitted_on: str = "",
) -> Scaling:
    r"""Fit a scaling of a model's logits and keep it in ``model.config.calibration``, which `save_pretrained` writes.

    It is a dict of plain numbers and texts: ``{"method": "temperature", "temperature": T, "fitted_on": ..., "n": N}``,
    served as :math:`\mathrm{softmax}(z / T)`, or ``{"method": "vector", "weight": [K], "bias": [K], ...}``, served as
    :math:`\mathrm{softmax}(w z + b)`. The weights of the model stay as they are; `fold_temperature` changes them.

    Args:
        model: a classifier with a config; each example has one label.
        logits: [N, K] that this model gave on examples that it was not trained on.
        labels: [N] class ids, or [N, K] rows that sum to 1.
        method: "temperature" (`fit_temperature`), "ts_mix" (`fit_ts_mix`, a temperature too) or "vector"
            (`fit_vector_scaling`).
        fitted_on: what the examples are called.

    Returns:
        the scaling: a temperature is a number.

    Raises:
        ValueError: for another method, a model of regression or of several labels an example, as the function that fits
            does, and where no temperature is best.
    """
    if method not in FITS:
        raise ValueError(f"method={method!r} is unknown: pass one of {', '.join(FITS)}.")
    check_can_be_calibrated(model)
    rows = Rows.of(logits, labels)
    if method != "vector":
        _check_has_a_best_temperature(rows, method)
    scaling = FITS[method](logits, labels)
    config_of(model).calibration = {**_as_numbers(scaling), "fitted_on": fitted_on, "n": len(rows)}
    return scaling


def calibrated_logits(model_or_config: Any, logits: ArrayLike | Tensor) -> Any:
    r"""Logits as they are served: :math:`z / T` or :math:`w z + b` by ``config.calibration``, whose softmax are the p.

    Args:
        model_or_config: a model, or its config.
        logits: [..., K], a tensor or an array.

    Returns:
        a tensor for a tensor, else an array; float32, or float64 for float64. Without a calibration, and after
        `fold_temperature`, the logits themselves.

    Raises:
        ValueError: for a calibration that is none of `calibrate`'s, or of another number of classes.
    """
    scaling = scaling_of(model_or_config)
    if scaling is None:
        return logits
    is_tensor = isinstance(logits, Tensor)
    z = logits if isinstance(logits, Tensor) else torch.from_numpy(np.asarray(logits))
    z = z if z.dtype == torch.float64 else z.float()
    if isinstance(scaling, Temperature):
        found = z / float(scaling)
    elif z.shape[-1] != len(scaling.weight):
        raise ValueError(
            f"logits of shape {list(z.shape)}, and config.calibration is for {len(scaling.weight)} classes: it belongs "
            "to another head; fit it anew, or delete it."
        )
    else:
        found = z * torch.from_numpy(scaling.weight).to(z) + torch.from_numpy(scaling.bias).to(z)
    return found if is_tensor else found.numpy()


def scaling_of(model_or_config: Any) -> Scaling | None:
    """What ``config.calibration`` holds; None where there is none.

    Raises:
        ValueError: for one that is none of `calibrate`'s.
    """
    record = getattr(config_of(model_or_config), NAME, None)
    if record is None:
        return None
    if isinstance(record, Mapping):
        found: list[Any] = [record.get(name) for name in ("method", "temperature", "weight", "bias")]
        kind, t, w, b = found
        if kind == "temperature" and not isinstance(t, (list, tuple)) and _are_numbers(t) and t > 0:
            return Temperature(t)
        if kind == "vector" and _are_numbers(w, b):
            weight, bias = (np.asarray(part, dtype=np.float64) for part in (w, b))
            if weight.shape == bias.shape and weight.ndim == 1:
                return VectorScaling(weight, bias)
    raise ValueError(
        f"config.calibration={record!r} is neither a temperature above 0 nor a weight and a bias a class: fit it anew "
        "with trainer.calibrate, or delete it."
    )


def config_of(model_or_config: Any) -> Any:
    """The config of a model under its wrappers; a config itself.

    Raises:
        ValueError: for a model without one.
    """
    if not isinstance(model_or_config, nn.Module):
        return model_or_config
    config = getattr(under_peft_model(unwrap(model_or_config)), "config", None)
    if config is None:
        raise ValueError(
            f"{type(model_or_config).__name__} has no config, where a calibration could be kept: pass a model of "
            "transformers, or keep what fit_temperature gives beside it."
        )
    return config


def check_can_be_calibrated(model: nn.Module) -> None:
    """Refuse a model whose outputs are no probabilities of one label."""
    config = config_of(model)
    kind = getattr(config, "problem_type", None) or ("regression" if getattr(config, "num_labels", 2) == 1 else "")
    if kind in ("regression", "multi_label_classification"):
        raise ValueError(
            f"the model is for {kind.replace('_', ' ')}, and a temperature is of a softmax over classes: calibrate a "
            "model with one label an example."
        )


def _check_has_a_best_temperature(rows: Rows, method: str) -> None:
    """Refuse examples on which the best temperature would be 0 or infinite, so that it is never served."""
    all_right, gain = True, 0.0
    for _, z, y, soft in rows.blocks():
        z -= z.max(1, keepdims=True)
        own = z[np.arange(len(y)), y] if soft is None else (soft * z).sum(1)
        all_right &= not own.any()
        gain += float((own - z.mean(1)).sum())
    if all_right and method == "temperature":
        raise ValueError(
            f"every prediction is right on these {len(rows)} examples, so that the lower a temperature the better it "
            "would seem: pass more examples, or method='ts_mix'."
        )
    if gain <= 0:
        raise ValueError(
            f"labels have no higher logits than other classes on these {len(rows)} examples, so that the higher a "
            "temperature the better it would seem: train the model first, or pass examples of its task."
        )


def _as_numbers(scaling: Scaling) -> dict[str, Any]:
    if isinstance(scaling, Temperature):
        return {"method": "temperature", "temperature": float(scaling)}
    return {"method": "vector", "weight": scaling.weight.tolist(), "bias": scaling.bias.tolist()}


def _are_numbers(*values: Any) -> bool:
    """Whether each is a finite number, or a list of them."""
    flat = [number for value in values for number in (value if isinstance(value, (list, tuple)) else [value])]
    return bool(flat) and all(type(number) in (int, float) and math.isfinite(number) for number in flat)
