"""Reading GLUE folders: files written here in each task's layout, read back, and real files against pandas."""

import csv
import logging
import os
from pathlib import Path

import pandas
import pytest
from datasets import Dataset

from hf_logitmix.glue import data
from hf_logitmix.glue.data import load_task
from hf_logitmix.glue.tasks import TASKS

_PARSES = "sentence1_binary_parse|sentence2_binary_parse|sentence1_parse|sentence2_parse"
_NLI = f"index|promptID|pairID|genre|{_PARSES}|sentence1|sentence2"
_STSB = "index|genre|filename|year|old_index|source1|source2|sentence1|sentence2"
_PAIR = "index|sentence1|sentence2"

_MRPC = "#1 ID|#2 ID|#1 String|#2 String"
_QQP = "id|qid1|qid2|question1|question2|is_duplicate"
_QNLI = "index|question|sentence"


def _splits(labelled, test):
    return {"train": labelled, "dev": labelled, "test": test}


# The columns of every file of the classic download.
FILES = {
    "CoLA": _splits("source|label|mark|sentence", "index|sentence"),
    "SST-2": _splits("sentence|label", "index|sentence"),
    "MRPC": _splits(f"Quality|{_MRPC}", f"index|{_MRPC}"),
    "STS-B": _splits(f"{_STSB}|score", _STSB),
    "QQP": _splits(_QQP, "id|question1|question2"),
    "MNLI": {"train": f"{_NLI}|label1|gold_label", "dev_matched": f"{_NLI}|label1|gold_label", "test_matched": _NLI},
    "QNLI": _splits(f"{_QNLI}|label", _QNLI),
    "RTE": _splits(f"{_PAIR}|label", _PAIR),
    "WNLI": _splits(f"{_PAIR}|label", _PAIR),
    "diagnostic": {"diagnostic": _PAIR},
}
NAMES = {"diagnostic": "ax", **{folder: folder.lower().replace("-", "") for folder in list(FILES)[:-1]}}
# Column on the Hub and in the file; the label in the file and its number on the Hub.
RENAMED = {
    "MRPC": {"sentence1": "#1 String", "sentence2": "#2 String"},
    "QQP": {"question1": "question1", "question2": "question2"},
    "QNLI": {"question": "question", "sentence": "sentence"},
    **{folder: {"premise": "sentence1", "hypothesis": "sentence2"} for folder in ("MNLI", "diagnostic")},
    **{folder: {"sentence": "sentence"} for folder in ("CoLA", "SST-2")},
    **{folder: {"sentence1": "sentence1", "sentence2": "sentence2"} for folder in ("STS-B", "RTE", "WNLI")},
}
LABELS = {
    "STS-B": {"3.800": 3.8, "0": 0.0, "5.000": 5.0},
    "MNLI": {"entailment": 0, "neutral": 1, "contradiction": 2},
    **{folder: {"entailment": 0, "not_entailment": 1} for folder in ("QNLI", "RTE")},
    **{folder: {"0": 0, "1": 1} for folder in ("CoLA", "SST-2", "MRPC", "QQP", "WNLI")},
}
LABEL_COLUMNS = {"STS-B": "score", "MRPC": "Quality", "QQP": "is_duplicate", "MNLI": "gold_label"}


def write(folder, name, content):
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8"))
    return path


def read(folder, task="sst2", split="train", **more):
    ((_, found),) = load_task(TASKS[task], (split,), str(folder), **more)[split]
    return found.to_dict()


@pytest.mark.parametrize(("folder", "file"), [(folder, file) for folder, files in FILES.items() for file in files])
def test_every_layout_of_the_classic_download(tmp_path, folder, file):
    columns, label = FILES[folder][file].split("|"), LABEL_COLUMNS.get(folder, "label")
    labels = LABELS[folder] if label in columns else {"none": None}
    rows = [[text if name == label else f'{name} of "row {n}' for name in columns] for n, text in enumerate(labels)]
    headless = folder == "CoLA" and file != "test"
    lines = ["\t".join(row) for row in ([] if headless else [columns]) + rows]
    mark = "\ufeff" if folder == "MRPC" else ""
    write(tmp_path, f"{folder}/{file}.tsv", mark + "\n".join([*lines, ""]))
    expected = {name: [f'{there} of "row {n}' for n in range(len(rows))] for name, there in RENAMED[folder].items()}
    expected |= {"label": list(labels.values())} if label in columns else {}
    split = "test" if folder == "diagnostic" else file.split("_")[0]
    assert read(tmp_path, NAMES[folder], split) == expected


TEXTS = [
    *('" a quote that never ends', '"quoted"', 'he said "no" .', "it 's '", "#not a comment", "\\n", " both ends "),
    *("NA", "null", "nan", "None", "", "\ufeffmark inside", "na\u00efve \u4e2d \U0001f600", "lone\rreturn"),
    *("line\u2028separator", "paragraph\u2029separator", "next\x85line", "form\x0cfeed", "file\x1cseparator"),
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_is_kept_to_the_character(tmp_path, text, end):
    write(tmp_path, "SST-2/train.tsv", end.join(["sentence\tlabel", f"{text}\t1", "after\t0", ""]))
    assert read(tmp_path) == {"sentence": [text, "after"], "label": [1, 0]}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_byte_order_mark_crlf_and_a_last_line_without_end(tmp_path, mark, end):
    """A file without a header whose text comes last, and one with a header whose label comes last."""
    write(tmp_path, "CoLA/dev.tsv", f"{mark}gj04\t1\t\tfirst {end}gj04\t0\t*\tsecond{end}gj04\t1\t\tthird")
    assert read(tmp_path, "cola", "dev") == {"sentence": ["first ", "second", "third"], "label": [1, 0, 1]}
    write(tmp_path, "WNLI/dev.tsv", f"{mark}sentence1\tsentence2\tlabel{end}a\tb\t1{end}c\td\t0")
    assert read(tmp_path, "wnli", "dev") == {"sentence1": ["a", "c"], "sentence2": ["b", "d"], "label": [1, 0]}


@pytest.mark.parametrize("missing", ["", "mismatched", "matched"])
def test_mnli_wants_its_matched_set_and_warns_without_the_other(tmp_path, caplog, missing):
    for name in {"matched", "mismatched"} - {missing}:
        write(tmp_path, f"MNLI/dev_{name}.tsv", f"sentence1\tsentence2\tgold_label\n{name}\tb\tneutral\n")
    if missing == "matched":
        with pytest.raises(FileNotFoundError, match=r"MNLI/dev_matched\.tsv"):
            load_task(TASKS["mnli"], ("dev",), str(tmp_path))
        return
    parts = load_task(TASKS["mnli"], ("dev",), str(tmp_path))["dev"]
    expected = [("", ["matched"]), ("_mm", ["mismatched"])][: 1 if missing else 2]
    assert [(split.suffix, found["premise"][:]) for split, found in parts] == expected
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == bool(missing)
    assert not missing or "dev_mismatched.tsv" in warned[0]


def test_broken_rows_of_qqp_are_skipped_and_counted(tmp_path, caplog):
    rows = ["1\t2\t3\ta\tb\t1", "4\t5\t6\tcut", "7\t8\t9\tc\td\t0", "", "1\t2\t3\tone\ttoo\tmany\t0"]
    write(tmp_path, "QQP/train.tsv", "\n".join(["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", *rows, ""]))
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path, "qqp") == {"question1": ["a", "c"], "question2": ["b", "d"], "label": [1, 0]}
    (record,) = caplog.records
    assert "train.tsv" in record.getMessage()
    assert "skipped 3 rows" in record.getMessage()


def test_a_broken_row_of_qqps_test_set_is_not_skipped(tmp_path):
    """A submission numbers the rows of the test file: one left out would shift all that follow."""
    write(tmp_path, "QQP/test.tsv", "id\tquestion1\tquestion2\n0\ta\tb\n1\tcut\n2\tc\td\n")
    with pytest.raises(ValueError, match=r"QQP/test\.tsv, line 3"):
        read(tmp_path, "qqp", "test")


def test_train_file_by_name_and_by_path(tmp_path):
    write(tmp_path, "SST-2/train.partial.tsv", "sentence\tlabel\nby name\t1\n")
    write(tmp_path, "SST-2/dev.tsv", "sentence\tlabel\ndev\t0\n")
    path = write(tmp_path, "elsewhere/mine.tsv", "sentence\tlabel\nby path\t0\n")
    assert read(tmp_path, train_file="train.partial.tsv")["sentence"] == ["by name"]
    assert read(tmp_path, train_file=str(path))["sentence"] == ["by path"]
    assert read(tmp_path, split="dev", train_file=str(path))["sentence"] == ["dev"]
    with pytest.raises(FileNotFoundError, match=r"SST-2/absent\.tsv"):
        read(tmp_path, train_file="absent.tsv")


HEADER = "sentence\tlabel\n"
PAIRS = "index\tsentence1\tsentence2\tlabel\n"
SCORED = "sentence1\tsentence2\tscore\n"
BROKEN = [
    ("SST-2", "text\tlabel\na\t1\n", ["line 1", "'sentence'", "text, label"]),
    ("SST-2", "", ["line 1", "'sentence'"]),
    ("SST-2", HEADER, ["no examples", "sentence, label"]),
    ("CoLA", "", ["no examples", "label", "sentence"]),
    ("RTE", f"{PAIRS}0\ta\tb\tentailment\n1\tc", ["line 3", "2 columns instead of 4", "index, sentence1"]),
    ("RTE", f"{PAIRS}0\ta\tb\tentailment\n\n", ["line 3", "1 columns instead of 4"]),
    ("CoLA", "gj04\t1\t\ta\ngj04\t1\t", ["line 2", "3 columns instead of 4", "label", "sentence"]),
    ("CoLA", "gj04\t1\t\ta\tb\n", ["line 1", "5 columns instead of 4"]),
    ("RTE", f"{PAIRS}0\ta\tb\tmaybe\n", ["line 2", "'maybe'", "entailment", "not_entailment"]),
    ("MNLI", "sentence1\tsentence2\tgold_label\na\tb\t-\n", ["line 2", "'-'", "contradiction"]),
]
_BAD_LABELS, _BAD_SCORES = ("2", "-1", "", "1.0", "POSITIVE ", "\u00b2"), ("5.001", "-0.1", "nan", "inf", "high", "")
BROKEN += [("SST-2", f"{HEADER}a\t1\nb\t{bad}\n", ["line 3", f"'{bad}'"]) for bad in _BAD_LABELS]
BROKEN += [("STS-B", f"{SCORED}a\tb\t5\na\tb\t{bad}\n", ["line 3", f"'{bad}'", "0 to 5"]) for bad in _BAD_SCORES]


@pytest.mark.parametrize(("folder", "content", "says"), BROKEN)
def test_a_file_that_is_not_the_tasks_is_an_error_with_its_place(tmp_path, folder, content, says):
    write(tmp_path, f"{folder}/train.tsv", content)
    with pytest.raises(ValueError, match=rf"{folder}/train\.tsv") as error:
        read(tmp_path, NAMES[folder])
    assert [part for part in says if part not in str(error.value)] == []


def test_a_file_in_another_encoding_is_an_error_with_its_name(tmp_path):
    write(tmp_path, "SST-2/train.tsv", "").write_bytes(HEADER.encode() + "na\u00efve\t1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"SST-2/train\.tsv"):
        read(tmp_path)


def test_a_missing_file_is_an_error_with_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"SST-2/train\.tsv.*--glue_dir.*--train_file"):
        read(tmp_path)


def test_the_diagnostic_set_has_no_training_data(tmp_path):
    with pytest.raises(ValueError, match=r"'ax' has no training data.*--do_predict alone"):
        read(tmp_path, "ax")


def test_from_the_hub_only_texts_and_labels_are_kept(monkeypatch):
    asked = []

    def fake(name, config, split):
        asked.append((name, config, split))
        return Dataset.from_dict({"premise": ["a"], "hypothesis": ["b"], "label": [-1], "idx": [0]})

    monkeypatch.setattr(data, "load_dataset", fake)
    found = load_task(TASKS["mnli"], ("train", "dev", "test"))
    splits = ["train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched"]
    assert asked == [("nyu-mll/glue", "mnli", split) for split in splits]
    columns = {name: [sorted(part.column_names) for _, part in parts] for name, parts in found.items()}
    labelled = ["hypothesis", "label", "premise"]
    assert columns == {"train": [labelled], "dev": [labelled] * 2, "test": [["hypothesis", "premise"]] * 2}


def test_a_train_file_without_a_folder_is_not_ignored(monkeypatch):
    """Training on the Hub's data instead would go unnoticed."""
    monkeypatch.setattr(data, "load_dataset", lambda *a, **k: Dataset.from_dict({"sentence": ["a"], "label": [1]}))
    with pytest.raises(ValueError, match="glue_dir"):
        load_task(TASKS["sst2"], ("train",), None, "train.partial.tsv")


REAL = {"cola": (8551, 1043), "sst2": (67349, 872), "mrpc": (3668, 408), "stsb": (5749, 1500), "rte": (2490, 277)}
REAL |= {"wnli": (635, 71), "mnli": (9999, 9815)}


@pytest.mark.parametrize("name", [*REAL, "ax"])
def test_real_files_have_all_rows_and_the_texts_that_pandas_reads(name):
    folder = os.environ.get("HF_LOGITMIX_DATA")
    if not folder:
        pytest.skip("HF_LOGITMIX_DATA names no folder with glue/")
    task, partial = TASKS[name], "train.partial.tsv" if name == "mnli" else None
    for split, count in zip(("test",) if name == "ax" else ("train", "dev"), REAL.get(name, (1104,)), strict=True):
        found = read(Path(folder) / "glue", name, split, train_file=partial)
        file = {"ax": "diagnostic", "mnli": {"train": "train.partial", "dev": "dev_matched"}.get(split)}.get(
            name, split
        )
        path = Path(folder) / "glue" / task.folder / f"{file}.tsv"
        names = {"header": None, "names": ["source", "label", "mark", "sentence"]} if name == "cola" else {}
        frame = pandas.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, keep_default_na=False, dtype=str, **names)
        assert len(frame) == count
        for ours, theirs in RENAMED[task.folder].items():
            assert found[ours] == frame[theirs].tolist()
        if name != "ax":
            labels = frame[LABEL_COLUMNS.get(task.folder, "label")]
            numbers = labels.astype(float) if name == "stsb" else labels.map(LABELS[task.folder])
            assert found["label"] == numbers.tolist()
