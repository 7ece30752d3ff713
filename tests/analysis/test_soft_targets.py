"""LaMix's targets against loops, and against the loss that trains on them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_logitmix import MixPlan
from hf_logitmix.analysis import mixed_targets, targets_of, top_targets
from hf_logitmix.losses import lamix_loss

RNG = np.random.default_rng(0)
LABELS, OTHERS = RNG.integers(0, 4, 6), RNG.integers(0, 4, 6)
SOFT = np.exp(RNG.normal(size=(6, 4)))
SOFT /= SOFT.sum(1, keepdims=True)


def test_targets_are_those_of_a_loop():
    found, lam = mixed_targets(SOFT, LABELS, OTHERS, np.linspace(0, 1, 6), 0.7), np.linspace(0, 1, 6)
    for i in range(6):
        for k in range(4):
            local = lam[i] * (LABELS[i] == k) + (1 - lam[i]) * (OTHERS[i] == k)
            assert found[i, k] == pytest.approx(0.7 * local + 0.3 * SOFT[i, k])
    np.testing.assert_allclose(targets_of(SOFT, LABELS, 0.7), mixed_targets(SOFT, LABELS, OTHERS, 1.0, 0.7))


def test_cross_entropy_against_them_is_lamix_loss():
    torch.manual_seed(0)
    logits, second = torch.randn(6, 4, dtype=torch.double), torch.randn(6, 4, dtype=torch.double)
    partner, labels = torch.arange(6).roll(1), torch.from_numpy(LABELS)
    plan = MixPlan(partner, torch.full((6,), 0.3))
    soft = second.sigmoid().softmax(-1).numpy()
    rows = torch.from_numpy(mixed_targets(soft, LABELS, LABELS[partner], 0.3, 0.6))
    loss = lamix_loss(logits, second, labels, plan, beta=0.6)
    assert float(loss) == pytest.approx(float(F.cross_entropy(logits, rows)), rel=1e-6)


def test_top_targets_are_means_of_sorted_rows():
    rows = [sorted(row, reverse=True) for row in SOFT.tolist()]
    by_hand = [sum(row[n] for row in rows) / 6 for n in range(3)]
    np.testing.assert_allclose(top_targets(SOFT, 3), by_hand)
    assert len(top_targets(SOFT)) == 4  # there are no five classes


def test_a_beta_outside_is_refused():
    with pytest.raises(ValueError, match=r"beta=1.5 is outside \[0, 1\]"):
        targets_of(SOFT, LABELS, 1.5)
