"""Paired differences against plain loops and SciPy's bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from hf_logitmix.calibration.differences import differences
from hf_logitmix.metrics import calibration_metrics
from hf_logitmix.temperature import cross_fit

N = 120
LABELS = np.random.default_rng(0).integers(3, size=N)


def runs(count, sharpness, noise=1.0):
    """Logits that know something of the labels, of one more generator a seed."""
    found = []
    for seed in range(count):
        logits = noise * np.random.default_rng(seed).normal(size=(N, 3)) + np.eye(3)[LABELS]
        found.append((sharpness * logits, LABELS))
    return found


def metrics(logits, labels, scaled):
    plain, other = calibration_metrics(logits, labels), calibration_metrics(scaled, labels)
    return np.array([plain["accuracy"], plain["ece"], plain["nll"], other["ece"], other["nll"]])


def test_as_in_a_loop_over_samples():
    ours, theirs, samples = runs(3, 3.0), runs(3, 1.0, noise=1.5), 40
    found = differences(ours, theirs, samples=samples, seed=5)
    rng = np.random.default_rng(5)
    examples = [np.arange(N), *(rng.integers(N, size=N) for _ in range(samples))]
    seeds = [np.arange(3), *(rng.integers(3, size=3) for _ in range(samples))]
    scaled = [[cross_fit(*run) for run in side] for side in (ours, theirs)]
    loop = []
    for rows, drawn in zip(examples, seeds, strict=True):
        a, b = (
            np.mean([metrics(side[s][0][rows], LABELS[rows], of[s][rows]) for s in drawn], 0)
            for side, of in zip((ours, theirs), scaled, strict=True)
        )
        loop.append(a - b)
    low, high = np.quantile(loop[1:], [0.025, 0.975], axis=0)
    assert list(found) == ["accuracy", "ece", "nll", "ece_scaled", "nll_scaled"]
    np.testing.assert_allclose([d.value for d in found.values()], loop[0], atol=1e-12)
    np.testing.assert_allclose([d.low for d in found.values()], low, atol=1e-12)
    np.testing.assert_allclose([d.high for d in found.values()], high, atol=1e-12)


def test_of_one_run_it_is_scipys_interval_of_the_examples():
    ours, theirs = runs(1, 3.0), runs(1, 1.0)
    found = differences(ours, theirs, samples=4000)["nll"]

    def nll(logits):
        shifted = logits - logits.max(1, keepdims=True)
        return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(N), LABELS]

    each = nll(ours[0][0]) - nll(theirs[0][0])
    known = bootstrap((each,), np.mean, n_resamples=4000, method="percentile")
    assert found.value == pytest.approx(each.mean())
    width = known.confidence_interval.high - known.confidence_interval.low
    assert found.low == pytest.approx(known.confidence_interval.low, abs=0.1 * width)
    assert found.high == pytest.approx(known.confidence_interval.high, abs=0.1 * width)


def test_a_method_does_not_differ_from_itself():
    assert all(tuple(d) == (0, 0, 0) for d in differences(runs(2, 2.0), runs(2, 2.0), samples=20).values())


def test_seeds_that_differ_widen_the_interval():
    """Three runs that all gain the same, and three of which one loses."""
    theirs = runs(3, 1.0)
    steady = [(1.5 * logits, labels) for logits, labels in theirs]
    shaky = [(scale * logits, labels) for scale, (logits, labels) in zip((1.5, 4.0, 0.2), theirs, strict=True)]
    widths = [d.high - d.low for d in (differences(ours, theirs)["nll"] for ours in (steady, shaky))]
    assert widths[1] > 2 * widths[0]


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([], [], "0 and 0 runs"),
        (runs(2, 1.0), runs(1, 1.0), "2 and 1 runs"),
        (runs(1, 1.0), [(runs(1, 1.0)[0][0], 2 - LABELS)], "other labels"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(ours, theirs, message):
    with pytest.raises(ValueError, match=message):
        differences(ours, theirs)
