"""The estimate of mutual information against its definition, written as loops, and against what is known."""

import math

import numpy as np
import pytest

from hf_logitmix.analysis import mutual_information


def by_loops(draws) -> float:
    """Mean of log p(y | x) - log of the mean of p(y | x') over all x', p normal with one variance for all."""
    count, examples = draws.shape
    mean = [sum(draws[:, x]) / count for x in range(examples)]
    variance = sum((draws[d, x] - mean[x]) ** 2 for d in range(count) for x in range(examples)) / draws.size

    def density(y: float, x: int) -> float:
        return math.exp(-((y - mean[x]) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    total = 0.0
    for d in range(count):
        for x in range(examples):
            y = draws[d, x]
            marginal = sum(density(y, other) for other in range(examples)) / examples
            total += math.log(density(y, x)) - math.log(marginal)
    return total / draws.size


@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
def test_it_is_its_definition(spread):
    rng = np.random.default_rng(0)
    draws = spread * rng.normal(size=6) + rng.normal(size=(5, 6))
    assert mutual_information(draws) == pytest.approx(by_loops(draws))


def test_examples_that_can_be_told_apart_give_log_n_and_two_clusters_give_log_2():
    noise = np.random.default_rng(0).normal(size=(50, 8))
    assert mutual_information(1000.0 * np.arange(8) + noise) == pytest.approx(math.log(8))
    clusters = 1000.0 * (np.arange(8) % 2)
    many = clusters + np.random.default_rng(1).normal(size=(4000, 8))
    assert mutual_information(many) == pytest.approx(math.log(2), abs=0.01)
    assert mutual_information(np.random.default_rng(2).normal(size=(4000, 8))) == pytest.approx(0, abs=0.01)


def test_it_does_not_overflow_far_from_all_means():
    draws = np.array([[0.0, 0.0, 1e3], [1e-3, -1e-3, -1e3]])
    assert np.isfinite(mutual_information(draws))


@pytest.mark.parametrize(
    ("draws", "says"),
    [
        (np.ones((1, 5)), r"\(1, 5\): pass \[L, N\]"),
        (np.ones((5, 1)), r"\(5, 1\)"),
        (np.ones(5), r"\(5,\)"),
        (np.full((3, 4), np.nan), "must be finite"),
        (np.tile(np.arange(4.0), (3, 1)), "all the same"),
    ],
)
def test_what_cannot_be_estimated_is_refused(draws, says):
    with pytest.raises(ValueError, match=says):
        mutual_information(draws)
