"""What the server of forked workers imports: JAX and the lab once, the tiny corpus, and trials that fail when told to.

A worker that is forked from it starts in milliseconds, where a new interpreter would import for seconds.
"""

import os
import signal
import warnings
from typing import Any

import jax
import orbax.checkpoint
import tiny
from sweeping import BROKEN, KILLED, REFUSED

from experiments.errors import DataError
from experiments.report import curves
from experiments.storage import metrics
from experiments.training import build, together

PRELOADED = (orbax.checkpoint, metrics.summary_writer())

warnings.filterwarnings("ignore", "os.fork")  # JAX has started no threads yet
jax.config.update("jax_disable_most_optimizations", True)
_small, _train = tiny.corpus(), together.train
build.build_corpus = lambda config: _small
curves.draw_curves = lambda *_: None  # half a second a run


def train(members: Any, label: str, progress: Any) -> Any:
    """`together.train`, but some seeds fail as long as the file `mend` is not beside the folder of the sweep."""
    seeds = {member.config.seed for member in members}
    if not (members[0].workdir.parent.parent.parent / "mend").exists():
        if KILLED in seeds:
            print("allocating", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if REFUSED in seeds:
            raise DataError("the data is not there")
        if BROKEN in seeds:
            raise ZeroDivisionError("a bug")
    return _train(members, label, progress)


together.train = train
