"""Whole models, built from `attn.layers`."""
