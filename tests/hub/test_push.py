"""Pushes through the real huggingface_hub to a Hub on loopback: what it is sent, under every way of pushing."""

import io
import json
import pickletools
import zipfile

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertModel, Trainer

from helpers.data import examples
from helpers.image_runs import argv as image_argv
from helpers.image_runs import write_pictures
from helpers.loopback_hub import USER
from helpers.models import tiny_bert, tiny_vit
from helpers.training import arguments
from hf_logitmix import MixTrainer, MixTrainerMixin
from hf_logitmix.glue import run as run_glue
from hf_logitmix.glue.demo import train_tokenizer
from hf_logitmix.vision import train as image_script
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.trainer import ImageMixTrainer

TOKEN = "hf_aTokenThatNobodyElseMaySee0123456"
HOME = "home-of-someone"  # a folder above all that is written here
STRATEGIES = ["end", "every_save", "checkpoint", "all_checkpoints"]


def is_pickle(content: bytes) -> bool:
    if zipfile.is_zipfile(io.BytesIO(content)):
        return any(name.endswith(".pkl") for name in zipfile.ZipFile(io.BytesIO(content)).namelist())  # torch.save
    try:
        return content[:1] == b"\x80" and any(True for _ in pickletools.genops(content))
    except ValueError:
        return False


def downloaded(files, folder, under=""):
    """A folder with the files of a repository, or of a folder of it."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        if name.startswith(under) and "/" not in name.removeprefix(under):
            (folder / name.removeprefix(under)).write_bytes(content)
    return folder


def assert_clean(hub):
    """Of all that was ever sent, committed or not."""
    assert hub.received
    for name, content in hub.received:
        assert TOKEN.encode() not in content, name
        assert HOME.encode() not in content, name
        assert not is_pickle(content), name


def pushing(folder, **options):
    """Arguments that push after each of two steps, from a folder that holds files of other kinds."""
    output = folder / HOME / "out"
    for name in (
        "runs/Jan1_machine/events.out.tfevents.1.machine",
        "eval_logits.npz",
        "submission/SST-2.tsv",
        "own.txt",
    ):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text(f"{HOME} {TOKEN}")
    saving = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    pushing = {"push_to_hub": True, "hub_token": TOKEN, "hub_always_push": True}
    return arguments(output, **{**saving, **pushing, "max_steps": 2, "load_best_model_at_end": True, **options})


def based_on_a_folder(folder, model):
    """The model as it is loaded from a local folder."""
    model.save_pretrained(folder / HOME / "base")
    return type(model).from_pretrained(folder / HOME / "base")


class Guest(MixTrainerMixin, Trainer):
    """A Trainer of somebody else's."""


def pictures(count):
    pixels = np.random.default_rng(0).integers(0, 255, (count, 16, 16, 3), dtype=np.uint8)
    return ImageSet([transformers.image_utils.PIL.Image.fromarray(image) for image in pixels], np.arange(count) % 3)


def trainer_of(kind, folder, **options):
    args = pushing(folder, **options)
    if kind is ImageMixTrainer:
        still = {"mean": [0.5] * 3, "std": [0.5] * 3, "image_size": 16}
        model = based_on_a_folder(folder, tiny_vit())
        return kind(model, args, train_dataset=pictures(24), eval_dataset=pictures(6), method="cutmix", **still)
    model = based_on_a_folder(folder, tiny_bert())
    return kind(model=model, args=args, train_dataset=examples(24), eval_dataset=examples(6))


WEIGHTS = {"config.json", "model.safetensors", "hf_logitmix.json"}


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [*((MixTrainer, strategy) for strategy in STRATEGIES), (Guest, "checkpoint"), (ImageMixTrainer, "checkpoint")],
)
def test_nothing_but_the_model_leaves_the_machine(hub, tmp_path, kind, strategy):
    trainer = trainer_of(kind, tmp_path, hub_strategy=strategy)
    trainer.train()
    trainer._finish_current_push()
    folders = {"checkpoint": ["last-checkpoint"], "all_checkpoints": [f"checkpoint-{n}" for n in (1, 2)]}
    state = {f"{folder}/{name}" for folder in folders.get(strategy, []) for name in {*WEIGHTS, "trainer_state.json"}}
    files = hub.repos[f"{USER}/out"]
    assert set(files) - {".gitattributes"} == (state | WEIGHTS if strategy != "end" else set())
    ways = {
        "every_save": trainer.save_model,
        "all_checkpoints": lambda: trainer.push_to_hub(blocking=False).result(),
    }
    ways.get(strategy, trainer.push_to_hub)()
    assert set(files) - {".gitattributes"} == state | WEIGHTS | {"README.md"}
    assert_clean(hub)
    pushed = type(trainer.model).from_pretrained(downloaded(files, tmp_path / "copy")).state_dict()
    assert all(torch.equal(pushed[name], value) for name, value in trainer.model.state_dict().items())
    left = {path.name for path in (tmp_path / HOME / "out").iterdir()}
    assert {"runs", "eval_logits.npz", "submission", "own.txt"} < left
    assert not [name for name in left if name.startswith("_")]
    assert not list((tmp_path / HOME).rglob("training_args.bin"))


def test_every_checkpoint_arrives_although_it_is_deleted_and_the_next_one_written_meanwhile(hub, tmp_path):
    trainer = trainer_of(
        MixTrainer, tmp_path, hub_strategy="checkpoint", save_total_limit=1, load_best_model_at_end=False
    )
    trainer.train()
    steps = [f"Training in progress, step {n}" for n in (1, 2)]
    assert [text for _, text in hub.commits] == [text for step in steps for text in (step, f"{step}, checkpoint")]


def test_a_pushed_checkpoint_goes_on_and_says_what_it_lacks(hub, tmp_path, caplog):
    trainer = trainer_of(MixTrainer, tmp_path, hub_strategy="checkpoint")
    trainer.train()
    lacks = [message for message in caplog.messages if message.startswith("checkpoints are pushed")]
    assert len(lacks) == 1
    assert "optimizer.pt, rng_state.pth, scheduler.pt" in lacks[0]
    copy = downloaded(hub.repos[f"{USER}/out"], tmp_path / "checkpoint-2", "last-checkpoint/")
    assert json.loads((copy / "trainer_state.json").read_text())["best_model_checkpoint"].startswith("checkpoint-")
    again = MixTrainer(model=tiny_bert(seed=1), args=arguments(tmp_path / "again"), train_dataset=examples(24))
    again.train(resume_from_checkpoint=str(copy))
    assert again.state.global_step == 3
    assert "checkpoint-2 holds no optimizer" in caplog.text


def test_a_file_that_an_older_push_left_is_deleted(hub, tmp_path, caplog):
    """And what Trainer left in last-checkpoint, which would be beside weights that it does not belong to."""
    stock = trainer_of(Trainer, tmp_path / "before", hub_strategy="checkpoint", save_steps=2, eval_steps=2)
    stock.train()
    stock._finish_current_push()
    files = hub.repos[f"{USER}/out"]
    assert TOKEN.encode() in files["training_args.bin"]
    assert {"last-checkpoint/training_args.bin", "last-checkpoint/optimizer.pt"} < set(files)
    trainer_of(MixTrainer, tmp_path, hub_strategy="checkpoint").train()
    assert not [name for name in files if "training_args" in name or "optimizer" in name]
    assert "revoke that token" in caplog.text


def test_a_broken_connection_is_told_and_loses_nothing(hub, tmp_path, caplog):
    trainer = trainer_of(MixTrainer, tmp_path, hub_strategy="checkpoint")
    hub.breaks = True
    trainer.train()
    failed = [message for message in caplog.messages if "was not pushed" in message]
    assert [any(f"step {n}" in message for message in failed) for n in (1, 2)] == [True] * 2
    with pytest.raises(Exception, match="disconnected"):
        trainer.push_to_hub()
    output = tmp_path / HOME / "out"
    assert {"checkpoint-1", "checkpoint-2", *WEIGHTS} < {path.name for path in output.iterdir()}
    assert not list(output.glob("_*"))
    assert set(hub.repos[f"{USER}/out"]) == {".gitattributes"}
    hub.breaks = False
    trainer.push_to_hub()
    assert hub.repos[f"{USER}/out"]["model.safetensors"] == (output / "model.safetensors").read_bytes()


def test_an_adapter_and_its_card_do_not_tell_the_folder_of_the_base_model(hub, tmp_path):
    base = based_on_a_folder(tmp_path, tiny_bert())
    model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))
    trainer = MixTrainer(model=model, args=pushing(tmp_path), train_dataset=examples(24), eval_dataset=examples(6))
    trainer.train()
    trainer.push_to_hub()
    assert_clean(hub)
    files = hub.repos[f"{USER}/out"]
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} < set(files)
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "base"
    card = huggingface_hub.ModelCard(files["README.md"].decode())
    assert card.data.base_model is None
    assert card.data.library_name == "peft"
    assert str(tmp_path) in (tmp_path / HOME / "out" / "adapter_config.json").read_text()  # where it is needed


def test_the_card_of_a_model_whose_folder_is_gone_names_no_folder(hub, tmp_path):
    trainer = trainer_of(MixTrainer, tmp_path, hub_strategy="end")
    trainer.train()
    (tmp_path / HOME / "base").rename(tmp_path / HOME / "moved")
    trainer.push_to_hub()
    assert_clean(hub)
    text = hub.repos[f"{USER}/out"]["README.md"].decode()
    assert "Fine-tuned from `base` on a dataset of 24 examples" in text
    assert "base_model" not in text


def test_paths_in_files_of_the_users_become_names_and_other_texts_stay(hub, tmp_path):
    """A tokenizer's files are not touched, whatever its words look like."""
    trainer = trainer_of(MixTrainer, tmp_path, hub_strategy="end")
    output = tmp_path / HOME / "out"
    words = {"/": 0, "/tmp": 1, str(tmp_path): 2}
    kept = {"sep_token": "/tmp", "url": "https://huggingface.co/tmp", "labels": ["/m/01g317", "n/a", "/"]}
    (output / "tokenizer_config.json").write_text(
        json.dumps({**kept, "vocab_file": str(tmp_path / HOME / "a b" / "v")})
    )
    (output / "vocab.json").write_text(json.dumps({word: at for word, at in words.items() if HOME not in word}))
    trainer.push_to_hub()
    files = hub.repos[f"{USER}/out"]
    assert json.loads(files["tokenizer_config.json"]) == {**kept, "vocab_file": "v"}
    assert files["vocab.json"] == (output / "vocab.json").read_bytes()


@pytest.mark.parametrize(("text", "says"), [(json.dumps({"key": TOKEN}), "holds the token"), ("{", "is no JSON")])
def test_a_file_with_the_token_or_of_unknown_content_is_refused(hub, tmp_path, text, says):
    trainer = trainer_of(MixTrainer, tmp_path, hub_strategy="end")
    (tmp_path / HOME / "out" / "my_config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"my_config\.json .*{says}"):
        trainer.push_to_hub()
    assert not hub.received
    assert not list((tmp_path / HOME / "out").glob("_*"))


PUSH = ["--push_to_hub", "True", "--hub_token", TOKEN, "--save_strategy", "epoch", "--hub_strategy", "checkpoint"]


def glue_argv(folder, output):
    lines = [f"{'no ' * (n % 3)}{('good', 'bad', 'fine', 'odd')[n % 4]} film {n}\t{n % 2}\n" for n in range(24)]
    (folder / "glue" / "SST-2").mkdir(parents=True)
    for name, rows in {"train": lines, "dev": lines[:20]}.items():
        (folder / "glue" / "SST-2" / f"{name}.tsv").write_text("".join(["sentence\tlabel\n", *rows]))
    (folder / "glue" / "SST-2" / "test.tsv").write_text("index\tsentence\n0\tgood film\n1\tbad film\n")
    tokenizer = train_tokenizer(lines)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)).save_pretrained(
        folder / "tiny"
    )
    tokenizer.save_pretrained(folder / "tiny")
    data = ["--glue_dir", str(folder / "glue"), "--model_name_or_path", str(folder / "tiny"), "--task_name", "sst2"]
    short = [
        "--num_train_epochs",
        "1",
        "--per_device_train_batch_size",
        "8",
        "--disable_tqdm",
        "True",
        "--use_cpu",
        "True",
    ]
    return [*data, *short, "--output_dir", str(output), "--do_train", "--do_predict"]


@pytest.mark.parametrize("script", ["text", "images"])
def test_the_scripts_push_the_model_its_card_and_its_results(hub, tmp_path, script):
    folder = tmp_path / HOME
    if script == "text":
        assert run_glue.main([*glue_argv(folder, folder / "run"), *PUSH]) == 0
    else:
        data = write_pictures(folder / "three", 3, 8, 4, 16)
        assert image_script.main([*image_argv(data, folder / "run"), *PUSH]) == 0
    assert_clean(hub)
    files = hub.repos[f"{USER}/run"]
    text = {"tokenizer.json", "tokenizer_config.json"} if script == "text" else set()
    root = {name for name in files if "/" not in name} - {".gitattributes"}
    assert root == WEIGHTS | text | {"README.md", "all_results.json", "reliability.png"}
    assert {name.split("/")[0] for name in files if "/" in name} == {"last-checkpoint"}
    assert files["README.md"] == (folder / "run" / "README.md").read_bytes()
    assert (folder / "run" / "eval_logits.npz").exists()


@pytest.mark.slow
def test_a_script_whose_push_fails_ends_in_one_sentence_with_everything_written(hub, tmp_path):
    folder = tmp_path / HOME
    hub.breaks = True
    with pytest.raises(OSError, match=r"push_to_hub failed .*nothing is lost, the run is complete in .*run"):
        run_glue.main([*glue_argv(folder, folder / "run"), *PUSH])
    assert {"all_results.json", "README.md", *WEIGHTS} < {path.name for path in (folder / "run").iterdir()}
