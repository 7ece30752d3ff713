"""What can be said of datasets before the first step, as far as it can be read without computing examples."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
from torch import nn
from transformers import DataCollatorWithPadding, DefaultDataCollator, default_data_collator

from hf_logitmix.collator import MixCollator
from hf_logitmix.models import under_peft_model, unwrap
from hf_logitmix.other_libraries import why_no_labels

_LABELS = ("labels", "label", "label_ids")  # what the collators of transformers make `labels` of


def makes_its_own_batch(collator: Any) -> bool:
    """Whether a collator is not one of transformers' plain ones, so that what it reads is not known."""
    if isinstance(collator, MixCollator):
        return makes_its_own_batch(collator.collator)
    plain = collator is default_data_collator or isinstance(collator, (DefaultDataCollator, DataCollatorWithPadding))
    return not plain


def check_columns(name: str, data: Any, model: nn.Module) -> None:
    """Refuse a dataset without labels, and one without a column that the model reads.

    Args:
        name: of the dataset, for the message.
        data: anything; where its columns are not known nothing is said.
        model: its forward names what it reads.

    Raises:
        ValueError: with the columns that were found.
    """
    columns = _columns(data)
    if columns is None:
        return
    if not set(columns) & set(_LABELS):
        raise ValueError(f"{name} has no column `labels`, only {', '.join(columns)}: {why_no_labels(columns)}.")
    base = under_peft_model(unwrap(model))
    reads, main = inspect.signature(base.forward).parameters, getattr(base, "main_input_name", "input_ids")
    if main in reads and not (set(columns) - set(_LABELS)) & set(reads):
        first = next((column for column in columns if column not in _LABELS), "text")
        how = (
            f"tokenize first, {name}.map(lambda rows: tokenizer(rows[{first!r}], truncation=True), batched=True)"
            if main == "input_ids"
            else f"make them `{main}` first, or pass images to hf_logitmix.vision.ImageMixTrainer"
        )
        raise ValueError(
            f"{name} has the columns {', '.join(columns)} and none that {type(base).__name__} reads ({main}, ...): "
            f"{how}."
        )


def _columns(data: Any) -> list[str] | None:
    """The names of a dataset's columns; None where a transform or the examples themselves decide."""
    if isinstance(data, datasets.Dataset):
        return None if data.format["type"] == "custom" else data.column_names
    if isinstance(data, datasets.IterableDataset):
        return data.column_names
    if isinstance(data, Sequence) and len(data) and isinstance(data[0], Mapping):
        return [str(column) for column in data[0]]
    return None
