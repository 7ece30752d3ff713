"""The switch of two mixings: how often each is taken, with which lam."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from helpers.parts import batch_and_labels, new_model
from hf_logitmix import get_method
from hf_logitmix.mixing import CutMix, Linear, Mixing, Switch
from hf_logitmix.output import MixedOutput
from hf_logitmix.pairing import Beta, MixPlan
from hf_logitmix.step import Step

INPUTS = {"pixel_values": torch.zeros(4, 3, 4, 4)}
PLAN = MixPlan(torch.tensor([1, 2, 3, 0]), torch.tensor([0.3, 1.0, 0.3, 0.3]))


class Marks(Mixing):
    """Makes no rows, and gives back the plan that it was called with, and its own number as logits."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, model, inputs, plan, rows, *, step, labels=None, criterion=None):
        return MixedOutput(None, torch.full((len(plan.partner), 3), float(self.number)), plan)


def draws(switch: Switch, count: int) -> list[tuple[int, MixPlan]]:
    model = new_model("images")
    outputs = [switch(model, INPUTS, PLAN, "mixed", step=Step(index, count)) for index in range(count)]
    return [(int(output.mixed_logits[0, 0]), output.plan) for output in outputs]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_second_is_taken_as_often_as_switch_prob_says(share):
    taken = sum(number for number, _ in draws(Switch(Marks(0), Marks(1), switch_prob=share), 1000))
    if share in (0.0, 1.0):
        assert taken == 1000 * share
    else:
        assert stats.binomtest(taken, 1000, share).pvalue > 0.001


def test_each_has_its_lam_and_rows_at_lam_1_stay():
    found = draws(Switch(Marks(0), Marks(1), second_lam=Beta(2.0)), 1500)
    drawn = []
    for number, plan in found:
        assert torch.equal(plan.partner, PLAN.partner)
        assert plan.lam[1] == 1
        if number == 0:
            assert torch.equal(plan.lam, PLAN.lam)
        else:
            assert len(set(plan.lam[[0, 2, 3]].tolist())) == 1
            drawn.append(plan.lam[0].item())
    assert stats.kstest(drawn, stats.beta(2.0, 2.0).cdf).pvalue > 0.001


def test_without_a_second_lam_both_take_that_of_the_plan():
    assert all(torch.equal(plan.lam, PLAN.lam) for _, plan in draws(Switch(Marks(0), Marks(1)), 50))


@torch.no_grad()
def test_a_batch_is_what_the_mixing_that_is_taken_makes_of_it():
    """To the bit, for both mixings of timm's recipe."""
    model = new_model("images").eval()
    inputs, _ = batch_and_labels("images", 4)
    switch, kinds = Switch(), []
    for index in range(12):
        step = Step(index, 12)
        found = switch(model, inputs, PLAN, "mixed", step=step)
        made = [mixing(model, inputs, PLAN, "mixed", step=step) for mixing in (Linear(), CutMix())]
        alike = [torch.equal(found.mixed_logits, one.mixed_logits) for one in made]
        assert sum(alike) == 1
        kinds.append(alike.index(True))
        assert torch.equal(found.plan.lam, made[kinds[-1]].plan.lam)
    assert set(kinds) == {0, 1}


def test_the_recipe_of_deit():
    """Alpha .8 for Mixup and 1 for CutMix, half of the batches each."""
    method = get_method("mixup_cutmix")
    assert method.pairing.lam == Beta(0.8)
    assert method.mixing == Switch(Linear(), CutMix(), switch_prob=0.5, second_lam=Beta(1.0))


def test_it_reads_what_both_read():
    assert Switch().reads == ("images",)
    assert Switch(Linear(), Linear(level="hidden:1")).reads == Linear().reads


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match=r"switch_prob must be in \[0, 1\], got 1.5"):
        Switch(switch_prob=1.5)
    with pytest.raises(ValueError, match=r"second_lam must be .* got -1"):
        Switch(second_lam=-1)
