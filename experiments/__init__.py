"""Experiments on attention: configs in, curves out. Effects live here; run as `python -m experiments COMMAND`."""
