"""Target rows: against torch's own label smoothing, scikit-learn, and numbers by hand."""

import math

import pytest
import torch
from datasets import Dataset
from sklearn.metrics import log_loss
from torch.nn import functional as F

from hf_logitmix import MixPlan, get_method
from hf_logitmix.criteria import CrossEntropy, RowLoss
from hf_logitmix.losses import logitmix_loss, mixed_cross_entropy
from hf_logitmix.targets import Infogain, LabelSmoothing, OneHot, TargetMatrix, TrainingSet, infogain, label_smoothing

GENERATOR = torch.Generator().manual_seed(0)
LOGITS, MIXED = torch.randn(2, 9, 5, generator=GENERATOR) * 3
LABELS = torch.randint(5, (9,), generator=GENERATOR)
PLAN = MixPlan(torch.randperm(9, generator=GENERATOR), torch.rand(9, generator=GENERATOR))
ASYMMETRIC = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.6, 0.3], [0.5, 0.1, 0.4]])


def test_label_smoothing_by_hand():
    expected = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    torch.testing.assert_close(label_smoothing(3, 0.3), expected)
    torch.testing.assert_close(LabelSmoothing(0.3).matrix(3), expected)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("num_labels", [2, 5, 100])
def test_rows_of_label_smoothing_sum_to_one(num_labels, eps):
    rows = label_smoothing(num_labels, eps)
    torch.testing.assert_close(rows.sum(1), torch.ones(num_labels))
    assert (rows >= 0).all()


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4])
def test_smoothed_targets_equal_torch_label_smoothing(eps):
    loss = logitmix_loss(LOGITS, MIXED, LABELS, PLAN, targets=label_smoothing(5, eps))
    torch.testing.assert_close(loss.cls, F.cross_entropy(LOGITS, LABELS, label_smoothing=eps))
    own = F.cross_entropy(MIXED, LABELS, label_smoothing=eps, reduction="none")
    other = F.cross_entropy(MIXED, LABELS[PLAN.partner], label_smoothing=eps, reduction="none")
    torch.testing.assert_close(loss.mix, (PLAN.lam * own + (1 - PLAN.lam) * other).mean())


def test_one_hot_is_the_identity():
    assert OneHot().matrix(5) is None
    one_hot, identity = (logitmix_loss(LOGITS, MIXED, LABELS, PLAN, targets=t) for t in (None, torch.eye(5)))
    expected = log_loss(LABELS, LOGITS.double().softmax(1), labels=range(5))
    for loss in (one_hot, identity):
        assert loss.cls.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(one_hot.mix, identity.mix)


def test_the_row_of_the_label_is_the_target_and_not_its_column():
    logits = torch.tensor([[1.0, 0.0, -1.0]])
    log_p = [x - math.log(sum(math.exp(z) for z in (1, 0, -1))) for x in (1, 0, -1)]
    expected = -(0.5 * log_p[0] + 0.1 * log_p[1] + 0.4 * log_p[2])
    plan = MixPlan(torch.tensor([0]), torch.ones(1))
    loss = mixed_cross_entropy(logits, torch.tensor([2]), plan, targets=ASYMMETRIC)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_rows_need_not_sum_to_one():
    """Infogain weighs a class: a row of 0.25 at the label gives a quarter of its cross-entropy."""
    targets = torch.diag(torch.tensor([0.25, 1.0, 1.0, 1.0, 1.0]))
    loss = logitmix_loss(LOGITS, MIXED, LABELS, PLAN, targets=targets).cls
    each = F.cross_entropy(LOGITS, LABELS, reduction="none")
    torch.testing.assert_close(loss, (each * torch.where(LABELS == 0, 0.25, 1.0)).mean())


def test_a_matrix_of_the_user():
    assert torch.equal(TargetMatrix(ASYMMETRIC).matrix(3), ASYMMETRIC)
    assert torch.equal(get_method("logitmix", targets=ASYMMETRIC).targets.matrix(3), ASYMMETRIC)


@pytest.mark.parametrize("eps", [-0.1, 1.0, 1.5, math.nan])
@pytest.mark.parametrize(
    "make", [lambda eps: label_smoothing(3, eps), LabelSmoothing, lambda eps: get_method("label_smoothing", eps=eps)]
)
def test_eps_out_of_range(make, eps):
    with pytest.raises(ValueError, match="eps="):
        make(eps)


def test_smoothing_of_one_class():
    with pytest.raises(ValueError, match="num_labels=1"):
        label_smoothing(1, 0.1)


@pytest.mark.parametrize(
    "rows",
    [
        torch.ones(3),
        torch.ones(2, 3),
        torch.ones(1, 3, 3),
        torch.tensor([[1.0, -0.1], [0.0, 1.0]]),
        torch.tensor([[1.0, math.nan], [0.0, 1.0]]),
        torch.tensor([[math.inf, 0.0], [0.0, 1.0]]),
    ],
)
@pytest.mark.parametrize("make", [TargetMatrix, lambda rows: get_method("logitmix", targets=rows)])
def test_impossible_target_matrices(make, rows):
    with pytest.raises(ValueError, match="targets"):
        make(rows)


def test_a_matrix_of_the_wrong_size_for_the_model():
    with pytest.raises(ValueError, match="targets have 3 rows and the model has num_labels=4"):
        TargetMatrix(ASYMMETRIC).matrix(4)


@pytest.mark.parametrize("shape", [(5, 1), (5, 4), (4, 5), (6, 5), (6, 6), (5,)])
def test_losses_refuse_targets_of_a_wrong_shape(shape):
    """[K, 1] would broadcast in silence, and one row too many would never be noticed."""
    with pytest.raises(ValueError, match="targets"):
        logitmix_loss(LOGITS, MIXED, LABELS, PLAN, targets=torch.ones(shape))
    with pytest.raises(ValueError, match="targets"):
        mixed_cross_entropy(MIXED, LABELS, PLAN, targets=torch.ones(shape))


def test_targets_are_undefined_without_class_ids():
    plan = MixPlan(torch.tensor([1, 0]), torch.full((2,), 0.5))
    with pytest.raises(ValueError, match="targets"):
        mixed_cross_entropy(torch.zeros(2, 1), torch.tensor([0.1, 0.2]), plan, targets=torch.eye(2))
    with pytest.raises(ValueError, match="targets"):
        mixed_cross_entropy(torch.zeros(2, 3), torch.ones(2, 3), plan, targets=torch.eye(3))


def test_infogain_weighs_classes_by_the_rarest():
    """Counts 10, 40, 20: weights 1, 1/4, 1/2 on the diagonal."""
    rows = infogain(torch.tensor([10, 40, 20]))
    assert rows.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.25, 0.0], [0.0, 0.0, 0.5]]


def test_infogain_loss_equals_weighted_terms_of_cross_entropy():
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 1, 0])
    weight = {0: 1.0, 1: 0.25, 2: 0.5}
    pairs = zip(logits.tolist(), labels.tolist(), strict=True)
    expected = [-weight[y] * math.log(math.exp(z[y]) / sum(map(math.exp, z))) for z, y in pairs]
    losses = RowLoss(CrossEntropy(), infogain(torch.tensor([10, 40, 20])))(logits, labels)
    assert losses.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("counts", [[3, 0, 2], [-1, 2], [[1, 2]]])
def test_infogain_needs_an_example_of_every_class(counts):
    with pytest.raises(ValueError, match="class_counts"):
        infogain(torch.tensor(counts))


def test_infogain_counts_the_training_set_however_it_comes():
    rows = [{"input_ids": [5], "labels": label} for label in (0, 2, 1, 1, 2, 2)]
    lazy = type("Lazy", (), {"__len__": lambda self: len(rows), "__getitem__": lambda self, i: rows[i]})()
    for data in (rows, Dataset.from_list(rows), lazy):
        prepared = Infogain().setup(TrainingSet(data, torch.nn.Identity(), 3))
        assert prepared.class_counts == [1, 2, 3]
    with pytest.raises(ValueError, match="class_counts"):
        Infogain().setup(TrainingSet(rows[:1], torch.nn.Identity(), 3)).matrix(3)
    with pytest.raises(ValueError, match="no length"):
        Infogain().setup(TrainingSet(iter(rows), torch.nn.Identity(), 3))
