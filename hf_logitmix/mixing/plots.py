"""Pictures of a mixed batch: what a model is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import default_data_collator

from hf_logitmix.figure import Figure
from hf_logitmix.forward import mixed_forward
from hf_logitmix.method import Method
from hf_logitmix.methods import as_method
from hf_logitmix.mixing.linear import Linear
from hf_logitmix.modalities import modality_of
from hf_logitmix.modalities.text import ids_of
from hf_logitmix.models import evaluation_mode, unwrap
from hf_logitmix.pairing.base import first_tensor
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.step import Step
from hf_logitmix.training.training_set import TrainingSet

_OWN, _PARTNER = (0.23, 0.44, 0.71), (0.85, 0.42, 0.34)  # blue and red
_WIDTH = 145  # letters in a line of text


def mixed_batch(
    method: str | Method,
    model: nn.Module,
    inputs: Mapping[str, Any],
    labels: Tensor,
    *,
    tokenizer: Any = None,
    step: Step | None = None,
    count: int = 6,
) -> Figure:
    """What a method makes of a batch, a row or column for each mixed example, with its lam and its label.

    Images are shown as the model sees them, below the two that they are made of; the grey scale or colours are
    stretched over the range of the batch. Of texts that are mixed as vectors both are shown, shaded by their weights;
    where words were replaced (SSMix), the text that the model reads, with the partner's words in red. Blue is an
    example's own, and so is a word that the partner has in the same place. At a hidden level the picture shows the
    inputs that meet there. Labels are shown as they are mixed, without what targets such as label smoothing add.

    Args:
        method: a name, or a `Method` that mixes.
        model: that reads the batch; it is run once, in evaluation mode.
        inputs: the batch, without labels.
        labels: of the batch.
        tokenizer: whose words are shown; None shows ids.
        step: where in training this is, which says what is drawn; None is the first step of a run with seed 0.
        count: examples to show.

    Returns:
        a figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: for a method that mixes nothing, a count below 1, and as `mixed_forward`.
    """
    method = as_method(method)
    if not method.mixes:
        raise ValueError(f"method={method.name or method} mixes nothing: pass one that does, such as 'mixup'.")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}.")
    if len(labels) != len(first_tensor(inputs)):
        raise ValueError(
            f"{len(labels)} labels do not fit a batch of {len(first_tensor(inputs))}: pass one an example."
        )
    method.mixing.check(model)
    step = Step(0, 1) if step is None else step
    config = getattr(unwrap(model), "config", None)
    rows = [{name: value[row] for name, value in inputs.items()} for row in range(len(labels))]
    rows = [{**row, "labels": label} for row, label in zip(rows, labels, strict=True)]
    num_labels = getattr(config, "num_labels", 0)
    known = TrainingSet(
        rows, model, num_labels, default_data_collator, processing_class=tokenizer, shows_progress=False
    )
    pairing, mixing = method.pairing.setup(known), method.mixing.setup(known)
    seen: list[dict[str, Any]] = []
    hook = unwrap(model).register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
    try:
        with evaluation_mode(unwrap(model)), torch.no_grad():
            plan = pairing(inputs, labels, step)
            plan = mixed_forward(model, inputs, plan, mixing=mixing, rows="mixed", labels=labels, step=step).plan
    finally:
        hook.remove()
    rows_mixed = len(plan.partner)
    plan = pairing.relabel(plan, labels).first(count).to("cpu")
    weights = torch.ones_like(plan.lam) if method.objective.takes_pairs_apart else plan.weight_of_label
    titles = [_title(row, plan, weights, labels.cpu(), config) for row in range(len(plan.lam))]
    over = f"{method.name or type(mixing).__name__}, {mixing.place}"
    key = ids_of(inputs)[0] if modality_of(model).has_masks else modality_of(model).main_input
    own, mixed = inputs[key].detach().cpu(), seen[-1][key][-rows_mixed:][:count].detach().cpu()
    if not modality_of(model).has_masks:
        return _images(own.float(), mixed.float(), plan, titles, over)
    mask = inputs.get("attention_mask", torch.ones_like(inputs[key])).detach().cpu()
    return _texts(own, None if isinstance(mixing, Linear) else mixed, mask, plan, titles, over, tokenizer)


def _title(row: int, plan: MixPlan, weights: Tensor, labels: Tensor, config: Any) -> str:
    """What stands over a mixed example: its lam, and the label it is compared with before targets change it."""
    lam, weight = float(plan.lam[row]), float(weights[row])
    names = getattr(config, "id2label", None) or {}

    def told(label: Tensor) -> str:
        if label.dim():  # several numbers
            return "(" + " ".join(f"{value:.2g}" for value in label.tolist()) + ")"
        return f"{float(label):.2f}" if label.is_floating_point() else str(names.get(int(label), int(label)))

    own, other = told(labels[row]), told(labels[plan.partner[row]])
    label = own if own == other or weight == 1 else f"{weight:.2f} {own} + {1 - weight:.2f} {other}"
    return f"lam {lam:.2f}: {label}"


def _images(own: Tensor, mixed: Tensor, plan: MixPlan, titles: list[str], over: str) -> Figure:
    """A column an example: the image, its partner, and what becomes of them unless they meet inside of the model."""
    shown = {"own": own[: len(titles)], "partner": own[plan.partner]}
    if not torch.equal(mixed, shown["own"]):
        shown["mixed"] = mixed
    low, high = own.min(), own.max()
    figure = Figure(figsize=(1.9 * len(titles) + 0.5, 1.8 * len(shown) + 0.9), layout="constrained")
    axes = figure.subplots(len(shown), len(titles), squeeze=False)
    for line, (name, images) in enumerate(shown.items()):
        for column, image in enumerate(images):
            pixels = ((image - low) / (high - low).clamp_min(1e-12)).clamp(0, 1).permute(1, 2, 0).numpy()
            cell = axes[line, column]
            cell.imshow(pixels[..., 0] if pixels.shape[-1] != 3 else pixels, cmap="gray", vmin=0, vmax=1)
            cell.set(xticks=[], yticks=[])
            if line == len(shown) - 1:
                cell.set_xlabel(titles[column].replace(": ", "\n").replace(" + ", "\n+ "), fontsize=8)
        axes[line, 0].set_ylabel(name)
    figure.suptitle(over)
    return figure


def _texts(
    own: Tensor, mixed: Tensor | None, mask: Tensor, plan: MixPlan, titles: list[str], over: str, tokenizer: Any
) -> Figure:
    """A block of lines an example: both texts shaded by their weights, or the mixed text with the partner's words."""
    lines: list[list[tuple[str, tuple[float, float, float], float]]] = []
    places: list[tuple[int, str]] = []
    for row, title in enumerate(titles):
        places.append((len(lines), title))
        lines.append([])
        lam, other = float(plan.lam[row]), int(plan.partner[row])
        if mixed is None:
            lines += _wrapped(_words(own[row], mask[row], tokenizer), _OWN, lam)
            lines += _wrapped(_words(own[other], mask[other], tokenizer), _PARTNER, 1 - lam)
        else:
            moved = ((mixed[row] != own[row]) & (mask[row] > 0))[mask[row] > 0].tolist()
            words = zip(_words(mixed[row], mask[row], tokenizer), moved, strict=True)
            lines += _wrapped([word for word, _ in words], _OWN, 0.5, moved)
    figure = Figure(figsize=(11, 0.27 * len(lines) + 0.7), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, _WIDTH), ylim=(len(lines), -0.5))
    axes.axis("off")
    for at, title in places:
        axes.text(0, at, title, fontsize=9, fontweight="bold", va="center")
    for at, line in enumerate(lines):
        x = 0
        for word, colour, weight in line:
            box = {"facecolor": (*colour, 0.75 * weight), "edgecolor": "none", "pad": 1.0}
            axes.text(x, at, word, fontsize=8, family="monospace", va="center", bbox=box, parse_math=False)
            x += len(word) + 1
    figure.suptitle(over)
    return figure


def _words(ids: Tensor, mask: Tensor, tokenizer: Any) -> list[str]:
    """The tokens of a text that its mask keeps."""
    kept = ids[mask > 0].tolist()
    return [str(one) for one in (kept if tokenizer is None else tokenizer.convert_ids_to_tokens(kept))]


def _wrapped(
    words: list[str], colour: tuple[float, float, float], weight: float, moved: list[bool] | None = None
) -> list[list[tuple[str, tuple[float, float, float], float]]]:
    """Words with colour and weight in lines that fit; ``moved`` ones in the partner's colour."""
    lines: list[list[tuple[str, tuple[float, float, float], float]]] = [[]]
    used = 0
    for number, word in enumerate(words):
        if used + len(word) > _WIDTH and lines[-1]:
            lines.append([])
            used = 0
        is_moved = moved is not None and moved[number]
        lines[-1].append((word, _PARTNER if is_moved else colour, weight))
        used += len(word) + 1
    return lines
