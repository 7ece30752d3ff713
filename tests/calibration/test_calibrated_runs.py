"""Runs keep a temperature in the model they save, fitted on examples that were neither trained nor reported on."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, AutoTokenizer

from helpers.data import batch_of, examples
from helpers.image_runs import argv as image_argv
from helpers.image_runs import read_pictures
from helpers.image_runs import run as run_images
from helpers.models import tiny_bert
from helpers.training import arguments
from hf_logitmix import MixTrainer, MixTrainingArguments
from hf_logitmix.glue import run as run_glue
from hf_logitmix.glue.data import with_validation
from hf_logitmix.text import train as text_script
from hf_logitmix.text.experiment import TextTrainer
from hf_logitmix.training.runs import Run
from hf_logitmix.training.splits import hold_out
from hf_logitmix.vision import train as image_script

SHORT = ["--max_steps", "60", "--method", "vanilla", "--learning_rate", "3e-3", "--per_device_train_batch_size", "8"]
KEPT = "held out of train to calibrate"


def nll(logits, labels, temperature):
    z = logits.double() / temperature
    return torch.nn.functional.cross_entropy(z, torch.as_tensor(labels)).item()


def is_best(logits, labels, temperature):
    return nll(logits, labels, temperature) < min(nll(logits, labels, temperature * f) for f in (0.95, 1.05))


@pytest.fixture(scope="module")
def unsure(start, tmp_path_factory):
    """The arguments of `start`, on data of which every fifth label is wrong: learnt well, and never all right."""
    folder = tmp_path_factory.mktemp("unsure") / "glue"
    shutil.copytree(start[start.index("--glue_dir") + 1], folder)
    for path in (folder / "SST-2").glob("*.tsv"):
        header, *rows = path.read_text().splitlines()
        rows = [f"{row[:-1]}{1 - int(row[-1])}" if n % 5 == 0 else row for n, row in enumerate(rows)]
        path.write_text("\n".join([header, *rows]) + "\n")
    return [*start, "--glue_dir", str(folder)]


@pytest.fixture
def seen(monkeypatch):
    """The training set of each text run, and what its temperature was fitted on."""
    found, made, fitted = {}, TextTrainer.__init__, TextTrainer.calibrate
    monkeypatch.setattr(
        TextTrainer,
        "__init__",
        lambda self, *a, **k: (found.update(train=k["train_dataset"]), made(self, *a, **k))[1],
    )
    monkeypatch.setattr(
        TextTrainer, "calibrate", lambda self, data, **k: (found.update(held=data), fitted(self, data, **k))[1]
    )
    return found


def text_run(begun, output, *more):
    assert run_glue.main([*begun, *SHORT, *more, "--output_dir", str(output)]) == 0
    return json.loads((output / "all_results.json").read_text())


def text_logits(output, data):
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    batch = tokenizer.pad({"input_ids": [row["input_ids"] for row in data]}, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch).logits, model.config


def test_text_is_held_out_for_the_temperature_alone(unsure, tmp_path, seen, capsys):
    found = text_run(unsure, tmp_path, "--calibration_split", "0.2")
    train, held = ({tuple(row["input_ids"]) for row in seen[name]} for name in ("train", "held"))
    assert (len(train), len(held), len(train & held)) == (80, 20, 0)
    assert (found["n_train"], found["settings"]["calibration_split"], found["settings"]["subset_seed"]) == (80, 0.2, 0)
    assert (found["measured_on"], found["selected_on"]) == ({"validation": 20}, None)
    logits, config = text_logits(tmp_path, seen["held"])
    assert config.calibration == found["calibration"]
    assert (config.calibration["fitted_on"], config.calibration["n"]) == (KEPT, 20)
    assert is_best(logits, seen["held"]["label"][:], config.calibration["temperature"])
    assert f"keeps the temperature {config.calibration['temperature']:.4f} in its config" in capsys.readouterr().out


def test_texts_of_ones_own_are_held_out_too(unsure, tmp_path, seen, capsys):
    given = dict(zip(unsure[::2], unsure[1::2], strict=True))
    folder = Path(given.pop("--glue_dir")) / "SST-2"
    given.pop("--task_name")
    files = {"--train_file": str(folder / "train.tsv"), "--validation_file": str(folder / "dev.tsv")}
    options = [word for pair in (given | files).items() for word in pair]
    added = ["--val_split", "0.2", "--calibration_split", "0.25", "--output_dir", str(tmp_path)]
    assert text_script.main([*options, *SHORT, *added]) == 0
    found = json.loads((tmp_path / "all_results.json").read_text())
    train, held = ({tuple(row["input_ids"]) for row in seen[name]} for name in ("train", "held"))
    assert (len(train), len(held), len(train & held)) == (60, 20, 0)
    settings = {name: found["settings"][name] for name in ("val_split", "calibration_split", "subset_seed")}
    assert settings == {"val_split": 0.2, "calibration_split": 0.25, "subset_seed": 0}
    assert (found["n_train"], found["measured_on"]) == (60, {"validation": 20})
    logits, config = text_logits(tmp_path, seen["held"])
    assert config.calibration == found["calibration"]
    assert (config.calibration["fitted_on"], config.calibration["n"]) == (KEPT, 20)
    assert is_best(logits, seen["held"]["label"][:], config.calibration["temperature"])
    assert "examples: 60 train, 20 validation, 20 held out, 20 held out to calibrate" in capsys.readouterr().out


@pytest.mark.slow
def test_what_chose_a_checkpoint_serves_where_nothing_else_was_held_out(unsure, tmp_path, seen):
    found = text_run(unsure, tmp_path / "one", "--val_split", "0.2")
    logits, config = text_logits(tmp_path / "one", seen["held"])
    assert config.calibration == found["calibration"]
    assert (config.calibration["fitted_on"], config.calibration["n"]) == ("held out of train", 20)
    assert is_best(logits, seen["held"]["label"][:], config.calibration["temperature"])
    both = text_run(unsure, tmp_path / "both", "--val_split", "0.2", "--calibration_split", "0.25")
    assert (both["n_train"], both["calibration"]["fitted_on"], both["calibration"]["n"]) == (60, KEPT, 20)


def test_without_held_out_examples_the_model_keeps_none(unsure, tmp_path, capsys):
    found = text_run(unsure, tmp_path)
    assert found["calibration"] is None
    assert found["eval_temperature"] > 0  # cross-fitted figures are there all the same
    assert not hasattr(AutoModelForSequenceClassification.from_pretrained(tmp_path).config, "calibration")
    assert "the model keeps no temperature: none was fitted on examples that were held out" in capsys.readouterr().out


def test_examples_that_are_all_right_give_none_and_end_no_run(tmp_path, caplog):
    model, rows = tiny_bert().eval(), examples(30)
    with torch.no_grad():
        classes = model(**batch_of(rows)).logits.argmax(1)
    rows = [{**row, "labels": int(k)} for row, k in zip(rows, classes, strict=True)]
    args = arguments(tmp_path, MixTrainingArguments, learning_rate=0.0)
    trainer = MixTrainer(model, args, method="vanilla", train_dataset=rows[:20])
    run = Run(trainer, "task", "data", None, ("a", "b", "c"), dict, np.asarray, calibration_data=rows[20:])
    with caplog.at_level(logging.WARNING, "hf_logitmix"):
        assert run.train()
    assert run.results["calibration"] is None
    assert [m for m in caplog.messages if f"no temperature ({KEPT}: every prediction is right on these 10" in m]
    assert (tmp_path / "model.safetensors").exists()


def test_images_are_held_out_too(three, tmp_path):
    found = run_images(three, tmp_path, "--calibration_split", "0.25", "--method", "vanilla", "--no_aug")
    assert (found["n_train"], found["calibration"]["n"], found["measured_on"]) == (18, 6, {"test": 12})
    pixels, labels = read_pictures(three, "train")
    _, held = hold_out(labels, 0.25, 0)
    batch = torch.from_numpy((pixels - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2))).permute(0, 3, 1, 2).float()
    model = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        logits = model(batch[held]).logits
    assert model.config.calibration == found["calibration"]
    assert is_best(logits, labels[held], model.config.calibration["temperature"])


def test_what_holds_nothing_out_is_refused(three, tmp_path, untrained):
    with pytest.raises(ValueError, match=r"calibration_split=0\.1 .* no training"):
        with_validation({"dev": []}, 0.1, 0, "calibration")
    saved = str(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"calibration_split=0\.1 .* no training"):
        image_script.main(
            image_argv(three, tmp_path / "out", "--calibration_split", "0.1", "--no_do_train", "--model", saved)
        )
    with pytest.raises(ValueError, match=r"calibration_split=0\.05 of 20 .* none of class 0 to fit a temperature on"):
        hold_out(np.array([0, 1] * 10), 0.05, 0, "calibration_split", "fit a temperature on")
    rows = [{**row, "labels": 0.5} for row in examples(8)]
    trainer = MixTrainer(
        tiny_bert(num_labels=1), arguments(tmp_path, MixTrainingArguments), method="mixup", train_dataset=rows
    )
    with pytest.raises(ValueError, match=r"calibration_split holds out .* and stsb has none"):
        Run(trainer, "stsb", "data", None, (), dict, np.asarray, calibration_data=rows[:2])
