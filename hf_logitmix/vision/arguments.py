"""MixTrainingArguments with timm's optimizers, schedules, weight averaging and augmentation."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from timm.optim import get_optimizer_info

from hf_logitmix.arguments import MixTrainingArguments
from hf_logitmix.vision.transforms import Augmentation

_READ_BY: dict[str, tuple[str, ...]] = {  # options of a schedule, and the schedules that read them
    "decay_epochs": ("step",),
    "decay_milestones": ("multistep",),
    "decay_rate": ("step", "multistep"),
    "min_lr": ("cosine",),
    "warmup_epochs": ("cosine", "step", "multistep"),
    "warmup_lr": ("cosine", "step", "multistep"),
}
SCHEDULES = _READ_BY["warmup_epochs"]


@dataclass
class ImageMixTrainingArguments(Augmentation, MixTrainingArguments):
    """`MixTrainingArguments` and options under the names of timm's train.py; left out, Trainer does as it always does.

    ``learning_rate``, ``weight_decay`` and, where they are changed, ``adam_beta1``, ``adam_beta2`` and
    ``adam_epsilon`` go to timm's optimizer too. A schedule changes the learning rate after each optimizer step and
    counts in epochs, as ``timm``'s does with ``--sched-on-updates``; timm lowers it for a milestone one step early.

    Raises:
        ValueError: for values that are not possible, exclude one another, or would not be read.
    """

    opt: str | None = field(
        default=None,
        metadata={"help": "An optimizer of timm instead of optim: sgd (with Nesterov's momentum), adamw, lamb, ..."},
    )
    momentum: float = field(default=0.9, metadata={"help": "Of optimizers of timm that have one."})
    filter_bias_and_bn: bool = field(
        default=True, metadata={"help": "With opt: no weight decay of biases and normalisation layers."}
    )
    layer_decay: float | None = field(
        default=None, metadata={"help": "With opt: factor on the learning rate from each layer to the one below it."}
    )
    sched: str | None = field(
        default=None,
        metadata={"help": f"A schedule of timm instead of lr_scheduler_type: {', '.join(SCHEDULES)}."},
    )
    decay_epochs: float | None = field(default=None, metadata={"help": "step: epochs between two decays."})
    decay_milestones: list[int] | None = field(default=None, metadata={"help": "multistep: epochs to decay at."})
    decay_rate: float = field(default=0.1, metadata={"help": "step, multistep: factor of a decay."})
    min_lr: float = field(default=0.0, metadata={"help": "cosine: learning rate at the end."})
    warmup_epochs: float = field(default=0.0, metadata={"help": "With sched: epochs of a linear warm-up."})
    warmup_lr: float = field(default=1e-5, metadata={"help": "With sched: learning rate that the warm-up starts at."})
    ema_decay: float | None = field(
        default=None, metadata={"help": "Average the weights with this decay; evaluate, and end, with the average."}
    )
    ema_warmup: bool = field(default=False, metadata={"help": "Let the decay of the average rise from 0 at first."})

    def __post_init__(self) -> None:
        Augmentation.__post_init__(self)
        MixTrainingArguments.__post_init__(self)
        self._check_optimizer()
        self._check_schedule()
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay} is outside (0, 1): pass one such as 0.999, or None.")
        if self.ema_warmup and self.ema_decay is None:
            raise ValueError("ema_warmup=True needs an average to warm up: pass ema_decay too.")

    def _check_optimizer(self) -> None:
        if self.opt is None:
            if self.layer_decay is not None:
                raise ValueError(f"layer_decay={self.layer_decay} goes with timm's optimizers: pass opt='adamw' too.")
            return
        try:
            get_optimizer_info(self.opt.split("_")[-1])  # lookahead_ may stand before it
        except ValueError as error:
            raise ValueError(f"opt={self.opt!r} is no optimizer of timm: see timm.optim.list_optimizers().") from error
        if self.is_set("optim"):
            raise ValueError(f"opt={self.opt!r} and optim={str(self.optim)!r} are both set: pass one.")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay} is outside (0, 1]: pass one such as 0.75, or None.")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum} is outside [0, 1): pass one such as 0.9.")

    def _check_schedule(self) -> None:
        if self.sched == "plateau":
            raise ValueError("sched='plateau' waits for a metric: pass lr_scheduler_type='reduce_lr_on_plateau'.")
        if self.sched is not None and self.sched not in SCHEDULES:
            raise ValueError(f"sched={self.sched!r} is unknown: pass one of {', '.join(SCHEDULES)}.")
        for name, readers in _READ_BY.items():
            if self.is_set(name) and self.sched not in readers:
                raise ValueError(f"{name} is read by sched={' or '.join(readers)} and sched is {self.sched}.")
        for name in ("lr_scheduler_type", "warmup_steps", "warmup_ratio"):
            if self.sched is not None and self.is_set(name):
                raise ValueError(f"sched={self.sched!r} and {name}={getattr(self, name)} are both set: pass one.")
        if self.sched == "step" and (self.decay_epochs is None or self.decay_epochs <= 0):
            raise ValueError(f"sched='step' with decay_epochs={self.decay_epochs}: pass a number of epochs above 0.")
        milestones = self.decay_milestones or []
        if self.sched == "multistep" and (not milestones or milestones != sorted(set(milestones)) or milestones[0] < 1):
            raise ValueError(f"sched='multistep' with decay_milestones={milestones}: pass rising epochs from 1 on.")
        if not 0 < self.decay_rate <= 1:
            raise ValueError(f"decay_rate={self.decay_rate} is outside (0, 1]: it is a factor.")
        for name in ("min_lr", "warmup_epochs", "warmup_lr"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is below 0.")

    def is_set(self, name: str) -> bool:
        """Whether a field has another value than its default."""
        default: Any = {f.name: f.default for f in fields(self)}.get(name)
        return bool(getattr(self, name, default) != default)
