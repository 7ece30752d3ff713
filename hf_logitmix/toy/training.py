"""Training on points, in the loop of docs/plain_loop.md."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import default_data_collator

from hf_logitmix.analysis.bottleneck import with_bottleneck
from hf_logitmix.analysis.snapshots import Snapshot, look_at
from hf_logitmix.hub.provenance import versions
from hf_logitmix.method import Method, MethodInTraining
from hf_logitmix.models import call, evaluating
from hf_logitmix.objectives import total_of
from hf_logitmix.step import Step
from hf_logitmix.toy.points import PlaneNetwork, Points
from hf_logitmix.training.labels import label_spec
from hf_logitmix.training.runs import N_BINS, calibration
from hf_logitmix.training.training_set import TrainingSet

DATA = "synthetic spirals (made up by hf_logitmix)"


@dataclass(frozen=True)
class Settings:
    """How the networks are trained, the same for every method; all of it is ours.

    Attributes:
        counts: training points of each class; unequal, so that methods which count classes have something to do.
        held_out: points that the numbers are of, with the same shares of classes.
        noise: standard deviation of each coordinate around its spiral; at 0.25 the arms overlap here and there.
        width, depth: of the hidden layers.
        bottleneck: put two units before the classifier, `Bottleneck`.
        steps, batch_size, learning_rate: of AdamW on a cosine.
    """

    counts: tuple[int, ...] = (300, 200, 100)
    held_out: int = 3000
    noise: float = 0.25
    width: int = 64
    depth: int = 3
    bottleneck: bool = False
    steps: int = 500
    batch_size: int = 100
    learning_rate: float = 5e-3


@dataclass(frozen=True)
class Result:
    """A network that a method trained.

    Attributes:
        model: the network.
        record: what ``all_results.json`` holds, with the keys of a run.
        logits: [N, K], of the held-out points.
    """

    model: nn.Module
    record: dict[str, Any]
    logits: np.ndarray


def train(
    method: Method, points: Points, held_out: Points, settings: Settings, seed: int, snapshots: Path | None = None
) -> Result:
    """Train a network with a method, in the loop of docs/plain_loop.md, and measure it on held-out points.

    Args:
        method: any that mixes linearly or not at all.
        points: to train on.
        held_out: to measure on.
        settings: of the training.
        seed: of the network and of all that is drawn on the way.
        snapshots: where to keep `hf_logitmix.analysis.Snapshot` of the training points, ten times on the way and at the
            end; None keeps none.

    Raises:
        ValueError: for a method that cannot train such a network.
    """
    num_labels = len(settings.counts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = PlaneNetwork(num_labels, settings.width, settings.depth)
        model = with_bottleneck(model, num_labels) if settings.bottleneck else model
        method.check(model, label_spec(model))
        known = TrainingSet(points.rows(), model, num_labels, default_data_collator, shows_progress=False)
        ready = method.setup(known)
    optimizer = _optimizer(model, ready, settings)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    kept_at = set(np.linspace(0, settings.steps, 11).astype(int).tolist()) if snapshots is not None else set()
    started = time.perf_counter()
    model.train()
    with ready.install(model):
        for index, batch in enumerate(_batches(len(points.labels), settings, seed)):
            if snapshots is not None and index in kept_at:
                _look(model, ready, points, index, seed).save(snapshots)
            step = Step(index, settings.steps, seed)
            terms, _ = ready(model, {"pixel_values": points.pixel_values[batch]}, points.labels[batch], step)
            optimizer.zero_grad()
            total_of(terms).backward()
            optimizer.step()
            schedule.step()
        if snapshots is not None:
            _look(model, ready, points, settings.steps, seed).save(snapshots)
    seconds = time.perf_counter() - started
    with evaluating(model):
        logits = call(model, {"pixel_values": held_out.pixel_values}, len(held_out.labels)).numpy()
    record = {
        "task": "spirals",
        "data": DATA,
        "model": f"mlp-2-{'-'.join(map(str, [settings.width] * settings.depth))}-{num_labels}",
        "method_name": method.name,
        "method": str(method),
        "seed": seed,
        "data_seed": seed,
        "n_train": len(points.labels),
        "n_eval": len(held_out.labels),
        "n_bins": N_BINS,
        "settings": {**asdict(settings), "optimizer": "AdamW, cosine to 0"},
        "versions": versions(),
        "device": f"cpu, {torch.get_num_threads()} threads",
        "train_seconds": seconds,
        "train_steps_per_second": settings.steps / seconds,
        **{f"eval_{name}": value for name, value in calibration(logits, held_out.labels.numpy()).items()},
    }
    return Result(model, record, logits)


def _optimizer(model: nn.Module, ready: MethodInTraining, settings: Settings) -> torch.optim.Optimizer:
    """AdamW for the network, and for what is learned beside it without weight decay, at its own rate if it has one."""
    groups: list[dict[str, Any]] = [{"params": model.parameters()}]
    rate = getattr(ready.targets, "targets_lr", None)
    for name, part in ready.learned.items():
        own = {"lr": rate} if name == "targets" and rate is not None else {}
        groups.append({"params": part.parameters(), "weight_decay": 0.0, **own})
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _batches(count: int, settings: Settings, seed: int) -> Iterator[Tensor]:
    """The numbers of the points of each step: in another order each time round, without those that fill no batch."""
    generator, order = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.long)
    for _ in range(settings.steps):
        if len(order) < settings.batch_size:
            order = torch.randperm(count, generator=generator)
        batch, order = order[: settings.batch_size], order[settings.batch_size :]
        yield batch


def _look(model: nn.Module, ready: MethodInTraining, points: Points, step: int, seed: int) -> Snapshot:
    """A snapshot of the training points, and of twenty copies that are moved a little in the place of augmentation."""
    generator, pixels = torch.Generator().manual_seed(seed), points.pixel_values
    moved = [pixels + 0.1 * torch.randn(pixels.shape, generator=generator) for _ in range(20)]
    batch, *others = [[{"pixel_values": one, "labels": points.labels}] for one in (pixels, *moved)]
    return look_at(model, batch, len(points.labels.unique()), step=step, draws=others, method=ready)
