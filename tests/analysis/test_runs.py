"""Options read out of records against the methods themselves, and curves against sums by hand."""

import math
import statistics

import pytest

from hf_logitmix import METHODS, get_method
from hf_logitmix.analysis.runs import metric_over, options_in
from hf_logitmix.options import options_of
from hf_logitmix.targets import LabelSmoothing


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_number_of_a_method_is_read_out_of_how_a_record_writes_it(name):
    method = METHODS[name]
    found = options_in(str(method))
    for part, value in method.parts.items():
        assert found[part] == type(value).__name__
        for option in options_of(value, part):
            there = value
            for step in option.path[1:]:
                there = getattr(there, step)
            if isinstance(there, (bool, int, float, str)) and ".".join(option.path) in found:
                assert found[".".join(option.path)] == there
    assert any(found[path] == 0.4 for path in found) or name != "mixup"


def test_options_that_are_set_are_found_by_their_paths():
    method = get_method("logitmix", alpha=0.25, weights=(1, 0, 0.5), similarity="mse_softmax")
    found = options_in(str(method))
    assert found["pairing.lam.alpha"] == 0.25
    assert [found[f"objective.weights.{n}"] for n in range(3)] == [1, 0, 0.5]
    assert found["objective.similarity"] == "mse_softmax"
    assert options_in(str(get_method("label_smoothing", eps=0.3)))["targets.eps"] == 0.3
    assert options_in(str(get_method("lamix", beta=0.3)))["objective.beta"] == 0.3


@pytest.mark.parametrize("text", ["Method(", "logitmix"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="of a record"):
        options_in(text)


def record(method, seed, accuracy, task="mnli", noise=None):
    settings = {"learning_rate": 1e-3} | ({"label_noise": noise} if noise else {})
    told = {"task": task, "data": "d", "model": "m", "method_name": method.name, "method": str(method), "seed": seed}
    return {**told, "n_train": 5, "n_eval": 5, "settings": settings, "versions": {"a": seed}, "eval_accuracy": accuracy}


def test_a_curve_has_means_and_deviations_over_seeds_and_starts_at_zero():
    values = {0.1: [0.5, 0.7], 0.4: [0.6, 0.9]}
    runs = [record(get_method("mixup", alpha=a), s, y) for a, ys in values.items() for s, y in enumerate(ys)]
    runs += [record(METHODS["vanilla"], seed, y) for seed, y in enumerate((0.3, 0.35))]
    curves, flat = metric_over(runs[::-1], "pairing.lam.alpha", "eval_accuracy", "vanilla")
    assert (list(curves), flat) == (["mixup"], {})
    curve = curves["mixup"]
    assert curve.x.tolist() == [0, 0.1, 0.4]
    assert curve.mean.tolist() == pytest.approx([0.325, 0.6, 0.75])
    assert curve.std.tolist() == pytest.approx([statistics.stdev(y) for y in ((0.3, 0.35), (0.5, 0.7), (0.6, 0.9))])
    assert curve.runs.tolist() == [2, 2, 2]


def test_runs_without_the_option_stand_across_and_curves_are_named_by_what_tells_them_apart():
    runs = [record(get_method("logitmix", alpha=a, similarity=s), 1, a) for a in (1, 3) for s in ("mse", "l2")]
    runs.append(record(METHODS["lamix"], 1, 0.2))  # its alpha is that of the labels
    curves, flat = metric_over(runs, "pairing.lam.alpha", "eval_accuracy")
    assert list(curves) == ["logitmix, similarity mse", "logitmix, similarity l2"]
    assert [curve.mean.tolist() for curve in curves.values()] == [[1, 3], [1, 3]]
    assert list(flat) == ["lamix"]
    assert flat["lamix"].mean.tolist() == [0.2]
    assert math.isnan(flat["lamix"].x[0])


def test_vanilla_of_another_task_is_not_the_zero_of_this_one():
    runs = [record(get_method("label_smoothing", eps=0.2), 1, 0.5, task) for task in ("mnli", "sst2")]
    runs.append(record(METHODS["vanilla"], 1, 0.1, "mnli"))
    curves, _ = metric_over(runs, "targets.eps", "eval_accuracy", "vanilla")
    assert {name: curve.x.tolist() for name, curve in curves.items()} == {
        "label_smoothing, mnli": [0, 0.2],
        "label_smoothing, sst2": [0.2],
    }


def test_smoothing_on_top_of_a_method_is_one_curve():
    runs = []
    for factor in (0.1, 0.2):
        run = record(get_method("mixup", targets=LabelSmoothing(factor)), 1, factor)
        runs.append({**run, "settings": {**run["settings"], "label_smoothing_factor": factor}})
    curves, _ = metric_over(runs, "targets.eps", "eval_accuracy")
    assert {name: curve.x.tolist() for name, curve in curves.items()} == {"mixup": [0.1, 0.2]}


def test_label_noise_is_a_number_and_0_where_there_is_none():
    runs = [record(METHODS["mcel"], 1, 0.9), record(METHODS["mcel"], 1, 0.8, noise="0.25 pairwise")]
    curves, _ = metric_over(runs, "label_noise", "eval_accuracy")
    assert curves["mcel"].x.tolist() == [0, 0.25]


def test_runs_that_show_nothing_are_refused():
    runs = [record(METHODS["vanilla"], 1, 0.9)]
    with pytest.raises(ValueError, match=r"none of the 1 runs has the option objective\.beta"):
        metric_over(runs, "objective.beta", "eval_accuracy")
    with pytest.raises(ValueError, match="none of the 1 runs has eval_ece"):
        metric_over(runs, "label_noise", "eval_ece")
