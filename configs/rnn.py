r"""A recurrent layer, a GRU or an LSTM, and the mean of its states over the words: no attention.

python -m experiments train --config=configs/rnn.py --workdir=runs/gru
python -m experiments train --config=configs/rnn.py --workdir=runs/lstm --config.model.cell=lstm \
    --config.model.output_dims='(26,)'
python -m experiments sweep run --config=configs/rnn.py --sweepdir=runs/rnn --grid seed=0..4

The embedding and the head are those of the four models. The body has 4,260 parameters as a GRU with 30 states, and 4,472 as an
LSTM with 26, where that of the transformer has 4,352. The state is carried over padding unchanged. docs/complexity.md has the
results.
"""

from configs.defaults import defaults
from experiments.sweeps.points import zipped


def get_config(data: str = "imdb"):
    config = defaults(data)
    config.model.body = "recurrent"
    config.model.cell = "gru"
    config.model.num_heads = 1
    config.model.output_dims = (30,)
    config.model.dropout_rate = 0.1
    config.model.mask_padding = True
    return config


def sweep():
    """Both cells, with as many states as give them the parameters of the transformer's body."""
    yield from zipped({"model.cell": ("gru", "lstm"), "model.output_dims": ((30,), (26,))})
