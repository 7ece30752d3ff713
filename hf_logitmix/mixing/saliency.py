"""Which parts of an input a model's loss hangs on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from hf_logitmix.criteria import Criterion, RowLoss, criterion_of
from hf_logitmix.modalities import modality_of
from hf_logitmix.models import call, evaluation_mode, name_of, unwrap
from hf_logitmix.soft_labels import are_soft

_SCALE = 1024


def saliency_of(
    model: nn.Module,
    inputs: Mapping[str, Any],
    labels: Tensor,
    criterion: Criterion | None = None,
    *,
    keeps_graph: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Saliency of each pixel, or of each word, :math:`\sqrt{\mathrm{mean}_c (\partial L / \partial x_c)^2}`.

    The mean is over the channels of a pixel, or over the dimensions of a word's embedding.

    Args:
        model: in whatever mode, where the graph is kept; otherwise it is shown the batch in evaluation mode, so that
            dropout adds no noise and the statistics of batch normalisation see nothing of it.
        inputs: the batch, without labels.
        labels: of the batch.
        criterion: of the loss L; None is the one that fits the labels.
        keeps_graph: whether the logits are to be trained on too.

    Returns:
        the logits, FloatTensor[B, K], and the saliency in float32, [B, H, W] of images and [B, L] of text.

    Raises:
        ValueError: for a text model that looks up its words in several tables, or none.
    """
    # only a forward that is trained on goes through DistributedDataParallel, and needs the modes of training
    seen_by = model if keeps_graph else unwrap(model)
    modality, first = modality_of(model), next(value for value in inputs.values() if isinstance(value, Tensor))
    with (
        torch.enable_grad(),
        nullcontext() if keeps_graph else evaluation_mode(seen_by),
        modality.watched(seen_by, inputs) as (shown, watched),
    ):
        logits = call(seen_by, shown, len(first))
        if len(watched) != 1:
            raise ValueError(
                f"{name_of(model)} looks up its words in {len(watched)} tables, and saliency is defined for one: "
                "pass saliency=False, or a method without it."
            )
        config = getattr(unwrap(model), "config", None)
        own = logits[:, : getattr(config, "num_labels", None)]  # a second head's outputs may stand beside them
        soft = are_soft(model, labels)
        loss = RowLoss(criterion or criterion_of(labels, soft), soft_labels=soft)(own, labels).sum()
        # the scale, which cancels, keeps gradients of confident examples above half precision's smallest number
        scale = _SCALE if logits.dtype == torch.float16 else 1
        (gradient,) = torch.autograd.grad(scale * loss, watched[0], retain_graph=keeps_graph)
    return logits, gradient.float().square().mean(modality.feature_axis).sqrt()
