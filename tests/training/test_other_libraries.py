"""What MixTrainer says of trainers, models and batches of libraries with losses of their own."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import DataCollatorWithPadding, Trainer, default_data_collator

from helpers.data import examples
from helpers.models import tiny_bert
from helpers.training import arguments
from hf_logitmix import MixTrainer, MixTrainerMixin

TRAINERS = {
    "sentence_transformers.cross_encoder.CrossEncoderTrainer": r"cross_encoder\.model.*MixTrainer",
    "sentence_transformers.SentenceTransformerTrainer": r"embeddings.*CrossEncoder\(\.\.\.\)\.model",
    "trl.RewardTrainer": r"chosen.*rejected.*AutoModelForSequenceClassification",
    "trl.SFTTrainer": "one label an example.*without MixTrainer",
    "setfit.Trainer": "scikit-learn.*AutoModelForSequenceClassification",
}


def stand_in(path: str, base: type) -> type:
    """A class that looks as if it came from a library, which need not be installed."""
    module, name = path.rsplit(".", 1)
    return type(name, (base,), {"__module__": module})


def real_one(path: str) -> type:
    module, name = path.rsplit(".", 1)
    reason = f"{module.partition('.')[0]} is not installed (pip install hf_logitmix[integrations])"
    return getattr(pytest.importorskip(module, reason=reason), name)


@pytest.mark.parametrize("path", TRAINERS)
@pytest.mark.parametrize("is_real", [False, True], ids=["stand-in", "real"])
def test_trainers_with_losses_of_their_own_are_refused_where_the_class_is_defined(path, is_real):
    theirs = real_one(path) if is_real else stand_in(path, Trainer)
    own = type("Own", (theirs,), {})  # a subclass in the user's module
    library, name = path.split(".")[0], path.split(".")[-1]
    for bases in ((MixTrainerMixin, theirs), (MixTrainerMixin, own)):
        with pytest.raises(TypeError, match=f"{name} of {library} .*{TRAINERS[path]}"):
            type("Mixed", bases, {})


MODELS = {
    "sentence_transformers.CrossEncoder": r"pass its `\.model`",
    "sentence_transformers.SentenceTransformer": "embeddings",
    "setfit.SetFitModel": "scikit-learn",
}


@pytest.mark.parametrize("path", MODELS)
@pytest.mark.parametrize("given", ["model", "model_init"])
def test_models_without_class_logits_are_refused(tmp_path, path, given):
    model = stand_in(path, nn.Linear)(2, 2)
    options = {"model": model} if given == "model" else {"model_init": lambda: model}
    with pytest.raises(TypeError, match=f"{path.split('.')[-1]} of {path.split('.')[0]} .*{MODELS[path]}"):
        MixTrainer(args=arguments(tmp_path), train_dataset=examples(4), **options)


@pytest.mark.parametrize("path", MODELS)
def test_their_real_models_are_refused(tmp_path, path):
    cls = real_one(path)
    with pytest.raises(TypeError, match=MODELS[path]):
        MixTrainer(cls.__new__(cls), arguments(tmp_path), train_dataset=examples(4))


def test_a_collator_of_pairs_is_refused(tmp_path):
    collator = stand_in("trl.trainer.reward_trainer.DataCollatorForPreference", DataCollatorWithPadding)
    with pytest.raises(TypeError, match=r"DataCollatorForPreference of trl .* one label an example"):
        MixTrainer(tiny_bert(), arguments(tmp_path), collator.__new__(collator), train_dataset=examples(4))


IDS = [[5, 6, 7], [8, 9, 10]]
WITHOUT_LABELS = {
    "preferences": ({"input_ids_chosen": IDS, "input_ids_rejected": IDS}, "pairs of a chosen.*RewardTrainer"),
    "preferences as texts": ({"chosen": ["a", "b"], "rejected": ["c", "d"]}, "pairs of a chosen.*RewardTrainer"),
    "texts apart": ({"sentence_0_input_ids": IDS, "sentence_1_input_ids": IDS}, r"tokenizer\(first, second\)"),
    "another name": ({"input_ids": IDS, "stars": [0, 1]}, "name the column of the classes `labels`"),
}


@pytest.mark.parametrize("name", WITHOUT_LABELS)
@pytest.mark.parametrize("form", ["rows", "dataset"])
def test_datasets_without_labels_are_refused_with_what_they_are(tmp_path, name, form):
    columns, advice = WITHOUT_LABELS[name]
    data = Dataset.from_dict(columns)
    data = data if form == "dataset" else list(data)
    with pytest.raises(
        ValueError, match=rf"train_dataset has no column `labels`, only {', '.join(columns)}: .*{advice}"
    ):
        MixTrainer(tiny_bert(), arguments(tmp_path), train_dataset=data)


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (["input_ids_chosen", "input_ids_rejected"], "RewardTrainer"),
        (
            ["sentence_0_input_ids", "sentence_0_attention_mask", "sentence_1_input_ids", "label"],
            "tokenizer.first, second",
        ),
        (["input_ids", "label"], "rename `label`"),
        (["input_ids", "attention_mask"], "name the column of the classes `labels`"),
    ],
)
def test_batches_without_labels_are_refused_with_what_they_are(tmp_path, names, advice):
    """As a data collator of the user's makes them, so that nothing is known before the first batch."""
    trainer = MixTrainer(tiny_bert(), arguments(tmp_path), train_dataset=examples(4), data_collator=lambda rows: rows)
    batch = {name: torch.ones(2, 3, dtype=torch.long) for name in names}
    with pytest.raises(ValueError, match=f"no `labels`, only {', '.join(names)}: .*{advice}"):
        trainer.compute_loss(trainer.model.train(), batch)


def test_texts_that_were_not_tokenized_are_refused(tmp_path):
    data = Dataset.from_dict({"review": ["good", "bad"], "label": [0, 1]})
    with pytest.raises(
        ValueError, match=r"review, label and none that BertForSequenceClassification reads.*tokenizer\("
    ):
        MixTrainer(tiny_bert(), arguments(tmp_path), train_dataset=data)


def test_what_a_transform_or_a_collator_makes_is_not_judged_by_its_columns(tmp_path):
    """Texts are tokenized, and labels named, where the batch is made: both train."""
    texts = Dataset.from_dict({"text": ["a", "b", "c", "d"], "stars": [0, 1, 2, 0]})
    rows = [{"input_ids": [5, 6 + n], "labels": n % 3} for n in range(4)]

    def tokenized(batch):
        return {"input_ids": [[5, 6, 7]] * len(batch["text"]), "labels": batch["stars"]}

    def collate(features):
        return default_data_collator([rows[0] for _ in features])

    args = arguments(tmp_path, max_steps=1, remove_unused_columns=False)
    for data, collator in ((texts.with_transform(tokenized), None), (texts, collate)):
        trainer = MixTrainer(tiny_bert(), args, collator, train_dataset=data)
        trainer.train()
        assert trainer.state.global_step == 1
