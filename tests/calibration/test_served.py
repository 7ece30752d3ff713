"""A calibration that travels with a model: stored in its config, applied by pipelines, folded into its weights."""

import copy
import json
import logging

import numpy as np
import pytest
import timm
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    TextClassificationPipeline,
    ViTImageProcessor,
    pipeline,
)

from helpers.data import Lazy, batch_of, examples
from helpers.models import tiny_bert, tiny_vit
from helpers.pages import save_checkpoint
from helpers.tiny_models import tiny_model
from helpers.training import arguments
from hf_logitmix import (
    CalibratedImageClassificationPipeline,
    CalibratedTextClassificationPipeline,
    MixTrainer,
    calibrate,
    calibrated_logits,
    calibrated_pipeline,
    fold_temperature,
)
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.models import create_model
from hf_logitmix.vision.trainer import ImageMixTrainer
from hf_logitmix.vision.wrap import BareClassifier

TEMPERATURE = {"method": "temperature", "temperature": 1.6, "fitted_on": "dev", "n": 90}
VECTOR = {"method": "vector", "weight": [0.5, 2.0, 1.5], "bias": [0.25, -1.0, 0.75], "fitted_on": "dev", "n": 90}
WORDS = ["a good soup", "the plot was not bad at all", "this phone seems slow"]


def softmax(logits):
    raised = np.exp(np.asarray(logits, dtype=float) - np.max(logits, -1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def nll(logits, labels, temperature):
    return -np.log(softmax(logits / temperature)[np.arange(len(labels)), labels]).mean()


def noisy(count=300, seed=0, scale=4.0):
    """Logits that are too sure of labels which are right more often than not."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 3))
    labels = np.array([rng.choice(3, p=p) for p in softmax(2 * logits)])
    return scale * logits, labels


# ---- the record ------------------------------------------------------------------------------------------------------


def test_a_temperature_is_kept_through_saving_and_loading(tmp_path):
    model, (logits, labels) = tiny_bert(), noisy()
    found = calibrate(model, logits, labels, fitted_on="dev")
    own = nll(logits, labels, found)
    assert own < min(nll(logits, labels, found * factor) for factor in (0.98, 1.02, 1 / found))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    stored = {"method": "temperature", "temperature": float(found), "fitted_on": "dev", "n": 300}
    assert json.loads((tmp_path / "config.json").read_text())["calibration"] == stored
    assert loaded.config.calibration == stored
    np.testing.assert_allclose(calibrated_logits(loaded, logits), logits / found)


def test_a_vector_scaling_is_kept_too(tmp_path):
    model, (logits, labels) = tiny_bert(), noisy()
    found = calibrate(model, logits, labels, "vector")
    model.save_pretrained(tmp_path)
    stored = AutoModelForSequenceClassification.from_pretrained(tmp_path).config
    assert stored.calibration["weight"] == found.weight.tolist()
    np.testing.assert_allclose(calibrated_logits(stored, logits), logits * found.weight + found.bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_stay_tensors_of_at_least_single_precision(dtype):
    config, logits = tiny_bert().config, torch.tensor([[1.0, 2.0, -4.0]], dtype=dtype)
    assert calibrated_logits(config, logits) is logits
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    for record, numbers in ((TEMPERATURE, [1 / 1.6, 2 / 1.6, -4 / 1.6]), (VECTOR, [0.75, 3.0, -5.25])):
        config.calibration = record
        found = calibrated_logits(config, logits)
        assert found.dtype == wanted
        torch.testing.assert_close(found, torch.tensor([numbers], dtype=wanted))
        assert calibrated_logits(config, logits.float().numpy()).tolist() == pytest.approx(np.array([numbers]))


@pytest.mark.parametrize(
    "record",
    [
        *({**TEMPERATURE, "temperature": t} for t in (0, -1.0, float("nan"), "1.6", [1.6], None, True)),
        *({**VECTOR, "bias": bias} for bias in ([0.0, 1.0], 1.0, ["a", 0, 0])),
        *({"method": "isotonic"}, {}, "temperature", 1.6),
    ],
    ids=str,
)
def test_a_record_of_another_kind_is_refused(record):
    config = tiny_bert().config
    config.calibration = record
    with pytest.raises(ValueError, match=r"config\.calibration=.* fit it anew"):
        calibrated_logits(config, torch.zeros(1, 3))


def test_a_calibration_of_another_head_is_refused():
    config = tiny_bert(num_labels=5).config
    config.calibration = VECTOR
    with pytest.raises(ValueError, match="is for 3 classes: it belongs to another head"):
        calibrated_logits(config, torch.zeros(1, 5))


def test_what_has_no_best_temperature_is_refused_and_changes_nothing():
    model, (logits, labels) = tiny_bert(), noisy()
    right = logits.argmax(1)
    with pytest.raises(ValueError, match=r"every prediction is right .* method='ts_mix'"):
        calibrate(model, logits, right)
    with pytest.raises(ValueError, match="no higher logits than other classes"):
        calibrate(model, -logits, labels)
    with pytest.raises(ValueError, match="method='platt' is unknown: pass one of temperature, ts_mix, vector"):
        calibrate(model, logits, labels, "platt")
    assert not hasattr(model.config, "calibration")
    assert 0 < calibrate(model, logits, right, "ts_mix") < 1
    assert model.config.calibration["method"] == "temperature"


@pytest.mark.parametrize(
    "options",
    [{"num_labels": 1}, {"problem_type": "regression"}, {"problem_type": "multi_label_classification"}],
    ids=str,
)
def test_other_outputs_are_refused(options):
    with pytest.raises(ValueError, match=r"the model is for (regression|multi label).*one label an example"):
        calibrate(tiny_bert(**options), *noisy())


# ---- pipelines -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    """A model with a tokenizer, and its logits of some words by plain transformers."""
    folder = tmp_path_factory.mktemp("text")
    model = AutoModelForSequenceClassification.from_pretrained(save_checkpoint(folder, WORDS, num_labels=3)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in WORDS]
    return folder, np.stack(logits)


def scores_of(found):
    """[N, K] of what a pipeline gives with ``top_k=None``."""
    return np.array([[{one["label"]: one["score"] for one in row}[f"LABEL_{k}"] for k in range(3)] for row in found])


@pytest.mark.parametrize("record", [TEMPERATURE, VECTOR], ids=["temperature", "vector"])
def test_a_text_pipeline_gives_the_scaled_probabilities(text_folder, tmp_path, record):
    folder, logits = text_folder
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.config.calibration = record
    model.save_pretrained(tmp_path)
    served = logits / 1.6 if record is TEMPERATURE else logits * record["weight"] + record["bias"]
    ways = {
        "by name": calibrated_pipeline(str(tmp_path), tokenizer=str(folder)),
        "by object": calibrated_pipeline(model, tokenizer=AutoTokenizer.from_pretrained(folder)),
        "by transformers": pipeline(
            "text-classification",
            str(tmp_path),
            tokenizer=str(folder),
            pipeline_class=CalibratedTextClassificationPipeline,
        ),
    }
    for name, classify in ways.items():
        np.testing.assert_allclose(scores_of(classify(WORDS, top_k=None)), softmax(served), rtol=1e-4, err_msg=name)
        best = classify(WORDS[0])[0]
        assert (best["label"], best["score"]) == (
            f"LABEL_{served[0].argmax()}",
            pytest.approx(softmax(served)[0].max()),
        )
    raw = scores_of(ways["by name"](WORDS, top_k=None, function_to_apply="none"))
    np.testing.assert_allclose(raw, served, rtol=1e-4)
    plain = scores_of(pipeline("text-classification", str(tmp_path), tokenizer=str(folder))(WORDS, top_k=None))
    np.testing.assert_allclose(plain, softmax(logits), rtol=1e-4)  # which is what a calibration is needed for


def test_a_pipeline_without_a_calibration_is_the_plain_one(text_folder):
    folder, logits = text_folder
    classify = calibrated_pipeline(str(folder))
    assert isinstance(classify, TextClassificationPipeline)
    assert classify(WORDS) == pipeline("text-classification", str(folder))(WORDS)
    np.testing.assert_allclose(scores_of(classify(WORDS, top_k=None)), softmax(logits), rtol=1e-4)


@pytest.mark.parametrize("way", ["name", "object", "transformers"])
def test_an_image_pipeline_gives_the_scaled_probabilities(tmp_path, way):
    model, processor = tiny_vit().eval(), ViTImageProcessor(size={"height": 16, "width": 16})
    model.config.calibration = TEMPERATURE
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))
    with torch.no_grad():
        logits = model(**processor(image, return_tensors="pt")).logits.numpy()
    if way == "transformers":
        classify = pipeline("image-classification", str(tmp_path), pipeline_class=CalibratedImageClassificationPipeline)
    else:
        classify = calibrated_pipeline(str(tmp_path) if way == "name" else model, image_processor=processor)
    np.testing.assert_allclose(scores_of([classify(image)]), softmax(logits / 1.6), rtol=1e-4)


def test_a_model_of_no_known_task_is_refused(tmp_path):
    nn_model = tiny_bert().bert
    with pytest.raises(ValueError, match="model is BertModel: pass task, one of text-classification, image-class"):
        calibrated_pipeline(nn_model)
    with pytest.raises(ValueError, match="task='fill-mask': pass one of"):
        calibrated_pipeline(nn_model, "fill-mask")


# ---- the Trainer -----------------------------------------------------------------------------------------------------


def noisy_examples(model, count, seed):
    """Examples whose labels follow the model at half of its sureness."""
    data, rng = examples(count, seed=seed), np.random.default_rng(seed)
    with torch.no_grad():
        logits = model.eval()(**batch_of(data)).logits.numpy()
    for row, p in zip(data, softmax(logits / 2), strict=True):
        row["labels"] = int(rng.choice(3, p=p))
    return data, logits


def trainer_of(folder, model, method="logitmix", train=None, **options):
    return MixTrainer(
        model=model, args=arguments(folder), method=method, train_dataset=train or examples(16), **options
    )


def test_the_trainer_fits_on_plain_predictions_and_keeps_it(tmp_path):
    model = tiny_bert()
    data, logits = noisy_examples(model, 200, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def never(*args):
        raise AssertionError("a metric was asked for")

    trainer = trainer_of(tmp_path, model, compute_metrics=never, preprocess_logits_for_metrics=never)
    found = trainer.calibrate(data, name="dev, second half")
    labels = np.array([row["labels"] for row in data])
    assert nll(logits, labels, found) < min(nll(logits, labels, found * factor) for factor in (0.98, 1.02))
    assert 1.4 < found < 3
    stored = {"method": "temperature", "temperature": float(found), "fitted_on": "dev, second half", "n": 200}
    assert model.config.calibration == stored
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert trainer.compute_metrics is trainer.preprocess_logits_for_metrics is never
    trainer.save_model(str(tmp_path / "saved"))
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").config.calibration == stored


def test_soft_labels_and_the_name_of_a_dataset(tmp_path):
    """Rows of probabilities have the temperature that makes the model's own probabilities these."""
    model = tiny_bert(problem_type="single_label_classification")
    data, logits = noisy_examples(model, 60, seed=2)
    rows = [{**row, "labels": torch.tensor(p)} for row, p in zip(data, softmax(logits / 1.7), strict=True)]
    train = [{**row, "labels": torch.tensor([1.0, 0, 0])} for row in examples(8)]
    trainer = trainer_of(tmp_path, model, train=train)
    assert trainer.calibrate(rows) == pytest.approx(1.7, rel=1e-4)
    assert model.config.calibration["fitted_on"] == "a dataset of 60 examples"
    table = Dataset.from_list([{k: v.tolist() for k, v in row.items()} for row in rows])
    table.info.builder_name, table.info.dataset_name, table.info.config_name = "glue", "glue", "mrpc"
    table._split = "validation"
    assert trainer.calibrate(table, "vector").weight == pytest.approx(np.full(3, 1 / 1.7), rel=1e-2)
    assert model.config.calibration["fitted_on"] == "glue mrpc, validation"


def test_the_training_set_is_refused(tmp_path):
    model, data = tiny_bert(), examples(12)
    with pytest.raises(ValueError, match=r"dataset is the training set.*held out of it"):
        trainer_of(tmp_path, model, train=data).calibrate(data)
    table = Dataset.from_list([{k: torch.as_tensor(v).tolist() for k, v in row.items()} for row in data])
    same = Dataset(table._data, table.info, table.split, fingerprint=table._fingerprint)
    with pytest.raises(ValueError, match="dataset is the training set"):
        trainer_of(tmp_path, model, train=table).calibrate(same)


@pytest.mark.parametrize("wrap", [lambda images: images, lambda images: ImageSet(images.images, images.labels)])
def test_training_images_are_refused_whatever_they_were_wrapped_in(tmp_path, wrap):
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3), dtype=np.uint8)
    images = ImageSet([Image.fromarray(image) for image in pixels], np.arange(12) % 3)
    still = {"mean": [0.5] * 3, "std": [0.5] * 3, "image_size": 16}
    trainer = ImageMixTrainer(tiny_vit(), arguments(tmp_path), train_dataset=images, **still)
    with pytest.raises(ValueError, match="dataset is the training set"):
        trainer.calibrate(wrap(images))
    other = [Image.fromarray(255 - image) for image in pixels]
    classes = trainer.predict(ImageSet(other, np.zeros(12, dtype=int))).predictions.argmax(1)
    trainer.calibrate(ImageSet(other, classes), "ts_mix")
    assert trainer.model.config.calibration["n"] == 12


def test_data_without_labels_and_other_faults_are_refused(tmp_path):
    trainer = trainer_of(tmp_path, tiny_bert())
    bare = [{k: v for k, v in row.items() if k != "labels"} for row in examples(6)]
    with pytest.raises(ValueError, match="dataset has no labels"):
        trainer.calibrate(Lazy(bare))
    with pytest.raises(ValueError, match="method='beta' is unknown"):
        trainer.calibrate(examples(6, seed=3), "beta")
    trainer.args.prediction_loss_only = True
    with pytest.raises(ValueError, match="keeps the logits back"):
        trainer.calibrate(examples(6, seed=3))
    regression = [{**row, "labels": 0.5} for row in examples(8)]
    with pytest.raises(ValueError, match="for regression"):
        trainer_of(tmp_path, tiny_bert(num_labels=1), "mixup", train=regression).calibrate(regression[:4])


def test_training_takes_an_older_calibration_out(tmp_path, caplog):
    model = tiny_bert()
    model.config.calibration = TEMPERATURE
    trainer = trainer_of(tmp_path, model)
    trainer.train()
    assert not hasattr(model.config, "calibration")
    assert [
        message for message in caplog.messages if "config.calibration was fitted to the model as it came" in message
    ]


def test_what_is_saved_without_a_config_is_said(tmp_path, caplog):
    data = noisy_examples(tiny_bert(), 100, seed=1)[0]
    adapted = get_peft_model(tiny_bert(), LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))
    trainer = trainer_of(tmp_path, adapted)
    with caplog.at_level(logging.WARNING):
        trainer.calibrate(data)
    assert "saved as an adapter, without the config" in caplog.text
    merged = adapted.merge_and_unload()
    assert merged.config.calibration["n"] == 100
    assert calibrated_logits(adapted, torch.ones(1, 3))[0, 0] < 1


# ---- folding ---------------------------------------------------------------------------------------------------------


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(
        **{"vocab_size": 60, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4, "num_labels": 3},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "initializer_range": 0.3},
    )
    return GPT2ForSequenceClassification(config)


def timm_backed():
    torch.manual_seed(0)
    return create_model("timm/small_resnet8", 3, image_size=32)


def bare():
    torch.manual_seed(0)
    return BareClassifier(timm.create_model("small_resnet8", num_classes=3))


MODELS = {
    "bert": tiny_bert,
    "gpt2": gpt2,
    "vit": tiny_vit,
    "timm": timm_backed,
    "bare timm": bare,
    **{kind: lambda kind=kind: tiny_model(kind) for kind in ("bart", "roberta", "deberta-v2", "qwen3")},
}


def batch_for(model):
    if model.main_input_name == "pixel_values":
        side = 16 if hasattr(model, "vit") else 32
        return {"pixel_values": torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(1))}
    ids = torch.randint(5, 50, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    if model.config.model_type != "bart":
        ids[1, 5:], mask[1, 5:] = model.config.pad_token_id, 0
    else:
        ids[:, -1] = model.config.eos_token_id
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def logits_of(model):
    return model.eval()(**batch_for(model)).logits.double()


@pytest.mark.parametrize("name", MODELS)
def test_a_folded_model_gives_the_scaled_logits_by_itself(name):
    model = MODELS[name]().train()
    before = logits_of(model)
    model.train()
    model.config.calibration = TEMPERATURE
    assert fold_temperature(model) is model
    assert model.training
    assert not hasattr(model.config, "calibration")
    assert all(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(logits_of(model), before / 1.6, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="has no calibration: pass temperature"):
        fold_temperature(model)  # nothing is applied twice
    fold_temperature(model, 0.5)
    torch.testing.assert_close(logits_of(model), before / 0.8, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["bert", "vit", "timm"])
def test_a_vector_scaling_is_folded_too(name):
    model = MODELS[name]()
    before = logits_of(model)
    model.config.calibration = VECTOR
    fold_temperature(model)
    wanted = before * torch.tensor(VECTOR["weight"]).double() + torch.tensor(VECTOR["bias"]).double()
    torch.testing.assert_close(logits_of(model), wanted, rtol=1e-5, atol=1e-5)


def test_a_folded_model_is_calibrated_anew_and_its_pipelines_agree(text_folder, tmp_path):
    folder, logits = text_folder
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.config.calibration = TEMPERATURE
    fold_temperature(model).save_pretrained(tmp_path)
    assert "calibration" not in json.loads((tmp_path / "config.json").read_text())
    plain = pipeline("text-classification", str(tmp_path), tokenizer=str(folder))(WORDS, top_k=None)
    assert calibrated_pipeline(str(tmp_path), tokenizer=str(folder))(WORDS, top_k=None) == plain
    np.testing.assert_allclose(scores_of(plain), softmax(logits / 1.6), rtol=1e-4)
    data, raw = noisy_examples(model, 200, seed=4)
    labels = np.array([row["labels"] for row in data])
    trainer = trainer_of(tmp_path / "out", model)
    own = trainer.calibrate(data)
    fold_temperature(trainer.model)
    assert nll(raw, labels, own) < min(nll(raw, labels, own * factor) for factor in (0.98, 1.02))
    assert trainer.calibrate(data) == pytest.approx(1.0, abs=1e-4)


class TanhAfter(type(tiny_bert())):
    """Its logits are squeezed after the last layer."""

    def forward(self, **inputs):
        output = super().forward(**inputs)
        output.logits = torch.tanh(output.logits)
        return output


class Reversed(type(tiny_bert())):
    """Its last layer has the classes in another order than its logits."""

    def forward(self, **inputs):
        output = super().forward(**inputs)
        output.logits = output.logits.flip(-1)
        return output


class TwoHeads(type(tiny_bert())):
    """Its logits are the mean of two layers', as of a distilled DeiT."""

    def __init__(self, config):
        super().__init__(config)
        self.second = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, **inputs):
        output = super().forward(**inputs)
        hidden = self.bert(**{k: v for k, v in inputs.items() if k != "labels"}).pooler_output
        output.logits = (output.logits + self.second(hidden)) / 2
        return output


def tied():
    model = tiny_bert()
    model.second = nn.Linear(32, 3, bias=False)
    model.second.weight = model.classifier.weight
    return model


def quantised():
    model = tiny_bert()
    model.classifier.weight = nn.Parameter(torch.zeros(3, 32, dtype=torch.int8), requires_grad=False)
    return model


def adapted():
    return get_peft_model(tiny_bert(), LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))


REFUSED = {
    "a tanh after it": (lambda: TanhAfter(tiny_bert().config), "are not the output of its last linear layer"),
    "two heads": (lambda: TwoHeads(tiny_bert().config), "are not the output of its last linear layer"),
    "tied": (tied, "shares its weight with another one"),
    "quantised": (quantised, "holds no plain floats"),
    "an adapter": (adapted, "merge it first"),
    "a convolution": (
        lambda: BareClassifier(nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 3),
        "no linear layer with 3 outputs",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_head_whose_output_is_not_the_logits_is_refused_and_left_alone(name):
    make, says = REFUSED[name]
    model = make()
    model.config.calibration = TEMPERATURE
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=says):
        fold_temperature(model)
    assert model.config.calibration == TEMPERATURE
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_head_of_another_order_takes_a_temperature_and_no_vector():
    model = Reversed(tiny_bert().config)
    before = logits_of(model)
    model.config.calibration = VECTOR
    with pytest.raises(ValueError, match="are not the output"):
        fold_temperature(model)
    fold_temperature(model, 2.0)
    torch.testing.assert_close(logits_of(model), before / 2, rtol=1e-5, atol=1e-6)


def test_an_adapter_folds_once_it_is_merged():
    model = adapted().merge_and_unload()
    before = logits_of(model)
    torch.testing.assert_close(logits_of(fold_temperature(model, 1.6)), before / 1.6, rtol=1e-5, atol=1e-6)


def test_a_vector_needs_a_bias_and_a_temperature_a_number_above_0():
    model = gpt2()
    model.config.calibration = VECTOR
    with pytest.raises(ValueError, match="has no bias"):
        fold_temperature(model)
    for value in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="pass a number above 0"):
            fold_temperature(model, value)


def test_a_model_that_cannot_read_random_inputs_takes_ones_own():
    model = tiny_vit()
    model.config.num_channels = 5  # so that what is made up by its config does not fit
    with pytest.raises(ValueError, match=r"could not be tried on random inputs .* pass inputs"):
        fold_temperature(model, 2.0)
    before = logits_of(model)
    fold_temperature(model, 2.0, inputs={"pixel_values": torch.randn(2, 3, 16, 16)})
    torch.testing.assert_close(logits_of(model), before / 2, rtol=1e-5, atol=1e-6)


def test_a_head_that_is_close_to_zero_hides_nothing():
    """Where tanh is hardly bent."""
    model = TanhAfter(tiny_bert().config)
    with torch.no_grad():
        model.classifier.weight.mul_(1e-4)
    with pytest.raises(ValueError, match="are not the output"):
        fold_temperature(model, 1.6)


@pytest.mark.parametrize("name", ["bert", "timm"])
def test_an_exported_model_keeps_what_was_folded(name):
    model = MODELS[name]().eval()
    before = logits_of(model)
    fold_temperature(model, 1.6)
    batch = batch_for(model)
    exported = torch.export.export(model, (), batch)
    torch.testing.assert_close(exported.module()(**batch).logits.double(), before / 1.6, rtol=1e-4, atol=1e-5)


def test_a_model_in_onnx_keeps_what_was_folded(tmp_path):
    pytest.importorskip("onnxscript", reason="onnx, onnxscript and onnxruntime are not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnx, onnxscript and onnxruntime are not installed")
    model = tiny_vit().eval()
    before = logits_of(model)
    batch = batch_for(fold_temperature(model, 1.6))
    torch.onnx.export(model, (), str(tmp_path / "model.onnx"), kwargs=batch, dynamo=True, output_names=["logits"])
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    (found,) = session.run(["logits"], {"pixel_values": batch["pixel_values"].numpy()})
    np.testing.assert_allclose(found, before.numpy() / 1.6, rtol=1e-3, atol=1e-4)


def test_a_timm_backed_model_is_folded_in_its_file(tmp_path):
    model = timm_backed()
    before = logits_of(model)
    model.config.calibration = TEMPERATURE
    fold_temperature(model).save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(logits_of(loaded), before / 1.6, rtol=1e-5, atol=1e-6)
