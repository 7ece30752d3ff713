"""How alike classes are: the matrix A of the MCEL family, from features of the training set.

A is a FloatTensor[K, K] with a zero diagonal and rows that sum to 1: ``A[i, j]`` is the share of the mass leaving
class i that goes to class j.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from hf_logitmix.digest import digest
from hf_logitmix.targets.features import pixel_features, pooled_features
from hf_logitmix.training.training_set import TrainingSet

logger = logging.getLogger(__name__)

FILE_NAME = "class_similarity.safetensors"
MAX_EXAMPLES = 10_000


def logistic(distance: np.ndarray) -> np.ndarray:
    r""":math:`s = 1 / (1 + e^d)`, the choice of Negi et al., 2018."""
    return 1 / (1 + np.exp(distance))


def exponential(distance: np.ndarray) -> np.ndarray:
    r""":math:`s = e^{-d}`, which tells classes apart more than `logistic` does."""
    return np.exp(-distance)


def linear(distance: np.ndarray) -> np.ndarray:
    r""":math:`s = 1 - d / 2`, for a cosine distance in [0, 2]: opposite classes get nothing."""
    return 1 - distance / 2


def lda_similarity(
    features: Any,
    labels: Any,
    *,
    n_components: int | None = None,
    symmetric: bool = False,
    s: Callable[[np.ndarray], np.ndarray] = logistic,
) -> Tensor:
    r"""Class similarity by linear discriminant analysis (Negi et al., 2018, equation 12).

    .. math::

        d_{ij} = 1 - \frac{\langle v_i, v_j \rangle}{\lVert v_i \rVert \lVert v_j \rVert}, \qquad
        A_{ij} = \frac{s(d_{ij})}{\sum_{l \ne i} s(d_{il})}, \qquad A_{ii} = 0

    with v_i the mean of class i after scikit-learn's `LinearDiscriminantAnalysis` (SVD solver), which centres the data.
    The paper calls A symmetric; after its rows are normalised it is not, unless K = 2.

    Args:
        features: [N, D] numbers.
        labels: [N] class ids 0..K-1, with every class there; K is the highest plus one.
        n_components: of the discriminant analysis; None is min(K - 1, D).
        symmetric: scale s to a symmetric matrix whose rows and columns both sum to 1 (Sinkhorn's iteration). With
            K = 3 that is one half everywhere, whatever the data.
        s: any decreasing function of d: `logistic` (the paper's), `exponential`, `linear` or your own.

    Returns:
        FloatTensor[K, K].

    Raises:
        ValueError: for fewer than two classes, a class without examples, no more examples than classes, features that
            are not finite or do not tell classes apart, and an s that is negative somewhere.
    """
    x, y = as_array(features).astype(np.float64), as_array(labels)
    if x.ndim != 2 or y.shape != (len(x),):
        raise ValueError(f"features of shape {x.shape} and labels of shape {y.shape}: pass [N, D] and [N].")
    if not np.isfinite(x).all():
        raise ValueError("features hold a NaN or infinite number: leave those examples out.")
    if len(y) and (not np.issubdtype(y.dtype, np.integer) or y.min() < 0):
        raise ValueError("labels must be class ids, integers from 0.")
    num_labels = int(y.max()) + 1 if len(y) else 0
    check_classes(np.bincount(y) if len(y) else np.zeros(0, dtype=int))
    if all(np.ptp(x[y == k], axis=0).max(initial=0) == 0 for k in range(num_labels)):
        raise ValueError("features do not vary within any class, which discriminant analysis needs: pass others.")
    most = min(num_labels - 1, x.shape[1])
    if n_components is not None and not 1 <= n_components <= most:
        raise ValueError(f"n_components={n_components} is not possible: pass 1 to {most}, or None for {most}.")
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.filterwarnings("ignore", message="Variables are collinear", category=UserWarning)
        projected = LinearDiscriminantAnalysis(n_components=n_components or most).fit(x, y).transform(x)
    means = np.stack([projected[y == k].mean(0) for k in range(num_labels)]) if projected.shape[1] else np.zeros((1, 1))
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    if not (norms > 1e-12).all() or not np.isfinite(norms).all():
        raise ValueError(
            "features do not tell the classes apart (a class mean lies at the centre of all): pass other features, or "
            "a class_similarity of your own."
        )
    unit = means / norms
    alike = s(1 - np.clip(unit @ unit.T, -1, 1))
    np.fill_diagonal(alike, 0)
    if not np.isfinite(alike).all() or (alike < 0).any() or (alike.sum(1) <= 0).any():
        raise ValueError("s gave a negative, infinite or NaN similarity, or a class that is like no other.")
    if symmetric:
        if num_labels == 3:
            warnings.warn(
                "symmetric=True with three classes gives one half everywhere, whatever the data, as label smoothing.",
                UserWarning,
                stacklevel=2,
            )
        alike = _doubly_stochastic(alike)
    return torch.from_numpy(alike / alike.sum(1, keepdims=True)).float()


def as_array(values: Any) -> np.ndarray:
    """Numbers as an array, from a tensor on any device and of any type."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
    return np.asarray(values)


def check_classes(counts: np.ndarray) -> None:
    """Refuse class counts from which no similarity can be found."""
    if len(counts) < 2:
        raise ValueError(f"class similarity needs at least two classes and got {len(counts)}.")
    if (counts == 0).any():
        raise ValueError(
            f"class {int(np.argmin(counts))} has no example, so how like the others it is cannot be found: add some, "
            "or pass a class_similarity of your own."
        )
    if counts.sum() <= len(counts) and len(counts) > 2:
        raise ValueError(
            f"{counts.sum()} examples of {len(counts)} classes are too few for discriminant analysis, which needs more "
            "examples than classes: add some, or pass a class_similarity of your own."
        )


def _doubly_stochastic(alike: np.ndarray, tolerance: float = 1e-12) -> np.ndarray:
    """The symmetric D S D whose rows all sum to 1."""
    scale = np.ones(len(alike))
    for _ in range(100_000):
        rows = scale * (alike @ scale)
        if np.abs(rows - 1).max() < tolerance:
            return scale[:, None] * alike * scale
        with np.errstate(all="ignore"):
            scale = scale / np.sqrt(rows)
        if not np.isfinite(scale).all() or scale.max() > 1e150:
            break
    raise ValueError("symmetric=True did not converge: this similarity has no doubly stochastic scaling.")


def check_similarity(similarity: Tensor, num_labels: int | None = None) -> None:
    """Raise ValueError unless this is a class similarity matrix."""
    shape = tuple(similarity.shape)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 2 or not similarity.is_floating_point():
        raise ValueError(f"class_similarity is {similarity.dtype} of shape {shape}: pass [K, K] floats, K >= 2.")
    if num_labels is not None and shape[0] != num_labels:
        raise ValueError(
            f"class_similarity has {shape[0]} rows and the model has num_labels={num_labels}: pass a "
            f"[{num_labels}, {num_labels}] tensor."
        )
    if not torch.isfinite(similarity).all() or (similarity < 0).any():
        raise ValueError("class_similarity holds a negative, infinite or NaN entry.")
    if similarity.diagonal().abs().max() > 1e-6:
        raise ValueError("class_similarity must have a zero diagonal: a class is not similar to itself here.")
    sums = similarity.sum(1)
    if (sums - 1).abs().max() > 1e-4:
        row = int((sums - 1).abs().argmax())
        raise ValueError(f"class_similarity: row {row} sums to {sums[row]:.4f} and must sum to 1: divide by it.")


def class_similarity(
    training_set: TrainingSet,
    *,
    features: str = "pooled",
    symmetric: bool = False,
    s: Callable[[np.ndarray], np.ndarray] = logistic,
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> Tensor:
    """`lda_similarity` of a training set, on the pooled output of the model as it is loaded, or on pixels.

    One pass without gradients over the training set, or over a random sample that keeps the shares of the classes. The
    matrix is kept in the run's folder (``class_similarity.safetensors``) and used again for the same model and data, if
    those can be told (a `datasets.Dataset`, or a list of dicts), and when the run is resumed, where the model is no
    longer as it was loaded. Of several processes one does it.

    Args:
        training_set: with a collator; its folder is where the matrix is kept.
        features: ``pooled`` (`hf_logitmix.targets.features.pooled_features`) or ``pixels`` (`pixel_features`).
        symmetric, s: as in `lda_similarity`.
        max_examples: look at no more than this many.
        seed: of the sample.

    Returns:
        FloatTensor[K, K].

    Raises:
        ValueError: as `lda_similarity`, and for a resumed run whose matrix is not there any more.
    """
    if training_set.num_labels == 2:
        if training_set.can_be_looked_at:
            check_classes(training_set.class_counts().numpy())
        return torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    found: list[Any] = [None]
    if PartialState().is_main_process:
        found = [_kept_or_found(training_set, features, symmetric, s, max_examples, seed)]
    broadcast_object_list(found)
    return found[0]


def _kept_or_found(
    training_set: TrainingSet,
    features: str,
    symmetric: bool,
    s: Callable[[np.ndarray], np.ndarray],
    max_examples: int,
    seed: int,
) -> Tensor:
    labels = training_set.labels()
    check_classes(np.bincount(labels, minlength=training_set.num_labels))
    sample = _sample(labels, max_examples, seed)
    values = np.asarray(s(np.linspace(0, 2, 201)))  # which tell one function from another
    told = {"labels": torch.from_numpy(labels), "s": torch.from_numpy(values)}
    asked_for = digest(f"{features} {symmetric} {max_examples} {seed}", [told]).hex()
    path = None if training_set.folder is None else Path(training_set.folder) / FILE_NAME
    if training_set.resumed_from is not None:
        for place in (path, training_set.resumed_from.parent / FILE_NAME):
            if place is not None and (kept := _read(place)) is not None and kept[0].get("labels") == asked_for:
                return kept[1]
        raise ValueError(
            f"resume_from_checkpoint: {FILE_NAME} of this training set and these options is neither in output_dir nor "
            "beside the checkpoint, and the model is no longer as it was loaded: bring the file, go back to the "
            "options of the first run, or pass class_similarity."
        )
    with torch.random.fork_rng(devices=[]):  # a collator may augment
        first = next(training_set.batches(sample))
    rows = training_set.fingerprint()
    key = {
        "labels": asked_for,
        "inputs": rows and rows + digest("", [first]).hex(),
        "model": digest("", [training_set.model.state_dict()]).hex() if features == "pooled" else "",
    }
    if path is not None and key["inputs"] and (kept := _read(path)) is not None and kept[0] == key:
        return kept[1]
    batches, shows_progress = training_set.batches(sample), training_set.shows_progress
    total = -(-len(sample) // 64)
    if features == "pixels":
        found = pixel_features(batches, total=total, shows_progress=shows_progress)
    else:
        found = pooled_features(
            training_set.model,
            batches,
            num_labels=training_set.num_labels,
            total=total,
            shows_progress=shows_progress,
        )
    matrix = lda_similarity(found, labels[sample], symmetric=symmetric, s=s)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        save_file({"class_similarity": matrix}, unfinished, metadata=key)
        unfinished.replace(path)  # at once, so that a run that is killed leaves no half of a file
        logger.info("The class similarity is kept in %s.", path.name)
    return matrix


def _read(path: Path) -> tuple[dict[str, str], Tensor] | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, file.get_tensor("class_similarity")
    except SafetensorError as error:
        logger.warning("%s cannot be read (%s): it is left out of account.", path.name, error)
        return None


def _sample(labels: np.ndarray, max_examples: int, seed: int) -> np.ndarray:
    """Indices of at most about ``max_examples`` examples, in order, with each class's share kept and none left out."""
    if len(labels) <= max_examples:
        return np.arange(len(labels))
    generator, chosen = np.random.default_rng(seed), []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(len(members), max(2, round(max_examples * len(members) / len(labels))))
        chosen.append(generator.choice(members, count, replace=False))
    return np.sort(np.concatenate(chosen))
