"""Soft labels for the tiny models: rows of three probabilities."""

from __future__ import annotations

import torch

from helpers.data import data_without_types


def soft_rows(count: int, seed: int = 0) -> torch.Tensor:
    """Random rows that sum to 1, [count, 3]."""
    rows = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) ** 2 + 0.01
    return rows / rows.sum(1, keepdim=True)


def with_labels(rows: list[dict], labels: torch.Tensor) -> list[dict]:
    return [{**row, "labels": label} for row, label in zip(rows, labels, strict=True)]


def soft_data(count: int) -> list[dict]:
    """Texts of unequal length with soft labels."""
    return with_labels(data_without_types(count), soft_rows(count))
