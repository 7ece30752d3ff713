"""What has to be known of a model: its wrappers, its head, its classifier."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

SPECIAL_TOKENS = "special_tokens_mask"  # of a batch: tells a mixing which tokens are special, and no model reads it
_POSITIONS = re.compile(r"(^|\.)(position_embeddings|embed_positions|positions_embed|wpe)$")


def unwrap(model: nn.Module) -> nn.Module:
    """The module under DistributedDataParallel and torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None) or (
            model.module if isinstance(model, nn.parallel.DistributedDataParallel) else None
        )
        if inner is None:
            return model
        model = inner


def under_peft(module: nn.Module) -> nn.Module:
    """The module that PEFT keeps a trained copy of, or has put its layer around; or the module itself."""
    for name in ("original_module", "base_layer"):  # of modules_to_save, and of a LoRA layer
        if isinstance(inner := getattr(module, name, None), nn.Module):
            return inner
    return module


def under_peft_model(model: nn.Module) -> nn.Module:
    """The model that PEFT was put around, or the model itself."""
    inner: Any = model
    return inner.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def is_adapter(model: nn.Module) -> bool:
    """Whether a model is saved as an adapter of PEFT, without its own weights and config; a merged one is not."""
    model = unwrap(model)
    return under_peft_model(model) is not model or bool(getattr(model, "_hf_peft_config_loaded", False))


def head_modules(model: nn.Module) -> list[nn.Module]:
    """The modules after the encoder that hold parameters, in the model's order; empty where they are not apart."""
    pretrained = next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)
    if pretrained is None:
        return []
    encoder = getattr(pretrained, pretrained.base_model_prefix, None)
    if not isinstance(encoder, nn.Module) or encoder is pretrained:
        return []
    return [m for m in pretrained.children() if m is not encoder and next(m.parameters(), None) is not None]


def find_classifier(model: nn.Module, num_labels: int) -> nn.Module | None:
    """The last linear layer with an output for each class (or what PEFT put around it), or None."""
    model = unwrap(model)
    for part in reversed(head_modules(model) or [model]):
        found = [m for m in part.modules() if linear_of(m) is not None and linear_of(m).out_features == num_labels]
        if found:
            wrapped = [m for m in found if m is not linear_of(m)]
            return (wrapped or found)[-1]
    return None


def classifier_of(model: nn.Module, num_labels: int) -> nn.Module:
    """As `find_classifier`.

    Raises:
        ValueError: for a model without one.
    """
    if (found := find_classifier(model, num_labels)) is not None:
        return found
    raise ValueError(
        f"{type(model).__name__} has no linear layer with {num_labels} outputs as its classifier, beside which a "
        "second head could stand: pass another model, or beta=1.0, which needs none."
    )


def linear_of(module: nn.Module) -> Any:
    """The linear layer that a module is, under PEFT or not; None for any other module."""
    inner = under_peft(module)
    return inner if isinstance(inner, nn.Linear) else None


def name_of(model: nn.Module) -> str:
    """The class of a model under its wrappers."""
    inner: Any = under_peft_model(unwrap(model))
    for name in ("timm_model", "module"):  # of TimmWrapperForImageClassification, and of BareClassifier
        inner = inner if getattr(inner, name, None) is None else getattr(inner, name)
    return type(inner).__name__


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """A block in which the model is in evaluation mode; after it each module is in the mode that it was in."""
    was, modes = model.training, {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        model.train(was)  # for modules that do more in `train` than to set a flag
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A block in which the model is in evaluation mode, without gradients and without a trace in random numbers."""
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    try:
        with evaluation_mode(model), torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.clear_autocast_cache()  # of weights cast without gradients, which torch 2.7 would go on with


def call(model: nn.Module, inputs: Mapping[str, Any], rows: int) -> Tensor:
    """The logits of a model, from whatever it returns; they must have as many rows as the batch that went in.

    It is not shown a ``special_tokens_mask``, which is there for a mixing to read.
    """
    output = model(**{name: value for name, value in inputs.items() if name != SPECIAL_TOKENS})
    logits: Any
    if isinstance(output, Tensor):
        logits = output
    elif isinstance(output, Mapping):
        logits = output.get("logits")
    else:
        logits = output.logits if hasattr(output, "logits") else output[0]
    if logits is None:
        raise ValueError(
            f"{type(model).__name__} gave no `logits`: mixing needs a classifier, such as "
            "AutoModelForSequenceClassification."
        )
    if logits.dim() != 2 or len(logits) != rows:
        raise ValueError(
            f"{type(model).__name__} gave logits of shape {tuple(logits.shape)} for {rows} rows: mixing needs a model "
            "with one row of logits an example, such as AutoModelForSequenceClassification."
        )
    return logits


def first_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a module reads, by position or by name."""
    return args[0] if args else next(iter(kwargs.values()))


@contextmanager
def loading(argument: str, name: str, example: str = "bert-base-uncased") -> Iterator[None]:
    """A block that loads a model by its path or its name on the Hub, of which there is an ``example``.

    Raises:
        ValueError: for what cannot be loaded, with the argument that named it.
    """
    path, given = Path(name).expanduser(), f"{argument}={name!r}"
    if not path.exists() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise ValueError(f"{given} is not there: pass a folder, or a name on the Hub such as {example}.")
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        what = "holds no model that can be loaded" if path.exists() else "is no folder, nor loaded from the Hub"
        raise ValueError(f"{given} {what}: {reason}") from error


def check_is_trained(given: str, loading_info: Mapping[str, Any]) -> None:
    """Refuse a model of which a part, such as its head, was not in its checkpoint and is random.

    Args:
        given: the argument that named the checkpoint, with its value.
        loading_info: what ``from_pretrained(..., output_loading_info=True)`` gives beside the model.

    Raises:
        ValueError: for weights that the checkpoint lacks, or has in another size.
    """
    other_sizes = (name for name, *_ in loading_info["mismatched_keys"])
    lacks = sorted({*loading_info["missing_keys"], *other_sizes})
    lacks = [name for name in lacks if not name.endswith("num_batches_tracked")]  # which evaluation does not read
    if lacks:
        more = f" and {len(lacks) - 3} more" if len(lacks) > 3 else ""
        raise ValueError(
            f"{given} lacks {', '.join(lacks[:3])}{more}, or has them in another size, so what it says would be "
            "random: pass a trained classifier, such as the folder of a run, or train it first."
        )


def public_name(model_name_or_path: str) -> str:
    """A Hub name as it is; of a local path only the last part."""
    path = Path(model_name_or_path)
    is_there = os.path.exists(path)  # which is False, and no error, for a text that is too long for a path
    return path.resolve().name if is_there or path.is_absolute() else model_name_or_path


def vocabulary(model: nn.Module) -> int | None:
    """The number of ids that a text model's embedding holds; None where it is no plain table."""
    try:
        embedding: Any = unwrap(model).get_input_embeddings()  # type: ignore[operator]
    except (NotImplementedError, AttributeError):
        return None  # transformers' way of saying that a model reads no ids
    embedding = under_peft(embedding) if isinstance(embedding, nn.Module) else None
    is_table = isinstance(embedding, nn.Embedding) and type(embedding).forward is nn.Embedding.forward
    return embedding.num_embeddings if is_table else None


def longest_input(model: nn.Module) -> tuple[int | None, bool]:
    """How many tokens a text model has positions for, and whether more of them are an error in its forward.

    Learned positions are a table, which ends; elsewhere the number is what the configuration says that the model was
    trained on. None where nothing is known.
    """
    inner = unwrap(model)
    config: Any = getattr(inner, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    told = getattr(config, "max_position_embeddings", None)
    told = told if isinstance(told, int) and told > 0 else None
    named = [m for name, m in inner.named_modules() if _POSITIONS.search(name) and isinstance(m, nn.Embedding)]
    first = [getattr(m, "offset", 0 if m.padding_idx is None else m.padding_idx + 1) for m in named]
    tables = [module.num_embeddings - offset for module, offset in zip(named, first, strict=True)]
    counts_anew = getattr(config, "reset_position_index_per_cell", False)  # tapas
    return (min([*tables, *([told] if told else [])]), not counts_anew) if tables else (told, False)


def warn_of_linear_head(place: str) -> None:
    """Warn that LogitMix has nothing to teach at a level."""
    warnings.warn(
        f"{place} has nothing but a linear head after it, which gives the mixed logits by itself: a similarity loss is "
        "zero there up to dropout and teaches nothing. Mix at an earlier level, or train with another objective.",
        UserWarning,
        stacklevel=3,
    )
