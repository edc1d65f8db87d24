"""The dtype in which numbers are computed."""

from typing import Any

import numpy as np


def at_least_float32(*dtypes: Any) -> np.dtype:
    """The widest of the dtypes and float32. Not `jnp.result_type`, which some of JAX's strict modes forbid."""
    return max(map(np.dtype, (np.float32, *dtypes)), key=lambda dtype: dtype.itemsize)
