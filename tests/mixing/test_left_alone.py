"""Rows that a plan leaves alone stay as they are under every mixing of images, and a constant lam is a float."""

import pytest
import torch

from helpers.models import tiny_vit
from hf_logitmix import MixPlan, mixed_forward
from hf_logitmix.mixing import CutMix, Linear, PuzzleMix
from hf_logitmix.mixing.image import cutmix
from hf_logitmix.pairing import Constant, RandomPairs
from hf_logitmix.step import Step

PIXELS = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize("mixing", [Linear(), CutMix(), PuzzleMix(block_num=4), PuzzleMix(block_num=8)], ids=str)
def test_rows_at_lam_one_are_the_images_themselves(mixing):
    model = tiny_vit().eval()
    plan = MixPlan(torch.tensor([1, 2, 3, 0]), torch.tensor([1.0, 0.4, 1.0, 0.6]))
    output = mixed_forward(model, {"pixel_values": PIXELS}, plan, mixing=mixing, rows="mixed", labels=LABELS)
    plain = model(pixel_values=PIXELS).logits
    torch.testing.assert_close(output.mixed_logits[[0, 2]], plain[[0, 2]])
    assert output.plan.lam[[0, 2]].tolist() == [1.0, 1.0]
    assert not torch.allclose(output.mixed_logits[[1, 3]], plain[[1, 3]], atol=1e-4)


@pytest.mark.parametrize("value", [0, 1, 0.5])
def test_a_constant_lam_is_a_float(value):
    plan = RandomPairs(lam=Constant(value))({"pixel_values": PIXELS}, None, Step(0, 1))
    assert plan.lam.dtype == torch.float32
    assert plan.lam.tolist() == [float(value)] * 4
    _, true_plan = cutmix(PIXELS, MixPlan(plan.partner, torch.zeros(4)), torch.Generator().manual_seed(1))
    _, found = cutmix(
        PIXELS,
        RandomPairs(lam=0)({"x": PIXELS}, None, Step(0, 1))._replace(partner=plan.partner),
        torch.Generator().manual_seed(1),
    )
    assert found.lam.tolist() == true_plan.lam.tolist()
