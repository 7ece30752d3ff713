"""RegMixup is LogitMix without the similarity."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from helpers.data import data_without_types, examples
from helpers.models import tiny_bert
from helpers.training import InOrder, arguments, collate_pairs, weights
from hf_logitmix import Method, MixTrainer, get_method
from hf_logitmix.criteria import CrossEntropy, RowLoss
from hf_logitmix.mixing import Linear
from hf_logitmix.objectives import LogitMix, MixedOutput, RegMixup, total_of
from hf_logitmix.pairing import Beta, MixPlan, RandomPairs


def step_of(tmp_path, method: Method) -> tuple[torch.Tensor, dict[str, float]]:
    model = tiny_bert(dropout=0.2)
    trainer = MixTrainer(model, arguments(tmp_path, max_steps=1), method=method, train_dataset=examples(16))
    trainer.train()
    return weights(model), trainer.state.log_history[0]


@pytest.mark.parametrize("eta", [1.0, 0.25])
def test_a_step_is_that_of_logitmix_without_its_third_term(tmp_path, eta):
    """To the bit, with dropout and a drawn plan."""
    regmixup, log = step_of(tmp_path, get_method("regmixup", eta=eta))
    pairing = RandomPairs(lam=Beta(20.0))
    logitmix, of_logitmix = step_of(tmp_path, Method(Linear(), LogitMix(weights=(eta, 1, 0)), pairing=pairing))
    assert torch.equal(regmixup, logitmix)
    assert not torch.equal(regmixup, weights(tiny_bert(dropout=0.2)))
    assert "sim" not in log
    assert {name: of_logitmix[name] for name in ("mix", "cls", "loss")} == {n: log[n] for n in ("mix", "cls", "loss")}


def test_its_loss_is_both_cross_entropies():
    generator = torch.Generator().manual_seed(0)
    logits, mixed = torch.randn(2, 5, 3, generator=generator)
    labels, plan = torch.tensor([0, 1, 2, 1, 0]), MixPlan(torch.tensor([4, 3, 2, 1, 0]), torch.rand(5))
    total = total_of(RegMixup(eta=0.5)(MixedOutput(logits, mixed, plan), labels, RowLoss(CrossEntropy()), {}))
    by_hand = [
        F.cross_entropy(z, y) + 0.5 * (lam * F.cross_entropy(m, y) + (1 - lam) * F.cross_entropy(m, labels[j]))
        for z, m, y, lam, j in zip(logits, mixed, labels, plan.lam, plan.partner, strict=True)
    ]
    torch.testing.assert_close(total, sum(by_hand) / 5)


def test_both_terms_are_logged_and_add_up(tmp_path):
    trainer = InOrder(
        tiny_bert(),
        arguments(tmp_path, max_steps=1),
        method=get_method("regmixup", eta=0.5),
        train_dataset=data_without_types(8),
        data_collator=collate_pairs,
    )
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["loss"] == pytest.approx(log["cls"] + 0.5 * log["mix"], abs=1e-5)


@pytest.mark.parametrize("eta", [-1.0, math.nan, math.inf])
def test_impossible_weights_are_refused(eta):
    with pytest.raises(ValueError, match=f"eta must be a number >= 0, got {eta}"):
        RegMixup(eta=eta)
