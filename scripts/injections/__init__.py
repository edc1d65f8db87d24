"""Faults that are injected into the lab, and what it must do; `scripts/faults.py` runs all of them and prints the table."""
