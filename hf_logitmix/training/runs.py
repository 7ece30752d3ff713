"""What a training script needs around `MixTrainer`: one run, and the folder with everything that tells about it."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import Trainer

from hf_logitmix.calibration import bootstrap
from hf_logitmix.calibration.metrics import calibration_metrics, one_class_remark, scaled_metrics
from hf_logitmix.calibration.served import config_of
from hf_logitmix.calibration.temperature import cross_fit, fit_temperature
from hf_logitmix.hub.card import public_name, write_eval_results
from hf_logitmix.hub.provenance import data_record, git_record, versions
from hf_logitmix.targets import MCEL
from hf_logitmix.training.arguments import MixTrainingArguments
from hf_logitmix.training.interrupt import SaveOnInterrupt
from hf_logitmix.training.machine import device_name, peak_memory
from hf_logitmix.training.run_card import card_of
from hf_logitmix.training.settings import training_settings
from hf_logitmix.training.splits import HELD_OUT_TO_CALIBRATE, choosing
from hf_logitmix.training.trainer import MixTrainer

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object

logger = logging.getLogger(__name__)

N_BINS = 10


class RunMixin(_Base):
    """For a Trainer in a `Run`: the card that is pushed is the run's own."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        if not (Path(str(self.args.output_dir)) / "README.md").exists():
            super().create_model_card(*args, **kwargs)


@dataclass
class Run:
    """One run: train, evaluate, and write records, pictures and a model card into ``args.output_dir``.

    Call `train` and `evaluate` as wanted, then `finish`. What chooses a checkpoint is never what the figures are of.

    Attributes:
        trainer: with its model, data and arguments; it evaluates on the validation split where there is one.
        task: what is learned, for records.
        data: what the data is called in records.
        base_model: name of the model for records, of a local path only its last part; None for one made from scratch.
        label_names: the classes in order; empty for regression.
        scores: makes the metrics of logits and labels.
        read: makes logits [N, K] with the columns of ``label_names`` of what the model predicts.
        settings: more settings for the records than those of training.
        pipeline_tag: what the Hub calls the task.
        architecture: name for records of a model that was made from scratch.
        how_to_load: for the model card: what it takes besides ``from_pretrained``.
        config: the data's configuration in the model card; empty for data without one.
        split_sizes: name -> number of examples of a whole split, for those of which only a part is used.
        validation: name of the split that is evaluated during training and not reported on; empty where there is none.
        calibration_data: what was held out of training for the temperature alone that the saved model keeps in its
            config; without it the validation split serves, and without that the model keeps none.
        results: what ``all_results.json`` will hold.
        split_of: figure -> the split that it is of, as figures come.
        intervals: figure -> ends of its interval, where it has one.

    Raises:
        ValueError: if a checkpoint is to be chosen and there is no validation split, and for ``calibration_data`` of a
            regression or of several labels an example.
    """

    trainer: MixTrainer
    task: str
    data: str
    base_model: str | None
    label_names: tuple[str, ...]
    scores: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    read: Callable[[Any], np.ndarray]
    settings: Mapping[str, Any] = field(default_factory=dict)
    pipeline_tag: str = "text-classification"
    architecture: str = "from-scratch"
    how_to_load: str = ""
    config: str = ""
    split_sizes: Mapping[str, int] = field(default_factory=dict)
    validation: str = ""
    calibration_data: Any = None
    results: dict[str, Any] = field(init=False)
    split_of: dict[str, str] = field(init=False, default_factory=dict)
    _plots: Any = field(init=False, repr=False)
    intervals: dict[str, tuple[float, float]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._plots = import_module("hf_logitmix.calibration.plots")  # without matplotlib this ends here, untrained
        args, trainer = self._args, self.trainer
        train: Any = trainer.train_dataset
        chosen_by = choosing(trainer) if train else ""
        if chosen_by and not self.validation:
            raise ValueError(
                f"{chosen_by} would choose the model on the examples that its figures are of: pass --val_split 0.1 to "
                "hold out a tenth of the training examples for the choice."
            )
        if self.calibration_data is not None and not self.label_names:
            raise ValueError(
                f"calibration_split holds out examples to fit a temperature on, which is of one class an example, and "
                f"{self.task} has none: leave it out."
            )
        held: Any = trainer.eval_dataset if self.validation else None
        if held is not None and train and args.eval_strategy == "no":
            logger.warning(
                "%s: its %d examples are kept from training and choose no checkpoint: pass --eval_strategy epoch and "
                "--load_best_model_at_end.",
                self.validation,
                len(held),
            )
        self.results = {
            "task": self.task,
            "data": self.data,
            "model": self.model_name,
            **({"method_name": trainer.method.name or "custom", "method": str(trainer.method)} if train else {}),
            "seed": args.seed,
            "data_seed": args.data_seed,
            "n_train": len(train) if train else 0,
            "n_eval": 0,
            "measured_on": {},
            "selected_on": {self.validation: len(held or ())} if chosen_by else None,
            "split_sizes": {self.validation: self._size(self.validation, held)} if chosen_by else {},
            "n_bins": N_BINS,
            "settings": {**(training_settings(args) if train else {}), **self.settings},
            "command": getattr(args, "command", None),
            "git": git_record(),
            "versions": versions(),
            "device": device_name(args.device),
            "digests": {"train": data_record(train)["digest"]} if train else {},
        }

    @property
    def _args(self) -> MixTrainingArguments:
        return self.trainer.args  # type: ignore[return-value]

    def _size(self, split: str, data: Any) -> int:
        return self.split_sizes.get(split, len(data))

    @property
    def model_name(self) -> str:
        return self.architecture if self.base_model is None else public_name(self.base_model)

    @property
    def output(self) -> Path:
        return Path(str(self._args.output_dir))

    def train(self) -> bool:
        """Train and save the model; False if Ctrl-C stopped it, after a checkpoint was saved."""
        interrupt, results, args = SaveOnInterrupt(), self.results, self._args
        self.trainer.add_callback(interrupt)
        started = time.perf_counter()
        with interrupt:
            outcome = self.trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
        if interrupt.stopped:
            return False
        seconds = time.perf_counter() - started
        results["train_seconds"] = seconds  # of a resumed run: since it was resumed
        results["resumed_from_step"] = interrupt.first_step
        results["train_steps_per_second"] = (outcome.global_step - interrupt.first_step) / seconds
        results["train_loss"] = outcome.training_loss
        if (clipped := outcome.metrics.get("train_grad_clipped")) is not None:  # of a resumed run as the seconds
            results["train_grad_clipped"] = clipped
        per_device = self.trainer._train_batch_size  # auto_find_batch_size may have lowered it
        results["settings"]["batch_size"] = per_device * args.world_size * args.gradient_accumulation_steps
        results["settings"]["soft_labels"] = self.trainer.label_spec.soft
        if (masks := getattr(self.trainer.method.mixing, "masks", None)) is not None:
            results["settings"]["masks"] = masks  # found before the first step
        self._keep_learned_targets()
        if self.label_names:
            results["calibration"] = self._calibrate()
        self.trainer.save_model(_internal_call=True)  # which does not push; that comes last, with the card
        return True

    def _calibrate(self) -> dict[str, Any] | None:
        """Keep a temperature in the model, fitted on what was held out; what was kept, None where nothing was."""
        held = {HELD_OUT_TO_CALIBRATE: self.calibration_data}
        held |= {self.validation: self.trainer.eval_dataset} if self.validation else {}
        name, data = next(((name, data) for name, data in held.items() if data is not None), ("", None))
        if data is None:
            return None
        try:
            self.trainer.calibrate(data, name=name)
        except ValueError as error:
            logger.warning("The model keeps no temperature (%s: %s)", name, error)
            return None
        return dict(config_of(self.trainer.model).calibration)

    def evaluate(self, data: Any, split: str, suffix: str = "", title: str | None = None) -> None:
        """Score the model on a dataset, by the name of its split; with a title, draw ``reliability.png``."""
        prediction = self.trainer.predict(data, metric_key_prefix="eval")
        logits, labels = self.read(prediction.predictions), np.asarray(prediction.label_ids)
        scores = {f"{name}{suffix}": value for name, value in self.scores(logits, labels).items()}
        self.results |= {f"eval_{name}": value for name, value in scores.items()}
        self.split_of |= dict.fromkeys(scores, split)
        self.results["measured_on"][split] = len(data)
        self.results["split_sizes"][split] = self._size(split, data)
        self.results["digests"][split] = data_record(data)["digest"]
        self.results["n_eval"] = self.results["n_eval"] or len(data)
        if self.label_names and (remark := one_class_remark(logits, labels)):
            self.results["remarks"] = {**self.results.get("remarks", {}), split: remark}
        if not self.trainer.is_world_process_zero():
            return
        np.savez_compressed(self.output / f"eval_logits{suffix}.npz", logits=logits, labels=labels)
        reach = bootstrap.intervals(logits, labels, N_BINS) if self.label_names else {}
        self.intervals |= {f"{name}{suffix}": ends for name, ends in reach.items() if f"{name}{suffix}" in scores}
        if title and self.label_names:
            panels = {"as trained": (logits, labels), "after temperature scaling": (cross_fit(logits, labels), labels)}
            self._plots.reliability_diagram(panels, N_BINS, title).savefig(self.output / "reliability.png", dpi=150)

    def finish(self) -> dict[str, Any]:
        """Write the records, the model card where there was training, and push if that is asked for.

        Returns:
            what ``all_results.json`` holds.
        """
        results, trained = self.results, "train_loss" in self.results
        results["peak_memory_mib"] = peak_memory(self._args.device)
        if self.trainer.is_world_process_zero():
            if trained:
                _write(self.output / "log_history.json", self.trainer.state.log_history)
            _write(self.output / "all_results.json", results, indent=2)  # by which a run is known to be complete
            if trained:
                card = card_of(self)
                card.save(self.output / "README.md")
                write_eval_results(card, self.output)
        if self._args.push_to_hub and trained:
            self._push()
        return results

    def _push(self) -> None:
        try:
            self.trainer.push_to_hub()
        except Exception as error:
            raise OSError(
                f"push_to_hub failed ({type(error).__name__}: {error}): nothing is lost, the run is complete in "
                f"{self.output}; `hf upload {self.trainer.hub_model_id} {self.output} . --exclude 'checkpoint-*'` "
                "uploads it."
            ) from error

    def _keep_learned_targets(self) -> None:
        """The rows that stood for the labels at the end of training; for the MCEL family pictures of them too."""
        if not isinstance(self.trainer.method.targets, MCEL) or not self.trainer.is_world_process_zero():
            return
        targets: Any = self.trainer.method_in_training.targets
        rows = {"class_similarity": targets.class_similarity, "targets": targets.matrix(len(self.label_names))}
        for name, matrix in rows.items():
            assert matrix is not None  # they were found before training
            title = f"{self.task}, {name.replace('_', ' ')}"
            self._plots.class_matrix(matrix.detach().cpu(), list(self.label_names), title).savefig(
                self.output / f"{name}.png", dpi=150
            )
            self.results[name] = matrix.tolist()


def _write(path: Path, values: Any, **options: Any) -> None:
    """Write JSON so that the file is never there in part."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(_finite(values), allow_nan=False, **options) + "\n")
    part.replace(path)


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def calibration(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How well probabilities fit, as trained and after cross-fitted temperature scaling, and the temperature."""
    return {
        **calibration_metrics(logits, labels, N_BINS),
        **scaled_metrics(logits, labels, N_BINS),
        "temperature": float(fit_temperature(logits, labels)),
    }
