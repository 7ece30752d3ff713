"""What every kind of input answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn

from hf_logitmix.modalities.masks import Masks
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.pairing.plan import MixPlan


class Modality:
    """A kind of input; a new kind overrides everything here.

    Attributes:
        name: for sentences: "this model reads ...".
        main_input: the key of the input that is mixed, transformers' ``main_input_name``.
        auto_class: loads a classifier of this kind.
        features: what a class similarity is found in where nothing is asked for (`hf_logitmix.targets.MCEL`).
        mixes_input_by_hooks: whether level ``embedding`` lies inside the model.
        has_masks: whether rows may be of unequal length, under masks that meet in a mixed row.
        feature_axis: of what `watched` shows, over which its gradient is averaged.
    """

    name: ClassVar[str]
    main_input: ClassVar[str]
    auto_class: ClassVar[Any]
    features: ClassVar[str]
    mixes_input_by_hooks: ClassVar[bool]
    has_masks: ClassVar[bool]
    feature_axis: ClassVar[int]

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
        """One forward that mixes linearly at ``level``; ``draw`` in [0, 1) chooses the one of ``manifold``."""
        raise NotImplementedError

    def share_layers(self, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        """From now on the layers below a mix run on the clean rows alone, for as long as the model has its hooks.

        Raises:
            ValueError: for a model whose layers cannot be given a part of their rows.
        """
        raise NotImplementedError

    @contextmanager
    def watched(self, model: nn.Module, inputs: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], list[Tensor]]]:
        """A block in which a forward of the inputs it gives leaves the mixable input in the list it gives.

        That tensor requires a gradient: [B, C, H, W] pixels, [B, L, D] embeddings of the words.
        """
        raise NotImplementedError
        yield  # pragma: no cover
