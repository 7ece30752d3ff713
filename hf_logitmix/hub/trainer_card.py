"""The card of a Trainer's model, made from what the Trainer knows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import metadata_load, try_to_load_from_cache
from torch import nn
from transformers.trainer_utils import has_length

from hf_logitmix.calibration.served import FOLDED, NAME, config_of
from hf_logitmix.calibration.temperature import cross_fit
from hf_logitmix.hub.card import model_card, write_eval_results
from hf_logitmix.hub.evaluations import N_BINS, SINGLE, EvaluationsMixin, Figures
from hf_logitmix.hub.provenance import record_of, versions
from hf_logitmix.hub.usage import usage
from hf_logitmix.method import Method
from hf_logitmix.models import is_adapter, public_name, unwrap
from hf_logitmix.training.calibrating import is_same_data
from hf_logitmix.training.naming import DataFacts, facts_of
from hf_logitmix.training.settings import training_settings
from hf_logitmix.training.splits import choosing

if TYPE_CHECKING:

    class _Base(EvaluationsMixin):
        """What the mixin is put in front of, with what else it asks of it."""

        method: Method
        _calibrated_on: Any
else:
    _Base = EvaluationsMixin

logger = logging.getLogger(__name__)

DIAGRAM = "reliability.png"
_SCALED_ADAPTER = (
    "A calibration was fitted, which an adapter does not keep: its probabilities are as trained, unless the model is "
    "saved after `merge_and_unload()`."
)
_SMALL_MODELS = "hf_logitmix.vision.small_models"


class CardMixin(_Base):
    """Writes the card of `hf_logitmix.hub.card`, with the figures of the last evaluation of the model as it is."""

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write ``README.md``, and ``reliability.png`` where the logits of the last evaluation are known.

        Args:
            language, license: of the model; None takes those of the base model's card, if that is on this machine.
            tags: further ones.
            model_name: title of the card; None takes the name of the folder.
            finetuned_from: base model; None takes what the model was loaded from.
            tasks: what the Hub calls the task; None for what the model does.
            dataset_tags, dataset, dataset_args: the training data's id on the Hub, its name, which counts without an
                id, and its configuration; None takes what the dataset tells of itself.
        """
        if not self.is_world_process_zero():
            return
        output, config = Path(str(self.args.output_dir)), config_of(self.model)
        base = finetuned_from or getattr(config, "_name_or_path", None) or None
        title = model_name or output.name
        trained = self.state.global_step > 0 and self.train_dataset is not None
        data = self._data_facts(_first(dataset_tags) or _first(dataset), _first(dataset_args))
        evaluated = self._current_evaluations()
        found, has_diagram = Figures(), False
        for prefix, one in evaluated.items():
            found.add(self._split_name(prefix, one.data), prefix.removeprefix("eval").strip("_"), one)
        if rows := next(
            (one.rows for one in evaluated.values() if one.rows is not None and len(one.rows[0]) > 1), None
        ):
            has_diagram = _draw(rows, title, output / DIAGRAM)
        is_peft = is_adapter(self.model)
        task, has_softmax = _first(tasks) or self._task(), self.label_spec.problem_type == SINGLE
        kept, known = getattr(config, NAME, None), card_of_base(base)
        if is_peft and kept is not None:
            found.remarks.append(_SCALED_ADAPTER)
        if not trained and (steps := (before := record_of(base)).get("steps")):
            name = before.get("method") or "parts of its own"
            found.remarks.append(f"Before, it was trained with {name} for {steps} steps.")
        loads = "import hf_logitmix.vision" if is_small_model(self.model) else ""
        card = model_card(
            title,
            self.method,
            found.metrics,
            base_model=base,
            dataset=data.name,
            dataset_config=data.config,
            split=found.split_of,
            measured_on=found.counts,
            remarks=found.remarks,
            settings=self._card_settings(),
            pipeline_tag=task,
            how_to_load="The architecture is one of hf_logitmix: `import hf_logitmix.vision` before it is loaded."
            if loads
            else "",
            trained=trained,
            measured=self._measured_data(data, [one.data for one in evaluated.values()]) if evaluated else None,
            intervals=found.intervals,
            calibration=None if is_peft else kept,
            folded=getattr(config, FOLDED, None) or (),
            diagram=DIAGRAM if has_diagram else "",
            usage=usage(title, task, None if is_peft else kept, preamble=loads, peft=is_peft) if has_softmax else "",
            limits=self._limits([one.data for one in evaluated.values()], kept) if trained else (),
            versions=versions(),
            library_name="peft" if is_peft else "transformers",
            license=license or known.get("license"),
            language=language or known.get("language"),
            tags=[tags] if isinstance(tags, str) else tags or (),
        )
        card.save(output / "README.md")
        write_eval_results(card, output)

    def _data_facts(self, name: str | None, config: str | None) -> DataFacts:
        train = self.train_dataset
        own = facts_of(train, len(train) if has_length(train) else None)
        return own if name is None else DataFacts(name, config or "", "")

    def _measured_data(self, trained_on: DataFacts, measured: Sequence[Any]) -> tuple[str, str]:
        """What figures are of: what the evaluation data tell; what was passed, where the training data's name was."""
        if trained_on.name != self._data_facts(None, None).name:
            return trained_on.name, trained_on.config
        data = measured[0]
        own = facts_of(data, len(data) if has_length(data) else None)
        return own.name, own.config

    def _split_name(self, prefix: str, data: Any) -> str:
        """What an evaluation was on: the split that the dataset tells, unless the training set tells the same."""
        part = prefix.removeprefix("eval").strip("_")
        split = facts_of(data, None).split
        return split if split and split != facts_of(self.train_dataset, None).split else part or "evaluation"

    def _task(self) -> str:
        is_image = getattr(unwrap(self.model), "main_input_name", "") == "pixel_values"
        return "image-classification" if is_image else "text-classification"

    def _card_settings(self) -> dict[str, Any]:
        seeds = {"seed": self.args.seed, "data_seed": self.args.data_seed}
        train = self.train_dataset
        sizes = {"training_examples": len(train)} if has_length(train) else {}
        every = {**training_settings(self.args), **seeds, **sizes, "steps": self.state.global_step}
        told = {name: value for name, value in every.items() if value is not None and value is not False}
        return {name: _public(value) for name, value in told.items() if value not in ({}, [], "")}

    def _limits(self, measured: Sequence[Any], kept: Any) -> Sequence[str]:
        said = limits_of(self.args.seed, bool(measured))

        def is_measured(data: Any) -> bool:
            return any(is_same_data(data, one) for one in measured)

        chosen_by = choosing(self)
        if chosen_by and (not measured or any(map(is_measured, _all_of(self.eval_dataset)))):
            said.append(
                f"{chosen_by} chose the model on the evaluation examples, which makes figures on these look better."
            )
        if kept is not None and is_measured(self._calibrated_on):
            said.append(
                "Its temperature was fitted on the evaluation examples; metrics that end in `_scaled` are "
                "cross-fitted and do not use it."
            )
        return said


def _draw(rows: tuple[np.ndarray, np.ndarray], title: str, path: Path) -> bool:
    """Draw the reliability of logits and labels; False without matplotlib."""
    try:
        from hf_logitmix.calibration.plots import reliability_diagram
    except ImportError as error:
        logger.warning("The card has no reliability diagram: %s", error)
        return False
    panels = {"as trained": rows, "after temperature scaling": (cross_fit(*rows), rows[1])}
    reliability_diagram(panels, N_BINS, title).savefig(path, dpi=150)
    return True


def limits_of(seed: int, is_evaluated: bool) -> list[str]:
    """What no single run has looked at."""
    return [
        f"One run with one seed ({seed}): how much another seed changes was not looked at.",
        "Figures hold for examples drawn like those they are of: shifted data were not tried."
        if is_evaluated
        else "It was not evaluated as it is.",
        "Groups of examples, such as of people or topics, were not compared.",
    ]


def card_of_base(base: str | None) -> dict[str, Any]:
    """License and language of the base model's card, if a copy of it is on this machine."""
    if base is None:
        return {}
    path: Any = Path(base) / "README.md"
    try:
        if not path.exists():
            path = try_to_load_from_cache(base, "README.md")
        found = metadata_load(path) if isinstance(path, (str, Path)) else None
    except ValueError:  # no name of the Hub, or no card that can be read
        return {}
    return {
        name: value for name, value in (found or {}).items() if name in ("license", "language") and value != "other"
    }


def is_small_model(model: nn.Module) -> bool:
    return any(type(module).__module__ == _SMALL_MODELS for module in unwrap(model).modules())


def _all_of(data: Any) -> list[Any]:
    return list(data.values()) if isinstance(data, dict) else [data]


def _first(given: Any) -> str | None:
    return given if given is None or isinstance(given, str) else str(given[0]) if given else None


def _public(value: Any) -> Any:
    return public_name(value) if isinstance(value, str) and "/" in value else value
