"""Compare three methods on a synthetic corpus, with a small BERT from scratch: offline, in minutes.

hf-logitmix demo
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainingArguments,
    set_seed,
)

from hf_logitmix.commands.parser import Parser
from hf_logitmix.glue.data import load_task
from hf_logitmix.glue.demo_corpus import write_corpus
from hf_logitmix.glue.experiment import Experiment
from hf_logitmix.glue.tasks import Split, Task
from hf_logitmix.text.arguments import TextRunArguments
from hf_logitmix.training.demo import QUIET, check_room, compare

METHODS = ("vanilla", "mixup", "logitmix")
DATA = "synthetic"  # what records call it
SIZES = {"train": 1500, "dev": 2000}
DEFAULT_OUTPUT = "demo_output"
_COLUMNS = {"sentence": "sentence", "label": "label"}
DEMO_TASK = Task(
    "demo",
    "Demo",
    ("sentence",),
    ("complaint", "praise"),
    ("accuracy",),
    train=Split("train", "train.tsv", _COLUMNS),
    dev=(Split("validation", "dev.tsv", _COLUMNS),),
    test=(),
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = Parser("hf-logitmix demo", description=__doc__)
    parser.add_argument("--output_dir", default=DEFAULT_OUTPUT, help="where it leaves its runs (%(default)s)")
    parser.add_argument("--seed", type=int, default=TrainingArguments.seed, help="of all that is random (%(default)s)")
    known = parser.parse_args(argv)
    return run_demo(TrainingArguments(known.output_dir, seed=known.seed))


def run_demo(args: TrainingArguments) -> int:
    """Run the demo into ``args.output_dir``; the exit status."""
    output = Path(args.output_dir or DEFAULT_OUTPUT)
    check_room(output, METHODS, DATA)
    with args.main_process_first(desc="write the corpus"):
        sentences = write_corpus(output / "glue" / DEMO_TASK.folder, SIZES, args.seed)
    tokenizer = train_tokenizer(sentences)
    splits = load_task(DEMO_TASK, ("train", "dev"), str(output / "glue"))

    def run(method: str, folder: Path) -> dict[str, Any] | None:
        set_seed(args.seed)
        model = BertForSequenceClassification(_config(len(tokenizer)))
        length = tokenizer.model_max_length
        experiment = Experiment(DEMO_TASK, splits, model, tokenizer, None, length, data_name=DATA)
        return experiment.run(_arguments(folder, method, args.seed))

    return compare(
        METHODS,
        run,
        output,
        doing=f"training a small BERT from scratch on {SIZES['train']} synthetic sentences",
        title="synthetic demo corpus, dev set",
        told=f"Synthetic demo corpus: {SIZES['train']} training and {SIZES['dev']} dev sentences, one seed.",
        is_shown=args.should_save,
    )


def train_tokenizer(sentences: list[str]) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer with BERT's special tokens, trained on the sentences."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, special.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **dict(zip(names, special, strict=True))
    )


def _config(vocab_size: int) -> BertConfig:
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=64,
        id2label=dict(enumerate(DEMO_TASK.label_names)),
        label2id={name: number for number, name in enumerate(DEMO_TASK.label_names)},
    )


def _arguments(output: Path, method: str, seed: int) -> TextRunArguments:
    return TextRunArguments(
        output_dir=str(output),
        method=method,
        seed=seed,
        num_train_epochs=16,
        per_device_eval_batch_size=256,
        learning_rate=1e-3,
        warmup_steps=100,
        **QUIET,
    )
