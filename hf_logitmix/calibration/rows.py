"""Logits and labels, read a block of rows at a time, so that no copy of all of them is ever made."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hf_logitmix.soft_labels import TOLERANCE

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK = 2**18  # numbers that are held in float64 at a time


class Block(NamedTuple):
    """Some rows, in float64 and the caller's to change."""

    rows: slice
    logits: Floats  # [B, K]
    labels: Ints  # [B]; of soft labels the arg max
    soft: Floats | None  # [B, K]


@dataclass(frozen=True)
class Rows:
    """Checked logits with their labels; make them with `Rows.of`.

    Attributes:
        logits: [N, K] as they were given: an array, which may be a memory map, or a tensor.
        labels: [N] class ids; of soft labels the arg max.
        soft: [N, K] as they were given, or None where labels are class ids.
        index: which rows are meant; None for all.
        divisor: [N] what the logits of each row are divided by; None for 1.
    """

    logits: NDArray[Any] | Tensor
    labels: Ints
    soft: NDArray[Any] | Tensor | None = None
    index: Ints | None = None
    divisor: Floats | None = None

    @staticmethod
    def of(logits: Any, labels: Any) -> Rows:
        """Check logits [N, K] and labels, class ids [N] or rows [N, K] that sum to 1.

        Raises:
            ValueError: for other shapes, K = 1, no examples, a label outside 0..K-1, and rows that do not sum to 1. NaN
                is found as the blocks are read.
        """
        z, y = _as_given(logits), _as_given(labels)
        if z.ndim != 2 or tuple(y.shape) not in ((z.shape[0],), tuple(z.shape)):
            raise ValueError(
                f"logits of shape {tuple(z.shape)} and labels of shape {tuple(y.shape)}: pass [N, K] logits, and [N] "
                "class ids or [N, K] rows that sum to 1."
            )
        if z.shape[1] < 2:
            raise ValueError("logits have one column: calibration needs the logits of two or more classes.")
        if not len(z):
            raise ValueError("logits and labels are empty: pass at least one example.")
        warn_of_probabilities(z)
        if y.ndim == 2:
            return Rows(z, _arg_max_of_soft(y), y)
        ids = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
        if ids.dtype.kind not in "biuf" or not ((ids >= 0) & (ids < z.shape[1]) & (ids == np.floor(ids))).all():
            raise ValueError(f"labels must be class ids in 0..{z.shape[1] - 1}, one for each column of the logits.")
        return Rows(z, ids.astype(np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return int(self.logits.shape[1])

    def take(self, index: Ints) -> Rows:
        """The rows of these numbers."""
        return replace(
            self,
            labels=self.labels[index],
            index=index if self.index is None else self.index[index],
            divisor=None if self.divisor is None else self.divisor[index],
        )

    def divided_by(self, divisor: Floats) -> Rows:
        """The same with the logits of row i over divisor[i]."""
        return replace(self, divisor=divisor if self.divisor is None else self.divisor * divisor)

    def blocks(self) -> Iterator[Block]:
        """All rows in order, a block at a time.

        Raises:
            ValueError: for NaN or infinity.
        """
        for rows, z in logit_blocks(self.logits, self.index):
            if self.divisor is not None:
                z /= self.divisor[rows, None]
            taken = rows if self.index is None else self.index[rows]
            soft = None if self.soft is None else as_float64(self.soft[taken])
            yield Block(rows, z, self.labels[rows], soft)

    def whole(self) -> Floats:
        """All logits, [N, K] in float64."""
        return np.concatenate([block.logits for block in self.blocks()])


def logit_blocks(logits: NDArray[Any] | Tensor, index: Ints | None = None) -> Iterator[tuple[slice, Floats]]:
    """Rows of logits [N, K], or those of an index, a block at a time in float64.

    Raises:
        ValueError: for NaN or infinity.
    """
    for rows in _slices(len(logits) if index is None else len(index), int(logits.shape[1])):
        z = as_float64(logits[rows if index is None else index[rows]])
        if not np.isfinite(z).all():
            raise ValueError("logits hold NaN or infinity: the model that made them has diverged.")
        yield rows, z


def as_logits_and_labels(logits: Any, labels: Any) -> tuple[Floats, Ints]:
    """Check logits [N, K] and labels, and give them whole, in float64 and int64; of soft labels the arg max.

    Raises:
        ValueError: as `Rows.of`, and for NaN.
    """
    rows = Rows.of(logits, labels)
    return rows.whole(), rows.labels


def as_logits(logits: Any, num_classes: int | None = None) -> NDArray[Any] | Tensor:
    """Check the shape of logits without labels, and give them unconverted.

    Raises:
        ValueError: unless they are [N, K], with K the number of classes where that is given.
    """
    z = _as_given(logits)
    if z.ndim != 2 or num_classes not in (None, z.shape[1]):
        raise ValueError(f"logits of shape {tuple(z.shape)}: pass [N, {num_classes or 'K'}], as those fitted on.")
    warn_of_probabilities(z)
    return z


def as_float64(values: NDArray[Any] | Tensor) -> Floats:
    """A copy of an array or a tensor."""
    if isinstance(values, Tensor):
        values = values.detach().double().cpu().numpy()
    return np.array(values, dtype=np.float64)


def warn_of_probabilities(logits: NDArray[Any] | Tensor) -> None:
    """Warn where every row looks like probabilities; the first block that does not ends the search."""
    if len(logits) < 2:
        return
    for rows in _slices(len(logits), int(logits.shape[1])):
        z = as_float64(logits[rows])
        if not ((z >= 0).all() and np.allclose(z.sum(1), 1, atol=TOLERANCE)):
            return
    warnings.warn(
        "logits are non-negative and every row sums to 1, as probabilities do: pass what comes before the softmax.",
        UserWarning,
        stacklevel=_level_of_the_user(),
    )


def _arg_max_of_soft(labels: NDArray[Any] | Tensor) -> Ints:
    found = np.empty(len(labels), dtype=np.int64)
    for rows in _slices(len(labels), int(labels.shape[1])):
        given = as_float64(labels[rows])
        bad = ~((given >= 0).all(1) & (np.abs(given.sum(1) - 1) <= TOLERANCE))
        if bad.any():
            row = int(np.argmax(bad))
            is_sum = bool((given[row] >= 0).all())
            fault = f"sums to {given[row].sum():g}" if is_sum else f"holds {given[row][~(given[row] >= 0)][0]:g}"
            raise ValueError(
                f"labels: row {rows.start + row} {fault}, and a row of "
                "soft labels is one distribution: divide votes by their sum; several classes at once (multi-hot rows) "
                "have no calibration of this kind."
            )
        found[rows] = given.argmax(1)
    return found


def _slices(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, BLOCK // max(columns, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _as_given(values: Any) -> NDArray[Any] | Tensor:
    return values if isinstance(values, Tensor) else np.asarray(values)


def _level_of_the_user() -> int:
    """The ``stacklevel`` with which the caller's warning points at the first line outside of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "hf_logitmix":
        frame, level = frame.f_back, level + 1
    return level
