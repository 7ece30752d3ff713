"""MixCollator: the same plan for the same batch and seed, whoever loads it; distribution against SciPy."""

import itertools
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils.data import DataLoader
from transformers import default_data_collator

from hf_logitmix import MixCollator, get_method

EXAMPLES = [{"input_ids": [i, i + 1, 7], "attention_mask": [1, 1, 0], "label": i % 3} for i in range(13)]


def with_extras(features):
    """A batch with things of many kinds in it."""
    batch = default_data_collator(features)
    keep = torch.tensor([True] * len(features))
    return {**batch, "names": ["x"] * len(features), "scale": torch.tensor(2.0), "keep": keep, "half": keep.half()}


def plans(seed=0, workers=0, method="logitmix", batch_size=4):
    collate = MixCollator(default_data_collator, method, seed=seed)
    loader = DataLoader(EXAMPLES, batch_size, shuffle=False, collate_fn=collate, num_workers=workers)
    return [(batch["partner"].tolist(), batch["lam"].tolist()) for batch in loader]


def test_plan_is_the_same_whatever_the_number_of_workers():
    assert plans(seed=3, workers=0) == plans(seed=3, workers=2)


def test_plan_does_not_touch_or_depend_on_the_global_seed():
    torch.manual_seed(0)
    collate, before = MixCollator(default_data_collator), torch.get_rng_state()
    first = collate(EXAMPLES)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(first["lam"], collate(EXAMPLES)["lam"])


def batches_of(loader) -> dict[tuple[int, ...], tuple[list[int], list[float]]]:
    """The plan of each batch, by the examples in it."""
    return {
        tuple(batch["input_ids"][:, 0].tolist()): (batch["partner"].tolist(), batch["lam"].tolist()) for batch in loader
    }


def test_a_plan_is_a_function_of_the_batch_and_not_of_what_came_before_it():
    """Batches in two orders, in two processes or none, of one loader that goes on and of loaders that start anew."""
    groups = [[0, 5, 2], [7, 1, 12], [3, 4, 6, 8], [9], [11, 10]]
    collate = MixCollator(default_data_collator, seed=4)

    def load(chosen, workers=0):
        return DataLoader(EXAMPLES, batch_sampler=chosen, collate_fn=collate, num_workers=workers)

    there, back = batches_of(load(groups)), batches_of(load(groups[::-1], workers=2))
    assert len(there) == len(groups)
    assert there == back
    assert {tuple(group): batches_of(load([group]))[tuple(group)] for group in groups} == there


def drawn(count, of):
    """Partners and the one lam of many plans."""
    found = [of(number) for number in range(count)]
    return [tuple(batch["partner"].tolist()) for batch in found], np.array([batch["lam"][0].item() for batch in found])


THREE = [{"label": 0, "x": 0.25}, {"label": 1, "x": 0.5}, {"label": 2, "x": 0.75}]
VARIED = {
    "seed": lambda n: MixCollator(default_data_collator, "logitmix", seed=n)(THREE),
    "one number of one example": lambda n: MixCollator(default_data_collator)([*THREE[:2], {"label": 2, "x": n / 8}]),
    "one label": lambda n: MixCollator(default_data_collator)([*THREE[:2], {"label": n, "x": 0.75}]),
}


@pytest.mark.parametrize("varied", VARIED)
def test_plans_of_batches_that_differ_are_independent_draws(varied):
    """Every permutation as likely, lam from its Beta, and neither tied to the other nor to the plan before."""
    partners, lam = drawn(1800, VARIED[varied])
    counts = Counter(partners)
    assert set(counts) == set(permutations(range(3)))
    assert stats.chisquare(list(counts.values())).pvalue > 0.01
    alpha = get_method("logitmix").pairing.lam.alpha
    assert stats.kstest(lam, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    assert len(set(lam)) > 1790
    by_partner = [lam[[own == chosen for own in partners]] for chosen in counts]
    assert stats.kruskal(*by_partner).pvalue > 0.01
    assert abs(stats.pearsonr(lam[1:], lam[:-1]).statistic) < 0.08
    pairs = Counter(itertools.pairwise(partners))
    assert stats.chi2_contingency([[pairs[first, then] for then in counts] for first in counts]).pvalue > 0.01


def test_the_order_of_the_examples_counts():
    """A batch in each of its 120 orders: lam spreads as if drawn anew each time."""
    orders = list(permutations(EXAMPLES[:5]))
    _, lam = drawn(120, lambda n: MixCollator(default_data_collator, get_method("logitmix", alpha=1.0))(orders[n]))
    assert len(set(lam)) == 120
    assert stats.kstest(lam, "uniform").pvalue > 0.01


def test_partners_are_a_permutation_and_lam_one_number_even_for_a_last_batch_of_one():
    sizes = []
    for partner, lam in plans():
        assert sorted(partner) == list(range(len(partner)))
        assert len(set(lam)) == 1
        assert 0 <= lam[0] <= 1
        sizes.append(len(partner))
    assert sizes == [4, 4, 4, 1]


@pytest.mark.parametrize(("method", "alpha"), [("logitmix", 3.0), ("mixup", 0.4), (get_method("logitmix", alpha=1), 1)])
def test_lam_over_many_batches_follows_the_methods_beta(method, alpha):
    collate = MixCollator(default_data_collator, method)
    drawn = [collate([{"label": i}, {"label": i + 1}])["lam"][0].item() for i in range(1500)]
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_other_keys_are_left_alone():
    plain, batch = with_extras(EXAMPLES), MixCollator(with_extras)(EXAMPLES)
    assert set(batch) == {*plain, "partner", "lam"}
    assert (batch["partner"].dtype, batch["lam"].dtype) == (torch.int64, torch.float32)
    assert batch["partner"].shape == batch["lam"].shape == (len(EXAMPLES),)
    for name, value in plain.items():
        assert torch.equal(batch[name], value) if isinstance(value, torch.Tensor) else batch[name] == value


def test_method_decides_length_and_spread_of_the_plan():
    half = MixCollator(default_data_collator, get_method("logitmix", mix_fraction=0.5))(EXAMPLES)
    assert len(half["partner"]) == len(half["lam"]) == 7
    each = MixCollator(default_data_collator, get_method("logitmix", per_example=True))(EXAMPLES)
    assert each["lam"].unique().numel() == len(EXAMPLES)
    vanilla = MixCollator(default_data_collator, "vanilla")(EXAMPLES)
    assert vanilla["partner"].tolist() == list(range(len(EXAMPLES)))
    assert vanilla["lam"].tolist() == [1.0] * len(EXAMPLES)


def test_unknown_method():
    with pytest.raises(ValueError, match="method='mixupp'"):
        MixCollator(default_data_collator, "mixupp")


def test_a_collator_without_tensors():
    with pytest.raises(ValueError, match="collator"):
        MixCollator(lambda features: {"text": ["a"], "scale": torch.tensor(1.0)})([0])
