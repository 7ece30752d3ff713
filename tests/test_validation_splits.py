"""What chooses a checkpoint is never what the figures are of: images and text, parts by hand, records and cards."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from torch.nn import functional as F
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EarlyStoppingCallback,
)

import hf_logitmix.vision.train as script
from helpers.cards import checked_metadata
from helpers.data import examples
from helpers.image_runs import argv, logits_of, read_pictures, run, write_pictures
from helpers.models import tiny_bert
from helpers.training import arguments
from hf_logitmix import Method, MixTrainer, MixTrainingArguments
from hf_logitmix.glue import run as run_glue
from hf_logitmix.glue.data import with_validation
from hf_logitmix.targets import LabelSmoothing
from hf_logitmix.text.experiment import TextTrainer
from hf_logitmix.training.runs import Run
from hf_logitmix.training.splits import hold_out

CHOOSE = ["--eval_strategy", "epoch", "--save_strategy", "epoch", "--load_best_model_at_end", "True"]


# ---- the parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_every_class_keeps_its_share_in_both_parts(share):
    sizes = np.random.default_rng(0).integers(20, 200, 9)
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(9), sizes))
    kept, held = hold_out(labels, share, seed=3)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert len(held) == round(share * len(labels))
    assert (abs(np.bincount(labels[held]) - share * sizes) < 1).all()
    assert (kept[:-1] < kept[1:]).all()
    again, other = hold_out(labels, share, seed=3)[1], hold_out(labels, share, seed=4)[1]
    assert held.tolist() == again.tolist() != other.tolist()


def test_numbers_that_are_no_classes_are_drawn_at_random():
    scores = np.random.default_rng(0).uniform(0, 5, 40)
    kept, held = hold_out(scores, 0.2, seed=0)
    assert (len(kept), len(held)) == (32, 8)
    assert sorted([*kept, *held]) == list(range(40))
    assert held.tolist() != list(range(8))


@pytest.mark.parametrize(
    ("labels", "share", "says"),
    [
        ([0, 1] * 10, 1.0, r"outside \(0, 1\)"),
        ([0, 1] * 10, -0.1, r"outside \(0, 1\)"),
        ([0, 1] * 10, 0.05, "none of class 0 to choose"),
        ([0] * 20 + [1], 0.2, "none of class 1 to train on"),
        ([0, 1] * 2, 0.9, "none of class 0 to train on"),
    ],
)
def test_a_share_that_leaves_a_class_out_is_refused(labels, share, says):
    with pytest.raises(ValueError, match=rf"val_split={share}.*{says}"):
        hold_out(np.array(labels), share, seed=0)


# ---- images ----------------------------------------------------------------------------------------------------------


def add_split(folder: Path, name: str, shift: int) -> Path:
    """A copy of test/ whose images stand under the names of other classes."""
    classes = sorted(path.name for path in (folder / "test").iterdir())
    for number, kind in enumerate(classes):
        shutil.copytree(folder / "test" / kind, folder / name / classes[(number + shift) % len(classes)])
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three classes, 24 and 12 images of 16 pixels, without images for validation."""
    return write_pictures(tmp_path_factory.mktemp("plain") / "three", 3, 8, 4, 16)


@pytest.fixture(scope="module")
def misleading(tmp_path_factory):
    """The same and val/, where every image has a wrong class: the better a model is on test, the worse it is on val."""
    return add_split(write_pictures(tmp_path_factory.mktemp("data") / "three", 3, 8, 4, 16), "val", 1)


def losses(output: Path, folder: Path, split: str) -> dict[str, float]:
    """The loss of each checkpoint and of the saved model, on images that are normalised by hand."""
    train, _ = read_pictures(folder, "train")
    pixels, labels = read_pictures(folder, split)
    batch = torch.from_numpy((pixels - train.mean((0, 1, 2))) / train.std((0, 1, 2))).permute(0, 3, 1, 2).float()
    found = {}
    for path in [output, *sorted(output.glob("checkpoint-*"))]:
        with torch.no_grad():
            logits = AutoModelForImageClassification.from_pretrained(path).eval()(batch).logits
        found[path.name] = F.cross_entropy(logits, torch.from_numpy(labels)).item()
    return found


def test_the_checkpoint_is_chosen_on_val_and_measured_on_test(misleading, tmp_path):
    output = tmp_path / "out"
    more = ["--method", "vanilla", "--num_train_epochs", "4", "--learning_rate", "0.05", "--no_aug"]
    found = run(misleading, output, *more, *CHOOSE)
    val, test = losses(output, misleading, "val"), losses(output, misleading, "test")
    own = val.pop("out"), test.pop("out")
    best = min(val, key=val.get)
    assert best != min(test, key=test.get)  # so that the two can be told apart
    assert own == pytest.approx((val[best], test[best]), abs=1e-4)
    assert found["eval_nll"] == pytest.approx(test[best], abs=1e-4)
    assert (found["measured_on"], found["selected_on"], found["n_eval"]) == ({"test": 12}, {"val": 12}, 12)
    card = ModelCard.load(output / "README.md")
    assert {result.dataset_split for result in card.data.eval_results} == {"test"}
    assert "## Results on test" in card.text
    assert (
        "Measured on all 12 examples of `test`. The checkpoint was selected on all 12 examples of `val`." in card.text
    )


@pytest.fixture
def given(monkeypatch):
    """The images that each run gave to its trainer: those to train on, and those to evaluate during training."""
    kept, made = [], script.ImageRunTrainer.__init__

    def keep(self, *args, train_dataset=None, eval_dataset=None, **kwargs):
        sets = (
            [(np.asarray(image).tobytes(), int(label)) for image, label in zip(data.images, data.labels, strict=True)]
            for data in (train_dataset, eval_dataset)
        )
        kept.append(list(sets))
        made(self, *args, train_dataset=train_dataset, eval_dataset=eval_dataset, **kwargs)

    monkeypatch.setattr(script.ImageRunTrainer, "__init__", keep)
    return kept


def test_a_share_of_the_training_images_is_held_out(pictures, tmp_path, given):
    """The same for every seed; noise changes the others alone."""
    split = ["--val_split", "0.25", *CHOOSE, "--label_noise", "0.5"]
    found = [run(pictures, tmp_path / seed, *split, "--seed", seed) for seed in "12"]
    (train, held), (again, same) = given
    assert (len(train), len(held)) == (18, 6)
    pixels, labels = read_pictures(pictures, "train")
    known = {
        np.rint(255 * image).astype(np.uint8).tobytes(): int(label) for image, label in zip(pixels, labels, strict=True)
    }
    assert {image for image, _ in train} | {image for image, _ in held} == set(known)
    assert sorted(label for _, label in held) == [0, 0, 1, 1, 2, 2]
    assert all(known[image] == label for image, label in held)
    assert sum(known[image] != label for image, label in train) == 9
    assert held == same
    assert train != again  # noise has the run's seed
    for record in found:
        assert (record["n_train"], record["measured_on"]) == (18, {"test": 12})
        assert record["selected_on"] == {"held out of train": 6}
        assert {**record["settings"], "val_split": 0.25, "subset_seed": 0} == record["settings"]


def test_a_run_without_a_choice_is_what_it_was(pictures, tmp_path, given):
    """It trains on all images and watches test, and the record says that nothing chose its checkpoint."""
    found = run(pictures, tmp_path, "--method", "vanilla", "--eval_strategy", "epoch")
    _, watched = given[0]
    pixels, _ = read_pictures(pictures, "test")
    assert [image for image, _ in watched] == [np.rint(255 * image).astype(np.uint8).tobytes() for image in pixels]
    assert (found["n_train"], found["n_eval"], found["selected_on"]) == (24, 12, None)
    assert "selected" not in (tmp_path / "README.md").read_text()
    assert "val_split" not in found["settings"]


PLATEAU = ["--lr_scheduler_type", "reduce_lr_on_plateau", "--eval_strategy", "epoch"]


def test_stopping_early_is_a_choice(tmp_path):
    options = {"eval_strategy": "steps", "metric_for_best_model": "loss"}
    data = examples(8)
    args = arguments(tmp_path, MixTrainingArguments, **options)
    trainer = MixTrainer(tiny_bert(), args, train_dataset=data, eval_dataset=data)
    own = {"scores": None, "read": None, "label_names": (), "base_model": None, "task": "t", "data": "d"}
    assert Run(trainer, **own).results["selected_on"] is None  # a metric alone keeps a checkpoint and chooses none
    trainer.add_callback(EarlyStoppingCallback())
    with pytest.raises(ValueError, match=r"EarlyStoppingCallback would choose"):
        Run(trainer, **own)
    assert Run(trainer, **own, validation="val").results["selected_on"] == {"val": 8}


@pytest.mark.parametrize(
    ("given", "name"),
    [({}, "logitmix"), ({"method": "mixup"}, "mixup"), ({"method": Method(targets=LabelSmoothing(0.1))}, "custom")],
    ids=str,
)
def test_a_record_names_the_method_that_runs(tmp_path, given, name):
    trainer = MixTrainer(tiny_bert(), arguments(tmp_path, MixTrainingArguments), train_dataset=examples(8), **given)
    run = Run(trainer, "task", "data", None, (), dict, np.asarray)
    assert run.results["method_name"] == name
    assert run.results["method"] == str(trainer.method)


@pytest.mark.parametrize("more", [CHOOSE, PLATEAU])
def test_a_choice_on_test_is_refused(pictures, tmp_path, untrained, more):
    with pytest.raises(ValueError, match=r"(load_best|lr_sch).* figures are of: pass --val_split 0\.1"):
        script.main(argv(pictures, tmp_path / "out", *more))


def test_val_alone_is_what_the_figures_are_of(pictures, tmp_path, untrained):
    only = shutil.copytree(pictures, tmp_path / "only")
    (only / "test").rename(only / "valid")
    with pytest.raises(ValueError, match="pass --val_split"):
        script.main(argv(only, tmp_path / "out", *CHOOSE))


def test_val_alone_is_named_in_the_record(pictures, tmp_path):
    only = shutil.copytree(pictures, tmp_path / "only")
    (only / "test").rename(only / "valid")
    found = run(only, tmp_path / "out", "--val_split", "0.25", "--max_eval_samples", "3", *CHOOSE)
    assert (found["measured_on"], found["selected_on"]) == ({"valid": 3}, {"held out of train": 3})
    assert found["split_sizes"] == {"valid": 12, "held out of train": 6}
    text = (tmp_path / "out" / "README.md").read_text()
    assert "on 3 of 12 examples of `valid`. The checkpoint was selected on 3 of 6 examples of `held out" in text
    checked_metadata(tmp_path / "out" / "README.md")
    assert {one.dataset_split for one in ModelCard.load(tmp_path / "out" / "README.md").data.eval_results} == {"valid"}


def test_two_ways_to_hold_out_and_none_to_train_are_refused(misleading, pictures, tmp_path, untrained):
    with pytest.raises(ValueError, match=r"val_split=0\.1 and the split val of three"):
        script.main(argv(misleading, tmp_path / "out", "--val_split", "0.1"))
    saved = str(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"val_split=0\.1 .* there is no training"):
        script.main(argv(pictures, tmp_path / "out", "--val_split", "0.1", "--no_do_train", "--model", saved))


def test_validation_that_nothing_looks_at_is_said(misleading, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "hf_logitmix"):
        found = run(misleading, tmp_path, "--method", "vanilla", "--max_steps", "1", "--eval_strategy", "no")
    assert any("val: its 12 examples" in text and "--eval_strategy" in text for text in caplog.messages)
    assert (found["measured_on"], found["selected_on"]) == ({"test": 12}, None)


# ---- text ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wrong_dev(start, tmp_path_factory):
    """Arguments of a run whose dev set has every label wrong; eight epochs of five steps."""
    folder = tmp_path_factory.mktemp("wrong") / "glue"
    shutil.copytree(start[start.index("--glue_dir") + 1], folder)
    dev = folder / "SST-2" / "dev.tsv"
    header, *rows = dev.read_text().splitlines()
    dev.write_text("\n".join([header, *(f"{row[:-1]}{1 - int(row[-1])}" for row in rows)]) + "\n")
    short = [
        "--max_steps",
        "-1",
        "--num_train_epochs",
        "6",
        "--per_device_train_batch_size",
        "16",
        "--method",
        "vanilla",
    ]
    return [*start, "--glue_dir", str(folder), *short, "--learning_rate", "0.01"]


def test_text_is_chosen_on_what_was_held_out_and_measured_on_dev(wrong_dev, tmp_path, monkeypatch):
    """The labels of dev are wrong, so that a choice on it would be another one."""
    given, made = {}, TextTrainer.__init__
    monkeypatch.setattr(TextTrainer, "__init__", lambda self, *a, **k: (given.update(k), made(self, *a, **k))[1])
    output = tmp_path / "out"
    split = ["--val_split", "0.2", "--output_dir", str(output), *CHOOSE]
    assert run_glue.main([*wrong_dev, *split]) == 0
    found = json.loads((output / "all_results.json").read_text())
    train, held = (given[name] for name in ("train_dataset", "eval_dataset"))
    tokens = [{tuple(row["input_ids"]) for row in data} for data in (train, held)]
    assert (len(train), len(held), len(tokens[0]), len(tokens[0] & tokens[1])) == (80, 20, 80, 0)
    assert sorted(held["label"][:]) == [0] * 10 + [1] * 10
    assert (found["measured_on"], found["selected_on"]) == ({"validation": 20}, {"held out of train": 20})
    assert (found["n_train"], found["n_eval"], found["settings"]["val_split"]) == (80, 20, 0.2)
    assert (
        "The checkpoint was selected on all 20 examples of `held out of train`." in (output / "README.md").read_text()
    )

    tokenizer = AutoTokenizer.from_pretrained(output)

    def loss(path: Path) -> float:
        batch = tokenizer.pad({"input_ids": [row["input_ids"] for row in held]}, return_tensors="pt")
        with torch.no_grad():
            logits = AutoModelForSequenceClassification.from_pretrained(path).eval()(**batch).logits
        return F.cross_entropy(logits, torch.tensor(held["label"][:])).item()

    by_hand = {path.name: loss(path) for path in output.glob("checkpoint-*")}
    assert loss(output) == pytest.approx(min(by_hand.values()), abs=1e-5)
    assert len(by_hand) == 6
    best = min(by_hand, key=by_hand.get)
    _, labels = logits_of(output)
    assert (labels == 1 - np.array([n % 2 for n in range(20)])).all()
    steps = json.loads((output / "checkpoint-30" / "trainer_state.json").read_text())
    assert Path(steps["best_model_checkpoint"]).name == best


def test_a_choice_on_dev_is_refused(wrong_dev, tmp_path):
    with pytest.raises(ValueError, match=r"load_best_model_at_end .* figures are of: pass --val_split 0\.1"):
        run_glue.main([*wrong_dev, "--output_dir", str(tmp_path / "out"), *CHOOSE])
    assert not list(tmp_path.rglob("*.safetensors"))


def test_text_without_a_choice_is_what_it_was(start, tmp_path):
    short = ["--max_steps", "2", "--eval_strategy", "steps", "--eval_steps", "1", "--method", "vanilla"]
    assert run_glue.main([*start, *short, "--output_dir", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "all_results.json").read_text())
    assert (found["n_train"], found["measured_on"], found["selected_on"]) == (100, {"validation": 20}, None)


def test_without_training_there_is_nothing_to_hold_out():
    with pytest.raises(ValueError, match=r"val_split=0\.2 .* no training"):
        with_validation({"dev": []}, 0.2, seed=0)
