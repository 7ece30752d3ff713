"""What docs/integrations.md says fits: its blocks run, each library against a loop by hand or its own reader."""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import sqlite3
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from packaging.version import Version
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

from helpers.data import data_without_types, examples
from helpers.models import tiny_bert
from helpers.training import InOrder, arguments, collate_pairs, loss_by_hand, weights
from hf_logitmix import MixPlan, MixTrainer, MixTrainingArguments, mixed_forward
from hf_logitmix.glue.demo import train_tokenizer
from hf_logitmix.plan import sample_plan

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text()
SENTENCES = ["a good soup", "the plot was not bad at all", "this phone seems slow", "good", "bad plot", "a slow soup"]


def block_of(section: str, library: str) -> str:
    """The code in a section that imports a library; the test is skipped where that is not installed."""
    start = PAGE.index(f"\n## {section}\n")
    (code,) = [
        code
        for code in re.findall(r"^```python\n(.*?)^```", PAGE[start:].split("\n## ")[1], flags=re.DOTALL | re.MULTILINE)
        if library in imports(code)
    ]
    for name in sorted(imports(code)):
        needed(name)
    return code


def imports(code: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(code)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found = plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in found}


def needed(name: str):
    return pytest.importorskip(name, reason=f"{name} is not installed (pip install hf_logitmix[integrations])")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """A folder with a tiny classifier and a tokenizer that knows the sentences."""
    folder = str(tmp_path_factory.mktemp("checkpoint"))
    tokenizer = train_tokenizer(SENTENCES)
    model = tiny_bert()
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def names(checkpoint, tmp_path, monkeypatch) -> dict:
    """What the page takes for granted: a model, a tokenizer, arguments and rows that were not padded."""
    monkeypatch.chdir(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    texts = Dataset.from_dict({"text": SENTENCES * 2, "labels": [0, 1, 2] * 4})
    pairs = {"premise": SENTENCES, "hypothesis": SENTENCES[::-1], "labels": [0, 1, 2] * 2}
    torch.manual_seed(0)

    def load_model(trial=None):
        return AutoModelForSequenceClassification.from_pretrained(checkpoint)

    return {
        "__name__": "block",
        "checkpoint": checkpoint,
        "load_model": load_model,
        "model": load_model(),
        "tokenizer": tokenizer,
        "args": arguments(tmp_path / "out", MixTrainingArguments),
        "train_dataset": texts.map(lambda rows: tokenizer(rows["text"]), batched=True, remove_columns="text"),
        "texts": Dataset.from_dict(pairs),
    }


def run(code: str, names: dict) -> dict:
    exec(compile(code, "docs/integrations.md", "exec"), names)
    return names


def logits_of(model, tokenizer, *texts: str) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**tokenizer(*([text] for text in texts), return_tensors="pt")).logits


# ---- PEFT -----------------------------------------------------------------------------------------------------

ADAPTERS = {
    "LoRA": ("LoraConfig", {"r": 2, "target_modules": ["query", "value"]}),
    "LoRA of the embedding": ("LoraConfig", {"r": 2, "target_modules": ["query", "word_embeddings"]}),
    "DoRA": ("LoraConfig", {"r": 2, "target_modules": ["query", "value"], "use_dora": True}),
    "rsLoRA": ("LoraConfig", {"r": 2, "target_modules": ["query", "value"], "use_rslora": True}),
    "PiSSA": ("LoraConfig", {"r": 2, "target_modules": ["query", "value"], "init_lora_weights": "pissa"}),
    "IA3": ("IA3Config", {"target_modules": ["query", "output.dense"], "feedforward_modules": ["output.dense"]}),
    "LoHa": ("LoHaConfig", {"r": 2, "target_modules": ["query", "value"]}),
    "LoKr": ("LoKrConfig", {"r": 2, "target_modules": ["query", "value"]}),
    "OFT": ("OFTConfig", {"oft_block_size": 4, "target_modules": ["query", "value"]}),
    "VeRA": ("VeraConfig", {"r": 2, "target_modules": ["query", "value"]}),
    "layer norms": ("LNTuningConfig", {"target_modules": ["LayerNorm"]}),
    "trainable tokens": ("TrainableTokensConfig", {"token_indices": [5, 6, 7], "target_modules": ["word_embeddings"]}),
    "LoRA and trainable tokens": (
        "LoraConfig",
        {"r": 2, "target_modules": ["query"], "trainable_token_indices": {"word_embeddings": [5, 6, 7]}},
    ),
    "prompt tuning": ("PromptTuningConfig", {"num_virtual_tokens": 4}),
    "p-tuning": ("PromptEncoderConfig", {"num_virtual_tokens": 4, "encoder_hidden_size": 16}),
    "prefix tuning": ("PrefixTuningConfig", {"num_virtual_tokens": 4}),
}


def adapted(kind: str):
    """A tiny BERT under an adapter that changes what it says, as if trained before."""
    peft = pytest.importorskip("peft")
    name, options = ADAPTERS[kind]
    torch.manual_seed(0)
    model = peft.get_peft_model(tiny_bert(), getattr(peft, name)(task_type="SEQ_CLS", **options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def goes_without_us(model) -> bool:
    """Whether PEFT itself can do a forward of this model with the installed transformers."""
    try:
        model(input_ids=torch.ones(1, 2, dtype=torch.long), attention_mask=torch.ones(1, 2, dtype=torch.long))
    except ValueError:
        return False
    return True


def headless(kind: str):
    """What is warned of: TrainableTokensConfig leaves the classifier frozen, whatever its task_type."""
    if kind == "trainable tokens":
        return pytest.warns(UserWarning, match=r"frozen.*TrainableTokensConfig can train no head: pass LoraConfig\(")
    return nullcontext()


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("method", ["mixup", "logitmix"])
def test_adapters_equal_a_loop_by_hand(tmp_path, kind, method):
    """Through inputs_embeds of the adapted model, with losses written out; nothing but the adapter and head moves."""
    if kind == "prefix tuning" and Version(pytest.importorskip("peft").__version__) < Version("0.21"):
        pytest.skip("this release of PEFT takes no inputs_embeds, which the loop by hand needs, beside a prefix")
    rows, model, by_hand = data_without_types(8), adapted(kind), adapted(kind)
    options = {"method": method, "train_dataset": rows, "data_collator": collate_pairs}
    if not goes_without_us(model):
        with pytest.raises(ValueError, match=f"{ADAPTERS[kind][0]} .* pass PromptTuningConfig"):
            InOrder(model, arguments(tmp_path, max_steps=1), **options)
        return
    # a prompt is put before a mask of ones and zeros, so that masks meet as their union
    union = {"masks": lambda mask, partner, lam: mask | mask[partner]} if kind in ("prompt tuning", "p-tuning") else {}
    loss = loss_by_hand(method, by_hand.train(), rows, **union)
    loss.backward()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.optim.SGD([p for p in by_hand.parameters() if p.requires_grad], lr=0.05).step()
    with headless(kind):
        trainer = InOrder(model, arguments(tmp_path, max_steps=1), **options)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), abs=2e-5)
    torch.testing.assert_close(weights(model), weights(by_hand), atol=2e-5, rtol=1e-4)
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, start[name])
        assert moved <= parameter.requires_grad, name  # base weights stay


def test_penalties_that_an_adapter_adds_to_the_models_loss_are_named(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.AdaLoraConfig(task_type="SEQ_CLS", target_modules=["query"], total_step=3)
    with pytest.warns(UserWarning, match=r"ADALORA adds its orthogonality penalty.*LoraConfig"):
        MixTrainer(peft.get_peft_model(tiny_bert(), config), arguments(tmp_path), train_dataset=examples(4))


@pytest.mark.parametrize(
    ("options", "is_frozen"),
    [
        ({}, True),
        ({"modules_to_save": ["classifier"]}, False),
        ({"task_type": "SEQ_CLS"}, False),
        ({"target_modules": ["query", "classifier"]}, False),
    ],
)
def test_a_classifier_that_peft_leaves_frozen_is_named(tmp_path, recwarn, options, is_frozen):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny_bert(), peft.LoraConfig(**{"target_modules": ["query"]} | options))
    MixTrainer(model, arguments(tmp_path), train_dataset=examples(4))
    told = [str(one.message) for one in recwarn if "The classifier is frozen" in str(one.message)]
    assert len(told) == is_frozen
    assert all("task_type=TaskType.SEQ_CLS" in line for line in told)


def test_the_block_on_peft_leaves_an_adapter_that_loads(names):
    run(block_of("PEFT", "peft"), names)
    again = needed("peft").PeftModel.from_pretrained(names["load_model"](), "adapter")
    trained = logits_of(names["adapted"], names["tokenizer"], "good soup")
    torch.testing.assert_close(logits_of(again, names["tokenizer"], "good soup"), trained)
    assert not torch.allclose(logits_of(names["load_model"](), names["tokenizer"], "good soup"), trained)


# ---- loops ----------------------------------------------------------------------------------------------------


def loop_by_hand(names: dict, accumulation: int) -> torch.Tensor:
    """The weights after plain SGD, with the batches and plans that the seed gives; losses written out."""
    torch.manual_seed(0)
    model = names["load_model"]().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loader = DataLoader(
        names["train_dataset"], batch_size=4, shuffle=True, collate_fn=DataCollatorWithPadding(names["tokenizer"])
    )
    for number, batch in enumerate(loader, start=1):
        labels, mask = batch["labels"], batch["attention_mask"]
        partner, lam, _ = sample_plan(len(labels), alpha=3.0)
        clean = model(input_ids=batch["input_ids"], attention_mask=mask).logits
        words = model.get_input_embeddings()(batch["input_ids"])
        mixed = model(
            inputs_embeds=lam[:, None, None] * words + (1 - lam[:, None, None]) * words[partner],
            attention_mask=mask | mask[partner],
        ).logits
        own, other = (F.cross_entropy(mixed, target, reduction="none") for target in (labels, labels[partner]))
        similarity = (lam[:, None] * clean + (1 - lam[:, None]) * clean[partner] - mixed).square().mean()
        loss = (lam * own + (1 - lam) * other).mean() + F.cross_entropy(clean, labels) + similarity
        (loss / accumulation).backward()
        if number % accumulation == 0 or number == len(loader):
            optimizer.step()
            optimizer.zero_grad()
    return weights(model)


@pytest.mark.parametrize(("section", "accumulation"), [("Accelerate", 2), ("Lightning", 1)])
def test_the_blocks_with_a_loop_equal_one_by_hand(names, monkeypatch, section, accumulation):
    code = block_of(section, section.lower())
    monkeypatch.setattr(torch.optim, "AdamW", lambda parameters, lr: torch.optim.SGD(parameters, lr=0.05))
    before = weights(names["model"])
    torch.manual_seed(0)
    model = names["model"]
    run(code, names)
    torch.testing.assert_close(weights(model), loop_by_hand(names, accumulation), atol=2e-5, rtol=1e-4)
    assert not torch.equal(weights(model), before)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_model_that_accelerate_prepared_is_mixed(precision):
    """What `prepare` puts around the forward for mixed precision gives the plan's rows: lam 1 and 0 are plain rows."""
    accelerate = needed("accelerate")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = accelerate.Accelerator(mixed_precision=precision, cpu=True)
    model = accelerator.prepare(tiny_bert()).eval()
    ids = torch.randint(3, 60, (4, 6), generator=torch.Generator().manual_seed(0))
    plan = MixPlan(torch.tensor([1, 0, 3, 2]), torch.tensor([1.0, 0.0, 1.0, 0.0]))
    with torch.no_grad():
        output, plain = mixed_forward(model, {"input_ids": ids}, plan), model(input_ids=ids).logits
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    torch.testing.assert_close(
        output.mixed_logits, plain[[0, 0, 2, 2]], atol=1e-5 if precision == "no" else 3e-2, rtol=0
    )
    assert output.logits.dtype == torch.float32


# ---- searches -------------------------------------------------------------------------------------------------


def check_best(best, names: dict) -> None:
    """A run of its own with the best trial's method and options ends with the loss that the search reports."""
    drawn = {name: value for name, value in best.hyperparameters.items() if name != "weights" or value is not None}
    if drawn["method"] != "logitmix":
        drawn.pop("weights", None)
    if drawn["method"] == "label_smoothing":
        drawn.pop("alpha")
    args = arguments("again", MixTrainingArguments, **drawn)
    data = {"train_dataset": names["train_dataset"], "eval_dataset": names["train_dataset"]}
    trainer = MixTrainer(model_init=names["load_model"], args=args, processing_class=names["tokenizer"], **data)
    trainer.train()
    assert best.objective == pytest.approx(trainer.evaluate()["eval_loss"], abs=1e-5)
    assert names["trainer"].args.method is None


def test_the_block_on_optuna_finds_what_a_run_of_its_own_gives(names):
    code = block_of("Searches", "optuna")
    needed("optuna").logging.set_verbosity(needed("optuna").logging.ERROR)
    run(code, names)
    assert names["best"].hyperparameters["method"] in ("mixup", "logitmix", "label_smoothing")
    check_best(names["best"], names)


@pytest.fixture(scope="module")
def ray_instance(tmp_path_factory):
    """Two processors of this machine, whose workers see the tests' modules; nothing is written in the home folder."""
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray = needed("ray")
        paths = os.pathsep.join([str(folder) for folder in Path(__file__).parents[:3]])
        ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
        yield ray
        ray.shutdown()


@pytest.mark.slow
def test_the_block_on_ray_tune_finds_what_a_run_of_its_own_gives(names, ray_instance):
    run(block_of("Searches", "ray"), names)
    assert names["best"].hyperparameters["method"] in ("mixup", "logitmix")
    check_best(names["best"], names)


# ---- Ray Train ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_block_on_ray_train_leaves_a_checkpoint_that_loads(names, ray_instance):
    result = run(block_of("Ray Train", "ray"), names)["result"]
    metrics = result.metrics
    assert metrics["loss"] == pytest.approx(metrics["mix"] + metrics["cls"] + metrics["sim"], abs=1e-5)
    with result.checkpoint.as_directory() as folder:
        (saved,) = Path(folder).iterdir()
        trained = AutoModelForSequenceClassification.from_pretrained(saved)
    assert not torch.equal(weights(trained), weights(names["load_model"]()))


@pytest.mark.slow
def test_two_workers_of_ray_give_the_weights_of_a_loop_by_hand(tmp_path, ray_instance):
    """Two steps on 8 examples, four a worker, in their order; accelerate deals the batches out in turn."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.huggingface.transformers import RayTrainReportCallback, prepare_trainer
    from ray.train.torch import TorchTrainer

    def loop(options):
        trainer = InOrder(
            tiny_bert(),
            arguments("out", max_steps=2, per_device_train_batch_size=4, save_strategy="steps", save_steps=2),
            collate_pairs,
            data_without_types(16),
            method="logitmix",
            callbacks=[RayTrainReportCallback()],
        )
        prepare_trainer(trainer).train()

    folder = RunConfig(storage_path=str(tmp_path))
    result = TorchTrainer(
        loop, train_loop_config={}, scaling_config=ScalingConfig(num_workers=2), run_config=folder
    ).fit()
    by_hand = tiny_bert()
    for start in (0, 8):
        loss = loss_by_hand("logitmix", by_hand, data_without_types(16)[start : start + 8])
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(by_hand.parameters(), gradients, strict=True):
                parameter -= 0.05 * gradient
    with result.checkpoint.as_directory() as checkpoint:
        (saved,) = Path(checkpoint).iterdir()
        trained = AutoModelForSequenceClassification.from_pretrained(saved)
    torch.testing.assert_close(weights(trained), weights(by_hand), atol=2e-5, rtol=1e-4)


# ---- trackers -------------------------------------------------------------------------------------------------


def read_tensorboard(folder: Path) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = folder.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file.parent)).Reload()
    return {tag.removeprefix("train/"): [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def read_wandb(folder: Path) -> dict[str, list[float]]:
    """The summary of the run, which holds the last value of each metric, from the process that wrote the file."""
    wandb = needed("wandb")
    assert list(folder.rglob("*.wandb"))
    found = {name.removeprefix("train/"): [value] for name, value in dict(wandb.run.summary).items()}
    wandb.finish()
    return found


def read_trackio(folder: Path) -> dict[str, list[float]]:
    (file,) = (folder / "trackio").rglob("*.db")
    with sqlite3.connect(file) as database:
        rows = [json.loads(metrics) for (metrics,) in database.execute("SELECT metrics FROM metrics ORDER BY step")]
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name.removeprefix("train/"), []).append(value)
    return found


def read_mlflow(folder: Path) -> dict[str, list[float]]:
    client = needed("mlflow").MlflowClient()
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: [m.value for m in sorted(values, key=lambda m: m.step)] for name, values in history.items()}


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "trackio", "mlflow"])
def test_trackers_get_the_terms_of_the_loss(tmp_path, monkeypatch, tracker):
    """Read back from the tracker's own files."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "MLFLOW_TRACKING_URI": f"file:{tmp_path}/mlruns",
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    needed(tracker)  # after the settings, some of which are read when it is imported
    args = arguments(tmp_path, MixTrainingArguments, report_to=tracker, run_name="terms", max_steps=2)
    trainer = MixTrainer(tiny_bert(), args, method="logitmix", train_dataset=examples(16))
    trainer.train()
    read = {"tensorboard": read_tensorboard, "wandb": read_wandb, "trackio": read_trackio, "mlflow": read_mlflow}
    found = read[tracker](tmp_path)
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(log) == 2
    for name in ("loss", "mix", "cls", "sim", "lam_mean"):
        expected = [entry[name] for entry in log]
        assert found[name] == pytest.approx(expected[-1:] if tracker == "wandb" else expected, rel=1e-5), name


# ---- sentence-transformers ------------------------------------------------------------------------------------


def test_the_block_on_cross_encoders_trains_what_predicts(names, tmp_path):
    """`predict` of the encoder, and of one loaded from its folder, gives the trained model's logits."""
    code = block_of("Cross-encoders", "sentence_transformers")
    before = weights(names["model"])
    run(code, names)
    encoder, pair = names["encoder"], ("a good soup", "bad plot")
    trained = names["trainer"].model
    assert not torch.equal(weights(trained), before)
    expected = logits_of(trained, names["tokenizer"], *pair)
    encoder.save_pretrained(str(tmp_path / "saved"))
    again = needed("sentence_transformers").CrossEncoder(str(tmp_path / "saved"))
    for one in (encoder, again):
        torch.testing.assert_close(torch.from_numpy(one.predict([pair])), expected, atol=1e-5, rtol=0)


def test_a_cross_encoder_with_one_output_trains_with_the_loss_that_the_page_names(tmp_path, checkpoint):
    """Binary cross-entropy with one output, as sentence-transformers' default loss computes it."""
    needed("sentence_transformers")
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    encoder = CrossEncoder(checkpoint, num_labels=1, model_kwargs={"ignore_mismatched_sizes": True}, device="cpu")
    pairs, labels = [["good soup", "bad plot"], ["a slow soup", "good"]], [1.0, 0.0]
    firsts, seconds = (list(column) for column in zip(*pairs, strict=True))
    expected = BinaryCrossEntropyLoss(encoder)([firsts, seconds], torch.tensor(labels)).item()
    encoder.model.config.problem_type = "multi_label_classification"
    rows = [{**encoder.tokenizer(*pair), "labels": label} for pair, label in zip(pairs, labels, strict=True)]
    args = arguments(tmp_path, max_steps=1, per_device_train_batch_size=2)
    trainer = MixTrainer(encoder.model, args, method="vanilla", train_dataset=rows, processing_class=encoder.tokenizer)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-5)


# ---- the page -------------------------------------------------------------------------------------------------


def test_the_page_names_the_versions_of_the_extra():
    """Every package of the extra `integrations` stands in the table with a version."""
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    extras = re.findall(
        r'"([^"]+)"', re.search(r"^integrations = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE).group(1)
    )
    wanted = {re.match(r"[\w-]+", package).group(0).removesuffix("-skinny") for package in extras}
    for name in wanted | {"peft", "accelerate", "optuna"}:
        assert re.search(rf"\b{name} \d+\.\d+", PAGE), name
