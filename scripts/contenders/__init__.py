"""The contenders of `scripts/bench_train.py`: the same model in `attn`, linen, Keras and PyTorch, each in its own process."""
