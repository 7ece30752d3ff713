"""The card of a plain MixTrainer: what it says is what was done and measured, and nothing of the machine is in it."""

import json
import re
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset, DatasetInfo, Split
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from helpers.cards import checked_metadata
from helpers.data import batch_of, examples
from helpers.loopback_hub import USER
from helpers.models import tiny_bert
from helpers.pages import SENTENCES, save_checkpoint
from helpers.training import arguments
from hf_logitmix import METHODS, MixTrainer, fold_temperature
from hf_logitmix.calibration.bootstrap import intervals
from hf_logitmix.hub.card import model_card
from hf_logitmix.metrics import calibration_metrics, calibration_of, scaled_metrics
from hf_logitmix.training.naming import facts_of
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.models import create_model
from hf_logitmix.vision.trainer import ImageMixTrainer

HOME = "home-of-someone"


def trainer_of(folder, method="logitmix", model=None, evaluation=40, **options):
    options = {"max_steps": 2, "seed": 7, "data_seed": 11, **options}
    return MixTrainer(
        model=model or tiny_bert(),
        args=arguments(folder / HOME / "out", **options),
        method=method,
        train_dataset=examples(24),
        eval_dataset=examples(evaluation, seed=5) if isinstance(evaluation, int) else evaluation,
        compute_metrics=calibration_of(),
    )


def card_of(trainer, **options):
    trainer.create_model_card(**options)
    folder = trainer.args.output_dir
    return open(f"{folder}/README.md", encoding="utf-8").read()


def logits_of(model, count=40):
    rows = examples(count, seed=5)
    with torch.no_grad():
        return model.eval()(**batch_of(rows)).logits.numpy(), np.array([row["labels"] for row in rows])


def values_of(text):
    return {name: float(value) for name, value in re.findall(r"^\| (\w+) \| (-?[\d.]+) \|", text, flags=re.MULTILINE)}


def test_the_card_tells_what_was_done_and_measured(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.train()
    trainer.evaluate()
    text = card_of(trainer, model_name="tiny")
    own = logits_of(trainer.model)
    expected = calibration_metrics(*own) | scaled_metrics(*own)
    found = values_of(text)
    assert {"accuracy", "ece", "nll", "brier", "ece_scaled", "nll_scaled", "loss"} <= set(found)
    for name, value in expected.items():
        assert name not in found or found[name] == pytest.approx(value, abs=6e-5), name
    low, high = intervals(*own)["nll"]
    assert f"| nll | {expected['nll']:.4f} | {low:.4f} to {high:.4f} | lower |" in text
    assert "# tiny\n\nTrained from scratch on a dataset of 24 examples with hf_logitmix" in text
    assert "Measured on 40 examples of `evaluation`." in text
    assert "w_{sim}" in text
    assert r"$$\tilde h = \lambda h + (1 - \lambda) h_\pi$$" in text
    assert "bang2022logit" in text
    for line in (
        "learning_rate: 0.05",
        "seed: 7",
        "data_seed: 11",
        "training_examples: 24",
        "steps: 2",
        "warmup_steps",
    ):
        assert f"\n* {line}" in text
    assert f"* torch: {torch.__version__}" in text
    assert "One run with one seed (7)" in text
    assert "![Reliability: accuracy against confidence](reliability.png)" in text
    folder = tmp_path / HOME / "out"
    assert Image.open(folder / "reliability.png").size[0] > 300
    assert HOME not in text
    (results,) = checked_metadata(folder / "README.md")["model-index"][0]["results"]
    assert results["dataset"] == {"name": "a dataset of 40 examples", "type": "unnamed", "split": "evaluation"}
    assert {one["type"]: one["value"] for one in results["metrics"]}["ece"] == pytest.approx(expected["ece"], abs=1e-6)
    assert not (folder / ".eval_results").exists()


def test_metrics_without_logits_stand_as_they_are(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.compute_metrics = None
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    text = card_of(trainer)
    assert values_of(text) == {"loss": pytest.approx(loss, abs=6e-5)}
    assert "95%" not in text
    assert "reliability.png" not in text


def test_without_matplotlib_there_is_no_picture_and_all_else(tmp_path, monkeypatch, caplog):
    trainer = trainer_of(tmp_path)
    trainer.train()
    trainer.evaluate()
    monkeypatch.setitem(sys.modules, "hf_logitmix.calibration.plots", None)
    text = card_of(trainer)
    assert "The card has no reliability diagram" in caplog.text
    assert "reliability.png" not in text
    assert "ece_scaled" in values_of(text)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_does(tmp_path, name):
    text = str(model_card("a", METHODS[name], {}, base_model=None, dataset="b"))
    lines = re.findall(r"^\$\$(.+)\$\$$", text, flags=re.MULTILINE)
    assert len(lines) == (2 if METHODS[name].mixes and METHODS[name].mixing.equation else 1)
    assert all(line.count("{") == line.count("}") for line in lines)
    assert r"\\(z\\) are the logits" in text  # as the Hub renders it inside of a line
    (code,) = re.findall(r"^```\n(Method\(\n.*?)\n```$", text, flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^    (\w+)=.*,$", code, flags=re.MULTILINE) == list(METHODS[name].parts)
    assert re.sub(r",\n\)$", ")", code).replace("(\n    ", "(").replace(",\n    ", ", ") == repr(METHODS[name])


# ---- what is of the model as it is -----------------------------------------------------------------------------------


def test_figures_of_another_state_are_not_told(tmp_path, caplog):
    trainer = trainer_of(tmp_path)
    trainer.evaluate()
    trainer.train()
    text = card_of(trainer)
    assert "model-index" not in text
    assert "It was not evaluated as it is." in text
    assert "changed after its last evaluation" in caplog.text
    trainer.evaluate()
    before = values_of(card_of(trainer))
    fold_temperature(trainer.model, 2.0)
    assert "model-index" not in card_of(trainer)
    trainer.evaluate()
    text = card_of(trainer)
    after = values_of(text)
    assert after["accuracy"] == before["accuracy"]
    logits, labels = logits_of(trainer.model)
    assert after["nll"] == pytest.approx(calibration_metrics(logits, labels)["nll"], abs=6e-5) != before["nll"]
    assert "Its last layer holds the temperature 2.0000, so that its probabilities are scaled as they come." in text
    assert 'config.calibration["temperature"]' not in text


class Spoil(TrainerCallback):
    """Makes the weights bad before the last step."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 2:
            with torch.no_grad():
                model.classifier.weight.mul_(-30)


def test_the_figures_are_those_of_the_best_checkpoint(tmp_path):
    each = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    trainer = trainer_of(tmp_path, **each, **best)
    trainer.add_callback(Spoil())
    trainer.train()
    text = card_of(trainer)
    assert "load_best_model_at_end chose the model on the evaluation examples" in text
    assert values_of(text) == {}  # the last evaluation is of weights that were left
    trainer.evaluate()
    found = values_of(card_of(trainer))
    assert found["nll"] == pytest.approx(calibration_metrics(*logits_of(trainer.model))["nll"], abs=6e-5)


@pytest.mark.parametrize("prefix", ["eval", "eval_test"])
def test_figures_are_of_what_was_evaluated(tmp_path, prefix):
    """Not of the evaluation set of the Trainer, which chose nothing and fitted nothing here."""
    trainer = trainer_of(tmp_path, evaluation=table(10, "validation", seed=5, **ON_HUB))
    trainer.train()
    test = table(30, "test", seed=6, **ON_HUB)
    trainer.calibrate(test)
    trainer.evaluate(test, metric_key_prefix=prefix)
    text = card_of(trainer)
    assert "## Results on test" in text
    assert "Measured on 30 examples of `test`." in text
    assert "Its temperature was fitted on the evaluation examples" in text
    trainer.calibrate(trainer.eval_dataset)
    assert "Its temperature was fitted on the evaluation examples" not in card_of(trainer)


def test_a_second_training_has_no_figures_of_the_first(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.train()
    trainer.evaluate()
    assert "nll" in values_of(card_of(trainer))
    trainer.train()
    assert values_of(card_of(trainer)) == {}


def test_a_model_that_was_trained_before_keeps_its_record(tmp_path):
    """Loaded, calibrated and pushed by a Trainer that trains nothing."""
    first = trainer_of(tmp_path, method="mixup")
    first.train()
    first.save_model()
    folder = first.args.output_dir
    again = AutoModelForSequenceClassification.from_pretrained(folder)
    trainer = MixTrainer(again, arguments(tmp_path / "later"), eval_dataset=examples(40, seed=5))
    trainer.calibrate(trainer.eval_dataset)
    trainer.save_model()
    records = [json.loads((path / "hf_logitmix.json").read_text()) for path in (Path(folder), tmp_path / "later")]
    assert records[0] == records[1]
    assert (records[0]["method"], records[0]["steps"]) == ("mixup", 2)
    assert "Before, it was trained with mixup for 2 steps." in card_of(trainer)
    alone = MixTrainer(tiny_bert(), arguments(tmp_path / "alone"), eval_dataset=examples(40, seed=5))
    alone.save_model()
    assert json.loads((tmp_path / "alone" / "hf_logitmix.json").read_text())["method"] is None
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "alone")
    later = MixTrainer(loaded, arguments(tmp_path / "more"), eval_dataset=examples(40, seed=5))
    assert "Before, it was trained" not in card_of(later)


def test_several_evaluation_sets_have_a_column_of_names_each(tmp_path):
    sets = {"matched": examples(30, seed=5), "other": examples(20, seed=6)}
    trainer = trainer_of(tmp_path, evaluation=sets)
    trainer.train()
    trainer.evaluate()
    text = card_of(trainer)
    assert "Measured on 30 examples of `matched` and 20 examples of `other`." in text
    found = values_of(text)
    assert found["ece_matched"] != found["ece_other"]
    results = checked_metadata(tmp_path / HOME / "out" / "README.md")["model-index"][0]["results"]
    splits = {one["type"]: part["dataset"]["split"] for part in results for one in part["metrics"]}
    assert (splits["nll_matched"], splits["nll_scaled_other"]) == ("matched", "other")


# ---- names -----------------------------------------------------------------------------------------------------------


def table(count, split, seed=0, **facts):
    rows = [{k: torch.as_tensor(v).tolist() for k, v in row.items()} for row in examples(count, seed=seed)]
    made = Dataset.from_list(rows)
    return Dataset(made._data, DatasetInfo(features=made.features, **facts), Split(split))


ON_HUB = {
    "builder_name": "parquet",
    "dataset_name": "glue",
    "config_name": "mrpc",
    "download_checksums": {f"hf://datasets/nyu-mll/glue@bcdcba79/mrpc/{s}-0.parquet": {} for s in ("train", "dev")},
}


def test_a_dataset_tells_its_name_and_files_of_ones_own_have_none():
    assert facts_of(table(6, "validation", **ON_HUB), 6) == ("nyu-mll/glue", "mrpc", "validation")
    assert str(facts_of(table(6, "validation", **ON_HUB), 6)) == "nyu-mll/glue mrpc, validation"
    built = {"builder_name": "my_data", "dataset_name": "my_data", "config_name": "default"}
    assert facts_of(table(6, "train", **built), 6) == ("my_data", "", "train")
    for files in ("csv", "json", "imagefolder", None):
        own = {"builder_name": files, "dataset_name": "private-folder", "config_name": "default"}
        assert facts_of(table(6, "train", **own), 6) == ("a dataset of 6 examples", "", "")
    assert facts_of([{}] * 1234, 1234).name == "a dataset of 1,234 examples"
    assert facts_of(object(), None).name == "a dataset"


def test_a_dataset_of_the_hub_is_linked_and_its_results_are_written_beside_the_card(tmp_path):
    trainer = trainer_of(tmp_path, evaluation=table(20, "validation", seed=5, **ON_HUB))
    trainer.train_dataset = table(24, "train", **ON_HUB)
    trainer.train()
    trainer.evaluate()
    text = card_of(trainer)
    assert "Trained from scratch on nyu-mll/glue `mrpc` with" in text
    folder = tmp_path / HOME / "out"
    found = checked_metadata(folder / "README.md")
    assert found["datasets"] == "nyu-mll/glue"
    dataset = found["model-index"][0]["results"][0]["dataset"]
    assert (dataset["type"], dataset["config"], dataset["split"]) == ("nyu-mll/glue", "mrpc", "validation")
    entries = yaml.safe_load((folder / ".eval_results" / "hf_logitmix.yaml").read_text())
    by_task = {one["dataset"]["task_id"]: one for one in entries}
    assert by_task["mrpc_ece"]["value"] == pytest.approx(values_of(text)["ece"], abs=6e-5)
    assert by_task["mrpc_ece"]["dataset"]["id"] == "nyu-mll/glue"
    assert by_task["mrpc_nll_scaled"]["notes"] == "nll_scaled on nyu-mll/glue mrpc, split validation"
    if hasattr(huggingface_hub, "EvalResultEntry"):
        from huggingface_hub._eval_results import parse_eval_result_entries

        assert len(parse_eval_result_entries(entries)) == len(entries) == len(by_task)
    trainer.eval_dataset = examples(20, seed=5)  # whose name is not known
    trainer.evaluate()
    card_of(trainer)
    assert not (folder / ".eval_results" / "hf_logitmix.yaml").exists()


def test_a_part_of_the_training_split_is_not_called_by_its_name(tmp_path):
    trainer = trainer_of(tmp_path, evaluation=table(20, "train", seed=5, **ON_HUB))
    trainer.train_dataset = table(24, "train", **ON_HUB)
    trainer.train()
    trainer.evaluate()
    assert "Measured on 20 examples of `evaluation`." in card_of(trainer)


def test_arguments_count_and_the_base_models_card_gives_license_and_language(tmp_path):
    base = tmp_path / HOME / "base"
    tiny_bert().save_pretrained(base)
    (base / "README.md").write_text("---\nlicense: mit\nlanguage:\n- de\n- fr\n---\n# Base\n")
    trainer = trainer_of(tmp_path, model=AutoModelForSequenceClassification.from_pretrained(base))
    trainer.train()
    trainer.evaluate()
    text = card_of(trainer, dataset_tags="some/data", dataset_args="cfg", tags=["mine"])
    found = checked_metadata(tmp_path / HOME / "out" / "README.md")
    assert (found["license"], found["language"], found["datasets"]) == ("mit", ["de", "fr"], "some/data")
    assert found["tags"] == ["hf_logitmix", "calibration", "mine"]
    assert "Fine-tuned from `base` on some/data `cfg`" in text
    card_of(trainer, license="apache-2.0", language="en", dataset="my own notes")
    found = checked_metadata(tmp_path / HOME / "out" / "README.md")
    assert (found["license"], found["language"]) == ("apache-2.0", "en")
    assert found["model-index"][0]["results"][0]["dataset"]["type"] == "my-own-notes"


# ---- use and limits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["temperature", "vector", None])
def test_the_code_of_a_card_gives_the_probabilities_as_served(tmp_path, method):
    """Run as it stands, with the folder in the place of the repository."""
    folder = save_checkpoint(tmp_path / "base", SENTENCES, num_labels=3)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    trainer = trainer_of(tmp_path, model=model, evaluation=None)
    trainer.processing_class = tokenizer
    trainer.train()
    records = {
        "temperature": {"method": "temperature", "temperature": 1.7, "fitted_on": "dev", "n": 9},
        "vector": {"method": "vector", "weight": [0.5, 2.0, 1.5], "bias": [0.25, -1.0, 0.75], "n": 9},
    }
    if method:
        model.config.calibration = records[method]
    trainer.save_model()
    tokenizer.save_pretrained(trainer.args.output_dir)
    text = card_of(trainer)
    (code,) = re.findall(r"```python\n(.*?)\n```", text, flags=re.DOTALL)
    names: dict = {}
    exec(code.replace('"USER/out"', repr(str(trainer.args.output_dir))), names)
    with torch.no_grad():
        z = model.eval()(**tokenizer("a text", return_tensors="pt")).logits.double()
    scaled = {"temperature": z / 1.7, "vector": z * z.new_tensor([0.5, 2.0, 1.5]) + z.new_tensor([0.25, -1.0, 0.75])}
    torch.testing.assert_close(names["probabilities"].double(), scaled.get(method, z).softmax(-1), atol=1e-5, rtol=1e-4)
    says = {
        "temperature": "It keeps the temperature 1.7000, fitted on 9 examples (dev)",
        None: "It keeps no temperature",
    }
    assert says.get(method, "It keeps a vector scaling, fitted on 9 examples") in text


def test_a_temperature_of_the_evaluation_examples_is_said(tmp_path):
    trainer = trainer_of(tmp_path, evaluation=60)
    trainer.train()
    with torch.no_grad():
        labels = trainer.model(**batch_of(trainer.eval_dataset)).logits.argmax(1)
    for row, label in zip(trainer.eval_dataset, labels, strict=True):
        row["labels"] = int(label)
    trainer.calibrate(trainer.eval_dataset, "ts_mix")
    trainer.evaluate()
    assert "Its temperature was fitted on the evaluation examples" in card_of(trainer)
    trainer.calibrate(list(trainer.eval_dataset), "ts_mix")
    assert "fitted on the evaluation examples" not in card_of(trainer)


def test_small_image_models_say_what_to_import(tmp_path):
    images = ImageSet([Image.fromarray(np.full((16, 16, 3), 20 * n, dtype=np.uint8)) for n in range(12)], [0, 1, 2] * 4)
    still = {"mean": [0.5] * 3, "std": [0.5] * 3, "image_size": 16}
    args = arguments(tmp_path / "out", max_steps=1)
    for name, imports in (("timm/small_resnet8", True), ("timm/test_resnet", False)):
        trainer = ImageMixTrainer(create_model(name, 3, image_size=32), args, train_dataset=images, **still)
        trainer.train()
        text = card_of(trainer)
        assert ("import hf_logitmix.vision\n" in text) == imports
        assert "AutoImageProcessor" in text
        assert "pipeline_tag: image-classification" in text


def test_regression_and_an_untrained_model_promise_nothing(tmp_path):
    rows = [{**row, "labels": float(row["labels"])} for row in examples(24)]
    args = arguments(tmp_path, max_steps=1)
    trainer = MixTrainer(tiny_bert(num_labels=1), args, method="mixup", train_dataset=rows, eval_dataset=rows[:8])
    untrained = card_of(trainer)
    assert "Not trained by the Trainer that saved it" in untrained
    assert "## Method" not in untrained
    trainer.train()
    trainer.evaluate()
    text = card_of(trainer)
    assert "softmax" not in text.split("## Method")[0]
    assert set(values_of(text)) == {"loss"}


def test_an_adapter_is_loaded_with_peft(tmp_path):
    adapted = get_peft_model(tiny_bert(), LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))
    trainer = trainer_of(tmp_path, model=adapted)
    trainer.train()
    text = card_of(trainer)
    assert "AutoPeftModelForSequenceClassification.from_pretrained(name)" in text
    trainer.calibrate(examples(40, seed=5))
    text = card_of(trainer)
    assert "A calibration was fitted, which an adapter does not keep" in text
    assert "config.calibration" not in text
    assert "library_name: peft" in text


def test_what_is_pushed_has_the_card_the_picture_and_the_results(hub, tmp_path):
    trainer = trainer_of(
        tmp_path, evaluation=table(20, "validation", seed=5, **ON_HUB), hub_token="hf_secretToken0123456789"
    )
    trainer.train()
    trainer.evaluate()
    trainer.push_to_hub()
    files = hub.repos[f"{USER}/out"]
    assert {"README.md", "reliability.png", ".eval_results/hf_logitmix.yaml"} < set(files)
    for name, content in files.items():
        assert HOME.encode() not in content, name
        assert b"hf_secretToken" not in content, name
        assert name == ".gitattributes" or USER.encode() not in content, name


# ---- intervals -------------------------------------------------------------------------------------------------------


def test_intervals_are_those_of_samples_by_hand():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(200, 4))
    labels = np.where(rng.random(200) < 0.6, logits.argmax(1), rng.integers(4, size=200))
    found, own = intervals(logits, labels, samples=2000), calibration_metrics(logits, labels)
    values = []
    for _ in range(400):
        drawn = rng.integers(200, size=200)
        values.append(calibration_metrics(logits[drawn], labels[drawn]))
    for name in ("accuracy", "ece", "oe", "nll", "brier"):
        moved = np.array([one[name] for one in values])
        moved = moved - moved.mean() + own[name]
        width = moved.std()
        low, high = found[name]
        assert low <= own[name] <= high
        assert (low, high) == pytest.approx(np.quantile(moved, [0.025, 0.975]).clip(0), abs=0.35 * width), name
    spread = 1.96 * np.sqrt(own["accuracy"] * (1 - own["accuracy"]) / 200)
    assert found["accuracy"][1] - own["accuracy"] == pytest.approx(spread, rel=0.15)
    assert intervals(logits, labels) == intervals(logits, labels)
    assert set(found) == {"accuracy", *(f"{n}{s}" for n in ("ece", "oe", "nll", "brier") for s in ("", "_scaled"))}


def test_intervals_of_soft_labels_are_of_their_own_metrics():
    rng = np.random.default_rng(1)
    logits, rows = rng.normal(size=(90, 3)), rng.dirichlet(np.ones(3), 90)
    own, found = calibration_metrics(logits, rows), intervals(logits, rows)
    assert all(found[name][0] <= own[name] <= found[name][1] for name in ("nll", "brier", "accuracy"))
