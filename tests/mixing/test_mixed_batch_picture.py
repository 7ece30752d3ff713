"""The picture of a mixed batch shows what the model is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.models import hooks_on
from helpers.parts import batch_and_labels, new_model
from hf_logitmix import get_method
from hf_logitmix.plots import mixed_batch
from hf_logitmix.step import Step

STEP = Step(4, 9)


class Words:
    """A tokenizer of which the picture asks one thing."""

    @staticmethod
    def convert_ids_to_tokens(ids: list[int]) -> list[str]:
        return [f"w{number}" for number in ids]


def images_of(figure) -> list[list[np.ndarray]]:
    """Rows of the pixels that are drawn."""
    axes = figure.axes
    columns = sum(cell.get_ylabel() == "" for cell in axes) // len([c for c in axes if c.get_ylabel()]) + 1
    drawn = [np.asarray(cell.images[0].get_array()) for cell in axes]
    return [drawn[start : start + columns] for start in range(0, len(drawn), columns)]


def test_images_are_the_pixels_of_the_formula():
    model = new_model("images").train()
    inputs, labels = batch_and_labels("images", 5)
    method = get_method("mixup", per_example=True, alpha=1.0)
    figure = mixed_batch(method, model, inputs, labels, step=STEP, count=4)
    assert figure._repr_png_().startswith(b"\x89PNG")  # what a notebook asks for
    own, partner, mixed = images_of(figure)
    plan = method.pairing(inputs, labels, STEP)
    pixels = inputs["pixel_values"]
    low, high = pixels.min(), pixels.max()
    for row, (j, lam) in enumerate(zip(plan.partner[:4].tolist(), plan.lam[:4].tolist(), strict=True)):
        expected = [pixels[row], pixels[j], lam * pixels[row] + (1 - lam) * pixels[j]]
        for drawn, image in zip((own, partner, mixed), expected, strict=True):
            wanted = ((image - low) / (high - low)).permute(1, 2, 0).numpy()
            np.testing.assert_allclose(drawn[row], wanted, atol=1e-6)
        assert f"lam {lam:.2f}" in figure.axes[8 + row].get_xlabel()
    assert model.training
    assert not hooks_on(model)


def test_inside_of_the_model_the_two_that_meet_are_shown():
    inputs, labels = batch_and_labels("images", 3)
    figure = mixed_batch(get_method("mixup", level="hidden:1"), new_model("images"), inputs, labels, step=STEP)
    assert len(images_of(figure)) == 2
    assert figure.get_suptitle() == "mixup, at level='hidden:1'"


def words_of(figure) -> list[tuple[str, str, float]]:
    """Word, colour of its box (own, partner) and weight of each word; titles have no box."""
    found = []
    for text in figure.axes[0].texts:
        if text.get_bbox_patch() is not None:
            *colour, alpha = text.get_bbox_patch().get_facecolor()
            found.append((text.get_text(), "partner" if colour[0] > colour[2] else "own", alpha / 0.75))
        else:
            found.append((text.get_text(), "title", 0.0))
    return found


def test_both_texts_are_shaded_by_their_weights():
    inputs, labels = batch_and_labels("text", 3)
    method = get_method("logitmix")
    figure = mixed_batch(method, new_model("text"), inputs, labels, tokenizer=Words(), step=STEP)
    plan = method.pairing(inputs, labels, STEP)
    expected = []
    for row, (j, lam) in enumerate(zip(plan.partner.tolist(), plan.lam.tolist(), strict=True)):
        for index, name, weight in ((row, "own", lam), (j, "partner", 1 - lam)):
            ids = inputs["input_ids"][index][inputs["attention_mask"][index] > 0]
            expected += [(f"w{number}", name, pytest.approx(weight, abs=1e-6)) for number in ids.tolist()]
    assert [word for word in words_of(figure) if word[1] != "title"] == expected


def test_replaced_words_are_the_partners():
    """Two texts without a word in common: the red ones are the other's, and as many as 1 - lam says."""
    ids = torch.tensor([[2, 10, 11, 12, 13, 14, 3], [2, 20, 21, 22, 23, 24, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    method = get_method("ssmix", lam=0.6, special_ids=(2, 3))
    figure = mixed_batch(method, new_model("text"), inputs, torch.tensor([0, 1]), tokenizer=Words(), step=Step(1, 9))
    partner = method.pairing(inputs, None, Step(1, 9)).partner
    assert partner.tolist() == [1, 0]
    found = [word for word in words_of(figure) if word[1] != "title"]
    first, second = found[:7], found[7:]
    for words, own, other in ((first, "w1", "w2"), (second, "w2", "w1")):
        assert [name for word, name, _ in words if word.startswith(other) and len(word) == 3] == ["partner"] * 2
        assert [name for word, name, _ in words if word.startswith(own) and len(word) == 3] == ["own"] * 3
        assert (words[0][:2], words[-1][:2]) == (("w2", "own"), ("w3", "own"))


def test_the_label_is_the_one_that_is_trained_on():
    model = new_model("images")
    model.config.id2label = {0: "cat", 1: "dog", 2: "emu"}
    inputs, labels = batch_and_labels("images", 3)
    figure = mixed_batch("cutmix", model, inputs, labels, step=STEP)
    titles = [cell.get_xlabel() for cell in figure.axes[-3:]]
    for title in titles:
        lam, label, *other = title.split("\n")
        if other:
            assert label.split()[0] == lam.removeprefix("lam ")
            assert float(label.split()[0]) + float(other[0].split()[1]) == pytest.approx(1.0)
        assert label.split()[-1] in ("cat", "dog", "emu")


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("vanilla", {}, "method=vanilla mixes nothing: pass one that does"),
        ("mixup", {"count": 0}, "count must be at least 1, got 0"),
        ("cutmix", {}, "is for images and .* reads text"),
    ],
)
def test_what_cannot_be_shown_is_refused(method, options, message):
    inputs, labels = batch_and_labels("text", 3)
    model = new_model("text")
    with pytest.raises(ValueError, match=message):
        mixed_batch(method, model, inputs, labels, **options)
    assert not hooks_on(model)


def test_where_labels_are_not_mixed_each_is_an_examples_own():
    inputs, labels = batch_and_labels("images", 4)
    figure = mixed_batch("mit", new_model("images"), inputs, labels, step=STEP)
    titles = [cell.get_xlabel().split("\n")[1] for cell in figure.axes[-4:]]
    assert titles == [f"LABEL_{label}" for label in labels.tolist()]


def test_labels_of_another_batch_are_refused():
    inputs, labels = batch_and_labels("images", 4)
    with pytest.raises(ValueError, match="3 labels do not fit a batch of 4"):
        mixed_batch("mixup", new_model("images"), inputs, labels[:3])
