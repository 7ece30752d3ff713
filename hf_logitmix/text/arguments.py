"""Arguments that every run on texts has."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_logitmix import MixTrainingArguments
from hf_logitmix.training.command_line import RunDefaults, set_what_is_done


@dataclass
class TextRunArguments(RunDefaults, MixTrainingArguments):
    """`MixTrainingArguments` with the defaults of a run on texts: train and evaluate, batches of 32, 2e-5, no reports.

    Raises:
        ValueError: for an ``eval_strategy`` without ``do_eval``, which `TrainingArguments` would turn on.
    """

    do_train: bool = field(
        default=True,
        metadata={"help": "Train: done unless --do_eval or --do_predict is passed without it, or --no_do_train."},
    )
    do_eval: bool = field(
        default=True, metadata={"help": "Evaluate: done unless --do_predict is passed alone, or --no_do_eval."}
    )
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Training batch on each device."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Evaluation batch on each device."})
    learning_rate: float = field(default=2e-5, metadata={"help": "Peak learning rate."})
    snapshots: int = field(
        default=0,
        metadata={"help": "Keep at each evaluation what the last layer makes of N training texts, for figures."},
    )

    def __post_init__(self) -> None:
        set_what_is_done(self)
        if not self.do_eval and self.eval_strategy != "no":
            raise ValueError(
                f"eval_strategy={str(self.eval_strategy)!r} evaluates, and do_eval is off: leave it out, or pass "
                "--do_eval."
            )
        super().__post_init__()


@dataclass
class TextModelArguments:
    """Which model, and how much of a text it reads."""

    model_name_or_path: str | None = field(default=None, metadata={"help": "Hub name or local folder of the model."})
    max_seq_length: int = field(default=128, metadata={"help": "Longer inputs are cut to this many tokens."})
    ignore_mismatched_sizes: bool = field(
        default=False, metadata={"help": "Start from a model that was fine-tuned with another number of classes."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run model code that comes with the weights."})
