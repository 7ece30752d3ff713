"""Small data for the tiny models, and batches of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from helpers.models import VOCABULARY


def examples(count: int, num_labels: int = 3, length: int = 9, seed: int = 0) -> list[dict]:
    """Sentences of unequal length, padded on the right to one length, in two segments."""
    generator = torch.Generator().manual_seed(seed)
    data = []
    for number in range(count):
        used = length - number % 4
        ids = torch.randint(3, VOCABULARY, (length,), generator=generator)
        ids[used:] = 0
        mask = (torch.arange(length) < used).long()
        types = (torch.arange(length) >= used // 2).long() * mask
        label = int(torch.randint(0, num_labels, (1,), generator=generator))
        data.append({"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "labels": label})
    return data


def random_images(count: int) -> list[dict]:
    """For `tiny_vit`, in three classes."""
    generator = torch.Generator().manual_seed(0)
    return [{"pixel_values": torch.rand(3, 16, 16, generator=generator), "labels": i % 3} for i in range(count)]


def batch_of(data: list[dict]) -> dict[str, torch.Tensor]:
    """The inputs of some examples, without labels."""
    return {name: torch.stack([example[name] for example in data]) for name in data[0] if name != "labels"}


def soft_mask(mask: torch.Tensor, partner: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
    """What a mixed row adds to the scores of BERT's attention: log(lam m + (1 - lam) m_partner), [B, 1, 1, L]."""
    lowest = torch.finfo(torch.float32).min
    return (lam * mask + (1 - lam) * mask[partner]).log().clamp_min(lowest)[:, None, None]


def real(variable: str) -> Path:
    """The folder that an environment variable names; the test is skipped without it."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    return Path(value)


class Lazy(Dataset):
    """Examples that exist only when they are asked for."""

    def __init__(self, rows):
        self._rows = rows

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index):
        return self._rows[index]


def data_without_types(count: int) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "token_type_ids"} for row in examples(count)]
