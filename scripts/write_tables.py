"""Write what follows from the options of the methods: fields of the command line, and tables of the pages.

    python scripts/write_tables.py           # writes
    python scripts/write_tables.py --check   # exits with 1 where something is not as it would be written

The fields of `MixTrainingArguments`, the table of methods in README.md, in docs/methods the tables of hyperparameters
(their column "in the paper" is written by hand and kept) and the list of options that only Python sets,
docs/papers.md from these, `hf_logitmix.papers` and the heads of the sweeps of papers, the table of metrics in
docs/calibration.md, that of the toy in docs/figures.md, and the tables of ratios in docs/performance.md, from the
records in benchmarks.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from dataclasses import fields
from pathlib import Path

from transformers import TrainingArguments

from hf_logitmix.calibration.registry import METRICS
from hf_logitmix.commands.methods import in_short, rows_of, values_of
from hf_logitmix.commands.sweep import CONFIGS
from hf_logitmix.criteria import CRITERIA
from hf_logitmix.method import Method
from hf_logitmix.methods import METHODS
from hf_logitmix.options import options_of
from hf_logitmix.papers import TEMPERATURE, Paper
from hf_logitmix.toy.command import entries, folder_of

ROOT = Path(__file__).resolve().parents[1]
ARGUMENTS = ROOT / "hf_logitmix" / "training" / "arguments.py"
README = ROOT / "README.md"
CALIBRATION = ROOT / "docs" / "calibration.md"
PAPERS = ROOT / "docs" / "papers.md"
FIGURES = ROOT / "docs" / "figures.md"
TOY = ROOT / "glue_runs" / "results" / "toy"
PERFORMANCE = ROOT / "docs" / "performance.md"
PAGES = ROOT / "docs" / "methods"
BEGIN, END = "    # options of the methods, written by scripts/write_tables.py", "    # end of the options"
PAPERS_HEAD = """# Papers

Which papers a method is from, a command that trains with it, and the values that its page quotes, with their place in
the paper. What a command sets is ours unless its page says otherwise. BibTeX entries are in `hf_logitmix.papers`
(`get_method("mixup").papers[0].bibtex`) and in the card of each model. This page is written by
`scripts/write_tables.py`."""
TABLES_HEAD = """\
A sweep for each, with the settings that its source states. The head of a file says which value is from where, and
which are ours because the source does not give them. None of them has been run in this repository.
`hf-logitmix table` makes the table of runs, and `hf-logitmix figure --list` tells what can be drawn of them.
Translation, of which the label smoothing study has results too, is not covered: no method here is for sequences."""
# page and paper of what goes with every method
TOOLS = {"temperature scaling": ("methods/temperature_scaling.md", TEMPERATURE)}
WHOLE = {field.name: field.metadata["help"] for field in fields(Method) if "help" in field.metadata}
# annotations of options -> those of a command line
TYPES = {
    "str": "str",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "Distribution": "str",
    "Criterion": "str",
    "float | str": "str",
    "Masks": "str",
    "str | Path | nn.Module": "str",
    "Sequence[float]": "list[float]",
}


def command_line() -> dict[str, tuple[str, str]]:
    """Name -> type and help of every option of a method in the table that a command line can set.

    Raises:
        ValueError: for two options of one name that do not mean the same, or one that `TrainingArguments` has.
    """
    found: dict[str, tuple[str, str]] = {}
    of_methods = (option for method in METHODS.values() for option, _ in values_of(method))
    of_criteria = (option for criterion in CRITERIA.values() for option in options_of(criterion, "criterion"))
    for option in (*of_methods, *of_criteria):
        metadata = option.field.metadata
        if not metadata.get("command_line", True):
            continue
        kind = str(option.field.type).removesuffix(" | None")
        if kind not in TYPES or "help" not in metadata:
            raise ValueError(
                f"{option.full_name} ({kind}) needs a type of {list(TYPES)} and a help, or command_line=False."
            )
        told = (TYPES[kind], metadata["help"])
        if found.setdefault(option.name, told) != told:
            raise ValueError(f"{option.name} means two things: {found[option.name]} and {told}.")
    found |= {name: ("str", told) for name, told in WHOLE.items()}
    if taken := found.keys() & {field.name for field in fields(TrainingArguments)}:
        raise ValueError(f"{', '.join(taken)}: TrainingArguments has a field of this name.")
    return found


def arguments() -> str:
    """The fields of `MixTrainingArguments`."""
    lines = []
    for name, (kind, told) in command_line().items():
        line = f'    {name}: {kind} | None = field(default=None, metadata={{"help": {quoted(told)}}})'
        if len(line) > 120:
            line = (
                f'    {name}: {kind} | None = field(\n        default=None, metadata={{"help": {quoted(told)}}}\n    )'
            )
        if any(len(part) > 120 for part in line.split("\n")):
            line = (
                f"    {name}: {kind} | None = field(\n        default=None,\n"
                f'        metadata={{"help": {quoted(told)}}},\n    )'
            )
        lines.append(line)
    return "\n".join(lines)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def methods() -> str:
    """The table of README.md: each method with its five choices, as one would write them."""
    rows = [
        "| name | pairing | mixing | objective | targets | rows of a step |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    names: dict[str, list[str]] = {}
    for name in METHODS:
        names.setdefault(page_of(name), []).append(name)
    for page, (name, *others) in names.items():
        method = METHODS[name]
        both = ", ".join([f"[`{name}`](docs/methods/{page}.md)", *map(code, others)])
        cells = [in_short(part) if method.mixes else "" for part in (method.pairing, method.mixing)]
        compared = [part for part in (method.objective, method.criterion) if part is not None]
        cells = [
            *map(code, cells),
            ", ".join(code(in_short(part)) for part in compared),
            code(in_short(method.targets)),
        ]
        rows.append(f"| {both} | {' | '.join(cells)} | {rows_of(method)} |")
    return "\n".join(rows)


def metrics() -> str:
    """The table of docs/calibration.md."""
    rows = ["| metric | better | what it is |", "| --- | --- | --- |"]
    for name, metric in METRICS.items():
        rows.append(f"| `{name}` | {'higher' if metric.higher_is_better else 'lower'} | {metric.told} |")
    return "\n".join(rows)


def costs(page: str) -> str:
    """docs/performance.md with the ratios of each record that it names."""
    for name in re.findall(r"<!-- (\w+)\.json -->", page):
        record = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())
        rows = record["ratios"].values()
        has_memory = any("memory" in row for row in rows)
        head = ["ratio", "median", "quartiles", "goal", *(["memory"] if has_memory else [])]
        lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
        for what, row in record["ratios"].items():
            low, high = row["quartiles"]
            goal = (
                ""
                if row["goal"] is None
                else f"≤ {row['goal']:.2f}{'' if row['median'] <= row['goal'] else ', missed'}"
            )
            median = f"{row['median']:.2f}"
            memory = [f"{row['memory']:.2f}"] if has_memory else []
            lines.append(f"| {' | '.join([what, median, f'{low:.2f} to {high:.2f}', goal, *memory])} |")
        made = f"{record['what']}; {record['device']}, torch {record['versions']['torch']}."
        page = between(page, f"<!-- {name}.json -->", f"<!-- end of {name}.json -->", f"{made}\n\n" + "\n".join(lines))
    return page


def toy() -> str:
    """The table of docs/figures.md, from the records of the toy, in the order in which it trains."""
    rows = ["| method | accuracy | ECE | NLL | NLL scaled |", "| --- | --- | --- | --- | --- |"]
    for entry in entries():
        record = json.loads((TOY / f"{folder_of(entry, 0)}.json").read_text())
        cells = " | ".join(f"{record[f'eval_{key}']:.3f}" for key in ("accuracy", "ece", "nll", "nll_scaled"))
        rows.append(f"| `{entry}` | {cells} |")
    return "\n".join(rows)


def page_of(name: str) -> str:
    """The page of a method; two names of one method share that of the first.

    Raises:
        FileNotFoundError: for a method without one.
    """
    alike = (other for other, method in METHODS.items() if method == METHODS[name] and has_page(other))
    if (page := next(alike, None)) is None:
        raise FileNotFoundError(f"docs/methods/{name}.md is missing: every method has its page.")
    return page


def has_page(name: str) -> bool:
    return (PAGES / f"{name}.md").exists()


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def hyperparameters(page: str, method: Method) -> str:
    """A page with its table of hyperparameters anew; of the old one the column "in the paper" is kept."""
    before, title, rest = page.partition("## Hyperparameters\n")
    lines = rest.split("\n")
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    last = next(number for number in range(first, len(lines)) if not lines[number].startswith("|"))
    old = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first:last]]
    kept = {name: paper for name, _, paper, *_ in old}
    rows = ["| name | our default | in the paper | what it does |", "| --- | --- | --- | --- |"]
    found = [(option.name, value, option.field.metadata["help"]) for option, value in values_of(method)]
    found += [(name, None, told) for name, told in WHOLE.items() if getattr(method, name) is None]
    for name, value, told in found:
        rows.append(f"| `{name}` | `{value!r}` | {kept.get(code(name), '')} | {told.rstrip('.')} |")
    return "\n".join([before + title + "\n".join(lines[:first]), *rows, *lines[last:]])


def index_of_papers() -> str:
    """docs/papers.md: of each method its papers, and the command and the quotes of its page; then the other papers."""
    shown, told = [PAPERS_HEAD], set()
    for name in dict.fromkeys(map(page_of, METHODS)):
        method, page = METHODS[name], (PAGES / f"{name}.md").read_text()
        if not method.papers:
            continue
        told |= set(method.papers)
        command = page.split("```bash\n")[1].split("```")[0].strip()
        quotes = [(row[0], row[2]) for row in table_of(page) if any(letter.isdigit() for letter in row[2])]
        shown.append(f"## [{name}](methods/{name}.md)")
        shown.append("\n".join(f"* {full(paper)}" for paper in method.papers))
        shown.append(f"```bash\n{command}\n```")
        if quotes:
            rows = "\n".join(f"| {option} | {quote} |" for option, quote in quotes)
            shown.append(f"| option | in the paper |\n| --- | --- |\n{rows}")
    shown += ["## Their tables and figures", TABLES_HEAD, sweeps_of_papers()]
    shown.append("## Without a method of their own")
    others = [(f"`--criterion {name}`", paper) for name, part in CRITERIA.items() for paper in part.papers]
    others += [(f"[{name}]({page})", paper) for name, (page, paper) in TOOLS.items()]
    shown.append("\n".join(f"* {what}: {full(paper)}" for what, paper in others if paper not in told))
    return "\n\n".join(shown) + "\n"


def sweeps_of_papers() -> str:
    """Each table of a paper with the sweep that runs it, from the first two lines of the sweep's file."""
    rows = ["| table or figure | command | needs |", "| --- | --- | --- |"]
    for path in sorted(CONFIGS.glob("paper_*.yaml")):
        what, needs = (line.removeprefix("# ") for line in path.read_text().split("\n")[:2])
        file = f"[`{path.stem}`](../{path.relative_to(ROOT).as_posix()})"
        needs = needs.split(". ")[0].removeprefix("Needs ").rstrip(".")
        rows.append(f"| {what.rstrip('.')} | `hf-logitmix sweep` {file} | {needs} |")
    return "\n".join(rows)


def full(paper: Paper) -> str:
    """A paper with all its authors and its link."""
    where = f"{paper.venue} {paper.year}".strip()
    note = f": {paper.note}" if paper.note else ""
    return f"{', '.join(paper.authors)}: [{paper.title}]({paper.url}), {where}{note}"


def table_of(page: str) -> list[list[str]]:
    """The rows of a page's table of hyperparameters."""
    lines = page.partition("## Hyperparameters\n")[2].split("\n")
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[first + 2 :])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def only_python(page: str) -> str:
    """The overview with the options that no command line sets."""
    every = {option.name for method in METHODS.values() for option, _ in values_of(method)} - command_line().keys()
    names = ", ".join(f"`{name}`" for name in sorted(every))
    return re.sub(r"(which only\s+Python sets:).*?\.\n", rf"\1\n{names}.\n", page, count=1, flags=re.DOTALL)


def between(text: str, start: str, end: str, new: str) -> str:
    before, rest = text.split(start)
    return before + start + "\n" + new + "\n" + end + rest.split(end)[1]


def written() -> dict[Path, str]:
    """Every file that follows from the options, as it should be."""
    files = {
        ARGUMENTS: between(ARGUMENTS.read_text(), BEGIN, END, arguments()),
        README: between(README.read_text(), "<!-- methods -->", "<!-- end of methods -->", methods()),
        PERFORMANCE: costs(PERFORMANCE.read_text()),
        CALIBRATION: between(CALIBRATION.read_text(), "<!-- metrics -->", "<!-- end of metrics -->", metrics()),
        PAGES / "README.md": only_python((PAGES / "README.md").read_text()),
    }
    files[PAPERS] = index_of_papers()
    files[FIGURES] = between(FIGURES.read_text(), "<!-- toy -->", "<!-- end of toy -->", toy())
    for name, method in METHODS.items():
        path = PAGES / f"{page_of(name)}.md"
        files[path] = hyperparameters(path.read_text(), method)
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and exit with 1 where a file is stale")
    stale = [path for path, text in written().items() if not path.exists() or path.read_text() != text]
    if parser.parse_args().check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run scripts/write_tables.py")
        return 1 if stale else 0
    for path in stale:
        path.write_text(written()[path])
        print(f"{path.relative_to(ROOT)} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
