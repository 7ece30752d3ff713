"""Command lines from dataclasses: their parser, and a help in groups that fits two screens."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from transformers import HfArgumentParser, TrainingArguments

from hf_logitmix.commands.parser import Parser, row, width
from hf_logitmix.hub.provenance import public_command
from hf_logitmix.training.arguments import METHOD_OPTIONS
from hf_logitmix.training.command_line import RunDefaults

# Of TrainingArguments those that the short help shows beside the fields that our own classes declare.
OFTEN_USED = (
    *("output_dir", "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps"),
    *("weight_decay", "max_grad_norm", "optim", "per_device_train_batch_size", "per_device_eval_batch_size"),
    *("gradient_accumulation_steps", "seed", "bf16", "fp16", "use_cpu", "do_train"),
    *("do_eval", "do_predict", "eval_strategy", "save_strategy", "save_total_limit", "load_best_model_at_end"),
    *("metric_for_best_model", "resume_from_checkpoint", "logging_steps", "report_to", "push_to_hub", "hub_model_id"),
)
MODEL = (
    *("model", "model_name_or_path", "pretrained", "max_seq_length", "image_size", "channels"),
    *("ignore_mismatched_sizes", "trust_remote_code"),
)
# Options that go with every method; those of single methods are listed by name.
OF_ALL_METHODS = ("method", "criterion", "class_weights", "soft_labels", "rehearse")


class ArgumentsParser(Parser, HfArgumentParser):
    """An `HfArgumentParser` whose ``--help`` is short, and whose ``--help-all`` has every argument."""

    def __init__(self, kinds: Sequence[Any], prog: str | None, description: str | None) -> None:
        super().__init__(dataclass_types=kinds, prog=prog, description=description, add_help=False)
        self.add_argument("-h", "--help", action=_Help, is_short=True)
        self.add_argument("--help-all", action=_Help, is_short=False)
        self.set_defaults(do_train=None, do_eval=None)

    def parse(self, argv: Sequence[str] | None) -> tuple[Any, ...]:
        """The dataclasses, ``do_train`` and ``do_eval`` at None where they are left out.

        Those of training get the attribute ``command``, which is how a record tells of the command line.
        """
        words = sys.argv[1:] if argv is None else argv
        self.refuse(self.parse_known_args(words)[1])
        found = self.parse_args_into_dataclasses(words, look_for_args_file=False)
        for part in found:
            if isinstance(part, TrainingArguments):
                part.command = public_command(self.prog, words)
        return found

    def help(self, is_short: bool) -> str:
        """What ``--help`` or ``--help-all`` prints."""
        groups: dict[str, list[str]] = {"data": [], "model": [], "method": [], "training": []}
        of_single_methods = []
        for kind in self.dataclass_types:
            for field in fields(kind):
                name, owner, told = field.name, _owner(kind, field.name), str(field.metadata.get("help", ""))
                if name in METHOD_OPTIONS and name not in OF_ALL_METHODS and is_short:
                    of_single_methods.append(f"--{name}")
                    continue
                if is_short and owner is TrainingArguments:
                    if name not in OFTEN_USED:
                        continue
                    told = _first_sentence(told)
                groups[_group(name, owner)] += row(f"--{name}", told, self.get_default(name))
        if of_single_methods:
            told = f"of single methods: {', '.join(of_single_methods)}; `hf-logitmix methods NAME` tells of them"
            groups["method"] += ["", *textwrap.wrap(told, width(), initial_indent="  ", subsequent_indent="  ")]
        lines = [f"usage: {self.prog} [--OPTION VALUE ...]", "", (self.description or "").strip()]
        for title, rows in groups.items():
            lines += ["", f"{title}:", *rows] if rows else []
        if is_short:
            lines += ["", "--help-all lists all other arguments of transformers.TrainingArguments too."]
        return "\n".join(lines)


class _Help(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, is_short: bool) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS)
        self.is_short = is_short

    def __call__(self, parser: Any, *_: Any) -> None:
        print(parser.help(self.is_short))
        parser.exit()


def _owner(kind: type, name: str) -> type:
    """The class that declares a field, of several the most derived."""
    return next(base for base in kind.__mro__ if name in vars(base).get("__annotations__", {}))


def _group(name: str, owner: type) -> str:
    if name in METHOD_OPTIONS or name in OF_ALL_METHODS:
        return "method"
    if issubclass(owner, TrainingArguments | RunDefaults):
        return "training"
    return "model" if name in MODEL else "data"


def _first_sentence(told: str) -> str:
    return re.split(r"(?<=\.) ", " ".join(told.split()), maxsplit=1)[0]
