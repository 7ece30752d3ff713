"""Linear mixing: Mixup at the input, Manifold Mixup at a hidden layer, Mixup-Transformer at the pooled vector."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from hf_logitmix.mixing import image, text
from hf_logitmix.mixing.base import Mixing
from hf_logitmix.mixing.hooks import attached, check_checkpointing
from hf_logitmix.mixing.masks import Masks, check_masks, why_not_soft
from hf_logitmix.mixing.sites import check_level, levels, resolve_level, sites
from hf_logitmix.models import is_image_model, name_of, unwrap
from hf_logitmix.moment import Moment
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.plan import MixPlan, check_alpha, sample_plan


@dataclass(frozen=True)
class Linear(Mixing):
    r"""Convex combination :math:`\lambda h + (1-\lambda) h_\pi` of what the model holds at a level.

    Attributes:
        alpha: lam is drawn from Beta(alpha, alpha).
        level: where. ``embedding`` (default) is the input: token embeddings of text (Guo et al., Augmenting Data with
            Mixup for Sentence Classification, 2019) and pixels of images (Zhang et al., mixup, 2018). ``hidden:k`` is
            the output of layer k, counted from 1; of an image model without one list of layers, of its k-th stage.
            ``pooled`` is the input of the classification head (Sun et al., Mixup-Transformer, 2020). ``manifold`` draws
            one of embedding and the hidden layers for each step (Verma et al., Manifold Mixup, 2019).
        per_example: draw one lam for each example instead of one for the batch.
        mix_fraction: mix only this share of the batch, which makes LogitMix cost 1 + mix_fraction vanilla steps instead
            of 2. Not from any paper.
        input_lam: where inputs meet, whatever lam the plan draws for their labels (LaMix: 1/2). None takes the plan's.
        masks: how the attention masks of two texts of unequal length meet. ``soft``: each place is weighed by
            :math:`w = \lambda m + (1-\lambda) m_\pi`, that is log w is added to the scores of attention, so that
            lam = 1 and 0 give each text's own logits; not every model takes such a mask. ``union``: a mixed row sees
            all that either text has, so lam = 1 gives the shorter one's own logits only nearly. None: `MixTrainer`
            finds out before its first step which the model takes (`hf_logitmix.rehearsal.rehearse`); elsewhere the
            union.
        draw: set by `at`: a number in [0, 1) that chooses the layer of ``manifold``. None draws one for each forward.

    Raises:
        ValueError: for an impossible alpha, level, mix_fraction, input_lam or masks.
    """

    alpha: float = 1.0
    level: str = "embedding"
    per_example: bool = False
    mix_fraction: float = 1.0
    input_lam: float | None = None
    masks: Masks | None = None
    draw: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_level(self.level)
        check_masks(self.masks)
        if not 0 < self.mix_fraction <= 1:
            raise ValueError(
                f"mix_fraction={self.mix_fraction} is outside (0, 1]: it is the share of the batch to mix."
            )
        if self.input_lam is not None and not 0 <= self.input_lam <= 1:
            raise ValueError(f"input_lam={self.input_lam} is outside [0, 1].")

    def plan(
        self, batch_size: int, *, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> MixPlan:
        plan = sample_plan(
            batch_size, alpha=self.alpha, per_example=self.per_example, generator=generator, device=device
        )
        mixed = math.ceil(self.mix_fraction * batch_size - 1e-9)  # 0.55 * 100 is a little over 55
        return MixPlan(plan.partner[:mixed], plan.lam[:mixed])

    def at(self, moment: Moment) -> Linear:
        return replace(self, draw=moment.uniform("level")) if self.level == "manifold" else self

    @property
    def where(self) -> str:
        return f"at level={self.level!r}"

    def choices(self, model: nn.Module) -> list[Mixing]:
        return self.alternatives(model) if self.level == "manifold" else [self]

    def alternatives(self, model: nn.Module) -> list[Mixing]:
        return [replace(self, level=level) for level in levels(sites(unwrap(model)))]

    def check(self, model: nn.Module, rows: Rows) -> None:
        where = sites(unwrap(model))
        if self.masks is not None and is_image_model(unwrap(model)):
            raise ValueError(f"masks={self.masks!r} is of texts and {name_of(model)} reads images: leave it out.")
        if self.masks == "soft" and (reason := why_not_soft(unwrap(model))):
            raise ValueError(f"masks='soft' does not go with {name_of(model)}: {reason}. Leave it out.")
        resolve_level(self.level, where, draw=0.0)
        if self.level == "pooled" and rows == "both" and where.linear_head:
            warn_of_linear_head("level='pooled'")

    def attached(self, model: nn.Module) -> AbstractContextManager[Any]:
        if is_image_model(unwrap(model)) and self.level == "embedding":
            return nullcontext()  # pixels are mixed outside the model
        check_checkpointing(model, self.level)
        return attached(model)

    def forward(self, model: nn.Module, inputs: Mapping[str, Any], plan: MixPlan, rows: Rows) -> MixedOutput:
        if self.input_lam is not None:
            at_inputs = plan._replace(lam=torch.full_like(plan.lam, self.input_lam))
            return replace(self, input_lam=None).forward(model, inputs, at_inputs, rows)._replace(plan=plan)
        draw = torch.rand(()).item() if self.draw is None and self.level == "manifold" else self.draw
        if is_image_model(unwrap(model)):
            return image.forward(model, inputs, plan, rows, level=self.level, draw=draw or 0.0)
        masks = self.masks or "union"
        return text.forward(model, inputs, plan, rows, level=self.level, draw=draw or 0.0, masks=masks)


def warn_of_linear_head(place: str) -> None:
    """Warn that LogitMix has nothing to teach at a level."""
    warnings.warn(
        f"{place} has nothing but a linear head after it, which gives the mixed logits by itself: a similarity loss is "
        "zero there up to dropout and teaches nothing. Mix at an earlier level, or train with another objective.",
        UserWarning,
        stacklevel=3,
    )
