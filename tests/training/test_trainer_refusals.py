"""What MixTrainer refuses before the first step, in one sentence that names the argument."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import IterableDataset
from transformers import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForTokenClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
)

from helpers.data import Lazy, data_without_types, examples
from helpers.models import tiny_bert
from helpers.training import arguments
from hf_logitmix import Method, MixTrainer, MixTrainerMixin, MixTrainingArguments, get_method
from hf_logitmix.mixing import Linear


def labelled(*labels):
    return [{**row, "labels": label} for row, label in zip(examples(len(labels)), labels, strict=True)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mixpu"}, "method='mixpu' is unknown"),
        ({"method": "cutmix"}, "CutMix.* is for images and .* reads text"),
        ({"method": "logitmix_c"}, "CutMix.* is for images and .* reads text"),
        ({"compute_loss_func": lambda *args, **kwargs: None}, "compute_loss_func"),
        ({"train_dataset": []}, "train_dataset is empty"),
        ({"eval_dataset": {"mm": []}}, "eval_dataset mm is empty"),
        ({"train_dataset": labelled(0, 1, 3)}, r"label 3 of example 2 is outside 0\.\.2.*num_labels=3"),
        ({"train_dataset": labelled(0, -1)}, "label -1 of example 1"),
        ({"train_dataset": labelled(0.0, float("nan"))}, "label nan of example 1"),
        ({"eval_dataset": labelled(0, 7)}, "eval_dataset: label 7"),
        ({"train_dataset": Dataset.from_dict({"input_ids": [[5], [6]], "label": [0, 9]})}, "label 9 of example 1"),
    ],
)
def test_refused_at_once(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        MixTrainer(model=tiny_bert(), args=arguments(tmp_path), **options)


def test_absent_classes_are_fine(tmp_path):
    MixTrainer(model=tiny_bert(), args=arguments(tmp_path), train_dataset=labelled(0, 0, 1))


@pytest.mark.parametrize("label", [5, -100])
def test_labels_of_lazy_datasets_are_refused_in_their_batch(tmp_path, label):
    model = tiny_bert()
    before = [parameter.clone() for parameter in model.parameters()]
    trainer = MixTrainer(model=model, args=arguments(tmp_path), train_dataset=Lazy(labelled(0, 1, label)))
    with pytest.raises(ValueError, match=f"label {label} of example"):
        trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("label", [np.nan, np.inf])
def test_regression_refuses_labels_that_are_no_numbers(tmp_path, label):
    with pytest.raises(ValueError, match="not a finite number"):
        MixTrainer(model=tiny_bert(1), args=arguments(tmp_path), train_dataset=labelled(0.5, label))


def test_regression_refuses_smoothing_and_several_outputs(tmp_path):
    with pytest.raises(ValueError, match="rows for classes and this is regression"):
        MixTrainer(model=tiny_bert(1), args=arguments(tmp_path), method="label_smoothing")
    with pytest.raises(ValueError, match="regression with num_labels=3"):
        MixTrainer(model=tiny_bert(3, problem_type="regression"), args=arguments(tmp_path))


def test_data_parallel_is_refused(tmp_path):
    args = arguments(tmp_path)
    args._n_gpu = 2
    with pytest.raises(ValueError, match=r"n_gpu=2.*torchrun"):
        MixTrainer(model=tiny_bert(), args=args)


def test_pooled_logitmix_warns_on_a_linear_head_only(tmp_path, recwarn):
    pooled = get_method("logitmix", level="pooled")
    with pytest.warns(UserWarning, match="similarity loss is zero"):
        MixTrainer(model=tiny_bert(), args=arguments(tmp_path), method=pooled)
    config = RobertaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=3)
    recwarn.clear()
    MixTrainer(model=RobertaForSequenceClassification(config), args=arguments(tmp_path), method=pooled)
    MixTrainer(model=tiny_bert(), args=arguments(tmp_path), method=get_method("mixup", level="pooled"))
    assert not [warning for warning in recwarn if "similarity loss" in str(warning.message)]


def test_a_batch_without_labels_or_with_half_a_plan_is_refused(tmp_path):
    trainer = MixTrainer(model=tiny_bert().train(), args=arguments(tmp_path))
    with pytest.raises(ValueError, match="no `labels`"):
        trainer.compute_loss(trainer.model, {"input_ids": torch.ones(2, 3, dtype=torch.long)})
    with pytest.raises(ValueError, match="brings partner alone: pass both `partner` and `lam`"):
        trainer.compute_loss(trainer.model, {"partner": torch.tensor([1, 0])})


def test_hidden_levels_refuse_checkpointed_layers(tmp_path):
    trainer = MixTrainer(
        model=tiny_bert(),
        args=arguments(tmp_path, gradient_checkpointing=True),
        method=get_method("mixup", level="hidden:1"),
        train_dataset=examples(4),
    )
    with pytest.raises(ValueError, match="activation checkpointing"):
        trainer.train()


@pytest.mark.parametrize(
    ("model", "task"),
    [
        (BertForMultipleChoice, "multiple choice"),
        (BertForTokenClassification, "token classification"),
        (BertForQuestionAnswering, "question answering"),
        (BertForMaskedLM, "masked language modelling"),
    ],
)
def test_other_heads_are_refused(tmp_path, model, task):
    with pytest.raises(ValueError, match=f"{model.__name__} is a model for {task}.*transformers.Trainer"):
        MixTrainer(model=model(tiny_bert().config), args=arguments(tmp_path), method="vanilla")


class BringsItsOwnLoss(Trainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, compute_loss_func=lambda outputs, labels, **rest: outputs.logits.sum(), **kwargs)


class InFront(MixTrainerMixin, BringsItsOwnLoss):
    pass


def test_a_loss_function_that_a_subclass_brings_is_refused_too(tmp_path):
    with pytest.raises(ValueError, match="compute_loss_func"):
        InFront(model=tiny_bert(), args=arguments(tmp_path))


def test_mixing_that_the_objective_would_ignore_is_refused(tmp_path):
    with pytest.raises(ValueError, match="would have no effect"):
        MixTrainer(model=tiny_bert(), args=arguments(tmp_path), method=Method(mixing=Linear()))


def test_a_ramp_needs_the_whole_batch():
    with pytest.raises(ValueError, match=r"mix_fraction=0\.5"):
        get_method("logitmix", warmup="ramp", mix_fraction=0.5)


@pytest.mark.parametrize("given", ["logitmix", get_method("logitmix", alpha=1.0)], ids=["name", "object"])
def test_two_methods_are_an_error(tmp_path, given):
    """Whose options would the alpha of the arguments be?"""
    args = arguments(tmp_path, cls=MixTrainingArguments, method="mixup", alpha=0.4)
    with pytest.raises(ValueError, match=r"method=.* and args\.method='mixup' name two methods"):
        MixTrainer(tiny_bert(), args, method=given, train_dataset=data_without_types(8))
    same = arguments(tmp_path, cls=MixTrainingArguments, method="mixup", alpha=0.7)
    assert MixTrainer(tiny_bert(), same, method="mixup").method.pairing.lam.alpha == 0.7


class Numbers(IterableDataset):
    def __iter__(self):
        return iter(data_without_types(4))


@pytest.mark.parametrize("data", [data_without_types(4), Numbers()], ids=["list", "stream"])
def test_batches_of_one_cannot_be_mixed(tmp_path, data):
    args = arguments(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=4, max_steps=1)
    trainer = MixTrainer(tiny_bert(), args, method="logitmix", train_dataset=data)
    with pytest.raises(ValueError, match=r"per_device_train_batch_size=1: .* nothing would be mixed"):
        trainer.train()
    MixTrainer(tiny_bert(), args, method="label_smoothing", train_dataset=data).train()


def test_a_last_batch_of_one_is_told(tmp_path, caplog):
    """Nine examples in batches of four leave one, which is trained on as it is."""
    args = arguments(tmp_path, per_device_train_batch_size=4, max_steps=1)
    for method, data, is_told in (("mixup", 9, True), ("mixup", 10, False), ("vanilla", 9, False)):
        caplog.clear()
        MixTrainer(tiny_bert(), args, method=method, train_dataset=data_without_types(data)).train()
        assert ("meets itself" in caplog.text) is is_told
