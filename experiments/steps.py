"""The compiled programs: many training steps a call, and the evaluation of a split.

Every example is a function of its own: `jax.vmap` lifts the loss of one review, with a dropout key folded from (seed, step,
index in the global batch). So the numbers do not depend on how a batch is cut, and on a CPU it is cut twice: over one
virtual device a core (`shard_map`), and on each into microbatches whose attention weights stay in the cache (`lax.scan`). Where
padding is masked they are of reviews of like length, and end where the longest of them does, or soon after.
Together with the chunked kernel of `attn.attend` that is worth a factor of four to seven over one `jit` of the whole batch; see
`scripts/bench_train.py`.
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
_INIT, _ORDER, _DROPOUT = range(3)  # what a key folded from the seed is for
_CACHE_BYTES = 2**20  # of one layer's attention weights, on one core
_TRIMMED_FROM = 128  # positions; shorter reviews take less time than what is compiled for each length


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
class Plan:
    """What the programs are compiled for: the model, its optimizer, and how a batch is cut. A static argument."""

    model: Classifier
    optimizer: optax.GradientTransformation
    batch_size: int
    microbatch_size: int
    lengths: tuple[int, ...]  # to which a microbatch may be trimmed, ascending; the last is all of it
    mesh: Mesh

    @property
    def rows(self) -> int:
        """The batch size, padded so that every device gets whole microbatches; the padding weighs nothing."""
        return self.round_up(self.batch_size)

    def round_up(self, examples: int) -> int:
        """To whole microbatches on every device."""
        multiple = self.mesh.size * self.microbatch_size
        return -(-examples // multiple) * multiple

    def replicate(self, tree: Any) -> Any:
        """A copy on every device, which is where the programs want their arguments."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def examples(self, tokens: ArrayLike, labels: ArrayLike) -> Examples:
        """A split on every device: tokens `[E, T]`, labels `[E]`. ValueError where T is not the model's `max_length`."""
        shape, length = jnp.shape(tokens), self.model.config.max_length
        if shape[1:] != (length,):
            raise ValueError(f"tokens {shape} must be [E, max_length={length}]")
        return self.replicate(Examples(jnp.asarray(tokens), jnp.asarray(labels)))


def make_plan(model: Classifier, optimizer: optax.GradientTransformation, batch_size: int) -> Plan:
    """A plan over all local devices."""
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
    """Fresh parameters, and an optimizer that has seen nothing."""
    tokens = jnp.zeros((1, plan.model.config.max_length), jnp.int32)
    params = plan.model.init(jax.random.fold_in(rng, _INIT), tokens)["params"]
    return State(rng, jnp.zeros((), jnp.int32), params, plan.optimizer.init(params))


@functools.partial(jax.jit, static_argnums=(0, 3))
def epoch_order(plan: Plan, rng: Array, epoch: int | Array, examples: int) -> Array:
    """A permutation of the examples, a row a step `[steps, rows]`; −1 where there is none."""
    order_rng = jax.random.fold_in(jax.random.fold_in(rng, _ORDER), epoch)
    steps = -(-examples // plan.batch_size)
    order = jnp.full(steps * plan.batch_size, -1, jnp.int32)
    order = order.at[:examples].set(jax.random.permutation(order_rng, examples)).reshape(steps, plan.batch_size)
    return jnp.pad(order, ((0, 0), (0, plan.rows - plan.batch_size)), constant_values=-1)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def train(
    plan: Plan, state: State, sums: Sums, examples: Examples, order: Array, first: int | Array, last: int | Array
) -> tuple[State, Sums]:
    """Steps `first` to `last` (exclusive) of an epoch, in one call, and `sums` with theirs added.

    How many they are is not compiled in, and since `sums` runs through the calls it changes no bit of the result.
    """

    def body(index: Array, carry: tuple[State, Sums]) -> tuple[State, Sums]:
        state, sums = carry
        state, new = train_step(plan, state, examples, order[index])
        return state, sums + new

    return lax.fori_loop(first, last, body, (state, sums))


def train_step(plan: Plan, state: State, examples: Examples, rows: Array) -> tuple[State, Sums]:
    """One step on the examples in `rows` `[rows]`, where −1 is none."""
    dropout_rng = jax.random.fold_in(jax.random.fold_in(state.rng, _DROPOUT), state.step)
    cut = _by_length(plan, examples, rows)
    gradient, sums = _on_devices(plan, functools.partial(_gradient, plan), state.params, dropout_rng, examples, cut=cut)
    gradient = jax.tree.map(lambda g: g / sums.examples, gradient)
    updates, optimizer = plan.optimizer.update(gradient, state.optimizer, state.params)
    return State(state.rng, state.step + 1, optax.apply_updates(state.params, updates), optimizer), sums


@functools.partial(jax.jit, static_argnums=0)
def evaluate(plan: Plan, params: Any, examples: Examples) -> Sums:
    """The sums over a whole split, dropout off."""
    rows = jnp.arange(plan.round_up(examples.labels.size))
    rows, _ = _by_length(plan, examples, jnp.where(rows < examples.labels.size, rows, -1))
    return _on_devices(plan, functools.partial(_evaluate, plan), params, examples, cut=(rows,))


def _by_length(plan: Plan, examples: Examples, rows: Array) -> tuple[Array, Array]:
    """The rows and their places in the batch; where reviews are trimmed, sorted by length and dealt to the devices in turn."""
    slots = jnp.arange(rows.size)
    if len(plan.lengths) == 1:
        return rows, slots
    slots = jnp.argsort(_lengths(examples, rows)).reshape(-1, plan.mesh.size).T.ravel()
    return rows[slots], slots


def _lengths(examples: Examples, rows: Array) -> Array:
    """The positions of each review up to its last token; 0 where the row is none."""
    tokens = examples.tokens[rows]
    ends = jnp.where(tokens != PADDING, jnp.arange(1, tokens.shape[1] + 1), 0)
    return jnp.where(rows >= 0, jnp.max(ends, axis=1), 0)


def _on_devices(plan: Plan, function: Callable, *whole: Any, cut: tuple[Array, ...]) -> Any:
    """`function` on every device, on all of `whole` and on its share of the rows in `cut`; it adds up its own results."""
    specs = (*(PartitionSpec() for _ in whole), *(PartitionSpec(AXIS) for _ in cut))
    return jax.shard_map(function, mesh=plan.mesh, in_specs=specs, out_specs=PartitionSpec())(*whole, *cut)


def _gradient(plan: Plan, params: Any, dropout_rng: Array, examples: Examples, rows: Array, slots: Array) -> tuple[Any, Sums]:
    """The gradient of the summed loss of one device's rows, a microbatch at a time; `slots` are their places in the batch."""
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
    """`function` of the least of the plan's lengths that holds the reviews in `rows`; only padding, masked, is beyond it."""
    if len(plan.lengths) == 1:
        return function(plan.lengths[0])
    branches = [functools.partial(function, length) for length in plan.lengths]
    return lax.switch(jnp.searchsorted(jnp.array(plan.lengths), jnp.max(_lengths(examples, rows))), branches)


def _sums(model: Classifier, params: Any, examples: Examples, rows: Array, dropout_rngs: Array | None, length: int) -> Sums:
    """The sums over the first `length` positions of the examples in `rows`, of which −1 is none."""
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
    """Cross-entropy in nats of one review `[T]`, and whether the most probable class is its label."""
    rngs = None if dropout_rng is None else {"dropout": dropout_rng}
    logits = cast(Array, model.apply({"params": params}, tokens, deterministic=dropout_rng is None, rngs=rngs))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return loss, jnp.argmax(logits) == label
