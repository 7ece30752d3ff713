"""Tiny models and batches; nothing here needs a network."""

from __future__ import annotations

import gc
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, ViTConfig, ViTForImageClassification

VOCABULARY = 60


@pytest.fixture(scope="module", autouse=True)
def _quick_collections():
    """Every training run starts with a garbage collection, which need not walk through all that was imported so far."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _unfreeze_at_the_end():
    yield
    gc.unfreeze()


def tiny_bert(num_labels: int = 3, seed: int = 0, dropout: float = 0.0, **options) -> BertForSequenceClassification:
    """A random BERT whose outputs differ well between inputs."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=32,
        num_labels=num_labels,
        initializer_range=0.3,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **options,
    )
    return BertForSequenceClassification(config)


def tiny_vit(num_labels: int = 3) -> ViTForImageClassification:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=16,
        patch_size=8,
        num_labels=num_labels,
        initializer_range=0.3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return ViTForImageClassification(config)


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
