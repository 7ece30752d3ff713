"""Folding on every architecture: exact, or refused in one sentence; never something in between."""

import pytest
import torch

from helpers import architectures, image_architectures, tiny_models
from hf_logitmix import fold_temperature

T = 1.6
NEED_INPUTS = {"MobileViTV2ForImageClassification"}  # whose tiny config tells a smaller image than it reads
NOT_ONE_LINEAR_LAYER = {  # the mean of two heads, as of a distilled model, or a convolution
    *("DeiTForImageClassificationWithTeacher", "LevitForImageClassificationWithTeacher"),
    *("SwiftFormerForImageClassification", "swiftformer", "crossvit", "efficientformer", "efficientformer_v2"),
    *("efficientvim", "levit", "repvit", "volo", "dla", "dpn", "resnetv2"),
}


@torch.no_grad()
def check(name, model, inputs, logits_of):
    """Inputs are not those that the function makes up."""
    before = logits_of(model.eval(), inputs).double()
    if name in NOT_ONE_LINEAR_LAYER:
        with pytest.raises(ValueError, match=r"no linear layer with 3 outputs|not the output of its last linear"):
            fold_temperature(model, T)
        assert torch.equal(logits_of(model, inputs).double(), before)
        return
    if name in NEED_INPUTS:
        with pytest.raises(ValueError, match="pass inputs"):
            fold_temperature(model, T)
    fold_temperature(model, T, inputs=inputs if name in NEED_INPUTS else None)
    off = (logits_of(model, inputs).double() - before / T).abs().max()
    assert off <= 1e-5 * before.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.MODEL_TYPES)
def test_text(name):
    if name in architectures.NEEDS_OTHER_PACKAGES:
        pytest.skip(architectures.NEEDS_OTHER_PACKAGES[name])
    model = tiny_models.tiny_model(name)
    check(name, model, architectures.inputs_of(model), image_architectures.logits_of)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(set(image_architectures.CLASSES) - {*image_architectures.NOT_TRIED, *image_architectures.REFUSED})
)
def test_images(name):
    model = image_architectures.tiny_model(name)
    if model.main_input_name == "inputs":
        model.main_input_name = "pixel_values"
    inputs = image_architectures.inputs_of(model, image_architectures.SIZES.get(name, 32))
    check(name, model, inputs, image_architectures.logits_of)


@pytest.mark.slow
@pytest.mark.parametrize("module", image_architectures.TIMM)
def test_timm(module):
    model = image_architectures.timm_model(module)
    inputs = image_architectures.inputs_of(model, image_architectures.TIMM[module][1])
    check(module, model, inputs, image_architectures.logits_of)
