"""The transformer with learned position embeddings.

python -m experiments train --config=configs/transformer_positional.py --workdir=runs/transformer_positional
"""

from configs import transformer


def get_config(data: str = "imdb"):
    config = transformer.get_config(data)
    config.model.learned_positions = True
    return config
