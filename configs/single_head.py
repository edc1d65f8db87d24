"""Two layers of Keras' Attention(use_scale=True): no projections, one trained scalar each.

python -m experiments train --config=configs/single_head.py --workdir=runs/single_head

On IMDB, 6 seeds, two shared CPU cores: 2.9 to 6.7 minutes of training as other jobs came and went. Percent, mean
(minimum to maximum): validation accuracy, final 88.46 (88.29 to 88.61), best 88.48 (88.33 to 88.61);
test accuracy 88.05 (88.00 to 88.10).
"""

from configs.defaults import defaults


def get_config(data: str = "imdb"):
    config = defaults(data)
    config.epochs = 20 if data == "imdb" else config.epochs
    config.model.body = "attention"
    config.model.num_layers = 2
    config.model.num_heads = 1
    return config
