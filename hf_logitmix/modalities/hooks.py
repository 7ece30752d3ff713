"""The forward hooks that mix inside one forward of a model: at an embedding, at a layer, or before the head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from accelerate.utils import recursively_apply
from torch import Tensor, nn

from hf_logitmix.modalities.layers import MixableLayers, layers_of
from hf_logitmix.modalities.masks import is_causal, why_not_soft
from hf_logitmix.models import under_peft, unwrap
from hf_logitmix.pairing.plan import MixPlan

_HOOKS = "_hf_logitmix_hooks"
_CHECKPOINTING = ("gradient_checkpointing", "grad_checkpointing")  # of transformers and of timm


class MixingPass:
    """What is to be mixed in the forward under way, which is one over ``rows`` rows."""

    def __init__(self, level: str, plan: MixPlan, rows: int) -> None:
        self.level = level
        self.plan = plan
        self.rows = rows
        self.fired = False

    def before_embedding(self, ids: Any, word: bool) -> Tensor | None:
        """Other ids to look up instead, or None."""
        return None

    def after_embedding(self, ids: Any, output: Any, word: bool) -> Any:
        """The output of an embedding, with its mixed rows."""
        return output

    def mix(self, hidden: Tensor, axis: int = 0) -> Tensor:
        """Hidden states with their mixed rows."""
        raise NotImplementedError

    def before_layer(self, k: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """What layer k, counted from 1, is to be given instead, or None."""
        return None

    def after_layer(self, k: int, output: Any) -> Any:
        """The output of layer k with its mixed rows: of every float tensor in it that has a row an example."""
        return recursively_apply(self._mix_rows, output) if self.level == f"hidden:{k}" else output

    def _mix_rows(self, hidden: Tensor) -> Tensor:
        if not hidden.is_floating_point() or hidden.dim() == 0 or len(hidden) != self.rows:
            return hidden
        self.fired = True
        return self.mix(hidden)

    def is_of_words(self, ids: Any) -> bool:
        """Whether what an embedding reads, which is not mixed, are the ids of the words, which are to be mixed."""
        return False


class OverwriteMixedRows(MixingPass):
    """A forward over B + M rows: where it is mixed, the last M rows are made anew from the first B.

    What stood in those rows is overwritten, so it does no harm if a module and its parent both do it.
    """

    def __init__(self, level: str, plan: MixPlan, batch_size: int, ids: Tensor | None = None) -> None:
        super().__init__(level, plan, batch_size + len(plan.lam))
        self.batch_size = batch_size
        self.ids = ids

    def after_embedding(self, ids: Any, output: Any, word: bool) -> Any:
        axis = self._batch_axis(ids) if self.level == "embedding" else None
        if axis is None:
            return output
        self.fired |= word
        return on_first(output, lambda hidden: self.mix(hidden, axis))

    def mix(self, hidden: Tensor, axis: int = 0) -> Tensor:
        clean = hidden.narrow(axis, 0, self.batch_size)
        mixed = len(self.plan.lam)
        own = clean if mixed == self.batch_size else clean.narrow(axis, 0, mixed)  # whose backward would copy all rows
        partner = clean.index_select(axis, self.plan.partner.to(hidden.device))
        return torch.cat([clean, interpolate(own, partner, self.plan.lam, axis)], axis)

    def is_of_words(self, ids: Any) -> bool:
        return self.level == "embedding" and self.ids is not None and same_memory(ids, self.ids)

    def _batch_axis(self, ids: Any) -> int | None:
        """Which axis of the ids is the batch: xlnet, for one, turns them to [L, B]. None if they are something else."""
        if self.ids is None or not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dim() == 0:
            return None
        rows, length = self.ids.shape[:2]
        if ids.dim() > 1 and ids.shape[:2] == (rows, length):
            in_doubt = rows == length and not same_memory(ids, self.ids)
            turned = in_doubt and torch.equal(ids, self.ids.T) and not torch.equal(ids, self.ids)
            return 1 if turned else 0
        if ids.dim() > 1 and ids.shape[:2] == (length, rows):
            return 1
        return 0 if len(ids) == rows else None


class AppendMixedRows(MixingPass):
    """A forward over B rows, to which the mixed ones are added where it is mixed, or which they replace.

    So all that comes before runs once. ``keeps_clean`` is whether the clean rows go on.
    """

    def __init__(self, level: str, plan: MixPlan, batch_size: int, *, keeps_clean: bool) -> None:
        super().__init__(level, plan, batch_size)
        self.keeps_clean = keeps_clean

    def mix(self, hidden: Tensor, axis: int = 0) -> Tensor:
        partner = hidden.index_select(axis, self.plan.partner.to(hidden.device))
        mixed = interpolate(hidden.narrow(axis, 0, len(self.plan.lam)), partner, self.plan.lam, axis)
        return torch.cat([hidden, mixed], axis) if self.keeps_clean else mixed


class MixingHooks:
    """The forward hooks of one model. They do nothing but while `mixing` is entered, and one `remove` ends them.

    Attributes:
        layers: where the model is mixed.
        fixed: for each hidden layer the names of the tensors it is given that have no row an example, once the layers
            below a mix run on the clean rows alone (`Modality.share_layers`); None while all layers run on all rows.
        needs_all_rows: whether it was found that they have to.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers: MixableLayers = layers_of(model)
        self.is_causal = is_causal(model)
        self.why_not_soft = why_not_soft(model)
        self.needs_clean_rows = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        self.fixed: tuple[frozenset[str], ...] | None = None
        self.needs_all_rows = False
        self._pass: MixingPass | None = None
        self._handles = []
        for modules, word in ((self.layers.words, True), (self.layers.types, False)):
            for module in modules:
                before, after = partial(self._before_embedding, word), partial(self._after_embedding, word)
                self._handles.append(module.register_forward_pre_hook(before))
                self._handles.append(module.register_forward_hook(after, with_kwargs=True))
        known = {id(module) for module in (*self.layers.words, *self.layers.types)}
        for module in model.modules():
            looks_up = getattr(type(module), "forward", None) is nn.Embedding.forward  # some only ask for the length
            if looks_up and id(module) not in known:
                self._handles.append(module.register_forward_pre_hook(self._before_other))
        for k, layer in enumerate(self.layers.hidden, start=1):
            self._handles.append(layer.register_forward_pre_hook(partial(self._before_layer, k), with_kwargs=True))
            self._handles.append(layer.register_forward_hook(partial(self._after_layer, k)))
        if self.layers.head:
            self._handles.append(self.layers.head[0].register_forward_pre_hook(self._before_head))

    def remove(self) -> None:
        """Take the hooks out of the model."""
        for handle in self._handles:
            handle.remove()

    @contextmanager
    def mixing(self, forward: MixingPass) -> Iterator[None]:
        """Mix the forward inside this block."""
        self._pass = forward
        try:
            yield
        finally:
            self._pass = None
        if not forward.fired:
            raise RuntimeError(
                f"no hook at level {forward.level!r} fired, so nothing was mixed: this model's forward never calls the "
                "modules that get_input_embeddings() and its layers name (pass another level or model), or it was "
                "compiled before they had hooks (compile inside `hf_logitmix.modalities.hooks.attached`, after "
                "`torch.compiler.reset()`)."
            )

    def _before_embedding(self, word: bool, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._pass is None:
            return None
        ids = self._pass.before_embedding(args[0] if args else None, word)
        return None if ids is None else (ids, *args[1:])

    def _after_embedding(
        self, word: bool, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        if self._pass is None:
            return None
        return self._pass.after_embedding(args[0] if args else next(iter(kwargs.values())), output, word)

    def _before_other(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._pass is not None and args and isinstance(args[0], Tensor) and self._pass.is_of_words(args[0]):
            raise RuntimeError(
                f"{module} reads the ids of the words too and is not what get_input_embeddings() names, so this model "
                "would be mixed in part: pass level='hidden:k', or a method that mixes nothing."
            )

    def _before_layer(self, k: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return None if self._pass is None else self._pass.before_layer(k, args, kwargs)

    def _after_layer(self, k: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return None if self._pass is None else self._pass.after_layer(k, output)

    def _before_head(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._pass is None or self._pass.level != "pooled":
            return None
        if isinstance(under_peft(module), nn.Linear) and args[0].dim() > 2:
            raise ValueError(
                "level='pooled' needs a model that pools before its head; this one scores every token: pass "
                "level='embedding'."
            )
        self._pass.fired = True
        return self._pass.mix(args[0]), *args[1:]


@contextmanager
def attached(model: nn.Module) -> Iterator[MixingHooks]:
    """Hooks on the model for the length of a block; inside another such block, the ones that are there already.

    A training run enters it once, before torch.compile sees the model: hooks added later would never fire there.
    """
    inner = unwrap(model)
    hooks = getattr(inner, _HOOKS, None)
    if hooks is not None:
        yield hooks
        return
    hooks = MixingHooks(inner)
    try:
        setattr(inner, _HOOKS, hooks)
        yield hooks
    finally:
        hooks.remove()
        delattr(inner, _HOOKS)


def interpolate(own: Tensor, partner: Tensor, lam: Tensor, axis: int = 0) -> Tensor:
    """lam * own + (1 - lam) * partner, with lam in float32 or better, in the type that came in."""
    shape = [1] * own.dim()
    shape[axis] = -1
    lam = lam.to(own.device).reshape(shape)
    return ((1 - lam) * partner).addcmul_(own, lam).to(own.dtype)


def on_first(output: Any, function: Any) -> Any:
    """Apply to a tensor, or to the first of a tuple of outputs."""
    return function(output) if isinstance(output, Tensor) else (function(output[0]), *output[1:])


def same_memory(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one, or views of the same memory; a graph that is compiled cannot tell the latter."""
    if a is b:
        return True
    return a.shape == b.shape and not torch.compiler.is_compiling() and a.data_ptr() == b.data_ptr()


def check_checkpointing(model: nn.Module, level: str) -> None:
    """Refuse to mix at the output of layers that are computed a second time in the backward pass.

    Raises:
        ValueError: for ``hidden:k`` and ``manifold`` where a module checkpoints its activations.
    """
    in_layers = level == "manifold" or level.startswith("hidden:")
    if in_layers and any(getattr(module, name, False) for module in model.modules() for name in _CHECKPOINTING):
        raise ValueError(
            f"level={level!r} mixes at layers that activation checkpointing computes a second time: pass "
            "level='embedding', or turn activation (gradient) checkpointing off."
        )
