"""Scripts that tests start in several processes."""
