"""Pairs of texts: what is generated, what is read from files, and the tokens that become of both."""

import calendar
import datetime

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import seq2seq_rnn, seq2seq_transformer
from experiments import fields, settings
from experiments.command_line import commands
from experiments.data import pair_dates, pair_reversal, pair_sentences, pairs
from experiments.data.pair_tokenizer import PairTokenizer
from experiments.errors import UsageError

DATES = pair_dates.examples()


def test_every_date_says_what_its_target_says():
    months = {name.lower()[:3]: number for number, name in enumerate(calendar.month_name) if number}
    for example in DATES["test"]:
        said = {field: example.source[slice(*example.spans[field])].lower() for field in pair_dates.FIELDS}
        day = int(said["day"].rstrip("stndrh"))
        month = int(said["month"]) if said["month"].isdigit() else months[said["month"][:3]]
        year = int(said["year"])
        year += (2000 if year < 50 else 1900) if len(said["year"]) == 2 else 0
        date = datetime.date(year, month, day)
        assert example.target == date.isoformat()
        assert {field: example.target[place] for field, place in pair_dates.OUTPUT.items()} == {
            "year": f"{year:04}", "month": f"{month:02}", "day": f"{day:02}",
        }  # fmt: skip
        first = example.source.split()[0].strip(",").lower()
        if first.endswith("day") or first in ("mon", "tue", "tues", "wed", "thu", "fri", "sat", "sun"):
            assert calendar.day_name[date.weekday()].lower().startswith(first)


def test_no_date_is_in_two_splits_and_all_formats_are_there():
    targets = {name: {example.target for example in part} for name, part in DATES.items()}
    assert {name: len(part) for name, part in targets.items()} == pair_dates.SIZES
    assert not targets["train"] & targets["test"] and not (targets["train"] | targets["test"]) & targets["validation"]
    shapes = {"".join("0" if c.isdigit() else "a" if c.isalpha() else c for c in e.source) for e in DATES["test"]}
    assert len(shapes) > len(pair_dates.FORMATS)
    assert pair_dates.ordinal(11) + pair_dates.ordinal(21) + pair_dates.ordinal(2) + pair_dates.ordinal(23) == "thstndrd"


def test_reversed_sequences_of_all_lengths():
    splits = pair_reversal.pairs(7)
    assert {name: len(part) for name, part in splits.items()} == pair_reversal.SIZES
    assert all(target == source[::-1] for part in splits.values() for source, target in part)
    lengths = np.bincount([len(source) for source, _ in splits["test"]])
    assert lengths[0] == 0
    assert np.ptp(lengths[1:]) <= 1


def test_sentences_put_time_and_place_before_the_verb():
    splits = pair_sentences.pairs()
    every = [pair for part in splits.values() for pair in part]
    assert len(set(every)) == len(every) == sum(pair_sentences.SIZES.values())
    assert ("Tom chase Jerry", "汤姆 追逐 杰瑞") in splits["test"]
    words = {
        english: chinese.split()
        for group in ("NAMES", "NOUNS", "ADJECTIVES", "VERBS", "TIMES", "PLACES", "DENIALS")
        for english, chinese in getattr(pair_sentences, group).items()
        if english
    }
    for english, chinese in splits["validation"]:
        expected = sorted(word for part, said in words.items() for word in said * f" {english} ".count(f" {part} "))
        assert sorted(chinese.split()) == expected
        verb = next(i for i, word in enumerate(chinese.split()) if word in pair_sentences.VERBS.values())
        assert all(chinese.split().index(w) < verb for w in ("在", "今天", "不") if w in chinese.split())


def tokenizer(**changes) -> PairTokenizer:
    settings_of = {"words": (b"b", "汤".encode(), b"a", b" "), "vocabulary_size": 7, "max_length": 3, "target_length": 4}
    return PairTokenizer(**(settings_of | {"unit": "character"} | changes))


def test_tokens_by_hand():
    by = tokenizer()
    source = by.source("xa 汤b ")  # the space at the end is no token; the other one is too rare for the vocabulary
    assert (source.ids, source.shown, source.left_out, source.unknown) == ([2, 5, 4], [" ", "汤", "b"], 2, 1)
    assert tokenizer(keep="first").source("xa 汤b").shown == ["x", "a", " "]
    assert tokenizer(keep="ends").source("xa 汤b").shown == ["x", "a", "b"]
    assert by.target("a汤") == [6, 5, 3]
    assert by.text([6, 5, 3, 0, 0]) == "a汤"
    assert by.tokens([2, 4]) == ["[unknown]", "b"]
    assert tokenizer(unit="word", lowercase=True).source("A b").ids == [6, 4]
    assert tokenizer(unit="word").text([6, 4]) == "a b"
    np.testing.assert_array_equal(by.pad_targets([[6, 3]]), [[6, 3, 0, 0]])


def config_of(path, **changes) -> ConfigDict:
    config = seq2seq_rnn.get_config("pairs")
    config.update_from_flattened_dict({"data.path": str(path)} | changes)
    settings.check(config)
    return config


def test_a_file_with_two_columns(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"source {i}\tziel {i}\n\n" for i in range(20)), encoding="utf-8")
    corpus = pairs.load(config_of(path, **{"data.unit": "word", "data.test_share": 0.25, "data.validation_share": 0.2}).data)
    assert [len(part.labels) for part in (corpus.train, corpus.validation, corpus.test())] == [12, 3, 5]
    assert corpus.target_length == 3
    texts = [corpus.tokenizer.text(row) for part in (corpus.train, corpus.validation, corpus.test()) for row in part.labels]
    assert sum("[unknown]" in text for text in texts) == 8  # the numbers of the splits that are not trained on
    other = pairs.load(config_of(path, **{"data.unit": "word", "data.split_seed": 1}).data)
    assert other.sha256 != corpus.sha256
    (tmp_path / "test.tsv").write_text("a\tb\n")
    both = config_of(f"train={path},test={tmp_path / 'test.tsv'}", **{"data.unit": "word"}).data
    assert [len(part) for part in pairs.rows(both).values()] == [18, 1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tb\nalone\n", "line 2 has 1 column: it must have two, a source and a target, and a tab between them"),
        ("a\tb\n\na\tb\tc\n", "line 3 has 3 columns: it must have two, a source and a target, and a tab between them"),
        ("a\tb\n \tb\n", "line 2: the source is empty"),
        ("a\t \n", "line 1: the target is empty"),
        ("a\tb\n \n\t\n", "line 3: the source is empty"),
        ("a\tb\n", "has too few rows: none is left for "),
        (f"a\t{'b' * 257}\n" * 9, "line 1: the target has 257 tokens, and the longest that can be learned has 256"),
    ],
)
def test_a_bad_row_is_one_line_with_file_and_number(tmp_path, capsys, content, message):
    path = tmp_path / "bad.tsv"
    path.write_text(content)
    page = f"--config={seq2seq_rnn.__file__}:pairs"
    arguments = ["train", page, f"--config.data.path={path}", f"--workdir={tmp_path / 'run'}"]
    assert commands.main(arguments) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert str(path) in told
    assert message in told
    assert not (tmp_path / "run").exists()


def test_the_fields_of_a_body_are_those_of_its_model():
    for page in (seq2seq_rnn, seq2seq_transformer):
        for data in ("dates", "reversal", "english_chinese"):
            config = page.get_config(data)
            settings.check(config)
            assert set(config.model) == set(fields.SEQ2SEQ[config.model.body])
            made = settings.seq2seq_config(config, 9, 5)
            assert {name: getattr(made, name) for name in config.model} == config.model.to_dict()


@pytest.mark.parametrize(
    ("page", "changes", "message"),
    [
        ("dates", {"model.score": "sum"}, "config.model.score='sum' must be one of none, dot, scaled_dot, cosine, additive, b"),
        ("dates", {"model.hidden_dim": 7}, "config.model: hidden_dim=7 is odd: with bidirectional each direction has half of"),
        ("pairs", {}, "config.data.path=None must be a file with two columns with data.name=pairs"),
        ("dates", {"data.path": "x.tsv"}, "config.data.path='x.tsv' must be None with data.name=dates"),
        ("dates", {"data.text": "a"}, "config.data.text='a' must be None with data.name=dates"),
        ("verdicts", {}, "config.model.body=recurrent_seq2seq must be one that classifies with data.name=verdicts"),
    ],
)
def test_a_config_that_breaks_a_rule(page, changes, message):
    config = seq2seq_rnn.get_config(page)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UsageError) as error:
        settings.check(config)
    assert str(error.value).startswith(message)


def test_fields_of_the_other_bodies_are_refused():
    config = seq2seq_rnn.get_config("dates")
    with config.unlocked():
        config.model.num_heads = 2
    with pytest.raises(UsageError, match=r"^config.model.num_heads=2 is not a field of model.body=recurrent_seq2seq$"):
        settings.check(config)
    other = seq2seq_transformer.get_config("dates")
    changed = settings.differences(settings.flatten(seq2seq_rnn.get_config("dates")), settings.flatten(other))
    assert "model.body is 'recurrent_seq2seq' there and 'transformer_seq2seq' here" in changed
    assert settings.fingerprint(config) != settings.fingerprint(other)
