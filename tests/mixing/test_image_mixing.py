"""Mixup and CutMix of pixels: counted pixel by pixel, and box statistics enumerated over all centres."""

import math

import numpy as np
import pytest
import torch

from hf_logitmix import MixPlan
from hf_logitmix.mixing.image import cutmix, mixup


def constant_images(size, height=8, width=12, channels=3):
    """Image i is i everywhere, so that every pixel tells where it comes from."""
    return torch.arange(size, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(size, channels, height, width).clone()


def rolled_plan(size, lam):
    """Everyone's partner is the next one: nobody meets itself."""
    return MixPlan(torch.arange(size).roll(-1), torch.as_tensor(lam, dtype=torch.float32).expand(size).contiguous())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def extents(size, lam):
    """Start and stop of a box of side size * sqrt(1 - lam) for each of the equally likely centres, clipped."""
    length = round(size * math.sqrt(1 - lam))
    spans = [(centre - length // 2, centre - length // 2 + length) for centre in range(size)]
    return [(max(start, 0), min(stop, size)) for start, stop in spans]


def coverage(size, lam):
    """How often each row (or column) is inside the box."""
    spans = extents(size, lam)
    return np.array([sum(start <= at < stop for start, stop in spans) / size for at in range(size)])


@pytest.mark.parametrize("lam", [0.05, 0.3, 0.5, 0.77, 0.99])
@pytest.mark.parametrize("shape", [(8, 12), (7, 7), (1, 5), (32, 32)])
def test_cutmix_lam_is_the_share_of_own_pixels(shape, lam):
    pixels, plan = constant_images(16, *shape), rolled_plan(16, lam)
    mixed, true = cutmix(pixels, plan, seeded())
    for i in range(16):
        own, other = (mixed[i] == i).all(0), (mixed[i] == plan.partner[i].item()).all(0)
        assert (own ^ other).all()
        assert true.lam[i].item() == pytest.approx(own.sum().item() / own.numel(), abs=1e-7)
    assert torch.equal(true.partner, plan.partner)
    assert true.lam.dtype == torch.float32


def test_what_cutmix_replaces_is_one_rectangle_in_place():
    """Pixels keep their position: mixed equals own or partner at the same place, and the partner's part has no gaps."""
    pixels = torch.rand(32, 3, 9, 11, generator=seeded(1))
    mixed, plan = cutmix(pixels, rolled_plan(32, 0.6), seeded())
    for i in range(32):
        cut = (mixed[i] != pixels[i]).any(0)
        assert torch.equal(mixed[i][:, cut], pixels[plan.partner[i]][:, cut])
        rows, columns = cut.any(1).nonzero().flatten(), cut.any(0).nonzero().flatten()
        box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1) if len(rows) else 0
        assert cut.sum() == box


@pytest.mark.parametrize("mix", [mixup, lambda pixels, plan: cutmix(pixels, plan, seeded())])
def test_input_and_plan_are_not_modified(mix):
    pixels, plan = constant_images(4), rolled_plan(4, 0.4)
    kept = pixels.clone(), plan.partner.clone(), plan.lam.clone()
    mixed, _ = mix(pixels, plan)
    mixed += 1
    for now, before in zip((pixels, plan.partner, plan.lam), kept, strict=True):
        assert torch.equal(now, before)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_lam_one_is_the_identity(mix):
    pixels = torch.rand(6, 3, 8, 8, generator=seeded(2))
    mixed, plan = mix(pixels, rolled_plan(6, 1.0))
    assert torch.equal(mixed, pixels)
    assert torch.equal(plan.lam, torch.ones(6))


@pytest.mark.parametrize("lam", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(8, 13), (16, 16)])
def test_mean_share_and_coverage_of_the_box_equal_an_enumeration_of_centres(shape, lam):
    """Rows and columns of the centre are independent, so the chance of a pixel is a product."""
    pixels, plan = constant_images(6000, *shape, channels=1), rolled_plan(6000, lam)
    mixed, true = cutmix(pixels, plan, seeded(3))
    cut = (mixed[:, 0] != pixels[:, 0]).double().mean(0).numpy()
    expected = np.outer(coverage(shape[0], lam), coverage(shape[1], lam))
    assert cut == pytest.approx(expected, abs=0.035)
    assert 1 - true.lam.mean().item() == pytest.approx(expected.mean(), abs=0.015)


def test_boxes_take_exactly_the_possible_extents():
    lam, (height, width) = 0.6, (8, 13)
    pixels = constant_images(4000, height, width, channels=1)
    mixed, _ = cutmix(pixels, rolled_plan(4000, lam), seeded(4))
    cut = mixed[:, 0] != pixels[:, 0]
    found = set()
    for box in cut:
        rows, columns = box.any(1).nonzero().flatten().tolist(), box.any(0).nonzero().flatten().tolist()
        found.add(((rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1)))
    assert found == {(r, c) for r in extents(height, lam) for c in extents(width, lam)}


def test_rows_with_one_lam_have_boxes_of_their_own_and_the_generator_decides_them():
    pixels, plan = constant_images(32), rolled_plan(32, 0.5)
    first, again, other = (cutmix(pixels, plan, seeded(seed))[0] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    boxes = {tuple((first[i] != pixels[i]).flatten().tolist()) for i in range(32)}
    assert len(boxes) > 20


def test_each_row_has_the_box_of_its_own_lam():
    """lam near 1 cuts little and lam near 0 much, row by row."""
    lam = torch.tensor([0.99, 0.05] * 200)
    pixels = constant_images(400, 16, 16, channels=1)
    _, true = cutmix(pixels, MixPlan(torch.arange(400).roll(-1), lam), seeded(7))
    assert (true.lam[::2] > 0.98).all()
    assert true.lam[1::2].mean() < 0.5


@pytest.mark.parametrize("per_row", [False, True])
def test_mixup_equals_a_loop(per_row):
    pixels = torch.rand(5, 3, 4, 6, generator=seeded(8))
    lam = torch.rand(5, generator=seeded(9)) if per_row else torch.full((5,), 0.3)
    plan = MixPlan(torch.tensor([2, 0, 1, 3, 4]), lam)
    mixed, after = mixup(pixels, plan)
    for i in range(5):
        own, other, weight = pixels[i].tolist(), pixels[plan.partner[i]].tolist(), lam[i].item()
        expected = np.array(own) * weight + np.array(other) * (1 - weight)
        assert mixed[i].numpy() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(after.lam, lam)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_a_plan_shorter_than_the_batch_mixes_the_first_rows(mix):
    pixels = constant_images(6)
    mixed, plan = mix(pixels, MixPlan(torch.tensor([5, 3]), torch.full((2,), 0.5)))
    assert mixed.shape == (2, 3, 8, 12)
    shares = plan.lam.double()
    for i, partner in enumerate([5, 3]):
        assert mixed[i].double().mean().item() == pytest.approx((shares[i] * i + (1 - shares[i]) * partner).item())


@pytest.mark.parametrize("mix", [mixup, cutmix])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_of_the_pixels_is_kept_and_lam_is_not_rounded(mix, dtype):
    mixed, plan = mix(constant_images(3).to(dtype), rolled_plan(3, 0.5))
    assert (mixed.dtype, plan.lam.dtype) == (dtype, torch.float32)
    shares = plan.lam.double()
    expected = shares * torch.arange(3) + (1 - shares) * torch.arange(3).roll(-1)
    assert mixed.double().mean((1, 2, 3)).tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("mix", [mixup, cutmix])
@pytest.mark.parametrize("pixels", [torch.zeros(2, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2)])
def test_what_is_not_a_batch_of_images(mix, pixels):
    with pytest.raises(ValueError, match="pixels are"):
        mix(pixels, rolled_plan(2, 0.5))
