"""The compiled programs: many training steps a call, and the evaluation of a split.

Every example is a function of its own: `jax.vmap` lifts the loss of one review, with a dropout key folded from (seed, step,
index in the global batch). So the numbers do not depend on how a batch is cut, and on a CPU it is cut twice: over one
virtual device a core (`shard_map`), and on each into microbatches whose attention weights stay in the cache (`lax.scan`).
Together with `attn.dense_vjp` that is worth a factor of five over one `jit` of the whole batch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from attn.models.classifier import PADDING, Classifier
from attn.shapes import Array

AXIS = "batch"
_INIT, _ORDER, _DROPOUT = range(3)  # what a key folded from the seed is for
_CACHE_BYTES = 2**20  # of one layer's attention weights, on one core


class State(NamedTuple):
    """What a step reads and writes."""

    rng: Array  # of the seed; never consumed, only folded
    step: Array
    params: Any
    optimizer: Any


class Sums(NamedTuple):
    """What is added over examples; `means` divides, once."""

    loss: Array
    correct: Array
    examples: Array
    tokens: Array  # not padding

    @classmethod
    def zero(cls) -> "Sums":
        count = jnp.zeros((), jnp.int32)
        return cls(jnp.zeros(()), count, count, count)

    def means(self) -> tuple[float, float]:
        """Loss in nats and accuracy, an example."""
        examples = int(self.examples)
        return float(self.loss) / examples, int(self.correct) / examples

    def __add__(self, other: "Sums") -> "Sums":  # type: ignore[override]
        return jax.tree.map(jnp.add, self, other)


class Examples(NamedTuple):
    """A split on the devices: tokens `[E, T]`, labels `[E]`."""

    tokens: Array
    labels: Array


@dataclasses.dataclass(frozen=True)
class Programs:
    """The two compiled programs of a run, and how they cut a batch."""

    model: Classifier
    optimizer: optax.GradientTransformation
    batch_size: int
    microbatch_size: int
    mesh: Mesh

    @property
    def rows(self) -> int:
        """The batch size, padded so that every device gets whole microbatches; the padding weighs nothing."""
        return _round_up(self.batch_size, self.mesh.size * self.microbatch_size)

    def initial_state(self, seed: int) -> State:
        return self.replicate(self._initial_state(jax.random.key(seed)))

    @functools.partial(jax.jit, static_argnums=0)
    def _initial_state(self, rng: Array) -> State:
        tokens = jnp.zeros((1, self.model.config.max_length), jnp.int32)
        params = self.model.init(jax.random.fold_in(rng, _INIT), tokens)["params"]
        return State(rng, jnp.zeros((), jnp.int32), params, self.optimizer.init(params))

    def replicate(self, tree: Any) -> Any:
        """A copy on every device, which is where the programs want their arguments."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def order(self, rng: Array, epoch: Array, examples: int) -> Array:
        """A permutation of the examples, a row a step `[steps, rows]`; −1 where there is none."""
        order_rng = jax.random.fold_in(jax.random.fold_in(rng, _ORDER), epoch)
        steps = -(-examples // self.batch_size)
        order = jnp.full(steps * self.batch_size, -1, jnp.int32)
        order = order.at[:examples].set(jax.random.permutation(order_rng, examples))
        order = order.reshape(steps, self.batch_size)
        return jnp.pad(order, ((0, 0), (0, self.rows - self.batch_size)), constant_values=-1)

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def train(
        self, state: State, sums: Sums, examples: Examples, order: Array, first: int, last: int
    ) -> tuple[State, Sums]:
        """Steps `first` to `last` (exclusive) of an epoch, in one call, and `sums` with theirs added.

        How many they are is not compiled in, and since `sums` runs through the calls it changes no bit of the result.
        """

        def step(index: Array, carry: tuple[State, Sums]) -> tuple[State, Sums]:
            state, sums = carry
            state, new = self._step(state, examples, order[index])
            return state, sums + new

        return lax.fori_loop(first, last, step, (state, sums))

    def _step(self, state: State, examples: Examples, rows: Array) -> tuple[State, Sums]:
        dropout_rng = jax.random.fold_in(jax.random.fold_in(state.rng, _DROPOUT), state.step)
        slots = jnp.arange(self.rows)
        gradient, sums = self._sharded(self._gradient, state.params, dropout_rng, examples, cut=(rows, slots))
        gradient = jax.tree.map(lambda g: g / sums.examples, gradient)
        updates, optimizer = self.optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(state.rng, state.step + 1, params, optimizer), sums

    @functools.partial(jax.jit, static_argnums=0)
    def evaluate(self, params: Any, examples: Examples) -> Sums:
        """The sums over a whole split, dropout off."""
        count = examples.labels.size
        rows = jnp.arange(_round_up(count, self.mesh.size * self.microbatch_size))
        return self._sharded(self._evaluate, params, examples, cut=(jnp.where(rows < count, rows, -1),))

    def _sharded(self, function: Callable, *whole: Any, cut: tuple[Array, ...]) -> Any:
        """`function` on every device, on all of `whole` and on its share of the rows in `cut`; it adds up its results."""
        specs = (*(PartitionSpec() for _ in whole), *(PartitionSpec(AXIS) for _ in cut))
        return jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec())(*whole, *cut)

    def _gradient(
        self, params: Any, dropout_rng: Array, examples: Examples, rows: Array, slots: Array
    ) -> tuple[Any, Sums]:
        params = lax.pcast(params, AXIS, to="varying")

        def loss(params: Any, rows: Array, slots: Array) -> tuple[Array, Sums]:
            rngs = jax.vmap(functools.partial(jax.random.fold_in, dropout_rng))(slots)
            sums = self._sums(params, examples, rows, rngs)
            return sums.loss, sums

        def microbatch(carry: tuple[Any, Sums], part: tuple[Array, Array]):
            gradient, sums = jax.grad(loss, has_aux=True)(params, *part)
            return jax.tree.map(jnp.add, carry, (gradient, sums)), None

        zero = jax.tree.map(jnp.zeros_like, params), lax.pcast(Sums.zero(), AXIS, to="varying")
        return lax.psum(lax.scan(microbatch, zero, self._microbatches(rows, slots))[0], AXIS)

    def _evaluate(self, params: Any, examples: Examples, rows: Array) -> Sums:
        def microbatch(sums: Sums, part: tuple[Array]):
            return sums + self._sums(params, examples, *part, None), None

        zero = lax.pcast(Sums.zero(), AXIS, to="varying")
        return lax.psum(lax.scan(microbatch, zero, self._microbatches(rows))[0], AXIS)

    def _microbatches(self, *arrays: Array) -> tuple[Array, ...]:
        return tuple(a.reshape(-1, self.microbatch_size) for a in arrays)

    def _sums(self, params: Any, examples: Examples, rows: Array, dropout_rngs: Array | None) -> Sums:
        """The sums over the examples in `rows`, of which −1 is none."""
        weights = rows >= 0
        tokens, labels = examples.tokens[rows].astype(jnp.int32), examples.labels[rows].astype(jnp.int32)
        losses, correct = jax.vmap(functools.partial(_score, self.model, params))(tokens, labels, dropout_rngs)
        return Sums(
            jnp.sum(jnp.where(weights, losses, 0)),
            jnp.sum(correct & weights),
            jnp.sum(weights, dtype=jnp.int32),
            jnp.sum((tokens != PADDING) & weights[:, None]),
        )


def _score(model: nn.Module, params: Any, tokens: Array, label: Array, dropout_rng: Array | None) -> tuple[Array, Array]:
    """Cross-entropy in nats of one review `[T]`, and whether the most probable class is its label."""
    rngs = None if dropout_rng is None else {"dropout": dropout_rng}
    logits = model.apply({"params": params}, tokens, deterministic=dropout_rng is None, rngs=rngs)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return loss, jnp.argmax(logits) == label


def build_programs(model: Classifier, optimizer: optax.GradientTransformation, batch_size: int) -> Programs:
    """Programs over all local devices."""
    mesh = Mesh(jax.local_devices(), (AXIS,), axis_types=(AxisType.Auto,))
    share = -(-batch_size // mesh.size)
    fits = share if jax.default_backend() != "cpu" else _CACHE_BYTES // (4 * model.config.num_heads * model.config.max_length**2)
    return Programs(model, optimizer, batch_size, max(1, min(share, fits)), mesh)


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
