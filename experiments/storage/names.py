"""The names of the files and folders of a run, for what must not wait for JAX."""

CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
WORDS, BOARD, CHECKPOINTS = "vocabulary.txt", "tensorboard", "checkpoints"
ATTEMPTS, RUNNING = "provenance.jsonl", "attempt.json"
