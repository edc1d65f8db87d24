"""The run folder: what is written there, so that nothing is lost."""
