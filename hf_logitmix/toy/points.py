"""Three spirals, and a network that reads points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

KIND = "single_label_classification"


@dataclass(frozen=True)
class Points:
    """Points of the plane with their classes.

    Attributes:
        xy: FloatTensor[N, 2].
        labels: LongTensor[N].
    """

    xy: Tensor
    labels: Tensor

    @property
    def pixel_values(self) -> Tensor:
        """FloatTensor[N, 2, 1, 1]: a point as an image of one pixel with two channels, which is how it is mixed."""
        return self.xy[:, :, None, None]

    def rows(self) -> list[dict[str, Any]]:
        """The points as a dataset for a Trainer."""
        pairs = zip(self.pixel_values, self.labels.tolist(), strict=True)
        return [{"pixel_values": pixels, "labels": label} for pixels, label in pairs]


def spirals(counts: Sequence[int], noise: float, seed: int) -> Points:
    r"""Arms of a spiral, one a class, that turn once around the origin.

    Arm k of K is :math:`(r \cos\phi, r \sin\phi)` with :math:`\phi = 2\pi (k / K + t)`, :math:`r = 0.3 + 2.7 t` and t
    uniform on [0, 1], plus normal noise on both coordinates.

    Args:
        counts: points of each class.
        noise: standard deviation of the noise.
        seed: the same seed gives the same points.

    Returns:
        the points, class by class.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    t = torch.rand(len(labels), generator=generator)
    angle, radius = 2 * torch.pi * (labels / len(counts) + t), 0.3 + 2.7 * t
    xy = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return Points(xy + noise * torch.randn(xy.shape, generator=generator), labels)


class PlaneNetwork(nn.Module):
    """A multilayer perceptron on points, with hidden layers that can be mixed at and a linear classifier."""

    main_input_name = "pixel_values"

    def __init__(self, num_labels: int, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        sizes = [2, *[width] * depth]
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(n, m), nn.ReLU()) for n, m in pairwise(sizes))
        self.classifier: nn.Module = nn.Linear(width, num_labels)
        known: dict[str, Any] = {"num_labels": num_labels, "problem_type": KIND}
        self.config = PreTrainedConfig(**known)

    def forward(self, pixel_values: Tensor) -> Tensor:
        hidden = pixel_values.flatten(1)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.classifier(hidden)
