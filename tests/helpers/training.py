"""Training that a loop by hand can follow: plain SGD, examples in order, plans that the batches bring."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F
from transformers import TrainingArguments, default_data_collator

from helpers.data import batch_of, data_without_types, soft_mask
from hf_logitmix import MixTrainer

LEARNING_RATE = 0.05


def arguments(folder, cls=TrainingArguments, **options) -> TrainingArguments:
    """Plain SGD without clipping, so that weights after training are gradients added up."""
    fixed = {
        "output_dir": str(folder),
        "optim": "sgd",
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "max_steps": 3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "per_device_train_batch_size": 8,
        "use_cpu": True,
    }
    return cls(**{**fixed, **options})


class Ordered:
    """Takes the examples as they come, so that a loop by hand sees the same batches."""

    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(self.train_dataset)


class InOrder(Ordered, MixTrainer):
    pass


def collate_pairs(features):
    """A plan inside each two examples: they meet each other with lam 0.2 and 0.7."""
    batch = default_data_collator(features)
    size = len(features)
    batch["partner"] = torch.tensor([i ^ 1 if i ^ 1 < size else i for i in range(size)])
    batch["lam"] = torch.tensor([0.2, 0.7]).repeat(math.ceil(size / 2))[:size]
    return batch


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def loss_by_hand(method: str, model, rows: list[dict], masks=soft_mask) -> torch.Tensor:
    """Separate forwards through inputs_embeds, without token types, and losses written out."""
    batch = batch_of(rows)
    labels = torch.tensor([row["labels"] for row in rows])
    partner = torch.tensor([i ^ 1 if i ^ 1 < len(rows) else i for i in range(len(rows))])
    lam = torch.tensor([0.2, 0.7]).repeat(math.ceil(len(rows) / 2))[: len(rows), None]
    clean = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    if method == "vanilla":
        return F.cross_entropy(clean, labels)
    if method == "label_smoothing":
        return F.cross_entropy(clean, labels, label_smoothing=0.1)
    if method == "infogain":
        counts = [sum(row["labels"] == k for row in data_without_types(18)) for k in range(3)]
        weight = torch.tensor([min(counts) / count for count in counts])[labels]
        return (weight * F.cross_entropy(clean, labels, reduction="none")).mean()
    words = model.get_input_embeddings()(batch["input_ids"])
    mixed = model(
        inputs_embeds=lam[:, None] * words + (1 - lam[:, None]) * words[partner],
        attention_mask=masks(batch["attention_mask"], partner, lam),
    ).logits
    own, other = (
        F.cross_entropy(mixed, labels, reduction="none"),
        F.cross_entropy(mixed, labels[partner], reduction="none"),
    )
    mix = (lam[:, 0] * own + (1 - lam[:, 0]) * other).mean()
    if method == "mixup":
        return mix
    similarity = (lam * clean + (1 - lam) * clean[partner] - mixed).square().mean()
    return mix + F.cross_entropy(clean, labels) + similarity
