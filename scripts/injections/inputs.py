"""Wrong config values, hostile texts and hostile archives."""

import contextlib
import gzip
import io
import json
import random
import time
from pathlib import Path

import tars
import tiny
from test_imdb_archive import HOSTILE
from test_settings import TYPED

from experiments import predict
from experiments.command_line import commands
from experiments.data import imdb
from experiments.data.corpus import SENTIMENTS
from experiments.errors import DataError
from experiments.storage import run_folder
from experiments.training import build
from scripts.injections import short_runs
from scripts.injections.row import Row

_PIECES = (
    b"\xff\xfe", b"\0", b"", b"qqqzzz", b"\r", b"\xe2\x80\xa8", b"<script>alert(1)</script>", b"=cmd()", b"\x1b[31m", b"\x7f",
    b"the film", "é".encode(), "👍".encode(), b"\xed\xa0\x80", b"\t", b"%s%n", b"' OR 1=1", b"../../etc", b"NaN", b"{}", b" ",
)  # fmt: skip


def bad_values(folder: Path) -> Row:
    """Every bad value of every field: one line with the field, exit code 2, within 3 s, and nothing is created."""
    build.build_corpus = lambda config: (_ for _ in ()).throw(AssertionError("the data was read"))
    folder.mkdir(parents=True)
    workdir, held, longest, count = folder / "run", 0, 0.0, 0
    for field, values in TYPED.items():
        for value in values:
            said, started, count = io.StringIO(), time.monotonic(), count + 1
            with contextlib.redirect_stderr(said):
                code = commands.main(["train", tiny.PAGE, f"--workdir={workdir}", f"--config.{field}={value}"])
            seconds = time.monotonic() - started
            line, longest = said.getvalue(), max(longest, seconds)
            held += code == 2 and line.count("\n") == 1 and field in line and not workdir.exists() and seconds < 3
    note = f"{len(TYPED)} fields, at least {min(map(len, TYPED.values()))} values each; the longest answer {longest:.2f} s"
    return Row("a bad value of a config field", "one line, exit code 2, within 3 s", count, held, note)


def hostile_texts(count: int, seed: int, folder: Path) -> Row:
    """Random joins of hostile pieces, and one line of 10 MB: for each a line of JSON without control characters."""
    draw = random.Random(seed)
    short_runs.prepare(folder / "compiled")
    short_runs.undisturbed(folder / "run")
    texts = [b"".join(draw.choices(_PIECES, k=draw.randrange(12))).replace(b"\n", b"") for _ in range(count - 1)]
    texts.append(b"film " * 2_000_000)
    held = 0
    for line in predict.predict(run_folder.load(folder / "run"), texts, show_text=True):
        answer = json.loads(line)
        held += line.isascii() and line.isprintable() and answer["label"] in SENTIMENTS and answer["text"].isprintable()
    return Row("a hostile text to predict", "a line of JSON, no control characters", count, held)


def hostile_archives(folder: Path) -> Row:
    """Absolute names, `..`, links, devices, nested headers and a bomb: refused in one line, and nothing is written."""
    folder.mkdir(parents=True)
    path, held = folder / "hostile.tgz", 0
    contents = [gzip.compress(tars.tar([*tars.official(), *members])) for members in HOSTILE.values()]
    contents.append(gzip.compress(tars.tar([*tars.official(), tars.file("aclImdb/README", bytes(2**20))]) + bytes(2**30)))
    contents.append(gzip.compress(tars.file("aclImdb/README", size=2**60)[0].tobuf()))
    for content in contents:
        path.write_bytes(content)
        try:
            imdb.prepare(path, folder / "new" / "data")
        except DataError as error:
            held += "\n" not in str(error) and list(folder.iterdir()) == [path]
    required = "refused in one line, nothing is written"
    return Row("a hostile archive", required, len(contents), held, "`..`, absolute names, links, devices, a bomb")
