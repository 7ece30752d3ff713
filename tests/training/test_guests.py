"""Losses that are not the method's: of somebody else's Trainer, and of the model itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Trainer
from transformers.modeling_outputs import SequenceClassifierOutput

from helpers.data import data_without_types
from helpers.models import tiny_bert
from helpers.training import InOrder, Ordered, arguments, collate_pairs, loss_by_hand, weights
from hf_logitmix import MixTrainer, MixTrainerMixin, get_method


class Weighted(Trainer):
    """The usual recipe for class weights, which never asks for another loss."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 2.0, 3.0]))
        return (loss, outputs) if return_outputs else loss


def test_a_loss_that_would_never_be_called_is_refused_where_the_class_is_defined():
    with pytest.raises(TypeError, match=r"Weighted\.compute_loss .* never be called .* put it in front"):

        class Behind(MixTrainerMixin, Weighted):
            pass

    with pytest.raises(TypeError, match=r"MixTrainerMixin behind Trainer"):

        class WrongOrder(Trainer, MixTrainerMixin):
            pass


class LossOfItsOwn(Weighted, MixTrainer):
    pass


class StepOfItsOwn(MixTrainer):
    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        loss = model(**inputs).loss
        loss.backward()
        return loss.detach()


@pytest.mark.parametrize("cls", [LossOfItsOwn, StepOfItsOwn])
def test_training_without_the_methods_loss_stops_before_the_first_update(tmp_path, cls):
    model = tiny_bert()
    trainer = cls(model, arguments(tmp_path), method="logitmix", train_dataset=data_without_types(8))
    with pytest.raises(RuntimeError, match=rf"{cls.__name__} .* train without its method"):
        trainer.train()
    assert torch.equal(weights(model), weights(tiny_bert()))


class AddsATerm(Ordered, MixTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss = loss + 0.1 * model.classifier.weight.square().sum()
        return (loss, outputs) if return_outputs else loss


def test_a_subclass_may_add_a_term(tmp_path):
    rows, model = data_without_types(8), tiny_bert()
    expected = loss_by_hand("logitmix", model, rows).item() + 0.1 * model.classifier.weight.square().sum().item()
    trainer = AddsATerm(model, arguments(tmp_path, max_steps=1), collate_pairs, method="logitmix", train_dataset=rows)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, abs=5e-5)


class WithPenalty(nn.Module):
    """A classifier that returns, beside its logits, the size of its pooled vectors as a loss."""

    def __init__(self):
        super().__init__()
        self.bert = tiny_bert()
        self.config = self.bert.config
        self.get_input_embeddings = self.bert.get_input_embeddings

    def penalty(self, **inputs):
        return 0.1 * self.bert.bert(**inputs).pooler_output.square().mean()

    def forward(self, input_ids, attention_mask, labels=None):
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        output = SequenceClassifierOutput(logits=self.bert(**inputs).logits)
        output["aux_loss"] = self.penalty(**inputs)
        return output


@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (4, 2), (3, 3)])
def test_a_loss_that_the_model_returns_is_trained_on(tmp_path, batch, accumulation):
    """Two steps of a loop by hand, cross-entropy and penalty of 8 examples each; 3 x 3 leaves a micro-batch of two."""
    rows, by_hand = data_without_types(8), WithPenalty()
    inputs = {key: torch.stack([row[key] for row in rows]) for key in ("input_ids", "attention_mask")}
    labels, losses = torch.tensor([row["labels"] for row in rows]), []
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.05)
    for _ in range(2):
        penalties = [by_hand.penalty(**{k: v[i : i + 1] for k, v in inputs.items()}) for i in range(8)]
        loss = F.cross_entropy(by_hand.bert(**inputs).logits, labels) + sum(penalties) / 8
        losses.append((loss.item(), (sum(penalties) / 8).item()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model = WithPenalty()
    options = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 2}
    trainer = InOrder(model, arguments(tmp_path, **options), method="vanilla", train_dataset=rows)
    trainer.train()
    log = [(entry["loss"], entry["aux_loss"]) for entry in trainer.state.log_history if "loss" in entry]
    np.testing.assert_allclose(log, losses, atol=2e-5)
    torch.testing.assert_close(weights(model), weights(by_hand), atol=2e-5, rtol=0)


def test_class_weights_are_a_matrix_of_targets(tmp_path):
    """Against torch's own weighted cross-entropy, as a sum over examples that is divided by their number."""
    rows, weight = data_without_types(8), torch.tensor([1.0, 2.0, 0.5])
    inputs = {key: torch.stack([row[key] for row in rows]) for key in ("input_ids", "attention_mask")}
    labels = torch.tensor([row["labels"] for row in rows])
    expected = F.cross_entropy(tiny_bert()(**inputs).logits, labels, weight=weight, reduction="sum") / 8
    method = get_method("vanilla", targets=torch.diag(weight))
    trainer = InOrder(tiny_bert(), arguments(tmp_path, max_steps=1), method=method, train_dataset=rows)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.item(), abs=2e-5)
