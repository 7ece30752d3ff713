"""What the scripts do with do_train, do_eval and do_predict, and that a head which nobody trained is never scored."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

import hf_logitmix.vision.train as image_script
from helpers.image_runs import argv as image_argv
from helpers.models import tiny_vit
from hf_logitmix import MixTrainer
from hf_logitmix.glue import run as run_glue
from hf_logitmix.vision import cam
from hf_logitmix.vision.models import create_model

SENTENCES = [f"{'no ' * (n % 3)}{('good', 'bad', 'fine', 'odd')[n % 4]} film" for n in range(11)]
NAMES = {0: "negative", 1: "positive"}


@pytest.fixture(scope="module")
def trained(start, tmp_path_factory) -> list[str]:
    """Arguments of the script for a model that has a head, with a test set beside train and dev."""
    folder = tmp_path_factory.mktemp("trained")
    tiny = start[start.index("--model_name_or_path") + 1]
    lines = [f"{number}\t{text}\n" for number, text in enumerate(SENTENCES)]
    (Path(start[1]) / "SST-2" / "test.tsv").write_text("".join(["index\tsentence\n", *lines]))
    classes = {"id2label": NAMES, "label2id": {name: number for number, name in NAMES.items()}}
    torch.manual_seed(3)
    BertForSequenceClassification(BertConfig.from_pretrained(tiny, initializer_range=0.5, **classes)).save_pretrained(
        folder
    )
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return with_value(start, "--model_name_or_path", folder)


def with_value(argv: list[str], name: str, value: object) -> list[str]:
    at = argv.index(name) + 1
    return [*argv[:at], str(value), *argv[at + 1 :]]


def written(folder: Path) -> dict[str, str]:
    """What a folder holds: name -> digest."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def record(folder: Path) -> dict:
    return json.loads((folder / "all_results.json").read_text())


TRAIN, DEV, TEST = "trains", "evaluates", "predicts"
DONE = {
    "": (TRAIN, DEV),
    "--do_train": (TRAIN, DEV),
    "--do_train --do_eval": (TRAIN, DEV),
    "--do_train --do_predict": (TRAIN, DEV, TEST),
    "--do_train --no_do_eval": (TRAIN,),
    "--no_do_eval": (TRAIN,),
    "--do_train True --do_eval False --do_predict True": (TRAIN, TEST),
    "--no_do_train": (DEV,),
    "--no_do_train --do_predict": (DEV, TEST),
    "--do_train False --do_eval": (DEV,),
    "--do_eval": (DEV,),
    "--do_predict": (TEST,),
    "--do-predict": (TEST,),
    "--no_do_eval --do_predict": (TEST,),
    "--do_eval --do_predict": (DEV, TEST),
    "--do_predict False": (TRAIN, DEV),
}


@pytest.mark.parametrize("flags", DONE)
def test_what_is_asked_for_is_done_and_nothing_else(trained, tmp_path, monkeypatch, flags):
    done = DONE[flags]
    train, was_called = MixTrainer.train, []
    monkeypatch.setattr(MixTrainer, "train", lambda *args, **kwargs: was_called.append(1) or train(*args, **kwargs))
    output = tmp_path / "out"
    argv = [*with_value(trained, "--max_steps", 1), "--method", "mixup", "--save_strategy", "no"]
    assert run_glue.main([*argv, "--output_dir", str(output), *flags.split()]) == 0
    found, files = record(output), set(written(output))
    assert len(was_called) == (TRAIN in done) == ("model.safetensors" in files) == ("README.md" in files)
    assert (found["n_train"] > 0) == (TRAIN in done)
    assert found["measured_on"] == ({"validation": 20} if DEV in done else {})
    assert ("eval_logits.npz" in files) == (DEV in done)
    assert ("submission/SST-2.tsv" in files) == (TEST in done)
    assert found.get("predicted_on", {}) == ({"test": 11} if TEST in done else {})


def test_prediction_alone_is_that_of_the_model_and_claims_no_training(trained, tmp_path, capsys):
    """Against a plain forward, sentence by sentence; the model's own folder stays as it is."""
    model_folder = Path(trained[trained.index("--model_name_or_path") + 1])
    before = written(model_folder)
    argv = [*trained, "--method", "mixup", "--label_noise", "0.3", "--train_file", "train.tsv", "--do_predict"]
    assert run_glue.main([*argv, "--output_dir", str(tmp_path)]) == 0
    assert written(model_folder) == before
    assert set(written(tmp_path)) == {"all_results.json", "submission/SST-2.tsv"}
    model, tokenizer = (
        auto.from_pretrained(model_folder) for auto in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    with torch.no_grad():
        expected = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in SENTENCES]
    assert len(set(expected)) == 2
    lines = (tmp_path / "submission" / "SST-2.tsv").read_text().splitlines()[1:]
    assert [int(line.split("\t")[1]) for line in lines] == expected
    found = record(tmp_path)
    assert {name for name in found if "train" in name or "method" in name or "noise" in name} == {"n_train"}
    assert (found["n_train"], found["data"], found["selected_on"]) == (0, "GLUE, local files", None)
    assert set(found["settings"]) == {"max_seq_length"}
    assert "predicted: 11 examples of test" in capsys.readouterr().out


def test_evaluation_alone_is_that_of_the_model(trained, tmp_path):
    model_folder = Path(trained[trained.index("--model_name_or_path") + 1])
    assert run_glue.main([*trained, "--do_eval", "--output_dir", str(tmp_path)]) == 0
    model, tokenizer = (
        auto.from_pretrained(model_folder) for auto in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    dev = (Path(trained[1]) / "SST-2" / "dev.tsv").read_text().splitlines()[1:]
    with torch.no_grad():
        expected = [model(**tokenizer(row.split("\t")[0], return_tensors="pt")).logits[0].numpy() for row in dev]
    np.testing.assert_allclose(np.load(tmp_path / "eval_logits.npz")["logits"], expected, atol=1e-5)


NOTHING_TO_DO = [
    ("--no_do_train --no_do_eval", "nothing is asked for"),
    ("--do_eval --push_to_hub", "push_to_hub pushes what was trained.*leave it out"),
    ("--no_do_train --resume_from_checkpoint last", "'last' goes on with training.*--do_train"),
]


@pytest.mark.parametrize(("flags", "says"), NOTHING_TO_DO)
def test_what_only_training_has_is_refused_without_it(trained, three, tmp_path, flags, says):
    for script, argv in (
        (run_glue, [*trained, "--output_dir", str(tmp_path / "out")]),
        (image_script, image_argv(three, tmp_path / "out")),
    ):
        with pytest.raises(ValueError, match=says):
            script.main([*argv, *flags.split()])
    assert list(tmp_path.iterdir()) == []


def test_evaluating_during_training_is_not_turned_on_against_the_word(trained, tmp_path):
    """TrainingArguments would evaluate after all."""
    with pytest.raises(ValueError, match="eval_strategy='epoch' evaluates, and do_eval is off"):
        run_glue.main([*trained, "--do_predict", "--eval_strategy", "epoch", "--output_dir", str(tmp_path / "out")])


def test_a_folder_with_a_run_is_kept_and_no_training_is_offered(trained, tmp_path):
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "trainer_state.json").write_text("{}")
    (tmp_path / "all_results.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a run already: pass another --output_dir"):
        run_glue.main([*trained, "--do_predict", "--output_dir", str(tmp_path)])
    assert (tmp_path / "all_results.json").read_text() == "{}"


# ---- images -------------------------------------------------------------------------------------------------------

IMAGES_DONE = {"--do_train": (TRAIN, DEV), "--no_do_eval": (TRAIN,), "--do_eval": (DEV,), "--no_do_train": (DEV,)}


@pytest.mark.parametrize("flags", IMAGES_DONE)
def test_the_image_script_does_the_same(three, tmp_path, flags):
    done = IMAGES_DONE[flags]
    tiny_vit().save_pretrained(tmp_path / "vit")
    argv = image_argv(three, tmp_path / "out", "--model", str(tmp_path / "vit"), "--opt", "adamw", "--max_steps", "1")
    assert image_script.main([*argv, *flags.split()]) == 0
    found = record(tmp_path / "out")
    assert ((tmp_path / "out" / "model.safetensors").exists(), "method_name" in found) == (TRAIN in done,) * 2
    assert found["measured_on"] == ({"test": 12} if DEV in done else {})


def test_images_have_nothing_to_predict_for(three, tmp_path):
    with pytest.raises(ValueError, match=r"do_predict is for data without labels.*pass --do_eval"):
        image_script.main(image_argv(three, tmp_path / "out", "--do_predict"))


# ---- heads that nobody trained --------------------------------------------------------------------------------------


def damaged(source: Path, folder: Path, change) -> Path:
    """A copy of a saved model with other tensors in its file."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def without(*names: str):
    def change(tensors):
        for name in names:
            del tensors[name]

    return change


def cut_rows(tensors):
    """A head of one class less than the configuration tells."""
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][:-1].clone()


BOTH = ("classifier.weight", "classifier.bias")
RANDOM = {
    "no head": (without(*BOTH), BOTH),
    "no bias": (without("classifier.bias"), ["classifier.bias"]),
    "fewer rows": (cut_rows, BOTH),
    "no pooler": (without("bert.pooler.dense.weight"), ["bert.pooler.dense.weight"]),
}


@pytest.mark.parametrize("what", RANDOM)
@pytest.mark.parametrize("flags", ["--do_eval", "--do_predict", "--no_do_train --ignore_mismatched_sizes"])
def test_a_head_that_nobody_trained_is_not_scored(trained, tmp_path, monkeypatch, what, flags):
    change, names = RANDOM[what]
    monkeypatch.setattr(MixTrainer, "predict", lambda *_, **__: pytest.fail("it was scored"))
    model = damaged(Path(trained[trained.index("--model_name_or_path") + 1]), tmp_path / "model", change)
    argv = [*with_value(trained, "--model_name_or_path", model), "--output_dir", str(tmp_path / "out"), *flags.split()]
    with pytest.raises(ValueError, match=r"model_name_or_path=.*would be random: .*train it first\.$") as error:
        run_glue.main(argv)
    assert [name for name in names if name not in str(error.value)] == []
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_head_may_be_trained_and_not_scored(start, tmp_path):
    with pytest.raises(ValueError, match=r"lacks classifier\.bias, classifier\.weight"):
        run_glue.main([*start, "--do_eval", "--output_dir", str(tmp_path / "out")])
    argv = [*with_value(start, "--max_steps", 1), "--save_strategy", "no"]
    assert run_glue.main([*argv, "--output_dir", str(tmp_path / "out")]) == 0


IMAGES_RANDOM = {"no head": (without(*BOTH), BOTH), "fewer rows": (cut_rows, BOTH)}


@pytest.mark.parametrize("what", IMAGES_RANDOM)
def test_images_are_not_scored_by_a_head_that_nobody_trained(three, tmp_path, monkeypatch, what):
    change, names = IMAGES_RANDOM[what]
    tiny_vit().save_pretrained(tmp_path / "whole")
    model = damaged(tmp_path / "whole", tmp_path / "vit", change)
    monkeypatch.setattr(image_script.ImageRunTrainer, "predict", lambda *_, **__: pytest.fail("it was scored"))
    argv = image_argv(three, tmp_path / "out", "--model", str(model), "--opt", "adamw", "--max_steps", "1")
    for flag in ("--do_eval", "--no_do_train"):
        with pytest.raises(ValueError, match=r"model=.*would be random: .*train it first\.$") as error:
            image_script.main([*argv, flag])
        assert [name for name in names if name not in str(error.value)] == []
    with pytest.raises(ValueError, match=r"run .*vit lacks classifier"):
        cam.main([str(model), "--dataset", str(three), "--output", str(tmp_path / "cam.png")])
    assert image_script.main([*argv, "--no_do_eval"]) == 0


def test_a_timm_model_that_lacks_its_head_is_not_scored(three, tmp_path):
    create_model("timm/small_resnet8", 3, image_size=16).save_pretrained(tmp_path / "whole")
    head = [name for name in load_file(tmp_path / "whole" / "model.safetensors") if name.startswith("fc.")]
    assert len(head) == 2
    assert image_script.main(image_argv(three, tmp_path / "a", "--do_eval", "--model", str(tmp_path / "whole"))) == 0
    bare = damaged(tmp_path / "whole", tmp_path / "bare", without(*head))
    with pytest.raises(ValueError, match=r"lacks .*fc\.bias, .*fc\.weight, or"):
        image_script.main(image_argv(three, tmp_path / "b", "--do_eval", "--model", str(bare)))
