"""Two layers of Keras' MultiHeadAttention, to 16 and to 20 features: 2 heads of 2.

python -m experiments train --config=configs/multi_head.py --workdir=runs/multi_head
"""

from configs.defaults import defaults


def get_config(data: str = "imdb"):
    config = defaults(data)
    config.model.body = "multi_head"
    config.model.num_layers = 2
    config.model.key_dim = 2
    return config
