"""An encoder of two GRUs and a GRU decoder with additive attention (Bahdanau et al. 2015), on pairs of texts.

python -m experiments train --config=configs/seq2seq_rnn.py:dates --workdir=runs/dates
python -m experiments train --config=configs/seq2seq_rnn.py:dates --config.model.score=none --workdir=runs/dates-fixed

The part behind the colon is the data: dates, reversal, english_chinese, or pairs for files of your own. docs/seq2seq.md says
what was measured.
"""

from configs.defaults import defaults
from configs.seq2seq_data import of_pairs


def get_config(data: str = "dates"):
    config = of_pairs(defaults(data))
    config.model.body = "recurrent_seq2seq"
    config.model.embed_dim = 32
    config.model.hidden_dim = 64  # of the decoder, and of both directions of the encoder together
    config.model.encoder_cell = "gru"  # gru | lstm | simple
    config.model.bidirectional = True
    config.model.score = "additive"  # none | dot | scaled_dot | cosine | additive | bilinear; none is no attention
    return config
