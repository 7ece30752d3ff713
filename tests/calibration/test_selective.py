"""Selective prediction against sorting by hand, scikit-learn, and the mean over every order of a tie."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hf_logitmix.calibration.selective import Ranking, augrc, aurc, auroc, coverage_at_risk
from hf_logitmix.metrics import calibration_metrics


def with_ties(seed, n=60, levels=7):
    """Confidences of few levels, and hits that are likelier the higher they are."""
    rng = np.random.default_rng(seed)
    confidence = rng.integers(1, levels + 1, size=n) / levels
    return confidence, (rng.random(n) < confidence).astype(float)


def area_of_one_order(hits):
    """Both areas of a list that is sorted already and has no ties."""
    n, wrong, risk, general = len(hits), 0.0, 0.0, 0.0
    for number, hit in enumerate(hits, start=1):
        before, wrong = wrong, wrong + 1 - hit
        risk += wrong / number / n
        general += (before + wrong) / 2 / n / n
    return risk, general


def test_areas_of_ties_are_the_mean_over_all_their_orders():
    """Four and three examples of equal confidence: 4! x 3! orders, each an ordinary curve."""
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.6, 0.6, 0.6])
    hits = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    orders = [
        area_of_one_order([*first, *second])
        for first in itertools.permutations(hits[:4])
        for second in itertools.permutations(hits[4:])
    ]
    ranking = Ranking.of(confidence, hits)
    assert (aurc(ranking), augrc(ranking)) == pytest.approx(np.mean(orders, axis=0), abs=1e-12)
    assert np.ptp(orders, axis=0).min() > 0.01


@pytest.mark.parametrize("seed", range(5))
def test_areas_without_ties_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    confidence, hits = rng.random(50), rng.integers(0, 2, size=50).astype(float)
    expected = area_of_one_order([hit for _, hit in sorted(zip(-confidence, hits, strict=True))])
    ranking = Ranking.of(confidence, hits)
    assert (aurc(ranking), augrc(ranking)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_auroc_equals_scikit_learn_with_ties_too(seed):
    confidence, hits = with_ties(seed)
    assert auroc(Ranking.of(confidence, hits)) == pytest.approx(roc_auc_score(hits, confidence), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_augrc_is_the_probability_of_its_definition(seed):
    """Traub et al., equation 6: with scikit-learn's AUROC and the accuracy a, (1 - AUROC) a (1 - a) + (1 - a)^2 / 2."""
    confidence, hits = with_ties(seed)
    a = hits.mean()
    expected = (1 - roc_auc_score(hits, confidence)) * a * (1 - a) + (1 - a) ** 2 / 2
    assert augrc(Ranking.of(confidence, hits)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("risk", [0.0, 0.01, 0.05, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_coverage_at_risk_tries_every_threshold(seed, risk):
    confidence, hits = with_ties(seed)
    tried = [(confidence >= threshold) for threshold in {*confidence.tolist(), 2.0}]
    expected = max(taken.mean() for taken in tried if not taken.any() or 1 - hits[taken].mean() <= risk + 1e-12)
    assert coverage_at_risk(Ranking.of(confidence, hits), risk) == pytest.approx(expected)


def test_a_risk_that_is_just_reached_counts():
    """One wrong answer of ten, twenty and a hundred is a risk of exactly 10, 5 and 1%."""
    for n, name in ((10, "10"), (20, "5"), (100, "1")):
        logits = np.array([[2.0 + 1 / (1 + k), 0.0] for k in range(n)])
        values = calibration_metrics(logits, [0] * (n - 1) + [1])
        assert values[f"coverage_at_risk_{name}"] == 1


@pytest.mark.parametrize(("label", "area"), [(0, 0.0), (1, 1.0)])
def test_where_all_are_right_or_all_wrong_nothing_is_nan(label, area):
    values = calibration_metrics([[2.0, 0.0], [3.0, 0.0], [0.5, 0.0]], [label] * 3)
    assert values["auroc"] == 0.5
    assert values["aurc"] == area
    assert values["augrc"] == area / 2
    assert values["coverage_at_risk_5"] == 1 - area
    assert np.isfinite(list(values.values())).all()


def test_no_metric_depends_on_the_order_of_rows_with_ties():
    """Two-class logits of few values: whole groups of equal confidence, right and wrong ones mixed."""
    rng = np.random.default_rng(3)
    logits = np.stack([rng.integers(-2, 3, size=80) / 2, np.zeros(80)], axis=1)
    labels = rng.integers(0, 2, size=80)
    first = calibration_metrics(logits, labels)
    for order in (np.argsort(labels), np.argsort(-labels), rng.permutation(80)):
        assert calibration_metrics(logits[order], labels[order]) == pytest.approx(first, abs=1e-12)


def test_adaptive_ece_shares_a_tie_between_its_bins():
    """Six of one confidence c, three right, in two bins: each is half right, whichever rows come first."""
    logits, labels = [[1.0, 0.0]] * 6, [0, 0, 0, 1, 1, 1]
    c = 1 / (1 + np.exp(-1.0))
    assert calibration_metrics(logits, labels, n_bins=2)["adaptive_ece"] == pytest.approx(c - 0.5)
