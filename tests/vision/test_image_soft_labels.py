"""Images with soft labels: every form of data, a run from end to end, and its records."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import Subset, TensorDataset

from helpers.images import IMAGES, InOrder, Tiny, image_arguments, images, logged, pictures, tensors, timm_model
from helpers.models import tiny_vit
from helpers.soft import soft_rows
from hf_logitmix.training.runs import Run
from hf_logitmix.training.splits import hold_out
from hf_logitmix.vision.adapters import as_image_set
from hf_logitmix.vision.data import subset, with_label_noise
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.train import scores
from hf_logitmix.vision.trainer import ImageMixTrainer

ROWS = soft_rows(12)


class Pairs:
    """(image, label) pairs, with labels that only the images bring."""

    def __init__(self, labels):
        self.images, self.labels = pictures(len(labels)), labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


def as_tensors() -> TensorDataset:
    pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in pictures(12)]
    return TensorDataset(torch.stack(pixels), ROWS)


FORMS = {
    "images": lambda: ImageSet(pictures(12), ROWS.numpy()),
    "lists": lambda: ImageSet(pictures(12), ROWS.tolist()),
    "columns": lambda: datasets.Dataset.from_dict(
        {"image": pictures(12), "label": ROWS.tolist()},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Sequence(datasets.Value("float32"))}),
    ),
    "pairs of lists": lambda: Pairs(ROWS.tolist()),
    "pairs of tensors": lambda: Pairs(ROWS),
    "rows": lambda: [{"image": i, "label": r} for i, r in zip(pictures(12), ROWS.tolist(), strict=True)],
    "tensors": as_tensors,
    "part": lambda: Subset(as_tensors(), range(12)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_images_gives_the_same_losses(tmp_path, form):
    """Of a module that leaves its labels open; the loss is torch's own of images that were normalised by hand."""
    args = image_arguments(tmp_path, soft_labels=True, per_device_train_batch_size=12, max_steps=1, no_aug=True)
    model, data = Tiny(), FORMS[form]()
    trainer = InOrder(model, args, method="vanilla", train_dataset=data, num_labels=3, **IMAGES)
    trainer.train()
    with torch.no_grad():
        expected = F.cross_entropy(Tiny().train()(tensors(images(12))[0]), ROWS).item()
    assert logged(trainer, "loss") == pytest.approx([expected], abs=2e-5)
    prediction = trainer.predict(data)
    np.testing.assert_allclose(prediction.label_ids, ROWS, atol=1e-7)
    logits = torch.tensor(prediction.predictions)
    assert prediction.metrics["test_loss"] == pytest.approx(F.cross_entropy(logits, ROWS).item(), abs=1e-5)


def test_labels_that_are_known_are_read_without_an_image():
    for form in ("images", "lists", "columns", "tensors", "part"):
        np.testing.assert_allclose(as_image_set(FORMS[form]()).labels, ROWS, atol=1e-7)


@pytest.mark.parametrize("method", ["puzzlemix", "logitmix_c", "lamix"])
def test_a_run_from_end_to_end(tmp_path, method):
    """It trains, evaluates against the rows, and says in its record and on its card that labels were soft."""
    args = image_arguments(
        tmp_path, soft_labels=True, max_steps=3, per_device_train_batch_size=4, no_aug=True, learning_rate=1e-3
    )
    data = ImageSet(pictures(12), ROWS.numpy())
    trainer = ImageMixTrainer(timm_model(), args, method=method, train_dataset=data, eval_dataset=data, **IMAGES)
    run = Run(trainer, "task", "data", None, ("a", "b", "c"), scores, np.asarray)
    assert run.train()
    run.evaluate(data, "test", title="soft labels")
    found = run.finish() | trainer.evaluate()
    model = trainer.model.eval()
    with torch.no_grad():
        logits = model(tensors(images(12))[0]).logits.double().numpy()
    nll = brier = hits = 0.0
    for z, r in zip(logits, ROWS.double().numpy(), strict=True):
        p = np.exp(z) / np.exp(z).sum()
        nll -= sum(r[k] * np.log(p[k]) for k in range(3)) / 12
        brier += sum((p[k] - r[k]) ** 2 for k in range(3)) / 12
        hits += (p.argmax() == r.argmax()) / 12
    expected = {"eval_loss": nll, "eval_nll": nll, "eval_brier": brier, "eval_accuracy": hits}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    with np.load(tmp_path / "eval_logits.npz") as saved:
        np.testing.assert_allclose(saved["labels"], ROWS, atol=1e-7)
    assert (tmp_path / "reliability.png").exists()
    assert found["settings"]["soft_labels"] is True
    assert "soft_labels: True" in (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "hf_logitmix.json").read_text())["soft_labels"] is True


def test_a_record_of_class_ids_says_no_soft_labels(tmp_path):
    args = image_arguments(tmp_path, max_steps=1, no_aug=True)
    trainer = ImageMixTrainer(timm_model(), args, method="mixup", train_dataset=images(12), **IMAGES)
    run = Run(trainer, "task", "data", None, ("a", "b", "c"), lambda z, y: {}, np.asarray)
    assert run.train()
    assert run.finish()["settings"]["soft_labels"] is False
    assert "soft_labels" not in (tmp_path / "README.md").read_text()


def test_rows_in_a_part_of_the_images_stay_with_them():
    """A part keeps the share of each arg max, and images their rows."""
    data = ImageSet(pictures(12), ROWS.numpy())
    part = subset(data, 6, seed=0)
    numbers = [next(i for i, row in enumerate(ROWS.tolist()) if row == own) for own in part.labels.tolist()]
    assert sorted(set(numbers)) == numbers
    classes = ROWS.argmax(1)
    for k in range(3):
        share = sum(classes[i] == k for i in numbers) / 6
        assert share == pytest.approx((classes == k).float().mean().item(), abs=1 / 6)
    kept, held = hold_out(ROWS.numpy(), 0.5, seed=0)
    expected = hold_out(classes.numpy(), 0.5, seed=0)
    assert np.array_equal(kept, expected[0])
    assert np.array_equal(held, expected[1])


def test_images_are_refused_where_text_is(tmp_path):
    def trainer(labels, model=None, **options):
        args = image_arguments(tmp_path, **options)
        return ImageMixTrainer(model or timm_model(), args, train_dataset=ImageSet(pictures(12), labels), **IMAGES)

    with pytest.raises(ValueError, match="train_dataset has rows of fractions that sum to 1, and problem_type is not"):
        trainer(ROWS.numpy())
    with pytest.raises(ValueError, match="train_dataset: the soft label of example 0 sums to 2"):
        trainer(2 * ROWS.numpy(), soft_labels=True)
    with pytest.raises(ValueError, match=r"train_dataset: labels have 2 numbers an example and .*num_labels=3"):
        trainer(np.full((12, 2), 0.5), soft_labels=True)
    with pytest.raises(ValueError, match="soft_labels=True, and train_dataset has one class id an example"):
        trainer(np.arange(12) % 3, soft_labels=True)
    with pytest.raises(ValueError, match="label noise is for class ids"):
        with_label_noise(ImageSet(pictures(12), ROWS.numpy()), 0.2, "uniform", 0, 3)


def test_a_models_own_config_says_it_too(tmp_path):
    model = tiny_vit(problem_type="single_label_classification")
    rows = [{"pixel_values": torch.rand(3, 16, 16), "labels": row} for row in ROWS]
    trainer = ImageMixTrainer(model, image_arguments(tmp_path, max_steps=1), method="mixup", train_dataset=rows)
    assert trainer.label_spec.soft
    trainer.train()
