"""Mixing of pixels: pure functions of a batch of images and a plan, and the concatenated forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from hf_logitmix.mixing.base import Mixing, split
from hf_logitmix.mixing.hooks import Among, Recompute, attached, check_checkpointing
from hf_logitmix.mixing.sites import resolve_level
from hf_logitmix.models import call, is_image_model, unwrap
from hf_logitmix.moment import Moment
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.plan import MixPlan, check_alpha, sample_plan


def mixup(pixels: Tensor, plan: MixPlan) -> tuple[Tensor, MixPlan]:
    r"""Mixup of images, :math:`\tilde x_i = \lambda_i x_i + (1-\lambda_i) x_{\pi(i)}` (Zhang et al., 2018).

    Args:
        pixels: FloatTensor[B, C, H, W]; not changed.
        plan: of M <= B rows.

    Returns:
        the mixed images, FloatTensor[M, C, H, W], and the plan as it was.
    """
    check_images(pixels)
    lam = plan.lam.reshape(-1, 1, 1, 1)
    mixed = lam * pixels[: len(plan.partner)] + (1 - lam) * pixels[plan.partner]
    return mixed.to(pixels.dtype), plan


def cutmix(pixels: Tensor, plan: MixPlan, generator: torch.Generator | None = None) -> tuple[Tensor, MixPlan]:
    r"""CutMix: a box of the partner's pixels, of share 1 - lam, is put into each image (Yun et al., 2019).

    The box has sides :math:`H\sqrt{1-\lambda}` and :math:`W\sqrt{1-\lambda}` and a uniform centre; what hangs over the
    edge is clipped. Rows with the same lam may have different boxes.

    Args:
        pixels: FloatTensor[B, C, H, W]; not changed.
        plan: of M <= B rows.
        generator: source of the centres; on the device of the pixels, or on the CPU.

    Returns:
        the mixed images, [M, C, H, W], and the plan with lam corrected to the share of an image's own pixels.
    """
    check_images(pixels)
    (partner, lam), (height, width) = plan, pixels.shape[-2:]
    source = generator.device if generator is not None else torch.device("cpu")
    centres = torch.rand(2, len(partner), generator=generator, device=source).to(pixels.device, non_blocking=True)
    side = (1 - lam.double()).clamp(0, 1).sqrt()

    def cut(size: int, centre: Tensor) -> Tensor:
        length, middle = (size * side).round(), (size * centre).floor()
        start = (middle - (length / 2).floor()).clamp(0, size)
        stop = (middle + (length / 2).ceil()).clamp(0, size)
        at = torch.arange(size, device=pixels.device)
        return (at >= start[:, None]) & (at < stop[:, None])

    box = cut(height, centres[0])[:, :, None] & cut(width, centres[1])[:, None, :]
    mixed = torch.where(box[:, None], pixels[partner], pixels[: len(partner)])
    true_lam = 1 - box.sum((1, 2)).double() / (height * width)
    return mixed, MixPlan(partner, true_lam.to(lam.dtype))


def forward(
    model: nn.Module, inputs: Mapping[str, Any], plan: MixPlan, rows: Rows, *, level: str, draw: float
) -> MixedOutput:
    """One forward that mixes linearly at ``level``: the pixels, or what a layer makes of them.

    At a layer the mixed rows alone are enough where each image has one: the rows are then mixed with one another there.
    """
    if level == "embedding":
        mixed, plan = mixup(inputs["pixel_values"], plan)
        return on_mixed(model, inputs, mixed, plan, rows)
    check_checkpointing(model, level)
    with attached(model) as mixer:
        level = resolve_level(level, mixer.sites, draw)
        if level == "embedding":
            return forward(model, inputs, plan, rows, level=level, draw=draw)
        pixels = inputs["pixel_values"]
        size, mixed_rows = len(pixels), len(plan.partner)
        if rows == "mixed" and mixed_rows == size:
            with mixer.mixing(Among(level, plan)):
                return MixedOutput(None, call(model, inputs, size), plan)
        both = {**inputs, "pixel_values": torch.cat([pixels, pixels[:mixed_rows]])}
        with mixer.mixing(Recompute(level, plan, size)):
            output = split(call(model, both, size + mixed_rows), size, plan)
        return output if rows == "both" else output._replace(logits=None)


def on_mixed(model: nn.Module, inputs: Mapping[str, Any], mixed: Tensor, plan: MixPlan, rows: Rows) -> MixedOutput:
    """The model on images that are mixed already, after the clean ones if ``rows`` is ``both``."""
    pixels = inputs["pixel_values"]
    if rows == "mixed":
        return MixedOutput(None, call(model, {**inputs, "pixel_values": mixed}, len(mixed)), plan)
    both = {**inputs, "pixel_values": torch.cat([pixels, mixed])}
    return split(call(model, both, len(pixels) + len(mixed)), len(pixels), plan)


@dataclass(frozen=True)
class CutMix(Mixing):
    """CutMix of images; see `cutmix`.

    Attributes:
        alpha: lam is drawn from Beta(alpha, alpha).
        prob: the share of batches that are cut at all (0.5 on 32 x 32 images, 1 on larger ones in the paper's code).
        per_example: draw one lam for each image instead of one for the batch.
        moment: set by `at`; the centres of the boxes are drawn from it, and else from torch's global generator.
    """

    alpha: float = 1.0
    prob: float = 1.0
    per_example: bool = False
    moment: Moment | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if not 0 < self.prob <= 1:
            raise ValueError(f"prob={self.prob} is outside (0, 1]: it is the share of batches to cut.")

    def plan(
        self, batch_size: int, *, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> MixPlan:
        plan = sample_plan(
            batch_size, alpha=self.alpha, per_example=self.per_example, generator=generator, device=device
        )
        source = generator.device if generator is not None else torch.device("cpu")
        cut = torch.rand(1, generator=generator, device=source).to(plan.lam.device, non_blocking=True) < self.prob
        return MixPlan(plan.partner, torch.where(cut, plan.lam, torch.ones_like(plan.lam)))

    def at(self, moment: Moment) -> CutMix:
        return replace(self, moment=moment)

    def check(self, model: nn.Module, rows: Rows) -> None:
        if not is_image_model(unwrap(model)):
            raise ValueError(
                f"mixing CutMix cuts pixels and {type(unwrap(model)).__name__} reads text: use a method for text, such "
                "as 'logitmix', 'mixup' or 'manifold_mixup'."
            )

    def forward(self, model: nn.Module, inputs: Mapping[str, Any], plan: MixPlan, rows: Rows) -> MixedOutput:
        self.check(model, rows)
        generator = None if self.moment is None else self.moment.generator("boxes")
        mixed, plan = cutmix(inputs["pixel_values"], plan, generator)
        return on_mixed(model, inputs, mixed, plan, rows)


def check_images(pixels: Tensor) -> None:
    """Raise ValueError unless these are images as floats, [B, C, H, W]."""
    if pixels.dim() != 4 or not pixels.is_floating_point():
        raise ValueError(
            f"pixels are {pixels.dtype} of shape {tuple(pixels.shape)}: pass floats of shape [B, C, H, W]."
        )
