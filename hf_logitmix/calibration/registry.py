"""The one table of metrics: what they are made of, which way is better, and where they are shown.

`calibration_metrics`, the modules of `evaluate`, runs, cards, tables and the page docs/calibration.md all read it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from hf_logitmix.calibration import selective
from hf_logitmix.calibration.smooth import smooth_ece
from hf_logitmix.calibration.statistics import Statistics

SCALED = "_scaled"  # ends the name of a metric that is measured after cross-fitted temperature scaling


@dataclass(frozen=True)
class Metric:
    """One number that logits and labels give.

    Attributes:
        compute: makes it of what one pass over the rows found.
        title: what heads a column of it.
        told: what it is, in one line of Markdown.
        kind: what it tells of.
        higher_is_better: which way is better.
        brief: whether runs log it at each evaluation, print it and put it on the card; records have all metrics.
        columns: under which forms it is a column of tables: "" as trained, "_scaled" after temperature scaling.
    """

    compute: Callable[[Statistics], float]
    title: str
    told: str
    kind: Literal["accuracy", "calibration", "selective prediction"] = "calibration"
    higher_is_better: bool = False
    brief: bool = False
    columns: tuple[str, ...] = ()

    @property
    def scales(self) -> bool:
        """Whether a temperature changes it."""
        return self.kind != "accuracy"


def _selective(
    compute: Callable[..., float], title: str, told: str, *, of: dict[str, Any] | None = None, **more: Any
) -> Metric:
    compute = partial(compute, **(of or {}))
    return Metric(lambda found: compute(found.ranking), title, told, kind="selective prediction", **more)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        lambda found: found.hits.mean(),
        "accuracy",
        "share of examples whose highest logit is the label's",
        kind="accuracy",
        higher_is_better=True,
        brief=True,
    ),
    "ece": Metric(
        lambda found: found.bins.error,
        "ECE",
        "expected calibration error: the mean distance of accuracy and confidence over bins of equal width "
        "(Guo et al., 2017)",
        brief=True,
        columns=("", SCALED),
    ),
    "oe": Metric(
        lambda found: (
            found.bins.weight * found.bins.confidence * (found.bins.confidence - found.bins.accuracy).clip(min=0)
        ).sum(),
        "OE",
        "overconfidence error: only bins that are too sure count, by their confidence (Thulasidasan et al., 2019)",
        brief=True,
        columns=("",),
    ),
    "mce": Metric(
        lambda found: found.bins.gap[found.bins.weight > 0].max(),
        "MCE",
        "the largest distance of accuracy and confidence in a bin of equal width",
    ),
    "adaptive_ece": Metric(
        lambda found: found.bins_of_equal_mass.error,
        "adaptive ECE",
        "`ece` over bins with equally many examples (Nguyen and O'Connor, 2015)",
    ),
    "classwise_ece": Metric(
        lambda found: found.class_errors.mean(),
        "class-wise ECE",
        "`ece` of each class's probability, averaged over the classes (Kull et al., 2019)",
    ),
    "smooth_ece": Metric(
        lambda found: smooth_ece(found.confidence, found.hits),
        "smooth ECE",
        "`ece` with a Gaussian kernel in the place of bins, as wide as the error is large (Blasiok and Nakkiran, 2024)",
    ),
    "nll": Metric(
        lambda found: found.nll,
        "NLL",
        "negative log-likelihood of the labels, in nats",
        brief=True,
        columns=("", SCALED),
    ),
    "brier": Metric(
        lambda found: found.brier,
        "Brier",
        "squared distance of the probabilities from the one-hot label, from 0 to 2",
        brief=True,
    ),
    "aurc": _selective(
        selective.aurc,
        "AURC",
        "area under the risk-coverage curve: the share of wrong answers among the i most confident examples, averaged "
        "over i (Geifman and El-Yaniv, 2018)",
        brief=True,
        columns=("",),
    ),
    "augrc": _selective(
        selective.augrc,
        "AUGRC",
        "`aurc` with wrong answers as a share of all examples, so that none counts more than another (Traub et al., "
        "2024)",
    ),
    "auroc": _selective(
        selective.auroc,
        "AUROC",
        "how often a right answer has more confidence than a wrong one; 0.5 where all are right or all wrong",
        higher_is_better=True,
    ),
    **{
        f"coverage_at_risk_{percent}": _selective(
            selective.coverage_at_risk,
            f"coverage at {percent}%",
            f"largest share of examples that one threshold of confidence answers with at most {percent}% of them wrong",
            of={"risk": percent / 100},
            higher_is_better=True,
        )
        for percent in (1, 5, 10)
    },
}


def metric_of(name: str) -> Metric | None:
    """The metric of a name such as ``eval_nll_scaled``; None for one that is not of this table."""
    metric = METRICS.get(name.removeprefix("eval_").removesuffix(SCALED))
    return None if metric is not None and name.endswith(SCALED) and not metric.scales else metric


def is_brief(name: str) -> bool:
    """Whether a run prints a value: all but metrics of this table that are not brief.

    Example:
        >>> is_brief("eval_ece_scaled_mm"), is_brief("f1"), is_brief("eval_mce")
        (True, True, False)
    """
    bare = name.removeprefix("eval_")
    fitting = [known for known in METRICS if bare == known or bare.startswith(f"{known}_")]
    return METRICS[max(fitting, key=len)].brief if fitting else True


def columns(kind: str | None = None) -> dict[str, str]:
    """The columns of tables, head -> name of the value, kind by kind: as trained, then after temperature scaling.

    With a kind only those of metrics of that kind.
    """
    kinds = dict.fromkeys(metric.kind for metric in METRICS.values()) if kind is None else [kind]
    return {
        f"{metric.title}{' scaled' if form else ''}": f"{name}{form}"
        for one in kinds
        for form in ("", SCALED)
        for name, metric in METRICS.items()
        if form in metric.columns and metric.kind == one
    }
