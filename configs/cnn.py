"""Two layers of convolution over 5 words each, with 27 and 16 channels: no attention.

python -m experiments train --config=configs/cnn.py --workdir=runs/cnn

The embedding and the head are those of the four models, and the body has 4,363 parameters, where that of the transformer has
4,352. Padding is masked: a text gets the same logits with any padding. docs/complexity.md has the results.
"""

from configs.defaults import defaults


def get_config(data: str = "imdb"):
    config = defaults(data)
    config.model.body = "convolution"
    config.model.num_layers = 2
    config.model.num_heads = 1
    config.model.kernel_size = 5
    config.model.output_dims = (27, 16)
    config.model.dropout_rate = 0.1
    config.model.mask_padding = True
    return config
