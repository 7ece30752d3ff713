"""Fine-tune a text classifier on a GLUE task with any method of hf_logitmix.

hf-logitmix glue --task_name mrpc --model_name_or_path bert-base-uncased --method logitmix --output_dir out
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import set_seed

from hf_logitmix import METHODS
from hf_logitmix.commands.arguments import ArgumentsParser
from hf_logitmix.glue.data import HUB_NAME, load_task, with_validation
from hf_logitmix.glue.demo import run_demo
from hf_logitmix.glue.experiment import Experiment
from hf_logitmix.glue.tasks import TASKS, Task, get_task
from hf_logitmix.modalities.masks import is_causal
from hf_logitmix.noise import add_label_noise
from hf_logitmix.text.arguments import TextModelArguments, TextRunArguments
from hf_logitmix.text.model import load_model
from hf_logitmix.training.command_line import (
    check_what_is_done,
    checkpoint_to_resume,
    report,
)
from hf_logitmix.training.splits import HELD_OUT


@dataclass
class GlueTrainingArguments(TextRunArguments):
    """`TextRunArguments` of a GLUE run."""

    do_eval: bool = field(
        default=True,
        metadata={"help": "Evaluate on the dev set: done unless --do_predict is passed alone, or --no_do_eval."},
    )
    do_predict: bool = field(
        default=False, metadata={"help": "Predict the test set into a submission file: alone, of a trained model."}
    )


@dataclass
class GlueArguments(TextModelArguments):
    """Which task, which model, which data."""

    task_name: str | None = field(default=None, metadata={"help": f"One of {', '.join(TASKS)}."})
    glue_dir: str | None = field(
        default=None, metadata={"help": "Folder in the classic GLUE layout (CoLA/train.tsv, ...); default is the Hub."}
    )
    train_file: str | None = field(
        default=None, metadata={"help": "Another training file: a path, or a name in the task's folder of --glue_dir."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first N examples only."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on the first N examples only."})
    val_split: float = field(
        default=0.0,
        metadata={
            "help": "Hold out this share of the training examples, with each class's share kept, to evaluate during "
            "training and to choose a checkpoint on (--load_best_model_at_end); dev is for the figures alone."
        },
    )
    calibration_split: float = field(
        default=0.0,
        metadata={
            "help": "Hold out this share of the training examples (of those that val_split leaves), with each class's "
            "share kept, to fit the temperature on that the saved model keeps; without it those of val_split serve."
        },
    )
    subset_seed: int = field(default=0, metadata={"help": "Of val_split and calibration_split."})
    label_noise: float = field(
        default=0.0,
        metadata={"help": "Change the labels of this share of the training examples; all others stay clean."},
    )
    label_noise_kind: str = field(
        default="uniform", metadata={"help": "uniform (any other class) or pairwise (swap inside pairs of classes)."}
    )
    demo: bool = field(
        default=False,
        metadata={"help": "Offline demo on a synthetic corpus; of the other arguments it takes output_dir and seed."},
    )


def parser() -> ArgumentsParser:
    """What reads the command line."""
    return ArgumentsParser((GlueArguments, GlueTrainingArguments), "hf-logitmix glue", __doc__)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    glue, args = parser().parse(argv)
    if args.method is not None and args.method not in METHODS:
        raise ValueError(f"method={args.method!r} is unknown: pass one of {', '.join(METHODS)}.")
    if glue.demo:
        return run_demo(args)
    if glue.task_name is None or glue.model_name_or_path is None:
        raise ValueError("--task_name and --model_name_or_path are needed, or --demo for the offline demo.")
    if not args.output_dir:
        raise ValueError("--output_dir is needed: the folder where the run leaves its model and results.")
    if glue.max_seq_length < 3:
        raise ValueError(f"max_seq_length={glue.max_seq_length}: pass at least 3, for a token and two special ones.")
    check_what_is_done(args)
    task = get_task(glue.task_name)
    args.resume_from_checkpoint = checkpoint_to_resume(args)
    wanted = {"train": args.do_train, "dev": args.do_eval, "test": args.do_predict}
    with args.main_process_first(desc="load data"):
        splits = load_task(task, tuple(name for name in wanted if wanted[name]), glue.glue_dir, glue.train_file)
    if glue.val_split:
        splits = with_validation(splits, glue.val_split, glue.subset_seed)
    if glue.calibration_split:
        splits = with_validation(splits, glue.calibration_split, glue.subset_seed, "calibration")
    sizes = {split.hub: len(part) for split, part in splits.get("dev", [])}
    for _, part in splits.get("validation", []):
        sizes[HELD_OUT] = len(part)
    limits = {"train": glue.max_train_samples, "dev": glue.max_eval_samples, "validation": glue.max_eval_samples}
    splits = {
        name: [(split, _first(part, limits.get(name), name)) for split, part in parts] for name, parts in splits.items()
    }

    if glue.label_noise and args.do_train:
        splits = with_label_noise(task, splits, glue.label_noise, glue.label_noise_kind, args.seed)

    set_seed(args.seed)
    model, tokenizer = load_model(task, glue, new_head=args.do_train)
    shares = {"val_split": glue.val_split, "calibration_split": glue.calibration_split}
    held: dict[str, Any] = {name: share for name, share in shares.items() if share}
    held |= {"subset_seed": glue.subset_seed} if held else {}
    if args.do_train and is_causal(model):
        held["padding_side"] = tokenizer.padding_side
    source = HUB_NAME if glue.glue_dir is None else "GLUE, local files"
    source += f", trained on {Path(glue.train_file).name}" if glue.train_file and args.do_train else ""
    noise = f"{glue.label_noise:g} {glue.label_noise_kind}" if glue.label_noise and args.do_train else None
    experiment = Experiment(
        *(task, splits, model, tokenizer, glue.model_name_or_path, glue.max_seq_length, source, noise),
        settings=held,
        split_sizes=sizes,
    )
    return report(experiment.run(args), args)


def with_label_noise(task: Task, splits: Any, rate: float, kind: str, seed: int) -> Any:
    """The same splits with noise in the labels of the training set.

    Raises:
        ValueError: for regression, and as `hf_logitmix.noise.noisy_labels`.
    """
    if task.is_regression:
        raise ValueError(f"label_noise={rate}: {task.name} is a regression task and label noise is for classes.")
    train = [
        (split, add_label_noise(part, rate, kind=kind, seed=seed, num_labels=task.num_labels))
        for split, part in splits.get("train", [])
    ]
    return {**splits, "train": train} if train else splits


def _first(data: Any, limit: int | None, name: str) -> Any:
    least = 1 if name == "train" else 2  # a temperature is fitted on one half and tried on the other
    if limit is not None and limit < least:
        argument = "max_train_samples" if name == "train" else "max_eval_samples"
        raise ValueError(f"{argument}={limit}: pass at least {least}.")
    return data if limit is None else data.select(range(min(limit, len(data))))
