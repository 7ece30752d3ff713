"""The one table of names: a new paper is one more row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hf_logitmix.criteria import Focal, OneVsAll
from hf_logitmix.method import Method
from hf_logitmix.mixing import CutMix, Linear, PuzzleMix, SpanMix, Switch
from hf_logitmix.objectives import MIT, Distillation, LaMix, LogitMix, Mixed, RegMixup
from hf_logitmix.pairing import Beta, CMixup, Constant, MutualPairs, RandomPairs, Remix
from hf_logitmix.targets import GMCEL, MCEL, SGMCEL, Infogain, LabelSmoothing


def _beta(alpha: float) -> RandomPairs:
    return RandomPairs(lam=Beta(alpha))


_halves = RandomPairs(lam=Constant(0.5), label_lam=Beta(1.0))  # Beta(1, 1) is uniform
_logitmix_m = Method(Linear(), LogitMix(), pairing=_beta(3.0))


def _named(methods: Mapping[str, Method]) -> Mapping[str, Method]:
    return MappingProxyType({name: dataclasses.replace(method, name=name) for name, method in methods.items()})


METHODS: Mapping[str, Method] = _named(
    {
        "vanilla": Method(),
        "label_smoothing": Method(targets=LabelSmoothing(eps=0.1)),
        "infogain": Method(targets=Infogain()),
        "mcel": Method(targets=MCEL(eps=0.2)),
        "sg_mcel": Method(targets=SGMCEL()),
        "gmcel": Method(targets=GMCEL()),
        "focal": Method(criterion=Focal(gamma=3.0)),
        "bce": Method(criterion=OneVsAll()),
        "mixup": Method(Linear(), Mixed(), pairing=_beta(0.4)),
        "manifold_mixup": Method(Linear(level="manifold"), Mixed(), pairing=_beta(2.0)),
        "cutmix": Method(CutMix(), Mixed(), pairing=_beta(1.0)),
        "puzzlemix": Method(PuzzleMix(), Mixed(), pairing=_beta(1.0)),
        "logitmix": _logitmix_m,
        "logitmix_m": _logitmix_m,
        "logitmix_c": Method(CutMix(), LogitMix(weights=(1.0, 1.0, 0.1)), pairing=_beta(1.0)),
        "logitmix_p": Method(PuzzleMix(), LogitMix(), pairing=_beta(1.0)),
        "lamix": Method(Linear(), LaMix(beta=0.5), pairing=_halves),
        "lamix_p": Method(PuzzleMix(), LaMix(beta=1.0), pairing=_halves),
        "remix": Method(Linear(), Mixed(), pairing=Remix(lam=Beta(1.0))),
        "c_mixup": Method(Linear(), Mixed(), pairing=CMixup(lam=Beta(2.0))),
        "mixup_cutmix": Method(Switch(second_lam=Beta(1.0)), Mixed(), pairing=_beta(0.8)),
        "regmixup": Method(Linear(), RegMixup(), pairing=_beta(20.0)),
        "mit": Method(Linear(), MIT(), pairing=MutualPairs(lam=Beta(0.5))),
        "ssmix": Method(SpanMix(), Mixed(), pairing=RandomPairs(lam=Constant(0.9))),
        "distillation": Method(objective=Distillation()),
    }
)


def as_method(given: Any) -> Method:
    """A method from its name or from itself.

    Raises:
        TypeError: for anything else.
        ValueError: for a name that is not there.
    """
    if isinstance(given, Method):
        return given
    if isinstance(given, str):
        return get_method(given)
    raise TypeError(
        f"method={given!r} is of type {type(given).__name__}: pass a name such as 'mixup', or a Method, "
        "get_method('mixup', alpha=0.2)."
    )


def get_method(name: str, **options: Any) -> Method:
    """A method by its name in `METHODS`, with options of its parts changed.

    Example:
        >>> get_method("logitmix", alpha=1.0, weights=(1, 1, 0.5)).pairing.lam
        Beta(alpha=1.0)

    Args:
        name: a key of `METHODS`.
        options: fields of the pairing (``alpha``, ``lam``, ``label_lam``, ``per_example``, ``mix_fraction``, ``prob``,
            ``off_after``, ``partners``), of the mixing (``level``, ``masks``, ``block_num``,
            ``saliency``, ...), of the objective
            (``weights``, ``similarity``, ``warmup``, ``beta``, ``teacher``, ``temperature``, ...), of the criterion, of
            the targets (``eps``, ``class_similarity``, ...), or ``criterion`` and ``targets`` themselves: see
            `Method`. Where two parts share a name it is ``part__name``, such as ``objective__alpha``.

    Raises:
        ValueError: for a name or an option that is not there, or a value that is not possible.
    """
    if name not in METHODS:
        raise ValueError(f"method={name!r} is unknown: pass one of {', '.join(METHODS)}.")
    return METHODS[name].with_options(**options)
