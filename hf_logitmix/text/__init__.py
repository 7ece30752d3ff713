"""Text classifiers: what GLUE and data of one's own share, and the command for the latter."""
