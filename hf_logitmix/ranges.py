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
    inside = values.clamp(low, high) == values
    if inside.is_cuda:
        torch._assert_async(inside.all(), f"{name} is outside {low}..{high}: {fix}.")
    elif not inside.is_meta and not inside.all():
        raise ValueError(f"{name} {values[~inside][0].item()} is outside {low}..{high}: {fix}.")


def check_all(holds: Tensor, sentence: str) -> None:
    """Refuse a tensor of truth values that are not all true, as `check_range` does.

    Raises:
        ValueError: with the sentence.
    """
    if holds.is_cuda:
        torch._assert_async(holds.all(), sentence)
    elif not holds.is_meta and not holds.all():
        raise ValueError(sentence)
