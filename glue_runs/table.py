"""Collect runs into one table, from a checkout: the command is hf_logitmix.commands.table."""

from hf_logitmix.commands.table import main
from hf_logitmix.training.command_line import exit_with

if __name__ == "__main__":
    exit_with(main, "table")
