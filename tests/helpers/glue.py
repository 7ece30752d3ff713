"""A small GLUE folder and a tiny model that reads it."""

from __future__ import annotations

from pathlib import Path

from transformers import BertConfig, BertModel

from hf_logitmix.glue.demo import train_tokenizer

STEPS = 150


def small_run(folder: Path) -> list[str]:
    """Arguments of hf-logitmix glue for a run on a small GLUE folder and a tiny model; 25 steps an epoch."""
    lines = [f"{'no ' * (n % 3)}{('good', 'bad', 'fine', 'odd')[n % 4]} film {n}\t{n % 2}\n" for n in range(100)]
    (folder / "glue" / "SST-2").mkdir(parents=True)
    for name, rows in {"train": lines, "dev": lines[:20]}.items():
        (folder / "glue" / "SST-2" / f"{name}.tsv").write_text("".join(["sentence\tlabel\n", *rows]))
    tokenizer = train_tokenizer(lines)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    BertModel(config).save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    data = ["--glue_dir", str(folder / "glue"), "--model_name_or_path", str(folder / "tiny"), "--task_name", "sst2"]
    training = ["--max_steps", str(STEPS), "--per_device_train_batch_size", "4", "--learning_rate", "1e-3"]
    return [*data, *training, "--seed", "3", "--logging_steps", "1", "--disable_tqdm", "True", "--use_cpu", "True"]
