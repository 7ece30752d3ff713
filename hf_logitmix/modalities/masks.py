"""How the attention masks of two texts of unequal length meet in a mixed row."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hf_logitmix.models import unwrap
from hf_logitmix.pairing.plan import MixPlan

Masks = Literal["soft", "union"]

_NEVER = -3e4  # e to its power is 0 in every type, and with any score added it stays finite in float16
_WINDOWS = ("sliding_window", "local_attention", "attention_chunk_size", "attention_window")


def check_masks(masks: str | None) -> None:
    """Raise ValueError unless ``masks`` is soft, union or None."""
    if masks not in ("soft", "union", None):
        raise ValueError(f"masks={masks!r} is unknown: pass 'soft', 'union', or None for what the model takes.")


def have_masks(level: str, model: nn.Module) -> bool:
    """Whether masks of two texts meet where a model is mixed: pooled vectors are mixed behind all masks."""
    return level != "pooled" and getattr(unwrap(model), "main_input_name", "") != "pixel_values"


def soft_weights(mask: Tensor, plan: MixPlan) -> Tensor:
    r"""By how much a mixed row looks at each place: :math:`w = \lambda m + (1 - \lambda) m_\pi`, FloatTensor[M, L].

    Args:
        mask: of the batch, [B, L], 1 for tokens and 0 for padding.
        plan: of M <= B rows.
    """
    lam = plan.lam.to(mask.device)[:, None]
    mask = mask.to(lam.dtype)
    return lam * mask[: len(lam)] + (1 - lam) * mask[plan.partner.to(mask.device)]


def scores_of(weights: Tensor, is_causal: bool, dtype: torch.dtype) -> Tensor:
    r"""What is added to the scores of attention, so that :math:`\mathrm{softmax}(s + \log w)` weighs each place by w.

    Args:
        weights: [N, L] in [0, 1]; rows of a mask of zeros and ones have what the model makes of that mask itself.
        is_causal: whether no place sees those after it.
        dtype: that the model computes in.

    Returns:
        FloatTensor[N, 1, 1, L], or [N, 1, L, L] where the model is causal.
    """
    scores = weights.log().clamp_min(_NEVER)[:, None, None, :]
    if is_causal:
        length = weights.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=weights.device).triu(1)
        scores = scores.masked_fill(later, _NEVER)
    return scores.to(dtype)


def is_causal(model: nn.Module) -> bool:
    """Whether the mask of the inputs is for attention that sees nothing after a place; of an encoder it is not."""
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return False
    return any(getattr(module, "is_causal", False) is True for module in model.modules())


def why_not_soft(model: nn.Module) -> str:
    """Why a model takes no mask of numbers, as far as its configuration tells; empty where it may take one.

    A mask of numbers goes to all layers alike, so it would open the windows of layers that look at near places only,
    and layers without attention would not see it. Whether it is taken as it should be is for the rehearsal to try.
    """
    config: Any = getattr(model, "config", None)
    implementation = getattr(config, "_attn_implementation", None)
    if implementation not in (None, "eager", "sdpa"):
        return f"attn_implementation={implementation!r} takes no mask of numbers"
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    kinds = {kind for kind in getattr(text, "layer_types", None) or () if kind != "full_attention"}
    if kinds or any(getattr(text, name, None) for name in _WINDOWS):
        return f"it has layers of {' and '.join(sorted(kinds)) or 'windows'}, which need masks of their own"
    tables = [type(module) for module in model.modules() if isinstance(module, nn.Embedding)]
    if any("attention_mask" in inspect.signature(table.forward).parameters for table in tables):
        return "it counts positions from its attention mask"
    return ""


def compute_dtype(model: nn.Module, device: torch.device) -> torch.dtype:
    """What a model computes in: autocast's type, or its parameters'."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
