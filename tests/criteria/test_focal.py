"""Focal losses: against their formulas in plain Python, and where logits are extreme."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from hf_logitmix.criteria import DualFocal, Focal, RowLoss
from hf_logitmix.losses import focal_loss

MATRIX = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]], dtype=torch.float64)


def batch(rows: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 3, (rows,), generator=generator)


def softmax(row: list[float]) -> list[float]:
    return [math.exp(z) / sum(map(math.exp, row)) for z in row]


def focal_by_hand(row: list[float], target: list[float], gamma: float | str) -> float:
    p = softmax(row)
    if gamma == "sd53":
        gamma = 5 if p[max(range(len(p)), key=target.__getitem__)] < 0.2 else 3
    return -sum(t * (1 - q) ** gamma * math.log(q) for t, q in zip(target, p, strict=True))


def dual_by_hand(row: list[float], label: int, gamma: float) -> float:
    p = softmax(row)
    smaller = [q for q in p if q < p[label]]
    return -((1 - p[label] + (max(smaller) if smaller else 0)) ** gamma) * math.log(p[label])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 3.0, "sd53"])
@pytest.mark.parametrize("matrix", [None, MATRIX], ids=["one-hot", "soft"])
def test_focal_is_its_formula(gamma, matrix):
    logits, labels = batch()
    rows = (torch.eye(3) if matrix is None else matrix)[labels].tolist()
    expected = [focal_by_hand(z, t, gamma) for z, t in zip(logits.tolist(), rows, strict=True)]
    assert RowLoss(Focal(gamma), matrix)(logits, labels).tolist() == pytest.approx(expected)
    assert focal_loss(logits, labels, gamma=gamma, targets=matrix).item() == pytest.approx(sum(expected) / 8)


def test_gamma_0_is_cross_entropy_with_its_gradient():
    logits, labels = batch()
    logits.requires_grad_()
    found, expected = (
        torch.autograd.grad(loss, logits)[0]
        for loss in (Focal(0)(logits, labels).sum(), F.cross_entropy(logits, labels, reduction="sum"))
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(Focal(0)(logits, labels), F.cross_entropy(logits, labels, reduction="none"))


def test_sd53_switches_where_the_class_has_a_fifth():
    """Two classes with p just below and just above .2."""
    for p, gamma in ((0.19, 5), (0.21, 3)):
        logits = torch.tensor([[math.log(p), math.log(1 - p)]], dtype=torch.float64)
        expected = -((1 - p) ** gamma) * math.log(p)
        assert Focal("sd53")(logits, torch.tensor([0])).item() == pytest.approx(expected)
        assert Focal("sd53")(logits, torch.tensor([[0.6, 0.4]]).double()).item() == pytest.approx(
            0.6 * expected - 0.4 * p**gamma * math.log(1 - p)
        )


@pytest.mark.parametrize("gamma", [0.0, 2.0, 5.0])
def test_dual_focal_is_its_formula(gamma):
    logits, labels = batch(12)
    expected = [dual_by_hand(z, y, gamma) for z, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    assert DualFocal(gamma)(logits, labels).tolist() == pytest.approx(expected)
    ranks = {sum(q < p[y] for q in p) for p, y in zip(logits.tolist(), labels.tolist(), strict=True)}
    assert ranks == {0, 1, 2}  # classes with none, one and two smaller ones


def test_dual_focal_leaves_equal_classes_out():
    logits = torch.tensor([[1.0, 1.0, 0.0]])
    assert DualFocal(5.0)(logits, torch.tensor([0])).item() == pytest.approx(dual_by_hand([1, 1, 0], 0, 5.0))


@pytest.mark.parametrize("criterion", [Focal(0), Focal(0.5), Focal(3.0), Focal("sd53"), DualFocal(0.5), DualFocal()])
@pytest.mark.parametrize("size", [20.0, 100.0, 1e4])
def test_gradients_are_finite_at_extreme_logits(criterion, size):
    logits = torch.tensor([[size, -size, 0.0], [0.0, 0.0, 0.0], [-size, size, size]], requires_grad=True)
    for label in range(3):
        loss = criterion(logits, torch.full((3,), label))
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()
    if criterion.takes_rows:
        (gradient,) = torch.autograd.grad(criterion(logits, torch.full((3, 3), 1 / 3)).sum(), logits)
        assert gradient.isfinite().all()


def test_half_precision_is_computed_in_float32():
    logits, labels = batch()
    found = focal_loss(logits.bfloat16(), labels)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(focal_loss(logits.bfloat16().double(), labels).item(), rel=1e-5)


@pytest.mark.parametrize("gamma", [-1, math.nan, math.inf, "sd35", None])
def test_other_gammas_are_refused(gamma):
    with pytest.raises(ValueError, match=r"gamma must be a number >= 0 or 'sd53', got"):
        Focal(gamma)
    with pytest.raises(ValueError, match=r"gamma must be a number >= 0, got"):
        DualFocal(gamma)


def test_what_focal_losses_are_not_for_is_refused():
    logits, labels = batch()
    with pytest.raises(ValueError, match="focal_loss is for class ids"):
        focal_loss(logits, F.one_hot(labels, 3).double())
    with pytest.raises(ValueError, match="label 3 is outside"):
        focal_loss(logits, labels.clone().fill_(3))
    with pytest.raises(ValueError, match=r"DualFocal\(gamma=5.0\) is defined for class ids alone"):
        DualFocal()(logits, MATRIX[labels])
