"""Every field of the config times a dozen bad values: each is refused in one line, before data is read."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from ml_collections import ConfigDict

from attn.positions import KINDS
from experiments import settings
from experiments.command_line import commands
from experiments.errors import DataError, UsageError
from experiments.storage import files, run_folder
from experiments.training import build

OPTIONAL = (
    "steps_per_call", "data.dir", "data.vocabulary_size", "data.max_length", "patience", "devices", "checkpoint_every",
    "init_from", "seeds", "runs_per_call", "model.num_classes", "data.validation_share", "data.test_share", "data.encoding",
    "data.path", "data.text", "data.label", "data.filters", "data.ngrams",
)  # fmt: skip
FLAGS = ("model.mask_padding", "data.lowercase")
PATHS = ("data.dir", "init_from", "data.path", "data.text", "data.label")
SHARES = ("data.validation_share", "data.test_share")
NUMBERS = ("learning_rate", "weight_decay", "momentum", "label_smoothing", "model.dropout_rate")
NAMES = ("data.name", "data.keep", "model.body", "model.cell", "model.positions", "model.dtype", "optimizer", "schedule")
OTHERS = ("seeds", "model.output_dims", "data.encoding", "data.filters", "data.marks")
INTEGERS = tuple(sorted(settings.RULES.keys() - {*FLAGS, *NUMBERS, *NAMES, *PATHS, *SHARES, *OTHERS}))
LONG = "x" * 3_000

# As typed; then as Python values, which a page could give.
TYPED_ALWAYS = ["nan", "inf", "-inf", "-1", "1e12", "abc", "", "[1, 2]", LONG, "é", "{}", "a\nb", "\x1b[31m", "lambda: 3"]
TYPED = {
    **{field: [*TYPED_ALWAYS, "True", "3.5", "(1, 2)", "9" * 5_000, "1 000"] for field in INTEGERS},
    **{field: [*TYPED_ALWAYS, "True", "None", "1e3", "1.5e3", "(1, 2)", "0.1.2"] for field in NUMBERS},
    **{field: [*TYPED_ALWAYS, "True", "None", "3.5", "imbd", "IMDB", "Transformer", "rotery"] for field in NAMES},
    **{field: [*TYPED_ALWAYS, "None", "2", "3.5", "yes!", "Truee", "(True,)"] for field in FLAGS},
    **{field: [*TYPED_ALWAYS, "True", "0", "1", "1.0", "0.1.2"] for field in SHARES},
    "data.encoding": [*TYPED_ALWAYS, "True", "3.5", "hex", "rot13", "utf-9"],
    "seeds": [*TYPED_ALWAYS, "True", "3.5", "(1, 2)", "9" * 5_000, "1 000", "3..1", "0..99999", "0..3,2", "1,,2", "0...3", "٣"],
    "model.output_dims": [
        "nan",
        "inf",
        "-1",
        "0",
        "1e12",
        "True",
        "3.5",
        "abc",
        "",
        "None",
        "()",
        "{}",
        "(16, 0)",
        "(16, 20.0)",
        LONG,
    ],
}
VALUES: list[Any] = [math.nan, math.inf, -math.inf, -1, 10**12, 1e12, 3 + 0j, "abc", "", b"16", [16, 20], [1], {16}, LONG]
VALUES_OF = {
    **{field: [*VALUES, True, 3.5, 3.0, (3,), "3"] for field in INTEGERS},
    **{field: [*VALUES, True, None, 1e3, (0.1,), "0.1"] for field in NUMBERS},
    **{field: [*VALUES, True, None, 3.5, ("imdb",), "IMDB"] for field in NAMES},
    **{field: [*VALUES, None, 0, 1, 1.0, "True", (True,)] for field in FLAGS},
    **{field: [math.nan, -1, 0, 1e12, True, 3.5, "", b"a", ["a"], ("a",), {"a"}, "a\0b", Path("a")] for field in PATHS},
    **{field: [*VALUES, True, 0, 1, 0.0, 1.0, (0.1,), "0.1"] for field in SHARES},
    "data.encoding": [*VALUES, True, 3.5, "utf-9", "hex", "rot13", ("utf-8",)],
    "data.marks": [math.nan, -1, 0, 1e12, True, None, 3.5, b"a", ["a"], ("a",), {"a"}, "é", Path("a")],
    "data.filters": [math.nan, -1, 0, 1e12, True, 3.5, b"a", ["a"], ("a",), {"a"}, "é", Path("a")],
    "seeds": [*VALUES, True, 3, (0, 1), range(3), "3..1", "-1..3", "0..3,1", "2147483648"],
    "model.output_dims": [*VALUES, None, True, 16, (), (0,), (True,), (16.0,), (-1,), (None,), ((16,),), (10**12,)],
}
for field in INTEGERS:
    if field not in ("seed", "warmup_steps", "data.split_seed", "data.ngram_context"):
        TYPED[field].append("0")
        VALUES_OF[field].append(0)
    if field not in OPTIONAL:
        TYPED[field].append("None")
        VALUES_OF[field].append(None)
TYPED["learning_rate"].append("0")
VALUES_OF["learning_rate"].append(0.0)
TYPED["model.dropout_rate"] += ["1", "1.5"]
VALUES_OF["model.dropout_rate"] += [1.0, 1.5]
TYPED["model.num_classes"].append("1")
VALUES_OF["model.num_classes"].append(1)


class Touched(Exception):
    """The data was read."""


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch):
    def touch(config: ConfigDict):
        raise Touched

    monkeypatch.setattr(build, "build_corpus", touch)


def page(changes: dict[str, Any]) -> ConfigDict:
    """The transformer's config with other values, of whatever type."""
    content = settings.load_page("transformer", "verdicts").to_dict()
    for field, value in changes.items():
        *group, name = field.split(".")
        (content[group[0]] if group else content)[name] = value
    return ConfigDict(content)


def test_every_field_has_a_dozen_bad_values():
    assert VALUES_OF.keys() == settings.RULES.keys()
    assert TYPED.keys() == settings.RULES.keys() - {*PATHS, "data.filters", "data.marks"}, "a path or a filter may be any text"
    assert min(map(len, (*VALUES_OF.values(), *TYPED.values()))) >= 12


@pytest.mark.parametrize("name", settings.MODELS)
@pytest.mark.parametrize("data", settings.CORPORA)
def test_the_pages_pass(name: str, data: str):
    settings.check(settings.load_page(name, data))


@pytest.mark.parametrize("field", settings.RULES)
def test_bad_value_is_refused(field: str):
    for value in VALUES_OF[field]:
        with pytest.raises(UsageError) as refused:
            settings.check(page({field: value}))
        assert str(refused.value) == f"config.{field}={value!r} must be {settings.RULES[field].text}"


@pytest.mark.parametrize("field", TYPED)
def test_bad_flag_is_refused(field: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    for value in TYPED[field]:
        workdir = tmp_path / "run"
        code = commands.main(["train", tiny.PAGE, f"--workdir={workdir}", f"--config.{field}={value}"])
        out, err = capsys.readouterr()
        assert code == 2, (value, err)
        assert out == ""
        assert err.startswith(f"error: config.{field}=")
        assert err.endswith(f" must be {settings.RULES[field].text}\n")
        assert err.count("\n") == 1
        assert err[:-1].isprintable()
        if field not in (*NUMBERS, *SHARES, "model.output_dims"):  # those are shown as they were read: 1e12 is 1000000000000.0
            assert (value if value.isprintable() else ascii(value)[1:-1]) in err
        assert not workdir.exists()


@pytest.mark.parametrize(
    ("field", "typed", "value"),
    [
        ("seed", "0", 0),
        ("seed", str(2**31 - 1), 2**31 - 1),
        ("learning_rate", "1e-12", 1e-12),
        ("model.dropout_rate", "0.999", 0.999),
        ("model.mask_padding", "true", True),
        ("model.output_dims", "(3, 4)", (3, 4)),
        ("data.vocabulary_size", "4", 4),
        ("data.vocabulary_size", "65536", 65_536),
        *((field, "None", 2 if field == "model.num_classes" else None) for field in OPTIONAL),  # those of the corpus
        *(("model.positions", kind, kind) for kind in KINDS),
    ],
)
def test_bounds_are_accepted(field: str, typed: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    configs = []
    monkeypatch.setattr(build, "build_corpus", lambda config: configs.append(config) or (_ for _ in ()).throw(Touched))
    with pytest.raises(Touched):
        commands.main(["train", tiny.PAGE, f"--workdir={tmp_path / 'run'}", f"--config.{field}={typed}"])
    shown = settings.flatten(configs[0])[field]
    assert (shown, type(shown)) == (value, type(value))


@pytest.mark.parametrize(
    ("field", "near"),
    [
        ("epoch", "epochs"),
        ("lr", "learning_rate"),
        ("batchsize", "batch_size"),
        ("num_heads", "model.num_heads"),
        ("model.dropout", "model.dropout_rate"),
        ("model.num_head", "model.num_heads"),
        ("data.vocab_size", "data.vocabulary_size"),
        ("model.learned_positions", "model.positions"),  # the flag that it was
        ("seed.x", "seed"),
        ("batch", "batch_size"),
        ("model.lr", "learning_rate"),
        ("head_dim", "model.key_dim"),
    ],
)
@pytest.mark.parametrize("form", ["--config.{}=3", "-config.{}=3", "--noconfig.{}"])
def test_unknown_field_is_told_its_neighbour(field: str, near: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert commands.main(["train", tiny.PAGE, f"--workdir={tmp_path / 'run'}", form.format(field)]) == 2
    assert capsys.readouterr() == ("", f"error: config.{field} is not a field of the config; did you mean config.{near}?\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        (
            "budget",
            "the fields are seed, seeds, epochs, batch_size, ",
        ),
        ("workers", "the fields are .*, checkpoint_every, and those of config.data and config.model"),
        ("a.b", "the fields are seed, seeds, epochs, "),
        ("data.foo", "the fields of config.data are name, dir, path, text, label, encoding, "),
        ("data", "the fields of config.data are name, "),
        ("model.body.x", "the fields of config.model are body, num_classes, "),
    ],
)
def test_an_unknown_field_that_is_like_none_is_told_which_there_are(field: str, fields: str):
    with pytest.raises(UsageError, match=f"^config.{field} is not a field of the config; {fields}"):
        settings.rule_of(field)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.body": "attention"}, "num_heads=2, key_dim=16: body 'attention' has no projections"),
        ({"model.body": "attention", "model.num_heads": 1, "model.key_dim": 3}, "num_heads=1, key_dim=3"),
        ({"model.body": "multi_head"}, r"output_dims=\(16, 20\) must be num_layers=1 positive sizes"),
        ({"model.body": "multi_head", "model.num_layers": 3}, r"output_dims=\(16, 20\) must be num_layers=3"),
        ({"model.positions": "rotary", "model.key_dim": 3}, "key_dim=3 is odd: positions='rotary' rotates pairs of channels"),
        ({"model.positions": "sinusoidal", "model.embed_dim": 5}, "embed_dim=5 is odd: positions='sinusoidal' pairs"),
        (
            {"model.positions": "alibi", "model.body": "attention", "model.num_heads": 1},
            "positions='alibi' acts inside of projected heads: body 'attention' has no projections",
        ),
    ],
)
def test_fields_that_do_not_go_together(changes: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=f"^config.model: {message}"):
        settings.check(page(changes))


@pytest.mark.parametrize(("field", "optimizer"), [("weight_decay", "adamw"), ("momentum", "sgd")])
def test_a_field_of_another_optimizer_is_refused(field: str, optimizer: str):
    settings.check(page({field: 0.1, "optimizer": optimizer}))
    for other in {"keras_adam", "adamw", "sgd"} - {optimizer}:
        with pytest.raises(UsageError, match=f"^config.{field}=0.1 must be 0 with optimizer={other}: it is of {optimizer}$"):
            settings.check(page({field: 0.1, "optimizer": other}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.name": "csv"}, "config.data.path=None must be a file of texts and labels with data.name=csv"),
        ({"data.path": "a.csv"}, "config.data.path='a.csv' must be None with data.name=verdicts"),
        ({"data.text": "a", "data.name": "imdb"}, "config.data.text='a' must be None with data.name=imdb"),
        ({"data.split_seed": 1}, "config.data.split_seed=1 must be 0 with data.name=verdicts"),
        ({"data.test_share": 0.1}, "config.data.test_share=0.1 must be None with data.name=verdicts"),
        ({"data.name": "tfds:a", "data.encoding": "utf-8"}, "config.data.encoding='utf-8' must be None with data.name=tfds:a"),
    ],
)
def test_a_field_of_other_data_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(UsageError) as refused:
        settings.check(page(changes))
    assert str(refused.value) == message


@pytest.mark.parametrize("name", ["csv", "tfds:glue/sst2:1.0.0", "my.module:reviews"])
def test_data_of_the_user(name: str):
    settings.check(page({"data.name": name, "data.path": None if name.startswith("tfds") else "train=a.csv,test=b.csv"}))


def test_no_classes_means_those_of_the_data():
    """Runs from before it could be left out, whose configs have the number, are the same runs."""
    for data in settings.CORPORA:
        config, former = (settings.load_page("transformer", data) for _ in range(2))
        assert config.model.num_classes is None
        former.model.num_classes = 2
        assert settings.fingerprint(config) == settings.fingerprint(former)
        assert settings.differences(settings.flatten(former), settings.flatten(config)) == ""
    others = {settings.fingerprint(page({"data.name": "csv", "data.path": "a", "model.num_classes": n})) for n in (None, 2, 3)}
    assert len(others) == 3


def test_differences_name_each_field_that_changes_results():
    there, here = (settings.flatten(page(changes)) for changes in ({"seed": 3, "devices": 1}, {"epochs": 7, "devices": 2}))
    assert settings.differences(there, here) == f"seed is 3 there and 0 here, epochs is {there['epochs']} there and 7 here"
    assert settings.differences(there, here, but=("epochs",)) == "seed is 3 there and 0 here"
    as_json = json.loads(json.dumps(there))  # with lists for tuples
    assert settings.differences(as_json, there) == ""


def test_a_config_from_before_some_fields_is_completed():
    config = page({})
    old = {k: v for k, v in config.to_dict().items() if k not in settings.LATER}
    for group in ("data", "model"):
        old[group] = {k: v for k, v in old[group].items() if f"{group}.{k}" not in settings.LATER}
    assert len(old) + 12 == len(config.to_dict())
    assert settings.with_later_fields(old) == config.to_dict()
    flat = {k: v for k, v in settings.flatten(config).items() if k not in settings.LATER}  # as in a checkpoint
    assert settings.differences(flat, settings.flatten(config)) == ""
    assert (
        settings.differences(flat, settings.flatten(page({"optimizer": "sgd"})))
        == "optimizer is 'keras_adam' there and 'sgd' here"
    )


def test_missing_and_extra_fields():
    config = settings.load_page("transformer", "verdicts")
    del config.seed
    with pytest.raises(UsageError, match=r"^config.seed is missing: it must be an integer from 0 to 2147483647$"):
        settings.check(config)
    with pytest.raises(
        UsageError, match=r"^config.model.num_head is not a field of the config; did you mean config.model.num_heads"
    ):
        settings.check(page({"model.num_head": 3}))
    with pytest.raises(UsageError, match="must return a ConfigDict"):
        settings.check({"seed": 3})


def test_fingerprint_knows_what_changes_the_numbers():
    """Place and speed do not; each other field does."""
    own, masked = settings.fingerprint(page({})), settings.flatten(page({}))["model.mask_padding"]
    same = {"data.dir": "/somewhere", "steps_per_call": 7, "runs_per_call": 2, "devices": 3, "checkpoint_every": 5}
    assert settings.fingerprint(page(same)) == own
    others = {
        "seed": 1, "seeds": "0..2", "epochs": 3, "batch_size": 7, "learning_rate": 0.1, "data.name": "imdb",
        "data.vocabulary_size": 9,
        "data.max_length": 8, "model.body": "attention", "model.num_classes": 3, "model.embed_dim": 5, "model.num_layers": 2,
        "model.num_heads": 3, "model.key_dim": 4, "model.output_dims": (5,), "model.feedforward_dim": 6,
        "model.positions": "learned", "model.dropout_rate": 0.5, "model.mask_padding": not masked,
        "model.implementation": "dense", "patience": 2, "init_from": "/a", "optimizer": "adamw", "schedule": "cosine",
        "warmup_steps": 4, "weight_decay": 0.01, "momentum": 0.9, "label_smoothing": 0.1, "model.dtype": "bfloat16",
        "data.path": "a.csv", "data.text": "a", "data.label": "b", "data.encoding": "latin-1", "data.validation_share": 0.2,
        "data.test_share": 0.2, "data.split_seed": 1, "data.keep": "ends", "data.lowercase": False, "data.filters": "",
        "data.unit": "character", "data.marks": "!", "data.ngrams": 2, "data.ngram_features": 9, "data.ngram_choice": "chi2",
        "data.ngram_context": 4,
        "model.logits": "own", "model.initial_values": "log_ratios", "model.kernel_size": 3, "model.cell": "lstm",
    }  # fmt: skip
    assert {*same, *others} == settings.RULES.keys()
    assert len({settings.fingerprint(page({field: value})) for field, value in others.items()} | {own}) == len(others) + 1
    assert len({settings.fingerprint(page({"model.positions": kind})) for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize(
    "model, recorded",
    [
        ("single_head", "8b8c64188be3"),
        ("multi_head", "1357c5a3c623"),
        ("transformer", "4c45c43deacc"),
        ("transformer_positional", "adb37e919f77"),
    ],
)
def test_fingerprints_are_those_from_when_positions_were_a_flag(model: str, recorded: str):
    """A ledger of `reproduce` goes by them, and its runs take hours to train again."""
    assert settings.fingerprint(settings.load_page(model, "imdb")) == recorded


def test_a_run_from_when_positions_were_a_flag_is_refused(tmp_path: Path):
    content = settings.load_page("transformer_positional", "verdicts").to_dict()
    content["model"] = {"learned_positions": True} | {k: v for k, v in content["model"].items() if k != "positions"}
    files.write_json(tmp_path / "config.json", content)
    with pytest.raises(DataError, match=r"config.model.learned_positions is not a field of the config") as refused:
        run_folder.read_config(tmp_path)
    assert "\n" not in str(refused.value)


@examples(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.one_of(st.sampled_from(list(settings.RULES)), st.text(max_size=12)), value=st.text(max_size=20))
@example(field="a\nb", value="\ud800")
@example(field="model.output_dims", value="((((")
@example(field="data.dir", value="\udcff")
def test_any_text_is_honoured_or_refused(field: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    try:
        code = commands.main(["train", tiny.PAGE, f"--workdir={tmp_path / 'run'}", f"--config.{field}={value}"])
    except Touched:
        assert field in settings.RULES
        return
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("error: config.")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert not (tmp_path / "run").exists()
