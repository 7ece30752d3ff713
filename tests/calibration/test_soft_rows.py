"""Metrics against rows of probabilities, tables by class, large logits, and metrics that choose a checkpoint."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from helpers.data import examples
from helpers.models import tiny_bert
from helpers.training import arguments
from hf_logitmix import MixTrainer, MixTrainingArguments
from hf_logitmix.metrics import METRICS, calibration_by_class, calibration_metrics, calibration_of, scaled_metrics
from hf_logitmix.temperature import cross_fit


def data(n=60, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return 2 * rng.normal(size=(n, classes)), rng.dirichlet([0.7] * classes, size=n)


def test_nll_and_brier_are_against_the_rows_and_accuracy_against_their_arg_max():
    logits, rows = data()
    values, hard = calibration_metrics(logits, rows), calibration_metrics(logits, rows.argmax(1))
    log_p = log_softmax(logits, axis=1)
    assert values["nll"] == pytest.approx(-(rows * log_p).sum(1).mean())
    assert values["brier"] == pytest.approx(((np.exp(log_p) - rows) ** 2).sum(1).mean())
    for name in METRICS.keys() - {"nll", "brier"}:
        assert values[name] == pytest.approx(hard[name]), name


def test_one_hot_rows_are_class_ids():
    logits, rows = data()
    labels = rows.argmax(1)
    assert calibration_metrics(logits, np.eye(3)[labels]) == pytest.approx(calibration_metrics(logits, labels))


@pytest.mark.parametrize("rows", [[[1.0, 1.0, 0.0]], [[0.5, 0.2, 0.2]], [[1.2, -0.2, 0.0]], [[np.nan, 0.5, 0.5]]])
def test_other_rows_are_refused(rows):
    with pytest.raises(ValueError, match="labels"):
        calibration_metrics([[1.0, 0.0, 0.0]], rows)


def test_a_row_a_class():
    """Frequency and mean probability by counting; the errors are the parts of the class-wise ECE."""
    logits, rows = data(200)
    labels, p = rows.argmax(1), softmax(logits, axis=1)
    found = calibration_by_class(logits, labels)
    for k, row in enumerate(found):
        assert (row["class"], row["n"]) == (k, (labels == k).sum())
        assert row["frequency"] == pytest.approx((labels == k).mean())
        assert row["mean_p"] == pytest.approx(p[:, k].mean())
        error = 0.0
        for low in np.arange(10) / 10:
            inside = (p[:, k] > low) & (p[:, k] <= low + 0.1)
            if inside.any():
                error += inside.mean() * abs((labels[inside] == k).mean() - p[inside, k].mean())
        assert row["ece"] == pytest.approx(error, abs=1e-9)
    mean = np.mean([row["ece"] for row in found])
    assert mean == pytest.approx(calibration_metrics(logits, labels)["classwise_ece"])


def test_scaled_metrics_are_those_of_cross_fitted_logits():
    logits, rows = data()
    labels = rows.argmax(1)
    expected = calibration_metrics(cross_fit(logits, labels), labels)
    expected = {f"{name}_scaled": value for name, value in expected.items() if name != "accuracy"}
    assert scaled_metrics(logits, labels) == pytest.approx(expected)


def test_memory_does_not_grow_with_the_examples():
    """40,000 x 100 logits in float32 are 16 MB, and 32 MB in float64: what is allocated stays below either."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40_000, 100)).astype(np.float32)
    labels = rng.integers(100, size=40_000)
    tracemalloc.start()
    try:
        values = calibration_metrics(logits, labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12e6
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    assert values["nll"] == pytest.approx(-log_p[np.arange(40_000), labels].mean())


def test_a_checkpoint_is_chosen_by_a_scaled_metric(tmp_path):
    """The one that is kept has the lowest of the log, where another has a lower one as trained or is the last."""
    data = examples(48)
    args = arguments(
        tmp_path,
        cls=MixTrainingArguments,
        max_steps=12,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="nll_scaled",
        learning_rate=5e-3,
    )
    assert args.greater_is_better is False
    trainer = MixTrainer(
        tiny_bert(),
        args,
        method="vanilla",
        train_dataset=data[:24],
        eval_dataset=data[24:],
        compute_metrics=calibration_of(scaled=True),
    )
    trainer.train()
    logged = {line["step"]: line["eval_nll_scaled"] for line in trainer.state.log_history if "eval_nll_scaled" in line}
    assert len(logged) == 6
    best = min(logged, key=logged.get)
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{best}")
    assert trainer.evaluate()["eval_nll_scaled"] == pytest.approx(logged[best], abs=1e-6)
    assert json.dumps(logged)


def test_the_worst_checkpoint_is_not_chosen_by_a_metric_of_one_of_several_datasets(tmp_path):
    """Whose name begins with that of the dataset, so that transformers takes it for one that is better the higher."""
    args = arguments(tmp_path, cls=MixTrainingArguments, metric_for_best_model="eval_dev_nll_scaled")
    assert args.greater_is_better is True
    for sets in ({"dev": examples(8)}, {"dev": examples(8), "dev_2": examples(8)}):
        with pytest.raises(ValueError, match=r"'eval_dev_nll_scaled' is better when it is lower.*greater_is_better=F"):
            MixTrainer(tiny_bert(), args, method="vanilla", train_dataset=examples(8), eval_dataset=sets)


def test_the_worst_checkpoint_is_not_chosen(tmp_path):
    args = arguments(tmp_path, metric_for_best_model="nll", greater_is_better=True)
    with pytest.raises(ValueError, match=r"metric_for_best_model='nll' is better when it is lower.*greater_is_better"):
        MixTrainer(tiny_bert(), args, method="vanilla", train_dataset=examples(8))
