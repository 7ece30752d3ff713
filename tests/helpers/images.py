"""Small pictures, modules that read them, and an `ImageMixTrainer` of them."""

from __future__ import annotations

import numpy as np
import timm
import torch
from PIL import Image
from torch import nn

from helpers.training import Ordered, arguments
from hf_logitmix.vision.arguments import ImageMixTrainingArguments
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.trainer import ImageMixTrainer

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


IMAGES = {"image_size": 32, "mean": MEAN, "std": STD}


def pictures(count: int, size: int = 32, channels: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    shape = (size, size) if channels == 1 else (size, size, 3)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def images(count: int = 16, size: int = 32, channels: int = 3) -> ImageSet:
    return ImageSet(pictures(count, size, channels), np.arange(count) % 3, fingerprint=f"{count} of {size}")


def tensors(data: ImageSet, numbers=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of the right size, normalised by hand, and their labels."""
    chosen = range(len(data)) if numbers is None else numbers
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    pixels = [torch.from_numpy(np.array(data.images[i])).permute(2, 0, 1).float() / 255 for i in chosen]
    return torch.stack([(image - mean) / std for image in pixels]), torch.as_tensor(data.labels[list(chosen)])


class Tiny(nn.Module):
    """A module as nobody's library makes it, with statistics of batches."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(channels, 4, 5, 4), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(pixels)).relu().mean((2, 3)))


def timm_model(name: str = "test_resnet", **options) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=3, **options)


def image_arguments(folder, **options) -> ImageMixTrainingArguments:
    fixed = {"optim": None, "learning_rate": 0.05, "per_device_eval_batch_size": 16}
    if "sched" in options:
        fixed["lr_scheduler_type"] = None
    return arguments(folder, ImageMixTrainingArguments, **{**fixed, **options})


class InOrder(Ordered, ImageMixTrainer):
    pass


def trainer_of(model, args, method="vanilla", data=None, cls=InOrder, **options) -> ImageMixTrainer:
    data = images() if data is None else data
    known = {**IMAGES, "num_labels": 3 if isinstance(model, Tiny) else None}
    return cls(model=model, args=args, method=method, train_dataset=data, **{**known, **options})


def logged(trainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]
