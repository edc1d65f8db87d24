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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from attn.models.classifier import PADDING, Classifier
from attn.models.ngram import NgramClassifier
from attn.shapes import Array
from experiments.machine.devices import Device

AXIS = "batch"
_INIT, _ORDER, _DROPOUT = range(3)  # the purposes of the keys that are folded from the seed
_CACHE_BYTES = 2**20  # for the attention weights of one layer, or else its outputs, on one core
_TRIMMED_FROM = 128  # positions; for shorter reviews, trimming saves less time than compiling for each length takes


class Scalars(NamedTuple):
    """The numbers of a config that change no shape, float32 `[]` each: one program serves runs that differ in them."""

    learning_rate: Any
    weight_decay: Any
    dropout_rate: Any  # without effect if the rate in the config of the plan's model is 0
    label_smoothing: Any


class Noise(NamedTuple):
    """What makes the loss of a training step another one than that of an evaluation."""

    dropout_rng: Array  # the key of the step
    dropout_rate: Array
    label_smoothing: Array


class State(NamedTuple):
    """The state of a training, which a step reads and returns."""

    rng: Array  # the key of the seed, which is folded and never consumed
    scalars: Scalars
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
        return cls(jnp.zeros((), jnp.float32), count, count, count)

    def means(self) -> tuple[float, float]:
        """Returns the mean loss in nats and the accuracy."""
        examples = int(self.examples)
        return float(self.loss) / examples, int(self.correct) / examples

    def __add__(self, other: "Sums") -> "Sums":  # type: ignore[override]
        return jax.tree.map(jnp.add, self, other)


class Batches(NamedTuple):
    """Batches on the devices, of which each has its share of every batch.

    Attributes:
      tokens: `[steps, rows, T]`.
      labels: `[steps, rows]`.
      slots: `[steps, rows]`, the index of each example in its batch, and −1 for no example.
    """

    tokens: Array
    labels: Array
    slots: Array


AnyClassifier = Classifier | NgramClassifier
Optimizer = Callable[[Scalars], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The static argument of the programs: the model, its optimizer, and how a batch is divided."""

    model: AnyClassifier
    optimizer: Optimizer
    batch_size: int
    microbatch_size: int
    lengths: tuple[int, ...]  # to which a microbatch may be trimmed, in ascending order; the last is the full length
    mesh: Mesh

    @property
    def devices(self) -> list[Device]:
        """The devices of all processes."""
        return np.asarray(self.mesh.devices).ravel().tolist()

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
        sharding = NamedSharding(self.mesh, PartitionSpec())
        if jax.process_count() == 1:
            return jax.device_put(tree, sharding)
        return jax.tree.map(functools.partial(_on_every_process, sharding), tree)

    def batches(self, tokens: np.ndarray, labels: np.ndarray, order: np.ndarray) -> Batches:
        """Copies the examples of an epoch to the devices, to each its share. A process reads the share of its own devices only.

        Args:
          tokens: Integers `[E, T]`; they may be mapped from a file.
          labels: Integers `[E]`.
          order: `[steps, rows]`, the indices of the examples, and −1 for no example; see `epoch_order`.

        Raises:
          ValueError: T is not the model's `max_length`.
        """
        if tokens.shape[1:] != (self.model.config.max_length,):
            raise ValueError(f"tokens {tokens.shape} must be [E, max_length={self.model.config.max_length}]")
        slots = np.broadcast_to(np.arange(order.shape[1], dtype=np.int32), order.shape)
        if len(self.lengths) > 1:  # reviews of similar length are trimmed together, and each device has short and long ones
            dealt = np.argsort(_lengths(tokens, order), kind="stable").reshape(len(order), -1, self.mesh.size)
            dealt = dealt.swapaxes(1, 2).reshape(order.shape)
            order, slots = np.take_along_axis(order, dealt, 1), np.take_along_axis(slots, dealt, 1)
        slots = np.where(order >= 0, slots, -1)
        sharding = NamedSharding(self.mesh, PartitionSpec(None, AXIS))

        def shard(source: np.ndarray, shape: tuple[int, ...]) -> Array:
            return jax.make_array_from_callback(
                shape, sharding, lambda index: source[np.maximum(order[tuple(index or ())[:2]], 0)]
            )

        return Batches(
            shard(tokens, (*order.shape, tokens.shape[1])),
            shard(labels, order.shape),
            jax.make_array_from_callback(order.shape, sharding, lambda index: slots[index]),
        )

    def split(self, tokens: np.ndarray, labels: np.ndarray) -> Batches:
        """Copies a whole split to the devices, for an evaluation. Arguments and errors are those of `batches`."""
        examples = len(labels)
        steps = -(-examples // self.rows)
        rows = self.round_up(-(-examples // steps))
        order = np.arange(examples)
        if len(self.lengths) > 1:
            order = np.argsort(_lengths(tokens, order), kind="stable")
        padded = np.full(steps * rows, -1)
        padded[:examples] = order
        return self.batches(tokens, labels, padded.reshape(steps, rows))


def _on_every_process(sharding: NamedSharding, leaf: Any) -> Array:
    """Returns an array on the devices of all processes, each of which has the same values."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_on_every_process(sharding, jax.random.key_data(leaf)))
    values = np.array(leaf)  # a copy, because the step reuses the memory of its state
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def _lengths(tokens: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Returns the number of positions up to the last token of each example in `order`, and 0 for no example."""
    used = np.asarray(tokens) != PADDING
    lengths = np.where(used.any(1), tokens.shape[1] - used[:, ::-1].argmax(1), 0)
    return np.where(order >= 0, lengths[order], 0)


def make_plan(model: AnyClassifier, optimizer: Optimizer, batch_size: int, devices: Sequence[Device]) -> Plan:
    """Makes a plan over devices."""
    mesh = Mesh(devices, (AXIS,), axis_types=(AxisType.Auto,))
    config, length = model.config, model.config.max_length
    microbatch_size = -(-batch_size // mesh.size)
    lengths = (length,)
    if devices[0].platform == "cpu":
        most = max(1, _CACHE_BYTES // (4 * config.largest_activation))
        microbatch_size = -(-microbatch_size // -(-microbatch_size // most))  # equal ones, so that few rows hold no example
        if config.mask_padding and length >= _TRIMMED_FROM:
            lengths = tuple(length * eighths // 8 for eighths in config.trimmed_eighths)
    return Plan(model, optimizer, batch_size, microbatch_size, lengths, mesh)


def initial_state(plan: Plan, rng: Array, scalars: Scalars) -> State:
    """Returns new parameters and a new state of the optimizer, the same ones with JAX_ENABLE_X64 too."""
    with jax.enable_x64(False):  # Flax would make float64 parameters
        return _initial_state(plan, rng, jax.tree.map(jnp.float32, scalars))


@functools.partial(jax.jit, static_argnums=0)
def _initial_state(plan: Plan, rng: Array, scalars: Scalars) -> State:
    tokens = jnp.zeros((1, plan.model.config.max_length), jnp.int32)
    params = plan.model.init(jax.random.fold_in(rng, _INIT), tokens)["params"]
    return State(rng, scalars, jnp.zeros((), jnp.int32), params, plan.optimizer(scalars).init(params))


@functools.partial(jax.jit, static_argnums=(0, 3))
def epoch_order(plan: Plan, rng: Array, epoch: int | Array, examples: int) -> Array:
    """Returns the order of the examples in an epoch, `[steps, rows]`: a random permutation, with −1 for no example."""
    order_rng = jax.random.fold_in(jax.random.fold_in(rng, _ORDER), epoch)
    steps = -(-examples // plan.batch_size)
    order = jnp.full(steps * plan.batch_size, -1, jnp.int32)
    order = (
        order.at[:examples].set(jax.random.permutation(order_rng, examples).astype(jnp.int32)).reshape(steps, plan.batch_size)
    )
    return jnp.pad(order, ((0, 0), (0, plan.rows - plan.batch_size)), constant_values=-1)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def train(
    plan: Plan, state: State, sums: Sums, batches: Batches, first: int | Array, last: int | Array
) -> tuple[State, Sums, Array]:
    """Runs several steps of an epoch in one call.

    Args:
      plan: What the program is compiled for.
      state: The state before the steps. Its memory is reused.
      sums: The sums over the previous steps of the epoch.
      batches: The batches of the epoch.
      first: The index of the first step.
      last: The index behind the last step.

    Returns:
      The state after the steps, `sums` with those of the steps added, and int32 −1. If the loss or the gradient of a step is
      not finite: the state and the sums before that step, and its index. The number of steps per call changes no bit.
    """

    def unfinished(carry: tuple[Array, State, Sums, Array]) -> Array:
        index, _, _, bad = carry
        return (index < last) & (bad < 0)

    def body(carry: tuple[Array, State, Sums, Array]) -> tuple[Array, State, Sums, Array]:
        index, state, sums, bad = carry
        new_state, new_sums, finite = train_step(plan, state, at(batches, index))
        state, sums = jax.tree.map(functools.partial(jnp.where, finite), (new_state, sums + new_sums), (state, sums))
        return index + 1, state, sums, jnp.where(finite, bad, index)

    start = jnp.asarray(first, jnp.int32), state, sums, jnp.full((), -1, jnp.int32)
    _, state, sums, bad = lax.while_loop(unfinished, body, start)
    return state, sums, bad


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_in_parallel(
    plan: Plan,
    states: tuple[State, ...],
    sums: tuple[Sums, ...],
    batches: tuple[Batches, ...],
    firsts: tuple[int | Array, ...],
    lasts: tuple[int | Array, ...],
) -> tuple[tuple[State, Sums, Array], ...]:
    """Runs `train` for several runs in parallel. Each argument has one entry for each run, and so has the result."""
    arguments = (_stacked(several) for several in (states, sums, batches, firsts, lasts))
    results = jax.vmap(functools.partial(train, plan))(*arguments)
    return _unstacked(plan, results, len(states))


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _unstacked(plan: Plan, tree: Any, count: int) -> tuple[Any, ...]:
    parts = tuple(jax.tree.map(lambda leaf: leaf[index], tree) for index in range(count))  # noqa: B023
    return lax.with_sharding_constraint(parts, NamedSharding(plan.mesh, PartitionSpec()))


def at(batches: Batches, index: int | Array) -> Batches:
    """Returns one of the batches: tokens `[rows, T]`, labels and slots `[rows]`."""
    return jax.tree.map(lambda array: array[index], batches)


def train_step(plan: Plan, state: State, batch: Batches) -> tuple[State, Sums, Array]:
    """Runs one step on a batch of `at`. Returns the new state, the sums, and whether loss and gradient are finite."""
    gradient, sums = mean_gradient(plan, state, batch)
    finite = jnp.isfinite(sums.loss)
    for leaf in jax.tree.leaves(gradient):
        finite &= jnp.all(jnp.isfinite(leaf))
    updates, optimizer = plan.optimizer(state.scalars).update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    return state._replace(step=state.step + 1, params=params, optimizer=optimizer), sums, finite


def mean_gradient(plan: Plan, state: State, batch: Batches) -> tuple[Any, Sums]:
    """Returns the gradient of the mean loss of a batch of `at`, and the sums."""
    dropout_rng = jax.random.fold_in(jax.random.fold_in(state.rng, _DROPOUT), state.step)
    noise = Noise(dropout_rng, state.scalars.dropout_rate, state.scalars.label_smoothing)
    gradient, sums = _on_devices(plan, functools.partial(_gradient, plan), state.params, noise, sharded=batch)
    return jax.tree.map(lambda g: g / sums.examples, gradient), sums


@functools.partial(jax.jit, static_argnums=0)
def norms(plan: Plan, state: State, batch: Batches) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """Returns the mean loss of a batch, and the norm of each module's parameters and of its gradients, by name."""
    gradient, sums = mean_gradient(plan, state, batch)
    parameters, gradients = ({name: optax.tree.norm(tree[name]) for name in tree} for tree in (state.params, gradient))
    return sums.loss / sums.examples, parameters, gradients


@functools.partial(jax.jit, static_argnums=0)
def evaluate(plan: Plan, params: Any, batches: Batches) -> Sums:
    """Returns the sums over a whole split, without dropout."""

    def body(index: Array, sums: Sums) -> Sums:
        return sums + _on_devices(plan, functools.partial(_evaluate, plan), params, sharded=at(batches, index))

    return lax.fori_loop(0, batches.labels.shape[0], body, Sums.zero())


@functools.partial(jax.jit, static_argnums=0)
def evaluate_in_parallel(plan: Plan, params: tuple[Any, ...], batches: Batches) -> tuple[Sums, ...]:
    """Runs `evaluate` for the parameters of several runs in parallel."""
    sums = jax.vmap(functools.partial(evaluate, plan), in_axes=(0, None))(_stacked(params), batches)
    return _unstacked(plan, sums, len(params))


@functools.partial(jax.jit, static_argnums=0)
def judge(plan: Plan, params: Any, batches: Batches) -> tuple[Array, Array]:
    """Returns the most probable class of each example of a split, int32 `[steps, rows]`, and its probability, float32."""
    sharded = PartitionSpec(AXIS)
    on_devices = jax.shard_map(
        functools.partial(_judge, plan), mesh=plan.mesh, in_specs=(PartitionSpec(), sharded), out_specs=sharded
    )
    return lax.map(lambda index: on_devices(params, at(batches, index)), jnp.arange(batches.labels.shape[0]))


def _on_devices(plan: Plan, function: Callable, *replicated: Any, sharded: Batches) -> Any:
    """Runs `function` on every device, with all of `replicated` and its part of a batch. It sums over the devices itself."""
    specs = (*(PartitionSpec() for _ in replicated), PartitionSpec(AXIS))
    return jax.shard_map(function, mesh=plan.mesh, in_specs=specs, out_specs=PartitionSpec())(*replicated, sharded)


def _microbatches(plan: Plan, batch: Batches) -> Batches:
    return jax.tree.map(lambda array: array.reshape(-1, plan.microbatch_size, *array.shape[1:]), batch)


def _gradient(plan: Plan, params: Any, noise: Noise, batch: Batches) -> tuple[Any, Sums]:
    """Returns the gradient of the summed loss and the sums."""
    params = lax.pcast(params, AXIS, to="varying")

    def loss(params: Any, part: Batches) -> tuple[Array, Sums]:
        sums = _sums(plan.model, params, part, noise)
        return sums.loss, sums

    def microbatch(carry: tuple[Any, Sums], part: Batches):
        new = _trimmed(plan, part, functools.partial(jax.grad(loss, has_aux=True), params))
        return jax.tree.map(jnp.add, carry, new), None

    zero = jax.tree.map(jnp.zeros_like, params), lax.pcast(Sums.zero(), AXIS, to="varying")
    return lax.psum(lax.scan(microbatch, zero, _microbatches(plan, batch))[0], AXIS)


def _evaluate(plan: Plan, params: Any, batch: Batches) -> Sums:
    def microbatch(sums: Sums, part: Batches):
        return sums + _trimmed(plan, part, lambda part: _sums(plan.model, params, part, None)), None

    zero = lax.pcast(Sums.zero(), AXIS, to="varying")
    return lax.psum(lax.scan(microbatch, zero, _microbatches(plan, batch))[0], AXIS)


def _judge(plan: Plan, params: Any, batch: Batches) -> tuple[Array, Array]:
    def review(tokens: Array) -> tuple[Array, Array]:
        logits = cast(Array, plan.model.apply({"params": params}, tokens.astype(jnp.int32))).astype(jnp.float32)
        return jnp.argmax(logits).astype(jnp.int32), jnp.max(jax.nn.softmax(logits))

    def microbatch(_: None, part: Batches):
        return None, _trimmed(plan, part, lambda part: jax.vmap(review)(part.tokens))

    _, found = lax.scan(microbatch, None, _microbatches(plan, batch))
    return jax.tree.map(jnp.ravel, found)


def _trimmed(plan: Plan, part: Batches, function: Callable[[Batches], Any]) -> Any:
    """Calls `function` with the shortest length of the plan that holds the reviews: it cuts off padding only."""
    if len(plan.lengths) == 1:
        return function(part)
    used = jnp.any(part.tokens != PADDING, axis=0)
    longest = jnp.max(jnp.where(used, jnp.arange(1, used.size + 1), 0))
    branches = [functools.partial(_cut, function, length) for length in plan.lengths]
    return lax.switch(jnp.searchsorted(jnp.array(plan.lengths), longest), branches, part)


def _cut(function: Callable[[Batches], Any], length: int, part: Batches) -> Any:
    return function(part._replace(tokens=part.tokens[:, :length]))


def _sums(model: AnyClassifier, params: Any, part: Batches, noise: Noise | None) -> Sums:
    """Returns the sums over examples, of which the slot −1 stands for none."""
    weights, tokens, labels = part.slots >= 0, part.tokens.astype(jnp.int32), part.labels.astype(jnp.int32)
    losses, correct = jax.vmap(functools.partial(_score, model, params, noise))(tokens, labels, part.slots)
    return Sums(
        jnp.sum(jnp.where(weights, losses, 0)),
        jnp.sum(correct & weights, dtype=jnp.int32),
        jnp.sum(weights, dtype=jnp.int32),
        jnp.sum((tokens != PADDING) & weights[:, None], dtype=jnp.int32),
    )


def _score(
    model: AnyClassifier, params: Any, noise: Noise | None, tokens: Array, label: Array, slot: Array
) -> tuple[Array, Array]:
    """Returns the cross-entropy of one review `[T]` in nats, and whether the most probable class is its label."""
    options: dict[str, Any] = {}
    if noise is not None:
        options = {"rngs": {"dropout": jax.random.fold_in(noise.dropout_rng, slot)}, "dropout_rate": noise.dropout_rate}
    logits = cast(Array, model.apply({"params": params}, tokens, deterministic=noise is None, **options))
    correct = jnp.argmax(logits) == label
    logits = logits.astype(jnp.float32)  # float64 with JAX_ENABLE_X64
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    if noise is not None:  # Szegedy et al. 2016, section 7
        uniform = jax.nn.logsumexp(logits) - jnp.mean(logits)
        loss = (1 - noise.label_smoothing) * loss + noise.label_smoothing * uniform
    return loss, correct
