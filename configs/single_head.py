"""Two layers of Keras' Attention(use_scale=True): no projections, one trained scalar each.

python -m experiments train --config=configs/single_head.py --workdir=runs/single_head
"""

from configs.defaults import defaults


def get_config(data: str = "imdb"):
    config = defaults(data)
    config.epochs = 20 if data == "imdb" else config.epochs
    config.model.body = "attention"
    config.model.num_layers = 2
    config.model.num_heads = 1
    return config
