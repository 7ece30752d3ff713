"""Saliency of words and pixels, against finite differences in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.data import batch_of, examples
from helpers.models import tiny_bert, tiny_vit
from hf_logitmix.criteria import Criterion
from hf_logitmix.mixing.saliency import saliency_of

LABELS = torch.tensor([0, 2, 1])


def by_differences(loss, values: torch.Tensor, places: list[tuple[int, ...]], axis: int, width: float = 1e-5):
    """The root of the mean square of d loss / d value over an axis, at some places of the others."""
    found = []
    for place in places:
        slopes = []
        for feature in range(values.shape[axis]):
            index = (*place[:axis], feature, *place[axis:]) if axis > 0 else (*place, feature)
            step = torch.zeros_like(values)
            step[index] = width
            slopes.append((loss(values + step) - loss(values - step)).item() / (2 * width))
        found.append(sum(slope**2 for slope in slopes) / len(slopes))
    return torch.tensor(found, dtype=torch.float64).sqrt()


@torch.no_grad()
@pytest.mark.parametrize("keeps_graph", [False, True])
def test_saliency_of_words(keeps_graph):
    model, batch = tiny_bert().double().eval(), batch_of(examples(3))
    words = model.get_input_embeddings()(batch["input_ids"])
    rest = {name: value for name, value in batch.items() if name != "input_ids"}

    def loss(embedded):
        return F.cross_entropy(model(inputs_embeds=embedded, **rest).logits, LABELS, reduction="sum")

    logits, saliency = saliency_of(model, batch, LABELS, keeps_graph=keeps_graph)
    assert saliency.shape == batch["input_ids"].shape
    torch.testing.assert_close(logits, model(**batch).logits)
    assert logits.requires_grad
    places = [(0, 1), (1, 0), (2, 3)]
    expected = by_differences(loss, words, places, axis=-1)
    torch.testing.assert_close(torch.stack([saliency[place] for place in places]).double(), expected, rtol=1e-4, atol=0)


@torch.no_grad()
def test_saliency_of_pixels_under_another_criterion():
    class Quadratic(Criterion):
        def __call__(self, logits, target):
            return (logits.softmax(-1) - F.one_hot(target, logits.shape[-1])).square().sum(-1)

    model = tiny_vit().double().eval()
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(pixels):
        return Quadratic()(model(pixel_values=pixels).logits, LABELS).sum()

    _, saliency = saliency_of(model, {"pixel_values": pixels}, LABELS, Quadratic())
    places = [(0, 3, 4), (1, 15, 0), (2, 8, 8)]
    expected = by_differences(loss, pixels, places, axis=1)
    torch.testing.assert_close(torch.stack([saliency[place] for place in places]).double(), expected, rtol=1e-4, atol=0)


def test_it_leaves_a_frozen_embedding_and_the_model_as_they_were():
    model, batch = tiny_bert(dropout=0.3).train(), batch_of(examples(3))
    model.get_input_embeddings().requires_grad_(False)
    torch.manual_seed(0)
    first = saliency_of(model, batch, LABELS)[1]
    assert torch.equal(saliency_of(model, batch, LABELS)[1], first)  # in evaluation mode
    assert first.any()
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_words_of_several_tables_are_refused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny_bert()

        def forward(self, **inputs):
            self.inner.get_input_embeddings()(inputs["input_ids"])
            return self.inner(**inputs)

    with pytest.raises(ValueError, match="looks up its words in 2 tables"):
        saliency_of(Two(), batch_of(examples(3)), LABELS)
