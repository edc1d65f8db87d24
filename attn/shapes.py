"""The letters that name the axes of every array in `attn`, and the type aliases of the signatures.

    B batch · T query length · S key length · N heads · K key/value heads · H head dim of query and key · V head dim of value
    D model dim · F feed-forward dim · C classes

Arrays of heads are `[*B, T, N, H]`, as in `jax.nn`; attention weights are `[*B, N, T, S]`. `*B` stands for any number of
leading batch axes, including none, so every function can be written for one example and mapped with `jax.vmap`. Einsum
expressions use the same letters in lower case. N is a multiple of K: query head n reads key and value head n // R, where
R = N / K. Inside the kernels the batch is one axis, and the query heads are two axes, K and R. The aliases are checked at
run time in the tests only.
"""

from jaxtyping import Array, Bool, Float, Int

Query = Float[Array, "*B T N H"]
Key = Float[Array, "*B S K H2"]  # H2 is H, but for scores that compare vectors of two sizes
Value = Float[Array, "*B S K V"]
Output = Float[Array, "*B T N V"]
Weights = Float[Array, "*B N T S"]
Pooled = Float[Array, "*B N V"]
Rows = Float[Array, "*B N T"]  # one number for each query and head
Bias = Float[Array, "*#B #N #T #S"]  # each axis full or 1
Mask = Bool[Array, "*#B #N #T #S"]  # True: may attend; each axis full or 1
Scale = float | Float[Array, ""]

Tile = Float[Array, "B K R T S"]  # scores, logits or weights of some queries and some keys
Allowed = Bool[Array, "#B #K #R #T #S"]  # True: may attend

Tokens = Int[Array, "*B T"]
Valid = Bool[Array, "*B S"]  # True: a token, False: padding
Logits = Float[Array, "*B C"]

__all__ = [
    "Allowed",
    "Array",
    "Bias",
    "Key",
    "Logits",
    "Mask",
    "Output",
    "Pooled",
    "Query",
    "Rows",
    "Scale",
    "Tile",
    "Tokens",
    "Valid",
    "Value",
    "Weights",
]
