"""The model of a run on texts, and its tokenizer."""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_logitmix.modalities.masks import is_causal
from hf_logitmix.models import check_is_trained, loading
from hf_logitmix.text.arguments import TextModelArguments
from hf_logitmix.text.task import TextTask

logger = logging.getLogger(__name__)


def load_model(task: TextTask, wanted: TextModelArguments, new_head: bool = True) -> tuple[Any, Any]:
    """The model in float32, whatever its weights were stored in, and its tokenizer.

    A decoder that will be trained gets a tokenizer that pads on the left, and is saved with it: it reads a text off its
    last token, which two texts of unequal length have in one place only then.

    Args:
        task: gives the classes.
        wanted: names the model.
        new_head: whether it will be trained, with its classes named after the task's; otherwise they keep their names,
            and its head must be in the checkpoint.

    Raises:
        ValueError: for a model that is not there, for a head with another number of outputs, and for one that would be
            random and not be trained.
    """
    names = dict(enumerate(task.label_names)) or {0: "score"}
    classes = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    name = str(wanted.model_name_or_path)
    head = {"num_labels": task.num_labels, **classes, "problem_type": task.problem_type}
    try:
        with loading("model_name_or_path", name):
            model, info = AutoModelForSequenceClassification.from_pretrained(
                name,
                dtype=torch.float32,
                trust_remote_code=wanted.trust_remote_code,
                ignore_mismatched_sizes=wanted.ignore_mismatched_sizes or not new_head,
                output_loading_info=True,
                **(head if new_head else {}),
            )
            left = {"padding_side": "left"} if new_head and is_causal(model) else {}
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=wanted.trust_remote_code, **left)
    except RuntimeError as error:
        if "mismatch" not in str(error):
            raise
        raise ValueError(
            f"model_name_or_path={wanted.model_name_or_path!r} has a head of another size than {task.num_labels}: pass "
            "--ignore_mismatched_sizes for a new one."
        ) from error
    if not new_head:
        check_is_trained(f"model_name_or_path={name!r}", info)
    if model.config.num_labels != task.num_labels:
        raise ValueError(
            f"model_name_or_path={wanted.model_name_or_path!r} has {model.config.num_labels} outputs and {task.name} "
            f"needs {task.num_labels}: pass a model that was trained on it."
        )
    if left:
        logger.warning("A decoder: texts are padded on the left, so that those of unequal length end together.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer
