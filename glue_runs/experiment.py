"""One run: tokenise, train, evaluate, predict, and leave everything that tells about it in one folder."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
import transformers
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from glue_runs.interrupt import SaveOnInterrupt
from glue_runs.tasks import Split, Task, task_metrics
from hf_logitmix import MixTrainer, MixTrainingArguments, __version__
from hf_logitmix.hub import model_card, public_name
from hf_logitmix.metrics import calibration_metrics
from hf_logitmix.plots import class_matrix, reliability_diagram
from hf_logitmix.targets import MCEL
from hf_logitmix.temperature import cross_fit, fit_temperature

N_BINS = 10
SCALED = ("ece", "oe", "nll", "brier")
Splits = Mapping[str, list[tuple[Split, Dataset]]]


@dataclass(frozen=True)
class Experiment:
    """What is trained on what.

    Attributes:
        task: from `glue_runs.tasks`.
        splits: name -> (split, dataset) pairs, from `glue_runs.data.load_task`.
        model: with a head for the task.
        tokenizer: of the model.
        base_model: name of the model for records, of a local path only its last part; None for one made from scratch.
        max_seq_length: longer inputs are cut.
        data_name: what the data is called in records.
        label_noise: what was done to the training labels, for records; None for nothing.
    """

    task: Task
    splits: Splits
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    base_model: str | None
    max_seq_length: int = 128
    data_name: str = "nyu-mll/glue"
    label_noise: str | None = None

    def run(self, args: MixTrainingArguments) -> dict[str, Any] | None:
        """Train, evaluate and predict as ``args`` says; write the output folder.

        Returns:
            what ``all_results.json`` holds, or None if the run was interrupted and saved.
        """
        data = {name: [(split, self._tokenise(part)) for split, part in parts] for name, parts in self.splits.items()}
        train, dev = data.get("train", []), data.get("dev", [])
        interrupt = SaveOnInterrupt()
        trainer = GlueTrainer(
            model=self.model,
            args=args,
            train_dataset=train[0][1] if train else None,
            eval_dataset=dev[0][1] if dev else None,
            data_collator=DataCollatorWithPadding(self.tokenizer),
            processing_class=self.tokenizer,
            compute_metrics=self._compute_metrics,
            callbacks=[interrupt],
        )
        output, results = Path(args.output_dir), self._description(args, trainer, train, dev)
        if train:
            started = time.perf_counter()
            with interrupt:
                outcome = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
            if interrupt.stopped:
                return None
            seconds = time.perf_counter() - started
            results["train_seconds"] = seconds  # of a resumed run: since it was resumed
            results["resumed_from_step"] = interrupt.first_step
            results["train_steps_per_second"] = (outcome.global_step - interrupt.first_step) / seconds
            results["train_loss"] = outcome.training_loss
            results |= self._learned_targets(trainer, output)
            trainer.save_model(_internal_call=True)  # which does not push; that comes last, with the card
        for number, (split, part) in enumerate(dev):
            prediction = trainer.predict(part, metric_key_prefix="eval")
            logits, labels = self._logits(prediction.predictions), np.asarray(prediction.label_ids)
            results |= {f"eval_{key}{split.suffix}": value for key, value in self.scores(logits, labels).items()}
            if trainer.is_world_process_zero():
                np.savez(output / f"eval_logits{split.suffix}.npz", logits=logits, labels=labels)
                if not number and not self.task.is_regression:
                    title = f"{self.task.name}, {results.get('method_name', results['model'])}"
                    _diagram(logits, labels, title, output / "reliability.png")
        for split, part in data.get("test", []):
            prediction = trainer.predict(part, metric_key_prefix="predict")
            if trainer.is_world_process_zero():
                write_submission(self.task, split, self._logits(prediction.predictions), output / "submission")
        if trainer.is_world_process_zero():
            self._write_records(output, results, trainer)
        if args.push_to_hub and train:
            trainer.push_to_hub()
        return results

    def _learned_targets(self, trainer: MixTrainer, output: Path) -> dict[str, Any]:
        """The rows that stood for the labels at the end of training; for the MCEL family a picture of them too."""
        targets = trainer.method.targets
        if not isinstance(targets, MCEL) or not trainer.is_world_process_zero():
            return {}
        rows = targets.matrix(self.task.num_labels).detach().cpu()
        names = list(self.task.label_names)
        class_matrix(targets.class_similarity, names, f"{self.task.name}, class similarity").savefig(
            output / "class_similarity.png", dpi=150
        )
        class_matrix(rows, names, f"{self.task.name}, targets").savefig(output / "targets.png", dpi=150)
        return {"class_similarity": targets.class_similarity.tolist(), "targets": rows.tolist()}

    def scores(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The task's metrics; for classes calibration too, before and after cross-fitted temperature scaling."""
        scores = task_metrics(self.task, labels, logits)
        if self.task.is_regression:
            return scores
        scores |= calibration_metrics(logits, labels, N_BINS)
        scaled = calibration_metrics(cross_fit(logits, labels), labels, N_BINS)
        scores |= {f"{name}_scaled": scaled[name] for name in SCALED}
        return scores | {"temperature": fit_temperature(logits, labels)}

    def _compute_metrics(self, prediction: Any) -> dict[str, float]:
        logits, labels = self._logits(prediction.predictions), np.asarray(prediction.label_ids)
        calibration = {} if self.task.is_regression else calibration_metrics(logits, labels, N_BINS)
        return calibration | task_metrics(self.task, labels, logits)

    def _logits(self, predictions: Any) -> np.ndarray:
        """Predictions with a column for each of the task's classes, in its order, which a model may not keep.

        Raises:
            ValueError: for a model whose classes have other names.
        """
        logits = np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions)
        names = {str(name).lower(): column for column, name in self.model.config.id2label.items()}
        if self.task.is_regression or all(name.startswith("label_") for name in names):
            return logits
        if not set(self.task.label_names) <= set(names):
            raise ValueError(
                f"the model's classes are {', '.join(names)} and the task's {', '.join(self.task.label_names)}: pass a "
                "model of this task."
            )
        return logits[:, [names[name] for name in self.task.label_names]]

    @property
    def _model_name(self) -> str:
        return "from-scratch" if self.base_model is None else public_name(self.base_model)

    def _tokenise(self, data: Dataset) -> Dataset:
        def encode(batch: dict[str, list]) -> dict[str, Any]:
            return dict(
                self.tokenizer(
                    *(batch[name] for name in self.task.texts), truncation=True, max_length=self.max_seq_length
                )
            )

        return data.map(encode, batched=True, remove_columns=list(self.task.texts), desc="tokenise")

    def _description(self, args: MixTrainingArguments, trainer: MixTrainer, train: list, dev: list) -> dict[str, Any]:
        return {
            "task": self.task.name,
            "data": self.data_name,
            "model": self._model_name,
            **({"method_name": args.method or "logitmix", "method": str(trainer.method)} if train else {}),
            "seed": args.seed,
            "data_seed": args.data_seed,
            "n_train": len(train[0][1]) if train else 0,
            "n_eval": len(dev[0][1]) if dev else 0,
            "n_bins": N_BINS,
            "settings": {
                "max_seq_length": self.max_seq_length,
                **({"label_noise": self.label_noise} if self.label_noise else {}),
                **(_training_settings(args) if train else {}),
            },
            "versions": {
                "hf_logitmix": __version__,
                "transformers": transformers.__version__,
                "torch": torch.__version__,
                "accelerate": accelerate.__version__,
                "python": platform.python_version(),
            },
            "device": _device_name(args.device),
        }

    def _write_records(self, output: Path, results: dict[str, Any], trainer: MixTrainer) -> None:
        finite = {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in results.items()}
        (output / "all_results.json").write_text(json.dumps(finite, indent=2, allow_nan=False) + "\n")
        metrics = {name.removeprefix("eval_"): value for name, value in results.items() if name.startswith("eval_")}
        if "train" not in self.splits:
            return
        model_card(
            f"{self._model_name}-{self.task.name}-{results['method_name']}",
            trainer.method,
            metrics,
            base_model=self.base_model,
            dataset=self.data_name,
            dataset_config=self.task.name,
            settings={**results["settings"], "seed": results["seed"]},
        ).save(output / "README.md")


class GlueTrainer(MixTrainer):
    """Leaves no pickled arguments beside a model, and pushes the card that the run wrote."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        (Path(output_dir or str(self.args.output_dir)) / "training_args.bin").unlink(missing_ok=True)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        if not (Path(str(self.args.output_dir)) / "README.md").exists():
            super().create_model_card(*args, **kwargs)


def write_submission(task: Task, split: Split, logits: np.ndarray, folder: Path) -> Path:
    """Write predictions as the GLUE server expects them: a header, then index and prediction, by tabs."""
    folder.mkdir(parents=True, exist_ok=True)
    if task.is_regression:
        low, high = task.score_range or (-np.inf, np.inf)
        values = [f"{value:.3f}" for value in np.clip(logits[:, 0], low, high)]
    else:
        classes = logits.argmax(1)
        values = [task.label_names[k] if task.writes_names else str(k) for k in classes]
    path = folder / split.submission
    lines = [f"{number}\t{value}" for number, value in enumerate(values)]
    path.write_text("index\tprediction\n" + "\n".join(lines) + "\n")
    return path


def _training_settings(args: MixTrainingArguments) -> dict[str, Any]:
    return {
        "learning_rate": args.learning_rate,
        "num_train_epochs": args.num_train_epochs,
        "max_steps": args.max_steps,
        "batch_size": args.train_batch_size * args.world_size * args.gradient_accumulation_steps,
        "warmup_steps": args.warmup_steps,
        "lr_scheduler_type": str(args.lr_scheduler_type.value),
        "weight_decay": args.weight_decay,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def _diagram(logits: np.ndarray, labels: np.ndarray, title: str, path: Path) -> None:
    panels = {"as trained": (logits, labels), "after temperature scaling": (cross_fit(logits, labels), labels)}
    reliability_diagram(panels, N_BINS, title).savefig(path, dpi=150)
