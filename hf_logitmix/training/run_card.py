"""The model card of a `Run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from huggingface_hub import ModelCard

from hf_logitmix.calibration.registry import is_brief
from hf_logitmix.hub.card import model_card
from hf_logitmix.hub.trainer_card import card_of_base, is_small_model, limits_of
from hf_logitmix.hub.usage import usage

if TYPE_CHECKING:
    from hf_logitmix.training.runs import Run


def card_of(run: Run) -> ModelCard:
    """What was trained, on what, with which settings and figures, and how to load it."""
    results, model, has_classes = run.results, run.trainer.model, bool(run.label_names)
    name = f"{run.model_name}-{run.task}-{results['method_name']}"
    scores = {key.removeprefix("eval_"): value for key, value in results.items() if key.startswith("eval_")}
    fitted = {key: scores.pop(key) for key in list(scores) if key.startswith("temperature")}
    known, kept = card_of_base(run.base_model), results.get("calibration")
    preamble = "import hf_logitmix.vision" if is_small_model(model) else ""
    return model_card(
        name,
        run.trainer.method,
        {key: value for key, value in scores.items() if is_brief(key)},
        base_model=run.base_model,
        dataset=run.data,
        dataset_config=run.config,
        split=run.split_of,
        measured_on=results["measured_on"],
        selected_on=results["selected_on"],
        split_sizes=results["split_sizes"],
        temperature={run.split_of[key]: value for key, value in fitted.items()},
        remarks=[f"On `{split}`: {remark}" for split, remark in results.get("remarks", {}).items()],
        settings={
            **{key: value for key, value in results["settings"].items() if value is not None and value is not False},
            "seed": results["seed"],
            **({} if results["data_seed"] is None else {"data_seed": results["data_seed"]}),
            "training_examples": results["n_train"],
        },
        pipeline_tag=run.pipeline_tag,
        how_to_load=run.how_to_load,
        intervals=run.intervals,
        calibration=kept,
        diagram="reliability.png" if (run.output / "reliability.png").exists() else "",
        usage=usage(name, run.pipeline_tag, kept, preamble=preamble) if has_classes else "",
        limits=limits_of(int(results["seed"]), bool(run.split_of)),
        versions=results["versions"],
        license=known.get("license"),
        language=known.get("language"),
    )
