"""What training with every method of the table must keep: a new row is tested by being there."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import default_data_collator

from helpers.models import hooks_on
from helpers.parts import data_of, method_of, new_model
from helpers.training import InOrder, arguments, weights
from hf_logitmix import METHODS, Method, MixCollator, MixTrainer
from hf_logitmix.mixing import Mixing
from hf_logitmix.modalities import modality_of
from hf_logitmix.output import MixedOutput
from hf_logitmix.pairing import MixPlan, Remix, check_plan
from hf_logitmix.step import Step
from hf_logitmix.training.extras import FILE_NAME as EXTRAS
from hf_logitmix.training.training_set import TrainingSet

STEPS = 2
COUNT = 14  # a step of eight examples and one of six
SIZES = [(8, 1), (4, 2), (2, 4)]  # of a micro-batch, and how many make a step
each_method = pytest.mark.parametrize("name", [name for name in METHODS if name != "logitmix_m"])  # which is logitmix


def brought(features: list[dict], has_label_lam: bool) -> dict:
    """A batch whose plan stays inside each two examples, so that it is the same however a step is cut up."""
    batch = default_data_collator(features)
    own = torch.arange(len(features))
    batch |= {"partner": own ^ 1, "lam": torch.tensor([0.2, 0.7]).repeat(len(own))[: len(own)]}
    return {**batch, "label_lam": 0.9 - batch["lam"] / 2} if has_label_lam else batch


@dataclasses.dataclass(frozen=True)
class ByPairs(Mixing):
    """Another mixing of two examples at a time, whose draws depend on these two and the step alone."""

    mixing: Mixing

    def install(self, model):
        return self.mixing.install(model)

    def __call__(self, model, inputs, plan, rows, *, step, labels=None, criterion=None):
        parts = []
        for start in range(0, len(plan.partner), 2):
            pair = {name: value[start : start + 2] for name, value in inputs.items()}
            text = str([value.sum().item() for value in pair.values()])
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
            own = MixPlan(*(None if value is None else value[start : start + 2] for value in plan))
            own, known = (
                own._replace(partner=own.partner - start),
                None if labels is None else labels[start : start + 2],
            )
            at = dataclasses.replace(step, seed=seed, micro_batch=0)
            parts.append(self.mixing(model, pair, own, rows, step=at, labels=known, criterion=criterion))
        logits, mixed = (
            None if part[0] is None else torch.cat(part) for part in zip(*((p[0], p[1]) for p in parts), strict=True)
        )
        return MixedOutput(logits, mixed, plan._replace(lam=torch.cat([part.plan.lam for part in parts])))


def draws_for_each_batch(method: Method, kind: str) -> bool:
    """Whether the mixing of a batch is another one in another micro-batch of the same step."""
    model, batch = new_model(kind).eval(), default_data_collator(data_of(kind, 4))
    labels, plan = batch.pop("labels"), MixPlan(torch.arange(4) ^ 1, torch.full((4,), 0.5))
    with torch.no_grad(), method.mixing.install(model):
        first, second = (
            method.mixing(model, batch, plan, "mixed", step=Step(0, STEPS, micro_batch=number), labels=labels)
            for number in (0, 1)
        )
    return not torch.equal(first.mixed_logits, second.mixed_logits)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("every_method")


@pytest.fixture(scope="module")
def cut_up(folder):
    """By its name, a method's trainers of the same steps in micro-batches of each size."""

    @cache
    def of(name: str) -> list[MixTrainer]:
        kind, method = method_of(name)
        if method.mixes and draws_for_each_batch(method, kind):
            method = dataclasses.replace(method, mixing=ByPairs(method.mixing))
        has_label_lam = getattr(method.pairing, "label_lam", None) is not None
        trainers = []
        for batch, accumulation in SIZES:
            args = arguments(
                folder / name / str(batch),
                max_steps=STEPS,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulation,
            )
            trainer = InOrder(
                model=new_model(kind),
                args=args,
                method=method,
                train_dataset=data_of(kind, COUNT),
                data_collator=lambda features: brought(features, has_label_lam),
                rehearse=False,
            )
            trainer.train()
            trainers.append(trainer)
        return trainers

    return of


def logged(trainer: MixTrainer) -> list[dict[str, float]]:
    """What the log says of each step; its epoch, which counts micro-batches, left out."""
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [{key: value for key, value in entry.items() if key != "epoch"} for entry in entries]


@each_method
def test_micro_batches_make_the_same_steps_as_one_batch(cut_up, name):
    """The second step is a short one: 6, 4 + 2 or 2 + 2 + 2 examples."""
    whole, *parts = cut_up(name)
    assert len(logged(whole)) == STEPS
    for trainer in parts:
        torch.testing.assert_close(weights(trainer.model), weights(whole.model), atol=2e-5, rtol=1e-4)
        for ours, theirs in zip(logged(trainer), logged(whole), strict=True):
            assert ours == pytest.approx(theirs, abs=2e-4, rel=1e-4)


@each_method
def test_logged_terms_add_up_to_the_loss(cut_up, name):
    """With the weights that the objective and the targets give them, in whole steps and in the short one."""
    kind, method = method_of(name)
    for trainer in cut_up(name):
        ready, batch = trainer.method_in_training, default_data_collator(data_of(kind, 4))
        labels, extra = batch.pop("labels"), ready.targets.penalty()
        for index, entry in enumerate(logged(trainer)):
            with torch.no_grad(), ready.install(trainer.model.train()):
                terms, output = ready(trainer.model, batch, labels, Step(index, STEPS, trainer.args.seed))
            assert extra.keys() <= terms.keys()
            of_data = {n: term for n, term in terms.items() if n not in extra}
            expected = {*terms, *(["data_loss"] if extra else [])}
            expected |= set() if output.mixed_logits is None else {"lam_mean"}
            if not method.mixes and len(expected) == 1:
                expected = set()  # it would repeat the loss
            assert entry.keys() - {"loss", "grad_norm", "learning_rate", "step"} == expected
            total, penalty = (
                sum(term.weight * entry.get(n, entry["loss"]) for n, term in part.items()) for part in (of_data, extra)
            )
            assert entry["loss"] == pytest.approx(total + penalty, abs=1e-4)
            assert entry.get("data_loss", total) == pytest.approx(total, abs=1e-4)


@pytest.fixture(scope="module")
def saved(folder):
    """By its name, a method's run of two steps with dropout, and a checkpoint of each step."""

    @cache
    def of(name: str) -> tuple[Path, MixTrainer]:
        return train(folder / name / "saved", name)

    return of


def train(output: Path, name: str, resume: str | None = None) -> tuple[Path, MixTrainer]:
    kind, method = method_of(name)
    saving = {"save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch"}
    args = arguments(output, max_steps=STEPS, per_device_train_batch_size=4, gradient_accumulation_steps=2, **saving)
    model, data = new_model(kind, dropout=0.2), data_of(kind, COUNT)
    trainer = MixTrainer(model=model, args=args, method=method, train_dataset=data, eval_dataset=data)
    trainer.train(resume_from_checkpoint=resume)
    return output, trainer


@each_method
def test_a_resumed_run_ends_with_the_same_bits(saved, tmp_path, name):
    output, whole = saved(name)
    _, resumed = train(tmp_path, name, resume=str(output / "checkpoint-1"))
    assert torch.equal(weights(resumed.model), weights(whole.model))
    assert not torch.equal(weights(resumed.model), weights(new_model(method_of(name)[0])))
    assert logged(resumed)[-1] == logged(whole)[-1]
    learned, again = (trainer.method_in_training.learned.state_dict() for trainer in (whole, resumed))
    assert learned.keys() == again.keys()
    assert all(torch.equal(value, again[key]) for key, value in learned.items())


@each_method
def test_what_is_saved_is_a_plain_model(saved, tmp_path, name):
    """Nothing that a method learns, installs or is taught by is among the weights."""
    output, trainer = saved(name)
    (model := new_model(method_of(name)[0])).save_pretrained(tmp_path / "plain")
    known = load_file(tmp_path / "plain" / "model.safetensors").keys()
    trainer.evaluate()  # in which the model's own forward guesses a problem_type
    assert trainer.model.config.problem_type == model.config.problem_type
    trainer.save_model(str(tmp_path / "final"))
    for folder in (output / f"checkpoint-{STEPS}", tmp_path / "final"):
        assert load_file(folder / "model.safetensors").keys() == known
        loaded, info = modality_of(model).auto_class.from_pretrained(folder, output_loading_info=True)
        assert type(loaded) is type(model)
        assert not any(info[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert torch.equal(weights(loaded), weights(trainer.model))
    files, plain = ({path.name for path in (run / "checkpoint-1").iterdir()} for run in (output, saved("vanilla")[0]))
    assert files - plain == ({EXTRAS} if len(trainer.method_in_training.learned) else set())
    assert plain <= files
    assert hooks_on(trainer.model) == 0


@each_method
def test_a_collator_draws_the_plan(name):
    """The same for the same batch and seed, with a lam of the labels where the method has one."""
    kind, method = method_of(name)
    rows, other = data_of(kind, 9), data_of(kind, 18)[9:]
    plain = default_data_collator(rows)
    model = new_model(kind)
    ready = method.setup(TrainingSet(data_of(kind, COUNT), model, model.config.num_labels, default_data_collator))
    batch = MixCollator(default_data_collator, ready, seed=3)(rows)
    torch.manual_seed(7)
    again, reseeded, of_others = (
        MixCollator(default_data_collator, ready, seed=seed)(examples)
        for seed, examples in ((3, rows), (4, rows), (3, other))
    )
    added = batch.keys() - plain.keys()
    assert {"partner", "lam"} <= added <= {*MixPlan._fields}
    assert all(torch.equal(batch[key], plain[key]) for key in plain)
    plan = MixPlan(**{key: batch[key] for key in added})
    check_plan(plan, 9)
    assert all(torch.equal(batch[key], again[key]) for key in added)
    if not method.mixes:
        assert torch.equal(plan.partner, torch.arange(9))
        assert (plan.lam == 1).all()
        return
    draws_label_lam = method.pairing.label_lam is not None or isinstance(method.pairing, Remix)
    assert ("label_lam" in added) is draws_label_lam
    for unlike in (reseeded, of_others):
        assert not all(torch.equal(batch[key], unlike[key]) for key in added)
