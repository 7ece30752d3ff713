"""Two processes: each draws its own plans, and a step is the mean over all examples however they are dealt."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from helpers.data import data_without_types
from helpers.launching import TORCHRUN, run_launched
from helpers.models import tiny_bert
from helpers.training import LEARNING_RATE, loss_by_hand, weights


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run_launched(TORCHRUN, "ranks", str(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    run_launched([sys.executable], "ranks", str(folder))
    return json.loads((folder / "0.json").read_text())


@pytest.mark.slow
def test_processes_draw_independently_and_the_first_as_one_alone(ranks, alone):
    first, second = (found["plans"] for found in ranks)
    lams = [[lam[0] for lam, _ in plans] for plans in (first, second)]
    assert len({*lams[0], *lams[1]}) == 6
    assert [partner for _, partner in first] != [partner for _, partner in second]
    assert first == alone["plans"]


@pytest.mark.slow
def test_unequal_numbers_of_micro_batches_give_the_mean_over_examples(ranks):
    """Against a loop by hand over 12 examples and then 6, pair by pair."""
    model, rows, losses = tiny_bert(), data_without_types(18), []
    for part in (rows[:12], rows[12:]):
        pairs = [part[i : i + 2] for i in range(0, len(part), 2)]
        loss = sum(loss_by_hand("logitmix", model, pair) for pair in pairs) / len(pairs)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= LEARNING_RATE * gradient
        losses.append(loss.item())
    for found in ranks:
        np.testing.assert_allclose(found["unequal"]["weights"], weights(model), atol=2e-5)
        np.testing.assert_allclose(found["unequal"]["losses"], losses, atol=5e-5)
        np.testing.assert_allclose(found["unequal"]["terms"], losses, atol=5e-5)
