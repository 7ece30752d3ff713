"""How a model was trained: the file beside its weights, what trackers get, and what is not gone on with."""

import copy
import importlib.metadata
import json
import pickle
import platform
import re
import shlex
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback, WandbCallback, integration_utils

from helpers.data import Lazy, examples, random_images
from helpers.models import tiny_bert, tiny_vit
from helpers.training import arguments
from hf_logitmix import METHODS, Method, MixTrainer, MixTrainingArguments, get_method
from hf_logitmix.criteria import CrossEntropy
from hf_logitmix.hub.provenance import git_record, method_record, public_command
from hf_logitmix.mixing import Linear
from hf_logitmix.objectives import Mixed
from hf_logitmix.pairing import Beta, RandomPairs
from hf_logitmix.training.checkpoints import incomplete_reason
from hf_logitmix.vision.trainer import ImageMixTrainer

SAVING = {"save_strategy": "steps", "save_steps": 1}
MIXUP = {
    "pairing": {
        "type": "RandomPairs",
        "lam": {"type": "Beta", "alpha": 0.4},
        "label_lam": None,
        "per_example": False,
        "fraction": 1.0,
        "prob": 1.0,
        "off_after": 1.0,
        "partners": "any",
    },
    "mixing": {"type": "Linear", "level": "embedding", "masks": "soft"},
    "objective": {"type": "Mixed"},
    "targets": {"type": "OneHot"},
}


def run(folder, method, data=None, resume=None, cls=TrainingArguments, **options):
    data = examples(24) if data is None else data
    args = arguments(folder, cls, **{**SAVING, **options})
    trainer = MixTrainer(model=tiny_bert(), args=args, method=method, train_dataset=data)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def told(folder):
    return json.loads((folder / "hf_logitmix.json").read_text())


def test_every_checkpoint_and_saved_model_tells_method_options_and_versions(tmp_path):
    run(tmp_path, "mixup").save_model(tmp_path / "saved")
    names = {name: importlib.metadata.version(name) for name in ("transformers", "accelerate")}
    folders = {"checkpoint-1": 1, "checkpoint-2": 2, "checkpoint-3": 3, "saved": 3}
    for folder, steps in folders.items():
        found = told(tmp_path / folder)
        assert (found["method"], found["options"], found["steps"]) == ("mixup", MIXUP, steps)
        assert "mixup: Beyond Empirical Risk Minimization" in found["source"]
        assert found["versions"].items() >= {**names, "python": platform.python_version()}.items()
        assert found["train_dataset"]["examples"] == 24


@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_its_name_through_its_options(name):
    """Replaced with parts of another method it is not that method any more; nor is a combination of one's own."""
    method = get_method(name, targets=torch.eye(3))
    assert method_record(method)["method"] == name
    own = Method(mixing=Linear(masks="soft"), objective=Mixed(), pairing=RandomPairs(lam=Beta(0.4)))
    assert (method_record(own)["method"], method_record(own)["options"]) == (None, MIXUP)


def test_options_from_every_place_are_told(tmp_path):
    options = {"method": "logitmix", "alpha": 1.5, "label_smoothing_factor": 0.2, "max_steps": 1}
    args = arguments(tmp_path, MixTrainingArguments, **SAVING, **options)
    MixTrainer(model=tiny_bert(), args=args, train_dataset=examples(24)).train()
    found = told(tmp_path / "checkpoint-1")
    assert found["method"] == "logitmix"
    assert found["options"]["pairing"]["lam"] == {"type": "Beta", "alpha": 1.5}
    assert found["options"]["objective"]["weights"] == [1.0, 1.0, 1.0]
    assert found["options"]["targets"] == {"type": "LabelSmoothing", "eps": 0.2}


def test_of_tensors_a_digest_is_told_and_of_a_teacher_no_path(tmp_path):
    teacher = tmp_path / "home-of-someone" / "teacher"
    tiny_bert(seed=1).save_pretrained(teacher)
    run(tmp_path / "out", get_method("distillation", teacher=teacher, targets=torch.eye(3)))
    text = (tmp_path / "out" / "checkpoint-1" / "hf_logitmix.json").read_text()
    assert str(tmp_path) not in text
    assert "home-of-someone" not in text
    options = json.loads(text)["options"]
    assert options["objective"]["teacher"] == "teacher"
    other = method_record(get_method("distillation", targets=torch.eye(3) + 0.1))["options"]
    assert options["targets"]["rows"].startswith("tensor [3, 3] ")
    assert options["targets"]["rows"] != other["targets"]["rows"]


def test_statistics_of_images_are_among_the_options(tmp_path):
    args = arguments(tmp_path, **SAVING, max_steps=1)
    still = {"mean": [0.5, 0.4, 0.3], "std": [0.2] * 3, "image_size": 16}
    ImageMixTrainer(tiny_vit(), args, method="puzzlemix", train_dataset=random_images(12), **still).train()
    mixing = told(tmp_path / "checkpoint-1")["options"]["mixing"]
    assert (mixing["type"], mixing["mean"], mixing["std"]) == ("PuzzleMix", [0.5, 0.4, 0.3], [0.2] * 3)


def test_the_file_is_there_before_the_checkpoint_is_complete(tmp_path):
    class Stopped(MixTrainer):
        def _save_rng_state(self, output_dir):
            raise KeyboardInterrupt

    args = arguments(tmp_path, **SAVING)
    with pytest.raises(KeyboardInterrupt):
        Stopped(model=tiny_bert(), args=args, train_dataset=examples(24)).train()
    assert incomplete_reason(tmp_path / "checkpoint-1")
    assert told(tmp_path / "checkpoint-1")["method"] == "logitmix"


def test_the_page_shows_the_file_as_it_is(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "hub.md").read_text()
    shown = json.loads(re.search(r"```json\n(.*?)```", page, re.DOTALL)[1])
    run(tmp_path, "mixup", max_steps=1)
    found = told(tmp_path / "checkpoint-1")
    assert list(found) == list(shown)
    assert {name: found[name] for name in ("method", "options", "source")} == {
        name: shown[name] for name in ("method", "options", "source")
    }
    assert {name: list(found[name]) for name in ("train_dataset", "versions")} == {
        name: list(shown[name]) for name in ("train_dataset", "versions")
    }


# ---- trackers --------------------------------------------------------------------------------------------------------


class Copies(TrainerCallback):
    """Copies and pickles the arguments at the end of training, as a tracker that uploads a model does."""

    def on_train_end(self, args, state, control, **kwargs):
        assert copy.deepcopy(args).to_dict() == pickle.loads(pickle.dumps(args)).to_dict() == args.to_dict()


class Writer:
    """Keeps what TensorBoard's would write."""

    def __init__(self):
        self.texts = {}

    def add_text(self, name, text):
        self.texts[name] = text

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


def wandb_stub():
    wandb, config_util = ModuleType("wandb"), ModuleType("wandb.sdk.lib.config_util")
    wandb.__spec__ = ModuleSpec("wandb", None)
    wandb.run, wandb.config = None, {}
    wandb.init = lambda **kwargs: setattr(wandb, "run", SimpleNamespace(_label=lambda **kwargs: None, summary={}))
    wandb.log = lambda *args, **kwargs: None
    config_util.ConfigError = ValueError
    return {"wandb": wandb, "wandb.sdk": wandb, "wandb.sdk.lib": wandb, "wandb.sdk.lib.config_util": config_util}


@pytest.mark.parametrize("cls", [TrainingArguments, MixTrainingArguments])
def test_trackers_get_the_method_and_its_options(tmp_path, monkeypatch, cls):
    """Through the callbacks of transformers, for a method that the arguments know nothing of."""
    for name, module in wandb_stub().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    writer, args = Writer(), arguments(tmp_path, cls, **SAVING)
    method = get_method("logitmix", alpha=1.5, weights=(1, 2, 3))
    callbacks = [TensorBoardCallback(writer), WandbCallback(), Copies()]
    MixTrainer(model=tiny_bert(), args=args, method=method, train_dataset=examples(24), callbacks=callbacks).train()
    expected = {"method": "logitmix", "alpha": 1.5, "weights": [1, 2, 3], "similarity": "mse", "mixing": "Linear"}
    for config in (sys.modules["wandb"].config, json.loads(writer.texts["args"])):
        assert {name: config[name] for name in expected} == expected
        assert config["learning_rate"] == args.learning_rate
    assert args.to_dict().get("method") is None


def test_the_names_for_trackers_are_those_of_the_arguments_or_new():
    """So that no option takes the place of an argument of training."""
    names = {name for method in METHODS.values() for name in method.options}
    assert not names & {field.name for field in TrainingArguments.__dataclass_fields__.values()}


# ---- going on --------------------------------------------------------------------------------------------------------


OTHERS = [
    (
        get_method("logitmix"),
        [
            (get_method("mixup"), "method was logitmix and is mixup; alpha was 3.0 and is 0.4; objective was LogitMix"),
            (get_method("logitmix", alpha=1.0), r"\(alpha was 3.0 and is 1.0\)"),
            (get_method("logitmix", level="hidden:1"), r"\(level was embedding and is hidden:1\)"),
            (
                get_method("logitmix", weights=(1, 1, 0.5)),
                r"\(weights was \[1.0, 1.0, 1.0\] and is \[1.0, 1.0, 0.5\]\)",
            ),
        ],
    ),
    (
        get_method("vanilla", targets=torch.eye(3)),
        [
            (get_method("vanilla", targets=torch.eye(3).roll(1, 0)), r"\(rows was tensor \[3, 3\]"),
            (
                get_method("label_smoothing"),
                "method was vanilla and is label_smoothing; targets was TargetMatrix and is Label",
            ),
        ],
    ),
    (get_method("mcel"), [(get_method("mcel", eps=0.3), "eps was 0.2 and is 0.3")]),
]


@pytest.mark.parametrize(("method", "others"), OTHERS)
def test_another_method_and_other_options_are_not_gone_on_with(tmp_path, method, others):
    run(tmp_path, method, max_steps=1)
    model = tiny_bert(seed=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for other, says in others:
        trainer = MixTrainer(model=model, args=arguments(tmp_path), method=other, train_dataset=examples(24))
        with pytest.raises(ValueError, match=f"checkpoint-1 was trained in another way.*{says}"):
            trainer.train(resume_from_checkpoint=True)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert run(tmp_path, method, resume=True, max_steps=2).state.global_step == 2


def test_a_changed_argument_is_seen_as_a_changed_option(tmp_path):
    run(tmp_path, None, cls=MixTrainingArguments, alpha=1.0, max_steps=1)
    trainer = MixTrainer(model=tiny_bert(), args=arguments(tmp_path, MixTrainingArguments), train_dataset=examples(24))
    with pytest.raises(ValueError, match=r"alpha was 1\.0 and is 3\.0"):
        trainer.train(resume_from_checkpoint=True)
    trainer.args.alpha = 1.0
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 3


def test_another_name_of_the_same_method_is_gone_on_with(tmp_path):
    run(tmp_path, "logitmix", max_steps=1)
    own = Method(Linear(), METHODS["logitmix"].objective, pairing=RandomPairs(lam=Beta(3.0)))
    for method in ("logitmix_m", own):
        assert run(tmp_path, method, resume=str(tmp_path / "checkpoint-1")).state.global_step == 3


def as_columns(rows, kind=lambda value: value.tolist()):
    return {name: [kind(row[name]) if torch.is_tensor(row[name]) else row[name] for row in rows] for name in rows[0]}


def relabelled(rows):
    return [{**row, "labels": (row["labels"] + 1) % 3} for row in rows]


OTHER_DATA = [
    (lambda rows: rows[:20], "had 24 examples and has 20"),
    (relabelled, "had other examples or labels"),
    (lambda rows: examples(24, seed=7), "had other examples or labels"),
    (lambda rows: rows[::-1], "had other examples or labels"),
]


@pytest.mark.parametrize("kind", [list, lambda rows: Dataset.from_dict(as_columns(rows))], ids=["list", "dataset"])
def test_other_data_are_not_gone_on_with(tmp_path, kind):
    run(tmp_path, "mixup", kind(examples(24)), max_steps=1)
    for change, says in OTHER_DATA:
        with pytest.raises(ValueError, match=f"checkpoint-1 was trained in another way.*{says}"):
            run(tmp_path, "mixup", kind(change(examples(24))), resume=True)


def test_the_same_data_are_gone_on_with_however_they_were_made(tmp_path):
    """The fingerprint of `datasets` may differ: it is a random one where a function cannot be hashed."""
    data = Dataset.from_dict(as_columns(examples(24)))
    run(tmp_path, "mixup", data, max_steps=1)
    made = data.map(dict, new_fingerprint="another").with_format("torch")
    assert run(tmp_path, "mixup", made, resume=True).state.global_step == 3


def test_of_data_that_would_have_to_be_computed_the_number_is_compared(tmp_path):
    run(tmp_path, "mixup", Lazy(examples(24)), max_steps=1)
    assert told(tmp_path / "checkpoint-1")["train_dataset"] == {"examples": 24, "digest": None}
    with pytest.raises(ValueError, match="had 24 examples and has 23"):
        run(tmp_path, "mixup", Lazy(examples(23)), resume=True)
    run(tmp_path, "mixup", Lazy(examples(24, seed=7)), resume=True)


def test_rows_that_are_no_dicts_are_counted_alone(tmp_path):
    rows = [(row["input_ids"], row["labels"]) for row in examples(24)]
    args = arguments(tmp_path, **SAVING, max_steps=1)

    def collate(batch):
        return {"input_ids": torch.stack([ids for ids, _ in batch]), "labels": torch.tensor([y for _, y in batch])}

    MixTrainer(model=tiny_bert(), args=args, train_dataset=rows, data_collator=collate).train()
    assert told(tmp_path / "checkpoint-1")["train_dataset"] == {"examples": 24, "digest": None}


def test_a_checkpoint_that_does_not_tell_is_gone_on_with_after_one_line(tmp_path, caplog):
    Trainer(model=tiny_bert(), args=arguments(tmp_path, **SAVING, max_steps=1), train_dataset=examples(24)).train()
    assert run(tmp_path, "mixup", resume=True).state.global_step == 3
    assert [message for message in caplog.messages if "checkpoint-1 lacks hf_logitmix.json" in message]
    assert len([record for record in caplog.records if record.name == "hf_logitmix.hub.provenance"]) == 1


def test_another_criterion_is_not_gone_on_with(tmp_path):
    class Doubled(CrossEntropy):
        def __call__(self, logits, target):
            return 2 * super().__call__(logits, target)

    run(tmp_path, get_method("mixup", criterion=Doubled()), max_steps=1)
    with pytest.raises(ValueError, match=r"criterion was .*Doubled and is that of the labels"):
        run(tmp_path, "mixup", resume=str(tmp_path / "checkpoint-1"))


def test_a_command_line_is_recorded_without_paths_tokens_and_names_of_the_hub(tmp_path):
    (tmp_path / "there").mkdir()
    words = ["--model_name_or_path", str(tmp_path / "there"), "--output_dir=/home/me/out", "--hub_token", "hf_secret"]
    words += ["--hub-model-id=me/model", "--method", "mixup", "--weights", "1", "0.5", "--model_kwargs", "a" * 5000]
    shown = public_command("hf-logitmix glue", words)
    expected = "--model_name_or_path there --output_dir=out --method mixup --weights 1 0.5 --model_kwargs " + "a" * 5000
    assert shown == f"hf-logitmix glue {expected}"


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/home/alice/models/bert", "bert"),
        ('{"cache_dir": "/home/alice/hf", "a": 1}', '{"cache_dir": "hf", "a": 1}'),
        ("file:///home/alice/x", "x"),
        ("../../alice/new", "new"),
        ("~alice/new", "new"),
        ("~/secret/new", "new"),
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        ("runs/study/mrpc-1", "runs/study/mrpc-1"),
        ("https://huggingface.co/datasets/a/b", "https://huggingface.co/datasets/a/b"),
        ("hidden:2", "hidden:2"),
        ("1e-4", "1e-4"),
    ],
)
def test_a_path_inside_a_word_is_recorded_by_its_last_part(word, shown):
    assert public_command("p", ["--o", word]) == shlex.join(["p", "--o", shown])
    assert public_command("p", [f"--o={word}"]) == shlex.join(["p", f"--o={shown}"])
    assert public_command("p", ["--run_name", word, "--seed", "1"]) == "p --seed 1"


def test_the_commit_is_that_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_record() is None
    name = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    (tmp_path / "kept.txt").write_text("1")
    for words in (["init", "-q"], ["add", "."], [*name, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *words], check=True)
    commit = subprocess.run(["git", "log", "-1", "--format=%H"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "untracked.txt").touch()
    assert git_record() == {"commit": commit.strip(), "clean": True}
    (tmp_path / "kept.txt").write_text("2")
    assert git_record()["clean"] is False
    monkeypatch.setenv("PATH", "")
    assert git_record() is None
