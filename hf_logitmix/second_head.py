"""A second head beside a model's classifier."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_logitmix.models import classifier_of, linear_of, unwrap


class SecondHead(nn.Module):
    """A linear layer shaped like a model's classifier, kept in float32."""

    def __init__(self, model: nn.Module, num_labels: int) -> None:
        super().__init__()
        classifier = linear_of(classifier_of(model, num_labels))
        config = getattr(unwrap(model), "config", None)
        self.linear = nn.Linear(
            classifier.in_features, num_labels, bias=classifier.bias is not None, device=classifier.weight.device
        )
        nn.init.normal_(self.linear.weight, std=getattr(config, "initializer_range", None) or 0.02)
        if self.linear.bias is not None:
            nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features.to(self.linear.weight.dtype), self.linear.weight, self.linear.bias)

    def _beside(self, classifier: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return torch.cat([output, self(args[0])], -1) if classifier.training else None

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """While the model trains inside this block, its logits are [.., 2K]: the classifier's, then this head's."""
        handle = classifier_of(model, self.linear.out_features).register_forward_hook(self._beside)
        try:
            yield
        finally:
            handle.remove()
