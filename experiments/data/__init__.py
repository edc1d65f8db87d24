"""From reviews to token arrays: one module a corpus."""
