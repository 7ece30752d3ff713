"""The commonest mistakes: each ends in one sentence that names the argument and the fix, before the first step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    DataCollatorWithPadding,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    default_data_collator,
)

import hf_logitmix.vision.train as train_images
from helpers.architectures import MODEL_TYPES, NEEDS_OTHER_PACKAGES
from helpers.data import Lazy, examples
from helpers.image_runs import argv as image_argv
from helpers.image_runs import write_pictures
from helpers.models import tiny_bert, tiny_vit
from helpers.tiny_models import tiny_model
from helpers.training import arguments, collate_pairs, weights
from hf_logitmix import Method, MixCollator, MixTrainer, MixTrainingArguments, get_method
from hf_logitmix.glue import run as run_glue
from hf_logitmix.glue.demo import train_tokenizer
from hf_logitmix.models import longest_input

IDS = [[5, 6, 7], [8, 9, 10], [5, 6, 8], [5, 7, 9]]
UNEQUAL = [[5, 6, 7], [8, 9], [5, 6, 8, 9], [5, 7, 9]]
CLASSES = [0, 1, 2, 1]
TOKENIZER = train_tokenizer(["a good soup", "the plot was not bad"])


def columns(labels=CLASSES, ids=IDS, name="label") -> Dataset:
    return Dataset.from_dict({"input_ids": ids, name: labels})


@contextmanager
def refused(kind: type[Exception] | tuple[type[Exception], ...], *words: str) -> Iterator[None]:
    """The block ends in one sentence with these words."""
    with pytest.raises(kind) as error:
        yield
    message = str(error.value)
    assert message.endswith(".")
    assert "\n" not in message
    for word in words:
        assert word in message, message


# ---- datasets ---------------------------------------------------------------------------------------------------

# What is passed as a dataset, and the words of the sentence.
NO_DATASET = {
    "a pandas frame": (lambda: pandas.DataFrame({"input_ids": IDS, "label": CLASSES}), ["DataFrame", "from_pandas"]),
    "a generator": (lambda: (row for row in examples(4)), ["generator", "list(...)", "IterableDataset"]),
    "a map": (lambda: map(dict, examples(4)), ["map", "list(...)"]),
    "a set": (lambda: {1, 2}, ["set", "list(...)"]),
    "a number": (lambda: 3, ["int", "list(...)"]),
    "a function": (lambda: lambda: examples(4), ["function", "IterableDataset"]),
    "a loader": (lambda: DataLoader(examples(4)), ["DataLoader", "its dataset"]),
    "a dict of columns": (lambda: {"input_ids": IDS, "labels": CLASSES}, ["input_ids, labels", "Dataset.from_dict"]),
    "a tokenizer's output": (lambda: TOKENIZER(["a", "b"]), ["BatchEncoding", "Dataset.from_dict"]),
    "a name": (lambda: "imdb", ["'imdb'", "load_dataset('imdb'"]),
    "rows that are texts": (lambda: ["a good soup"] * 4, ["rows of type str", "`input_ids` and `labels`"]),
    "rows that are pairs": (lambda: [([5, 6], 1)] * 4, ["rows of type tuple", "data_collator"]),
    "tensors": (lambda: TensorDataset(torch.tensor(IDS), torch.tensor(CLASSES)), ["rows of type tuple"]),
}


@pytest.mark.parametrize("what", NO_DATASET)
@pytest.mark.parametrize("argument", ["train_dataset", "eval_dataset"])
def test_what_is_no_dataset(tmp_path, what, argument):
    make, words = NO_DATASET[what]
    if argument == "eval_dataset" and what == "a dict of columns":
        words = ["eval_dataset input_ids", "rows of type list"]  # a dict of datasets is fine there
    elif argument == "eval_dataset" and what == "a name":
        pytest.skip("Trainer takes the name of a dataset there")
    with refused(TypeError, argument, *words):
        MixTrainer(tiny_bert(), arguments(tmp_path), **{argument: make()})


def test_all_splits_at_once(tmp_path):
    splits = DatasetDict(train=columns(), test=columns())
    with refused(TypeError, "train_dataset", "train, test", "data['train']"):
        MixTrainer(tiny_bert(), arguments(tmp_path), train_dataset=splits)
    MixTrainer(tiny_bert(), arguments(tmp_path), eval_dataset=splits)  # Trainer evaluates each


# ---- rows -------------------------------------------------------------------------------------------------------

NESTED = [[ids] for ids in IDS]
ROWS = {
    "names of classes": (["pos", "neg", "pos", "neg"], IDS, ["'pos' of example 0 is a text", "class_encode_column"]),
    "one name among numbers": ([0, 1, "2", 1], IDS, ["'2' of example 2 is a text", "int(row["]),
    "digits": (["0", "1", "0", "1"], IDS, ["'0' of example 0 is a text", "int(row["]),
    "negative digits": (["-1", "1", "0", "1"], IDS, ["'-1' of example 0 is a text"]),
    "an empty label": (["", "1", "0", "1"], IDS, ["'' of example 0 is a text"]),
    "None": ([0, None, 1, 2], IDS, ["example 1 has None", "leave it out"]),
    "None at the end": ([0, 1, 1, None], IDS, ["example 3 has None"]),
    "floating-point ids": ([0.0, 1.0, 2.0, 1.0], IDS, ["floating-point", "integer class ids", "num_labels=1"]),
    "a class too high": ([0, 1, 3, 1], IDS, ["label 3 of example 2 is outside 0..2", "num_labels"]),
    "classes from 1": ([1, 2, 3, 1], IDS, ["label 3", "outside 0..2"]),
    "NaN": ([0.0, float("nan"), 1.0, 1.0], IDS, ["label nan of example 1", "not a finite number"]),
    "lists of classes": ([[0, 2], [1], [2], [0, 1]], IDS, ["[0, 2] of example 0", "3 zeros and ones"]),
    "lists of names": ([["a", "b", "c"], ["a"], ["b"], ["c"]], IDS, ["'a'", "3 zeros and ones"]),
    "too long texts": (CLASSES, [[5] * 50, *IDS[1:]], ["example 0 has 50 tokens", "32 positions", "max_length=32"]),
    "one token too many": (CLASSES, [*IDS[:3], [5] * 33], ["example 3 has 33 tokens", "truncation=True"]),
    "another tokenizer": (CLASSES, [[5, 60, 7], *IDS[1:]], ["reach 60", "0 to 59", "resize_token_embeddings"]),
    "return_tensors": (CLASSES, NESTED, ["not one row of integers", "without return_tensors"]),
}


def trainer_on(tmp_path, form: str, labels, ids, model=None, **options) -> MixTrainer:
    """With a tokenizer, so that rows of unequal length are padded."""
    rows = [{"input_ids": row, "label": label} for row, label in zip(ids, labels, strict=True)]
    data = rows if form == "rows" else Dataset.from_dict({"input_ids": ids, "label": labels})
    model = tiny_bert() if model is None else model
    return MixTrainer(model, arguments(tmp_path), train_dataset=data, processing_class=TOKENIZER, **options)


@pytest.mark.parametrize("what", ROWS)
@pytest.mark.parametrize("form", ["rows", "dataset"])
def test_rows_that_cannot_be_trained_on(tmp_path, what, form):
    labels, ids, words = ROWS[what]
    if form == "dataset" and what == "one name among numbers":
        pytest.skip("pyarrow refuses such a column")
    with refused(ValueError, "train_dataset", *words):
        trainer_on(tmp_path, form, labels, ids)


def test_scores_that_are_texts(tmp_path):
    with refused(ValueError, "'4.5' of example 0 is a text", "float(row['label'])"):
        trainer_on(tmp_path, "rows", ["4.5", "3", "1", "0"], IDS, model=tiny_bert(1))


@pytest.mark.parametrize("form", ["rows", "dataset"])
def test_unpadded_rows_without_a_tokenizer(tmp_path, form):
    data = columns(ids=UNEQUAL)
    with refused(ValueError, "train_dataset", "2 to 4 tokens", "processing_class=tokenizer"):
        MixTrainer(tiny_bert(), arguments(tmp_path), train_dataset=data if form == "dataset" else list(data))
    inside = MixCollator(DataCollatorWithPadding(TOKENIZER))
    for fine in ({"processing_class": TOKENIZER}, {"data_collator": inside}):
        trainer = MixTrainer(tiny_bert(), arguments(tmp_path, max_steps=1), train_dataset=data, **fine)
        trainer.train()
        assert trainer.state.global_step == 1


def test_unpadded_rows_in_a_mix_collator_that_stacks(tmp_path):
    with pytest.raises(ValueError, match=r"2 to 4 tokens.*processing_class"):
        MixTrainer(
            tiny_bert(), arguments(tmp_path), MixCollator(default_data_collator), train_dataset=columns(ids=UNEQUAL)
        )


def test_rows_of_arrays_tensors_and_fixed_lengths_are_read_too(tmp_path):
    """The same sentence for what holds the ids: 40 tokens where 32 have positions."""
    row = [5] * 40
    fixed = Features({"input_ids": Dataset.from_dict({"x": [row]}).features["x"], "label": Value("int64")})
    forms = [
        [{"input_ids": np.asarray(row), "label": 0}],
        [{"input_ids": torch.tensor(row), "label": 0}],
        Dataset.from_dict({"input_ids": [row], "label": [0]}, features=fixed).with_format("torch"),
        columns([0, 1], [[5, 6], row]).select([1]),
        columns([0, 1] * 40, [[5, 6], row] * 40).shuffle(seed=0),
    ]
    for data in forms:
        with pytest.raises(ValueError, match="has 40 tokens and the model has 32 positions"):
            MixTrainer(tiny_bert(), arguments(tmp_path), train_dataset=data, processing_class=TOKENIZER)


def test_rows_that_a_selection_leaves_out_do_not_count(tmp_path):
    data = columns([0, 1, 2], [[5, 6], [5] * 40, [7, 8]])
    trainer = MixTrainer(
        tiny_bert(), arguments(tmp_path), train_dataset=data.select([0, 2]), processing_class=TOKENIZER
    )
    trainer.train()
    assert trainer.state.global_step == 3


def test_a_column_of_classes_is_not_read_as_texts(tmp_path):
    features = Features({"input_ids": columns().features["input_ids"], "label": ClassLabel(names=["a", "b", "c"])})
    data = Dataset.from_dict({"input_ids": IDS, "label": CLASSES}, features=features)
    MixTrainer(tiny_bert(), arguments(tmp_path, max_steps=1), train_dataset=data).train()


def test_rows_of_the_users_own_collator_are_the_users(tmp_path):
    """Class names, lists of classes of unequal length and texts, which a collator makes tensors of."""
    rows = [{"text": "a", "labels": [0, 2]}, {"text": "b", "labels": [1]}] * 2

    def collate(features):
        hot = [[float(k in feature["labels"]) for k in range(3)] for feature in features]
        return {"input_ids": torch.tensor(IDS[: len(features)]), "labels": torch.tensor(hot)}

    args = arguments(tmp_path, max_steps=1, remove_unused_columns=False)
    trainer = MixTrainer(tiny_bert(), args, collate, train_dataset=rows)
    trainer.train()
    assert trainer.model.config.problem_type == "multi_label_classification"


@pytest.mark.parametrize("form", ["rows", "dataset"])
def test_true_and_false_are_the_classes_1_and_0(tmp_path, form):
    """The same losses in training and evaluation as with integers, with either collator of transformers."""
    found = []
    for labels in ([True, False, True, True], [1, 0, 1, 1]):
        for tokenizer in (None, TOKENIZER):
            data = columns(labels) if form == "dataset" else list(columns(labels))
            trainer = MixTrainer(
                tiny_bert(2),
                arguments(tmp_path, max_steps=1, seed=3),
                method="vanilla",
                train_dataset=data,
                eval_dataset=data,
                processing_class=tokenizer,
            )
            trainer.train()
            found.append((trainer.state.log_history[0]["loss"], trainer.evaluate()["eval_loss"]))
    np.testing.assert_allclose(found, [found[0]] * 4, atol=1e-6)
    with torch.no_grad():
        logits = tiny_bert(2)(input_ids=torch.tensor(IDS)).logits
    assert found[0][0] == pytest.approx(F.cross_entropy(logits, torch.tensor([1, 0, 1, 1])).item(), abs=1e-5)


# ---- evaluation and prediction ------------------------------------------------------------------------------------

LATER = {
    "names of classes": (columns(["pos", "neg", "pos", "neg"]), ["is a text"]),
    "a class too high": (columns([0, 1, 2, 7]), ["label 7 of example 3"]),
    "no labels": (columns([-1] * 4), ["every label is -1", "remove_columns"]),
    "too long": (columns(ids=[[5] * 50] * 4), ["50 tokens", "32 positions"]),
    "unpadded": (columns(ids=UNEQUAL), ["2 to 4 tokens", "processing_class"]),
    "a frame": (pandas.DataFrame({"input_ids": IDS}), ["DataFrame", "from_pandas"]),
}


@pytest.mark.parametrize("what", LATER)
@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_what_cannot_be_evaluated_or_predicted(tmp_path, what, method):
    data, words = LATER[what]
    trainer = MixTrainer(tiny_bert(), arguments(tmp_path))
    with refused((TypeError, ValueError), "test_dataset" if method == "predict" else "eval_dataset", *words):
        getattr(trainer, method)(data)


def test_predictions_without_labels_are_made(tmp_path):
    trainer = MixTrainer(tiny_bert(), arguments(tmp_path))
    with torch.no_grad():
        logits = tiny_bert().eval()(input_ids=torch.tensor(IDS)).logits
    unlabelled = columns([-1] * 4)
    for data in (unlabelled.remove_columns("label"), Dataset.from_dict({"input_ids": IDS, "label": CLASSES})):
        np.testing.assert_allclose(trainer.predict(data).predictions, logits, atol=1e-5)


# ---- methods ------------------------------------------------------------------------------------------------------

METHODS = {
    "a dict": {"name": "mixup", "alpha": 0.2},
    "an empty dict": {},
    "a list": ["mixup"],
    "a class": Method,
    "a part": get_method("mixup").mixing,
    "a number": 1,
}


@pytest.mark.parametrize("what", METHODS)
def test_what_is_no_method(tmp_path, what):
    with refused(TypeError, "method=", "get_method('mixup', alpha=0.2)"):
        MixTrainer(tiny_bert(), arguments(tmp_path), method=METHODS[what])
    with pytest.raises(TypeError, match="method="):
        MixCollator(collate_pairs, METHODS[what])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": ""}, ["method=''", "logitmix"]),
        ({"method": "LogitMix"}, ["method='LogitMix'", "logitmix"]),
        ({"method": "mixup", "alpha": -1.0}, ["alpha must be", "got -1.0"]),
        ({"method": "mixup", "level": "hidden:9"}, ["level='hidden:9'", "hidden:3"]),
        ({"method": "mixup", "eps": 0.1}, ["eps is not an option", "alpha"]),
        ({"method": "logitmix", "weights": [1.0, 1.0]}, ["weights"]),
        ({"method": "logitmix", "weights": "1 one 1"}, ["weights='1 one 1'", "numbers"]),
        ({"method": "label_smoothing", "eps": 2.0}, ["eps=2.0"]),
        ({"method": "distillation"}, ["teacher"]),
        ({"method": "distillation", "teacher": "/no/such/teacher"}, ["teacher='/no/such/teacher' is not there"]),
        ({"method": "infogain", "label_smoothing_factor": 0.1}, ["label_smoothing_factor=0.1"]),
    ],
)
def test_options_that_are_not_possible(tmp_path, options, words):
    model = tiny_bert()
    with refused((TypeError, ValueError), *words):
        MixTrainer(model, arguments(tmp_path, MixTrainingArguments, **options), train_dataset=examples(8)).train()
    assert torch.equal(weights(model), weights(tiny_bert()))


# ---- models -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("bert-base-uncased", ["the name 'bert-base-uncased'", "from_pretrained('bert-base-uncased'"]),
        (type(tiny_bert()), ["the class BertForSequenceClassification", "from_pretrained"]),
        ([1], ["a list", "from_pretrained"]),
        (tiny_bert().config, ["a BertConfig", "from_pretrained"]),
        (tiny_bert().state_dict(), ["a OrderedDict", "from_pretrained"]),
        (torch.nn.Linear(2, 2), ["Linear has no config.num_labels"]),
        (tiny_bert().bert, ["BertModel has no classification head", "AutoModelForSequenceClassification"]),
    ],
)
def test_what_is_no_classifier(tmp_path, model, words):
    with refused((TypeError, ValueError), *words):
        MixTrainer(model=model, args=arguments(tmp_path), train_dataset=examples(4)).train()


def test_a_model_that_is_frozen_as_a_whole(tmp_path):
    model = tiny_bert().requires_grad_(False)
    trainer = MixTrainer(model, arguments(tmp_path), train_dataset=examples(4))
    with refused(ValueError, "requires_grad=True", "unfreeze"):
        trainer.train()
    model.classifier.requires_grad_(True)
    trainer.train()
    assert trainer.state.global_step == 3


def test_weights_in_float16_are_named(tmp_path, recwarn):
    """Weights that are trained: half ones under an adapter in float32 are fine."""
    trainer = MixTrainer(tiny_bert().half(), arguments(tmp_path, max_steps=1), train_dataset=examples(4))
    with pytest.warns(UserWarning, match=r"float16.*dtype=torch\.float32") as warned:
        trainer.train()
    count = sum(parameter.numel() for parameter in trainer.model.parameters())
    assert any(str(count) in str(warning.message) for warning in warned)
    recwarn.clear()
    for model in (tiny_bert(), tiny_bert().bfloat16()):
        MixTrainer(model, arguments(tmp_path, max_steps=1), train_dataset=examples(4)).train()
    assert not [warning for warning in recwarn if "float16" in str(warning.message)]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_in_float16_and_autocast_exclude_each_other(tmp_path, precision):
    trainer = MixTrainer(tiny_bert().half(), arguments(tmp_path, **{precision: True}), train_dataset=examples(4))
    with refused(ValueError, f"{precision}=True", "float16", "dtype=torch.float32"):
        trainer.train()
    assert trainer.state.global_step == 0
    if precision == "bf16":  # what it says to do is done
        trainer = MixTrainer(tiny_bert(), arguments(tmp_path, bf16=True, max_steps=1), train_dataset=examples(4))
        trainer.train()
        assert trainer.state.global_step == 1


# ---- positions ----------------------------------------------------------------------------------------------------

SIZES = {"vocab_size": 60, "num_labels": 3, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
DEEP = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
BART = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
BART |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
POSITIONS = {
    "bert": (lambda: tiny_bert(), 32, True),
    "roberta, whose positions start at 2": (
        lambda: RobertaForSequenceClassification(RobertaConfig(**SIZES, **DEEP, max_position_embeddings=20)),
        18,
        True,
    ),
    "bart, whose table has two rows more": (
        lambda: BartForSequenceClassification(BartConfig(**SIZES, **BART, max_position_embeddings=20)),
        20,
        True,
    ),
    "gpt2": (
        lambda: GPT2ForSequenceClassification(GPT2Config(**SIZES, n_embd=16, n_layer=1, n_head=2, n_positions=20)),
        20,
        True,
    ),
    "llama, whose positions are computed": (
        lambda: LlamaForSequenceClassification(LlamaConfig(**SIZES, **DEEP, max_position_embeddings=20)),
        20,
        False,
    ),
}


def takes(model, length: int) -> bool:
    ids = torch.full((2, length), 5)
    ids[:, -1] = 2
    try:
        with torch.no_grad():
            model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("kind", POSITIONS)
def test_the_longest_input_is_where_the_forward_ends(tmp_path, kind, caplog):
    make, positions, is_fixed = POSITIONS[kind]
    torch.manual_seed(0)
    model = make()
    assert longest_input(model) == (positions, is_fixed)
    assert takes(model, positions)
    assert takes(model, positions + 1) is not is_fixed
    data = [{"input_ids": [5] * (positions + 1), "labels": 0}] * 4
    if is_fixed:
        with pytest.raises(ValueError, match=f"{positions + 1} tokens and the model has {positions} positions"):
            MixTrainer(model, arguments(tmp_path), train_dataset=data)
        return
    MixTrainer(model, arguments(tmp_path), train_dataset=data)
    (line,) = [record.getMessage() for record in caplog.records if "positions" in record.getMessage()]
    assert f"{positions + 1} tokens and the model has {positions} positions" in line


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in MODEL_TYPES if kind not in NEEDS_OTHER_PACKAGES])
def test_every_architecture_takes_as_much_as_it_says(kind):
    """Where more is an error by our word, the forward takes that many tokens and not one more."""
    model = tiny_model(kind)
    positions, is_fixed = longest_input(model)
    if is_fixed:
        assert takes(model, positions)
        assert not takes(model, positions + 1)


def test_images_and_streams_have_no_tokens_to_count(tmp_path):
    assert longest_input(tiny_vit())[1] is False
    MixTrainer(tiny_bert(), arguments(tmp_path), train_dataset=columns().to_iterable_dataset())
    MixTrainer(tiny_bert(), arguments(tmp_path), train_dataset=Lazy(list(columns())))


# ---- the command line ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> list[str]:
    """Arguments of a run on a folder that has train.tsv and dev.tsv of SST-2, and a model of 32 positions."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "glue" / "SST-2").mkdir(parents=True)
    for name in ("train", "dev"):
        lines = [f"{'good soup ' * 40}\t1\n", "bad plot\t0\n"] * 4
        (folder / "glue" / "SST-2" / f"{name}.tsv").write_text("".join(["sentence\tlabel\n", *lines]))
    model = tiny_bert(2)
    model.resize_token_embeddings(len(TOKENIZER))
    model.save_pretrained(folder / "tiny")
    TOKENIZER.save_pretrained(folder / "tiny")
    data = ["--glue_dir", str(folder / "glue"), "--model_name_or_path", str(folder / "tiny"), "--task_name", "sst2"]
    return [*data, "--max_steps", "1", "--use_cpu", "--disable_tqdm", "True", "--method", "mixup"]


def with_value(argv: list[str], name: str, value: str) -> list[str]:
    at = argv.index(name) + 1
    return [*argv[:at], value, *argv[at + 1 :]]


MODELS = {
    "/no/such/folder": ["is not there", "bert-base-uncased"],
    "./nowhere": ["is not there"],
    "~/no/such/folder": ["is not there"],
    "runs/of/last/week": ["is not there"],
    "nobody/no-such-model": ["no folder, nor loaded from the Hub"],
    "no-such-model": ["no folder, nor loaded from the Hub"],
    "empty": ["holds no model"],
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_not_there(start, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with refused(ValueError, f"model_name_or_path='{name}'", *MODELS[name]):
        run_glue.main([*with_value(start, "--model_name_or_path", name), "--output_dir", "out"])
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


IMAGE_MODELS = {
    **{name: [*words[:1], *(["vit"] if "bert-base-uncased" in words else [])] for name, words in MODELS.items()},
    "text": ["holds no model"],
}


@pytest.mark.parametrize("flags", [[], ["--do_eval"]], ids=["train", "evaluate"])
@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_an_image_model_that_is_not_there(tmp_path, monkeypatch, name, flags):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    tiny_bert().save_pretrained("text")
    data = write_pictures(tmp_path / "three", 3, 2, 2, 16)
    with refused(ValueError, f"model='{name}'", *IMAGE_MODELS[name]):
        train_images.main([*image_argv(data, "out", "--model", name), *flags])
    assert not (tmp_path / "out").exists()


def test_one_row_without_a_label_in_a_test_set(tmp_path):
    """The others could be scored; which is meant is for the user to say."""
    trainer = MixTrainer(tiny_bert(), arguments(tmp_path))
    with refused(ValueError, "test_dataset", "label -1 of example 1", "outside 0..2"):
        trainer.predict(columns([0, -1, 1, 2]))


@pytest.mark.parametrize(
    ("split", "options", "fix"),
    [
        ("train", [], "--train_file names another"),
        ("dev", [], "--no_do_eval"),
        ("test", ["--do_train", "--do_predict"], "leave --do_predict out"),
    ],
)
def test_a_file_that_is_not_there(start, tmp_path, split, options, fix):
    (tmp_path / "glue" / "SST-2").mkdir(parents=True)
    for name in {"train", "dev", "test"} - {split}:
        (tmp_path / "glue" / "SST-2" / f"{name}.tsv").write_text("sentence\tlabel\na\t1\nb\t0\n")
    argv = [*with_value(start, "--glue_dir", str(tmp_path / "glue")), "--output_dir", str(tmp_path / "out"), *options]
    with refused(FileNotFoundError, f"SST-2/{split}.tsv is not there", "--glue_dir", f"; {fix}"):
        run_glue.main(argv)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [20, 32, 100])
def test_texts_are_cut_where_the_model_ends(start, tmp_path, caplog, asked):
    """A model of 32 positions, and texts of 82 tokens: cut at 32 at most, with a note, and recorded as cut."""
    assert run_glue.main([*start, "--output_dir", str(tmp_path / "out"), "--max_seq_length", str(asked)]) == 0
    record = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert record["settings"]["max_seq_length"] == min(asked, 32)
    notes = [record.getMessage() for record in caplog.records if "max_seq_length" in record.getMessage()]
    assert len(notes) == (asked > 32)
    assert all("max_seq_length=100" in note and "32 tokens" in note for note in notes)
