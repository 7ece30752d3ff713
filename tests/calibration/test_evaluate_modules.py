"""The `evaluate` modules: offline, with numbers by hand."""

import math
import socket

import datasets
import evaluate
import numpy as np
import pytest

from hf_logitmix.calibration.evaluate_modules import ECE, NLL, OE, ArgMax, Brier, Calibration
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


def test_n_bins_may_belong_to_the_module(tmp_path):
    """So that modules which are combined are given none that they do not know."""
    metric = ECE(cache_dir=str(tmp_path), n_bins=1)
    assert metric.compute(predictions=PREDICTIONS, references=REFERENCES)["ece"] == pytest.approx(0.35)
    ten = metric.compute(predictions=PREDICTIONS, references=REFERENCES, n_bins=10)["ece"]
    assert ten == pytest.approx(BY_HAND["ece"])


class Accuracy(evaluate.Metric):
    """A module of class ids, of the form that those of the Hub have."""

    def _info(self):
        ids = {name: datasets.Value("int32") for name in ("predictions", "references")}
        return evaluate.MetricInfo(description="", citation="", features=datasets.Features(ids))

    def _compute(self, predictions, references, normalize=True):
        hits = np.array(predictions) == np.array(references)
        return {"accuracy": float(hits.mean() if normalize else hits.sum())}


@pytest.mark.parametrize("in_batches", [False, True])
def test_modules_of_class_ids_are_combined_by_their_arg_max(tmp_path, in_batches):
    made = {"cache_dir": str(tmp_path)}
    both = evaluate.combine([ECE(**made), ArgMax(Accuracy(**made), **made)])
    given = {"predictions": PREDICTIONS, "references": REFERENCES}
    if in_batches:
        both.add_batch(**given)
        both.add(prediction=PREDICTIONS[0], reference=REFERENCES[0])
        found, expected = both.compute(), {"ece": (2 * 0.25 + 0.95) / 3, "accuracy": 2 / 3}
    else:
        found, expected = both.compute(**given), {"ece": BY_HAND["ece"], "accuracy": 0.5}
    assert found == pytest.approx(expected)


def test_values_of_one_name_are_told_apart_by_their_modules(tmp_path):
    made = {"cache_dir": str(tmp_path)}
    both = evaluate.combine([Calibration(**made), ArgMax(Accuracy(**made), **made)])
    found = both.compute(predictions=PREDICTIONS, references=REFERENCES)
    assert (found["calibration_accuracy"], found["accuracy_accuracy"]) == (0.5, 0.5)


def test_options_reach_the_module_of_class_ids(tmp_path):
    made = {"cache_dir": str(tmp_path)}
    metric = ArgMax(Accuracy(**made), **made)
    assert metric.compute(predictions=PREDICTIONS, references=REFERENCES, normalize=False) == {"accuracy": 1.0}


@pytest.mark.parametrize("convert", [list, np.array])
def test_class_ids_are_refused_with_the_way_to_combine(tmp_path, convert):
    both = evaluate.combine([Accuracy(cache_dir=str(tmp_path)), ECE(cache_dir=str(tmp_path))])
    with pytest.raises(ValueError, match=r"ece was given .*0.* takes its K logits: .* ArgMax\(evaluate\.load") as error:
        both.compute(predictions=convert([0, 1]), references=convert(REFERENCES))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="takes its K logits"):
        ECE(cache_dir=str(tmp_path)).add(prediction=convert([0, 1])[0], reference=0)


def test_logits_keep_float64(tmp_path):
    """In float32 both logits are 1e8, and the first class would win the tie."""
    metric = Calibration(cache_dir=str(tmp_path))
    assert metric.compute(predictions=[[1e8, 1e8 + 1]], references=[1])["accuracy"] == 1


def test_bad_inputs(tmp_path):
    with pytest.raises(ValueError, match="labels"):
        ECE(cache_dir=str(tmp_path)).compute(predictions=PREDICTIONS, references=[0, 2])
