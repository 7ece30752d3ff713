"""Smooth ECE against the formula of its paper in a plain loop, against relplot where it is installed, and by hand."""

import math

import numpy as np
import pytest

from hf_logitmix.calibration.smooth import smooth_ece
from hf_logitmix.metrics import calibration_metrics


def smoothed_error(confidence, hits, width, points=400):
    """The error of one width: the Gaussian of each example and of its mirror images at 0 and 1, point by point."""
    total = 0.0
    for point in range(points):
        t, height = (point + 0.5) / points, 0.0
        for conf, hit in zip(confidence, hits, strict=True):
            images = (2 * k + sign * conf for k in range(-3, 4) for sign in (1, -1))
            density = sum(math.exp(-(((t - image) / width) ** 2) / 2) for image in images)
            height += (hit - conf) * density / (width * math.sqrt(2 * math.pi))
        total += abs(height) / len(hits) / points
    return total


def drawn(n, power, seed=0):
    """Confidences of a model that is right with probability conf^power."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 1.0, size=n)
    return confidence, (rng.random(n) < confidence**power).astype(float)


@pytest.mark.parametrize(("n", "power"), [(1, 1.0), (8, 1.0), (40, 1.0), (40, 4.0), (60, 0.2)])
def test_the_width_is_the_error_smoothed_with_it(n, power):
    confidence, hits = drawn(n, power)
    value = smooth_ece(confidence, hits)
    assert value > 0.02
    assert smoothed_error(confidence, hits, value) == pytest.approx(value, abs=2e-4)


def test_two_opposite_errors_that_are_far_apart_do_not_cancel_and_near_ones_do():
    """Off by +.5 and -.5 (half of the examples each) at .9 and .1, or both at .5: 1/2 at width 0, and nothing."""
    near = smooth_ece(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    far = smooth_ece(np.array([0.95, 0.05]), np.array([0.45, 0.55]))
    assert near == 0
    assert smoothed_error([0.95, 0.05], [0.45, 0.55], far) == pytest.approx(far, abs=2e-4)
    assert far > 0.3


@pytest.mark.parametrize("offset", [0.05, 0.2])
def test_an_error_of_one_sign_is_its_mean(offset):
    """Nothing cancels, whatever the width."""
    confidence = np.linspace(0.3, 0.9, 50)
    assert smooth_ece(confidence, confidence - offset) == pytest.approx(offset, abs=1e-4)


@pytest.mark.parametrize("power", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("n", [200, 5000])
def test_equals_relplot(n, power):
    """Which searches the width to 1/1024 and adds up 200 points of the curve, both ends among them."""
    relplot = pytest.importorskip("relplot")
    confidence, hits = drawn(n, power)
    assert smooth_ece(confidence, hits) == pytest.approx(relplot.smECE(confidence, hits), abs=4e-3)


def test_the_metric_takes_confidence_and_hits_of_the_logits():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(scale=2, size=(300, 4)), rng.integers(4, size=300)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = smooth_ece(p.max(1), (p.argmax(1) == labels).astype(float))
    assert calibration_metrics(logits, labels)["smooth_ece"] == pytest.approx(expected, abs=1e-12)
