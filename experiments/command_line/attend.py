"""The command `attend`: its flags, and the page that it writes."""

from pathlib import Path
from typing import Any

from absl.flags import FlagValues

from experiments import ranges
from experiments.command_line import command_flags, text_flags
from experiments.command_line.command_flags import path
from experiments.errors import UsageError
from experiments.fields import PAIRS
from experiments.machine import devices
from experiments.storage import files

_FLAGS = {
    "workdir": None,
    "words": None,
    "out": None,
    "checkpoint": "last",
    "queries": None,
    "layer": 0,
    "head": None,
    "live": False,
    "float32": False,
}


def attend(arguments: list[str]) -> None:
    """Writes the page of one text."""
    values, named = command_flags.parse(arguments, _FLAGS, words=True)
    file = text_flags.file_of("attend", named, values.words)
    workdir, out = command_flags.workdir(values), _out(values)
    checkpoint = command_flags.choice("checkpoint", values.checkpoint, ("last", "best"))
    if values.float32 and not values.live:
        raise UsageError("--float32 goes with --live: it is about the parameters in the page")
    queries, head = _integers(values, "queries"), _integers(values, "head")
    if len(head) > 1:
        raise UsageError(f"--head={values.head} must be one integer")
    with text_flags.opened(file, values.words) as lines:
        text = b"".join(lines)
    devices.start()
    from experiments.attend import attend as making
    from experiments.storage import run_folder

    run = run_folder.load(workdir, checkpoint)
    if run.config.data.name in PAIRS:
        content = _alignment(run, text, values, head)
        files.write_whole(out, content)
        print(f"The page is in {out}: {len(content.encode()):,} bytes.")
        return
    chosen = {"queries": queries, "layer": values.layer, "head": head[0] if head else None}
    page = making.page(run, text, **chosen, live=values.live, float32=values.float32)
    content = page.svg() if out.suffix == ".svg" else page.html()
    files.write_whole(out, content)
    print(f"The page is in {out}: {len(content.encode()):,} bytes.")


def _alignment(run: Any, text: bytes, values: FlagValues, head: tuple[int, ...]) -> str:
    """Returns the page or the picture of which tokens of a source each token of its target looked at."""
    from experiments import pair_predict

    for name in ("live", "queries"):
        if values[name].value:
            raise UsageError(f"--{name}={values[name].value} goes with a run that classifies, and this one has pairs of texts")
    first = values.layer if values["layer"].present else None, head[0] if head else None
    pair_predict.check_maps(run, *first)
    [answer] = pair_predict.answers(run, [text], batch_size=1)
    drawn = pair_predict.alignment(run, answer, *first)
    return drawn.svg() if str(values.out).endswith(".svg") else drawn.html()


def _out(values: FlagValues) -> Path:
    if not values.out:
        raise UsageError("--out is missing: it must be the file of the page, such as page.html")
    out = path("--out", values.out)
    if out.suffix not in (".html", ".svg"):
        raise UsageError(f"--out={out} must end with .html, or with .svg for a picture")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UsageError(f"--out={out} must be a file in a folder that exists")
    files.refuse_unwritable("--out", out.absolute().parent)
    return out


def _integers(values: FlagValues, name: str) -> tuple[int, ...]:
    text = values[name].value
    if text is None:
        return ()
    try:
        return ranges.integers(str(text))
    except ValueError:
        raise UsageError(f"--{name}={text} must be {ranges.RULE}") from None
