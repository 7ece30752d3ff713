"""Checks of the numbers in a tensor, for which a GPU is not waited for."""

from __future__ import annotations

import torch
from torch import Tensor


def check_range(values: Tensor, low: float, high: float, name: str, fix: str) -> None:
    """Refuse values outside low..high, NaN among them.

    On a GPU nothing waits for the answer: there it is a device-side assert of CUDA.

    Raises:
        ValueError: with ``name`` and ``fix`` in its sentence, for values that are anywhere else.
    """
    if values.is_cuda:
        torch._assert_async((values.clamp(low, high) == values).all(), f"{name} is outside {low}..{high}: {fix}.")
    elif not values.is_meta and len(values):
        least, most = (end.item() for end in values.aminmax())  # NaN if there is one
        if not (low <= least and most <= high):
            outside = values[values.clamp(low, high) != values]
            raise ValueError(f"{name} {outside[0].item()} is outside {low}..{high}: {fix}.")


def check_all(holds: Tensor, sentence: str) -> None:
    """Refuse a tensor of truth values that are not all true, as `check_range` does.

    Raises:
        ValueError: with the sentence.
    """
    if holds.is_cuda:
        torch._assert_async(holds.all(), sentence)
    elif not holds.is_meta and not holds.all():
        raise ValueError(sentence)
