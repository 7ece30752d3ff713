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


def nearly(size, lam):
    """A plan whose rows have nearly the same lam, too near to change a side, so that each has a box of its own."""
    lam = lam + torch.arange(size, dtype=torch.float64) * 1e-14
    assert len(lam.unique()) == size
    return MixPlan(torch.arange(size).roll(-1), lam)


def by_hand(kind, pixels, plan, centres):
    """The mixed images, one example and pixel after another, and their lam; ``centres`` as shares of a side."""
    (_, channels, height, width), mixed, lams = pixels.shape, pixels[: len(plan.lam)].tolist(), plan.lam.tolist()
    partner = pixels[plan.partner].tolist()
    for i, lam in enumerate(plan.lam.tolist()):
        place = i if len(set(plan.lam.tolist())) > 1 else 0
        spans = []
        for size, centre in ((height, centres[0][place]), (width, centres[1][place])):
            length = round(size * math.sqrt(1 - lam))
            start = math.floor(size * centre) - length // 2
            spans.append(range(max(start, 0), min(start + length, size)))
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    if kind == "mixup":
                        mixed[i][c][y][x] = lam * mixed[i][c][y][x] + (1 - lam) * partner[i][c][y][x]
                    elif y in spans[0] and x in spans[1]:
                        mixed[i][c][y][x] = partner[i][c][y][x]
        if kind == "cutmix":
            lams[i] = 1 - len(spans[0]) * len(spans[1]) / (height * width)
    return torch.tensor(mixed, dtype=torch.float64), torch.tensor(lams)


def mix(kind, pixels, plan, rows="mixed", seed=0):
    return mixup(pixels, plan, rows) if kind == "mixup" else cutmix(pixels, plan, seeded(seed), rows)


ONE_LAM, OWN_LAM, SOME_ALONE = torch.full((5,), 0.4), torch.tensor([0.0, 0.3, 0.5, 0.9, 1.0]), torch.tensor([0.4, 1, 1])
PARTNER = torch.tensor([2, 0, 1, 3, 5])  # the fourth meets itself, and the fifth one that has no mixed row


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("lam", [ONE_LAM, OWN_LAM, SOME_ALONE, ONE_LAM.double(), OWN_LAM[:1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_way_of_mixing_equals_a_loop(kind, lam, dtype, layout, seed):
    """On its own, behind the clean images, and where gradients are to flow: the same images, in the type and layout."""
    pixels = torch.rand(6, 3, 7, 10, generator=seeded(8)).to(dtype).contiguous(memory_format=layout)
    plan, kept = MixPlan(PARTNER[: len(lam)], lam), pixels.clone()
    centres = torch.rand(len(lam), 2, generator=seeded(seed)).T.tolist()
    expected, true_lam = by_hand(kind, pixels.double(), plan, centres)
    rounding = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 1e-6)
    mixed, true = mix(kind, pixels, plan, seed=seed)
    both, again = mix(kind, pixels, plan, "both", seed)
    watched = pixels.clone().requires_grad_()
    followed, _ = mix(kind, watched, plan, "both", seed)
    torch.testing.assert_close(mixed.double(), expected, atol=rounding, rtol=0)
    torch.testing.assert_close(true.lam, true_lam.to(lam.dtype))
    assert mixed.dtype == both.dtype == dtype
    assert mixed.is_contiguous(memory_format=layout)
    assert both.is_contiguous(memory_format=layout)
    assert torch.equal(both, torch.cat([pixels, mixed]))
    assert torch.equal(followed, both)
    assert torch.equal(again.lam, true.lam)
    assert torch.equal(pixels, kept)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("lam", [ONE_LAM, OWN_LAM])
@pytest.mark.parametrize("rows", ["mixed", "both"])
def test_a_gradient_goes_to_each_pixel_by_its_share(kind, lam, rows):
    pixels, plan = torch.rand(6, 2, 4, 5, generator=seeded(1)).double(), MixPlan(PARTNER, lam)
    assert torch.autograd.gradcheck(lambda given: mix(kind, given, plan, rows)[0], pixels.requires_grad_())


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("lam", [ONE_LAM, OWN_LAM])
@pytest.mark.parametrize("plan_on", ["meta", "cpu"])
@pytest.mark.parametrize("rows", ["mixed", "both"])
def test_nothing_waits_for_a_number_of_a_device(kind, lam, plan_on, rows):
    """Tensors on meta have no numbers, so whoever asks for one fails, as it would make a GPU be waited for."""
    pixels = torch.empty(6, 3, 8, 8, device="meta")
    shown, plan = mix(kind, pixels, MixPlan(PARTNER, lam).to(plan_on), rows)
    assert shown.shape == (5 if rows == "mixed" else 11, 3, 8, 8)
    assert (shown.device.type, plan.lam.device.type) == ("meta", plan_on)
    with pytest.raises((RuntimeError, NotImplementedError)):
        shown[0, 0, 0, 0].item()


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_other_rows_are_refused(kind):
    with pytest.raises(ValueError, match="rows='clean': pass 'mixed', or 'both'"):
        mix(kind, constant_images(2), rolled_plan(2, 0.5), "clean")


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
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_lam_one_is_the_image_itself_and_lam_zero_the_partner_to_the_bit(mix, dtype):
    pixels = torch.rand(6, 3, 8, 8, generator=seeded(2)).to(dtype)
    mixed, plan = mix(pixels, rolled_plan(6, 1.0))
    assert torch.equal(mixed, pixels)
    assert torch.equal(plan.lam, torch.ones(6))
    some, _ = mix(pixels, MixPlan(torch.arange(6).roll(-1), torch.tensor([0.2, 1.0, 0.7, 1.0, 0.0, 0.5])))
    assert torch.equal(some[[1, 3]], pixels[[1, 3]])
    if mix is mixup:
        assert torch.equal(some[4], pixels[5])


@pytest.mark.parametrize("lam", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(8, 13), (16, 16)])
def test_mean_share_and_coverage_of_the_box_equal_an_enumeration_of_centres(shape, lam):
    """Rows and columns of the centre are independent, so the chance of a pixel is a product."""
    pixels, plan = constant_images(6000, *shape, channels=1), nearly(6000, lam)
    mixed, true = cutmix(pixels, plan, seeded(3))
    cut = (mixed[:, 0] != pixels[:, 0]).double().mean(0).numpy()
    expected = np.outer(coverage(shape[0], lam), coverage(shape[1], lam))
    assert cut == pytest.approx(expected, abs=0.035)
    assert 1 - true.lam.mean().item() == pytest.approx(expected.mean(), abs=0.015)


def test_boxes_take_exactly_the_possible_extents():
    lam, (height, width) = 0.6, (8, 13)
    pixels = constant_images(4000, height, width, channels=1)
    mixed, _ = cutmix(pixels, nearly(4000, lam), seeded(4))
    cut = mixed[:, 0] != pixels[:, 0]
    found = set()
    for box in cut:
        rows, columns = box.any(1).nonzero().flatten().tolist(), box.any(0).nonzero().flatten().tolist()
        found.add(((rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1)))
    assert found == {(r, c) for r in extents(height, lam) for c in extents(width, lam)}


def boxes_of(mixed, pixels):
    return [tuple((mixed[i] != pixels[i]).flatten().tolist()) for i in range(len(mixed))]


def test_one_lam_for_the_batch_is_one_box_and_the_generator_decides_it():
    """In many batches of two the box takes just those extents that are possible."""
    lam, (height, width) = 0.6, (8, 13)
    pixels, plan, generator = constant_images(2, height, width, channels=1), rolled_plan(2, lam), seeded(4)
    found = set()
    for _ in range(3000):
        own, other = boxes_of(cutmix(pixels, plan, generator)[0], pixels)
        assert own == other
        found.add(own)
    assert len(found) == len({(r, c) for r in extents(height, lam) for c in extents(width, lam)})
    first, again = (cutmix(pixels, plan, seeded(5))[0] for _ in range(2))
    assert torch.equal(first, again)


def test_a_lam_for_each_example_is_a_box_for_each_and_the_generator_decides_them():
    pixels, plan = constant_images(32), nearly(32, 0.5)
    first, again, other = (cutmix(pixels, plan, seeded(seed))[0] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(set(boxes_of(first, pixels))) > 20


def test_each_row_has_the_box_of_its_own_lam():
    """lam near 1 cuts little and lam near 0 much, row by row."""
    lam = torch.tensor([0.99, 0.05] * 200)
    pixels = constant_images(400, 16, 16, channels=1)
    _, true = cutmix(pixels, MixPlan(torch.arange(400).roll(-1), lam), seeded(7))
    assert (true.lam[::2] > 0.98).all()
    assert true.lam[1::2].mean() < 0.5


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
