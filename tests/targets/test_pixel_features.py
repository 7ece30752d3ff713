"""Class similarity of images from their pixels: against plain loops and scikit-learn, kept files, real clothes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import default_data_collator

from helpers.data import examples, real
from helpers.images import Tiny, image_arguments, trainer_of
from helpers.lda import from_pooler, means_by_sklearn, rows_to_one, unnormalised
from helpers.models import tiny_bert
from hf_logitmix.similarity import FILE_NAME
from hf_logitmix.targets import MCEL
from hf_logitmix.targets.features import pixel_features
from hf_logitmix.training.training_set import TrainingSet
from hf_logitmix.vision.data import load_images, subset, with_label_noise
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.wrap import BareClassifier

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def features(*batches: torch.Tensor, **options) -> np.ndarray:
    return pixel_features([{"pixel_values": batch} for batch in batches], shows_progress=False, **options)


def similarity_by_hand(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """scikit-learn's discriminant analysis, and the paper's equation in plain loops."""
    return rows_to_one(unnormalised(means_by_sklearn(x, labels)))


# ---- what a feature is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_the_pixels_in_order(channels):
    batches = [torch.randn(count, channels, 5, 4, generator=torch.Generator().manual_seed(count)) for count in (3, 2)]
    expected = [
        [float(image[c, y, x]) for c in range(channels) for y in range(5) for x in range(4)]
        for batch in batches
        for image in batch
    ]
    found = features(*batches)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


def test_images_of_64_pixels_are_block_means():
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    blocks = pixels.double().numpy().reshape(2, 3, 32, 2, 32, 2).mean((3, 5))
    np.testing.assert_allclose(features(pixels), blocks.reshape(2, -1), atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(96, 20), (40, 33), (32, 32), (7, 224)])
def test_each_side_is_averaged_to_32_where_it_is_longer(height, width):
    """Cell i of n covers the pixels from i L / n, rounded down, to (i + 1) L / n, rounded up."""
    pixels = torch.randn(2, 1, height, width, generator=torch.Generator().manual_seed(0))
    spans = []
    for length in (height, width):
        count = min(32, length)
        spans.append([(i * length // count, -(-(i + 1) * length // count)) for i in range(count)])
    expected = [
        [image[0, top:bottom, left:right].mean() for top, bottom in spans[0] for left, right in spans[1]]
        for image in pixels.double().numpy()
    ]
    np.testing.assert_allclose(features(pixels), expected, atol=1e-12)


def test_the_side_may_be_another():
    pixels = torch.arange(16.0).reshape(1, 1, 4, 4)
    np.testing.assert_allclose(features(pixels, side=2), [[2.5, 4.5, 10.5, 12.5]])


# ---- similarity by MCEL ----------------------------------------------------------------------------------------------


def clothes(count: int = 60, side: int = 8, seed: int = 0) -> ImageSet:
    """Noise around an image of each of three classes."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(40, 215, (3, side, side, 3))
    labels = np.arange(count) % 3
    pixels = np.clip(rng.normal(centres[labels], 30), 0, 255).astype(np.uint8)
    return ImageSet([Image.fromarray(image) for image in pixels], labels, fingerprint=f"clothes {seed}")


def normalised(data: ImageSet) -> np.ndarray:
    """Pixels of the images themselves, [N, C * H * W]."""
    pixels = np.stack([np.asarray(image) for image in data.images]) / 255
    return ((pixels - MEAN) / STD).transpose(0, 3, 1, 2).reshape(len(data), -1)


def found_in(folder, data: ImageSet, method: str = "mcel", **options) -> torch.Tensor:
    """The similarity that a run of one step finds before it."""
    args = image_arguments(folder, max_steps=1, **options)
    trainer = trainer_of(Tiny(), args, method, data, image_size=8)
    trainer.train()
    return trainer.method_in_training.targets.class_similarity


@pytest.mark.parametrize("method", ["mcel", "sg_mcel"])
def test_similarity_of_images_is_that_of_their_pixels(tmp_path, method):
    """Of the images as they are evaluated, however training changes them; by default and when it is asked for."""
    data = clothes()
    expected = similarity_by_hand(normalised(data), data.labels)
    assert np.ptp(expected[expected > 0]) > 0.05
    for number, options in enumerate([{}, {"features": "pixels"}, {"reprob": 1.0, "vflip": 0.5, "padding": 2}]):
        found = found_in(tmp_path / str(number), data, method, **options)
        np.testing.assert_allclose(found, expected, atol=2e-4)


def test_pooled_features_of_images_are_the_models(tmp_path):
    """What the head of the model reads, which is another similarity."""
    data, model = clothes(), Tiny().eval()
    pixels = torch.from_numpy(normalised(data)).float().reshape(-1, 3, 8, 8)
    with torch.no_grad():
        pooled = model.norm(model.conv(pixels)).relu().mean((2, 3)).double().numpy()
    found = found_in(tmp_path, data, features="pooled")
    np.testing.assert_allclose(found, similarity_by_hand(pooled, data.labels), atol=2e-4)
    assert np.abs(found.numpy() - similarity_by_hand(normalised(data), data.labels)).max() > 1e-2


def test_text_is_pooled_by_default_and_has_no_pixels():
    rows = examples(120, num_labels=3)
    found = TrainingSet(rows, tiny_bert(3), 3, default_data_collator, shows_progress=False)
    labels = np.array([row["labels"] for row in rows])
    expected = similarity_by_hand(from_pooler(tiny_bert(3), rows), labels)
    for targets in (MCEL(), MCEL(features="pooled")):
        np.testing.assert_allclose(targets.setup(found).class_similarity, expected, atol=2e-4)
    with pytest.raises(ValueError, match=r"features='pixels' is for models of images .* reads text: pass 'pooled'"):
        MCEL(features="pixels").setup(found)
    with pytest.raises(ValueError, match="features='pixel' is unknown: pass 'pixels'"):
        MCEL(features="pixel")


# ---- the file that is kept -------------------------------------------------------------------------------------------

MARKED = torch.tensor([[0.0, 0.9, 0.1], [0.2, 0.0, 0.8], [0.7, 0.3, 0.0]])


def marked(folder) -> None:
    """Puts another similarity into the file that is kept."""
    with safe_open(folder / FILE_NAME, "pt") as file:
        metadata = file.metadata()
    save_file({"class_similarity": MARKED}, folder / FILE_NAME, metadata=metadata)


def test_the_similarity_is_used_again_for_the_same_images_and_any_model(tmp_path, monkeypatch):
    data = clothes()
    found = found_in(tmp_path, data)
    assert torch.equal(load_file(tmp_path / FILE_NAME)["class_similarity"], found)
    marked(tmp_path)
    assert torch.equal(found_in(tmp_path, clothes()), MARKED)
    start = Tiny.__init__

    def other_weights(self, *args):
        start(self, *args)
        torch.nn.init.ones_(self.head.weight)

    monkeypatch.setattr(Tiny, "__init__", other_weights)
    assert torch.equal(found_in(tmp_path, clothes(), reprob=1.0), MARKED)  # pixels do not depend on the model


OTHERS = {
    "images": lambda data: clothes(seed=1),
    "a name that is not known": lambda data: ImageSet(data.images, data.labels),
    "a part": lambda data: subset(data, 45, 0),
    "noise": lambda data: with_label_noise(data, 0.3, "uniform", 0, 3),
    "order": lambda data: data.select([*range(57), 58, 59, 57]),
}


@pytest.mark.parametrize("change", OTHERS)
def test_the_similarity_of_other_images_or_labels_is_not_used(tmp_path, change):
    found_in(tmp_path, clothes())
    marked(tmp_path)
    other = OTHERS[change](clothes())
    found = found_in(tmp_path, other)
    np.testing.assert_allclose(found, similarity_by_hand(normalised(other), other.labels), atol=2e-4)


def test_noise_changes_the_similarity(tmp_path):
    data = clothes()
    noisy = with_label_noise(data, 0.3, "uniform", 0, 3)
    assert noisy.fingerprint == data.fingerprint  # the labels tell them apart
    found = [found_in(tmp_path, each) for each in (data, noisy, data)]
    assert (found[0] - found[1]).abs().max() > 1e-3
    assert torch.equal(found[0], found[2])


# ---- real images -----------------------------------------------------------------------------------------------------


def test_shoes_are_like_shoes():
    """In 2,000 images of Fashion-MNIST, without a model's help."""
    data = load_images(str(real("HF_LOGITMIX_DATA") / "fashion-mnist"))
    part = subset(data.train, 2000, 0)
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in part.images])[:, None] / 255).float()
    rows = [{"pixel_values": image, "labels": int(label)} for image, label in zip(pixels, part.labels, strict=True)]
    model = BareClassifier(Tiny(channels=1), num_labels=10)
    training_set = TrainingSet(rows, model, 10, default_data_collator, shows_progress=False)
    found = MCEL(features="pixels").setup(training_set).class_similarity
    np.testing.assert_allclose(
        found, similarity_by_hand(pixels.double().numpy().reshape(2000, -1), part.labels), atol=1e-3
    )
    like = {
        one: {other: float(found[i, j]) for j, other in enumerate(data.label_names)}
        for i, one in enumerate(data.label_names)
    }
    shoes = ("Sandal", "Sneaker", "Ankle boot")
    tops = ("Pullover", "Coat", "Shirt")
    far = ("Trouser", "Dress")
    for one in shoes:
        for other in set(shoes) - {one}:
            assert like[one][other] > max(like[one][name] for name in far + tops), (one, other)
    for one, other in [*pairwise(tops), *pairwise(tops[::-1])]:
        assert like[one][other] > max(like[one][name] for name in shoes), (one, other)
    assert max(like["Trouser"], key=like["Trouser"].get) == "Dress"
