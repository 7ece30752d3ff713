"""What timm's train.py calls the options of the image command: one table, and a function over a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Name:
    """What an option of timm is called here.

    Attributes:
        ours: the option, without dashes.
        value: what it is set to, of an option of timm that takes none; ``{}`` stands for what was passed.
        differs: what is not as in timm, for a line of the log; empty where nothing is.
    """

    ours: str
    value: str = "{}"
    differs: str = ""


NAMES: Mapping[str, Name] = MappingProxyType(
    {
        "data-dir": Name("dataset"),
        "batch-size": Name("per_device_train_batch_size"),
        "validation-batch-size": Name("per_device_eval_batch_size"),
        "grad-accum-steps": Name("gradient_accumulation_steps"),
        "lr": Name("learning_rate"),
        "epochs": Name("num_train_epochs"),
        "dr": Name("decay_rate"),
        "opt-eps": Name("adam_epsilon"),
        "clip-grad": Name("max_grad_norm"),
        "smoothing": Name("label_smoothing_factor"),
        "mixup-prob": Name("prob"),
        "mixup-switch-prob": Name("switch_prob"),
        "bce-loss": Name("criterion", "bce"),
        "bce-sum": Name("sum_classes", "True"),
        "bce-target-thresh": Name("target_threshold"),
        "drop": Name("model_kwargs", "drop_rate={}"),
        "drop-block": Name("model_kwargs", "drop_block_rate={}"),
        "gp": Name("model_kwargs", "global_pool={}"),
        "bn-momentum": Name("model_kwargs", "bn_momentum={}"),
        "bn-eps": Name("model_kwargs", "bn_eps={}"),
        "img-size": Name("image_size"),
        "in-chans": Name("channels"),
        "model-ema-decay": Name("ema_decay", differs="averages by itself, without --model-ema"),
        "model-ema-warmup": Name("ema_warmup", "True"),
        "grad-checkpointing": Name("gradient_checkpointing", "True"),
        "pin-mem": Name("dataloader_pin_memory", "True"),
        "workers": Name("dataloader_num_workers"),
        "log-interval": Name("logging_steps"),
        "log-wandb": Name("report_to", "wandb"),
        "checkpoint-hist": Name(
            "save_total_limit", differs="keeps the last ones, and with --metric_for_best_model the best one among them"
        ),
        "resume": Name("resume_from_checkpoint", differs="takes a folder checkpoint-N of this command, or `last`"),
        "output": Name("output_dir", differs="is the run's own folder: none is made inside it for each run"),
    }
)
SHORT: Mapping[str, str] = MappingProxyType(
    {"-b": "batch-size", "-vb": "validation-batch-size", "-j": "workers", "-d": "dataset", "-c": "config"}
)
FLAGS = (  # options of timm that take no value
    *("bce-loss", "bce-sum", "model-ema", "model-ema-warmup", "amp", "grad-checkpointing", "pin-mem", "log-wandb"),
    *("sched-on-updates", "no-prefetcher", "model-ema-force-cpu", "no-resume-opt", "sync-bn", "split-bn", "resplit"),
    *("jsd-loss", "save-images", "no-ddp-bb", "use-multi-epochs-loader", "dataset-download", "torchscript"),
)
METRICS: Mapping[str, str] = MappingProxyType({"top1": "accuracy", "top5": "accuracy_top5", "loss": "loss"})
# What is done here anyway, for which options of timm are let pass: value -> such, or None for any.
AS_IT_IS: Mapping[str, tuple[str, ...] | None] = MappingProxyType(
    {
        "sched-on-updates": None,
        "no-prefetcher": None,
        "use-multi-epochs-loader": None,
        "clip-mode": ("norm",),
        "remode": ("const",),
        "recount": ("1",),
        "amp-impl": ("native",),
        "crop-mode": ("center",),
        "worker-seeding": ("all",),
        "dist-bn": ("broadcast",),
    }
)
# Options of timm without a counterpart, and what there is in their place.
NONE: Mapping[str, str] = MappingProxyType(
    {
        "num-classes": "the dataset tells its classes: leave it out",
        "mean": "the dataset or the model tells it: leave it out",
        "std": "the dataset or the model tells it: leave it out",
        "initial-checkpoint": "pass the folder of a run as --model",
        "train-split": "the dataset's own `train` is taken: see the section Data of docs/images.md",
        "class-map": "folders are classes in the order of their names",
        "dataset-download": "datasets of the Hub are downloaded when they are first read",
        "train-interpolation": "--interpolation is of training and evaluation, and `random` is of training alone",
        "experiment": "pass --output_dir with the whole path",
        "device": "pass --use_cpu, or choose a GPU by CUDA_VISIBLE_DEVICES",
        "opt-kwargs": "pass --momentum, --adam_beta1, --adam_beta2 or --adam_epsilon",
        "clip-mode": "gradients are clipped by their norm alone: pass --max_grad_norm",
        "crop-mode": "images are cropped in the middle for evaluation",
        "remode": "erased boxes become the mean colour: leave it out",
        "recount": "one box is erased: leave it out",
        "no-resume-opt": "a resumed run takes all of its checkpoint",
        "recovery-interval": "pass --save_steps",
        "lr-base": "pass the learning rate itself, as --learning_rate",
        "tta": "each image is read once",
        "config": "pass its options on the command line",
        "amp-impl": "mixed precision is torch's own",
        "dist-bn": "each process keeps batch statistics of its own images",
        "worker-seeding": "augmentation depends on the seed, the epoch and the image's number alone",
        **dict.fromkeys(
            (
                *("torchscript", "fuser", "aug-repeats", "aug-splits", "jsd-loss", "resplit", "split-bn", "sync-bn"),
                *("epoch-repeats", "start-epoch", "cutmix-minmax", "save-images", "no-ddp-bb", "model-ema-force-cpu"),
                *("lr-noise", "lr-noise-pct", "lr-noise-std", "lr-cycle-mul", "lr-cycle-decay", "lr-cycle-limit"),
                *("lr-k-decay", "lr-base-size", "lr-base-scale", "warmup-prefix", "drop-connect"),
            ),
            "leave it out",
        ),
    }
)
_COMPUTED = (  # options of timm that become several of ours
    *("mixup", "cutmix", "mixup-mode", "mixup-off-epoch", "model-ema", "amp", "amp-dtype", "opt-betas"),
    *("input-size", "eval-metric", "torchcompile"),
)
KNOWN = {*NAMES, *NONE, *AS_IT_IS, *_COMPUTED}


def translate(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line with the options of timm's train.py in ours.

    Example:
        >>> translate(["--lr", "0.1", "--mixup", "0.8", "--cutmix", "1.0"])[0]
        ['--learning_rate', '0.1', '--method', 'mixup_cutmix', '--alpha', '0.8', '--second_lam', 'beta:1.0']

    Args:
        argv: the words behind the command; options with dashes or underscores, and ``--name=value`` too.

    Returns:
        the same words with other names where timm's are not ours, and lines about what differs from timm.

    Raises:
        ValueError: for an option of timm that there is none of here, and for two that exclude each other.
    """
    return _Translation(list(argv)).result()


class _Translation:
    """One command line: its options in order, and what has become of them."""

    def __init__(self, argv: list[str]) -> None:
        if argv and not argv[0].startswith("-") and not argv[0].endswith((".json", ".yaml", ".yml")):
            argv = ["--data-dir", *argv]  # timm's only argument without a name
        self.options = _options(argv)
        self.timms = {name: values for written, values in self.options if (name := _name(written)) in KNOWN}
        self.ours: list[tuple[str, list[str]]] = []  # options of ours, without dashes
        self.notes: list[str] = []

    def result(self) -> tuple[list[str], list[str]]:
        words: list[str] = []
        passed = [_name(written).replace("-", "_") for written, _ in self.options if _name(written) not in KNOWN]
        kwargs: list[str] = []
        for written, values in self.options:
            name = _name(written)
            if name == "model-kwargs":
                kwargs += values
                continue
            if name == "val-split" and values and not _is_number(values[0]):
                raise ValueError(
                    f"{written} {values[0]}: --val_split is a share of the training images here, and the dataset's own "
                    "validation split is found by its name: leave it out."
                )
            if name not in KNOWN:
                ours = f"--{name}" if written in SHORT else written
                if values and values[0].startswith("-") and not _is_number(values[0]):
                    words.append(f"{ours}={values[0]}")  # a value only where it is written so
                else:
                    words += [ours, *values] if ours else values
                continue
            before = len(self.ours)
            self._translate(name, written, values)
            for ours, own in self.ours[before:]:
                if ours == "model_kwargs":
                    kwargs += own
                elif ours in passed:
                    raise ValueError(f"{written} is --{ours} here, which is passed too: pass one of them.")
                else:
                    passed.append(ours)
                    words += [f"--{ours}", *own]
        return words + (["--model_kwargs", *kwargs] if kwargs else []), self.notes

    def _translate(self, name: str, written: str, values: list[str]) -> None:
        if name in FLAGS and values:
            raise ValueError(f"{written} takes no value in timm: got {' '.join(values)}.")
        if name not in FLAGS and not values and name != "torchcompile":
            raise ValueError(f"{written} needs a value.")
        if name in AS_IT_IS and (AS_IT_IS[name] is None or values[0] in AS_IT_IS[name]):  # type: ignore[operator]
            return
        if name in NONE:
            raise ValueError(f"{written} of timm has no counterpart here: {NONE[name]}.")
        if name in NAMES:
            found = NAMES[name]
            self._add(found.ours, *[found.value.format(value) for value in values or [""]])
            without = name == "model-ema-decay" and "model-ema" in self.timms
            if found.differs and not without:
                self.notes.append(f"{written} is --{found.ours} here, which {found.differs}.")
            if name == "epochs" and any(_name(other) == "cooldown-epochs" for other, _ in self.options):
                self.notes.append(
                    "--cooldown-epochs are the last ones of --epochs here, and come on top of them in timm."
                )
        else:
            getattr(self, f"_{name.replace('-', '_')}")(written, values)

    def _add(self, ours: str, *values: str) -> None:
        self.ours.append((ours, list(values)))

    # ---- options of timm that become several of ours ---------------------------------------------------------------

    def _mixup(self, written: str, values: list[str]) -> None:
        mixup, cutmix = (_number(f"--{name}", self.timms.get(name, ["0"])[0]) for name in ("mixup", "cutmix"))
        if _name(written) == "cutmix" and "mixup" in self.timms:
            return  # both were done with the other one
        if not (mixup or cutmix):
            return  # which turns them off in timm
        method = "mixup_cutmix" if mixup and cutmix else "mixup" if mixup else "cutmix"
        for other, given in self.options:
            if _name(other) == "method" and given != [method]:
                raise ValueError(
                    f"{written} {values[0]} is --method {method} here, and --method {' '.join(given)} is passed: pass "
                    "--method with --alpha, or timm's alone."
                )
        if not any(_name(other) == "method" for other, _ in self.options):
            self._add("method", method)
        self._add("alpha", str(mixup or cutmix))
        if method == "mixup_cutmix":
            self._add("second_lam", f"beta:{cutmix}")

    _cutmix = _mixup

    def _mixup_mode(self, written: str, values: list[str]) -> None:
        if values[0] not in ("batch", "elem"):
            raise ValueError(
                f"{written} {values[0]}: pass batch, or elem, which is --per_example True here; pairs that meet twice "
                "are of --method mit alone."
            )
        if values[0] == "elem":
            self._add("per_example", "True")

    def _torchcompile(self, written: str, values: list[str]) -> None:
        self._add("torch_compile", "True")
        if values:
            self._add("torch_compile_backend", values[0])

    def _mixup_off_epoch(self, written: str, values: list[str]) -> None:
        epoch, epochs = _number(written, values[0]), self._epochs()
        if not epoch:
            return
        if epochs is None:
            raise ValueError(f"{written} {values[0]} is a share of training here: pass --epochs too, or --off_after.")
        self._add("off_after", str(epoch / epochs))

    def _epochs(self) -> float | None:
        for written, values in self.options:
            if _name(written) in ("epochs", "num-train-epochs") and values:
                return _number(written, values[0])
        return None

    def _model_ema(self, written: str, values: list[str]) -> None:
        if "model-ema-decay" not in self.timms:
            self._add("ema_decay", "0.9998")  # timm's default

    def _amp(self, written: str, values: list[str]) -> None:
        dtype = self.timms.get("amp-dtype", ["float16"])[0]
        if dtype not in ("float16", "bfloat16"):
            raise ValueError(f"--amp-dtype {dtype}: pass float16 or bfloat16.")
        self._add("fp16" if dtype == "float16" else "bf16", "True")

    def _amp_dtype(self, written: str, values: list[str]) -> None:
        if "amp" not in self.timms:
            raise ValueError(f"{written} {values[0]} is of --amp: pass --amp too, or --bf16 alone.")

    def _opt_betas(self, written: str, values: list[str]) -> None:
        if len(values) != 2:
            raise ValueError(
                f"{written} {' '.join(values)}: pass two numbers, which are --adam_beta1 and --adam_beta2."
            )
        self._add("adam_beta1", values[0])
        self._add("adam_beta2", values[1])

    def _input_size(self, written: str, values: list[str]) -> None:
        if len(values) != 3 or values[1] != values[2]:
            raise ValueError(f"{written} {' '.join(values)}: pass channels and two equal sides, such as 3 224 224.")
        self._add("channels", values[0])
        self._add("image_size", values[1])

    def _eval_metric(self, written: str, values: list[str]) -> None:
        if values[0] not in METRICS:
            raise ValueError(f"{written} {values[0]}: pass one of {', '.join(METRICS)}, or --metric_for_best_model.")
        self._add("metric_for_best_model", METRICS[values[0]])


def _options(argv: list[str]) -> list[tuple[str, list[str]]]:
    """The options as they are written, each with its values; words in front of the first have an empty one."""
    found: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("-") and not _is_number(word):
            written, equals, value = word.partition("=")
            found.append((written, [value] if equals else []))
        elif found:
            found[-1][1].append(word)
        else:
            found.append(("", [word]))
    return found


def _name(written: str) -> str:
    """The name of an option, with dashes between its words and none in front."""
    return SHORT.get(written, written.removeprefix("--").replace("_", "-") if written.startswith("--") else written)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _number(written: str, word: str) -> float:
    if not _is_number(word):
        raise ValueError(f"{written} {word}: pass a number.")
    return float(word)
