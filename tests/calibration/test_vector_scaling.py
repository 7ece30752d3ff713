"""Vector scaling against SciPy on the plain objective and scikit-learn's logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from hf_logitmix.metrics import calibration_metrics
from hf_logitmix.temperature import fit_temperature, fit_vector_scaling


def data(n=400, classes=4, seed=0):
    """Labels drawn from a softmax of logits that were bent class by class."""
    rng = np.random.default_rng(seed)
    true = 1.5 * rng.normal(size=(n, classes))
    labels = np.array([rng.choice(classes, p=row) for row in softmax(true, axis=1)])
    return (true - np.linspace(-1, 1, classes)) / np.linspace(0.3, 2.0, classes), labels


def plain_nll(numbers, logits, labels):
    weight, bias = np.split(numbers, 2)
    return -log_softmax(logits * weight + bias, axis=1)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("classes", [2, 4])
def test_it_finds_the_optimum_of_the_plain_objective(classes):
    """SciPy's BFGS, with slopes by differences."""
    logits, labels = data(classes=classes)
    found = fit_vector_scaling(logits, labels)
    start = np.concatenate([np.ones(classes), np.zeros(classes)])
    best = minimize(plain_nll, start, args=(logits, labels), method="BFGS", options={"gtol": 1e-7, "maxiter": 5000})
    assert plain_nll(np.concatenate([found.weight, found.bias]), logits, labels) == pytest.approx(best.fun, abs=1e-7)
    if classes > 2:  # of two classes only differences count, so many w and b are as good
        np.testing.assert_allclose(found.weight, best.x[:classes], atol=2e-3)
    assert found.bias.mean() == pytest.approx(0, abs=1e-9)


def test_of_two_classes_it_is_logistic_regression():
    logits, labels = data(classes=2)
    scaled = fit_vector_scaling(logits, labels).apply(logits)
    regression = LogisticRegression(C=1e10, tol=1e-10, max_iter=10_000, solver="newton-cg").fit(logits, labels)
    np.testing.assert_allclose(softmax(scaled, axis=1), regression.predict_proba(logits), atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1e3, 1e8])
def test_logits_of_any_scale_give_the_same_probabilities(scale):
    logits, labels = data()
    expected, found = fit_vector_scaling(logits, labels), fit_vector_scaling(scale * logits, labels)
    np.testing.assert_allclose(found.weight * scale, expected.weight, rtol=1e-5)
    np.testing.assert_allclose(found.apply(scale * logits), expected.apply(logits), atol=1e-5)


def test_it_fits_at_least_as_well_as_a_temperature():
    logits, labels = data()
    by_vector = calibration_metrics(fit_vector_scaling(logits, labels).apply(logits), labels)["nll"]
    by_one = calibration_metrics(fit_temperature(logits, labels).apply(logits), labels)["nll"]
    assert by_vector < by_one < calibration_metrics(logits, labels)["nll"]


def test_one_hot_rows_are_class_ids():
    logits, labels = data()
    by_id, by_row = fit_vector_scaling(logits, labels), fit_vector_scaling(logits, np.eye(4)[labels])
    np.testing.assert_allclose(by_row.weight, by_id.weight, atol=1e-6)
    np.testing.assert_allclose(by_row.bias, by_id.bias, atol=1e-6)


def test_what_has_no_optimum_is_refused():
    logits, labels = data()
    with pytest.raises(ValueError, match=r"labels have no example of class 3: .*take fit_temperature"):
        fit_vector_scaling(logits[labels < 3], labels[labels < 3])
    right = 10 * np.eye(3)[[0, 1, 2, 0, 1, 2]]
    with pytest.raises(ValueError, match=r"makes every prediction right .*take fit_ts_mix"):
        fit_vector_scaling(right, [0, 1, 2, 0, 1, 2])
    with pytest.raises(ValueError, match="logits"):
        fit_vector_scaling(logits, labels).apply(logits[:, :3])
