"""What the last layer reads and gives for the same examples, kept at each evaluation of a training run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_logitmix.analysis.bottleneck import bottleneck_of
from hf_logitmix.forward import mixed_forward
from hf_logitmix.method import MethodInTraining
from hf_logitmix.models import call, classifier_of, evaluating, first_of, linear_of, unwrap
from hf_logitmix.objectives.second_head import SecondHead
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.step import Step

if TYPE_CHECKING:
    from hf_logitmix.training.trainer import MixTrainer

FOLDER = "snapshots"


class Snapshot(NamedTuple):
    """What a model makes of N examples at one step of its training, as arrays.

    Attributes:
        step: optimizer steps done.
        features: [N, D], what the classifier reads.
        logits: [N, K].
        labels: [N] class ids.
        weight: [K, D], of the classifier.
        bias: [K], zeros where it has none.
        draws: [L, N, K], logits of the examples under L draws of what is random, or None.
        embedding: [N, 2], of a model with a `Bottleneck`, or None.
        soft: [N, K], the global soft labels of LaMix with a second head, or None.
        partner: [N], with whom each example was blended at 1/2 for ``mixed_soft``, or None.
        mixed_soft: [N, K], the global soft labels of the blends, or None.
    """

    step: int
    features: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    draws: np.ndarray | None = None
    embedding: np.ndarray | None = None
    soft: np.ndarray | None = None
    partner: np.ndarray | None = None
    mixed_soft: np.ndarray | None = None

    def save(self, folder: Path) -> Path:
        """Write ``step-000100.npz`` into a folder, which is made; its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"step-{self.step:06d}.npz"
        np.savez_compressed(path, **{name: value for name, value in self._asdict().items() if value is not None})
        return path


def read_snapshots(run: str | Path) -> list[Snapshot]:
    """The snapshots of a run in the order of its training.

    Args:
        run: the output folder of a run, or its folder of snapshots.

    Raises:
        FileNotFoundError: where there are none.
    """
    folder = Path(run) / FOLDER if (Path(run) / FOLDER).is_dir() else Path(run)
    found = []
    for path in sorted(folder.glob("step-*.npz")):
        with np.load(path) as saved:
            found.append(Snapshot(**{name: saved[name] for name in saved.files})._replace(step=int(saved["step"])))
    if not found:
        raise FileNotFoundError(
            f"{run} holds no snapshots: train with --snapshots N and an --eval_strategy, or add the callback "
            "hf_logitmix.analysis.Snapshots."
        )
    return found


def look_at(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    num_labels: int,
    *,
    step: int = 0,
    draws: Iterable[Iterable[Mapping[str, Any]]] = (),
    method: MethodInTraining | None = None,
) -> Snapshot:
    """What a model makes of some examples, in evaluation mode and without a trace in it or in random numbers.

    Args:
        model: whose last linear layer gives the logits, and reads one vector an example.
        batches: of the examples, with ``labels``.
        num_labels: K.
        step: optimizer steps done.
        draws: the same examples again, once for each draw of what is random, such as augmentation.
        method: in training; of LaMix with a second head its soft labels are kept too, of the examples and of blends at
            1/2, in which each meets the next one of its batch.

    Raises:
        ValueError: for a model whose classifier is not found, is not called, or reads a vector for each token, and for
            labels that are no class ids.
    """
    classifier = classifier_of(model, num_labels)
    head = None if method is None else next((m for m in method.learned.modules() if isinstance(m, SecondHead)), None)
    device, bottleneck = next(model.parameters()).device, bottleneck_of(model)
    kept: dict[str, list[Tensor]] = {}
    seen, done = _Seen(classifier, bottleneck), 0
    with evaluating(model), seen:
        for batch in batches:
            inputs, labels = _apart(batch, device)
            rows = len(labels)
            found = {"logits": call(model, inputs, rows), "features": seen.features(), "labels": labels}
            if bottleneck is not None:
                found["embedding"] = seen.embedding()
            if head is not None and method is not None:
                partner = torch.arange(rows, device=device).roll(-1)
                plan = MixPlan(partner, torch.full((rows,), 0.5, device=device))
                found |= {"soft": _soft(head, seen.features()), "partner": partner + done}
                mixed_forward(
                    model, inputs, plan, mixing=method.mixing, rows="mixed", labels=labels, step=Step(step, step + 1)
                )
                found["mixed_soft"] = _soft(head, seen.features()[-rows:])
            for name, value in found.items():
                kept.setdefault(name, []).append(value.detach().cpu())
            done += rows
        drawn = [
            torch.cat([call(model, _apart(batch, device)[0], len(batch["labels"])).cpu() for batch in again])
            for again in draws
        ]
    if not done:
        raise ValueError("there are no examples to look at: pass at least one.")
    arrays = {name: torch.cat(values).numpy() for name, values in kept.items()}
    linear = linear_of(classifier)
    weight = linear.weight.detach().float().cpu().numpy()
    bias = np.zeros(num_labels) if linear.bias is None else linear.bias.detach().float().cpu().numpy()
    noisy = torch.stack(drawn).float().numpy() if drawn else None
    return Snapshot(step=step, weight=weight, bias=bias, draws=noisy, **arrays)


def _apart(batch: Mapping[str, Any], device: torch.device) -> tuple[dict[str, Any], Tensor]:
    inputs = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    labels = inputs.pop("labels", None)
    if labels is None or labels.is_floating_point() or labels.dim() != 1:
        raise ValueError("snapshots are of examples with class ids as their `labels`: pass such examples.")
    return inputs, labels


def _soft(head: SecondHead, features: Tensor) -> Tensor:
    return head(features).sigmoid().softmax(-1)


class _Seen:
    """Hooks that keep what the classifier, and a bottleneck before it, last read."""

    def __init__(self, classifier: nn.Module, bottleneck: nn.Module | None) -> None:
        self._modules = {"classifier": classifier, "bottleneck": bottleneck}
        self._read: dict[str, Tensor] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> _Seen:
        for name, module in self._modules.items():
            if module is not None:
                self._handles.append(module.register_forward_pre_hook(self._keep(name), with_kwargs=True))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._read[name] = first_of(args, kwargs)

        return hook

    def features(self) -> Tensor:
        read = self._read.get("classifier")
        if read is None or read.dim() != 2:
            what = "is not called" if read is None else f"reads {tuple(read.shape)}, a vector for each token"
            raise ValueError(f"the model's classifier {what}, and snapshots need one vector an example.")
        return read.float()

    def embedding(self) -> Tensor:
        return self._modules["bottleneck"].embedding(self._read["bottleneck"])  # type: ignore[union-attr, operator]


def spread(size: int, count: int) -> list[int]:
    """Numbers of ``count`` of ``size`` examples, spread evenly.

    Raises:
        ValueError: for a count below 1 or above the number of examples.
    """
    if not 1 <= count <= size:
        raise ValueError(f"snapshots={count}: pass a number from 1 to {size}, the number of training examples.")
    return np.linspace(0, size - 1, count).round().astype(int).tolist()


class Snapshots(TrainerCallback):
    """Keeps a `Snapshot` of the same examples at each evaluation, in the folder ``snapshots`` of the run.

    Example:
        >>> trainer.add_callback(Snapshots(trainer, trainer.eval_dataset.select(range(500))))  # doctest: +SKIP

    Args:
        trainer: that it is added to.
        examples: a dataset that the trainer can evaluate on, with class ids.
        draws: the same examples as datasets that are random, such as augmented images under other seeds, one for each
            draw; without them no mutual information can be drawn.

    Raises:
        ValueError: for a run of several processes, one without an evaluation, no examples, and as `look_at`, which is
            tried on the first batch.
    """

    def __init__(self, trainer: MixTrainer, examples: Any, draws: Sequence[Any] = ()) -> None:
        if trainer.args.world_size > 1:
            raise ValueError("snapshots are of one process, and this run has several: leave them out.")
        if trainer.args.eval_strategy == "no":
            raise ValueError("snapshots are kept at each evaluation, and eval_strategy is 'no': pass 'epoch'.")
        if not len(examples):
            raise ValueError("snapshots are of examples, and there are none: pass at least one.")
        self.trainer, self.examples, self.draws = trainer, examples, draws
        with torch.random.fork_rng(devices=[]):  # a loader draws a seed
            first = next(iter(self._batches(examples)))
        look_at(unwrap(trainer.model), [first], trainer.label_spec.num_labels)  # what fails, fails before training

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        trainer: Any = self.trainer
        found = look_at(
            unwrap(trainer.model),
            self._batches(self.examples),
            trainer.label_spec.num_labels,
            step=state.global_step,
            draws=map(self._batches, self.draws),
            method=trainer.method_in_training,
        )
        found.save(Path(str(args.output_dir)) / FOLDER)

    def _batches(self, data: Any) -> Iterable[Mapping[str, Any]]:
        return self.trainer.get_test_dataloader(data)
