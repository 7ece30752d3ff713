"""GLUE with hf_logitmix: the tasks, their data, and the script that trains on them."""
