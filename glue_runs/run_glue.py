"""Fine-tune a text classifier on a GLUE task, from a checkout: the command is hf_logitmix.glue.run."""

from hf_logitmix.glue.run import main
from hf_logitmix.training.command_line import exit_with

if __name__ == "__main__":
    exit_with(main, "run_glue")
