"""Optimizers and schedules of timm in a Trainer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import has_length

from hf_logitmix.vision.arguments import ImageMixTrainingArguments
from hf_logitmix.vision.wrap import inner_module

if TYPE_CHECKING:

    class _Base(Trainer):
        """What the mixin is put in front of."""

        model: nn.Module
else:
    _Base = object


class TimmTrainingMixin(_Base):
    """Trains with an optimizer or a schedule of timm where `ImageMixTrainingArguments` name one (opt, sched)."""

    _batches_per_epoch: int | None = None

    def get_train_dataloader(self) -> DataLoader:
        loader = super().get_train_dataloader()
        self._batches_per_epoch = len(loader) if has_length(loader) else None
        return loader

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        if self.optimizer is None and isinstance(self.args, ImageMixTrainingArguments) and self.args.opt:
            self.optimizer = self._timm_optimizer(self.args)
        return super().create_optimizer(*args, **kwargs)

    def _timm_optimizer(self, args: ImageMixTrainingArguments) -> torch.optim.Optimizer:
        module = inner_module(self.model)
        if self.is_fsdp_enabled:
            raise ValueError(f"opt={args.opt!r} needs the whole model, which FSDP cuts up: pass optim instead.")
        if args.layer_decay is not None and not hasattr(module, "group_matcher"):
            raise ValueError(
                f"layer_decay={args.layer_decay}: {type(module).__name__} does not tell the order of its layers "
                "(timm's group_matcher): leave it out, or pass a model of timm."
            )
        optimizer = create_optimizer_v2(module, **args.optimizer_options())
        optimizer.param_groups.sort(key=lambda group: -group.get("lr_scale", 1.0))  # the first one's rate is logged
        if args.sched is None:
            for group in optimizer.param_groups:  # only schedules of timm read the scale
                group["lr"] *= group.pop("lr_scale", 1.0)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if self.lr_scheduler is None and isinstance(self.args, ImageMixTrainingArguments) and self.args.sched:
            self.lr_scheduler = self._timm_schedule(  # type: ignore[assignment]
                self.args, num_training_steps, optimizer or self.optimizer
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _timm_schedule(self, args: ImageMixTrainingArguments, num_training_steps: int, optimizer: Any) -> TimmSchedule:
        if self._batches_per_epoch is None:
            raise ValueError(f"sched={args.sched!r} counts in epochs and train_dataset has no length: leave sched out.")
        updates = math.ceil(self._batches_per_epoch / args.gradient_accumulation_steps)
        scheduler, _ = create_scheduler_v2(
            optimizer,
            **args.schedule_options(),
            num_epochs=num_training_steps / updates,  # type: ignore[arg-type]
            step_on_epochs=False,
            updates_per_epoch=updates,
        )
        return TimmSchedule(scheduler)


class TimmSchedule:
    """A schedule of timm, one step for each optimizer step, with the methods of torch's that Trainer calls."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler, self.updates = scheduler, 0

    def step(self) -> None:
        self.updates += 1
        self.scheduler.step_update(self.updates)

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.scheduler.optimizer.param_groups]

    def state_dict(self) -> dict[str, int]:
        return {"updates": self.updates}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.updates = state["updates"]
        self.scheduler.step_update(self.updates)
