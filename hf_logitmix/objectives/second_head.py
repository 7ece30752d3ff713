"""A second head beside a model's classifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_logitmix.models import call, classifier_of, evaluating, first_of, linear_of, unwrap


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

    def _beside(
        self, classifier: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        return torch.cat([output, self(first_of(args, kwargs))], -1) if classifier.training else None

    def check(self, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        """Try on a batch whether what comes after the classifier leaves its outputs apart.

        Raises:
            ValueError: where the logits are not the classifier's outputs one by one.
        """
        rows, problem = len(next(iter(inputs.values()))), "they are mixed with one another after it"
        classifier = classifier_of(model, self.linear.out_features)
        with evaluating(model):
            plain = call(model, inputs, rows)
            handle = classifier.register_forward_hook(lambda module, args, output: torch.cat([output, output], -1))
            try:
                twice = call(model, inputs, rows)
                fits = twice.shape[-1] == 2 * plain.shape[-1] and torch.allclose(
                    twice.float(), plain.float().repeat(1, 2), rtol=1e-3, atol=1e-5
                )
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                fits, problem = False, str(error)
            finally:
                handle.remove()
        if not fits:
            raise ValueError(
                f"{type(unwrap(model)).__name__} has no classifier whose outputs are the logits ({problem}), beside "
                "which a second head could stand: pass beta=1.0, which needs none, or another model."
            )

    @contextmanager
    def install(self, model: nn.Module) -> Iterator[None]:
        """While the model trains inside this block, its logits are [.., 2K]: the classifier's, then this head's."""
        handle = classifier_of(model, self.linear.out_features).register_forward_hook(self._beside, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
