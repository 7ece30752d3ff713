"""Properties that hold for any plan, loss and metric, tried by Hypothesis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_logitmix import MixPlan
from hf_logitmix.losses import logitmix_loss, mixed_cross_entropy
from hf_logitmix.metrics import calibration_metrics
from hf_logitmix.mixing.image import cutmix, mixup
from hf_logitmix.pairing import RandomPairs, sample_plan
from hf_logitmix.step import Step
from hf_logitmix.temperature import cross_fit, fit_temperature

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("steady")

numbers = st.floats(-50, 50, width=32)


@st.composite
def batches(draw):
    """Logits of clean and mixed rows, labels and a plan; B from 1, K from 1."""
    size, classes = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    logits = torch.tensor(draw(arrays(np.float64, (size, classes), elements=numbers)))
    mixed = torch.tensor(draw(arrays(np.float64, (size, classes), elements=numbers)))
    labels = torch.tensor(draw(st.lists(st.integers(0, classes - 1), min_size=size, max_size=size)))
    partner = torch.tensor(draw(st.permutations(range(size))))
    lam = torch.tensor(draw(arrays(np.float64, size, elements=st.floats(0, 1))))
    return logits, mixed, labels, MixPlan(partner, lam)


@given(st.integers(0, 40), st.floats(0.05, 20), st.booleans(), st.integers(0, 2**32))
def test_a_plan_is_a_permutation_with_shares(size, alpha, per_example, seed):
    plan = sample_plan(size, alpha=alpha, per_example=per_example, generator=torch.Generator().manual_seed(seed))
    assert sorted(plan.partner.tolist()) == list(range(size))
    assert plan.lam.shape == (size,)
    assert ((plan.lam >= 0) & (plan.lam <= 1)).all()
    assert per_example or len(set(plan.lam.tolist())) <= 1


@given(st.integers(1, 200), st.floats(0.01, 1))
def test_a_fraction_of_the_batch_is_never_nothing_and_never_more_than_one_row_too_many(size, fraction):
    drawn = RandomPairs(fraction=fraction)({"x": torch.zeros(size)}, None, Step(0, 1))
    rows = len(drawn.partner)
    assert 1 <= rows <= size
    assert fraction * size - 1e-6 <= rows < fraction * size + 1


@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_a_batch_does_not_matter(batch, rng):
    logits, mixed, labels, plan = batch
    order = list(range(len(labels)))
    rng.shuffle(order)
    place = torch.empty(len(order), dtype=torch.long)
    place[order] = torch.arange(len(order))
    moved = MixPlan(place[plan.partner][order], plan.lam[order])
    here, there = logitmix_loss(*batch), logitmix_loss(logits[order], mixed[order], labels[order], moved)
    torch.testing.assert_close(torch.stack(here), torch.stack(there))


@given(batches())
def test_lam_one_is_the_own_label_and_lam_zero_the_partners(batch):
    _, mixed, labels, plan = batch
    ones, zeros = torch.ones_like(plan.lam), torch.zeros_like(plan.lam)
    entropy = torch.nn.functional.cross_entropy
    own = mixed_cross_entropy(mixed, labels, MixPlan(plan.partner, ones))
    other = mixed_cross_entropy(mixed, labels, MixPlan(plan.partner, zeros))
    torch.testing.assert_close(own, entropy(mixed, labels))
    torch.testing.assert_close(other, entropy(mixed, labels[plan.partner]))


@given(batches())
def test_swapping_every_pair_changes_no_term(batch):
    """Pair (i, j) with lam is pair (j, i) with 1 - lam, if the mixed rows go along."""
    logits, mixed, labels, plan = batch
    swapped = MixPlan(torch.argsort(plan.partner), 1 - plan.lam[torch.argsort(plan.partner)])
    there = logitmix_loss(logits, mixed[torch.argsort(plan.partner)], labels, swapped)
    torch.testing.assert_close(torch.stack(logitmix_loss(*batch)), torch.stack(there))


@given(batches(), numbers)
def test_a_shift_of_all_logits_changes_no_cross_entropy(batch, shift):
    logits, mixed, labels, plan = batch
    moved = logitmix_loss(logits + shift, mixed + shift, labels, plan)
    torch.testing.assert_close(torch.stack(moved), torch.stack(logitmix_loss(*batch)), atol=1e-4, rtol=1e-4)


@st.composite
def predictions(draw):
    size, classes = draw(st.integers(1, 30)), draw(st.integers(2, 5))
    logits = draw(arrays(np.float64, (size, classes), elements=numbers))
    return logits, np.array(draw(st.lists(st.integers(0, classes - 1), min_size=size, max_size=size)))


@given(predictions(), st.integers(1, 20))
def test_metrics_stay_in_their_ranges(prediction, n_bins):
    values = calibration_metrics(*prediction, n_bins=n_bins)
    for name in ("accuracy", "ece", "oe", "mce", "adaptive_ece", "classwise_ece"):
        assert -1e-12 <= values[name] <= 1 + 1e-12
    assert values["oe"] <= values["ece"] + 1e-12 <= values["mce"] + 2e-12
    assert 0 <= values["brier"] <= 2 + 1e-12
    assert values["nll"] >= 0


@given(predictions(), st.randoms(use_true_random=False))
def test_metrics_do_not_depend_on_the_order_of_examples(prediction, rng):
    logits, labels = prediction
    order = list(range(len(labels)))
    rng.shuffle(order)
    here, there = calibration_metrics(logits, labels), calibration_metrics(logits[order], labels[order])
    ties_split_differently = {"adaptive_ece"}
    for name in set(here) - ties_split_differently:
        assert here[name] == pytest.approx(there[name], abs=1e-9)


@given(predictions())
def test_no_temperature_is_better_than_the_one_that_is_fitted(prediction):
    logits, labels = prediction
    own = logits[np.arange(len(labels)), labels]
    even = own.mean() <= logits.mean()  # no T is best: what is given is near the limit of even odds
    fitted = calibration_metrics(logits / fit_temperature(logits, labels), labels)["nll"]
    for other in (0.01, 0.3, 1.0, 1.7, 10.0, 100.0):
        assert fitted <= calibration_metrics(logits / other, labels)["nll"] + (1e-3 if even else 1e-9)


@given(predictions(), st.floats(1e-20, 1e20))
def test_a_temperature_has_the_unit_of_the_logits(prediction, scale):
    logits, labels = prediction
    expected = fit_temperature(logits, labels) * (scale if np.ptp(logits, axis=1).any() else 1)
    assert fit_temperature(scale * logits, labels) == pytest.approx(expected, rel=1e-6)


@given(predictions())
def test_scaling_never_changes_a_prediction(prediction):
    logits, labels = prediction
    if len(labels) > 1:
        np.testing.assert_array_equal(cross_fit(logits, labels).argmax(1), logits.argmax(1))


@given(st.integers(0, 6), st.integers(0, 5))
def test_metrics_of_nothing_or_of_one_class_are_refused(size, classes):
    logits, labels = np.zeros((size, classes)), np.zeros(size, dtype=int)
    if size and classes > 1:
        assert calibration_metrics(logits, labels)["accuracy"] == 1
    else:
        with pytest.raises(ValueError, match=r"are empty|have one column"):
            calibration_metrics(logits, labels)


@given(batches(), st.integers(0, 10**6))
def test_a_logit_that_is_no_number_makes_the_loss_none(batch, place):
    """And never a number that looks right."""
    logits, mixed, labels, plan = batch
    mixed.view(-1)[place % mixed.numel()] = float("nan")
    assert mixed_cross_entropy(mixed, labels, plan).isnan()
    assert logitmix_loss(logits, mixed, labels, plan).total.isnan()


def test_a_batch_of_nothing_has_no_mean_as_in_torch():
    nothing, labels = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    plan = MixPlan(labels, torch.zeros(0))
    assert torch.nn.functional.cross_entropy(nothing, labels).isnan()
    assert mixed_cross_entropy(nothing, labels, plan).isnan()
    assert logitmix_loss(nothing, nothing, labels, plan).total.isnan()


@given(predictions(), st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 10**6))
def test_one_number_that_is_none_is_refused(prediction, value, place):
    logits, labels = prediction
    logits.flat[place % logits.size] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        calibration_metrics(logits, labels)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32), st.booleans())
def test_images_mix_within_their_pixels(size, height, width, seed, per_example):
    """Whatever the shape, odd sizes and a batch of one included; channels-last stays readable."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(size, 3, height, width, generator=generator).contiguous(memory_format=torch.channels_last)
    plan = sample_plan(size, alpha=1.0, per_example=per_example, generator=generator)
    before = pixels.clone()
    low, high = torch.minimum(pixels, pixels[plan.partner]), torch.maximum(pixels, pixels[plan.partner])
    for mixed, true in (mixup(pixels, plan), cutmix(pixels, plan, generator)):
        assert mixed.shape == pixels.shape
        assert ((mixed >= low - 1e-6) & (mixed <= high + 1e-6)).all()
        assert ((true.lam >= 0) & (true.lam <= 1)).all()
    assert torch.equal(pixels, before)
