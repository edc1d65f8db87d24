"""From a corpus and a config to a trained classifier."""
