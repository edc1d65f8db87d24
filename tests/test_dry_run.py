"""The numbers that a dry run prints, against numbers by hand and against what they are taken from."""

import functools
from pathlib import Path

import jax
import pytest
import tiny

from experiments import build, dry_run, flops, settings, steps

pytestmark = pytest.mark.usefixtures("fast_compilation")


@pytest.fixture(scope="module")
def config() -> settings.Config:
    config = settings.load_page("transformer", "verdicts")
    config.batch_size, config.epochs = tiny.BATCH_SIZE, 3
    config.model.embed_dim, config.model.key_dim, config.model.feedforward_dim = 5, 3, 7
    return config


@pytest.fixture(scope="module")
def text(config: settings.Config, tmp_path_factory: pytest.TempPathFactory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_corpus", lambda config: tiny.corpus())
        return dry_run.describe(config, tmp_path_factory.mktemp("dry") / "not" / "there")


@pytest.fixture(scope="module")
def plan(config: settings.Config) -> steps.Plan:
    return build.build_plan(config, build.build_model(config, tiny.corpus().tokenizer), 90)


def test_every_field_is_a_flag(config: settings.Config, text: str):
    for field, value in settings.flatten(config).items():
        assert f"  --config.{field}={value}\n" in text


def test_parameters_steps_and_files(plan: steps.Plan, text: str):
    embed, head, feed = 5, 2 * 3, 7
    attention = 3 * (embed * head + head) + head * embed + embed
    block = attention + 4 * embed + (embed * feed + feed) + (feed * embed + embed)
    parameters = plan.model.config.vocabulary_size * embed + block + embed * 2 + 2
    assert f"  {parameters:,} parameters\n" in text
    assert "layer 1: chunked, tiles of" in text
    assert "90 examples, batches of 20: 5 steps an epoch, 15 in 3 epochs" in text
    last, best = 4 * (3 * parameters + 1), 4 * parameters  # Adam keeps two moments and its count
    assert f"kind last {last / 2**20:.1f} MiB, of kind best {best / 2**20:.1f} MiB" in text
    assert "free at " in text
    assert max(map(len, text.splitlines())) <= 120
    assert text.isprintable() or all(line.isprintable() for line in text.splitlines())


def test_operations_and_memory(plan: steps.Plan, text: str):
    state = jax.eval_shape(functools.partial(steps.initial_state, plan), jax.random.key(0))
    step = flops.count(functools.partial(steps.train_step, plan), state, dry_run._batch(plan))
    assert f"{step.flops / 1e6:.3g} MFLOP a step, {step.flops / plan.rows / 1e3:.3g} kFLOP an example" in text
    sums = jax.eval_shape(steps.Sums.zero)
    analysis = steps.train.lower(plan, state, sums, dry_run._batch(plan, (5,)), 0, 1).compile().memory_analysis()
    assert analysis
    assert f"temporary {analysis.temp_size_in_bytes / 2**20:,.1f} MiB a device" in text


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0 X"), (999, "999 X"), (1234, "1.23 kX"), (5.6e9, "5.6 GX"), (1e19, "1e+04 PX")]
)
def test_large_numbers_are_readable(value: float, shown: str):
    assert dry_run._scaled(value, "X") == shown


def test_a_folder_is_not_created(text: str, tmp_path: Path):
    assert not list(tmp_path.iterdir())
    assert "not/there" in text
    where = next(line for line in text.splitlines() if "free at" in line).split("free at ")[1].split(": ")[0]
    assert not Path(where).exists()
