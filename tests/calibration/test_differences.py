"""Paired differences against plain loops and SciPy's bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, pearsonr
from sklearn.metrics import matthews_corrcoef

from hf_logitmix.calibration.differences import differences, sampled
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
    scaled = {f"{name}_scaled": other[name] for name in ("ece", "oe", "nll")}
    return {name: plain[name] for name in ("accuracy", "ece", "oe", "nll", "aurc")} | scaled


@pytest.mark.slow
def test_as_in_a_loop_over_samples():
    ours, theirs, samples = runs(3, 3.0), runs(3, 1.0, noise=1.5), 40
    found = differences(ours, theirs, samples=samples, seed=5)
    rng = np.random.default_rng(5)
    examples = [np.arange(N), *(rng.integers(N, size=N) for _ in range(samples))]
    rng = np.random.default_rng([5, 1])
    seeds = [np.arange(3), *(rng.integers(3, size=3) for _ in range(samples))]
    scaled = [[cross_fit(*run) for run in side] for side in (ours, theirs)]
    loop = {name: [] for name in metrics(*ours[0], scaled[0][0])}
    for rows, drawn in zip(examples, seeds, strict=True):
        a, b = (
            [metrics(side[s][0][rows], LABELS[rows], of[s][rows]) for s in drawn]
            for side, of in zip((ours, theirs), scaled, strict=True)
        )
        for name in loop:
            loop[name].append(np.mean([one[name] for one in a]) - np.mean([one[name] for one in b]))
    assert set(found) == set(loop)
    for name, (value, *samples_of_it) in loop.items():
        low, high = np.quantile(np.array(samples_of_it) - np.mean(samples_of_it) + value, [0.025, 0.975])
        np.testing.assert_allclose(found[name], [value, low, high], atol=1e-12)


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


@pytest.mark.parametrize("classes", [True, False])
def test_what_else_a_task_asks_for_is_that_of_scikit_learn_and_scipy_on_each_sample(classes):
    """Matthews' correlation of two classes, and Pearson's of a regression."""
    rng, samples = np.random.default_rng(1), 30
    labels = rng.integers(2, size=N) if classes else rng.normal(size=N)
    logits = rng.normal(size=(N, 2 if classes else 1)) + (np.eye(2)[labels] if classes else labels[:, None])
    found = sampled(logits, labels, samples=samples, seed=3)
    rng = np.random.default_rng(3)
    for number, rows in enumerate([np.arange(N), *(rng.integers(N, size=N) for _ in range(samples))]):
        if classes:
            known = matthews_corrcoef(labels[rows], logits.argmax(1)[rows])
            assert found["matthews_correlation"][number] == pytest.approx(known)
        else:
            assert found["pearson"][number] == pytest.approx(pearsonr(logits[rows, 0], labels[rows])[0])


def test_a_model_that_has_one_answer_correlates_with_nothing():
    found = sampled(np.tile([2.0, 0.0], (6, 1)), np.array([0, 1, 0, 1, 0, 1]), samples=5)
    assert not found["matthews_correlation"].any()
    assert not sampled(np.zeros((6, 1)), np.arange(6.0), samples=5)["pearson"].any()


def test_a_method_does_not_differ_from_itself():
    assert all(tuple(d) == (0, 0, 0) for d in differences(runs(2, 2.0), runs(2, 2.0), samples=20).values())


@pytest.mark.slow
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
