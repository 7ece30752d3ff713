"""Binary cross-entropy of classes, against timm's and against its formula in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from timm.data.mixup import mixup_target
from timm.loss import BinaryCrossEntropy

from hf_logitmix import get_method
from hf_logitmix.criteria import OneVsAll, RowLoss
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.part import LabelSpec
from hf_logitmix.targets import LabelSmoothing

LABELS = torch.tensor([0, 1, 2, 2, 0, 1])
FLIPPED = torch.arange(5, -1, -1)  # timm's partners
OPTIONS = [{}, {"target_threshold": 0.2}, {"sum_classes": True}, {"target_threshold": 0.0, "sum_classes": True}]


def logits_of() -> torch.Tensor:
    return 4 * torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_class_ids_have_timms_loss(options, eps):
    logits, matrix = logits_of(), LabelSmoothing(eps).matrix(3).double()
    found = RowLoss(OneVsAll(**options), matrix if eps else None)(logits, LABELS).mean()
    torch.testing.assert_close(found, BinaryCrossEntropy(smoothing=eps, **options)(logits, LABELS))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("eps", [0.0, 0.3])
@pytest.mark.parametrize("lam", [0.7, 0.15, 1.0])
def test_mixed_rows_have_timms_loss(options, eps, lam):
    """Of which a threshold sees the mixed row: 0.15 is below it, and 0.7 and 0.3 are both above."""
    logits, matrix = logits_of(), LabelSmoothing(eps).matrix(3).double()
    target = mixup_target(LABELS, 3, lam, eps).double()
    plan = MixPlan(FLIPPED, torch.full((6,), lam, dtype=torch.float64))
    found = RowLoss(OneVsAll(**options), matrix if eps else None).mixed(logits, LABELS, plan)
    torch.testing.assert_close(found.mean(), BinaryCrossEntropy(**options)(logits, target), rtol=1e-5, atol=1e-6)
    soft = RowLoss(OneVsAll(**options), matrix if eps else None, soft_labels=True)
    torch.testing.assert_close(soft.mixed(logits, torch.eye(3)[LABELS].double(), plan), found)


@pytest.mark.parametrize("threshold", [None, 0.25])
def test_rows_of_targets_and_weights_are_its_formula(threshold):
    logits, rows, weights = logits_of(), torch.tensor([[0.6, 0.3, 0.1]] * 6, dtype=torch.float64), torch.arange(1.0, 7)
    plan = MixPlan(FLIPPED, torch.tensor([0.2, 0.5, 0.9, 1.0, 0.3, 0.6]))
    expected = []
    for number, row in enumerate(logits.tolist()):
        lam = float(plan.lam[number])
        target = [0.6, 0.3, 0.1] if threshold is None else [1, 1, 0]
        loss = -sum(
            t * math.log(1 / (1 + math.exp(-z))) + (1 - t) * math.log(1 / (1 + math.exp(z)))
            for t, z in zip(target, row, strict=True)
        )
        expected.append((lam * (number + 1) + (1 - lam) * (6 - number)) * loss / 3)
    found = RowLoss(OneVsAll(threshold), weights=weights, soft_labels=True).mixed(logits, rows, plan)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_its_gradient_is_that_of_finite_differences_and_finite_at_extreme_logits():
    assert torch.autograd.gradcheck(lambda z: OneVsAll(0.2)(z, LABELS), logits_of().requires_grad_())
    extreme = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(OneVsAll()(extreme, torch.tensor([1])).sum(), extreme)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_a_threshold_that_leaves_no_target_is_refused(value):
    with pytest.raises(ValueError, match=rf"target_threshold={value} is outside \[0, 1\)"):
        OneVsAll(value)


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_it_is_for_classes(problem):
    with pytest.raises(ValueError, match=f"single_label_classification, and this is {problem}"):
        get_method("bce").check(torch.nn.Linear(2, 2), LabelSpec(2, problem, False))
