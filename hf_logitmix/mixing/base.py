"""What every mixing takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from hf_logitmix.criteria import Criterion
from hf_logitmix.modalities import KINDS, modality_of
from hf_logitmix.models import name_of
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.part import LabelSpec, Part
from hf_logitmix.step import Step


class Mixing(Part):
    """How two inputs become one, and where in the model; a new kind overrides the call, and what else it needs.

    Attributes:
        mixes: False where nothing is mixed: then only objectives on clean rows fit.
        reads: kinds of input that it can mix, keys of `hf_logitmix.modalities.KINDS`.
        gives_partner_at_0: whether a row whose true lam is 0 is the partner in all that the model reads of it.
        keeps_lam: whether the lam of the plan is what it mixes with.
    """

    mixes: ClassVar[bool] = True
    gives_partner_at_0: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = tuple(KINDS)
    keeps_lam: ClassVar[bool] = False

    @property
    def place(self) -> str:
        """What tells this mixing from others of its kind, for a sentence."""
        return f"by {type(self).__name__}"

    def choices(self, model: nn.Module) -> list[Mixing]:
        """All that may be drawn at a step: itself, unless a place in the model is drawn for each step."""
        return [self]

    def alternatives(self, model: nn.Module) -> list[Mixing]:
        """What could be passed in its place where it does not work, the first choice first."""
        return []

    def check(self, model: nn.Module, labels: LabelSpec | None = None) -> None:
        """Refuse a model that cannot be mixed in this way.

        Raises:
            ValueError: for such a model.
        """
        if (kind := modality_of(model).name) not in self.reads:
            raise ValueError(
                f"mixing={self} is for {' and '.join(self.reads)} and {name_of(model)} reads {kind}: pass a method for "
                f"{kind}, such as 'logitmix', 'mixup' or 'manifold_mixup'."
            )

    def leaves_a_linear_head(self, model: nn.Module) -> bool:
        """Whether a linear head alone comes after it, which gives the mixed logits by itself."""
        return False

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
        """One forward of the model that makes mixed rows, and the clean ones too if ``rows`` is ``both``.

        Args:
            model, inputs, plan, rows: as for `hf_logitmix.mixed_forward`.
            step: where in training this is, and the source of what is random.
            labels: of the batch, for a mixing that looks at them.
            criterion: of a loss that it looks at; None is the one that fits the labels.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class NoMixing(Mixing):
    """Each example stays what it is."""

    mixes: ClassVar[bool] = False

    def __call__(self, *args: Any, **kwargs: Any) -> MixedOutput:
        raise ValueError("mixing=NoMixing() makes no mixed rows: pass rows='clean', or a mixing such as Linear().")
