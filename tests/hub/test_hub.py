"""Model cards: what the text says, what its front matter parses to, and that nothing of the machine is in it."""

import math
import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from helpers.cards import checked_metadata
from hf_logitmix import __version__, get_method
from hf_logitmix.glue.run import GlueArguments, load_model
from hf_logitmix.glue.tasks import TASKS
from hf_logitmix.hub.card import model_card, public_name
from hf_logitmix.hub.publishing import publish

METRICS = {"accuracy": 0.8725, "f1": 0.91046, "ece": 0.0412345678, "nll_scaled": 0.33333333}
HUB_NAME = "google-bert/bert-base-uncased"


def card(base_model=HUB_NAME, dataset="nyu-mll/glue", method="logitmix", **more):
    return model_card(
        "bert-mrpc-logitmix",
        get_method(method),
        METRICS,
        base_model=base_model and str(base_model),
        dataset=dataset,
        dataset_config="mrpc",
        **more,
    )


def front_matter(text):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])


def test_front_matter_parses_and_carries_the_results(tmp_path):
    card().save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.base_model == HUB_NAME
    assert data.datasets == "nyu-mll/glue"
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-classification"
    assert "hf_logitmix" in data.tags
    assert data.model_name == "bert-mrpc-logitmix"
    found = {result.metric_type: result for result in data.eval_results}
    assert set(found) == set(METRICS)
    for name, value in METRICS.items():
        assert found[name].metric_value == pytest.approx(value, abs=5e-7)
        assert found[name].dataset_type == "nyu-mll/glue"
        assert found[name].dataset_config == "mrpc"
        assert found[name].dataset_split == "validation"
        assert found[name].task_type == "text-classification"


def test_the_hub_reads_the_same_results_from_the_raw_yaml():
    """Without the library: the layout of model-index as the Hub documents it."""
    (entry,) = front_matter(str(card()))["model-index"]
    (result,) = entry["results"]
    assert entry["name"] == "bert-mrpc-logitmix"
    assert result["task"]["type"] == "text-classification"
    assert result["dataset"]["config"] == "mrpc"
    assert {m["type"]: m["value"] for m in result["metrics"]} == pytest.approx(METRICS, abs=5e-7)


def test_text_holds_the_metrics_the_base_model_and_the_method():
    text = str(card(settings={"learning_rate": 2e-5, "seed": 42}))
    for name, value in METRICS.items():
        assert f"| {name} | {value:.4f} |" in text
    assert f"`{HUB_NAME}`" in text
    assert "nyu-mll/glue `mrpc`" in text
    assert __version__ in text
    assert "alpha=3.0" in text
    assert "Logit Mixing Training for More Reliable and Accurate Prediction" in text
    assert "* learning_rate: 2e-05\n* seed: 42\n" in text


@pytest.mark.parametrize("method", ["mixup", "label_smoothing"])
def test_the_source_is_that_of_the_method(method):
    title = {"mixup": "mixup: Beyond Empirical Risk Minimization", "label_smoothing": "Rethinking the Inception"}
    text = str(card(method=method))
    assert title[method] in text
    assert "Logit Mixing Training" not in text


def test_its_citations_are_bibtex():
    """Read back by counting braces: each entry closes where it ends, and each field has a value in braces."""
    text = str(card(method="logitmix_p")).split("## Citation")[1]
    entries = re.findall(r"```bibtex\n(.*?)\n```", text, flags=re.DOTALL)
    assert [entry.split("{")[1].split(",")[0] for entry in entries] == ["kim2020puzzle", "bang2022logit"]
    for entry in entries:
        first, *fields, last = entry.split("\n")
        assert re.fullmatch(r"@(inproceedings|misc)\{\w+,", first)
        assert last == "}"
        assert entry.count("{") == entry.count("}")
        names = [re.fullmatch(r"  (\w+) = \{.+\},?", field).group(1) for field in fields]
        assert names == ["title", "author", "booktitle", "year", "url"]


def test_no_settings_and_no_source_leave_no_empty_heading():
    text = str(card(method="vanilla"))
    assert "## Settings" not in text
    assert "## Citation" not in text


@pytest.mark.parametrize("relative", [False, True])
def test_of_a_local_model_only_the_name_is_written(tmp_path, monkeypatch, relative):
    folder = tmp_path / "private" / "tiny-bert"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    text = str(card(Path("private/tiny-bert") if relative else folder))
    assert "`tiny-bert`" in text
    assert "private" not in text
    assert str(tmp_path) not in text
    assert "base_model" not in front_matter(text)


def test_an_absolute_path_stays_out_when_the_folder_is_gone(tmp_path):
    """The base model may be moved while a run trains."""
    text = str(card(tmp_path / "private" / "tiny-bert"))
    assert "private" not in text
    assert str(tmp_path) not in text
    assert "base_model" not in front_matter(text)


def test_a_model_from_scratch_has_no_base_model():
    text = str(card(None))
    assert "base_model" not in front_matter(text)
    assert "`None`" not in text
    assert "from None" not in text
    assert "Fine-tuned" not in text
    assert "from scratch on nyu-mll/glue `mrpc`" in text


def test_data_that_is_not_on_the_hub_is_not_linked_to_it():
    data = front_matter(str(card(dataset="synthetic")))
    assert "datasets" not in data
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == "synthetic"


def test_split_is_written_where_it_is_given():
    text = str(card(split="test"))
    assert "## Results on test" in text
    assert front_matter(text)["model-index"][0]["results"][0]["dataset"]["split"] == "test"


def test_each_metric_has_the_split_that_it_is_of():
    split_of = {**dict.fromkeys(METRICS, "validation_matched"), "f1": "validation_mismatched"}
    sizes = {"validation_matched": 9815, "validation_mismatched": 9832}
    text = str(card(split=split_of, measured_on=sizes, selected_on={"held out of train": 500}))
    (entry,) = front_matter(text)["model-index"]
    found = {one["type"]: part["dataset"]["split"] for part in entry["results"] for one in part["metrics"]}
    assert found == split_of
    assert "## Results on validation_matched and validation_mismatched" in text
    assert "on 9,815 examples of `validation_matched` and 9,832 examples of `validation_mismatched`." in text
    assert "selected on 500 examples of `held out of train`." in text


@pytest.mark.parametrize("name", ["bert-base-uncased", HUB_NAME, "sentence-transformers/all-MiniLM-L6-v2"])
def test_public_name_of_a_hub_model_is_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert public_name(name) == name


@pytest.mark.parametrize("text", ["{folder}", "{folder}/", "{folder}/../tiny-bert", "{folder}/checkpoint-7/.."])
def test_public_name_of_a_local_model_is_its_last_part(text, tmp_path):
    (tmp_path / "tiny-bert" / "checkpoint-7").mkdir(parents=True)
    assert public_name(text.format(folder=tmp_path / "tiny-bert")) == "tiny-bert"


@pytest.mark.parametrize(("task", "names"), [("rte", ["entailment", "not_entailment"]), ("stsb", ["score"])])
def test_a_pretrained_model_is_loaded_in_float32_with_a_head_for_the_task(task, names):
    """Against the tensors of the file, which may be of half the width."""
    folder = os.environ.get("HF_LOGITMIX_MODEL")
    if not folder:
        pytest.skip("HF_LOGITMIX_MODEL names no folder with a pretrained BERT")
    model, tokenizer = load_model(TASKS[task], GlueArguments(model_name_or_path=folder))
    stored, loaded = load_file(Path(folder) / "model.safetensors"), dict(model.named_parameters())
    assert {parameter.dtype for parameter in loaded.values()} == {torch.float32}
    prefix = "" if "bert.embeddings.word_embeddings.weight" in stored else "bert."
    same = [
        name for name in stored if prefix + name in loaded and torch.equal(loaded[prefix + name], stored[name].float())
    ]
    assert set(loaded) - {prefix + name for name in same} == {"classifier.weight", "classifier.bias"}
    assert loaded["classifier.weight"].shape[0] == len(names)
    assert list(model.config.id2label.values()) == names
    assert tokenizer.pad_token_id == model.config.pad_token_id
    assert public_name(folder) == Path(folder).resolve().parts[-1]


def test_remarks_stand_below_the_metrics():
    text = str(card(remarks=["On `validation`: 99.0% of the predictions are one class."]))
    assert text.index("| metric | value |") < text.index("99.0% of the predictions")


# ---- the rules of model-index (huggingface/hub-docs, modelcard.md) --------------------------------------------------

DATASETS = {
    "nyu-mll/glue": "nyu-mll/glue",
    "Maysee/tiny-imagenet": "Maysee/tiny-imagenet",
    "GLUE, local files": "glue",
    "GLUE, local files, trained on easy/first.tsv": "glue",
    "synthetic shapes (made up by hf_logitmix)": "synthetic-shapes",
    "My Cats & Dogs, local files": "my-cats-dogs",
    "!?, local files": "unnamed",
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_metadata_are_what_the_hub_takes(tmp_path, dataset):
    card(dataset=dataset, measured_on={"validation": 600}, split_sizes={"validation": 5463}).save(
        tmp_path / "README.md"
    )
    found = checked_metadata(tmp_path / "README.md")
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"]["type"] == DATASETS[dataset]
    assert found.get("datasets") == (dataset if "/" in dataset and "," not in dataset else None)
    assert result["dataset"]["name"] == f"{dataset} mrpc (600 of 5,463 examples)"
    assert result["dataset"]["split"] == "validation"


def test_how_much_of_a_split_was_used():
    sizes = {"validation": 5463, "held out of train": 100}
    text = str(card(measured_on={"validation": 600}, selected_on={"held out of train": 100}, split_sizes=sizes))
    assert "Measured on 600 of 5,463 examples of `validation`." in text
    assert "selected on all 100 examples of `held out of train`." in text
    whole = front_matter(str(card(measured_on={"validation": 5463}, split_sizes=sizes)))
    assert whole["model-index"][0]["results"][0]["dataset"]["name"] == "nyu-mll/glue mrpc"


def test_a_temperature_is_told_and_is_no_metric():
    text = str(card(temperature={"validation": 1.7}))
    assert "The temperature fitted on `validation` is 1.7000." in text
    assert "| temperature" not in text
    assert "temperature" not in str(front_matter(text))


def test_what_is_no_number_is_no_result(tmp_path, monkeypatch):
    """Such as the correlation of a model that predicts the same for all."""
    monkeypatch.setitem(METRICS, "pearson", math.nan)
    card().save(tmp_path / "README.md")
    checked_metadata(tmp_path / "README.md")
    assert "| pearson | nan |" in (tmp_path / "README.md").read_text()


def test_no_metrics_are_no_model_index():
    text = str(model_card("a", get_method("mixup"), {}, base_model=None, dataset="GLUE, local files"))
    assert "model-index" not in front_matter(text)
    assert "from scratch on GLUE, local files with" in text


def test_a_pushed_card_keeps_its_results_beside_a_folder_of_the_datasets_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("nyu-mll/glue", "run", "public"):
        (tmp_path / name).mkdir(parents=True)
    card().save(tmp_path / "run" / "README.md")
    text = (tmp_path / "run" / "README.md").read_text()
    text = text.replace("name: nyu-mll/glue mrpc", f"name: {tmp_path}/glue").replace(
        "model-index", "base: a\nmodel-index"
    )
    (tmp_path / "run" / "README.md").write_text(text.replace("base: a", f"base: {tmp_path}/run"))
    publish(tmp_path / "run", tmp_path / "public", ["README.md"], [str(tmp_path)], None)
    (result,) = checked_metadata(tmp_path / "public" / "README.md")["model-index"][0]["results"]
    assert (result["dataset"]["type"], result["dataset"]["name"]) == ("nyu-mll/glue", "glue")
    assert str(tmp_path) not in (tmp_path / "public" / "README.md").read_text()
