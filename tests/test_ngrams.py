"""n-grams: their hashes, how they are chosen, what a text becomes, and the models over them."""

import dataclasses
import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from attn.models.ngram import BUCKETS, NgramClassifier, NgramConfig, bucket
from attn.optimizers import relative_adam
from experiments import settings
from experiments.command_line import commands
from experiments.data import ngram_arrays, ngrams, verdicts
from experiments.data.corpus import Split
from experiments.data.ngram_tokenizer import NgramSettings, NgramTokenizer
from experiments.data.tokenizer import KERAS, Tokenizer, WordRules
from experiments.errors import UsageError
from experiments.storage import run_folder
from experiments.training.log_ratios import log_ratios

PAGE = f"--config={tiny.ROOT / 'configs' / 'ngram_attention.py'}:verdicts"
WORDS = b"a b a b c".split()


def occurrences(words: Sequence[bytes], longest: int) -> ngrams.Occurrences:
    return ngrams.occurrences(ngrams.word_hashes(words), longest)


def test_a_text_has_each_ngram_once_at_its_last_place():
    found = occurrences(WORDS, 3)
    # By hand: the n-grams of "a b a b c" by the place of the last word of their last occurrence.
    expected = ["a", "b a", "b", "a b", "a b a", "c", "b c", "a b c", "b a b"]
    by_hand = {(2, 1): "a", (3, 1): "b", (4, 1): "c", (2, 2): "b a", (3, 2): "a b", (4, 2): "b c"}
    by_hand |= {(2, 3): "a b a", (3, 3): "b a b", (4, 3): "a b c"}
    assert sorted(expected) == sorted(by_hand.values())
    assert list(zip(found.last.tolist(), found.sizes.tolist(), strict=True)) == sorted(by_hand)
    # A hash is that of the words alone, wherever they stand.
    alone = {text: occurrences(text.encode().split(), 3).hashes[-1] for text in by_hand.values()}
    assert [alone[by_hand[place]] for place in sorted(by_hand)] == found.hashes.tolist()
    assert len(set(alone.values())) == len(alone)


def test_different_ngrams_have_different_hashes():
    words = [b"%d" % number for number in range(11)]
    texts = [list(some) for size in (1, 2, 3) for some in itertools.product(words, repeat=size)]
    assert len({int(occurrences(text, len(text)).hashes[-1]) for text in texts if len(set(text)) == len(text)}) == sum(
        math.perm(11, size) for size in (1, 2, 3)
    )


@pytest.mark.parametrize("choice", ["frequency", "chi2"])
def test_the_choice_is_that_of_the_formula(choice: str):
    random = np.random.default_rng(2)
    texts = [np.unique(random.integers(0, 40, 12).astype(np.uint64) ** 2) for _ in range(60)]
    labels = random.integers(0, 3, 60)
    counts = [Counter(int(x) for text, label in zip(texts, labels, strict=True) if label == c for x in text) for c in range(3)]
    score = {}
    for ngram in set().union(*counts):
        total = sum(count[ngram] for count in counts)
        expected = [total * np.mean(labels == c) for c in range(3)]
        terms = [(count[ngram] - mean) ** 2 / (mean + 5) for count, mean in zip(counts, expected, strict=True)]
        score[ngram] = total if choice == "frequency" else sum(terms)
    best = sorted(score, key=lambda x: (-score[x], -sum(count[x] for count in counts), x))[:7]
    assert ngrams.chosen(texts, labels, 7, choice).tolist() == sorted(best)
    assert len(ngrams.chosen(texts, labels, 1000, choice)) == len(score)


def test_what_a_text_becomes():
    chosen = sorted(int(occurrences(words.split(), 2).hashes[-1]) for words in (b"b", b"a b", b"x y"))
    words = tuple(b"%016x" % value for value in chosen)
    by = NgramTokenizer(words, NgramSettings(2, "frequency", 3), 2, KERAS)
    ids = {text: by.encode(text).ids[-1] for text in (b"a b", b"x y")}
    assert by.vocabulary_size == 4 and sorted(ids.values())[0] >= 1
    found = by.encode(b"a b. A b Z!")  # z is in no known n-gram, and neither is the first a, whose n-gram stands again
    single = by.encode(b"b").ids
    assert found.ids == [*single, ids[b"a b"]] and found.out_of_vocabulary == 3
    assert by.pad([[1, 2, 3], []]).tolist() == [[2, 3], [0, 0]]
    assert by.read(b"b. a b. x y").ids == by.encode(b"b. a b. x y").ids[1:] == [ids[b"a b"], ids[b"x y"]]
    context = tuple(sorted(b"%016x" % value for value in ngrams.word_hashes([b"a", b"b"]).tolist()))
    around = dataclasses.replace(by, words=words + context, settings=NgramSettings(2, "frequency", 3, context=2))
    near = {word: 4 + context.index(b"%016x" % ngrams.word_hash(word)) for word in (b"a", b"b")}
    assert around.vocabulary_size == 6 and around.encode(b"Z!").ids == []
    assert around.encode(b"a b. A b Z!").ids == [  # by hand: every a and b is context, before the n-grams that end with it
        near[b"a"], near[b"b"], near[b"a"], near[b"b"], *single, ids[b"a b"],
    ]  # fmt: skip
    assert around.encode(b"a b. A b Z!").out_of_vocabulary == found.out_of_vocabulary


def test_what_a_text_becomes_without_a_list():
    settings = NgramSettings(2, "hashed", 7, context=3)
    hashed = NgramTokenizer((), settings, 2, KERAS)
    value, pair = ngrams.word_hash, int(occurrences([b"a", b"b"], 2).hashes[-1])
    context, words = ([8 + value(word) % 3 for word in (b"a", b"b")], [1 + value(word) % 2 for word in (b"a", b"b")])
    # 1 and 2 are a quarter of 7, rounded up, and for single words; 3 to 7 for longer n-grams; 8 to 10 for context.
    assert hashed.encode(b"a b").ids == [context[0], words[0], context[1], words[1], 3 + pair % 5]
    assert hashed.vocabulary_size == 11 and hashed.encode(b"q r").out_of_vocabulary == 0
    alone = NgramTokenizer((), NgramSettings(1, "hashed", 7), 2, KERAS)
    assert alone.encode(b"a b").ids == [1 + value(b"a") % 7, 1 + value(b"b") % 7]
    with_two = dataclasses.replace(hashed, settings=dataclasses.replace(settings, features=2, context=0))
    assert {*with_two.encode(b"a b c d").ids} == {1, 2}


def test_marks_are_words_of_their_own():
    assert WordRules(marks="!.").split(b"Good, very good!! (3.5)") == b"good very good ! ! 3 . 5".split()
    assert WordRules(filters="", marks="-").split(b"well-made, no?") == b"well - made, no?".split()


def test_the_words_of_a_long_text_are_read_in_pieces():
    by = Tokenizer((b"a", b"b"), 10, 5)
    text = b"b " + b"a " * 70_000 + b"b"
    assert by.read(text) == (by.kept(by.encode(text).ids), 0)


def test_log_ratios_against_counting():
    tokens = np.array([[1, 2, 2], [2, 5, 0], [1, 3, 0], [3, 0, 0], [3, 3, 4]], np.uint32)  # 4 and 5 are words of context
    found = log_ratios(Split(tokens, np.array([0, 0, 1, 1, 1], np.int8)), 3, 2)
    by_hand = [math.log(2 / 3) - math.log(2 / 2), math.log(1 / 3) - math.log(3 / 2), math.log(4 / 3) - math.log(1 / 2)]
    np.testing.assert_allclose(found[:, 1] - found[:, 0], by_hand, rtol=1e-12)


def config(body: str, **fields) -> NgramConfig:
    fixed = {"vocabulary_size": 23, "max_length": 19, "num_classes": 2, "num_heads": 2, "logits": "tied", "dropout_rate": 0.5}
    return NgramConfig(body=body, **(fixed | fields))  # pyright: ignore[reportArgumentType]


def random_params(model: NgramClassifier, seed: int) -> dict[str, np.ndarray]:
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 3), jnp.int32))["params"]
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape.shape).astype(np.float32) for name, shape in sorted(shapes.items())}


def margin_by_loops(config: NgramConfig, params: dict[str, np.ndarray], ids: list[int], whole: int | None = None) -> np.ndarray:
    """The margin of one text in float64, one n-gram after the other. Id 0 is left out of a text of `whole` n-grams."""
    length, kept = len(ids) if whole is None else whole, [(place, i) for place, i in enumerate(ids) if i]
    params = {name: array.astype(np.float64) for name, array in params.items()}
    ngrams, total = len(params["values"]), np.zeros(params["values"].shape[1])
    weighed = [(place, i) for place, i in kept if i <= ngrams]
    for head in range(config.num_heads):
        weights = []
        for place, i in weighed:
            logit = 0.0
            if config.body == "ngram_attention" and config.logits == "own":
                logit = params["logits"][i - 1, head]
            elif config.body == "ngram_attention":
                logit = params["logits_from_end"][bucket_by_hand(length - 1 - place), head]
                logit += params["logits_from_start"][bucket_by_hand(place), head]
            if config.body == "ngram_attention" and config.logits == "context":
                size = config.kernel_size
                places = range(place - (size - 1) // 2, place + size // 2 + 1)
                near = [params["relevance"][j - ngrams - 1, head] for other, j in kept if j > ngrams and other in places]
                logit += 10 * sum(near) / max(len(near), 1)
            weights.append(math.exp(logit))
        for weight, (_, i) in zip(weights, weighed, strict=True):
            total += weight / sum(weights) * params["values"][i - 1] / config.num_heads
    return 0.3 * math.sqrt(max(len(weighed), 1)) * total + params["bias"]


def bucket_by_hand(distance: int) -> int:
    return sum(distance >= bound for bound in (4, 6, 8, 12, 16, 23, 32, 46, 64, 91, 128, 182, 256, 363, 512))


@pytest.mark.parametrize(
    "body, fields",
    [
        ("ngram_linear", {}),
        ("ngram_attention", {"num_classes": 3}),
        ("ngram_attention", {"logits": "own"}),
        ("ngram_attention", {"logits": "context", "kernel_size": 4, "context_size": 9}),
    ],
)
def test_the_models_against_loops(body: str, fields: dict):
    chosen = config(body, **fields)
    model = NgramClassifier(chosen)
    params = random_params(model, 3)
    texts = [[5], [], [7, 1, 22, 3, 3, 9, 17], list(range(22, 3, -1))]
    tokens = np.array([text + [0] * (19 - len(text)) for text in texts])

    @jax.jit
    def run(params):
        def loss(params):
            logits = jnp.asarray(model.apply({"params": params}, tokens))
            return jnp.sum(jnp.sin(logits)), logits

        (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return logits, gradient

    with tiny.fast_compilation():
        found, gradient = run(params)
    margins = np.array([margin_by_loops(chosen, params, text) for text in texts])
    expected = margins if chosen.num_classes > 2 else np.concatenate([-margins / 2, margins / 2], axis=1)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    for name in params:  # the gradient against central differences of the loops
        at = (0,) * params[name].ndim if name != "values" else (2, 0)
        low, high = ({**params, name: params[name].copy().astype(np.float64)} for _ in range(2))
        low[name][at] -= 1e-4
        high[name][at] += 1e-4
        ends = []
        for moved in (low, high):
            margins = np.array([margin_by_loops(chosen, moved, text) for text in texts])
            logits = margins if chosen.num_classes > 2 else np.concatenate([-margins / 2, margins / 2], axis=1)
            ends.append(np.sin(logits).sum())
        assert float(gradient[name][at]) == pytest.approx((ends[1] - ends[0]) / 2e-4, rel=2e-3, abs=2e-4)


def test_dropout_leaves_out_ngrams_and_padding_changes_nothing():
    model = NgramClassifier(config("ngram_attention", logits="context", kernel_size=3, context_size=15))
    params = random_params(model, 4)
    tokens = np.array([7, 1, 22, 3, 9, 0, 0])
    every = np.array([[token * (bits >> place & 1) for place, token in enumerate(tokens)] for bits in range(32)])

    @jax.jit
    def margins(rngs):
        def dropped(rng):
            return model.apply({"params": params}, tokens, deterministic=False, rngs={"dropout": rng})

        return jax.vmap(dropped)(rngs)[:, 1] * 2, jnp.asarray(model.apply({"params": params}, tokens[None, :5]))[0, 1] * 2

    with tiny.fast_compilation():
        found, whole = map(np.asarray, margins(jax.random.split(jax.random.key(1), 40)))
    assert len(set(found.tolist())) > 10
    assert float(whole) == pytest.approx(margin_by_loops(model.config, params, tokens[:5].tolist())[0], rel=1e-5)
    # Each is the margin of some of the n-grams, at the places that they have in the whole text.
    expected = [margin_by_loops(model.config, params, row.tolist(), whole=5)[0] for row in every]
    assert np.abs(found[:, None] - np.array(expected)).min(axis=1).max() < 1e-4
    assert bucket(jnp.array([0, 3, 4, 511, 512, 9999])).tolist() == [0, 0, 1, 14, 15, BUCKETS - 1]


def test_relative_adam_against_its_recurrence():
    w, m, v = np.array([2.0, -0.5, 0.0]), np.zeros(3), np.zeros(3)
    params = jnp.array(w, jnp.float32)
    optimizer: Any = relative_adam(0.1, 0.2, 0.8, 0.9)
    state = optimizer.init(params)
    for t, gradient in enumerate(np.random.default_rng(5).normal(size=(4, 3)), start=1):
        m, v = 0.8 * m + 0.2 * gradient, 0.9 * v + 0.1 * gradient**2
        w = w - 0.1 * (np.abs(w) + 0.2) * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
        updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = params + updates
    np.testing.assert_allclose(params, w, rtol=1e-5)


def test_a_run_is_trained_continued_and_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(verdicts, "SIZES", {"train": 600, "validation": 90, "test": 110})
    run = tmp_path / "run"
    flags = (
        PAGE,
        f"--workdir={run}",
        "--config.batch_size=100",
        "--config.data.ngram_features=700",
        "--config.schedule=constant",
    )
    with tiny.fast_compilation():
        assert commands.main(["train", *flags, "--config.epochs=1"]) == 0
        assert commands.main(["train", *flags, "--config.epochs=2"]) == 0
        capsys.readouterr()
        text = "although the acting was dull, i thought the comedy was clever"
        assert commands.main(["predict", f"--workdir={run}", f"--words={text}"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["label"] in ("neg", "pos") and answer["tokens"] > 5
    result = json.loads((run / "result.json").read_bytes())
    assert result["parameters"] == 700 + 50 + 1 + 2 * BUCKETS and result["epochs"] == 2
    rows = run_folder.read_rows(run)
    assert rows[1]["train_loss"] < rows[0]["train_loss"] < 0.75
    assert commands.main(["attend", f"--workdir={run}", f"--words={text}", f"--out={tmp_path}/page.html"]) == 2
    assert "n-grams" in capsys.readouterr().err and not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("data.ngrams", None, "config.data.ngrams=None must be an integer from 1 to 5 with model.body=ngram_attention"),
        ("model.body", "transformer", "config.data.ngrams=4 must be None with model.body=transformer"),
        ("data.ngrams", 6, "config.data.ngrams=6 must be an integer from 1 to 5, or None"),
        ("data.name", "tfds:imdb_labeled", "config.data.name=tfds:imdb_labeled must be one of imdb, verdicts"),
        ("data.vocabulary_size", 100, "config.data.vocabulary_size=100 must be None with data.ngrams=4"),
        ("model.positions", "rotary", "config.model.positions='rotary' must be none with data.ngrams=4"),
        ("model.logits", "free", "config.model.logits='free' must be one of tied, own, context"),
        (
            "model.logits",
            "own",
            "config.data.ngram_context=5000 must be 0 with model.body=ngram_attention and model.logits=own",
        ),
        ("data.ngram_context", 0, "config.data.ngram_context=0 must be above 0 with model.body=ngram_attention"),
        (
            "data.ngram_features",
            1,
            "config.data.ngram_features=1 must be at least 2 with data.ngram_choice=hashed and data.ngrams=4",
        ),
    ],
)
def test_bad_fields(field: str, value: object, said: str):
    config = settings.load_page("ngram_attention", "imdb")
    group, _, name = field.partition(".")
    config[group][name] = value
    if field == "data.ngram_features":
        config.data.ngram_choice = "hashed"
    with pytest.raises(UsageError) as error:
        settings.check(config)
    assert said in str(error.value)


def test_context_is_of_ngrams():
    config = settings.load_page("transformer", "imdb")
    config.data.ngram_context = 5
    with pytest.raises(UsageError, match=r"config\.data\.ngram_context=5 must be 0 with model\.body=transformer"):
        settings.check(config)
    empty = NgramTokenizer((), NgramSettings(2, "frequency", 9, context=4), 8, KERAS)
    with pytest.raises(UsageError, match=r"config\.data\.ngram_context=4 must be at most 3, the words there are"):
        ngram_arrays.fitted(empty, [b"a b", b"b c"], np.array([0, 1]))
    found = ngram_arrays.fitted(
        dataclasses.replace(empty, settings=NgramSettings(2, "frequency", 9, 1)), [b"a b", b"b"], np.zeros(2)
    )
    assert found.encode(b"b c").ids == [found.vocabulary_size - 1, *found.encode(b"b c").ids[1:]] and len(found.words) == 4


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"context_size": -3}, "context_size=-3 is not an integer of at least 0"),
        ({"kernel_size": 2.5}, "kernel_size=2.5 is not an integer of at least 1"),
        ({"context_size": 4}, "context_size=4 is not 0 with body='ngram_attention' and logits='tied'"),
        ({"logits": "context"}, "context_size=0 is not positive with body='ngram_attention' and logits='context'"),
        ({"logits": "context", "context_size": 22}, "vocabulary_size=23 is less than 24, with context_size"),
    ],
)
def test_bad_architectures(fields: dict, said: str):
    with pytest.raises(ValueError) as error:
        config("ngram_attention", **fields)
    assert str(error.value) == said


def test_settings_that_cannot_be_hashed():
    for given, said in (((2, "nope", 9), "choice='nope'"), ((2, "hashed", 1), "features=1 must be at least 2")):
        with pytest.raises(ValueError, match=said):
            NgramSettings(*given)


def test_narrow_ids_are_read_as_they_are():
    """A type that holds the ids but not the number of n-grams: 90,000 is 24,464 as uint16."""
    model = NgramClassifier(
        config("ngram_attention", vocabulary_size=90_011, logits="context", context_size=10, kernel_size=64)
    )
    params, ids = random_params(model, 6), [40_000, 60_000, 3]
    found = jnp.asarray(model.apply({"params": params}, jnp.array([ids], jnp.uint16)))
    assert float(found[0, 1]) * 2 == pytest.approx(margin_by_loops(model.config, params, ids)[0], rel=1e-4)
