"""Label noise: counts, shares and pairs against plain counting, and what happens to the dataset around the labels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from hf_logitmix.noise import add_label_noise, noisy_labels

COUNTS = (50, 31, 20, 7)
CLEAN = np.random.default_rng(0).permutation(np.repeat(range(4), COUNTS))


def partners(clean, noisy) -> dict[int, set[int]]:
    """The classes that each class's labels were changed to."""
    found: dict[int, set[int]] = {}
    for old, new in zip(clean.tolist(), noisy.tolist(), strict=True):
        if old != new:
            found.setdefault(old, set()).add(new)
    return found


@pytest.mark.parametrize(("rate", "changed"), [(0.0, 0), (0.1, 11), (0.25, 27), (0.5, 54), (0.999, 108), (1.0, 108)])
def test_uniform_changes_an_exact_number_of_labels(rate, changed):
    """Of 108: .1 is 10.8, .25 is 27, .999 is 107.9."""
    noisy = noisy_labels(CLEAN, 4, rate)
    assert (noisy != CLEAN).sum() == changed
    assert noisy.shape == CLEAN.shape
    assert set(noisy.tolist()) <= {0, 1, 2, 3}


def test_uniform_is_uniform_over_the_other_classes():
    """60000 labels, all changed: each class goes to each of the other three equally often."""
    clean = np.repeat(range(4), 15_000)
    noisy = noisy_labels(clean, 4, 1.0)
    for own in range(4):
        went = Counter(noisy[clean == own].tolist())
        assert went[own] == 0
        assert chisquare([went[other] for other in range(4) if other != own]).pvalue > 0.001


def test_uniform_takes_examples_of_all_classes_alike():
    clean = np.repeat(range(4), (8000, 4000, 2000, 2000))
    noisy = noisy_labels(clean, 4, 0.25)
    changed = np.bincount(clean[noisy != clean], minlength=4)
    assert changed.sum() == 4000
    assert chisquare(changed, [2000, 1000, 500, 500]).pvalue > 0.001


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_pairwise_changes_an_exact_number_of_each_class_and_stays_inside_pairs(rate, seed):
    noisy = noisy_labels(CLEAN, 4, rate, "pairwise", seed)
    for own, count in enumerate(COUNTS):
        assert (noisy[own == CLEAN] != own).sum() == round(rate * count)
    went = partners(CLEAN, noisy)
    assert all(len(others) == 1 for others in went.values())
    for own, (other,) in went.items():
        assert own != other
        assert went.get(other, {own}) == {own}


def test_pairwise_at_rate_one_is_an_involution():
    noisy = noisy_labels(CLEAN, 4, 1.0, "pairwise", 3)
    swap = {own: other for own, (other,) in partners(CLEAN, noisy).items()}
    assert sorted(swap) == sorted(swap.values()) == [0, 1, 2, 3]
    assert all(swap[swap[own]] == own for own in range(4))
    assert noisy.tolist() == [swap[own] for own in CLEAN.tolist()]


def test_pairs_are_drawn_by_the_seed():
    """Four classes pair in three ways, and twenty seeds find them all."""
    ways = set()
    for seed in range(20):
        went = partners(CLEAN, noisy_labels(CLEAN, 4, 1.0, "pairwise", seed))
        ways.add(next(iter(went[0])))
    assert ways == {1, 2, 3}


@pytest.mark.parametrize("num_labels", [3, 5, 7])
def test_with_an_odd_number_of_classes_one_keeps_its_labels(num_labels):
    clean = np.arange(20 * num_labels) % num_labels
    for seed in range(5):
        went = partners(clean, noisy_labels(clean, num_labels, 0.5, "pairwise", seed))
        assert len(went) == num_labels - 1
        assert all(went[other] == {own} for own, (other,) in went.items())


@pytest.mark.parametrize("kind", ["uniform", "pairwise"])
def test_two_classes_swap(kind):
    clean = np.array([0, 1, 1, 0, 1])
    assert noisy_labels(clean, 2, 1.0, kind).tolist() == [1, 0, 0, 1, 0]


@pytest.mark.parametrize("kind", ["uniform", "pairwise"])
def test_a_seed_gives_the_same_noise_and_the_input_is_not_touched(kind):
    before = CLEAN.copy()
    first = noisy_labels(CLEAN, 4, 0.4, kind, 7)
    assert np.array_equal(first, noisy_labels(CLEAN.tolist(), 4, 0.4, kind, 7))
    assert not np.array_equal(first, noisy_labels(CLEAN, 4, 0.4, kind, 8))
    assert np.array_equal(CLEAN, before)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(2, 6).flatmap(
        lambda k: st.tuples(st.just(k), st.lists(st.integers(0, k - 1), min_size=1, max_size=40))
    ),
    st.floats(0, 1),
    st.sampled_from(["uniform", "pairwise"]),
    st.integers(0, 2**32),
)
def test_holds_for_any_labels(classes, rate, kind, seed):
    num_labels, labels = classes
    noisy = noisy_labels(labels, num_labels, rate, kind, seed)
    assert ((noisy >= 0) & (noisy < num_labels)).all()
    changed = sum(old != new for old, new in zip(labels, noisy.tolist(), strict=True))
    if kind == "uniform":
        assert changed == round(rate * len(labels))
    else:
        full = sum(round(rate * count) for count in Counter(labels).values())
        assert changed == full if num_labels % 2 == 0 else changed <= full


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": -0.1}, r"rate=-0\.1"),
        ({"rate": 1.1}, r"rate=1\.1"),
        ({"rate": float("nan")}, "rate=nan"),
        ({"kind": "symmetric"}, "kind='symmetric' is unknown: pass one of uniform, pairwise"),
        ({"num_labels": 1, "labels": [0, 0]}, "num_labels=1"),
        ({"labels": [0, 4]}, r"labels must be integers in 0\.\.3"),
        ({"labels": [0, -1]}, r"labels must be integers in 0\.\.3"),
        ({"labels": [0.0, 1.0]}, "labels must be integers"),
        ({"labels": ["a", "b"]}, "labels must be integers"),
    ],
)
def test_noise_that_is_not_possible(options, message):
    with pytest.raises(ValueError, match=message):
        noisy_labels(**{"labels": [0, 1, 2, 3], "num_labels": 4, "rate": 0.5, **options})


# ---- datasets --------------------------------------------------------------------------------------------------------

NAMES = ["no", "maybe", "yes", "never used"]


def dataset(column: str = "label", feature=None, first: bool = False) -> Dataset:
    """108 rows; classes 0 to 3 of CLEAN, beside a text and a number."""
    texts = {"text": [f"row {i}" for i in range(len(CLEAN))], "idx": list(range(len(CLEAN)))}
    labels = {column: CLEAN.tolist()}
    data = Dataset.from_dict({**labels, **texts} if first else {**texts, **labels})
    return data.cast_column(column, feature or ClassLabel(names=NAMES))


@pytest.mark.parametrize("kind", ["uniform", "pairwise"])
def test_the_clean_labels_and_everything_else_are_kept(kind):
    data = dataset()
    noisy = add_label_noise(data, 0.3, kind=kind, seed=5)
    assert noisy["clean_label"][:] == CLEAN.tolist()
    assert noisy["label"][:] == noisy_labels(CLEAN, 4, 0.3, kind, 5).tolist()
    assert noisy["text"][:] == data["text"][:]
    assert noisy["idx"][:] == data["idx"][:]
    assert noisy.features["label"] == noisy.features["clean_label"] == ClassLabel(names=NAMES)
    assert set(noisy.column_names) == {"text", "idx", "label", "clean_label"}
    assert data["label"][:] == CLEAN.tolist()
    assert "clean_label" not in data.column_names


def test_the_order_of_columns_does_not_matter():
    first, last = (add_label_noise(dataset(first=first), 0.3) for first in (True, False))
    for name in ("label", "clean_label", "text", "idx"):
        assert first[name][:] == last[name][:]


def test_columns_of_other_names_and_plain_integers():
    """Without names of the classes, their number is that of the highest label plus one, or what is passed."""
    data = dataset("coarse", Value("int32"))
    noisy = add_label_noise(data, 1.0, column="coarse", clean_column="true")
    assert noisy["true"][:] == CLEAN.tolist()
    assert noisy.features["coarse"] == noisy.features["true"] == Value("int32")
    assert noisy["coarse"][:] == noisy_labels(CLEAN, 4, 1.0).tolist()
    wider = add_label_noise(data, 1.0, num_labels=40, column="coarse")
    assert max(wider["coarse"][:]) > 3


def test_the_number_of_classes_comes_from_their_names():
    """No example is of the last class, and noise still goes there."""
    data = dataset().filter(lambda row: row["label"] < 3)
    noisy = add_label_noise(data, 1.0)
    assert set(noisy["label"][:]) == {0, 1, 2, 3}
    assert set(noisy["clean_label"][:]) == {0, 1, 2}


def test_a_selection_and_a_tensor_format_keep_their_rows():
    chosen = [5, 17, 3, 100, 42, 8]
    noisy = add_label_noise(dataset().select(chosen).with_format("numpy"), 0.5).with_format(None)
    assert noisy["idx"][:] == chosen
    assert noisy["clean_label"][:] == CLEAN[chosen].tolist()
    assert sum(old != new for old, new in zip(noisy["clean_label"], noisy["label"], strict=True)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "labels"}, "column='labels' is not in the dataset, which has text, idx, label"),
        ({"clean_column": "idx"}, "clean_column='idx' is there already"),
        ({"clean_column": "label"}, "clean_column='label' is there already"),
        ({"column": "text", "num_labels": 4}, "labels must be integers"),
        ({"rate": 2.0}, r"rate=2\.0"),
        ({"kind": "swap"}, "kind='swap'"),
        ({"num_labels": 2}, r"labels must be integers in 0\.\.1"),
    ],
)
def test_datasets_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        add_label_noise(dataset(), **{"rate": 0.5, **options})


def test_unlabelled_rows_are_refused():
    """A test set of GLUE has -1 everywhere."""
    with pytest.raises(ValueError, match="labels must be integers"):
        add_label_noise(Dataset.from_dict({"label": [-1, -1]}), 0.5, num_labels=2)


def test_texts_are_no_labels():
    with pytest.raises(ValueError, match="labels must be integers"):
        add_label_noise(dataset(), 0.5, column="text")


def test_a_transform_that_renames_the_labels():
    """As of an image dataset, whose transform gives pixel_values and labels."""
    data = dataset().with_transform(lambda batch: {"labels": batch["label"]})
    assert add_label_noise(data, 0.5).with_format(None)["clean_label"][:] == CLEAN.tolist()


def test_labels_in_a_narrow_type_do_not_overflow():
    clean = np.arange(100, dtype=np.int8)
    noisy = noisy_labels(clean, 200, 1.0)
    assert ((noisy >= 0) & (noisy < 200) & (noisy != clean)).all()
    assert noisy.max() > 127
