"""PuzzleMix: against the released code's results, energies in plain loops, and every map of levels there is."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hf_logitmix import MixPlan
from hf_logitmix.mixing.grid_energy import find_levels
from hf_logitmix.mixing.puzzlemix import (
    Energy,
    label_energy,
    mix_moved,
    normalised_saliency,
    puzzlemix,
    transport_plan,
)

CASES = np.load(Path(__file__).parents[1] / "data" / "puzzlemix_released_code.npz")
NAMES = [str(name) for name in CASES["cases"]]
MOVED = [name for name in NAMES if f"{name}/plan1" in CASES]
PIXELS, SALIENCY, PARTNER = (torch.tensor(CASES[name]) for name in ("x", "saliency", "perm"))
MEAN, STD = (torch.tensor(CASES[name]) for name in ("mean", "std"))


def of(name):
    """The fields of one case."""
    return {key.split("/")[1]: CASES[key] for key in CASES.files if key.startswith(f"{name}/")}


def options(case):
    given = {key: float(case[key]) for key in ("beta", "gamma", "eta")}
    whole = {key: int(case[key]) for key in ("block_num", "n_labels", "neigh_size")}
    return given | whole


def pooled(image, size):
    count = image.shape[-1] // size
    return image.reshape(*image.shape[:-2], count, size, count, size).mean((-3, -1))


def energy_by_hand(case, mask, row):
    """The energy of one image's mask, term by term as the docstring has it, in plain loops."""
    g, n = int(case["block_num"]), int(case["n_labels"])
    block = 32 // g
    cell = min(int(case["neigh_size"]), block)
    per = block // cell
    images = (PIXELS * STD + MEAN).double().numpy()
    salient = pooled(SALIENCY.double().numpy(), block)
    s1, s2 = (salient[i] / salient[i].sum() for i in (row, PARTNER[row]))
    pictures = {1: pooled(images[row], cell), 2: pooled(images[PARTNER[row]], cell)}
    alpha, weight, gamma = float(case["alpha"]), float(case["beta"]) / (16 * g), float(case["gamma"])

    def apart(a, b, i, j):
        """Mean difference of the touching cells of block i of image a and block j, below or right, of image b."""
        cells = []
        for k in range(per):
            if j[0] > i[0]:
                one, other = (i[0] * per + per - 1, i[1] * per + k), (j[0] * per, j[1] * per + k)
            else:
                one, other = (i[0] * per + k, i[1] * per + per - 1), (j[0] * per + k, j[1] * per)
            cells.append(np.abs(pictures[a][:, one[0], one[1]] - pictures[b][:, other[0], other[1]]).mean())
        return np.mean(cells)

    total = 0.0
    for y, x in itertools.product(range(g), range(g)):
        m = mask[y, x]
        k = round(m * (n - 1))
        chance = math.comb(n - 1, k) * alpha**k * (1 - alpha) ** (n - 1 - k)
        total += m * s2[y, x] + (1 - m) * s1[y, x] - float(case["eta"]) / g**2 * math.log(chance + 1e-8)
        for j in ((y + 1, x), (y, x + 1)):
            if max(j) == g:
                continue
            d11, d12, d21, d22 = (apart(a, b, (y, x), j) for a, b in ((1, 1), (1, 2), (2, 1), (2, 2)))
            mj, half = mask[j], weight * gamma / 2
            total += half * (m * (d12 + d11) + (1 - m) * (d21 + d22) + mj * (d21 + d11) + (1 - mj) * (d12 + d22))
            total += weight * (1 + gamma / 2 * (d12 + d21 - d11 - d22)) * (m - mj) ** 2
    return total


def energy_of(case):
    alpha = torch.full((8,), float(case["alpha"]))
    saliency = normalised_saliency(SALIENCY, 32 // int(case["block_num"]))
    return label_energy(PIXELS * STD + MEAN, saliency, MixPlan(PARTNER, alpha), **options(case))


@pytest.mark.parametrize("name", NAMES)
def test_the_energy_is_that_of_the_equation(name):
    case = of(name)
    levels = torch.tensor(case["mask"] * (int(case["n_labels"]) - 1)).round().long()
    found = energy_of(case).of(levels)
    for row in (0, 5):
        assert found[row].item() == pytest.approx(energy_by_hand(case, case["mask"][row], row), rel=1e-5)
    np.testing.assert_allclose(found, case["energy_official"], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_levels_are_as_good_as_the_released_code_or_within_one_percent_of_the_best(name):
    case = of(name)
    found = energy_of(case).of(find_levels(energy_of(case))).numpy()
    best = case["energy_optimal"]
    assert (found >= best - 1e-5 * np.abs(best)).all()
    assert ((found <= case["energy_official"] * (1 + 1e-6)) | ((found - best) / np.abs(best) < 0.01)).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), size_and_levels=st.sampled_from([(2, 2), (2, 3), (2, 4), (4, 2)]))
def test_small_maps_have_the_least_energy_of_all(seed, size_and_levels):
    size, labels = size_and_levels
    generator = torch.Generator().manual_seed(seed)
    images, saliency = torch.rand(3, 3, 8, 8, generator=generator), torch.rand(3, 8, 8, generator=generator) ** 4
    plan = MixPlan(torch.tensor([1, 2, 0]), torch.rand(3, generator=generator))
    saliency = normalised_saliency(saliency, 8 // size)
    energy = label_energy(images, saliency, plan, block_num=size, n_labels=labels)
    maps = torch.cartesian_prod(*[torch.arange(labels)] * size**2).reshape(-1, 1, size, size).expand(-1, 3, -1, -1)
    best = energy.of(maps).min(0).values
    found = find_levels(energy)
    torch.testing.assert_close(energy.of(found), best, rtol=1e-5, atol=1e-7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(find_levels(energy), found)


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("salient", ["nothing", "one corner", "noise"])
def test_no_map_is_worse_than_one_level_everywhere(size, labels, salient):
    generator = torch.Generator().manual_seed(size)
    images = F.interpolate(torch.rand(4, 3, 4, 4, generator=generator), 32, mode="bilinear")
    saliency = {"nothing": torch.zeros(4, 32, 32), "noise": torch.rand(4, 32, 32, generator=generator)}.get(salient)
    if saliency is None:
        saliency = torch.zeros(4, 32, 32)
        saliency[:, :6, :6] = 1
    plan = MixPlan(torch.tensor([1, 2, 3, 0]), torch.tensor([0.1, 0.4, 0.5, 0.9]))
    energy = label_energy(images, normalised_saliency(saliency, 32 // size), plan, block_num=size, n_labels=labels)
    found = find_levels(energy)
    constant = torch.arange(labels).view(-1, 1, 1, 1).expand(-1, 4, size, size)
    assert (energy.of(found) <= energy.of(constant).min(0).values + 1e-6).all()


@pytest.mark.parametrize("name", MOVED)
def test_transport_moves_the_blocks_that_the_released_code_moves(name):
    case = of(name)
    block = 32 // int(case["block_num"])
    side = block if int(case["t_size"]) < 1 else int(case["t_size"])
    mask = torch.tensor(case["mask"]).repeat_interleave(block, 1).repeat_interleave(block, 2)[:, ::side, ::side]
    salient, eps = normalised_saliency(SALIENCY, side), float(case["t_eps"])
    assert transport_plan(salient, mask > 0, eps).tolist() == case["plan1"].tolist()
    assert transport_plan(salient[PARTNER], mask < 1, eps).tolist() == case["plan2"].tolist()


def test_a_plan_in_parts_is_the_plan(monkeypatch):
    salient, wanted = normalised_saliency(SALIENCY, 4), torch.rand(8, 8, 8, generator=torch.manual_seed(0)) > 0.4
    whole = transport_plan(salient, wanted)
    monkeypatch.setattr("hf_logitmix.mixing.puzzlemix._DENSE_ENTRIES", 3 * 8**4)
    assert torch.equal(transport_plan(salient, wanted), whole)


def test_blocks_are_moved_and_mixed_by_hand():
    images = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(2, 1, 1, 1)
    images[1] += 100
    plans = torch.tensor([[3, -1, 2, 0]]), torch.tensor([[0, 1, -1, 1]])
    mixed = mix_moved(images, torch.tensor([1]), torch.tensor([[[1.0, 0.0], [0.25, 0.5]]]), *plans)
    expected = [[10, 11, 102, 103], [14, 15, 106, 107], [2, 2.25, 51, 52], [3, 3.25, 55, 56]]
    assert mixed[0, 0].tolist() == expected


TRANSPORTS = [{"transport": False}, {}, {"t_eps": 0.05}, {"t_eps": 4.0}, {"t_size": 2}, {"t_size": 16}, {"t_size": 32}]


@pytest.mark.parametrize("chosen", TRANSPORTS, ids=str)
@pytest.mark.parametrize("block_num", [2, 4, 8, 16])
def test_the_mixed_image_is_the_masked_sum_and_lam_its_mean(block_num, chosen):
    plan = MixPlan(PARTNER, torch.full((8,), 0.4))
    before = PIXELS.clone()
    options = {"block_num": block_num, "mean": MEAN, "std": STD, **chosen}
    mixed, true_plan, mask = puzzlemix(PIXELS, SALIENCY, plan, return_mask=True, **options)
    assert torch.equal(PIXELS, before)
    assert mask.shape == (8, block_num, block_num)
    assert set(mask.unique().tolist()) <= {0.0, 0.5, 1.0}
    torch.testing.assert_close(true_plan.lam, mask.flatten(1).mean(1))
    own, other = PIXELS, PIXELS[PARTNER]
    block = 32 // block_num
    full = torch.kron(mask, torch.ones(block, block))
    if "transport" not in chosen:
        side, eps = min(chosen.get("t_size", block), block), chosen.get("t_eps", 0.8)
        salient, coarse = normalised_saliency(SALIENCY, side), full[:, ::side, ::side]
        plans = transport_plan(salient, coarse > 0, eps), transport_plan(salient[PARTNER], coarse < 1, eps)
        own, other = (
            torch.from_numpy(
                np.stack([with_blocks_of(*each) for each in zip(images.numpy(), plan.tolist(), strict=True)])
            )
            for images, plan in zip((own, other), plans, strict=True)
        )
    full = full.unsqueeze(1)
    torch.testing.assert_close(mixed, full * own + (1 - full) * other)


def with_blocks_of(image, plan):
    """Each place with the block that a plan of the released code brings there, block by block."""
    count = math.isqrt(len(plan))
    side = image.shape[-1] // count
    moved = np.zeros_like(image)
    for place, source in enumerate(plan):
        if source >= 0:
            (y, x), (v, u) = (np.array(divmod(int(i), count)) * side for i in (place, source))
            moved[:, y : y + side, x : x + side] = image[:, v : v + side, u : u + side]
    return moved


@pytest.mark.parametrize("name", MOVED)
def test_given_its_mask_the_image_is_that_of_the_released_code(name, monkeypatch):
    """Also with a t_size above the mask's blocks, for which the released code takes the mask's."""
    case = of(name)
    levels = torch.tensor(case["mask"] * (int(case["n_labels"]) - 1)).round().long()
    monkeypatch.setattr("hf_logitmix.mixing.puzzlemix.find_levels", lambda energy: levels)
    plan = MixPlan(PARTNER, torch.full((8,), float(case["alpha"])))
    given = {**options(case), "t_eps": float(case["t_eps"]), "mean": MEAN, "std": STD}
    full = np.kron(case["mask"], np.ones((32 // len(case["mask"][0]),) * 2))[:, None]
    own, other = (
        np.stack([with_blocks_of(*each) for each in zip(images.numpy(), case[key], strict=True)])
        for images, key in ((PIXELS, "plan1"), (PIXELS[PARTNER], "plan2"))
    )
    expected = full * own + (1 - full) * other
    for t_size in (None, 32) if int(case["t_size"]) == -1 else (int(case["t_size"]),):
        mixed, true_plan = puzzlemix(PIXELS, SALIENCY, plan, t_size=t_size, **given)
        np.testing.assert_allclose(mixed, expected, atol=1e-6)
        np.testing.assert_allclose(true_plan.lam, case["ratio"], atol=1e-6)


def test_the_prior_pulls_to_its_image():
    plain = {"block_num": 4, "transport": False, "beta": 0.0, "eta": 50.0}
    for alpha in (0.02, 0.98):
        _, plan = puzzlemix(PIXELS, SALIENCY, MixPlan(PARTNER, torch.full((8,), alpha)), **plain)
        assert plan.lam.tolist() == [float(round(alpha))] * 8


def test_a_prior_for_each_example_is_the_one_of_a_batch_of_its_own():
    plan = MixPlan(PARTNER, torch.linspace(0.1, 0.9, 8))
    _, each, masks = puzzlemix(PIXELS, SALIENCY, plan, block_num=8, return_mask=True)
    for row in range(8):
        alike = MixPlan(PARTNER, plan.lam[row].expand(8))
        _, one, mask = puzzlemix(PIXELS, SALIENCY, alike, block_num=8, return_mask=True)
        assert torch.equal(mask[row], masks[row])
        assert one.lam[row] == each.lam[row]


def test_no_saliency_is_even_saliency():
    plan = MixPlan(PARTNER, torch.full((8,), 0.5))
    dark = SALIENCY.clone()
    dark[3] = 0
    even = dark.clone()
    even[3] = 7.0
    found, expected = (puzzlemix(PIXELS, saliency, plan, block_num=4) for saliency in (dark, even))
    assert torch.isfinite(found[0]).all()
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize("broken", [torch.inf, torch.nan])
def test_saliency_that_overflows_is_even_saliency(broken):
    plan = MixPlan(PARTNER, torch.full((8,), 0.5))
    overflowed, even = SALIENCY.clone(), SALIENCY.clone()
    overflowed[3, 5, 7] = broken
    even[3] = 1.0
    found, expected = (puzzlemix(PIXELS, saliency, plan, block_num=4) for saliency in (overflowed, even))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1].lam, expected[1].lam)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_any_batch_and_half_precision_and_channels_last(size):
    pixels, saliency = PIXELS[:size], SALIENCY[:size]
    plan = MixPlan(torch.arange(size).roll(1), torch.full((size,), 0.3))
    exact, true_plan = puzzlemix(pixels, saliency, plan, block_num=4)
    last, _ = puzzlemix(pixels.to(memory_format=torch.channels_last), saliency, plan, block_num=4)
    assert torch.equal(exact, last)
    assert last.is_contiguous(memory_format=torch.channels_last)
    rounded, rounded_plan = puzzlemix(pixels.bfloat16(), saliency, plan, block_num=4)
    assert rounded.dtype == torch.bfloat16
    assert (rounded_plan.lam - true_plan.lam).abs().max() <= 0.2
    if size == 1:  # meets itself
        still, _ = puzzlemix(pixels, saliency, plan, block_num=4, transport=False)
        torch.testing.assert_close(still, pixels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_num": 5}, "block_num=5"),
        ({"block_num": 0}, "block_num=0"),
        ({"block_num": 64}, "block_num=64"),
        ({"block_num": 4, "neigh_size": 3}, "neigh_size=3"),
        ({"block_num": 4, "n_labels": 1}, "n_labels=1"),
        ({"block_num": 4, "t_size": 5}, "t_size=5 does not divide blocks of 8 pixels"),
        ({"block_num": 4, "t_size": 0}, "t_size=0"),
        ({"block_num": 4, "saliency": SALIENCY[:, :16]}, "saliency of shape"),
        ({"block_num": 4, "pixels": PIXELS[:, :, :16]}, "pixels are"),
        ({"block_num": 4, "pixels": (PIXELS * 9).to(torch.uint8)}, "pixels are torch.uint8"),
    ],
)
def test_impossible_input_is_named(changes, message):
    arguments = {"pixels": PIXELS, "saliency": SALIENCY, "plan": MixPlan(PARTNER, torch.full((8,), 0.5)), **changes}
    with pytest.raises(ValueError, match=message):
        puzzlemix(**arguments)


def test_the_energy_of_several_maps_at_once():
    energy = Energy(torch.rand(2, 2, 2, 3), torch.rand(2, 1, 2), torch.rand(2, 2, 1))
    maps = torch.randint(3, (5, 2, 2, 2))
    each = torch.stack([energy.of(levels) for levels in maps])
    torch.testing.assert_close(energy.of(maps), each)
