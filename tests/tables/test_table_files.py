"""A file gives what Python's csv and json modules read in it, whatever is written there; the rest is one sentence."""

import csv
import json

import datasets
import pytest

from hf_logitmix.tables.files import read_file, read_named

ROWS = [
    {"text": 'He said "no", twice', "label": "1"},
    {"text": "NA", "label": "null"},
    {"text": "two\nlines", "label": "007"},
    {"text": "2020-01-01", "label": ""},
    {"text": " naïve 电影 ", "label": "None"},
    {"text": "1.0", "label": "1e3"},
]
FLAT = [row for row in ROWS if "\n" not in row["text"]]


def write_csv(path, rows, encoding="utf-8", **options):
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_csv_is_read_as_pythons_csv_reads_it(tmp_path, encoding, ends):
    path = write_csv(tmp_path / "a.csv", ROWS, encoding, lineterminator=ends)
    with path.open(encoding="utf-8-sig", newline="") as file:
        assert read_file(path).to_list() == list(csv.DictReader(file)) == ROWS


def test_empty_lines_of_a_csv_are_left_out(tmp_path):
    (tmp_path / "a.csv").write_text("\ntext,label\n\na,1\n\n\nb,2\n\n")
    assert read_file(tmp_path / "a.csv").to_list() == [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}]


def test_a_quotation_mark_in_a_tsv_is_part_of_its_text(tmp_path):
    lines = ["text\tlabel", *(f"{row['text']}\t{row['label']}" for row in FLAT), '"unclosed\t3']
    (tmp_path / "a.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    expected = [dict(zip(("text", "label"), line.split("\t"), strict=True)) for line in lines[1:]]
    assert read_file(tmp_path / "a.tsv").to_list() == expected


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.json", "list.json"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_json_is_read_as_pythons_json_reads_it(tmp_path, name, encoding):
    rows = [*ROWS, {"text": "a key is missing"}, {"label": "2", "text": "another order"}]
    lines = [json.dumps(row) for row in rows]
    text = "[" + ",\n".join(lines) + "]" if name.startswith("list") else "\n\n".join(lines) + "\n"
    (tmp_path / name).write_text(text, encoding=encoding)
    assert read_file(tmp_path / name).to_list() == [{"text": r["text"], "label": r.get("label")} for r in rows]


def test_a_parquet_file_keeps_its_types(tmp_path):
    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    whole = datasets.Dataset.from_dict({"text": ["a", "NA"], "label": [1, 0]}, features=kinds)
    whole.to_parquet(str(tmp_path / "a.parquet"))
    found = read_file(tmp_path / "a.parquet")
    assert (found.to_list(), found.features) == (whole.to_list(), kinds)


REFUSED = {
    "a.csv": [
        (b"", "a.csv is empty: its first line names the columns"),
        (b"text,label\n", "a.csv holds no examples"),
        (b"text,label\na,1\nb,2,3\n", "a.csv cannot be read as csv: .*Expected 2 columns, got 3: b,2,3"),
        (b"text,text\na,1\n", "a.csv names the column 'text' twice"),
        (b"text,label\n\xff,1\n", "a.csv is not UTF-8"),
    ],
    "a.tsv": [(b'text\tlabel\n"a\tb"\t1\n', "a.tsv cannot be read as tsv: .*Expected 2 columns, got 3")],
    "a.jsonl": [
        (b'{"text": "a"}\n\n{"text": \n', "a.jsonl, line 3 is no JSON"),
        (b'{"text": "a"}\n[1]\n', "a.jsonl, row 2: list in the place of an object"),
        (b'{"text": "a"}\n{"text": 1}\n', "a.jsonl: column 'text' holds values of several types"),
        (b"\n", "a.jsonl holds no examples"),
    ],
    "a.json": [(b'[{"text": "a"}', "a.json is no JSON"), (b"[]", "a.json holds no examples")],
    "a.parquet": [(b"no parquet", "a.parquet cannot be read as parquet")],
    "a.xlsx": [(b"", r"validation_file='a.xlsx' ends in \.xlsx: pass a \.csv, \.tsv, \.json, \.jsonl or \.parquet")],
    "a": [(b"", "validation_file='a' ends in nothing")],
}


@pytest.mark.parametrize(("name", "content", "says"), [(n, *case) for n, cases in REFUSED.items() for case in cases])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^{says}") as error:
        read_file(tmp_path / name, "validation_file")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"test_file='.*b\.csv' is no file: pass the path of a \.csv"):
        read_file(tmp_path / "b.csv", "test_file")


def table(count):
    return datasets.Dataset.from_dict({"text": [f"text {n}" for n in range(count)], "label": [0] * count})


def test_a_folder_of_save_to_disk_and_one_in_the_hubs_layout(tmp_path):
    table(3).save_to_disk(tmp_path / "one")
    assert {name: data.to_list() for name, data in read_named(str(tmp_path / "one")).items()} == {
        "train": table(3).to_list()
    }
    several = {"train": table(3), "test": table(2)}
    datasets.DatasetDict(several).save_to_disk(tmp_path / "several")
    (tmp_path / "hub").mkdir()
    for name, data in several.items():
        data.to_json(tmp_path / "hub" / f"{name}.jsonl")
    for folder in ("several", "hub"):
        found = read_named(str(tmp_path / folder))
        assert {name: data.to_list() for name, data in found.items()} == {n: d.to_list() for n, d in several.items()}


def test_csv_files_in_the_hubs_layout_keep_what_looks_like_nothing(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS[:3])
    assert read_named(str(tmp_path))["train"].to_list() == ROWS[:3]


def test_a_dataset_that_cannot_be_loaded_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"dataset_name='nobody/nothing' could not be loaded \(.*pass an id of the Hub"
    ):
        read_named("nobody/nothing")
    table(3).save_to_disk(tmp_path / "one")
    with pytest.raises(ValueError, match="dataset_config_name='en': one was saved without configurations"):
        read_named(str(tmp_path / "one"), "en")
