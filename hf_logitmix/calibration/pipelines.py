"""Pipelines of transformers whose scores are calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import AutoConfig, ImageClassificationPipeline, Pipeline, TextClassificationPipeline, pipeline

from hf_logitmix.calibration.served import calibrated_logits

if TYPE_CHECKING:
    _Base = Pipeline
else:
    _Base = object


class _CalibratedMixin(_Base):
    """Applies ``model.config.calibration`` to the logits, before whatever the pipeline makes of them."""

    def postprocess(self, model_outputs: Any, *args: Any, **kwargs: Any) -> Any:
        scaled: Any = {**model_outputs, "logits": calibrated_logits(self.model, model_outputs["logits"])}
        return super().postprocess(scaled, *args, **kwargs)  # type: ignore[safe-super]


class CalibratedTextClassificationPipeline(_CalibratedMixin, TextClassificationPipeline):
    """`transformers.TextClassificationPipeline` with calibrated scores; unchanged for a model without a calibration.

    Example:
        >>> from transformers import pipeline
        >>> classify = pipeline(
        ...     "text-classification", "out", pipeline_class=CalibratedTextClassificationPipeline
        ... )  # doctest: +SKIP
    """


class CalibratedImageClassificationPipeline(_CalibratedMixin, ImageClassificationPipeline):
    """`transformers.ImageClassificationPipeline` with calibrated scores, likewise."""


PIPELINES: dict[str, type[Pipeline]] = {
    "text-classification": CalibratedTextClassificationPipeline,
    "image-classification": CalibratedImageClassificationPipeline,
}


def calibrated_pipeline(model: str | nn.Module, task: str | None = None, **options: Any) -> Pipeline:
    """A pipeline of transformers that applies the calibration in the model's config; plain where there is none.

    Args:
        model: a model, its folder or its name on the Hub.
        task: "text-classification" or "image-classification"; None for what the model reads.
        options: as for `transformers.pipeline`, such as ``tokenizer``.

    Raises:
        ValueError: for another task, and for a model of which it cannot be told.
    """
    task = _task_of(model, options) if task is None else task
    task = "text-classification" if task == "sentiment-analysis" else task
    if task not in PIPELINES:
        raise ValueError(f"task={task!r}: pass one of {', '.join(PIPELINES)}.")
    return pipeline(task, model=model, pipeline_class=PIPELINES[task], **options)  # type: ignore[call-overload]


def _task_of(model: Any, options: dict[str, Any]) -> str:
    if isinstance(model, nn.Module):
        names = [type(model).__name__]
    else:
        passed = {name: options[name] for name in ("revision", "token", "trust_remote_code") if name in options}
        names = AutoConfig.from_pretrained(model, **passed).architectures or []
    ends = {"ForSequenceClassification": "text-classification", "ForImageClassification": "image-classification"}
    found = [task for end, task in ends.items() if any(end in name for name in names)]
    if len(found) != 1:
        of = " ".join(names) or "of no known class"
        raise ValueError(f"model is {of}: pass task, one of {', '.join(PIPELINES)}.")
    return found[0]
