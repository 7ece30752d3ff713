"""PuzzleMix as a mixing: saliency from the model itself, then `hf_logitmix.mixing.puzzlemix`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_logitmix import papers
from hf_logitmix.criteria import Criterion
from hf_logitmix.mixing.base import Mixing
from hf_logitmix.mixing.puzzlemix import puzzlemix, side_of_moved
from hf_logitmix.mixing.saliency import saliency_of
from hf_logitmix.modalities.image import check_images
from hf_logitmix.models import call
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.step import Step

_BLOCK_NUMS = (2, 4, 8, 16)


@dataclass(frozen=True)
class PuzzleMix(Mixing):
    r"""PuzzleMix (Kim, Choo, Song, Puzzle Mix, ICML 2020), with the defaults of the released code.

    Saliency is :math:`\sqrt{\mathrm{mean}_c (\partial L / \partial x_c)^2}` of the clean batch's loss, which costs a
    forward and a backward down to the pixels: in evaluation mode, so that dropout adds no noise and the statistics of
    batch normalisation see nothing but the mixed images. Where the objective asks for clean rows too (LogitMix_p), that
    forward is theirs as well, in whatever mode the model is: two forwards of B rows, not one of 2B. In training mode
    the statistics then see the clean batch and the mixed one, and dropout is in the saliency.

    Attributes:
        block_num: g, blocks along a side; None draws one of 2, 4, 8 and 16 that divides the image, for each step.
        n_labels: levels of a block.
        transport: move salient blocks to where the mask keeps them.
        label_smoothness, data_smoothness, prior_weight: beta, gamma and eta of the paper.
        neigh_size: cells of the data term in pixels; a block that it does not divide takes the next smaller size.
        t_eps, t_size: of the transport; see `puzzlemix`. t_size must fit the blocks of every g that may be drawn.
        mean, std: with which pixels were normalised, a number a channel; None for pixels in [0, 1].

    Raises:
        ValueError: for parameters that are not possible; before training for a text model.
    """

    equation = r"\tilde x = m \odot \Pi^\top x + (1 - m) \odot \Pi_\pi^\top x_\pi, \quad \lambda = \mathrm{mean}(m)"
    papers = (papers.PUZZLEMIX,)

    reads: ClassVar[tuple[str, ...]] = ("images",)

    block_num: int | None = field(default=None, metadata={"help": "PuzzleMix: blocks along a side."})
    n_labels: int = field(default=3, metadata={"help": "PuzzleMix: levels of a block (3)."})
    transport: bool = field(default=True, metadata={"help": "PuzzleMix: move salient blocks."})
    label_smoothness: float = field(default=1.2, metadata={"help": "PuzzleMix: beta, smoothness of the mask."})
    data_smoothness: float = field(
        default=0.5, metadata={"help": "PuzzleMix: gamma, smoothness of the picture across blocks."}
    )
    prior_weight: float = field(default=0.2, metadata={"help": "PuzzleMix: eta, pull of the mask towards lam."})
    neigh_size: int = field(default=4, metadata={"help": "PuzzleMix: pixels of a cell of the data term (4)."})
    t_eps: float = field(default=0.8, metadata={"help": "PuzzleMix: cost of moving a block by its own size."})
    t_size: int | None = field(
        default=None, metadata={"help": "PuzzleMix: side in pixels of the blocks that are moved, at most the mask's."}
    )
    mean: tuple[float, ...] | None = field(
        default=None,
        metadata={"help": "Mean of the channels with which pixels were normalised.", "command_line": False},
    )
    std: tuple[float, ...] | None = field(
        default=None, metadata={"help": "Their standard deviation.", "command_line": False}
    )

    def __post_init__(self) -> None:
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

    def __call__(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        plan: MixPlan,
        rows: Rows,
        *,
        step: Step,
        labels: Tensor | None = None,
        criterion: Criterion | None = None,
    ) -> MixedOutput:
        self.check(model)
        check_images(inputs["pixel_values"])
        if labels is None:
            raise ValueError("PuzzleMix needs the labels of the batch for its saliency: pass labels=.")
        logits, saliency = saliency_of(model, inputs, labels, criterion, keeps_graph=rows == "both")
        mixed, plan = self._mix(inputs["pixel_values"], saliency, plan, step)
        mixed_logits = call(model, {**inputs, "pixel_values": mixed}, len(mixed))
        return MixedOutput(logits if rows == "both" else None, mixed_logits, plan)

    def _mix(self, pixels: Tensor, saliency: Tensor, plan: MixPlan, step: Step) -> tuple[Tensor, MixPlan]:
        block_num = self._blocks(pixels.shape[-1], step)
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
            plan,
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
        alone = plan.lam == 1  # rows that are not to be mixed, for which the prior alone would not do
        mixed = torch.where(alone[:, None, None, None], pixels[: len(alone)], mixed)
        return mixed, true_plan._replace(lam=torch.where(alone, plan.lam, true_plan.lam))

    def _blocks(self, size: int, step: Step) -> int:
        if self.block_num is not None:
            return self.block_num
        possible = [number for number in _BLOCK_NUMS if size % number == 0]
        if not possible:
            raise ValueError(
                f"images of {size} pixels are divided by none of {_BLOCK_NUMS}: pass block_num, or resize."
            )
        for number in possible:  # at the first step, not at the one that draws it
            side_of_moved(self.t_size, size // number)
        return possible[int(step.uniform("blocks") * len(possible))]
