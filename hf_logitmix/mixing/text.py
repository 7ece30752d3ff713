"""Mixing of text: a batch of pairs, and the hooks that mix them inside one forward of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_logitmix.mixing.base import call, split, unwrap
from hf_logitmix.mixing.sites import Sites, resolve_level, sites
from hf_logitmix.objectives.base import MixedOutput, Rows
from hf_logitmix.plan import MixPlan

_MIXER = "_hf_logitmix_mixer"


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


def pair_inputs(inputs: Mapping[str, Any], plan: MixPlan) -> dict[str, Any]:
    """The inputs of M mixed rows: the longer example's, under the union of both attention masks.

    So position ids, the place where a decoder pools and the search for an end-of-text token are those of the longer
    example. Values that are not tensors with a row an example stay as they are.
    """
    pick, batch_size = longer_of_pair(inputs, plan), _batch_size(inputs)

    def mixed_row(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != batch_size:
            return value
        if name == "attention_mask":
            return torch.maximum(value[: len(plan.partner)], value[plan.partner])
        return value[pick]

    return {name: mixed_row(name, value) for name, value in inputs.items()}


def forward(
    model: nn.Module, inputs: Mapping[str, Any], plan: MixPlan, rows: Rows, *, level: str, draw: float
) -> MixedOutput:
    """One forward that mixes at ``level``, over [clean ; mixed] rows or, where that is enough, over the mixed ones."""
    with attached(model) as mixer:
        level = resolve_level(level, mixer.sites, draw)
        _check_checkpointing(model, level)
        size, mixed = _batch_size(inputs), len(plan.partner)
        second = pair_inputs(inputs, plan)
        if rows == "mixed" and level == "embedding" and not mixer.needs_clean_rows:
            try:
                with mixer.mixing(_Lookup(inputs, second, plan)):
                    return MixedOutput(None, call(model, second, mixed), plan)
            except _UnknownIds:
                mixer.needs_clean_rows = True  # raised by the very first module, so nothing random has been drawn yet
        both = {
            name: torch.cat([value, second[name]]) if second[name] is not value else value
            for name, value in inputs.items()
        }
        with mixer.mixing(_Recompute(level, size, plan, _ids(both))):
            output = split(call(model, both, size + mixed), size, plan)
        return output if rows == "both" else output._replace(logits=None)


class _UnknownIds(Exception):
    """A word embedding was called with ids that are not the batch's own, but made from them."""


@dataclass
class _Recompute:
    """State of a forward over B + M rows: wherever it is mixed, the last M rows are made anew from the first B.

    The rows that entered there are overwritten, so it does no harm if a module and its parent both do it.
    """

    level: str
    batch_size: int
    plan: MixPlan
    ids: Tensor
    fired: bool = False

    def before_embedding(self, args: tuple[Any, ...], word: bool) -> tuple[Any, ...] | None:
        return None

    def after_embedding(self, ids: Any, output: Any, word: bool) -> Any:
        if self.level != "embedding":
            return output
        axis = self._batch_axis(ids)
        if axis is None:
            return output
        self.fired |= word
        return _on_first(output, lambda hidden: self.mix(hidden, axis))

    def mix(self, hidden: Tensor, axis: int = 0) -> Tensor:
        clean = hidden.narrow(axis, 0, self.batch_size)
        own, partner = clean.narrow(axis, 0, len(self.plan.lam)), clean.index_select(axis, self.plan.partner)
        return torch.cat([clean, _interpolate(own, partner, self.plan.lam, axis)], axis)

    def _batch_axis(self, ids: Any) -> int | None:
        """Which axis of the ids is the batch: xlnet, for one, turns them to [L, B]. None if they are something else."""
        if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dim() == 0:
            return None
        rows, length = self.ids.shape[:2]
        if ids.dim() > 1 and ids.shape[:2] == (rows, length):
            turned = rows == length and torch.equal(ids, self.ids.T) and not torch.equal(ids, self.ids)
            return 1 if turned else 0
        if ids.dim() > 1 and ids.shape[:2] == (length, rows):
            return 1
        return 0 if len(ids) == rows else None


class _Lookup:
    """State of a forward over M rows: ids of the longer examples go in, embeddings of both of a pair are looked up."""

    level = "embedding"

    def __init__(self, inputs: Mapping[str, Any], second: Mapping[str, Any], plan: MixPlan) -> None:
        self.plan = plan
        self.pairs = [
            (ids, inputs[name])
            for name, ids in second.items()
            if ids is not inputs[name] and name != "attention_mask" and not ids.is_floating_point()
        ]
        self.fired = False

    def before_embedding(self, args: tuple[Any, ...], word: bool) -> tuple[Any, ...] | None:
        given = args[0] if args else None
        for ids, batch in self.pairs:
            if given is ids or (isinstance(given, Tensor) and _same_memory(given, ids)):
                return torch.cat([batch[: len(ids)], batch[self.plan.partner]]), *args[1:]
        if word:
            raise _UnknownIds
        return None

    def after_embedding(self, ids: Any, output: Any, word: bool) -> Any:
        mixed = len(self.plan.lam)
        if len(ids) != 2 * mixed:
            return output
        self.fired |= word
        return _on_first(output, lambda hidden: _interpolate(hidden[:mixed], hidden[mixed:], self.plan.lam))


class Mixer:
    """The forward hooks of one model. They do nothing but while `mixing` is entered, and one `remove` ends them."""

    def __init__(self, model: nn.Module) -> None:
        self.sites: Sites = sites(model)
        self.needs_clean_rows = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        self._state: _Recompute | _Lookup | None = None
        self._handles = []
        for module in [*self.sites.words, *self.sites.types]:
            word = any(module is other for other in self.sites.words)
            self._handles.append(module.register_forward_pre_hook(_BeforeEmbedding(self, word)))
            self._handles.append(module.register_forward_hook(_AfterEmbedding(self, word), with_kwargs=True))
        for k, layer in enumerate(self.sites.layers, start=1):
            self._handles.append(layer.register_forward_hook(_AfterLayer(self, f"hidden:{k}")))
        if self.sites.head:
            self._handles.append(self.sites.head[0].register_forward_pre_hook(self._before_head))

    def remove(self) -> None:
        """Take the hooks out of the model."""
        for handle in self._handles:
            handle.remove()

    @contextmanager
    def mixing(self, state: _Recompute | _Lookup) -> Iterator[None]:
        """Mix the forward inside this block."""
        self._state = state
        try:
            yield
        finally:
            self._state = None
        if not state.fired:
            raise RuntimeError(
                f"no hook at level {state.level!r} fired, so nothing was mixed: the forward of this model never calls "
                "the modules that get_input_embeddings() and its layers name. Pass another level or model."
            )

    @property
    def state(self) -> _Recompute | _Lookup | None:
        return self._state

    def _before_head(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        state = self._state
        if not isinstance(state, _Recompute) or state.level != "pooled":
            return None
        if isinstance(module, nn.Linear) and args[0].dim() > 2:
            raise ValueError(
                "level='pooled' needs a model that pools before its head; this one scores every token: pass "
                "level='embedding'."
            )
        state.fired = True
        return state.mix(args[0]), *args[1:]


@dataclass
class _BeforeEmbedding:
    mixer: Mixer
    word: bool

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        state = self.mixer.state
        return None if state is None else state.before_embedding(args, self.word)


@dataclass
class _AfterEmbedding:
    mixer: Mixer
    word: bool

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        state = self.mixer.state
        if state is None:
            return None
        ids = args[0] if args else next(iter(kwargs.values()))
        return state.after_embedding(ids, output, self.word)


@dataclass
class _AfterLayer:
    mixer: Mixer
    level: str

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        state = self.mixer.state
        if not isinstance(state, _Recompute) or state.level != self.level:
            return None
        state.fired = True
        return _on_first(output, state.mix)


@contextmanager
def attached(model: nn.Module) -> Iterator[Mixer]:
    """Hooks on the model for the length of a block; inside another such block, the ones that are there already.

    A training run enters it once, before torch.compile sees the model: hooks added later would never fire there.
    """
    inner = unwrap(model)
    mixer = getattr(inner, _MIXER, None)
    if mixer is not None:
        yield mixer
        return
    mixer = Mixer(inner)
    try:
        setattr(inner, _MIXER, mixer)
        yield mixer
    finally:
        mixer.remove()
        delattr(inner, _MIXER)


def _interpolate(own: Tensor, partner: Tensor, lam: Tensor, axis: int = 0) -> Tensor:
    """lam * own + (1 - lam) * partner, with lam in float32 or better, in the type that came in."""
    shape = [1] * own.dim()
    shape[axis] = -1
    lam = lam.reshape(shape)
    return (lam * own + (1 - lam) * partner).to(own.dtype)


def _on_first(output: Any, function: Any) -> Any:
    """Apply to a tensor, or to the first of a tuple of outputs."""
    return function(output) if isinstance(output, Tensor) else (function(output[0]), *output[1:])


def _ids(inputs: Mapping[str, Any]) -> Tensor:
    for name in ("input_ids", "inputs"):
        if isinstance(inputs.get(name), Tensor):
            return inputs[name]
    raise ValueError(f"inputs hold no `input_ids`, only {', '.join(inputs)}: mixing text needs the ids of its tokens.")


def _batch_size(inputs: Mapping[str, Any]) -> int:
    return len(_ids(inputs))


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and not torch.compiler.is_compiling() and a.data_ptr() == b.data_ptr()


def _check_checkpointing(model: nn.Module, level: str) -> None:
    if level == "embedding" or not model.training:
        return
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise ValueError(
            f"level={level!r} mixes at layers that activation checkpointing computes a second time: pass "
            "level='embedding', or turn activation (gradient) checkpointing off."
        )
