"""Which arguments of a run change what is trained, for its record."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any

from transformers import TrainingArguments

from hf_logitmix.training.arguments import METHOD_OPTIONS

# Everything that is not named here is recorded, so that an argument that a new release brings is too.
_ELSEWHERE = {"seed", "method", *METHOD_OPTIONS, "bf16", "fp16", "per_device_train_batch_size"}  # in the record
_OUTPUT = {
    *("output_dir", "do_train", "do_eval", "do_predict", "resume_from_checkpoint"),
    *("logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter", "log_level"),
    *("log_level_replica", "log_on_each_node", "disable_tqdm", "report_to", "run_name", "project", "debug"),
    *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "skip_memory_metrics"),
    *("include_num_input_tokens_seen", "include_for_metrics", "prediction_loss_only", "batch_eval_metrics"),
    *("per_device_eval_batch_size", "eval_accumulation_steps", "eval_do_concat_batches", "eval_use_gather_object"),
    *("eval_on_start", "bf16_full_eval", "fp16_full_eval", "use_cache", "label_names", "rehearse"),
    *("save_only_model", "save_on_each_node", "save_total_limit", "enable_jit_checkpoint", "push_to_hub"),
    *("hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision"),
    *("snapshots", "snapshot_draws"),
}
_MACHINE = {
    *("use_cpu", "local_rank", "torch_empty_cache_steps", "dataloader_num_workers", "dataloader_pin_memory"),
    *("dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context"),
    *("dataloader_in_order", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_static_graph", "ddp_backend"),
    *("ddp_timeout",),
}
_CHOICE_OF_CHECKPOINT = {"eval_strategy", "eval_steps", "eval_delay", "save_strategy", "save_steps"}


def training_settings(args: TrainingArguments) -> dict[str, Any]:
    """Every argument that changes what is trained, name -> value as JSON has it.

    The seed and the options of the method have places of their own in a record. ``batch_size`` is that of an optimizer
    step, over all processes; when it evaluates and saves matters only where that chooses a checkpoint.
    """
    left_out = _ELSEWHERE | _OUTPUT | _MACHINE
    if not args.load_best_model_at_end:
        left_out |= _CHOICE_OF_CHECKPOINT
    if getattr(args, "sched", None):  # a schedule of timm in their place
        left_out |= {"lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"}
    if getattr(args, "opt", None):  # an optimizer of timm
        left_out |= {"optim", "optim_args", "optim_target_modules"}
    found = {f.name: _plain(getattr(args, f.name)) for f in dataclasses.fields(args) if f.name not in left_out}
    return {
        "batch_size": args.train_batch_size * args.world_size * args.gradient_accumulation_steps,
        "processes": args.world_size,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        **found,
    }


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
