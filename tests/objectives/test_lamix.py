"""LaMix: its loss against plain Python, its training against a hand-written loop, its second head on every model."""

from __future__ import annotations

import copy
import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, TrainerCallback, default_data_collator

from helpers.architectures import LENGTHS, MODEL_TYPES, NEEDS_OTHER_PACKAGES, inputs_of
from helpers.data import batch_of, data_without_types, examples, soft_mask
from helpers.models import tiny_bert, tiny_vit
from helpers.tiny_models import NUM_LABELS, tiny_model
from helpers.training import LEARNING_RATE, InOrder, arguments, weights
from hf_logitmix import MixPlan, MixTrainer, MixTrainingArguments, get_method, mixed_forward
from hf_logitmix.criteria import CrossEntropy, RowLoss
from hf_logitmix.losses import lamix_loss
from hf_logitmix.models import classifier_of, linear_of
from hf_logitmix.objectives import LaMix
from hf_logitmix.objectives.second_head import SecondHead
from hf_logitmix.pairing import Beta, Constant
from hf_logitmix.step import Step
from hf_logitmix.targets import Infogain, LabelSmoothing, OneHot

SMOOTH = 0.7 * torch.eye(3) + 0.1
MATRIX = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.6, 0.3], [0.5, 0.1, 0.4]])
EXTRAS = "hf_logitmix_extras.safetensors"
steady = settings(deadline=None, derandomize=True, max_examples=60)


# ---- the loss --------------------------------------------------------------------------------------------------


def batch(size=6, classes=3, mixed=None, seed=0, dtype=torch.float64):
    """Logits, the second head's outputs, class ids and a plan of ``mixed`` rows, each with a lam of its own."""
    g = torch.Generator().manual_seed(seed)
    mixed = size if mixed is None else mixed
    z, t = (2 * torch.randn(mixed, classes, generator=g, dtype=dtype) for _ in range(2))
    plan = MixPlan(torch.randperm(size, generator=g)[:mixed], torch.rand(mixed, generator=g))
    return z, t, torch.randint(classes, (size,), generator=g), plan


def softmax_loop(row):
    exps = [math.exp(x - max(row)) for x in row]
    return [e / sum(exps) for e in exps]


def target_loop(t, labels, plan, beta, rows):
    """The target of each mixed row, number by number."""
    target = []
    for i, (j, lam) in enumerate(zip(plan.partner.tolist(), plan.lam.tolist(), strict=True)):
        own, other = rows[labels[i]], rows[labels[j]]
        soft = softmax_loop([1 / (1 + math.exp(-x)) for x in t[i]]) if beta < 1 else [0.0] * len(own)
        given_ = [lam * a + (1 - lam) * b for a, b in zip(own, other, strict=True)]
        target.append([beta * y + (1 - beta) * p for y, p in zip(given_, soft, strict=True)])
    return target


def loss_loop(z, t, labels, plan, beta, targets=None):
    rows = (torch.eye(z.shape[1]) if targets is None else targets).tolist()
    target = target_loop(None if t is None else t.tolist(), labels.tolist(), plan, beta, rows)
    losses = [
        -sum(y * math.log(q) for y, q in zip(goal, softmax_loop(row), strict=True))
        for goal, row in zip(target, z.tolist(), strict=True)
    ]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("targets", [None, SMOOTH, MATRIX], ids=["one_hot", "smooth", "matrix"])
@pytest.mark.parametrize("mixed", [6, 2, 1], ids=lambda m: f"{m}_of_6_mixed")
@pytest.mark.parametrize("beta", [0.0, 0.2, 0.5, 1.0])
def test_loss_equals_a_loop(beta, mixed, targets):
    z, t, labels, plan = batch(mixed=mixed)
    expected = loss_loop(z, t, labels, plan, beta, targets)
    assert lamix_loss(z, t, labels, plan, beta=beta, targets=targets).item() == pytest.approx(expected, abs=1e-6)


def test_beta_is_one_half_unless_given():
    z, t, labels, plan = batch()
    assert lamix_loss(z, t, labels, plan).item() == pytest.approx(loss_loop(z, t, labels, plan, 0.5), abs=1e-6)


def test_beta_one_is_mixups_loss_and_needs_no_second_head():
    z, t, labels, plan = batch()
    one_hot, lam = F.one_hot(labels, 3).double(), plan.lam.double().unsqueeze(1)
    expected = F.cross_entropy(z, lam * one_hot + (1 - lam) * one_hot[plan.partner])
    torch.testing.assert_close(lamix_loss(z, None, labels, plan, beta=1.0), expected)
    torch.testing.assert_close(lamix_loss(z, t, labels, plan, beta=1), expected)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.999])
def test_beta_below_one_needs_the_second_head(beta):
    z, _, labels, plan = batch()
    with pytest.raises(ValueError, match=rf"beta={beta}.*soft_label_logits"):
        lamix_loss(z, None, labels, plan, beta=beta)


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan, math.inf])
def test_impossible_beta(beta):
    with pytest.raises(ValueError, match=f"beta={beta}"):
        lamix_loss(*batch(), beta=beta)
    with pytest.raises(ValueError, match=f"beta must be .* got {beta}"):
        get_method("lamix", beta=beta)


def test_beta_zero_does_not_look_at_the_labels():
    z, t, labels, plan = batch()
    here, there = (lamix_loss(z, t, y, plan, beta=0.0) for y in (labels, (labels + 1) % 3))
    assert here == there


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9])
def test_gradients_on_both_sides_equal_finite_differences(beta):
    z, t, labels, plan = batch(size=3, mixed=2)

    def loss(z, t):
        return lamix_loss(z, t, labels, plan, beta=beta, targets=MATRIX)

    assert torch.autograd.gradcheck(loss, (z.requires_grad_(), t.requires_grad_()))


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9])
def test_gradients_equal_the_formulas(beta):
    """(q - target) / M for z; for t the one through softmax and sigmoid, worked out by hand."""
    z, t, labels, plan = batch()
    target = torch.tensor(target_loop(t.tolist(), labels.tolist(), plan, beta, torch.eye(3).tolist())).double()
    squeezed = 1 / (1 + torch.exp(-t))
    p, log_q = squeezed.softmax(1), z.log_softmax(1)
    towards = p * ((p * log_q).sum(1, keepdim=True) - log_q) * squeezed * (1 - squeezed)
    lamix_loss(z.requires_grad_(), t.requires_grad_(), labels, plan, beta=beta).backward()
    torch.testing.assert_close(z.grad, (z.detach().softmax(1) - target) / 6, atol=1e-7, rtol=1e-5)
    torch.testing.assert_close(t.grad, (1 - beta) * towards.detach() / 6)


def test_a_detached_second_head_gets_no_gradient_and_changes_none_of_the_models():
    z, t, labels, plan = batch()
    z.requires_grad_(), t.requires_grad_()
    (both,) = torch.autograd.grad(lamix_loss(z, t, labels, plan), z, retain_graph=True)
    loss = lamix_loss(z, t.detach(), labels, plan)
    alone, none = torch.autograd.grad(loss, (z, t), allow_unused=True)
    assert none is None
    assert torch.equal(alone, both)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_a_float32_loss(dtype):
    z, t, labels, plan = batch(dtype=dtype)
    loss = lamix_loss(z, t, labels, plan)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss_loop(z, t, labels, plan, 0.5), rel=1e-5)


def test_extreme_logits_stay_finite():
    z = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], requires_grad=True)
    t = torch.tensor([[-1e4, 1e4, 0.0], [1e4, 1e4, -1e4]], requires_grad=True)
    lamix_loss(z, t, torch.tensor([1, 0]), MixPlan(torch.tensor([1, 0]), torch.tensor([0.2, 0.7]))).backward()
    assert z.grad.isfinite().all()
    assert t.grad.isfinite().all()


numbers = st.floats(-30, 30, width=32)


@st.composite
def batches(draw, sizes=(1, 6), classes=(2, 5)):
    """Logits, the second head's outputs, labels, partners, and beta; B from 1, K from 2."""
    size, num_labels = draw(st.integers(*sizes)), draw(st.integers(*classes))
    z, t = (torch.tensor(draw(arrays(np.float64, (size, num_labels), elements=numbers))) for _ in range(2))
    labels = torch.tensor(draw(st.lists(st.integers(0, num_labels - 1), min_size=size, max_size=size)))
    partner = torch.tensor(draw(st.permutations(range(size))))
    lam = torch.tensor(draw(arrays(np.float64, size, elements=st.floats(0, 1))))
    return z, t, labels, MixPlan(partner, lam), draw(st.floats(0, 1))


@steady
@given(batches(), st.randoms(use_true_random=False))
def test_lam_one_knows_only_the_own_label_and_lam_zero_only_the_partners(case, rng):
    z, t, labels, (partner, lam, _), beta = case
    others = torch.tensor(rng.sample(range(len(labels)), len(labels)))
    own = [lamix_loss(z, t, labels, MixPlan(who, torch.ones_like(lam)), beta=beta) for who in (partner, others)]
    torch.testing.assert_close(own[0], own[1])
    away = lamix_loss(z, t, labels[partner], MixPlan(torch.arange(len(z)), lam), beta=beta)
    torch.testing.assert_close(lamix_loss(z, t, labels, MixPlan(partner, torch.zeros_like(lam)), beta=beta), away)


@steady
@given(batches(sizes=(1, 1)))
def test_a_batch_of_one_meets_itself_whatever_lam(case):
    z, t, labels, plan, beta = case
    alone = MixPlan(plan.partner, torch.ones(1))
    here, there = (lamix_loss(z, t, labels, p, beta=beta) for p in (plan, alone))
    torch.testing.assert_close(here, there)
    assert here.item() == pytest.approx(loss_loop(z, t, labels, alone, beta), abs=1e-6, rel=1e-6)


@steady
@given(batches(classes=(2, 2)))
def test_two_classes_are_binary_cross_entropy(case):
    z, t, labels, (partner, lam, _), beta = case
    squeezed = torch.sigmoid(t)
    first = torch.sigmoid(squeezed[:, 0] - squeezed[:, 1])
    given_ = lam * (labels == 0) + (1 - lam) * (labels[partner] == 0)
    expected = F.binary_cross_entropy_with_logits(z[:, 0] - z[:, 1], beta * given_ + (1 - beta) * first)
    torch.testing.assert_close(lamix_loss(z, t, labels, MixPlan(partner, lam), beta=beta), expected)


@steady
@given(batches(), numbers)
def test_a_second_head_that_tells_nothing_apart_is_label_smoothing(case, constant):
    z, t, labels, (partner, lam, _), beta = case
    own = MixPlan(partner, torch.ones_like(lam))
    loss = lamix_loss(z, torch.full_like(t, constant), labels, own, beta=beta)
    torch.testing.assert_close(loss, F.cross_entropy(z, labels, label_smoothing=1 - beta))


@steady
@given(batches())
def test_the_loss_lies_between_that_of_one_class_and_e_times_another(case):
    """A sigmoid is in [0, 1], so no two entries of the soft label differ by more than a factor e."""
    z, t, labels, plan, _ = case
    log_q, classes = z.log_softmax(1), z.shape[1]
    low, high = 1 / (1 + (classes - 1) * math.e), math.e / (math.e + classes - 1)
    loss = lamix_loss(z, t, labels, plan, beta=0.0).item()
    assert -low * log_q.sum(1).mean().item() - 1e-9 <= loss <= -high * log_q.sum(1).mean().item() + 1e-9


# ---- the method ------------------------------------------------------------------------------------------------


def test_defaults():
    method = get_method("lamix")
    assert (method.pairing.lam, method.pairing.label_lam, method.mixing.level) == (
        Constant(0.5),
        Beta(1.0),
        "embedding",
    )
    objective = method.objective
    assert (objective.beta, objective.clean_batches, objective.detach_target) == (0.5, True, False)
    assert method.targets == OneHot()


def test_even_steps_take_originals_and_odd_ones_mixed_rows():
    for clean_batches, expected in ((True, ["clean", "mixed"] * 4), (False, ["mixed"] * 8)):
        method = get_method("lamix", clean_batches=clean_batches)
        assert [method.objective.rows(Step(step, 8, seed=3)) for step in range(8)] == expected


def test_options_and_targets_reach_it(tmp_path):
    args = arguments(tmp_path, MixTrainingArguments, method="lamix", beta=0.3, detach_target=True, label_lam="half")
    method = MixTrainer(model=tiny_bert(), args=args).method
    assert method == get_method("lamix", beta=0.3, detach_target=True, label_lam="half")
    assert get_method("lamix", targets=LabelSmoothing(0.2)).targets == LabelSmoothing(0.2)
    assert args.method_options()["beta"] == 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_lam": "third"}, "label_lam must be .* got 'third'"),
        ({"targets": Infogain()}, "targets=Infogain.*sum to 1"),
        ({"targets": torch.diag(torch.tensor([1.0, 0.5]))}, "(?s)targets=.*sum to 1"),
        ({"mix_fraction": 0.5}, "mix_fraction=0.5"),
        ({"lam": 1.5}, "lam must be .* got 1.5"),
        ({"learned": nn.Linear(2, 2)}, "learned is not an option"),
        ({"options": None}, "options is not an option"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        get_method("lamix", **options)


@pytest.mark.parametrize(
    ("num_labels", "problem_type"), [(1, None), (1, "regression"), (3, "multi_label_classification")]
)
def test_numbers_and_several_labels_are_refused(tmp_path, num_labels, problem_type):
    model = tiny_bert(num_labels, problem_type=problem_type)
    with pytest.raises(ValueError, match=f"LaMix is defined for classes and this is {problem_type or 'regression'}"):
        MixTrainer(model=model, args=arguments(tmp_path), method="lamix")


@torch.no_grad()
def test_inputs_meet_at_one_half_and_the_plan_keeps_the_lam_of_the_labels():
    """Sentences of equal length; the second time under the plan that LaMix's own pairing draws."""
    model = tiny_bert().eval()
    rows = {name: value[:, :6] for name, value in batch_of(examples(6)).items()}
    words = model.get_input_embeddings()(rows["input_ids"])
    half, label_lam = torch.full((6,), 0.5), torch.tensor([0.9, 0.1, 0.55, 0.3, 0.7, 0.0])
    by_hand = MixPlan(torch.tensor([3, 0, 4, 1, 2, 5]), half, label_lam)
    for plan in (by_hand, get_method("lamix").pairing(rows, None, Step(1, 2))):
        batch = {"input_ids": rows["input_ids"], "attention_mask": rows["attention_mask"]}
        expected = model(inputs_embeds=(words + words[plan.partner]) / 2, attention_mask=rows["attention_mask"]).logits
        output = mixed_forward(model, batch, plan, rows="mixed")
        torch.testing.assert_close(output.mixed_logits, expected, atol=2e-5, rtol=1e-4)
        assert torch.equal(output.plan.weight_of_label, plan.label_lam)
        assert torch.equal(output.plan.partner, plan.partner)
        both = mixed_forward(model, batch, plan, rows="both")
        torch.testing.assert_close(both.mixed_logits, expected, atol=2e-5, rtol=1e-4)


# ---- training against a loop by hand -----------------------------------------------------------------------------


class Started(InOrder):
    """Keeps what the second head was before the first step."""

    def _use_extras(self, method):
        super()._use_extras(method)
        self.start = copy.deepcopy(self._extras)


LAM = (0.2, 0.7, 0.4, 0.9)


def rings(size: int, ring: int = 4) -> MixPlan:
    """Each example meets the next of its ring. (In pairs that meet at 1/2 both rows are one, and a lam cancels out.)"""
    partner = []
    for start in range(0, size, ring):
        members = list(range(start, min(start + ring, size)))
        partner += [*members[1:], members[0]]
    return MixPlan(torch.tensor(partner), torch.full((size,), 0.5), torch.tensor(LAM[:ring]).repeat(size)[:size])


def collate(features, label_lam="uniform"):
    """Rings of four; of two in micro-batches of two. With the label lam ``half`` it is that of the inputs."""
    batch = default_data_collator(features)
    plan = rings(len(features), min(4, len(features)))
    own = {"label_lam": plan.label_lam} if label_lam == "uniform" else {}
    return {**batch, "partner": plan.partner, "lam": plan.lam, **own}


def head_of(extras) -> tuple[torch.Tensor, torch.Tensor]:
    linear = extras["objective"].linear
    return linear.weight.detach().clone(), linear.bias.detach().clone()


def train(folder, model=None, data=None, cls=Started, callbacks=(), method=None, **options):
    """Steps on rows in order, with a plan that the batch brings; options of the method are those it knows."""
    known = ("beta", "detach_target", "label_lam", "clean_batches", "targets", "alpha")
    chosen = {name: options.pop(name) for name in known if name in options}
    trainer = cls(
        model=tiny_bert() if model is None else model,
        args=arguments(folder, **{"max_steps": 4, **options}),
        method=get_method("lamix", **chosen) if method is None else method,
        train_dataset=data_without_types(30) if data is None else data,
        data_collator=partial(collate, label_lam=chosen.get("label_lam", "uniform")),
        callbacks=list(callbacks),
    )
    trainer.train()
    return trainer


def logged(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def loss_by_hand(bert, rows, head, *, mixed, beta=0.5, label_lam="uniform", detach_target=False, eps=0.0, ring=4):
    """Forwards through inputs_embeds without token types, both heads on the pooled output, the loss written out."""
    batch = batch_of(rows)
    labels = torch.tensor([row["labels"] for row in rows])
    targets = (1 - eps) * F.one_hot(labels, 3) + eps / 3
    if mixed:
        partner, _, lam = rings(len(rows), ring)
        lam = (torch.full_like(lam, 0.5) if label_lam == "half" else lam)[:, None]
        words = bert.get_input_embeddings()(batch["input_ids"])
        mask = soft_mask(batch["attention_mask"], partner, torch.tensor(0.5))
        features = bert.bert(inputs_embeds=(words + words[partner]) / 2, attention_mask=mask).pooler_output
        targets = lam * targets + (1 - lam) * targets[partner]
    else:
        features = bert.bert(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).pooler_output
    if beta < 1:
        soft = torch.sigmoid(features @ head[0].T + head[1]).softmax(-1)
        soft = soft.detach() if detach_target else soft
        targets = beta * targets + (1 - beta) * soft
    return -(targets * bert.classifier(features).log_softmax(-1)).sum(-1).mean()


def loop_by_hand(bert, data, head, *, clean_batches=True, steps=4, **options):
    """SGD over batches of eight; the model's trained parameters and the head are changed in place."""
    parameters, losses = [p for p in bert.parameters() if p.requires_grad], []
    for step in range(steps):
        for tensor in head:
            tensor.requires_grad_()
        mixed = step % 2 == 1 or not clean_batches
        loss = loss_by_hand(bert, data[8 * step : 8 * step + 8], head, mixed=mixed, **options)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, [*parameters, *head], allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip([*parameters, *head], gradients, strict=True):
                if gradient is not None:
                    parameter -= LEARNING_RATE * gradient
    return losses


CASES = {
    "defaults": {},
    "beta": {"beta": 0.2},
    "no_labels": {"beta": 0.0},
    "half": {"label_lam": "half"},
    "always_mixed": {"clean_batches": False},
    "detached": {"detach_target": True},
    "smooth": {"targets": LabelSmoothing(0.3)},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (2, 4), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_equals_a_loop_by_hand(tmp_path, case, batch, accumulation):
    """30 examples: the fourth step, a mixed one, holds six, and then its micro-batches are too few or unequal."""
    options, by_hand, data = CASES[case], tiny_bert(), data_without_types(30)
    size = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    trainer = train(tmp_path, **options, **size)
    head = head_of(trainer.start)
    plain = {"eps": 0.3} if case == "smooth" else options
    losses = loop_by_hand(by_hand, data, head, ring=min(batch, 4), **plain)
    assert logged(trainer) == pytest.approx(losses, abs=2e-5)
    torch.testing.assert_close(weights(trainer.model), weights(by_hand), atol=2e-5, rtol=1e-4)
    for ours, theirs in zip(head_of(trainer._extras), head, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("clean_batches", [True, False])
def test_beta_one_builds_no_second_head_and_equals_a_loop(tmp_path, clean_batches):
    by_hand = tiny_bert()
    trainer = train(tmp_path, beta=1.0, clean_batches=clean_batches, save_strategy="steps", save_steps=2)
    losses = loop_by_hand(by_hand, data_without_types(30), [], beta=1, clean_batches=clean_batches)
    assert logged(trainer) == pytest.approx(losses, abs=2e-5)
    torch.testing.assert_close(weights(trainer.model), weights(by_hand), atol=2e-5, rtol=1e-4)
    assert not len(trainer._extras)
    assert not (tmp_path / "checkpoint-2" / EXTRAS).exists()


def test_the_second_head_starts_wide_and_moves_unless_detached(tmp_path):
    moving, still = train(tmp_path), train(tmp_path, detach_target=True, optim="adamw_torch")
    weight, bias = head_of(moving.start)
    assert weight.shape == (3, 32)
    assert weight.std().item() == pytest.approx(0.3, rel=0.25)  # the initializer_range of the model
    assert torch.equal(bias, torch.zeros(3))
    assert not torch.equal(weight, tiny_bert().classifier.weight)
    for before, after in zip((weight, bias), head_of(moving._extras), strict=True):
        assert (after - before).abs().max() > 1e-4
    for before, after in zip(head_of(still.start), head_of(still._extras), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch"])
def test_a_detached_second_head_does_not_decay(tmp_path, optim):
    trainer = train(tmp_path, detach_target=True, optim=optim, weight_decay=0.5)
    assert torch.equal(head_of(trainer.start)[0], head_of(trainer._extras)[0])


def test_steps_log_their_own_term(tmp_path):
    entries = [entry for entry in train(tmp_path).state.log_history if "loss" in entry]
    for step, entry in enumerate(entries):
        own, other = ("mix", "cls") if step % 2 else ("cls", "mix")
        assert entry[own] == pytest.approx(entry["loss"], abs=1e-6)
        assert other not in entry
        assert ("lam_mean" in entry) is bool(step % 2)


def test_weights_of_the_second_head_decay_and_its_bias_does_not(tmp_path):
    trainer = train(tmp_path, weight_decay=0.1, max_steps=1)
    weight, bias = head_of(trainer.start)
    head = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    loss = loss_by_hand(tiny_bert(), data_without_types(8), head, mixed=False)
    of_weight, of_bias = torch.autograd.grad(loss, head)
    after = head_of(trainer._extras)
    torch.testing.assert_close(after[0], weight - LEARNING_RATE * (of_weight + 0.1 * weight), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(after[1], bias - LEARNING_RATE * of_bias, atol=1e-6, rtol=1e-5)
    decay = {id(p): group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    linear = trainer._extras["objective"].linear
    assert (decay[id(linear.weight)], decay[id(linear.bias)]) == (0.1, 0.0)
    assert all(group["lr"] == LEARNING_RATE for group in trainer.optimizer.param_groups)
    assert len(decay) == len(list(trainer.model.parameters())) + 2


def test_clipping_looks_at_the_model_alone(tmp_path):
    """The model moves by learning rate x max_grad_norm; the second head by its own gradient, which is not clipped."""
    trainer = train(tmp_path, max_grad_norm=0.01, max_steps=1)
    bert, head = tiny_bert(), [tensor.requires_grad_() for tensor in head_of(trainer.start)]
    loss = loss_by_hand(bert, data_without_types(8), head, mixed=False)
    gradients = torch.autograd.grad(loss, [*bert.parameters(), *head])
    norm = torch.cat([gradient.flatten() for gradient in gradients[:-2]]).norm()
    assert trainer.state.log_history[0]["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    expected = torch.cat([g.flatten() for g in gradients[:-2]]) * (LEARNING_RATE * 0.01 / norm)
    torch.testing.assert_close(weights(tiny_bert()) - weights(trainer.model), expected, atol=1e-6, rtol=1e-3)
    for before, after, gradient in zip(head, head_of(trainer._extras), gradients[-2:], strict=True):
        torch.testing.assert_close(after, before - LEARNING_RATE * gradient, atol=1e-6, rtol=1e-4)


def test_a_step_costs_one_forward_of_the_batch(tmp_path):
    model, rows = tiny_bert(), []
    handle = model.bert.encoder.register_forward_pre_hook(
        lambda module, args: rows.append((len(args[0]), module.training))
    )
    train(tmp_path, model=model)
    handle.remove()
    tried = [(2, False)] * 2  # before the first step: does the classifier make the logits?
    rehearsed = [(count, False) for count in (8, 2, 4, 2, 2, 2)]  # the last two try how masks meet
    assert rows == [*tried, *rehearsed, (8, True), (8, True), (8, True), (6, True)]


def changed(make):
    """A model with another classifier."""
    model = tiny_bert()
    model.classifier = make(model.config.hidden_size, model.config.num_labels)
    return model


@pytest.mark.parametrize(
    "after",
    [nn.LogSoftmax(-1), nn.LayerNorm(3), nn.Sequential(nn.Unflatten(1, (3, 1)), nn.Conv1d(3, 3, 1), nn.Flatten())],
)
def test_a_classifier_whose_outputs_are_not_the_logits_is_refused(tmp_path, after):
    model = changed(lambda width, count: nn.Sequential(nn.Linear(width, count), after))
    before = weights(model)
    with pytest.raises(ValueError, match=r"no classifier whose outputs are the logits.*beta=1\.0"):
        train(tmp_path, model=model)
    assert torch.equal(weights(model), before)
    train(tmp_path, model=model, method=get_method("lamix", beta=1.0))


def test_a_classifier_called_by_keyword_has_a_second_head_too(tmp_path):
    class ByKeyword(nn.Linear):
        def __call__(self, hidden):
            return nn.Module.__call__(self, input=hidden)

    torch.manual_seed(0)
    one, other = (changed(kind) for kind in (nn.Linear, ByKeyword))
    other.classifier.load_state_dict(one.classifier.state_dict())
    assert torch.equal(*(weights(train(tmp_path, model=model).model) for model in (one, other)))


def test_whoever_asks_for_outputs_gets_k_columns(tmp_path):
    """A Trainer of somebody else's that computes training metrics from them."""
    seen = []

    class Asking(Started):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            seen.append(outputs["logits"].shape)
            return (loss, outputs) if return_outputs else loss

    train(tmp_path, cls=Asking)
    assert seen == [(8, 3), (8, 3), (8, 3), (6, 3)]


def test_images_meet_at_one_half(tmp_path):
    generator = torch.Generator().manual_seed(0)
    data = [{"pixel_values": torch.rand(3, 16, 16, generator=generator), "labels": i % 3} for i in range(8)]
    model = tiny_vit()
    pixels, labels = torch.stack([row["pixel_values"] for row in data]), torch.tensor([row["labels"] for row in data])
    partner, _, lam = rings(8)
    with torch.no_grad():
        mixed = model(pixel_values=(pixels + pixels[partner]) / 2).logits
    one_hot = F.one_hot(labels, 3)
    expected = F.cross_entropy(mixed, lam[:, None] * one_hot + (1 - lam[:, None]) * one_hot[partner]).item()
    trainer = train(tmp_path, model=model, data=data, beta=1.0, clean_batches=False, max_steps=1)
    assert logged(trainer) == pytest.approx([expected], abs=1e-5)


# ---- around a training run -------------------------------------------------------------------------------------


def test_what_is_saved_is_a_plain_model(tmp_path):
    trainer = train(tmp_path, save_strategy="steps", save_steps=4)
    trainer.save_model(str(tmp_path / "final"))
    for folder in (tmp_path / "final", tmp_path / "checkpoint-4"):
        assert load_file(folder / "model.safetensors").keys() == tiny_bert().state_dict().keys()
        loaded, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert torch.equal(weights(loaded), weights(trainer.model))
    kept = load_file(tmp_path / "checkpoint-4" / EXTRAS)
    assert sorted(value.shape for value in kept.values()) == [(3,), (3, 32)]
    assert any(torch.equal(value, head_of(trainer._extras)[0]) for value in kept.values())
    assert not (tmp_path / "final" / EXTRAS).exists()


def hooks_on(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class Copies(TrainerCallback):
    """Copies the model in the middle of training, or pickles it, as trackers do."""

    def __init__(self, take):
        self.take, self.copy = take, None

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.copy = self.take(model)


def pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize(
    "take",
    [
        copy.deepcopy,
        pickled,
    ],
)
def test_a_copy_from_the_middle_of_training_is_a_plain_model(tmp_path, take):
    """In training mode too: it is no longer in the run whose second head it was copied with."""
    snapshot = Copies(take)
    trainer = train(tmp_path, max_steps=1, callbacks=[snapshot])
    batch = batch_of(data_without_types(4))
    with torch.no_grad():
        expected = trainer.model.eval()(**batch).logits
        torch.testing.assert_close(snapshot.copy.eval()(**batch).logits, expected)


def test_nothing_is_left_after_training_or_a_failure(tmp_path):
    model = tiny_bert()
    attributes = set(vars(model.classifier))
    trainer = train(tmp_path, model=model, max_steps=1)
    assert hooks_on(model) == 0
    model.bert.encoder.layer[2].forward = None
    with pytest.raises(TypeError):
        trainer.train()
    del model.bert.encoder.layer[2].forward
    assert hooks_on(model) == 0
    assert set(vars(model.classifier)) == attributes
    batch = batch_of(data_without_types(4))
    for other in (copy.deepcopy(model), pickled(model)):
        with torch.no_grad():
            assert torch.equal(other.train()(**batch).logits, model.train()(**batch).logits)
    assert model(**batch).logits.shape == (4, 3)


def test_a_second_call_of_train_goes_on_with_the_second_head(tmp_path):
    seen = []

    class Watching(Started):
        def create_optimizer(self, *args, **kwargs):
            seen.append(head_of(self._extras)[0])
            return super().create_optimizer(*args, **kwargs)

    trainer = train(tmp_path, cls=Watching)
    seen.append(head_of(trainer._extras)[0])
    trainer.train()
    assert torch.equal(seen[1], seen[2])
    assert not torch.equal(seen[0], seen[1])
    known = [id(p) for group in trainer.optimizer.param_groups for p in group["params"]]
    assert len(known) == len(set(known)) == len(list(trainer.model.parameters())) + 2


def test_evaluation_in_the_middle_of_training_gives_k_columns_and_changes_nothing(tmp_path):
    data, seen = data_without_types(40), []

    def metrics_of(prediction):
        seen.append(prediction.predictions.shape)
        log_p = torch.tensor(prediction.predictions).log_softmax(-1)
        return {"nll": -log_p[torch.arange(10), torch.tensor(prediction.label_ids)].mean().item()}

    trainer = Started(
        model=tiny_bert(),
        args=arguments(tmp_path, max_steps=4, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=4),
        method="lamix",
        train_dataset=data[:30],
        eval_dataset=data[30:],
        data_collator=collate,
        compute_metrics=metrics_of,
    )
    trainer.train()
    assert seen == [(10, 3)] * 4
    for entry in trainer.state.log_history:
        if "eval_loss" in entry:
            assert entry["eval_loss"] == pytest.approx(entry["eval_nll"], abs=1e-5)
    alone = train(tmp_path)
    assert torch.equal(weights(trainer.model), weights(alone.model))
    assert torch.equal(head_of(trainer._extras)[0], head_of(alone._extras)[0])
    assert trainer.predict(data[30:]).predictions.shape == (10, 3)


SAVING = {"max_steps": 6, "save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 4}


def saving_run(folder, resume=None, method="lamix", **options):
    """Random pairs and order, dropout, AdamW with decay and a schedule, accumulation."""
    schedule = {"optim": "adamw_torch", "lr_scheduler_type": "linear", "weight_decay": 0.1}
    args = arguments(folder, **SAVING, **schedule, gradient_accumulation_steps=2, **options)
    trainer = MixTrainer(model=tiny_bert(dropout=0.1), args=args, method=method, train_dataset=examples(20))
    torch.rand(7)  # so that a second head that was not loaded would start elsewhere in a resumed run
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def steps_of(trainer) -> list[dict]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("step", [3, 4])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, step):
    """Before a mixed step and before a clean one, both in the middle of an epoch."""
    whole = saving_run(tmp_path / "whole")
    torch.rand(step)
    resumed = saving_run(tmp_path / "resumed", resume=str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert torch.equal(weights(whole.model), weights(resumed.model))
    for ours, theirs in zip(head_of(whole._extras), head_of(resumed._extras), strict=True):
        assert torch.equal(ours, theirs)
    assert steps_of(whole) == steps_of(resumed)
    last = [load_file(tmp_path / name / "checkpoint-6" / EXTRAS) for name in ("whole", "resumed")]
    assert all(torch.equal(last[0][key], last[1][key]) for key in last[0])


def test_a_checkpoint_without_the_second_head_is_refused(tmp_path):
    saving_run(tmp_path / "whole")
    (tmp_path / "whole" / "checkpoint-4" / EXTRAS).unlink()
    with pytest.raises(ValueError, match=f"checkpoint-4 lacks {EXTRAS}"):
        saving_run(tmp_path / "resumed", resume=str(tmp_path / "whole" / "checkpoint-4"))


def test_a_checkpoint_of_another_method_is_refused_with_its_reason(tmp_path):
    saving_run(tmp_path / "vanilla", method="vanilla")
    (tmp_path / "vanilla" / "checkpoint-4" / "hf_logitmix.json").unlink()  # the missing head has to tell by itself
    with pytest.raises(ValueError, match=f"checkpoint-4 lacks {EXTRAS}.*another method"):
        saving_run(tmp_path / "resumed", resume=str(tmp_path / "vanilla" / "checkpoint-4"))


def test_what_lamix_has_learned_is_not_left_behind_silently(tmp_path):
    saving_run(tmp_path / "whole")
    (tmp_path / "whole" / "checkpoint-4" / "hf_logitmix.json").unlink()  # the head has to tell by itself
    for method in ("vanilla", get_method("lamix", beta=1.0)):
        with pytest.raises(ValueError, match=r"checkpoint-4 holds what another method.*Linear"):
            saving_run(tmp_path / "resumed", resume=str(tmp_path / "whole" / "checkpoint-4"), method=method)


def test_the_best_checkpoints_second_head_comes_back(tmp_path):
    """A metric that is best after the second of four steps, whatever the model does."""
    scores = iter([0.1, 0.9, 0.3, 0.2])
    trainer = Started(
        model=tiny_bert(),
        args=arguments(
            tmp_path,
            max_steps=4,
            **{"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1},
            **{"load_best_model_at_end": True, "metric_for_best_model": "score", "greater_is_better": True},
        ),
        method="lamix",
        train_dataset=data_without_types(32),
        eval_dataset=data_without_types(8),
        data_collator=collate,
        compute_metrics=lambda prediction: {"score": next(scores)},
    )
    trainer.train()
    by_hand, head = tiny_bert(), head_of(trainer.start)
    loop_by_hand(by_hand, data_without_types(32), head, steps=2)
    torch.testing.assert_close(weights(trainer.model), weights(by_hand), atol=2e-5, rtol=1e-4)
    for ours, best in zip(head_of(trainer._extras), head, strict=True):
        torch.testing.assert_close(ours, best.detach(), atol=2e-5, rtol=1e-4)
    last = load_file(tmp_path / "checkpoint-4" / EXTRAS)
    assert not any(torch.equal(head_of(trainer._extras)[0], value) for value in last.values())


def test_bf16_trains_and_keeps_the_second_head_in_float32(tmp_path):
    exact = train(tmp_path)
    for model, options in ((tiny_bert(), {"bf16": True}), (tiny_bert().to(torch.bfloat16), {})):
        rounded = train(tmp_path, model=model, **options)
        assert logged(rounded) == pytest.approx(logged(exact), rel=0.1)
        before, after = head_of(rounded.start), head_of(rounded._extras)
        assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in after)
        assert all((a - b).abs().max() > 1e-4 for a, b in zip(after, before, strict=True))


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing")
def test_checkpointed_activations_change_nothing(tmp_path):
    plain, saved = train(tmp_path), train(tmp_path, gradient_checkpointing=True)
    torch.testing.assert_close(weights(saved.model), weights(plain.model), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(head_of(saved._extras)[0], head_of(plain._extras)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_a_compiled_model_trains_as_an_eager_one(tmp_path, backend):
    """A clean and a mixed step are two graphs; a second head that the trace missed would make [B, K] logits."""
    steps = {"eager": 4, "inductor": 2}[backend]  # which compiles for a minute
    plain = train(tmp_path, max_steps=steps)
    compiled = train(tmp_path, max_steps=steps, torch_compile=True, torch_compile_backend=backend)
    assert logged(compiled) == pytest.approx(logged(plain), abs=1e-4)
    torch.testing.assert_close(weights(compiled.model), weights(plain.model), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(head_of(compiled._extras)[0], head_of(plain._extras)[0], atol=1e-4, rtol=1e-3)


def test_lora_equals_a_loop_by_hand(tmp_path):
    """PEFT keeps a trained copy of the classifier; the second head stands beside that copy."""
    peft = pytest.importorskip("peft")

    def with_lora():
        model = tiny_bert()
        torch.manual_seed(5)
        return peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"]))

    model, by_hand = with_lora(), with_lora()
    frozen = model.get_base_model().classifier.original_module.weight.clone()
    trainer = train(tmp_path, model=model)
    head = head_of(trainer.start)
    losses = loop_by_hand(by_hand.get_base_model(), data_without_types(30), head)
    assert logged(trainer) == pytest.approx(losses, abs=2e-5)
    torch.testing.assert_close(weights(model), weights(by_hand), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(head_of(trainer._extras)[0], head[0].detach(), atol=2e-5, rtol=1e-4)
    classifier = model.get_base_model().classifier
    assert torch.equal(classifier.original_module.weight, frozen)
    assert not torch.equal(classifier.modules_to_save["default"].weight, frozen)
    assert hooks_on(model) == 0


# ---- the second head on every architecture -----------------------------------------------------------------------


@pytest.mark.parametrize("model_type", [name for name in MODEL_TYPES if name not in NEEDS_OTHER_PACKAGES])
@torch.no_grad()
def test_a_second_head_with_the_classifiers_weights_doubles_the_logits(model_type):
    """In training mode, where these models have no dropout; in evaluation mode the logits are the classifier's."""
    model = tiny_model(model_type)
    inputs, classifier = inputs_of(model, LENGTHS), linear_of(classifier_of(model, NUM_LABELS))
    head = SecondHead(model, NUM_LABELS)
    head.linear.weight.copy_(classifier.weight)
    assert (head.linear.bias is None) == (classifier.bias is None)
    if classifier.bias is not None:
        head.linear.bias.copy_(classifier.bias)
    plain = model.train()(**inputs).logits
    with head.install(model):
        both = model(**inputs).logits
        alone = model.eval()(**inputs).logits
    assert both.shape == (len(LENGTHS), 2 * NUM_LABELS)
    assert plain.std(0).min() > 1e-3
    torch.testing.assert_close(both[:, :NUM_LABELS], plain)
    torch.testing.assert_close(both[:, NUM_LABELS:], plain)
    assert alone.shape == plain.shape
    assert hooks_on(model) == 0


@torch.no_grad()
def test_a_second_head_beside_an_image_classifier_doubles_the_logits():
    model, head = tiny_vit(), SecondHead(tiny_vit(), 3)
    head.linear.load_state_dict(model.classifier.state_dict())
    pixels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = model.train()(pixel_values=pixels).logits
    with head.install(model):
        torch.testing.assert_close(model(pixel_values=pixels).logits, torch.cat([plain, plain], 1))


def test_a_model_without_a_linear_classifier_is_named():
    with pytest.raises(ValueError, match=r"Embedding has no linear layer with 3 outputs.*beta=1\.0"):
        SecondHead(nn.Embedding(3, 3), 3)


def test_a_classifier_that_stays_in_evaluation_mode_is_named(tmp_path):
    model = tiny_bert()
    model.classifier.eval()
    model.classifier.train = lambda mode=True: model.classifier
    with pytest.raises(RuntimeError, match=r"evaluation mode.*beta=1\.0"):
        train(tmp_path, model=model)
    assert hooks_on(model) == 0


def test_an_objective_that_was_not_set_up_says_what_is_missing():
    _, _, labels, plan = batch()
    output = mixed_forward(tiny_bert().eval(), batch_of(examples(6)), plan, rows="mixed")
    with pytest.raises(ValueError, match="soft_label_logits"):
        LaMix()(output, labels, RowLoss(CrossEntropy()), {})
