"""Margin-based label smoothing, against its formula in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from hf_logitmix.criteria import Margin, RowLoss

MATRIX = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 2, 0, 1])


def logits_of(size: float = 8.0) -> torch.Tensor:
    return size * torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(row: list[float], target: list[float], margin: float, weight: float) -> float:
    total = math.log(sum(map(math.exp, row)))
    cross_entropy = -sum(t * (z - total) for t, z in zip(target, row, strict=True))
    return cross_entropy + weight * sum(max(0, max(row) - z - margin) for z in row) / len(row)


@pytest.mark.parametrize(("margin", "weight"), [(10.0, 0.1), (0.0, 1.0), (2.5, 0.3)])
@pytest.mark.parametrize("matrix", [None, MATRIX], ids=["one-hot", "soft"])
def test_it_is_its_formula(margin, weight, matrix):
    logits = logits_of()
    rows = (torch.eye(3) if matrix is None else matrix)[LABELS].tolist()
    expected = [by_hand(z, t, margin, weight) for z, t in zip(logits.tolist(), rows, strict=True)]
    found = RowLoss(Margin(margin, weight), matrix)(logits, LABELS)
    assert found.tolist() == pytest.approx(expected)
    plain = F.cross_entropy(logits, LABELS if matrix is None else matrix[LABELS], reduction="none")
    assert (found > plain + 1e-9).any()  # some logits are beyond the margin
    far = RowLoss(Margin(1e3, weight), matrix)(logits, LABELS)
    torch.testing.assert_close(far, plain)


def test_the_defaults_are_those_of_the_released_code():
    assert (Margin().margin, Margin().margin_weight) == (10.0, 0.1)


def test_its_gradient_is_that_of_finite_differences_and_finite_at_extreme_logits():
    assert torch.autograd.gradcheck(lambda z: Margin(2.5, 0.3)(z, LABELS), logits_of().requires_grad_())
    extreme = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(Margin()(extreme, torch.tensor([1])).sum(), extreme)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["margin", "margin_weight"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_bad_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0, got {value}"):
        Margin(**{name: value})
