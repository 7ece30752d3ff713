"""One run: scores against scikit-learn and hand numbers, submissions to the character, and what a run leaves behind."""

import dataclasses
import json
import math
import re
import signal

import numpy as np
import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from matplotlib.image import imread
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from hf_logitmix import MixTrainingArguments
from hf_logitmix.commands.table import table
from hf_logitmix.glue.demo import train_tokenizer
from hf_logitmix.glue.experiment import Experiment, write_submission
from hf_logitmix.glue.run import GlueArguments, load_model, with_label_noise
from hf_logitmix.glue.tasks import TASKS

WORDS = ("the film is good", "our room was bad", "her voice seems charming", "this soup feels stale", "a decent plot")
CALIBRATION = {
    *("ece", "oe", "mce", "adaptive_ece", "classwise_ece", "smooth_ece", "nll", "brier", "aurc", "augrc", "auroc"),
    *("coverage_at_risk_1", "coverage_at_risk_5", "coverage_at_risk_10"),
}
SCALED = {f"{name}_scaled" for name in CALIBRATION}


def submission(name, logits, folder, number=0):
    task = TASKS[name]
    path = write_submission(task, task.test[number], np.array(logits, dtype=np.float32), folder)
    return path.relative_to(folder).as_posix(), path.read_bytes().decode()


SCORES = [row % 11 / 2 for row in range(40)]

SUBMISSIONS = [
    ("cola", 0, [[0.1, 0.2], [3, -1]], "CoLA.tsv", ["1", "0"]),
    ("wnli", 0, [[0.1, 0.2], [3, -1]], "WNLI.tsv", ["1", "0"]),
    ("rte", 0, [[0.1, 0.2], [3, -1]], "RTE.tsv", ["not_entailment", "entailment"]),
    ("mnli", 0, [[0, 0, 1], [1, 0, 0]], "MNLI-m.tsv", ["contradiction", "entailment"]),
    ("mnli", 1, [[0, 2, 1], [0, 1, 2]], "MNLI-mm.tsv", ["neutral", "contradiction"]),
    ("ax", 0, [[0, 2, 1], [0, 1, 2]], "AX.tsv", ["neutral", "contradiction"]),
    ("stsb", 0, [[5.7], [-1], [2.3456], [4], [0]], "STS-B.tsv", ["5.000", "0.000", "2.346", "4.000", "0.000"]),
]


@pytest.mark.parametrize(("name", "number", "logits", "file", "values"), SUBMISSIONS)
def test_submission_is_what_the_glue_server_reads(tmp_path, name, number, logits, file, values):
    folder, task = tmp_path / "made" / "here", TASKS[name]
    path = write_submission(task, task.test[number], np.array(logits, dtype=np.float32), folder)
    lines = ["index\tprediction", *(f"{row}\t{value}" for row, value in enumerate(values))]
    assert path == folder / file
    assert path.read_bytes().decode() == "\n".join(lines) + "\n"


def scores(name, logits, labels):
    return Experiment(TASKS[name], {}, None, None, "none").scores(np.asarray(logits), np.asarray(labels))


def test_scores_by_hand():
    """Confidences .85 right, .85 wrong, .65 right, .65 right: two bins, in each a gap of .35."""
    found = scores("sst2", np.log([[0.85, 0.15], [0.85, 0.15], [0.35, 0.65], [0.35, 0.65]]), [0, 1, 1, 1])
    nll = -(math.log(0.85) + math.log(0.15) + 2 * math.log(0.65)) / 4
    expected = {"accuracy": 0.75, "ece": 0.35, "oe": 0.5 * 0.85 * 0.35, "mce": 0.35, "nll": nll}
    expected["brier"] = (0.045 + 1.445 + 2 * 0.245) / 4
    assert {key: found[key] for key in expected} == pytest.approx(expected)


@pytest.mark.parametrize(("name", "classes"), [("sst2", 2), ("mrpc", 2), ("mnli", 3)])
def test_scores_of_a_model_that_is_three_times_too_sure(name, classes):
    """Labels drawn from softmax(z), logits 3 z: the temperature is 3 and scaling brings back the likelihood of z."""
    rng = np.random.default_rng(0)
    z = rng.normal(scale=1.5, size=(4000, classes))
    p = softmax(z, axis=1)
    labels = np.array([rng.choice(classes, p=row) for row in p])
    found = scores(name, 3 * z, labels)
    assert set(found) == {*TASKS[name].metrics, "accuracy", *CALIBRATION, *SCALED, "temperature"}
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, z.argmax(1)))
    assert found["nll"] == pytest.approx(log_loss(labels, softmax(3 * z, axis=1)))
    assert found["nll_scaled"] == pytest.approx(log_loss(labels, p), abs=0.003)
    assert found["brier_scaled"] == pytest.approx(((p - np.eye(classes)[labels]) ** 2).sum(1).mean(), abs=0.003)
    assert found["ece_scaled"] < 0.03 < 0.1 < found["ece"]
    best = minimize_scalar(lambda t: log_loss(labels, softmax(3 * z / t, axis=1)), bounds=(0.1, 10), method="bounded")
    assert found["temperature"] == pytest.approx(best.x, abs=1e-3)
    assert found["temperature"] == pytest.approx(3, abs=0.25)


def sentences(count, offset=0):
    return [f"{WORDS[n % 5]} {'.' * (1 + n % 7)}" for n in range(offset, offset + count)]


def experiment(folder, name, **splits):
    """An experiment on a tiny BERT from a local folder, loaded as the script loads it."""
    base, task, tokenizer = folder / "home-of-someone" / "tiny-bert", TASKS[name], train_tokenizer(sentences(70))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.3, **sizes)
    torch.manual_seed(0)
    BertModel(config).save_pretrained(base)
    tokenizer.save_pretrained(base)
    parts = {"train": [task.train], "dev": task.dev, "test": task.test}
    data = {key: list(zip(parts[key], map(Dataset.from_dict, splits[key]), strict=True)) for key in splits}
    model, tokenizer = load_model(task, GlueArguments(model_name_or_path=str(base)))
    return Experiment(task, data, model, tokenizer, str(base))


def arguments(folder, **options):
    fixed = {"save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-3}
    return MixTrainingArguments(str(folder), max_steps=6, per_device_train_batch_size=8, **fixed, **options)


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """(output folder, what the run returned) of a classifier."""
    folder = tmp_path_factory.mktemp("classes")
    train, dev = ({"sentence": sentences(n), "label": [row % 5 % 2 for row in range(n)]} for n in (40, 30))
    made = experiment(folder, "sst2", train=[train], dev=[dev], test=[{"sentence": sentences(9, 3)}])
    options = {"method": "logitmix", "alpha": 1.5, "seed": 11, "data_seed": 12}
    return folder / "out", made.run(arguments(folder / "out", **options))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The same of a regression."""
    folder = tmp_path_factory.mktemp("scored")
    train, dev, test = ({"sentence1": sentences(n), "sentence2": sentences(n, 2)} for n in (40, 30, 9))
    labelled = {"train": [{**train, "label": SCORES[:40]}], "dev": [{**dev, "label": SCORES[:30]}]}
    made = experiment(folder, "stsb", **labelled, test=[test])
    return folder / "out", made.run(arguments(folder / "out", method="mixup"))


def record(output):
    """The record as strict JSON: NaN and infinity are none."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads((output / "all_results.json").read_text(), parse_constant=refuse)


def of_the_eval(found):
    return {key.removeprefix("eval_") for key in found if key.startswith("eval_")}


def test_the_record_of_a_classifier(classes):
    output, returned = classes
    found = record(output)
    assert found == json.loads(json.dumps(returned))
    assert of_the_eval(found) == {"accuracy", *CALIBRATION, *SCALED, "temperature"}
    names = {"task": "sst2", "model": "tiny-bert", "method_name": "logitmix"}
    numbers = {"seed": 11, "data_seed": 12, "n_train": 40, "n_eval": 30, "n_bins": 10}
    assert {**found, **names, **numbers} == found
    assert "alpha=1.5" in found["method"]
    assert found["versions"]["torch"] == torch.__version__
    assert {"hf_logitmix", "transformers", "accelerate", "python"} <= set(found["versions"])
    assert {**found["settings"], "learning_rate": 1e-3, "batch_size": 8, "max_steps": 6} == found["settings"]
    assert 6 / found["train_steps_per_second"] <= 1.5 * found["train_seconds"]
    assert 0 < found["train_loss"] < 10


def test_the_recorded_values_are_those_of_the_saved_logits(classes):
    saved, found = np.load(classes[0] / "eval_logits.npz"), record(classes[0])
    assert saved["labels"].tolist() == [row % 5 % 2 for row in range(30)]
    assert found["eval_accuracy"] == pytest.approx(accuracy_score(saved["labels"], saved["logits"].argmax(1)))
    p = softmax(saved["logits"].astype(float), axis=1)
    assert found["eval_nll"] == pytest.approx(log_loss(saved["labels"], p))


def test_a_regression_has_correlations_and_no_calibration(scored):
    output, _ = scored
    saved, found = np.load(output / "eval_logits.npz"), record(output)
    assert saved["labels"].tolist() == SCORES[:30]
    assert found["eval_pearson"] == pytest.approx(np.corrcoef(saved["logits"][:, 0], saved["labels"])[0, 1], abs=1e-5)
    assert of_the_eval(found) == {"pearson", "spearmanr"}
    assert not list(output.glob("*.png"))


def test_the_card_of_a_regression_tells_of_no_calibration(scored):
    assert not re.search("calibration|temperature|_scaled", ModelCard.load(scored[0] / "README.md").text)


@pytest.mark.parametrize("kind", ["classes", "scored"])
def test_what_is_left_tells_nothing_of_the_machine(kind, request):
    output, _ = request.getfixturevalue(kind)
    assert [path.name for path in output.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".pkl")] == []
    texts = {path.name: path.read_text() for path in output.iterdir() if path.suffix in (".json", ".md")}
    assert {"all_results.json", "README.md", "config.json", "tokenizer_config.json"} <= set(texts)
    for name, text in texts.items():
        assert "home-of-someone" not in text, name
        assert str(output.parent) not in text, name
        assert name == "tokenizer.json" or re.findall(r"""(?:^|[\s"'`=(])(?:/|[A-Z]:\\)\w+[/\\].*""", text) == [], name


@pytest.mark.parametrize(("kind", "names"), [("classes", {0: "negative", 1: "positive"}), ("scored", {0: "score"})])
def test_a_plain_from_pretrained_loads_the_model_that_was_evaluated(kind, names, request):
    """Sentence by sentence, without padding: the logits of the record and the submission."""
    output, _ = request.getfixturevalue(kind)
    model, info = AutoModelForSequenceClassification.from_pretrained(output, output_loading_info=True)
    assert {key: list(found) for key, found in info.items() if found} == {}
    assert model.config.id2label == names
    assert model.config.label2id == {name: number for number, name in names.items()}
    tokenizer = AutoTokenizer.from_pretrained(output)

    def logits(*texts):
        with torch.no_grad():
            rows = [model.eval()(**tokenizer(*row, return_tensors="pt")).logits[0] for row in zip(*texts, strict=True)]
        return torch.stack(rows).numpy()

    pair = kind == "scored"
    dev = logits(sentences(30), sentences(30, 2)) if pair else logits(sentences(30))
    test = logits(sentences(9), sentences(9, 2))[:, 0].clip(0, 5) if pair else logits(sentences(9, 3)).argmax(1)
    np.testing.assert_allclose(np.load(output / "eval_logits.npz")["logits"], dev, atol=2e-5)
    (path,) = (output / "submission").iterdir()
    told = [float(line.split("\t")[1]) for line in path.read_text().splitlines()[1:]]
    np.testing.assert_allclose(told, test, atol=6e-4)


def test_the_diagram_is_a_picture(classes):
    assert (classes[0] / "reliability.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = imread(classes[0] / "reliability.png")
    assert min(picture.shape[:2]) > 300
    assert picture.std() > 0.05


def test_evaluation_alone_covers_both_dev_sets_of_mnli(tmp_path):
    pairs = [{"premise": sentences(n), "hypothesis": sentences(n, 4)} for n in (20, 25)]
    dev = [{**pair, "label": [7 * n % 5 % 3 for n in range(len(pair["premise"]))]} for pair in pairs]
    found = experiment(tmp_path, "mnli", dev=dev).run(arguments(tmp_path / "out"))
    assert found["measured_on"] == {"validation_matched": 20, "validation_mismatched": 25}
    assert "train_seconds" not in found
    assert not (tmp_path / "out" / "README.md").exists()
    for part, suffix in zip(dev, ("", "_mm"), strict=True):
        saved = np.load(tmp_path / "out" / f"eval_logits{suffix}.npz")
        assert saved["labels"].tolist() == part["label"]
        assert found[f"eval_accuracy{suffix}"] == pytest.approx(
            accuracy_score(part["label"], saved["logits"].argmax(1))
        )


def test_a_failure_in_training_gives_ctrl_c_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    made = experiment(tmp_path, "sst2", train=[{"sentence": WORDS, "label": [0, 1, 0, 1, 0]}])
    made.model.register_forward_pre_hook(lambda *args: 1 // 0)
    try:
        with pytest.raises(ZeroDivisionError):
            made.run(arguments(tmp_path / "out"))
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_of_the_mcel_family_records_its_targets_and_draws_them(tmp_path):
    pairs = {"premise": sentences(40), "hypothesis": sentences(40, 4), "label": [7 * n % 5 % 3 for n in range(40)]}
    found = experiment(tmp_path, "mnli", train=[pairs]).run(arguments(tmp_path / "out", method="gmcel"))
    assert found == record(tmp_path / "out")
    similarity, rows = np.array(found["class_similarity"]), np.array(found["targets"])
    assert np.diag(similarity).tolist() == [0, 0, 0]
    np.testing.assert_allclose(similarity.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(np.diag(rows), 0.8, atol=0.1)
    assert np.abs(rows - (0.8 * np.eye(3) + 0.2 * similarity)).max() > 1e-4  # six steps moved them from MCEL's rows
    for name in ("class_similarity.png", "targets.png"):
        assert imread(tmp_path / "out" / name).std() > 0.05


def test_label_noise_reaches_training_alone_and_the_record():
    """A fifth of 40 training labels is changed; the dev set and the clean column keep theirs."""
    labels = [row % 2 for row in range(40)]
    train, dev = (Dataset.from_dict({"sentence": sentences(40), "label": labels}) for _ in range(2))
    task = TASKS["sst2"]
    splits = {"train": [(task.train, train)], "dev": [(task.dev[0], dev)]}
    noisy = with_label_noise(task, splits, 0.2, "uniform", seed=3)
    (_, changed), (_, kept) = noisy["train"][0], noisy["dev"][0]
    assert sum(a != b for a, b in zip(changed["label"], labels, strict=True)) == 8
    assert changed["clean_label"][:] == kept["label"][:] == labels
    with pytest.raises(ValueError, match=r"label_noise=0\.2: stsb is a regression"):
        with_label_noise(TASKS["stsb"], splits, 0.2, "uniform", seed=3)


def test_a_run_with_label_noise_says_so(tmp_path):
    train = {"sentence": sentences(40), "label": [row % 2 for row in range(40)]}
    made = experiment(tmp_path, "sst2", train=[train], dev=[train])
    made = dataclasses.replace(made, label_noise="0.2 uniform")
    found = made.run(arguments(tmp_path / "out", method="vanilla"))
    assert found["settings"]["label_noise"] == "0.2 uniform"
    assert "label_noise: 0.2 uniform" in (tmp_path / "out" / "README.md").read_text()
    cells = [cell.strip() for cell in table([found]).splitlines()[2].strip("|").split("|")]
    assert cells[0] == "sst2, 0.2 uniform label noise"


def test_the_time_of_a_method_is_compared_with_vanilla_of_the_same_seed_and_settings():
    """Twice and three times vanilla's seconds: 2.5 in the mean; another setting's vanilla does not count."""
    fixed = {"task": "sst2", "model": "m", "data": "d", "n_train": 9, "n_eval": 9, "eval_accuracy": 0.5}
    runs = [
        {**fixed, "method_name": name, "method": name, "seed": seed, "settings": {"lr": lr}}
        | {"train_steps_per_second": 6 / seconds}
        for name, seed, lr, seconds in [
            ("vanilla", 1, 1, 10.0),
            ("vanilla", 2, 1, 20.0),
            ("vanilla", 1, 2, 1.0),
            ("mixup", 1, 1, 20.0),
            ("mixup", 2, 1, 60.0),
            ("mixup", 7, 1, 5.0),
        ]
    ]

    def times(some):
        head, _, *rows = ([cell.strip() for cell in line.split("|")] for line in table(some).splitlines())
        return [row[head.index("time / vanilla")] for row in rows]

    assert times(runs[:-1]) == ["1.00 ± 0.00", "1.00", "2.50 ± 0.71"]
    assert times(runs)[-1] == ""  # no vanilla run of seed 7
