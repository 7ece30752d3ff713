"""CutMix as a mixing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from hf_logitmix import papers
from hf_logitmix.criteria import Criterion
from hf_logitmix.mixing.base import Mixing
from hf_logitmix.mixing.image import cutmix
from hf_logitmix.modalities.image import on_mixed
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.step import Step


@dataclass(frozen=True)
class CutMix(Mixing):
    """A box of the partner's pixels in each image (Yun et al., 2019); see `hf_logitmix.mixing.image.cutmix`."""

    equation = r"\tilde x = M \odot x + (1 - M) \odot x_\pi, \quad \lambda = \mathrm{mean}(M)"
    papers = (papers.CUTMIX,)

    reads: ClassVar[tuple[str, ...]] = ("images",)

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
        shown, plan = cutmix(inputs["pixel_values"], plan, step.generator("boxes"), rows)
        return on_mixed(model, inputs, shown, plan, rows)
