"""A fingerprint of tensors."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def digest(start: str, groups: Iterable[Mapping[str, Tensor]], size: int = 7) -> bytes:
    """BLAKE2b of named tensors, the same on every machine: a function of names, types, shapes and values alone."""
    found = hashlib.blake2b(start.encode(), digest_size=size)
    for tensors in groups:
        for name in sorted(tensors):
            value = tensors[name].detach().cpu().contiguous()
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.digest()


def in_short(value: Tensor) -> str:
    """A tensor by its shape and a digest."""
    return f"tensor {list(value.shape)} {digest('', [{'': value}], size=4).hex()}"


def one_line(part: Any) -> str:
    """A dataclass as `repr` would show it, with tensors named by their shape and a digest instead of their numbers."""

    def shown(value: Any) -> str:
        return in_short(value) if isinstance(value, Tensor) else repr(value)

    options = [f"{f.name}={shown(getattr(part, f.name))}" for f in dataclasses.fields(part) if f.repr]
    return f"{type(part).__name__}({', '.join(options)})"
