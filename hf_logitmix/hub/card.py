"""Model cards: what was trained, how, and how well, without a path or a token of the machine."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_logitmix._version import __version__
from hf_logitmix.calibration.registry import metric_of
from hf_logitmix.methods import Method
from hf_logitmix.models import public_name
from hf_logitmix.papers import Paper

_HOW_CALIBRATION_IS_MEASURED = (
    "Calibration errors use 10 bins of equal width. Metrics ending in `_scaled` are measured after temperature "
    "scaling, cross-fitted in two halves of this split."
)

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
) -> ModelCard:
    """A card with the method, its source, the metrics and the settings.

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
    """
    on_hub = base_model is not None and not Path(base_model).exists() and not Path(base_model).is_absolute()
    origin = "Trained from scratch" if base_model is None else f"Fine-tuned from `{public_name(base_model)}`"
    split_of = dict.fromkeys(metrics, split) if isinstance(split, str) else split
    measured, whole = measured_on or {}, split_sizes or {}
    of_data = f"{dataset} {dataset_config}".strip()
    cut = {
        name: f"{of_data} ({count:,} of {whole[name]:,} examples)"
        for name, count in measured.items()
        if count < whole.get(name, count)
    }
    results = [
        EvalResult(
            task_type=pipeline_tag,
            dataset_type=dataset_type(dataset),
            dataset_name=cut.get(split_of[metric], of_data),
            dataset_config=dataset_config or None,
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
        library_name="transformers",
        pipeline_tag=pipeline_tag,
        tags=["hf_logitmix", "calibration"],
        model_name=name if results else None,
        eval_results=results or None,
    )
    used = "\n".join(f"* {key}: {value}" for key, value in (settings or {}).items())
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        f"{origin} on {dataset}{dataset_config and f' `{dataset_config}`'} with hf_logitmix {__version__}.",
        *([how_to_load] if how_to_load else []),
        "## Method",
        f"```\n{method}\n```",
        *([_sources(method.papers)] if method.papers else []),
        *_results(metrics, list(dict.fromkeys(split_of.values())), measured, selected_on or {}, whole),
        *(f"The temperature fitted on `{name}` is {value:.4f}." for name, value in (temperature or {}).items()),
        *remarks,
        *(["## Settings", used] if used else []),
        *(
            ["## Citation", "\n\n".join(f"```bibtex\n{paper.bibtex}\n```" for paper in method.papers)]
            if method.papers
            else []
        ),
    ]
    return ModelCard("\n\n".join(parts) + "\n")


def dataset_type(dataset: str) -> str:
    """What the Hub takes for a dataset's identifier: an id of it, or the first words of another name in that form.

    Example:
        >>> dataset_type("nyu-mll/glue"), dataset_type("GLUE, local files")
        ('nyu-mll/glue', 'glue')
    """
    if _HUB_ID.fullmatch(dataset):
        return dataset
    words = re.findall(r"[a-z0-9]+", re.split(r"[,(]", dataset)[0].lower())
    return "-".join(words) or "unnamed"


def _sources(papers: Sequence[Paper]) -> str:
    """Where the method is from, with links."""
    return "From " + "; ".join(f"[{paper.reference}]({paper.url})" for paper in papers) + "."


def _results(
    metrics: Mapping[str, float],
    splits: Sequence[str],
    measured_on: Mapping[str, int],
    selected_on: Mapping[str, int],
    sizes: Mapping[str, int],
) -> list[str]:
    """The section with the metrics, and what they were measured on; the checkpoint was chosen on something else."""
    if not metrics:
        return []
    counts = {"Measured on": measured_on, "The checkpoint was selected on": selected_on}
    said = [f"{start} {_counts(of, sizes)}." for start, of in counts.items() if of]
    found = {name: metric_of(name) for name in metrics}
    better = {name: "higher" if metric.higher_is_better else "lower" for name, metric in found.items() if metric}
    rows = "\n".join(f"| {name} | {value:.4f} | {better.get(name, '')} |" for name, value in metrics.items())
    is_calibration = any(metric is not None and metric.kind == "calibration" for metric in found.values())
    return [
        f"## Results on {' and '.join(splits)}",
        f"| metric | value | better |\n| --- | --- | --- |\n{rows}",
        *([" ".join(said)] if said else []),
        *([_HOW_CALIBRATION_IS_MEASURED] if is_calibration else []),
    ]


def _counts(splits: Mapping[str, int], sizes: Mapping[str, int]) -> str:
    """Of each split, how many examples were used of how many."""

    def share(name: str, count: int) -> str:
        whole = sizes.get(name)
        return f"all {count:,}" if count == whole else f"{count:,}" if whole is None else f"{count:,} of {whole:,}"

    return " and ".join(f"{share(name, count)} examples of `{name}`" for name, count in splits.items())
