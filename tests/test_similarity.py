"""Class similarity: against scikit-learn with plain loops, and against discriminant analysis written out in NumPy."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from conftest import batch_of, examples, tiny_bert, tiny_vit
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from tiny_models import PAD, tiny_model
from tiny_models import VOCABULARY as WORDS
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, default_data_collator

from hf_logitmix import TrainingSet
from hf_logitmix.features import pooled_features
from hf_logitmix.similarity import (
    FILE_NAME,
    check_similarity,
    class_similarity,
    exponential,
    lda_similarity,
    linear,
    logistic,
)

BY_HAND = {
    logistic: lambda d: 1 / (1 + math.exp(d)),
    exponential: lambda d: math.exp(-d),
    linear: lambda d: 1 - d / 2,
}


def clouds(num_labels: int, width: int, count: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes of unequal size in a space whose axes are neither of one scale nor independent."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_labels), [count + 3 * k for k in range(num_labels)])
    centres = generator.normal(size=(num_labels, width))
    noise = generator.normal(size=(len(labels), width)) @ generator.normal(size=(width, width))
    order = generator.permutation(len(labels))
    return (5 + centres[labels] + 0.5 * noise)[order], labels[order]


def unnormalised(vectors, s=logistic) -> list[list[float]]:
    """s(1 - cos) of each two vectors, zero on the diagonal."""
    found = []
    for i, own in enumerate(vectors):
        row = []
        for j, other in enumerate(vectors):
            product = sum(a * b for a, b in zip(own, other, strict=True))
            norms = math.sqrt(sum(a * a for a in own)) * math.sqrt(sum(b * b for b in other))
            row.append(0.0 if i == j else BY_HAND[s](1 - product / norms))
        found.append(row)
    return found


def rows_to_one(matrix) -> np.ndarray:
    return np.array([[value / sum(row) for value in row] for row in matrix])


def means_by_sklearn(x, y, n_components=None) -> list[list[float]]:
    count = n_components or min(y.max(), x.shape[1])
    projected = LinearDiscriminantAnalysis(n_components=count).fit(x, y).transform(x)
    return [projected[y == k].mean(0).tolist() for k in range(y.max() + 1)]


def means_by_numpy(x, y, n_components=None) -> list[list[float]]:
    """Whiten by the scatter within classes, then take the main axes of the class means, weighted by their sizes."""
    counts = np.bincount(y)
    means = np.stack([x[y == k].mean(0) for k in range(len(counts))])
    within = sum(np.outer(row, row) for row in x - means[y])
    values, vectors = np.linalg.eigh(within)
    white = (means - x.mean(0)) @ vectors / np.sqrt(values)
    _, _, axes = np.linalg.svd(np.sqrt(counts)[:, None] * white, full_matrices=False)
    return (white @ axes[: n_components or min(len(counts) - 1, x.shape[1])].T).tolist()


@pytest.mark.parametrize("means", [means_by_sklearn, means_by_numpy])
@pytest.mark.parametrize("s", list(BY_HAND), ids=lambda s: s.__name__)
@pytest.mark.parametrize(
    ("num_labels", "width", "n_components"),
    [(3, 8, None), (5, 8, None), (10, 12, None), (10, 4, None), (5, 8, 2), (5, 8, 4), (10, 4, 3), (4, 2, None)],
)
def test_equals_the_equation(num_labels, width, n_components, s, means):
    x, y = clouds(num_labels, width)
    expected = rows_to_one(unnormalised(means(x, y, n_components), s))
    found = lda_similarity(x, y, n_components=n_components, s=s)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.diagonal().tolist() == [0.0] * num_labels
    np.testing.assert_allclose(found.sum(1), np.ones(num_labels), atol=1e-6)
    check_similarity(found, num_labels)


def test_three_classes_by_hand():
    """Four examples around each of (2, 0), (0, 2) and (-2, -1), with the same round spread: whitening changes nothing.

    The means about the centre (0, 1/3) are (2, -1/3), (0, 5/3) and (-2, -4/3).
    """
    cross = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]]) / 4
    x = np.concatenate([np.array(centre) + cross for centre in ([2, 0], [0, 2], [-2, -1])])
    cosine = {
        (0, 1): (-5 / 9) / (math.sqrt(37) / 3 * 5 / 3),
        (0, 2): (-4 + 4 / 9) / (math.sqrt(37) / 3 * math.sqrt(52) / 3),
        (1, 2): (-20 / 9) / (5 / 3 * math.sqrt(52) / 3),
    }
    s = {pair: 1 / (1 + math.exp(1 - value)) for pair, value in cosine.items()}
    expected = [
        [0, s[0, 1] / (s[0, 1] + s[0, 2]), s[0, 2] / (s[0, 1] + s[0, 2])],
        [s[0, 1] / (s[0, 1] + s[1, 2]), 0, s[1, 2] / (s[0, 1] + s[1, 2])],
        [s[0, 2] / (s[0, 2] + s[1, 2]), s[1, 2] / (s[0, 2] + s[1, 2]), 0],
    ]
    np.testing.assert_allclose(lda_similarity(x, np.repeat([0, 1, 2], 4)), expected, atol=1e-6)


def test_near_classes_are_more_alike_than_far_ones():
    x, y = clouds(4, 6)
    x[y == 1] += x[y == 0].mean(0) - x[y == 1].mean(0) + 0.1
    found = lda_similarity(x, y)
    assert found[0].argmax() == 1
    assert found[1].argmax() == 0


@pytest.mark.parametrize("s", list(BY_HAND), ids=lambda s: s.__name__)
def test_similarities_fall_with_the_distance(s):
    distance = np.linspace(0, 2, 21)
    values = s(distance)
    np.testing.assert_allclose(values, [BY_HAND[s](d) for d in distance], atol=1e-12)
    assert (np.diff(values) < 0).all()
    assert (values >= 0).all()


def test_an_s_of_the_user():
    x, y = clouds(4, 6)
    assert torch.equal(lda_similarity(x, y, s=lambda d: np.exp(-d)), lda_similarity(x, y, s=exponential))
    np.testing.assert_allclose(lda_similarity(x, y, s=np.ones_like), (1 - np.eye(4)) / 3, atol=1e-6)


@pytest.mark.parametrize("s", list(BY_HAND), ids=lambda s: s.__name__)
@pytest.mark.parametrize("num_labels", [4, 5, 10])
def test_symmetric_is_a_doubly_stochastic_scaling(num_labels, s):
    """A = D S D: the ratios A_ij / S_ij are d_i d_j, so each three of them give a d."""
    x, y = clouds(num_labels, 12)
    found = lda_similarity(x, y, symmetric=True, s=s).double().numpy()
    np.testing.assert_allclose(found, found.T, atol=1e-7)
    np.testing.assert_allclose(found.sum(0), np.ones(num_labels), atol=1e-6)
    np.testing.assert_allclose(found.sum(1), np.ones(num_labels), atol=1e-6)
    assert (np.diag(found) == 0).all()
    plain, ratio = unnormalised(means_by_sklearn(x, y), s), np.ones((num_labels, num_labels))
    for i, j in np.ndindex(ratio.shape):
        if i != j:
            ratio[i, j] = found[i, j] / plain[i][j]
    assert (ratio > 0).all()
    d = []
    for i in range(num_labels):
        j, k = [other for other in range(num_labels) if other != i][:2]
        d.append(math.sqrt(ratio[i, j] * ratio[i, k] / ratio[j, k]))
    for i, j in np.ndindex(ratio.shape):
        if i != j:
            assert ratio[i, j] == pytest.approx(d[i] * d[j], rel=1e-4)


def test_without_symmetric_it_is_not_symmetric():
    found = lda_similarity(*clouds(5, 8))
    assert (found - found.T).abs().max() > 0.01


def test_three_symmetric_classes_are_one_half_everywhere():
    with pytest.warns(UserWarning, match="one half everywhere"):
        found = lda_similarity(*clouds(3, 8), symmetric=True)
    np.testing.assert_allclose(found, [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], atol=1e-6)


@pytest.mark.parametrize("symmetric", [False, True])
def test_two_classes_are_each_like_the_other(symmetric):
    assert lda_similarity(*clouds(2, 5), symmetric=symmetric).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_arrays_tensors_and_lists_are_all_the_same():
    x, y = clouds(4, 6)
    expected = lda_similarity(x, y)
    assert torch.equal(lda_similarity(torch.from_numpy(x), torch.from_numpy(y)), expected)
    assert torch.equal(lda_similarity(x.tolist(), y.tolist()), expected)


def test_collinear_features_change_nothing_and_warn_of_nothing():
    x, y = clouds(4, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = lda_similarity(np.c_[x, x[:, :2], np.ones(len(x))], y)
    torch.testing.assert_close(found, lda_similarity(x, y), atol=1e-5, rtol=0)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(2, 7), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_holds_for_any_features(num_labels, width, seed):
    """Rows are distributions; names of classes, order, origin and axes of the space do not matter."""
    x, y = clouds(num_labels, width, count=15, seed=seed)
    found = lda_similarity(x, y)
    check_similarity(found, num_labels)
    generator = np.random.default_rng(seed)
    names, order = generator.permutation(num_labels), generator.permutation(len(y))
    renamed = lda_similarity(x, names[y])
    torch.testing.assert_close(renamed[names][:, names], found, atol=1e-5, rtol=0)
    torch.testing.assert_close(lda_similarity(x[order], y[order]), found, atol=1e-5, rtol=0)
    turned, _ = np.linalg.qr(generator.normal(size=(width, width)))
    moved = 3 * x @ turned * generator.uniform(0.5, 2, width) - 7
    torch.testing.assert_close(lda_similarity(moved, y), found, atol=1e-4, rtol=0)


X, Y = clouds(4, 6, count=5)
NOT_FINITE = X.copy()
NOT_FINITE[3, 2] = np.nan
INFINITE = X.copy()
INFINITE[0, 0] = -np.inf


@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        (X, np.zeros(len(X), dtype=int), {}, "at least two classes and got 1"),
        (X[:0], Y[:0], {}, "at least two classes and got 0"),
        (X, np.where(Y == 2, 3, Y), {}, "class 2 has no example.*class_similarity"),
        (X[:4], [0, 1, 2, 3], {}, "4 examples of 4 classes are too few.*class_similarity"),
        (NOT_FINITE, Y, {}, "features hold a NaN"),
        (INFINITE, Y, {}, "features hold a NaN or infinite"),
        (X[:, 0], Y, {}, r"features of shape \(\d+,\)"),
        (X[None], Y, {}, r"features of shape \(1, "),
        (X, Y[:-1], {}, r"labels of shape \(\d+,\)"),
        (X, Y[:, None], {}, r"labels of shape \(\d+, 1\)"),
        (X, Y, {"n_components": 0}, "n_components=0 .*1 to 3"),
        (X, Y, {"n_components": 4}, "n_components=4 .*1 to 3"),
        (X[:, :2], Y, {"n_components": 3}, "n_components=3 .*1 to 2"),
        (np.repeat(X[:6], 4, axis=0), np.tile(range(4), 6), {}, "features do not tell the classes apart"),
        ([[-1, 0], [-1.1, 0.1], [1, 0], [1.1, -0.1], [0, 0.1], [0, -0.1]], [0, 0, 1, 1, 2, 2], {}, "at the centre"),
        (X, Y, {"s": lambda d: d - 1}, "s gave a negative"),
        (X, Y, {"s": lambda d: d * np.nan}, "s gave a negative, infinite or NaN"),
        (X, Y, {"s": lambda d: d * np.inf}, "s gave a negative, infinite"),
        (X, Y, {"s": lambda d: 0 * d}, "like no other"),
    ],
)
def test_what_discriminant_analysis_refuses(features, labels, options, message):
    with pytest.raises(ValueError, match=message):
        lda_similarity(features, labels, **options)


def test_a_matrix_without_a_doubly_stochastic_scaling_is_refused():
    """Classes 1, 2 and 3 are like class 0 alone: its row and theirs cannot all sum to 1."""
    star = np.zeros((4, 4))
    star[0, 1:] = star[1:, 0] = 1
    with pytest.raises(ValueError, match="symmetric=True did not converge"):
        lda_similarity(X, Y, symmetric=True, s=lambda d: star.copy())


GOOD = [[0.0, 0.25, 0.75], [0.5, 0.0, 0.5], [0.9, 0.1, 0.0]]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.tensor(GOOD)[:2], r"shape \(2, 3\)"),
        (torch.tensor(GOOD[0]), r"shape \(3,\)"),
        (torch.zeros(1, 1), r"shape \(1, 1\)"),
        (torch.tensor([[0, 1], [1, 0]]), "torch.int64"),
        (torch.tensor([[0.0, 1.0], [1.0, 0.0]]), "class_similarity has 2 rows and the model has num_labels=3"),
        (torch.tensor([[0.0, -0.5, 1.5], *GOOD[1:]]), "negative"),
        (torch.tensor([[0.0, math.nan, 1.0], *GOOD[1:]]), "NaN"),
        (torch.tensor([[0.0, math.inf, 1.0], *GOOD[1:]]), "infinite"),
        (torch.tensor([[0.1, 0.25, 0.65], *GOOD[1:]]), "zero diagonal"),
        (torch.tensor([GOOD[0], [0.5, 0.0, 0.4], GOOD[2]]), r"row 1 sums to 0\.9000"),
    ],
)
def test_what_is_no_similarity(matrix, message):
    check_similarity(torch.tensor(GOOD), 3)
    with pytest.raises(ValueError, match=message):
        check_similarity(matrix, 3)


# ---- of a training set, on the model's own features ------------------------------------------------------------------

ROWS = examples(200, num_labels=4)
LABELS = np.array([row["labels"] for row in ROWS])


def training_set(folder=None, rows=ROWS, model=None, collator=default_data_collator, **options) -> TrainingSet:
    model = tiny_bert(4, dropout=0.3) if model is None else model
    return TrainingSet(rows, model, 4, collator, folder, shows_progress=False, **options)


def tampered(folder) -> torch.Tensor:
    """Puts another similarity into the file that is kept."""
    matrix = torch.tensor([[0.0, 0.5, 0.25, 0.25], [0.5, 0.0, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    with open(folder / FILE_NAME, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        import json

        metadata = json.loads(file.read(size))["__metadata__"]
    save_file({"class_similarity": matrix}, folder / FILE_NAME, metadata=metadata)
    return matrix
