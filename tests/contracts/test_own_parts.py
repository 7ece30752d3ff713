"""Parts that are defined here, outside of the package: together they are a method like any other."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import default_data_collator

from helpers.data import batch_of, data_without_types, examples
from helpers.models import tiny_bert
from helpers.parts import kind_of, method_of, new_model
from helpers.training import InOrder, arguments, weights
from hf_logitmix import METHODS, Method, MixCollator, MixPlan, MixTrainer
from hf_logitmix.criteria import Criterion
from hf_logitmix.mixing import Linear, Mixing
from hf_logitmix.objectives import Objective, Term
from hf_logitmix.pairing import Pairing
from hf_logitmix.part import LabelSpec
from hf_logitmix.step import Step
from hf_logitmix.training.training_set import TrainingSet

SAVING = {"save_strategy": "steps", "save_steps": 1}


@dataclasses.dataclass(frozen=True)
class AcrossClasses(Pairing):
    """Each example meets the next one of the batch with another label, with a lam that the class counts decide."""

    counts: tuple[int, ...] | None = None

    def setup(self, training_set):
        return dataclasses.replace(self, counts=tuple(training_set.class_counts().tolist()))

    def __call__(self, inputs, labels, step):
        if self.counts is None:
            raise ValueError("AcrossClasses must see the training set first: call setup().")
        shift = 1 + int(step.uniform("shift") * (len(labels) - 1))
        own = torch.arange(len(labels))
        partner = (own + shift) % len(labels)
        partner = torch.where(labels == labels[partner], own, partner)
        share = torch.tensor(self.counts)[labels] / sum(self.counts)
        return MixPlan(partner, torch.full((len(labels),), 0.75), 1 - share)


@dataclasses.dataclass(frozen=True)
class Half(Mixing):
    """Linear at the input, with the lam of the plan drawn towards one half."""

    pull: float = 0.5
    reads: ClassVar[tuple[str, ...]] = ("text",)

    def __call__(self, model, inputs, plan, rows, *, step, labels=None, criterion=None):
        nearer = plan._replace(lam=plan.lam + self.pull * (0.5 - plan.lam))
        return Linear()(model, inputs, nearer, rows, step=step)


@dataclasses.dataclass(frozen=True)
class Weighed(Objective):
    """alpha times the loss of the mixed rows, and the rest of the clean ones."""

    alpha: float = 0.25
    kinds = frozenset({"both"})

    def __call__(self, output, labels, loss, inputs):
        mixed = loss.mixed(output.mixed_logits, labels, output.plan)
        return {"mix": Term(mixed, self.alpha), "cls": Term(loss(output.logits, labels), 1 - self.alpha)}


@dataclasses.dataclass(frozen=True)
class Quadratic(Criterion):
    """The squared distance of probabilities from the target (Brier)."""

    def __call__(self, logits, target):
        rows = target if target.is_floating_point() else F.one_hot(target, logits.shape[-1]).to(logits.dtype)
        return (logits.softmax(-1) - rows).square().sum(-1)


OWN = Method(mixing=Half(), objective=Weighed(), pairing=AcrossClasses(), criterion=Quadratic())


def loss_by_hand(model, batch, labels, plan, alpha):
    """The words of a pair of equally long rows at lam 5/8, the labels at their own lam, and Brier's distance."""
    words = model.get_input_embeddings()(batch["input_ids"])
    lam = 0.625
    mixed = model(inputs_embeds=lam * words + (1 - lam) * words[plan.partner], attention_mask=batch["attention_mask"])
    one_hot = F.one_hot(labels, 3).float()
    far = (mixed.logits.softmax(-1)[:, None] - torch.stack([one_hot, one_hot[plan.partner]], 1)).square().sum(-1)
    mix = (plan.label_lam * far[:, 0] + (1 - plan.label_lam) * far[:, 1]).mean()
    clean = (model(**batch).logits.softmax(-1) - one_hot).square().sum(-1).mean()
    return alpha * mix + (1 - alpha) * clean


def equally_long(count: int) -> list[dict]:
    """Texts of five words without padding, with labels of which two next to one another are never the same."""
    rows = [{name: value[:5] for name, value in row.items() if name != "labels"} for row in data_without_types(count)]
    return [{**row, "labels": number % 3} for number, row in enumerate(rows)]


@pytest.mark.parametrize("alpha", [0.25, 0.9])
def test_a_step_of_training_is_what_the_parts_say(tmp_path, alpha):
    data, model = equally_long(8), tiny_bert()
    method = OWN.with_options(alpha=alpha)
    args = arguments(tmp_path, max_steps=1)
    trainer = InOrder(model=model, args=args, method=method, train_dataset=data)
    trainer.train()
    by_hand, batch = tiny_bert(), batch_of(data)
    labels = torch.tensor([row["labels"] for row in data])
    plan = method.setup(TrainingSet(data, by_hand, 3)).pairing(batch, labels, Step(0, 1, args.seed))
    loss = loss_by_hand(by_hand, batch, labels, plan, alpha)
    loss.backward()
    with torch.no_grad():
        for parameter in by_hand.parameters():
            if parameter.grad is not None:
                parameter -= args.learning_rate * parameter.grad
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), abs=1e-5)
    torch.testing.assert_close(weights(model), weights(by_hand), atol=2e-5, rtol=1e-4)


def test_it_resumes_to_the_bit_and_not_with_other_options(tmp_path):
    def run(folder, resume=None, **options):
        method = OWN.with_options(**options)
        args = arguments(folder, max_steps=2, **SAVING)
        trainer = MixTrainer(model=tiny_bert(dropout=0.3), args=args, method=method, train_dataset=examples(24))
        trainer.train(resume_from_checkpoint=resume)
        return weights(trainer.model)

    whole = run(tmp_path)
    assert torch.equal(run(tmp_path, str(tmp_path / "checkpoint-1")), whole)
    with pytest.raises(ValueError, match=r"pull was 0\.5 and is 0\.2"):
        run(tmp_path, str(tmp_path / "checkpoint-1"), pull=0.2)


def test_it_draws_plans_in_a_collator():
    data = equally_long(12)
    ready = OWN.setup(TrainingSet(data, tiny_bert(), 3))
    loader = DataLoader(data, batch_size=4, collate_fn=MixCollator(default_data_collator, ready))
    counts = torch.bincount(torch.tensor([row["labels"] for row in data]), minlength=3)
    for batch in loader:
        labels, partner = batch["labels"], batch["partner"]
        meets = labels != labels[partner]
        assert (meets | (partner == torch.arange(4))).all()
        assert meets.any()
        torch.testing.assert_close(batch["label_lam"], 1 - counts[labels] / counts.sum())
    with pytest.raises(ValueError, match="AcrossClasses must see the training set first"):
        next(iter(DataLoader(data, batch_size=4, collate_fn=MixCollator(default_data_collator, OWN))))


def with_own(name: str, **own):
    """A method of the package with some parts of one's own, in training, and what it makes of six texts."""
    kind, method = method_of(name)
    model, data = new_model(kind), equally_long(6)
    labels = torch.tensor([row["labels"] for row in data])
    changed = dataclasses.replace(method, **own)
    changed.check(model, LabelSpec(3, "single_label_classification"))
    ready = changed.setup(TrainingSet(data, model, 3, default_data_collator))
    with ready.install(model.train()):
        return ready, labels, *ready(model, batch_of(data), labels, Step(1, 2))


READS_TEXT = [name for name, method in METHODS.items() if kind_of(method) == "text"]
MIXES_TEXT = [name for name in READS_TEXT if METHODS[name].mixes]


@pytest.mark.parametrize("name", MIXES_TEXT)
def test_its_pairing_and_its_mixing_serve_every_method(name):
    if METHODS[name].objective.takes_pairs_apart:
        with pytest.raises(
            ValueError, match=r"AcrossClasses.* with mixing=Half.* makes others: pass pairing=MutualPairs"
        ):
            with_own(name, pairing=AcrossClasses(), mixing=Half())
        return
    _, labels, terms, output = with_own(name, pairing=AcrossClasses(), mixing=Half())
    assert (labels != labels[output.plan.partner]).any()
    torch.testing.assert_close(output.plan.label_lam, torch.full((6,), 2 / 3))  # of six labels two are each class
    torch.testing.assert_close(output.plan.lam, torch.full((6,), 0.625))
    assert all(len(term.rows) == 6 and term.rows.isfinite().all() for term in terms.values())


@pytest.mark.parametrize("name", [name for name in READS_TEXT if not METHODS[name].objective.takes_pairs_apart])
def test_its_criterion_measures_the_rows_of_every_method(name):
    """Clean rows against the targets of their labels, mixed ones against both by lam, and LaMix's against its own."""
    ready, labels, terms, output = with_own(name, criterion=Quadratic())
    targets = ready.targets.matrix(3)
    targets = torch.eye(3) if targets is None else targets
    found = {"cls": output.logits, "mix": output.mixed_logits}
    partner, own = output.plan.partner, output.plan.weight_of_label
    beta = getattr(ready.method.objective, "beta", 1.0)
    assert terms.keys() & found.keys() == {key for key, logits in found.items() if logits is not None}
    for key in terms.keys() & found.keys():
        probabilities, beside = found[key][:, :3].softmax(-1), found[key][:, 3:]
        expected = (probabilities - targets[labels]).square().sum(-1)
        if key == "mix":
            expected = own * expected + (1 - own) * (probabilities - targets[labels[partner]]).square().sum(-1)
        if beta < 1:
            soft = beside.sigmoid().softmax(-1)
            expected = beta * expected + (1 - beta) * (probabilities - soft).square().sum(-1)
        torch.testing.assert_close(terms[key].rows, expected)


@pytest.mark.parametrize("name", READS_TEXT)
def test_its_objective_goes_with_every_mixing_and_targets(name):
    if not METHODS[name].mixing.mixes:
        with pytest.raises(ValueError, match=r"Weighed.* needs mixed rows"):
            with_own(name, objective=Weighed())
        return
    _, _, terms, output = with_own(name, objective=Weighed(alpha=0.25))
    assert {key: term.weight for key, term in terms.items()} == {"mix": 0.25, "cls": 0.75}
    assert output.logits.shape == output.mixed_logits.shape == (6, 3)


def test_its_mixing_is_refused_where_it_would_have_no_effect():
    with pytest.raises(ValueError, match=r"Half.* would have no effect"):
        with_own("vanilla", mixing=Half())
