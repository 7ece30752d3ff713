"""TrainingArguments with the options of a method."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments


@dataclass
class MixTrainingArguments(TrainingArguments):
    """`TrainingArguments` and the options of `hf_logitmix.get_method` under the same names.

    An option left at None keeps the method's own default, so that one command line serves every method.
    """

    method: str | None = field(
        default=None,
        metadata={"help": "Name in hf_logitmix.METHODS, such as vanilla, mixup or logitmix (the default)."},
    )
    alpha: float | None = field(default=None, metadata={"help": "lam is drawn from Beta(alpha, alpha)."})
    level: str | None = field(
        default=None, metadata={"help": "Where to mix: embedding (of images: pixels), hidden:k, pooled or manifold."}
    )
    per_example: bool | None = field(default=None, metadata={"help": "Draw one lam for each example, not each batch."})
    masks: str | None = field(
        default=None,
        metadata={"help": "How masks of texts of unequal length meet: soft or union; default is what the model takes."},
    )
    prob: float | None = field(default=None, metadata={"help": "CutMix: share of the batches that are cut."})
    block_num: int | None = field(default=None, metadata={"help": "PuzzleMix: blocks along a side."})
    n_labels: int | None = field(default=None, metadata={"help": "PuzzleMix: levels of a block (3)."})
    neigh_size: int | None = field(default=None, metadata={"help": "PuzzleMix: pixels of a cell of the data term (4)."})
    transport: bool | None = field(default=None, metadata={"help": "PuzzleMix: move salient blocks."})
    t_size: int | None = field(
        default=None, metadata={"help": "PuzzleMix: side in pixels of the blocks that are moved, at most the mask's."}
    )
    mix_fraction: float | None = field(default=None, metadata={"help": "Share of the batch that LogitMix mixes."})
    weights: list[float] | None = field(
        default=None, metadata={"help": "Weights of LogitMix's terms: mix cls sim, as three numbers."}
    )
    similarity: str | None = field(
        default=None, metadata={"help": "LogitMix's similarity: mse, l2, mse_logsoftmax or mse_softmax."}
    )
    warmup: str | None = field(default=None, metadata={"help": "LogitMix's warm-up: none, step or ramp."})
    eps: float | None = field(
        default=None, metadata={"help": "Mass that label smoothing or the MCEL family moves off the label."}
    )
    features: str | None = field(
        default=None, metadata={"help": "What MCEL's class similarity is found in: pooled, or pixels of images."}
    )
    symmetric: bool | None = field(default=None, metadata={"help": "Make MCEL's class similarity doubly stochastic."})
    parametrization: str | None = field(
        default=None, metadata={"help": "Of what SG-MCEL and GMCEL learn: simplex or soft (the paper's)."}
    )
    penalties: list[float] | None = field(
        default=None, metadata={"help": "Weights of the penalties: a b g for SG-MCEL, a b g h for GMCEL."}
    )
    targets_lr: float | None = field(
        default=None, metadata={"help": "Learning rate of what SG-MCEL and GMCEL learn (0.01)."}
    )
    beta: float | None = field(default=None, metadata={"help": "LaMix: share of the given labels in the target."})
    detach_target: bool | None = field(default=None, metadata={"help": "LaMix: stop the gradient through the target."})
    label_lam: str | None = field(default=None, metadata={"help": "LaMix: lam of the labels, uniform or half."})
    clean_batches: bool | None = field(
        default=None, metadata={"help": "LaMix: alternate with batches of originals (the paper's setting)."}
    )
    teacher: str | None = field(
        default=None, metadata={"help": "Distillation: local folder or Hub name of the teacher."}
    )
    temperature: float | None = field(default=None, metadata={"help": "Distillation: temperature of both softmaxes."})
    distill_weight: float | None = field(
        default=None, metadata={"help": "Distillation: weight of the teacher's term, the labels get the rest."}
    )

    rehearse: bool = field(
        default=True,
        metadata={"help": "Before the first step, try on two rows whether this model is mixed as it should be."},
    )

    def method_options(self) -> dict[str, Any]:
        """The options that are set.

        Raises:
            ValueError: for ``weights`` or ``penalties`` as a text that is not numbers ("1 1 0.5" is, which is how a
                hyperparameter search can keep them).
        """
        found = {name: value for name in METHOD_OPTIONS if (value := getattr(self, name)) is not None}
        for name in ("weights", "penalties"):
            if isinstance(value := found.get(name), str):
                try:
                    found[name] = [float(number) for number in value.split()]
                except ValueError as error:
                    raise ValueError(f"{name}={value!r} is not numbers: pass them as '1 1 0.5'.") from error
        return found


METHOD_OPTIONS = tuple(
    f.name
    for f in fields(MixTrainingArguments)
    if f.name not in {"method", "rehearse", *(own.name for own in fields(TrainingArguments))}
)
