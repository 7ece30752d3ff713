"""The adapter between `transformers.Trainer` and the three axes. It knows no method by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.data_loader import DataLoaderDispatcher
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_logitmix import checks, other_libraries
from hf_logitmix.arguments import MixTrainingArguments
from hf_logitmix.auxiliary import AuxiliaryLoss
from hf_logitmix.checked_data import CheckedDataMixin
from hf_logitmix.checkpoints import last_complete_checkpoint, load_renamed, why_torn
from hf_logitmix.collator import MixCollator
from hf_logitmix.extras import ExtrasMixin
from hf_logitmix.forward import mixed_forward
from hf_logitmix.last_batch import LastBatchMixin
from hf_logitmix.methods import Method, as_method
from hf_logitmix.models import unwrap
from hf_logitmix.moment import Moment
from hf_logitmix.plan import MixPlan
from hf_logitmix.search import SearchMixin
from hf_logitmix.step_log import StepLog
from hf_logitmix.targets import LabelSmoothing, OneHot
from hf_logitmix.training_set import TrainingSet


class MixTrainerMixin(SearchMixin, ExtrasMixin, LastBatchMixin, CheckedDataMixin):
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
        method: a name in `METHODS`, or a `Method`. It overrides ``args.method``; with neither it is ``logitmix``.
            Options that are set in `MixTrainingArguments` apply on top.

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

    def __init__(self, *args: Any, method: str | Method | None = None, **kwargs: Any) -> None:
        self._method_given = method
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
        self._examples_in_step: Tensor | float | None = None
        self._micro_batches = self._micro_batch = 0
        self._left_over: list[Any] = []
        self._epoch_iterator: Any = None
        self._terms, self._clipped, self._clipped_in_run = StepLog(), StepLog(), StepLog()
        self._auxiliary = AuxiliaryLoss()
        self._loss_was_asked = False
        self.add_callback(_LossMustBeAsked(self))
        self._resumed_from: Path | None = None
        self._loads_from = ""
        self._prepared: Method | None = None
        self._prepared_for: tuple[Any, ...] = ()
        self._has_own_optimizer = self.optimizer is not None
        checks.check_launch(self.args)
        other_libraries.check_class(type(self.model))  # of a model_init
        other_libraries.check_class(type(self.data_collator))
        other_libraries.check_adapter(self.model)
        checks.check_head(self.model)
        if isinstance(self.data_collator, MixCollator):
            checks.check_plan_in_batch(self.args, is_dispatched=False)
        self._check_data()
        self._labels_are_checked = checks.check_datasets(self.train_dataset, self.eval_dataset, self.model)
        self._resolve_method()

    def _resolve_method(self) -> None:
        """Build the method from what was given and from the arguments, which a hyperparameter search changes."""
        named = (self._method_given, getattr(self.args, "method", None), "logitmix")
        method = as_method(next(given for given in named if given is not None))
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
        num_labels, problem_type = checks.head_of(self.model)
        method.check(self.model, num_labels, problem_type)

    # ---- training ----------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        inputs = dict(inputs)
        plan = _take_plan(inputs)
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs=return_outputs)
        if plan is not None:
            dispatched = isinstance(self.callback_handler.train_dataloader, DataLoaderDispatcher)
            checks.check_plan_in_batch(self.args, dispatched and self.args.world_size > 1)
        self._loss_was_asked = True
        labels = self._take_labels(inputs)
        moment = Moment(
            self.state.global_step, self.state.max_steps, self.args.seed, self._micro_batch, self.args.process_index
        )
        self._micro_batch += 1
        method = self.method.at(moment).for_batch(inputs, labels)
        if plan is None:
            plan = method.mixing.plan(len(labels), generator=moment.generator("plan"), device=labels.device)
        output = mixed_forward(model, inputs, plan, mixing=method.mixing, rows=method.objective.rows)
        num_labels, _ = checks.head_of(self.model)
        data_loss, terms = method.objective(output, labels, method.targets.matrix(num_labels))
        penalty, penalties = method.targets.penalty()
        auxiliary, auxiliaries = self._auxiliary.take()
        if extra := {**penalties, **auxiliaries}:
            terms = {**terms, "data_loss": data_loss, **extra}
        if method.objective.rows != "clean":
            terms = {**terms, "lam_mean": output.plan.lam.mean()}
        weight = self._example_weight(len(labels))
        self._terms.add(terms, weight / max(self._micro_batches, 1), self.state.global_step)
        logits = output.mixed_logits if output.logits is None else output.logits
        loss = weight * (data_loss + penalty + auxiliary)
        return (loss, {"logits": logits[:, :num_labels]}) if return_outputs else loss  # type: ignore[index]

    def _take_labels(self, inputs: dict[str, Any]) -> Tensor:
        if inputs.get("labels") is None:
            names, advice = ", ".join(inputs), other_libraries.why_no_labels(inputs)
            raise ValueError(f"the batch holds no `labels`, only {names}: {advice}.")
        if not self._labels_are_checked:
            checks.note_multi_label(self.model, inputs["labels"])
        num_labels, problem_type = checks.head_of(self.model)
        labels = checks.as_labels(inputs.pop("labels"), num_labels, problem_type)
        if not self._labels_are_checked:
            checks.check_labels(labels.cpu().numpy(), num_labels, problem_type)
        return labels

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, *args: Any, **kwargs: Any) -> Any:
        kept, self._left_over = self._left_over, []
        batches, items = super().get_batch_samples(epoch_iterator, num_batches - len(kept), *args, **kwargs)
        batches = [*kept, *batches]
        if len(batches) < num_batches:
            # A stream has ended inside an accumulated step, for which Trainer does no update: its next epoch goes on.
            if batches and epoch_iterator is not self._epoch_iterator:
                raise ValueError(
                    f"train_dataset ended after {len(batches)} batches, which gradient_accumulation_steps="
                    f"{num_batches} never makes a whole step of: pass a longer stream, or fewer accumulation steps."
                )
            self._left_over, batches = batches, []
        self._epoch_iterator = epoch_iterator
        self._micro_batches, self._micro_batch = len(batches), 0
        sizes = [len(batch["labels"]) for batch in batches if isinstance(batch.get("labels"), Tensor)]
        self._examples_in_step = sum(sizes) if sizes else None
        if sizes and self.args.world_size > 1:
            count = torch.tensor([sum(sizes)], dtype=torch.float32, device=self.args.device)
            self._examples_in_step = self.accelerator.gather(count).sum()
        return batches, items

    def _example_weight(self, batch_size: int) -> Tensor | float:
        """What makes of a micro-batch's mean its part in the mean over all examples of the optimizer step.

        Trainer averages the micro-batches of a process, and DistributedDataParallel the processes, so it is
        batch_size * micro-batches * processes / examples: 1 where all micro-batches are equal.
        """
        if self._examples_in_step is None:
            return 1.0
        return batch_size * self._micro_batches * self.args.world_size / self._examples_in_step

    # ---- the log -----------------------------------------------------------------------------------------------

    def _clip_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        norm = super()._clip_grad_norm(*args, **kwargs)
        if norm is not None:
            clipped = {"grad_clipped": (torch.as_tensor(norm).detach() > self.args.max_grad_norm).float()}
            for log in (self._clipped, self._clipped_in_run):
                log.add(clipped, 1.0, self.state.global_step)
        return norm

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and (terms := self._terms.means()):
            means = torch.stack(list(terms.values())).reshape(1, -1)
            logs |= dict(zip(terms, self.accelerator.gather(means).mean(0).tolist(), strict=True))
            logs |= {name: share.item() for name, share in self._clipped.means().items()}
            self._terms.clear()
            self._clipped.clear()
        if "train_runtime" in logs:
            logs |= {f"train_{name}": share.item() for name, share in self._clipped_in_run.means().items()}
        super().log(logs, *args, **kwargs)

    # ---- resume ------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.train`, but a checkpoint that was not written to its end is never loaded.

        Raises:
            ValueError: if the checkpoint to resume from is torn, or none is complete.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_complete_checkpoint(str(self.args.output_dir))
            if resume_from_checkpoint is None:
                raise ValueError(f"resume_from_checkpoint=True: no complete checkpoint in {self.args.output_dir!r}.")
        elif resume_from_checkpoint and (reason := why_torn(resume_from_checkpoint)):
            raise ValueError(
                f"resume_from_checkpoint={resume_from_checkpoint!r} was not written to its end ({reason}): pass an "
                "earlier one, or True for the last that is complete."
            )
        self._resumed_from = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._loads_from = resume_from_checkpoint
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        self._loads_from = str(self.state.best_model_checkpoint)
        super()._load_best_model()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        model = unwrap(self.model)
        if load_result.missing_keys and load_result.unexpected_keys and isinstance(model, PreTrainedModel):
            load_renamed(model, self._loads_from)
        else:
            super()._issue_warnings_after_load(load_result)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:  # an older checkpoint of this step is not complete any more from here on
            (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
        super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # so that trainer_state.json, written next, tells that all is there

    # ---- hooks of Trainer ----------------------------------------------------------------------------------------

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        checks.check_parameters(self.model, self.is_deepspeed_enabled)
        self._prepare_method()
        for log in (self._terms, self._clipped, self._clipped_in_run):
            log.clear()
        self._left_over, self._epoch_iterator, self._loss_was_asked = [], None, False
        if self.args.torch_compile:
            torch.compiler.reset()  # code that was compiled for a model without hooks would be taken for this one
        # before the model is compiled; gone when this ends or raises
        with self.method.attached(self.model), self._auxiliary.attached(self.model):
            return super()._inner_training_loop(*args, **kwargs)

    def _prepare_method(self) -> None:
        """Find and make what the method needs of the data and the model, unless a call of `train` before this did."""
        self._resolve_method()  # again, because the arguments may have been changed, as by a hyperparameter search
        options = self.args.method_options() if isinstance(self.args, MixTrainingArguments) else {}
        named = getattr(self.args, "method", None)
        wanted = (
            self._method_given,
            named,
            options,
            self.args.label_smoothing_factor,
            _Same(self.model),
            _Same(self.train_dataset),
        )
        if self._prepared is not None and wanted == self._prepared_for:
            self.method = self._prepared
            return
        is_first, self._prepared = self._prepared is None, self.method.prepare(self._training_set())
        self.method = self._prepared
        if not is_first and not self._has_own_optimizer and (len(self._extras) or len(self.method.learned)):
            self.optimizer = None  # it holds what another method, or this one on other data, has learned
        self._use_extras(self.method)
        self._prepared_for = wanted

    def _training_set(self) -> TrainingSet:
        data, collator = self.train_dataset, self.data_collator
        if isinstance(data, datasets.Dataset):
            data = self._remove_unused_columns(data, description="training")
        else:
            collator = self._get_collator_with_removed_columns(collator, description="training")
        return TrainingSet(
            dataset=data,
            model=self.model,
            num_labels=checks.head_of(self.model)[0],
            collator=collator,
            folder=Path(str(self.args.output_dir)),
            resumed_from=self._resumed_from,
            shows_progress=self.is_world_process_zero() and not self.args.disable_tqdm,
        )

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        inputs = dict(inputs)
        _take_plan(inputs)  # a MixCollator serves evaluation too
        if isinstance(labels := inputs.get("labels"), Tensor):
            checks.note_multi_label(self.model, labels)
            num_labels, problem_type = checks.head_of(self.model)
            if problem_type == "multi_label_classification" or labels.dtype == torch.bool:
                inputs["labels"] = checks.as_labels(labels, num_labels, problem_type)
        config = getattr(unwrap(self.model), "config", None)
        before = getattr(config, "problem_type", None)
        try:
            return super().prediction_step(model, inputs, *args, **kwargs)
        finally:
            if config is not None:  # the model's own forward guesses a problem_type and keeps it
                config.problem_type = before


class MixTrainer(MixTrainerMixin, Trainer):
    """`transformers.Trainer` that trains with a method: see `MixTrainerMixin`.

    Example:
        >>> trainer = MixTrainer(model=model, args=args, method="logitmix", train_dataset=data)  # doctest: +SKIP
    """


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


def _take_plan(inputs: dict[str, Any]) -> MixPlan | None:
    """Take ``partner`` and ``lam`` out of a batch, if they are there."""
    if ("partner" in inputs) != ("lam" in inputs):
        raise ValueError("the batch brings one of `partner` and `lam`: pass both, or neither.")
    return MixPlan(inputs.pop("partner"), inputs.pop("lam")) if "partner" in inputs else None
