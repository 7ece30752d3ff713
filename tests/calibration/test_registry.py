"""One table of metrics: an entry reaches every reader, and rows may be read in blocks of any size."""

from __future__ import annotations

import numpy as np
import pytest

from hf_logitmix import METHODS
from hf_logitmix.calibration import registry, rows
from hf_logitmix.calibration.evaluate_modules import module
from hf_logitmix.calibration.metrics import watched_metrics
from hf_logitmix.commands.table import table
from hf_logitmix.hub.card import model_card
from hf_logitmix.metrics import METRICS, Metric, calibration_metrics, calibration_of, scaled_metrics
from hf_logitmix.temperature import cross_fit, fit_temperature, fit_vector_scaling
from hf_logitmix.training.arguments import MixTrainingArguments
from hf_logitmix.training.runs import calibration

LOGITS = np.random.default_rng(0).normal(size=(40, 3))
LABELS = np.random.default_rng(1).integers(3, size=40)


@pytest.fixture
def with_one_more(monkeypatch):
    """The mean confidence as a metric, higher being better."""
    metric = Metric(
        lambda found: found.confidence.mean(),
        "mean p",
        "mean confidence",
        higher_is_better=True,
        brief=True,
        columns=("", registry.SCALED),
    )
    monkeypatch.setitem(METRICS, "mean_confidence", metric)
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    return p.max(1).mean()


def test_one_entry_is_a_metric_of_every_reader(with_one_more, tmp_path):
    number = pytest.approx(with_one_more)
    assert calibration_metrics(LOGITS, LABELS)["mean_confidence"] == number
    assert "mean_confidence_scaled" in scaled_metrics(LOGITS, LABELS)
    assert watched_metrics(LOGITS, LABELS)["mean_confidence"] == number
    recorded = calibration(LOGITS, LABELS)
    assert recorded["mean_confidence"] == number
    found = module("mean_confidence")(cache_dir=str(tmp_path)).compute(predictions=LOGITS.tolist(), references=LABELS)
    assert found == {"mean_confidence": number}
    arguments = MixTrainingArguments(str(tmp_path), metric_for_best_model="mean_confidence", use_cpu=True)
    assert arguments.greater_is_better is True

    run = {"task": "sst2", "method_name": "mixup", "seed": 1, "n_train": 9, "n_eval": 40}
    header, _, row = table([run | {f"eval_{name}": value for name, value in recorded.items()}]).split("\n")
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert cells["mean p"] == f"{with_one_more:.3f}"
    assert cells["mean p scaled"] == f"{recorded['mean_confidence_scaled']:.3f}"
    card = model_card("name", METHODS["mixup"], {"mean_confidence": with_one_more}, base_model=None, dataset="data")
    assert card.data.eval_results[0].metric_type == "mean_confidence"


@pytest.mark.parametrize("block", [1, 7, 50])
def test_blocks_of_any_size_give_the_same(monkeypatch, block):
    soft = np.random.default_rng(2).dirichlet([1.0] * 3, size=40)

    def everything():
        yield from calibration_of(scaled=True)(type("P", (), {"predictions": LOGITS, "label_ids": LABELS})).values()
        yield from calibration_metrics(LOGITS, soft).values()
        yield float(fit_temperature(LOGITS, LABELS))
        yield from cross_fit(LOGITS, LABELS).ravel()
        yield from fit_vector_scaling(LOGITS, LABELS).weight

    monkeypatch.setattr(rows, "BLOCK", 10**6)
    whole = list(everything())
    monkeypatch.setattr(rows, "BLOCK", block)
    assert list(everything()) == pytest.approx(whole, abs=1e-7)
