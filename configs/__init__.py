"""One page of the lab notebook each. `get_config(data)` takes the corpus: "imdb" (the default) or "verdicts"."""
