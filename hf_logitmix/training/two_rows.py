"""Two rows of a batch of text, made equally or unequally long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def equally_long(pair: Mapping[str, Any], pad: int | None, eos: int | list[int] | None) -> dict[str, Any]:
    """Two rows with the padding of the shorter one, for which the longer one loses some of its tokens.

    It keeps the first and those that end a text, where models pool, as long as there are others.
    """
    ids = next((pair[name] for name in ("input_ids", "inputs") if isinstance(pair.get(name), Tensor)), None)
    mask = pair.get("attention_mask", None if ids is None or pad is None else ids != pad)
    if ids is None or not isinstance(mask, Tensor) or mask.shape != ids.shape:
        return dict(pair)
    used = [row.nonzero().flatten() for row in mask.cpu()]
    short, long = sorted((0, 1), key=lambda row: len(used[row]))
    kept = _kept(ids[long], used[long], len(used[short]), eos)

    def cut(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.shape[:2] != ids.shape:
            return value
        value = value.clone()
        tokens = value[long, kept.to(value.device)]
        value[long] = value[short]
        if name not in ("attention_mask", "position_ids"):
            value[long, used[short].to(value.device)] = tokens
        return value

    return {name: cut(name, value) for name, value in pair.items()}


def unequally_long(
    pair: Mapping[str, Any], pad: int | None, eos: int | list[int] | None, side: str
) -> dict[str, Any] | None:
    """Of two rows that are equally long the first with half of its tokens, padded on a side; None without a mask."""
    ids = next((pair[name] for name in ("input_ids", "inputs") if isinstance(pair.get(name), Tensor)), None)
    mask = pair.get("attention_mask")
    if ids is None or not isinstance(mask, Tensor) or mask.shape != ids.shape or mask[0].sum() < 2:
        return None
    used = mask[0].cpu().nonzero().flatten()
    kept = _kept(ids[0], used, (len(used) + 1) // 2, eos)
    places = used[-len(kept) :] if side == "left" else used[: len(kept)]

    def cut(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.shape[:2] != ids.shape or name == "position_ids":
            return value
        cut_one = value.clone()
        cut_one[0] = (pad or 0) if value is ids else 0
        cut_one[0, places.to(value.device)] = value[0, kept.to(value.device)]
        return cut_one

    return {name: cut(name, value) for name, value in pair.items()}


def _kept(ids: Tensor, used: Tensor, count: int, eos: int | list[int] | None) -> Tensor:
    """The places of ``count`` tokens of a row: of its first one, of those that end a text, and of its last others."""
    special = torch.isin(ids.cpu(), torch.as_tensor([] if eos is None else eos, dtype=ids.dtype))
    special[used[:1]] = True
    spare = [*used[~special[used]].tolist(), *used[special[used]].tolist()]
    return used[~torch.isin(used, torch.tensor(spare[: len(used) - count], dtype=torch.long))]


def padded_sides(inputs: Mapping[str, Any]) -> set[str]:
    """On which sides of a batch there is padding."""
    mask = inputs.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        return set()
    return {side for side, place in (("left", 0), ("right", -1)) if not bool(mask[:, place].all())}
