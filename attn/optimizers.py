"""Optimizers as `optax.GradientTransformation`: Keras' Adam, and an Adam whose steps are relative to the parameters."""

import jax
import jax.numpy as jnp
import optax


def keras_adam(learning_rate: optax.ScalarOrSchedule = 1e-3, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7):
    """`keras.optimizers.Adam` (2.11 to 3.15), which differs from `optax.adam` in where epsilon is added.

    Keras adds epsilon to the uncorrected root (the "epsilon hat" of Kingma and Ba 2015, end of section 2):
    w −= lr · √(1−β₂ᵗ)/(1−β₁ᵗ) · m / (√v + ε). To agree, optax's epsilon would have to be ε/√(1−β₂ᵗ), which is 3.2e-6 at the
    first step. The difference matters for small gradients, such as those of rare words. The first step divided by the
    learning rate is:

        gradient   1e-8    1e-7    1e-6    1e-5    1e-3
        Keras      .0032   .0307   .2403   .7597   .9968
        optax      .0909   .5000   .9091   .9901   .9999

    On its TensorFlow backend, Keras 3 squares the gradients of an embedding's row before it sums those of one batch, which is
    another optimizer for embeddings; see docs/reproduction/embedding-updates.md. Keras 2 and Keras on JAX do as this does.

    `learning_rate` is a number, or a schedule of optax: a function of the number of steps done.
    """

    def init(params):
        mu, nu = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))  # two sets of buffers, since a caller may donate them
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), mu=mu, nu=nu)

    def update(updates, state, params=None):
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: m + (g - m) * (1 - beta_1), state.mu, updates)
        nu = jax.tree.map(lambda v, g: v + (g * g - v) * (1 - beta_2), state.nu, updates)
        current = learning_rate(state.count) if callable(learning_rate) else learning_rate
        rate = current * jnp.sqrt(1 - beta_2**count) / (1 - beta_1**count)
        steps = jax.tree.map(lambda m, v: -rate * m / (jnp.sqrt(v) + epsilon), mu, nu)
        return steps, optax.ScaleByAdamState(count, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)


def relative_adam(learning_rate: optax.ScalarOrSchedule, floor: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.99):
    """Adam with steps in proportion to the parameters: w −= lr · (|w| + floor) · m̂ / (√v̂ + 1e-8).

    With floor 0 this is Madam (Bernstein et al. 2020, "Learning compositional functions via multiplicative weight updates"),
    to first order in the learning rate, which changes no sign. It suits parameters that start at different sizes on purpose,
    such as the log-count ratios of n-grams. The floor lets parameters change that start at 0, and their signs.

    `learning_rate` is a number, or a schedule of optax: a function of the number of steps done. `update` needs the parameters.
    """

    def relative(updates, params):
        return jax.tree.map(lambda step, w: step * (jnp.abs(w) + floor), updates, params)

    return optax.chain(
        optax.scale_by_adam(beta_1, beta_2), optax.stateless(relative), optax.scale_by_learning_rate(learning_rate)
    )
