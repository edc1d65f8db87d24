"""What the pages of sequence-to-sequence models share: the fields of their data and of their training."""

from typing import Any

from ml_collections import ConfigDict


def of_pairs(config: Any) -> Any:
    """Returns a config of `defaults` for pairs of texts, without the fields of a classifier; a page adds those of its body."""
    config.epochs = 14
    config.batch_size = 64 if config.data.name == "english_chinese" else 128  # of 4,000 and of 16,000 pairs
    config.learning_rate = 5e-3
    config.optimizer = "adamw"
    config.schedule = "cosine"
    config.warmup_steps = 100
    config.data.lowercase = False
    config.data.unit = "word" if config.data.name == "english_chinese" else "character"  # what a token is: word | character
    config.model = ConfigDict({"dropout_rate": 0.0, "implementation": "auto"})
    return config
