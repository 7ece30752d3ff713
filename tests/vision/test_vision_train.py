"""The command line for images: what a run leaves, every method, seeds, going on, refusals, two processes, the demo."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import ModelCard
from matplotlib.image import imread
from PIL import Image
from safetensors.torch import load_file
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTForImageClassification,
    ViTImageProcessor,
)

import hf_logitmix.vision.train as script
from helpers.data import examples
from helpers.image_runs import (
    IDX,
    NAMES,
    argv,
    idx_bytes,
    logits_of,
    read_pictures,
    record,
    run,
    weights_of,
    write_pictures,
)
from helpers.launching import TORCHRUN
from helpers.lda import means_by_sklearn, rows_to_one, unnormalised
from helpers.models import tiny_bert, tiny_vit
from helpers.parts import kind_of
from helpers.training import arguments
from hf_logitmix import METHODS, MixTrainer, get_method
from hf_logitmix.commands.main import main
from hf_logitmix.temperature import cross_fit
from hf_logitmix.training.demo import check_room
from hf_logitmix.vision.data import ImageData, load_images
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.inputs import input_config
from hf_logitmix.vision.models import create_model
from hf_logitmix.vision.shapes import SHAPE_NAMES, draw_shapes

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
COMMAND = ["-m", "hf_logitmix.vision.train"]
CALIBRATION = {
    *("ece", "oe", "mce", "adaptive_ece", "classwise_ece", "smooth_ece", "nll", "brier", "aurc", "augrc", "auroc"),
    *("coverage_at_risk_1", "coverage_at_risk_5", "coverage_at_risk_10"),
}
SCALED = {f"{name}_scaled" for name in CALIBRATION}
ON_CARDS = {"accuracy", "accuracy_top5", "ece", "oe", "nll", "brier", "aurc"}


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    """Seven classes, 28 and 35 images of 32 pixels, in a folder whose name must not be told."""
    return write_pictures(tmp_path_factory.mktemp("home-of-someone") / "seven", 7, 4, 5, 32)


def digits(folder: Path, labels=(0, 1, 2), side: int = 12) -> Path:
    """idx files of grey noise; the classes are ten, whatever the labels."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        rows = list(labels) * 4
        pixels = rng.integers(0, 256, (len(rows), side, side)).tolist()
        (folder / IDX[part, "images-idx3"]).write_bytes(idx_bytes(pixels))
        (folder / IDX[part, "labels-idx1"]).write_bytes(idx_bytes(rows))
    return folder


def are_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


# ---- what a run leaves -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(seven):
    output = seven.parent / "out"
    more = ["--image_size", "32", "--method", "logitmix_c", "--alpha", "1.5", "--learning_rate", "0.02", "--seed", "5"]
    returned = run(seven, output, *more, "--num_train_epochs", "3", "--weight_decay", "5e-4")
    return output, returned


def test_the_record_tells_what_was_done(made):
    found = made[1]
    names = {"task": "seven", "data": "seven, local files", "model": "small_resnet8", "method_name": "logitmix_c"}
    assert {**found, **names, "seed": 5, "n_train": 28, "n_eval": 35, "n_bins": 10, "resumed_from_step": 0} == found
    assert "lam=Beta(alpha=1.5)" in found["method"]
    assert "CutMix()" in found["method"]
    assert "LogitMix(weights=(1.0, 1.0, 0.1)" in found["method"]
    settings = {"opt": "sgd", "sched": "cosine", "padding": 4, "image_size": 32, "learning_rate": 0.02}
    settings |= {"weight_decay": 5e-4, "num_train_epochs": 3, "batch_size": 8, "precision": "fp32"}
    assert {**found["settings"], **settings} == found["settings"]
    assert "label_noise" not in found["settings"]
    assert found["versions"]["torch"] == torch.__version__
    assert 9 / found["train_steps_per_second"] == pytest.approx(found["train_seconds"])  # 3 epochs of 3 steps


def test_the_recorded_values_are_those_of_the_saved_logits(made):
    output, found = made
    logits, labels = logits_of(output)
    assert labels.tolist() == [number for number in range(7) for _ in range(5)]
    names = {name.removeprefix("eval_") for name in found if name.startswith("eval_")}
    assert names == {"accuracy", "accuracy_top5", "temperature"} | CALIBRATION | SCALED
    p, every = softmax(logits.astype(float), axis=1), range(7)
    assert found["eval_accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert found["eval_accuracy_top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=every))
    assert found["eval_accuracy_top5"] > found["eval_accuracy"]
    assert found["eval_nll"] == pytest.approx(log_loss(labels, p, labels=every))
    assert found["eval_ece"] == pytest.approx(ece_by_hand(p, labels))
    scaled = softmax(cross_fit(logits, labels), axis=1)
    assert found["eval_nll_scaled"] == pytest.approx(log_loss(labels, scaled, labels=every))
    assert found["eval_ece_scaled"] == pytest.approx(ece_by_hand(scaled, labels))
    best = minimize_scalar(
        lambda t: log_loss(labels, softmax(logits / t, axis=1), labels=every), bounds=(0.05, 50), method="bounded"
    )
    assert found["eval_temperature"] == pytest.approx(best.x, rel=1e-3)


def ece_by_hand(p: np.ndarray, labels: np.ndarray) -> float:
    """Over ten bins of confidence, (0, 0.1], (0.1, 0.2], ..."""
    total = 0.0
    for number in range(10):
        inside = [row for row in range(len(p)) if number / 10 < p[row].max() <= (number + 1) / 10]
        hits = sum(p[row].argmax() == labels[row] for row in inside)
        total += abs(hits - sum(p[row].max() for row in inside)) / len(p)
    return total


def test_top_5_is_left_out_where_it_says_nothing(three, tmp_path):
    assert "eval_accuracy_top5" not in run(three, tmp_path, "--max_steps", "1")


def test_the_model_loads_everywhere_and_gives_the_saved_logits(seven, made):
    """Images of the model's own size, normalised by hand with the moments of the training images."""
    output, _ = made
    train, _ = read_pictures(seven, "train")
    pixels, labels = read_pictures(seven, "test")
    mean, std = train.mean((0, 1, 2)), train.std((0, 1, 2))
    batch = torch.from_numpy((pixels - mean) / std).permute(0, 3, 1, 2).float()
    logits, saved_labels = logits_of(output)
    assert saved_labels.tolist() == labels.tolist()
    model = AutoModelForImageClassification.from_pretrained(output)
    assert model.config.id2label == dict(enumerate(NAMES))
    plain = timm.create_model("small_resnet8", num_classes=7, checkpoint_path=str(output / "model.safetensors"))
    with torch.no_grad():
        np.testing.assert_allclose(model.eval()(batch).logits, logits, atol=1e-4)
        np.testing.assert_allclose(plain.eval()(batch), logits, atol=1e-4)


def test_the_card_is_of_image_classification(made):
    output, found = made
    card = ModelCard.load(output / "README.md")
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.base_model is None
    assert "Trained from scratch on seven, local files" in card.text
    assert ("import hf_logitmix.vision" in card.text) is found["model"].startswith("small_")
    assert {"* opt: sgd", "* sched: cosine", "* padding: 4", "* seed: 5"} <= set(card.text.splitlines())
    told = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert told == {
        name.removeprefix("eval_"): pytest.approx(value, abs=1e-6)
        for name, value in found.items()
        if name.removeprefix("eval_").removesuffix("_scaled") in ON_CARDS
    }
    assert len(told) == 12
    assert {result.task_type for result in card.data.eval_results} == {"image-classification"}


def test_the_diagram_is_a_picture(made):
    picture = imread(made[0] / "reliability.png")
    assert min(picture.shape[:2]) > 300
    assert picture.std() > 0.05


def test_what_is_left_tells_nothing_of_the_machine_and_needs_no_pickle(made):
    output, _ = made
    files = [path for path in output.rglob("*") if path.is_file()]
    beside = {path.name for path in files if path.parent == output}
    assert {"all_results.json", "README.md", "reliability.png", "model.safetensors", "config.json"} <= beside
    kinds = {".json", ".md", ".png", ".npz", ".safetensors", ".csv"}
    assert {path.suffix for path in files if path.parent == output} <= kinds
    assert [path.name for path in files if path.suffix in (".bin", ".pkl")] == []
    for path in files:
        assert b"home-of-someone" not in path.read_bytes(), path.name
        if path.suffix in (".json", ".md", ".txt"):
            assert re.findall(r"""(?:^|[\s"'`=(])(?:/|[A-Z]:\\)\w+[/\\].*""", path.read_text()) == [], path.name


def test_evaluation_alone_gives_the_same_figures(seven, made, tmp_path):
    trained, expected = made
    words = argv(seven, tmp_path, "--model", str(trained), "--no_do_train")
    at = words.index("--image_size")
    assert script.main([*words[:at], *words[at + 2 :]]) == 0  # the side is the model's, and not that of the data
    found = record(tmp_path)
    np.testing.assert_allclose(logits_of(tmp_path)[0], logits_of(trained)[0], atol=1e-4)
    assert found["eval_nll"] == pytest.approx(expected["eval_nll"], abs=1e-4)
    assert found["n_train"] == 0
    assert {"train_seconds", "method", "method_name"}.isdisjoint(found)
    assert not (tmp_path / "README.md").exists()


# ---- every method ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_name(three, tmp_path_factory):
    """Two steps of a method: its folder, trained once."""
    folder, done = tmp_path_factory.mktemp("methods"), {}
    uneven = shutil.copytree(three, folder / "uneven")  # so that infogain weighs the classes
    for number in (0, 1, 2):
        (uneven / "train" / "ant" / f"{number}.png").unlink()

    def trained(method: str) -> Path:
        if method not in done:
            more = ["--teacher", str(trained("mixup"))] if method == "distillation" else []
            run(uneven, folder / method, "--method", method, "--max_steps", "2", "--no_do_eval", *more)
            done[method] = folder / method
        return done[method]

    return trained


OF_IMAGES = [
    name for name, method in METHODS.items() if kind_of(method) != "numbers" and "images" in method.mixing.reads
]


@pytest.mark.parametrize("method", OF_IMAGES)
def test_every_method_trains_by_its_name(by_name, method):
    """The same seed, images and steps: a method changes what is learned, and a second name does not."""
    output = by_name(method)
    found = record(output)
    assert found["method_name"] == method
    assert f"mixing={type(METHODS[method].mixing).__name__}(" in found["method"]
    assert found["n_eval"] == 0
    assert all(torch.isfinite(value).all() for value in weights_of(output).values())
    assert ("targets" in found) is ("mcel" in method)
    assert {path.name for path in output.glob("*.png")} == (
        {"targets.png", "class_similarity.png"} if "mcel" in method else set()
    )
    if method != "vanilla":
        assert not are_equal(weights_of(output), weights_of(by_name("vanilla")))


def test_two_names_of_one_method_learn_the_same(by_name):
    assert are_equal(weights_of(by_name("logitmix")), weights_of(by_name("logitmix_m")))


def test_the_targets_of_mcel_are_one_minus_eps_and_the_similarity_of_pixels(by_name):
    found = record(by_name("mcel"))
    expected = 0.8 * np.eye(3) + 0.2 * np.array(found["class_similarity"])
    np.testing.assert_allclose(found["targets"], expected, atol=1e-6)
    pixels, labels = read_pictures(by_name("mcel").parent / "uneven", "train")
    x = ((pixels - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2))).reshape(len(pixels), -1)
    by_hand = rows_to_one(unnormalised(means_by_sklearn(x, labels)))
    np.testing.assert_allclose(found["class_similarity"], by_hand, atol=1e-3)


# ---- seeds, parts, noise ---------------------------------------------------------------------------------------------


def without_time(found: dict) -> dict:
    """But for what tells of the machine, and for the command line, which names the folder and the seed."""
    return {name: value for name, value in found.items() if not re.search("second|memory|command", name)}


@pytest.mark.slow
def test_a_seed_decides_a_run(three, tmp_path):
    more = ["--method", "cutmix", "--label_noise", "0.25", "--max_train_samples", "20", "--max_steps", "3"]
    found = [run(three, tmp_path / f"{n}", *more, "--seed", seed) for n, seed in enumerate("778")]
    assert without_time(found[0]) == without_time(found[1])
    assert are_equal(weights_of(tmp_path / "0"), weights_of(tmp_path / "1"))
    assert not are_equal(weights_of(tmp_path / "0"), weights_of(tmp_path / "2"))
    assert found[0]["eval_nll"] != found[2]["eval_nll"]


@pytest.fixture
def seen(monkeypatch):
    """The images that each run gave to its trainer, as (pixels, labels)."""
    kept = []
    made = script.ImageRunTrainer.__init__

    def keep(self, *args, train_dataset=None, eval_dataset=None, **kwargs):
        kept.append(
            [
                ([np.asarray(image).tobytes() for image in data.images], data.labels.tolist())
                for data in (train_dataset, eval_dataset)
            ]
        )
        made(self, *args, train_dataset=train_dataset, eval_dataset=eval_dataset, **kwargs)

    monkeypatch.setattr(script.ImageRunTrainer, "__init__", keep)
    return kept


@pytest.mark.slow
def test_a_part_is_the_same_for_every_seed_and_noise_leaves_the_test_set_clean(three, tmp_path, seen):
    part = ["--max_train_samples", "12", "--max_eval_samples", "6", "--max_steps", "1"]
    noise = ["--label_noise", "0.5"]
    runs = [
        ["--seed", "1"],
        ["--seed", "2"],
        ["--seed", "1", "--subset_seed", "3"],
        ["--seed", "1", *noise],
        ["--seed", "2", *noise],
    ]
    found = [run(three, tmp_path / str(number), *part, *more) for number, more in enumerate(runs)]
    first, second, other, noisy, noisier = seen
    assert first == second
    assert other[0][0] != first[0][0]
    assert other[1][0] != first[1][0]
    assert sorted(first[0][1]) == sorted([0, 1, 2] * 4)
    assert sorted(first[1][1]) == sorted([0, 1, 2] * 2)

    pixels, labels = read_pictures(three, "train")
    true = {np.rint(image * 255).astype(np.uint8).tobytes(): label for image, label in zip(pixels, labels, strict=True)}
    for (images, given), (_, kept) in (noisy, noisier):
        assert images == first[0][0]
        assert sum(true[image] != label for image, label in zip(images, given, strict=True)) == 6
        assert kept == first[1][1]
    assert noisy[0][1] != noisier[0][1]
    assert [true[image] for image in first[0][0]] == first[0][1]
    assert [result["settings"].get("label_noise") for result in found] == [None] * 3 + ["0.5 uniform"] * 2
    assert logits_of(tmp_path / "3")[1].tolist() == first[1][1]
    assert "* label_noise: 0.5 uniform" in (tmp_path / "3" / "README.md").read_text().splitlines()


# ---- going on --------------------------------------------------------------------------------------------------------


def test_a_resumed_run_ends_with_the_same_bits(three, tmp_path):
    """Stopped in the second epoch of three steps, with CutMix, augmentation, a schedule and an average."""
    more = ["--method", "cutmix", "--ema_decay", "0.7", "--reprob", "0.3", "--max_steps", "6"]
    more += ["--save_strategy", "steps", "--save_steps", "2", "--warmup_epochs", "1"]
    whole = run(three, tmp_path / "whole", *more)
    (tmp_path / "cut").mkdir()
    for step in (2, 4):
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", tmp_path / "cut" / f"checkpoint-{step}")
    resumed = run(three, tmp_path / "cut", *more, "--resume_from_checkpoint", "last")
    assert (whole["resumed_from_step"], resumed["resumed_from_step"]) == (0, 4)
    for name in ("model.safetensors", "checkpoint-6/model.safetensors", "checkpoint-6/ema.safetensors"):
        assert are_equal(*(load_file(tmp_path / folder / name) for folder in ("whole", "cut"))), name
    assert (logits_of(tmp_path / "whole")[0] == logits_of(tmp_path / "cut")[0]).all()
    figures = [{name: value for name, value in found.items() if "eval" in name} for found in (whole, resumed)]
    assert figures[0] == figures[1]
    end = tmp_path / "whole" / "checkpoint-6"
    assert are_equal(weights_of(tmp_path / "whole"), load_file(end / "ema.safetensors"))
    assert not are_equal(load_file(end / "ema.safetensors"), load_file(end / "model.safetensors"))


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved ViT for 16 pixels in three channels and three classes."""
    folder = tmp_path_factory.mktemp("saved") / "vit"
    tiny_vit(3).save_pretrained(folder)
    return folder


# Options that are added (and replace those of the same name), and what the sentence says.
REFUSED = {
    "method": (["--method", "cutmixx"], ["method='cutmixx'", "cutmix,", "logitmix_c"]),
    "dataset": (["--dataset", "cifar11"], ["dataset='cifar11'", "cifar10,", "train/CLASS"]),
    "model": (["--model", "timm/small_resnt8"], ["'small_resnt8'", "'timm/small_resnet8'"]),
    "model without timm": (["--model", "small_resnet8"], ["'small_resnet8'", "'timm/small_resnet8'"]),
    "output_dir": (["--output_dir", ""], ["--output_dir is needed"]),
    "a run": (["--output_dir", "done"], ["output_dir='done' holds a run already", "another --output_dir"]),
    "resume": (["--resume_from_checkpoint", "last"], ["resume_from_checkpoint='last'", "no complete checkpoint"]),
    "blocks": (["--method", "puzzlemix", "--image_size", "9"], ["images of 9 pixels", "block_num, or resize"]),
    "blocks of logitmix_p": (["--method", "logitmix_p", "--image_size", "15"], ["images of 15 pixels", "block_num"]),
    "image_size": (["--image_size", "0"], ["image_size=0", "at least 1"]),
    "channels": (["--channels", "0"], ["channels=0", "1 or 3"]),
    "few images": (["--max_train_samples", "2"], ["max_train_samples", "2", "between 3"]),
    "few test images": (["--max_eval_samples", "99"], ["max_eval_samples", "99", "12 examples"]),
    "noise": (["--label_noise", "1.5"], ["1.5 is outside [0, 1]"]),
    "kind of noise": (["--label_noise", "0.1", "--label_noise_kind", "odd"], ["'odd'", "uniform, pairwise"]),
    "layer": (["--method", "mixup", "--level", "hidden:9"], ["level='hidden:9' is above the last layer", "hidden:3"]),
    "option": (["--method", "cutmix", "--eps", "0.1"], ["eps is not an option of this method", "alpha"]),
    "teacher": (["--method", "distillation"], ["teacher"]),
    "schedule": (["--sched", "linear"], ["sched='linear'", "cosine, step, multistep"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_one_sentence_before_training(three, tmp_path, monkeypatch, untrained, case):
    added, says = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "all_results.json").write_text("{}")
    with pytest.raises(ValueError) as error:  # noqa: PT011
        script.main(argv(three, "out", *added))
    assert [part for part in says if part not in str(error.value)] == []
    assert "\n" not in str(error.value)
    assert (tmp_path / "done" / "all_results.json").read_text() == "{}"
    assert not any(path.suffix == ".safetensors" for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_damaged_image_ends_a_run_before_it_trains(three, tmp_path, untrained, split):
    """Also one that a look at some of them would miss."""
    folder = shutil.copytree(three, tmp_path / "three")
    if split == "val":
        shutil.copytree(three / "test", folder / "val")
    for number in range(30):
        shutil.copy(three / "test" / "cat" / "0.png", folder / split / "cat" / f"more-{number:02}.png")
    path = folder / split / "cat" / "more-11.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=rf"^{path} cannot be read as an image"):
        script.main(argv(folder, tmp_path / "out"))
    with pytest.raises(AssertionError, match="training began"):
        script.main(argv(folder, tmp_path / "out", "--no_check_images"))


def test_a_class_without_images_has_no_similarity(tmp_path, untrained):
    grey = digits(tmp_path / "grey")  # ten classes, of which three have images
    with pytest.raises(ValueError, match=r"^class 3 has no example, .*: add some, or pass a class_similarity"):
        script.main(argv(grey, tmp_path / "out", "--method", "mcel"))


def test_a_saved_model_of_three_channels_refuses_grey_images(tmp_path, saved, untrained):
    grey = digits(tmp_path / "grey", side=16)
    with pytest.raises(ValueError, match=r"channels=1, but .*vit reads images of 3"):
        script.main(argv(grey, tmp_path / "out", "--model", str(saved)))


def test_channels_that_a_saved_model_does_not_read_are_refused(tmp_path, untrained):
    """A model of grey images, and images that are made RGB."""
    config = tiny_vit(10).config
    config.num_channels = 1
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    grey = load_images(str(digits(tmp_path / "grey", side=16)))
    images = script.ImageArguments(dataset="grey", model=str(tmp_path / "vit"), image_size=16, channels=3)
    args = script.ImageRunArguments(str(tmp_path / "out"), method="vanilla", use_cpu=True)
    with pytest.raises(ValueError, match=r"channels=3, but .*vit reads images of 1: pass channels=1"):
        script.run(images, args, grey)


def test_a_saved_model_of_other_classes_gets_a_new_head_to_train_and_is_not_evaluated_alone(three, tmp_path, saved):
    four = write_pictures(tmp_path / "four", 4, 3, 2, 16)
    more = ["--model", str(saved), "--opt", "adamw", "--learning_rate", "1e-3"]
    run(four, tmp_path / "trained", *more, "--max_steps", "2")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "trained")
    assert (model.classifier.weight.shape, list(model.config.id2label.values())) == ((4, 32), list(NAMES[:4]))
    with pytest.raises(ValueError, match=r"vit has 3 classes and .*four 4: train it"):
        script.main(argv(four, tmp_path / "evaluated", *more, "--no_do_train"))
    found = run(three, tmp_path / "same", *more, "--no_do_train")
    assert found["model"] == "vit"


def test_layer_decay_needs_a_model_that_tells_its_layers(three, tmp_path, saved, untrained):
    with pytest.raises(ValueError, match=r"layer_decay=0\.5: ViTForImageClassification .*group_matcher.*leave it out"):
        script.main(argv(three, tmp_path / "out", "--model", str(saved), "--opt", "adamw", "--layer_decay", "0.5"))


@pytest.mark.parametrize("name", ["cutmix", "logitmix_c", "puzzlemix"])
def test_text_has_no_pixels(tmp_path, name):
    kind = "PuzzleMix" if name == "puzzlemix" else "CutMix"
    for method in (name, get_method(name)):
        with pytest.raises(
            ValueError, match=f"mixing={kind}.* is for images and BertFor.* reads text: pass a method for"
        ):
            MixTrainer(model=tiny_bert(), args=arguments(tmp_path), method=method, train_dataset=examples(4))


@pytest.mark.parametrize("left_out", ["--dataset", "--model"])
def test_what_a_run_needs_is_said(three, tmp_path, left_out):
    options = argv(three, tmp_path / "out")
    at = options.index(left_out)
    with pytest.raises(ValueError, match="--dataset and --model are needed, or --demo"):
        script.main(options[:at] + options[at + 2 :])


def test_help_names_the_arguments(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        script.main(["--help"])
    text = capsys.readouterr().out
    names = "dataset model method demo output_dir max_train_samples subset_seed label_noise sched opt padding seed"
    assert [name for name in names.split() if not re.search(rf"--{name}[ \]]", text)] == []
    assert "--max_train_samples" in text
    assert "drawn with --subset_seed" in " ".join(text.split())


def test_a_problem_of_the_users_is_one_sentence(tmp_path):
    with pytest.raises(SystemExit) as left:
        main(["images", *argv(tmp_path, tmp_path / "out")])
    assert re.fullmatch(r"hf-logitmix images: dataset: folder .* holds nothing, but .*\.", left.value.code)


@pytest.mark.slow
def test_a_process_prints_no_traceback(tmp_path):
    command = [sys.executable, *COMMAND, "--dataset", str(tmp_path), "--model", "timm/small_resnet8"]
    done = subprocess.run(
        [*command, "--output_dir", str(tmp_path / "out")], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("hf-logitmix images: dataset: folder ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


# ---- two processes ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("more", [["--method", "cutmix"], ["--method", "vanilla", "--ema_decay", "0.6"], []])
def test_two_processes_leave_one_run(three, tmp_path, more):
    """What is recorded is what the saved model gives, whichever process looked at an image."""
    output = tmp_path / "out"
    options = argv(three, output, "--per_device_train_batch_size", "4", "--max_steps", "5", *more)
    done = subprocess.run([*TORCHRUN, *COMMAND, *options], env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("everything is in") == 1
    found, (logits, labels) = record(output), logits_of(output)
    assert found["settings"]["batch_size"] == 8
    assert (found["n_eval"], labels.tolist()) == (12, [0] * 4 + [1] * 4 + [2] * 4)
    assert found["eval_accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    alone = run(three, tmp_path / "alone", "--model", str(output), "--no_do_train")
    np.testing.assert_allclose(logits, logits_of(tmp_path / "alone")[0], atol=1e-4)
    assert found["eval_nll"] == pytest.approx(alone["eval_nll"], abs=1e-4)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_without_statistics_of_batches(three, tmp_path, saved):
    """A ViT has no batch normalisation, so halves of a batch give the gradient of the whole one."""
    more = ["--model", str(saved), "--learning_rate", "0.02", "--method", "vanilla"]
    more += ["--max_steps", "6", "--no_aug"]
    run(three, tmp_path / "one", *more)
    options = argv(three, tmp_path / "two", *more, "--per_device_train_batch_size", "4")
    done = subprocess.run([*TORCHRUN, *COMMAND, *options], env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, value in weights_of(tmp_path / "one").items():
        torch.testing.assert_close(weights_of(tmp_path / "two")[name], value, atol=2e-5, rtol=1e-4, msg=name)
    one, two = (record(tmp_path / name) for name in ("one", "two"))
    for name in ("eval_accuracy", "eval_nll", "eval_ece", "eval_temperature"):
        assert two[name] == pytest.approx(one[name], abs=1e-3), name


# ---- the demo --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_demo_prints_the_figures_of_three_runs(tmp_path, monkeypatch, capsys):
    train, test = (
        ImageSet([Image.fromarray(image) for image in pixels], labels)
        for pixels, labels in map(draw_shapes, (20, 20), (0, 1))
    )
    part = ImageData("shapes", train, test, SHAPE_NAMES, 32, 3, (0.4,) * 3, (0.2,) * 3)
    asked = []
    monkeypatch.setattr(script, "load_images", lambda name: asked.append(name) or part)
    assert script.main(["--demo", "--output_dir", str(tmp_path / "demo"), "--seed", "4", "--use_cpu", "True"]) == 0
    assert asked == ["synthetic"]
    lines = capsys.readouterr().out.splitlines()
    assert "Synthetic images: 20 for training and 20 for test, one seed." in lines
    rows = {line.split()[0]: line.split()[1:] for line in lines if len(line.split()) == 9}
    assert list(rows) == ["vanilla", "cutmix", "logitmix_c"]
    keys = ["accuracy", "ece", "oe", "nll", "ece_scaled", "nll_scaled", "temperature"]
    for method, cells in rows.items():
        found = record(tmp_path / "demo" / method)
        assert (found["method_name"], found["seed"], found["n_train"], found["n_eval"]) == (method, 4, 20, 20)
        assert cells == [f"{found[f'eval_{key}']:.3f}" for key in keys] + [f"{found['train_seconds']:.1f}"]
        logits, labels = logits_of(tmp_path / "demo" / method)
        assert found["eval_accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert imread(tmp_path / "demo" / "reliability.png").std() > 0.05
    check_room(tmp_path / "demo", ["cutmix"], "shapes")  # an older demo makes room


@pytest.mark.slow
@pytest.mark.parametrize("what", ["another run", "a checkpoint"])
def test_the_demo_leaves_other_runs_alone(tmp_path, what):
    if what == "another run":
        kept = tmp_path / "demo" / "cutmix" / "all_results.json"
        kept.parent.mkdir(parents=True)
        kept.write_text('{"data": "cifar10"}')
    else:
        kept = tmp_path / "demo" / "cutmix" / "checkpoint-3" / "trainer_state.json"
        kept.parent.mkdir(parents=True)
        kept.write_text("{}")
    with pytest.raises(ValueError, match="'cutmix': pass the demo another one"):
        script.main(["--demo", "--output_dir", str(tmp_path / "demo")])
    assert kept.exists()
    assert not (tmp_path / "demo" / "vanilla").exists()


def test_a_model_of_transformers_keeps_its_precision_and_its_image_processor(three, tmp_path):
    """Weights in half precision are trained in float32, and what a run leaves tells how to read images."""
    model, source = tiny_vit(3), tmp_path / "vit"
    model.to(torch.bfloat16).save_pretrained(source)
    size = model.config.image_size
    ViTImageProcessor(image_mean=[0.1] * 3, image_std=[0.3] * 3, size={"height": size, "width": size}).save_pretrained(
        source
    )
    more = ["--model", str(source), "--image_size", str(size), "--method", "vanilla", "--learning_rate", "1e-3"]
    trained = run(three, tmp_path / "out", *more)
    assert {value.dtype for value in weights_of(tmp_path / "out").values()} == {torch.float32}
    again = ["--model", str(tmp_path / "out"), "--image_size", str(size), "--no_do_train"]
    assert input_config(create_model(str(tmp_path / "out"), 3)).mean == (0.1, 0.1, 0.1)
    assert run(three, tmp_path / "again", *again)["eval_nll"] == pytest.approx(trained["eval_nll"], abs=1e-6)


def test_a_processor_that_reads_images_otherwise_is_told_of(three, tmp_path, caplog):
    size = tiny_vit(3).config.image_size
    told = {}
    for name, side in (("alike", size), ("otherwise", 2 * size)):
        tiny_vit(3).save_pretrained(tmp_path / name)
        sides = {"height": side, "width": side}
        ViTImageProcessor(size=sides, do_center_crop=True, crop_size=sides).save_pretrained(tmp_path / name)
        caplog.clear()
        more = ["--model", str(tmp_path / name), "--image_size", str(size), "--max_steps", "1", "--method", "vanilla"]
        run(three, tmp_path / "out" / name, *more)
        told[name] = "makes other images than those that are evaluated here" in caplog.text
    assert told["otherwise"]


@pytest.mark.parametrize("more", [["--interpolation", "lanczos"], ["--crop_pct", "0.7"]])
def test_what_a_run_saves_tells_how_it_evaluated(three, tmp_path, more):
    """Of a run's own folder as the model too, and of images that are not square."""
    first = ["--model", "timm/small_resnet8", "--max_steps", "1", "--method", "vanilla"]
    run(three, tmp_path / "first", *first, *(more if "lanczos" in more else []))
    if "lanczos" not in more:
        run(three, tmp_path / "again", *first, "--model", str(tmp_path / "first"), *more)
    folder = tmp_path / ("first" if "lanczos" in more else "again")
    config = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    assert config["interpolation"] == ("lanczos" if "lanczos" in more else "bilinear")
    assert config["crop_pct"] == (0.7 if "0.7" in more else 1.0)
    served = AutoImageProcessor.from_pretrained(folder)
    pictures = [Image.open(path) for path in sorted((three / "test").glob("*/*.png"))]
    with torch.no_grad():
        model = AutoModelForImageClassification.from_pretrained(folder).eval()
        logits = model(torch.cat([served(picture)["pixel_values"] for picture in pictures])).logits
    np.testing.assert_allclose(logits, logits_of(folder)[0], atol=1e-4)


def test_what_was_held_out_calibrates_where_nothing_else_is_evaluated(three, tmp_path, caplog):
    """After a single step there may be no temperature that fits, which is said of these examples then."""
    found = run(three, tmp_path, "--val_split", "0.25", "--no_do_eval", "--method", "vanilla", "--max_steps", "1")
    fitted_on = (found["calibration"] or {}).get("fitted_on")
    assert fitted_on == "held out of train" or "keeps no temperature (held out of train: " in caplog.text


def test_a_new_head_is_not_evaluated_and_one_class_is_none(three, tmp_path):
    with pytest.raises(ValueError, match=r"model timm/small_resnet8 has a new head, which knows nothing"):
        script.main(argv(three, tmp_path / "out", "--no_do_train"))
    one = write_pictures(tmp_path / "one", 1, 2, 2, 16)
    with pytest.raises(ValueError, match=r"dataset one, local files has 1 class: pass one with at least two"):
        script.main(argv(one, tmp_path / "out"))


def test_optimizers_and_schedules_of_transformers_take_the_place_of_timms():
    args = script.ImageRunArguments("out", optim="adamw_torch", warmup_steps=5, use_cpu=True)
    assert (args.opt, args.sched) == (None, None)
    args = script.ImageRunArguments("out", use_cpu=True)
    assert (args.opt, args.sched) == ("sgd", "cosine")


@pytest.mark.parametrize(("size", "crop_pct"), [(96, 0.95), (32, 1.0)])
def test_a_saved_model_tells_how_it_was_evaluated(three, tmp_path, size, crop_pct):
    """timm reads its images so: as timm's ResNet was made for, and whole where they were padded in training."""
    run(three, tmp_path, "--model", "timm/test_resnet", "--image_size", str(size), "--max_steps", "1")
    config = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert timm.create_model("test_resnet").pretrained_cfg["crop_pct"] == 0.95
    assert config["crop_pct"] == crop_pct
    reads = timm.data.resolve_data_config(pretrained_cfg=config)
    assert reads["input_size"] == [3, size, size]
    transform = timm.data.create_transform(**{**reads, "input_size": tuple(reads["input_size"])})
    pictures = [transform(Image.open(path)) for path in sorted((three / "test").glob("*/*.png"))]
    model = timm.create_model("test_resnet", num_classes=3, checkpoint_path=str(tmp_path / "model.safetensors"))
    with torch.no_grad():
        np.testing.assert_allclose(model.eval()(torch.stack(pictures)), logits_of(tmp_path)[0], atol=1e-4)
