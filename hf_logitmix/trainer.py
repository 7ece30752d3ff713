"""The adapter between `transformers.Trainer` and the three axes. It knows no method by name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.data_loader import DataLoaderDispatcher
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_logitmix import checks
from hf_logitmix.arguments import MixTrainingArguments
from hf_logitmix.checkpoints import last_complete_checkpoint, load_renamed, why_torn
from hf_logitmix.collator import MixCollator
from hf_logitmix.extras import ExtrasMixin
from hf_logitmix.forward import mixed_forward
from hf_logitmix.methods import Method, get_method
from hf_logitmix.models import unwrap
from hf_logitmix.moment import Moment
from hf_logitmix.plan import MixPlan
from hf_logitmix.rehearsal import rehearse
from hf_logitmix.search import SearchMixin
from hf_logitmix.targets import LabelSmoothing, OneHot
from hf_logitmix.training_set import TrainingSet

logger = logging.getLogger(__name__)


class MixTrainerMixin(SearchMixin, ExtrasMixin):
    """Trains with a `Method`; put it in front of any subclass of `transformers.Trainer`.

    Training: labels are taken out of the batch, a plan is drawn (or taken from the batch keys ``partner`` and ``lam``),
    one forward makes the rows that the objective asks for, and the terms of the loss are logged beside ``loss``.
    Evaluation is un-mixed and takes Trainer's own path, with the plain loss.

    The loss of an optimizer step is the mean over all its examples, whatever the number of micro-batches and processes
    and however unequal they are. (Trainer alone leaves the loss of most classification heads undivided by the
    accumulation steps: https://github.com/huggingface/transformers/issues/47688.)

    Args:
        method: a name in `METHODS`, or a `Method`. It overrides ``args.method``; with neither it is ``logitmix``.
            Options that are set in `MixTrainingArguments` apply on top.
        rehearse: whether to try on two rows of the first batch, before anything is learned from it, if this model is
            mixed as it should be (`hf_logitmix.rehearsal.rehearse`); None takes ``args.rehearse``, or True.

    Raises:
        ValueError: before training, for anything that this method cannot do with this model and these labels.
    """

    def __init__(
        self, *args: Any, method: str | Method | None = None, rehearse: bool | None = None, **kwargs: Any
    ) -> None:
        self._method_given = method
        self._rehearse_given = rehearse
        self._is_rehearsed = False
        self._extras = nn.ModuleDict()
        super().__init__(*args, **kwargs)
        if self.compute_loss_func is not None:
            raise ValueError("compute_loss_func would replace the method's loss: leave it out, or use Trainer.")
        # compute_loss returns a mean, which Trainer is to divide by the number of micro-batches.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = False
        self.label_smoother = None  # it became the method's targets, so that evaluation stays plain
        self._examples_per_micro_batch: Tensor | float | None = None
        self._terms: dict[str, tuple[Tensor, int]] = {}
        self._resumed_from: Path | None = None
        self._loads_from = ""
        self._is_prepared = False
        checks.check_launch(self.args)
        checks.check_head(self.model)
        if isinstance(self.data_collator, MixCollator):
            checks.check_plan_in_batch(self.args, is_dispatched=False)
        self._labels_are_checked = checks.check_datasets(self.train_dataset, self.eval_dataset, self.model)
        self._resolve_method()

    def _resolve_method(self) -> None:
        """Build the method from what was given and from the arguments, which a hyperparameter search changes."""
        given = self._method_given or getattr(self.args, "method", None) or "logitmix"
        method = get_method(given) if isinstance(given, str) else given
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
        labels = self._take_labels(inputs)
        self._rehearse(model, inputs, labels)
        moment = Moment(self.state.global_step, self.state.max_steps, self.args.seed)
        method = self.method.at(moment).for_batch(inputs, labels)
        plan = method.mixing.plan(len(labels), device=labels.device) if plan is None else plan
        output = mixed_forward(model, inputs, plan, mixing=method.mixing, rows=method.objective.rows)
        num_labels, _ = checks.head_of(self.model)
        data_loss, terms = method.objective(output, labels, method.targets.matrix(num_labels))
        penalty, penalties = method.targets.penalty()
        if penalties:
            terms = {**terms, "data_loss": data_loss, **penalties}
        if method.objective.rows != "clean":
            terms = {**terms, "lam_mean": output.plan.lam.mean()}
        share = self._share_of_step(len(labels))
        self._remember(terms, share)
        loss, logits = share * (data_loss + penalty), output.mixed_logits if output.logits is None else output.logits
        return (loss, {"logits": logits[:, :num_labels]}) if return_outputs else loss  # type: ignore[index]

    def _rehearse(self, model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> None:
        """Try the mixing once a training run, on the first batch that has two rows; every process does it by itself."""
        mixing, objective = self.method.mixing, self.method.objective
        if self._is_rehearsed or len(labels) < 2:
            return
        self._is_rehearsed = True
        kinds = {objective.rows, "mixed" if objective.drops_clean_rows else objective.rows} - {"clean"}
        if not mixing.mixes or not kinds:
            return
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            logger.warning("FSDP and DeepSpeed cut up the model, so the mixing is not tried before training.")
            return
        for rows in sorted(kinds):
            rehearse(model, inputs, mixing.for_batch(labels), rows)

    def _take_labels(self, inputs: dict[str, Any]) -> Tensor:
        if inputs.get("labels") is None:
            raise ValueError(
                f"the batch holds no `labels`, only {', '.join(inputs)}: rename the label column to `labels`."
            )
        if not self._labels_are_checked:
            checks.note_multi_label(self.model, inputs["labels"])
        num_labels, problem_type = checks.head_of(self.model)
        labels = checks.as_labels(inputs.pop("labels"), num_labels, problem_type)
        if not self._labels_are_checked:
            checks.check_labels(labels.cpu().numpy(), num_labels, problem_type)
        return labels

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        batches, items = super().get_batch_samples(*args, **kwargs)
        sizes = [len(batch["labels"]) for batch in batches if isinstance(batch.get("labels"), Tensor)]
        self._examples_per_micro_batch = sum(sizes) / len(sizes) if sizes else None
        if self.args.world_size > 1:
            count = torch.tensor([[sum(sizes), len(sizes)]], dtype=torch.float32, device=self.args.device)
            examples, micro_batches = self.accelerator.gather(count).sum(0)
            self._examples_per_micro_batch = examples / micro_batches
        return batches, items

    def _share_of_step(self, batch_size: int) -> Tensor | float:
        """A micro-batch's size over the mean size in this optimizer step, on all processes: 1 where all are equal.

        Trainer averages micro-batches and processes; with this factor that average is the mean over examples.
        """
        return 1.0 if self._examples_per_micro_batch is None else batch_size / self._examples_per_micro_batch

    # ---- the log -----------------------------------------------------------------------------------------------

    def _remember(self, terms: dict[str, Tensor], share: Tensor | float) -> None:
        for name, value in terms.items():
            total, count = self._terms.get(name, (torch.zeros_like(value), 0))
            self._terms[name] = (total + share * value.detach(), count + 1)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._terms:
            means = torch.stack([total / count for total, count in self._terms.values()]).reshape(1, -1)
            logs |= dict(zip(self._terms, self.accelerator.gather(means).mean(0).tolist(), strict=True))
            self._terms.clear()
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
        if self.optimizer is None or not self._is_prepared:  # else a second call of train() goes on
            self._resolve_method()  # again, because the arguments may have been changed, as by a hyperparameter search
            self.method = self.method.prepare(self._training_set())
            self._use_extras(self.method)
            self._is_prepared = True
        self._terms.clear()
        given = self._rehearse_given
        self._is_rehearsed = not (getattr(self.args, "rehearse", True) if given is None else given)
        if self.args.torch_compile:
            torch.compiler.reset()  # code that was compiled for a model without hooks would be taken for this one
        with self.method.attached(self.model):  # before the model is compiled; gone when this ends or raises
            return super()._inner_training_loop(*args, **kwargs)

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
            if problem_type == "multi_label_classification":
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


def _take_plan(inputs: dict[str, Any]) -> MixPlan | None:
    """Take ``partner`` and ``lam`` out of a batch, if they are there."""
    if ("partner" in inputs) != ("lam" in inputs):
        raise ValueError("the batch brings one of `partner` and `lam`: pass both, or neither.")
    return MixPlan(inputs.pop("partner"), inputs.pop("lam")) if "partner" in inputs else None
