"""Features of whole inputs: what a model's classification head reads, or the pixels of an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from tqdm.auto import tqdm

from hf_logitmix.models import call, classifier_of, evaluating, first_of, head_modules, unwrap


def pooled_features(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    *,
    num_labels: int,
    total: int | None = None,
    shows_progress: bool = True,
) -> np.ndarray:
    """The input of the classification head for each example, in evaluation mode and without gradients.

    Where the head reads a vector for each token, their mean over the attention mask; for maps of an image, their mean
    over the pixels. So the features are those of the encoder, whatever a new head on top of it does.

    Args:
        model: as it is loaded; its training mode is left as it was found.
        batches: inputs of the model, without labels.
        num_labels: K.
        total: number of batches, for the progress bar.
        shows_progress: whether there is a progress bar.

    Returns:
        FloatArray[N, D].

    Raises:
        ValueError: for a model whose head is not found.
    """
    model = unwrap(model)
    head = head_modules(model) or [classifier_of(model, num_labels)]
    seen: list[Tensor] = []
    handle = head[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(first_of(args, kwargs)), with_kwargs=True
    )
    features = []
    try:
        with evaluating(model):
            for batch in tqdm(batches, "class similarity", total, disable=not shows_progress):
                seen.clear()
                call(model, batch, len(next(iter(batch.values()))))
                if not seen:
                    raise ValueError(
                        f"{type(model).__name__} does not call its classifier, so what it reads is not known: pass "
                        "class_similarity, a [K, K] tensor."
                    )
                features.append(_pool(seen[0], batch.get("attention_mask")).double().cpu().numpy())
    finally:
        handle.remove()
    return np.concatenate(features)


def pixel_features(
    batches: Iterable[Mapping[str, Any]], *, total: int | None = None, shows_progress: bool = True, side: int = 32
) -> np.ndarray:
    """The pixels of each image, as Negi et al. take them; images above ``side`` pixels are averaged down to it first.

    Args:
        batches: with ``pixel_values``, FloatTensor[B, C, H, W].
        total: number of batches, for the progress bar.
        shows_progress: whether there is a progress bar.
        side: the most pixels along a side, which bounds the cost of discriminant analysis.

    Returns:
        FloatArray[N, C * H * W].
    """
    features = []
    for batch in tqdm(batches, "class similarity", total, disable=not shows_progress):
        pixels = batch["pixel_values"].double()
        height, width = (min(side, size) for size in pixels.shape[-2:])
        features.append(nn.functional.adaptive_avg_pool2d(pixels, (height, width)).flatten(1).cpu().numpy())
    return np.concatenate(features)


def _pool(hidden: Tensor, mask: Tensor | None) -> Tensor:
    hidden = hidden.float()
    if hidden.dim() == 3 and mask is not None and mask.shape == hidden.shape[:2]:
        weight = mask.to(hidden).unsqueeze(-1)
        return (weight * hidden).sum(1) / weight.sum(1)
    if hidden.dim() == 4:
        return hidden.mean((2, 3))
    return hidden.mean(1) if hidden.dim() == 3 else hidden
