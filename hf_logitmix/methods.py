"""The one table of names: a new paper is one more row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hf_logitmix.criteria import Focal
from hf_logitmix.method import Method
from hf_logitmix.mixing import CutMix, Linear, PuzzleMix, SpanMix, Switch
from hf_logitmix.objectives import MIT, Distillation, LaMix, LogitMix, Mixed, RegMixup
from hf_logitmix.pairing import Beta, CMixup, Constant, MutualPairs, RandomPairs, Remix
from hf_logitmix.targets import GMCEL, MCEL, SGMCEL, Infogain, LabelSmoothing

_MIXUP = "Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018"
_MCEL = "Negi, Chan, Mahoor, Leveraging Class Similarity to Improve Deep Neural Network Robustness, 2018"
_PUZZLEMIX = "Kim et al., Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup, ICML 2020"
_FOCAL = (
    "Lin et al., Focal Loss for Dense Object Detection, ICCV 2017; gamma of Mukhoti et al., Calibrating Deep Neural "
    "Networks using Focal Loss, NeurIPS 2020"
)
_REGMIXUP = "Pinto et al., Using Mixup as a Regularizer (RegMixup), NeurIPS 2022"
_REMIX = "Chou et al., Remix: Rebalanced Mixup, ECCV Workshops 2020"
_C_MIXUP = "Yao et al., C-Mixup: Improving Generalization in Regression, NeurIPS 2022"
_SSMIX = "Yoon, Kim, Park, SSMix: Saliency-Based Span Mixup for Text Classification, Findings of ACL 2021"
_SWITCH = "Touvron et al., Training Data-efficient Image Transformers, ICML 2021, as timm's Mixup switches"
_MIT = "Wang et al., On the Pitfall of Mixup for Uncertainty Calibration, CVPR 2023"
_LAMIX = "Bypassing the Random Input Mixing in Mixup, submitted to ICLR 2021"
_LOGITMIX = "Bang, Baek et al., Logit Mixing Training for More Reliable and Accurate Prediction, IJCAI 2022"


def _beta(alpha: float) -> RandomPairs:
    return RandomPairs(lam=Beta(alpha))


_halves = RandomPairs(lam=Constant(0.5), label_lam=Beta(1.0))  # Beta(1, 1) is uniform
_logitmix_m = Method(Linear(), LogitMix(), pairing=_beta(3.0), source=_LOGITMIX)


def _named(methods: Mapping[str, Method]) -> Mapping[str, Method]:
    return MappingProxyType({name: dataclasses.replace(method, name=name) for name, method in methods.items()})


METHODS: Mapping[str, Method] = _named(
    {
        "vanilla": Method(),
        "label_smoothing": Method(
            targets=LabelSmoothing(eps=0.1),
            source="Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016",
        ),
        "infogain": Method(
            targets=Infogain(), source="Jia et al., Caffe, 2014: InfogainLoss, with the weights of Negi et al."
        ),
        "mcel": Method(targets=MCEL(eps=0.2), source=_MCEL),
        "sg_mcel": Method(targets=SGMCEL(), source=_MCEL),
        "gmcel": Method(targets=GMCEL(), source=_MCEL),
        "focal": Method(criterion=Focal(gamma=3.0), source=_FOCAL),
        "mixup": Method(Linear(), Mixed(), pairing=_beta(0.4), source=_MIXUP),
        "manifold_mixup": Method(
            Linear(level="manifold"),
            Mixed(),
            pairing=_beta(2.0),
            source="Verma et al., Manifold Mixup: Better Representations by Interpolating Hidden States, ICML 2019",
        ),
        "cutmix": Method(
            CutMix(),
            Mixed(),
            pairing=_beta(1.0),
            source="Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers, ICCV 2019",
        ),
        "puzzlemix": Method(PuzzleMix(), Mixed(), pairing=_beta(1.0), source=_PUZZLEMIX),
        "logitmix": _logitmix_m,
        "logitmix_m": _logitmix_m,
        "logitmix_c": Method(CutMix(), LogitMix(weights=(1.0, 1.0, 0.1)), pairing=_beta(1.0), source=_LOGITMIX),
        "logitmix_p": Method(PuzzleMix(), LogitMix(), pairing=_beta(1.0), source=f"{_LOGITMIX}; {_PUZZLEMIX}"),
        "lamix": Method(Linear(), LaMix(beta=0.5), pairing=_halves, source=_LAMIX),
        "lamix_p": Method(PuzzleMix(), LaMix(beta=1.0), pairing=_halves, source=f"{_LAMIX}; {_PUZZLEMIX}"),
        "remix": Method(Linear(), Mixed(), pairing=Remix(lam=Beta(1.0)), source=_REMIX),
        "c_mixup": Method(Linear(), Mixed(), pairing=CMixup(lam=Beta(2.0)), source=_C_MIXUP),
        "mixup_cutmix": Method(Switch(second_lam=Beta(1.0)), Mixed(), pairing=_beta(0.8), source=_SWITCH),
        "ssmix": Method(SpanMix(), Mixed(), pairing=RandomPairs(lam=Constant(0.9)), source=_SSMIX),
        "regmixup": Method(
            Linear(),
            RegMixup(),
            pairing=_beta(20.0),
            source=_REGMIXUP,
        ),
        "mit": Method(Linear(), MIT(), pairing=MutualPairs(lam=Beta(0.5)), source=_MIT),
        "distillation": Method(
            objective=Distillation(), source="Hinton et al., Distilling the Knowledge in a Neural Network, 2015"
        ),
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
