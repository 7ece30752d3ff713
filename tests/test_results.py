"""Tables of the study in the pages, against plain means of the records; and that they are as they would be written."""

from __future__ import annotations

import json
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "glue_runs" / "results"
TABLES = [
    (study, task, re.findall(r'"([^"]+)"', methods), metrics.split(), rows)
    for page in sorted((ROOT / "docs").glob("*.md"))
    for study, task, methods, metrics, rows in re.findall(
        r'<!-- comparison (\S+) (\S+)((?: "[^"]+")*): ([\w ]+) -->\n(.*?)<!-- end of comparison -->',
        page.read_text(),
        re.DOTALL,
    )
]


def method_of(run):
    """As the sweep's file writes it: what follows --method in the command line, to the end of the method's options."""
    words = shlex.split(run["command"])
    own = words[words.index("--method") + 1 :]
    behind = ("--glue_dir", "--dataset", "--disable_tqdm", "--resume_from_checkpoint")  # which train the same run
    shared = next(at for at, word in enumerate([*own, "--glue_dir"]) if word in behind)
    return " ".join(own[:shared])


@pytest.mark.parametrize(
    ("study", "task", "methods", "metrics", "text"), TABLES, ids=[f"{s}-{t}" for s, t, *_ in TABLES]
)
def test_the_tables_of_the_study_are_means_of_its_records(study, task, methods, metrics, text):
    runs = [json.loads(path.read_text()) for path in (RESULTS / study).glob("*/all_results.json")]
    runs = [run for run in runs if run["task"] == task]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    shown = {row[0]: row[1:] for row in rows[2:]}
    assert set(shown) == set(methods or map(method_of, runs))
    assert not methods or next(iter(shown)) == methods[0]
    for method, cells in shown.items():
        own = [run for run in runs if method_of(run) == method]
        for name, cell in zip(metrics, cells, strict=False):
            assert cell.split(",")[0] == f"{statistics.fmean(run[f'eval_{name}'] for run in own):.3f}"
        assert cells[-1] == str(len({run["seed"] for run in own})) == str(len(own))
        assert {run["git"]["clean"] for run in own} == {True}


def test_there_are_tables_of_the_study():
    assert {"sst2"} <= {task for _, task, *_ in TABLES}


@pytest.mark.slow
def test_the_pages_are_what_the_records_say():
    script = [sys.executable, ROOT / "scripts" / "write_results.py", "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
