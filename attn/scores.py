"""How a query scores a key.

A score is a pytree of its parameters, so its parameters are learned by differentiating through it. There are two kinds. An
inner product of features maps each query and each key once, and the scores are then a matrix product. A pairwise score is a
function of one query and one key vector, and is evaluated for every pair. `implementation="chunked"` computes both block by
block.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from attn._validation import check_name
from attn.shapes import Array, Scale


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """score(q, k) = query_features(q) · key_features(k)."""

    def query_features(self, query: Array) -> Array:
        return query

    def key_features(self, key: Array) -> Array:
        return key

    def default_scale(self, head_dim: int) -> float:
        """The scale where the caller gives none, for queries of `head_dim` channels."""
        return 1.0

    def check(self, query_dim: int, key_dim: int, heads: int) -> None:
        """Raises ValueError where vectors of these sizes cannot be scored with these parameters."""
        if query_dim != key_dim:
            raise ValueError(f"query head dim {query_dim} and key head dim {key_dim} differ: {_name(self)} needs them equal")


@dataclasses.dataclass(frozen=True, eq=False)
class Pairwise:
    """score(q, k) of one query and one key vector: `[H]` and `[H]` to a scalar."""

    def __call__(self, query: Array, key: Array) -> Array:
        raise NotImplementedError

    check = Features.check


def _parameters(cls: type) -> type:
    """A frozen dataclass whose fields are the leaves of a pytree."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, eq=False)(cls))


@_parameters
class Dot(Features):
    """q · k (Luong et al. 2015, section 3.1, "dot")."""


@_parameters
class ScaledDot(Features):
    """q · k / √H (Vaswani et al. 2017, section 3.2.1). An explicit `scale` replaces the 1/√H."""

    def default_scale(self, head_dim: int) -> float:
        return 1 / math.sqrt(head_dim)


@_parameters
class Cosine(Features):
    """q · k / (|q| |k| temperature) (Liu et al. 2022, "Swin Transformer V2", section 3.3); a vector of zeros scores 0.

    `temperature` is a scalar, or one for each head, `[N]`.
    """

    temperature: Scale | Array = 1.0

    def check(self, query_dim: int, key_dim: int, heads: int) -> None:
        super().check(query_dim, key_dim, heads)
        _check_shape("cosine temperature", self.temperature, (), (heads,))

    def query_features(self, query: Array) -> Array:
        temperature = jnp.asarray(self.temperature, query.dtype)
        return _unit(query) / temperature.reshape((1,) * (query.ndim - 2) + (-1, 1))

    def key_features(self, key: Array) -> Array:
        return _unit(key)


@_parameters
class Bilinear(Features):
    """qᵀ matrix k (Luong et al. 2015, section 3.1, "general"). `matrix` is `[H, H']` for keys of H'; None is the identity."""

    matrix: Array | None = None

    def query_features(self, query: Array) -> Array:
        return query if self.matrix is None else query @ jnp.asarray(self.matrix, query.dtype)

    def check(self, query_dim: int, key_dim: int, heads: int) -> None:
        if self.matrix is None:
            super().check(query_dim, key_dim, heads)
        else:
            _check_shape("bilinear matrix", self.matrix, (query_dim, key_dim))


@_parameters
class Additive(Pairwise):
    """vector · tanh(scale · (q + k)) (Bahdanau et al. 2015, appendix A.1.2); `vector` is `[H]`, None means ones.

    Keras' `AdditiveAttention` calls this vector scale.
    """

    vector: Array | None = None
    scale: Scale | None = None

    def __call__(self, query: Array, key: Array) -> Array:
        hidden = jnp.tanh(_times(self.scale, query + key))
        return jnp.sum(hidden if self.vector is None else hidden * jnp.asarray(self.vector, hidden.dtype))

    def check(self, query_dim: int, key_dim: int, heads: int) -> None:
        super().check(query_dim, key_dim, heads)
        _check_shape("additive vector", self.vector, (query_dim,))
        _check_shape("additive scale", self.scale, ())


@_parameters
class Concat(Pairwise):
    """weight · Σ tanh(scale · (q + k)), both scalars: `score_mode="concat"` of Keras' `Attention`."""

    weight: Scale = 1.0
    scale: Scale | None = None

    def check(self, query_dim: int, key_dim: int, heads: int) -> None:
        super().check(query_dim, key_dim, heads)
        _check_shape("concat weight", self.weight, ())
        _check_shape("concat scale", self.scale, ())

    def __call__(self, query: Array, key: Array) -> Array:
        return jnp.asarray(self.weight, query.dtype) * jnp.sum(jnp.tanh(_times(self.scale, query + key)))


@_parameters
class NegSquaredDistance(Pairwise):
    """−|q − k|², the logarithm of a Gaussian kernel, up to a constant.

    It is computed pair by pair, because the expanded square loses its digits to cancellation where q is close to k.
    """

    def __call__(self, query: Array, key: Array) -> Array:
        return -jnp.sum(jnp.square(query - key))


dot, scaled_dot, cosine, bilinear = Dot, ScaledDot, Cosine, Bilinear
additive, concat, neg_squared_distance = Additive, Concat, NegSquaredDistance
NAMES: dict[str, type[Features] | type[Pairwise]] = {
    "dot": Dot,
    "scaled_dot": ScaledDot,
    "cosine": Cosine,
    "bilinear": Bilinear,
    "additive": Additive,
    "concat": Concat,
    "neg_squared_distance": NegSquaredDistance,
}
Score = str | Features | Pairwise | Callable[[Array, Array], Any]


def resolve(score: Score) -> Features | Callable[[Array, Array], Any]:
    """The score of a name, with unit parameters; a score or a function is returned as it is.

    Raises:
      ValueError: an unknown name, with the closest known one, or something that is neither a name, a score nor a function.
    """
    if isinstance(score, type):
        raise ValueError(f"score={score.__name__} is a class: pass its name, or a score made with its parameters")
    if isinstance(score, str):
        return NAMES[check_name("score", score, NAMES)]()
    if not isinstance(score, Features) and not callable(score):
        raise ValueError(f"score={score!r} must be one of {list(NAMES)}, a score of attn.scores, or a function of two vectors")
    return score


def _check_shape(field: str, parameter: Any, *shapes: tuple[int, ...]) -> None:
    if parameter is None:
        return
    try:
        shape = jnp.asarray(parameter).shape
    except (TypeError, ValueError):
        raise ValueError(f"{field}={parameter!r} must be a number or an array") from None
    if shape not in shapes:
        raise ValueError(f"{field} {shape} must be {' or '.join(map(str, shapes))}")


def _unit(x: Array) -> Array:
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jnp.where(square == 0, 0, 1 / jnp.sqrt(jnp.where(square == 0, 1, square)))


def _times(scale: Scale | None, x: Array) -> Array:
    return x if scale is None else jnp.asarray(scale, x.dtype) * x


def _name(score: Features | Pairwise) -> str:
    return next((name for name, value in NAMES.items() if value is type(score)), type(score).__name__)
