"""Training: the adapter to `transformers.Trainer`, its arguments, checks, checkpoints and records of runs."""
