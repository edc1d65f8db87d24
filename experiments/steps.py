"""The compiled programs: several training steps per call, and the evaluation of a split.

`jax.vmap` maps the loss of one review over the batch, with a dropout key that is folded from the seed, the step and the index
in the global batch. So the results do not depend on how a batch is divided. On a CPU it is divided twice: between virtual
devices, one per core (`shard_map`), and on each device into microbatches whose attention weights fit into the cache
(`lax.scan`). If padding is masked, the reviews of a microbatch have similar lengths, and padding behind the longest of them is
trimmed. Together with the chunked kernel of `attn.attend`, this is four to seven times as fast as one `jit` of the whole batch;
`scripts/bench_train.py` measures it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from attn.models.classifier import PADDING, Classifier
from attn.shapes import Array

AXIS = "batch"
_INIT, _ORDER, _DROPOUT = range(3)  # the purposes of the keys that are folded from the seed
_CACHE_BYTES = 2**20  # for the attention weights of one layer, on one core
_TRIMMED_FROM = 128  # positions; for shorter reviews, trimming saves less time than compiling for each length takes


class State(NamedTuple):
    """The state of a training, which a step reads and returns."""

    rng: Array  # the key of the seed, which is folded and never consumed
    step: Array
    params: Any
    optimizer: Any


class Sums(NamedTuple):
    """Sums over examples. `means` divides them."""

    loss: Array
    correct: Array
    examples: Array
    tokens: Array  # without padding

    @classmethod
    def zero(cls) -> "Sums":
        """Returns the sums over no examples."""
        count = jnp.zeros((), jnp.int32)
        return cls(jnp.zeros(()), count, count, count)

    def means(self) -> tuple[float, float]:
        """Returns the mean loss in nats and the accuracy."""
        examples = int(self.examples)
        return float(self.loss) / examples, int(self.correct) / examples

    def __add__(self, other: "Sums") -> "Sums":  # type: ignore[override]
        return jax.tree.map(jnp.add, self, other)


class Examples(NamedTuple):
    """The examples of a split on the devices: tokens `[E, T]`, labels `[E]`."""

    tokens: Array
    labels: Array


@dataclasses.dataclass(frozen=True)
class Plan:
    """The static argument of the programs: the model, its optimizer, and how a batch is divided."""

    model: Classifier
    optimizer: optax.GradientTransformation
    batch_size: int
    microbatch_size: int
    lengths: tuple[int, ...]  # to which a microbatch may be trimmed, in ascending order; the last is the full length
    mesh: Mesh

    @property
    def rows(self) -> int:
        """The batch size, rounded up to full microbatches on every device. The added rows hold no examples."""
        return self.round_up(self.batch_size)

    def round_up(self, examples: int) -> int:
        """Rounds a number of examples up to full microbatches on every device."""
        multiple = self.mesh.size * self.microbatch_size
        return -(-examples // multiple) * multiple

    def replicate(self, tree: Any) -> Any:
        """Copies a tree of arrays to every device, where the programs expect their arguments."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def examples(self, tokens: ArrayLike, labels: ArrayLike) -> Examples:
        """Copies the examples of a split to every device.

        Args:
          tokens: Integers `[E, T]`.
          labels: Integers `[E]`.

        Raises:
          ValueError: T is not the model's `max_length`.
        """
        shape, length = jnp.shape(tokens), self.model.config.max_length
        if shape[1:] != (length,):
            raise ValueError(f"tokens {shape} must be [E, max_length={length}]")
        return self.replicate(Examples(jnp.asarray(tokens), jnp.asarray(labels)))


def make_plan(model: Classifier, optimizer: optax.GradientTransformation, batch_size: int) -> Plan:
    """Makes a plan over all local devices."""
    mesh = Mesh(jax.local_devices(), (AXIS,), axis_types=(AxisType.Auto,))
    microbatch_size, length = -(-batch_size // mesh.size), model.config.max_length
    lengths = (length,)
    if jax.default_backend() == "cpu":
        microbatch_size = max(1, min(microbatch_size, _CACHE_BYTES // (4 * model.config.num_heads * length**2)))
        if model.config.mask_padding and length >= _TRIMMED_FROM:
            lengths = (length // 2, 3 * length // 4, length)
    return Plan(model, optimizer, batch_size, microbatch_size, lengths, mesh)


@functools.partial(jax.jit, static_argnums=0)
def initial_state(plan: Plan, rng: Array) -> State:
    """Returns new parameters and a new state of the optimizer."""
    tokens = jnp.zeros((1, plan.model.config.max_length), jnp.int32)
    params = plan.model.init(jax.random.fold_in(rng, _INIT), tokens)["params"]
    return State(rng, jnp.zeros((), jnp.int32), params, plan.optimizer.init(params))


@functools.partial(jax.jit, static_argnums=(0, 3))
def epoch_order(plan: Plan, rng: Array, epoch: int | Array, examples: int) -> Array:
    """Returns the order of the examples in an epoch, `[steps, rows]`: a random permutation, with −1 for no example."""
    order_rng = jax.random.fold_in(jax.random.fold_in(rng, _ORDER), epoch)
    steps = -(-examples // plan.batch_size)
    order = jnp.full(steps * plan.batch_size, -1, jnp.int32)
    order = order.at[:examples].set(jax.random.permutation(order_rng, examples)).reshape(steps, plan.batch_size)
    return jnp.pad(order, ((0, 0), (0, plan.rows - plan.batch_size)), constant_values=-1)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def train(
    plan: Plan, state: State, sums: Sums, examples: Examples, order: Array, first: int | Array, last: int | Array
) -> tuple[State, Sums]:
    """Runs several steps of an epoch in one call.

    Args:
      plan: What the program is compiled for.
      state: The state before the steps. Its memory is reused.
      sums: The sums over the previous steps of the epoch.
      examples: The training split.
      order: The order of the examples in this epoch; see `epoch_order`.
      first: The index of the first step.
      last: The index behind the last step.

    Returns:
      The state after the steps, and `sums` with those of the steps added. The number of steps per call changes no bit of
      either.
    """

    def body(index: Array, carry: tuple[State, Sums]) -> tuple[State, Sums]:
        state, sums = carry
        state, new = train_step(plan, state, examples, order[index])
        return state, sums + new

    return lax.fori_loop(first, last, body, (state, sums))


def train_step(plan: Plan, state: State, examples: Examples, rows: Array) -> tuple[State, Sums]:
    """Runs one step on the examples with the indices `rows`, where −1 stands for no example."""
    dropout_rng = jax.random.fold_in(jax.random.fold_in(state.rng, _DROPOUT), state.step)
    sharded = _by_length(plan, examples, rows)
    gradient, sums = _on_devices(plan, functools.partial(_gradient, plan), state.params, dropout_rng, examples, sharded=sharded)
    gradient = jax.tree.map(lambda g: g / sums.examples, gradient)
    updates, optimizer = plan.optimizer.update(gradient, state.optimizer, state.params)
    return State(state.rng, state.step + 1, optax.apply_updates(state.params, updates), optimizer), sums


@functools.partial(jax.jit, static_argnums=0)
def evaluate(plan: Plan, params: Any, examples: Examples) -> Sums:
    """Returns the sums over a whole split, without dropout."""
    rows = jnp.arange(plan.round_up(examples.labels.size))
    rows, _ = _by_length(plan, examples, jnp.where(rows < examples.labels.size, rows, -1))
    return _on_devices(plan, functools.partial(_evaluate, plan), params, examples, sharded=(rows,))


def _by_length(plan: Plan, examples: Examples, rows: Array) -> tuple[Array, Array]:
    """Returns the rows and their indices in the batch; if reviews are trimmed, sorted by length and dealt to the devices."""
    slots = jnp.arange(rows.size)
    if len(plan.lengths) == 1:
        return rows, slots
    slots = jnp.argsort(_lengths(examples, rows)).reshape(-1, plan.mesh.size).T.ravel()
    return rows[slots], slots


def _lengths(examples: Examples, rows: Array) -> Array:
    """Returns the number of positions of each review up to its last token, and 0 for no example."""
    tokens = examples.tokens[rows]
    ends = jnp.where(tokens != PADDING, jnp.arange(1, tokens.shape[1] + 1), 0)
    return jnp.where(rows >= 0, jnp.max(ends, axis=1), 0)


def _on_devices(plan: Plan, function: Callable, *replicated: Any, sharded: tuple[Array, ...]) -> Any:
    """Runs `function` on every device, with all of `replicated` and a part of `sharded`. It sums over the devices itself."""
    specs = (*(PartitionSpec() for _ in replicated), *(PartitionSpec(AXIS) for _ in sharded))
    return jax.shard_map(function, mesh=plan.mesh, in_specs=specs, out_specs=PartitionSpec())(*replicated, *sharded)


def _gradient(plan: Plan, params: Any, dropout_rng: Array, examples: Examples, rows: Array, slots: Array) -> tuple[Any, Sums]:
    """Returns the gradient of the summed loss and the sums. `slots` are the indices of the rows in the batch."""
    params = lax.pcast(params, AXIS, to="varying")

    def loss(params: Any, rows: Array, slots: Array, length: int) -> tuple[Array, Sums]:
        rngs = jax.vmap(functools.partial(jax.random.fold_in, dropout_rng))(slots)
        sums = _sums(plan.model, params, examples, rows, rngs, length)
        return sums.loss, sums

    def microbatch(carry: tuple[Any, Sums], part: tuple[Array, Array]):
        new = _trimmed(plan, examples, part[0], lambda length: jax.grad(loss, has_aux=True)(params, *part, length))
        return jax.tree.map(jnp.add, carry, new), None

    zero = jax.tree.map(jnp.zeros_like, params), lax.pcast(Sums.zero(), AXIS, to="varying")
    parts = rows.reshape(-1, plan.microbatch_size), slots.reshape(-1, plan.microbatch_size)
    return lax.psum(lax.scan(microbatch, zero, parts)[0], AXIS)


def _evaluate(plan: Plan, params: Any, examples: Examples, rows: Array) -> Sums:
    def microbatch(sums: Sums, rows: Array):
        return sums + _trimmed(plan, examples, rows, functools.partial(_sums, plan.model, params, examples, rows, None)), None

    zero = lax.pcast(Sums.zero(), AXIS, to="varying")
    return lax.psum(lax.scan(microbatch, zero, rows.reshape(-1, plan.microbatch_size))[0], AXIS)


def _trimmed(plan: Plan, examples: Examples, rows: Array, function: Callable[[int], Any]) -> Any:
    """Calls `function` with the shortest length of the plan that holds the reviews in `rows`: it cuts off padding only."""
    if len(plan.lengths) == 1:
        return function(plan.lengths[0])
    branches = [functools.partial(function, length) for length in plan.lengths]
    return lax.switch(jnp.searchsorted(jnp.array(plan.lengths), jnp.max(_lengths(examples, rows))), branches)


def _sums(model: Classifier, params: Any, examples: Examples, rows: Array, dropout_rngs: Array | None, length: int) -> Sums:
    """Returns the sums over the examples in `rows`, of which −1 stands for none, from their first `length` positions."""
    weights = rows >= 0
    tokens, labels = examples.tokens[rows, :length].astype(jnp.int32), examples.labels[rows].astype(jnp.int32)
    losses, correct = jax.vmap(functools.partial(_score, model, params))(tokens, labels, dropout_rngs)
    return Sums(
        jnp.sum(jnp.where(weights, losses, 0)),
        jnp.sum(correct & weights),
        jnp.sum(weights, dtype=jnp.int32),
        jnp.sum((tokens != PADDING) & weights[:, None]),
    )


def _score(model: Classifier, params: Any, tokens: Array, label: Array, dropout_rng: Array | None) -> tuple[Array, Array]:
    """Returns the cross-entropy of one review `[T]` in nats, and whether the most probable class is its label."""
    rngs = None if dropout_rng is None else {"dropout": dropout_rng}
    logits = cast(Array, model.apply({"params": params}, tokens, deterministic=dropout_rng is None, rngs=rngs))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return loss, jnp.argmax(logits) == label
