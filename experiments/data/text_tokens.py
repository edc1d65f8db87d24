"""The third pass over labelled texts: tokens are written row by row, so that a pass that was stopped goes on."""

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from experiments.data.sources import SPLITS
from experiments.data.text_labels import Labelled
from experiments.data.tokenizer import Tokenizer
from experiments.storage import files

MARKER = "tokens.json"
ROWS = 10_000  # that are tokenised before they are written


def write(folder: Path, texts: Callable[[int], Iterable[bytes]], labelled: Labelled, tokenizer: Tokenizer) -> None:
    """Writes the arrays of the three splits: `SPLIT_tokens.npy` and `SPLIT_labels.npy`. Rows keep their order.

    Args:
      folder: Where they are written. What an earlier attempt has written there is kept.
      texts: Returns the texts behind so many.
      labelled: Their labels and splits.
      tokenizer: What makes tokens of them.

    Raises:
      DataError: Reading raises it.
      OSError: The arrays cannot be written.
    """
    done = files.read_object(folder / MARKER) if (folder / MARKER).exists() else {"rows": 0}
    with contextlib.ExitStack() as stack:
        written = [stack.enter_context(_opened(folder, index, labelled, tokenizer, done)) for index in range(len(SPLITS))]
        row, waiting = done["rows"], []
        for text in texts(row):
            waiting.append(tokenizer.kept(tokenizer.encode(text).ids))
            if len(waiting) == ROWS:
                row = _append(folder, written, row, waiting, labelled, tokenizer)
                waiting = []
        _append(folder, written, row, waiting, labelled, tokenizer)
    for index, split in enumerate(SPLITS):
        np.save(folder / f"{split}_labels.npy", labelled.labels[labelled.splits == index], allow_pickle=False)


def _opened(folder: Path, split: int, labelled: Labelled, tokenizer: Tokenizer, done: dict[str, int]) -> BinaryIO:
    """Returns the file of a split's tokens, behind what is done: behind the header of the array at first."""
    path, name = folder / f"{SPLITS[split]}_tokens.npy", SPLITS[split]
    if name in done:
        file = path.open("r+b")
        file.truncate(done[name])
        file.seek(0, os.SEEK_END)
        return file
    file = path.open("wb")
    shape = int(np.sum(labelled.splits == split)), tokenizer.max_length
    np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": shape})
    return file


def _append(
    folder: Path, written: list[BinaryIO], row: int, ids: list[list[int]], labelled: Labelled, tokenizer: Tokenizer
) -> int:
    """Appends rows to their splits, and then the marker that says so. Returns the number of rows that are done."""
    tokens, splits = tokenizer.pad(ids), labelled.splits[row : row + len(ids)]
    for index, file in enumerate(written):
        file.write(tokens[splits == index].astype("<u2", copy=False).tobytes())
        file.flush()
        os.fsync(file.fileno())
    row += len(ids)
    sizes = {split: file.tell() for split, file in zip(SPLITS, written, strict=True)}
    files.write_json(folder / MARKER, {"rows": row, **sizes})
    return row
