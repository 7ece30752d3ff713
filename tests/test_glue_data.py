"""Reading GLUE folders: files written here in each task's layout, read back, and real files against pandas."""

import csv
import logging
import os
from pathlib import Path

import pandas
import pytest
from datasets import Dataset

from glue_runs import data
from glue_runs.data import load_task
from glue_runs.tasks import TASKS

_PARSES = "sentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
_NLI = f"index\tpromptID\tpairID\tgenre\t{_PARSES}\tsentence1\tsentence2"
_NLI_ROW = "0\t31193\t31193n\tgovernment\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tA premise.\tIts hypothesis."
_STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
_STSB_ROW = "0\tmain-captions\tMSRvid\t2012test\t0001\tnone\tnone\tA plane.\tAn air plane."
_NLI_TEXTS = {"premise": ["A premise."], "hypothesis": ["Its hypothesis."]}
_PAIR = {"sentence1": ["A plane."], "sentence2": ["An air plane."]}
_QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"

# task, split, file, content as in the classic download, what it says
LAYOUTS = [
    (
        "cola",
        "train",
        "CoLA/train.tsv",
        "gj04\t0\t*\tThey made him to.\n",
        {"sentence": ["They made him to."], "label": [0]},
    ),
    ("cola", "dev", "CoLA/dev.tsv", "gj04\t1\t\tHe left.\n", {"sentence": ["He left."], "label": [1]}),
    ("cola", "test", "CoLA/test.tsv", "index\tsentence\n0\tHe left.\n", {"sentence": ["He left."]}),
    ("sst2", "train", "SST-2/train.tsv", "sentence\tlabel\nno wit \t0\n", {"sentence": ["no wit "], "label": [0]}),
    ("sst2", "dev", "SST-2/dev.tsv", "sentence\tlabel\na joy \t1\n", {"sentence": ["a joy "], "label": [1]}),
    ("sst2", "test", "SST-2/test.tsv", "index\tsentence\n0\ta joy\n", {"sentence": ["a joy"]}),
    *(
        (
            *("mrpc", split, f"MRPC/{split}.tsv"),
            "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t70\t71\tA plane.\tAn air plane.\n",
            {**_PAIR, "label": [1]},
        )
        for split in ("train", "dev")
    ),
    (
        "mrpc",
        "test",
        "MRPC/test.tsv",
        "\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\tA plane.\tAn air plane.\n",
        _PAIR,
    ),
    ("stsb", "train", "STS-B/train.tsv", f"{_STSB}\tscore\n{_STSB_ROW}\t3.800\n", {**_PAIR, "label": [3.8]}),
    ("stsb", "dev", "STS-B/dev.tsv", f"{_STSB}\tscore\n{_STSB_ROW}\t0\n", {**_PAIR, "label": [0.0]}),
    ("stsb", "test", "STS-B/test.tsv", f"{_STSB}\n{_STSB_ROW}\n", _PAIR),
    (
        "qqp",
        "train",
        "QQP/train.tsv",
        f"{_QQP}\n5\t9\t8\tWhy?\tHow?\t1\n",
        {"question1": ["Why?"], "question2": ["How?"], "label": [1]},
    ),
    (
        "qqp",
        "test",
        "QQP/test.tsv",
        "id\tquestion1\tquestion2\n0\tWhy?\tHow?\n",
        {"question1": ["Why?"], "question2": ["How?"]},
    ),
    (
        "mnli",
        "train",
        "MNLI/train.tsv",
        f"{_NLI}\tlabel1\tgold_label\n{_NLI_ROW}\tneutral\tcontradiction\n",
        {**_NLI_TEXTS, "label": [2]},
    ),
    (
        *("mnli", "dev", "MNLI/dev_matched.tsv"),
        f"{_NLI}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n{_NLI_ROW}" + "\tentailment" * 5 + "\tneutral\n",
        {**_NLI_TEXTS, "label": [1]},
    ),
    ("mnli", "test", "MNLI/test_matched.tsv", f"{_NLI}\n{_NLI_ROW}\n", _NLI_TEXTS),
    (
        *("qnli", "train", "QNLI/train.tsv", "index\tquestion\tsentence\tlabel\n0\tWho?\tHe.\tentailment\n"),
        {"question": ["Who?"], "sentence": ["He."], "label": [0]},
    ),
    (
        "qnli",
        "test",
        "QNLI/test.tsv",
        "index\tquestion\tsentence\n0\tWho?\tHe.\n",
        {"question": ["Who?"], "sentence": ["He."]},
    ),
    (
        "rte",
        "train",
        "RTE/train.tsv",
        "index\tsentence1\tsentence2\tlabel\n0\tA plane.\tAn air plane.\tnot_entailment\n",
        {**_PAIR, "label": [1]},
    ),
    ("rte", "test", "RTE/test.tsv", "index\tsentence1\tsentence2\n0\tA plane.\tAn air plane.\n", _PAIR),
    (
        "wnli",
        "train",
        "WNLI/train.tsv",
        "index\tsentence1\tsentence2\tlabel\n0\tA plane.\tAn air plane.\t1\n",
        {**_PAIR, "label": [1]},
    ),
    ("wnli", "test", "WNLI/test.tsv", "index\tsentence1\tsentence2\n0\tA plane.\tAn air plane.\n", _PAIR),
    (
        "ax",
        "test",
        "diagnostic/diagnostic.tsv",
        "index\tsentence1\tsentence2\n0\tA premise.\tIts hypothesis.\n",
        _NLI_TEXTS,
    ),
]


def write(folder, name, content):
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(folder, task="sst2", split="train", **more):
    ((_, found),) = load_task(TASKS[task], (split,), str(folder), **more)[split]
    return found.to_dict()


@pytest.mark.parametrize(
    ("task", "split", "name", "content", "expected"), LAYOUTS, ids=lambda v: v if "/" in str(v)[:20] else ""
)
def test_every_layout_of_the_classic_download(tmp_path, task, split, name, content, expected):
    write(tmp_path, name, content)
    assert read(tmp_path, task, split) == expected


@pytest.mark.parametrize(
    "text",
    [
        '" a quote that never ends', '"quoted"', 'he said "no" .', "it 's '", "NA", "null", "nan", "None", "", " both ends ",
        "line\u2028separator", "paragraph\u2029separator", "next\x85line", "form\x0cfeed", "file\x1cseparator", "lone\rreturn",
        "na\u00efve \u4e2d \U0001f600", "#not a comment", "\\n", "\ufeffmark inside",
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_is_kept_to_the_character(tmp_path, text, end):
    lines = ["sentence\tlabel", f"{text}\t1", "after\t0"]
    write(tmp_path, "SST-2/train.tsv", end.join([*lines, ""]))
    assert read(tmp_path) == {"sentence": [text, "after"], "label": [1, 0]}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_byte_order_mark_crlf_and_a_last_line_without_end(tmp_path, mark, end):
    """In a file without a header, where a mark would stick to the first field, and where the text comes last."""
    write(tmp_path, "CoLA/dev.tsv", f"{mark}gj04\t1\t\tfirst {end}gj04\t0\t*\tsecond{end}gj04\t1\t\tthird")
    assert read(tmp_path, "cola", "dev") == {"sentence": ["first ", "second", "third"], "label": [1, 0, 1]}
    write(tmp_path, "WNLI/dev.tsv", f"{mark}sentence1\tsentence2\tlabel{end}a\tb\t1{end}c\td\t0")
    assert read(tmp_path, "wnli", "dev") == {"sentence1": ["a", "c"], "sentence2": ["b", "d"], "label": [1, 0]}


def mnli(folder, *names):
    for name in names:
        write(folder, f"MNLI/{name}.tsv", f"sentence1\tsentence2\tgold_label\n{name}\tb\tneutral\n")
    return load_task(TASKS["mnli"], ("dev",), str(folder))["dev"]


def test_mnli_reads_both_dev_sets(tmp_path, caplog):
    parts = mnli(tmp_path, "dev_matched", "dev_mismatched")
    assert [(split.suffix, found["premise"]) for split, found in parts] == [
        ("", ["dev_matched"]),
        ("_mm", ["dev_mismatched"]),
    ]
    assert not caplog.records


def test_mnli_without_the_mismatched_set_warns(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        parts = mnli(tmp_path, "dev_matched")
    assert [found["premise"] for _, found in parts] == [["dev_matched"]]
    (record,) = caplog.records
    assert "dev_mismatched.tsv" in record.getMessage()


def test_mnli_without_the_matched_set_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dev_matched\.tsv"):
        mnli(tmp_path, "dev_mismatched")


def test_broken_rows_of_qqp_are_skipped_and_counted(tmp_path, caplog):
    rows = ["1\t2\t3\ta\tb\t1", "4\t5\t6\tcut", "7\t8\t9\tc\td\t0", "", "1\t2\t3\tone\ttoo\tmany\t0"]
    write(tmp_path, "QQP/train.tsv", "\n".join([_QQP, *rows, ""]))
    with caplog.at_level(logging.WARNING):
        found = read(tmp_path, "qqp")
    assert found == {"question1": ["a", "c"], "question2": ["b", "d"], "label": [1, 0]}
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
    path = write(tmp_path, "elsewhere/mine.tsv", "sentence\tlabel\nby path\t0\n")
    dev = write(tmp_path, "SST-2/dev.tsv", "sentence\tlabel\ndev\t0\n")
    assert read(tmp_path, train_file="train.partial.tsv")["sentence"] == ["by name"]
    assert read(tmp_path, train_file=str(path))["sentence"] == ["by path"]
    assert read(tmp_path, split="dev", train_file=str(path))["sentence"] == ["dev"]
    assert dev.is_file()
