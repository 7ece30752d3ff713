"""Squared error of numbers, and of probabilities (the Brier score)."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import brier_score_loss, mean_squared_error

from hf_logitmix.criteria import RowLoss, Squared

MATRIX = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 2, 0, 1])
LOGITS = 2 * torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("matrix", [None, MATRIX], ids=["one-hot", "soft"])
def test_of_classes_it_is_the_brier_score(matrix):
    probabilities = LOGITS.softmax(-1).tolist()
    rows = (torch.eye(3) if matrix is None else matrix)[LABELS].tolist()
    expected = [sum((p - t) ** 2 for p, t in zip(*pair, strict=True)) for pair in zip(probabilities, rows, strict=True)]
    assert RowLoss(Squared(), matrix)(LOGITS, LABELS).tolist() == pytest.approx(expected)


def test_of_two_classes_it_is_twice_what_scikit_learn_says():
    logits, labels = LOGITS[:, :2], LABELS % 2
    expected = brier_score_loss(labels, logits.softmax(-1)[:, 1])
    assert Squared()(logits, labels).mean().item() == pytest.approx(2 * expected)


def test_of_numbers_it_is_the_squared_error():
    numbers = torch.linspace(-1, 2, 6, dtype=torch.float64)
    expected = mean_squared_error(numbers, LOGITS[:, 0])
    assert Squared()(LOGITS[:, :1], numbers).mean().item() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"regression needs logits of shape \[6, 1\]"):
        Squared()(LOGITS, numbers)


def test_its_gradient_vanishes_but_stays_finite_at_extreme_logits():
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = Squared()(logits, torch.tensor([1]))
    assert loss.item() == 2
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.isfinite().all()
