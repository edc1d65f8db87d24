"""Runs each contender in its own process, with its own JAX, Keras backend and thread pool."""

import importlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection

from scripts.contenders.workload import Contender, Sizes, make_workload

# The module and function of each contender, and the packages that it needs in addition, which the extra "bench" installs.
CONTENDERS = {
    "ours": ("ours:ours", ()),
    "linen": ("linen_model:linen", ()),
    "keras-tensorflow": ("keras_model:on_tensorflow", ("keras", "tensorflow")),
    "keras-jax": ("keras_model:on_jax", ("keras",)),
    "torch": ("torch_model:eager", ("torch",)),
    "torch-compiled": ("torch_model:compiled", ("torch",)),
}


def start(contender: str, model: str, sizes: Sizes) -> Contender:
    """Starts a contender in a new process, and returns it when it is ready.

    Raises:
      RuntimeError: the process has failed.
    """
    context = multiprocessing.get_context("spawn")
    parent, child = context.Pipe()
    process = context.Process(target=_serve, args=(child, contender, model, sizes), daemon=True)
    process.start()
    child.close()

    def answer() -> int:
        try:
            return parent.recv()
        except EOFError:
            raise RuntimeError(f"{contender}, {model}: the process has failed; see above") from None

    def ask(what: str) -> Callable[[], object]:
        return lambda: (parent.send(what), answer())

    return Contender(answer(), ask("train"), ask("evaluate"))


def _serve(pipe: Connection, contender: str, model: str, sizes: Sizes) -> None:
    module, _, name = CONTENDERS[contender][0].partition(":")
    served = getattr(importlib.import_module(f"scripts.contenders.{module}"), name)(make_workload(model, sizes))
    pipe.send(served.parameters)
    while True:
        try:
            what = pipe.recv()
        except EOFError:  # the benchmark is over
            return
        getattr(served, what)()
        pipe.send(0)
