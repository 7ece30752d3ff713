"""Calibration: metrics, temperature scaling, reliability diagrams, and modules of the `evaluate` library."""
