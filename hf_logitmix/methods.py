"""A method is mixing x objective x targets. `METHODS` is the only table of names; a new paper is one more row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from hf_logitmix.mixing import CutMix, Linear, Mixing, NoMixing, PuzzleMix
from hf_logitmix.moment import Moment
from hf_logitmix.objectives import CrossEntropy, Distillation, LaMix, LogitMix, MixedCrossEntropy, Objective
from hf_logitmix.targets import GMCEL, MCEL, SGMCEL, Infogain, LabelSmoothing, OneHot, Targets, as_targets
from hf_logitmix.training_set import TrainingSet


@dataclass(frozen=True)
class Method:
    """How a model is trained: any combination of the three parts.

    Attributes:
        mixing: how two inputs become one.
        objective: which losses of which logits.
        targets: which row stands for a label.
        source: where the defaults come from.
        name: in `METHODS`; empty for a combination of one's own.

    Raises:
        ValueError: for parts that do not fit together.
    """

    mixing: Mixing = field(default_factory=NoMixing)
    objective: Objective = field(default_factory=CrossEntropy)
    targets: Targets = field(default_factory=OneHot)
    source: str = field(default="", compare=False, repr=False)
    name: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", as_targets(self.targets))
        if self.objective.rows != "clean" and not self.mixing.mixes:
            raise ValueError(
                f"objective={self.objective} needs mixed rows and mixing={self.mixing} makes none: pass a mixing such "
                "as Linear(alpha=1.0)."
            )
        if self.objective.drops_clean_rows and self.mixing.mix_fraction < 1:
            raise ValueError(
                f"mix_fraction={self.mixing.mix_fraction} would drop the rest of the batch in steps where "
                f"{self.objective} trains on mixed rows alone: pass mix_fraction=1.0, or LogitMix without a ramp."
            )
        if self.objective.needs_input_lam is (self.mixing.input_lam is None):
            raise ValueError(
                f"input_lam={self.mixing.input_lam} does not go with {self.objective}: inputs of LaMix meet at a place "
                "of their own, input_lam=0.5, and those of every other objective at lam, input_lam=None."
            )
        if self.objective.needs_distributions and not self.targets.are_distributions:
            raise ValueError(
                f"targets={self.targets} have rows that need not sum to 1, and {self.objective} mixes them with "
                "probabilities: pass other targets."
            )

    @property
    def parts(self) -> dict[str, Any]:
        """The three parts by their names."""
        return {"mixing": self.mixing, "objective": self.objective, "targets": self.targets}

    @property
    def options(self) -> list[str]:
        """The names that `with_options` takes."""
        return [*(name for part in self.parts.values() for name in options_of(part)), "targets"]

    def with_options(self, **options: Any) -> Method:
        """The same method with some fields of its parts changed, and ``targets`` replaced.

        Raises:
            ValueError: for an option that none of the parts has; the message lists those that they have.
        """
        parts = self.parts
        if "targets" in options:
            parts["targets"] = as_targets(options.pop("targets"))
        known = {field: name for name, part in parts.items() for field in options_of(part)}
        for option in options:
            if option not in known:
                accepted = ", ".join([*known, "targets"])
                raise ValueError(f"{option}={options[option]!r} is not an option of this method: it has {accepted}.")
        for name, part in parts.items():
            changes = {option: value for option, value in options.items() if known[option] == name}
            parts[name] = dataclasses.replace(part, **changes) if changes else part
        return dataclasses.replace(self, **parts)

    def at(self, moment: Moment) -> Method:
        """The method that applies at this step of training, with everything drawn that belongs to a step."""
        return dataclasses.replace(self, mixing=self.mixing.at(moment), objective=self.objective.at(moment))

    def for_batch(self, inputs: Mapping[str, Any], labels: Tensor) -> Method:
        """The method for one batch, for parts that look at its labels or show it to another model."""
        return dataclasses.replace(
            self, mixing=self.mixing.for_batch(labels), objective=self.objective.for_batch(inputs)
        )

    def prepare(self, training_set: TrainingSet) -> Method:
        """The method to train with, with everything found or made that depends on the training set and the model."""
        return dataclasses.replace(
            self, targets=self.targets.prepare(training_set), objective=self.objective.prepare(training_set)
        )

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Put on the model what the parts need there, for the length of a block: all of a training run."""
        with self.mixing.attached(model), self.objective.attached(model):
            yield

    @property
    def learned(self) -> nn.ModuleDict:
        """What is learned beside the model, once prepared: by part, empty for most methods."""
        parts = {"targets": self.targets.learned, "objective": self.objective.learned}
        return nn.ModuleDict({name: module for name, module in parts.items() if module is not None})

    def check(self, model: nn.Module, num_labels: int, problem_type: str) -> None:
        """Fail early where this method cannot train this model.

        Raises:
            ValueError: with what does not fit and what to do.
        """
        if self.mixing.mixes and self.objective.rows == "clean":
            raise ValueError(
                f"mixing={self.mixing} would have no effect: {self.objective} trains on clean rows alone; pass an "
                "objective on mixed rows, such as MixedCrossEntropy() or LogitMix()."
            )
        self.mixing.check(model, self.objective.rows)
        self.objective.check(num_labels, problem_type)
        self.targets.check(num_labels, problem_type)


def options_of(part: Any) -> list[str]:
    """Fields that are for the user to set: those that are shown, unless their metadata say otherwise."""
    fields = dataclasses.fields(part) if dataclasses.is_dataclass(part) else ()
    return [f.name for f in fields if f.metadata.get("option", f.repr)]


_MIXUP = "Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018"
_MCEL = "Negi, Chan, Mahoor, Leveraging Class Similarity to Improve Deep Neural Network Robustness, 2018"
_PUZZLEMIX = "Kim et al., Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup, ICML 2020"
_LAMIX = "Bypassing the Random Input Mixing in Mixup, submitted to ICLR 2021"
_LOGITMIX = "Bang, Baek et al., Logit Mixing Training for More Reliable and Accurate Prediction, IJCAI 2022"

_logitmix_m = Method(Linear(alpha=3.0), LogitMix(), source=_LOGITMIX)


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
        "mixup": Method(Linear(alpha=0.4), MixedCrossEntropy(), source=_MIXUP),
        "manifold_mixup": Method(
            Linear(alpha=2.0, level="manifold"),
            MixedCrossEntropy(),
            source="Verma et al., Manifold Mixup: Better Representations by Interpolating Hidden States, ICML 2019",
        ),
        "cutmix": Method(
            CutMix(alpha=1.0),
            MixedCrossEntropy(),
            source="Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers, ICCV 2019",
        ),
        "puzzlemix": Method(PuzzleMix(alpha=1.0), MixedCrossEntropy(), source=_PUZZLEMIX),
        "logitmix": _logitmix_m,
        "logitmix_m": _logitmix_m,
        "logitmix_c": Method(CutMix(alpha=1.0), LogitMix(weights=(1.0, 1.0, 0.1)), source=_LOGITMIX),
        "logitmix_p": Method(PuzzleMix(alpha=1.0), LogitMix(), source=f"{_LOGITMIX}; {_PUZZLEMIX}"),
        "lamix": Method(Linear(alpha=1.0, input_lam=0.5), LaMix(beta=0.5), source=_LAMIX),
        "lamix_p": Method(PuzzleMix(alpha=1.0, input_lam=0.5), LaMix(beta=1.0), source=f"{_LAMIX}; {_PUZZLEMIX}"),
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
        >>> get_method("logitmix", alpha=1.0, weights=(1, 1, 0.5)).mixing.alpha
        1.0

    Args:
        name: a key of `METHODS`.
        options: fields of the mixing (``alpha``, ``level``, ``per_example``, ``mix_fraction``), of the objective
            (``weights``, ``similarity``, ``warmup``, ``drops``, ``beta``, ``teacher``, ``temperature``, ...), of the
            targets (``eps``, ``class_similarity``, ...), or ``targets`` itself: a FloatTensor[K, K] or an object of
            `hf_logitmix.targets`.

    Raises:
        ValueError: for a name or an option that is not there, or a value that is not possible.
    """
    if name not in METHODS:
        raise ValueError(f"method={name!r} is unknown: pass one of {', '.join(METHODS)}.")
    return METHODS[name].with_options(**options)
