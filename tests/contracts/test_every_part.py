"""What every part of a choice must keep, whatever it does: a new one is tested by being exported."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from helpers.models import hooks_on
from helpers.parts import batch_and_labels, classes_of, each, needs, new_model, training_set
from hf_logitmix import Method
from hf_logitmix.criteria import CrossEntropy, RowLoss
from hf_logitmix.mixing import Linear
from hf_logitmix.options import options_of
from hf_logitmix.output import MixedOutput
from hf_logitmix.pairing import MixPlan, check_plan
from hf_logitmix.part import LabelSpec
from hf_logitmix.step import Step
from hf_logitmix.targets import LabelSmoothing

CLASSES = LabelSpec(3, "single_label_classification")
MUTUAL = MixPlan(torch.tensor([2, 3, 0, 1]), torch.tensor([0.3, 0.9, 0.5, 0.7]))
PLAN = MixPlan(torch.tensor([2, 0, 3, 1]), torch.tensor([0.3, 0.9, 0.5, 0.7]))


def made(kind: str, part: type):
    """A part that has seen a training set, on a model of its own."""
    model = new_model(kind)
    return part(**needs(kind).get(part.__name__, {})).setup(training_set(kind, model)), model.eval()


@pytest.mark.parametrize(("kind", "part"), each("pairing", "mixing", "objective", "criterion", "targets"))
def test_options_are_frozen_and_named_by_their_help(kind, part):
    """What a part learns or finds is never written into its options."""
    given = part(**needs(kind).get(part.__name__, {}))
    before = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
    given.setup(training_set(kind, new_model(kind)))
    assert all(getattr(given, name) is value for name, value in before.items())
    for option in options_of(given, "part"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(given, option.path[1], None)
    assert type(given).__name__ in repr(given)


@pytest.mark.parametrize(("kind", "part"), each("pairing"))
def test_a_pairing_draws_what_can_be_mixed_and_by_the_step_alone(kind, part):
    pairing, _ = made(kind, part)
    inputs, labels = batch_and_labels(kind, 7)
    plans = []
    for index in range(20):
        step = Step(index, 20, seed=3)
        plan = pairing(inputs, labels, step)
        check_plan(plan, 7)
        assert 1 <= len(plan.partner) <= 7
        torch.manual_seed(index)
        again = pairing(inputs, labels, step)
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(plan, again, strict=True))
        plans.append([value.tolist() for value in plan if value is not None])
    assert len({str(plan) for plan in plans}) > 10
    for other in (Step(0, 20, seed=4), Step(0, 20, 3, micro_batch=1), Step(0, 20, 3, rank=1)):
        assert [v.tolist() for v in pairing(inputs, labels, other) if v is not None] != plans[0]


@pytest.mark.parametrize(("kind", "part"), each("mixing"))
@torch.no_grad()
def test_a_mixing_leaves_clean_rows_alone_and_gives_itself_where_lam_is_1(kind, part):
    """Against plain forwards of the model; the mixed rows are the same with clean ones beside them."""
    mixing, model = made(kind, part)
    inputs, labels = batch_and_labels(kind, 4)
    if kind not in mixing.reads or not mixing.mixes:
        with pytest.raises(ValueError, match=part.__name__):
            mixing(model, inputs, PLAN, "both", step=Step(0, 9), labels=labels)
        return
    plain = model(**inputs).logits
    for one in (mixing, *mixing.alternatives(model)):
        one.check(model, CLASSES)
        with one.install(model):
            for plan in (PLAN, PLAN._replace(lam=torch.ones(4)), PLAN.first(2)):
                both, mixed = (
                    one(model, inputs, plan, rows, step=Step(0, 9), labels=labels) for rows in ("both", "mixed")
                )
                torch.testing.assert_close(both.logits, plain, atol=1e-5, rtol=1e-4)
                assert mixed.logits is None
                assert both.mixed_logits.shape == (len(plan.partner), 3)
                torch.testing.assert_close(both.mixed_logits, mixed.mixed_logits, atol=1e-5, rtol=1e-4)
                check_plan(both.plan, 4)
                assert torch.equal(both.plan.partner, plan.partner)
                own = both.plan.lam == 1
                assert own.all() or not (plan.lam == 1).all()
                own &= inputs.get("attention_mask", torch.ones(4, 1)).bool().all(1)[: len(own)]  # masks are a union
                torch.testing.assert_close(both.mixed_logits[own], plain[: len(own)][own], atol=1e-4, rtol=1e-3)
        assert hooks_on(model) == 0


@pytest.mark.parametrize(("kind", "part"), each("objective"))
def test_an_objective_gives_a_number_a_row_and_asks_for_what_it_says(kind, part):
    objective, _ = made(kind, part)
    inputs, labels = batch_and_labels(kind, 4)
    asked = {objective.rows(Step(step, 200, seed)) for step in range(200) for seed in range(3)}
    assert asked == objective.kinds
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    wide = 2 if objective.learned is not None else 1  # a second head's outputs stand beside the classifier's
    clean, mixed = logits.repeat(1, 1, wide)
    plan = MUTUAL if objective.takes_pairs_apart else PLAN
    for rows in asked | {"clean"}:  # a pairing may be off in any step
        output = MixedOutput(None if rows == "mixed" else clean, None if rows == "clean" else mixed, plan)
        terms = objective(output, labels, RowLoss(CrossEntropy()), inputs)
        assert terms
        for term in terms.values():
            assert term.rows.shape == (4,)
            assert term.rows.isfinite().all()
            assert term.weight >= 0
        for name, term in terms.items():  # a row depends on the logits of its example and the partner alone
            (gradient,) = torch.autograd.grad(term.rows[0], logits, retain_graph=True)
            assert not gradient[:, [1, 3]].any(), name


@pytest.mark.parametrize("part", classes_of("criterion"))
def test_a_criterion_is_a_function_of_each_row(part):
    """Rows alone give what they give together, and class ids what their one-hot rows give."""
    criterion, model = made("text", part)
    generator = torch.Generator().manual_seed(0)
    for problem_type, width in {
        "single_label_classification": 3,
        "multi_label_classification": 3,
        "regression": 1,
    }.items():
        if problem_type not in criterion.problem_types:
            with pytest.raises(ValueError, match=part.__name__):
                criterion.check(model, LabelSpec(width, problem_type))
            continue
        criterion.check(model, LabelSpec(width, problem_type))
        logits = 3 * torch.randn(6, width, generator=generator)
        if problem_type == "regression":
            target = torch.randn(6, generator=generator)
        elif problem_type == "multi_label_classification":
            target = torch.randint(0, 2, (6, 3), generator=generator).float()
        else:
            ids = torch.randint(0, 3, (6,), generator=generator)
            target = F.one_hot(ids, 3).float()
            if not criterion.takes_rows:
                with pytest.raises(ValueError, match=f"{part.__name__}.* class ids alone"):
                    criterion(logits, target)
                with pytest.raises(ValueError, match=f"{part.__name__}.* class ids alone"):
                    Method(criterion=criterion, targets=LabelSmoothing())
                target = ids
            torch.testing.assert_close(criterion(logits, ids), criterion(logits, target))
        found = criterion(logits, target)
        assert found.shape == (6,)
        assert (found >= 0).all()
        alone = torch.cat([criterion(logits[i : i + 1], target[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(alone, found)


@pytest.mark.parametrize(("kind", "part"), each("targets"))
def test_targets_are_rows_of_weights(kind, part):
    """[K, K], none below zero, and distributions where they say so; undefined for labels that are no classes."""
    targets, model = made(kind, part)
    rows = targets.matrix(3)
    rows = torch.eye(3) if rows is None else rows.detach()
    assert rows.shape == (3, 3)
    assert (rows >= 0).all()
    assert torch.allclose(rows.sum(1), torch.ones(3), atol=1e-5) is targets.are_distributions
    assert all(
        term.rows.dim() == 0 and term.rows.isfinite() and term.weight >= 0 for term in targets.penalty().values()
    )
    if targets.matrix(3) is not None:
        given = part(**needs(kind).get(part.__name__, {}))
        for other in ("regression", "multi_label_classification"):
            with pytest.raises(ValueError, match=part.__name__):
                given.check(model, LabelSpec(3, other))


def test_the_parts_are_found():
    """None of the tests above is empty."""
    assert Linear in classes_of("mixing")
    assert CrossEntropy in classes_of("criterion")
    assert all(classes_of(choice) for choice in ("pairing", "objective", "targets"))
