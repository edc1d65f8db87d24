"""The command `attend`: weights and gradient × input against float64, the live model against JAX, and bad input."""

import base64
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict

import experiments
from attn import viewer
from attn.models.classifier import Classifier, ClassifierConfig
from attn.positions import KINDS, RELATIVE
from attn.viewer import facts
from experiments.attend import attend, live, weights, words
from experiments.command_line import commands
from experiments.data.tokenizer import Tokenizer, WordRules
from experiments.errors import UsageError
from experiments.storage.run_folder import Run

pytestmark = pytest.mark.usefixtures("fast_compilation")
WORDS = (b"the", b"film", b"was", b"dull", b"caf\xc3\xa9", b"don't", b"lovely", b"rare")
TOKENIZER = Tokenizer(WORDS, 11, 9)  # the last of the words is out of the vocabulary
TEXTS = ("The film was <b>dull</b>, caf\u00e9 DON'T!", "rare unknown lovely", "", "the film was dull " * 4)


def model(body: Any, positions: str, **fields: Any) -> Run:
    """A run with random parameters, none of which is 0."""
    sizes = {"embed_dim": 6, "num_layers": 2, "num_heads": 3, "key_dim": 4, "output_dims": (5, 7), "feedforward_dim": 8}
    if body == "attention":
        sizes |= {"num_heads": 1, "key_dim": 6}
    config = ClassifierConfig(
        **{"body": body, "vocabulary_size": 11, "max_length": 9, "num_classes": 2, "positions": positions}
        | sizes
        | {"dropout_rate": 0.0, "mask_padding": True}
        | fields
    )
    classifier, rng = Classifier(config), np.random.default_rng(7)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0), jnp.zeros((1, 9), jnp.int32))["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32), shapes)
    return Run(None, classifier, params, TOKENIZER, ("neg", "pos"), "")


def ids_of(run: Run, text: str) -> np.ndarray:
    ids = words.read(text.encode(), TOKENIZER).ids
    return np.asarray(ids) if run.model.config.mask_padding else TOKENIZER.pad([ids])[0]


def page_of(run: Run, float32: bool) -> viewer.Page:
    data = live.export(run, float32) | {"labels": ("neg", "pos")}
    return viewer.show(["x"], [np.ones((1, 1, 1))], live=viewer.Live(TEXTS[0], data))


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.started(tmp_path_factory.mktemp("profile")) as found:
        yield found


def heads_of(x: np.ndarray, layer: Any, name: str) -> np.ndarray:
    kernel, bias = (np.asarray(layer[name][part], np.float64) for part in ("kernel", "bias"))
    return np.einsum("td,dnh->nth", x, kernel) + bias[:, None]


@pytest.mark.parametrize("mask", [False, True])
def test_the_weights_are_those_of_a_loop_in_float64(mask: bool):
    """Of the first layer, whose inputs are the embeddings."""
    run = model("transformer", "learned", mask_padding=mask)
    ids = ids_of(run, "the film was dull")
    tables = run.params["embedding"]
    x = np.asarray(tables["tokens"]["embedding"], np.float64)[ids]
    x += np.asarray(tables["positions"]["embedding"], np.float64)[: len(ids)]
    layer = run.params["transformer_0"]["MultiHeadAttention_0"]
    scores = heads_of(x, layer, "query") @ heads_of(x, layer, "key").transpose(0, 2, 1) / 2
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    found = weights.read(run.model, run.params, ids).layers
    assert [(rows.heads, rows.length) for rows in found] == [(3, len(ids))] * 2
    np.testing.assert_allclose(found[0].read(0, len(ids)), expected, atol=1e-6)
    np.testing.assert_allclose(found[0].read(2, 4), expected[:, 2:4], atol=1e-6)


@pytest.mark.parametrize(("body", "positions"), [("attention", "none"), ("multi_head", "rotary"), ("transformer", "t5")])
def test_gradient_times_input_is_a_difference(body: str, positions: str):
    """Of the margin where one occurrence of a token grows by a factor; other occurrences do not."""
    run = model(body, positions)
    ids = np.asarray([1, 4, 5, 4])
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), run.params)
        other = Classifier(dataclasses.replace(run.model.config, vocabulary_size=12))
        table = params["embedding"]["tokens"]["embedding"]

        @jax.jit
        def logits(row: jax.Array, ids: jax.Array) -> Any:  # with one more token, for one place alone
            tokens = {"embedding": jnp.concatenate([table, row[None]])}
            return other.apply({"params": params | {"embedding": params["embedding"] | {"tokens": tokens}}}, ids)

        label, differences = int(logits(table[0], jnp.asarray(ids)).argmax()), []
        for place in range(4):
            changed = jnp.asarray(np.where(np.arange(4) == place, 11, ids))
            more, less = (logits(factor * table[ids[place]], changed) for factor in (1 + 1e-4, 1 - 1e-4))
            differences.append(float((more - less)[label] - (more - less)[1 - label]) / 2e-4)
    np.testing.assert_allclose(weights.read(run.model, run.params, ids).effect, differences, rtol=1e-3, atol=1e-5)


@pytest.mark.browser
@pytest.mark.parametrize("body", ["attention", "multi_head", "transformer"])
def test_the_live_model_is_that_of_jax(body: str, tab: browser.Browser, tmp_path: Path):
    """Every body and kind of positions, with and without a mask of the padding: logits within 1e-5 with float32 parameters."""
    kinds = [kind for kind in KINDS if body != "attention" or kind not in RELATIVE]
    for mask, positions in [*((index % 2 == 0, kind) for index, kind in enumerate(kinds)), (False, "none")]:
        run = model(body, positions, mask_padding=mask)
        apply = jax.jit(run.model.apply)
        tab.open(page_of(run, float32=True).save(tmp_path / "page.html"))
        for text in TEXTS:
            ids = ids_of(run, text)
            expected = np.asarray(apply({"params": run.params}, jnp.asarray(TOKENIZER.pad([ids])[0], jnp.int32)))
            found = tab.evaluate(f"[...liveView({json.dumps(text)}).logits]")
            np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=f"{body} {positions} {text}")
        assert (tab.console, len(tab.requests)) == ([], 1)


@pytest.mark.browser
@pytest.mark.parametrize(("body", "positions"), [("attention", "none"), ("multi_head", "rotary"), ("transformer", "alibi")])
def test_the_live_attention_is_that_of_jax(body: str, positions: str, tab: browser.Browser, tmp_path: Path):
    """The weights of both layers, and gradient × input, which the page computes by differences."""
    run = model(body, positions)
    tab.open(page_of(run, float32=True).save(tmp_path / "page.html"))
    ids = ids_of(run, TEXTS[0])
    read = weights.read(run.model, run.params, ids)
    rows = tab.evaluate("view.layers.map(l => l.heads.map(h => view.tokens.map((_, i) => [...h.row(i)])))")
    for layer, array in zip(read.layers, rows, strict=True):
        np.testing.assert_allclose(array, layer.read(0, len(ids)), atol=2e-6)
    effect = tab.evaluate("new Promise(done => liveEffect(view, () => done([...view.effect])))")
    np.testing.assert_allclose(effect, read.effect, rtol=1e-3, atol=1e-5)


@pytest.mark.browser
@pytest.mark.parametrize("mask", [False, True])
def test_what_is_said_follows_what_is_typed(mask: bool, tab: browser.Browser, tmp_path: Path):
    """The notes are those of a page that is made for this text, and the caption has the entropy of all its tokens alike."""
    run = model("transformer", "none", mask_padding=mask)._replace(config=ConfigDict({"data": {"name": "verdicts"}}))
    tab.open(attend.page(run, b"the rare film was what", live=True).save(tmp_path / "page.html"))
    texts = (
        "the film",
        "the film was dull " * 4,
        "rare rare",
        "x y\u202e x caf\u00e9, a b c d e f g <b>h the",
        "\x07\u00a0 the",
    )
    for text in ("the rare film was what", *texts):
        if text in texts:
            tab.evaluate(f"$('text').value = {json.dumps(text)}; $('text').dispatchEvent(new Event('input')), 0")
        told = words.read(text.encode(), TOKENIZER)
        length = len(told.ids) if mask else 9
        notes = attend._notes(run, told, length - len(told.ids))
        expected = [facts.visible(note) for note in (attend._model_note(run), *notes)]
        assert tab.evaluate("[...$('notes').children].map(note => note.textContent)") == expected
        said = f"The mean over the tokens, in nats: 0 looks at one token, {np.log(length):.2f} at all {length} alike."
        assert tab.evaluate("$('nats').textContent") == said
        assert len(expected) == 1 + bool(told.left_out) + bool(told.unknown) + bool(told.rare) + (length > len(told.ids))
    tab.click("#tokens button:nth-of-type(2)")
    assert tab.evaluate("$('nats').textContent").startswith("That of “the”, in nats")
    assert tab.console == []


@pytest.mark.browser
def test_a_trained_model_types(finished_run: Path, tab: browser.Browser, tmp_path: Path):
    """Logits within 1e-3; what is typed changes tokens, prediction and attention."""
    out = tmp_path / "page.html"
    arguments = [f"--workdir={finished_run}", "--words=the film was lovely", "--live", f"--out={out}"]
    assert commands.main(["attend", *arguments]) == 0
    tab.open(out, 400)
    run = experiments.load(finished_run)
    for text in ("the film was lovely", "i expected the drama to be dull, but it was clever"):
        tab.evaluate(f"$('text').value = {text!r}; $('text').dispatchEvent(new Event('input')), 0")
        ids = run.tokenizer.encode(text.encode()).ids
        expected = np.asarray(run.model.apply({"params": run.params}, jnp.asarray(ids, jnp.int32)))
        np.testing.assert_allclose(tab.evaluate("[...view.logits]"), expected, atol=1e-3)
        shown = tab.evaluate("[...document.querySelectorAll('#tokens button')].map(b => b.textContent)")
        assert shown == ["[start]", *text.replace(",", "").split()]
        probability = np.exp(expected[1]) / np.exp(expected).sum()
        assert f"pos {probability:.3f}" in tab.evaluate("$('prediction').textContent")
    assert tab.evaluate("document.documentElement.scrollWidth") == 400
    assert (tab.console, len(tab.requests)) == ([], 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "bfloat16"}, "--live: model.dtype=bfloat16 must be float32"),
        ({"max_length": 1025}, "--live: max_length=1025 must be 1024 at most"),
    ],
)
def test_what_cannot_be_live(fields: dict[str, Any], message: str):
    run = model("transformer", "none")
    other = Classifier(dataclasses.replace(run.model.config, **fields))
    with pytest.raises(UsageError, match=message):
        live.export(run._replace(model=other), False)
    for changed, said in (
        ({"keep": "first"}, "data.keep=first"),
        ({"rules": WordRules(lowercase=False)}, "data.lowercase and"),
    ):
        with pytest.raises(UsageError, match=f"--live: {said} .*must be"):
            live.export(run._replace(tokenizer=dataclasses.replace(TOKENIZER, **changed)), False)
    nothing = jax.tree.map(lambda leaf: leaf * jnp.nan, run.params)
    with pytest.raises(UsageError, match="--live: a parameter of the model is not finite"):
        live.export(run._replace(params=nothing), False)


@pytest.mark.parametrize("keep", ["last", "first", "ends"])
def test_the_words_are_those_that_the_model_reads(keep: str):
    """Whatever is kept of a long text, and whatever a word is."""
    by = dataclasses.replace(TOKENIZER, keep=keep, rules=WordRules(lowercase=False, filters="!"))
    text = b"The the film, was!dull the lovely film was dull the rare film"
    found = words.read(text, by)
    assert found.ids == by.pad([by.encode(text).ids])[0].tolist()
    assert len(found.shown) == 9
    assert (found.left_out, found.unknown) == (3, ["The", "film,"])
    named = {"[start]": 1, "rare [rare]": 2} | {word.decode(): 4 + rank for rank, word in enumerate(WORDS)}
    assert [named[word] for word in found.shown] == found.ids


def test_parameters_in_sixteen_bits():
    """Those of a large table are off by at most half of 1/32767 of the largest of their row, and not by much less."""
    array = np.random.default_rng(3).normal(size=(300, 16)).astype(np.float32)
    name, shape, codes, scale, first = live._param("table", array, float32=False)
    decoded = (
        np.frombuffer(base64.b64decode(codes), "<i2").reshape(shape) * np.frombuffer(base64.b64decode(scale), "<f4")[:, None]
    )
    bound = np.abs(array).max(-1, keepdims=True) / 32_767
    assert name == "table"
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(first), "<f4").reshape(4, 16), array[:4])
    assert np.all(np.abs(decoded - array) <= 0.501 * bound)
    assert np.any(np.abs(decoded - array) > 0.45 * bound)
    assert len(live._param("table", array, float32=True)) == len(live._param("bias", array[:3], float32=False)) == 3


def test_a_long_text_keeps_its_last_tokens(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """As `predict`, and the page says so; bytes that are no text are shown."""
    file, out = tmp_path / "review.txt", tmp_path / "page.html"
    file.write_bytes(b"dull dull\n" + b"the \xff nonesuch film was lovely " * 7)
    assert commands.main(["attend", f"--workdir={finished_run}", str(file), f"--out={out}", "--head=1", "--queries=0..2"]) == 0
    text = out.read_text()
    assert "the last 24 tokens are kept, as in training, and 7 others are left out" in text
    assert "no training text has them: 14 (\\xff, nonesuch)." in text
    assert re.findall(r'tabindex="-1">(\w+)</button>', text)[:5] == ["the", "film", "was", "lovely", "the"]
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--words=film", "--out is missing: it must be the file of the page, such as page.html"),
        ("--words=film --out=OUT/page.png", "--out=.*page.png must end with .html, or with .svg for a picture"),
        ("--words=film --out=OUT/no/page.html", "--out=.*page.html must be a file in a folder that exists"),
        (
            "--words=film --out=OUT/page.html --layer=1",
            "--layer=1 must be an integer from 0 to 0: the layers of the model are 1",
        ),
        ("--words=film --out=OUT/page.html --layer=-1", "--layer=-1 must be an integer from 0 to 0"),
        ("--words=film --out=OUT/page.html --head=2", "--head=2 must be an integer from 0 to 1: the heads of each layer are 2"),
        ("--words=film --out=OUT/page.html --head=x", "--head=x must be integers such as 3"),
        ("--words=film --out=OUT/page.html --head=0,1", "--head=0,1 must be one integer"),
        (
            "--words=film --out=OUT/page.html --queries=0..2",
            "--queries=2 must be an integer from 0 to 1: the tokens of the page",
        ),
        ("--words=film --out=OUT/page.html --queries=-1", "--queries=-1 must be integers such as 3, ranges"),
        ("--words= --out=OUT/page.html", "the text '' has no word that the model knows: it must have at least one"),
        ("--words=zzz --out=OUT/page.html", "the text 'zzz' has no word that the model knows"),
        ("--words=film --out=OUT/page.html --float32", "--float32 goes with --live"),
        ("--words=film --out=OUT/page.html --checkpoint=first", "--checkpoint=first must be last or best"),
        ("/nope --out=OUT/page.html", "FILE /nope cannot be read: No such file or directory; to give a text itself"),
        ("a b --out=OUT/page.html", "attend reads one FILE, not 2: a b"),
        ("a --words=film --out=OUT/page.html", "attend reads FILE a or --words, not both"),
        ("--words=film --out=OUT/page.html --workdir=OUT", "--workdir=.* holds no run: config.json is missing"),
    ],
)
def test_bad_input(flags: str, message: str, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """One line, and no file."""
    arguments = [word.replace("OUT", str(tmp_path)) for word in flags.split(" ")]
    assert commands.main(["attend", f"--workdir={finished_run}", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"error: {message}.*\n", err), err
    assert not list(tmp_path.iterdir())


def test_a_picture(finished_run: Path, tmp_path: Path):
    before = tiny.tree(finished_run)
    out = tmp_path / "page.svg"
    assert commands.main(["attend", f"--workdir={finished_run}", "--words=the film", f"--out={out}"]) == 0
    assert out.read_text().startswith("<svg xmlns=")
    assert tiny.tree(finished_run) == before
