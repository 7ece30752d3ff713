"""Compare three methods on a synthetic corpus, with a small BERT from scratch: offline, in minutes.

hf-logitmix demo
"""

from __future__ import annotations

import time
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainingArguments,
    set_seed,
)

from hf_logitmix import MixTrainingArguments
from hf_logitmix.commands.parser import Parser
from hf_logitmix.glue.data import load_task
from hf_logitmix.glue.demo_corpus import write_corpus
from hf_logitmix.glue.experiment import Experiment
from hf_logitmix.glue.tasks import Split, Task
from hf_logitmix.training.command_line import diagram_of, keep_other_runs, side_by_side

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
    started = time.perf_counter()
    output = Path(args.output_dir or DEFAULT_OUTPUT)
    for method in METHODS:
        keep_other_runs(output / method, DATA)
    with args.main_process_first(desc="write the corpus"):
        sentences = write_corpus(output / "glue" / DEMO_TASK.folder, SIZES, args.seed)
    tokenizer = train_tokenizer(sentences)
    splits = load_task(DEMO_TASK, ("train", "dev"), str(output / "glue"))
    results = {}
    for method in METHODS:
        print(f"\n{method}: training a small BERT from scratch on {SIZES['train']} synthetic sentences", flush=True)
        set_seed(args.seed)
        model = BertForSequenceClassification(_config(len(tokenizer)))
        length = tokenizer.model_max_length
        experiment = Experiment(DEMO_TASK, splits, model, tokenizer, None, length, data_name=DATA)
        found = experiment.run(_arguments(output / method, method, args.seed))
        if found is None:
            print("\nStopped. The demo keeps no half-done runs: start it again.")
            return 130
        results[method] = found
    if args.should_save:
        picture = output / "reliability.png"
        diagram_of({method: output / method for method in METHODS}, "synthetic demo corpus, dev set", picture)
        print(f"\nSynthetic demo corpus: {SIZES['train']} training and {SIZES['dev']} dev sentences, one seed.")
        print(side_by_side(results))
        print(f"The picture is {picture}; each method's run is in a folder beside it.")
        print(f"{time.perf_counter() - started:.0f} s in all.")
    return 0


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


def _arguments(output: Path, method: str, seed: int) -> MixTrainingArguments:
    return MixTrainingArguments(
        output_dir=str(output),
        method=method,
        seed=seed,
        num_train_epochs=16,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=256,
        learning_rate=1e-3,
        warmup_steps=100,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        log_level="warning",
        dataloader_pin_memory=False,
    )
