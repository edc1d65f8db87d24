"""The one letter legend of every array in `attn`, and the aliases that signatures use.

    B batch · T query length · S key length · N heads · H head dim of query and key · V head dim of value
    D model dim · F feed-forward dim · C classes

Arrays of heads are `[*B, T, N, H]` as in `jax.nn`, attention weights `[*B, N, T, S]`. `*B` is any number of leading batch
axes, none included: every function here can be written for one example and lifted with `jax.vmap`. The einsum letters are
the legend's in lower case. The aliases are checked at run time in the tests alone.
"""

from jaxtyping import Array, Bool, Float, Int

Query = Float[Array, "*B T N H"]
Key = Float[Array, "*B S N H"]
Value = Float[Array, "*B S N V"]
Output = Float[Array, "*B T N V"]
Weights = Float[Array, "*B N T S"]
Mask = Bool[Array, "*#B #N #T #S"]  # True: may attend; each axis full or 1
Scale = float | Float[Array, ""]

Tokens = Int[Array, "*B T"]
Valid = Bool[Array, "*B S"]  # True: a token, False: padding
Logits = Float[Array, "*B C"]

__all__ = ["Array", "Key", "Logits", "Mask", "Output", "Query", "Scale", "Tokens", "Valid", "Value", "Weights"]
