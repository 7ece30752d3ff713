"""Mixing of text: a batch of pairs, and the hooks that mix them inside one forward of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from hf_logitmix.modalities.base import Modality
from hf_logitmix.modalities.hooks import (
    AppendMixedRows,
    MixingPass,
    OverwriteMixedRows,
    attached,
    check_checkpointing,
    interpolate,
    on_first,
    same_memory,
)
from hf_logitmix.modalities.layers import layers_of, resolve_level
from hf_logitmix.modalities.masks import Masks, compute_dtype, scores_of, soft_weights
from hf_logitmix.modalities.shared_layers import CleanRowsBelow, fixed_tensors
from hf_logitmix.models import call, first_of, name_of, unwrap
from hf_logitmix.output import MixedOutput, Rows, split
from hf_logitmix.pairing.plan import MixPlan


def ids_of(inputs: Mapping[str, Any]) -> tuple[str, Tensor]:
    """The ids of the tokens of a batch, LongTensor[B, L], and under which name the model reads them.

    Raises:
        ValueError: for a batch without ids, such as one of ``inputs_embeds``.
    """
    for name in ("input_ids", "inputs"):
        if isinstance(inputs.get(name), Tensor):
            return name, inputs[name]
    raise ValueError(f"inputs hold no `input_ids`, only {', '.join(inputs)}: mixing text needs the ids of its tokens.")


def on_mixed_ids(model: nn.Module, inputs: Mapping[str, Any], mixed: Tensor, plan: MixPlan, rows: Rows) -> MixedOutput:
    """The model on ids [M, L] that are mixed already, after the clean rows if ``rows`` is ``both``.

    All else of a mixed row (attention mask, token types) is the example's own.
    """
    (name, ids), count = ids_of(inputs), len(mixed)
    per_row = {
        key: value for key, value in inputs.items() if isinstance(value, Tensor) and value.shape[:1] == ids.shape[:1]
    }
    second = {**inputs, **{key: value[:count] for key, value in per_row.items()}, name: mixed}
    if rows == "mixed":
        return MixedOutput(None, call(model, second, count), plan)
    both = {**inputs, **{key: torch.cat([value, second[key]]) for key, value in per_row.items()}}
    return split(call(model, both, len(ids) + count), len(ids), plan)


def longer_of_pair(inputs: Mapping[str, Any], plan: MixPlan) -> Tensor:
    """For each pair the index of the longer example, the example itself where they are equal. LongTensor[M].

    Length is the number of ones in ``attention_mask``, not of ids that differ from the padding id: that id is often
    the end-of-text id too.
    """
    own = torch.arange(len(plan.partner), device=plan.partner.device)
    mask = inputs.get("attention_mask")
    if mask is None:
        return own
    length = mask.flatten(1).sum(1)
    return torch.where(length[own] >= length[plan.partner], own, plan.partner)


def pair_inputs(inputs: Mapping[str, Any], plan: MixPlan, masks: Masks = "union") -> dict[str, Any]:
    """The inputs of M mixed rows: the longer example's, under the union of both attention masks or `soft_weights`.

    So position ids, the place where a decoder pools and the search for an end-of-text token are those of the longer
    example. Values that are not tensors with a row an example stay as they are.
    """
    pick, batch_size = longer_of_pair(inputs, plan), _batch_size(inputs)

    def mixed_row(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != batch_size:
            return value
        if name == "attention_mask" and masks == "soft":
            return soft_weights(value, plan)
        if name == "attention_mask":
            return torch.maximum(value[: len(plan.partner)], value[plan.partner])
        return value[pick]

    return {name: mixed_row(name, value) for name, value in inputs.items()}


class Text(Modality):
    """Token ids, mixed at their embeddings by hooks."""

    name: ClassVar[str] = "text"
    main_input: ClassVar[str] = "input_ids"
    auto_class: ClassVar[Any] = AutoModelForSequenceClassification
    features: ClassVar[str] = "pooled"
    mixes_input_by_hooks: ClassVar[bool] = True
    has_masks: ClassVar[bool] = True
    feature_axis: ClassVar[int] = -1

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
        """One forward that mixes at ``level``, over [clean ; mixed] rows or, where that is enough, over the mixed ones.

        Where `share_layers` holds, the layers up to ``level`` run on the clean rows alone.

        Raises:
            ValueError: for ``masks="soft"`` and a model that is known to take no such mask.
        """
        check_checkpointing(model, level)
        with attached(model) as hooks:
            if masks == "soft" and hooks.why_not_soft:
                reason = hooks.why_not_soft
                raise ValueError(f"masks='soft' does not go with {name_of(model)}: {reason}. Pass masks='union'.")
            level = resolve_level(level, hooks.layers, draw)
            size, mixed = _batch_size(inputs), len(plan.partner)
            if level == "pooled" and hooks.fixed is not None:
                with hooks.mixing(AppendMixedRows(level, plan, size, keeps_clean=rows == "both")):
                    logits = call(model, inputs, mixed + (size if rows == "both" else 0))
                return split(logits, size, plan) if rows == "both" else MixedOutput(None, logits, plan)
            mask = inputs.get("attention_mask")
            is_soft = masks == "soft" and level != "pooled" and _has_padding(mask)
            second = pair_inputs(inputs, plan, "soft" if is_soft else "union")

            def as_scores(weights: Tensor) -> Tensor:
                return scores_of(weights, hooks.is_causal, compute_dtype(model, weights.device))

            if rows == "mixed" and level == "embedding" and not hooks.needs_clean_rows:
                try:
                    with hooks.mixing(_EmbedBoth(plan, inputs, second)):
                        alone = {**second, "attention_mask": as_scores(second["attention_mask"])} if is_soft else second
                        return MixedOutput(None, call(model, alone, mixed), plan)
                except _UnknownIds:
                    hooks.needs_clean_rows = True  # raised by an embedding, so nothing random has been drawn yet
            both = {
                name: torch.cat([value, second[name]]) if second[name] is not value else value
                for name, value in inputs.items()
            }
            if is_soft:
                both["attention_mask"] = as_scores(both["attention_mask"])
            way: MixingPass = OverwriteMixedRows(level, plan, size, _ids(both))
            if level != "embedding" and hooks.fixed is not None:
                way = CleanRowsBelow(level, plan, size, hooks.fixed, keeps_clean=rows == "both")
            with hooks.mixing(way):
                output = split(call(model, both, size + mixed), size, plan)
            return output if rows == "both" else output._replace(logits=None)

    def share_layers(self, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        with attached(model) as hooks:
            hooks.fixed = fixed_tensors(hooks, unwrap(model), inputs, _batch_size(inputs))

    @contextmanager
    def watched(self, model: nn.Module, inputs: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], list[Tensor]]]:
        seen: list[Tensor] = []

        def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if same_memory(first_of(args, kwargs), _ids(inputs)):
                embedded = output if isinstance(output, Tensor) else output[0]
                seen.append(embedded if embedded.requires_grad else embedded.requires_grad_())

        handles = [module.register_forward_hook(see, with_kwargs=True) for module in layers_of(unwrap(model)).words]
        try:
            yield inputs, seen
        finally:
            for handle in handles:
                handle.remove()


class _UnknownIds(Exception):
    """An embedding was called with ids that are not the batch's own, but made from them."""


class _EmbedBoth(MixingPass):
    """A forward over M rows: ids of the longer examples go in, and the embeddings of both of a pair are looked up."""

    def __init__(self, plan: MixPlan, inputs: Mapping[str, Any], second: Mapping[str, Any]) -> None:
        super().__init__("embedding", plan, len(plan.lam))
        self.ids = _ids(second)
        per_row = {
            name: (ids, inputs[name])
            for name, ids in second.items()
            if ids is not inputs[name] and name != "attention_mask" and not ids.is_floating_point()
        }
        self.pairs = list(per_row.values())
        self.has_types = not per_row.keys() <= {"input_ids", "inputs", "position_ids"}

    def before_embedding(self, ids: Any, word: bool) -> Tensor | None:
        for known, batch in self.pairs:
            if isinstance(ids, Tensor) and same_memory(ids, known):
                return torch.cat([batch[: len(known)], batch[self.plan.partner]])
        if word or self.has_types:
            raise _UnknownIds
        return None

    def is_of_words(self, ids: Any) -> bool:
        return same_memory(ids, self.ids)

    def after_embedding(self, ids: Any, output: Any, word: bool) -> Any:
        mixed = len(self.plan.lam)
        if len(ids) != 2 * mixed:
            return output
        self.fired |= word
        return on_first(output, lambda hidden: interpolate(hidden[:mixed], hidden[mixed:], self.plan.lam))


def _has_padding(mask: Any) -> bool:
    """Whether it is a mask of a row a text, in which there may be padding: on a GPU, which is not waited for."""
    return isinstance(mask, Tensor) and mask.dim() == 2 and (mask.device.type != "cpu" or not bool(mask.all()))


def _ids(inputs: Mapping[str, Any]) -> Tensor:
    return ids_of(inputs)[1]


def _batch_size(inputs: Mapping[str, Any]) -> int:
    return len(_ids(inputs))
