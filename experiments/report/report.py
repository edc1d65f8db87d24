"""Makes a report of runs: report.html, report.md, runs.csv and curves.csv."""

from collections.abc import Sequence
from pathlib import Path

from experiments.errors import UsageError
from experiments.report import groups, page, published, runs, sections, written
from experiments.storage import files


def report(arguments: Sequence[str], out: Path, baseline: str | None, curves: Path | None) -> Path:
    """Writes the report of all runs below some paths.

    Args:
      arguments: Run folders, folders with run folders below them, and ledger files.
      out: The folder of the report.
      baseline: The name of the group that the others are compared with; None is the first one with a finished run.
      curves: A CSV file with published curves, or None.

    Returns:
      The path of the page.

    Raises:
      UsageError: A path holds no run, there is no such group, or a file cannot be read or written. Nothing is written then.
    """
    files.refuse_unwritable("--out", out)
    theirs = {} if curves is None else published.read(curves)
    found = runs.read(arguments)
    together = groups.grouped(found)
    reference = groups.reference(together, baseline)
    document = sections.document(found, together, reference, theirs)
    contents = {
        "runs.csv": written.runs_csv(found, together),
        "curves.csv": written.curves_csv(found, together),
        "report.md": written.markdown(document),
        "report.html": page.html(document),
    }
    try:
        with files.no_leftovers(out):
            for name, content in contents.items():
                files.write_whole(out / name, content)
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UsageError(f"--out={out} cannot be written: {error.strerror}") from None
    return out / "report.html"
