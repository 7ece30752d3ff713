"""Arguments of a run on texts of one's own: how it trains, and which texts with which labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_logitmix.text.arguments import TextModelArguments, TextRunArguments
from hf_logitmix.text.predictions import FILE
from hf_logitmix.training.command_line import check_what_is_done


@dataclass
class OwnTrainingArguments(TextRunArguments):
    """`TextRunArguments` of a run on data of one's own.

    Raises:
        ValueError: as `TextRunArguments`, and for a checkpoint that would be chosen by the highest rmse.
    """

    do_predict: bool = field(
        default=False, metadata={"help": f"Predict the test texts into {FILE}: alone, of a trained model."}
    )

    def __post_init__(self) -> None:
        if (self.metric_for_best_model or "").removeprefix("eval_") == "rmse":
            if self.greater_is_better:
                raise ValueError(
                    "greater_is_better=True would choose the checkpoint with the largest rmse: leave it out."
                )
            self.greater_is_better = False
        super().__post_init__()


@dataclass
class TextArguments(TextModelArguments):
    """Which texts, with which labels."""

    train_file: str | None = field(
        default=None, metadata={"help": "Texts to train on: .csv, .tsv, .json, .jsonl, .parquet."}
    )
    validation_file: str | None = field(
        default=None,
        metadata={"help": "Texts to evaluate on; with labels in --test_file those to choose a checkpoint on."},
    )
    test_file: str | None = field(
        default=None, metadata={"help": "Texts for the figures, if they have labels, and to predict (--do_predict)."}
    )
    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "In the place of files: a dataset of the Hub, a folder in its layout, or one of save_to_disk."
        },
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    train_split_name: str | None = field(default=None, metadata={"help": "Its training split. [train]"})
    validation_split_name: str | None = field(
        default=None, metadata={"help": "Its validation split. [validation, valid, val or dev]"}
    )
    test_split_name: str | None = field(default=None, metadata={"help": "Its test split. [test]"})
    text_column: str | None = field(
        default=None, metadata={"help": "Column of the texts; found where its name is usual."}
    )
    text_pair_column: str | None = field(default=None, metadata={"help": "Column of the second texts of pairs."})
    label_column: list[str] | None = field(
        default=None,
        metadata={
            "help": "Column of the labels; several for one a class, of probabilities (--soft_labels true) or of 0 and "
            "1. [label, labels, target or score]"
        },
    )
    do_regression: bool | None = field(
        default=None, metadata={"help": "Whether labels are scores; left out, numbers with a decimal point are."}
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on N examples, drawn with --subset_seed, with each class's share kept."}
    )
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on N examples, drawn alike."})
    val_split: float = field(
        default=0.0,
        metadata={
            "aliases": ["--validation_split"],
            "help": "Hold out this share of the training examples, drawn alike: to choose a checkpoint on, or for the "
            "figures where no other labels are there.",
        },
    )
    calibration_split: float = field(
        default=0.0,
        metadata={
            "help": "Hold out this share of the training examples (of those that val_split leaves), drawn alike, to "
            "fit the temperature on that the saved model keeps; without it those that choose a checkpoint serve."
        },
    )
    subset_seed: int = field(
        default=0, metadata={"help": "Of max_train_samples, max_eval_samples, val_split and calibration_split."}
    )


def check_arguments(texts: TextArguments, args: OwnTrainingArguments) -> None:
    """Refuse arguments that exclude each other, and a command line that lacks what a run needs.

    Raises:
        ValueError: with what to pass or to leave out.
    """
    if texts.model_name_or_path is None:
        raise ValueError("--model_name_or_path is needed: a Hub name such as bert-base-uncased, or a folder.")
    if not args.output_dir:
        raise ValueError("--output_dir is needed: the folder where the run leaves its model and results.")
    files = [name for name in ("train_file", "validation_file", "test_file") if getattr(texts, name) is not None]
    if bool(files) == (texts.dataset_name is not None):
        given = f"--{files[0]} and --dataset_name are both there" if files else "no data is named"
        raise ValueError(f"{given}: pass either files (--train_file, ...) or --dataset_name.")
    of_named = ("dataset_config_name", "train_split_name", "validation_split_name", "test_split_name")
    if files and (unread := [name for name in of_named if getattr(texts, name) is not None]):
        raise ValueError(f"--{unread[0]} is read with --dataset_name alone: leave it out.")
    if texts.max_seq_length < 3:
        raise ValueError(f"max_seq_length={texts.max_seq_length}: pass at least 3, for a token and two special ones.")
    check_what_is_done(args)
    for name, share in shares(texts).items():
        if not args.do_train:
            raise ValueError(f"{name}={share} holds out training examples and there is no training: leave it out.")
    if texts.do_regression and args.soft_labels:
        raise ValueError("do_regression and soft_labels exclude each other: leave one out.")


def shares(texts: TextArguments) -> dict[str, float]:
    """What is held out of training."""
    both = {"val_split": texts.val_split, "calibration_split": texts.calibration_split}
    return {name: share for name, share in both.items() if share}
