"""The plain losses and `RowLoss` on soft labels: against loops, torch's own losses and class ids."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from helpers.soft import soft_rows
from hf_logitmix import MixPlan
from hf_logitmix.criteria import CRITERIA, CrossEntropy, DualFocal, Focal, RowLoss
from hf_logitmix.losses import focal_loss, lamix_loss, logitmix_loss, mixed_cross_entropy
from hf_logitmix.weights import weights_of

MATRIX = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.6, 0.3], [0.5, 0.1, 0.4]])
PLAN = MixPlan(torch.tensor([2, 0, 5, 1]), torch.tensor([0.2, 0.9, 0.5, 0.0]))
SECOND = torch.randn(4, 3, generator=torch.Generator().manual_seed(7))


def logits(count: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


LOSSES = {
    "logitmix": lambda labels, **options: logitmix_loss(logits(6), logits(4, 1), labels, PLAN, **options).total,
    "mixed": lambda labels, **options: mixed_cross_entropy(logits(4, 1), labels, PLAN, **options),
    "lamix": lambda labels, **options: lamix_loss(logits(4, 1), SECOND, labels, PLAN, **options),
    "focal": lambda labels, **options: focal_loss(logits(6), labels, **options),
}


@pytest.mark.parametrize("targets", [None, MATRIX], ids=["one_hot", "matrix"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_expected_one_of_a_drawn_class(name, targets):
    """Over all ways to draw a class for each of six examples by its row, which these losses are linear in."""
    rows, expected = soft_rows(6), 0.0
    for classes in torch.cartesian_prod(*[torch.arange(3)] * 6):
        share = rows.gather(1, classes[:, None]).prod()
        if share > 1e-7:
            expected += share * LOSSES[name](classes, targets=targets)
    found = LOSSES[name](rows, targets=targets, soft_labels=True)
    assert found.item() == pytest.approx(expected.item(), abs=2e-4)


@pytest.mark.parametrize("targets", [None, MATRIX], ids=["one_hot", "matrix"])
@pytest.mark.parametrize("name", LOSSES)
def test_one_hot_rows_are_class_ids(name, targets):
    ids = torch.tensor([0, 2, 1, 1, 0, 2])
    found = LOSSES[name](F.one_hot(ids, 3).float(), targets=targets, soft_labels=True)
    assert found.item() == pytest.approx(LOSSES[name](ids, targets=targets).item(), abs=1e-6)


def test_gradients_are_those_of_the_formula():
    """Of cross-entropy softmax(z) sum_k t_k - t over the batch, with t = r T."""
    z = logits(6).double().requires_grad_()
    rows = soft_rows(6).double()
    RowLoss(CrossEntropy(), MATRIX, soft_labels=True)(z, rows).mean().backward()
    t = rows @ MATRIX.double()
    torch.testing.assert_close(z.grad, (z.detach().softmax(1) * t.sum(1, keepdim=True) - t) / 6)


def test_rows_are_those_of_torch():
    rows = soft_rows(6)
    expected = F.cross_entropy(logits(6), rows, reduction="none")
    torch.testing.assert_close(RowLoss(CrossEntropy(), soft_labels=True)(logits(6), rows), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_and_labels_of_any_type_give_the_same(dtype):
    z, rows = logits(6).to(dtype), soft_rows(6)
    found = RowLoss(CrossEntropy(), MATRIX, soft_labels=True)(z, rows.to(dtype))
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = F.cross_entropy(z.double(), rows.to(dtype).double() @ MATRIX.double(), reduction="none")
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_targets_are_not_rounded_under_autocast():
    loss, z, rows = RowLoss(CrossEntropy(), MATRIX, soft_labels=True), logits(6), soft_rows(6)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(z, rows)
    torch.testing.assert_close(found, loss(z, rows), atol=1e-6, rtol=0)


def test_the_weight_of_a_row_is_that_of_its_classes():
    rows, of_class, of_example = soft_rows(6), torch.tensor([1.0, 2.0, 0.5]), torch.arange(6.0)
    expected = [sum(r * w for r, w in zip(row, [1.0, 2.0, 0.5], strict=True)) for row in rows.tolist()]
    assert weights_of(rows, of_class, None).tolist() == pytest.approx(expected)
    assert weights_of(rows, of_class, of_example).tolist() == pytest.approx([i * w for i, w in enumerate(expected)])
    ids = torch.tensor([0, 2, 1, 1, 0, 2])
    assert torch.equal(weights_of(F.one_hot(ids, 3).float(), of_class, None), weights_of(ids, of_class, None))


@pytest.mark.parametrize("name", ["squared", "margin", "focal"])
def test_a_criterion_that_is_not_linear_compares_with_each_label_as_with_class_ids(name):
    """lam d(z, r_i) + (1 - lam) d(z, r_j), each with its own example's weight."""
    rows, weights = soft_rows(6), torch.tensor([1.0, 0.5, 2.0, 0.0, 3.0, 1.0])
    criterion, mixed = CRITERIA[name], logits(4, 1)
    found = RowLoss(criterion, None, weights, soft_labels=True).mixed(mixed, rows, PLAN)
    for i, (j, lam) in enumerate(zip(PLAN.partner.tolist(), PLAN.lam.tolist(), strict=True)):
        own, other = (criterion(mixed[i : i + 1], rows[k : k + 1]).item() for k in (i, j))
        expected = lam * weights[i].item() * own + (1 - lam) * weights[j].item() * other
        assert found[i].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.full((6, 3), 0.5), r"soft label of example 0 sums to 1\.5 and not to 1"),
        (torch.tensor([[1.5, -0.5, 0.0]] * 6), r"soft label of example 0 holds -0\.5"),
        (torch.full((6, 3), float("nan")), r"soft label of example 0 holds nan"),
        (torch.full((6, 2), 0.5), r"soft labels are torch\.float32 of shape \(\d, 2\)"),
        (torch.tensor([0, 1, 2, 0, 1, 2]), r"soft labels are torch\.int64 of shape \(\d,\)"),
    ],
    ids=["sum", "negative", "nan", "classes", "ids"],
)
def test_rows_that_are_no_probabilities_are_refused(name, labels, message):
    with pytest.raises(ValueError, match=message):
        LOSSES[name](labels, soft_labels=True)


def test_half_precision_may_round_a_sum_and_nobody_else():
    loss, z = RowLoss(CrossEntropy(), soft_labels=True), logits(1).repeat(1, 100)[:, :300]
    rows = torch.rand(1, 300, generator=torch.Generator().manual_seed(0))
    rows = (rows / rows.sum()).half().float()
    assert rows.sum() != 1
    assert loss(z, rows).isfinite().all()
    with pytest.raises(ValueError, match=r"sums to 1.01"):
        loss(z, 1.01 * rows / rows.sum())


def test_rows_that_are_not_said_to_be_soft_are_no_soft_labels():
    """Multi-label where that is defined, and an error elsewhere."""
    rows = soft_rows(6)
    mixed = PLAN.lam[:, None] * rows[:4] + (1 - PLAN.lam[:, None]) * rows[PLAN.partner]
    expected = F.binary_cross_entropy_with_logits(logits(4, 1), mixed)
    assert LOSSES["mixed"](rows).item() == pytest.approx(expected.item(), abs=1e-6)
    for name in ("focal", "lamix"):
        with pytest.raises(ValueError, match=rf"{name}_loss is for class ids, .*soft_labels=True"):
            LOSSES[name](rows)
    with pytest.raises(ValueError, match=r"targets are rows for class ids: they are undefined for .*multi-label"):
        LOSSES["mixed"](rows, targets=MATRIX)
    with pytest.raises(ValueError, match=r"criterion=Focal.* is for classes, and labels are rows that are not said"):
        RowLoss(Focal())(logits(6), rows)
    with pytest.raises(ValueError, match=r"criterion=DualFocal.* for class ids alone, and these targets are rows"):
        RowLoss(DualFocal(), soft_labels=True)(logits(6), rows)


def test_similarities_of_probabilities_are_defined():
    rows = soft_rows(6)
    for similarity in ("mse_softmax", "mse_logsoftmax"):
        loss = logitmix_loss(logits(6), logits(4, 1), rows, PLAN, similarity=similarity, soft_labels=True)
        assert loss.cls.item() == pytest.approx(F.cross_entropy(logits(6), rows).item(), abs=1e-6)
        with pytest.raises(ValueError, match="similarity="):
            logitmix_loss(logits(6), logits(4, 1), rows, PLAN, similarity=similarity)
