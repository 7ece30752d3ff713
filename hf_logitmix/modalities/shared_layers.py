"""Text: layers below a mix run on the clean rows alone, though the masks of the mixed ones go into the model too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.utils import recursively_apply
from torch import Tensor, nn

from hf_logitmix.modalities.hooks import AppendMixedRows, MixingHooks, MixingPass
from hf_logitmix.models import call
from hf_logitmix.pairing.plan import MixPlan


class CleanRowsBelow(AppendMixedRows):
    """A forward over B + M rows in which no layer computes a row that would be overwritten, or that nobody asked for.

    The model makes its masks and positions for all rows. The layers up to the mix are given the B clean rows of each
    tensor; there the M mixed rows are added. The layers above see all rows, or the mixed ones alone if the clean ones
    are not kept; then, after the last layer, copies without a gradient stand in for them, for a head that looks at the
    ids of all rows.
    """

    def __init__(
        self, level: str, plan: MixPlan, batch_size: int, fixed: tuple[frozenset[str], ...], *, keeps_clean: bool
    ) -> None:
        super().__init__(level, plan, batch_size, keeps_clean=keeps_clean)
        self.fixed = fixed
        self.batch_size = batch_size
        self.at = int(level.removeprefix("hidden:"))

    def before_layer(self, k: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        if k > self.at and self.keeps_clean:
            return None
        all_rows = self.batch_size + len(self.plan.lam)
        kept = slice(self.batch_size) if k <= self.at else slice(self.batch_size, all_rows)

        def cut(name: str, value: Tensor) -> Tensor:
            has_rows = value.dim() > 0 and len(value) == all_rows and name not in self.fixed[k - 1]
            return value[kept] if has_rows else value

        return on_tensors(cut, args), on_tensors(cut, kwargs)

    def after_layer(self, k: int, output: Any) -> Any:
        output = super().after_layer(k, output)
        return recursively_apply(self._fill, output) if k == len(self.fixed) and not self.keeps_clean else output

    def _fill(self, hidden: Tensor) -> Tensor:
        if not hidden.is_floating_point() or hidden.dim() == 0 or len(hidden) != len(self.plan.lam):
            return hidden
        return torch.cat([hidden[:1].detach().expand(self.batch_size, *hidden.shape[1:]), hidden])


class _Shapes(MixingPass):
    """Notes the shapes of the tensors that each layer is given, by their names."""

    def __init__(self) -> None:
        super().__init__("hidden", MixPlan(torch.arange(0), torch.ones(0)), 0)
        self.fired = True
        self.seen: dict[int, dict[str, torch.Size]] = {}

    def before_layer(self, k: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shapes = self.seen.setdefault(k, {})

        def note(name: str, value: Tensor) -> Tensor:
            shapes[name] = value.shape
            return value

        on_tensors(note, args), on_tensors(note, kwargs)


def fixed_tensors(
    hooks: MixingHooks, model: nn.Module, inputs: Mapping[str, Any], size: int
) -> tuple[frozenset[str], ...]:
    """For each layer the names of the tensors it is given that are the same for any number of rows.

    Found in two forwards, of the B rows of a batch and of these twice.

    Raises:
        ValueError: for a tensor in which the rows are not the first axis.
    """
    twice = {
        name: torch.cat([value, value]) if isinstance(value, Tensor) and value.shape[:1] == (size,) else value
        for name, value in inputs.items()
    }
    once_seen, twice_seen = (_seen(hooks, model, rows, count) for rows, count in ((inputs, size), (twice, 2 * size)))
    fixed = []
    for k in range(1, len(hooks.layers.hidden) + 1):
        of_one, of_two = once_seen.get(k, {}), twice_seen.get(k, {})
        for name in of_one.keys() & of_two.keys():
            shape = of_one[name]
            if of_two[name] != shape and (shape[:1] != (size,) or of_two[name] != (2 * size, *shape[1:])):
                raise ValueError(f"in {name[1:]}, which layer {k} is given, the rows are not the first axis")
        fixed.append(frozenset(name for name, shape in of_one.items() if of_two.get(name) == shape))
    return tuple(fixed)


def _seen(
    hooks: MixingHooks, model: nn.Module, inputs: Mapping[str, Any], count: int
) -> dict[int, dict[str, torch.Size]]:
    shapes = _Shapes()
    with hooks.mixing(shapes):
        call(model, inputs, count)
    return shapes.seen


def on_tensors(function: Callable[[str, Tensor], Tensor], value: Any, name: str = "") -> Any:
    """Apply a function to the tensors in tuples, lists and dicts, each with its name: of a place in these."""
    if isinstance(value, Tensor):
        return function(name, value)
    if isinstance(value, (tuple, list)):
        made = [on_tensors(function, part, f"{name}.{i}") for i, part in enumerate(value)]
        return made if isinstance(value, list) else type(value)(*made) if hasattr(value, "_fields") else tuple(made)
    if isinstance(value, dict):
        return {key: on_tensors(function, part, f"{name}.{key}") for key, part in value.items()}
    return value
