"""Linear mixing: Mixup at the input, Manifold Mixup at a hidden layer, Mixup-Transformer at the pooled vector."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from hf_logitmix.criteria import Criterion
from hf_logitmix.mixing.base import Mixing
from hf_logitmix.modalities import modality_of
from hf_logitmix.modalities.hooks import attached, check_checkpointing
from hf_logitmix.modalities.layers import check_level, layers_of, levels, resolve_level
from hf_logitmix.modalities.masks import Masks, check_masks, why_not_soft
from hf_logitmix.models import name_of, unwrap
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.papers import MANIFOLD_MIXUP, MIXUP, MIXUP_TRANSFORMER, Paper
from hf_logitmix.part import LabelSpec
from hf_logitmix.step import Step


@dataclass(frozen=True)
class Linear(Mixing):
    r"""A weighted mean of the two inputs, or of what the model makes of them at a level.

    It is :math:`\lambda h + (1-\lambda) h_\pi`.

    Attributes:
        level: where. ``embedding`` (default) is the input: token embeddings of text (Guo et al., Augmenting Data with
            Mixup for Sentence Classification, 2019) and pixels of images (Zhang et al., mixup, 2018). ``hidden:k`` is
            the output of layer k, counted from 1; of an image model without one list of layers, of its k-th stage.
            ``pooled`` is the input of the classification head (Sun et al., Mixup-Transformer, 2020). ``manifold`` draws
            one of embedding and the hidden layers for each step (Verma et al., Manifold Mixup, 2019).
        masks: how the attention masks of two texts of unequal length meet. ``soft``: each place is weighed by
            :math:`w = \lambda m + (1-\lambda) m_\pi`, that is log w is added to the scores of attention, so that
            lam = 1 and 0 give each text's own logits; not every model takes such a mask. ``union``: a mixed row sees
            all that either text has, so lam = 1 gives the shorter one's own logits only nearly. None: `MixTrainer`
            finds out before its first step which the model takes (`hf_logitmix.training.rehearsal.rehearse`); elsewhere
            the union.

    Raises:
        ValueError: for an unknown level or masks.
    """

    equation = r"\tilde h = \lambda h + (1 - \lambda) h_\pi"

    level: str = field(
        default="embedding",
        metadata={"help": "Where to mix: embedding (of images: pixels), hidden:k, pooled or manifold."},
    )

    masks: Masks | None = field(
        default=None,
        metadata={"help": "How masks of texts of unequal length meet: soft or union; else what the model takes."},
    )

    keeps_lam: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_level(self.level)
        check_masks(self.masks)

    @property
    def papers(self) -> tuple[Paper, ...]:  # type: ignore[override]
        return {"manifold": (MANIFOLD_MIXUP,), "pooled": (MIXUP, MIXUP_TRANSFORMER)}.get(self.level, (MIXUP,))

    @property
    def place(self) -> str:
        return f"at level={self.level!r}"

    def choices(self, model: nn.Module) -> list[Mixing]:
        return self.alternatives(model) if self.level == "manifold" else [self]

    def alternatives(self, model: nn.Module) -> list[Mixing]:
        return [replace(self, level=level) for level in levels(layers_of(unwrap(model)))]

    def check(self, model: nn.Module, labels: LabelSpec | None = None) -> None:
        super().check(model, labels)
        if self.masks is not None and not modality_of(model).has_masks:
            raise ValueError(
                f"masks={self.masks!r} is for text and {name_of(model)} reads {modality_of(model).name}: leave it out."
            )
        if self.masks == "soft" and (reason := why_not_soft(unwrap(model))):
            raise ValueError(f"masks='soft' does not go with {name_of(model)}: {reason}. Leave it out.")
        resolve_level(self.level, layers_of(unwrap(model)), draw=0.0)

    def leaves_a_linear_head(self, model: nn.Module) -> bool:
        return self.level == "pooled" and layers_of(unwrap(model)).linear_head

    def install(self, model: nn.Module) -> AbstractContextManager[Any]:
        if self.level == "embedding" and not modality_of(model).mixes_input_by_hooks:
            return nullcontext()
        check_checkpointing(model, self.level)
        return attached(model)

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
        draw = step.uniform("level") if self.level == "manifold" else 0.0
        return modality_of(model).forward(
            model, inputs, plan, rows, level=self.level, draw=draw, masks=self.masks or "union"
        )
