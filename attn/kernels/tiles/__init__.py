"""A tile: the scores of one block of queries against one block of keys. `dense` is one tile, `chunked` a loop over them."""
