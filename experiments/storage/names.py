"""The names of the files and folders of a run, for what must not wait for JAX."""

CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
WORDS, BOARD, CHECKPOINTS = "vocabulary.txt", "tensorboard", "checkpoints"
ATTEMPTS, RUNNING = "provenance.jsonl", "attempt.json"
CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")  # the columns that each row of metrics.jsonl must have
