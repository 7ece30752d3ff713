"""Each metric against a plain double loop, scikit-learn, the released code, and edges by hand."""

import inspect
import json
import math
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from transformers import EvalPrediction

from hf_logitmix.metrics import bin_of, calibration_metrics, calibration_of, one_class_remark
from hf_logitmix.temperature import cross_fit, fit_temperature

CASES = json.loads((Path(__file__).parents[1] / "data" / "logitmix_released_code.json").read_text())


def data(n=57, classes=3, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    return rng.normal(scale=scale, size=(n, classes)), rng.integers(classes, size=n)


def softmax_loop(row):
    top = max(row)
    total = sum(math.exp(x - top) for x in row)
    return [math.exp(x - top) / total for x in row]


def in_bin(p, b, n_bins):
    """(lo, hi], and 0 in the first."""
    return b / n_bins < p <= (b + 1) / n_bins or (p == 0 and b == 0)


def gap_and_conf(members):
    """Accuracy and mean confidence of some (confidence, hit) pairs."""
    return sum(hit for _, hit in members) / len(members), sum(conf for conf, _ in members) / len(members)


def selective_loop(pairs):
    """Selective prediction by sorting and counting; a wrong answer inside a tie counts by its share of the tie."""
    n, ties = len(pairs), {}
    for conf, hit in pairs:
        ties.setdefault(conf, []).append(1 - hit)
    curve, area, coverages = [0.0], 0.0, dict.fromkeys((1, 5, 10), 0.0)  # curve[i]: wrong ones among the first i
    for conf in sorted(ties, reverse=True):
        for _ in ties[conf]:
            curve.append(curve[-1] + sum(ties[conf]) / len(ties[conf]))
            area += (curve[-2] + curve[-1]) / 2 / n / n
        answered = [wrong for other, group in ties.items() if other >= conf for wrong in group]
        for percent in coverages:
            if 100 * sum(answered) <= percent * len(answered):
                coverages[percent] = len(answered) / n
    right, wrong = ([conf for conf, hit in pairs if hit == value] for value in (1, 0))
    wins = sum((a > b) + (a == b) / 2 for a in right for b in wrong)
    return {
        "aurc": sum(wrong / i for i, wrong in enumerate(curve) if i) / n,
        "augrc": area,
        "auroc": wins / (len(right) * len(wrong)) if right and wrong else 0.5,
        **{f"coverage_at_risk_{percent}": value for percent, value in coverages.items()},
    }


def loop(logits, labels, n_bins):
    """All metrics but smooth ECE, bin by bin and example by example."""
    n, classes = len(labels), len(logits[0])
    p = [softmax_loop([float(x) for x in row]) for row in logits]
    pairs = [(max(row), float(row.index(max(row)) == y)) for row, y in zip(p, labels, strict=True)]
    ece = oe = adaptive = classwise = mce = 0.0
    for b in range(n_bins):
        members = [pair for pair in pairs if in_bin(pair[0], b, n_bins)]
        if members:
            acc, conf = gap_and_conf(members)
            ece += len(members) / n * abs(acc - conf)
            oe += len(members) / n * conf * max(conf - acc, 0.0)
            mce = max(mce, abs(acc - conf))
        for k in range(classes):
            members = [(row[k], float(y == k)) for row, y in zip(p, labels, strict=True) if in_bin(row[k], b, n_bins)]
            if members:
                freq, conf = gap_and_conf(members)
                classwise += len(members) / n * abs(freq - conf) / classes
    ordered, start = sorted(pairs, key=lambda pair: pair[0]), 0
    for b in range(n_bins):
        stop = start + n // n_bins + (b < n % n_bins)
        if stop > start:
            acc, conf = gap_and_conf(ordered[start:stop])
            adaptive += (stop - start) / n * abs(acc - conf)
        start = stop
    return {
        "accuracy": sum(hit for _, hit in pairs) / n,
        "ece": ece,
        "oe": oe,
        "mce": mce,
        "adaptive_ece": adaptive,
        "classwise_ece": classwise,
        "nll": sum(-math.log(row[y]) for row, y in zip(p, labels, strict=True)) / n,
        "brier": sum((q - (k == y)) ** 2 for row, y in zip(p, labels, strict=True) for k, q in enumerate(row)) / n,
        **selective_loop(pairs),
    }


def without_smooth(values):
    """Smooth ECE has a test of its own."""
    assert "smooth_ece" in values
    return {name: value for name, value in values.items() if name != "smooth_ece"}


def two_groups(first, hits_first, second, hits_second):
    """Two-class logits with the given confidence in class 0, and labels that make each a hit or a miss."""
    logits = [[math.log(c / (1 - c)), 0.0] if c < 1 else [800.0, 0.0] for c in (first, second)]
    return logits, [0 if hit else 1 for hit in (hits_first, hits_second)]


@pytest.mark.parametrize("n_bins", [1, 7, 10, 15, 100])
@pytest.mark.parametrize(("n", "classes", "scale"), [(57, 3, 2.0), (200, 2, 0.5), (40, 10, 6.0), (1, 4, 1.0)])
def test_every_metric_equals_a_double_loop(n, classes, scale, n_bins):
    logits, labels = data(n, classes, scale=scale)
    values = calibration_metrics(logits, labels, n_bins)
    assert without_smooth(values) == pytest.approx(loop(logits, labels, n_bins), abs=1e-12)


def test_default_is_ten_bins():
    logits, labels = data()
    assert without_smooth(calibration_metrics(logits, labels)) == pytest.approx(loop(logits, labels, 10), abs=1e-12)


@pytest.mark.parametrize("n_bins", [10, 15])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed{case['seed']}")
def test_ece_and_oe_equal_the_released_code(case, n_bins):
    """It computes in float32, hence the tolerance."""
    values = calibration_metrics(case["org"], case["labels"], n_bins)
    assert values["ece"] == pytest.approx(case[f"ece{n_bins}"], abs=1e-6)
    assert values["oe"] == pytest.approx(case[f"oe{n_bins}"], abs=1e-6)


@pytest.mark.parametrize("classes", [2, 5])
def test_accuracy_nll_and_brier_equal_scikit_learn(classes):
    logits, labels = data(300, classes)
    p = np.array([softmax_loop(row) for row in logits.tolist()])
    values = calibration_metrics(logits, labels)
    assert values["accuracy"] == pytest.approx(accuracy_score(labels, p.argmax(1)))
    assert values["nll"] == pytest.approx(log_loss(labels, p, labels=range(classes)))
    assert values["brier"] == pytest.approx(np.mean(np.sum((p - np.eye(classes)[labels]) ** 2, axis=1)))


def test_all_metrics_of_two_examples_by_hand():
    """Confidence .75 and right, .95 and wrong: bins (.7, .8] and (.9, 1]."""
    values = calibration_metrics(*two_groups(0.75, True, 0.95, False))
    expected = {
        "accuracy": 0.5,
        "ece": (0.25 + 0.95) / 2,
        "oe": 0.95 * 0.95 / 2,
        "mce": 0.95,
        "adaptive_ece": (0.25 + 0.95) / 2,
        "classwise_ece": (0.25 + 0.95) / 2,
        "nll": -(math.log(0.75) + math.log(0.05)) / 2,
        "brier": (2 * 0.25**2 + 2 * 0.95**2) / 2,
        "aurc": (1 / 1 + 1 / 2) / 2,  # the wrong one comes first
        "augrc": 0.5 * 0.25 + 0.5 * 0.5,  # from 0 to .5, then level
        "auroc": 0.0,
        **{f"coverage_at_risk_{percent}": 0.0 for percent in (1, 5, 10)},
    }
    assert without_smooth(values) == pytest.approx(expected)


def test_confidence_of_exactly_one_shares_the_last_bin():
    """Alone it would be off by 1 and the other by .05; together they are off by .5 - .975."""
    values = calibration_metrics(*two_groups(1.0, False, 0.95, True))
    assert values["ece"] == values["mce"] == pytest.approx(0.975 - 0.5)
    assert values["oe"] == pytest.approx(0.975 * 0.475)


def test_probability_of_exactly_zero_shares_the_first_bin():
    """Class 1 has p = 0 (it is the label) and p = .05 (it is not): one bin, off by .5 - .025, as class 0 is."""
    values = calibration_metrics(*two_groups(1.0, False, 0.95, True))
    assert values["classwise_ece"] == pytest.approx(0.475)


@pytest.mark.parametrize(("classes", "n_bins"), [(2, 10), (2, 2), (4, 4), (5, 10), (6, 6), (8, 8), (10, 10)])
def test_confidence_exactly_on_an_edge_belongs_to_the_bin_below(classes, n_bins):
    """Equal logits give 1/K, the upper edge of a bin: right with 1/K, and wrong with a little more, stay apart."""
    more = 1 / classes + 0.01
    logits = [[0.0] * classes, [math.log(more * (classes - 1) / (1 - more))] + [0.0] * (classes - 1)]
    values = calibration_metrics(logits, [0, 1], n_bins)
    assert values["ece"] == pytest.approx(((1 - 1 / classes) + more) / 2)


@pytest.mark.parametrize("n_bins", [1, 3, 10, 15])
def test_bin_of_every_edge(n_bins):
    edges = [b / n_bins for b in range(n_bins + 1)]
    above = [np.nextafter(edge, 1) for edge in edges[:-1]]
    assert bin_of(np.array(edges), n_bins).tolist() == [0, *range(n_bins)]
    assert bin_of(np.array(above), n_bins).tolist() == list(range(n_bins))


def test_a_calibrated_model_has_small_errors_and_an_overconfident_one_large():
    """Labels drawn from softmax(z): the errors vanish with n; tripled logits are overconfident."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(40_000, 3))
    p = np.array([softmax_loop(row) for row in logits.tolist()])
    labels = (p.cumsum(1) < rng.random((len(p), 1))).sum(1)
    honest, loud = calibration_metrics(logits, labels), calibration_metrics(3 * logits, labels)
    for name in ("ece", "oe", "adaptive_ece", "classwise_ece"):
        assert honest[name] < 0.01 < 0.1 < loud[name]
    assert honest["accuracy"] == loud["accuracy"]


def test_permuting_examples_or_shifting_rows_changes_nothing():
    logits, labels = data()
    order = np.random.default_rng(2).permutation(len(labels))
    first = calibration_metrics(logits, labels)
    assert calibration_metrics(logits[order], labels[order]) == pytest.approx(first, abs=1e-12)
    assert calibration_metrics(logits + labels[:, None] * 5.0, labels) == pytest.approx(first, abs=1e-12)


@pytest.mark.parametrize("convert", [torch.tensor, np.ndarray.tolist, np.asfortranarray])
def test_torch_numpy_and_lists_give_the_same(convert):
    logits, labels = data()
    values = calibration_metrics(convert(logits), convert(labels))
    assert without_smooth(values) == pytest.approx(loop(logits, labels, 10), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_tensors_are_computed_in_float64(dtype):
    logits, labels = data()
    logits = torch.tensor(logits, dtype=dtype, requires_grad=True)
    values = calibration_metrics(logits, torch.tensor(labels, dtype=torch.int32))
    assert without_smooth(values) == pytest.approx(loop(logits.tolist(), labels, 10), abs=1e-12)


def test_float64_tensors_stay_float64():
    """In float32 both logits are 1e8, a tie."""
    assert calibration_metrics(torch.tensor([[1e8, 1e8 + 1]], dtype=torch.float64), [1])["accuracy"] == 1


def test_extreme_logits():
    values = calibration_metrics([[1e4, -1e4], [-1e4, 1e4], [1e4, -1e4]], [0, 1, 1])
    assert values["nll"] == pytest.approx(2e4 / 3)
    assert values["ece"] == pytest.approx(1 / 3)
    assert values["brier"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("as_tuple", [False, True])
def test_compute_metrics_of_a_trainer(as_tuple):
    logits, labels = data()
    predictions = (logits, np.zeros((57, 4))) if as_tuple else logits
    values = calibration_of(n_bins=15)(EvalPrediction(predictions, labels))
    assert without_smooth(values) == pytest.approx(loop(logits, labels, 15), abs=1e-12)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0.0, math.nan]], [0], "logits hold NaN"),
        (np.zeros((0, 3)), [], "logits and labels are empty"),
        ([[1.0], [2.0]], [0, 0], "logits have one column"),
        ([0.5, 1.0], [0, 1], "logits of shape"),
        ([[0.0, 1.0]], [0, 1], "labels of shape"),
        ([[0.0, 1.0]], [[0]], "labels of shape"),
        ([[0.0, 1.0]], [2], "labels"),
        ([[0.0, 1.0]], [-1], "labels"),
        ([[0.0, 1.0]], [0.5], "labels"),
        ([[0.0, 1.0]], [math.nan], "labels"),
    ],
)
def test_bad_inputs(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        calibration_metrics(logits, labels)


@pytest.mark.parametrize("n_bins", [0, -3])
def test_impossible_number_of_bins(n_bins):
    with pytest.raises(ValueError, match=f"n_bins={n_bins}"):
        calibration_metrics(*data(), n_bins)


@pytest.mark.parametrize(
    ("predicted", "labels", "marked"),
    [
        ([0] * 99 + [1], [0] * 60 + [1] * 40, True),
        ([0] * 94 + [1] * 6, [0] * 60 + [1] * 40, False),
        ([0] * 99 + [1], [0] * 96 + [1] * 4, False),
        ([0] * 100, [0] * 100, False),
    ],
)
def test_a_model_that_gives_one_class_is_marked(predicted, labels, marked):
    """99% against 60% of the labels; not where the labels are nearly all of one class themselves."""
    remark = one_class_remark(np.eye(3)[predicted] * 4 - 1, labels)
    assert bool(remark) is marked
    assert not marked or ("99.0% of the predictions" in remark and "60.0% of the labels" in remark)


@pytest.mark.parametrize(
    "use",
    [calibration_metrics, fit_temperature, cross_fit, one_class_remark],
    ids=lambda use: use.__name__,
)
def test_the_warning_of_probabilities_points_at_the_users_line(use):
    """However many functions of the package are in between, and each of them warns."""
    probabilities = np.random.default_rng(0).dirichlet([1.0, 1.0, 1.0], 20)
    line = inspect.currentframe().f_lineno + 2
    with pytest.warns(UserWarning, match="as probabilities do") as warned:
        use(probabilities, np.arange(20) % 3)
    assert {(warning.filename, warning.lineno) for warning in warned} == {(__file__, line)}


def test_the_warning_inside_a_trainer_points_out_of_the_package():
    prediction = SimpleNamespace(predictions=np.full((4, 2), 0.5), label_ids=np.array([0, 1, 0, 1]))
    with pytest.warns(UserWarning, match="as probabilities do") as warned:
        calibration_of()(prediction)
    assert {warning.filename for warning in warned} == {__file__}


def test_probabilities_passed_as_logits_are_told():
    logits = np.random.default_rng(0).normal(size=(20, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    with pytest.warns(UserWarning, match="rows? sums? to 1, as probabilities do"):
        calibration_metrics(probabilities, np.zeros(20, int))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibration_metrics(logits, np.zeros(20, int))
        calibration_metrics(np.abs(logits), np.zeros(20, int))
