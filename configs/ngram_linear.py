from configs import ngram_attention


def get_config(data: str = "imdb"):
    config = ngram_attention.get_config(data)
    config.model.body = "ngram_linear"
    return config
