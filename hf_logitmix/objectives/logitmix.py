"""LogitMix: mixed logits as weak supervision for the logits of the mixed input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_logitmix.moment import Moment
from hf_logitmix.objectives.base import Loss, Objective, at_least_float32
from hf_logitmix.objectives.cross_entropy import CrossEntropy, cross_entropy
from hf_logitmix.objectives.mixed import MixedCrossEntropy, mixed_cross_entropy
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.plan import MixPlan


def mse(expected: Tensor, mixed: Tensor) -> Tensor:
    r""":math:`\frac1K \sum_k (m_k - \tilde z_k)^2` (the authors' released code). [M, K] x 2 -> [M]."""
    return (expected - mixed).square().mean(-1)


def l2(expected: Tensor, mixed: Tensor) -> Tensor:
    r""":math:`\lVert m - \tilde z \rVert_2` (the formula of the IJCAI 2022 poster); its gradient at 0 is 0."""
    return torch.linalg.vector_norm(expected - mixed, dim=-1)


def mse_logsoftmax(expected: Tensor, mixed: Tensor) -> Tensor:
    """MSE of log-probabilities: blind to a shift of all logits (named in the authors' README, not in their code)."""
    return mse(F.log_softmax(expected, dim=-1), F.log_softmax(mixed, dim=-1))


def mse_softmax(expected: Tensor, mixed: Tensor) -> Tensor:
    """MSE of probabilities: an ablation for the poster's claim that probabilities distort what logits keep."""
    return mse(F.softmax(expected, dim=-1), F.softmax(mixed, dim=-1))


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse,
    "l2": l2,
    "mse_logsoftmax": mse_logsoftmax,
    "mse_softmax": mse_softmax,
}
_OF_PROBABILITIES = ("mse_logsoftmax", "mse_softmax")


def logit_similarity(logits: Tensor, mixed_logits: Tensor, plan: MixPlan, similarity: str = "mse") -> Tensor:
    r"""How far the logits of the mixed input are from the mixed logits, :math:`m = \lambda z + (1-\lambda) z_\pi`.

    Gradients flow through both sides. Shapes: logits [B, K], mixed_logits [M, K], the result [M].
    """
    logits, mixed_logits = at_least_float32(logits), at_least_float32(mixed_logits)
    lam = plan.lam.to(logits).unsqueeze(-1)
    expected = lam * logits[: len(plan.partner)] + (1 - lam) * logits[plan.partner]
    return SIMILARITIES[similarity](expected, mixed_logits)


def full_from_a_tenth(moment: Moment, drops: Sequence[float]) -> float | None:
    """Warm-up ``step``: plain cross-entropy for the first tenth of training, then LogitMix."""
    return 1.0 if moment.progress >= 0.1 else None


def ramp(moment: Moment, drops: Sequence[float]) -> float | None:
    """Warm-up ``ramp``: a probability of LogitMix that grows in each segment between drops of the learning rate.

    In the first segment there is plain cross-entropy until 20% of it, then the probability grows linearly from 0
    to 1 at 70%. In later segments it grows linearly from 0 to 1 at 70%.
    """
    edges = (0.0, *drops, 1.0)
    segment = sum(moment.progress >= drop for drop in drops)
    start, end = edges[segment], edges[segment + 1]
    done = (moment.progress - start) / (end - start)
    if segment == 0:
        return None if done < 0.2 else min((done - 0.2) / 0.5, 1.0)
    return min(done / 0.7, 1.0)


# A warm-up gives the probability of LogitMix at a step (mixed cross-entropy otherwise), or None for plain CE.
WARMUPS: dict[str, Callable[[Moment, Sequence[float]], float | None]] = {
    "none": lambda moment, drops: 1.0,
    "step": full_from_a_tenth,
    "ramp": ramp,
}


@dataclass(frozen=True)
class LogitMix(Objective):
    r"""LogitMix (Bang, Baek et al., Logit Mixing Training for More Reliable and Accurate Prediction, IJCAI 2022).

    .. math:: L = w_{mix} L_{mix} + w_{cls} L_{cls} + w_{sim} L_{sim}

    with the mixed cross-entropy of the mixed rows, the cross-entropy of the clean batch (once, as in the released
    code; the poster writes it for both examples of a pair, which is twice that) and the similarity of the logits.

    Attributes:
        weights: (mix, cls, sim), non-negative and not all zero.
        similarity: one of `SIMILARITIES`.
        warmup: one of `WARMUPS`.
        drops: where in training a step schedule drops the learning rate, as shares in (0, 1); only ``ramp`` uses it.

    Raises:
        ValueError: for weights, a similarity or a warm-up outside the above.
    """

    weights: Sequence[float] = (1.0, 1.0, 1.0)
    similarity: str = "mse"
    warmup: str = "none"
    drops: Sequence[float] = ()
    rows: ClassVar[Rows] = "both"

    def __post_init__(self) -> None:
        numbers = isinstance(self.weights, Sequence) and all(isinstance(w, (int, float)) for w in self.weights)
        weights = tuple(float(weight) for weight in self.weights) if numbers else ()
        if len(weights) != 3 or not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
            raise ValueError(
                f"weights={self.weights!r} are not possible: pass three numbers >= 0 (mix, cls, sim), not all zero."
            )
        object.__setattr__(self, "weights", weights)
        if self.similarity not in SIMILARITIES:
            raise ValueError(f"similarity={self.similarity!r} is unknown: pass one of {', '.join(SIMILARITIES)}.")
        if self.warmup not in WARMUPS:
            raise ValueError(f"warmup={self.warmup!r} is unknown: pass one of {', '.join(WARMUPS)}.")
        object.__setattr__(self, "drops", tuple(self.drops))
        if list(self.drops) != sorted(set(self.drops)) or not all(0 < drop < 1 for drop in self.drops):
            raise ValueError(f"drops={self.drops} are not possible: pass increasing shares of training inside (0, 1).")

    @property
    def drops_clean_rows(self) -> bool:  # type: ignore[override]
        return self.warmup == "ramp"  # which falls back on mixed cross-entropy

    def at(self, moment: Moment) -> Objective:
        probability = WARMUPS[self.warmup](moment, self.drops)
        if probability is None:
            return CrossEntropy()
        return self if moment.uniform("warmup") < probability else MixedCrossEntropy()

    def check(self, num_labels: int, problem_type: str) -> None:
        defined = num_labels > 1 and problem_type == "single_label_classification"
        if self.similarity in _OF_PROBABILITIES and not defined:
            raise ValueError(
                f"similarity={self.similarity!r} compares softmax outputs, which needs one label of two or more "
                "classes an example: pass similarity='mse' or 'l2'."
            )

    def __call__(self, output: MixedOutput, labels: Tensor, targets: Tensor | None = None) -> Loss:
        logits, mixed_logits, plan = output
        assert logits is not None
        assert mixed_logits is not None
        self.check(logits.shape[-1], "other" if labels.is_floating_point() else "single_label_classification")
        cls = cross_entropy(logits, labels, targets).mean()
        terms = {
            "mix": mixed_cross_entropy(mixed_logits, labels, plan, targets).mean(),
            "cls": cls,
            "sim": logit_similarity(logits, mixed_logits, plan, self.similarity).mean(),
        }
        total = torch.stack([weight * term for weight, term in zip(self.weights, terms.values(), strict=True)]).sum()
        return Loss(total, terms)
