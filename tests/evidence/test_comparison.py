"""Comparisons of runs that are made up, against SciPy, R's of Holm, and plain arithmetic."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from helpers.records import LABELS, SHARED, N, write
from hf_logitmix.calibration.differences import difference_of_samples, differences, sampled
from hf_logitmix.evidence.comparison import Against, compare
from hf_logitmix.evidence.page import page
from hf_logitmix.evidence.plots import forest
from hf_logitmix.evidence.records import labels_of, read_records
from hf_logitmix.evidence.significance import holm, paired_t
from hf_logitmix.evidence.verdict import screen, verdict


def test_holms_correction_is_that_of_a_known_example():
    """The p-values of R's p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm"), and an order that is not sorted."""
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.04, 0.001, 0.9]) == pytest.approx([0.08, 0.003, 0.9])
    assert holm([]) == []


def test_the_paired_test_is_scipys():
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(size=5) + 0.5, rng.normal(size=5)
    found, p = paired_t(list(ours - theirs))
    known = ttest_rel(ours, theirs)
    assert p == pytest.approx(known.pvalue)
    assert tuple(found)[1:] == pytest.approx(tuple(known.confidence_interval()))


@pytest.mark.parametrize("apart", [[0.25], [0.25, 0.25], [0.81 - 0.8, 0.71 - 0.7, 0.61 - 0.6], [0.0, 0.0, 0.0]])
def test_differences_that_are_not_spread_tell_nothing(apart):
    """A t-test of the second would have p = 0, of two seeds that happen to have as many errors less."""
    (mean, low, high), p = paired_t(apart)
    assert mean == pytest.approx(apart[0])
    assert p == (None if mean else 1.0)
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four seeds: vanilla is too sure of itself, smooth is the same but for that, worse knows less, same is vanilla."""
    path = tmp_path_factory.mktemp("runs")
    for seed in range(1, 5):
        write(path, "vanilla", seed, sharpness=4.0)
        write(path, "label_smoothing", seed, sharpness=1.0)
        write(path, "mixup", seed, sharpness=4.0, skill=0.2)
        write(path, "focal", seed, sharpness=4.0)
    return path


@pytest.fixture(scope="module")
def found(folder):
    (comparison,) = compare(read_records(folder))
    return comparison


@pytest.mark.slow
def test_methods_are_held_against_the_baseline(found):
    rows = {row.label: row for row in found.rows}
    assert list(rows) == ["vanilla", "label_smoothing", "focal", "mixup"]
    assert rows["vanilla"].against == {}
    both = {name: [read.logits() for read in rows[name].records] for name in rows}
    known = differences(both["label_smoothing"], both["vanilla"])
    for name in ("accuracy", "ece", "nll", "aurc", "ece_scaled", "nll_scaled"):
        assert tuple(rows["label_smoothing"].against[name].difference) == pytest.approx(tuple(known[name]))
        a, b = (np.mean(rows[label].values[name]) for label in ("label_smoothing", "vanilla"))
        assert rows["label_smoothing"].against[name].difference.value == pytest.approx(a - b, abs=1e-9)
    counts = {label: {name for name, of in row.against.items() if of.counts} for label, row in rows.items()}
    assert counts["focal"] == counts["vanilla"] == set()
    assert {"ece", "nll"} <= counts["label_smoothing"]
    assert "accuracy" not in counts["label_smoothing"]
    assert "accuracy" in counts["mixup"]
    assert rows["label_smoothing"].against["nll"].is_better
    assert not rows["mixup"].against["accuracy"].is_better
    assert rows["mixup"].time == 2.0


def test_p_values_are_corrected_over_the_methods_of_a_task(found):
    base, *others = found.rows
    raw = [ttest_rel(row.values["nll"], base.values["nll"]).pvalue for row in others]
    raw = [1.0 if math.isnan(p) else p for p in raw]  # of focal, whose differences are all 0
    assert [row.against["nll"].p for row in others] == pytest.approx(holm(raw))


def test_p_values_are_corrected_over_those_that_are_asked_for(folder):
    (found,) = compare(read_records(folder), "mixup", only=["label_smoothing"])
    base, row = found.rows
    assert (base.label, row.label) == ("mixup", "label_smoothing")
    assert row.against["nll"].p == pytest.approx(ttest_rel(row.values["nll"], base.values["nll"]).pvalue)
    with pytest.raises(ValueError, match=r"there is no lamix, only .*: name some of them"):
        compare(read_records(folder), "mixup", only=["lamix"])


def test_without_logits_intervals_are_those_over_seeds(tmp_path):
    for seed in (1, 2, 3):
        write(tmp_path, "vanilla", seed, sharpness=4.0, logits=False)
        write(tmp_path, "mixup", seed, logits=False)
    (found,) = compare(read_records(tmp_path))
    base, row = found.rows
    known = ttest_rel(row.values["ece"], base.values["ece"]).confidence_interval()
    assert tuple(row.against["ece"].difference)[1:] == pytest.approx(tuple(known))
    (told,) = found.remarks
    assert told.startswith("Intervals of accuracy, ECE, ")
    assert told.endswith(" are over seeds alone.")


def test_one_seed_tells_nothing(tmp_path):
    for method in ("vanilla", "mixup"):
        write(tmp_path, method, 1, sharpness=4.0 if method == "vanilla" else 1.0)
    (found,) = compare(read_records(tmp_path))
    assert not any(of.counts for of in found.rows[1].against.values())
    assert verdict(found) == [
        "Fewer than two seeds in common with vanilla: no difference can be told from the luck of a seed. Run at least "
        "three of each, better five."
    ]


def test_the_verdict_says_no_difference_where_there_is_none(found):
    told = {line.split(":")[0]: line for line in verdict(found)}
    everything = "accuracy, calibration error, NLL and NLL after temperature scaling"
    assert told["focal"] == f"focal: no difference in {everything}."
    assert told["label_smoothing"].startswith("label_smoothing: better calibration error (-0.")
    assert "no difference in accuracy and NLL after temperature scaling" in told["label_smoothing"]
    assert told["mixup"].startswith("mixup: worse accuracy (-0.")
    assert told["Accuracy"] == "Accuracy: nothing is better; worse: mixup."
    assert told["Calibration error"].startswith("Calibration error: better than vanilla: label_smoothing")


def test_the_screen_marks_what_counts(found):
    lines = {line.split("  ")[0]: line for line in screen(found).splitlines()}
    assert found.title in lines
    assert "*" not in lines["vanilla"]
    assert "*" not in lines["focal"]
    mean = np.mean(found.rows[1].values["ece"])
    assert f"{mean:.3f} ({found.rows[1].against['ece'].difference.value:+.3f})*" in lines["label_smoothing"]


def test_what_makes_a_comparison_less_fair_is_told(tmp_path):
    for seed in (1, 2):
        write(tmp_path, "vanilla", seed, train_grad_clipped=0.05, digests={"train": "a"})
        write(tmp_path, "mixup", seed, train_grad_clipped=0.9, digests={"train": "b"})
    write(tmp_path, "vanilla", 3, train_grad_clipped=0.05, digests={"train": "a"})
    (found,) = compare(read_records(tmp_path))
    clipped, data, seeds = found.remarks
    assert clipped.startswith("Gradients were clipped in 5% (vanilla) to 90% (mixup) of the steps")
    assert data == "mixup: trained on other examples or labels than vanilla."
    assert seeds == "Not all have all 3 seeds: mixup (2)."


def test_what_differs_besides_the_method_is_told(tmp_path):
    """As where memory ran out and halved the batch, or another machine went on; the label is not told again."""
    plain = {"batch_size": 32, "learning_rate": 0.1, "masks": None}
    versions = {"torch": "2.9", "python": "3.11"}
    measured = {"measured_on": {"validation": N}, "digests": {"train": "a", "validation": "v"}}
    for seed in (1, 2):
        write(tmp_path, "vanilla", seed, settings=plain, versions=versions, device="cpu", **measured)
        write(
            tmp_path, "mixup", seed, settings={**plain, "masks": "union"}, versions=versions, device="cpu", **measured
        )
        settings, words = {**plain, "batch_size": 16, "learning_rate": 0.2}, "--learning_rate 0.2"
        other = {"measured_on": {"validation": N}, "digests": {"train": "a", "validation": "w"}}
        with_torch = {"settings": settings, "versions": {**versions, "torch": "2.8"}, "device": "gpu"}
        write(tmp_path, "logitmix", seed, words=words, **with_torch, **other)
    (found,) = compare(read_records(tmp_path))
    name = "logitmix --learning_rate 0.2"
    assert found.remarks == (
        f"{name} and vanilla differ in batch_size (16 and 32), version of torch (2.8 and 2.9), "
        "device (gpu and cpu) too.",
        f"{name}: evaluated on other examples than vanilla, though their labels agree.",
    )


def test_runs_without_an_evaluation_are_refused(tmp_path):
    for method in ("vanilla", "mixup"):
        (tmp_path / f"{method}.json").write_text(json.dumps({**SHARED, "method_name": method, "seed": 1}))
    with pytest.raises(ValueError, match=r"^sst2: .* no run of vanilla, mixup was evaluated"):
        compare(read_records(tmp_path))


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1", None])
def test_logits_that_cannot_be_read_are_named(tmp_path, content):
    for method in ("vanilla", "mixup"):
        write(tmp_path, method, 1)
    path = tmp_path / "mixup-1.npz"
    path.write_bytes(path.read_bytes()[:1000] if content is None else content)
    with pytest.raises(ValueError, match=r"mixup-1\.npz holds no logits: remove it"):
        compare(read_records(tmp_path))


def test_a_method_is_called_by_what_it_is_told_besides(tmp_path):
    for words in ("--num_train_epochs 3", "--num_train_epochs 6", "--num_train_epochs 3 --level hidden:2"):
        words += " --disable_tqdm True" * ("6" in words)  # with which a run is the same
        for method in ("vanilla", "mixup") if "level" not in words else ("mixup",):
            write(tmp_path, method, 1, words=f"{words} --output_dir runs/x/{method}")
    records = read_records(tmp_path)
    assert sorted(labels_of(records)) == [
        "mixup",
        "mixup --level hidden:2",
        "mixup --num_train_epochs 6",
        "vanilla",
        "vanilla --num_train_epochs 6",
    ]


@pytest.mark.parametrize("lacks", ["baseline", "seed", "labels"])
def test_what_cannot_be_compared_is_refused(tmp_path, lacks):
    for seed in (1, 2):
        write(tmp_path, "mixup", seed)
        write(tmp_path, "vanilla", seed)
    if lacks == "seed":
        write(tmp_path, "mixup", 1, words=" --seed 1")
        with pytest.raises(ValueError, match=r"are both runs of mixup with seed 1: pass a folder with one of them"):
            compare(read_records(tmp_path))
    elif lacks == "labels":
        np.savez(tmp_path / "mixup-2.npz", logits=np.zeros((N, 2)), labels=1 - LABELS)
        with pytest.raises(ValueError, match=r"mixup-2\.json was evaluated on other examples"):
            compare(read_records(tmp_path))
    else:
        with pytest.raises(ValueError, match=r"there is no lamix, only vanilla, mixup: name one of them"):
            compare(read_records(tmp_path), "lamix")


def test_a_task_without_the_baseline_is_told_of_beside_one_that_has_it(tmp_path, caplog):
    for seed in (1, 2):
        for method in ("vanilla", "mixup"):
            write(tmp_path, method, seed)
        write(tmp_path, "mixup --max_train_samples 500", seed, n_train=500)
    (found,) = compare(read_records(tmp_path))
    assert [row.label for row in found.rows] == ["vanilla", "mixup"]
    assert "500 training" in caplog.text
    assert "there is no vanilla, so nothing is told of mixup" in caplog.text


def test_checkpoints_of_a_run_hold_no_records(tmp_path):
    write(tmp_path, "vanilla", 1)
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text('{"torn')
    assert [run.method for run in read_records(tmp_path)] == ["vanilla"]


def test_labels_of_several_classes_are_compared_over_seeds(tmp_path):
    for seed in (1, 2):
        for method in ("vanilla", "mixup"):
            write(tmp_path, method, seed)
            np.savez(tmp_path / f"{method}-{seed}.npz", logits=np.zeros((N, 3)), labels=np.ones((N, 3)))
    (found,) = compare(read_records(tmp_path))
    assert not any(of.over_examples for of in found.rows[1].against.values())
    assert page([found])


def test_a_seed_without_a_number_is_told_of(tmp_path):
    for seed in (1, 2, 3):
        write(tmp_path, "vanilla", seed)
        write(tmp_path, "mixup", seed, **({"eval_accuracy": None} if seed == 2 else {}))
    (found,) = compare(read_records(tmp_path))
    assert found.remarks == ("accuracy is missing or not a number, so it is not compared: mixup (2) (seed).",)
    assert not any(line.startswith("Accuracy:") for line in verdict(found))
    assert "accuracy" not in found.rows[1].against


def test_runs_that_were_trained_in_other_ways_are_not_seeds_of_one_another(tmp_path):
    """Records without a command line, in which nothing else tells them apart."""
    for seed, size in ((1, 32), (2, 64)):
        write(tmp_path, "vanilla", seed, command=None)
        write(tmp_path, "mixup", seed, command=None, settings={"batch_size": size})
    says = r"mixup-1\.json and .*mixup-2\.json are both called mixup and differ in settings\.batch_size"
    with pytest.raises(ValueError, match=says):
        compare(read_records(tmp_path))


def test_times_of_other_devices_are_not_compared(tmp_path):
    for seed in (1, 2):
        write(tmp_path, "vanilla", seed, device="cpu")
        write(tmp_path, "mixup", seed, device="gpu")
    (found,) = compare(read_records(tmp_path))
    assert found.rows[1].time is None


@pytest.mark.slow
def test_few_differences_count_where_there_is_none():
    """Both sides of the same distribution: five pairs of seeds on one set of 150 examples, 150 times."""
    rng, counted = np.random.default_rng(0), {"accuracy": 0, "nll": 0, "ece": 0}
    for _ in range(150):
        labels = rng.integers(2, size=150)
        shared = rng.normal(size=(150, 2)) + np.eye(2)[labels]  # what is hard is hard for all
        sides = [[shared + rng.normal(size=(150, 2)) for _ in range(5)] for _ in range(2)]
        drawn = [[sampled(logits, labels, samples=200) for logits in side] for side in sides]
        for name, difference in difference_of_samples(*drawn).items():
            if name in counted:
                values = [[of[name][0] for of in side] for side in drawn]
                _, p = paired_t(np.subtract(*values).tolist())
                counted[name] += Against(difference, p, True, True).counts
    assert max(counted.values()) <= 0.05 * 150 + 2 * (150 * 0.05 * 0.95) ** 0.5


def test_the_forest_draws_each_difference_once(found):
    figure = forest(found, ["nll", "no such metric"])
    (axes,) = figure.axes
    drawn = [tuple(line.get_xdata()) for line in axes.lines if line.get_linewidth() == 2]
    known = [(low, high) for _, low, high in (row.against["nll"].difference for row in found.rows[1:])]
    assert drawn == known
    colors = [line.get_color() for line in axes.lines if line.get_marker() == "o"]
    assert len(set(colors)) == 3  # better, no difference, worse
    assert [text.get_text() for text in axes.get_yticklabels()] == ["label_smoothing", "focal", "mixup"]
