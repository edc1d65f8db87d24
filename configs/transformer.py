"""One post-norm transformer block of 2 heads of 16, feed-forward 64, without positions.

python -m experiments train --config=configs/transformer.py --workdir=runs/transformer
"""

from configs.defaults import defaults


def get_config(data: str = "imdb"):
    config = defaults(data)
    config.model.dropout_rate = 0.1
    return config
