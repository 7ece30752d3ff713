"""The command for texts of one's own: a tiny run for each kind of label, and what it refuses before any training."""

import csv
import json

import datasets
import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import f1_score
from transformers import AutoConfig, pipeline

from hf_logitmix.text import train

WORDS = ("good film", "bad soup", "odd room")
KINDS = {
    "names": lambda n: ("praise", "blame", "doubt")[n % 3],
    "scores": lambda n: n % 3 + 0.5,
    "several": lambda n: [("loud", "slow"), ("slow",), ()][n % 3],
    "soft": lambda n: [[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]][n % 3],
}
OPTIONS = {"soft": ["--soft_labels", "true"]}
FIXED = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--save_strategy", "no", "--use_cpu", "True"]


def rows(kind, count):
    return [{"review": f"{WORDS[n % 3]} {n}", "label": KINDS[kind](n)} for n in range(count)]


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture(scope="module")
def model(start):
    return ["--model_name_or_path", start[start.index("--model_name_or_path") + 1], "--disable_tqdm", "True"]


@pytest.fixture(scope="module")
def runs(model, tmp_path_factory):
    """kind -> (folder, record, logits and labels, predictions) of a run that trains, evaluates and predicts."""
    done = {}

    def run_of(kind):
        if kind not in done:
            folder = tmp_path_factory.mktemp(kind)
            files = {
                name: write(folder / f"{name}.jsonl", rows(kind, n)) for name, n in {"train": 24, "dev": 12}.items()
            }
            unlabelled = write(folder / "test.jsonl", [{"review": row["review"]} for row in rows(kind, 7)])
            data = ["--train_file", files["train"], "--validation_file", files["dev"], "--test_file", unlabelled]
            done_here = [
                "--do_train",
                "--do_eval",
                "--do_predict",
                "--method",
                "mixup",
                "--output_dir",
                str(folder / "out"),
            ]
            assert train.main([*model, *FIXED, *data, *done_here, *OPTIONS.get(kind, [])]) == 0
            with (folder / "out" / "predictions.csv").open(newline="") as file:
                told = list(csv.DictReader(file))
            record = json.loads((folder / "out" / "all_results.json").read_text())
            done[kind] = folder, record, np.load(folder / "out" / "eval_logits.npz"), told
        return done[kind]

    return run_of


SAVED = {
    "names": ("single_label_classification", ["blame", "doubt", "praise"]),
    "scores": ("regression", ["score"]),
    "several": ("multi_label_classification", ["loud", "slow"]),
    "soft": ("single_label_classification", ["0", "1"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_each_kind_leaves_a_model_that_knows_its_classes(runs, kind):
    folder, record, _, _ = runs(kind)
    config = AutoConfig.from_pretrained(folder / "out")
    assert (config.problem_type, list(config.id2label.values())) == SAVED[kind]
    assert (record["task"], record["data"], record["n_train"]) == ("train", "train, local files", 24)
    assert (record["measured_on"], record["predicted_on"]) == ({"validation": 12}, {"test": 7})
    assert record["settings"]["text_columns"] == ["review"]
    assert record["settings"]["label_columns"] == ["label"]


def test_the_metrics_of_classes(runs):
    _, record, saved, _ = runs("names")
    labels = [("blame", "doubt", "praise").index(row["label"]) for row in rows("names", 12)]
    assert saved["labels"].tolist() == labels
    found = saved["logits"].argmax(1)
    assert record["eval_accuracy"] == pytest.approx((found == labels).mean())
    assert record["eval_f1_macro"] == pytest.approx(f1_score(labels, found, average="macro", zero_division=0))
    assert {"eval_ece", "eval_nll_scaled", "eval_temperature"} <= record.keys()


def test_the_metrics_of_scores(runs):
    _, record, saved, _ = runs("scores")
    labels, found = np.array([row["label"] for row in rows("scores", 12)]), saved["logits"][:, 0]
    assert record["eval_rmse"] == pytest.approx(((labels - found) ** 2).mean() ** 0.5, rel=1e-5)
    assert record["eval_pearson"] == pytest.approx(np.corrcoef(labels, found)[0, 1], abs=1e-5)
    assert not {"eval_ece", "eval_temperature", "eval_accuracy"} & record.keys()


def test_the_metrics_of_several_labels(runs):
    folder, record, saved, _ = runs("several")
    labels = np.array([[1, 1], [0, 1], [0, 0]] * 4)
    assert saved["labels"].tolist() == labels.tolist()
    found = expit(saved["logits"]) > 0.5
    hits, wrong = (found & (labels == 1)).sum(), (found != (labels == 1)).sum()
    assert record["eval_f1_micro"] == pytest.approx(2 * hits / max(2 * hits + wrong, 1))
    assert record["eval_exact_match"] == pytest.approx((found == labels).all(1).mean())
    assert not {"eval_ece", "eval_temperature"} & record.keys()
    assert "calibration errors" not in (folder / "out" / "README.md").read_text().lower()


def test_soft_labels_are_scored_by_their_cross_entropy(runs):
    _, record, saved, _ = runs("soft")
    soft = np.array([row["label"] for row in rows("soft", 12)])
    assert record["settings"]["soft_labels"]
    assert record["eval_nll"] == pytest.approx(
        -(soft * np.log(softmax(saved["logits"], axis=1))).sum(1).mean(), rel=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_what_transformers_serves(runs, kind):
    folder, _, _, told = runs(kind)
    served = pipeline("text-classification", model=str(folder / "out"), top_k=None)
    names = SAVED[kind][1]
    assert [row["row"] for row in told] == [str(number) for number in range(1, 8)]
    for row, text in zip(told, rows(kind, 7), strict=True):
        p = {one["label"]: one["score"] for one in served([text["review"]])[0]}
        if kind == "scores":
            assert float(row["prediction"]) == pytest.approx(p["score"], abs=1e-4)
            continue
        assert [float(row[f"p_{name}"]) for name in names] == pytest.approx([p[name] for name in names], abs=1e-5)
        best = max(names, key=p.__getitem__)
        if kind == "several":
            assert json.loads(row["prediction"]) == [name for name in names if p[name] > 0.5]
        else:
            assert (row["prediction"], float(row["confidence"])) == (best, pytest.approx(p[best], abs=1e-5))


def test_every_format_gives_the_same_examples(tmp_path):
    lines = rows("names", 12)
    table = datasets.Dataset.from_list(lines)
    write(tmp_path / "a.jsonl", lines)
    (tmp_path / "a.json").write_text(json.dumps(lines))
    cells = [("review", "label"), *((row["review"], row["label"]) for row in lines)]
    (tmp_path / "a.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in cells))
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(cells)
    table.to_parquet(str(tmp_path / "a.parquet"))
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "saved")
    expected = [{"text": row["review"], "label": ("blame", "doubt", "praise").index(row["label"])} for row in lines]
    args = train.OwnTrainingArguments(str(tmp_path / "out"), do_eval=False, use_cpu=True)
    for ending in ("jsonl", "json", "tsv", "csv", "parquet"):
        data = train.load(train.TextArguments(train_file=str(tmp_path / f"a.{ending}")), args)
        assert data.splits["train"].to_list() == expected, ending
    data = train.load(train.TextArguments(dataset_name=str(tmp_path / "saved")), args)
    assert data.splits["train"].to_list() == expected


def test_a_saved_model_is_evaluated_and_predicts_by_the_names_of_its_classes(runs, model, tmp_path, capsys):
    folder, record, saved, told = runs("names")
    dev = [{"text": row["review"], "label": row["label"]} for row in rows("names", 12)]
    given = ["--test_file", write(tmp_path / "dev.jsonl", dev), "--model_name_or_path", str(folder / "out")]
    assert train.main([*model, *given, "--do_eval", "--do_predict", "--output_dir", str(tmp_path / "out")]) == 0
    again = json.loads((tmp_path / "out" / "all_results.json").read_text())
    np.testing.assert_allclose(np.load(tmp_path / "out" / "eval_logits.npz")["logits"], saved["logits"], atol=1e-5)
    assert again["measured_on"] == {"test": 12}
    assert again["eval_f1_macro"] == record["eval_f1_macro"]
    assert (tmp_path / "out" / "predictions.csv").read_text().splitlines()[1:8] == [
        ",".join(row.values()) for row in told
    ]


def test_probabilities_in_columns_of_a_csv_are_learned_and_scored(model, tmp_path):
    """As from a column of lists; a saved model finds them by the names of its classes, in whatever order they stand."""
    lines, folder = rows("soft", 12), tmp_path / "out"
    names, turned = ("p_blame", "p_praise"), ("p_praise", "p_blame")
    for name, columns in (("train", names), ("turned", turned)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["review", *columns])
            writer.writerows([row["review"], *row["label"][:: 1 if columns == names else -1]] for row in lines)
    data = ["--train_file", str(tmp_path / "train.csv"), "--validation_file", str(tmp_path / "turned.csv")]
    soft = ["--soft_labels", "true", "--method", "mixup", "--label_column", *names]
    assert train.main([*model, *FIXED, *data, *soft, "--output_dir", str(folder)]) == 0
    record, saved = json.loads((folder / "all_results.json").read_text()), np.load(folder / "eval_logits.npz")
    labels = np.array([row["label"] for row in lines])
    np.testing.assert_allclose(saved["labels"], labels)
    expected = -(labels * np.log(softmax(saved["logits"], axis=1))).sum(1).mean()
    assert record["eval_nll"] == pytest.approx(expected, rel=1e-5)
    assert (record["settings"]["label_columns"], record["settings"]["soft_labels"]) == (list(names), True)
    assert AutoConfig.from_pretrained(folder).id2label == {0: "blame", 1: "praise"}
    again = ["--test_file", str(tmp_path / "turned.csv"), "--do_eval", "--soft_labels", "true"]
    again += ["--model_name_or_path", str(folder), "--output_dir", str(tmp_path / "again"), "--label_column", *turned]
    assert train.main([*model, *again]) == 0
    assert json.loads((tmp_path / "again" / "all_results.json").read_text())["eval_nll"] == pytest.approx(
        record["eval_nll"], rel=1e-4
    )


CHOOSING = ["--eval_strategy", "steps", "--eval_steps", "1", "--save_steps", "1", "--load_best_model_at_end", "true"]


@pytest.mark.slow
def test_a_checkpoint_is_chosen_on_other_texts_than_the_figures_are_of(model, tmp_path):
    files = {
        name: write(tmp_path / f"{name}.jsonl", rows("names", n))
        for name, n in {"train": 30, "dev": 9, "test": 6}.items()
    }
    fixed = [*model, *FIXED[:4], "--use_cpu", "True", *CHOOSING, "--train_file", files["train"]]
    cases = {
        "files": (["--validation_file", files["dev"], "--test_file", files["test"]], {"test": 6}, {"validation": 9}),
        "split": (
            ["--validation_file", files["dev"], "--validation_split", "0.2"],
            {"validation": 9},
            {"held out of train": 6},
        ),
    }
    for name, (data, measured, selected) in cases.items():
        assert train.main([*fixed, *data, "--output_dir", str(tmp_path / name)]) == 0
        record = json.loads((tmp_path / name / "all_results.json").read_text())
        assert (record["measured_on"], record["selected_on"]) == (measured, selected)
    with pytest.raises(
        ValueError, match=r"load_best_model_at_end would choose .*: pass --validation_file or --test_file"
    ):
        train.main([*fixed, "--val_split", "0.2", "--output_dir", str(tmp_path / "same")])
    argv = [
        *model,
        *FIXED,
        "--train_file",
        files["train"],
        "--val_split",
        "0.2",
        "--output_dir",
        str(tmp_path / "held"),
    ]
    assert train.main(argv) == 0
    record = json.loads((tmp_path / "held" / "all_results.json").read_text())
    assert (record["n_train"], record["measured_on"], record["selected_on"]) == (24, {"held out of train": 6}, None)


REFUSED = [
    ([], "no data is named: pass either files"),
    (["--train_file", "t.jsonl", "--dataset_name", "x/y"], "--train_file and --dataset_name are both there"),
    (
        ["--train_file", "t.jsonl", "--dataset_config_name", "en"],
        "--dataset_config_name is read with --dataset_name alone",
    ),
    (["--train_file", "t.jsonl"], "nothing with labels to evaluate on: pass --validation_file, or --val_split 0.1"),
    (["--validation_file", "t.jsonl"], "nothing to train on in the files: pass --train_file, or --no_do_train"),
    (["--train_file", "t.jsonl", "--do_train", "--do_predict"], "nothing to predict in the files: pass --test_file"),
    (["--train_file", "t.jsonl", "--no_do_train"], "nothing to evaluate on in the files: pass --validation_file"),
    (
        ["--test_file", "t.jsonl", "--no_do_train", "--val_split", "0.1"],
        r"val_split=0\.1 holds out training examples and",
    ),
    (
        ["--test_file", "t.jsonl", "--no_do_train", "--calibration_split", "0.1"],
        r"calibration_split=0\.1 holds out training examples and there is no training",
    ),
    (
        ["--train_file", "t.jsonl", "--no_do_eval", "--calibration_split", "0.01"],
        r"calibration_split=0\.01 of 30 .* none of class 0 to fit a temperature on",
    ),
    (
        ["--train_file", "t.jsonl", "--validation_file", "other.jsonl"],
        r"other\.jsonl, row 2: label 'rage' is none of the 3",
    ),
    (
        ["--train_file", "t.jsonl", "--val_split", "0.1", "--max_train_samples", "2"],
        "max_train_samples=2: pass at least 3",
    ),
    (["--train_file", "t.jsonl", "--method", "mixapp"], "method='mixapp' is unknown"),
    (
        ["--train_file", "t.jsonl", "--validation_file", "t.jsonl"],
        r"train_file and validation_file are both t\.jsonl: pass other examples for one",
    ),
    (
        ["--train_file", "t.jsonl", "--validation_file", "u.jsonl", "--test_file", "v.jsonl", "--val_split", "0.2"],
        "both the validation texts and --val_split would choose the checkpoint: leave one out",
    ),
    (
        ["--train_file", "t.jsonl", "--val_split", "0.2", "--metric_for_best_model", "f1"],
        "metric_for_best_model='f1' is none of loss, .*f1_macro.*: pass one of these",
    ),
    (
        ["--dataset_name", "odd", "--train_split_name", "first", "--test_split_name", "first"],
        "train_split_name and test_split_name are both first",
    ),
    (["--dataset_name", "columns"], "dataset_name='columns' could not be loaded"),
    (["--train_file", "t.jsonl", "--max_seq_length", "2"], "max_seq_length=2: pass at least 3"),
    (["--train_file", "t.jsonl", "--do_regression", "true", "--soft_labels", "true"], "exclude each other"),
    (["--train_file", "t.jsonl", "--metric_for_best_model", "rmse", "--greater_is_better", "true"], "largest rmse"),
    (["--dataset_name", "several"], "several has the splits valid and dev: choose one with --validation_split_name"),
    (["--dataset_name", "odd"], "odd has the splits first, second, none of which is train, validation or test"),
    (
        ["--dataset_name", "odd", "--train_split_name", "one"],
        "train_split_name='one' is no split of odd, which has first",
    ),
]


@pytest.mark.parametrize(("added", "says"), REFUSED)
def test_what_is_refused_writes_nothing(model, tmp_path, monkeypatch, added, says):
    monkeypatch.chdir(tmp_path)
    for name in "tuv":
        write(tmp_path / f"{name}.jsonl", rows("names", 30))
    (tmp_path / "columns").mkdir()
    (tmp_path / "columns" / "train.csv").write_text("text,label\na,0\n")
    (tmp_path / "columns" / "test.csv").write_text("text,other\na,0\n")
    write(tmp_path / "other.jsonl", [*rows("names", 1), {"review": "x", "label": "rage"}])
    small = datasets.Dataset.from_list(rows("names", 6))
    for name, splits in {"several": ("train", "valid", "dev"), "odd": ("first", "second")}.items():
        datasets.DatasetDict(dict.fromkeys(splits, small)).save_to_disk(name)
    with pytest.raises(ValueError, match=says) as error:
        train.main([*model, "--output_dir", "out", *added])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_split_that_is_named_for_one_use_is_found_for_no_other(model, tmp_path):
    """A folder of train and test, whose test split is asked to be the one for validation."""
    small = datasets.Dataset.from_list(rows("names", 30))
    datasets.DatasetDict({"train": small, "test": small.select(range(6))}).save_to_disk(tmp_path / "two")
    args = train.OwnTrainingArguments(str(tmp_path / "out"), use_cpu=True)
    data = train.load(train.TextArguments(dataset_name=str(tmp_path / "two"), validation_split_name="test"), args)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 30, "validation": 6}


@pytest.mark.parametrize(("left_out", "says"), [(0, "--model_name_or_path is needed"), (2, "--output_dir is needed")])
def test_what_is_needed(model, left_out, says):
    argv = [*model[:2], "--output_dir", "out", "--train_file", "t.jsonl"]
    with pytest.raises(ValueError, match=says):
        train.main(argv[:left_out] + argv[left_out + 2 :])
