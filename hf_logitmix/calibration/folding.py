"""Scaling that is put into the weights, so that a model is calibrated wherever it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_logitmix.calibration.served import FOLDED, NAME, config_of, scaling_of
from hf_logitmix.calibration.temperature import Temperature
from hf_logitmix.models import call, evaluating, find_classifier, is_adapter, name_of, unwrap, vocabulary

_LARGE = 16.0  # a logit at which tanh and its like show
_CLOSE = 1e-2  # of the largest logit
_LENGTH = 16


@torch.no_grad()
def fold_temperature(
    model: nn.Module, temperature: float | None = None, *, inputs: Mapping[str, Any] | None = None
) -> nn.Module:
    r"""Divide the last linear layer by T, so that the logits that the model gives are calibrated without any code.

    :math:`W h + b` becomes :math:`(W h + b) / T`; of a vector scaling row k becomes :math:`w_k (W h + b)_k + b_k`. The
    model is changed in place, and ``config.calibration`` is taken out, so that nothing is applied twice;
    ``config.folded_calibration`` lists what was folded, for the reader alone. Before that it is tried on inputs whether
    the outputs of this layer are the logits; the model is as it was where they are not.

    Args:
        model: a classifier that ends in a linear layer; any of transformers, or of timm in `ImageMixTrainer`.
        temperature: T > 0; None takes ``config.calibration``.
        inputs: a batch of one or more rows to try the model on, without labels; None makes a random one.

    Returns:
        the same model.

    Raises:
        ValueError: without a temperature, for an adapter of PEFT that is not merged, and for a model whose logits are
            not the output of one linear layer of floats that is nothing else's.
    """
    config, bare = config_of(model), unwrap(model)
    if temperature is not None and not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: pass a number above 0.")
    scaling = scaling_of(config) if temperature is None else Temperature(temperature)
    if scaling is None:
        raise ValueError("model.config has no calibration: pass temperature, or call trainer.calibrate first.")
    layer = _layer_of(bare, int(config.num_labels))
    logits = layer.weight.new_zeros(int(config.num_labels), dtype=torch.float64)
    if isinstance(scaling, Temperature):
        weight, bias = logits + 1 / float(scaling), logits
    else:
        if layer.bias is None:
            raise ValueError(
                f"the last layer of {name_of(bare)} has no bias, which a vector scaling needs: fit a temperature, or "
                "serve this one with calibrated_pipeline."
            )
        weight, bias = (torch.from_numpy(part).to(logits) for part in (scaling.weight, scaling.bias))
    _check_gives_the_logits(bare, layer, inputs, by_class=not isinstance(scaling, Temperature))
    _scale_rows(layer, weight, bias)
    told = {"method": "temperature", "temperature": float(temperature)} if temperature else dict(config.calibration)
    config.folded_calibration = [*(getattr(config, FOLDED, None) or ()), told]
    if hasattr(config, NAME):
        delattr(config, NAME)
    return model


def _layer_of(model: nn.Module, num_labels: int) -> nn.Linear:
    """The linear layer that may be scaled."""
    name = name_of(model)
    if is_adapter(model) or any(hasattr(module, "merged_adapters") for module in model.modules()):
        raise ValueError(f"{name} has an adapter: merge it first, model = model.merge_and_unload(), then fold.")
    layer = find_classifier(model, num_labels)
    if not isinstance(layer, nn.Linear):
        raise ValueError(
            f"{name} has no linear layer with {num_labels} outputs to fold a temperature into: serve it with "
            "calibrated_pipeline."
        )
    parts = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    known = [parameter for _, parameter in model.named_parameters(remove_duplicate=False)]
    if len(layer.weight) != num_labels or not all(part.is_floating_point() for part in parts):
        raise ValueError(
            f"the last layer of {name} holds no plain floats (quantised or sharded): fold before that, or serve it "
            "with calibrated_pipeline."
        )
    if any(sum(one is part for one in known) != 1 for part in parts):
        raise ValueError(
            f"the last layer of {name} shares its weight with another one, which folding would change too: serve it "
            "with calibrated_pipeline."
        )
    return layer


def _check_gives_the_logits(
    model: nn.Module, layer: nn.Linear, inputs: Mapping[str, Any] | None, *, by_class: bool
) -> None:
    """Scale the layer by powers of 2, which no float rounds, see if the logits follow, and put it back."""
    given = _random_inputs(model) if inputs is None else dict(inputs)
    first = next((value for value in given.values() if isinstance(value, Tensor)), torch.zeros(1))
    kept = [part.clone() for part in (layer.weight, layer.bias) if part is not None]
    with evaluating(model):
        try:
            before = call(model, given, len(first)).double()
        except Exception as error:
            raise ValueError(
                f"{name_of(model)} could not be tried on random inputs ({type(error).__name__}: {error}): pass inputs, "
                "a batch of yours without labels."
            ) from error
        classes = torch.arange(before.shape[1], device=before.device)
        factor = torch.ones_like(before[0]) * 2
        while float((factor * before.abs()).max()) < _LARGE and float(factor[0]) < 2**20:
            factor *= 2
        factor = torch.where(classes % 2 == 0, factor, factor * (2 if by_class else 1))
        shift = classes * (_LARGE if by_class else 0.0)
        try:
            _scale_rows(layer, factor, shift)
            after = call(model, given, len(first)).double()
        finally:
            for part, value in zip((layer.weight, layer.bias), kept, strict=False):
                part.copy_(value)
    expected = factor * before + shift
    if not (after - expected).abs().max() <= _CLOSE * expected.abs().max():
        raise ValueError(
            f"the logits of {name_of(model)} are not the output of its last linear layer with {before.shape[1]} "
            "outputs, so that it cannot be folded: serve it with calibrated_pipeline."
        )


def _scale_rows(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Output k becomes weight[k] times itself plus bias[k]."""
    layer.weight.copy_(layer.weight.double() * weight[:, None])
    if layer.bias is not None:
        layer.bias.copy_(layer.bias.double() * weight + bias)


def _random_inputs(model: nn.Module) -> dict[str, Tensor]:
    """One row that a model reads, as far as its config tells what that is."""
    config, first = config_of(model), next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    name = getattr(model, "main_input_name", "input_ids")
    if name == "pixel_values":
        height, width = _image_size(model, config)
        found = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
        channels = getattr(config, "num_channels", None) or (found if found in (1, 3) else 3)
        return {name: torch.randn(1, channels, height, width, generator=generator).to(first)}
    text = config.get_text_config()
    special = {getattr(text, f"{kind}_token_id", None) for kind in ("pad", "bos", "eos", "sep", "cls", "mask")}
    size = vocabulary(model) or int(getattr(text, "vocab_size", 0))
    plain = [number for number in range(min(size, 4096)) if number not in special] or [1]
    ids = torch.tensor(plain)[torch.randint(len(plain), (1, _LENGTH), generator=generator)]
    if isinstance(end := getattr(text, "eos_token_id", None), int):
        ids[0, -1] = end  # where an encoder-decoder reads a text off
    return {name: ids.to(first.device), "attention_mask": torch.ones_like(ids).to(first.device)}


def _image_size(model: nn.Module, config: Any) -> tuple[int, int]:
    network: Any = getattr(model, "timm_model", getattr(model, "module", model))
    timms = getattr(config, "pretrained_cfg", None) or getattr(network, "pretrained_cfg", None) or {}
    size = timms.get("input_size", (3, 224, 224))[1:]
    size = (getattr(config, "model_args", None) or {}).get("img_size") or size
    size = getattr(getattr(network, "patch_embed", None), "img_size", None) or size
    for part in (config, getattr(config, "vision_config", None)):
        size = getattr(part, "image_size", None) or size
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)
