"""MixTrainingArguments with timm's optimizers, schedules, weight averaging and augmentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from timm.optim import get_optimizer_info
from transformers import SchedulerType, TrainingArguments
from transformers.training_args import OptimizerNames

from hf_logitmix.training.arguments import MixTrainingArguments
from hf_logitmix.vision.transforms import Augmentation

SCHEDULES = ("cosine", "step", "multistep", "poly", "tanh", "plateau")
_READ_BY: dict[str, tuple[str, ...]] = {  # options of a schedule, and the schedules that read them
    "decay_epochs": ("step",),
    "decay_milestones": ("multistep",),
    "decay_rate": ("step", "multistep", "poly", "plateau"),
    "min_lr": ("cosine", "tanh", "poly", "plateau"),
    "warmup_epochs": SCHEDULES,
    "warmup_lr": SCHEDULES,
    "cooldown_epochs": ("cosine", "tanh", "poly", "plateau"),
    "patience_epochs": ("plateau",),
}
_TRAINERS: dict[str, dict[str, int | None]] = {  # options of Trainer that nobody reads beside one of timm: as left out
    "opt": {"optim": None, "optim_args": None, "optim_target_modules": None},
    "sched": {"lr_scheduler_type": None, "lr_scheduler_kwargs": None, "warmup_steps": 0},
}
_OPEN: dict[str, tuple[str, ...]] = {  # those that are None where they are not said, and stay None beside timm's
    "opt": ("optim", "adam_beta1", "adam_beta2", "adam_epsilon"),
    "sched": ("lr_scheduler_type",),
}


@dataclass
class ImageMixTrainingArguments(Augmentation, MixTrainingArguments):
    """`MixTrainingArguments` and options under the names of timm's train.py; left out, Trainer does as it always does.

    ``learning_rate``, ``weight_decay`` and, where they are passed, ``adam_beta1``, ``adam_beta2`` and ``adam_epsilon``
    go to timm's optimizer too. A schedule changes the learning rate after each optimizer step and counts in epochs, as
    ``timm``'s does with ``--sched-on-updates``; timm lowers it for a milestone one step early. ``sched="plateau"``
    changes it after the evaluation of an epoch, where ``metric_for_best_model`` no longer gets better.

    With ``opt`` Trainer's ``optim`` is None, and with ``sched`` its ``lr_scheduler_type``; without, both are as in
    `TrainingArguments`. So a copy (``dataclasses.replace``, ``to_dict``) trains as the original.

    Raises:
        ValueError: for values that are not possible, exclude one another, or would not be read.
    """

    opt: str | None = field(
        default=None,
        metadata={"help": "An optimizer of timm instead of optim: sgd (with Nesterov's momentum), adamw, lamb, ..."},
    )
    momentum: float | None = field(default=None, metadata={"help": "Of optimizers of timm that have one (0.9)."})
    filter_bias_and_bn: bool | None = field(
        default=None, metadata={"help": "With opt: no weight decay of biases and normalisation layers (true)."}
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
    decay_rate: float | None = field(default=None, metadata={"help": "Factor of a decay; poly: its power (0.1)."})
    min_lr: float | None = field(
        default=None, metadata={"help": "cosine, tanh, poly: learning rate at the end (0); plateau: the lowest one."}
    )
    cooldown_epochs: int | None = field(
        default=None,
        metadata={
            "help": "cosine, tanh, poly: so many of num_train_epochs, the last ones, stay at min_lr (0); plateau: so "
            "many epochs after a decay do not count (0)."
        },
    )
    patience_epochs: int | None = field(
        default=None, metadata={"help": "plateau: epochs without a better metric that are waited for (10)."}
    )
    warmup_epochs: float | None = field(default=None, metadata={"help": "With sched: epochs of a linear warm-up (0)."})
    warmup_lr: float | None = field(
        default=None, metadata={"help": "With sched: learning rate that the warm-up starts at (1e-5)."}
    )
    channels_last: bool = field(
        default=False, metadata={"help": "Keep model and pixels in torch's channels_last memory format."}
    )
    ema_decay: float | None = field(
        default=None, metadata={"help": "Average the weights with this decay; evaluate, and end, with the average."}
    )
    ema_warmup: bool = field(default=False, metadata={"help": "Let the decay of the average rise from 0 at first."})
    optim: OptimizerNames | str | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": f"An optimizer of Trainer's ({TrainingArguments.optim} without opt)."}
    )
    lr_scheduler_type: SchedulerType | str | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": f"A schedule of Trainer's ({TrainingArguments.lr_scheduler_type} without sched)."},
    )
    adam_beta1: float | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "First beta of optimizers with two (0.9 without opt; with it timm's own)."}
    )
    adam_beta2: float | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Second beta of optimizers with two (0.999 without opt; with it timm's own)."}
    )
    adam_epsilon: float | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Epsilon of optimizers with one (1e-8 without opt; with it timm's own)."}
    )

    def __post_init__(self) -> None:
        unsaid = [name for names in _OPEN.values() for name in names if getattr(self, name) is None]
        for name in unsaid:
            setattr(self, name, getattr(TrainingArguments, name))
        MixTrainingArguments.__post_init__(self)
        for ours, names in _OPEN.items():
            for name in names:
                if name in unsaid and getattr(self, ours) is not None:
                    setattr(self, name, None)
        self.check()

    def check(self) -> None:
        """Refuse what is not possible or not read; once more before each training, for options that a search draws."""
        super().check()
        for ours, names in _TRAINERS.items():
            for name, left_out in names.items():
                own, theirs = getattr(self, ours), getattr(self, name)
                if own is not None and theirs:
                    raise ValueError(
                        f"{ours}={own!r} and {name}={getattr(theirs, 'value', theirs)!r} are both set: pass one alone, "
                        f"timm's with {name}={left_out} or Trainer's with {ours}=None."
                    )
        self._check_optimizer()
        self._check_schedule()
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay} is outside (0, 1): pass one such as 0.999, or None.")
        if self.ema_warmup and self.ema_decay is None:
            raise ValueError("ema_warmup=True needs an average to warm up: pass ema_decay too.")

    def _check_optimizer(self) -> None:
        if self.opt is None:
            for name in ("momentum", "filter_bias_and_bn", "layer_decay"):
                if (value := getattr(self, name)) is not None:
                    raise ValueError(f"{name}={value} goes with timm's optimizers: pass opt='adamw' or another too.")
            return
        try:
            info = get_optimizer_info(self.opt.removeprefix("lookahead_"))
        except ValueError as error:
            raise ValueError(f"opt={self.opt!r} is no optimizer of timm: see timm.optim.list_optimizers().") from error
        has_two_betas = info.has_betas and info.num_betas == 2
        reads = {"momentum": info.has_momentum, "adam_beta1": has_two_betas, "adam_beta2": has_two_betas}
        for name, is_read in {**reads, "adam_epsilon": info.has_eps}.items():
            if not is_read and getattr(self, name) is not None:
                raise ValueError(f"{name}={getattr(self, name)} is not read by opt={self.opt!r}: leave it out.")
        if (self.adam_beta1 is None) != (self.adam_beta2 is None):
            raise ValueError(
                f"adam_beta1={self.adam_beta1} and adam_beta2={self.adam_beta2} go together with opt={self.opt!r}: "
                "pass both, or neither for timm's own."
            )
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay} is outside (0, 1]: pass one such as 0.75, or None.")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum} is outside [0, 1): pass one such as 0.9.")
        if self.momentum == 0 and (info.defaults or {}).get("nesterov"):
            raise ValueError(f"opt={self.opt!r} is Nesterov's and momentum=0: pass opt='momentum' for plain SGD.")

    def _check_schedule(self) -> None:
        if self.sched is not None and self.sched not in SCHEDULES:
            raise ValueError(f"sched={self.sched!r} is unknown: pass one of {', '.join(SCHEDULES)}.")
        for name, readers in _READ_BY.items():
            if getattr(self, name) is not None and self.sched not in readers:
                raise ValueError(f"{name} is read by sched={' or '.join(readers)} and sched is {self.sched}.")
        if self.sched == "step" and (self.decay_epochs is None or self.decay_epochs <= 0):
            raise ValueError(f"sched='step' with decay_epochs={self.decay_epochs}: pass a number of epochs above 0.")
        milestones = self.decay_milestones or []
        if self.sched == "multistep" and (not milestones or milestones != sorted(set(milestones)) or milestones[0] < 1):
            raise ValueError(f"sched='multistep' with decay_milestones={milestones}: pass rising epochs from 1 on.")
        if self.sched == "plateau" and not self.metric_for_best_model:
            raise ValueError("sched='plateau' waits for a metric: pass metric_for_best_model, such as 'accuracy'.")
        if self.sched == "plateau" and (self.eval_strategy != "epoch" or self.eval_delay):
            raise ValueError(
                f"sched='plateau' looks at {self.metric_for_best_model} after each epoch: pass eval_strategy='epoch' "
                "and no eval_delay."
            )
        if self.sched == "poly" and self.decay_rate is not None and self.decay_rate <= 0:
            raise ValueError(f"decay_rate={self.decay_rate} is not above 0: it is the power of sched='poly'.")
        if self.decay_rate is not None and self.sched != "poly" and not 0 < self.decay_rate <= 1:
            raise ValueError(f"decay_rate={self.decay_rate} is outside (0, 1]: it is a factor.")
        if self.sched == "plateau" and self.decay_rate == 1:
            raise ValueError("decay_rate=1 never lowers the rate of sched='plateau': pass one such as 0.1.")
        for name in ("min_lr", "warmup_epochs", "warmup_lr", "cooldown_epochs", "patience_epochs"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is below 0.")

    def optimizer_options(self) -> dict[str, Any]:
        """What `timm.optim.create_optimizer_v2` is told beside the model; what is left out is timm's own."""
        return {
            "opt": self.opt,
            "lr": self.learning_rate,
            "weight_decay": self.weight_decay,
            **_said(self, "momentum", "filter_bias_and_bn", "layer_decay"),
            **({} if self.adam_beta1 is None else {"betas": (self.adam_beta1, self.adam_beta2)}),
            **({} if self.adam_epsilon is None else {"eps": self.adam_epsilon}),
        }

    def schedule_options(self) -> dict[str, Any]:
        """What `timm.scheduler.create_scheduler_v2` is told of the schedule; what is left out is timm's own."""
        return {"sched": self.sched, **_said(self, *_READ_BY)}


def _said(args: ImageMixTrainingArguments, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(args, name)) is not None}
