"""Mixing of pixels: pure functions of a batch of images and a plan."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_logitmix.modalities.image import check_images
from hf_logitmix.pairing.plan import MixPlan


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
    partner, lam, (height, width) = plan.partner, plan.lam, pixels.shape[-2:]
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
    return mixed, plan._replace(lam=true_lam.to(lam.dtype))
