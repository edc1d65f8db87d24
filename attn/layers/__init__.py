"""linen layers: one family a file."""
