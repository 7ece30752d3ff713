"""What training scripts share around their runs: how they start and end, and what they print."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import TrainingArguments

from hf_logitmix.calibration.registry import is_brief
from hf_logitmix.training.arguments import MixTrainingArguments
from hf_logitmix.training.checkpoints import last_complete_checkpoint


@dataclass
class RunDefaults:
    """Defaults of `TrainingArguments` in a run of the command line: no reports, and a folder that has to be named.

    They are fields, not `HfArgumentParser.set_defaults`, so that they hold for runs that Python starts too (sweeps).
    """

    output_dir: str | None = field(default="", metadata={"help": "Where the run leaves its model and results."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between two lines of the log."})
    dataloader_pin_memory: bool = field(
        default=torch.cuda.is_available(), metadata={"help": "Pin host memory for copies to the GPU."}
    )
    report_to: None | str | list[str] = field(  # noqa: RUF036  in another order the parser would take it for a list
        default="none", metadata={"help": "Where to report, such as tensorboard or wandb."}
    )


def exit_with(main: Callable[[], int], name: str) -> NoReturn:
    """Run a command line; a problem of the user's is printed as one sentence, without a traceback."""
    try:
        code = main()
    except (ValueError, OSError) as problem:
        sys.exit(f"{name}: {problem}")
    leave_together()
    sys.exit(code)


def set_what_is_done(args: TrainingArguments) -> None:
    """Set ``do_train`` and ``do_eval`` where they are None: both are done by default.

    Where ``do_train`` is left out and ``do_eval`` or ``do_predict`` is passed, only what is passed is done, as by the
    example scripts of transformers.
    """
    by_default = args.do_train is not None or not (args.do_eval or args.do_predict)
    args.do_train = by_default if args.do_train is None else args.do_train
    args.do_eval = by_default if args.do_eval is None else args.do_eval


def check_what_is_done(args: TrainingArguments) -> None:
    """Refuse a command line that asks for nothing, or that asks of a run without training what only training has.

    Raises:
        ValueError: with what to pass or to leave out.
    """
    if not (args.do_train or args.do_eval or args.do_predict):
        raise ValueError("nothing is asked for: leave --no_do_train or --no_do_eval out, or pass --do_predict.")
    if args.do_train:
        return
    if args.resume_from_checkpoint is not None:
        raise ValueError(
            f"resume_from_checkpoint={args.resume_from_checkpoint!r} goes on with training, and nothing is trained: "
            "pass --do_train, or the checkpoint in the model's place."
        )
    if args.push_to_hub:
        raise ValueError(
            "push_to_hub pushes what was trained, and nothing is trained: leave it out or pass --do_train."
        )


def leave_together() -> None:
    """Let the processes of a launch end at the same time.

    One that exits right behind its last collective operation can be aborted by torch, with the results of all of them
    (gloo's thread may still hold a tensor of Python's: pytorch/pytorch, pull request 179291).
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def checkpoint_to_resume(args: MixTrainingArguments) -> str | None:
    """The checkpoint to resume from, None for a fresh run; an older run in the folder is never overwritten.

    Raises:
        ValueError: for a folder that holds a run, and for a checkpoint that is not there.
    """
    output = str(args.output_dir)
    asked, last = args.resume_from_checkpoint, last_complete_checkpoint(output)
    if asked is None and (last is not None or (Path(output) / "all_results.json").exists()):
        resume = f"--resume_from_checkpoint {last} to go on, or " if last and args.do_train else ""
        raise ValueError(f"output_dir={output!r} holds a run already: pass {resume}another --output_dir.")
    if asked is not None and asked.lower() in ("true", "last"):
        if last is None:
            raise ValueError(f"resume_from_checkpoint={asked!r}: no complete checkpoint in {output!r}.")
        return last
    if asked is not None and not Path(asked).is_dir():
        raise ValueError(f"resume_from_checkpoint={asked!r} is no folder: pass a checkpoint, or 'last'.")
    return asked


def report(results: dict[str, Any] | None, args: MixTrainingArguments) -> int:
    """Print how a run went, on one screen and in one process; the exit status."""
    if args.should_save and results is None:
        last = last_complete_checkpoint(str(args.output_dir))
        print(f"\nStopped and saved. To go on: the same command with --resume_from_checkpoint {last}")
    elif args.should_save and results is not None:
        print(summary(results, str(args.output_dir)))
    return 130 if results is None else 0


def summary(results: dict[str, Any], output_dir: str) -> str:
    """The run on one screen."""
    lines = [
        "",
        f"{results['task']} with {results.get('method_name', 'no training')} on {results['model']}, seed "
        f"{results['seed']}: {results['n_train']} training and {results['n_eval']} evaluation examples",
    ]
    lines += [f"  predicted: {count} examples of {split}" for split, count in results.get("predicted_on", {}).items()]
    lines += [
        f"  {name.removeprefix('eval_'):<24}{value:>9.4f}"
        for name, value in results.items()
        if name.startswith("eval_") and is_brief(name)
    ]
    for name, count in (results.get("selected_on") or {}).items():
        lines.append(f"  the checkpoint was selected on {count} other examples ({name})")
    if kept := results.get("calibration"):
        lines.append(
            f"  the model keeps the temperature {kept['temperature']:.4f} in its config, fitted on {kept['n']} other "
            f"examples ({kept['fitted_on']})"
        )
    elif "calibration" in results and not results["settings"].get("calibration_split"):
        lines.append("  the model keeps no temperature: none was fitted on examples that were held out")
    if "train_seconds" in results:
        lines.append(f"  {'train_seconds':<24}{results['train_seconds']:>9.1f}")
    lines += [f"  on {split}: {remark}" for split, remark in results.get("remarks", {}).items()]
    return "\n".join([*lines, f"  everything is in {output_dir}"])
