"""The linear twin of ngram_attention: n-grams with equal weights, as many parameters, 168,482.

python -m experiments train --config=configs/ngram_linear.py --workdir=runs/ngram_linear

IMDB, 5 seeds: 3 seconds of training each on two cores, after a minute of preparing the n-grams once. Test accuracy 92.27
(92.16 to 92.36), trained on 24,500 reviews.
"""

from configs import ngram_attention


def get_config(data: str = "imdb"):
    config = ngram_attention.get_config(data)
    config.data.ngram_features = 168_481
    config.data.ngram_context = 0
    config.model.body = "ngram_linear"
    return config
