"""Who runs in `scripts/bench_train.py`: one model, as ours, linen, Keras and PyTorch have it, each in a process of its own."""
