"""The losses: against the numbers of the released code, plain Python loops, scikit-learn and properties."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.metrics import log_loss, mean_squared_error
from torch import nn
from torch.nn import functional as F

from hf_logitmix import MixPlan, mixed_forward
from hf_logitmix.criteria import RowLoss, criterion_of
from hf_logitmix.losses import lamix_loss, logitmix_loss, mixed_cross_entropy

CASES = json.loads((Path(__file__).parents[1] / "data" / "logitmix_released_code.json").read_text())
SIMILARITIES = ["mse", "l2", "mse_logsoftmax", "mse_softmax"]
MATRIX = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.6, 0.3], [0.5, 0.1, 0.4]])


def batch(size=6, classes=3, mixed=None, seed=0, dtype=torch.float64):
    """Logits, mixed logits, class ids and a plan of ``mixed`` rows, each with a lam of its own."""
    g = torch.Generator().manual_seed(seed)
    mixed = size if mixed is None else mixed
    z, mixed_z = (torch.randn(n, classes, generator=g, dtype=dtype) * 2 for n in (size, mixed))
    plan = MixPlan(torch.randperm(size, generator=g)[:mixed], torch.rand(mixed, generator=g))
    return z, mixed_z, torch.randint(classes, (size,), generator=g), plan


def log_softmax_loop(row):
    top = max(row)
    total = math.log(sum(math.exp(x - top) for x in row))
    return [x - top - total for x in row]


def cross_entropy_loop(row, target):
    return -sum(t * log_p for t, log_p in zip(target, log_softmax_loop(row), strict=True))


def similarity_loop(expected, mixed, similarity):
    if similarity == "mse_logsoftmax":
        expected, mixed = log_softmax_loop(expected), log_softmax_loop(mixed)
    elif similarity == "mse_softmax":
        expected, mixed = ([math.exp(x) for x in log_softmax_loop(row)] for row in (expected, mixed))
    total = sum((a - b) ** 2 for a, b in zip(expected, mixed, strict=True))
    return math.sqrt(total) if similarity == "l2" else total / len(expected)


def loop(z, mixed_z, labels, plan, similarity="mse", targets=None):
    """mix, cls and sim in plain Python."""
    rows = (torch.eye(z.shape[1]) if targets is None else targets).tolist()
    z, mixed_z, labels, partner, lam = (t.tolist() for t in (z, mixed_z, labels, plan.partner, plan.lam))
    mix = sim = 0.0
    for i, (j, own) in enumerate(zip(partner, lam, strict=True)):
        mix += own * cross_entropy_loop(mixed_z[i], rows[labels[i]])
        mix += (1 - own) * cross_entropy_loop(mixed_z[i], rows[labels[j]])
        expected = [own * a + (1 - own) * b for a, b in zip(z[i], z[j], strict=True)]
        sim += similarity_loop(expected, mixed_z[i], similarity)
    cls = sum(cross_entropy_loop(row, rows[label]) for row, label in zip(z, labels, strict=True))
    return mix / len(partner), cls / len(labels), sim / len(partner)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed{case['seed']}")
def test_losses_and_gradients_equal_the_released_code(case):
    org = torch.tensor(case["org"], dtype=torch.float64, requires_grad=True)
    mixed = torch.tensor(case["mix"], dtype=torch.float64, requires_grad=True)
    plan = MixPlan(torch.tensor(case["partner"]), torch.full((len(org),), case["lam"]))
    labels = torch.tensor(case["labels"])
    loss = logitmix_loss(org, mixed, labels, plan)
    loss.total.backward()
    expected = [case["mixed_loss"], case["ce_loss"], case["similarity"]]
    assert [term.item() for term in loss[1:]] == pytest.approx(expected, abs=1e-5)
    assert loss.total.item() == pytest.approx(sum(expected), abs=1e-5)
    assert mixed_cross_entropy(mixed, labels, plan).item() == pytest.approx(case["mixed_loss"], abs=1e-5)
    torch.testing.assert_close(org.grad, torch.tensor(case["grad_org"], dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.grad, torch.tensor(case["grad_mix"], dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("targets", [None, MATRIX], ids=["one_hot", "matrix"])
@pytest.mark.parametrize("mixed", [6, 2, 1], ids=lambda m: f"{m}_of_6_mixed")
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_terms_equal_a_loop(similarity, mixed, targets):
    z, mixed_z, labels, plan = batch(mixed=mixed)
    loss = logitmix_loss(z, mixed_z, labels, plan, similarity=similarity, targets=targets)
    expected = loop(z, mixed_z, labels, plan, similarity, targets)
    assert [term.item() for term in loss[1:]] == pytest.approx(expected, abs=1e-6)
    assert loss.total.item() == pytest.approx(sum(expected), abs=1e-6)
    alone = mixed_cross_entropy(mixed_z, labels, plan, targets=targets)
    assert alone.item() == pytest.approx(expected[0], abs=1e-6)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_gradients_through_both_sides_equal_finite_differences(similarity):
    z, mixed_z, labels, plan = batch(size=3, mixed=2)

    def total(z, mixed_z):
        return logitmix_loss(z, mixed_z, labels, plan, similarity=similarity, targets=MATRIX).total

    assert torch.autograd.gradcheck(total, (z.requires_grad_(), mixed_z.requires_grad_()))


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 2.5, 0), (0, 0, 0.1), (0.5, 0.25, 3)])
def test_weights_scale_the_total_and_leave_the_terms(weights):
    z, mixed_z, labels, plan = batch()
    loss = logitmix_loss(z, mixed_z, labels, plan, weights=weights)
    terms = loop(z, mixed_z, labels, plan)
    assert [term.item() for term in loss[1:]] == pytest.approx(terms, abs=1e-6)
    assert loss.total.item() == pytest.approx(sum(w * t for w, t in zip(weights, terms, strict=True)), abs=1e-6)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_permuting_the_batch_changes_nothing(similarity):
    z, mixed_z, labels, (partner, lam, _) = batch(size=7)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(order)
    moved = MixPlan(place[partner[order]], lam[order])
    first = logitmix_loss(z, mixed_z, labels, MixPlan(partner, lam), similarity=similarity)
    second = logitmix_loss(z[order], mixed_z[order], labels[order], moved, similarity=similarity)
    torch.testing.assert_close(torch.stack(first), torch.stack(second))


@pytest.mark.parametrize(("lam", "of_partner"), [(1.0, False), (0.0, True)])
def test_lam_one_is_cross_entropy_of_the_own_label_and_zero_of_the_partners(lam, of_partner):
    z, mixed_z, labels, plan = batch()
    plan = plan._replace(lam=torch.full((6,), lam))
    expected = log_loss(labels[plan.partner] if of_partner else labels, mixed_z.softmax(1), labels=range(3))
    assert mixed_cross_entropy(mixed_z, labels, plan).item() == pytest.approx(expected)
    same = z[plan.partner] if of_partner else z
    assert logitmix_loss(z, same, labels, plan).sim.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_equal_sides_have_zero_similarity_and_zero_gradient(similarity):
    z = torch.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)
    mixed_z = torch.tensor([[2.0, 0.5], [2.0, 0.5]], requires_grad=True)
    plan = MixPlan(torch.tensor([1, 0]), torch.full((2,), 0.5))
    sim = logitmix_loss(z, mixed_z, torch.tensor([0, 1]), plan, similarity=similarity).sim
    sim.backward()
    assert sim.item() == 0
    for side in (z, mixed_z):
        assert torch.equal(side.grad, torch.zeros_like(side))


def test_mse_logsoftmax_is_blind_to_a_shift_and_mse_is_not():
    z, mixed_z, labels, plan = batch()
    for similarity, same in (("mse_logsoftmax", True), ("mse_softmax", True), ("mse", False), ("l2", False)):
        here, there = (logitmix_loss(z, m, labels, plan, similarity=similarity).sim for m in (mixed_z, mixed_z + 3.0))
        assert torch.isclose(here, there).item() is same


@pytest.mark.parametrize("mixed", [5, 2])
def test_regression_is_mse_against_the_mixed_label(mixed):
    z, mixed_z, _, plan = batch(size=5, classes=1, mixed=mixed)
    labels = torch.tensor([0.0, 5.0, 2.5, 3.2, 1.1], dtype=torch.float64)
    loss = logitmix_loss(z, mixed_z, labels, plan)
    own, other, lam = labels[:mixed], labels[plan.partner], plan.lam.double()
    assert loss.mix.item() == pytest.approx(mean_squared_error(lam * own + (1 - lam) * other, mixed_z[:, 0]))
    assert loss.cls.item() == pytest.approx(mean_squared_error(labels, z[:, 0]))
    expected = lam * z[:mixed, 0] + (1 - lam) * z[plan.partner, 0]
    assert loss.sim.item() == pytest.approx(mean_squared_error(expected, mixed_z[:, 0]))


def test_multi_label_is_bce_against_mixed_multi_hot_rows():
    z, mixed_z, _, plan = batch(size=4, mixed=3)
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])

    def bce(x, y):
        p = 1 / (1 + math.exp(-x))
        return -y * math.log(p) - (1 - y) * math.log(1 - p)

    mix = cls = 0.0
    for k in range(3):
        cls += sum(bce(z[i, k].item(), labels[i, k].item()) for i in range(4)) / 12
        for i in range(3):
            lam, j = plan.lam[i].item(), plan.partner[i]
            mix += bce(mixed_z[i, k].item(), (lam * labels[i, k] + (1 - lam) * labels[j, k]).item()) / 9
    loss = logitmix_loss(z, mixed_z, labels, plan)
    assert loss.mix.item() == pytest.approx(mix, abs=1e-6)
    assert loss.cls.item() == pytest.approx(cls, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_half_precision_logits_give_a_float32_loss(similarity, dtype):
    z, mixed_z, labels, plan = batch(dtype=torch.float32)
    z, mixed_z = z.to(dtype), mixed_z.to(dtype)
    loss = logitmix_loss(z, mixed_z, labels, plan, similarity=similarity, targets=MATRIX.to(dtype).float())
    assert all(term.dtype == torch.float32 for term in loss)
    expected = loop(z, mixed_z, labels, plan, similarity, MATRIX.to(dtype))
    assert [term.item() for term in loss[1:]] == pytest.approx(expected, rel=1e-5)


def test_float64_stays_float64():
    z, mixed_z, labels, plan = batch()
    assert all(term.dtype == torch.float64 for term in logitmix_loss(z, mixed_z, labels, plan))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_extreme_logits_stay_finite(similarity):
    z = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], requires_grad=True)
    mixed_z = torch.tensor([[-1e4, 1e4, 0.0], [1e4, 1e4, -1e4]], requires_grad=True)
    plan = MixPlan(torch.tensor([1, 0]), torch.full((2,), 0.25))
    labels = torch.tensor([1, 0])
    loss = logitmix_loss(z, mixed_z, labels, plan, similarity=similarity)
    loss.total.backward()
    expected = loop(z, mixed_z, labels, plan, similarity)
    assert [term.item() for term in loss[1:]] == pytest.approx(expected, rel=1e-5)
    assert z.grad.isfinite().all()
    assert mixed_z.grad.isfinite().all()


def test_mixed_cross_entropy_is_that_of_the_mixed_target():
    _, mixed_z, labels, plan = batch()
    one_hot, lam = F.one_hot(labels, 3).double(), plan.lam.double().unsqueeze(1)
    expected = F.cross_entropy(mixed_z, lam * one_hot + (1 - lam) * one_hot[plan.partner])
    torch.testing.assert_close(mixed_cross_entropy(mixed_z, labels, plan), expected)


@pytest.mark.parametrize(
    "weights", [(1, 1), (1, 1, 1, 1), (), (1, -1, 1), (0, 0, 0), (1, math.nan, 1), (math.inf, 1, 1)]
)
def test_impossible_weights(weights):
    with pytest.raises(ValueError, match="weights"):
        logitmix_loss(*batch(), weights=weights)


def test_unknown_similarity():
    with pytest.raises(ValueError, match=r"similarity must be .* got 'cosine'"):
        logitmix_loss(*batch(), similarity="cosine")


@pytest.mark.parametrize("similarity", ["mse_logsoftmax", "mse_softmax"])
def test_similarity_of_probabilities_needs_classes(similarity):
    z, mixed_z, _, plan = batch(classes=1)
    with pytest.raises(ValueError, match="similarity="):
        logitmix_loss(z, mixed_z, torch.zeros(6), plan, similarity=similarity)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(6, 3, dtype=torch.long), "class ids"),
        (torch.zeros(5, dtype=torch.long), "class ids"),
        (torch.zeros(6, 2), "labels"),
        (torch.zeros(6), "regression"),
    ],
    ids=["ids_6x3", "ids_5", "multi_hot_6x2", "numbers_6"],
)
def test_labels_that_do_not_fit_the_logits(labels, message):
    z, mixed_z, _, plan = batch()
    with pytest.raises(ValueError, match=message):
        logitmix_loss(z, mixed_z, labels, plan)


TARGETS = [None, MATRIX, torch.eye(3)]


@pytest.mark.parametrize("label", [-1, -100, 3, -3, torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max])
@pytest.mark.parametrize("targets", TARGETS, ids=["one_hot", "matrix", "identity"])
@pytest.mark.parametrize("place", [0, 4])
def test_class_ids_outside_the_classes_are_refused(label, targets, place):
    """Nothing counts from the end and nothing is ignored, in whatever loss."""
    z, mixed_z, labels, plan = batch()
    labels[place] = label
    for loss in (
        lambda: logitmix_loss(z, mixed_z, labels, plan, targets=targets),
        lambda: mixed_cross_entropy(mixed_z, labels, plan, targets=targets),
        lambda: lamix_loss(z, mixed_z, labels, plan, targets=targets),
        lambda: RowLoss(criterion_of(labels), targets)(z, labels),
    ):
        with pytest.raises(ValueError, match=rf"label {label} is outside 0\.\.2"):
            loss()


@pytest.mark.parametrize("targets", TARGETS, ids=["one_hot", "matrix", "identity"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_any_kind_of_integer_is_a_class_id(dtype, targets):
    z, mixed_z, labels, plan = batch()
    loss = logitmix_loss(z, mixed_z, labels.to(dtype), plan, targets=targets)
    assert [term.item() for term in loss[1:]] == pytest.approx(
        loop(z, mixed_z, labels, plan, targets=targets), abs=1e-6
    )


@pytest.mark.parametrize(
    ("partner", "lam", "message"),
    [
        ([1, 6], [0.5, 0.5], r"partner 6 is outside 0\.\.5"),
        ([-1, 0], [0.5, 0.5], r"partner -1 is outside 0\.\.5"),
        ([1.0, 0.0], [0.5, 0.5], r"partner is torch.float32"),
        ([True, False], [0.5, 0.5], r"partner is torch.bool"),
        ([1, 0], [0.5, 2.0], r"lam 2.0 is outside 0\.\.1"),
        ([1, 0], [-0.25, 0.5], r"lam -0.25 is outside"),
        ([1, 0], [0.5, math.nan], r"lam nan is outside"),
        ([1, 0], [math.inf, 0.5], r"lam inf is outside"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(partner, lam, message):
    z, mixed_z, labels, _ = batch(mixed=2)
    plan = MixPlan(torch.tensor(partner), torch.tensor(lam))
    for loss in (
        lambda: logitmix_loss(z, mixed_z, labels, plan),
        lambda: mixed_cross_entropy(mixed_z, labels, plan),
        lambda: lamix_loss(mixed_z, mixed_z, labels, plan),
        lambda: mixed_forward(nn.Linear(3, 3), {"x": z}, plan),
        lambda: mixed_forward(nn.Linear(3, 3), {"x": z}, plan, rows="clean"),
    ):
        with pytest.raises(ValueError, match=message):
            loss()


ON_A_GPU = """
import sys, torch
from hf_logitmix import MixPlan
from hf_logitmix.losses import mixed_cross_entropy
label, partner, lam, has_targets = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "True"
plan = MixPlan(torch.tensor([1, partner]), torch.tensor([lam, 0.5])).to("cuda")
targets = torch.eye(3, device="cuda") if has_targets else None
mixed_cross_entropy(torch.zeros(2, 3, device="cuda"), torch.tensor([label, 0], device="cuda"), plan, targets=targets)
torch.cuda.synchronize()
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of NVIDIA")
@pytest.mark.parametrize("has_targets", [False, True])
@pytest.mark.parametrize(
    ("label", "partner", "lam", "fits"),
    [
        *[(2, 0, 1.0, True), (-1, 0, 1.0, False), (-100, 0, 1.0, False), (3, 0, 1.0, False)],
        *[(2, -1, 1.0, False), (2, 2, 1.0, False), (2, 0, 2.0, False), (2, 0, math.nan, False)],
    ],
)
def test_a_gpu_asserts_what_cannot_be(label, partner, lam, fits, has_targets):
    """In a process of its own, which such an assert ends."""
    command = [sys.executable, "-c", ON_A_GPU, str(label), str(partner), str(lam), str(has_targets)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is fits
    assert fits or "device-side assert" in done.stderr
