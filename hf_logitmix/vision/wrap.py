"""Models of timm inside what Trainer needs around them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, TimmWrapperForImageClassification
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import ImageClassifierOutput

_PREFIX = "timm_model."


class BareClassifier(nn.Module):
    """A module that makes logits of images, such as a model of timm, with what Trainer needs of a model.

    Its state is the module's own, so that checkpoints load without this class.

    Args:
        module: makes logits [B, K] of images [B, C, H, W].
        num_labels: K; None takes the module's ``num_classes``.

    Raises:
        ValueError: for a number of classes that is not known, or not the module's.
    """

    main_input_name = "pixel_values"
    _keys_to_ignore_on_save = None  # Trainer looks at it where a checkpoint lacks a tensor

    def __init__(self, module: nn.Module, num_labels: int | None = None) -> None:
        super().__init__()
        own: int | None = getattr(module, "num_classes", None)
        count = num_labels or own
        if not count or (own and own != count):
            raise ValueError(
                f"{type(module).__name__} has num_classes={own} and num_labels={num_labels} was passed: make the model "
                "with one output a class, and pass num_labels where the model does not tell."
            )
        self.module = module
        self.config = PreTrainedConfig()
        self.config.num_labels = count

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        logits = self.module(pixel_values)
        loss = None if labels is None else ForSequenceClassificationLoss(labels, logits, self.config)
        return ImageClassifierOutput(loss=loss, logits=logits)

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """As Trainer asks for it under ``gradient_checkpointing``, with timm's own."""
        enable: Any = getattr(self.module, "set_grad_checkpointing", None)
        if enable is None:
            raise ValueError(
                f"gradient_checkpointing: {type(self.module).__name__} has none (timm's set_grad_checkpointing): leave "
                "it out."
            )
        enable(True)

    gradient_checkpointing_enable = activation_checkpointing_enable  # its name in older releases of transformers

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.load_state_dict(*args, **kwargs)


def as_classifier(model: nn.Module, num_labels: int | None = None) -> nn.Module:
    """The model itself where it knows its number of labels, as those of transformers do; else a `BareClassifier`."""
    config = getattr(model, "config", None)
    return model if getattr(config, "num_labels", None) is not None else BareClassifier(model, num_labels)


def inner_module(model: nn.Module) -> nn.Module:
    """What is in a wrapper around a model of timm; any other model itself."""
    if isinstance(model, BareClassifier):
        return model.module
    return model.timm_model if isinstance(model, TimmWrapperForImageClassification) else model


def file_state(model: nn.Module, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A model's state (or what is given as such) as it is written: models of timm under timm's own names."""
    state = model.state_dict() if state is None else state
    prefix = _PREFIX if isinstance(model, TimmWrapperForImageClassification) else ""
    return {name.removeprefix(prefix): tensor.contiguous() for name, tensor in state.items()}
