"""A training step waits for the GPU no more often than one of stock Trainer's: counted on a GPU, and without one."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Trainer, default_data_collator

from helpers.data import Lazy
from helpers.parts import data_of, method_of, new_model, teacher_of, training_set
from helpers.training import arguments
from helpers.waits import GPU, Gpu
from hf_logitmix import METHODS, Method, MixCollator, MixTrainer, get_method
from hf_logitmix.mixing import Linear
from hf_logitmix.objectives import Mixed
from hf_logitmix.pairing import RandomPairs
from hf_logitmix.step import Step
from hf_logitmix.targets import LabelSmoothing

# A model of transformers may look at its masks once in each forward. Beside the forward that is trained on, one is for
# the saliency of the clean batch (where that is a pass of its own) or the teacher's logits.
FORWARDS = {"ssmix": 2, "distillation": 2}

VARIANTS: dict[str, Method] = {
    "at hidden:2": get_method("logitmix", level="hidden:2"),
    "at hidden:2, mixed rows alone": get_method("mixup", level="hidden:2"),
    "pooled": get_method("mixup", level="pooled"),
    "union": get_method("logitmix", masks="union"),
    "one lam an example": get_method("mixup", per_example=True),
    "half of the rows": get_method("logitmix", mix_fraction=0.5),
    "half of the batches": get_method("mixup", prob=0.5),
    "next in length": get_method("mixup", partners="length"),
    "another lam for labels": get_method("mixup", label_lam="uniform"),
    "class weights": get_method("logitmix", class_weights=[1.0, 2.0, 3.0]),
    "smoothed mix": get_method("mixup", targets=get_method("label_smoothing").targets),
    "margins": get_method("gmcel", margins=[0.5, 0.6, 0.7]),
    "flsd": get_method("focal", gamma="sd53"),
}


def test_what_waits_is_counted():
    gpu, there, drawn = Gpu(), torch.arange(6.0), torch.rand(3, generator=torch.Generator().manual_seed(0))
    gpu.put(there)
    sights = {
        "_local_scalar_dense": lambda: (there.sum().item(), bool(there[:2].view(2)[1] > 0), float(there[3])),
        "index by truth values": lambda: there[there > 2],
        "nonzero": lambda: torch.nonzero(there * 2),
        "tolist": lambda: (there + 1).tolist(),
        "numpy": lambda: there.detach().numpy(),
        "copy to the CPU": lambda: (there.cpu(), there.to("cpu")),
        "copy to the GPU": lambda: (
            *(drawn.to(there.device), drawn.to(there), torch.tensor([1.0], device=there.device)),
            drawn[0].to(there),
        ),
        "index on the host": lambda: there[torch.tensor([1, 2])],
        "repeat_interleave": lambda: there.repeat_interleave(there.long()),
        "equal": lambda: torch.equal(there, there.flip(0)),
    }
    for name, look in sights.items():
        with gpu.counting() as waits:
            look()
        expected = {"_local_scalar_dense": 3, "copy to the CPU": 2, "copy to the GPU": 4}.get(name, 1)
        assert waits[name] == expected, name


def test_what_does_not_wait_is_not_counted():
    gpu, layer = Gpu(), nn.Linear(6, 3)
    gpu.put(list(layer.parameters()))
    with gpu.counting() as waits:
        lam = torch.rand(2, generator=torch.Generator().manual_seed(0))
        assert lam.device.type == "cpu"
        assert bool(lam.sum() > 0)
        np.asarray(lam)
        pixels = lam.repeat(3).to(GPU, non_blocking=True)
        assert pixels.is_cuda
        logits = layer(torch.stack([pixels, pixels.flip(0)])) * torch.tensor(0.5)
        ids = torch.arange(2, device=logits.device)
        logits[ids == 1] = 0.0
        (F.one_hot(ids, 3) * logits + F.dropout(logits)).sum().backward()
        torch._assert_async((ids < 2).all(), "ids")
        assert layer.weight.grad.is_cuda
    assert not +waits


def test_tensors_of_both_sides_do_not_meet():
    gpu, there = Gpu(), torch.ones(3)
    gpu.put(there)
    with gpu.counting(), pytest.raises(RuntimeError, match="on the CPU, others on a GPU"):
        there * torch.ones(3)


# ---- steps ---------------------------------------------------------------------------------------------------------


def waits_of_step(trainer: Trainer, gpu: Gpu, batches: list[dict], index: int = 0) -> Counter:
    """The waits of an optimizer step of some micro-batches, with their backward passes."""
    gpu.put([*trainer.model.parameters(), *trainer.model.buffers(), *batches])
    trainer._prepare_inputs = dict  # the loader has put the batch on the GPU
    trainer.current_gradient_accumulation_steps = len(batches)
    trainer.state.global_step = index
    trainer.model.zero_grad()
    with gpu.counting() as waits:
        taken, items = trainer.get_batch_samples(iter(batches), len(batches), trainer.args.device)
        for batch in taken:
            trainer.training_step(trainer.model, dict(batch), items)
    return +waits


def batches_of(kind: str, count: int, length: int | None = None, collator=default_data_collator) -> list[dict]:
    """Batches of four examples; texts are cut at a length, at which they need no padding."""
    rows = data_of(kind, 4 * count)
    if length is not None and kind != "images":
        rows = [{k: v[:length] if isinstance(v, torch.Tensor) else v for k, v in row.items()} for row in rows]
    return [collator(rows[4 * number : 4 * number + 4]) for number in range(count)]


@cache
def stock_waits(kind: str, length: int | None = None) -> int:
    """Of a training step of stock Trainer, which counts the examples of an accumulated step besides."""
    trainer = Trainer(model=new_model(kind), args=arguments("unused"), train_dataset=data_of(kind, 8))
    trainer.model_accepts_loss_kwargs = False
    return waits_of_step(trainer, Gpu(), batches_of(kind, 1, length)).total()


def check_steps(
    folder, kind: str, method: Method, data=None, forwards: int = 1, collator=default_data_collator, **of_model
) -> None:
    """No step waits more often than stock Trainer's but the first, which tries the mixing and moves constants."""
    rows = data_of(kind, 8) if data is None else data
    args, gpu = arguments(folder, remove_unused_columns=False), Gpu()
    model = new_model(kind, **of_model)
    trainer = MixTrainer(model=model, args=args, method=method, train_dataset=rows, data_collator=collator)
    trainer._set_up_method()
    for module in (trainer.method_in_training.learned, teacher_of(kind)):
        gpu.put([*module.parameters(), *module.buffers()])
    accumulated = [collator(rows[:4]), collator(rows[4:8])] if data is not None else batches_of(kind, 2, None, collator)
    with trainer.method_in_training.install(trainer.model):
        trainer.current_gradient_accumulation_steps = 1
        trainer.training_step(trainer.model, dict(accumulated[0]))
        trainer.method_in_training.learned.zero_grad()
        waits_of_step(trainer, gpu, accumulated[:1])
        for index in (0, 1):  # LaMix mixes the second, and a switch has CutMix there
            waits = waits_of_step(trainer, gpu, accumulated, index)
            assert waits.total() <= 2 * forwards * stock_waits(kind), waits
        if data is None:
            waits = waits_of_step(trainer, gpu, batches_of(kind, 1, 6, collator))
            assert waits.total() <= forwards * stock_waits(kind, 6), waits


@pytest.mark.parametrize("name", METHODS)
def test_no_method_waits_more_often_than_stock_trainer(name, tmp_path):
    kind, method = method_of(name)
    check_steps(tmp_path, kind, method, forwards=FORWARDS.get(name, 1))


@pytest.mark.parametrize("name", VARIANTS)
def test_no_option_waits(name, tmp_path):
    check_steps(tmp_path, "text", VARIANTS[name])


@pytest.mark.parametrize("name", ["logitmix", "remix", "lamix"])
def test_no_plan_of_a_collator_waits(name, tmp_path):
    method = get_method(name, **({"class_counts": (3.0, 2.0, 1.0)} if name == "remix" else {}))
    check_steps(tmp_path, "text", method, collator=MixCollator(default_data_collator, method))


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", None])
def test_no_check_of_labels_waits_after_the_first_batch(problem_type, tmp_path):
    """A dataset that computes its examples, so that labels are seen in batches alone."""
    rows = data_of("text", 24)
    if problem_type == "single_label_classification":
        rows = [{**row, "labels": torch.tensor([0.2, 0.3, 0.5])} for row in rows]
    elif problem_type is not None:
        rows = [{**row, "labels": torch.tensor([0.0, 1.0, 1.0])} for row in rows]
    rows = [{**row, "sample_weight": 0.5} for row in rows]
    check_steps(tmp_path, "text", get_method("logitmix"), Lazy(rows), problem_type=problem_type)


def test_wrong_labels_of_the_first_batch_are_told_in_a_sentence_though_they_are_on_a_gpu(tmp_path):
    rows = data_of("text", 8)
    trainer = MixTrainer(model=new_model("text"), args=arguments(tmp_path), method="vanilla", train_dataset=Lazy(rows))
    batch = default_data_collator([{**row, "labels": 7} for row in rows[:4]])
    with pytest.raises(ValueError, match=r"label 7 of example 0 is outside 0\.\.2"):
        waits_of_step(trainer, Gpu(), [batch])


class OutOfRange(RandomPairs):
    def __call__(self, inputs, labels, step):
        return super().__call__(inputs, labels, step)._replace(lam=torch.full((len(labels),), 2.0))


def test_a_wrong_plan_of_a_pairing_is_told_in_a_sentence_before_it_goes_to_the_gpu():
    gpu, model, (batch,) = Gpu(), new_model("text"), batches_of("text", 1)
    gpu.put([*model.parameters(), *model.buffers(), batch])
    labels, method = batch.pop("labels"), Method(Linear(), Mixed(), pairing=OutOfRange())
    ready = method.setup(training_set("text", model))
    with gpu.counting(), pytest.raises(ValueError, match=r"lam 2\.0 is outside 0\.\.1"):
        ready(model, batch, labels, Step(0, 1))


@dataclass(frozen=True)
class Counted(LabelSmoothing):
    asked: list = field(default_factory=list)

    def matrix(self, num_labels):
        self.asked.append(num_labels)
        return super().matrix(num_labels)


def test_rows_of_targets_are_made_once(tmp_path):
    targets = Counted()
    trainer = MixTrainer(
        model=new_model("text"),
        args=arguments(tmp_path, gradient_accumulation_steps=2),
        method=get_method("logitmix", targets=targets),
        train_dataset=data_of("text", 24),
    )
    before = len(targets.asked)
    trainer.train()
    made = len(targets.asked) - before
    assert trainer.state.global_step == 3
    assert made <= 2  # once more when the method is checked again, as training begins


# ---- on a GPU ------------------------------------------------------------------------------------------------------


def waits_on_gpu(trainer: Trainer, batch: dict) -> int:
    trainer.current_gradient_accumulation_steps = 1
    trainer.training_step(trainer.model, dict(batch))
    trainer.training_step(trainer.model, dict(batch))
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.training_step(trainer.model, dict(batch))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(one.message) for one in told)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU of CUDA")
@pytest.mark.parametrize("length", [None, 6], ids=["padded", "unpadded"])
@pytest.mark.parametrize("name", METHODS)
def test_no_method_waits_more_often_than_stock_trainer_on_a_gpu(name, length, tmp_path):
    kind, method = method_of(name)
    args = arguments(tmp_path, use_cpu=False)
    (batch,) = batches_of(kind, 1, length)
    batch = {key: value.cuda() for key, value in batch.items()}
    stock = waits_on_gpu(Trainer(model=new_model(kind), args=args), batch)
    trainer = MixTrainer(model=new_model(kind), args=args, method=method, train_dataset=data_of(kind, 24))
    with trainer.method_in_training.install(trainer.model):
        assert waits_on_gpu(trainer, batch) <= FORWARDS.get(name, 1) * stock
