"""The encoder-decoder transformer (Vaswani et al. 2017) with two layers, on pairs of texts.

python -m experiments train --config=configs/seq2seq_transformer.py:dates --workdir=runs/dates-transformer

The part behind the colon is the data, as in seq2seq_rnn. docs/seq2seq.md says what was measured.
"""

from configs.defaults import defaults
from configs.seq2seq_data import of_pairs


def get_config(data: str = "dates"):
    config = of_pairs(defaults(data))
    config.model.body = "transformer_seq2seq"
    config.model.embed_dim = 64
    config.model.num_layers = 2  # of the encoder, and of the decoder
    config.model.num_heads = 4
    config.model.key_dim = 16
    config.model.feedforward_dim = 128
    config.model.positions = "sinusoidal"  # none | sinusoidal | rotary
    return config
