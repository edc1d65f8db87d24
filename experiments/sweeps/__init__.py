"""Sweeps: many runs of one config with other values of some fields, each in a run folder of its own."""
