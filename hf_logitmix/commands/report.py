"""One page of HTML about runs: verdicts, tables that sort, pictures, and the command of every run.

    hf-logitmix report runs/text_study

The page needs no network and no other file. Runs are those of a sweep, of a comparison, or records that were kept.
"""

from __future__ import annotations

from pathlib import Path

from hf_logitmix.commands.parser import Parser
from hf_logitmix.evidence.comparison import compare
from hf_logitmix.evidence.page import page
from hf_logitmix.evidence.records import read_records


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = Parser("hf-logitmix report", description=__doc__)
    parser.add_argument("runs_dir", help="folder that holds the runs")
    parser.add_argument("--against", metavar="METHOD", default="vanilla", help="the baseline")
    parser.add_argument("--output", help="where to write the page [report.html in the folder]")
    options = parser.parse_args(argv)
    comparisons = compare(read_records(options.runs_dir), options.against)
    output = Path(options.output or Path(options.runs_dir) / "report.html")
    output.write_text(page(comparisons, f"Runs of {Path(options.runs_dir).resolve().name}"), encoding="utf-8")
    told = [f"{comparison.task} ({len(comparison.rows)} methods)" for comparison in comparisons]
    print(f"Wrote {output}: {', '.join(told)}.")
    return 0
