"""Tables as text, read back."""

import csv
import io

from hf_logitmix.evidence.grids import Grid, comma_separated, latex, markdown

GRID = Grid(["method", "50%"], [["label_smoothing", "0.1 \u00b1 0.2"], ['a, "b"', "< .001"]])


def test_csv_reads_as_what_was_written():
    assert list(csv.reader(io.StringIO(comma_separated(GRID)))) == [GRID.head, *GRID.rows]


def test_markdown_has_a_rule_below_the_head():
    assert markdown(GRID).splitlines()[:2] == ["| method | 50% |", "| --- | --- |"]


def test_latex_has_nothing_in_it_that_latex_reads_otherwise():
    assert latex(GRID).splitlines() == [
        r"\begin{tabular}{ll}",
        r"\toprule",
        r"method & 50\% \\",
        r"\midrule",
        r"label\_smoothing & 0.1 $\pm$ 0.2 \\",
        r'a, "b" & $<$ .001 \\',
        r"\bottomrule",
        r"\end{tabular}",
    ]
