"""What other libraries bring that a method cannot train, and what to do instead. None of them is imported here."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from hf_logitmix.models import evaluating, find_classifier, unwrap

_CLASSIFIER = "AutoModelForSequenceClassification in MixTrainer"

# Library, class (None for any of its classes), why not and what instead; the first that matches speaks.
_DO_NOT_FIT = (
    (
        "sentence_transformers",
        "CrossEncoderTrainer",
        "tokenizes texts inside a loss of its own, which a method's loss would replace: tokenize the pairs, and train "
        "`cross_encoder.model`, a classifier of transformers, with MixTrainer",
    ),
    (
        "sentence_transformers",
        "CrossEncoder",
        "takes features and not a batch: pass its `.model`, a classifier of transformers, to MixTrainer",
    ),
    (
        "sentence_transformers",
        None,
        f"makes embeddings, and a method mixes class logits: train a `CrossEncoder(...).model` or an {_CLASSIFIER}",
    ),
    (
        "trl",
        "RewardTrainer",
        "compares a chosen text with a rejected one, which have no label each: use it without MixTrainerMixin, or give "
        f"each text a label and train an {_CLASSIFIER}",
    ),
    (
        "trl",
        None,
        "is for language models and pairs of answers, and mixing needs one label an example: use trl without "
        f"MixTrainer, or train an {_CLASSIFIER}",
    ),
    (
        "setfit",
        None,
        "trains embeddings on pairs and then a head of scikit-learn, so there are no class logits to mix while it "
        f"trains: train an {_CLASSIFIER} from the same checkpoint",
    ),
)

_OWN_LOSSES = {"ADALORA": "its orthogonality penalty", "SHADOW": "the loss of its shadow path"}


def check_class(cls: type) -> None:
    """Refuse a Trainer, a model or a collator that is, or inherits from, one of a library with losses of its own.

    Raises:
        TypeError: with what does not fit and what to do instead.
    """
    ancestors = [(base.__module__.partition(".")[0], base.__name__) for base in cls.__mro__]
    for library, name, advice in _DO_NOT_FIT:
        found = next((own for where, own in ancestors if where == library and name in (None, own)), None)
        if found is not None:
            raise TypeError(f"{found} of {library} {advice}.")


def check_adapter(model: nn.Module) -> None:
    """Refuse PEFT's prefix tuning where PEFT cannot do it; name penalties that a method's loss replaces, and a head
    that is left out of training.

    Raises:
        ValueError: for a prefix on a model that takes no ``past_key_values``.
    """
    peft_model: Any = unwrap(model)
    configs = getattr(peft_model, "peft_config", None)
    if not isinstance(configs, dict) or not hasattr(peft_model, "get_base_model"):
        return
    kinds = {str(getattr(config.peft_type, "value", config.peft_type)) for config in configs.values()}
    if "PREFIX_TUNING" in kinds:
        _try_prefix(peft_model)
    for kind in sorted(kinds & set(_OWN_LOSSES)):
        warnings.warn(
            f"PEFT's {kind} adds {_OWN_LOSSES[kind]} to the model's own loss, which the method's loss replaces, so it "
            "is left out: pass LoraConfig, or add it in a compute_loss that calls super().compute_loss(...).",
            UserWarning,
            stacklevel=2,
        )
    head = find_classifier(model, getattr(peft_model.config, "num_labels", 0))
    if head is not None and not any(parameter.requires_grad for parameter in head.parameters()):
        headless = sorted({type(one).__name__ for one in configs.values() if not hasattr(one, "modules_to_save")})
        fix = "pass task_type=TaskType.SEQ_CLS, or the classifier's name among modules_to_save, in the config of PEFT"
        if headless:
            fix = (
                f"{' and '.join(headless)} can train no head: pass LoraConfig(..., task_type=TaskType.SEQ_CLS), which "
                "takes trainable_token_indices too"
            )
        warnings.warn(
            "The classifier is frozen, so PEFT trains layers below it alone; a new one stays as random as it is: "
            f"{fix}.",
            UserWarning,
            stacklevel=2,
        )


def _try_prefix(model: Any) -> None:
    """One plain forward of two tokens: whether PEFT can do it depends on its version and that of transformers."""
    last = getattr(model.config, "eos_token_id", None)
    ids = torch.tensor([[1, last if isinstance(last, int) else 1]], device=model.device)
    try:
        with evaluating(model):
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except ValueError as error:
        name = type(model.get_base_model()).__name__
        raise ValueError(
            f"PrefixTuningConfig does not go with this version of {name} ({error}): pass PromptTuningConfig, "
            "PromptEncoderConfig or LoraConfig."
        ) from error


def why_no_labels(names: Iterable[str]) -> str:
    """What to do about a batch, or a dataset, with these columns and no ``labels``; the end of a sentence."""
    columns = list(names)
    if any("chosen" in name for name in columns) and any("rejected" in name for name in columns):
        return (
            "these are pairs of a chosen and a rejected text, which mixing by labels does not fit: train them with "
            "trl's RewardTrainer, or give each text a label"
        )
    several = [name for name in columns if name.endswith("_input_ids")]
    if several and "input_ids" not in columns:
        return (
            "these are texts apart, as sentence-transformers compares them: tokenize each pair in one row, "
            "tokenizer(first, second), with its label in `labels`"
        )
    if "label" in columns:
        return "the data collator must name them `labels`: rename `label` in its batch"
    return "name the column of the classes `labels`, as numbers (collators leave texts out), and let yours pass it on"
