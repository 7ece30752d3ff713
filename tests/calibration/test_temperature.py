"""Temperature scaling against scipy.optimize.minimize_scalar, and cross-fitting reconstructed from its result."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import bisect, minimize_scalar
from scipy.special import expit, log_softmax, logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV

from hf_logitmix.temperature import cross_fit, fit_temperature, fit_ts_mix


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


def test_ignores_shifts_of_a_row():
    logits, labels = drawn_from(2.0)
    expected = fit_by_scipy(logits, labels)
    assert fit_temperature(logits + 1000.0 * labels[:, None], labels) == pytest.approx(expected, rel=1e-5)


def test_two_by_two_by_hand():
    """Margin 4, right three times in four: sigmoid(4 / T) = .75, so T = 4 / ln 3."""
    logits, labels = [[4.0, 0.0]] * 4, [0, 0, 0, 1]
    assert fit_temperature(logits, labels) == pytest.approx(4 / math.log(3))


SCALES = [1e-30, 1e-4, 0.3, 1e4, 1e30]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("temperature", [0.02, 1.0, 15.0])
def test_logits_times_a_number_have_a_temperature_times_it(temperature, scale):
    logits, labels = drawn_from(temperature, n=2000)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(fit_by_scipy(logits, labels), rel=1e-3)
    assert fit_temperature(scale * logits, labels) == pytest.approx(scale * found, rel=1e-9)


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose decision values are its input."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X):
        return X

    def predict(self, X):
        return X.argmax(1)


@pytest.mark.parametrize("temperature", [0.3, 1.7, 6.0])
@pytest.mark.parametrize("classes", [3, 10])
def test_equals_scikit_learn(temperature, classes):
    pytest.importorskip("sklearn", minversion="1.8")  # which has method="temperature"
    from sklearn.frozen import FrozenEstimator

    logits, labels = drawn_from(temperature, n=300, classes=classes)
    given = FrozenEstimator(Given().fit(logits, labels))
    scaled = CalibratedClassifierCV(given, method="temperature").fit(logits, labels)
    z = logits / fit_temperature(logits, labels)
    expected = np.exp(z - logsumexp(z, axis=1, keepdims=True))
    np.testing.assert_allclose(scaled.predict_proba(logits), expected, atol=1e-5)


@pytest.mark.parametrize("power", [0, -3, -9, 9])
def test_margins_far_apart_by_hand(power):
    """Two classes, margin 1 right three times in four; a pair of a large margin m that is right once of twice.

    The slope is 4 s(b) - 3 + m (2 s(b m) - 1), which b = 0 would end for m alone: solved by SciPy in another form.
    """
    m = 10.0**power
    logits, labels = [[0.0, -1.0]] * 4 + [[0.0, -m]] * 2, [0, 0, 0, 1, 0, 1]
    slope = lambda b: 4 * expit(b) - 3 + m * math.tanh(b * m / 2)  # noqa: E731
    expected = 1 / bisect(slope, 1e-30, 1e3, xtol=1e-30, rtol=1e-12, maxiter=1000)
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-6)


def test_one_mistake_by_a_hair_has_a_finite_optimum():
    """99 right by 1, one wrong by d: the root of 99 s(-b) = d s(b d), near which s(b d) is still 1/2."""
    d = 1e-9
    expected = 1 / bisect(lambda b: 99 * expit(-b) - d * expit(b * d), 1.0, 100.0, xtol=1e-13)
    assert fit_temperature([[1.0, 0.0]] * 99 + [[d, 0.0]], [0] * 99 + [1]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_only_right_predictions_give_as_good_as_certainty(scale, caplog):
    logits, labels = scale * np.array([[2.0, 0.0, -9.0], [0.0, 0.5, 0.0], [3.0, 1.0, 3.0]]), [0, 1, 0]
    assert fit_temperature(logits, labels) == pytest.approx(scale * 0.5 / 1000)
    limit = np.log(2) / 3  # of the example whose two highest logits are equal
    assert nll(logits, labels, fit_temperature(logits, labels)) == pytest.approx(limit)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("labels", [[1, 0], [0, 0], [2, 2]])
def test_chance_or_worse_gives_as_good_as_even_odds(labels, scale):
    logits = scale * np.array([[0.7, 0.0, -0.7], [0.0, 0.7, -0.7]])
    if labels == [0, 0]:
        logits[:, 2] = 0.35 * scale  # the labels' logits are on average as high as the others
    gap = float(np.ptp(logits, axis=1).max())
    assert fit_temperature(logits, labels) == pytest.approx(1000 * gap)
    assert nll(logits, labels, fit_temperature(logits, labels)) == pytest.approx(np.log(3), abs=1e-3)


def test_no_optimum_is_said(monkeypatch):
    said = []
    monkeypatch.setattr("hf_logitmix.calibration.temperature.logger.warning_once", said.append, raising=False)
    fit_temperature([[2.0, 0.0]], [0])
    fit_temperature([[2.0, 0.0]], [1])
    fit_temperature([[2.0, 0.0]] * 4, [0, 0, 0, 1])
    fit_temperature([[2.0, 2.0]], [0])
    assert len(said) == 2
    assert "right" in said[0]
    assert "chance" in said[1]


@pytest.mark.parametrize("value", [0.0, -3.0, 1e30])
def test_equal_logits_are_left_as_they_are(value):
    assert fit_temperature(np.full((5, 3), value), [0, 1, 2, 0, 1]) == 1
    assert fit_temperature(np.arange(5.0)[:, None] + np.full((5, 3), value), [0, 0, 0, 0, 0]) == 1


def test_torch_and_lists_give_the_same():
    logits, labels = drawn_from(2.0)
    expected = fit_by_scipy(logits, labels)
    for convert in (torch.tensor, np.ndarray.tolist):
        assert fit_temperature(convert(logits), convert(labels)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("temperature", [1e-3, 2.0, 1e3])
def test_cross_fit_gives_the_same_whatever_the_unit_of_the_logits(temperature, scale):
    """T of 1e-3 leaves only right predictions in 100 examples, one of 1e3 little more than chance."""
    logits, labels = drawn_from(temperature, n=100)
    np.testing.assert_allclose(cross_fit(scale * logits, labels), cross_fit(logits, labels), rtol=1e-6, atol=1e-12)


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
    """Each is right, so each is scaled by a thousandth of the other's gap."""
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


@pytest.mark.parametrize(("n", "scale"), [(30, 3.0), (200, 0.4)])
def test_ts_mix_minimises_the_nll_of_smoothed_labels(n, scale):
    """SciPy on the plain objective, with errors and, in the second half, without one."""
    rng = np.random.default_rng(0)
    for labels_are_right in (False, True):
        logits = scale * rng.normal(size=(n, 4))
        labels = logits.argmax(1) if labels_are_right else rng.integers(4, size=n)
        if not labels_are_right:
            logits[np.arange(n), labels] += scale
        rows = (n * np.eye(4)[labels] + 1 / 4) / (n + 1)

        def nll(log_t, logits=logits, rows=rows):
            return -(rows * log_softmax(logits / np.exp(log_t), axis=1)).sum(1).mean()

        best = minimize_scalar(nll, bounds=(-12, 12), method="bounded", options={"xatol": 1e-10})
        assert fit_ts_mix(logits, labels) == pytest.approx(np.exp(best.x), rel=1e-4)
        assert fit_ts_mix(1e6 * logits, labels) == pytest.approx(1e6 * np.exp(best.x), rel=1e-4)


def test_apply_divides_by_the_temperature():
    scaler = fit_temperature([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 1, 1])
    assert isinstance(scaler, float)
    np.testing.assert_allclose(scaler.apply([[2.0, 4.0]]), np.array([[2.0, 4.0]]) / float(scaler))
