"""The settings of a record: two runs that are trained differently never have the same."""

from __future__ import annotations

import dataclasses
import json

import pytest
from transformers import TrainingArguments

from hf_logitmix import MixTrainingArguments
from hf_logitmix.training.settings import training_settings
from hf_logitmix.vision.arguments import ImageMixTrainingArguments

# What may differ between two runs that are trained alike, by what it is about.
OUTPUT = (
    "output_dir",
    "logging_",
    "log_",
    "report_to",
    "run_name",
    "project",
    "trackio_",
    "hub_",
    "push_to_hub",
    "debug",
)
OUTPUT += ("disable_tqdm", "skip_memory_metrics", "do_train", "do_eval", "do_predict", "resume_from_checkpoint")
EVALUATION = (
    "eval_",
    "per_device_eval_batch_size",
    "include_",
    "prediction_loss_only",
    "batch_eval_metrics",
    "use_cache",
)
EVALUATION += ("bf16_full_eval", "fp16_full_eval", "label_names")
SAVING = ("save_", "enable_jit_checkpoint")
MACHINE = ("use_cpu", "local_rank", "dataloader_", "ddp_", "torch_empty_cache_steps")
ALIKE = (*OUTPUT, *EVALUATION, *SAVING, *MACHINE)
NOT_ALIKE = {"dataloader_drop_last", "ddp_broadcast_buffers"}
# In other keys of the record: `seed`, and `method`, which shows all options.
ELSEWHERE = {"seed"} | (
    {f.name for f in dataclasses.fields(MixTrainingArguments)} - {f.name for f in dataclasses.fields(TrainingArguments)}
)
OTHER = {
    "lr_scheduler_type": "cosine",
    "lr_scheduler_kwargs": {"num_cycles": 2},
    "optim": "sgd",
    "optim_args": "foreach=True",
    "optim_target_modules": ["query"],
    "activation_checkpointing_kwargs": {"use_reentrant": True},
    "gradient_checkpointing_kwargs": {"use_reentrant": True},
    "torch_compile_backend": "eager",
    "torch_compile_mode": "reduce-overhead",
    "liger_kernel_config": {"rope": True},
    "neftune_noise_alpha": 5.0,
    "metric_for_best_model": "accuracy",
    "greater_is_better": True,
    "data_seed": 7,
    "accelerator_config": {"split_batches": True},
    "train_sampling_strategy": "group_by_length",
    "opt": "adamw",
    "sched": "cosine",
    "layer_decay": 0.5,
    "padding": 4,
    "scale": [0.5, 1.0],
    "ratio": [0.5, 2.0],
    "color_jitter": 0.4,
    "aa": "rand-m9-mstd0.5",
    "interpolation": "nearest",
    "crop_pct": 0.9,
    "ema_decay": 0.99,
}
CANNOT_BE_SET_HERE = {"fsdp", "fsdp_config", "deepspeed", "parallelism_config", "tf32", "use_liger_kernel"}


def is_alike(name: str) -> bool:
    return name.startswith(ALIKE) and name not in NOT_ALIKE


def varied(name: str, value):
    """Another value of a field."""
    if name in OTHER:
        return OTHER[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value / 2 if value else 0.5 if isinstance(value, float) else 3
    return {"decay_epochs": 3.0, "decay_milestones": [2]}.get(name, "something")


FIELDS = {f.name: f for f in dataclasses.fields(ImageMixTrainingArguments) if f.init}
CHANGING = [name for name in FIELDS if not is_alike(name) and name not in ELSEWHERE | CANNOT_BE_SET_HERE]


def settings_of(tmp_path, **changes) -> str:
    """Fields are set after the checks of what goes with what, which are not at issue here."""
    args = ImageMixTrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    for name, value in changes.items():
        setattr(args, name, value)
    return json.dumps(training_settings(args), sort_keys=True)


@pytest.mark.parametrize("name", CHANGING)
def test_every_argument_that_changes_training_changes_the_settings(tmp_path, name):
    default = getattr(ImageMixTrainingArguments(str(tmp_path), use_cpu=True, report_to="none"), name)
    assert settings_of(tmp_path, **{name: varied(name, default)}) != settings_of(tmp_path)


@pytest.mark.parametrize(
    "name", ["bf16", "per_device_train_batch_size", "gradient_accumulation_steps", "max_grad_norm"]
)
def test_the_ones_that_stand_under_another_name_too(tmp_path, name):
    assert settings_of(tmp_path, **{name: 3}) != settings_of(tmp_path)


def test_what_only_writes_does_not_change_the_settings(tmp_path):
    changes = {"output_dir": "elsewhere", "hub_token": "hf_secret", "logging_steps": 3, "save_steps": 3, "seed": 5}
    assert settings_of(tmp_path, **changes, eval_steps=3, dataloader_num_workers=2) == settings_of(tmp_path)


def test_when_it_evaluates_is_recorded_where_that_chooses_the_checkpoint(tmp_path):
    chosen = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy"}
    assert settings_of(tmp_path, **chosen, eval_steps=3) != settings_of(tmp_path, **chosen, eval_steps=5)


def test_a_schedule_and_an_optimizer_of_timm_stand_for_those_of_trainer(tmp_path):
    found = json.loads(settings_of(tmp_path, opt="sgd", sched="step"))
    assert found["opt"] == "sgd"
    assert not {"optim", "lr_scheduler_type", "warmup_steps"} & set(found)
