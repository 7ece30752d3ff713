"""Where in an image a convolutional network sees its class: class activation maps of runs, beside one another.

hf-logitmix cam out/vanilla out/logitmix --dataset cifar10 --output cam.png

A run is an output folder of hf-logitmix images; the maps are those of the class that it predicts.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForImageClassification

from hf_logitmix.commands.main import main as start
from hf_logitmix.commands.parser import Parser
from hf_logitmix.figure import Figure
from hf_logitmix.models import call, check_is_trained, classifier_of, linear_of
from hf_logitmix.training.labels import label_spec
from hf_logitmix.vision.data import ImageData, load_images
from hf_logitmix.vision.inputs import input_config, of_channels
from hf_logitmix.vision.transforms import image_transform
from hf_logitmix.vision.wrap import inner_module

_RIGHT, _WRONG = "#1d7a3a", "#b3261e"
_PANEL = 1.45  # side in inches


@dataclass(frozen=True)
class Look:
    """What a model makes of images.

    Attributes:
        views: FloatTensor[B, C, H, W] in [0, 1], the images as the model reads them, before they are normalised.
        maps: FloatTensor[B, h, w], of the predicted classes.
        predicted: LongTensor[B], the classes.
        probabilities: FloatTensor[B], theirs.
    """

    views: Tensor
    maps: Tensor
    predicted: Tensor
    probabilities: Tensor


def class_activation_map(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """How much each place of a feature map speaks for a class: M_c(x, y) = sum_k w_k^c f_k(x, y).

    Its mean over the places, plus the class's bias, is the class's logit. Zhou, Khosla, Lapedriza, Oliva, Torralba,
    Learning Deep Features for Discriminative Localization, CVPR 2016, equations 1 and 2.

    Args:
        features: FloatTensor[B, C, h, w], what is pooled.
        weight: FloatTensor[K, C], of the classifier.
        classes: LongTensor[B], one class an image.

    Returns:
        FloatTensor[B, h, w].
    """
    return torch.einsum("bchw,bc->bhw", features, weight[classes])


def activation_maps(model: nn.Module, pixel_values: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Class activation maps of a network whose linear classifier reads the spatial mean of a feature map.

    Args:
        model: knows its ``config.num_labels``; it is left as it was found.
        pixel_values: FloatTensor[B, C, H, W].
        classes: LongTensor[B], one class an image; None takes the ones that the model predicts.

    Returns:
        the maps [B, h, w] and the logits [B, K].

    Raises:
        ValueError: for any other network, and for images so small that the feature map is one place.
    """
    problem = ValueError(
        f"{type(inner_module(model)).__name__} has no feature map of several places with global average pooling "
        "directly before a linear classifier, which class activation maps need: pass a CNN such as "
        "timm/small_resnet18, or larger images."
    )
    try:
        classifier = linear_of(classifier_of(model, label_spec(model).num_labels))
    except ValueError as error:
        raise problem from error
    read: list[Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad(), _LastMap(classifier.in_features) as last:
            logits = call(model, {"pixel_values": pixel_values}, len(pixel_values))
    finally:
        handle.remove()
        for module, mode in modes.items():
            module.training = mode
    features = last.features
    if features is None or len(read) != 1 or not _is_near(features.mean((2, 3)), read[0]):
        raise problem
    classes = logits.argmax(1) if classes is None else classes
    return class_activation_map(features, classifier.weight.detach(), classes), logits


class _LastMap(TorchFunctionMode):
    """Keeps the last feature map with some number of channels and several places, whatever module or function made it.

    Hooks would miss an activation that is a function, as the last one of many networks is.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.features: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        is_map = isinstance(made, Tensor) and made.dim() == 4 and made.shape[2:].numel() > 1
        if is_map and made.shape[1] == self.channels:
            self.features = made
        return made


def _is_near(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same but for rounding."""
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-3 * b.abs().max())


def look_at(model: nn.Module, images: Sequence[Image.Image], data: ImageData) -> Look:
    """What a trained model makes of images, which are read as in its evaluation.

    Args:
        model: trained on ``data``.
        images: some of the data.
        data: tells the statistics and the size where the model does not.

    Raises:
        ValueError: for a model of other classes than the data's, and as `activation_maps`.
    """
    count, wanted = label_spec(model).num_labels, input_config(model)
    if count != len(data.label_names):
        raise ValueError(
            f"it has {count} classes and dataset {data.name} has {len(data.label_names)}: pass the dataset that it was "
            "trained on."
        )
    channels = wanted.channels or data.channels
    size, none, one = wanted.image_size or data.image_size, (0.0,) * channels, (1.0,) * channels
    filter_, crop_pct = wanted.interpolation or "bilinear", wanted.crop_pct or 1.0
    view = image_transform(size, none, one, is_training=False, interpolation=filter_, crop_pct=crop_pct)
    views = torch.stack([view(image) for image in images])
    statistics = (wanted.mean or of_channels(data.mean, channels), wanted.std or of_channels(data.std, channels))
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in statistics)
    maps, logits = activation_maps(model, (views - mean) / std)
    probabilities, predicted = logits.softmax(1).max(1)
    return Look(views, maps, predicted, probabilities)


def draw_maps(
    images: Sequence[Image.Image], labels: Sequence[int], runs: Mapping[str, Look], names: Sequence[str]
) -> Figure:
    """A column an image: the image with its class, and under it what each run makes of it.

    Red is where a map is highest and blue where it is lowest, each on a scale of its own; maps are enlarged to the
    image (bilinear). Over each stands the predicted class with its probability, green and ticked where it is right.

    Args:
        images: as they are in the data.
        labels: their classes.
        runs: name -> what it makes of these images.
        names: of the classes.

    Returns:
        a figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: for no images or no runs.
    """
    if not len(images) or not runs:
        raise ValueError(f"{len(images)} images and {len(runs)} runs: pass at least one of each.")
    rows = 1 + len(runs)
    figure = Figure(figsize=(_PANEL * len(images) + 1.1, (_PANEL + 0.25) * rows), layout="constrained")
    axes = figure.subplots(rows, len(images), squeeze=False)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    for column, (image, label) in enumerate(zip(images, labels, strict=True)):
        axes[0, column].imshow(image.convert("RGB"))
        axes[0, column].set_title(_short(names[label], 20), fontsize=9)
    for row, (run, look) in zip(axes[1:], runs.items(), strict=True):
        row[0].set_ylabel(textwrap.fill(run, 22), fontsize=9)
        maps = F.interpolate(look.maps[:, None], look.views.shape[2:], mode="bilinear")[:, 0]
        found = zip(look.views, maps, look.predicted.tolist(), look.probabilities.tolist(), labels, strict=True)
        for panel, (view, heat, predicted, probability, label) in zip(row, found, strict=True):
            panel.imshow(view.mean(0).numpy(), cmap="gray", vmin=-0.6, vmax=1)  # lighter, so that colours show on black
            shown = panel.imshow(heat.numpy(), cmap="jet", alpha=0.5)
            is_right = predicted == label
            title = f"{'✓' if is_right else '✗'} {_short(names[predicted], 13)} {probability:.2f}"
            panel.set_title(title, fontsize=9, color=_RIGHT if is_right else _WRONG)
    bar: Any = figure.colorbar(shown, ax=axes, ticks=shown.get_clim(), shrink=0.5, aspect=30, pad=0.02)
    bar.solids.set_alpha(1)
    bar.ax.set_yticklabels(["least", "most"], fontsize=9)
    bar.set_label("evidence", fontsize=9, labelpad=0)
    return figure


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 1].rstrip()}…"


def choose(labels: np.ndarray, count: int, seed: int) -> list[int]:
    """Numbers of random images, of as many different classes as there can be.

    Args:
        labels: the class of each image.
        count: how many images.
        seed: the same seed gives the same images.

    Raises:
        ValueError: for a count below 1 or above the number of images.
    """
    if not 1 <= count <= len(labels):
        raise ValueError(f"images={count}: pass a number from 1 to {len(labels)}, which is how many test images are.")
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)  # how many of its class come before it
    for name in np.unique(labels):
        of_class = order[labels[order] == name]
        turn[of_class] = np.arange(len(of_class))
    return order[np.argsort(turn[order], kind="stable")][:count].tolist()


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = Parser("hf-logitmix cam", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output folder of hf-logitmix images")
    parser.add_argument("--dataset", required=True, help="what the runs were trained on, as in hf-logitmix images")
    for kind in ("image", "label"):
        parser.add_argument(f"--{kind}_column", help=f"column of a table that holds the {kind}s, found without it")
    parser.add_argument("--output", required=True, help="the picture, such as cam.png")
    parser.add_argument("--images", type=int, default=8, help="number of test images (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images (%(default)s)")
    args = parser.parse_args(argv)
    for run in args.runs:
        if not (Path(run) / "config.json").is_file():
            raise ValueError(f"run {run} holds no model: pass an output_dir of hf-logitmix images.")
    data = load_images(args.dataset, args.image_column, args.label_column)
    if not data.test_split:
        raise ValueError(f"dataset={args.dataset!r} has training images alone: pass one with test images.")
    chosen = data.test.select(choose(data.test.labels, args.images, args.seed))
    images = [chosen.images[number] for number in range(len(chosen))]
    headings = [Path(run).resolve().name for run in args.runs]
    if len(set(headings)) < len(headings):
        headings = args.runs
    looks = {}
    for heading, run in zip(headings, args.runs, strict=True):
        model, info = AutoModelForImageClassification.from_pretrained(
            run, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
        )
        check_is_trained(f"run {run}", info)
        try:
            looks[heading] = look_at(model, images, data)
        except ValueError as error:
            raise ValueError(f"run {run}: {error}") from error
    draw_maps(images, chosen.labels.tolist(), looks, data.label_names).savefig(args.output, dpi=150)
    print(f"The picture is {args.output}.")
    return 0


if __name__ == "__main__":
    start(["cam", *sys.argv[1:]])
