"""The tasks against the Hub's dataset, by hand; metrics against formulas, scikit-learn and SciPy; the table of runs."""

import json
import math
import statistics

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from glue_runs.table import main, read_runs, table
from glue_runs.tasks import METRICS, TASKS, get_task, task_metrics

# name: text columns and class names in the order of nyu-mll/glue, the metrics of the GLUE paper
HUB = {
    "cola": (["sentence"], ["unacceptable", "acceptable"], ["matthews_correlation", "accuracy"]),
    "sst2": (["sentence"], ["negative", "positive"], ["accuracy"]),
    "mrpc": (["sentence1", "sentence2"], ["not_equivalent", "equivalent"], ["accuracy", "f1"]),
    "stsb": (["sentence1", "sentence2"], [], ["pearson", "spearmanr"]),
    "qqp": (["question1", "question2"], ["not_duplicate", "duplicate"], ["accuracy", "f1"]),
    "mnli": (["premise", "hypothesis"], ["entailment", "neutral", "contradiction"], ["accuracy"]),
    "qnli": (["question", "sentence"], ["entailment", "not_entailment"], ["accuracy"]),
    "rte": (["sentence1", "sentence2"], ["entailment", "not_entailment"], ["accuracy"]),
    "wnli": (["sentence1", "sentence2"], ["not_entailment", "entailment"], ["accuracy"]),
    "ax": (["premise", "hypothesis"], ["entailment", "neutral", "contradiction"], ["matthews_correlation"]),
}
SUBMISSIONS = {
    "cola": ["CoLA.tsv"],
    "sst2": ["SST-2.tsv"],
    "mrpc": ["MRPC.tsv"],
    "stsb": ["STS-B.tsv"],
    "qqp": ["QQP.tsv"],
    "mnli": ["MNLI-m.tsv", "MNLI-mm.tsv"],
    "qnli": ["QNLI.tsv"],
    "rte": ["RTE.tsv"],
    "wnli": ["WNLI.tsv"],
    "ax": ["AX.tsv"],
}


def test_there_are_the_ten_tasks():
    assert set(TASKS) == set(HUB)


@pytest.mark.parametrize("name", HUB)
def test_columns_labels_and_metrics(name):
    task = TASKS[name]
    texts, labels, metrics = HUB[name]
    assert list(task.texts) == texts
    assert list(task.label_names) == labels
    assert sorted(task.metrics) == sorted(metrics)
    assert task.metrics[0] == metrics[0]
    assert task.num_labels == {"stsb": 1, "mnli": 3, "ax": 3}.get(name, 2)
    assert task.is_regression == (name == "stsb")
    assert (task.train is None) == (name == "ax")


@pytest.mark.parametrize("name", HUB)
def test_names_of_the_splits_on_the_hub(name):
    task = TASKS[name]
    dev = {"mnli": ["validation_matched", "validation_mismatched"], "ax": []}.get(name, ["validation"])
    test = {"mnli": ["test_matched", "test_mismatched"]}.get(name, ["test"])
    assert [split.hub for split in task.dev] == dev
    assert [split.hub for split in task.test] == test
    assert task.train is None or task.train.hub == "train"


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_submissions_are_named_and_written_as_the_glue_server_expects(name):
    assert [split.submission for split in TASKS[name].test] == SUBMISSIONS[name]
    assert TASKS[name].writes_names == (name in {"mnli", "qnli", "rte", "ax"})


def test_the_two_dev_sets_of_mnli_have_different_suffixes():
    assert [split.suffix for split in TASKS["mnli"].dev] == ["", "_mm"]
    assert all(split.suffix == "" for name in set(HUB) - {"mnli"} for split in TASKS[name].dev)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        *(
            ("SST-2", "sst2"),
            ("sst-2", "sst2"),
            ("STS-B", "stsb"),
            ("STSB", "stsb"),
            ("CoLA", "cola"),
            ("MRPC", "mrpc"),
        ),
        *(("QQP", "qqp"), ("MNLI", "mnli"), ("QNLI", "qnli"), ("RTE", "rte"), ("WNLI", "wnli"), ("AX", "ax")),
        ("diagnostic", "ax"),
    ],
)
def test_a_task_is_found_in_any_case_and_by_its_folder(asked, name):
    assert get_task(asked).name == name


@pytest.mark.parametrize("name", HUB)
def test_a_task_is_found_by_its_hub_name(name):
    assert get_task(name) is TASKS[name]


@pytest.mark.parametrize("name", ["", "sst", "glue", "mnli-mm"])
def test_an_unknown_task_is_an_error_that_lists_the_tasks(name):
    with pytest.raises(ValueError, match=f"'{name}' is unknown") as error:
        get_task(name)
    assert all(known in str(error.value) for known in HUB)


def by_formula(name, labels, predictions):
    """Metrics from counts and sums."""
    pairs = list(zip(labels.tolist(), predictions.tolist(), strict=True))
    if name == "accuracy":
        return sum(y == p for y, p in pairs) / len(pairs)
    if name == "f1":
        both, either = sum(y == p == 1 for y, p in pairs), sum((y == 1) + (p == 1) for y, p in pairs)
        return 2 * both / either
    if name == "matthews_correlation":  # as a correlation of one-hot rows, which covers more than two classes
        y, p = (np.eye(3)[values] - np.eye(3)[values].mean(0) for values in (labels, predictions))
        return (y * p).sum() / math.sqrt((y * y).sum() * (p * p).sum())
    if name == "spearmanr":
        labels, predictions = (
            np.array([sum(o < v for o in values) + 0.5 * sum(o == v for o in values) for v in values])
            for values in (labels, predictions)
        )
    return np.corrcoef(labels, predictions)[0, 1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "classes", "library"),
    [
        ("accuracy", 3, sklearn_metrics.accuracy_score),
        ("f1", 2, sklearn_metrics.f1_score),
        ("matthews_correlation", 2, sklearn_metrics.matthews_corrcoef),
        ("matthews_correlation", 3, sklearn_metrics.matthews_corrcoef),
        ("pearson", 0, lambda labels, predictions: stats.pearsonr(labels, predictions)[0]),
        ("spearmanr", 0, lambda labels, predictions: stats.spearmanr(labels, predictions)[0]),
    ],
)
def test_metrics_equal_formulas_and_libraries(name, classes, library, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=83) if classes else rng.integers(26, size=83) / 5
    predictions = rng.integers(classes, size=83) if classes else labels + rng.normal(size=83)
    value = METRICS[name](labels, predictions)
    assert type(value) is float
    assert value == pytest.approx(by_formula(name, labels, predictions))
    assert value == pytest.approx(library(labels, predictions))


def test_f1_is_that_of_class_1():
    """MRPC and QQP count the equivalent and the duplicate: two found, one missed, two false."""
    labels, predictions = np.array([1, 1, 1, 0, 0, 0, 0, 0]), np.array([1, 1, 0, 1, 1, 0, 0, 0])
    for task in ("mrpc", "qqp"):
        assert task_metrics(TASKS[task], labels, np.eye(2)[predictions])["f1"] == pytest.approx(4 / 7)


@pytest.mark.parametrize("name", HUB)
def test_task_metrics_take_the_arg_max_or_the_score(name):
    rng = np.random.default_rng(5)
    task = TASKS[name]
    if name == "stsb":
        labels, logits = rng.uniform(0, 5, size=61), rng.normal(size=(61, 1))
        predictions = np.array([row[0] for row in logits])
    else:
        labels, logits = rng.integers(task.num_labels, size=61), rng.normal(size=(61, task.num_labels))
        predictions = np.array([list(row).index(max(row)) for row in logits])
    values = task_metrics(task, labels, logits)
    assert set(values) == set(HUB[name][2])
    for metric, value in values.items():
        assert value == pytest.approx(by_formula(metric, labels, predictions))


def records(folder):
    """Five runs below a folder, and files that are none: the accuracies of four by (method, seed)."""
    accuracies = {("mixup", 3): 0.91, ("vanilla", 1): 0.8, ("vanilla", 2): 0.85, ("vanilla", 3): 0.828}
    base = {"n_train": 640, "n_eval": 277, "train_steps_per_second": 2.5, "eval_oe": 0.01}
    base |= {"eval_nll": 0.5, "eval_nll_scaled": 0.4}
    for (method, seed), accuracy in accuracies.items():
        values = {"eval_accuracy": accuracy, "eval_ece": accuracy / 10, "eval_ece_scaled": 0.02 * seed}
        found = {**base, **values, "task": "rte", "method_name": method, "seed": seed}
        path = folder / "sweep" / f"rte-{method}-{seed}" / "all_results.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(found))
        (path.parent / "config.json").write_text("{}")
    score = {"task": "stsb", "method_name": "logitmix", "seed": 1, "eval_pearson": 0.5, "train_steps_per_second": 2.5}
    score["model"] = "google-bert/bert-base-uncased"
    (folder / "kept.json").write_text(json.dumps({**score, "n_train": 10, "n_eval": 5}))
    (folder / "list.json").write_text("[1]")
    return accuracies


def cells(text):
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    return {(row[0], row[1]): dict(zip(head, row, strict=True)) for row in rows}


def test_the_table_has_mean_and_standard_deviation_over_seeds(tmp_path):
    accuracies = records(tmp_path)
    found = cells(table(read_runs(tmp_path)))
    assert list(found) == [("stsb", "logitmix"), ("rte", "vanilla"), ("rte", "mixup")]
    three = [accuracies["vanilla", seed] for seed in (1, 2, 3)]
    row = found["rte", "vanilla"]
    assert row["metric"] == "accuracy"
    assert row["value"] == f"{statistics.mean(three):.3f} \u00b1 {statistics.stdev(three):.3f}" == "0.826 \u00b1 0.025"
    assert row["ECE"] == f"{statistics.mean(three) / 10:.3f} \u00b1 {statistics.stdev(three) / 10:.3f}"
    assert row["ECE scaled"] == "0.040 \u00b1 0.020"
    assert (row["NLL"], row["NLL scaled"], row["OE"]) == (
        "0.500 \u00b1 0.000",
        "0.400 \u00b1 0.000",
        "0.010 \u00b1 0.000",
    )
    assert (row["time / vanilla"], row["train / dev"], row["seeds"]) == ("1.00 \u00b1 0.00", "640 / 277", "3")
    assert row["published, BERT-base"] == ""  # which are of another model


def test_rows_that_would_look_alike_show_what_they_differ_in():
    """Two learning rates and two models of one method; a setting that only tells two tasks apart is no column."""
    fixed = {"task": "rte", "method_name": "mixup", "method": "m", "data": "d", "n_train": 9, "n_eval": 9, "seed": 1}

    def run(rate, model="a", **changes):
        settings = {"learning_rate": rate, "batch_size": 8 if "task" not in changes else 16}
        return {**fixed, "model": model, "settings": settings, "eval_accuracy": 0.5, **changes}

    head, _, *rows = table([run(0.1), run(0.2), run(0.2, "b"), run(0.1, task="sst2")]).splitlines()
    names = [name.strip() for name in head.strip("|").split("|")]
    assert names[:5] == ["task", "method", "model", "learning_rate", "metric"]
    shown = [tuple(cell.strip() for cell in row.strip("|").split("|"))[:4] for row in rows]
    assert sorted(shown) == sorted(
        [("rte", "mixup", *two) for two in (("a", "0.1"), ("a", "0.2"), ("b", "0.2"))] + [("sst2", "mixup", "a", "0.1")]
    )
    assert "published, BERT-base" not in names


def test_a_damaged_record_is_named(tmp_path):
    records(tmp_path)
    (tmp_path / "broken.json").write_text('{"task": "rte", ')
    with pytest.raises(ValueError, match=r"broken\.json is damaged"):
        read_runs(tmp_path)


def test_the_table_of_one_run_and_of_a_regression(tmp_path):
    records(tmp_path)
    found = cells(table(read_runs(tmp_path)))
    assert (found["rte", "mixup"]["value"], found["rte", "mixup"]["seeds"]) == ("0.910", "1")
    row = found["stsb", "logitmix"]
    assert (row["metric"], row["value"], row["time / vanilla"], row["published, BERT-base"]) == (
        "pearson",
        "0.500",
        "",
        "0.8945",
    )
    assert {row[name] for name in ("ECE", "OE", "NLL", "ECE scaled", "NLL scaled")} == {""}


def test_the_table_is_printed_and_an_empty_folder_is_an_error(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="holds no results"):
        main([str(tmp_path)])
    records(tmp_path)
    assert main([str(tmp_path)]) == 0
    assert len(cells(capsys.readouterr().out)) == 3
