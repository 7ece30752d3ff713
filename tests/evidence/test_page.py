"""The page of a report, read back by an HTML parser, and looked at in a browser where there is one."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import statistics
from html.parser import HTMLParser

import pytest
from PIL import Image

from helpers.records import write
from hf_logitmix.commands.report import main


class Reader(HTMLParser):
    """Tables as lists of rows of (text, attributes), what images hold, and every address."""

    def __init__(self):
        super().__init__()
        self.tables, self.images, self.addresses, self.open, self.depth = [], [], [], [], 0

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.addresses += [given[name] for name in ("href", "src") if name in given]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(["", given])
        elif tag == "img":
            self.images.append(given["src"])
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1][0] += data


@pytest.fixture
def runs(tmp_path):
    """Two methods and three seeds, as a sweep leaves them; one command has what HTML would read as its own."""
    for method, sharpness in (("vanilla", 4.0), ("mixup", 1.0)):
        for seed in (1, 2, 3):
            write(tmp_path, method, seed, sharpness=sharpness, words="--run_name <b>&amp;")
            folder = tmp_path / f"{method}-{seed}"
            folder.mkdir()
            for end, name in (("json", "all_results.json"), ("npz", "eval_logits.npz")):
                (found,) = tmp_path.glob(f"{method}--run*-{seed}.{end}")
                found.rename(folder / name)
            log = [{"step": step, "loss": 2.0 / step, "data_loss": 1.0 / step, "epoch": 0.1} for step in (1, 2, 3)]
            (folder / "log_history.json").write_text(json.dumps([*log, {"step": 3, "train_runtime": 1.0}]))
    return tmp_path


def test_the_page_has_every_figure_and_needs_nothing_else(runs, capsys):
    assert main([str(runs)]) == 0
    assert str(runs / "report.html") in capsys.readouterr().out
    text = (runs / "report.html").read_text(encoding="utf-8")
    page = Reader()
    page.feed(text)
    assert page.open == []
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"@import|url\(|fetch\(|https?://(?!huggingface)", text.split("<h2>")[0])
    (table,) = page.tables
    heads = [cell for cell, _ in table[0]]
    assert heads[:3] == ["method", "accuracy", "ECE"]
    assert [row[0][0] for row in table[1:]] == ["vanilla", "mixup"]
    for row in table[1:]:
        records = [json.loads((runs / f"{row[0][0]}-{seed}" / "all_results.json").read_text()) for seed in (1, 2, 3)]
        for head, name in (("ECE", "eval_ece"), ("NLL scaled", "eval_nll_scaled")):
            values = [record[name] for record in records]
            shown, given = row[heads.index(head)]
            assert float(given["data-value"]) == pytest.approx(statistics.mean(values))
            assert shown.startswith(f"{statistics.mean(values):.3f} \u00b1 {statistics.stdev(values):.3f}")
    assert table[2][heads.index("ECE")][1]["class"] == "better"
    assert "class" not in table[1][heads.index("ECE")][1]
    pictures = [Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))) for source in page.images]
    assert len(pictures) == 6
    assert all(picture.format == "PNG" and min(picture.size) > 100 for picture in pictures)
    assert text.count("--run_name &lt;b&gt;&amp;amp;") == 6


def test_runs_without_logits_and_logs_have_what_their_records_have(tmp_path):
    for seed in (1, 2):
        write(tmp_path, "vanilla", seed, logits=False)
        write(tmp_path, "mixup", seed, logits=False)
    assert main([str(tmp_path), "--output", str(tmp_path / "own.html")]) == 0
    page = Reader()
    page.feed((tmp_path / "own.html").read_text(encoding="utf-8"))
    assert len(page.images) == 3  # distances, and accuracy against NLL before and after scaling


@pytest.mark.slow
def test_a_click_on_a_head_sorts(runs):
    """In Chromium, where playwright and the browser are installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    main([str(runs)])
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=shutil.which("chromium"))  # else playwright's own
        except playwright.Error as error:
            pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
        page = browser.new_page()
        problems = []
        page.on("pageerror", lambda error: problems.append(error))  # playwright needs a function
        page.goto((runs / "report.html").as_uri())
        first = [page.locator("tbody tr:first-child td:first-child").inner_text()]
        for _ in range(2):
            page.get_by_role("button", name="ECE", exact=True).click()
            first.append(page.locator("tbody tr:first-child td:first-child").inner_text())
        browser.close()
    assert (first, problems) == (["vanilla", "mixup", "vanilla"], [])
