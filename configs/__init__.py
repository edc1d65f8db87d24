"""The pages of the lab notebook, one config each.

`get_config(data)` of a page gives its config for a corpus: "imdb", the default, "verdicts", which the headers call the
embedded corpus, "agreement", or any other `data.name`. The training times in the headers were measured on two CPU cores while
other jobs came and went. Accuracies are in percent, the mean over seeds and in parentheses the lowest and the highest.
"""
