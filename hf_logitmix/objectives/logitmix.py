"""LogitMix: mixed logits as weak supervision for the logits of the mixed input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_logitmix import papers
from hf_logitmix.criteria import RowLoss
from hf_logitmix.criteria.base import at_least_float32
from hf_logitmix.objectives.base import Objective, Term, Terms, clean_term
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.part import LabelSpec
from hf_logitmix.step import Step


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


def full_from_a_tenth(step: Step, milestones: Sequence[float]) -> float | None:
    """Warm-up ``step``: plain cross-entropy for the first tenth of training, then LogitMix."""
    return 1.0 if step.progress >= 0.1 else None


def ramp(step: Step, milestones: Sequence[float]) -> float | None:
    """Warm-up ``ramp``: a probability of LogitMix that grows in each segment between milestones of the learning rate.

    In the first segment there is plain cross-entropy until 20% of it, then the probability grows linearly from 0
    to 1 at 70%. In later segments it grows linearly from 0 to 1 at 70%.
    """
    edges = (0.0, *milestones, 1.0)
    segment = sum(step.progress >= milestone for milestone in milestones)
    start, end = edges[segment], edges[segment + 1]
    done = (step.progress - start) / (end - start)
    if segment == 0:
        return None if done < 0.2 else min((done - 0.2) / 0.5, 1.0)
    return min(done / 0.7, 1.0)


# A warm-up gives the probability of LogitMix at a step (mixed cross-entropy otherwise), or None for plain CE.
WARMUPS: dict[str, Callable[[Step, Sequence[float]], float | None]] = {
    "none": lambda step, milestones: 1.0,
    "step": full_from_a_tenth,
    "ramp": ramp,
}


@dataclass(frozen=True)
class LogitMix(Objective):
    r"""LogitMix (Bang, Baek et al., Logit Mixing Training for More Reliable and Accurate Prediction, IJCAI 2022).

    .. math:: L = w_{mix} L_{mix} + w_{cls} L_{cls} + w_{sim} L_{sim}

    with the loss of the mixed rows against mixed labels, that of the clean batch (once, as in the released code; the
    poster writes it for both examples of a pair, which is twice that) and the similarity of the logits.

    Attributes:
        weights: (mix, cls, sim), non-negative and not all zero.
        similarity: one of `SIMILARITIES`.
        warmup: one of `WARMUPS`.
        milestones: where in training a step schedule drops the learning rate, as shares in (0, 1); only ``ramp`` uses
            them.

    Raises:
        ValueError: for weights, a similarity or a warm-up outside the above.
    """

    equation = (
        r"L = w_{mix} [\lambda H(\tilde z, T_y) + (1 - \lambda) H(\tilde z, T_{y_\pi})] + w_{cls} H(z, "
        r"T_y) + w_{sim}\, d(\lambda z + (1 - \lambda) z_\pi, \tilde z)"
    )
    papers = (papers.LOGITMIX,)

    weights: Sequence[float] = field(
        default=(1.0, 1.0, 1.0), metadata={"help": "Weights of LogitMix's terms: mix cls sim, as three numbers."}
    )
    similarity: str = field(
        default="mse", metadata={"help": "LogitMix's similarity: mse, l2, mse_logsoftmax or mse_softmax."}
    )
    warmup: str = field(default="none", metadata={"help": "LogitMix's warm-up: none, step or ramp."})
    milestones: Sequence[float] = field(
        default=(), metadata={"help": "Shares of training at which the learning rate drops, for warmup=ramp."}
    )

    def __post_init__(self) -> None:
        numbers = isinstance(self.weights, Sequence) and all(isinstance(w, (int, float)) for w in self.weights)
        weights = tuple(float(weight) for weight in self.weights) if numbers else ()
        if len(weights) != 3 or not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
            raise ValueError(f"weights must be three numbers >= 0 (mix, cls, sim), not all zero, got {self.weights!r}.")
        object.__setattr__(self, "weights", weights)
        if self.similarity not in SIMILARITIES:
            raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)}, got {self.similarity!r}.")
        if self.warmup not in WARMUPS:
            raise ValueError(f"warmup must be one of {', '.join(WARMUPS)}, got {self.warmup!r}.")
        object.__setattr__(self, "milestones", tuple(self.milestones))
        shares = self.milestones
        if list(shares) != sorted(set(shares)) or not all(0 < share < 1 for share in shares):
            raise ValueError(f"milestones must be increasing shares of training in (0, 1), got {shares}.")

    @property
    def kinds(self) -> frozenset[Rows]:  # type: ignore[override]
        by_warmup: dict[str, frozenset[Rows]] = {
            "none": frozenset({"both"}),
            "step": frozenset({"clean", "both"}),
            "ramp": frozenset({"clean", "mixed", "both"}),
        }
        return by_warmup[self.warmup]

    def rows(self, step: Step) -> Rows:
        probability = WARMUPS[self.warmup](step, self.milestones)
        if probability is None:
            return "clean"
        return "both" if step.uniform("warmup") < probability else "mixed"

    def check(self, model: Any, labels: LabelSpec) -> None:
        defined = labels.num_labels > 1 and labels.problem_type == "single_label_classification"
        if self.similarity in _OF_PROBABILITIES and not defined:
            raise ValueError(
                f"similarity={self.similarity!r} compares softmax outputs, which needs one label of two or more "
                "classes an example: pass similarity='mse' or 'l2'."
            )

    def __call__(self, output: MixedOutput, labels: Tensor, loss: RowLoss, inputs: Mapping[str, Any]) -> Terms:
        logits, mixed_logits, plan = output
        if mixed_logits is None:
            return clean_term(output, labels, loss)
        if logits is None:
            return {"mix": Term(loss.mixed(mixed_logits, labels, plan))}
        clean = loss(logits, labels)
        similarity = logit_similarity(logits, mixed_logits, plan, self.similarity)
        rows = {"mix": loss.mixed(mixed_logits, labels, plan), "cls": clean, "sim": similarity}
        return {name: Term(value, weight) for (name, value), weight in zip(rows.items(), self.weights, strict=True)}
