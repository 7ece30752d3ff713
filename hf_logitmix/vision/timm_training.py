"""Optimizers and schedules of timm in a Trainer."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.plateau_lr import PlateauLRScheduler
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

    def _timm_schedule(
        self, args: ImageMixTrainingArguments, num_training_steps: int, optimizer: Any
    ) -> TimmSchedule | TimmPlateau:
        if args.sched == "plateau":
            return TimmPlateau(_plateau(args, optimizer))
        if self._batches_per_epoch is None:
            raise ValueError(f"sched={args.sched!r} counts in epochs and train_dataset has no length: leave sched out.")
        updates = math.ceil(self._batches_per_epoch / args.gradient_accumulation_steps)
        num_epochs = num_training_steps / updates - (args.cooldown_epochs or 0)  # timm's cooldown comes on top
        if num_epochs <= 0:
            raise ValueError(
                f"cooldown_epochs={args.cooldown_epochs} leaves none of {num_training_steps / updates:g} epochs to "
                f"sched={args.sched!r}: pass fewer."
            )
        scheduler, _ = create_scheduler_v2(
            optimizer,
            **args.schedule_options(),
            num_epochs=num_epochs,  # type: ignore[arg-type]
            step_on_epochs=False,
            updates_per_epoch=updates,
        )
        return TimmSchedule(scheduler)

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)
        if isinstance(self.lr_scheduler, TimmPlateau) and not skip_scheduler:
            name = f"eval_{str(self.args.metric_for_best_model).removeprefix('eval_')}"
            if name not in metrics:
                raise ValueError(
                    f"metric_for_best_model={self.args.metric_for_best_model!r} is none of what evaluation gives: pass "
                    f"one of {', '.join(metrics)}."
                )
            self.lr_scheduler.end_epoch(metrics[name])
        return metrics


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


class TimmPlateau:
    """timm's plateau schedule, one step for each epoch, with the methods of torch's that Trainer calls.

    Its state is kept whole, so that a resumed run goes on waiting where it stopped.
    """

    def __init__(self, scheduler: PlateauLRScheduler) -> None:
        self.scheduler, self.epochs = scheduler, 0

    def step(self) -> None:
        """Nothing: an optimizer step is no epoch."""

    def end_epoch(self, metric: float) -> None:
        """Set the learning rate of the next epoch."""
        self.epochs += 1
        self.scheduler.step(self.epochs, metric)

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.scheduler.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "plateau": self.scheduler.lr_scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]
        self.scheduler.lr_scheduler.load_state_dict(state["plateau"])


def _plateau(args: ImageMixTrainingArguments, optimizer: Any) -> PlateauLRScheduler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # which says that nobody keeps its state: TimmPlateau does
        mode = "max" if args.greater_is_better else "min"
        scheduler: Any = create_scheduler_v2(optimizer, **args.schedule_options(), plateau_mode=mode)[0]
    scheduler.lr_scheduler.cooldown = args.cooldown_epochs or 0  # timm's train.py leaves it at 0
    return scheduler
