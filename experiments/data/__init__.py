"""The corpora: from reviews to arrays of tokens."""
