"""The compiled programs: however a batch is cut, the numbers are those of the whole batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from attn.models.classifier import Classifier
from experiments import settings
from experiments.training import steps

pytestmark = pytest.mark.usefixtures("fast_compilation")
EXAMPLES, LENGTH, BATCH = 11, 6, 5


@functools.cache
def make_plan(page="transformer_positional", microbatch_size=2, devices=2, mask_padding=False) -> steps.Plan:
    config = settings.load_page(page, "imdb")
    config.model.mask_padding = mask_padding
    model = Classifier(settings.model_config(config, vocabulary_size=30, max_length=LENGTH))
    plan = steps.make_plan(model, tiny.keras_adam, BATCH, jax.local_devices()[:devices])
    return dataclasses.replace(plan, microbatch_size=microbatch_size)


def make_examples() -> tuple[np.ndarray, np.ndarray]:
    """Tokens and labels."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 30, (EXAMPLES, LENGTH)) * (np.arange(LENGTH) < rng.integers(1, LENGTH + 1, (EXAMPLES, 1)))
    labels = rng.integers(0, 2, EXAMPLES)
    return tokens.astype(np.uint16), labels.astype(np.int8)


def make_batches(plan: steps.Plan, rng: jax.Array) -> steps.Batches:
    return plan.batches(*make_examples(), np.asarray(steps.epoch_order(plan, rng, 0, EXAMPLES)))


@functools.cache
def run_epoch(plan: steps.Plan, calls=((0, 3),), seed=0):
    state = plan.replicate(steps.initial_state(plan, jax.random.key(seed), tiny.SCALARS))
    batches, sums = make_batches(plan, state.rng), plan.replicate(steps.Sums.zero())
    for first, last in calls:
        state, sums, bad = steps.train(plan, state, sums, batches, first, last)
        assert bad == -1
    return state, sums


def distance(a, b):
    """The largest difference; in NumPy, since the arrays may be on different devices."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in pairs)


def test_order_is_a_permutation_that_changes_with_the_epoch_and_the_seed():
    plan = make_plan()
    orders = [
        np.asarray(steps.epoch_order(plan, jax.random.key(seed), epoch, EXAMPLES)) for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    for order in orders:
        assert order.shape == (3, plan.rows)
        assert [int((row >= 0).sum()) for row in order] == [5, 5, 1]
        assert sorted(order[order >= 0]) == list(range(EXAMPLES))
    assert len({order.tobytes() for order in orders}) == 3


def test_a_step_is_the_gradient_of_the_mean_loss_over_the_batch():
    """Against one plain `jax.grad` of the whole batch without dropout, through Keras' Adam; the last batch is ragged."""
    plan = make_plan("single_head")
    state = plan.replicate(steps.initial_state(plan, jax.random.key(0), tiny.SCALARS))
    order, examples = steps.epoch_order(plan, state.rng, 0, EXAMPLES), make_examples()
    params, optimizer = jax.tree.map(jnp.copy, (state.params, state.optimizer))

    def loss(params, tokens, labels):
        logits = plan.model.apply({"params": params}, tokens)
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]), logits

    @jax.jit
    def step(params, optimizer, tokens, labels):
        results, gradient = jax.value_and_grad(loss, has_aux=True)(params, tokens, labels)
        updates, optimizer = plan.optimizer(tiny.SCALARS).update(gradient, optimizer)
        return results, optax.apply_updates(params, updates), optimizer

    total = correct = 0
    for rows in np.asarray(order):
        rows = rows[rows >= 0]
        tokens, labels = (np.asarray(array)[rows].astype(np.int32) for array in examples)
        (value, logits), params, optimizer = step(params, optimizer, tokens, labels)
        total += float(value) * len(rows)
        correct += int((np.asarray(logits).argmax(-1) == labels).sum())
    state, sums = run_epoch(plan)
    assert distance(state.params, params) < 1e-5
    assert float(sums.loss) == pytest.approx(total, rel=1e-5)
    assert (int(sums.correct), int(sums.examples)) == (correct, EXAMPLES)
    assert int(sums.tokens) == np.count_nonzero(examples[0])
    assert int(state.step) == 3


@pytest.mark.parametrize("microbatch_size, devices", [(1, 1), (5, 1), (3, 2)])
def test_neither_microbatches_nor_devices_change_the_numbers(microbatch_size, devices):
    """Dropout is on: each example draws by its place in the global batch."""
    state, sums = run_epoch(make_plan())
    other_state, other_sums = run_epoch(make_plan(microbatch_size=microbatch_size, devices=devices))
    assert distance(state.params, other_state.params) < 2e-5
    assert float(sums.loss) == pytest.approx(float(other_sums.loss), rel=1e-5)
    assert tuple(map(int, sums[1:])) == tuple(map(int, other_sums[1:]))


@pytest.mark.parametrize(
    "page, lengths",
    [("single_head", (2, 4, LENGTH)), ("multi_head", (3, LENGTH)), ("transformer_positional", (3, LENGTH))],
)
def test_trimmed_reviews_change_no_number_where_padding_is_masked(page, lengths, monkeypatch):
    """Sorted by length and without their last positions, dropout on; a length too short for them does change the loss."""
    whole = make_plan(page, mask_padding=True)
    trimmed = dataclasses.replace(whole, lengths=lengths)
    used = []
    sums_of = steps._sums
    monkeypatch.setattr(steps, "_sums", lambda *arguments: used.append(arguments[2].tokens.shape[1]) or sums_of(*arguments))
    (state, sums), (expected_state, expected) = run_epoch(trimmed), run_epoch(whole)
    assert set(lengths) <= set(used)
    assert distance(state.params, expected_state.params) < 2e-5
    assert float(sums.loss) == pytest.approx(float(expected.loss), rel=1e-5)
    assert tuple(map(int, sums[1:])) == tuple(map(int, expected[1:]))
    of_trimmed, of_whole = (
        steps.evaluate(plan, expected_state.params, plan.split(*make_examples())).means() for plan in (trimmed, whole)
    )
    assert of_trimmed == pytest.approx(of_whole, rel=1e-6)


def test_reviews_that_are_trimmed_too_short_give_other_parameters():
    """So that the numbers in the test before can differ."""
    whole = make_plan("single_head", mask_padding=True)
    too_short = dataclasses.replace(whole, lengths=(1, 2))
    assert distance(run_epoch(too_short)[0].params, run_epoch(whole)[0].params) > 1e-4


def test_reviews_are_trimmed_where_padding_is_masked():
    def lengths(max_length, mask_padding):
        config = settings.load_page("single_head", "imdb")
        config.model.mask_padding = mask_padding
        model = Classifier(settings.model_config(config, vocabulary_size=30, max_length=max_length))
        return steps.make_plan(model, tiny.keras_adam, BATCH, jax.devices()).lengths

    assert lengths(256, mask_padding=True) == (128, 192, 256)
    assert lengths(256, mask_padding=False) == (256,)
    assert lengths(127, mask_padding=True) == (127,)


def test_dropout_changes_with_the_seed_and_the_step():
    plan = make_plan()
    state = plan.replicate(steps.initial_state(plan, jax.random.key(0), tiny.SCALARS))
    batches, losses = make_batches(plan, state.rng), set()
    for rng, step in ((0, 0), (0, 1), (1, 0)):  # the same parameters, the same examples
        changed = jax.tree.map(jnp.copy, state._replace(rng=jax.random.key(rng), step=jnp.int32(step)))
        sums = steps.train(plan, plan.replicate(changed), plan.replicate(steps.Sums.zero()), batches, 0, 1)[1]
        losses.add(float(sums.loss))
    assert len(losses) == 3


def test_how_many_steps_a_call_runs_changes_no_bit():
    plan = make_plan()
    state, sums = run_epoch(plan)
    other_state, other_sums = run_epoch(plan, calls=((0, 1), (1, 3)))
    assert distance(state.params, other_state.params) == 0
    assert tuple(map(float, sums)) == tuple(map(float, other_sums))


def test_where_jax_computes_in_float64_the_state_stays_the_same():
    """The parameters, the dropout and the order; the sums within the model may be more exact."""
    plan = make_plan()
    state, sums = run_epoch(plan)
    with jax.enable_x64(True):
        other_state, other_sums = run_epoch.__wrapped__(plan)
        assert jnp.zeros(()).dtype == jnp.float64
        loss = steps.evaluate(plan, other_state.params, plan.split(*make_examples())).means()[0]
    for leaf, other in zip(jax.tree.leaves((state, sums)), jax.tree.leaves((other_state, other_sums)), strict=True):
        assert leaf.dtype == other.dtype
    assert distance(state.params, other_state.params) < 2e-5
    assert float(sums.loss) == pytest.approx(float(other_sums.loss), rel=1e-5)
    assert loss == pytest.approx(steps.evaluate(plan, state.params, plan.split(*make_examples())).means()[0], rel=1e-5)


def test_evaluation_is_the_mean_over_the_split():
    plan = make_plan()
    state = plan.replicate(steps.initial_state(plan, jax.random.key(0), tiny.SCALARS))
    tokens, labels = (array.astype(np.int32) for array in make_examples())
    logits = np.asarray(jax.jit(plan.model.apply)({"params": state.params}, tokens), np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss, accuracy = steps.evaluate(plan, state.params, plan.split(*make_examples())).means()
    assert loss == pytest.approx(-log_probabilities[np.arange(EXAMPLES), labels].mean(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(-1) == labels).mean())


def test_tokens_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"^tokens \(11, 7\) must be \[E, max_length=6\]$"):
        make_plan().split(np.ones((EXAMPLES, 7), np.uint16), np.ones(EXAMPLES, np.int8))


@pytest.mark.parametrize("which", ["parameter", "gradient"])
def test_a_step_that_is_not_finite_ends_the_call_before_it(which: str, monkeypatch: pytest.MonkeyPatch):
    """An infinite parameter in the second step, or a gradient that is NaN in the first one, where the loss is finite."""
    plan = make_plan()
    if which == "gradient":
        plan, score = dataclasses.replace(plan, microbatch_size=1), steps._score

        def turn(*arguments):
            loss, correct = score(*arguments)
            shift = arguments[1]["logits"]["bias"][0]
            return loss + shift - jnp.sqrt(shift * shift), correct  # at 0: the value 0, and the gradient NaN

        monkeypatch.setattr(steps, "_score", turn)
    state = plan.replicate(steps.initial_state(plan, jax.random.key(0), tiny.SCALARS))
    batches, zero = make_batches(plan, state.rng), plan.replicate(steps.Sums.zero())
    if which == "parameter":
        state, sums, bad = steps.train(plan, state, zero, batches, 0, 1)
        assert bad == -1
        state.params["logits"]["bias"] = state.params["logits"]["bias"].at[0].set(jnp.inf)
        first = 1
    else:
        sums, first = zero, 0
    before = jax.tree.map(np.array, (state.params, state.optimizer, state.step, sums))
    state, sums, bad = steps.train(plan, state, sums, batches, first, 3)
    assert bad == first
    after = jax.tree.map(np.array, (state.params, state.optimizer, state.step, sums))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    loss, parameters, gradients = steps.norms(plan, state, steps.at(batches, first))
    assert parameters.keys() == gradients.keys() == state.params.keys()
    assert np.isfinite(loss) == (which == "gradient")
    assert not np.isfinite(gradients["logits"])
    squares = sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in jax.tree.leaves(state.params["embedding"]))
    assert float(parameters["embedding"]) == pytest.approx(np.sqrt(squares), rel=1e-5)


def test_each_process_reads_its_share_of_the_rows_alone():
    """With the devices of this process, the rows of each device are read once; no example has the slot −1."""
    plan, read = make_plan(devices=2), []
    tokens, labels = make_examples()

    class Recorded(np.ndarray):
        def __getitem__(self, index):
            read.append(np.asarray(index))
            return np.asarray(self)[index]

    order = np.asarray(steps.epoch_order(plan, jax.random.key(0), 0, EXAMPLES))
    batches = plan.batches(tokens.view(Recorded), labels, order)
    assert [rows.shape for rows in read] == [(3, plan.rows // 2)] * 2
    np.testing.assert_array_equal(np.concatenate(read, 1), np.maximum(order, 0))
    np.testing.assert_array_equal(np.asarray(batches.slots) >= 0, order >= 0)
    kept = order >= 0
    np.testing.assert_array_equal(np.asarray(batches.tokens)[kept], tokens[order[kept]])
    np.testing.assert_array_equal(np.asarray(batches.labels)[kept], labels[order[kept]])
    shards = {shard.device: shard.data.shape for shard in batches.tokens.addressable_shards}
    assert set(shards.values()) == {(3, plan.rows // 2, LENGTH)}
