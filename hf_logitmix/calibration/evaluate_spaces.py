"""A folder for a Space of the Hub, from which `evaluate.load` gets one of our modules. Nothing is pushed."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData

from hf_logitmix.calibration.evaluate_modules import Calibration, module
from hf_logitmix.calibration.registry import METRICS

ALL = "calibration"  # the module of all metrics
GRADIO = "6.31.0"  # which runs app.py
_PREDICTIONS, _REFERENCES = [[2.0, 0.0], [0.0, 1.0], [0.5, 0.0]], [0, 1, 1]

_SCRIPT = '''"""{told}"""

from hf_logitmix.calibration.evaluate_modules import {imported}
{made}'''

_APP = '''"""What the Space shows: logits and class ids go in, the metric comes out."""

import json

import gradio

from {name} import Metric


def compute(predictions, references, n_bins):
    return Metric(n_bins=int(n_bins)).compute(
        predictions=json.loads(predictions), references=json.loads(references)
    )


demo = gradio.Interface(
    compute,
    [
        gradio.Textbox("{predictions}", label="predictions: K logits an example"),
        gradio.Textbox("{references}", label="references: class ids"),
        gradio.Number(10, label="n_bins", precision=0),
    ],
    gradio.JSON(label="{title}"),
    title="{title}",
    description={told!r},
)

if __name__ == "__main__":
    demo.launch()
'''

_CARD = """---
{data}
---

# {title}

{told}

## How to use it

It needs `pip install "{requirement}"`. In the place of `you` stands who has the Space:

```python
import evaluate

metric = evaluate.load("you/{name}")
print(metric.compute(predictions={predictions}, references={references}))
# {values}
```

* `predictions`: logits, before the softmax, a list of K numbers an example.
* `references`: class ids, from 0 to K - 1.
* `n_bins`: bins of equal width where the metric has bins; 10 if it is left out.

{better}

Modules of class ids, such as accuracy, are combined with it by their arg max:

```python
from hf_logitmix.calibration.evaluate_modules import ArgMax

both = evaluate.combine([metric, ArgMax(evaluate.load("accuracy"))])
```

## Limits

* Errors by bins depend on the number of bins: compare only figures with the same.
* With few examples a calibrated model looks worse than it is.
* It tells of examples drawn like those it is computed on, and of no shifted data.
"""


def write_space(name: str, folder: str | Path, requirement: str = "hf_logitmix[evaluate]") -> Path:
    """Write the files of a Space for one module into ``folder/name``: card, script, page, and what they need.

    The Space has to be called as the metric: `evaluate` looks for ``ece.py`` in ``you/ece``. The folder itself loads
    too, without a network: ``evaluate.load("spaces/ece")``.

    Args:
        name: of a metric of `hf_logitmix.metrics.METRICS`, or "calibration" for all of them.
        folder: where the folder of the Space is made; files of an earlier one are replaced.
        requirement: what `pip` is to install there.

    Returns:
        the folder of the Space.

    Raises:
        ValueError: for another name.
    """
    if name not in (*METRICS, ALL):
        raise ValueError(f"name={name!r} is no metric: pass one of {', '.join(METRICS)}, or {ALL!r} for all of them.")
    is_all = name == ALL
    metric = (Calibration if is_all else module(name))(keep_in_memory=True)
    title = "Calibration" if is_all else METRICS[name].title
    told = "Accuracy, calibration and selective prediction of a classifier, from its logits." if is_all else _told(name)
    values = metric.compute(predictions=_PREDICTIONS, references=_REFERENCES)
    data = SpaceCardData(
        title=title,
        sdk="gradio",
        sdk_version=GRADIO,
        app_file="app.py",
        license="apache-2.0",
        tags=["evaluate", "metric", "calibration"],
        description=told,
    )
    facts = {
        "name": name,
        "title": title,
        "told": told,
        "predictions": _PREDICTIONS,
        "references": _REFERENCES,
        "values": {key: round(value, 4) for key, value in values.items()},
        "better": "\n".join(_better(one) for one in metric.names),
        "requirement": requirement,
        "imported": "Calibration as Metric" if is_all else "module",
        "made": "" if is_all else f'\nMetric = module("{name}")\n',
    }
    space = Path(folder) / name
    space.mkdir(parents=True, exist_ok=True)
    SpaceCard(_CARD.format(data=data.to_yaml(), **facts), ignore_metadata_errors=False).save(space / "README.md")
    (space / f"{name}.py").write_text(_SCRIPT.format(**facts), encoding="utf-8")
    (space / "app.py").write_text(_APP.format(**facts), encoding="utf-8")
    (space / "requirements.txt").write_text(f"{requirement}\n", encoding="utf-8")
    return space


def _told(name: str) -> str:
    told = METRICS[name].told
    return f"{told[:1].upper()}{told[1:]}."


def _better(name: str) -> str:
    metric = METRICS[name]
    return f"* `{name}`: {metric.told}; {'higher' if metric.higher_is_better else 'lower'} is better."
