"""Soft labels: against loops by hand, against class ids, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F
from transformers import DataCollatorWithPadding, default_data_collator

from helpers.data import Lazy, batch_of, data_without_types, soft_mask
from helpers.models import tiny_bert
from helpers.parts import batch_and_labels, data_of, kind_of, method_of, new_model, training_set
from helpers.soft import soft_data, soft_rows, with_labels
from helpers.training import LEARNING_RATE, InOrder, arguments, logged, weights
from hf_logitmix import METHODS, MixCollator, MixTrainer, MixTrainingArguments, get_method
from hf_logitmix.glue.demo import train_tokenizer
from hf_logitmix.metrics import calibration_of
from hf_logitmix.objectives import total_of
from hf_logitmix.pairing import Remix
from hf_logitmix.step import Step
from hf_logitmix.targets import TrainingSet

SINGLE, MULTI = "single_label_classification", "multi_label_classification"
OF_CLASSES = [name for name in METHODS if kind_of(METHODS[name]) != "numbers"]
PARTNER, LAM = torch.arange(16) ^ 1, torch.tensor([0.2, 0.7]).repeat(8)
MATRIX = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]])
OF_CLASS, OF_EXAMPLE = (1.0, 2.0, 0.5), [0.2, 1.0, 3.0, 0.0, 1.5, 0.7, 2.0, 0.4] * 2


def soft_bert(**options):
    return tiny_bert(problem_type=SINGLE, **options)


def collate(features):
    """A plan inside each two examples, with a lam that the place in the whole batch decides."""
    size = len(features)
    return {**default_data_collator(features), "partner": torch.arange(size) ^ 1, "lam": LAM[:size]}


def run(tmp_path, data, method="mixup", model=None, cls=InOrder, **options):
    """A run of a few steps, and its Trainer."""
    collator = options.pop("data_collator", None)
    evaluated = options.pop("eval_dataset", None)
    args = arguments(tmp_path, options.pop("args", MixTrainingArguments), **options)
    model = soft_bert() if model is None else model
    trainer = cls(model, args, collator, data, evaluated, method=method)
    trainer.train()
    return trainer


# ---- what is learned -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_CLASSES)
def test_one_hot_rows_train_as_class_ids_do(tmp_path, name):
    """Under every method, with all that it finds in the training set or learns beside the model."""
    kind, method = method_of(name)
    ids = data_of(kind, 24)
    rows = with_labels(ids, F.one_hot(torch.tensor([row["labels"] for row in ids]), 3).float())
    found = []
    for data in (ids, rows):
        trainer = run(tmp_path, data, method, new_model(kind, problem_type=SINGLE), learning_rate=1e-3)
        learned = [parameter.detach() for parameter in trainer._extras.parameters()]
        found.append((logged(trainer), weights(trainer.model), learned, trainer.evaluate(data)["eval_loss"]))
    assert found[1][0] == pytest.approx(found[0][0], abs=1e-6)
    torch.testing.assert_close(found[1][1:3], found[0][1:3], atol=1e-6, rtol=0)
    assert found[1][3] == pytest.approx(found[0][3], abs=1e-6)


@pytest.mark.parametrize("criterion", ["focal", "margin", "squared"])
@pytest.mark.parametrize("name", ["vanilla", "mixup", "logitmix"])
def test_one_hot_rows_are_class_ids_under_every_criterion(tmp_path, name, criterion):
    ids, options = data_without_types(24), {"class_weights": "balanced"}
    if criterion == "focal":
        options["gamma"] = "sd53"
    rows = with_labels(ids, F.one_hot(torch.tensor([row["labels"] for row in ids]), 3).float())
    method = get_method(name, criterion=criterion).with_options(**options)
    by_id, by_row = (run(tmp_path, data, method) for data in (ids, rows))
    assert logged(by_row) == pytest.approx(logged(by_id), abs=1e-6)
    torch.testing.assert_close(weights(by_row.model), weights(by_id.model), atol=1e-6, rtol=0)


# the others choose a label, or what is mixed, by the labels
LINEAR = [name for name in OF_CLASSES if name not in ("remix", "puzzlemix", "logitmix_p", "lamix_p", "ssmix")]


@pytest.mark.parametrize("name", LINEAR)
def test_the_loss_of_a_mean_of_two_labels_is_the_mean_of_their_losses(name):
    """Under every objective and all targets, as cross-entropy and focal loss are linear in the target."""
    kind, method = method_of(name)
    model = new_model(kind, problem_type=SINGLE).train()
    ready = method.setup(training_set(kind, model))
    inputs, first = batch_and_labels(kind, 6)
    second, share = torch.tensor([1, 1, 0, 2, 0, 1]), 0.3
    between = share * F.one_hot(first, 3).float() + (1 - share) * F.one_hot(second, 3).float()

    def loss(labels):
        terms, _ = ready(model, inputs, labels, Step(1, 4))
        return total_of(terms).item()

    with ready.install(model), torch.no_grad():
        assert loss(between) == pytest.approx(share * loss(first) + (1 - share) * loss(second), abs=1e-5)


def by_hand(model, rows, name: str, matrix, of_class, of_example) -> torch.Tensor:
    """The loss of a batch in a loop over examples and classes."""
    batch = batch_of([{k: v for k, v in row.items() if k != "sample_weight"} for row in rows])
    clean = model(**batch).logits
    words, lam = model.get_input_embeddings()(batch["input_ids"]), LAM[: len(rows), None]
    mixed = model(
        inputs_embeds=lam[:, None] * words + (1 - lam[:, None]) * words[PARTNER[: len(rows)]],
        attention_mask=soft_mask(batch["attention_mask"], PARTNER[: len(rows)], lam),
    ).logits
    cls = mix = sim = 0.0
    for i in range(len(rows)):
        target, weight = [], []
        for j in (i, i ^ 1):
            r = rows[j]["labels"]
            target.append([sum(r[c] * matrix[c, k] for c in range(3)) for k in range(3)])
            weight.append(of_example[j] * sum(r[k] * of_class[k] for k in range(3)))
        log_p, log_q = (z - z.exp().sum().log() for z in (clean[i], mixed[i]))
        cls = cls - weight[0] * sum(target[0][k] * log_p[k] for k in range(3))
        for j, share in ((0, LAM[i]), (1, 1 - LAM[i])):
            mix = mix - share * weight[j] * sum(target[j][k] * log_q[k] for k in range(3))
        sim = sim + (LAM[i] * clean[i] + (1 - LAM[i]) * clean[i ^ 1] - mixed[i]).square().mean()
    parts = {"vanilla": cls, "mixup": mix, "regmixup": cls + mix, "logitmix": cls + mix + sim}
    return parts[name] / len(rows)


@pytest.mark.parametrize(
    ("accumulation", "matrix", "weighted"),
    [(1, None, False), (1, MATRIX, False), (1, None, True), (2, MATRIX, True), (4, None, False)],
)
@pytest.mark.parametrize("name", ["vanilla", "mixup", "regmixup", "logitmix"])
def test_a_step_of_training_is_the_loop_by_hand(tmp_path, name, accumulation, matrix, weighted):
    """Loss and weights after it, with a matrix of targets, weights of classes and examples, and micro-batches."""
    rows = soft_data(16)
    of_class, of_example = (OF_CLASS, OF_EXAMPLE) if weighted else ((1.0, 1.0, 1.0), [1.0] * 16)
    model = soft_bert()
    loss = by_hand(model, rows, name, torch.eye(3) if matrix is None else matrix, of_class, of_example)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= LEARNING_RATE * parameter.grad
    if weighted:
        rows = [{**row, "sample_weight": weight} for row, weight in zip(rows, OF_EXAMPLE, strict=True)]
    method = get_method(name, targets=matrix, class_weights=OF_CLASS if weighted else None)
    sizes = {"per_device_train_batch_size": 16 // accumulation, "gradient_accumulation_steps": accumulation}
    trainer = run(tmp_path, rows, method, data_collator=collate, max_steps=1, **sizes)
    assert logged(trainer) == pytest.approx([loss.item()], abs=2e-5)
    torch.testing.assert_close(weights(trainer.model), weights(model), atol=2e-5, rtol=1e-4)


def test_mixed_rows_are_compared_with_the_mixed_soft_label(tmp_path):
    """torch's own cross-entropy with lam r_i + (1 - lam) r_j, of the logits that the model gave."""
    rows, seen = soft_data(8), []
    model = soft_bert()
    model.register_forward_hook(lambda module, args, output: seen.append(output.logits.detach().clone()))
    trainer = run(tmp_path, rows, "mixup", model, data_collator=collate, max_steps=1)
    labels, lam = torch.stack([row["labels"] for row in rows]), LAM[:8, None]
    expected = F.cross_entropy(seen[-1], lam * labels + (1 - lam) * labels[PARTNER[:8]])
    assert logged(trainer) == pytest.approx([expected.item()], abs=2e-5)


def test_smoothing_of_the_arguments_smooths_soft_labels(tmp_path):
    rows = soft_data(8)
    trainer = run(tmp_path, rows, "vanilla", max_steps=1, label_smoothing_factor=0.3)
    with torch.no_grad():
        logits = soft_bert()(**batch_of(rows)).logits
    expected = F.cross_entropy(logits, torch.stack([row["labels"] for row in rows]), label_smoothing=0.3)
    assert logged(trainer) == pytest.approx([expected.item()], abs=2e-5)


# ---- what is found in the data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [list, Lazy])
def test_classes_are_the_arg_max_and_counts_the_mass(wrap):
    rows = soft_data(12)
    labels = torch.stack([row["labels"] for row in rows]).tolist()
    found = TrainingSet(wrap(rows), soft_bert(), 3)
    assert found.labels().tolist() == [row.index(max(row)) for row in labels]
    expected = [sum(row[k] for row in labels) for k in range(3)]
    assert found.class_counts().tolist() == pytest.approx(expected)
    ready = get_method("vanilla", class_weights="balanced").setup(found)
    assert ready.class_weights.tolist() == pytest.approx([12 / (3 * count) for count in expected])
    infogain = get_method("infogain").setup(found).targets.matrix(3)
    assert infogain.diagonal().tolist() == pytest.approx([min(expected) / count for count in expected])


def test_remix_takes_the_arg_max():
    labels = soft_rows(8)
    pairing, inputs, step = Remix(class_counts=(9.5, 1.0, 3.25)), {"x": torch.zeros(8, 2)}, Step(0, 9)
    plan, expected = pairing(inputs, labels, step), pairing(inputs, labels.argmax(1), step)
    assert all(torch.equal(one, other) for one, other in zip(plan, expected, strict=True))
    assert not torch.equal(plan.label_lam, plan.lam)
    for bad, message in ((torch.ones(8, 3), "sums to 3"), (torch.rand(8), "Remix is defined for class ids and soft")):
        with pytest.raises(ValueError, match=message):
            pairing(inputs, bad, step)


# ---- where rows come from --------------------------------------------------------------------------------------------

IDS = [[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16], [17, 18, 19, 20]]


COLLATORS = {
    "default": default_data_collator,
    "padding": DataCollatorWithPadding(train_tokenizer(["a good soup", "the plot was not bad"])),
    "mix": MixCollator(default_data_collator, "vanilla"),
}
FORMS = {
    "lists": lambda rows, column: rows,
    "tensors": lambda rows, column: [{**row, column: torch.tensor(row[column])} for row in rows],
    "numpy": lambda rows, column: [{**row, column: np.asarray(row[column])} for row in rows],
    "half": lambda rows, column: [{**row, column: np.asarray(row[column], np.float16)} for row in rows],
    "dataset": lambda rows, column: Dataset.from_list(rows),
    "torch dataset": lambda rows, column: Dataset.from_list(rows).with_format("torch"),
    "lazy": lambda rows, column: Lazy(rows),
    "stream": lambda rows, column: Dataset.from_list(rows).to_iterable_dataset(),
}


@pytest.mark.parametrize("column", ["labels", "label"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("collator", COLLATORS)
def test_every_form_of_data_gives_the_same_loss(tmp_path, form, column, collator):
    """Or is refused in a sentence, where it is tensors that a collator of transformers does not take."""
    labels = [[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.125, 0.0, 0.875], [0.0, 0.5, 0.5]]
    rows = [{"input_ids": ids, column: label} for ids, label in zip(IDS, labels, strict=True)]
    data, given = FORMS[form](rows, column), COLLATORS[collator]
    if form == "tensors" and (collator == "padding" or column == "label"):
        is_refused = True
    else:
        is_refused = form == "torch dataset" and collator != "padding" and column == "label"
    if is_refused:
        message = rf"train_dataset: `{column}` of an example is a tensor of 3 numbers, .*pass lists of numbers"
        with pytest.raises(ValueError, match=message):
            MixTrainer(soft_bert(), arguments(tmp_path), given, data)
        return
    cls = MixTrainer if form == "stream" else InOrder
    trainer = run(tmp_path, data, "vanilla", data_collator=given, max_steps=1, cls=cls, learning_rate=0.0)
    with torch.no_grad():
        logits = soft_bert()(torch.tensor(IDS)).logits
    expected = F.cross_entropy(logits, torch.tensor(labels)).item()
    assert logged(trainer) == pytest.approx([expected], abs=2e-5)
    assert trainer.label_spec.soft
    prediction = trainer.predict(data)
    assert prediction.metrics["test_loss"] == pytest.approx(expected, abs=2e-5)
    np.testing.assert_allclose(prediction.label_ids, labels)


def test_integers_of_one_class_are_rows_too(tmp_path):
    """A batch of labels on which all annotators agree, which a collator makes integers of."""
    rows = [{"input_ids": ids, "labels": row} for ids, row in zip(IDS, [[0, 1, 0], [1, 0, 0]] * 2, strict=True)]
    by_id = [{**row, "labels": row["labels"].index(1)} for row in rows]
    assert logged(run(tmp_path, rows)) == pytest.approx(logged(run(tmp_path, by_id)), abs=1e-6)


# ---- what decides ----------------------------------------------------------------------------------------------------


def test_the_argument_says_it_for_a_model_that_leaves_it_open(tmp_path):
    model = tiny_bert()
    by_argument = run(tmp_path, soft_data(16), "mixup", model, soft_labels=True)
    assert model.config.problem_type == SINGLE
    assert logged(by_argument) == logged(run(tmp_path, soft_data(16)))
    again = MixTrainer(
        None,
        arguments(tmp_path, MixTrainingArguments, soft_labels=True),
        model_init=lambda: tiny_bert(),
        train_dataset=soft_data(16),
    )
    again.train()  # with a new model
    assert again.model.config.problem_type == SINGLE


def test_a_model_for_something_else_is_refused(tmp_path):
    args = arguments(tmp_path, MixTrainingArguments, soft_labels=True)
    for model, message in (
        (tiny_bert(problem_type=MULTI), "soft_labels=True is for probabilities of classes, .*multi_label"),
        (tiny_bert(1), "soft_labels=True is for probabilities of classes, .*regression with num_labels=1"),
    ):
        with pytest.raises(ValueError, match=message):
            MixTrainer(model, args, train_dataset=soft_data(8))


@pytest.mark.parametrize("wrap", [list, Lazy])
def test_class_ids_where_soft_labels_were_asked_for_are_refused(tmp_path, wrap):
    args = arguments(tmp_path, MixTrainingArguments, soft_labels=True)
    with pytest.raises(ValueError, match="soft_labels=True, and train_dataset has one class id an example"):
        MixTrainer(tiny_bert(), args, train_dataset=wrap(data_without_types(8))).train()


UNCLEAR = (
    r"^(labels|train_dataset) has rows of fractions that sum to 1, and problem_type is not set: "
    r"set problem_type='single_label_.*soft_labels=True.*'multi_label"
)


@pytest.mark.parametrize("wrap", [list, Lazy])
def test_fractions_that_sum_to_1_are_unclear(tmp_path, wrap):
    """A second try with the same model is refused as well, and goes on once the model says what they are."""
    model = tiny_bert()
    for _ in range(2):
        with pytest.raises(ValueError, match=UNCLEAR):
            MixTrainer(model, arguments(tmp_path), train_dataset=wrap(soft_data(8))).train()
    for problem_type, loss_of in ((SINGLE, F.cross_entropy), (MULTI, F.binary_cross_entropy_with_logits)):
        trainer = run(tmp_path, wrap(soft_data(8)), "vanilla", tiny_bert(problem_type=problem_type), max_steps=1)
        with torch.no_grad():
            logits = tiny_bert()(**batch_of(soft_data(8))).logits
        assert logged(trainer) == pytest.approx([loss_of(logits, soft_rows(8)).item()], abs=2e-5)


def test_a_stream_that_begins_with_one_class_an_example_is_unclear_where_fractions_come(tmp_path):
    one_hot = F.one_hot(torch.tensor([0, 1, 2, 1, 0, 2, 1, 1]), 3).float()
    data = with_labels(data_without_types(16), torch.cat([one_hot, soft_rows(8)]))
    model = tiny_bert()
    for _ in range(2):
        with pytest.raises(ValueError, match=UNCLEAR):
            run(tmp_path, Lazy(data), "vanilla", model)
    with pytest.raises(ValueError, match=UNCLEAR):
        MixTrainer(tiny_bert(), arguments(tmp_path)).predict(Lazy(data))


def test_multi_hot_rows_stay_multi_label(tmp_path, caplog):
    """One class an example among them, with a line in the log where there is nothing else."""
    several = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]])
    one_hot, fractions = F.one_hot(torch.tensor([0, 1, 2, 1]), 3).float(), several * 0.75
    for labels, line in ((several, ""), (one_hot, "each example has one label"), (fractions, "they are fractions")):
        caplog.clear()
        model = tiny_bert()
        trainer = run(tmp_path, with_labels(data_without_types(4), labels), "vanilla", model, max_steps=1)
        assert model.config.problem_type == MULTI
        with torch.no_grad():
            logits = tiny_bert()(**batch_of(data_without_types(4))).logits
        assert logged(trainer) == pytest.approx([F.binary_cross_entropy_with_logits(logits, labels).item()], abs=2e-5)
        said = [record.getMessage() for record in caplog.records if "taken as multi-label" in record.getMessage()]
        assert len(said) == bool(line)
        assert all(line in sentence for sentence in said)


def test_a_model_that_is_made_for_each_run_is_told_that_rows_are_multi_label(tmp_path):
    rows = with_labels(data_without_types(8), torch.tensor([[1.0, 0.0, 1.0]] * 8))
    trainer = MixTrainer(
        None, arguments(tmp_path), model_init=lambda: tiny_bert(), train_dataset=rows, method="vanilla"
    )
    trainer.train()
    assert trainer.model.config.problem_type == MULTI


def test_rows_of_a_batch_that_no_criterion_of_classes_takes_are_refused(tmp_path):
    """Multi-hot rows that are seen in a batch first, with a criterion of classes."""
    rows = with_labels(data_without_types(8), torch.tensor([[1.0, 0.0, 1.0]] * 8))
    with pytest.raises(ValueError, match=r"criterion=Focal.* this is multi_label_classification"):
        run(tmp_path, Lazy(rows), get_method("mixup", criterion="focal"), tiny_bert())


def test_rows_to_evaluate_a_model_of_class_ids_on(tmp_path):
    """Unclear where the model leaves it open; else both kinds are of one model."""
    ids, rows = data_without_types(8), soft_data(8)
    with pytest.raises(ValueError, match="eval_dataset has rows of 3 numbers and train_dataset one number an example"):
        MixTrainer(tiny_bert(), arguments(tmp_path), train_dataset=ids, eval_dataset=rows)
    with torch.no_grad():
        logits = tiny_bert()(**batch_of(rows)).logits
    for train, other in ((ids, rows), (rows, ids)):
        trainer = MixTrainer(soft_bert(), arguments(tmp_path), train_dataset=train, eval_dataset=other)
        labels = torch.stack([torch.as_tensor(row["labels"]) for row in other])
        assert trainer.evaluate()["eval_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), abs=2e-5)


def test_a_loop_of_ones_own_goes_by_the_model():
    inputs, _ = batch_and_labels("text", 4)
    labels, step = soft_rows(4), Step(0, 4)
    for problem_type, loss_of in ((SINGLE, F.cross_entropy), (MULTI, F.binary_cross_entropy_with_logits)):
        model = tiny_bert(problem_type=problem_type)
        terms, output = get_method("vanilla").setup(training_set("text", model))(model, inputs, labels, step)
        assert total_of(terms).item() == pytest.approx(loss_of(output.logits, labels).item(), abs=1e-6)
    open_model = tiny_bert()
    ready = get_method("vanilla").setup(training_set("text", open_model))
    with pytest.raises(ValueError, match=UNCLEAR):
        ready(open_model, inputs, labels, step)
    focal = get_method("vanilla", criterion="focal").setup(training_set("text", open_model))
    with pytest.raises(ValueError, match=r"criterion=Focal.* is for classes, and labels are rows that are not said"):
        focal(open_model, inputs, torch.ones(4, 3), step)


# ---- what is refused -------------------------------------------------------------------------------------------------

BAD = [
    ([0.5, 0.5, 1.0], r"soft label of example 2 sums to 2 and not to 1: divide each row by its sum"),
    ([0.3, 0.3, 0.3], r"soft label of example 2 sums to 0\.9 and not to 1"),
    ([1.5, -0.5, 0.0], r"soft label of example 2 holds -0\.5: pass numbers >= 0 that sum to 1"),
    ([float("nan"), 0.5, 0.5], r"of example 2 is not a finite number"),
]


@pytest.mark.parametrize(("row", "message"), BAD)
def test_rows_that_are_no_probabilities_are_refused(tmp_path, row, message):
    """When they are passed, or at their batch where they cannot be read before; to evaluate on as well."""
    labels = soft_rows(8)
    labels[2] = torch.tensor(row)
    bad, good = with_labels(data_without_types(8), labels), soft_data(8)
    with pytest.raises(ValueError, match=rf"train_dataset: .*{message}"):
        MixTrainer(soft_bert(), arguments(tmp_path), train_dataset=bad)
    with pytest.raises(ValueError, match=rf"eval_dataset: .*{message}"):
        MixTrainer(soft_bert(), arguments(tmp_path), train_dataset=good, eval_dataset=bad)
    trainer = MixTrainer(soft_bert(), arguments(tmp_path), train_dataset=good)
    with pytest.raises(ValueError, match=rf"test_dataset: .*{message}"):
        trainer.predict(bad)
    with pytest.raises(ValueError, match=rf"labels: .*{message}"):
        trainer.evaluate(Lazy(bad))
    with pytest.raises(ValueError, match=rf"labels: .*{message}"):
        run(tmp_path, Lazy(bad))


def test_rows_of_another_number_of_classes_are_refused(tmp_path):
    rows = with_labels(data_without_types(8), torch.full((8, 4), 0.25))
    with pytest.raises(ValueError, match=r"train_dataset: labels have 4 numbers an example and .*num_labels=3"):
        MixTrainer(soft_bert(), arguments(tmp_path), train_dataset=rows)
    with pytest.raises(ValueError, match=r"shape \(8, 4\) and .*num_labels=3: pass .*rows of 3 probabilities"):
        run(tmp_path, Lazy(rows))
    lists = [{"input_ids": ids, "labels": [0.5, 0.5]} for ids in IDS]
    with pytest.raises(ValueError, match=r"label \[0\.5, 0\.5\] of example 0 is a list .*a row of 3 probabilities"):
        MixTrainer(soft_bert(), arguments(tmp_path), train_dataset=lists)


@pytest.mark.parametrize("wrap", [list, Lazy])
def test_a_criterion_for_class_ids_is_refused(tmp_path, wrap):
    method = get_method("mixup", criterion="dual_focal")
    with pytest.raises(
        ValueError, match=r"criterion=DualFocal.* for class ids alone, and these labels are rows of prob"
    ):
        run(tmp_path, wrap(soft_data(8)), method)
    with pytest.raises(ValueError, match=r"criterion=DualFocal.* for class ids alone"):
        run(tmp_path, wrap(soft_data(8)), method, tiny_bert(), soft_labels=True)


def test_c_mixup_is_for_regression(tmp_path):
    with pytest.raises(ValueError, match=r"CMixup.* is for regression"):
        run(tmp_path, soft_data(8), "c_mixup")


# ---- evaluation ------------------------------------------------------------------------------------------------------


def expected_metrics(logits, labels) -> dict[str, float]:
    """In a loop: the cross-entropy and the Brier score against the rows, and the accuracy against their arg max."""
    nll = brier = hits = 0.0
    for z, r in zip(np.asarray(logits, float), np.asarray(labels, float), strict=True):
        p = np.exp(z) / np.exp(z).sum()
        nll -= sum(r[k] * np.log(p[k]) for k in range(3)) / len(labels)
        brier += sum((p[k] - r[k]) ** 2 for k in range(3)) / len(labels)
        hits += (p.argmax() == r.argmax()) / len(labels)
    return {"nll": nll, "brier": brier, "accuracy": hits}


@pytest.mark.parametrize("batch", [3, 16])
def test_evaluation_compares_with_the_rows(tmp_path, batch):
    """The loss is the cross-entropy with the rows, and compute_metrics gets them; the model keeps its problem type."""
    rows, seen = soft_data(11), []

    def metrics(prediction):
        seen.append(prediction)
        return {}

    args = arguments(tmp_path, per_device_eval_batch_size=batch)
    trainer = MixTrainer(soft_bert(), args, eval_dataset=rows, compute_metrics=metrics)
    loss = trainer.evaluate()["eval_loss"]
    with torch.no_grad():
        logits = soft_bert()(**batch_of(rows)).logits
    assert loss == pytest.approx(expected_metrics(logits, soft_rows(11))["nll"], abs=1e-5)
    np.testing.assert_allclose(seen[0].predictions, logits, atol=1e-5)
    np.testing.assert_array_equal(seen[0].label_ids, soft_rows(11))
    assert trainer.model.config.problem_type == SINGLE
    assert trainer.evaluate(data_without_types(11))["eval_loss"] > 0


def test_calibration_metrics_get_the_rows(tmp_path):
    rows = soft_data(11)
    trainer = MixTrainer(soft_bert(), arguments(tmp_path), eval_dataset=rows, compute_metrics=calibration_of())
    found = trainer.evaluate()
    with torch.no_grad():
        logits = soft_bert()(**batch_of(rows)).logits
    for name, value in expected_metrics(logits, soft_rows(11)).items():
        assert found[f"eval_{name}"] == pytest.approx(value, abs=1e-5)


def test_a_model_that_gives_a_tuple_is_evaluated(tmp_path):
    model, rows = soft_bert(), soft_data(8)
    model.config.return_dict = False
    trainer = MixTrainer(model, arguments(tmp_path), eval_dataset=rows)
    prediction = trainer.predict(rows)
    expected = F.cross_entropy(torch.tensor(prediction.predictions), soft_rows(8)).item()
    assert prediction.metrics["test_loss"] == pytest.approx(expected, abs=1e-5)


# ---- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [list, Lazy])
def test_a_saved_model_tells_that_labels_were_soft(tmp_path, wrap):
    for name, data, soft in (("soft", soft_data(16), True), ("ids", data_without_types(16), False)):
        trainer = run(tmp_path / name, wrap(data))
        trainer.save_model(tmp_path / name / "saved")
        found = json.loads((tmp_path / name / "saved" / "hf_logitmix.json").read_text())
        assert (found["problem_type"], found["soft_labels"]) == (SINGLE, soft)
        assert trainer.model.config.problem_type == SINGLE


def test_a_run_is_not_resumed_with_labels_of_another_meaning(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    run(tmp_path, soft_data(16), **saving)
    for problem_type, message in ((MULTI, f"problem_type was {SINGLE} and is {MULTI}"), (SINGLE, None)):
        args = arguments(tmp_path, **saving)
        model = tiny_bert(problem_type=problem_type)
        trainer = InOrder(model, args, method="mixup", train_dataset=soft_data(16))
        if message is None:
            trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
        else:
            with pytest.raises(ValueError, match=message):
                trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_what_was_settled_for_a_whole_set_holds_for_each_of_its_batches(tmp_path):
    """Fractions of other sums are multi-label; a batch of evaluation with a sum of 1 does not open that again."""
    rows = [[0.5, 0.9, 0.2], [0.4, 0.4, 0.9], [1.0, 0.3, 0.0], [0.1, 0.0, 0.0], [0.5, 0.5, 0.0]]
    data = with_labels(data_of("text", 5), torch.tensor(rows))
    args = arguments(tmp_path, max_steps=1, per_device_eval_batch_size=4)
    trainer = MixTrainer(new_model("text"), args, method="mixup", train_dataset=data, eval_dataset=data)
    trainer.train()
    logits, labels, metrics = trainer.predict(data)  # of four, and of the last alone
    assert labels.tolist() == torch.tensor(rows).tolist()
    expected = F.binary_cross_entropy_with_logits(torch.tensor(logits), torch.tensor(rows))
    assert metrics["test_loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert trainer.model.config.problem_type == "multi_label_classification"
