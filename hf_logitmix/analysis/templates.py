"""The penultimate layer, seen in the plane of three class templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_logitmix.calibration.rows import Floats
from hf_logitmix.targets.similarity import as_array


def project_on_templates(features: Any, weight: Any, classes: Sequence[int], bias: Any = None) -> tuple[Floats, Floats]:
    r"""Coordinates of features, and of three templates themselves, in the plane that goes through the templates.

    The template of class k is the row :math:`w_k` that its logit is the product with. With :math:`c` the mean of the
    three and :math:`e_1, e_2` an orthonormal basis of the differences :math:`w_b - w_a, w_c - w_a` (Gram and Schmidt,
    in this order), a feature x has the coordinates :math:`(e_1 \cdot (x - c), e_2 \cdot (x - c))`. Distances within the
    plane are those of the features' space. With a bias both get one more column, the bias and 1.

    Müller, Kornblith, Hinton, When Does Label Smoothing Help?, NeurIPS 2019, section 2. That the origin is the mean of
    the templates is ours; the paper leaves it open.

    Args:
        features: [N, D], what the classifier reads.
        weight: [K, D], of the classifier.
        classes: three different ones.
        bias: [K], of the classifier, or None.

    Returns:
        the features [N, 2] and the templates [3, 2].

    Raises:
        ValueError: for classes that are not three different ones of K, other shapes, and templates on one line.
    """
    x, w = as_array(features).astype(float), as_array(weight).astype(float)
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
        raise ValueError(f"features {x.shape} and weight {w.shape}: pass [N, D] and [K, D].")
    if len(classes) != 3 or len(set(classes)) != 3 or not all(0 <= k < len(w) for k in classes):
        raise ValueError(f"classes={list(classes)}: pass three different ones of 0..{len(w) - 1}.")
    if bias is not None:
        w = np.column_stack([w, as_array(bias).astype(float)])
        x = np.column_stack([x, np.ones(len(x))])
    templates = w[list(classes)]
    first, second = templates[1] - templates[0], templates[2] - templates[0]
    if np.linalg.norm(first) == 0:
        raise ValueError(f"classes {classes[0]} and {classes[1]} have one template: pass other classes.")
    e1 = first / np.linalg.norm(first)
    rest = second - (second @ e1) * e1
    if np.linalg.norm(rest) <= 1e-9 * max(np.linalg.norm(second), np.linalg.norm(first)):
        raise ValueError(f"the templates of classes {list(classes)} lie on one line: pass others.")
    basis = np.stack([e1, rest / np.linalg.norm(rest)])
    origin = templates.mean(0)
    return (x - origin) @ basis.T, (templates - origin) @ basis.T
