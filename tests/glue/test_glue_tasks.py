"""The tasks against the Hub's dataset, by hand; metrics against formulas, scikit-learn and SciPy."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from hf_logitmix.glue.tasks import METRICS, TASKS, get_task, task_metrics

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
