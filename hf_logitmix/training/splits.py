"""Which examples train, which choose a checkpoint or fit a temperature, and which the figures are of: all others."""

from __future__ import annotations

import numpy as np
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from hf_logitmix.soft_labels import classes_of

HELD_OUT = "held out of train"
HELD_OUT_TO_CALIBRATE = "held out of train to calibrate"


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Numbers of a random part in which every class keeps its share as nearly as possible, and at least one example.

    Args:
        labels: [N] class ids, or [N, K] soft labels, of which the class with most mass counts.
        count: size of the part.
        seed: the same seed gives the same part.

    Returns:
        IntArray[count], rising.

    Raises:
        ValueError: for a count below the number of classes or above the number of examples.
    """
    labels = classes_of(labels)
    classes, sizes = np.unique(labels, return_counts=True)
    if not len(classes) <= count <= len(labels):
        raise ValueError(
            f"count={count}: a part of these has between {len(classes)}, one a class, and {len(labels)} examples; "
            "pass None for all."
        )
    shares = count * sizes / len(labels)
    wanted = np.maximum(np.floor(shares).astype(np.int64), 1)
    while wanted.sum() < count:
        wanted[np.argmax(shares - wanted)] += 1
    while wanted.sum() > count:  # where small classes were given more than their share
        wanted[np.argmax(np.where(wanted > 1, wanted - shares, -np.inf))] -= 1
    generator = np.random.default_rng(seed)
    chosen = [
        generator.permutation(np.flatnonzero(labels == name))[:size] for name, size in zip(classes, wanted, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def hold_out(
    labels: np.ndarray,
    share: float,
    seed: int,
    argument: str = "val_split",
    purpose: str = "choose a checkpoint on",
) -> tuple[np.ndarray, np.ndarray]:
    """Split training examples into those that train and those that are kept for something else.

    Args:
        labels: [N] class ids or [N, K] soft labels, of which every class keeps its share in both parts; of a regression
            any numbers.
        share: of the examples that is held out, in (0, 1).
        seed: the same seed holds out the same examples.
        argument: what the share is called in errors.
        purpose: what the others are for, there too.

    Returns:
        two rising IntArrays, the first to train on.

    Raises:
        ValueError: for a share outside (0, 1), and for one that leaves a part without one of the classes.
    """
    if not 0 < share < 1:
        raise ValueError(f"{argument}={share} is outside (0, 1): pass the share of the training examples, such as 0.1.")
    labels = classes_of(labels)
    groups = labels if np.issubdtype(labels.dtype, np.integer) else np.zeros(len(labels), np.int64)
    classes, count = np.unique(groups), round(share * len(labels))
    held = stratified(groups, count, seed) if len(classes) <= count <= len(labels) else np.arange(0)
    kept = np.setdiff1d(np.arange(len(labels)), held)
    for part, goal in ((held, purpose), (kept, "train on")):
        missing = np.setdiff1d(classes, groups[part])
        if len(missing):
            raise ValueError(
                f"{argument}={share} of {len(labels)} training examples leaves none of class {missing[0]} to {goal}: "
                "pass another share, or give each class more examples."
            )
    return kept, held


def choosing(trainer: Trainer) -> str:
    """The argument by which the evaluation during training decides what the model is in the end; empty for none.

    ``metric_for_best_model`` alone does not: it keeps a checkpoint, and the model stays that of the last step.
    """
    callbacks = trainer.callback_handler.callbacks
    stops = any(isinstance(one, EarlyStoppingCallback) for one in callbacks)
    return chooses(trainer.args) or ("EarlyStoppingCallback" if stops else "")


def chooses(args: TrainingArguments) -> str:
    """The same as far as arguments decide it."""
    if args.load_best_model_at_end:
        return "load_best_model_at_end"
    schedule = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    if schedule in ("reduce_lr_on_plateau", "greedy"):
        return f"lr_scheduler_type={schedule}"
    return "sched=plateau" if getattr(args, "sched", None) == "plateau" else ""  # timm's
