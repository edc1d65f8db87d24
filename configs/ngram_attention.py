from configs.defaults import defaults


def get_config(data: str = "imdb"):
    config = defaults(data)
    config.epochs = 5
    config.batch_size = 128
    config.learning_rate = 3e-3
    config.schedule = "cosine"
    config.optimizer = "adamw"
    config.data.ngrams = 4
    config.data.ngram_features = 168_000
    config.data.marks = '!?.,;:()"*-'
    config.data.max_length = 2048
    config.data.validation_share = 0.2 if data == "imdb" else None
    config.model.body = "ngram_attention"
    config.model.num_heads = 1
    config.model.dropout_rate = 0.5
    if data == "verdicts":
        config.data.max_length = 96
        config.batch_size = 32
    return config
