"""Class similarity: against scikit-learn with plain loops, and against discriminant analysis written out in NumPy."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PoolFormerConfig, PoolFormerForImageClassification, default_data_collator

from helpers.data import Lazy, examples
from helpers.lda import BY_HAND, from_pooler, means_by_sklearn, rows_to_one, unnormalised
from helpers.models import tiny_bert, tiny_vit
from helpers.tiny_models import PAD, tiny_model
from helpers.tiny_models import VOCABULARY as WORDS
from hf_logitmix import get_method
from hf_logitmix.similarity import (
    FILE_NAME,
    check_similarity,
    class_similarity,
    exponential,
    lda_similarity,
    logistic,
)
from hf_logitmix.targets.features import pooled_features
from hf_logitmix.training.training_set import TrainingSet


def clouds(num_labels: int, width: int, count: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes of unequal size in a space whose axes are neither of one scale nor independent."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_labels), [count + 3 * k for k in range(num_labels)])
    centres = generator.normal(size=(num_labels, width))
    noise = generator.normal(size=(len(labels), width)) @ generator.normal(size=(width, width))
    order = generator.permutation(len(labels))
    return (5 + centres[labels] + 0.5 * noise)[order], labels[order]


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
        (X, Y, {"s": lambda d: np.full_like(d, np.nan)}, "s gave a negative, infinite or NaN"),
        (X, Y, {"s": lambda d: np.full_like(d, np.inf)}, "s gave a negative, infinite"),
        (X, Y, {"s": lambda d: 0 * d}, "like no other"),
    ],
)
def test_what_discriminant_analysis_refuses(features, labels, options, message):
    with pytest.raises(ValueError, match=message):
        lda_similarity(features, labels, **options)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
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
        (torch.tensor([GOOD[0], [0.5, 0.0, 0.499], GOOD[2]]), r"row 1 sums to 0\.9990"),
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
    with safe_open(folder / FILE_NAME, "pt") as file:
        metadata = file.metadata()
    save_file({"class_similarity": matrix}, folder / FILE_NAME, metadata=metadata)
    return matrix


def test_a_training_set_is_seen_by_the_model_itself():
    """The model drops out in training; its features here are those of evaluation."""
    found = class_similarity(training_set())
    x = from_pooler(tiny_bert(4, dropout=0.3), ROWS)
    np.testing.assert_allclose(found, rows_to_one(unnormalised(means_by_sklearn(x, LABELS))), atol=2e-4)
    symmetric = class_similarity(training_set(), symmetric=True)
    torch.testing.assert_close(symmetric, lda_similarity(x, LABELS, symmetric=True), atol=2e-4, rtol=0)


def test_datasets_with_a_label_column_are_read_too():
    plain = [{k: v.tolist() if k != "labels" else v for k, v in row.items()} for row in ROWS]
    renamed = Dataset.from_list(plain).rename_column("labels", "label")
    assert torch.equal(class_similarity(training_set(rows=renamed)), class_similarity(training_set()))


def test_the_matrix_is_kept_and_used_again(tmp_path):
    folder = tmp_path / "not yet there"
    found = class_similarity(training_set(folder))
    assert torch.equal(load_file(folder / FILE_NAME)["class_similarity"], found)
    matrix = tampered(folder)
    assert torch.equal(class_similarity(training_set(folder)), matrix)


def another_label(rows):
    return [{**rows[0], "labels": (rows[0]["labels"] + 1) % 4}, *rows[1:]]


def another_sentence(rows):
    return [{**rows[0], "input_ids": rows[1]["input_ids"]}, *rows[1:]]


@pytest.mark.parametrize("change", [another_label, another_sentence, lambda rows: rows[:-1]])
def test_the_matrix_of_other_data_is_not_used(tmp_path, change):
    class_similarity(training_set(tmp_path))
    matrix = tampered(tmp_path)
    found = class_similarity(training_set(tmp_path, change(ROWS)))
    assert torch.equal(found, class_similarity(training_set(rows=change(ROWS))))
    assert not torch.equal(found, matrix)
    assert torch.equal(load_file(tmp_path / FILE_NAME)["class_similarity"], found)


def test_the_matrix_of_another_model_or_of_other_options_is_not_used(tmp_path):
    plain = class_similarity(training_set(tmp_path))
    tampered(tmp_path)
    nudged = tiny_bert(4)
    with torch.no_grad():
        nudged.bert.encoder.layer[1].output.dense.weight[0, 0] += 1.0
    found = class_similarity(training_set(tmp_path, model=nudged))
    assert torch.equal(found, class_similarity(training_set(model=nudged)))
    assert not torch.equal(found, plain)
    for options in ({"symmetric": True}, {"max_examples": 100}, {"max_examples": 100, "seed": 1}):
        class_similarity(training_set(tmp_path))
        matrix = tampered(tmp_path)
        assert not torch.equal(class_similarity(training_set(tmp_path), **options), matrix)


def test_a_resumed_run_takes_the_kept_matrix_whatever_the_model(tmp_path):
    class_similarity(training_set(tmp_path))
    matrix = tampered(tmp_path)
    trained = tiny_bert(4, seed=1)
    assert torch.equal(
        class_similarity(training_set(tmp_path, model=trained, resumed_from=tmp_path / "checkpoint-1")), matrix
    )
    with pytest.raises(ValueError, match=r"resume_from_checkpoint: class_similarity\.safetensors"):
        class_similarity(training_set(tmp_path, another_label(ROWS), resumed_from=tmp_path / "checkpoint-1"))
    for folder in (tmp_path / "elsewhere", None):
        with pytest.raises(ValueError, match=r"resume_from_checkpoint: class_similarity\.safetensors"):
            class_similarity(training_set(folder, resumed_from=tmp_path / "nowhere" / "checkpoint-1"))


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    class_similarity(training_set(None))
    assert list(tmp_path.iterdir()) == []


def test_the_model_and_the_random_numbers_are_left_as_they_were():
    model = tiny_bert(4, dropout=0.3).train()
    model.bert.encoder.layer[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    class_similarity(training_set(model=model))
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_fails_is_left_as_it_was():
    model = tiny_bert(4).train()
    with pytest.raises(IndexError):
        pooled_features(model, [{"input_ids": torch.tensor([[10_000]])}], num_labels=4, shows_progress=False)
    assert all(module.training for module in model.modules())
    assert not any(m._forward_pre_hooks for m in model.modules())


COUNTS = (100, 60, 36, 3, 1)


class Recording:
    """A collator that notes which examples it was given."""

    def __init__(self):
        self.seen: list[int] = []

    def __call__(self, rows):
        self.seen += [row["number"] for row in rows]
        return default_data_collator([{k: v for k, v in row.items() if k != "number"} for row in rows])


@pytest.mark.parametrize(("most", "shares"), [(50, (25, 15, 9, 2, 1)), (10, (5, 3, 2, 2, 1)), (200, COUNTS)])
def test_a_sample_keeps_the_shares_and_leaves_no_class_out(most, shares):
    labels = np.random.default_rng(0).permutation(np.repeat(range(5), COUNTS)).tolist()
    rows = [{**row, "labels": y, "number": i} for i, (row, y) in enumerate(zip(examples(200), labels, strict=True))]

    def chosen(seed):
        collator = Recording()
        data = TrainingSet(rows, tiny_bert(5), 5, collator, shows_progress=False)
        matrix = class_similarity(data, max_examples=most, seed=seed)
        return sorted(set(collator.seen)), matrix

    picked, matrix = chosen(0)
    assert tuple(np.bincount([labels[i] for i in picked])) == shares
    again, same = chosen(0)
    assert again == picked
    assert torch.equal(same, matrix)
    if most < 200:
        assert chosen(1)[0] != picked
        x = from_pooler(tiny_bert(5), [{k: v for k, v in rows[i].items() if k != "number"} for i in picked])
        expected = lda_similarity(x, [labels[i] for i in picked])
        torch.testing.assert_close(matrix, expected, atol=2e-3, rtol=0)


def test_an_absent_class_of_two_is_found_in_rows_that_are_made_when_read():
    data = TrainingSet(Lazy([{"labels": 0} for _ in range(6)]), nn.Identity(), 2)
    with pytest.raises(ValueError, match="class 1 has no example"):
        class_similarity(data)


def test_rows_without_labels_are_named():
    data = TrainingSet(Lazy([{"kind": 0} for _ in range(6)]), nn.Identity(), 3)
    with pytest.raises(ValueError, match="neither `labels` nor `label`"):
        class_similarity(data)


def test_s_makes_similarities_of_distances_and_belongs_to_what_is_kept(tmp_path):
    model = tiny_bert(4, dropout=0.3)
    features = from_pooler(model, ROWS)
    for s in (logistic, exponential):
        found = class_similarity(training_set(tmp_path, model=model), s=s)
        torch.testing.assert_close(found, lda_similarity(features, LABELS, s=s), atol=1e-4, rtol=1e-3)
        mcel = get_method("mcel", similarity_fn=s).targets.setup(training_set(model=model))
        torch.testing.assert_close(mcel.class_similarity, found)


def test_a_kept_matrix_that_is_damaged_is_found_again(tmp_path, caplog):
    found = class_similarity(training_set(tmp_path))
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:20])
    torch.testing.assert_close(class_similarity(training_set(tmp_path)), found)
    assert "cannot be read" in caplog.text


def test_two_classes_need_no_features():
    """Their similarity is known, whatever the model: this one could not even run."""
    data = TrainingSet([{"labels": i % 2} for i in range(6)], nn.Identity(), 2)
    assert class_similarity(data).tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([row for row in ROWS if row["labels"] != 3], {}, "class 3 has no example"),
        ([{**row, "labels": i} for i, row in enumerate(ROWS[:4])], {}, "4 examples of 4 classes are too few"),
        ([{**ROWS[0], "labels": 7}, *ROWS], {}, r"label 7 of example 0 is outside 0\.\.3"),
        (iter(ROWS), {}, "no length.*class_similarity"),
        (ROWS, {"collator": None}, "without a collator.*class_similarity"),
    ],
)
def test_training_sets_without_a_similarity(rows, options, message):
    with pytest.raises(ValueError, match=message):
        class_similarity(training_set(rows=rows, **options))


# ---- pooled features -------------------------------------------------------------------------------------------------


def sentences(model_type: str) -> dict[str, torch.Tensor]:
    """Six sentences of 3 to 8 tokens; GPT-2 is padded on the left, so that its head finds the last token."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, WORDS, (6, 8), generator=generator)
    place, used = torch.arange(8).expand(6, 8), torch.arange(3, 9).unsqueeze(1)
    mask = (place >= 8 - used) if model_type == "gpt2" else (place < used)
    return {"input_ids": torch.where(mask, ids, PAD), "attention_mask": mask.long()}


@pytest.mark.parametrize(
    ("model_type", "encoder"), [("roberta", "roberta"), ("gpt2", "transformer"), ("distilbert", "distilbert")]
)
def test_token_vectors_are_averaged_over_the_mask(model_type, encoder):
    """RoBERTa's and GPT-2's heads read every token; DistilBERT's reads the first."""
    model, batch = tiny_model(model_type), sentences(model_type)
    with torch.no_grad():
        hidden = getattr(model, encoder)(**batch).last_hidden_state.double().numpy()
    expected = []
    for vectors, mask in zip(hidden, batch["attention_mask"].tolist(), strict=True):
        kept = [vector for vector, is_word in zip(vectors, mask, strict=True) if is_word]
        expected.append(vectors[0] if model_type == "distilbert" else sum(kept) / len(kept))
    halves = [{name: value[part] for name, value in batch.items()} for part in (slice(0, 4), slice(4, 6))]
    found = pooled_features(model, halves, num_labels=3, shows_progress=False)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_token_vectors_without_a_mask_are_all_averaged():
    model, ids = tiny_model("roberta"), sentences("roberta")["input_ids"][-1:]
    with torch.no_grad():
        expected = model.roberta(ids).last_hidden_state.mean(1)
    found = pooled_features(model, [{"input_ids": ids}], num_labels=3, shows_progress=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_images_are_read_where_their_head_reads_them():
    """ViT's head reads the first token, PoolFormer's a map of 4 x 4 pixels."""
    pixels = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    config = PoolFormerConfig(hidden_sizes=[8, 16], depths=[1, 1], num_encoder_blocks=2, num_labels=3)
    vit, poolformer = tiny_vit().eval(), PoolFormerForImageClassification(config).eval()
    with torch.no_grad():
        first_token = vit.vit(pixels[:, :, :16, :16]).last_hidden_state[:, 0]
        maps = poolformer.poolformer(pixels).last_hidden_state
    assert maps.shape == (5, 16, 4, 4)
    everywhere = sum(maps[:, :, row, column] for row, column in np.ndindex(maps.shape[2:])) / maps[0, 0].numel()
    for model, images, expected in ((vit, pixels[:, :, :16, :16], first_token), (poolformer, pixels, everywhere)):
        found = pooled_features(model, [{"pixel_values": images}], num_labels=3, shows_progress=False)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_without_a_head():
    with pytest.raises(ValueError, match="no linear layer with 3 outputs"):
        pooled_features(nn.Sequential(nn.Linear(4, 2)), [], num_labels=3)


@pytest.mark.parametrize("features", [np.ones((20, 6)), np.eye(4)[np.arange(20) % 4]], ids=["constant", "no spread"])
def test_features_without_spread_are_refused(features):
    with pytest.raises(ValueError, match="features"):
        lda_similarity(features, np.arange(20) % 4)


@pytest.mark.filterwarnings("error")
def test_equal_class_means_are_refused_without_a_warning():
    with pytest.raises(ValueError, match="do not tell the classes apart"):
        lda_similarity(np.repeat(X[:6], 4, axis=0), np.tile(range(4), 6))


@pytest.mark.parametrize("change", [lambda y: y.astype(float), lambda y: y - 1])
def test_class_ids_are_integers_from_zero(change):
    x, y = clouds(4, 6)
    with pytest.raises(ValueError, match="labels must be class ids"):
        lda_similarity(x, change(y))


def test_the_matrix_of_data_that_differ_late_is_not_used(tmp_path):
    class_similarity(training_set(tmp_path))
    matrix = tampered(tmp_path)
    changed = [*ROWS[:100], *({**row, "input_ids": ROWS[0]["input_ids"]} for row in ROWS[100:])]
    assert not torch.equal(class_similarity(training_set(tmp_path, changed)), matrix)


def test_a_resumed_run_finds_the_matrix_beside_its_checkpoint(tmp_path):
    """Resumed into another folder, with the checkpoint where it was."""
    class_similarity(training_set(tmp_path))
    matrix = tampered(tmp_path)
    elsewhere = training_set(tmp_path / "elsewhere", resumed_from=tmp_path / "checkpoint-1")
    assert torch.equal(class_similarity(elsewhere), matrix)


def test_the_matrix_of_another_collator_is_not_used(tmp_path):
    """The same rows, of which the collator keeps three tokens."""
    first = class_similarity(training_set(tmp_path))

    def short(rows):
        return {name: value[:, :3] if value.dim() > 1 else value for name, value in default_data_collator(rows).items()}

    assert not torch.equal(class_similarity(training_set(tmp_path, collator=short)), first)


@pytest.mark.parametrize("extra", [["a", "b"], None, "text"])
def test_columns_that_are_no_numbers_do_no_harm(tmp_path, extra):
    """What cannot be told apart is looked at again; these rows train with any other method."""

    def without(rows):
        return default_data_collator([{k: v for k, v in row.items() if k != "extra"} for row in rows])

    rows = [{**row, "extra": extra} for row in ROWS]
    found = class_similarity(training_set(tmp_path, rows=rows, collator=without))
    tampered(tmp_path)
    assert torch.equal(class_similarity(training_set(tmp_path, rows=rows, collator=without)), found)
