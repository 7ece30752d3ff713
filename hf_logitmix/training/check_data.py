"""What can be said of datasets before the first step, as far as it can be read without computing examples."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import DataCollatorWithPadding, DefaultDataCollator, default_data_collator

from hf_logitmix.models import longest_input, under_peft_model, unwrap, vocabulary
from hf_logitmix.training.collator import MixCollator
from hf_logitmix.training.labels import as_numbers, check_known_labels, label_column, label_spec
from hf_logitmix.training.other_libraries import why_no_labels

logger = logging.getLogger(__name__)

_LABELS = ("labels", "label", "label_ids")  # what the collators of transformers make `labels` of


def check_dataset(
    name: str, data: Any, model: nn.Module, collator: Any, *, is_trained_on: bool = False, drops_columns: bool = True
) -> None:
    """Refuse what is no dataset of rows, rows without labels or tokens, labels that are no numbers, and long texts.

    Nothing is said of rows that the user's own collator or transform makes something else of.

    Args:
        name: of the argument.
        data: what was passed as a dataset; None is none.
        model: reads it.
        collator: makes its batches.
        is_trained_on: whether it needs labels.
        drops_columns: whether columns that the model does not read are dropped.

    Raises:
        TypeError: for what is no dataset.
        ValueError: for rows that the model cannot be trained or evaluated on.
    """
    if data is None:
        return
    check_form(name, data)
    pads = _pads(collator)
    if pads is None:
        return
    _check_rows(name, data)
    columns = _columns(data)
    if columns is None:
        return
    if is_trained_on and drops_columns:
        _check_columns(name, columns, model)
    if isinstance(data, datasets.IterableDataset):
        return
    _check_rows_of_tensors(name, data, columns, pads)
    _check_labels(name, data, columns, model)
    if "input_ids" in columns and len(data):
        _check_tokens(name, data, model, pads)


def check_range(name: str, data: Any, model: nn.Module, collator: Any) -> None:
    """Refuse labels that the model cannot have, and those of a test split that has none.

    Raises:
        ValueError: with the first of them.
    """
    labels = None if _pads(collator) is None else label_column(data)
    if labels is None or not len(labels):
        return
    if (labels == -1).all():
        raise ValueError(
            f"{name}: every label is -1, as in a test split without labels: leave the column out, "
            f"{name}.remove_columns('label') of a datasets.Dataset."
        )
    check_known_labels(labels, model, name)


def keeps_labels(collator: Any) -> bool:
    """Whether a collator is one of transformers, which makes labels of a batch of those of its examples."""
    return _pads(collator) is not None


def check_form(name: str, data: Any) -> None:
    """Refuse what only looks like a dataset: names, tables, dicts of columns, generators.

    Raises:
        TypeError: with how to make a dataset of it.
    """
    library, kind = type(data).__module__.partition(".")[0], type(data).__name__
    is_stream = isinstance(data, (torch.utils.data.IterableDataset, datasets.IterableDataset))
    if isinstance(data, str):
        how = f"is the name {data!r}: load it first, datasets.load_dataset({data!r}, split='train')"
    elif library in ("pandas", "polars"):
        how = f"is a {kind} of {library}: pass datasets.Dataset.from_{library}(...) of it"
    elif isinstance(data, DataLoader):
        how = "is a DataLoader, and Trainer makes its own: pass its dataset"
    elif isinstance(data, Mapping) and any(isinstance(value, datasets.Dataset) for value in data.values()):
        how = f"holds the splits {', '.join(map(str, data))}: pass one of them, such as data[{next(iter(data))!r}]"
    elif isinstance(data, Mapping):
        how = f"is a {kind} with the keys {', '.join(map(str, data))}: pass datasets.Dataset.from_dict(dict(...)) of it"
    elif isinstance(data, Iterator) or (not is_stream and not hasattr(data, "__getitem__")):
        how = f"is a {kind}, which gives no row by its number: pass list(...) of it, or datasets.IterableDataset"
    else:
        return
    raise TypeError(f"{name} {how}.")


def _pads(collator: Any) -> bool | None:
    """Whether a collator of transformers pads rows; None for the user's own, of which nothing is known."""
    if isinstance(collator, MixCollator):
        return _pads(collator.collator)
    if isinstance(collator, DataCollatorWithPadding):
        return True
    return False if collator is default_data_collator or isinstance(collator, DefaultDataCollator) else None


def _columns(data: Any) -> list[str] | None:
    """The names of a dataset's columns; None where a transform or the examples themselves decide."""
    if isinstance(data, datasets.Dataset):
        return None if data.format["type"] == "custom" else data.column_names
    if isinstance(data, datasets.IterableDataset):
        return data.column_names
    if isinstance(data, Sequence) and len(data) and isinstance(data[0], Mapping):
        return [str(column) for column in data[0]]
    return None


def _check_rows(name: str, data: Any) -> None:
    first: Any = data[0] if isinstance(data, (Sequence, TensorDataset)) and len(data) else {}
    if not isinstance(first, Mapping) and not hasattr(first, "__dict__"):
        raise TypeError(
            f"{name} has rows of type {type(first).__name__}: make each a dict with `input_ids` and `labels`, or pass "
            "a data_collator that makes a batch of them."
        )


def _check_columns(name: str, columns: list[str], model: nn.Module) -> None:
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


def _check_rows_of_tensors(name: str, data: Any, columns: list[str], pads: bool) -> None:
    """Refuse tensors of several numbers as labels where the collators of transformers do not take them."""
    column = next((label for label in _LABELS if label in columns), None)
    first = data[0] if column is not None and len(data) else {}
    if not isinstance(first.get(column), Tensor) or first[column].ndim == 0:
        return
    if (column == "label" and not pads) or (pads and not isinstance(first.get("input_ids"), Tensor)):
        raise ValueError(
            f"{name}: `{column}` of an example is a tensor of {len(first[column])} numbers, which this collator of "
            "transformers does not take: pass lists of numbers, as its tolist() gives them, or in a column `labels` "
            "tensors beside input_ids that are tensors too."
        )


def _check_labels(name: str, data: Any, columns: list[str], model: nn.Module) -> None:
    """Refuse texts, None, lists that are no multi-hot rows, and class ids with a fraction."""
    column = next((label for label in _LABELS if label in columns), None)
    if column is None or (isinstance(data, datasets.Dataset) and _are_integers(data, column)):
        return
    num_labels, problem_type, _ = label_spec(model)
    values = data.with_format(None)[column][:] if isinstance(data, datasets.Dataset) else [row[column] for row in data]
    for number, value in enumerate(values):
        of = f"{name}: label {value!r} of example {number}"
        if value is None:
            raise ValueError(f"{name}: example {number} has None as its `{column}`: label it, or leave it out.")
        if isinstance(value, str):
            how = f"its class as a number, as {name}.class_encode_column({column!r}) of a datasets.Dataset gives it"
            if problem_type == "regression" or value.strip().lstrip("-").isdigit():
                kind = "float" if problem_type == "regression" else "int"
                how = f"the number, {name}.map(lambda row: {{{column!r}: {kind}(row[{column!r}])}})"
            raise ValueError(f"{of} is a text: pass {how}.")
        if isinstance(value, (list, tuple)) and (len(value) not in (1, num_labels) or isinstance(value[0], str)):
            raise ValueError(
                f"{of} is a list and the model has num_labels={num_labels}: pass one class id, a row of {num_labels} "
                f"probabilities, or for several classes at once a row of {num_labels} zeros and ones."
            )
    numbers = as_numbers(values)
    has_ids = problem_type == "single_label_classification" and numbers is not None and numbers.ndim == 1
    if has_ids and np.issubdtype(numbers.dtype, np.floating) and np.isfinite(numbers).all():  # type: ignore
        raise ValueError(
            f"{name}: labels are floating-point numbers and the model has num_labels={num_labels}: pass integer class "
            "ids, or num_labels=1 for regression."
        )


def _are_integers(data: datasets.Dataset, column: str) -> bool:
    """Whether the type of a column says that it holds integers and nothing else, so that it need not be read."""
    kind = str(getattr(data.features[column], "dtype", ""))
    return kind.startswith(("int", "uint", "bool")) and not data.data[column].null_count


def _check_tokens(name: str, data: Any, model: nn.Module, pads: bool) -> None:
    """Refuse rows that the model's embeddings do not hold, by their lengths and the largest id."""
    lengths, largest, is_nested = [], -1, False
    for sizes, ids in _tokens(data):
        lengths.append(sizes)
        is_nested |= ids.dtype.kind not in "iu" and len(ids) > 0
        largest = largest if is_nested or not len(ids) else max(largest, int(ids.max()))
    if is_nested:
        raise ValueError(
            f"{name}: input_ids of an example are not one row of integers: tokenize without return_tensors, which adds "
            "a dimension."
        )
    length = np.concatenate(lengths)
    longest = int(length.argmax())
    if not pads and length.min() < length.max():
        raise ValueError(
            f"{name} has rows of {length.min()} to {length.max()} tokens and nothing pads them: pass "
            "processing_class=tokenizer, or a data_collator that pads."
        )
    known = vocabulary(model)
    if known is not None and largest >= known:
        raise ValueError(
            f"{name}: input_ids reach {largest} and the model knows 0 to {known - 1}: pass the model's own tokenizer, "
            "or call model.resize_token_embeddings(len(tokenizer)) after adding tokens."
        )
    positions, is_fixed = longest_input(model)
    if positions is None or length.max() <= positions:
        return
    says = f"{name}: example {longest} has {length.max()} tokens and the model has {positions} positions"
    fix = f"tokenize with truncation=True, max_length={positions}"
    if is_fixed:
        raise ValueError(f"{says}: {fix}.")
    logger.warning("%s, which is all it was trained on: %s to cut it.", says, fix)


def _tokens(data: Any, size: int = 10_000) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The lengths of some thousand rows at a time, and their ids in one row (of another type if they are nested).

    Of a dataset that was shuffled or selected from, whose rows are read one by one, the first thousands stand for all.
    """
    if isinstance(data, datasets.Dataset):
        data = data if data._indices is None else data.select(range(min(size, len(data))))
        for batch in data.select_columns("input_ids").with_format("arrow").iter(size):
            rows = batch["input_ids"].combine_chunks()
            offsets = rows.value_lengths() if hasattr(rows, "value_lengths") else [rows.type.list_size] * len(rows)
            yield np.asarray(offsets), rows.flatten().to_numpy(zero_copy_only=False)
        return
    for start in range(0, len(data), size):
        arrays = [np.asarray(row["input_ids"]) for row in data[start : start + size]]
        one = all(array.ndim == 1 for array in arrays)
        flat = np.concatenate(arrays) if one else np.asarray([None])
        yield np.asarray([len(array) if array.ndim else 0 for array in arrays]), flat
