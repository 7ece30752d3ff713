"""Write the tables, screens and pictures of the pages that are made of the records in glue_runs/results.

    python scripts/write_results.py           # writes
    python scripts/write_results.py --check   # exits with 1 where a table is not as it would be written

A table stands between `<!-- comparison STUDY TASK: METRIC ... -->` and `<!-- end of comparison -->`; with names in
quotes behind TASK it is of these methods alone, against the first of them and not vanilla. A screen stands between
`<!-- screen STUDY TASK -->`, with names alike, and `<!-- end of screen -->`. A page that names
docs/images/STUDY__TASK.png has that drawn.
"""

from __future__ import annotations

import argparse
import re
import sys
from functools import cache
from pathlib import Path

from hf_logitmix.evidence.comparison import Comparison, Samples, compare, samples_of
from hf_logitmix.evidence.grids import markdown, side_by_side
from hf_logitmix.evidence.plots import forest
from hf_logitmix.evidence.records import Record, read_records
from hf_logitmix.evidence.verdict import screen

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DOCS = ROOT / "glue_runs" / "results", ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
_TABLE = re.compile(
    r'(<!-- comparison (\S+) (\S+)((?: "[^"]+")*): ([\w ]+) -->\n).*?(<!-- end of comparison -->)', re.DOTALL
)
_SCREEN = re.compile(r'(<!-- screen (\S+) (\S+)((?: "[^"]+")*) -->\n).*?(<!-- end of screen -->)', re.DOTALL)


@cache
def comparison_of(study: str, task: str, methods: tuple[str, ...] = ()) -> Comparison:
    """One task of a study, against vanilla; or some of its methods, against the first of them."""
    runs, samples = runs_of(study, task)
    (found,) = compare(runs, *((methods[0], methods[1:]) if methods else ()), samples=samples)
    return found


@cache
def runs_of(study: str, task: str) -> tuple[list[Record], Samples]:
    """The runs of one task of a study, and bootstrap samples of each, which are drawn once for all tables."""
    runs = [run for run in read_records(RESULTS / study) if run.values["task"] == task]
    return runs, samples_of(runs)


def written(page: str) -> str:
    """A page with what it shows of the records."""

    def table(found: re.Match[str]) -> str:
        start, study, task, methods, metrics, end = found.groups()
        comparison = comparison_of(study, task, _quoted(methods))
        made = f"{comparison.title}.\n\n{markdown(side_by_side(comparison, metrics.split()))}"
        return f"{start}{made}\n{end}"

    def on_screen(found: re.Match[str]) -> str:
        start, study, task, methods, end = found.groups()
        return f"{start}```text\n{screen(comparison_of(study, task, _quoted(methods)))}\n```\n{end}"

    return _SCREEN.sub(on_screen, _TABLE.sub(table, page))


def _quoted(names: str) -> tuple[str, ...]:
    return tuple(re.findall(r'"([^"]+)"', names))


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and exit with 1 where a page is stale")
    is_check, status = parser.parse_args().check, 0
    for path in PAGES:
        old = path.read_text(encoding="utf-8")
        new = written(old)
        if new == old:
            continue
        status = 1
        if is_check:
            print(f"{path.relative_to(ROOT)} is stale: run scripts/write_results.py")
        else:
            path.write_text(new, encoding="utf-8")
            print(f"{path.relative_to(ROOT)} written")
    if is_check:
        return status
    pictures = {found for path in PAGES for found in re.findall(r"images/(\w+?)__([\w-]+)\.png", path.read_text())}
    for study, task in sorted(pictures):
        metrics = ["accuracy", "nll", "nll_scaled", "ece", "aurc"]
        forest(comparison_of(study, task), metrics).savefig(DOCS / "images" / f"{study}__{task}.png", dpi=130)
        print(f"docs/images/{study}__{task}.png drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
