"""SG-MCEL and GMCEL: MCEL whose eps, or whose whole matrix, is learned along with the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hf_logitmix.objectives.base import Term, Terms
from hf_logitmix.part import LabelSpec
from hf_logitmix.targets.base import Targets
from hf_logitmix.targets.class_similarity import MCEL, mcel_rows
from hf_logitmix.training.training_set import TrainingSet

_PARAMETRIZATIONS = ("simplex", "soft")
_PENALTIES = {"help": "Weights of the penalties: a b g for SG-MCEL, a b g h for GMCEL."}


def sg_mcel_penalties(eps: Tensor, similarity: Tensor, p: float = 2.0) -> dict[str, Tensor]:
    r"""The three penalties of equation (10), as means over the classes.

    .. math::

        \mathrm{sum} = \tfrac1K \sum_i (\lVert p_i \rVert_1 - 1)^2, \quad
        \mathrm{high} = \tfrac1K \lVert \epsilon - \tfrac12 \rVert_p^p, \quad
        \mathrm{low} = \tfrac1K \lVert \epsilon \rVert_p^p

    (Negi et al., 2018, print sums; a mean keeps one set of weights good for any K.)

    Args:
        eps: FloatTensor[K].
        similarity: A, FloatTensor[K, K].
        p: the norm, at least 1.
    """
    mass = mcel_rows(similarity, eps).abs().sum(1)
    return {
        "penalty_sum": (mass - 1).square().mean(),
        "penalty_high": (eps - 0.5).abs().pow(p).mean(),
        "penalty_low": eps.abs().pow(p).mean(),
    }


def gmcel_penalties(rows: Tensor, margins: Tensor, p: float = 2.0) -> dict[str, Tensor]:
    r"""The four penalties of equation (11), as means over the classes.

    .. math::

        \mathrm{sum} = \tfrac1K \sum_i (\sum_j E_{ij} - 1)^2, \quad
        \mathrm{high} = \tfrac1K \lVert E - 1 \rVert_p^p, \quad
        \mathrm{low} = \tfrac1K \lVert E \rVert_p^p, \quad
        \mathrm{margin} = \tfrac1K \sum_i ((K-1)(E_{ii} - c_i) - \sum_{j \ne i} E_{ij})^2

    Args:
        rows: E, FloatTensor[K, K].
        margins: c, FloatTensor[K].
        p: the norm, at least 1.
    """
    own, num_labels = rows.diagonal(), len(rows)
    margin = (num_labels - 1) * (own - margins) - (rows.sum(1) - own)
    return {
        "penalty_sum": (rows.sum(1) - 1).square().mean(),
        "penalty_high": (rows - 1).abs().pow(p).sum(1).mean(),
        "penalty_low": rows.abs().pow(p).sum(1).mean(),
        "penalty_margin": margin.square().mean(),
    }


@dataclass(frozen=True, eq=False, repr=False)
class _Learned(MCEL):
    """What SG-MCEL and GMCEL share.

    Attributes:
        parametrization: ``simplex`` (default, ours) cannot leave the set of valid targets; ``soft`` is the paper's free
            parameter, held there by the penalties alone.
        penalties: weights of the penalties.
        norm: p of their norms.
        targets_lr: learning rate of what is learned here, which a fine-tuning rate would leave where it started; None
            takes the model's. The learning rate schedule applies to it.
    """

    parametrization: str = field(
        default="simplex", metadata={"help": "Of what SG-MCEL and GMCEL learn: simplex or soft (the paper's)."}
    )
    penalties: Sequence[float] = field(default=(), metadata=_PENALTIES)
    norm: float = field(default=2.0, metadata={"help": "p of the norms in the penalties."})
    targets_lr: float | None = field(
        default=0.01, metadata={"help": "Learning rate of what SG-MCEL and GMCEL learn (0.01)."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parametrization not in _PARAMETRIZATIONS:
            raise ValueError(
                f"parametrization={self.parametrization!r} is unknown: pass one of {', '.join(_PARAMETRIZATIONS)}."
            )
        if self.eps == 0:
            raise ValueError("eps=0.0 cannot be learned from: start inside (0, 0.5).")
        count = len(type(self).penalties)
        if len(self.penalties) != count or not all(math.isfinite(w) and w >= 0 for w in self.penalties):
            raise ValueError(f"penalties must be {count} numbers >= 0, got {self.penalties!r}.")
        if not (1 <= self.norm < math.inf):
            raise ValueError(f"norm must be a number >= 1, got {self.norm}.")
        if self.targets_lr is not None and not (0 < self.targets_lr < math.inf):
            raise ValueError(f"targets_lr must be a number > 0 or None, got {self.targets_lr}.")

    @property
    def are_distributions(self) -> bool:  # type: ignore[override]
        return self.parametrization == "simplex"

    def matrix(self, num_labels: int) -> Tensor | None:
        raise ValueError("nothing is learned yet: call setup() with the training set, and use what it returns.")

    def rows_of(self, module: Any) -> Tensor:
        """FloatTensor[K, K] of target rows, from what is learned."""
        raise NotImplementedError

    def penalties_of(self, module: Any) -> dict[str, Tensor]:
        """The unweighted penalties, from what is learned."""
        raise NotImplementedError


class LearnedTargets(Targets):
    """`SGMCEL` or `GMCEL` in training, with the module that holds what is learned."""

    def __init__(self, options: _Learned, learned: nn.Module) -> None:
        self.options = options
        self.learned = learned
        self.targets_lr = options.targets_lr

    @property
    def are_distributions(self) -> bool:  # type: ignore[override]
        return self.options.are_distributions

    @property
    def class_similarity(self) -> Tensor | None:
        return self.options.class_similarity

    def matrix(self, num_labels: int) -> Tensor | None:
        return self.options.rows_of(self.learned)

    def penalty(self) -> Terms:
        found = self.options.penalties_of(self.learned)
        weights = self.options.penalties
        return {name: Term(value, weight) for (name, value), weight in zip(found.items(), weights, strict=True)}


class _MixingWeights(nn.Module):
    """One eps a class, and the similarity that goes with it."""

    def __init__(self, similarity: Tensor, eps: float, parametrization: str) -> None:
        super().__init__()
        self.simplex = parametrization == "simplex"
        start = math.log(2 * eps / (1 - 2 * eps)) if self.simplex else eps
        self.weight = nn.Parameter(torch.full((len(similarity),), start))
        self.register_buffer("similarity", similarity.clone())

    def extra_repr(self) -> str:
        return f"simplex={self.simplex}"

    def forward(self) -> Tensor:
        return 0.5 * self.weight.sigmoid() if self.simplex else self.weight


@dataclass(frozen=True, eq=False, repr=False)
class SGMCEL(_Learned):
    r"""Semi-generalised MCEL: one eps a class, learned (Negi et al., 2018, equations 6 and 10).

    .. math::

        T_i = (1 - \epsilon_i) e_i + \epsilon_i A_i, \qquad
        L = H(z, T_y) + a\,\mathrm{sum} + b\,\mathrm{high} + g\,\mathrm{low}

    with the penalties of `sg_mcel_penalties`. Cross-entropy alone would drive eps to 0; ``high`` is what prevents it.
    ``simplex`` is :math:`\epsilon = \frac12 \mathrm{sigmoid}(u)`. The paper gives no weights and no learning rate: with
    ours the penalties alone would settle at eps = b / (2 (b + g)) = 0.2, and cross-entropy pulls down from there.

    Attributes:
        eps: where every eps_i starts, in (0, 0.5).
        penalties: (a, b, g).
    """

    penalties: Sequence[float] = field(default=(1.0, 20.0, 30.0), metadata=_PENALTIES)

    def setup(self, training_set: TrainingSet) -> Targets:
        ready: Any = super().setup(training_set)
        return LearnedTargets(ready, _MixingWeights(ready.class_similarity, self.eps, self.parametrization))

    def rows_of(self, module: Any) -> Tensor:
        return mcel_rows(module.similarity, module())

    def penalties_of(self, module: Any) -> dict[str, Tensor]:
        return sg_mcel_penalties(module(), module.similarity, self.norm)


class _MixtureMatrix(nn.Module):
    """The whole matrix of targets."""

    def __init__(self, rows: Tensor, parametrization: str) -> None:
        super().__init__()
        self.simplex = parametrization == "simplex"
        self.weight = nn.Parameter(rows.clamp_min(1e-6).log() if self.simplex else rows.clone())

    def extra_repr(self) -> str:
        return f"simplex={self.simplex}"

    def raw(self) -> Tensor:
        """What the penalties look at: in ``soft`` below zero too, so that they pull back what went there."""
        return self.weight.softmax(1) if self.simplex else self.weight

    def forward(self) -> Tensor:
        return self.raw().clamp_min(0)


@dataclass(frozen=True, eq=False, repr=False)
class GMCEL(_Learned):
    r"""Generalised MCEL: the whole K x K matrix E of targets, learned (Negi et al., 2018, equations 9 and 11).

    .. math:: L = H(z, E_y) + a\,\mathrm{sum} + b\,\mathrm{high} + g\,\mathrm{low} + h\,\mathrm{margin}

    with the penalties of `gmcel_penalties`. Cross-entropy alone would drive a free E to a constant; ``margin`` is what
    prevents it. ``simplex`` is a softmax of each row; ``soft`` keeps the paper's E >= 0 by clamping. Both start
    at the MCEL matrix. The paper gives neither weights nor margins: ours pin E_ii near 1 - eps.

    Attributes:
        eps: the mass that leaves the label at the start, in (0, 0.5).
        penalties: (a, b, g, h).
        margins: c_i, one for each class; None is (K (1 - eps) - 1) / (K - 1), which on the simplex makes the margin
            term zero at E_ii = 1 - eps. The paper's (0.5 - eps) / 2 would pin E_ii at .235 for K = 10 and eps = .2.
    """

    penalties: Sequence[float] = field(default=(10.0, 1.0, 1.0, 10.0), metadata=_PENALTIES)
    margins: Sequence[float] | None = field(
        default=None, metadata={"help": "Margins c_i of the classes; else those that are zero at E_ii = 1 - eps."}
    )

    def check(self, model: Any, labels: LabelSpec) -> None:
        super().check(model, labels)
        margins = self.margins
        if margins is not None and (len(margins) != labels.num_labels or not all(map(math.isfinite, margins))):
            raise ValueError(f"margins={margins}: pass one finite number for each of {labels.num_labels} classes.")

    def setup(self, training_set: TrainingSet) -> Targets:
        ready: Any = super().setup(training_set)
        start = MCEL.matrix(ready, len(ready.class_similarity))
        assert start is not None
        return LearnedTargets(ready, _MixtureMatrix(start, self.parametrization))

    def rows_of(self, module: Any) -> Tensor:
        return module()

    def penalties_of(self, module: Any) -> dict[str, Tensor]:
        rows = module.raw()
        num_labels = len(rows)
        if self.margins is None:
            margins = rows.new_full((num_labels,), (num_labels * (1 - self.eps) - 1) / (num_labels - 1))
        else:
            margins = torch.tensor(list(self.margins)).to(rows.device, rows.dtype, non_blocking=True)
        return gmcel_penalties(rows, margins, self.norm)
