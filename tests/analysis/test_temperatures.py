"""Metrics over the temperature against a plain loop."""

import math

import numpy as np
import pytest

from hf_logitmix.analysis import over_temperatures
from hf_logitmix.temperature import fit_temperature

RNG = np.random.default_rng(0)
LOGITS = 4 * RNG.normal(size=(200, 3))
LABELS = (LOGITS / 2 + RNG.gumbel(size=(200, 3))).argmax(1)  # drawn from the softmax at T = 2


def test_nll_is_that_of_a_plain_loop():
    temperatures = [0.5, 1.0, 3.0]
    found = over_temperatures(LOGITS, LABELS, temperatures)
    for t, nll in zip(temperatures, found["nll"], strict=True):
        total = 0.0
        for row, label in zip(LOGITS, LABELS, strict=True):
            total += math.log(sum(math.exp(z / t) for z in row)) - row[label] / t
        assert nll == pytest.approx(total / 200)


def test_its_minimum_is_where_temperature_scaling_finds_it_and_ece_is_that_of_bins():
    temperatures = np.geomspace(0.5, 8, 400)
    found = over_temperatures(LOGITS, LABELS, temperatures.tolist(), ("nll", "ece", "accuracy"))
    best = temperatures[found["nll"].argmin()]
    assert best == pytest.approx(fit_temperature(LOGITS, LABELS), rel=0.02)
    assert np.ptp(found["accuracy"]) == 0
    t = temperatures[100]
    p = np.exp(LOGITS / t) / np.exp(LOGITS / t).sum(1, keepdims=True)
    gap = 0.0
    for b in range(10):
        inside = [i for i in range(200) if b / 10 < p[i].max() <= (b + 1) / 10]
        gap += abs(sum((p[i].argmax() == LABELS[i]) - p[i].max() for i in inside)) / 200
    assert found["ece"][100] == pytest.approx(gap)


@pytest.mark.parametrize(
    ("temperatures", "metrics", "says"), [([], ("nll",), "above 0"), ([0.0], ("nll",), "above 0"), ([1], ("x",), "x")]
)
def test_what_is_not_possible_is_refused(temperatures, metrics, says):
    with pytest.raises(ValueError, match=says):
        over_temperatures(LOGITS, LABELS, temperatures, metrics)
