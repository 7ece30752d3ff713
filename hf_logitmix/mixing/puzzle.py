"""PuzzleMix as a mixing: saliency from the model itself, then `hf_logitmix.mixing.puzzlemix`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from hf_logitmix.mixing.base import Mixing
from hf_logitmix.mixing.image import check_images
from hf_logitmix.mixing.puzzlemix import puzzlemix, side_of_moved
from hf_logitmix.models import call, evaluation_mode, is_image_model, unwrap
from hf_logitmix.moment import Moment
from hf_logitmix.objectives.cross_entropy import cross_entropy
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.plan import MixPlan, check_alpha, sample_plan

_BLOCK_NUMS = (2, 4, 8, 16)
_SCALE = 1024


@dataclass(frozen=True)
class PuzzleMix(Mixing):
    r"""PuzzleMix (Kim, Choo, Song, Puzzle Mix, ICML 2020), with the defaults of the released code.

    Saliency is :math:`\sqrt{\mathrm{mean}_c (\partial L / \partial x_c)^2}` of the clean batch's loss, which costs a
    forward and a backward down to the pixels: in evaluation mode, so that dropout adds no noise and the statistics of
    batch normalisation see nothing but the mixed images. Where the objective asks for clean rows too (LogitMix_p), that
    forward is theirs as well, in whatever mode the model is: two forwards of B rows, not one of 2B. In training mode
    the statistics then see the clean batch and the mixed one, and dropout is in the saliency.

    Attributes:
        alpha: the prior is drawn from Beta(alpha, alpha), once a batch.
        block_num: g, blocks along a side; None draws one of 2, 4, 8 and 16 that divides the image, for each step.
        n_labels: levels of a block.
        transport: move salient blocks to where the mask keeps them.
        label_smoothness, data_smoothness, prior_weight: beta, gamma and eta of the paper.
        neigh_size: cells of the data term in pixels; a block that it does not divide takes the next smaller size.
        t_eps, t_size: of the transport; see `puzzlemix`. t_size must fit the blocks of every g that may be drawn.
        mean, std: with which pixels were normalised, a number a channel; None for pixels in [0, 1].
        input_lam: the prior, whatever lam the plan draws for labels (LaMix_p: 1/2). None takes the plan's.
        draw, labels: set by `at` and `for_batch`.

    Raises:
        ValueError: for parameters that are not possible; before training for a text model.
    """

    alpha: float = 1.0
    block_num: int | None = None
    n_labels: int = 3
    transport: bool = True
    label_smoothness: float = 1.2
    data_smoothness: float = 0.5
    prior_weight: float = 0.2
    neigh_size: int = 4
    t_eps: float = 0.8
    t_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_lam: float | None = None
    draw: float | None = field(default=None, repr=False)
    labels: Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if self.n_labels < 2:
            raise ValueError(f"n_labels={self.n_labels}: a block needs at least two levels.")
        if self.block_num is not None and self.block_num < 2:
            raise ValueError(f"block_num={self.block_num}: pass at least 2, or None to draw one for each step.")
        if not 0 <= self.data_smoothness <= 1:
            raise ValueError(f"data_smoothness={self.data_smoothness} is outside [0, 1]: neighbours must not repel.")
        if self.neigh_size < 1:
            raise ValueError(f"neigh_size={self.neigh_size}: pass at least 1.")
        if self.t_size is not None and self.t_size < 1:
            raise ValueError(
                f"t_size={self.t_size}: pass the side of a block in pixels, or None for the mask's blocks."
            )
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: pass both, or neither for pixels in [0, 1].")
        if self.input_lam is not None and not 0 <= self.input_lam <= 1:
            raise ValueError(f"input_lam={self.input_lam} is outside [0, 1].")

    def plan(
        self, batch_size: int, *, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> MixPlan:
        return sample_plan(batch_size, alpha=self.alpha, generator=generator, device=device)

    def at(self, moment: Moment) -> PuzzleMix:
        return replace(self, draw=moment.uniform("blocks")) if self.block_num is None else self

    def for_batch(self, labels: Tensor) -> PuzzleMix:
        return replace(self, labels=labels)

    def check(self, model: nn.Module, rows: Rows) -> None:
        if not is_image_model(unwrap(model)):
            raise ValueError(
                f"mixing PuzzleMix cuts pixels and {type(unwrap(model)).__name__} reads text: use a method for text, "
                "such as 'logitmix', 'mixup' or 'lamix'."
            )

    def forward(self, model: nn.Module, inputs: Mapping[str, Any], plan: MixPlan, rows: Rows) -> MixedOutput:
        self.check(model, rows)
        if self.labels is None:
            raise ValueError("PuzzleMix needs labels for its saliency: pass mixing=PuzzleMix(...).for_batch(labels).")
        pixels = inputs["pixel_values"].detach()
        check_images(pixels)
        # only a forward that is trained on goes through DistributedDataParallel, and needs the modes of training
        seen_by = model if rows == "both" else unwrap(model)
        with torch.enable_grad(), nullcontext() if rows == "both" else evaluation_mode(seen_by):
            pixels.requires_grad_()
            logits = call(seen_by, {**inputs, "pixel_values": pixels}, len(pixels))
            config = getattr(unwrap(model), "config", None)
            own = logits[:, : getattr(config, "num_labels", None)]  # a second head's outputs may stand beside them
            # the scale, which cancels, keeps gradients of confident images above half precision's smallest number
            loss = (_SCALE if logits.dtype == torch.float16 else 1) * cross_entropy(own, self.labels).sum()
            (gradient,) = torch.autograd.grad(loss, pixels, retain_graph=rows == "both")
        mixed, true_plan = self._mix(pixels.detach(), gradient.float().square().mean(1).sqrt(), plan)
        mixed_logits = call(model, {**inputs, "pixel_values": mixed}, len(mixed))
        return MixedOutput(logits if rows == "both" else None, mixed_logits, true_plan)

    def _mix(self, pixels: Tensor, saliency: Tensor, plan: MixPlan) -> tuple[Tensor, MixPlan]:
        prior = plan if self.input_lam is None else plan._replace(lam=torch.full_like(plan.lam, self.input_lam))
        block_num = self._blocks(pixels.shape[-1])
        block = max(pixels.shape[-1] // block_num, 1)
        statistics: dict[str, Any] = {}
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, pixels.shape[1]):
                raise ValueError(
                    f"{name}={values} has {len(values)} numbers and images have {pixels.shape[1]} channels."
                )
            statistics[name] = None if values is None else torch.tensor(values).to(pixels.device, non_blocking=True)
        mixed, true_plan = puzzlemix(  # type: ignore[misc]
            pixels,
            saliency,
            prior,
            block_num=block_num,
            n_labels=self.n_labels,
            transport=self.transport,
            beta=self.label_smoothness,
            gamma=self.data_smoothness,
            eta=self.prior_weight,
            neigh_size=max(size for size in range(1, min(self.neigh_size, block) + 1) if block % size == 0),
            t_eps=self.t_eps,
            t_size=self.t_size,
            **statistics,
        )
        return mixed, true_plan if self.input_lam is None else plan

    def _blocks(self, size: int) -> int:
        if self.block_num is not None:
            return self.block_num
        possible = [number for number in _BLOCK_NUMS if size % number == 0]
        if not possible:
            raise ValueError(
                f"images of {size} pixels are divided by none of {_BLOCK_NUMS}: pass block_num, or resize."
            )
        for number in possible:  # at the first step, not at the one that draws it
            side_of_moved(self.t_size, size // number)
        draw = torch.rand(()).item() if self.draw is None else self.draw
        return possible[int(draw * len(possible))]
