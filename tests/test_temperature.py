"""Temperature scaling against scipy.optimize.minimize_scalar, and cross-fitting reconstructed from its result."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from hf_logitmix.temperature import cross_fit, fit_temperature


def nll(logits, labels, temperature):
    z = logits / temperature
    return np.mean(logsumexp(z, axis=1) - z[np.arange(len(labels)), labels])


def fit_by_scipy(logits, labels):
    found = minimize_scalar(
        lambda log_t: nll(logits, labels, math.exp(log_t)), bounds=(-5, 5), method="bounded", options={"xatol": 1e-9}
    )
    return math.exp(found.x)


def drawn_from(temperature, n=400, classes=3, seed=0):
    """Logits, and labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.0, size=(n, classes))
    p = np.exp(logits / temperature - logsumexp(logits / temperature, axis=1, keepdims=True))
    return logits, (p.cumsum(1) < rng.random((n, 1))).sum(1).clip(max=classes - 1)


@pytest.mark.parametrize("classes", [2, 3, 20])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_equals_a_minimiser_of_scipy(temperature, classes):
    logits, labels = drawn_from(temperature, classes=classes)
    assert fit_temperature(logits, labels) == pytest.approx(fit_by_scipy(logits, labels), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_recovers_a_known_temperature(temperature):
    logits, labels = drawn_from(temperature, n=50_000)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)


def test_scales_with_the_logits_and_ignores_shifts_of_a_row():
    logits, labels = drawn_from(2.0)
    expected = fit_by_scipy(logits, labels)
    assert fit_temperature(10 * logits, labels) == pytest.approx(10 * expected, rel=1e-5)
    assert fit_temperature(logits + 1000.0 * labels[:, None], labels) == pytest.approx(expected, rel=1e-5)


def test_two_by_two_by_hand():
    """Margin 4, right three times in four: sigmoid(4 / T) = .75, so T = 4 / ln 3."""
    logits, labels = [[4.0, 0.0]] * 4, [0, 0, 0, 1]
    assert fit_temperature(logits, labels) == pytest.approx(4 / math.log(3))


def test_only_right_predictions_give_the_lower_bound():
    assert fit_temperature([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]], [0, 1, 0]) == 0.001


@pytest.mark.parametrize("labels", [[1, 0], [0, 0]])
def test_chance_or_worse_gives_the_upper_bound(labels):
    assert fit_temperature([[2.0, 0.0], [0.0, 2.0]], labels) == 1000.0


def test_equal_logits_have_no_optimum_and_stay_within_the_bounds():
    assert 0.001 <= fit_temperature(np.zeros((5, 3)), [0, 1, 2, 0, 1]) <= 1000


def test_torch_and_lists_give_the_same():
    logits, labels = drawn_from(2.0)
    expected = fit_by_scipy(logits, labels)
    for convert in (torch.tensor, np.ndarray.tolist):
        assert fit_temperature(convert(logits), convert(labels)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("classes", [2, 5])
def test_cross_fit_scales_each_half_by_the_temperature_of_the_other(classes, seed):
    """The halves are read off the ratio of what went in to what came out, and fitted again with SciPy."""
    logits, labels = drawn_from(2.0, n=301, classes=classes)
    scaled = cross_fit(logits, labels, seed)
    ratio = logits / scaled
    assert ratio == pytest.approx(ratio[:, :1] * np.ones((1, classes)), rel=1e-9)
    values = np.unique(ratio[:, 0].round(9))
    assert len(values) == 2
    first = np.isclose(ratio[:, 0], values[0])
    assert fit_by_scipy(logits[~first], labels[~first]) == pytest.approx(values[0], rel=1e-5)
    assert fit_by_scipy(logits[first], labels[first]) == pytest.approx(values[1], rel=1e-5)
    assert abs(first.sum() - (~first).sum()) <= 1
    for k in range(classes):
        assert abs((first & (labels == k)).sum() - (~first & (labels == k)).sum()) <= 1


def test_cross_fit_keeps_the_order_and_every_prediction():
    logits, labels = drawn_from(0.5, n=100)
    scaled = cross_fit(logits, labels)
    assert scaled.shape == logits.shape
    assert scaled.argmax(1).tolist() == logits.argmax(1).tolist()


def test_cross_fit_depends_on_the_seed_alone():
    logits, labels = drawn_from(2.0)
    first, again, other = (cross_fit(logits, labels, seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_halves_do_not_follow_the_order_of_the_examples():
    """Alternate examples, or a first and a second half, would tie the halves to how the data were stored."""
    logits, labels = drawn_from(2.0, n=1000)
    ratio = (logits / cross_fit(logits, labels))[:, 0]
    first = np.isclose(ratio, ratio[0])
    assert 400 < first[::2].sum() + (~first)[1::2].sum() < 600
    assert 200 < first[:500].sum() < 300


def test_cross_fit_of_two_examples():
    """Each is right, so each takes the lower bound from the other."""
    assert cross_fit([[1.0, 0.0], [0.0, 1.0]], [0, 1]) == pytest.approx(np.eye(2) * 1000)


def test_cross_fit_of_one_example():
    with pytest.raises(ValueError, match="at least two"):
        cross_fit([[1.0, 0.0]], [0])


@pytest.mark.parametrize("fit", [fit_temperature, cross_fit])
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0.0, math.nan]] * 2, [0, 1], "logits hold NaN"),
        (np.zeros((0, 2)), [], "logits and labels are empty"),
        ([[1.0], [2.0]], [0, 0], "logits have one column"),
        ([[0.0, 1.0]] * 2, [0, 2], "labels"),
        ([[0.0, 1.0]] * 2, [0], "labels of shape"),
    ],
)
def test_bad_inputs(fit, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        fit(logits, labels)
