"""Every kind of label, and the numbers that are learned of it, written out by hand."""

import math

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_logitmix.tables.labels import Labels, label_values, labels_of
from hf_logitmix.text.data import Table, part, text_data, with_validation

ONE, SEVERAL = "single_label_classification", "multi_label_classification"
# labels, options, what they are, and what is learned
KINDS = {
    "ids": ([1, 0, 1], {}, Labels(ONE, ("0", "1")), [1, 0, 1]),
    "ids of a csv": (["10", "9", "9"], {}, Labels(ONE, ("9", "10")), [1, 0, 0]),
    "ids with gaps": ([5, 1, 3, 1], {}, Labels(ONE, ("1", "3", "5")), [2, 0, 1, 0]),
    "ids below zero": ([-1, 1, 1], {}, Labels(ONE, ("-1", "1")), [0, 1, 1]),
    "names": (["b", "a", "NA", "a"], {}, Labels(ONE, ("NA", "a", "b")), [2, 1, 0, 1]),
    "names like numbers": (["01", "1", "1"], {"regression": False}, Labels(ONE, ("01", "1")), [0, 1, 1]),
    "bools": ([True, False, True], {}, Labels(ONE, ("False", "True")), [1, 0, 1]),
    "scores": ([1.5, 2.0, 3.0], {}, Labels("regression"), [1.5, 2, 3]),
    "scores of a csv": (["1.5", "2", "-3e-1"], {}, Labels("regression"), [1.5, 2, -0.3]),
    "whole scores": ([1, 5, 1], {"regression": True}, Labels("regression"), [1, 5, 1]),
    "lists of names": (
        [["b", "a"], [], ["c"]],
        {},
        Labels(SEVERAL, ("a", "b", "c")),
        [[1, 1, 0], [0, 0, 0], [0, 0, 1]],
    ),
    "lists of ids": ([[2], [10, 2]], {}, Labels(SEVERAL, ("2", "10")), [[1, 0], [1, 1]]),
    "multi-hot": ([[1, 0, 1], [0, 0, 0]], {}, Labels(SEVERAL, ("0", "1", "2"), rows=True), [[1, 0, 1], [0, 0, 0]]),
    "soft": ([[0.25, 0.75], [1.0, 0.0]], {"soft": True}, Labels(ONE, ("0", "1"), True, True), [[0.25, 0.75], [1, 0]]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_label(kind):
    values, options, labels, numbers = KINDS[kind]
    assert labels_of(values, "column 'label'", **options) == labels
    encoded = labels.encode(values, "train.csv")
    assert encoded.tolist() == pytest.approx(numbers) if labels.problem_type == "regression" else numbers
    assert np.issubdtype(encoded.dtype, np.integer) == (labels.problem_type == ONE and not labels.soft)


REFUSED = [
    (["a", "a"], {}, "column 'y' holds one class alone, 'a'"),
    (["a", "b", "c"], {}, r"column 'y' has another value in each of its 3 rows \(a, b, c\).*--do_regression true"),
    (
        [1, 0],
        {"soft": True},
        "needs a column of lists of probabilities, and column 'y' holds 1: .* --label_column p_no",
    ),
    ([[0.5, 0.5], [1.0]], {"soft": True}, "soft_labels=True needs one probability a class.*several lengths"),
    ([[0.5, 0.5], [1.0, 0.0]], {}, "column 'y' holds lists of fractions: pass --soft_labels true"),
    ([[1], [2]], {"regression": True}, "do_regression=True needs one number an example, and column 'y' holds lists"),
    ([["a"], []], {}, "column 'y' names 1 class"),
]


@pytest.mark.parametrize(("values", "options", "says"), REFUSED)
def test_labels_of_no_kind(values, options, says):
    with pytest.raises(ValueError, match=says):
        labels_of(values, "column 'y'", **options)


UNKNOWN = [
    (Labels(ONE, ("a", "b")), ["a", "c"], "row 2: label 'c' is none of the 2 classes: a, b"),
    (Labels(ONE, ("0", "1")), [0, 2], "row 2: label '2' is none of the 2 classes: 0, 1"),
    (Labels(ONE, ("no", "yes"), named=True), [1, 2], "row 2: label '2' is none of the 2 classes: no, yes"),
    (Labels(ONE, ("no", "yes")), ["no", 1], "row 2: label '1' is none of the 2 classes: no, yes"),
    (Labels(ONE, ("1", "2", "other")), ["1", "0"], "row 2: label '0' is none of the 3 classes: 1, 2, other"),
    (Labels(ONE, ("a", "b")), [["a"]], r"row 1: label \['a'\] is a list"),
    (Labels("regression"), ["1", "x"], "row 2: label 'x' is no number"),
    (Labels("regression"), ["1", "nan"], "row 2: label 'nan' is no number"),
    (Labels(SEVERAL, ("a", "b")), [["a"], ["a", "c"]], "row 2: label 'c' is none of the 2 classes"),
    (Labels(SEVERAL, ("a", "b")), [["a"], "b"], "row 2: label 'b' is no list"),
    (Labels(SEVERAL, ("0", "1"), rows=True), [[1, 0], [1]], r"row 2: label \[1\] is no list of 2 numbers"),
    (
        Labels(SEVERAL, ("0", "1"), rows=True),
        [[1, 0], [0.5, 1]],
        r"row 2: label \[0\.5, 1\] holds 0\.5, .* --soft_labels",
    ),
    (Labels(ONE, ("0", "1"), True, True), [[0.5, 0.5], [0.5, 0.6]], r"row 2: the soft label sums to 1\.1 .*: divide"),
    (
        Labels(ONE, ("0", "1"), True, True),
        [[0.5, 0.5], [1.5, -0.5]],
        r"row 2: the soft label holds -0\.5: pass numbers",
    ),
    (
        Labels(ONE, ("0", "1"), True, True),
        [[0.5, 0.5], [0.5, "x"]],
        r"row 2: label \[0\.5, 'x'\] is no list of 2 numbers",
    ),
]


@pytest.mark.parametrize(("labels", "values", "says"), UNKNOWN)
def test_a_label_that_training_lacks_is_named_with_its_row(labels, values, says):
    with pytest.raises(ValueError, match=rf"dev\.csv.*{says}"):
        labels.encode(values, "dev.csv")


def test_ids_are_those_of_classes_that_have_names():
    named = labels_of(["no", "yes"], "train", names=("no", "yes"))
    assert named.encode([1, "no", "0"], "dev.csv").tolist() == [1, 0, 0]


def test_bools_in_lists_are_zeros_and_ones():
    data = Dataset.from_dict({"labels": [[True, False, False], [False, True, True]]})
    values = label_values(data, "labels")
    assert labels_of(values, "train").encode(values, "train").tolist() == [[1, 0, 0], [0, 1, 1]]


def tables(**splits):
    return {name: Table(Dataset.from_dict(columns), f"{name}.csv") for name, columns in splits.items()}


def named(labels, names):
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"text": ["x"] * len(labels), "label": labels}, features=kinds)


def test_class_labels_go_by_their_names_also_where_a_split_has_another_order():
    given = {
        "train": Table(named([0, 2], ["c", "b", "a"]), "train"),
        "validation": Table(named([0, 1], ["a", "b"]), "dev"),
    }
    found = text_data(given)
    assert found.labels == Labels(ONE, ("c", "b", "a"))
    assert [found.targets(split).tolist() for split in found.splits] == [[0, 2], [2, 1]]


@pytest.mark.parametrize("kept_back", [["", ""], [None, None], [-1, -1], ["-1", "-1"]])
@pytest.mark.parametrize("known", [[1, 0], [1.5, 0.25]])
def test_a_test_split_whose_labels_are_kept_back_is_there_to_predict(kept_back, known):
    """In a csv all fields are texts."""
    train = {"text": ["a", "b"], "label": list(map(str, known)) if isinstance(kept_back[0], str) else known}
    found = text_data(tables(train=train, test={"text": ["c", "d"], "label": kept_back}))
    assert found.splits["test"].to_list() == [{"text": "c"}, {"text": "d"}]
    assert (found.has_labels("train"), found.has_labels("test"), found.has_labels("validation")) == (True, False, False)


@pytest.mark.parametrize("kept", [[-1, -1], ["-1", "-1"]])
def test_minus_one_is_a_label_where_training_has_it(kept):
    values = [1, -1] if kept[0] == -1 else ["1", "-1"]
    found = text_data(tables(train={"text": ["a", "b"], "label": values}, test={"text": ["c", "d"], "label": kept}))
    assert found.targets("test").tolist() == [0, 0]


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_row_without_a_label_is_named_by_its_number(missing):
    given = tables(train={"text": ["a", "b", "c"], "score": [1.5, 2.0, missing]})
    with pytest.raises(
        ValueError, match=r"train\.csv, row 3: no label in column 'score': fill it in, or leave the row"
    ):
        text_data(given)


# as a csv has them, where all is text, and as other tables do
IN_COLUMNS = {
    "written out": [["0.25", "0.75"], ["1", "0"], ["2.5e-1", ".75"]],
    "numbers": [[0.25, 0.75], [1, 0], [0.25, 0.75]],
}


def in_columns(rows, *names, texts=None):
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return {"text": texts or [f"t{n}" for n in range(len(rows))], **columns}


@pytest.mark.parametrize("kind", IN_COLUMNS)
def test_a_column_for_each_class_holds_its_probability(kind):
    given = tables(train=in_columns(IN_COLUMNS[kind], "p_no", "p_yes"))
    found = text_data(given, label=["p_no", "p_yes"], soft=True)
    assert found.labels == Labels(ONE, ("no", "yes"), soft=True, rows=True)
    assert found.targets("train").tolist() == [[0.25, 0.75], [1, 0], [0.25, 0.75]]
    told = "texts: text; labels: p_no + p_yes, probabilities of classes (2: no, yes); examples: 3 train"
    assert str(found) == told
    turned = text_data(given, label=["p_yes", "p_no"], soft=True)
    assert turned.targets("train").tolist() == [[0.75, 0.25], [0, 1], [0.75, 0.25]]
    assert turned.labels.names == ("yes", "no")


def test_a_column_for_each_class_that_may_hold_or_not():
    given = tables(train=in_columns([["1", "0"], ["0", "0"], ["1", "1"]], "rude", "p_mean"))
    found = text_data(given, label=["rude", "p_mean"])
    assert found.labels == Labels(SEVERAL, ("rude", "p_mean"), rows=True)
    assert found.targets("train").tolist() == [[1, 0], [0, 0], [1, 1]]


REFUSED_COLUMNS = [
    (
        [["0.5", "0.5"], ["0.5", "0.6"]],
        {"soft": True},
        r"train\.csv, row 2: the soft label sums to 1\.1 and not to 1: divide",
    ),
    ([["0.5", "0.5"], ["0.5", "x"]], {"soft": True}, r"train\.csv, row 2: 'x' in column 'p_yes' is no number"),
    ([["0.5", "0.5"], ["0.5", ""]], {"soft": True}, r"train\.csv, row 2: no label in columns 'p_no' and 'p_yes'"),
    ([["0.5", "0.5"], ["", ""]], {"soft": True}, r"train\.csv, row 2: no label in columns 'p_no' and 'p_yes'"),
    (
        [["0.5", "0.5"], ["1", "0"]],
        {},
        r"columns 'p_no' and 'p_yes' of train\.csv hold other numbers than 0 and 1: pass --sof",
    ),
    (
        [["1", "0"]],
        {"regression": True},
        "do_regression=True needs one number an example, and columns 'p_no' and 'p_yes'",
    ),
]


@pytest.mark.parametrize(("rows", "options", "says"), REFUSED_COLUMNS)
def test_columns_of_labels_that_are_refused(rows, options, says):
    with pytest.raises(ValueError, match=says) as error:
        text_data(tables(train=in_columns(rows, "p_no", "p_yes")), label=["p_no", "p_yes"], **options)
    assert "\n" not in str(error.value)


def test_another_split_has_all_columns_of_labels_or_is_there_to_predict():
    names, whole = ["p_no", "p_yes"], in_columns(IN_COLUMNS["numbers"], "p_no", "p_yes")
    half = {name: whole[name] for name in ("text", "p_no")}
    for test in ({"text": ["a"]}, {"text": ["a"], "p_no": [""], "p_yes": [""]}):
        found = text_data(tables(train=whole, test=test), label=names, soft=True)
        assert found.splits["test"].to_list() == [{"text": "a"}]
    with pytest.raises(ValueError, match=r"test\.csv has no column 'p_yes'"):
        text_data(tables(train=whole, test=half), label=names, soft=True)


def test_a_trained_model_orders_the_columns_and_tells_lists_from_rows():
    """Lists of 0 and 1, one for each of its classes, say of each whether it holds; others name those that hold."""
    test = tables(test=in_columns([[0.2, 0.8], [1, 0]], "p_yes", "p_no"))
    found = text_data(test, label=["p_yes", "p_no"], soft=True, known=Labels(ONE, ("no", "yes")))
    assert found.targets("test").tolist() == pytest.approx(np.array([[0.8, 0.2], [0, 1]], dtype=np.float32))
    with pytest.raises(
        ValueError, match="'p_yes' and 'p_no' are labels of the classes yes, no, and the model's are a, b"
    ):
        text_data(test, label=["p_yes", "p_no"], soft=True, known=Labels(ONE, ("a", "b")))
    several = Labels(SEVERAL, ("0", "1", "2"))
    for labels, expected in (([[1, 0, 1], [0, 0, 0]], [[1, 0, 1], [0, 0, 0]]), ([[0, 2], [1]], [[1, 0, 1], [0, 1, 0]])):
        found = text_data(tables(test={"text": ["a", "b"], "label": labels}), known=several)
        assert found.targets("test").tolist() == expected
    soft = text_data(tables(test={"text": ["a"], "label": [[0.5, 0.5]]}), soft=True, known=Labels(ONE, ("0", "1")))
    assert soft.targets("test").tolist() == [[0.5, 0.5]]


def test_texts_and_labels_have_the_same_names_whatever_their_columns():
    train = {"id": [7, 8], "claim": ["a", "b"], "proof": ["c", "d"], "verdict": ["yes", "no"]}
    found = text_data(tables(train=train), text="claim", text_pair="proof", label="verdict")
    expected = [{"text": "a", "text_pair": "c", "label": 1}, {"text": "b", "text_pair": "d", "label": 0}]
    assert (found.splits["train"].to_list(), found.texts) == (expected, ("text", "text_pair"))
    assert str(found) == "texts: claim + proof; labels: verdict, classes (2: no, yes); examples: 2 train"


def test_parts_keep_the_shares_of_the_classes():
    whole = text_data(tables(train={"text": [f"t{n}" for n in range(100)], "label": ["a"] * 80 + ["b"] * 20}))
    for data, sizes in ((part(whole, "train", 10, 0, "max_train_samples"), [8, 2]), (whole.splits["train"], [80, 20])):
        assert np.bincount(data["label"]).tolist() == sizes
    split = with_validation(whole, 0.1, 0)
    assert [np.bincount(split.targets(name)).tolist() for name in ("train", "held out")] == [[72, 18], [8, 2]]
    again, other = with_validation(whole, 0.1, 0), with_validation(whole, 0.1, 1)
    assert (
        again.splits["held out"]["text"][:]
        == split.splits["held out"]["text"][:]
        != other.splits["held out"]["text"][:]
    )
    assert not set(split.splits["held out"]["text"]) & set(split.splits["train"]["text"])
    for count, says in ((0, "pass at least 1"), (1, "pass at least 2, an example of each class")):
        with pytest.raises(ValueError, match=f"max_train_samples={count}: {says}"):
            part(whole, "train", count, 0, "max_train_samples")
