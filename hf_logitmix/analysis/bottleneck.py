"""Two units before the classifier, so that what a network makes of its inputs can be drawn."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from hf_logitmix.models import classifier_of, linear_of, unwrap


class Bottleneck(nn.Sequential):
    """Features to 2 units, then to 100 and to 512, each followed by tanh.

    LaMix (Bypassing the Random Input Mixing in Mixup, 2021), section 3.1.8 and figure 8.

    Args:
        in_features: of what comes before.
    """

    out_features = 512

    def __init__(self, in_features: int) -> None:
        sizes = (in_features, 2, 100, self.out_features)
        layers = [(nn.Linear(n, m), nn.Tanh()) for n, m in pairwise(sizes)]
        super().__init__(*(module for pair in layers for module in pair))

    def embedding(self, features: Tensor) -> Tensor:
        """The two units, [.., 2] in (-1, 1)."""
        return self[1](self[0](features))


def with_bottleneck(model: nn.Module, num_labels: int) -> nn.Module:
    """Put a `Bottleneck` and a new linear classifier in the place of a model's classifier, in place.

    Such a model is there to be looked at: what it saves, ``from_pretrained`` does not load.

    Args:
        model: whose last linear layer gives the logits.
        num_labels: K.

    Returns:
        the same model.

    Raises:
        ValueError: for a model without such a layer.
    """
    classifier = classifier_of(model, num_labels)
    linear, inner = linear_of(classifier), unwrap(model)
    place = next(name for name, module in inner.named_modules() if module is classifier)
    if not place:
        raise ValueError("the model is its classifier: pass one with layers before it.")
    parent, _, name = place.rpartition(".")
    new = nn.Sequential(Bottleneck(linear.in_features), nn.Linear(Bottleneck.out_features, num_labels))
    setattr(inner.get_submodule(parent), name, new.to(linear.weight.device))
    return model


def bottleneck_of(model: nn.Module) -> Bottleneck | None:
    """The bottleneck of a model, or None."""
    return next((module for module in unwrap(model).modules() if isinstance(module, Bottleneck)), None)
