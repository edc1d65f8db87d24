"""The numbers that a dry run prints, against numbers by hand and against what they are taken from."""

import copy
import functools
import shlex
import types
from pathlib import Path

import jax
import pytest
import tiny

from experiments import settings
from experiments.command_line import command_flags
from experiments.cost import dry_run, flops, train_step
from experiments.training import build, position, steps

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


def test_the_flags_are_read_back_as_the_config(config: settings.Config, text: str):
    title, *printed = shlex.split(text.split("Parameters\n")[0])
    assert title == "Config"
    assert len(printed) == len(settings.flatten(config))
    _, flags = command_flags.parse(printed, {}, fields=True)
    read = command_flags.read_config(str(tiny.ROOT / "configs" / "single_head.py"), flags, {})
    assert settings.flatten(read) == settings.flatten(config)


def test_parameters_steps_and_files(plan: steps.Plan, text: str):
    embed, head, feed = 5, 2 * 3, 7
    attention = 3 * (embed * head + head) + head * embed + embed
    block = attention + 4 * embed + (embed * feed + feed) + (feed * embed + embed)
    parameters = plan.model.config.vocabulary_size * embed + block + embed * 2 + 2
    assert f"  {parameters:,} parameters\n" in text
    assert "layer 1: chunked, tiles of" in text
    assert "90 examples of up to 24 tokens, from a vocabulary of" in text
    assert "batches of 20: 5 steps an epoch, 15 in 3 epochs" in text
    last, best = 4 * (3 * parameters + 1), 4 * parameters  # Adam keeps two moments and its count
    told = f"last {last / 2**20:.3g} MiB (parameters and optimizer), best {best / 2**20:.3g} MiB (parameters)"
    assert told in text
    assert f"keeps 2 of each: {2 * (last + best) / 2**20:.3g} MiB" in text
    assert "free at " in text


def test_the_text_is_plain_and_nothing_is_cut_off(text: str):
    assert max(map(len, text.splitlines())) <= 112
    assert text.isascii()
    assert all(line.isprintable() for line in text.splitlines())
    table = text.split("Parameters\n")[1].split("\n\n")[0]
    assert "TokenAndPositionEmbedding " in table
    assert "None" not in table


def test_a_model_of_pairs():
    """The inputs of its layers are arrays and names, not the places of functions in memory; targets have their length."""
    config = settings.load_page("seq2seq_transformer", "english_chinese")
    config.model.embed_dim, config.model.key_dim = 6, 4
    plan = build.build_plan(config, build.model_of(config, 11, 5), 900)
    table = "\n".join(dry_run._table(plan, 7))
    for said in ("float32[1,7,11]", "- float32[1,5,4,4]", "- - float32[1,7,4,4]", " - dropout\n"):
        assert said in table
    assert not any(word in table for word in ("<", "0x", "None"))
    assert "chunked, tiles of 7 queries by 5 keys" in build.attention_of(plan.model, 7)


def test_the_arrays_of_a_checkpoint_are_as_large_as_told(plan: steps.Plan):
    """Against the arrays that a run saves; the sums of the epoch and the step are 20 bytes beside the state."""
    state = steps.initial_state(plan, jax.random.key(0), tiny.SCALARS)
    start = position.Position(state, steps.Sums.zero(), 0, (), (), 0.0, 0.0, None)
    saved = sum(leaf.nbytes for leaf in jax.tree.leaves(position.arrays_of(start)))
    assert dry_run._nbytes((state.params, state.optimizer)) == saved - 20


def test_layers_with_the_same_attention_are_one_line():
    assert dry_run._grouped(["a", "a", "a", "b", "a"]) == ["layers 1 to 3: a", "layer 4: b", "layer 5: a"]


def test_a_disk_that_is_too_small_is_told(plan: steps.Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    state = jax.eval_shape(functools.partial(steps.initial_state, plan), jax.random.key(0), tiny.SCALARS)
    for free, told in ((2**10, "0.000977 MiB, which is too little"), (3 * 2**30, "3,072 MiB")):
        monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda _, free=free: types.SimpleNamespace(free=free))
        assert dry_run._disk(state, tmp_path)[-1] == f"free at {tmp_path}: {told}"


def test_operations_and_memory(plan: steps.Plan, text: str):
    state = jax.eval_shape(functools.partial(steps.initial_state, plan), jax.random.key(0), tiny.SCALARS)
    step = flops.count(functools.partial(steps.train_step, plan), state, train_step.batch(plan))
    assert f"{step.flops / 1e6:.3g} MFLOP a step, {step.flops / 20 / 1e3:.3g} kFLOP an example" in text
    assert f"{15 * step.flops / 1e6:.3g} MFLOP in all" in text
    sums = jax.eval_shape(steps.Sums.zero)
    analysis = steps.train.lower(plan, state, sums, train_step.batch(plan, (5,)), 0, 1).compile().memory_analysis()
    assert analysis
    told = {"arguments": analysis.argument_size_in_bytes, "results": analysis.output_size_in_bytes}
    for name, size in (told | {"temporary": analysis.temp_size_in_bytes}).items():
        assert f"{name:<9} {size / 2**20:.3g} MiB a device" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 X"), (999, "999 X"), (1234, "1.23 kX"), (999_900, "1 MX"), (5.6e9, "5.6 GX"), (1e15, "1 PX"), (1e19, "10 EX")],
)
def test_large_numbers_are_readable(value: float, shown: str):
    assert dry_run.scaled(value, "X") == shown


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 MiB"), (23816, "0.0227 MiB"), (1972636, "1.88 MiB"), (81529446400, "77,753 MiB")]
)
def test_small_and_large_sizes_are_readable(size: int, shown: str):
    assert dry_run._mebibytes(size) == shown


def test_what_the_backend_does_not_tell_and_what_a_run_may_leave_out(config: settings.Config, monkeypatch: pytest.MonkeyPatch):
    corpus = tiny.corpus()
    stopping = copy.deepcopy(config)
    stopping.patience, stopping.batch_size = 1, 21
    plan = build.build_plan(stopping, build.build_model(stopping, corpus.tokenizer), 90)
    state = jax.eval_shape(functools.partial(steps.initial_state, plan), jax.random.key(0), tiny.SCALARS)
    lines = "\n".join(dry_run._work(stopping, plan, corpus, state))
    assert "at most 15 in 3 epochs" in lines
    assert f"a step computes {plan.rows} rows" in lines
    assert "not known: random numbers" in lines

    class Silent:
        lower = compile = lambda self, *_: self
        memory_analysis = lambda self: None  # noqa: E731

    monkeypatch.setattr(steps, "train", Silent())
    assert dry_run._memory(plan, state, corpus) == ["not told by this backend"]


def test_a_folder_is_not_created(text: str, tmp_path: Path):
    assert not list(tmp_path.iterdir())
    assert "not/there" in text
    where = next(line for line in text.splitlines() if "free at" in line).split("free at ")[1].split(": ")[0]
    assert not Path(where).exists()
