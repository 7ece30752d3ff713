"""Optimizer steps: the mean over all their examples, and what the log says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Trainer

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


class StepLog:
    """Sums over optimizer steps, kept on the device until they are asked for.

    The mean of a term is taken over the steps in which it occurs. So where every step has every term, their weighted
    sum is the logged loss, however many micro-batches a step has; terms of a method that alternates between two kinds
    of steps (LaMix) are each the mean over their own kind.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps: dict[str, set[int]] = {}

    def add(self, terms: Mapping[str, Tensor], weight: Tensor | float, step: int) -> None:
        """Add the terms of one micro-batch.

        Args:
            terms: name -> scalar, a mean over the examples of the micro-batch.
            weight: the micro-batch's share of its optimizer step, such that the loss of the step is the sum of
                weight * loss.
            step: number of the optimizer step.
        """
        for name, value in terms.items():
            share = weight * value.detach()
            self._sums[name] = self._sums[name] + share if name in self._sums else share
            self._steps.setdefault(name, set()).add(step)

    def means(self) -> dict[str, Tensor]:
        """The mean of each term over the steps in which it occurred."""
        return {name: total / len(self._steps[name]) for name, total in self._sums.items()}

    def clear(self) -> None:
        """Begin anew."""
        self._sums.clear()
        self._steps.clear()


class StepsMixin(_Base):
    """Makes the loss of an optimizer step the mean over its examples, and logs its terms and whether it was clipped."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._terms, self._clipped, self._clipped_in_run = StepLog(), StepLog(), StepLog()
        self._begin_steps()
        super().__init__(*args, **kwargs)

    def _begin_steps(self) -> None:
        """Forget the steps of an earlier run."""
        for log in (self._terms, self._clipped, self._clipped_in_run):
            log.clear()
        self._examples_in_step: Tensor | float | None = None
        self._micro_batches = self._micro_batch = 0
        self._left_over: list[Any] = []
        self._epoch_iterator: Any = None

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, *args: Any, **kwargs: Any) -> Any:
        kept, self._left_over = self._left_over, []
        batches, items = super().get_batch_samples(epoch_iterator, num_batches - len(kept), *args, **kwargs)
        batches = [*kept, *batches]
        if len(batches) < num_batches:
            # A stream has ended inside an accumulated step, for which Trainer does no update: its next epoch goes on.
            if batches and epoch_iterator is not self._epoch_iterator:
                raise ValueError(
                    f"train_dataset ended after {len(batches)} batches, which gradient_accumulation_steps="
                    f"{num_batches} never makes a whole step of: pass a longer stream, or fewer accumulation steps."
                )
            self._left_over, batches = batches, []
        self._epoch_iterator = epoch_iterator
        self._micro_batches, self._micro_batch = len(batches), 0
        sizes = [len(batch["labels"]) for batch in batches if isinstance(batch.get("labels"), Tensor)]
        self._examples_in_step = sum(sizes) if sizes else None
        if sizes and self.args.world_size > 1:
            count = torch.tensor([sum(sizes)], dtype=torch.float32).to(self.args.device, non_blocking=True)
            self._examples_in_step = self.accelerator.gather(count).sum()
        return batches, items

    def _example_weight(self, batch_size: int) -> Tensor | float:
        """What makes of a micro-batch's mean its part in the mean over all examples of the optimizer step.

        Trainer averages the micro-batches of a process, and DistributedDataParallel the processes, so it is
        batch_size * micro-batches * processes / examples: 1 where all micro-batches are equal.
        """
        if self._examples_in_step is None:
            return 1.0
        return batch_size * self._micro_batches * self.args.world_size / self._examples_in_step

    def _note_terms(self, terms: Mapping[str, Tensor], weight: Tensor | float) -> None:
        """Keep the terms of a micro-batch, means over its examples, for the log."""
        self._terms.add(terms, weight / max(self._micro_batches, 1), self.state.global_step)

    def _clip_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        norm = super()._clip_grad_norm(*args, **kwargs)
        if norm is not None:
            clipped = {"grad_clipped": (torch.as_tensor(norm).detach() > self.args.max_grad_norm).float()}
            for log in (self._clipped, self._clipped_in_run):
                log.add(clipped, 1.0, self.state.global_step)
        return norm

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and (terms := self._terms.means()):
            means = torch.stack(list(terms.values())).reshape(1, -1)
            logs |= dict(zip(terms, self.accelerator.gather(means).mean(0).tolist(), strict=True))
            logs |= {name: share.item() for name, share in self._clipped.means().items()}
            self._terms.clear()
            self._clipped.clear()
        if "train_runtime" in logs:
            logs |= {f"train_{name}": share.item() for name, share in self._clipped_in_run.means().items()}
        super().log(logs, *args, **kwargs)
