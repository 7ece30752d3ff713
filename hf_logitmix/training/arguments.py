"""TrainingArguments with the options of a method."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments

from hf_logitmix.calibration.registry import metric_of


@dataclass
class MixTrainingArguments(TrainingArguments):
    """`TrainingArguments` and the options of `hf_logitmix.get_method` under the same names.

    An option left at None keeps the method's own default, so that one command line serves every method.
    ``greater_is_better`` follows ``metric_for_best_model`` where that is a metric of `hf_logitmix.metrics.METRICS`.
    """

    method: str | None = field(
        default=None,
        metadata={"help": "Name in hf_logitmix.METHODS, such as vanilla, mixup or logitmix (the default)."},
    )
    # options of the methods, written by scripts/write_tables.py
    eps: float | None = field(
        default=None, metadata={"help": "Mass that label smoothing or the MCEL family moves off the label."}
    )
    symmetric: bool | None = field(default=None, metadata={"help": "Make MCEL's class similarity doubly stochastic."})
    features: str | None = field(
        default=None, metadata={"help": "What MCEL's class similarity is found in: pooled, or pixels of images."}
    )
    parametrization: str | None = field(
        default=None, metadata={"help": "Of what SG-MCEL and GMCEL learn: simplex or soft (the paper's)."}
    )
    penalties: list[float] | None = field(
        default=None, metadata={"help": "Weights of the penalties: a b g for SG-MCEL, a b g h for GMCEL."}
    )
    norm: float | None = field(default=None, metadata={"help": "p of the norms in the penalties."})
    targets_lr: float | None = field(
        default=None, metadata={"help": "Learning rate of what SG-MCEL and GMCEL learn (0.01)."}
    )
    margins: list[float] | None = field(
        default=None, metadata={"help": "Margins c_i of the classes; else those that are zero at E_ii = 1 - eps."}
    )
    gamma: str | None = field(
        default=None, metadata={"help": "Focal losses: by how much well classified rows count less; focal: or sd53."}
    )
    target_threshold: float | None = field(
        default=None, metadata={"help": "bce: targets above this become 1 and the others 0; else they stay as mixed."}
    )
    sum_classes: bool | None = field(
        default=None, metadata={"help": "bce: sum over the classes in the place of a mean."}
    )
    lam: str | None = field(
        default=None,
        metadata={"help": "Weight of the own input: uniform, half or a number, instead of Beta(alpha, alpha)."},
    )
    alpha: float | None = field(default=None, metadata={"help": "lam is drawn from Beta(alpha, alpha)."})
    label_lam: str | None = field(
        default=None, metadata={"help": "Weight of the own label: uniform, half or a number; else the input's."}
    )
    per_example: bool | None = field(default=None, metadata={"help": "Draw one lam for each example, not each batch."})
    mix_fraction: float | None = field(
        default=None, metadata={"help": "Share of the batch that gets a mixed row (LogitMix)."}
    )
    prob: float | None = field(default=None, metadata={"help": "Share of the batches that are mixed at all."})
    off_after: float | None = field(default=None, metadata={"help": "Share of training after which nothing is mixed."})
    partners: str | None = field(
        default=None, metadata={"help": "any, or length: pairs of texts that are next to one another in length."}
    )
    level: str | None = field(
        default=None, metadata={"help": "Where to mix: embedding (of images: pixels), hidden:k, pooled or manifold."}
    )
    masks: str | None = field(
        default=None,
        metadata={"help": "How masks of texts of unequal length meet: soft or union; else what the model takes."},
    )
    block_num: int | None = field(default=None, metadata={"help": "PuzzleMix: blocks along a side."})
    n_labels: int | None = field(default=None, metadata={"help": "PuzzleMix: levels of a block (3)."})
    transport: bool | None = field(default=None, metadata={"help": "PuzzleMix: move salient blocks."})
    label_smoothness: float | None = field(default=None, metadata={"help": "PuzzleMix: beta, smoothness of the mask."})
    data_smoothness: float | None = field(
        default=None, metadata={"help": "PuzzleMix: gamma, smoothness of the picture across blocks."}
    )
    prior_weight: float | None = field(default=None, metadata={"help": "PuzzleMix: eta, pull of the mask towards lam."})
    neigh_size: int | None = field(default=None, metadata={"help": "PuzzleMix: pixels of a cell of the data term (4)."})
    t_eps: float | None = field(default=None, metadata={"help": "PuzzleMix: cost of moving a block by its own size."})
    t_size: int | None = field(
        default=None, metadata={"help": "PuzzleMix: side in pixels of the blocks that are moved, at most the mask's."}
    )
    weights: list[float] | None = field(
        default=None, metadata={"help": "Weights of LogitMix's terms: mix cls sim, as three numbers."}
    )
    similarity: str | None = field(
        default=None, metadata={"help": "LogitMix's similarity: mse, l2, mse_logsoftmax or mse_softmax."}
    )
    warmup: str | None = field(default=None, metadata={"help": "LogitMix's warm-up: none, step or ramp."})
    milestones: list[float] | None = field(
        default=None, metadata={"help": "Shares of training at which the learning rate drops, for warmup=ramp."}
    )
    beta: float | None = field(default=None, metadata={"help": "LaMix: share of the given labels in the target."})
    detach_target: bool | None = field(default=None, metadata={"help": "LaMix: stop the gradient through the target."})
    clean_batches: bool | None = field(
        default=None, metadata={"help": "LaMix: alternate with batches of originals (the paper's setting)."}
    )
    kappa: float | None = field(
        default=None, metadata={"help": "Remix: how many times more frequent the other class must be."}
    )
    tau: float | None = field(default=None, metadata={"help": "Remix: the lam below which a label is given up."})
    bandwidth: float | None = field(
        default=None, metadata={"help": "C-Mixup: width of the kernel, in standard deviations of the labels."}
    )
    label_scale: float | None = field(
        default=None, metadata={"help": "C-Mixup: standard deviation of the labels; else that of the training set."}
    )
    switch_prob: float | None = field(
        default=None, metadata={"help": "Switch: share of batches that take the second mixing."}
    )
    second_lam: str | None = field(
        default=None,
        metadata={"help": "Switch: lam of the second mixing: beta:ALPHA, uniform, half or a number; else the plan's."},
    )
    eta: float | None = field(default=None, metadata={"help": "RegMixup: weight of the mixed rows."})
    lam_margin: float | None = field(
        default=None, metadata={"help": "MIT: how far apart the two lams of a pair are at least."}
    )
    saliency: bool | None = field(
        default=None, metadata={"help": "SSMix: choose spans by their saliency; else they are drawn at random."}
    )
    teacher: str | None = field(
        default=None, metadata={"help": "Distillation: local folder or Hub name of the teacher."}
    )
    temperature: float | None = field(default=None, metadata={"help": "Distillation: temperature of both softmaxes."})
    distill_weight: float | None = field(
        default=None, metadata={"help": "Distillation: weight of the teacher's term, the labels get the rest."}
    )
    margin: float | None = field(default=None, metadata={"help": "Margin: by how much logits may differ for free."})
    margin_weight: float | None = field(default=None, metadata={"help": "Margin: weight of what exceeds it."})
    criterion: str | None = field(
        default=None, metadata={"help": "Name in hf_logitmix.criteria.CRITERIA; else the one that fits the labels."}
    )
    class_weights: str | None = field(
        default=None, metadata={"help": "Weights of the classes in the loss: balanced, or a number a class."}
    )
    # end of the options

    soft_labels: bool = field(
        default=False,
        metadata={
            "help": "Labels are rows of probabilities of the classes, one number a class: sets the model's "
            "problem_type to single_label_classification."
        },
    )
    rehearse: bool = field(
        default=True,
        metadata={"help": "Before the first step, try on two rows whether this model is mixed as it should be."},
    )

    def __post_init__(self) -> None:
        metric = metric_of(self.metric_for_best_model or "")
        if metric is not None and self.greater_is_better is None:
            self.greater_is_better = metric.higher_is_better
        super().__post_init__()

    def method_options(self) -> dict[str, Any]:
        """The options that are set.

        Raises:
            ValueError: for numbers such as ``weights`` as a text that is none ("1 1 0.5" is, which is how a
                hyperparameter search can keep them).
        """
        found = {name: value for name in METHOD_OPTIONS if (value := getattr(self, name)) is not None}
        for name, value in found.items():
            if isinstance(value, str) and _OF_NUMBERS[name]:
                try:
                    found[name] = [float(number) for number in value.split()]
                except ValueError as error:
                    raise ValueError(f"{name}={value!r} is not numbers: pass them as '1 1 0.5'.") from error
        return found


METHOD_OPTIONS = tuple(
    f.name
    for f in fields(MixTrainingArguments)
    if f.name not in {"method", "soft_labels", "rehearse", *(own.name for own in fields(TrainingArguments))}
)
_OF_NUMBERS = {f.name: "list" in str(f.type) for f in fields(MixTrainingArguments)}
