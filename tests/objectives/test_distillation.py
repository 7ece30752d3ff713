"""Distillation: its distance against NumPy, its training against a hand-written loop, its teacher left alone."""

from __future__ import annotations

import copy
import gc
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, DistilBertConfig, DistilBertForSequenceClassification

from helpers.data import batch_of, data_without_types, examples
from helpers.models import VOCABULARY, tiny_bert
from helpers.training import LEARNING_RATE, InOrder, arguments, weights
from hf_logitmix import Method, MixTrainer, MixTrainingArguments, get_method
from hf_logitmix.criteria import CrossEntropy, RowLoss
from hf_logitmix.objectives import Distillation, MixedOutput, total_of
from hf_logitmix.objectives.distillation import DistillationFrom, distillation
from hf_logitmix.plan import MixPlan
from hf_logitmix.targets import LabelSmoothing

steady = settings(deadline=None, derandomize=True, max_examples=60)


@pytest.fixture(scope="module", autouse=True)
def _quick_collections():
    """Every training run starts with a garbage collection, which need not walk through all of transformers."""
    gc.freeze()
    yield
    gc.unfreeze()


# ---- the distance ----------------------------------------------------------------------------------------------


def pair(size=5, classes=4, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(size, classes, generator=g, dtype=dtype) for _ in range(2)]


def by_numpy(z, t, temperature) -> np.ndarray:
    """tau^2 KL(teacher || student), from probabilities."""
    q, p = (np.exp(x.double().numpy() / temperature) for x in (z, t))
    q, p = q / q.sum(1, keepdims=True), p / p.sum(1, keepdims=True)
    return temperature**2 * (p * (np.log(p) - np.log(q))).sum(1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_distance_equals_numpy(temperature):
    z, t = pair()
    np.testing.assert_allclose(distillation(z, t, temperature), by_numpy(z, t, temperature), atol=1e-12)
    assert not np.allclose(by_numpy(z, t, temperature), by_numpy(t, z, temperature), rtol=0.01)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_gradient_equals_finite_differences_and_the_formula(temperature):
    """tau (q - p) for each row; none is asked of the teacher, but it has one."""
    z, t = pair(size=3)
    assert torch.autograd.gradcheck(
        lambda z, t: distillation(z, t, temperature), (z.requires_grad_(), t.requires_grad_())
    )
    (gradient,) = torch.autograd.grad(distillation(z, t, temperature).sum(), z)
    expected = temperature * ((z / temperature).softmax(1) - (t / temperature).softmax(1))
    torch.testing.assert_close(gradient, expected.detach())


def test_gradient_at_a_high_temperature_matches_logits():
    """(z - t) / K once both are centred (Hinton et al., 2015, equation 4), whatever the temperature."""
    z, t = pair()
    (gradient,) = torch.autograd.grad(distillation(z.requires_grad_(), t, 1e4).sum(), z)
    centred = (z - z.mean(1, keepdim=True) - t + t.mean(1, keepdim=True)) / 4
    torch.testing.assert_close(gradient, centred.detach(), atol=1e-3, rtol=0)


numbers = st.floats(-30, 30, width=32)


@st.composite
def logits(draw):
    shape = draw(st.integers(1, 6)), draw(st.integers(2, 5))
    return [torch.tensor(draw(arrays(np.float64, shape, elements=numbers))) for _ in range(2)]


@steady
@given(logits(), st.floats(0.5, 20), numbers)
def test_never_negative_zero_where_equal_and_blind_to_a_shift(both, temperature, shift):
    z, t = both
    assert (distillation(z, t, temperature) >= -1e-9).all()
    torch.testing.assert_close(distillation(z, z + shift, temperature), torch.zeros(len(z)).double(), atol=1e-6, rtol=0)
    moved = distillation(z + shift, t - shift, temperature)
    torch.testing.assert_close(moved, distillation(z, t, temperature), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_float32(dtype):
    z, t = pair(dtype=dtype)
    assert distillation(z, t, 2.0).dtype == torch.float32
    np.testing.assert_allclose(distillation(z, t, 2.0), by_numpy(z, t, 2.0), rtol=1e-4, atol=1e-6)


def test_extreme_logits_stay_finite():
    z = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], requires_grad=True)
    t = torch.tensor([[-1e4, 1e4, 0.0], [1e4, 1e4, -1e4]])
    distance = distillation(z, t, 0.5)
    distance.sum().backward()
    assert distance.isfinite().all()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_objective_weighs_labels_and_teacher(weight):
    z, t = pair()
    labels, plan = torch.tensor([0, 3, 1, 1, 2]), MixPlan(torch.arange(5), torch.ones(5))
    options = Distillation(teacher="x", temperature=3.0, distill_weight=weight)
    output, loss = MixedOutput(z, None, plan), RowLoss(CrossEntropy())

    class Teacher(torch.nn.Module):
        def forward(self, rows):
            return t[rows]

    terms = DistillationFrom(options, Teacher())(output, labels, loss, {"rows": torch.arange(5), "other": labels})
    cls, distill = F.cross_entropy(z, labels).item(), by_numpy(z, t, 3.0).mean()
    means = {name: term.rows.mean().item() for name, term in terms.items()}
    assert means == pytest.approx({"cls": cls, "distill": distill})
    assert total_of(terms).item() == pytest.approx((1 - weight) * cls + weight * distill)
    with pytest.raises(ValueError, match="the teacher is not loaded"):
        options(output, labels, loss, {})


# ---- training against a loop by hand -----------------------------------------------------------------------------


def a_teacher(**options):
    """With dropout, so that training mode would show."""
    return tiny_bert(seed=1, **{"dropout": 0.5, **options})


def train(folder, teacher=None, model=None, data=None, method=None, callbacks=(), collator=None, **options):
    """Steps on rows in order; options of the method are those it knows."""
    known = ("temperature", "distill_weight", "targets")
    chosen = {name: options.pop(name) for name in known if name in options}
    chosen = {"teacher": a_teacher() if teacher is None else teacher, **chosen}
    trainer = InOrder(
        model=tiny_bert() if model is None else model,
        args=arguments(folder, **options),
        method=get_method("distillation", **chosen) if method is None else method,
        train_dataset=data_without_types(22) if data is None else data,
        data_collator=collator,
        callbacks=list(callbacks),
    )
    trainer.train()
    return trainer


def logged(trainer, name="loss") -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if "loss" in entry]


def loop_by_hand(model, teacher, data, temperature=2.0, weight=0.5, smoothing=0.0):
    """SGD over batches of eight with the loss written out; gives the loss and its two terms for each step."""
    teacher, steps = copy.deepcopy(teacher).eval(), []
    for start in (0, 8, 16):
        rows = data[start : start + 8]
        batch, labels = batch_of(rows), torch.tensor([row["labels"] for row in rows])
        z = model(**batch).logits
        with torch.no_grad():
            p = (teacher(**batch).logits / temperature).softmax(1)
        cls = F.cross_entropy(z, labels, label_smoothing=smoothing)
        distance = (p * (p.log() - (z / temperature).log_softmax(1))).sum(1).mean() * temperature**2
        loss = (1 - weight) * cls + weight * distance
        steps.append((loss.item(), cls.item(), distance.item()))
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= LEARNING_RATE * gradient
    return [list(column) for column in zip(*steps, strict=True)]


CASES = {
    "defaults": {},
    "temperature": {"temperature": 4.0, "distill_weight": 0.8},
    "teacher_alone": {"distill_weight": 1.0},
    "labels_alone": {"distill_weight": 0.0},
    "smooth": {"targets": LabelSmoothing(0.2)},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (2, 4), (4, 2)])
def test_equals_a_loop_by_hand(tmp_path, case, batch, accumulation):
    """22 examples: the third step holds six, in too few or in unequal micro-batches."""
    options, by_hand = CASES[case], tiny_bert()
    size = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    trainer = train(tmp_path, **options, **size)
    known = {"distill_weight": "weight", "temperature": "temperature"}
    plain = {known[name]: value for name, value in options.items() if name in known}
    smoothing = 0.2 if case == "smooth" else 0.0
    expected = loop_by_hand(by_hand, a_teacher(), data_without_types(22), smoothing=smoothing, **plain)
    for name, values in zip(("loss", "cls", "distill"), expected, strict=True):
        assert logged(trainer, name) == pytest.approx(values, abs=2e-5)
    torch.testing.assert_close(weights(trainer.model), weights(by_hand), atol=2e-5, rtol=1e-4)


def test_the_defaults_are_ours():
    objective = get_method("distillation").objective
    assert (objective.teacher, objective.temperature, objective.distill_weight) == (None, 2.0, 0.5)
    assert objective.kinds == {"clean"}


def test_a_folder_teaches_as_the_model_in_it(tmp_path):
    """The folder's model was saved in bfloat16; it teaches in float32."""
    a_teacher().to(torch.bfloat16).save_pretrained(tmp_path / "teacher")
    trainer = train(tmp_path, teacher=str(tmp_path / "teacher"))
    rounded, by_hand = a_teacher().to(torch.bfloat16).float(), tiny_bert()
    losses, _, _ = loop_by_hand(by_hand, rounded, data_without_types(22))
    assert logged(trainer) == pytest.approx(losses, abs=2e-5)
    assert {p.dtype for p in trainer.method_in_training.objective.teacher.parameters()} == {torch.float32}


def test_arguments_name_a_folder(tmp_path):
    a_teacher().save_pretrained(tmp_path / "teacher")
    options = {"method": "distillation", "teacher": str(tmp_path / "teacher"), "temperature": 4.0}
    args = arguments(tmp_path, MixTrainingArguments, distill_weight=0.8, **options)
    trainer = InOrder(model=tiny_bert(), args=args, train_dataset=data_without_types(22))
    trainer.train()
    losses, _, _ = loop_by_hand(tiny_bert(), a_teacher(), data_without_types(22), temperature=4.0, weight=0.8)
    assert logged(trainer) == pytest.approx(losses, abs=2e-5)


def test_a_teacher_of_another_kind_gets_the_inputs_that_it_knows(tmp_path):
    """A DistilBERT, which has no token types, teaches a BERT that has them."""
    torch.manual_seed(2)
    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, n_layers=1, n_heads=4, hidden_dim=48, num_labels=3, initializer_range=0.3
    )
    teacher = DistilBertForSequenceClassification(config).eval()
    data, labels = examples(8), torch.tensor([row["labels"] for row in examples(8)])
    batch = batch_of(data)
    with torch.no_grad():
        z = tiny_bert()(**batch).logits
        t = teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = 0.5 * F.cross_entropy(z, labels).item() + 0.5 * by_numpy(z, t, 2.0).mean()
    assert logged(train(tmp_path, teacher=teacher, data=data, max_steps=1)) == pytest.approx([expected], abs=1e-5)


def test_a_teacher_under_peft_sees_token_types():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
    teacher, batch = peft.get_peft_model(a_teacher(), config).eval(), batch_of(examples(4))
    seen = DistillationFrom(Distillation(teacher=teacher), teacher).teacher_logits(batch)
    with torch.no_grad():
        torch.testing.assert_close(seen, teacher(**batch).logits)


def test_a_path_is_a_folder_too(tmp_path):
    a_teacher().save_pretrained(tmp_path / "teacher")
    train(tmp_path, teacher=Path(tmp_path / "teacher"), max_steps=1)


# ---- the teacher is left alone ---------------------------------------------------------------------------------


def calls_of(teacher) -> list[tuple]:
    """Rows, mode, gradients and labels of each call of the teacher from now on."""
    seen = []

    def note(module, args, kwargs, output):
        seen.append((len(kwargs["input_ids"]), module.training, torch.is_grad_enabled(), "labels" in kwargs))

    teacher.register_forward_hook(note, with_kwargs=True)
    return seen


def test_the_teacher_is_called_once_a_step_and_stays_as_it_was(tmp_path):
    teacher = a_teacher().train()
    before, calls = copy.deepcopy(teacher.state_dict()), calls_of(teacher)
    trainer = InOrder(
        model=tiny_bert(),
        args=arguments(tmp_path, eval_strategy="steps", eval_steps=1, weight_decay=0.5, save_strategy="steps"),
        method=get_method("distillation", teacher=teacher),
        train_dataset=data_without_types(22),
        eval_dataset=data_without_types(5),
    )
    trainer.train()
    assert calls == [(8, False, False, False), (8, False, False, False), (6, False, False, False)]
    assert teacher.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in trainer.model.parameters()}
    assert not len(trainer.method_in_training.learned)


def test_evaluation_is_the_models_own_loss(tmp_path):
    data = data_without_types(10)
    trainer = InOrder(
        model=tiny_bert(),
        args=arguments(tmp_path),
        method=get_method("distillation", teacher=a_teacher()),
        train_dataset=data,
        eval_dataset=data,
    )
    with torch.no_grad():
        expected = tiny_bert().eval()(**batch_of(data), labels=torch.tensor([row["labels"] for row in data])).loss
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.item(), abs=1e-5)


def test_the_teacher_is_not_saved(tmp_path):
    trainer = train(tmp_path, save_strategy="steps", save_steps=3)
    trainer.save_model(str(tmp_path / "final"))
    plain = InOrder(
        model=tiny_bert(),
        args=arguments(tmp_path / "plain", save_strategy="steps", save_steps=3),
        method="vanilla",
        train_dataset=data_without_types(22),
    )
    plain.train()
    names = [{p.name for p in (tmp_path / folder / "checkpoint-3").iterdir()} for folder in (".", "plain")]
    assert names[0] == names[1]
    for folder in (tmp_path / "checkpoint-3", tmp_path / "final"):
        assert load_file(folder / "model.safetensors").keys() == tiny_bert().state_dict().keys()
        assert torch.equal(weights(AutoModelForSequenceClassification.from_pretrained(folder)), weights(trainer.model))


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    """Dropout in the student and in the (silent) teacher, random order."""
    options = {"max_steps": 5, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}

    def run(folder, resume=None):
        trainer = MixTrainer(
            model=tiny_bert(dropout=0.1),
            args=arguments(folder, **options, per_device_train_batch_size=4),
            method=get_method("distillation", teacher=a_teacher()),
            train_dataset=examples(20),
        )
        trainer.train(resume_from_checkpoint=resume)
        return weights(trainer.model), logged(trainer)

    whole, losses = run(tmp_path / "whole")
    resumed, more = run(tmp_path / "resumed", resume=str(tmp_path / "whole" / "checkpoint-2"))
    assert torch.equal(whole, resumed)
    assert more == losses


def test_bf16_autocast_is_near_float32(tmp_path):
    exact, rounded = train(tmp_path), train(tmp_path, bf16=True)
    assert logged(rounded) == pytest.approx(logged(exact), rel=0.1)
    assert logged(rounded) != logged(exact)


# ---- what is refused -------------------------------------------------------------------------------------------

REVIEWS = {"id2label": {0: "bad", 1: "good", 2: "mixed"}}
TURNED = {"id2label": {0: "good", 1: "bad", 2: "mixed"}}


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        ({"num_labels": 2}, {}, "teacher has 2 classes and the model 3"),
        (TURNED, REVIEWS, "teacher's classes are .*'good', 'bad'.*one order"),
        (REVIEWS, TURNED, "teacher's classes are .*'bad', 'good'.*one order"),
    ],
)
def test_a_teacher_of_other_classes_is_refused_before_the_first_step(tmp_path, teacher, student, message):
    model = tiny_bert(**student)
    with pytest.raises(ValueError, match=message):
        train(tmp_path, teacher=a_teacher(**teacher), model=model)
    assert torch.equal(weights(model), weights(tiny_bert()))


def test_class_names_are_compared_without_case_and_only_where_both_have_some(tmp_path):
    shouted = {"id2label": {k: name.upper() for k, name in REVIEWS["id2label"].items()}}
    for teacher, student in ((REVIEWS, REVIEWS), (REVIEWS, shouted), (REVIEWS, {}), ({}, REVIEWS)):
        train(tmp_path, teacher=a_teacher(**teacher), model=tiny_bert(**student), max_steps=1)


def test_a_teacher_of_another_vocabulary_is_refused(tmp_path):
    teacher = a_teacher()
    teacher.resize_token_embeddings(VOCABULARY + 4)
    with pytest.raises(ValueError, match="vocabulary of 64 and the model of 60"):
        train(tmp_path, teacher=teacher)


def test_an_encoder_without_a_trained_head_is_no_teacher(tmp_path):
    a_teacher().bert.save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match=r"teacher='encoder' lacks classifier\.bias.*head knows nothing"):
        train(tmp_path / "out", teacher=str(tmp_path / "encoder"))


def test_what_is_no_classifier_is_no_teacher(tmp_path):
    with pytest.raises(ValueError, match="no model with a config"):
        train(tmp_path, teacher=torch.nn.Linear(2, 3))
    with pytest.raises(ValueError, match="trained for multi_label_classification"):
        train(tmp_path, teacher=a_teacher(problem_type="multi_label_classification"))


def test_no_teacher_is_refused_at_once(tmp_path):
    for method in ("distillation", Method(objective=Distillation())):
        with pytest.raises(ValueError, match="distillation needs a teacher: pass teacher="):
            MixTrainer(model=tiny_bert(), args=arguments(tmp_path), method=method)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"teacher=.*nowhere' is not there"):
        train(tmp_path, teacher=str(tmp_path / "nowhere"))


def test_a_model_that_would_teach_itself_is_refused(tmp_path):
    model = tiny_bert()
    with pytest.raises(ValueError, match="teacher"):
        train(tmp_path, teacher=model, model=model)


@pytest.mark.parametrize(
    ("num_labels", "problem_type"), [(1, None), (1, "regression"), (3, "multi_label_classification")]
)
def test_numbers_and_several_labels_are_refused(tmp_path, num_labels, problem_type):
    model, teacher = (tiny_bert(num_labels, problem_type=problem_type) for _ in range(2))
    with pytest.raises(ValueError, match=f"distillation is defined for classes.*{problem_type or 'regression'}"):
        MixTrainer(model=model, args=arguments(tmp_path), method=get_method("distillation", teacher=teacher))


@pytest.mark.parametrize(
    "options",
    [
        *({"temperature": value} for value in (0.0, -1.0, math.inf, math.nan)),
        *({"distill_weight": value} for value in (-0.1, 1.5, math.nan)),
        {"teacher_logits": torch.zeros(2, 3)},
        {"tau": 2.0},
    ],
    ids=str,
)
def test_impossible_options_are_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"{name} (must be|is not an option)"):
        get_method("distillation", **options)


def test_the_printed_method_holds_no_local_path(tmp_path, monkeypatch):
    a_teacher().save_pretrained(tmp_path / "big-teacher")
    monkeypatch.chdir(tmp_path / "big-teacher")
    for teacher in (str(tmp_path / "big-teacher"), str(tmp_path / "big-teacher") + "/", ".", "../big-teacher"):
        method = get_method("distillation", teacher=teacher)
        for text in (str(method), repr(method), str(method.objective), repr(method.objective)):
            assert "big-teacher" in text
            assert str(tmp_path) not in text
            assert ".." not in text
    assert "BertForSequenceClassification" in repr(get_method("distillation", teacher=a_teacher()))
    assert "owner/name" in repr(get_method("distillation", teacher="owner/name"))


def test_an_own_model_can_teach(tmp_path):
    """Anything with a config and logits, here a BERT in a wrapper whose answers are known."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.config, self.anchor = a_teacher().config, nn.Parameter(torch.zeros(1))

        def forward(self, input_ids):
            logits = self.anchor + torch.tensor([1.0, 0.0, -1.0]).expand(len(input_ids), 3)
            return type("Output", (), {"logits": logits})

    data = data_without_types(8)
    with torch.no_grad():
        z = tiny_bert()(**batch_of(data)).logits
    trainer = train(tmp_path, teacher=Constant(), data=data, max_steps=1, distill_weight=1.0)
    expected = by_numpy(z, torch.tensor([[1.0, 0.0, -1.0]]).expand(8, 3), 2.0).mean()
    assert logged(trainer) == pytest.approx([expected], abs=1e-5)
