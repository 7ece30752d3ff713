"""Kinds of input. Nothing outside this folder asks what a model reads."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from hf_logitmix.modalities.base import Modality
from hf_logitmix.modalities.image import Images
from hf_logitmix.modalities.text import Text
from hf_logitmix.models import unwrap

__all__ = ["KINDS", "Images", "Modality", "Text", "modality_of"]

KINDS: Mapping[str, Modality] = MappingProxyType({kind.name: kind for kind in (Text(), Images())})


def modality_of(model: nn.Module) -> Modality:
    """What a model reads, by its ``main_input_name``; text where it names nothing that is known."""
    main_input = getattr(unwrap(model), "main_input_name", "")
    return next((kind for kind in KINDS.values() if kind.main_input == main_input), KINDS["text"])
