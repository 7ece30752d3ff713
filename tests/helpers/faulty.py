"""A model that cannot be mixed at its second layer."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig


class Shortcut(nn.Module):
    """Three layers, and a way from the first to the logits that goes past the second and the third."""

    main_input_name = "pixel_values"

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(192, 16), nn.Linear(16, 16), nn.Linear(16, 16)])
        self.head, self.share = nn.Linear(16, 3), share
        self.config = PreTrainedConfig(num_labels=3)

    def forward(self, pixel_values):
        first = self.layers[0](pixel_values.flatten(1)).tanh()
        return self.head(self.layers[2](self.layers[1](first).tanh()).tanh() + self.share * first)


def pictures(count=8):
    generator = torch.Generator().manual_seed(0)
    return [{"pixel_values": torch.randn(3, 8, 8, generator=generator), "labels": i % 3} for i in range(count)]


class Trained(Shortcut):
    def forward(self, pixel_values, labels=None):
        logits = super().forward(pixel_values)
        return {"logits": logits} if labels is None else {"loss": logits.sum(), "logits": logits}
