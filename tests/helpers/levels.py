"""What holds at each level of a model, against its own plain forwards: the checks behind the tables in docs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from hf_logitmix import MixPlan, mixed_forward
from hf_logitmix.mixing import Linear
from hf_logitmix.modalities.layers import layers_of, levels
from hf_logitmix.training.rehearsal import rehearse

TOLERANCE = 2e-3  # of the spread of the logits
LINEAR = "linear"  # the verdict on a level whose mixed logits are the mixed logits of LogitMix by themselves
RAISED = {"no hook": "never called", "pools before its head": "the head scores every token"}


def gap(a: Tensor, b: Tensor, spread: Tensor) -> float:
    """The largest difference, as a share of how much the logits of different examples differ."""
    return ((a - b).abs().max() / spread.std(0).max().clamp_min(1e-6)).item()


@torch.no_grad()
def fault(model: nn.Module, inputs: Mapping[str, Any], clean: Tensor, level: str, rows: Any) -> str:
    """What does not hold at a level, or nothing: every other row is mixed with lam = 1, the rest with lam = 0."""
    count = len(clean)
    partner, own = torch.arange(count).roll(1), torch.arange(count) % 2 == 0
    try:
        output = mixed_forward(model, inputs, MixPlan(partner, own.float()), mixing=Linear(level=level), rows=rows)
    except (RuntimeError, ValueError) as error:
        known = [reason for text, reason in RAISED.items() if text in str(error)]
        if not known:
            raise
        return known[0]
    gaps = {
        "the clean rows change": 0.0 if output.logits is None else gap(output.logits, clean, clean),
        "lam = 1 is not the row itself": gap(output.mixed_logits[own], clean[own], clean),
        "lam = 0 is not the partner": gap(output.mixed_logits[~own], clean[partner][~own], clean),
    }
    return next((name for name, off in gaps.items() if not off < TOLERANCE), "")


@torch.no_grad()
def is_linear(model: nn.Module, inputs: Mapping[str, Any], clean: Tensor, level: str) -> bool:
    """Whether the logits of what is mixed there are the mixed logits, so that LogitMix has no similarity to teach."""
    partner = torch.arange(len(clean)).roll(1)
    plan = MixPlan(partner, torch.full((len(clean),), 0.5))
    mixed = mixed_forward(model, inputs, plan, mixing=Linear(level=level)).mixed_logits
    return gap(mixed, (clean + clean[partner]) / 2, clean) < TOLERANCE


def verdicts(model: nn.Module, inputs: Mapping[str, Any], clean: Tensor) -> dict[str, str]:
    """Of each level: nothing where all holds, `LINEAR`, or what does not hold; the rehearsal must say the same.

    It is asked with both rows at one level, and with mixed ones alone at the next.
    """
    where = layers_of(model)
    found = {}
    for number, level in enumerate([*levels(where), *(["pooled"] if where.head else [])]):
        faults = {rows: fault(model, inputs, clean, level, rows) for rows in ("both", "mixed")}
        teaches_nothing = not any(faults.values()) and is_linear(model, inputs, clean, level)
        rows = ("both", "mixed")[number % 2]
        warns = teaches_nothing and rows == "both" and level != "pooled"
        check_rehearsal(model, inputs, level, rows, faults[rows], warns)
        found[level] = faults["both"] or faults["mixed"] or (LINEAR if teaches_nothing else "")
    return found


def check_rehearsal(model: nn.Module, inputs: Mapping[str, Any], level: str, rows: Any, what: str, warns: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            rehearse(model, inputs, Linear(level=level), rows)
            refused = ""
        except ValueError as error:
            refused = str(error)
    assert bool(refused) == bool(what), (
        f"{level}, rows={rows}: {what or 'holds'}, and the rehearsal: {refused or 'holds'}"
    )
    warned = any("linear head" in str(warning.message) for warning in caught)
    assert warned == warns, f"{level}: linear {warns}, and the rehearsal: {warned}"


def columns(found: Mapping[str, str]) -> str:
    """Two columns of a table: the levels that hold, and those that do not."""
    holds, fails = [], []
    for (_, verdict), group in groupby(found.items(), key=lambda item: (item[0].startswith("hidden"), item[1])):
        names = [name for name, _ in group]
        text = f"{names[0]} to {names[-1]}" if len(names) > 2 else ", ".join(names)
        if verdict in ("", LINEAR):
            holds.append(text + (f" ({LINEAR})" if verdict else ""))
        else:
            fails.append(f"{text}: {verdict}")
    return f"{', '.join(holds)} | {'; '.join(fails)}"


def rows_of(table: str) -> dict[str, str]:
    """The rows of the tables in a document, by their first column."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    heads = {lines[number - 1] for number, line in enumerate(lines) if line.startswith("| --- ")}
    return {line.split("|")[1].strip(): line for line in lines if line not in heads and not line.startswith("| --- ")}


def check_row(row: str, table: Mapping[str, str], is_of_this_version: bool, elsewhere: Mapping[str, str]) -> None:
    """A row must be the one in the table, whichever versions are installed, but for the differences that are named.

    Args:
        row: as it is found here.
        table: rows by their first column.
        is_of_this_version: whether the table was written with the versions that are installed.
        elsewhere: rows by their first column that other versions than the table's may have instead.
    """
    name = row.split("|")[1].strip()
    if is_of_this_version:
        assert row == table.get(name), "write the table anew"
    elif name in table:
        assert row in (table[name], elsewhere.get(name)), f"the table says {table[name]}"
