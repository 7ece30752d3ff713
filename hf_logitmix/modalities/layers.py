"""Where in a model text can be mixed: the levels, and the modules that hold them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from hf_logitmix.models import find_classifier, head_modules, under_peft

# Models whose ids go through modules that `get_input_embeddings` does not name.
_NAMED_EMBEDDINGS = {
    "perceiver": ["perceiver.input_preprocessor.embeddings"],
    "canine": [f"canine.char_embeddings.HashBucketCodepointEmbedder_{i}" for i in range(8)],
}
# Embeddings of what an example says of its tokens beside their ids: types, boxes on a page, sound and shape, tags.
_BESIDE_WORDS = re.compile(
    r"(token|task)_type_embeddings(_\d+)?$|\b[xyhw]_position_embeddings$|\b(shape|pronunciation)_embed$|"
    r"xpath_\w+_embeddings\.\d+$"
)
# Models whose layers have the batch on another axis, or whose backward finds what went into a layer from what came out.
_WITHOUT_LAYERS = ("xlnet", "reformer")


@dataclass(frozen=True)
class MixableLayers:
    """The modules of one model whose output (or, for the head, input) is mixed.

    Attributes:
        words: embeddings of the ids; at least one in a text model, none in one of images.
        types: embeddings of what else an example says of its tokens (types, boxes, tags), mixed along with the words so
            that a pair of inputs is symmetric.
        hidden: the hidden layers in order; empty where the model has no single list of them.
        head: the classification head, the modules after the encoder that hold parameters.
    """

    words: list[nn.Module]
    types: list[nn.Module] = field(default_factory=list)
    hidden: list[nn.Module] = field(default_factory=list)
    head: list[nn.Module] = field(default_factory=list)

    @property
    def linear_head(self) -> bool:
        """Whether the head is one linear map, which any mix of its inputs satisfies by itself."""
        return len(self.head) == 1 and isinstance(under_peft(self.head[0]), nn.Linear)


def check_level(level: str) -> None:
    """Raise ValueError unless ``level`` is embedding, hidden:k with k >= 1, pooled or manifold."""
    if not isinstance(level, str) or not re.fullmatch(r"embedding|hidden:[1-9]\d*|pooled|manifold", level):
        raise ValueError(
            f"level={level!r} is unknown: pass 'embedding', 'hidden:k' (k from 1), 'pooled' or 'manifold'."
        )


def levels(layers: MixableLayers) -> list[str]:
    """The levels that ``manifold`` draws from."""
    return ["embedding", *(f"hidden:{k}" for k in range(1, len(layers.hidden) + 1))]


def resolve_level(level: str, layers: MixableLayers, draw: float) -> str:
    """The level to mix at: ``manifold`` becomes the one of (embedding, hidden:1, ...) that ``draw`` in [0, 1) chooses.

    Raises:
        ValueError: where the model lacks the level.
    """
    count = len(layers.hidden)
    if level == "manifold" or level.startswith("hidden:"):
        if not count:
            raise ValueError(f"level={level!r} needs a model with one list of hidden layers: pass level='embedding'.")
        if level == "manifold":
            return levels(layers)[int(draw * (count + 1))]
        if int(level.removeprefix("hidden:")) > count:
            raise ValueError(f"level={level!r} is above the last layer: this model has hidden:1 to hidden:{count}.")
    if level == "pooled" and not layers.head:
        raise ValueError("level='pooled' needs a model with a head after its encoder: pass level='embedding'.")
    return level


def layers_of(model: nn.Module) -> MixableLayers:
    """Find where a model can be mixed: a text model, or an image model beyond its pixels.

    Raises:
        ValueError: for a text model without a token embedding.
    """
    if getattr(model, "main_input_name", "") == "pixel_values":
        num_labels = getattr(getattr(model, "config", None), "num_labels", 0)
        classifier = find_classifier(model, num_labels)  # the whole head of a model of timm
        return MixableLayers([], [], _image_layers(model), head_modules(model) or ([classifier] if classifier else []))
    words = _word_embeddings(model)
    if not words:
        raise ValueError(
            f"{type(model).__name__} has no token embedding to mix at: pass a transformers model for text whose "
            "get_input_embeddings() gives one."
        )
    types = [module for name, module in model.named_modules() if _BESIDE_WORDS.search(name)]
    pretrained = next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)
    if pretrained is None:
        return MixableLayers(words, types)
    return MixableLayers(words, types, _hidden_layers(pretrained), head_modules(pretrained))


def _is_lookup(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding)


def _word_embeddings(model: nn.Module) -> list[nn.Module]:
    """Input embeddings of every sub-model, and every embedding that shares one of their weights.

    Encoder-decoders keep tied copies of the table, each with a forward of its own.
    """
    named = _NAMED_EMBEDDINGS.get(getattr(getattr(model, "config", None), "model_type", ""))
    if named:
        modules = dict(model.named_modules())
        return [module for name, module in modules.items() if name.endswith(tuple(named))]
    found: dict[int, nn.Module] = {}
    for part in model.modules():
        if not isinstance(part, PreTrainedModel):
            continue
        try:
            embedding = part.get_input_embeddings()
        except (NotImplementedError, AttributeError):
            continue  # transformers' way of saying that this part reads no ids
        convolution = isinstance(embedding, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))
        if isinstance(embedding, nn.Module) and embedding is not part and not convolution:
            found[id(embedding)] = embedding
    weights = {id(embedding.weight) for embedding in found.values() if hasattr(embedding, "weight")}
    found |= {id(m): m for m in model.modules() if _is_lookup(m) and id(m.weight) in weights}
    return list(found.values())


def _image_layers(model: nn.Module) -> list[nn.Module]:
    """Layers of an image model: its hidden layers, what timm takes features from, or its stages."""
    pretrained = next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)
    if pretrained is not None and (layers := _hidden_layers(pretrained)):
        return layers
    listed = [(part, names) for part in model.modules() if (names := _timm_features(part))]
    for part, names in listed:
        modules = dict(part.named_modules())
        if all(name in modules for name in names):
            return list(dict.fromkeys(modules[name] for name in names))  # a feature of each branch of one layer
    if listed:
        return []
    stages = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    return list(stages[0]) if stages else []


def _timm_features(part: nn.Module) -> list[str]:
    """The names of the modules whose outputs timm calls the features of a model; some models list those of a part."""
    info: Any = getattr(part, "feature_info", None)
    rows = getattr(info, "info", info)
    return [row["module"] for row in rows if row["module"]] if isinstance(rows, list) else []  # "": the model itself


def _hidden_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The one list of ``num_hidden_layers`` modules, or nothing where there is none or more than one."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    count = getattr(config, "num_hidden_layers", None)
    if getattr(config, "is_encoder_decoder", False) or config.model_type in _WITHOUT_LAYERS:
        return []
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    return list(lists[0]) if len(lists) == 1 else []
