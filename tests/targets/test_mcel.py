"""MCEL, SG-MCEL and GMCEL: against the equations in plain Python, torch's own losses, and loops by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, TrainerCallback

from helpers.data import batch_of, data_without_types, examples, soft_mask
from helpers.models import tiny_bert
from helpers.training import LEARNING_RATE, InOrder, arguments, collate_pairs, weights
from hf_logitmix import Method, MixTrainer, get_method
from hf_logitmix.criteria import CrossEntropy, RowLoss
from hf_logitmix.mixing import Linear
from hf_logitmix.objectives import Clean, LaMix, Mixed, total_of
from hf_logitmix.part import LabelSpec
from hf_logitmix.similarity import FILE_NAME as SIMILARITY
from hf_logitmix.similarity import lda_similarity
from hf_logitmix.targets import GMCEL, MCEL, SGMCEL, Infogain, LabelSmoothing, TrainingSet, mcel
from hf_logitmix.targets.learned import gmcel_penalties, sg_mcel_penalties
from hf_logitmix.training.extras import FILE_NAME as EXTRAS

A = torch.tensor([[0.0, 0.25, 0.75], [0.5, 0.0, 0.5], [0.9, 0.1, 0.0]])
EACH = torch.tensor([0.1, 0.2, 0.4])
NOTHING = TrainingSet([], nn.Identity(), 3)
LEARNED = [(SGMCEL, "simplex"), (SGMCEL, "soft"), (GMCEL, "simplex"), (GMCEL, "soft")]
NAMED = [("sg_mcel", "simplex"), ("sg_mcel", "soft"), ("gmcel", "simplex"), ("gmcel", "soft")]


def similarity(num_labels: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    drawn = torch.rand(num_labels, num_labels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn = 0.1 + drawn.fill_diagonal_(-0.1)
    return (drawn / drawn.sum(1, keepdim=True)).to(dtype)


def uniform(num_labels: int) -> torch.Tensor:
    return (1 - torch.eye(num_labels)) / (num_labels - 1)


# ---- MCEL ------------------------------------------------------------------------------------------------------------


def test_rows_by_hand():
    expected = torch.tensor([[0.8, 0.05, 0.15], [0.1, 0.8, 0.1], [0.18, 0.02, 0.8]])
    torch.testing.assert_close(mcel(A, 0.2), expected)
    torch.testing.assert_close(MCEL(0.2, A).matrix(3), expected)
    torch.testing.assert_close(get_method("mcel", class_similarity=A).targets.matrix(3), expected)
    each = torch.tensor([[0.9, 0.025, 0.075], [0.1, 0.8, 0.1], [0.36, 0.04, 0.6]])
    torch.testing.assert_close(mcel(A, EACH), each)
    assert torch.equal(mcel(A, 0.0), torch.eye(3))
    assert mcel(A.double(), 0.2).dtype == torch.float64


@pytest.mark.parametrize("eps", [0.2, EACH.tolist()], ids=["one eps", "one each"])
def test_gradients_are_those_of_equations_5_and_7(eps):
    """dl/df_j = -eps_y A_yj / f_j for j != y, -(1 - eps_y) / f_y for j = y.

    The loss takes the softmax of log f, which is f only while f sums to one. Off that plane it also divides by the sum,
    and the target has mass 1: one is added to every component. In the logits the same is dl/dz_j = f_j - T_yj.
    """
    each = eps if isinstance(eps, list) else [eps] * 3
    f = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3], [0.05, 0.15, 0.8], [0.7, 0.2, 0.1]], dtype=torch.float64)
    labels = [0, 1, 2, 2]
    targets = mcel(A.double(), torch.tensor(each, dtype=torch.float64))
    of_f, of_z = f.clone().requires_grad_(), f.log().requires_grad_()
    for variable, logits in ((of_f, of_f.log()), (of_z, of_z)):
        losses = RowLoss(CrossEntropy(), targets)(logits, torch.tensor(labels))
        (gradient,) = torch.autograd.grad(losses.sum(), variable)
        for n, y in enumerate(labels):
            for j in range(3):
                share = (1 - each[y]) if j == y else each[y] * A[y, j].item()
                expected = -share / f[n, j].item() + 1 if variable is of_f else f[n, j].item() - share
                assert gradient[n, j].item() == pytest.approx(expected, abs=1e-6)


def test_loss_is_torch_cross_entropy_of_soft_labels():
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(20, 5, generator=generator), torch.randint(5, (20,), generator=generator)
    matrix, each = similarity(5), torch.rand(5, generator=generator) / 2
    soft = torch.stack([(1 - each[y]) * F.one_hot(y, 5) + each[y] * matrix[y] for y in labels])
    expected = F.cross_entropy(logits, soft, reduction="none")
    torch.testing.assert_close(RowLoss(CrossEntropy(), mcel(matrix, each))(logits, labels), expected)


@pytest.mark.parametrize("num_labels", [2, 3, 10])
@pytest.mark.parametrize("smoothing", [0.1, 0.3])
def test_uniform_similarity_is_label_smoothing(num_labels, smoothing):
    """Smoothing s spreads s over all K classes, MCEL over the K - 1 others: eps = s (K - 1) / K."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, num_labels, generator=generator)
    labels = torch.randint(num_labels, (12,), generator=generator)
    targets = mcel(uniform(num_labels), smoothing * (num_labels - 1) / num_labels)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(RowLoss(CrossEntropy(), targets)(logits, labels), expected)
    torch.testing.assert_close(LabelSmoothing(smoothing).matrix(num_labels), targets)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_rows_are_distributions_that_prefer_the_label(num_labels, seed):
    each = torch.rand(num_labels, generator=torch.Generator().manual_seed(seed)) * 0.49
    rows = mcel(similarity(num_labels, seed), each)
    torch.testing.assert_close(rows.sum(1), torch.ones(num_labels))
    assert (rows >= 0).all()
    assert rows.argmax(1).tolist() == list(range(num_labels))
    torch.testing.assert_close(rows.diagonal(), 1 - each)


# ---- what is learned -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0.05, 0.2, 0.45])
@pytest.mark.parametrize(("cls", "parametrization"), LEARNED)
def test_learned_targets_start_as_mcel(cls, parametrization, eps):
    targets = cls(eps, similarity(5), parametrization=parametrization).setup(NOTHING)
    rows = targets.matrix(5)
    torch.testing.assert_close(rows, mcel(similarity(5), eps), atol=1e-6, rtol=0)
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(20, 5, generator=generator), torch.randint(5, (20,), generator=generator)
    expected = RowLoss(CrossEntropy(), MCEL(eps, similarity(5)).matrix(5))(logits, labels)
    torch.testing.assert_close(RowLoss(CrossEntropy(), rows)(logits, labels), expected, atol=1e-5, rtol=0)
    assert rows.requires_grad
    assert sum(p.numel() for p in targets.learned.parameters()) == (5 if cls is SGMCEL else 25)


def sg_by_hand(eps: list[float], matrix: list[list[float]], p: float) -> list[float]:
    total, high, low = 0.0, 0.0, 0.0
    for i, value in enumerate(eps):
        row = [(1 - value) * (i == j) + value * matrix[i][j] for j in range(len(eps))]
        total += (sum(abs(x) for x in row) - 1) ** 2
        high += abs(value - 0.5) ** p
        low += abs(value) ** p
    return [x / len(eps) for x in (total, high, low)]


def gm_by_hand(rows: list[list[float]], margins: list[float], p: float) -> list[float]:
    total, high, low, margin = 0.0, 0.0, 0.0, 0.0
    for i, row in enumerate(rows):
        others = sum(x for j, x in enumerate(row) if j != i)
        total += (sum(row) - 1) ** 2
        high += sum(abs(x - 1) ** p for x in row)
        low += sum(abs(x) ** p for x in row)
        margin += ((len(rows) - 1) * (row[i] - margins[i]) - others) ** 2
    return [x / len(rows) for x in (total, high, low, margin)]


SG_NAMES = ["penalty_sum", "penalty_high", "penalty_low"]
GM_NAMES = [*SG_NAMES, "penalty_margin"]


def check_gradients(penalties, variable, by_hand, step=1e-6):
    """Autograd of each penalty against central differences of the same thing in plain Python."""
    flat = variable.detach().flatten().tolist()
    for number, value in enumerate(penalties.values()):
        (gradient,) = torch.autograd.grad(value, variable, retain_graph=True)
        for place, found in enumerate(gradient.flatten().tolist()):
            up, down = ([*flat[:place], flat[place] + sign, *flat[place + 1 :]] for sign in (step, -step))
            expected = (by_hand(up)[number] - by_hand(down)[number]) / (2 * step)
            assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("eps", [[0.2, 0.1, 0.4], [-0.3, 0.7, 1.2]], ids=["inside", "outside"])
def test_sg_mcel_penalties_equal_plain_loops(eps, p):
    """Outside of [0, 1] a row has a negative entry, and its L1 norm is above one."""
    variable = torch.tensor(eps, dtype=torch.float64, requires_grad=True)
    penalties = sg_mcel_penalties(variable, A.double(), p)
    assert list(penalties) == SG_NAMES
    expected = sg_by_hand(eps, A.double().tolist(), p)
    assert [value.item() for value in penalties.values()] == pytest.approx(expected, abs=1e-12)
    assert (expected[0] > 0.01) is (eps[0] < 0)
    check_gradients(penalties, variable, lambda flat: sg_by_hand(flat, A.double().tolist(), p))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_gmcel_penalties_equal_plain_loops(p):
    rows = torch.tensor([[0.9, 0.3, 0.1], [0.2, 1.3, 0.4], [0.6, 0.05, 0.2]], dtype=torch.float64, requires_grad=True)
    margins = [0.7, 0.5, -0.1]
    penalties = gmcel_penalties(rows, torch.tensor(margins, dtype=torch.float64), p)
    assert list(penalties) == GM_NAMES
    expected = gm_by_hand(rows.tolist(), margins, p)
    assert [value.item() for value in penalties.values()] == pytest.approx(expected, abs=1e-12)
    check_gradients(penalties, rows, lambda flat: gm_by_hand([flat[i : i + 3] for i in range(0, 9, 3)], margins, p))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize(("cls", "parametrization"), LEARNED)
def test_the_penalty_is_the_weighted_sum_of_its_terms(cls, parametrization, p):
    given_weights = [0.5, 2.0, 3.0, 7.0][: 3 if cls is SGMCEL else 4]
    options = {"margins": (0.1, 0.2, 0.3)} if cls is GMCEL else {}
    targets = cls(0.3, A, parametrization=parametrization, penalties=given_weights, norm=p, **options).setup(NOTHING)
    terms = targets.penalty()
    rows = mcel(A, 0.3).tolist()
    expected = sg_by_hand([0.3] * 3, A.tolist(), p) if cls is SGMCEL else gm_by_hand(rows, [0.1, 0.2, 0.3], p)
    assert [terms[name].rows.item() for name in (SG_NAMES if cls is SGMCEL else GM_NAMES)] == pytest.approx(
        expected, abs=1e-5
    )
    by_hand = sum(weight * value for weight, value in zip(given_weights, expected, strict=True))
    assert total_of(terms).item() == pytest.approx(by_hand, abs=1e-4)


@pytest.mark.parametrize("num_labels", [2, 3, 10])
@pytest.mark.parametrize("parametrization", ["simplex", "soft"])
def test_default_margins_are_met_at_the_start(num_labels, parametrization):
    """At E_ii = 1 - eps the margin term is zero, and it grows to either side."""
    targets = GMCEL(0.3, similarity(num_labels), parametrization=parametrization).setup(NOTHING)
    assert targets.penalty()["penalty_margin"].rows.item() == pytest.approx(0, abs=1e-10)
    for nudge in (-0.05, 0.05):
        moved = GMCEL(0.3, similarity(num_labels), parametrization=parametrization).setup(NOTHING)
        with torch.no_grad():
            moved.learned.weight.diagonal().add_(nudge)
        assert moved.penalty()["penalty_margin"].rows.item() > 1e-4


@pytest.mark.parametrize(("high", "low", "settles"), [(20.0, 30.0, 0.2), (10.0, 10.0, 0.25), (9.0, 1.0, 0.45)])
@pytest.mark.parametrize("parametrization", ["simplex", "soft"])
def test_penalties_alone_settle_sg_mcel_at_b_over_twice_b_plus_g(parametrization, high, low, settles):
    targets = SGMCEL(0.1, A, parametrization=parametrization, penalties=(1.0, high, low)).setup(NOTHING)
    optimizer = torch.optim.Adam(targets.learned.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        total_of(targets.penalty()).backward()
        optimizer.step()
    assert (1 - targets.matrix(3).diagonal()).tolist() == pytest.approx([settles] * 3, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "parametrization"), LEARNED)
def test_without_penalties_the_label_takes_all(cls, parametrization):
    """Of a sure model, cross-entropy alone drives eps below any bound; the default penalties hold it."""
    logits, labels = 4 * torch.eye(3), torch.arange(3)
    own = {}
    for penalties in (None, (0.0,) * (3 if cls is SGMCEL else 4)):
        options = {} if penalties is None else {"penalties": penalties}
        targets = cls(0.2, A, parametrization=parametrization, **options).setup(NOTHING)
        optimizer = torch.optim.Adam(targets.learned.parameters(), lr=0.05)
        for _ in range(200):
            optimizer.zero_grad()
            loss = RowLoss(CrossEntropy(), targets.matrix(3))(logits, labels).mean()
            (loss + total_of(targets.penalty())).backward()
            optimizer.step()
        own[penalties is None] = targets.matrix(3).detach()
    assert ((own[True].diagonal() > 0.6) & (own[True].diagonal() < 0.95)).all()
    if (cls, parametrization) == (GMCEL, "soft"):
        assert own[False].sum(1).max() < 0.1  # no target at all is cheaper still
    else:
        assert own[False].diagonal().min() > 0.98


moderate, extreme = st.floats(-15, 15, width=32), st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.lists(moderate | extreme, min_size=4, max_size=4))
def test_simplex_eps_cannot_leave_its_range(values):
    """Strictly inside up to u = 15 either way; beyond, float32 rounds to the bounds themselves."""
    targets = SGMCEL(0.2, similarity(4)).setup(NOTHING)
    with torch.no_grad():
        targets.learned.weight.copy_(torch.tensor(values))
    rows = targets.matrix(4).detach()
    for value, eps in zip(values, (1 - rows.diagonal()).tolist(), strict=True):
        assert 0 <= eps <= 0.5
        assert 0 < eps < 0.5 or abs(value) > 15
    torch.testing.assert_close(rows.sum(1), torch.ones(4))
    assert (rows >= 0).all()
    assert targets.penalty()["penalty_sum"].rows.item() == pytest.approx(0, abs=1e-10)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.lists(moderate | extreme, min_size=9, max_size=9))
def test_simplex_rows_are_always_distributions(values):
    targets = GMCEL(0.2, A).setup(NOTHING)
    with torch.no_grad():
        targets.learned.weight.copy_(torch.tensor(values).reshape(3, 3))
    rows = targets.matrix(3).detach()
    torch.testing.assert_close(rows.sum(1), torch.ones(3))
    assert (rows >= 0).all()
    assert targets.penalty()["penalty_sum"].rows.item() == pytest.approx(0, abs=1e-10)


def test_soft_rows_are_never_negative():
    targets = GMCEL(0.2, A, parametrization="soft").setup(NOTHING)
    with torch.no_grad():
        targets.learned.weight.copy_(torch.tensor([[0.9, -0.3, 0.1], [0.0, 1.4, 0.2], [-1.0, -2.0, -3.0]]))
    expected = [[0.9, 0.0, 0.1], [0.0, 1.4, 0.2], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(targets.matrix(3), torch.tensor(expected))
    margins = [(3 * 0.8 - 1) / 2] * 3
    found = [term.rows.item() for term in targets.penalty().values()]
    free = targets.learned.weight.tolist()  # below zero too, so that the penalties bring it back
    assert found == pytest.approx(gm_by_hand(free, margins, 2), abs=1e-5)
    total_of(targets.penalty()).backward()
    assert (targets.learned.weight.grad[2] < 0).all()


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [-0.1, 0.5, 1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "make",
    [lambda eps: mcel(A, eps), lambda eps: mcel(A, torch.tensor([0.1, 0.2, eps])), MCEL, SGMCEL, GMCEL]
    + [lambda eps, name=name: get_method(name, eps=eps) for name in ("mcel", "sg_mcel", "gmcel")],
    ids=["mcel()", "each", "MCEL", "SGMCEL", "GMCEL", "mcel", "sg_mcel", "gmcel"],
)
def test_eps_out_of_range(make, eps):
    with pytest.raises(ValueError, match=r"eps=.* is outside \[0, 0\.5\)"):
        make(eps)


@pytest.mark.parametrize("eps", [torch.tensor([0.1, 0.2]), torch.full((3, 1), 0.1), torch.full((3, 3), 0.1)])
def test_eps_of_a_wrong_shape(eps):
    with pytest.raises(ValueError, match="eps of shape"):
        mcel(A, eps)


@pytest.mark.parametrize("cls", [SGMCEL, GMCEL])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, r"eps=0\.0 cannot be learned"),
        ({"parametrization": "hard"}, "parametrization='hard' is unknown: pass one of simplex, soft"),
        ({"penalties": (1.0, 2.0)}, r"penalties must be .* got \(1\.0, 2\.0\)"),
        ({"penalties": (1.0,) * 5}, "penalties must be .*numbers >= 0"),
        ({"penalties": (1.0, -1.0, 1.0)}, "penalties must be"),
        ({"penalties": (1.0, -1.0, 1.0, 1.0)}, "penalties must be"),
        ({"penalties": (math.nan,) * 3}, "penalties must be"),
        ({"penalties": (math.nan,) * 4}, "penalties must be"),
        ({"norm": 0.5}, r"norm must be .* got 0\.5"),
        ({"norm": math.inf}, "norm must be .* got inf"),
        ({"norm": math.nan}, "norm must be .* got nan"),
        ({"targets_lr": 0.0}, r"targets_lr must be .* got 0\.0"),
        ({"targets_lr": -1.0}, r"targets_lr must be .* got -1\.0"),
        ({"targets_lr": math.nan}, r"targets_lr must be .* got nan"),
    ],
)
def test_options_that_are_not_possible(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**options)
    with pytest.raises(ValueError, match=message):
        get_method("sg_mcel" if cls is SGMCEL else "gmcel", **options)


@pytest.mark.parametrize("name", ["mcel", "sg_mcel", "gmcel"])
def test_a_similarity_that_does_not_fit(name):
    for wrong in (A[:2], A[0], A + 0.1, 2 * A, -A):
        with pytest.raises(ValueError, match="class_similarity"):
            get_method(name, class_similarity=wrong)
    method = get_method(name, class_similarity=A)
    method.check(tiny_bert(3), LabelSpec(3, "single_label_classification"))
    with pytest.raises(ValueError, match="class_similarity has 3 rows and the model has num_labels=4"):
        method.check(tiny_bert(4), LabelSpec(4, "single_label_classification"))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_margins_that_are_not_finite(bad):
    with pytest.raises(ValueError, match="one finite number for each of 3 classes"):
        get_method("gmcel", margins=(0.1, bad, 0.2)).check(tiny_bert(3), LabelSpec(3, "single_label_classification"))


def test_margins_of_a_wrong_length():
    method = get_method("gmcel", margins=(0.1, 0.2))
    with pytest.raises(ValueError, match=r"margins=\(0\.1, 0\.2\): pass one finite number for each of 3 classes"):
        method.check(tiny_bert(3), LabelSpec(3, "single_label_classification"))


@pytest.mark.parametrize("name", ["mcel", "sg_mcel", "gmcel"])
def test_two_classes_warn(name):
    with pytest.warns(UserWarning, match="label smoothing with twice the eps"):
        get_method(name).check(tiny_bert(2), LabelSpec(2, "single_label_classification"))


@pytest.mark.parametrize("cls", [MCEL, SGMCEL, GMCEL])
def test_nothing_is_known_before_setup(cls):
    with pytest.raises(ValueError, match=r"setup\(\)"):
        cls().matrix(3)
    if cls is not MCEL:
        with pytest.raises(ValueError, match=r"setup\(\)"):
            cls(class_similarity=A).matrix(3)


def test_lamix_takes_distributions_alone():
    halves = torch.diag(torch.tensor([0.5, 1.0, 1.0]))
    for targets in (Infogain(), halves, SGMCEL(parametrization="soft"), GMCEL(parametrization="soft")):
        with pytest.raises(ValueError, match="rows that need not sum to 1"):
            Method(Linear(), LaMix(), targets)
        Method(Linear(), Mixed(), targets)
    for targets in (torch.eye(3), MCEL(0.2, A), SGMCEL(), GMCEL(), LabelSmoothing(0.1)):
        Method(Linear(), LaMix(), targets)


# ---- in training -----------------------------------------------------------------------------------------------------


def start_of(name: str, parametrization: str) -> torch.Tensor:
    """The parameter at eps = .2: the inverse of eps = sigmoid(u) / 2, and the logarithms of MCEL's rows."""
    if name == "sg_mcel":
        return torch.full((3,), math.log(0.4 / (1 - 0.4)) if parametrization == "simplex" else 0.2)
    rows = torch.tensor([[0.8, 0.05, 0.15], [0.1, 0.8, 0.1], [0.18, 0.02, 0.8]])
    return rows.log() if parametrization == "simplex" else rows


def loss_by_hand(
    name: str, parametrization: str, weight, logits, labels, penalties
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and the rows, from the equations: rows one by one, and torch's cross-entropy of soft labels."""
    if name == "sg_mcel":
        eps = 0.5 / (1 + torch.exp(-weight)) if parametrization == "simplex" else weight
        rows = torch.stack([(1 - eps[i]) * torch.eye(3)[i] + eps[i] * A[i] for i in range(3)])
        terms = [((rows.abs().sum(1) - 1) ** 2).mean(), ((eps - 0.5) ** 2).mean(), (eps**2).mean()]
    else:
        rows = torch.exp(weight) / torch.exp(weight).sum(1, keepdim=True) if parametrization == "simplex" else weight
        c = (3 * 0.8 - 1) / 2
        margin = [2 * (rows[i, i] - c) - sum(rows[i, j] for j in range(3) if j != i) for i in range(3)]
        terms = [(sum(rows[i]) - 1) ** 2 for i in range(3)]
        terms = [torch.stack(terms).mean(), ((rows - 1) ** 2).sum() / 3, (rows**2).sum() / 3]
        terms.append((torch.stack(margin) ** 2).mean())
    penalty = sum(w * term for w, term in zip(penalties, terms, strict=True))
    return F.cross_entropy(logits, rows[labels]) + penalty, rows


@pytest.mark.parametrize(("name", "parametrization"), NAMED)
@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (2, 4)])
def test_equals_a_loop_by_hand(tmp_path, name, parametrization, batch, accumulation):
    """18 examples: the third step holds two. The model learns at one rate and the targets at another."""
    penalties = (2.0, 1.0, 3.0) if name == "sg_mcel" else (2.0, 1.0, 0.5, 3.0)
    data, model, weight = examples(18), tiny_bert(), start_of(name, parametrization).requires_grad_()
    losses = []
    for start in (0, 8, 16):
        rows = data[start : start + 8]
        labels = torch.tensor([row["labels"] for row in rows])
        loss, _ = loss_by_hand(name, parametrization, weight, model(**batch_of(rows)).logits, labels, penalties)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, [*model.parameters(), weight])
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients[:-1], strict=True):
                parameter -= LEARNING_RATE * gradient
            weight -= 0.02 * gradients[-1]
    method = get_method(name, class_similarity=A, parametrization=parametrization, penalties=penalties, targets_lr=0.02)
    trainer = InOrder(
        model=tiny_bert(),
        args=arguments(tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation),
        method=method,
        train_dataset=data,
    )
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx(losses, abs=5e-5)
    torch.testing.assert_close(weights(trainer.model), weights(model), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(trainer.method_in_training.targets.learned.weight, weight, atol=1e-5, rtol=1e-4)
    assert (weight - start_of(name, parametrization)).abs().min() > 1e-5


def mixed_logits(model, rows, lam, partner):
    batch = batch_of(rows)
    words = model.get_input_embeddings()(batch["input_ids"])
    return model(
        inputs_embeds=lam[:, None] * words + (1 - lam[:, None]) * words[partner],
        attention_mask=soft_mask(batch["attention_mask"], partner, lam),
    ).logits


@pytest.mark.parametrize(
    ("name", "targets", "rows"),
    [
        ("logitmix", MCEL(0.2, A), 0.8 * torch.eye(3) + 0.2 * A),
        ("mixup", LabelSmoothing(0.3), 0.7 * torch.eye(3) + 0.1),
        ("mixup", SGMCEL(0.2, A, penalties=(0.0, 0.0, 0.0)), 0.8 * torch.eye(3) + 0.2 * A),
        ("logitmix", GMCEL(0.2, A, penalties=(0.0,) * 4), 0.8 * torch.eye(3) + 0.2 * A),
    ],
    ids=["mcel", "smoothing", "sg_mcel", "gmcel"],
)
def test_mixing_and_targets_go_together(tmp_path, name, targets, rows):
    """Each of the two labels brings its row."""
    data, model = data_without_types(8), tiny_bert()
    labels, partner = torch.tensor([row["labels"] for row in data]), torch.arange(8) ^ 1
    lam = torch.tensor([0.2, 0.7] * 4)[:, None]
    with torch.no_grad():
        mixed = mixed_logits(model, data, lam, partner)
        expected = F.cross_entropy(mixed, lam * rows[labels] + (1 - lam) * rows[labels[partner]])
        if name == "logitmix":
            clean = model(**batch_of(data)).logits
            apart = lam * clean + (1 - lam) * clean[partner] - mixed
            expected = expected + F.cross_entropy(clean, rows[labels]) + apart.square().mean()
    trainer = InOrder(
        model=model,
        args=arguments(tmp_path, max_steps=1),
        method=get_method(name, targets=targets),
        train_dataset=data,
        data_collator=collate_pairs,
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.item(), abs=2e-5)


def learnable(count: int, num_labels: int = 4) -> list[dict]:
    """The class says which words a sentence may hold; neighbours share half of theirs."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(count):
        label = number % num_labels
        ids = 3 + 7 * label + torch.randint(0, 14, (6,), generator=generator)
        rows.append({"input_ids": ids, "attention_mask": torch.ones(6, dtype=torch.long), "labels": label})
    return rows


def steady(folder, **options):
    """AdamW as one fine-tunes with it."""
    fixed = {"optim": "adamw_torch", "learning_rate": 1e-3, "max_grad_norm": 1.0, "logging_steps": 25}
    return arguments(folder, **{**fixed, **options})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parametrization"), NAMED)
def test_learned_targets_stay_useful(tmp_path, name, parametrization):
    """150 steps: every eps moved and is inside (.01, .49), and the label keeps the largest mass."""
    data = learnable(120)
    trainer = MixTrainer(
        model=tiny_bert(4),
        args=steady(tmp_path, max_steps=150),
        method=get_method(name, parametrization=parametrization),
        train_dataset=data,
    )
    trainer.train()
    rows = trainer.method_in_training.targets.matrix(4).detach()
    eps = 1 - rows.diagonal()
    assert ((eps > 0.01) & (eps < 0.49)).all()
    assert (eps - 0.2).abs().min() > 1e-4
    assert rows.argmax(1).tolist() == [0, 1, 2, 3]
    assert trainer.evaluate(data)["eval_loss"] < 0.7 * math.log(4)
    predicted = trainer.predict(data).predictions.argmax(1)
    assert (predicted == [row["labels"] for row in data]).mean() > 0.8
    names = SG_NAMES if name == "sg_mcel" else GM_NAMES
    assert all(
        names == [key for key in entry if key in GM_NAMES] for entry in trainer.state.log_history if "loss" in entry
    )


@pytest.mark.parametrize(("name", "parametrization"), [("sg_mcel", "simplex"), ("gmcel", "soft")])
def test_what_is_learned_is_in_the_optimizer_and_not_in_the_model(tmp_path, name, parametrization):
    plain = set(tiny_bert().state_dict())
    trainer = MixTrainer(
        model=tiny_bert(),
        args=steady(tmp_path, max_steps=2, weight_decay=0.1, save_strategy="steps", save_steps=2),
        method=get_method(name, class_similarity=A, parametrization=parametrization, targets_lr=0.03),
        train_dataset=examples(16),
    )
    trainer.train()
    weight = trainer.method_in_training.targets.learned.weight
    groups = [g for g in trainer.optimizer.param_groups if any(p is weight for p in g["params"])]
    assert [(len(g["params"]), g["weight_decay"], g["lr"]) for g in groups] == [(1, 0.0, 0.03)]
    model_groups = [g for g in trainer.optimizer.param_groups if g is not groups[0]]
    assert {(g["weight_decay"], g["lr"]) for g in model_groups} == {(0.1, 1e-3), (0.0, 1e-3)}
    assert set(trainer.model.state_dict()) == plain
    checkpoint = tmp_path / "checkpoint-2"
    assert set(load_file(checkpoint / "model.safetensors")) == plain
    kept = [value for key, value in load_file(checkpoint / EXTRAS).items() if key.endswith("weight")]
    assert len(kept) == 1
    assert torch.equal(kept[0], weight)
    trainer.save_model(str(tmp_path / "final"))
    assert set(load_file(tmp_path / "final" / "model.safetensors")) == plain
    _, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "final", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_the_schedule_applies_to_the_rate_of_the_targets(tmp_path):
    """Linear to zero in four steps: after two, half is left. Without a rate of their own they take the model's."""
    for own, expected in ((0.04, 0.02), (None, 5e-4)):
        trainer = MixTrainer(
            model=tiny_bert(),
            args=steady(tmp_path, max_steps=4, lr_scheduler_type="linear"),
            method=get_method("sg_mcel", class_similarity=A, targets_lr=own),
            train_dataset=examples(16),
            callbacks=[StopAt(2)],
        )
        trainer.train()
        assert [g["lr"] for g in trainer.optimizer.param_groups] == pytest.approx([5e-4, 5e-4, expected])


def test_an_optimizer_of_the_user_gets_what_is_learned(tmp_path):
    model = tiny_bert()
    mine = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    options = {"method": get_method("sg_mcel", class_similarity=A), "train_dataset": examples(8)}
    trainer = MixTrainer(model=model, args=arguments(tmp_path), optimizers=(mine, None), **options)
    trainer.train()
    assert [g["lr"] for g in mine.param_groups] == [LEARNING_RATE, 0.01]
    assert mine.param_groups[1]["params"][0] is trainer.method_in_training.targets.learned.weight
    assert (1 - trainer.method_in_training.targets.matrix(3).diagonal() - 0.2).abs().min() > 1e-6
    schedule = torch.optim.lr_scheduler.ConstantLR(mine)
    with pytest.raises(ValueError, match="lr_scheduler"):
        MixTrainer(model=tiny_bert(), args=arguments(tmp_path), optimizers=(mine, schedule), **options).train()


class StopAt(TrainerCallback):
    """Ends a run as Ctrl-C would, after the checkpoint of this step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


def run(folder, name, parametrization="simplex", stop=None, resume=None, **options):
    trainer = MixTrainer(
        model=tiny_bert(dropout=0.1),
        args=steady(
            folder,
            **{
                **{"max_steps": 6, "logging_steps": 1, "save_strategy": "steps", "save_steps": 2},
                **{"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, **options},
            },
        ),
        method=get_method(name, parametrization=parametrization),
        train_dataset=examples(40),
        callbacks=[StopAt(stop)] if stop else [],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (("sg_mcel", {"parametrization": "soft"}), "holds what another method, or one with other options"),
        (("gmcel", {}), "holds what another method"),
        (("sg_mcel", {"class_similarity": similarity(3, seed=8)}), "another class_similarity"),
    ],
)
def test_other_options_do_not_go_on_with_what_was_learned(tmp_path, method, message):
    def start(folder, name, options, resume=None):
        args = arguments(folder, max_steps=3, save_strategy="steps", save_steps=1)
        MixTrainer(model=tiny_bert(), args=args, method=get_method(name, **options), train_dataset=examples(24)).train(
            resume_from_checkpoint=resume
        )

    start(tmp_path / "whole", "sg_mcel", {"class_similarity": similarity(3)})
    name, options = method
    checkpoint = str(tmp_path / "whole" / "checkpoint-1")
    with pytest.raises(ValueError, match="trained in another way"):
        start(tmp_path / "other", name, {"class_similarity": similarity(3), **options}, checkpoint)
    (tmp_path / "whole" / "checkpoint-1" / "hf_logitmix.json").unlink()  # what was learned has to tell by itself
    with pytest.raises(ValueError, match=message):
        start(tmp_path / "other", name, {"class_similarity": similarity(3), **options}, checkpoint)
    start(tmp_path / "same", "sg_mcel", {"class_similarity": similarity(3)}, checkpoint)


@pytest.mark.parametrize("lost", [SIMILARITY, f"checkpoint-4/{EXTRAS}"])
def test_a_run_cannot_be_resumed_without_its_files(tmp_path, lost):
    run(tmp_path, "sg_mcel", stop=4)
    (tmp_path / lost).unlink()
    with pytest.raises(ValueError, match=lost.rpartition("/")[2]):
        run(tmp_path, "sg_mcel", resume=True)


def test_the_best_model_comes_with_the_targets_of_its_time(tmp_path):
    scores = iter([0.1, 0.9, 0.2])
    trainer = MixTrainer(
        model=tiny_bert(),
        args=steady(
            tmp_path,
            **{"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2},
            **{"load_best_model_at_end": True, "metric_for_best_model": "score"},
        ),
        method=get_method("sg_mcel", class_similarity=A),
        train_dataset=examples(40),
        eval_dataset=examples(8, seed=1),
        compute_metrics=lambda prediction: {"score": next(scores)},
    )
    trainer.train()
    kept = {step: load_file(tmp_path / f"checkpoint-{step}" / EXTRAS)["targets.weight"] for step in (2, 4, 6)}
    assert torch.equal(trainer.method_in_training.targets.learned.weight, kept[4])
    assert not torch.equal(kept[4], kept[2])
    assert not torch.equal(kept[4], kept[6])


@pytest.mark.parametrize(("name", "parametrization"), [("sg_mcel", "simplex"), ("gmcel", "soft")])
def test_a_second_call_of_train_goes_on(tmp_path, name, parametrization):
    trainer = MixTrainer(
        model=tiny_bert(),
        args=steady(tmp_path, max_steps=4, logging_steps=1),
        method=get_method(name, class_similarity=A, parametrization=parametrization),
        train_dataset=examples(40),
    )
    trainer.train()
    first = trainer.state.log_history[0]["penalty_low"]
    learned, after = (
        trainer.method_in_training.targets.learned,
        trainer.method_in_training.targets.matrix(3).detach().clone(),
    )
    low = trainer.method_in_training.targets.penalty()["penalty_low"].rows.item()
    trainer.train()
    assert trainer.method_in_training.targets.learned is learned
    assert trainer.state.log_history[0]["penalty_low"] == pytest.approx(low, abs=1e-6)
    assert low != pytest.approx(first, abs=1e-4)
    assert not torch.equal(trainer.method_in_training.targets.matrix(3), after)


def without_class(label):
    return [row for row in examples(40) if row["labels"] != label]


@pytest.mark.parametrize("name", ["mcel", "sg_mcel", "gmcel"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (without_class(1), "class 1 has no example.*class_similarity"),
        ([{**row, "labels": i} for i, row in enumerate(examples(3))], "3 examples of 3 classes are too few"),
        (without_class(1)[:1], "has no example"),
    ],
)
def test_training_sets_without_a_similarity_are_refused_before_the_first_step(tmp_path, name, data, message):
    trainer = MixTrainer(model=tiny_bert(), args=arguments(tmp_path), method=name, train_dataset=data)
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert trainer.state.global_step == 0
    assert torch.equal(weights(trainer.model), weights(tiny_bert()))


def test_with_a_similarity_of_the_user_any_training_set_will_do(tmp_path):
    method = get_method("sg_mcel", class_similarity=A)
    data = without_class(1)[:1]
    trainer = MixTrainer(model=tiny_bert(), args=arguments(tmp_path, max_steps=1), method=method, train_dataset=data)
    trainer.train()
    assert trainer.state.global_step == 1
    assert torch.equal(trainer.method_in_training.targets.learned.similarity, A)


def test_the_similarity_of_a_run_is_that_of_the_model_as_loaded(tmp_path):
    data = examples(60)
    with torch.no_grad():
        features = tiny_bert().eval().bert(**batch_of(data)).pooler_output
    expected = lda_similarity(features, [row["labels"] for row in data])
    for method in (get_method("mcel"), Method(Linear(), Mixed(), MCEL(0.1))):
        folder = tmp_path / str(method.targets.eps)
        trainer = MixTrainer(model=tiny_bert(), args=arguments(folder), method=method, train_dataset=data)
        trainer.train()
        torch.testing.assert_close(trainer.method_in_training.targets.class_similarity, expected, atol=2e-4, rtol=0)
        kept = load_file(folder / SIMILARITY)["class_similarity"]
        assert torch.equal(trainer.method_in_training.targets.class_similarity, kept)


def test_equality_and_repr_know_nothing_of_what_is_learned():
    ready = Method(objective=Clean(), targets=SGMCEL(0.2, A)).setup(NOTHING)
    assert list(ready.learned) == ["targets"]
    assert "learned" not in repr(ready.method)
    with pytest.raises(ValueError, match="learned is not an option"):
        get_method("sg_mcel", learned=None)
    assert not len(get_method("mcel", class_similarity=A).setup(NOTHING).learned)
