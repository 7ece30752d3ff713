"""Images: the input is `pixel_values`, and pixels are mixed before the forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageClassification

from hf_logitmix.modalities.base import Modality
from hf_logitmix.modalities.hooks import AppendMixedRows, OverwriteMixedRows, attached, check_checkpointing, interpolate
from hf_logitmix.modalities.layers import resolve_level
from hf_logitmix.modalities.masks import Masks
from hf_logitmix.models import call
from hf_logitmix.output import MixedOutput, Rows, split
from hf_logitmix.pairing.plan import MixPlan


class Images(Modality):
    """Pixels, mixed before the forward; layers are mixed by hooks."""

    name: ClassVar[str] = "images"
    main_input: ClassVar[str] = "pixel_values"
    auto_class: ClassVar[Any] = AutoModelForImageClassification
    features: ClassVar[str] = "pixels"
    mixes_input_by_hooks: ClassVar[bool] = False
    has_masks: ClassVar[bool] = False
    feature_axis: ClassVar[int] = 1

    def forward(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        plan: MixPlan,
        rows: Rows,
        *,
        level: str,
        draw: float,
        masks: Masks = "union",
    ) -> MixedOutput:
        """One forward that mixes linearly at ``level``: the pixels, or what a layer makes of them.

        Where `share_layers` holds, and where each image has a mixed row and these alone are asked for, the images go in
        once and the mixed rows come in at the layer.
        """
        if level == "embedding":
            return on_mixed(model, inputs, mixed_pixels(inputs["pixel_values"], plan, rows), plan, rows)
        check_checkpointing(model, level)
        with attached(model) as hooks:
            level = resolve_level(level, hooks.layers, draw)
            if level == "embedding":
                return self.forward(model, inputs, plan, rows, level=level, draw=draw)
            pixels = inputs["pixel_values"]
            size, mixed_rows = len(pixels), len(plan.partner)
            if rows == "mixed" and (hooks.fixed is not None or mixed_rows == size):
                with hooks.mixing(AppendMixedRows(level, plan, size, keeps_clean=False)):
                    return MixedOutput(None, call(model, inputs, mixed_rows), plan)
            if hooks.fixed is not None:
                with hooks.mixing(AppendMixedRows(level, plan, size, keeps_clean=True)):
                    return split(call(model, inputs, size + mixed_rows), size, plan)
            both = {**inputs, "pixel_values": torch.cat([pixels, pixels[:mixed_rows]])}
            with hooks.mixing(OverwriteMixedRows(level, plan, size)):
                output = split(call(model, both, size + mixed_rows), size, plan)
            return output if rows == "both" else output._replace(logits=None)

    def share_layers(self, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        with attached(model) as hooks:
            hooks.fixed = ()  # no masks go past the layers

    @contextmanager
    def watched(self, model: nn.Module, inputs: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], list[Tensor]]]:
        pixels = inputs["pixel_values"].detach().requires_grad_()
        yield {**inputs, "pixel_values": pixels}, [pixels]


def on_mixed(model: nn.Module, inputs: Mapping[str, Any], shown: Tensor, plan: MixPlan, rows: Rows) -> MixedOutput:
    """The model on images that are mixed already, and stand after the clean ones if ``rows`` is ``both``."""
    logits = call(model, {**inputs, "pixel_values": shown}, len(shown))
    return MixedOutput(None, logits, plan) if rows == "mixed" else split(logits, len(shown) - len(plan.partner), plan)


def mixed_pixels(pixels: Tensor, plan: MixPlan, rows: Rows) -> Tensor:
    """The images of a plan, mixed linearly; after the clean ones if ``rows`` is ``both``.

    Raises:
        ValueError: for pixels that are no floats [B, C, H, W], and other ``rows``.
    """
    check_images(pixels)
    check_rows(rows)
    count = len(plan.partner)
    shown = new_rows(pixels, plan.partner.to(pixels.device, non_blocking=True), rows)
    mixed, own = shown[len(shown) - count :], pixels[:count]
    lam = plan.lam.to(pixels.device, non_blocking=True)
    if torch.promote_types(lam.dtype, pixels.dtype) == pixels.dtype:
        mixed.lerp_(own, lam.to(pixels.dtype).reshape(-1, 1, 1, 1))
    else:
        mixed.copy_(interpolate(own, mixed, lam))
    return shown


def new_rows(pixels: Tensor, index: Tensor, rows: Rows) -> Tensor:
    """A new tensor with the images of ``index`` [M], to be mixed; after all images if ``rows`` is ``both``."""
    if rows == "both":
        index = torch.cat([torch.arange(len(pixels), device=pixels.device), index])
    if pixels.is_contiguous(memory_format=torch.channels_last):  # which index_select does not keep
        return pixels.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
    return pixels.index_select(0, index)


def check_images(pixels: Tensor) -> None:
    """Raise ValueError unless these are images as floats, [B, C, H, W]."""
    if pixels.dim() != 4 or not pixels.is_floating_point():
        raise ValueError(
            f"pixels are {pixels.dtype} of shape {tuple(pixels.shape)}: pass floats of shape [B, C, H, W]."
        )


def check_rows(rows: Rows) -> None:
    """Raise ValueError unless these are rows that are mixed."""
    if rows not in ("mixed", "both"):
        raise ValueError(f"rows={rows!r}: pass 'mixed', or 'both' for the clean images before the mixed ones.")
