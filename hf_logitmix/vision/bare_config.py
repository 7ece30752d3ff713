"""The ``config.json`` beside the weights of a bare model of timm, as timm itself reads and writes one."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

logger = logging.getLogger(__name__)

KEPT = ("fixed_input_size", "interpolation", "crop_pct", "crop_mode", "pool_size", "first_conv", "classifier")
_NOT_KEPT = ("device", "dtype", "pretrained", "num_classes", "pretrained_model_args")


def timm_config(
    module: nn.Module,
    num_classes: int,
    images: Mapping[str, Any],
    label_names: Sequence[str] | None = None,
) -> dict[str, Any] | None:
    """What ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads beside the weights.

    What the model was made with is what timm tells: all of it from 1.0.31 on; before, the channels and, of models of
    one size, the size.

    Args:
        module: the model.
        num_classes: its number of outputs.
        images: of timm's ``pretrained_cfg``: input_size, mean, std, crop_pct, ... that take the place of the model's.
        label_names: of the classes in order.

    Returns:
        None for a module that is no model of timm's registry.
    """
    cfg = getattr(module, "pretrained_cfg", None)
    if not cfg or not cfg.get("architecture"):
        return None
    own = {name: cfg[name] for name in (*KEPT, "input_size", "mean", "std") if cfg.get(name) is not None}
    return {
        "architecture": cfg["architecture"],
        "num_classes": num_classes,
        "num_features": getattr(module, "num_features", None),
        **({"label_names": list(label_names)} if label_names else {}),
        "model_args": _model_args(module),
        "pretrained_cfg": {**own, **images, "num_classes": num_classes, "custom_load": False},
    }


def write_config(config: Mapping[str, Any], folder: str | Path) -> None:
    """Write ``config.json``; a warning names what JSON does not have, such as a class that the model was made with."""
    args = {name: value for name, value in config["model_args"].items() if _is_json(value)}
    if left_out := [name for name in config["model_args"] if name not in args]:
        logger.warning(
            "config.json cannot hold what the model was made with as %s: pass it to timm.create_model again.",
            ", ".join(left_out),
        )
    (Path(folder) / "config.json").write_text(json.dumps({**config, "model_args": args}, indent=2) + "\n")


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _model_args(module: Any) -> dict[str, Any]:
    """What timm tells of how a model was made."""
    told = getattr(module, "_model_args", None)
    if told is not None:
        return {name: value for name, value in told.items() if name not in _NOT_KEPT}
    cfg, found = module.pretrained_cfg, {}
    channels, *sides = cfg["input_size"]
    if (own := getattr(module, "in_chans", channels)) != channels:
        found["in_chans"] = own
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if size is not None and list(size) != sides:
        found["img_size"] = list(size)
    return found
