"""The `evaluate` modules: offline, with numbers by hand."""

import math
import socket

import numpy as np
import pytest

from hf_logitmix.calibration.evaluate_modules import ECE, NLL, OE, Brier, Calibration
from hf_logitmix.calibration.evaluate_modules import module as module_of

# Two classes; confidence .75 and right, .95 and wrong: one example in each of the bins (.7, .8] and (.9, 1].
PREDICTIONS = [[math.log(3), 0.0], [math.log(19), 0.0]]
REFERENCES = [0, 1]
BY_HAND = {
    "ece": (0.25 + 0.95) / 2,
    "oe": 0.95**2 / 2,
    "nll": -(math.log(0.75) + math.log(0.05)) / 2,
    "brier": (2 * 0.25**2 + 2 * 0.95**2) / 2,
}
# The wrong answer has more confidence: it comes first, and no threshold leaves it out.
SELECTIVE = {"aurc": 0.75, "augrc": 0.375, "auroc": 0.0, **{f"coverage_at_risk_{risk}": 0.0 for risk in (1, 5, 10)}}
ALL = {**BY_HAND, **SELECTIVE, "accuracy": 0.5, "mce": 0.95, "adaptive_ece": 0.6, "classwise_ece": 0.6}
MODULES = [(ECE, "ece"), (OE, "oe"), (NLL, "nll"), (Brier, "brier")]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Any connection is an error."""

    def refuse(*args, **kwargs):
        raise AssertionError("a module asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(("module", "name"), MODULES)
def test_each_module_equals_the_number_by_hand(module, name, tmp_path):
    metric = module(cache_dir=str(tmp_path))
    values = metric.compute(predictions=PREDICTIONS, references=REFERENCES)
    assert values == {name: pytest.approx(BY_HAND[name])}


def test_calibration_gives_all_of_the_table(tmp_path):
    values = Calibration(cache_dir=str(tmp_path)).compute(predictions=PREDICTIONS, references=REFERENCES)
    assert 0 < values.pop("smooth_ece") < 1  # see test_smooth_ece.py
    assert values == pytest.approx(ALL)


@pytest.mark.parametrize("name", sorted(SELECTIVE))
def test_every_metric_has_a_module(name, tmp_path):
    values = module_of(name)(cache_dir=str(tmp_path)).compute(predictions=PREDICTIONS, references=REFERENCES)
    assert values == {name: pytest.approx(SELECTIVE[name])}


@pytest.mark.parametrize("convert", [list, np.array])
@pytest.mark.parametrize(("module", "name"), MODULES)
def test_batches_and_single_examples_add_up(module, name, convert, tmp_path):
    metric = module(cache_dir=str(tmp_path))
    metric.add_batch(predictions=convert(PREDICTIONS), references=convert(REFERENCES))
    metric.add_batch(predictions=convert(PREDICTIONS[:1]), references=convert(REFERENCES[:1]))
    metric.add(prediction=convert(PREDICTIONS[1]), reference=REFERENCES[1])
    assert metric.compute() == {name: pytest.approx(BY_HAND[name])}


def test_n_bins_reaches_the_metric(tmp_path):
    """One bin for both: confidence .85 on average, half of them right."""
    metric = ECE(cache_dir=str(tmp_path))
    assert metric.compute(predictions=PREDICTIONS, references=REFERENCES, n_bins=1)["ece"] == pytest.approx(0.35)


def test_logits_keep_float64(tmp_path):
    """In float32 both logits are 1e8, and the first class would win the tie."""
    metric = Calibration(cache_dir=str(tmp_path))
    assert metric.compute(predictions=[[1e8, 1e8 + 1]], references=[1])["accuracy"] == 1


def test_bad_inputs(tmp_path):
    with pytest.raises(ValueError, match="labels"):
        ECE(cache_dir=str(tmp_path)).compute(predictions=PREDICTIONS, references=[0, 2])
