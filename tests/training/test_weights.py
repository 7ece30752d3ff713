"""Weights of classes and of examples: against scikit-learn, and training against a loop by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F
from transformers import default_data_collator

from helpers.data import batch_of, data_without_types, soft_mask
from helpers.models import tiny_bert
from helpers.parts import data_of, new_model
from helpers.training import LEARNING_RATE, InOrder, arguments, weights
from hf_logitmix import MixTrainer, get_method
from hf_logitmix.weights import balanced

OF_CLASS = (1.0, 2.0, 0.5)
OF_EXAMPLE = [0.2, 1.0, 3.0, 0.0, 1.5, 0.7, 2.0, 0.4, 1.0, 0.3, 2.5, 1.1, 0.6, 1.9, 0.8, 1.2]
PARTNER, LAM = torch.arange(16) ^ 1, torch.tensor([0.2, 0.7]).repeat(8)


def rows_of(count: int = 16) -> list[dict]:
    return [
        {**row, "sample_weight": weight} for row, weight in zip(data_without_types(count), OF_EXAMPLE, strict=False)
    ]


def by_hand(model, rows: list[dict], mixes: bool, of_example: torch.Tensor, eps: float = 0.0) -> torch.Tensor:
    """The loss of each example in a loop, each label of a mixed one with its own weight; the mean over examples."""
    batch = batch_of([{k: v for k, v in row.items() if k != "sample_weight"} for row in rows])
    labels = [row["labels"] for row in rows]
    target = [F.one_hot(torch.tensor(y), 3) * (1 - eps) + eps / 3 for y in labels]
    if mixes:
        words, lam = model.get_input_embeddings()(batch["input_ids"]), LAM[: len(rows), None]
        partner = PARTNER[: len(rows)]
        logits = model(
            inputs_embeds=lam[:, None] * words + (1 - lam[:, None]) * words[partner],
            attention_mask=soft_mask(batch["attention_mask"], partner, lam),
        ).logits
    else:
        logits = model(**batch).logits
    total = 0.0
    for i, row in enumerate(logits):
        log_p = row - row.logsumexp(0)
        for j, share in ((i, LAM[i]), (i ^ 1, 1 - LAM[i])) if mixes else ((i, 1.0),):
            total = total - share * of_example[j] * (target[j] * log_p).sum()
    return total / len(rows)


def collate(features):
    """A plan inside each two examples, with a lam that the place in the whole batch decides."""
    size = len(features)
    return {**default_data_collator(features), "partner": torch.arange(size) ^ 1, "lam": LAM[:size]}


def trained(
    tmp_path, rows, method, accumulation: int, mixes: bool, **options
) -> tuple[torch.Tensor, float, MixTrainer]:
    args = arguments(
        tmp_path,
        max_steps=1,
        per_device_train_batch_size=16 // accumulation,
        gradient_accumulation_steps=accumulation,
        **options,
    )
    given = {"data_collator": collate} if mixes else {}
    trainer = InOrder(tiny_bert(), args, method=method, train_dataset=rows, **given)
    trainer.train()
    return weights(trainer.model), trainer.state.log_history[0]["loss"], trainer


@pytest.mark.parametrize("counts", [(5, 5, 4), (1, 2, 97), (3, 3)])
def test_balanced_weights_are_those_of_scikit_learn(counts):
    labels = [k for k, count in enumerate(counts) for _ in range(count)]
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    assert balanced(torch.tensor(counts)) == pytest.approx(expected.tolist())


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("mixes", [False, True], ids=["vanilla", "mixup"])
@pytest.mark.parametrize("kind", ["class", "example", "both"])
@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_a_step_of_training_is_the_loop_by_hand(tmp_path, accumulation, mixes, kind, eps):
    """Loss and weights, with micro-batches too, and with label smoothing."""
    rows, labels = rows_of(), torch.tensor([row["labels"] for row in rows_of()])
    of_class = torch.tensor(OF_CLASS)[labels] if kind != "example" else torch.ones(16)
    of_example = torch.tensor(OF_EXAMPLE) if kind != "class" else torch.ones(16)
    model = tiny_bert()
    loss = by_hand(model, rows, mixes, of_class * of_example, eps)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= LEARNING_RATE * parameter.grad
    if kind == "class":
        rows = [{k: v for k, v in row.items() if k != "sample_weight"} for row in rows]
    options = {} if kind == "example" else {"class_weights": OF_CLASS}
    method = get_method("mixup" if mixes else "vanilla", **options)
    found, logged, _ = trained(tmp_path, rows, method, accumulation, mixes, label_smoothing_factor=eps)
    assert logged == pytest.approx(loss.item(), abs=2e-5)
    torch.testing.assert_close(found, weights(model), atol=2e-5, rtol=1e-4)


def test_balanced_weights_are_found_in_the_training_set(tmp_path):
    rows = data_without_types(16)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=[row["labels"] for row in rows])
    _, _, trainer = trained(tmp_path, rows, get_method("vanilla", class_weights="balanced"), 1, False)
    assert trainer.method_in_training.class_weights.tolist() == pytest.approx(expected.tolist())
    assert trainer.method.class_weights == "balanced"
    counted, loss, _ = trained(tmp_path, rows, get_method("vanilla", class_weights=expected.tolist()), 1, False)
    assert torch.equal(weights(trainer.model), counted)
    assert trainer.state.log_history[0]["loss"] == loss


def test_weights_of_a_regression_are_mixed_like_its_labels(tmp_path):
    """Of a mixed row one number: lam w + (1 - lam) w of the partner."""
    rows = [{**row, "sample_weight": OF_EXAMPLE[i]} for i, row in enumerate(data_of("numbers", 16))]
    args = arguments(tmp_path, max_steps=1, per_device_train_batch_size=16)
    trainer = InOrder(new_model("numbers"), args, method="mixup", train_dataset=rows, data_collator=collate)
    seen = []
    trainer.model.register_forward_hook(lambda module, args, output: seen.append(output.logits.detach().clone()))
    trainer.train()
    logits = seen[-1]
    labels, weight = torch.tensor([row["labels"] for row in rows]), torch.tensor(OF_EXAMPLE)
    expected = 0.0
    for i, (z,) in enumerate(logits.tolist()):
        own, other, lam = i, i ^ 1, LAM[i].item()
        label = lam * labels[own] + (1 - lam) * labels[other]
        expected += (lam * weight[own] + (1 - lam) * weight[other]) * (z - label) ** 2 / 16
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.item(), abs=2e-5)


def test_the_column_survives_remove_unused_columns(tmp_path):
    """Of a `datasets.Dataset`, which Trainer cuts down to what the model's forward takes."""
    rows = [
        {**{k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()}, "text": "x"} for row in rows_of()
    ]
    found, loss, trainer = trained(tmp_path, Dataset.from_list(rows), "vanilla", 1, False)
    assert trainer.args.remove_unused_columns
    same, by_list, _ = trained(tmp_path, rows_of(), "vanilla", 1, False)
    without, unweighted, _ = trained(tmp_path, data_without_types(16), "vanilla", 1, False)
    assert torch.equal(found, same)
    assert loss == by_list
    assert not torch.equal(found, without)
    assert loss != pytest.approx(unweighted, abs=1e-3)


def test_evaluation_counts_every_example_alike(tmp_path):
    method = get_method("vanilla", class_weights=OF_CLASS)
    trainer = MixTrainer(tiny_bert(), arguments(tmp_path), method=method, train_dataset=rows_of())
    model, rows = tiny_bert().eval(), data_without_types(16)
    with torch.no_grad():
        logits = model(**batch_of(rows)).logits
    expected = F.cross_entropy(logits, torch.tensor([row["labels"] for row in rows])).item()
    for data in (rows_of(), rows):
        assert trainer.evaluate(data)["eval_loss"] == pytest.approx(expected, abs=1e-5)
        torch.testing.assert_close(torch.tensor(trainer.predict(data).predictions), logits, atol=1e-5, rtol=1e-4)


def test_a_run_is_not_resumed_with_other_class_weights(tmp_path):
    def run(class_weights, resume=None):
        args = arguments(tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
        method = get_method("mixup", class_weights=class_weights)
        trainer = MixTrainer(tiny_bert(), args, method=method, train_dataset=data_without_types(16))
        trainer.train(resume_from_checkpoint=resume)
        return weights(trainer.model)

    whole, checkpoint = run(OF_CLASS), str(tmp_path / "checkpoint-1")
    assert torch.equal(run(OF_CLASS, checkpoint), whole)
    for other in ((1.0, 1.0, 1.0), "balanced", None):
        with pytest.raises(ValueError, match=r"class_weights was \[1\.0, 2\.0, 0\.5\] and is"):
            run(other, checkpoint)


def test_bad_weights_are_refused_in_one_sentence(tmp_path):
    def trainer(**options):
        data = options.pop("data", data_without_types(16))
        return MixTrainer(tiny_bert(), arguments(tmp_path), method=get_method("vanilla", **options), train_dataset=data)

    with pytest.raises(ValueError, match="class_weights has 2 numbers and the model 3 classes"):
        trainer(class_weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="class_weights must be 'balanced' or a number >= 0"):
        trainer(class_weights="inverse")
    lacking = [row for row in data_without_types(16) if row["labels"] != 2]
    with pytest.raises(ValueError, match="class_weights='balanced' needs an example of every class"):
        trainer(class_weights="balanced", data=lacking).train()


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-1.0, "sample_weight -1.0 is outside"),
        (float("nan"), "sample_weight nan is outside"),
        ([1.0, 2.0], r"sample_weight has the shape \(8, 2\): pass one number >= 0 an example"),
    ],
)
def test_bad_weights_of_examples_are_refused(tmp_path, weight, message):
    rows = [{**row, "sample_weight": weight} for row in data_without_types(16)]
    with pytest.raises(ValueError, match=message):
        MixTrainer(tiny_bert(), arguments(tmp_path), method="mixup", train_dataset=rows).train()


@pytest.mark.parametrize("name", ["lamix", "mcel"])
def test_methods_that_look_at_the_data_show_the_model_no_weights(tmp_path, name):
    trainer = MixTrainer(tiny_bert(), arguments(tmp_path, max_steps=2), method=name, train_dataset=rows_of())
    trainer.train()
    assert not torch.equal(weights(trainer.model), weights(tiny_bert()))


def test_numbers_on_a_command_line_are_numbers():
    assert get_method("vanilla", class_weights="1 2 0.5").class_weights == OF_CLASS
