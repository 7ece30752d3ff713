"""MixTrainer against hand-written training loops, and as a drop-in for Trainer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F
from transformers import (
    Trainer,
    TrainerCallback,
    default_data_collator,
)

from helpers.data import batch_of, data_without_types, examples, soft_mask
from helpers.models import tiny_bert, tiny_vit
from helpers.training import LEARNING_RATE, InOrder, Ordered, arguments, collate_pairs, loss_by_hand, weights
from hf_logitmix import Method, MixCollator, MixTrainer, MixTrainerMixin, MixTrainingArguments, get_method
from hf_logitmix.metrics import calibration_of
from hf_logitmix.mixing import Linear
from hf_logitmix.objectives import Mixed
from hf_logitmix.pairing import Beta, RandomPairs
from hf_logitmix.targets import LabelSmoothing, OneHot

METHODS = ["vanilla", "label_smoothing", "infogain", "mixup", "logitmix"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (2, 4)])
def test_equals_a_loop_by_hand(tmp_path, method, batch, accumulation):
    """18 examples: the third step holds two, and then an accumulated step is not full."""
    data, by_hand = data_without_types(18), tiny_bert()
    losses = []
    for start in (0, 8, 16):
        loss = loss_by_hand(method, by_hand, data[start : start + 8])
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(by_hand.parameters(), gradients, strict=True):
                parameter -= LEARNING_RATE * gradient
    model = tiny_bert()
    trainer = InOrder(
        model=model,
        args=arguments(tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation),
        method=method,
        train_dataset=data,
        data_collator=collate_pairs,
    )
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx(losses, abs=2e-5)
    torch.testing.assert_close(weights(model), weights(by_hand), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["logitmix", "label_smoothing"])
def test_evaluation_is_unmixed_with_the_plain_loss(tmp_path, method):
    data, model = examples(10), tiny_bert()
    collator = MixCollator(default_data_collator, method)
    trainer = MixTrainer(
        model=model,
        args=arguments(tmp_path, per_device_eval_batch_size=10),
        method=method,
        eval_dataset=data,
        data_collator=collator,
        compute_metrics=calibration_of(),
    )
    metrics = trainer.evaluate()
    with torch.no_grad():
        logits = model.eval()(**batch_of(data)).logits
    labels = torch.tensor([row["labels"] for row in data])
    assert metrics["eval_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-5)
    assert metrics["eval_nll"] == pytest.approx(metrics["eval_loss"], abs=1e-5)
    np.testing.assert_allclose(trainer.predict(data).predictions, logits, atol=1e-5)


def test_label_smoothing_factor_becomes_the_targets(tmp_path):
    smooth = arguments(tmp_path, label_smoothing_factor=0.2)
    trainer = MixTrainer(model=tiny_bert(), args=smooth, method="mixup")
    assert trainer.method.targets == LabelSmoothing(0.2)
    assert trainer.label_smoother is None
    with pytest.raises(ValueError, match=r"label_smoothing_factor=0\.2"):
        MixTrainer(model=tiny_bert(), args=smooth, method="label_smoothing")


def test_method_comes_from_the_argument_or_the_args_or_is_logitmix(tmp_path):
    args = arguments(tmp_path, MixTrainingArguments, method="mixup", alpha=0.7)
    assert MixTrainer(model=tiny_bert(), args=args).method == get_method("mixup", alpha=0.7)
    assert MixTrainer(model=tiny_bert(), args=arguments(tmp_path)).method == get_method("logitmix")
    own = Method(Linear(), Mixed(), OneHot(), pairing=RandomPairs(lam=Beta(2.0)))
    assert MixTrainer(model=tiny_bert(), args=arguments(tmp_path), method=own).method is own


@pytest.mark.parametrize("method", ["vanilla", "mixup", "logitmix"])
def test_regression_and_multi_label_equal_a_loop_by_hand(tmp_path, method):
    rows = data_without_types(4)
    partner, lam = torch.tensor([1, 0, 3, 2]), torch.tensor([0.2, 0.7, 0.2, 0.7])[:, None]
    batch = batch_of(rows)
    multi_hot = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]])
    for problem, num_labels, targets in (
        ("regression", 1, torch.tensor([[0.5], [-1.0], [2.0], [3.5]])),
        ("multi_label_classification", 3, multi_hot),
    ):
        model = tiny_bert(num_labels, problem_type=problem)
        data = [{**row, "labels": y.squeeze() if num_labels == 1 else y} for row, y in zip(rows, targets, strict=True)]
        loss_of = F.mse_loss if num_labels == 1 else F.binary_cross_entropy_with_logits
        with torch.no_grad():
            clean = model(**batch).logits
            words = model.get_input_embeddings()(batch["input_ids"])
            mixed = model(
                inputs_embeds=lam[:, None] * words + (1 - lam[:, None]) * words[partner],
                attention_mask=soft_mask(batch["attention_mask"], partner, lam),
            ).logits
            parts = {
                "vanilla": loss_of(clean, targets),
                "mixup": loss_of(mixed, lam * targets + (1 - lam) * targets[partner]),
            }
            sim = (lam * clean + (1 - lam) * clean[partner] - mixed).square().mean()
            parts["logitmix"] = parts["vanilla"] + parts["mixup"] + sim
        trainer = InOrder(
            model=model,
            args=arguments(tmp_path, per_device_train_batch_size=4, max_steps=1),
            method=method,
            train_dataset=data,
            data_collator=collate_pairs,
        )
        trainer.train()
        assert trainer.state.log_history[0]["loss"] == pytest.approx(parts[method].item(), abs=2e-5)


class Counting(TrainerCallback):
    def __init__(self):
        self.steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1


class DoublingTrainer(Trainer):
    """Somebody else's Trainer: a loss of its own making around the one below it, and a sampler hook."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        return (2 * loss, outputs) if return_outputs else 2 * loss

    def log(self, logs, start_time=None):
        super().log({**logs, "theirs": 1.0}, start_time)


class Logging(Trainer):
    """Somebody else's Trainer without a loss of its own."""

    def log(self, logs, start_time=None):
        super().log({**logs, "theirs": 1.0}, start_time)


class MixedLogging(Ordered, MixTrainerMixin, Logging):
    pass


class DoubledMix(Ordered, DoublingTrainer, MixTrainer):
    pass


def test_mixin_goes_in_front_of_another_trainer_and_behind(tmp_path):
    rows, counter = data_without_types(8), Counting()
    expected = loss_by_hand("logitmix", tiny_bert(), rows).item()
    for cls, factor in ((MixedLogging, 1), (DoubledMix, 2)):
        trainer = cls(
            model=tiny_bert(),
            args=arguments(tmp_path, max_steps=1, per_device_train_batch_size=8),
            method="logitmix",
            train_dataset=rows,
            data_collator=collate_pairs,
            callbacks=[counter],
        )
        trainer.train()
        assert trainer.state.log_history[0]["loss"] == pytest.approx(factor * expected, abs=5e-5)
        assert trainer.state.log_history[0]["theirs"] == 1.0
    assert counter.steps == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mix_collator_serves_the_trainer_whatever_the_workers(tmp_path, workers):
    trainer = InOrder(
        model=tiny_bert(),
        args=arguments(tmp_path, dataloader_num_workers=workers, per_device_train_batch_size=3, max_steps=4),
        method="logitmix",
        train_dataset=data_without_types(10),
        data_collator=MixCollator(default_data_collator, "logitmix", seed=5),
    )
    trainer.train()
    lams = [entry["lam_mean"] for entry in trainer.state.log_history if "loss" in entry]
    collator = MixCollator(default_data_collator, "logitmix", seed=5)
    rows = data_without_types(10)
    expected = [collator(rows[start : start + 3])["lam"].mean().item() for start in (0, 3, 6, 9)]
    assert lams == pytest.approx(expected, abs=1e-6)
    assert len(set(lams)) == 4


@pytest.mark.parametrize(
    ("drawn_for", "trained", "is_told"),
    [
        ("logitmix", "logitmix", False),
        ("mixup", get_method("mixup", level="hidden:1"), False),  # the level is no matter of the collator
        ("mixup", get_method("mixup", alpha=0.3), True),
        ("vanilla", "mixup", True),
        ("mixup", "vanilla", False),  # which asks for no plan
    ],
)
def test_a_collator_that_draws_otherwise_than_the_method_is_named(tmp_path, recwarn, drawn_for, trained, is_told):
    collator = MixCollator(default_data_collator, drawn_for)
    MixTrainer(tiny_bert(), arguments(tmp_path), collator, train_dataset=examples(4), method=trained)
    told = [str(one.message) for one in recwarn if "MixCollator draws partners and lam by" in str(one.message)]
    assert len(told) == is_told


def test_images_train_with_the_same_trainer(tmp_path):
    generator = torch.Generator().manual_seed(0)
    data = [{"pixel_values": torch.rand(3, 16, 16, generator=generator), "labels": i % 3} for i in range(8)]
    model = tiny_vit()
    lam = torch.tensor([0.2, 0.7] * 4)[:, None, None, None]
    pixels, labels = torch.stack([row["pixel_values"] for row in data]), torch.tensor([row["labels"] for row in data])
    partner = torch.arange(8) ^ 1
    with torch.no_grad():
        mixed = model(pixel_values=lam * pixels + (1 - lam) * pixels[partner]).logits
    rows = lam.reshape(8, 1) * F.one_hot(labels, 3) + (1 - lam.reshape(8, 1)) * F.one_hot(labels[partner], 3)
    expected = -(rows * mixed.log_softmax(-1)).sum(-1).mean().item()
    trainer = InOrder(
        model=model,
        args=arguments(tmp_path, max_steps=1),
        method="mixup",
        train_dataset=data,
        data_collator=collate_pairs,
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-5)


def test_streamed_text_labels_and_columns_train_as_they_do_in_trainer(tmp_path):
    """A stream, labels that a collator makes from texts, and labels of shape [B, 1]: the same losses as plain rows."""
    rows = data_without_types(8)

    def from_texts(features):
        return collate_pairs([{**f, "labels": int(f["labels"].removeprefix("class "))} for f in features])

    plain = [{name: value.tolist() if name != "labels" else value for name, value in row.items()} for row in rows]
    streamed = Dataset.from_list(plain).to_iterable_dataset().with_format("torch")
    texts = [{**row, "labels": f"class {row['labels']}"} for row in rows]
    columns = [{**row, "labels": [row["labels"]]} for row in rows]
    losses = []
    for data in (rows, streamed, texts, columns):
        options = {"remove_unused_columns": False, "max_steps": 1}
        cls = MixTrainer if data is streamed else InOrder
        trainer = cls(
            model=tiny_bert(),
            args=arguments(tmp_path, **options),
            method="logitmix",
            train_dataset=data,
            data_collator=from_texts if data is texts else collate_pairs,
        )
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses == pytest.approx([losses[0]] * 4, abs=1e-6)


def test_multi_hot_labels_make_a_multi_label_model(tmp_path):
    """As transformers does in its own forward; otherwise a pipeline would apply a softmax."""
    data = [{**row, "labels": torch.tensor([1.0, 0.0, 1.0])} for row in data_without_types(4)]
    whole = [{**row, "labels": [1, 0, 1]} for row in data]
    for method in ("vanilla", "logitmix"):
        losses = []
        for rows in (data, whole):  # numbers or integers
            model, args = tiny_bert(), arguments(tmp_path, max_steps=1)
            trainer = MixTrainer(model=model, args=args, method=method, train_dataset=rows, eval_dataset=rows)
            with torch.no_grad():
                logits = model(**batch_of(data)).logits
            expected = F.binary_cross_entropy_with_logits(logits, torch.tensor([[1.0, 0.0, 1.0]] * 4)).item()
            assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5)
            trainer.train()
            assert model.config.problem_type == "multi_label_classification"
            losses.append(trainer.evaluate()["eval_loss"])
        assert losses[0] < expected
    with pytest.raises(ValueError, match="multi_label_classification"):
        MixTrainer(model=tiny_bert(), args=arguments(tmp_path), method="label_smoothing", train_dataset=data)


def test_terms_of_one_run_do_not_enter_the_log_of_the_next(tmp_path):
    trainer = InOrder(
        model=tiny_bert(),
        args=arguments(tmp_path, logging_steps=2, learning_rate=0.0),
        method="logitmix",
        train_dataset=data_without_types(24),
        data_collator=collate_pairs,
    )
    trainer.train()  # three steps; the third is never logged
    trainer.train()
    again = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    assert again["loss"] == pytest.approx(again["mix"] + again["cls"] + again["sim"], abs=1e-5)


@pytest.mark.parametrize("search", [False, True])
def test_arguments_that_are_changed_before_training_count(tmp_path, search):
    """As after a hyperparameter search, whose best values are set by hand."""
    args = arguments(tmp_path, cls=MixTrainingArguments, method="mixup", alpha=0.4)
    trainer = MixTrainer(model_init=lambda: tiny_bert(), args=args, train_dataset=data_without_types(16))
    if search:
        trainer.train()
    trainer.args.alpha = 5.0
    trainer.train()
    assert trainer.method.pairing.lam.alpha == 5.0


@pytest.mark.parametrize("method", METHODS)
def test_a_step_outside_of_train_has_the_loss_of_the_method(tmp_path, method):
    """For a loop of one's own around `training_step`; nothing but the gradients is left behind."""
    rows, model = data_without_types(8), tiny_bert()
    trainer = MixTrainer(model=model, args=arguments(tmp_path), method=method, train_dataset=data_without_types(18))
    loss = trainer.compute_loss(model.train(), collate_pairs(rows))
    assert loss.item() == pytest.approx(loss_by_hand(method, tiny_bert(), rows).item(), abs=2e-5)
    assert not list(tmp_path.iterdir())
