"""Half precision, compilation, checkpointing and the rest of what a Trainer may do around a forward."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from scipy import stats
from transformers import Trainer, TrainerCallback, pipeline

from helpers.data import batch_of, data_without_types, examples
from helpers.models import bert_from, tiny_bert
from helpers.training import InOrder, arguments, collate_pairs, logged, weights
from hf_logitmix import MixPlan, MixTrainer, MixTrainingArguments, get_method, mixed_forward
from hf_logitmix.glue.demo import train_tokenizer
from hf_logitmix.losses import logitmix_loss, mixed_cross_entropy
from hf_logitmix.mixing import Linear
from hf_logitmix.objectives.logitmix import SIMILARITIES

METHODS = ["vanilla", "mixup", "manifold_mixup", "logitmix"]


def train(folder, method="logitmix", model=None, **options):
    """Three steps on rows in order, with a plan that the batch brings."""
    trainer = InOrder(
        model=tiny_bert() if model is None else model,
        args=arguments(folder, **options),
        method=method,
        train_dataset=data_without_types(24),
        data_collator=collate_pairs,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("method", METHODS)
def test_bf16_autocast_is_near_float32(tmp_path, method):
    exact, rounded = train(tmp_path, method), train(tmp_path, method, bf16=True)
    assert logged(rounded) == pytest.approx(logged(exact), rel=0.1)
    assert all(parameter.dtype == torch.float32 for parameter in rounded.model.parameters())


@pytest.mark.parametrize("rows", ["mixed", "both"])
def test_fp16_autocast_gives_float32_losses_near_the_exact_ones(rows):
    """Trainer's fp16 needs a GPU for its loss scaler; autocast itself runs here too."""
    model, data = tiny_bert(), data_without_types(8)
    plan = MixPlan(torch.tensor([1, 0, 3, 2, 5, 4, 7, 6]), torch.linspace(0, 1, 8))
    labels = torch.tensor([row["labels"] for row in data])

    def loss():
        output = mixed_forward(model, batch_of(data), plan, rows=rows)
        if rows == "mixed":
            return mixed_cross_entropy(output.mixed_logits, labels, plan), output.mixed_logits
        return logitmix_loss(output.logits, output.mixed_logits, labels, plan).total, output.mixed_logits

    exact, _ = loss()
    with torch.autocast("cpu", dtype=torch.float16):
        rounded, logits = loss()
    assert logits.dtype == torch.float16
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)
    (1024 * rounded).backward()  # a loss scale
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("method", METHODS)
def test_pure_bf16_gives_float32_losses(tmp_path, method):
    model = tiny_bert().to(torch.bfloat16)
    seen = []

    class Watching(InOrder):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            seen.append(loss)
            return loss

    trainer = Watching(
        model=model,
        args=arguments(tmp_path, learning_rate=1e-3),
        method=method,
        train_dataset=data_without_types(24),
        data_collator=collate_pairs,
    )
    trainer.train()
    assert {loss.dtype for loss in seen} == {torch.float32}
    assert all(torch.isfinite(loss) for loss in seen)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_extreme_and_identical_logits_give_finite_losses_and_gradients(dtype, similarity):
    plan = MixPlan(torch.tensor([1, 0]), torch.tensor([0.5, 0.5]))
    for scale in (0.0, 1e4):
        logits = (scale * torch.tensor([[1.0, -1.0, 0.0], [1.0, -1.0, 0.0]])).to(dtype).requires_grad_()
        mixed = logits.detach().clone().requires_grad_()
        loss = logitmix_loss(logits, mixed, torch.tensor([1, 2]), plan, similarity=similarity)
        assert all(torch.isfinite(term) for term in loss)
        assert loss.sim == 0
        loss.total.backward()
        assert torch.isfinite(logits.grad).all()
        assert torch.isfinite(mixed.grad).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_model_is_mixed_as_an_eager_one(tmp_path, method):
    """One backend that compiles nothing but traces everything; a hook that the trace missed would change the loss."""
    eager = train(tmp_path, method)
    compiled = train(tmp_path, method, torch_compile=True, torch_compile_backend="eager")
    assert logged(compiled) == pytest.approx(logged(eager), abs=1e-4)
    torch.testing.assert_close(weights(compiled.model), weights(eager.model), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("method", ["mixup", "logitmix"])
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing")
def test_checkpointed_activations_change_nothing(tmp_path, method, reentrant):
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    plain, saved = train(tmp_path, method), train(tmp_path, method, **options)
    torch.testing.assert_close(weights(saved.model), weights(plain.model), atol=1e-5, rtol=1e-4)


def test_clipping_bounds_the_step_as_in_trainer(tmp_path):
    """With SGD the weights move by at most learning rate x max_grad_norm in each step, and reach that bound."""
    model = tiny_bert()
    before = weights(model).clone()
    trainer = train(tmp_path, model=model, max_grad_norm=0.01, max_steps=1)
    assert trainer.state.log_history[0]["grad_norm"] > 0.01
    assert (weights(model) - before).norm().item() == pytest.approx(0.05 * 0.01, rel=1e-3)


@pytest.mark.parametrize("max_grad_norm", [0.01, 0.5, 0.0])
def test_clipping_is_that_of_stock_trainer(tmp_path, max_grad_norm):
    stock, data = tiny_bert(), examples(24)
    Trainer(model=stock, args=arguments(tmp_path, max_grad_norm=max_grad_norm), train_dataset=data).train()
    ours = MixTrainer(
        model=tiny_bert(), args=arguments(tmp_path, max_grad_norm=max_grad_norm), method="vanilla", train_dataset=data
    )
    ours.train()
    torch.testing.assert_close(weights(ours.model), weights(stock), atol=1e-6, rtol=1e-5)


def word_embeddings_in(model) -> list[tuple[bool, torch.Tensor]]:
    """Of each forward of a BERT: whether it was in training mode, and what came of the word embeddings."""
    seen, embeddings = [], model.bert.embeddings

    def look(module, args):
        rest = embeddings.position_embeddings.weight[: args[0].shape[1]] + embeddings.token_type_embeddings.weight[0]
        seen.append((model.training, (args[0] - rest).detach()))

    embeddings.LayerNorm.register_forward_pre_hook(look)
    return seen


@pytest.mark.parametrize("method", ["vanilla", "mixup", "logitmix"])
def test_neftune_adds_its_noise_to_every_example_before_they_are_mixed(tmp_path, method):
    """Uniform noise of alpha / sqrt(L d) on each token (Jain et al., 2023), and none in evaluation between steps."""
    model, data, alpha = tiny_bert(), data_without_types(24), 20.0
    seen = word_embeddings_in(model)
    schedule = {"max_steps": 3, "eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 8}
    InOrder(
        model=model,
        args=arguments(tmp_path, neftune_noise_alpha=alpha, learning_rate=0.0, **schedule),
        method=method,
        train_dataset=data,
        eval_dataset=data,
        data_collator=collate_pairs,
        rehearse=False,  # which would be seen too
    ).train()
    table, ids = model.bert.embeddings.word_embeddings.weight.detach(), batch_of(data)["input_ids"]
    exact = table[ids].split(8)
    plan = collate_pairs(data[:8])
    lam, partner = plan["lam"][:, None, None], plan["partner"]
    bound = alpha / math.sqrt(ids.shape[1] * table.shape[1])

    in_evaluation = [words for training, words in seen if not training]
    assert len(in_evaluation) == 9
    for number, words in enumerate(in_evaluation):
        torch.testing.assert_close(words, exact[number % 3], atol=1e-6, rtol=0)

    noise = {"clean": [], "mixed": []}
    in_training = [words for training, words in seen if training]
    assert len(in_training) == 3
    for words, clean in zip(in_training, exact, strict=True):
        mixed = lam * clean + (1 - lam) * clean[partner]
        parts = {"vanilla": {"clean": clean}, "mixup": {"mixed": mixed}, "logitmix": {"clean": clean, "mixed": mixed}}
        for (kind, expected), rows in zip(parts[method].items(), words.split(8), strict=True):
            noise[kind].append(rows - expected)
    if method != "mixup":
        drawn = torch.cat(noise["clean"]).flatten()
        assert drawn.abs().max() <= bound * (1 + 1e-5)
        assert stats.kstest(drawn, stats.uniform(-bound, 2 * bound).cdf).pvalue > 0.01
    for number, mixed in enumerate(noise["mixed"]):
        if method == "logitmix":
            clean = noise["clean"][number]
            torch.testing.assert_close(mixed, lam * clean + (1 - lam) * clean[partner], atol=1e-5, rtol=0)
        else:
            variance = (lam**2 + (1 - lam) ** 2).flatten() * bound**2 / 3
            torch.testing.assert_close(mixed.flatten(1).var(1), variance, rtol=0.3, atol=0)
            torch.testing.assert_close(
                (mixed.flatten(1).var(1) / variance).mean(), torch.tensor(1.0), rtol=0.05, atol=0
            )


@pytest.mark.parametrize("level", ["embedding", "hidden:2"])
@pytest.mark.parametrize("rows", ["both", "mixed"])
@torch.no_grad()
def test_lora_is_mixed_like_the_model_that_its_adapter_is_merged_into(rows, level):
    """Mixed by hand, in a BERT without hooks or adapters: vectors that go in as `inputs_embeds`, or hidden states."""
    peft = pytest.importorskip("peft")
    batch, plan = (
        batch_of(data_without_types(4)),
        MixPlan(torch.tensor([1, 0, 3, 2]), torch.tensor([0.2, 0.7, 0.4, 0.9])),
    )
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "word_embeddings", "dense"])
    model = peft.get_peft_model(tiny_bert(), config).eval()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.normal_(std=0.3)
    merged = copy.deepcopy(model).merge_and_unload()
    lam, union = plan.lam[:, None, None], batch["attention_mask"] | batch["attention_mask"][plan.partner]
    if level == "embedding":
        vectors = merged.get_input_embeddings()(batch["input_ids"])
        mixed = lam * vectors + (1 - lam) * vectors[plan.partner]
        expected = merged(inputs_embeds=mixed, attention_mask=union).logits
    else:
        states = merged(**batch, output_hidden_states=True).hidden_states[2]
        expected = bert_from(merged, lam * states + (1 - lam) * states[plan.partner], 2, union)
    output = mixed_forward(model, batch, plan, mixing=Linear(level=level), rows=rows)
    torch.testing.assert_close(output.mixed_logits, expected, atol=1e-5, rtol=1e-4)
    untrained = mixed_forward(tiny_bert().eval(), batch, plan, mixing=Linear(level=level)).mixed_logits
    assert (output.mixed_logits - untrained).abs().min() > 1e-3


class Snapshot(TrainerCallback):
    """Copies and pickles the model in the middle of training, as trackers do."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.copy = copy.deepcopy(model)
        pickle.dumps(model)


def test_nothing_is_left_after_training_or_a_failure(tmp_path):
    model, snapshot = tiny_bert(), Snapshot()
    trainer = InOrder(
        model=model,
        args=arguments(tmp_path, max_steps=1),
        method="logitmix",
        train_dataset=data_without_types(8),
        data_collator=collate_pairs,
        callbacks=[snapshot],
    )
    trainer.train()
    batch = batch_of(data_without_types(4))
    with torch.no_grad():
        torch.testing.assert_close(snapshot.copy.eval()(**batch).logits, model.eval()(**batch).logits)
    model.bert.encoder.layer[2].forward = None
    with pytest.raises(TypeError):
        trainer.train()
    del model.bert.encoder.layer[2].forward
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    torch.save(model, tmp_path / "model.pt")


def test_two_trainers_on_one_model_do_not_mix_twice(tmp_path):
    model = tiny_bert()
    one = [train(tmp_path, model=tiny_bert(), max_steps=1, learning_rate=0.0)]
    two = [train(tmp_path, model=model, max_steps=1, learning_rate=0.0) for _ in range(2)]
    assert logged(two[0]) == logged(two[1]) == logged(one[0])


@pytest.mark.slow
@pytest.mark.parametrize("draws", ["everything", "by method"])
def test_a_search_over_method_alpha_and_weights_trains_what_each_trial_says(tmp_path, draws):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seen = []

    class Watching(MixTrainer):
        def _inner_training_loop(self, *args, **kwargs):
            result = super()._inner_training_loop(*args, **kwargs)
            seen.append(self.method)
            return result

    def everything(trial):
        return {
            "method": trial.suggest_categorical("method", ["vanilla", "mixup", "logitmix"]),
            "alpha": trial.suggest_float("alpha", 0.5, 3.0),
            "weights": trial.suggest_categorical("weights", ["1 1 1", "1 1 0.5"]),
        }

    def by_method(trial):
        drawn = {"method": trial.suggest_categorical("method", ["vanilla", "mixup", "logitmix"])}
        if drawn["method"] != "vanilla":
            drawn["alpha"] = trial.suggest_float("alpha", 0.5, 3.0)
        if drawn["method"] == "logitmix":
            drawn["weights"] = trial.suggest_categorical("weights", ["1 1 1", "1 1 0.5"])
        return drawn

    space = everything if draws == "everything" else by_method
    trials = []

    def noted(trial):
        trials.append(space(trial))
        return trials[-1]

    trainer = Watching(
        model=None,
        model_init=lambda trial: tiny_bert(),
        args=arguments(tmp_path, MixTrainingArguments, max_steps=1),
        train_dataset=examples(8),
        eval_dataset=examples(8),
    )
    best = trainer.hyperparameter_search(
        noted, n_trials=12, backend="optuna", direction="minimize", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    assert {trial["method"] for trial in trials} == {"vanilla", "mixup", "logitmix"}
    assert len(seen) == len(trials) == 12
    takes = {"vanilla": (), "mixup": ("alpha",), "logitmix": ("alpha", "weights")}
    for method, trial in zip(seen, trials, strict=True):
        options = {name: trial[name] for name in takes[trial["method"]]}
        if "weights" in options:
            options["weights"] = [float(number) for number in options["weights"].split()]
        settled = {} if trial["method"] == "vanilla" else {"masks": "soft"}  # found before the first step
        assert method == get_method(trial["method"], **options, **settled)
    assert {"method"} <= set(best.hyperparameters) <= {"method", "alpha", "weights"}
    assert (trainer.args.method, trainer.args.alpha, trainer.args.weights) == (None, None, None)


def test_a_search_over_methods_needs_one_that_is_open(tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trainer = MixTrainer(
        model=None,
        model_init=lambda trial: tiny_bert(),
        args=arguments(tmp_path, MixTrainingArguments, max_steps=1),
        method="mixup",
        train_dataset=examples(8),
        eval_dataset=examples(8),
    )
    with pytest.raises(ValueError, match="draws method='logitmix', and the Trainer was given method=mixup"):
        trainer.hyperparameter_search(lambda trial: {"method": "logitmix"}, n_trials=1, backend="optuna")


def test_a_trained_model_runs_in_a_pipeline(tmp_path):
    tokenizer = train_tokenizer(["the soup is good", "the plot was not bad", "this phone seems slow"])
    data = [{**tokenizer("the soup is good"), "labels": 0}, {**tokenizer("this phone seems slow"), "labels": 1}]
    model = tiny_bert(2, id2label={0: "praise", 1: "complaint"}, label2id={"praise": 0, "complaint": 1})
    model.resize_token_embeddings(len(tokenizer))
    args = arguments(tmp_path, learning_rate=0.2, max_steps=20, per_device_train_batch_size=2)
    trainer = MixTrainer(model=model, args=args, method="logitmix", train_dataset=data, processing_class=tokenizer)
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    classify = pipeline("text-classification", model=str(tmp_path / "final"), device="cpu")
    text = "the soup is good"
    with torch.no_grad():
        inputs = tokenizer(text, return_tensors="pt")
        probability = model.eval()(**inputs).logits.softmax(-1)[0].max().item()
    (answer,) = classify(text)
    assert answer["score"] == pytest.approx(probability, abs=1e-5)
    assert answer["label"] in ("praise", "complaint")
