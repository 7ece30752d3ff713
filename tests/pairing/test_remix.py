"""Remix: its rule in a plain if and else, on the lam that was really kept."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from helpers.parts import batch_and_labels, new_model, training_set
from hf_logitmix import METHODS, Method
from hf_logitmix.mixing import CutMix
from hf_logitmix.objectives import Mixed
from hf_logitmix.pairing import Beta, MixPlan, RandomPairs, Remix
from hf_logitmix.pairing.remix import remix_label_lam
from hf_logitmix.step import Step

INPUTS = {"input_ids": torch.zeros(64, 5)}
LABELS = torch.arange(64) % 3


def by_hand(lam: float, own: int, partner: int, kappa: float, tau: float) -> float:
    if own / partner >= kappa and lam < tau:
        return 0.0
    if own / partner <= 1 / kappa and 1 - lam < tau:
        return 1.0
    return lam


@pytest.mark.parametrize(("kappa", "tau"), [(3.0, 0.5), (2.0, 0.9), (1.0, 0.5), (3.0, 0.0), (3.0, 1.0)])
def test_the_rule_is_an_if_and_an_else(kappa, tau):
    counts = [1, 2, 3, 6, 9, 30]
    cases = [(lam, own, other) for lam in (0.0, 0.1, 0.49, 0.5, 0.51, 0.9, 1.0) for own in counts for other in counts]
    lam, own, other = zip(*cases, strict=True)
    counts_of = torch.tensor([own, other])
    found = remix_label_lam(torch.tensor(lam, dtype=torch.float64), *counts_of, kappa, tau)
    assert found.tolist() == [by_hand(*case, kappa, tau) for case in cases]


def test_a_batch_gets_the_lam_of_its_labels():
    counts = (90, 30, 10)
    plan = Remix(lam=Beta(1.0), per_example=True, class_counts=counts)(INPUTS, LABELS, Step(3, 9))
    cases = zip(plan.lam.tolist(), LABELS.tolist(), LABELS[plan.partner].tolist(), strict=True)
    expected = torch.tensor([by_hand(lam, counts[own], counts[other], 3.0, 0.5) for lam, own, other in cases])
    assert torch.equal(plan.label_lam, expected)
    assert {0.0, 1.0} < set(expected.tolist())


def test_with_equal_counts_it_is_mixup():
    plan = Remix(lam=Beta(1.0), per_example=True, class_counts=(7, 7, 7))(INPUTS, LABELS, Step(3, 9))
    mixup = RandomPairs(lam=Beta(1.0), per_example=True)(INPUTS, LABELS, Step(3, 9))
    assert torch.equal(plan.partner, mixup.partner)
    assert torch.equal(plan.lam, mixup.lam)
    assert torch.equal(plan.weight_of_label, mixup.weight_of_label)


@pytest.mark.parametrize("counts", [(100, 10, 1), (1, 10, 100)])
def test_after_cutmix_the_rule_sees_the_lam_of_the_pixels(counts):
    """Boxes that are clipped leave another lam, which may be on the other side of tau."""
    model = new_model("images")
    inputs, labels = batch_and_labels("images", 12)
    method = Method(CutMix(), Mixed(), pairing=Remix(lam=Beta(1.0), class_counts=counts))
    ready = method.setup(training_set("images", model))
    plan = MixPlan(torch.arange(12).roll(1), torch.full((12,), 0.45))
    _, output = ready(model, inputs, labels, Step(0, 9), plan)
    kept = output.plan
    assert (kept.lam > 0.5).any()  # where the lam that was drawn is below
    cases = zip(kept.lam.tolist(), labels.tolist(), labels[kept.partner].tolist(), strict=True)
    expected = [by_hand(lam, counts[own], counts[other], 3.0, 0.5) for lam, own, other in cases]
    assert kept.label_lam.tolist() == expected


def test_counts_are_those_of_the_training_set():
    ready = METHODS["remix"].setup(training_set("text", new_model("text")))
    assert ready.pairing.class_counts == (5, 5, 4)
    assert METHODS["remix"].pairing.class_counts is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kappa": 0.9}, "kappa must be at least 1, got 0.9"),
        ({"kappa": float("nan")}, "kappa must be at least 1, got nan"),
        ({"tau": -0.1}, r"tau must be in \[0, 1\], got -0.1"),
        ({"label_lam": 0.5}, "label_lam must be left out"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Remix(**options)


def test_what_it_cannot_do_without_is_named():
    pairing = Remix(class_counts=(5, 5, 5))
    with pytest.raises(ValueError, match="Remix needs the labels of the batch"):
        pairing(INPUTS, None, Step(0, 9))
    with pytest.raises(ValueError, match=r"Remix needs the class counts: call setup\(\) first"):
        dataclasses.replace(pairing, class_counts=None)(INPUTS, LABELS, Step(0, 9))
    with pytest.raises(ValueError, match="Remix is defined for class ids"):
        pairing(INPUTS, LABELS.float(), Step(0, 9))
