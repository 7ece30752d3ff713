"""Columns are found by usual names or as the only one, named ones are taken, and anything else lists what is there."""

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_logitmix.text.columns import Columns, check_columns, find_columns


def table(**columns):
    return Dataset.from_dict(
        {name: values if isinstance(values, list) else [values] * 2 for name, values in columns.items()}
    )


FOUND = [
    ({"text": "a", "label": 0}, ("text",), ("label",)),
    ({"Sentence": "a", "Label": 0, "idx": 3}, ("Sentence",), ("Label",)),
    ({"sentence1": "a", "sentence2": "b", "score": 0.5}, ("sentence1", "sentence2"), ("score",)),
    ({"label": 0, "hypothesis": "a", "premise": "b"}, ("premise", "hypothesis"), ("label",)),
    ({"question1": "a", "question2": "b", "target": "x"}, ("question1", "question2"), ("target",)),
    ({"question": "a", "sentence": "b", "label": "x"}, ("question", "sentence"), ("label",)),
    ({"question": "a", "passage": "b", "label": True}, ("question", "passage"), ("label",)),
    ({"question": "a", "label": 1}, ("question",), ("label",)),
    ({"text": "a", "text_pair": "b", "labels": 1}, ("text", "text_pair"), ("labels",)),
    ({"id": ["1", "2.5"], "review": "a", "label": "x"}, ("review",), ("label",)),  # of a csv, where all is text
    ({"text": "a", "title": "b", "label": "x"}, ("text",), ("label",)),
]


@pytest.mark.parametrize(("columns", "texts", "labels"), FOUND)
def test_columns_that_are_found(columns, texts, labels):
    assert find_columns(table(**columns), "train.csv") == Columns(texts, labels)


def test_texts_to_predict_need_no_label():
    assert find_columns(table(text="a", idx=1), "test.csv", needs_label=False) == Columns(("text",), ())


def test_columns_that_are_named():
    data = table(text="a", title="b", label=0, stars=3)
    assert find_columns(data, "a.csv", text="title", label="stars") == Columns(("title",), ("stars",))
    assert find_columns(data, "a.csv", text="title", text_pair="text") == Columns(("title", "text"), ("label",))


REFUSED = [
    (
        {"text": "a", "label": 0},
        {"text": "txt"},
        r"text_column='txt' is no column of a\.csv, whose columns are text, label\.",
    ),
    (
        {"text": "a", "label": 0},
        {"label": "y"},
        r"label_column='y' is no column of a\.csv, whose columns are text, label\.",
    ),
    (
        {"text": "a", "label": 0},
        {"text_pair": "text"},
        "text_pair_column='text' is the second text: pass --text_column",
    ),
    ({"text": "a", "label": 0}, {"text": "text", "text_pair": "text"}, "column 'text' is named twice"),
    ({"text": "a", "y": 0}, {}, "no column is called label, labels, target, score, .*--label_column; .* are text, y"),
    (
        {"text": "a", "label": 0, "score": 1.5},
        {},
        "columns label and score may all be the label: name it with --label_col",
    ),
    ({"text": "a", "sentence": "b", "label": 0}, {}, "the text may be text or sentence: name it with --text_column"),
    (
        {"title": "a", "body": "b", "label": 0},
        {},
        "no column is the text by its name or as the only one: .* title, body",
    ),
    ({"idx": 1, "label": 0}, {}, "no column is the text by its name or as the only one: .* are idx, label"),
]


@pytest.mark.parametrize(("columns", "named", "says"), REFUSED)
def test_columns_that_cannot_be_told_list_those_that_are_there(columns, named, says):
    with pytest.raises(ValueError, match=says):
        find_columns(table(**columns), "a.csv", **named)


def test_a_table_that_lacks_a_column_of_the_training_data():
    with pytest.raises(ValueError, match=r"dev\.csv has no column 'label' as the training data has; .* are text, y\."):
        check_columns(table(text="a", y=0), Columns(("text",), ("label",)), "dev.csv")


@pytest.mark.parametrize("empty", ["", "  \n", None])
def test_a_row_without_a_text_is_named_by_its_number(empty):
    data = table(text=["a", "b"], other=["c", empty], label=0)
    with pytest.raises(ValueError, match=r"train\.csv, row 2: no text in column 'other'"):
        check_columns(data, Columns(("text", "other"), ("label",)), "train.csv")


def test_a_column_of_numbers_is_no_text():
    kinds = Features({"text": ClassLabel(names=["a", "b"]), "title": Value("string")})
    data = Dataset.from_dict({"text": [0, 1], "title": ["x", "y"]}, features=kinds)
    with pytest.raises(ValueError, match=r"a\.csv: column 'text' holds ClassLabel.* and no texts: .* are text, title"):
        check_columns(data, Columns(("text",), ()), "a.csv")
