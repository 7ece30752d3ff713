"""Code for a card: how a model is loaded with plain transformers, and its probabilities as they are served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LOADERS = {
    "text-classification": ("AutoModelForSequenceClassification", "AutoTokenizer", "tokenizer", '"a text"'),
    "image-classification": ("AutoModelForImageClassification", "AutoImageProcessor", "processor", "image"),
}


def usage(
    name: str, pipeline_tag: str, calibration: Mapping[str, Any] | None, *, preamble: str = "", peft: bool = False
) -> str:
    """Python from loading to probabilities; empty for a task that no model of these is for.

    Args:
        name: of the repository, without its owner.
        pipeline_tag: what the Hub calls the task.
        calibration: what the model keeps in its config.
        preamble: a line to run before.
        peft: whether it is an adapter.
    """
    if pipeline_tag not in _LOADERS:
        return ""
    model, reader, reads, example = _LOADERS[pipeline_tag]
    scaled = {"temperature": ' / model.config.calibration["temperature"]', "vector": ""}
    lines = [
        *([preamble] if preamble else []),
        *(["from peft import AutoPeftModelForSequenceClassification"] if peft else []),
        f"from transformers import {reader}" if peft else f"from transformers import {model}, {reader}",
        "",
        f'name = "USER/{name}"',
        f"{reads} = {reader}.from_pretrained(name)",
        f"model = {'AutoPeftModelForSequenceClassification' if peft else model}.from_pretrained(name)",
        f'inputs = {reads}({example}, return_tensors="pt")',
        "logits = model(**inputs).logits" + (scaled[calibration["method"]] if calibration else ""),
    ]
    if calibration and calibration["method"] == "vector":
        part = "(logits.new_tensor(model.config.calibration[part]) for part in ('weight', 'bias'))"
        lines += [f"weight, bias = {part}", "logits = weight * logits + bias"]
    return "\n".join([*lines, "probabilities = logits.softmax(-1)"])
