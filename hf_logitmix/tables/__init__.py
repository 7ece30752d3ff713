"""Tables of examples: how files are read, and what their labels are."""
