"""The one forward of a mixed step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from torch import Tensor, nn

from hf_logitmix.mixing import Linear, Mixing
from hf_logitmix.models import call, is_image_model, unwrap
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.plan import MixPlan, check_plan
from hf_logitmix.rehearsal import rehearse as try_on_two_rows


def mixed_forward(
    model: nn.Module,
    inputs: Mapping[str, Any],
    plan: MixPlan,
    *,
    mixing: Mixing | None = None,
    rows: Rows = "both",
    rehearse: bool = False,
) -> MixedOutput:
    """Run a model once over a batch and its mixed rows, in training or evaluation mode, with or without gradients.

    Text of unequal length: the positions of a mixed row are those of the longer example. With ``Linear(masks="soft")``
    lam = 1 and 0 give back the clean logits of each, if the model takes such a mask; decoders need padding on the left.
    With the union of both masks, which is what an unset ``masks`` means here, they do so for the longer of two and
    nearly for the shorter. `hf_logitmix.rehearsal.rehearse` tells which of the two a model takes:
    ``mixing = rehearse(model, inputs, Linear())`` once, then pass ``mixing``.

    Args:
        model: a model with one row of logits an example, also under DistributedDataParallel.
        inputs: dict of tensors for the model, without labels.
        plan: who meets whom; M <= B rows.
        mixing: how; None is linear at the input, that is at the token embeddings, or the pixels.
        rows: ``both`` is one forward over B + M rows; ``mixed`` costs M rows at the embedding (B + M at other levels);
            ``clean`` is an ordinary forward.
        rehearse: before that, try on two rows of the batch whether this model is mixed as it should be; see
            `hf_logitmix.rehearsal.rehearse`. Once before training is enough.

    Returns:
        `MixedOutput` (logits[B, K], mixed_logits[M, K], plan with the true lam); what was not asked for is None.

    Raises:
        ValueError: for inputs with labels, an unknown ``rows``, a plan that does not fit (on a GPU its numbers are
            looked at without a wait, by an assert of CUDA), or a mixing that this model cannot do; where it is
            rehearsed also for one that it does wrong.
        RuntimeError: if no hook fired, so that nothing would have been mixed.
    """
    if rows not in get_args(Rows):
        raise ValueError(f"rows={rows!r} is unknown: pass one of {', '.join(get_args(Rows))}.")
    if "labels" in inputs:
        raise ValueError(
            "inputs hold `labels`: take them out and give them to the loss, mixed rows have none of their own."
        )
    first = next((value for value in inputs.values() if isinstance(value, Tensor) and value.dim()), None)
    if first is None:
        raise ValueError(f"inputs hold no tensor, only {', '.join(inputs) or 'nothing'}: pass a batch.")
    if not 0 < len(plan.partner) <= len(first) or plan.lam.shape != plan.partner.shape:
        raise ValueError(
            f"a plan of {len(plan.partner)} partners and {len(plan.lam)} lam does not fit a batch of {len(first)}: "
            "pass one partner and one lam a mixed row, at least one row and at most the batch."
        )
    check_plan(plan, len(first))
    if rows == "clean":
        return MixedOutput(call(model, inputs, len(first)), None, plan)
    mixing = Linear() if mixing is None else mixing
    if isinstance(mixing, Linear) and mixing.masks is None and not is_image_model(unwrap(model)):
        mixing = replace(mixing, masks="union")
    if rehearse:
        try_on_two_rows(model, inputs, mixing, rows)
    return mixing.forward(model, inputs, plan.to(first.device), rows)
