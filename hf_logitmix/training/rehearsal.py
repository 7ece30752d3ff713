"""Before training: does a mixing do on this model what it says?"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from hf_logitmix.criteria import Criterion
from hf_logitmix.mixing import Linear, Mixing
from hf_logitmix.modalities import modality_of
from hf_logitmix.modalities.hooks import attached
from hf_logitmix.modalities.masks import have_masks, why_not_soft
from hf_logitmix.models import call, evaluating, find_classifier, first_of, name_of, unwrap, warn_of_linear_head
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.step import Step
from hf_logitmix.training.two_rows import equally_long, padded_sides, unequally_long

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
) -> Mixing:
    """Try a mixing on two rows of a batch, which are made equally long, at every level that it draws from.

    In evaluation mode lam = 1 must give a row's own logits, lam = 0 its partner's, and the clean rows must be what a
    plain forward gives, up to rounding and a 500th of the distance between the two. (CutMix and PuzzleMix are asked
    only where their true lam is one of these, and SpanMix only for lam = 1.) Where clean rows are made too, there is a
    warning for a level at which the logits of what is mixed are the mixed logits by themselves, so that a similarity
    loss is zero.

    With `Linear` of texts the rehearsal also finds out how the masks of two texts of unequal length meet, unless
    ``masks`` says so: it makes one of the two rows half as long, and ``soft`` it is if, padded on one side at least,
    the shorter row's own logits come out at lam = 1 and its partner's lam = 0; else the ``union``, with a line of the
    log that says why. This is a matter of the model, not of the batch; if texts are padded on a side where it holds
    only nearly, as for decoders on the right, the log has a line that says so.

    Where a level lies inside the model, the layers below it run on the clean rows alone from then on, for as long as
    the model has its hooks (`Mixing.install`), if on two texts of unequal length that gives the same; where it does
    not, the log has a line with the reason. BatchNorm there then sees the clean rows alone.

    The cost is a plain forward of at most 8 rows, one of 2 and one of 4, and for each level one or two of 4; for the
    masks one of 2 and one of 4, or twice that; for levels inside the model one of 2, one of 4, and two of 4 a level.
    Modes, random numbers, statistics and gradients stay as they were.

    Args:
        model: as for `mixed_forward`; wrappers such as DistributedDataParallel are left out.
        inputs: a batch, without labels.
        mixing: as for `mixed_forward`.
        rows: ``both`` or ``mixed``, as training asks for.
        labels, criterion: as for `mixed_forward`.

    Returns:
        The mixing to go on with: the one that was given, with ``masks`` where it was None.

    Raises:
        ValueError: naming the model, the level and one that works; for ``masks="soft"`` where it does not hold.
    """
    model, count = unwrap(model), _count(inputs)
    if count < 2:
        logger.warning("The batch has one row, so whether %s is mixed right cannot be tried.", name_of(model))
        return _with_union(mixing, model)
    with evaluating(model):
        for view in (nullcontext(), _features_for_logits(model)):  # a head that is zero tells no row from another
            with view:
                stage = _Stage.of(model, inputs, count, labels, criterion)
                if stage.distance > 2 * stage.noise:
                    stage.play(mixing, rows)
                    return stage.with_masks(mixing, rows, padded_sides(inputs))
    logger.warning(
        "%s gives the rows of the batch the same logits, so whether they are mixed right cannot be tried.",
        name_of(model),
    )
    return _with_union(mixing, model)


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
        pair = equally_long(two, getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None))
        plain = call(model, pair, 2)
        twice = call(model, {n: torch.cat([v, v]) if _has_rows(v, 2) else v for n, v in pair.items()}, 4)
        rounding = 2 * _precision(model, plain) * plain.abs().max().item()
        noise = 4 * (twice - plain.repeat(2, 1)).abs().max().item() + rounding
        return cls(model, None if labels is None else labels[numbers], criterion, pair, plain, noise)

    @property
    def distance(self) -> float:
        return (self.plain[0] - self.plain[1]).abs().max().item()

    def play(self, mixing: Mixing, rows: Rows) -> None:
        """Try all that a mixing may choose, on two rows with one mask: how two masks meet is another matter."""
        if isinstance(mixing, Linear):
            mixing = replace(mixing, masks=None)
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
        self.share_layers([choice for choice in mixing.choices(self.model) if is_inside(choice)], rows)

    def share_layers(self, inside: list[Mixing], rows: Rows) -> None:
        """Let the layers below a mix run on the clean rows alone, if that gives the same; else say why not."""
        if not inside:
            return
        config = getattr(self.model, "config", None)
        ends = (getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None))
        stage = replace(self, inputs=unequally_long(self.inputs, *ends, "right") or self.inputs)
        with attached(self.model) as hooks:
            if hooks.needs_all_rows:
                return
            hooks.fixed = None
            expected = [stage.mixed(choice, rows, 0.3, 0.6) for choice in inside]
            try:
                modality_of(self.model).share_layers(self.model, stage.inputs)
                found = [stage.mixed(choice, rows, 0.3, 0.6) for choice in inside]
                reason = "" if all(map(stage.are_same, found, expected)) else "its logits would be others"
            except Exception as error:
                if should_reduce_batch_size(error):
                    raise
                reason = str(error).partition("\n")[0].rstrip(".")
            if reason:
                hooks.fixed, hooks.needs_all_rows = None, True
                logger.warning(
                    "%s: layers below the mix run on mixed rows too, as they cannot run on the clean ones alone (%s).",
                    *(name_of(self.model), reason),
                )

    def are_same(self, found: MixedOutput, expected: MixedOutput) -> bool:
        pairs = [(found.logits, expected.logits), (found.mixed_logits, expected.mixed_logits)]
        return all(a is None or b is None or self.same(a, b) for a, b in pairs)

    def with_masks(self, mixing: Mixing, rows: Rows, padded: set[str]) -> Mixing:
        """The mixing with ``masks``, where texts are mixed before their masks have done all they do."""
        if not _has_masks(mixing, self.model) or mixing.masks == "union":
            return mixing
        model, reason = name_of(self.model), why_not_soft(self.model)
        sides = [side for side in ("right", "left") if side in padded] or ["right", "left"]
        sides += [side for side in ("right", "left") if side not in sides]
        exact = None if reason else next((side for side in sides if self.is_soft_on(side, mixing, rows)), None)
        if exact is None:
            reason = reason or "it does not take a mask of numbers as it should"
            if mixing.masks == "soft":
                raise ValueError(f"masks='soft' does not go with {model}: {reason}. Leave it out, or pass 'union'.")
            logger.warning(
                "%s: masks of texts of unequal length meet as their union, so lam = 1 gives the logits of the shorter "
                "of two only nearly (%s).",
                *(model, reason),
            )
            return _with_union(mixing, self.model)
        if others := padded - {exact}:
            logger.warning(
                "%s: with padding on the %s, lam = 1 gives the logits of the shorter of two texts only nearly; it is "
                "exact with tokenizer.padding_side=%r.",
                *(model, others.pop(), exact),
            )
        else:
            logger.info("%s: masks of texts of unequal length meet softly, exact with padding on the %s.", model, exact)
        return replace(mixing, masks="soft")

    def is_soft_on(self, side: str, mixing: Linear, rows: Rows) -> bool:
        """Whether soft masks give the logits of the shorter of two rows with lam = 1 of its own, 0 of its partner's."""
        config = getattr(self.model, "config", None)
        pair = unequally_long(
            self.inputs, getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None), side
        )
        if pair is None:
            return False
        stage = replace(self, inputs=pair, plain=call(self.model, pair, 2))
        choice = mixing.choices(self.model)[0]
        try:
            stage.check(replace(choice, masks="soft"), rows)  # type: ignore[type-var]
        except Exception as error:  # of a model that does not know what to do with such a mask
            if should_reduce_batch_size(error):
                raise
            return False
        return stage.distance > 2 * stage.noise

    def check(self, mixing: Mixing, rows: Rows) -> None:
        """Mix row 0 with lam = 1 and row 1 with lam = 0."""
        output = self.mixed(mixing, rows, 1.0, 0.0)
        assert output.mixed_logits is not None
        own, partner = output.plan.lam == 1, output.plan.lam == 0  # a box may leave another lam than was asked for
        if output.logits is not None and not self.same(output.logits, self.plain):
            raise RuntimeError("its clean rows are not what a plain forward gives")
        if not self.same(output.mixed_logits[own], self.plain[own]):
            raise RuntimeError("lam = 1 does not give a row's own logits")
        if mixing.gives_partner_at_0 and not self.same(output.mixed_logits[partner], self.plain.flip(0)[partner]):
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


def is_inside(mixing: Mixing) -> bool:
    """Whether it mixes at a layer of the model, so that there are layers below."""
    return isinstance(mixing, Linear) and mixing.level != "embedding"


def _has_masks(mixing: Mixing, model: nn.Module) -> TypeGuard[Linear]:
    return isinstance(mixing, Linear) and have_masks(mixing.level, model)


def _with_union(mixing: Mixing, model: nn.Module) -> Mixing:
    return replace(mixing, masks="union") if _has_masks(mixing, model) and mixing.masks is None else mixing


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
