"""Prediction sets against a plain loop, and what they promise over many draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import softmax

from hf_logitmix.temperature import fit_temperature, prediction_sets


def data(n, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, classes))
    labels = np.array([rng.choice(classes, p=row) for row in softmax(logits, axis=1)])
    return 1.7 * logits, labels  # overconfident


def score_of(row, k, score):
    """How unlikely class k is, from its probability and those above it."""
    return 1 - row[k] if score == "lac" else sum(p for p in row if p > row[k])


def loop(new, held, labels, coverage, score):
    p_held, p_new = softmax(held, axis=1).tolist(), softmax(new, axis=1).tolist()
    scores = sorted(score_of(row, y, score) for row, y in zip(p_held, labels, strict=True))
    number = math.ceil((len(labels) + 1) * coverage)
    if number > len(labels):
        return [[True] * len(row) for row in p_new]
    threshold = scores[number - 1] + 1e-12
    return [[score_of(row, k, score) <= threshold for k in range(len(row))] for row in p_new]


@pytest.mark.parametrize("score", ["lac", "aps"])
@pytest.mark.parametrize("coverage", [0.5, 0.83, 0.95])
def test_sets_are_those_of_a_loop(score, coverage):
    held, labels = data(97)
    new, _ = data(40, seed=1)
    found = prediction_sets(new, held, labels, coverage, score)
    assert found.tolist() == loop(new, held, labels.tolist(), coverage, score)


@pytest.mark.parametrize("score", ["lac", "aps"])
def test_they_hold_the_label_as_often_as_is_asked(score):
    """On average over held-out and new examples: 2,000 draws of 19 held-out ones and one new, at 80%."""
    logits, labels = data(40_000, seed=3)
    logits, labels = logits.reshape(2000, 20, 5), labels.reshape(2000, 20)
    held = [prediction_sets(z[19:], z[:19], y[:19], 0.8, score)[0, y[19]] for z, y in zip(logits, labels, strict=True)]
    assert np.mean(held) > 0.8 - 3 * (0.8 * 0.2 / 2000) ** 0.5
    if score == "lac":  # without ties it is 16 / 20 exactly, on average; aps counts the first class in
        assert np.mean(held) < 0.8 + 3 * (0.8 * 0.2 / 2000) ** 0.5


def test_the_most_probable_class_is_always_in_a_set_of_aps():
    held, labels = data(200)
    new, _ = data(300, seed=1)
    sets = prediction_sets(new, held, labels, 0.3, "aps")
    assert sets[np.arange(300), new.argmax(1)].all()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_sets_follow_logits_of_any_scale_once_they_are_scaled(scale):
    """What T(s z) = s T(z) is for: sets of scaled logits do not depend on s."""
    held, labels = data(200)
    new, _ = data(50, seed=1)
    expected = fit_temperature(held, labels)
    found = fit_temperature(scale * held, labels)
    assert found == pytest.approx(scale * expected, rel=1e-6)
    sets = prediction_sets(found.apply(scale * new), found.apply(scale * held), labels)
    assert (sets == prediction_sets(expected.apply(new), expected.apply(held), labels)).all()


def test_too_few_examples_give_all_classes():
    held, labels = data(8)
    assert prediction_sets(held, held, labels, 0.9).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coverage": 1.0}, r"coverage=1.0 is outside \(0, 1\)"),
        ({"coverage": 0.0}, r"coverage=0.0 is outside \(0, 1\)"),
        ({"score": "raps"}, "score='raps' is unknown: pass lac or aps"),
    ],
)
def test_bad_options_are_refused(options, message):
    held, labels = data(20)
    with pytest.raises(ValueError, match=message):
        prediction_sets(held, held, labels, **options)


def test_another_number_of_classes_is_refused():
    held, labels = data(20)
    with pytest.raises(ValueError, match="logits"):
        prediction_sets(held[:, :4], held, labels)
