"""C-Mixup: partners by the kernel of their labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from helpers.parts import data_of, new_model, training_set
from hf_logitmix import METHODS
from hf_logitmix.pairing import Beta, CMixup, RandomPairs
from hf_logitmix.step import Step

NUMBERS = torch.tensor([0.0, 0.5, 1.5, 2.0, 4.0])
INPUTS = {"input_ids": torch.zeros(5, 7)}


def kernel(numbers: list[float], bandwidth: float, scale: float) -> list[list[float]]:
    """The probability of each partner of each example, in a loop."""
    rows = []
    for i, own in enumerate(numbers):
        row = [math.exp(-(((own - y) / scale) ** 2) / (2 * bandwidth**2)) for y in numbers]
        row[i] = 0.0
        rows.append([value / sum(row) for value in row])
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(("bandwidth", "scale"), [(1.0, 1.0), (0.5, 2.0), (3.0, 1.0)])
def test_partners_come_as_often_as_the_kernel_says(bandwidth, scale):
    pairing, draws = CMixup(bandwidth=bandwidth, label_scale=scale), 3000
    counts = np.zeros((5, 5))
    for index in range(draws):
        partner = pairing(INPUTS, NUMBERS, Step(index, draws)).partner
        counts[np.arange(5), partner.numpy()] += 1
    assert (np.diag(counts) == 0).all()
    for found, probabilities in zip(counts, kernel(NUMBERS.tolist(), bandwidth, scale), strict=True):
        likely = np.array(probabilities) * draws > 5
        assert found[~likely].sum() < 40
        expected = np.array(probabilities)[likely]
        assert stats.chisquare(found[likely], expected / expected.sum() * found[likely].sum()).pvalue > 0.001


def test_an_example_never_meets_itself_unless_it_is_alone():
    pairing = CMixup(bandwidth=0.01, label_scale=1.0)
    for size in (2, 3, 8):
        apart = 100 * torch.arange(size).float()  # so far that every weight of the kernel is 0 in float32
        for index in range(50):
            plan = pairing({"input_ids": torch.zeros(size, 3)}, apart, Step(index, 50))
            assert (plan.partner != torch.arange(size)).all()
    assert pairing({"input_ids": torch.zeros(1, 3)}, torch.zeros(1), Step(0, 9)).partner.tolist() == [0]


def test_only_the_partners_are_its_own():
    step = Step(2, 9, seed=4)
    mine = CMixup(lam=Beta(2.0), label_scale=1.0, fraction=0.6)(INPUTS, NUMBERS, step)
    theirs = RandomPairs(lam=Beta(2.0), fraction=0.6)(INPUTS, NUMBERS, step)
    assert torch.equal(mine.lam, theirs.lam)
    assert len(mine.partner) == 3


def test_labels_in_other_units_give_the_same_partners():
    """Because they are divided by the standard deviation of the training set."""
    model = new_model("numbers")
    numbers = training_set("numbers", model)
    ready = METHODS["c_mixup"].setup(numbers)
    labels = [row["labels"] for row in data_of("numbers", 14)]
    assert ready.pairing.label_scale == pytest.approx(np.std(labels))
    assert METHODS["c_mixup"].pairing.label_scale is None
    for index in range(5):
        a = CMixup(label_scale=2.0)(INPUTS, NUMBERS, Step(index, 9))
        b = CMixup(label_scale=200.0)(INPUTS, 100 * NUMBERS, Step(index, 9))
        assert torch.equal(a.partner, b.partner)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bandwidth": 0}, "bandwidth must be a number > 0, got 0"),
        ({"bandwidth": math.nan}, "bandwidth must be a number > 0, got nan"),
        ({"label_scale": -1.0}, "label_scale must be a number > 0, got -1.0"),
        ({"partners": "length"}, "partners must be 'any', got 'length'"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        CMixup(**options)


def test_what_it_cannot_do_without_is_named():
    with pytest.raises(ValueError, match="C-Mixup needs the labels of the batch"):
        CMixup(label_scale=1.0)(INPUTS, None, Step(0, 9))
    with pytest.raises(ValueError, match=r"C-Mixup needs the spread of the labels: call setup\(\) first"):
        CMixup()(INPUTS, NUMBERS, Step(0, 9))
