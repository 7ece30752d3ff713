"""GLUE with hf_logitmix: the tasks, their data, and the command that trains on them."""
