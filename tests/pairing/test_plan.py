"""Pairings and coefficients: against SciPy's Beta distribution, by counting, and by properties."""

import math
from collections import Counter
from itertools import permutations

import pytest
import torch
from scipy import stats

from hf_logitmix.pairing import Beta, Constant, MixPlan, RandomPairs, Uniform, sample_plan
from hf_logitmix.step import Step


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lams(alpha: float, count: int, per_example: bool) -> list[float]:
    generator = seeded(0)
    if per_example:
        return sample_plan(count, alpha=alpha, per_example=True, generator=generator).lam.tolist()
    return [sample_plan(2, alpha=alpha, generator=generator).lam[0].item() for _ in range(count)]


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("alpha", [0.3, 1.0, 3.0])
def test_lam_follows_the_beta_distribution_of_scipy(alpha, per_example):
    drawn = lams(alpha, 4000, per_example)
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.2, 2.0, 8.0])
def test_mean_variance_and_quantiles_of_lam(alpha):
    drawn = torch.tensor(lams(alpha, 40_000, True), dtype=torch.float64)
    variance = 1 / (4 * (2 * alpha + 1))
    assert drawn.mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(variance / len(drawn)))
    assert drawn.var().item() == pytest.approx(variance, rel=0.03)
    for q in (0.1, 0.25, 0.75, 0.9):
        below = (drawn <= stats.beta(alpha, alpha).ppf(q)).double().mean().item()
        assert below == pytest.approx(q, abs=0.01)


@pytest.mark.parametrize("alpha", [1e-3, 1e-2, 1e4])
def test_extreme_alpha_stays_in_the_unit_interval(alpha):
    drawn = torch.tensor(lams(alpha, 5000, True))
    assert ((drawn >= 0) & (drawn <= 1)).all()
    near_an_end = ((drawn < 0.01) | (drawn > 0.99)).double().mean().item()
    assert near_an_end == pytest.approx(2 * stats.beta(alpha, alpha).cdf(0.01), abs=0.02)


def test_one_lam_for_the_batch_unless_per_example():
    assert sample_plan(64, alpha=1.0, generator=seeded(1)).lam.unique().numel() == 1
    assert sample_plan(64, alpha=1.0, per_example=True, generator=seeded(1)).lam.unique().numel() == 64


def test_every_permutation_is_as_likely():
    generator = seeded(3)
    counts = Counter(tuple(sample_plan(3, alpha=1.0, generator=generator).partner.tolist()) for _ in range(3000))
    assert set(counts) == set(permutations(range(3)))
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


@pytest.mark.parametrize("per_example", [False, True])
def test_the_generator_decides_alone(per_example):
    def draw(seed):
        return sample_plan(16, alpha=2.0, per_example=per_example, generator=seeded(seed))

    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = draw(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    again, other = draw(7), draw(8)
    assert torch.equal(first.partner, again.partner)
    assert torch.equal(first.lam, again.lam)
    assert not torch.equal(first.partner, other.partner)
    assert not torch.equal(first.lam, other.lam)


def test_a_generator_moves_on():
    generator = seeded(4)
    first, second = (sample_plan(16, alpha=2.0, generator=generator) for _ in range(2))
    assert first.lam[0] != second.lam[0]


def test_without_a_generator_the_global_seed_decides():
    torch.manual_seed(5)
    first = sample_plan(16, alpha=2.0)
    torch.manual_seed(5)
    again = sample_plan(16, alpha=2.0)
    assert torch.equal(first.partner, again.partner)
    assert torch.equal(first.lam, again.lam)


def test_device_and_to():
    plan = sample_plan(4, alpha=1.0, device="meta")
    assert plan.partner.device.type == plan.lam.device.type == "meta"
    moved = MixPlan(torch.arange(3), torch.ones(3)).to("meta")
    assert moved.partner.device.type == moved.lam.device.type == "meta"


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("make", [lambda alpha: sample_plan(4, alpha=alpha), Beta])
def test_impossible_alpha(make, alpha):
    with pytest.raises(ValueError, match="alpha must be positive"):
        make(alpha=alpha)


def test_negative_batch_size():
    with pytest.raises(ValueError, match="batch_size=-1"):
        sample_plan(-1, alpha=1.0)


@pytest.mark.parametrize(
    ("percent", "batch_size", "expected"),
    [(100, 7, 7), (50, 8, 4), (50, 7, 4), (1, 5, 1), (30, 10, 3), (55, 100, 55), (7, 100, 7), (50, 1, 1), (50, 0, 0)],
)
def test_mix_fraction_shortens_the_plan_to_the_share_rounded_up(percent, batch_size, expected):
    plan = pairs(batch_size, fraction=percent / 100)
    assert len(plan.partner) == len(plan.lam) == expected
    assert len(set(plan.partner.tolist())) == expected
    assert all(0 <= index < batch_size for index in plan.partner.tolist())


def pairs(batch_size: int, index: int = 0, **options) -> MixPlan:
    return RandomPairs(**options)({"x": torch.zeros(batch_size, 2)}, None, Step(index, 1000, seed=3))


@pytest.mark.parametrize("prob", [0.25, 0.5, 1.0])
def test_prob_is_the_share_of_batches_that_are_mixed(prob):
    for options in ({}, {"label_lam": Uniform()}):
        plans = [pairs(4, index, prob=prob, **options) for index in range(2000)]
        mixed = [bool((plan.lam < 1).all()) for plan in plans]
        assert sum(mixed) / len(mixed) == pytest.approx(prob, abs=0.04)
        assert all((plan.weight_of_label == 1).all() for plan in plans if plan.lam[0] == 1)


def test_mixing_is_off_after_its_share_of_training():
    off = [RandomPairs(off_after=0.3).is_off(Step(index, 10)) for index in range(10)]
    assert off == [False] * 3 + [True] * 7
    assert not any(RandomPairs().is_off(Step(index, max_steps)) for index in range(10) for max_steps in (0, 10))


def test_inputs_and_labels_have_lams_of_their_own():
    """Of LaMix's pairs the inputs are at 1/2 and the labels uniform; Beta(2, 2) beside Beta(.4, .4) is independent."""
    plans = [pairs(4, index, lam=Constant(0.5), label_lam=Uniform()) for index in range(2000)]
    assert all((plan.lam == 0.5).all() for plan in plans)
    assert stats.kstest([plan.label_lam[0].item() for plan in plans], "uniform").pvalue > 0.01
    both = [pairs(4, index, lam=Beta(0.4), label_lam=Beta(2.0)) for index in range(2000)]
    own, label = (
        [float(value[0]) for value in values] for values in zip(*((p.lam, p.label_lam) for p in both), strict=True)
    )
    assert stats.kstest(own, stats.beta(0.4, 0.4).cdf).pvalue > 0.01
    assert stats.kstest(label, stats.beta(2, 2).cdf).pvalue > 0.01
    assert abs(stats.pearsonr(own, label).statistic) < 0.06
    assert len(set(pairs(64, per_example=True, label_lam=Uniform()).label_lam.tolist())) == 64


@pytest.mark.parametrize("lengths", [[3, 9, 4, 8, 1, 2], [5, 1, 4, 2, 3], [7], [2, 2, 2, 2], [9, 1]])
def test_partners_by_length_are_next_to_one_another_in_length(lengths):
    """An example and its partner are at most two places apart in the order of lengths, one where the batch is even."""
    mask = (torch.arange(10) < torch.tensor(lengths)[:, None]).long()
    inputs = {"input_ids": torch.zeros_like(mask), "attention_mask": mask}
    seen = set()
    for index in range(20):
        partner = RandomPairs(partners="length")(inputs, None, Step(index, 20, seed=1)).partner.tolist()
        assert sorted(partner) == list(range(len(lengths)))
        assert len(lengths) == 1 or all(own != other for own, other in enumerate(partner))
        ranks = [sorted(lengths).index(length) for length in lengths]
        if len(set(lengths)) == len(lengths):
            far = max(abs(ranks[own] - ranks[other]) for own, other in enumerate(partner))
            assert far <= 1 + len(lengths) % 2
        seen.add(tuple(partner))
    assert (len(seen) > 1) is (len(set(lengths)) < len(lengths))  # random among equals alone
    with pytest.raises(ValueError, match="partners='length' needs the `attention_mask`"):
        pairs(4, partners="length")


@pytest.mark.parametrize(
    ("lengths", "ways"),
    [
        ([5, 5, 5, 5], 3),
        ([5, 5, 5, 5, 5, 5], 15),
        ([3, 5, 3, 5, 3, 5, 3, 5], 9),  # 3 of the short ones, 3 of the long ones
        ([3, 3, 3, 5], 3),  # any of the short ones meets the long one
        ([5, 5, 5], 2),  # an odd one goes with the two before it, in a circle
    ],
)
def test_among_texts_of_equal_length_all_pairs_are_as_likely(lengths, ways):
    mask = (torch.arange(6) < torch.tensor(lengths)[:, None]).long()
    pairing, counts = RandomPairs(partners="length"), Counter()
    for index in range(200 * ways):
        partner = pairing({"attention_mask": mask}, None, Step(index, 0, seed=2)).partner.tolist()
        assert sorted(partner) == list(range(len(lengths)))  # each is a partner once
        counts[tuple(partner)] += 1
    assert len(counts) == ways
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_a_step_draws_uniform_numbers_that_depend_on_seed_step_and_purpose_alone():
    drawn = [Step(step, 2000, seed=1).uniform("a") for step in range(2000)]
    assert stats.kstest(drawn, "uniform").pvalue > 0.01
    assert drawn[5] == Step(5, 9999, seed=1).uniform("a")
    others = [Step(step, 2000, seed=1).uniform("b") for step in range(2000)]
    assert abs(stats.pearsonr(drawn, others).statistic) < 0.06
    assert drawn[5] != Step(5, 2000, seed=2).uniform("a")


def test_progress_is_the_share_of_steps_done():
    assert Step(3, 12).progress == 0.25
    assert Step(0, 0).progress == 0.0
