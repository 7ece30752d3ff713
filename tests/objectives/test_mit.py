"""MIT-L: two mixes of a pair are taken apart, and each example is compared with its own label."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.data import examples
from helpers.models import tiny_bert
from helpers.parts import batch_and_labels, new_model, training_set
from helpers.training import arguments
from hf_logitmix import Method, MixTrainer, get_method
from hf_logitmix.criteria import CrossEntropy, RowLoss
from hf_logitmix.losses import mit_loss
from hf_logitmix.mixing import CutMix, Linear
from hf_logitmix.objectives import MIT, MixedOutput, total_of
from hf_logitmix.objectives.mit import decoupled
from hf_logitmix.pairing import Beta, Constant, MixPlan, MutualPairs, RandomPairs
from hf_logitmix.step import Step

INPUTS = {"input_ids": torch.zeros(64, 5)}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_of_a_linear_model_both_logits_come_back():
    x, y = random(20, 6), random(20, 6, seed=1)
    lam, second_lam = torch.linspace(0.5, 1.0, 20).double(), torch.linspace(0.45, 0.0, 20).double()
    layer = nn.Linear(6, 4).double()
    mixes = [layer(share[:, None] * x + (1 - share)[:, None] * y) for share in (lam, second_lam)]
    of_x, of_y = decoupled(*mixes, lam, second_lam)
    torch.testing.assert_close(of_x, layer(x))
    torch.testing.assert_close(of_y, layer(y))


def test_a_step_on_a_linear_model_is_a_step_on_clean_rows():
    """The objective, on a plan that the pairing drew, also where the last row has no partner."""
    x, labels, layer = random(7, 6), torch.arange(7) % 4, nn.Linear(6, 4).double()
    for per_example in (False, True):
        plan = MutualPairs(per_example=per_example)({"x": x}, None, Step(2, 9))
        lam = plan.lam.double()[:, None]
        output = MixedOutput(None, layer(lam * x + (1 - lam) * x[plan.partner]), plan)
        total = total_of(MIT()(output, labels, RowLoss(CrossEntropy()), {}))
        torch.testing.assert_close(total, F.cross_entropy(layer(x), labels))


def by_hand(first, second, labels, partner, lam, second_lam) -> float:
    """The loss as it is written for one pair, pair by pair."""
    total = 0.0
    for i, j in enumerate(partner.tolist()):
        a, b = float(lam[i]), float(second_lam[i])
        own = ((1 - b) * first[i] - (1 - a) * second[i]) / (a - b)
        other = (a * second[i] - b * first[i]) / (a - b)
        total += 0.5 * float(F.cross_entropy(own, labels[i])) + 0.5 * float(F.cross_entropy(other, labels[j]))
    return total / len(partner)


def test_the_plain_loss_is_the_mean_over_pairs():
    first, second, labels = random(8, 3), random(8, 3, seed=1), torch.arange(8) % 3
    partner, lam = torch.randperm(8, generator=torch.Generator().manual_seed(3)), torch.full((8,), 0.875)
    second_lam = torch.linspace(0, 0.25, 8)
    found = mit_loss(first, second, labels, MixPlan(partner, lam), second_lam=second_lam)
    assert found.item() == pytest.approx(by_hand(first, second, labels, partner, lam, second_lam), abs=1e-12)


def test_mutual_rows_give_the_loss_of_their_pairs():
    """Half the pairs, each with both its rows: what the plain loss says of them."""
    mixed, labels = random(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    plan = MixPlan(torch.tensor([3, 5, 4, 0, 2, 1]), torch.tensor([0.75, 1.0, 0.875, 0.8125, 0.625, 0.9375]))
    total = total_of(MIT()(MixedOutput(None, mixed, plan), labels, RowLoss(CrossEntropy()), {}))
    first = torch.tensor([0, 1, 2])
    second = plan.partner[first]
    pairs = [mixed[first], mixed[second], labels[torch.cat([first, second])], torch.tensor([3, 4, 5])]
    assert total.item() == pytest.approx(by_hand(*pairs, plan.lam[first], 1 - plan.lam[second]), abs=1e-7)


def test_pairs_are_mutual_and_far_enough_apart():
    for index in range(50):
        for per_example in (False, True):
            plan = MutualPairs(lam=Beta(0.5), per_example=per_example)(INPUTS, None, Step(index, 50))
            for i, j in enumerate(plan.partner.tolist()):
                assert plan.partner[j] == i != j
                assert plan.lam[i] >= 0.5
                assert plan.lam[i] - (1 - plan.lam[j]) >= 0.5
            assert len(set(plan.lam.tolist())) <= 2 or per_example


@pytest.mark.slow
def test_partners_are_equally_likely():
    """Of 6 examples each meets each other one in a fifth of the steps."""
    counts = torch.zeros(6, 6)
    for index in range(3000):
        partner = MutualPairs()({"x": torch.zeros(6, 1)}, None, Step(index, 3000)).partner
        counts[torch.arange(6), partner] += 1
    expected = 600 * (1 - torch.eye(6))
    assert (counts - expected).abs().max() < 5 * (3000 * 0.2 * 0.8) ** 0.5


def test_lams_are_those_of_the_papers_loop():
    """Two draws folded to either side of one half, drawn again until they are a margin apart: their distribution."""
    generator = torch.Generator().manual_seed(7)
    expected = []
    while len(expected) < 4000:
        a, b = Beta(1.0).draw(2, generator).tolist()
        if (a := max(a, 1 - a)) - (b := min(b, 1 - b)) >= 0.5:
            expected.append((a, b))
    pairs = MutualPairs(lam=Beta(1.0), per_example=True)
    plans = [pairs({"x": torch.zeros(80, 1)}, None, Step(index, 100)) for index in range(100)]
    own = torch.cat([plan.lam for plan in plans])
    other = torch.cat([1 - plan.lam[plan.partner] for plan in plans])
    for found, wanted in ((own, [a for a, _ in expected]), (other, [b for _, b in expected])):
        quantiles = torch.linspace(0.1, 0.9, 9)
        torch.testing.assert_close(
            found.quantile(quantiles), torch.tensor(wanted).quantile(quantiles), atol=0.02, rtol=0
        )


def test_a_batch_that_is_not_mixed_trains_on_its_own_rows():
    plans = [MutualPairs(prob=0.5)(INPUTS, None, Step(index, 40)) for index in range(40)]
    unmixed = [plan for plan in plans if (plan.lam == 1).all()]
    assert 10 < len(unmixed) < 30
    mixed = random(64, 3)
    terms = MIT()(MixedOutput(None, mixed, unmixed[0]), torch.arange(64) % 3, RowLoss(CrossEntropy()), {})
    torch.testing.assert_close(total_of(terms), F.cross_entropy(mixed, torch.arange(64) % 3))


@pytest.mark.parametrize("kind", ["text", "images"])
def test_one_forward_of_the_batch_is_all_it_takes(kind):
    """The loss of the method is that of the formula on the model's own mixed rows, and as many of them as examples."""
    model = new_model(kind).eval()
    inputs, labels = batch_and_labels(kind, 6)
    ready = get_method("mit").setup(training_set(kind, model))
    terms, output = ready(model, inputs, labels, Step(3, 9))
    assert len(output.mixed_logits) == 6
    assert output.logits is None
    plan, mixed = output.plan, output.mixed_logits
    rows = []
    for i, j in enumerate(plan.partner.tolist()):
        a, b = plan.lam[i], 1 - plan.lam[j]
        rows.append(F.cross_entropy(((1 - b) * mixed[i] - (1 - a) * mixed[j]) / (a - b), labels[i]))
    torch.testing.assert_close(total_of(terms), sum(rows) / 6)


def test_eight_examples_are_learned(tmp_path):
    """Guessing costs log 3 = 1.1."""
    data = examples(8)
    trainer = MixTrainer(
        tiny_bert(), arguments(tmp_path, max_steps=150, learning_rate=3e-3), method="mit", train_dataset=data
    )
    trainer.train()
    assert trainer.evaluate(data)["eval_loss"] < 0.4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MutualPairs(lam_margin=1.0), r"lam_margin must be in \[0, 1\), got 1.0"),
        (lambda: MutualPairs(lam=Constant(0.5)), "lam_margin=0.5 is hardly ever kept by two draws of lam=Constant"),
        (lambda: MutualPairs(lam=Beta(50.0)), "lam_margin=0.5 is hardly ever kept"),
        (lambda: MutualPairs(label_lam=Beta(1.0)), "label_lam must be left out"),
        (lambda: MutualPairs(partners="length"), "partners must be 'any', got 'length'"),
        (lambda: Method(Linear(), MIT()), "MIT.* takes apart two linear mixes of each pair.*MutualPairs"),
        (lambda: Method(CutMix(), MIT(), pairing=MutualPairs()), "with mixing=CutMix.*pass .*Linear"),
        (lambda: get_method("mit", mix_fraction=0.5), "mix_fraction=0.5 would drop the rest"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("plan", [RandomPairs(lam=Constant(0.9)), MutualPairs()])
def test_a_plan_of_other_pairs_is_refused_at_the_batch(plan):
    drawn = plan({"x": torch.zeros(5, 1)}, None, Step(1, 9))
    if isinstance(plan, MutualPairs):
        drawn = drawn._replace(lam=torch.full((5,), 0.5))
    with pytest.raises(ValueError, match="MIT takes apart pairs that meet twice: draw them by MutualPairs"):
        MIT()(MixedOutput(None, random(5, 3), drawn), torch.zeros(5).long(), RowLoss(CrossEntropy()), {})


@pytest.mark.parametrize(
    ("rows", "second_lam", "message"),
    [
        (2, torch.tensor([0.1, 0.2 + 1e-7]), "lam and second_lam are nearer than 0.001 in a row"),
        (2, torch.tensor([0.1, 1.2]), r"second_lam 1.2.* is outside 0..1"),
        (2, torch.tensor([0.1]), r"second_lam must have a number for each of the 2 rows of the plan, got \(1,\)"),
        (2, 0.1, "second_lam must have a number for each of the 2 rows of the plan, got 0.1"),
        (1, torch.tensor([0.1, 0.1]), r"mixed logits of shapes \(2, 3\) and \(1, 3\) do not fit a plan of 2 rows"),
    ],
)
def test_mixes_that_cannot_be_taken_apart_are_refused(rows, second_lam, message):
    plan = MixPlan(torch.tensor([1, 0]), torch.tensor([0.7, 0.2]))
    with pytest.raises(ValueError, match=message):
        mit_loss(random(2, 3), random(rows, 3), torch.tensor([0, 1]), plan, second_lam=second_lam)
