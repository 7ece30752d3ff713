"""Checkpoints whose tensors have other names than the model's: transformers writes those of the original release."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from helpers import image_architectures
from helpers.architectures import MODEL_TYPES, NEEDS_OTHER_PACKAGES
from helpers.data import random_images
from helpers.image_architectures import CLASSES, NOT_TRIED
from helpers.models import tiny_bert, tiny_vit
from helpers.tiny_models import tiny_model
from helpers.training import arguments, weights
from hf_logitmix import MixTrainer

TEXT = [name for name in MODEL_TYPES if name not in NEEDS_OTHER_PACKAGES]
IMAGES = [name for name in CLASSES if name not in NOT_TRIED]
QUICK = ("bert", "esm", "mixtral", "BeitForImageClassification", "ViTForImageClassification")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in [*TEXT, *IMAGES]]
)
def test_all_of_a_model_comes_back(tmp_path, name):
    model = tiny_model(name) if name in TEXT else image_architectures.tiny_model(name)
    trainer = MixTrainer(model=model, args=arguments(tmp_path), method="vanilla")
    trainer.save_model(str(tmp_path / "checkpoint-1"))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    trainer._load_from_checkpoint(str(tmp_path / "checkpoint-1"))
    after = model.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])] == []


def run(folder, resume=None, **options) -> MixTrainer:
    args = arguments(folder, max_steps=4, save_strategy="steps", save_steps=1, per_device_train_batch_size=3, **options)
    trainer = MixTrainer(
        model=tiny_vit(),
        args=args,
        method="mixup",
        train_dataset=random_images(12),
        eval_dataset=random_images(6),
        compute_metrics=(lambda scores: lambda _: {"score": next(scores)})(iter([0.1, 0.9, 0.3, 0.2])),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    """Here stock Trainer goes on with the weights that the model was made with, and a warning."""
    whole = run(tmp_path / "whole")
    resumed = run(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-2"))
    assert torch.equal(weights(whole.model), weights(resumed.model))


def test_the_best_model_is_the_one_of_its_checkpoint(tmp_path):
    best = {"load_best_model_at_end": True, "metric_for_best_model": "score", "greater_is_better": True}
    trainer = run(tmp_path, eval_strategy="steps", eval_steps=1, **best)
    assert trainer.state.best_global_step == 2
    loaded = type(trainer.model).from_pretrained(tmp_path / "checkpoint-2")
    assert torch.equal(weights(trainer.model), weights(loaded))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (tiny_vit, "classifier.bias"),  # whose tensors have other names in the checkpoint
        (tiny_bert, "classifier.bias"),
        (lambda: image_architectures.Bare(nn.Linear(2, 2)), "model.bias"),
    ],
)
def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path, make, name):
    trainer = MixTrainer(model=make(), args=arguments(tmp_path), method="vanilla")
    folder = tmp_path / "checkpoint-2"
    trainer.save_model(str(folder))
    trainer._load_from_checkpoint(str(folder))
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=rf"checkpoint-2 lacks {name}"):
        trainer._load_from_checkpoint(str(folder))
