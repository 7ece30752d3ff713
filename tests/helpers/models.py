"""Tiny models, random and quick."""

from __future__ import annotations

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

VOCABULARY = 60


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


def tiny_vit(num_labels: int = 3, seed: int = 0, dropout: float = 0.0, **options) -> ViTForImageClassification:
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=16,
        patch_size=8,
        num_labels=num_labels,
        initializer_range=0.3,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **options,
    )
    return ViTForImageClassification(config)


def tiny_resnet():
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    return ResNetForImageClassification(config)


def bert_from(model: nn.Module, hidden: torch.Tensor, layer: int, mask: torch.Tensor) -> torch.Tensor:
    """The rest of BERT by hand, from the output of a layer."""
    additive = torch.where(mask[:, None, None, :].bool(), 0.0, torch.finfo(torch.float32).min)
    for block in model.bert.encoder.layer[layer:]:
        output = block(hidden, additive)
        hidden = output if isinstance(output, torch.Tensor) else output[0]
    return model.classifier(model.bert.pooler(hidden))
