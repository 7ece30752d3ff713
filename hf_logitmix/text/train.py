"""Fine-tune a text classifier on data of your own with any method of hf_logitmix.

hf-logitmix text --train_file train.csv --model_name_or_path bert-base-uncased --method logitmix --output_dir out
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import AutoConfig, set_seed

from hf_logitmix import METHODS, calibrated_logits
from hf_logitmix.commands.arguments import ArgumentsParser
from hf_logitmix.commands.main import main as start
from hf_logitmix.modalities.masks import is_causal
from hf_logitmix.models import loading
from hf_logitmix.tables.labels import Labels
from hf_logitmix.text.data import (
    HELD,
    HELD_TO_CALIBRATE,
    Table,
    TextData,
    part,
    tables_of_files,
    tables_of_name,
    text_data,
    with_calibration,
    with_validation,
)
from hf_logitmix.text.experiment import TextExperiment
from hf_logitmix.text.metrics import metrics_of
from hf_logitmix.text.model import load_model
from hf_logitmix.text.predictions import FILE, write_predictions
from hf_logitmix.text.run_arguments import OwnTrainingArguments, TextArguments, check_arguments, shares
from hf_logitmix.text.task import OwnSplit, OwnTask, TextSplit, has_one_class
from hf_logitmix.training.command_line import checkpoint_to_resume, report
from hf_logitmix.training.splits import HELD_OUT, HELD_OUT_TO_CALIBRATE, chooses

CALLED = {HELD: HELD_OUT, HELD_TO_CALIBRATE: HELD_OUT_TO_CALIBRATE}  # what records call these splits


@dataclass(frozen=True)
class OwnExperiment(TextExperiment):
    """A run on data of one's own; attributes as in `TextExperiment`.

    Attributes:
        data_config: the data's configuration on the Hub.
    """

    data_config: str = ""

    @property
    def config(self) -> str:
        return self.data_config

    def metrics(self, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
        return metrics_of(self.task.problem_type, labels, logits)

    def write_predictions(self, split: TextSplit, logits: np.ndarray, folder: Path) -> None:
        served = calibrated_logits(self.model, logits) if has_one_class(self.task) else logits
        write_predictions(self.task, np.asarray(served), folder / FILE)


def parser() -> ArgumentsParser:
    """What reads the command line."""
    return ArgumentsParser((TextArguments, OwnTrainingArguments), "hf-logitmix text", __doc__)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    texts, args = parser().parse(argv)
    if args.method is not None and args.method not in METHODS:
        raise ValueError(f"method={args.method!r} is unknown: pass one of {', '.join(METHODS)}.")
    check_arguments(texts, args)
    args.resume_from_checkpoint = checkpoint_to_resume(args)
    with args.main_process_first(desc="load data"):
        data = load(texts, args)
    if args.should_log:
        print(data, flush=True)
    return report(run(texts, args, data), args)


def load(texts: TextArguments, args: OwnTrainingArguments) -> TextData:
    """The data that a run needs: none to train on where nothing is trained.

    Raises:
        ValueError: as `text_data`, and where a split is missing.
    """
    tables = _tables(texts)
    where = f"dataset_name={texts.dataset_name!r}" if texts.dataset_name else "the files"
    if args.do_train and "train" not in tables:
        raise ValueError(f"nothing to train on in {where}: pass --train_file, or --no_do_train.")
    if args.do_predict and "test" not in tables:
        raise ValueError(f"nothing to predict in {where}: pass --test_file, or leave --do_predict out.")
    wanted = {"train": args.do_train, "validation": args.do_eval, "test": args.do_eval or args.do_predict}
    tables = {split: table for split, table in tables.items() if wanted[split]}
    if not tables:
        raise ValueError(f"nothing to evaluate on in {where}: pass --validation_file or --test_file.")
    data = text_data(
        tables,
        text=texts.text_column,
        text_pair=texts.text_pair_column,
        label=texts.label_column,
        soft=bool(args.soft_labels),
        regression=texts.do_regression,
        known=None if args.do_train else labels_of_model(texts),
        unlabelled=() if args.do_eval else ("test",),
    )
    if texts.val_split:
        data = with_validation(data, texts.val_split, texts.subset_seed)
    if texts.calibration_split:
        data = with_calibration(data, texts.calibration_split, texts.subset_seed)
    if args.do_eval and not any(data.has_labels(split) for split in ("validation", "test", HELD)):
        raise ValueError(
            "nothing with labels to evaluate on: pass --validation_file, or --val_split 0.1 for a tenth of the "
            "training examples, or --no_do_eval."
        )
    return data


def run(texts: TextArguments, args: OwnTrainingArguments, data: TextData) -> dict[str, Any] | None:
    """Train, evaluate and predict; what ``all_results.json`` holds, or None if the run was interrupted and saved.

    The figures are of the test texts if these have labels, else of those for validation, else of those that were held
    out; a checkpoint is chosen on what is left of these.
    """
    named = [split for split in ("test", "validation", HELD) if args.do_eval and data.has_labels(split)]
    reported, watched = (named[0] if named else ""), (named[-1] if len(named) > 1 and args.do_train else "")
    if len(named) > 2 and args.do_train:
        raise ValueError(
            "the figures are of the test texts, and both the validation texts and --val_split would choose the "
            "checkpoint: leave one out."
        )
    if watched == "" and reported == HELD and (chosen_by := chooses(args)):
        raise ValueError(
            f"{chosen_by} would choose the model on the examples that its figures are of: pass "
            "--validation_file or --test_file for the figures."
        )
    splits: dict[str, list[tuple[TextSplit, Dataset]]] = {}
    for role, split in {"train": "train", "dev": reported, "validation": watched}.items():
        if data.has_labels(split):
            limits = ("max_train_samples", 1) if role == "train" else ("max_eval_samples", 2)
            limited = part(data, split, getattr(texts, limits[0]), texts.subset_seed, *limits)
            splits[role] = [(OwnSplit(CALLED.get(split, split)), limited)]
    if data.has_labels(HELD_TO_CALIBRATE):
        splits["calibration"] = [(OwnSplit(HELD_OUT_TO_CALIBRATE), data.splits[HELD_TO_CALIBRATE])]
    if args.do_predict:
        splits["test"] = [(OwnSplit("test"), data.splits["test"].select_columns(list(data.texts)))]
    name, of = _name(texts), data.labels
    task = OwnTask(name.split(",")[0].split("/")[-1], data.texts, of.names, of.problem_type)
    set_seed(args.seed)
    model, tokenizer = load_model(task, texts, new_head=args.do_train)
    settings: dict[str, Any] = {"text_columns": list(data.columns.texts), "label_columns": list(data.columns.labels)}
    settings |= shares(texts)
    if shares(texts) or texts.max_train_samples or texts.max_eval_samples:
        settings["subset_seed"] = texts.subset_seed
    if args.do_train and is_causal(model):
        settings["padding_side"] = tokenizer.padding_side
    experiment = OwnExperiment(
        *(task, splits, model, tokenizer, texts.model_name_or_path, texts.max_seq_length, name),
        settings=settings,
        split_sizes={CALLED.get(split, split): len(data.splits[split]) for split in named},
        validation_name=CALLED.get(watched, watched),
        data_config=texts.dataset_config_name or "",
    )
    return experiment.run(args)


def labels_of_model(texts: TextArguments) -> Labels:
    """What the labels of a trained model are, by its configuration.

    Raises:
        ValueError: for a model that cannot be loaded.
    """
    name = str(texts.model_name_or_path)
    with loading("model_name_or_path", name):
        config = AutoConfig.from_pretrained(name, trust_remote_code=texts.trust_remote_code)
    kind = config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")
    names = () if kind == "regression" else tuple(str(config.id2label[k]) for k in range(config.num_labels))
    return Labels(kind, names, named=True)


def _tables(texts: TextArguments) -> dict[str, Table]:
    if texts.dataset_name is None:
        files = {"train": texts.train_file, "validation": texts.validation_file, "test": texts.test_file}
        return tables_of_files(files)
    names = {split: getattr(texts, f"{split}_split_name") for split in ("train", "validation", "test")}
    return tables_of_name(texts.dataset_name, texts.dataset_config_name, names)


def _name(texts: TextArguments) -> str:
    """What records call the data; of a path only its last part."""
    if texts.dataset_name is not None:
        folder = Path(texts.dataset_name).expanduser()
        return f"{folder.resolve().name}, local files" if folder.exists() else texts.dataset_name
    first = next(path for path in (texts.train_file, texts.validation_file, texts.test_file) if path is not None)
    return f"{Path(first).stem}, local files"


if __name__ == "__main__":
    start(["text", *sys.argv[1:]])
