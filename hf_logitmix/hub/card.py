"""Model cards: what was trained, how, and how well, without a path or a token of the machine."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import yaml_dump

from hf_logitmix._version import __version__
from hf_logitmix.calibration.bootstrap import SAMPLES
from hf_logitmix.calibration.registry import metric_of
from hf_logitmix.methods import Method
from hf_logitmix.models import public_name
from hf_logitmix.papers import Paper
from hf_logitmix.part import EQUATION_NAMES

_HOW_CALIBRATION_IS_MEASURED = (
    "Calibration errors use 10 bins of equal width. Metrics ending in `_scaled` are measured after temperature "
    "scaling, cross-fitted in two halves of this split."
)

_HOW_FAR = (
    f"Intervals hold 95% of {SAMPLES} samples of these examples, drawn with replacement, around the value; they tell "
    "nothing of another seed of training."
)

EVAL_RESULTS = ".eval_results/hf_logitmix.yaml"
_HUB_ID = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")


def model_card(
    name: str,
    method: Method,
    metrics: Mapping[str, float],
    *,
    base_model: str | None,
    dataset: str,
    dataset_config: str = "",
    split: str | Mapping[str, str] = "validation",
    measured_on: Mapping[str, int] | None = None,
    selected_on: Mapping[str, int] | None = None,
    split_sizes: Mapping[str, int] | None = None,
    temperature: Mapping[str, float] | None = None,
    remarks: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
    pipeline_tag: str = "text-classification",
    how_to_load: str = "",
    trained: bool = True,
    measured: tuple[str, str] | None = None,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    calibration: Mapping[str, Any] | None = None,
    folded: Sequence[Mapping[str, Any]] = (),
    diagram: str = "",
    usage: str = "",
    limits: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    library_name: str = "transformers",
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    tags: Sequence[str] = (),
) -> ModelCard:
    """A card with the method, its equations and source, the metrics, how to use the model, its limits and the settings.

    Args:
        name: title of the card.
        method: how the model was trained.
        metrics: name -> value.
        base_model: Hub name or local path, of which only the last part is written; None for one made from scratch.
        dataset, dataset_config, split: what the metrics were measured on, as named on the Hub; where they are of
            several splits, metric -> split. Of data that is not there, ``dataset`` may be any text.
        measured_on: split -> number of its examples.
        selected_on: the same of what the checkpoint was chosen on; None where the last one was taken.
        split_sizes: split -> number of examples of the whole of it, where it is known.
        temperature: split -> the temperature that was fitted on it.
        remarks: sentences that stand below the metrics.
        settings: name -> value, such as the learning rate.
        pipeline_tag: what the Hub calls the task.
        how_to_load: what it takes besides ``from_pretrained``.
        trained: whether the method, which is not told otherwise, has trained the model.
        measured: dataset and configuration that the metrics are of, where they are not those that were trained on.
        intervals: metric -> lower and upper end of 95% of samples, of those for which they are known.
        calibration: what the model keeps as ``config.calibration``.
        folded: calibrations that are in its weights.
        diagram: name of a picture beside the card.
        usage: Python that gives calibrated probabilities, see `hf_logitmix.hub.usage`.
        limits: sentences on what was not checked, and on what the figures cannot tell.
        versions: package -> version.
        library_name: what the Hub loads the model with.
        license, language: as the Hub names them; None where they are not known.
        tags: besides those of this package.
    """
    on_hub = base_model is not None and not Path(base_model).exists() and not Path(base_model).is_absolute()
    origin = "Trained from scratch" if base_model is None else f"Fine-tuned from `{public_name(base_model)}`"
    split_of = dict.fromkeys(metrics, split) if isinstance(split, str) else split
    counts, whole = measured_on or {}, split_sizes or {}
    measured_data, measured_config = measured or (dataset, dataset_config)
    of_data = f"{measured_data} {measured_config}".strip()
    cut = {
        name: f"{of_data} ({count:,} of {whole[name]:,} examples)"
        for name, count in counts.items()
        if count < whole.get(name, count)
    }
    results = [
        EvalResult(
            task_type=pipeline_tag,
            dataset_type=dataset_type(measured_data),
            dataset_name=cut.get(split_of[metric], of_data),
            dataset_config=measured_config or None,
            dataset_split=split_of[metric],
            metric_type=metric,
            metric_value=round(float(value), 6),  # of a NumPy number YAML would keep the type
        )
        for metric, value in metrics.items()
        if math.isfinite(value)  # the Hub takes numbers alone
    ]
    data = ModelCardData(
        base_model=base_model if on_hub else None,
        datasets=dataset if _HUB_ID.fullmatch(dataset) else None,
        license=license,
        language=list(language) if language is not None and not isinstance(language, str) else language,
        library_name=library_name,
        pipeline_tag=pipeline_tag,
        tags=list(dict.fromkeys(["hf_logitmix", "calibration", *tags])),
        model_name=name if results else None,
        eval_results=results or None,
    )
    used = "\n".join(f"* {key}: {value}" for key, value in (settings or {}).items())
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        f"{origin} on {dataset}{dataset_config and f' `{dataset_config}`'} with hf_logitmix {__version__}."
        if trained
        else f"Not trained by the Trainer that saved it, with hf_logitmix {__version__}.",
        *([how_to_load] if how_to_load else []),
        *_results(metrics, list(dict.fromkeys(split_of.values())), counts, selected_on or {}, whole, intervals or {}),
        *(f"The temperature fitted on `{name}` is {value:.4f}." for name, value in (temperature or {}).items()),
        *remarks,
        *([f"![Reliability: accuracy against confidence]({diagram})"] if diagram else []),
        *(["## How to use it", *_calibrated(calibration, folded), f"```python\n{usage}\n```"] if usage else []),
        *(_method(method) if trained else []),
        *(["## Limits", "\n".join(f"* {sentence}" for sentence in limits)] if limits else []),
        *(["## Settings", used] if used else []),
        *(["## Versions", "\n".join(f"* {key}: {value}" for key, value in versions.items())] if versions else []),
        *(
            ["## Citation", "\n\n".join(f"```bibtex\n{paper.bibtex}\n```" for paper in method.papers)]
            if method.papers and trained
            else []
        ),
    ]
    return ModelCard("\n\n".join(parts) + "\n")


def write_eval_results(card: ModelCard, folder: Path) -> None:
    """Write the results of a card as ``.eval_results/hf_logitmix.yaml`` too, one entry a metric.

    These are results on datasets of the Hub, which shows them by ``task_id``: configuration and metric, so that none is
    taken for another. Of other data there are none, and a file of an earlier card is deleted.
    """
    entries = [
        {
            "dataset": {"id": one.dataset_type, "task_id": f"{one.dataset_config or 'default'}_{one.metric_type}"},
            "value": one.metric_value,
            "notes": f"{one.metric_type} on {one.dataset_name}, split {one.dataset_split}",
        }
        for one in getattr(card.data, "eval_results", None) or ()
        if _HUB_ID.fullmatch(one.dataset_type)
    ]
    path = folder / EVAL_RESULTS
    if entries:
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml_dump(entries), encoding="utf-8")
    else:
        path.unlink(missing_ok=True)


def dataset_type(dataset: str) -> str:
    """What the Hub takes for a dataset's identifier: an id of it, or the first words of another name in that form.

    Example:
        >>> dataset_type("nyu-mll/glue"), dataset_type("GLUE, local files")
        ('nyu-mll/glue', 'glue')
    """
    if _HUB_ID.fullmatch(dataset):
        return dataset
    if dataset.startswith("a dataset of "):
        return "unnamed"
    words = re.findall(r"[a-z0-9]+", re.split(r"[,(]", dataset)[0].lower())
    return "-".join(words) or "unnamed"


def _method(method: Method) -> list[str]:
    """The section on the method: its parts, what they do, and where they are from."""
    equations = [f"$${part.equation}$$" for part in method.parts.values() if part.equation]
    return [
        "## Method",
        f"```\n{_in_lines(method)}\n```",
        *([*equations, EQUATION_NAMES] if equations else []),
        *([_sources(method.papers)] if method.papers else []),
    ]


def _in_lines(method: Method) -> str:
    """Its ``repr``, a line for each part."""
    parts: dict[str, Any] = dict(method.parts)
    if method.class_weights is not None:
        parts["class_weights"] = method.class_weights
    return "\n".join(["Method(", *(f"    {name}={part!r}," for name, part in parts.items()), ")"])


def _calibrated(calibration: Mapping[str, Any] | None, folded: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether probabilities are calibrated as they come, and by what."""
    said = [
        f"Its last layer holds {_scaling(one)}, so that its probabilities are scaled as they come." for one in folded
    ]
    if calibration is not None:
        said.append(
            f"It keeps {_scaling(calibration)} as `config.calibration`, which plain transformers does not apply: the "
            "lines below do, and so do `hf_logitmix.calibrated_pipeline` and, for good, `hf_logitmix.fold_temperature`."
        )
    return said or ["It keeps no temperature: fit one on held-out examples of yours to have calibrated probabilities."]


def _scaling(record: Mapping[str, Any]) -> str:
    what = f"the temperature {record['temperature']:.4f}" if "temperature" in record else "a vector scaling"
    of = f", fitted on {record['n']:,} examples" if "n" in record else ""
    return what + of + (f" ({record['fitted_on']})" if record.get("fitted_on") else "")


def _sources(papers: Sequence[Paper]) -> str:
    """Where the method is from, with links."""
    return "From " + "; ".join(f"[{paper.reference}]({paper.url})" for paper in papers) + "."


def _results(
    metrics: Mapping[str, float],
    splits: Sequence[str],
    measured_on: Mapping[str, int],
    selected_on: Mapping[str, int],
    sizes: Mapping[str, int],
    intervals: Mapping[str, tuple[float, float]],
) -> list[str]:
    """The section with the metrics, and what they were measured on; the checkpoint was chosen on something else."""
    if not metrics:
        return []
    counts = {"Measured on": measured_on, "The checkpoint was selected on": selected_on}
    said = [f"{start} {_counts(of, sizes)}." for start, of in counts.items() if of]
    found = {name: metric_of(name) for name in metrics}
    better = {name: "higher" if metric.higher_is_better else "lower" for name, metric in found.items() if metric}
    reach = {name: f" {low:.4f} to {high:.4f} |" for name, (low, high) in intervals.items()}
    empty, head, line = (" |", " 95% of samples |", " --- |") if intervals else ("", "", "")
    rows = "\n".join(
        f"| {name} | {value:.4f} |{reach.get(name, empty)} {better.get(name, '')} |" for name, value in metrics.items()
    )
    is_calibration = any(metric is not None and metric.kind == "calibration" for metric in found.values())
    return [
        f"## Results on {' and '.join(splits)}",
        f"| metric | value |{head} better |\n| --- | --- |{line} --- |\n{rows}",
        *([" ".join(said)] if said else []),
        *([_HOW_FAR] if intervals else []),
        *([_HOW_CALIBRATION_IS_MEASURED] if is_calibration else []),
    ]


def _counts(splits: Mapping[str, int], sizes: Mapping[str, int]) -> str:
    """Of each split, how many examples were used of how many."""

    def share(name: str, count: int) -> str:
        whole = sizes.get(name)
        return f"all {count:,}" if count == whole else f"{count:,}" if whole is None else f"{count:,} of {whole:,}"

    return " and ".join(f"{share(name, count)} examples of `{name}`" for name, count in splits.items())
