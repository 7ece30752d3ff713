"""A loss that the model itself returns beside its logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hf_logitmix.models import unwrap
from hf_logitmix.objectives import Term, Terms


class AuxiliaryLoss:
    """Finds the ``aux_loss`` in what a model returns in training, so that it can be added to the loss of the step.

    A model takes part by returning a mapping or an object that has, beside ``logits``, a scalar ``aux_loss`` with its
    weight multiplied in, when it is called without labels. Where a step calls the model twice (PuzzleMix) the mean
    counts.
    """

    def __init__(self) -> None:
        self._seen: list[Tensor] = []

    @contextmanager
    def install(self, model: nn.Module) -> Iterator[None]:
        """Listen to the model's outputs for the length of a block."""
        handle = unwrap(model).register_forward_hook(self._listen)
        try:
            yield
        finally:
            handle.remove()
            self._seen.clear()

    def take(self) -> Terms:
        """The loss of the forwards since the last call as a term; none if there was none."""
        if not self._seen:
            return {}
        mean = torch.stack(self._seen).mean()
        self._seen.clear()
        return {"aux_loss": Term(mean)}

    def _listen(self, module: nn.Module, args: Any, output: Any) -> None:
        value = output.get("aux_loss") if isinstance(output, Mapping) else getattr(output, "aux_loss", None)
        if module.training and isinstance(value, Tensor):
            self._seen.append(value)
