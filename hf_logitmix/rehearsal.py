"""Before training: does a mixing do on this model what it says?"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from hf_logitmix.criteria import Criterion
from hf_logitmix.mixing import Linear, Mixing
from hf_logitmix.models import call, evaluating, find_classifier, first_of, name_of, unwrap, warn_of_linear_head
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.step import Step

logger = logging.getLogger(__name__)

_CANDIDATES = 8  # rows of the batch of which two are taken
_SHARE = 2e-3  # of the distance between two rows, up to which logits are the same


def rehearse(
    model: nn.Module,
    inputs: Mapping[str, Any],
    mixing: Mixing,
    rows: Rows = "both",
    labels: Tensor | None = None,
    criterion: Criterion | None = None,
) -> None:
    """Try a mixing on two rows of a batch, which are made equally long, at every level that it draws from.

    In evaluation mode lam = 1 must give a row's own logits, lam = 0 its partner's, and the clean rows must be what a
    plain forward gives, up to rounding and a 500th of the distance between the two. (CutMix and PuzzleMix are asked
    only where their true lam is one of these.) Where clean rows are made too, there is a warning for a level at which
    the logits of what is mixed are the mixed logits by themselves, so that a similarity loss is zero.

    The cost is a plain forward of at most 8 rows, one of 2 and one of 4, and for each level one or two of 4. Modes,
    random numbers, statistics and gradients stay as they were.

    Args:
        model: as for `mixed_forward`; wrappers such as DistributedDataParallel are left out.
        inputs: a batch, without labels.
        mixing: as for `mixed_forward`.
        rows: ``both`` or ``mixed``, as training asks for.
        labels, criterion: as for `mixed_forward`.

    Raises:
        ValueError: naming the model, the level and one that works.
    """
    model, count = unwrap(model), _count(inputs)
    if count < 2:
        logger.warning("The batch has one row, so whether %s is mixed right cannot be tried.", name_of(model))
        return
    with evaluating(model):
        for view in (nullcontext(), _features_for_logits(model)):  # a head that is zero tells no row from another
            with view:
                stage = _Stage.of(model, inputs, count, labels, criterion)
                if stage.distance > 2 * stage.noise:
                    return stage.play(mixing, rows)
    logger.warning(
        "%s gives the rows of the batch the same logits, so whether they are mixed right cannot be tried.",
        name_of(model),
    )


@dataclass(frozen=True)
class _Stage:
    """A model with two rows that it tells apart.

    Attributes:
        labels: of the two rows.
        inputs: the rows.
        plain: their logits, [2, K].
        noise: by how much logits may differ that are the same.
    """

    model: nn.Module
    labels: Tensor | None
    criterion: Criterion | None
    inputs: Mapping[str, Any]
    plain: Tensor
    noise: float

    @classmethod
    def of(
        cls,
        model: nn.Module,
        inputs: Mapping[str, Any],
        count: int,
        labels: Tensor | None,
        criterion: Criterion | None,
    ) -> _Stage:
        few = {name: value[:_CANDIDATES] if _has_rows(value, count) else value for name, value in inputs.items()}
        logits = call(model, few, min(count, _CANDIDATES)).double()
        apart = torch.cdist(logits, logits).nan_to_num(0, 0)
        numbers = sorted(divmod(int(apart.argmax()), len(apart))) if apart.any() else [0, 1]
        config = getattr(model, "config", None)
        two = {name: value[numbers] if _has_rows(value, count) else value for name, value in inputs.items()}
        pair = _equally_long(two, getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None))
        plain = call(model, pair, 2)
        twice = call(model, {n: torch.cat([v, v]) if _has_rows(v, 2) else v for n, v in pair.items()}, 4)
        rounding = 2 * _precision(model, plain) * plain.abs().max().item()
        noise = 4 * (twice - plain.repeat(2, 1)).abs().max().item() + rounding
        return cls(model, None if labels is None else labels[numbers], criterion, pair, plain, noise)

    @property
    def distance(self) -> float:
        return (self.plain[0] - self.plain[1]).abs().max().item()

    def play(self, mixing: Mixing, rows: Rows) -> None:
        for choice in mixing.choices(self.model):
            drawn = "" if choice.place == mixing.place else f", which {mixing.place.removeprefix('at ')} draws"
            try:
                self.check(choice, rows)
            except ValueError:  # which says what to do
                raise
            except Exception as error:
                if should_reduce_batch_size(error):
                    raise
                reason = str(error).partition("\n")[0].partition(": ")[0]
                raise ValueError(
                    f"{name_of(self.model)} is not mixed right {choice.place}{drawn} ({reason}): "
                    f"{self.advice(mixing, rows)}."
                ) from error
            if rows == "both" and isinstance(choice, Linear) and self.is_linear(choice):
                warn_of_linear_head(f"level={choice.level!r}{drawn and drawn + ','}")

    def check(self, mixing: Mixing, rows: Rows) -> None:
        """Mix row 0 with lam = 1 and row 1 with lam = 0."""
        output = self.mixed(mixing, rows, 1.0, 0.0)
        assert output.mixed_logits is not None
        own, partner = output.plan.lam == 1, output.plan.lam == 0  # a box may leave another lam than was asked for
        if output.logits is not None and not self.same(output.logits, self.plain):
            raise RuntimeError("its clean rows are not what a plain forward gives")
        if not self.same(output.mixed_logits[own], self.plain[own]):
            raise RuntimeError("lam = 1 does not give a row's own logits")
        if not self.same(output.mixed_logits[partner], self.plain.flip(0)[partner]):
            raise RuntimeError("lam = 0 does not give the partner's logits, so something goes past it")

    def is_linear(self, mixing: Linear) -> bool:
        """Whether the mean of the two rows has the mean of their logits; of the pooled vector `Linear.check` knows."""
        output = self.mixed(mixing, "both", 0.5, 0.5)
        assert output.mixed_logits is not None
        return mixing.level != "pooled" and self.same(output.mixed_logits, self.plain.mean(0, keepdim=True))

    def advice(self, mixing: Mixing, rows: Rows) -> str:
        for other in mixing.alternatives(self.model):
            try:
                self.check(other, rows)
            except Exception:
                continue
            return f"pass {other.place.removeprefix('at ')}"
        return "nothing else works, so pass a method that mixes nothing, or rehearse=False to train all the same"

    def mixed(self, mixing: Mixing, rows: Rows, *lam: float) -> MixedOutput:
        plan = MixPlan(torch.tensor([1, 0]), torch.tensor(lam)).to(self.plain.device)
        step = Step(index=0, max_steps=1)
        return mixing(self.model, self.inputs, plan, rows, step=step, labels=self.labels, criterion=self.criterion)

    def same(self, found: Tensor, expected: Tensor) -> bool:
        off = (found - expected).abs()
        return not len(off) or off.max().item() <= _SHARE * self.distance + self.noise


def _equally_long(pair: Mapping[str, Any], pad: int | None, eos: int | list[int] | None) -> dict[str, Any]:
    """Two rows with the padding of the shorter one, for which the longer one loses some of its tokens.

    It keeps the first and those that end a text, where models pool, as long as there are others.
    """
    ids = next((pair[name] for name in ("input_ids", "inputs") if isinstance(pair.get(name), Tensor)), None)
    mask = pair.get("attention_mask", None if ids is None or pad is None else ids != pad)
    if ids is None or not isinstance(mask, Tensor) or mask.shape != ids.shape:
        return dict(pair)
    used = [row.nonzero().flatten() for row in mask.cpu()]
    short, long = sorted((0, 1), key=lambda row: len(used[row]))
    special = torch.isin(ids[long].cpu(), torch.as_tensor([] if eos is None else eos, dtype=ids.dtype))
    special[used[long][:1]] = True
    spare = [*used[long][~special[used[long]]].tolist(), *used[long][special[used[long]]].tolist()]
    dropped = torch.tensor(spare[: len(used[long]) - len(used[short])], dtype=torch.long)
    kept = used[long][~torch.isin(used[long], dropped)]

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


@contextmanager
def _features_for_logits(model: nn.Module) -> Iterator[None]:
    """A block in which a model's classifier, if it can be found, gives out what goes into it."""
    classifier = find_classifier(model, getattr(getattr(model, "config", None), "num_labels", 0))
    if classifier is None:
        yield
        return
    handle = classifier.register_forward_hook(lambda m, args, kwargs, output: first_of(args, kwargs), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _precision(model: nn.Module, logits: Tensor) -> float:
    """The coarsest spacing of numbers next to 1 of what the model computes in."""
    types = {logits.dtype, *(p.dtype for p in model.parameters() if p.is_floating_point())}
    if torch.is_autocast_enabled(logits.device.type):
        types.add(torch.get_autocast_dtype(logits.device.type))
    return max(torch.finfo(dtype).eps for dtype in types)


def _count(inputs: Mapping[str, Any]) -> int:
    return next((len(value) for value in inputs.values() if isinstance(value, Tensor) and value.dim()), 0)


def _has_rows(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == count
