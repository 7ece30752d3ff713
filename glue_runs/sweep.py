"""Run tasks x methods x seeds, from a checkout: the command is hf_logitmix.commands.sweep."""

from hf_logitmix.commands.sweep import main
from hf_logitmix.training.command_line import exit_with

if __name__ == "__main__":
    exit_with(main, "sweep")
