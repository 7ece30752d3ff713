"""The table of runs, against means and deviations of the standard library."""

import json
import statistics

import pytest

from helpers.records import write
from hf_logitmix.commands.table import main, read_runs, table


def records(folder):
    """Five runs below a folder, and files that are none: the accuracies of four by (method, seed)."""
    accuracies = {("mixup", 3): 0.91, ("vanilla", 1): 0.8, ("vanilla", 2): 0.85, ("vanilla", 3): 0.828}
    base = {"n_train": 640, "n_eval": 277, "train_steps_per_second": 2.5, "eval_oe": 0.01}
    base |= {"eval_nll": 0.5, "eval_nll_scaled": 0.4}
    for (method, seed), accuracy in accuracies.items():
        values = {"eval_accuracy": accuracy, "eval_ece": accuracy / 10, "eval_ece_scaled": 0.02 * seed}
        found = {**base, **values, "task": "rte", "method_name": method, "seed": seed}
        path = folder / "sweep" / f"rte-{method}-{seed}" / "all_results.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(found))
        (path.parent / "config.json").write_text("{}")
    score = {"task": "stsb", "method_name": "logitmix", "seed": 1, "eval_pearson": 0.5, "train_steps_per_second": 2.5}
    score["model"] = "google-bert/bert-base-uncased"
    (folder / "kept.json").write_text(json.dumps({**score, "n_train": 10, "n_eval": 5}))
    (folder / "list.json").write_text("[1]")
    return accuracies


def cells(text):
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    return {(row[0], row[1]): dict(zip(head, row, strict=True)) for row in rows}


def test_the_table_has_mean_and_standard_deviation_over_seeds(tmp_path):
    accuracies = records(tmp_path)
    found = cells(table(read_runs(tmp_path)))
    assert list(found) == [("stsb", "logitmix"), ("rte", "vanilla"), ("rte", "mixup")]
    three = [accuracies["vanilla", seed] for seed in (1, 2, 3)]
    row = found["rte", "vanilla"]
    assert row["metric"] == "accuracy"
    assert row["value"] == f"{statistics.mean(three):.3f} \u00b1 {statistics.stdev(three):.3f}" == "0.826 \u00b1 0.025"
    assert row["ECE"] == f"{statistics.mean(three) / 10:.3f} \u00b1 {statistics.stdev(three) / 10:.3f}"
    assert row["ECE scaled"] == "0.040 \u00b1 0.020"
    assert (row["NLL"], row["NLL scaled"], row["OE"]) == (
        "0.500 \u00b1 0.000",
        "0.400 \u00b1 0.000",
        "0.010 \u00b1 0.000",
    )
    assert (row["time / vanilla"], row["train / dev"], row["seeds"]) == ("1.00 \u00b1 0.00", "640 / 277", "3")
    assert row["published, BERT-base"] == ""  # which are of another model


def test_rows_that_would_look_alike_show_what_they_differ_in():
    """Two learning rates and two models of one method; a setting that only tells two tasks apart is no column."""
    fixed = {"task": "rte", "method_name": "mixup", "method": "m", "data": "d", "n_train": 9, "n_eval": 9, "seed": 1}

    def run(rate, model="a", **changes):
        settings = {"learning_rate": rate, "batch_size": 8 if "task" not in changes else 16}
        return {**fixed, "model": model, "settings": settings, "eval_accuracy": 0.5, **changes}

    head, _, *rows = table([run(0.1), run(0.2), run(0.2, "b"), run(0.1, task="sst2")]).splitlines()
    names = [name.strip() for name in head.strip("|").split("|")]
    assert names[:5] == ["task", "method", "model", "learning_rate", "metric"]
    shown = [tuple(cell.strip() for cell in row.strip("|").split("|"))[:4] for row in rows]
    assert sorted(shown) == sorted(
        [("rte", "mixup", *two) for two in (("a", "0.1"), ("a", "0.2"), ("b", "0.2"))] + [("sst2", "mixup", "a", "0.1")]
    )
    assert "published, BERT-base" not in names


def test_a_damaged_record_is_named(tmp_path):
    records(tmp_path)
    (tmp_path / "broken.json").write_text('{"task": "rte", ')
    with pytest.raises(ValueError, match=r"broken\.json is no JSON \(.*remove it and run that run again"):
        read_runs(tmp_path)


def test_the_table_of_one_run_and_of_a_regression(tmp_path):
    records(tmp_path)
    found = cells(table(read_runs(tmp_path)))
    assert (found["rte", "mixup"]["value"], found["rte", "mixup"]["seeds"]) == ("0.910", "1")
    row = found["stsb", "logitmix"]
    assert (row["metric"], row["value"], row["time / vanilla"], row["published, BERT-base"]) == (
        "pearson",
        "0.500",
        "",
        "0.8945",
    )
    assert {row[name] for name in ("ECE", "OE", "NLL", "ECE scaled", "NLL scaled")} == {""}


def test_the_table_is_printed_and_an_empty_folder_is_an_error(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="holds no results"):
        main([str(tmp_path)])
    records(tmp_path)
    assert main([str(tmp_path)]) == 0
    assert len(cells(capsys.readouterr().out)) == 3


def test_against_a_method_what_is_missing_is_told(tmp_path, capsys):
    for seed in (1, 2, 3):
        write(tmp_path, "vanilla", seed)
        if seed > 1:
            write(tmp_path, "mixup", seed, logits=False, **({"eval_nll": None} if seed == 2 else {}))
    assert main([str(tmp_path), "--against", "vanilla", "--format", "csv"]) == 0
    written = capsys.readouterr()
    assert "sst2,mixup,NLL,,2,,," in written.out
    assert "sst2: Not all have all 3 seeds: mixup (2)." in written.err
    assert "sst2: NLL is missing or not a number, so it is not compared: mixup (2) (seed)." in written.err
    assert "are over seeds alone." in written.err
