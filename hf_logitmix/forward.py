"""The one forward of a mixed step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from torch import Tensor, nn

from hf_logitmix.criteria import Criterion
from hf_logitmix.mixing import Linear, Mixing
from hf_logitmix.modalities import modality_of
from hf_logitmix.models import call
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.pairing.base import first_tensor
from hf_logitmix.pairing.plan import MixPlan, check_plan
from hf_logitmix.step import OutsideTraining, Step
from hf_logitmix.training.rehearsal import rehearse as try_on_two_rows


def mixed_forward(
    model: nn.Module,
    inputs: Mapping[str, Any],
    plan: MixPlan,
    *,
    mixing: Mixing | None = None,
    rows: Rows = "both",
    labels: Tensor | None = None,
    step: Step | None = None,
    criterion: Criterion | None = None,
    rehearse: bool = False,
) -> MixedOutput:
    """Run a model once over a batch and its mixed rows, in training or evaluation mode, with or without gradients.

    Text of unequal length: the positions of a mixed row are those of the longer example. With ``Linear(masks="soft")``
    lam = 1 and 0 give back the clean logits of each, if the model takes such a mask; decoders need padding on the left.
    With the union of both masks, which is what an unset ``masks`` means here, they do so for the longer of two and
    nearly for the shorter. `hf_logitmix.training.rehearsal.rehearse` tells which of the two a model takes:
    ``mixing = rehearse(model, inputs, Linear())`` once, then pass ``mixing``.

    Args:
        model: a model with one row of logits an example, also under DistributedDataParallel.
        inputs: dict of tensors for the model, without labels.
        plan: who meets whom; M <= B rows.
        mixing: how; None is linear at the input, that is at the token embeddings, or the pixels.
        rows: ``both`` is one forward over B + M rows; ``mixed`` costs M rows at the embedding, elsewhere B + M;
            ``clean`` is an ordinary forward. Once a rehearsal has found that this model allows it, and while the model
            has its hooks, layers below the mix cost B rows, and above it ``mixed`` costs M.
        labels: of the batch, for a mixing that looks at them (PuzzleMix, SpanMix).
        step: where in training this is; None is no training run, with random numbers from torch's global generator.
        criterion: of the loss that such a mixing looks at; None is the one that fits the labels.
        rehearse: before that, try on two rows of the batch whether this model is mixed as it should be; see
            `hf_logitmix.training.rehearsal.rehearse`. Once before training is enough.

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
    first = first_tensor(inputs)
    if not 0 < len(plan.partner) <= len(first):
        raise ValueError(
            f"a plan of {len(plan.partner)} rows does not fit a batch of {len(first)}: pass at least one row and at "
            "most the batch."
        )
    check_plan(plan, len(first))
    if rows == "clean":
        return MixedOutput(call(model, inputs, len(first)), None, plan)
    mixing = Linear() if mixing is None else mixing
    if rehearse:
        has_union = isinstance(mixing, Linear) and mixing.masks is None and modality_of(model).has_masks
        tried = replace(mixing, masks="union") if has_union else mixing  # type: ignore[type-var]
        try_on_two_rows(model, inputs, tried, rows, labels, criterion)
    step = OutsideTraining() if step is None else step
    return mixing(model, inputs, plan.to(first.device), rows, step=step, labels=labels, criterion=criterion)
