"""What can be said before the first step: each problem in one sentence with its fix."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.models.auto import modeling_auto

from hf_logitmix.calibration.registry import metric_of
from hf_logitmix.method import Method
from hf_logitmix.models import under_peft_model, unwrap

_OTHER_HEADS = {
    "multiple choice": modeling_auto.MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES,
    "token classification": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "question answering": modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    "causal language modelling": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked language modelling": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
}


def _bodies() -> set[str]:
    """The classes of transformers that are a model without a head."""
    names = modeling_auto.MODEL_MAPPING_NAMES.values()
    return {name for entry in names for name in ([entry] if isinstance(entry, str) else entry)}


def check_model(model: Any) -> None:
    """Refuse a name, a class or anything else that is passed in a model's place; None stands for a ``model_init``.

    Raises:
        TypeError: with how to load a model.
    """
    if model is None or isinstance(model, nn.Module):
        return
    what = f"the name {model!r}" if isinstance(model, str) else f"a {type(model).__name__}"
    what = f"the class {model.__name__}" if isinstance(model, type) else what
    name = repr(model) if isinstance(model, str) else "..."
    raise TypeError(
        f"model is {what}: load one, AutoModelForSequenceClassification.from_pretrained({name}, num_labels=...)."
    )


def check_parameters(model: nn.Module, is_deepspeed: bool, args: TrainingArguments) -> None:
    """Refuse a model without a parameter to train, and warn of parameters that are float16.

    Raises:
        ValueError: where every parameter is frozen, and for float16 ones under autocast, which wants float32.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError(
            f"{type(model).__name__} has no parameter with requires_grad=True, so nothing would be trained: unfreeze "
            "its head at least."
        )
    half = sum(parameter.numel() for parameter in trained if parameter.dtype == torch.float16)
    if half and not is_deepspeed:  # which keeps weights in float32 besides
        if args.fp16 or args.bf16:
            raise ValueError(
                f"{'fp16' if args.fp16 else 'bf16'}=True trains weights in float32, of which it makes half ones as it "
                f"goes, and {half} of the model's parameters are float16, as in their file: load it with "
                "from_pretrained(..., dtype=torch.float32)."
            )
        warnings.warn(
            f"{half} of the model's parameters are float16, as in their file, in which small updates are lost and "
            "large values overflow: load it with from_pretrained(..., dtype=torch.float32), and pass fp16=True or "
            "bf16=True in the arguments for speed.",
            UserWarning,
            stacklevel=2,
        )


def check_head(model: nn.Module) -> None:
    """Refuse heads that do not give one row of class logits an example.

    In token classification the words at one position of two sentences have nothing to do with one another, so there is
    no sense in mixing their labels; multiple choice scores each choice in a row of its own.
    """
    name = type(under_peft_model(unwrap(model))).__name__
    if name in _bodies():
        raise ValueError(
            f"{name} has no classification head: load AutoModelForSequenceClassification or, for images, "
            "AutoModelForImageClassification from the same checkpoint."
        )
    for task, names in _OTHER_HEADS.items():
        if name in names.values():
            raise ValueError(
                f"{name} is a model for {task}, and mixing needs one label an example: pass a model for sequence or "
                "image classification, or train it with transformers.Trainer."
            )


def check_bases(cls: type, mixin: type) -> None:
    """Refuse a class in which the mixin's loss, or that of a class behind it, would never be asked for in training."""
    order = cls.__mro__
    behind = order[order.index(mixin) + 1 :]
    if Trainer in order and Trainer not in behind:
        raise TypeError(
            f"{cls.__name__} has {mixin.__name__} behind Trainer, whose training would never call it: write "
            f"class {cls.__name__}({mixin.__name__}, ...) with the Trainer last."
        )
    for base in behind:
        if base is not Trainer and "compute_loss" in vars(base):
            raise TypeError(
                f"{base.__name__}.compute_loss stands behind {mixin.__name__} and would never be called in training, "
                f"where the loss is the method's: put it in front, class {cls.__name__}({base.__name__}, MixTrainer), "
                "and let it add to what super().compute_loss(...) returns."
            )


def check_launch(args: TrainingArguments) -> None:
    """Refuse DataParallel, which would split [clean ; mixed] rows over devices."""
    if args.n_gpu > 1:
        raise ValueError(
            f"n_gpu={args.n_gpu}: torch.nn.DataParallel would tear mixed rows from their partners. Start one process a "
            "GPU with `torchrun --nproc_per_node ...` or `accelerate launch`, or set CUDA_VISIBLE_DEVICES=0."
        )


def check_best_metric(args: TrainingArguments, datasets: Iterable[str] = ()) -> None:
    """Refuse to choose the worst checkpoint: ``greater_is_better`` is True by default for all names but losses.

    Args:
        args: that choose.
        datasets: names of the evaluation datasets, which begin the names of their metrics.
    """
    name = (args.metric_for_best_model or "").removeprefix("eval_")
    metric = next(filter(None, (metric_of(name.removeprefix(f"{data}_")) for data in ("", *datasets))), None)
    if metric is not None and args.greater_is_better is not metric.higher_is_better:
        raise ValueError(
            f"metric_for_best_model={args.metric_for_best_model!r} is better when it is "
            f"{'higher' if metric.higher_is_better else 'lower'}, and greater_is_better={args.greater_is_better} would "
            f"choose the worst checkpoint: pass greater_is_better={metric.higher_is_better}."
        )


def check_plan_in_batch(args: TrainingArguments, is_dispatched: bool) -> None:
    """Refuse plans that came in a batch which was cut up between processes after its partners were chosen."""
    config = args.accelerator_config
    for option in ("split_batches", "dispatch_batches"):
        if getattr(config, option, None) or (option == "dispatch_batches" and is_dispatched):
            raise ValueError(
                f"{option}: the batch is cut up between processes, so that the `partner` indices which the collator "
                "chose no longer fit: leave MixCollator out (MixTrainer draws the plan itself), or turn it off in "
                "accelerator_config."
            )


def warn_of_other_pairing(in_collator: Method, in_training: Method) -> None:
    """Say that the plans which a collator brings are not those of the method that is trained."""
    if in_training.mixes and (in_collator.pairing, in_collator.mixes) != (in_training.pairing, True):
        drawn = str(in_collator.pairing) if in_collator.mixes else "a method that mixes nothing"
        warnings.warn(
            f"MixCollator draws partners and lam by {drawn}, and those are taken in the place of the method's "
            f"{in_training.pairing}: pass the same method to both, or leave MixCollator out.",
            UserWarning,
            stacklevel=2,
        )
