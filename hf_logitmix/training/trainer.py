"""The adapter between `transformers.Trainer` and a method. It knows no method by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.data_loader import DataLoaderDispatcher
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import (
    BaseImageProcessor,
    EvalPrediction,
    FeatureExtractionMixin,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import has_length

from hf_logitmix.hub.provenance import ProvenanceMixin
from hf_logitmix.hub.pushing import PushMixin
from hf_logitmix.hub.trainer_card import CardMixin
from hf_logitmix.method import Method, MethodInTraining
from hf_logitmix.methods import as_method
from hf_logitmix.models import SPECIAL_TOKENS
from hf_logitmix.objectives import Terms, total_of
from hf_logitmix.output import MixedOutput
from hf_logitmix.soft_labels import are_soft
from hf_logitmix.step import Step
from hf_logitmix.targets import LabelSmoothing, OneHot
from hf_logitmix.training import checks, other_libraries
from hf_logitmix.training.arguments import MixTrainingArguments
from hf_logitmix.training.auxiliary import AuxiliaryLoss
from hf_logitmix.training.calibrating import CalibrationMixin
from hf_logitmix.training.checked_data import CheckedDataMixin
from hf_logitmix.training.checkpoints import ResumeMixin
from hf_logitmix.training.collator import MixCollator, take_plan
from hf_logitmix.training.extras import ExtrasMixin
from hf_logitmix.training.labelled import LabelsMixin, evaluated_on_rows
from hf_logitmix.training.last_batch import LastBatchMixin
from hf_logitmix.training.rehearsing import RehearsalMixin
from hf_logitmix.training.search import SearchMixin
from hf_logitmix.training.steps import StepsMixin
from hf_logitmix.training.training_set import TrainingSet

logger = logging.getLogger(__name__)


class MixTrainerMixin(
    ResumeMixin,
    RehearsalMixin,
    ProvenanceMixin,
    PushMixin,
    CardMixin,
    CalibrationMixin,
    SearchMixin,
    StepsMixin,
    ExtrasMixin,
    LastBatchMixin,
    LabelsMixin,
    CheckedDataMixin,
):
    """Trains with a `Method`; put it in front of any subclass of `transformers.Trainer`.

    Training: labels are taken out of the batch, a plan is drawn (or taken from the batch keys ``partner`` and ``lam``),
    one forward makes the rows that the objective asks for, and the terms of the loss are logged beside ``loss``.
    Evaluation is un-mixed and takes Trainer's own path, with the plain loss.

    The loss of an optimizer step is the mean over all its examples, whatever the number of micro-batches and processes
    and however unequal they are. (Trainer alone leaves the loss of most classification heads undivided by the
    accumulation steps: https://github.com/huggingface/transformers/issues/47688.)

    An auxiliary loss that the model returns beside its logits is part of the loss (see `AuxiliaryLoss`). A subclass
    adds terms of its own in a ``compute_loss`` that calls ``super().compute_loss(...)``; one that does not would train
    without the method, and is refused.

    Args:
        method: a name in `METHODS`, or a `Method`. Without it ``args.method`` counts, and without that
            ``logitmix``; the two may not name different ones. Options that are set in `MixTrainingArguments` apply on
            top.
        rehearse: whether to try on two rows of the first batch, before anything is learned from it, if this model is
            mixed as it should be (`hf_logitmix.training.rehearsal.rehearse`); None takes ``args.rehearse``, or True.

    Raises:
        TypeError: where a subclass is defined, for bases in an order in which the method would not be trained with, and
            for a Trainer, model or collator of a library with losses of its own (docs/integrations.md).
        ValueError: before training, for anything that this method cannot do with this model and these labels.
        RuntimeError: before the first update, if a subclass never asked for the method's loss.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        other_libraries.check_class(cls)
        checks.check_bases(cls, MixTrainerMixin)

    def __init__(
        self, *args: Any, method: str | Method | None = None, rehearse: bool | None = None, **kwargs: Any
    ) -> None:
        self._method_given = method
        self._rehearse_given = rehearse
        self._extras = nn.ModuleDict()
        given = kwargs.get("model", args[0] if args else None)
        other_libraries.check_class(type(given))
        checks.check_model(given)
        super().__init__(*args, **kwargs)
        if self.compute_loss_func is not None:
            raise ValueError("compute_loss_func would replace the method's loss: leave it out, or use Trainer.")
        # compute_loss returns a mean, which Trainer is to divide by the number of micro-batches.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = False
        self.label_smoother = None  # it became the method's targets, so that evaluation stays plain
        self._auxiliary = AuxiliaryLoss()
        self._loss_was_asked = False
        self.add_callback(_LossMustBeAsked(self))
        self._in_training: MethodInTraining | None = None
        self._made_for: tuple[Any, ...] = ()
        self._has_own_optimizer = self.optimizer is not None
        checks.check_launch(self.args)
        checks.check_best_metric(self.args, self.eval_dataset if isinstance(self.eval_dataset, dict) else ())
        other_libraries.check_class(type(self.model))  # of a model_init
        other_libraries.check_class(type(self.data_collator))
        other_libraries.check_adapter(self.model)
        checks.check_head(self.model)
        self._check_labels()
        self._resolve_method()
        if isinstance(self.data_collator, MixCollator):
            checks.check_plan_in_batch(self.args, is_dispatched=False)
            checks.warn_of_other_pairing(self.data_collator.method, self.method)

    def _resolve_method(self) -> None:
        """Build the method from what was given and from the arguments, which a hyperparameter search changes."""
        given, named = self._method_given, getattr(self.args, "method", None)
        if given is not None and named is not None and given != named:
            raise ValueError(f"method={given} and args.method={named!r} name two methods: pass one of them.")
        method = as_method(next(one for one in (given, named, "logitmix") if one is not None))
        options: dict[str, Any] = self.args.method_options() if isinstance(self.args, MixTrainingArguments) else {}
        method = method.with_options(**options) if options else method
        smoothing = self.args.label_smoothing_factor
        if smoothing and not isinstance(method.targets, OneHot):
            raise ValueError(
                f"label_smoothing_factor={smoothing} and the method's targets {method.targets} are both set: pass one."
            )
        if smoothing:
            method = method.with_options(targets=LabelSmoothing(smoothing))
        self.method = method
        method.check(self.model, self.label_spec)

    # ---- training ----------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        inputs = dict(inputs)
        plan = take_plan(inputs)
        if not model.training:
            if isinstance(labels := inputs.get("labels"), Tensor) and are_soft(self.model, labels):
                return evaluated_on_rows(model, inputs, return_outputs)
            return super().compute_loss(model, inputs, return_outputs=return_outputs)
        if plan is not None:
            dispatched = isinstance(self.callback_handler.train_dataloader, DataLoaderDispatcher)
            checks.check_plan_in_batch(self.args, dispatched and self.args.world_size > 1)
        labels, sample_weight = self._take_labels(inputs), inputs.pop("sample_weight", None)
        self._loss_was_asked = True
        self._rehearse(model, inputs, labels)
        terms, output = self.method_in_training(model, inputs, labels, self._next_step(), plan, sample_weight)
        terms |= self._auxiliary.take()
        weight = self._example_weight(len(labels))
        self._note_terms(self._logged(terms, output), weight)
        loss = weight * total_of(terms)
        logits = output.mixed_logits if output.logits is None else output.logits
        assert logits is not None
        return (loss, {"logits": logits[:, : self.method_in_training.num_labels]}) if return_outputs else loss

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns: list[str] | None = self._signature_columns
        if columns is not None:  # what the loss or the mixing reads, and not the model
            columns += [name for name in ("sample_weight", SPECIAL_TOKENS) if name not in columns]

    def _next_step(self) -> Step:
        """Where training stands, for the next micro-batch."""
        state, micro_batch = self.state, self._micro_batch
        self._micro_batch += 1
        return Step(state.global_step, state.max_steps, self.args.seed, micro_batch, self.args.process_index)

    def _logged(self, terms: Terms, output: MixedOutput) -> dict[str, Tensor]:
        """What the log says of a micro-batch beside its loss: nothing where that is one term of clean rows."""
        if not self.method.mixes and len(terms) == 1:
            return {}
        found = {name: term.rows.mean() for name, term in terms.items()}
        of_data = {name: term for name, term in terms.items() if term.rows.dim()}  # no penalties
        if len(of_data) < len(terms):
            found["data_loss"] = total_of(of_data)
        if output.mixed_logits is not None:
            found["lam_mean"] = output.plan.lam.mean()
        return found

    # ---- hooks of Trainer ----------------------------------------------------------------------------------------

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler | None:
        """The order of the dataset, in which predictions are read; Trainer groups here too where training does."""
        if eval_dataset is None or not has_length(eval_dataset) or self.args.world_size > 1:
            return None
        return SequentialSampler(eval_dataset)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        checks.check_parameters(self.model, self.is_deepspeed_enabled, self.args)
        self._set_up_method()
        self._begin_steps()
        self._loss_was_asked = False
        given = self._rehearse_given
        self._is_rehearsed = not (getattr(self.args, "rehearse", True) if given is None else given)
        self._begin_masks(is_tried=not self._is_rehearsed)
        if self.args.torch_compile:
            torch.compiler.reset()  # code that was compiled for a model without hooks would be taken for this one
        # before the model is compiled; gone when this ends or raises
        with self.method_in_training.install(self.model), self._auxiliary.install(self.model):
            return super()._inner_training_loop(*args, **kwargs)

    def _set_up_method(self) -> None:
        """Find and make what the method needs of the data and the model, unless a call of `train` before this did."""
        self._expect_soft_labels()
        self._resolve_method()  # again, because the arguments may have been changed, as by a hyperparameter search
        self._record = self._new_record()
        wanted = (self._record, _Same(self._method_given), _Same(self.model), _Same(self.train_dataset))
        if self._in_training is not None and wanted == self._made_for:
            return
        is_first, self._in_training = self._in_training is None, self.method.setup(self._training_set())
        learned = len(self._extras) or len(self._in_training.learned)
        if not is_first and not self._has_own_optimizer and learned:
            self.optimizer = None  # it holds what another method, or this one on other data, has learned
        self._use_extras(self._in_training)
        self._made_for = wanted

    @property
    def method_in_training(self) -> MethodInTraining:
        """The method with all that it has found in the training set, and all that it learns; made when first needed."""
        if self._in_training is None:
            self._in_training = self.method.setup(self._training_set())
        return self._in_training

    def _training_set(self) -> TrainingSet:
        data, collator = self.train_dataset, self.data_collator
        if isinstance(data, datasets.Dataset):
            data = self._remove_unused_columns(data, description="training")
        else:
            collator = self._get_collator_with_removed_columns(collator, description="training")
        return TrainingSet(
            dataset=data,
            model=self.model,
            num_labels=self.label_spec.num_labels,
            collator=collator,
            folder=Path(str(self.args.output_dir)),
            resumed_from=self._resumed_from,
            shows_progress=self.is_world_process_zero() and not self.args.disable_tqdm,
            processing_class=self.processing_class,
        )


class MixTrainer(MixTrainerMixin, Trainer):
    """`transformers.Trainer` that trains with a method: see `MixTrainerMixin`.

    Example:
        >>> trainer = MixTrainer(model=model, args=args, method="logitmix", train_dataset=data)  # doctest: +SKIP

    Args:
        method, rehearse: see `MixTrainerMixin`; the others are those of `transformers.Trainer`.
    """

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        train_dataset: Dataset[Any] | datasets.Dataset | datasets.IterableDataset | None = None,
        eval_dataset: Dataset[Any] | Mapping[str, Any] | datasets.Dataset | datasets.IterableDataset | None = None,
        processing_class: PreTrainedTokenizerBase
        | BaseImageProcessor
        | FeatureExtractionMixin
        | ProcessorMixin
        | None = None,
        model_init: Callable[..., PreTrainedModel] | None = None,
        compute_loss_func: Callable[..., Any] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, Any]] | None = None,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Any, Tensor], Tensor] | None = None,
        *,
        method: str | Method | None = None,
        rehearse: bool | None = None,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            model_init=model_init,
            compute_loss_func=compute_loss_func,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            method=method,
            rehearse=rehearse,
        )


@dataclass(frozen=True)
class _Same:
    """Equal to another one of the very same object."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value


class _LossMustBeAsked(TrainerCallback):
    """Stops a run before its first update if nothing has asked for the method's loss."""

    def __init__(self, trainer: MixTrainerMixin) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.trainer._loss_was_asked:
            raise RuntimeError(
                f"{type(self.trainer).__name__} has a compute_loss or training_step that never calls super()'s, so it "
                "would train without its method: call super().compute_loss(...) and add your terms to what it returns."
            )
