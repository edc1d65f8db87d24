"""A contender in a process of its own: one JAX, one Keras backend, one thread pool each."""

import importlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection

from scripts.contenders.workload import Contender, Sizes, make_workload

# Where each is, and what it needs beyond what ours needs: the extra "bench".
CONTENDERS = {
    "ours": ("ours:ours", ()),
    "linen": ("linen_model:linen", ()),
    "keras-tensorflow": ("keras_model:on_tensorflow", ("keras", "tensorflow")),
    "keras-jax": ("keras_model:on_jax", ("keras",)),
    "torch": ("torch_model:eager", ("torch",)),
    "torch-compiled": ("torch_model:compiled", ("torch",)),
}


def start(contender: str, model: str, sizes: Sizes) -> Contender:
    """The contender in a new process, once it is ready; RuntimeError where it failed."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, contender, model, sizes), daemon=True)
    process.start()
    theirs.close()

    def answer() -> int:
        try:
            return ours.recv()
        except EOFError:
            raise RuntimeError(f"{contender}, {model}: the process has failed, see above") from None

    def ask(what: str) -> Callable[[], object]:
        return lambda: (ours.send(what), answer())

    return Contender(answer(), ask("train"), ask("evaluate"))


def _serve(pipe: Connection, contender: str, model: str, sizes: Sizes) -> None:
    module, _, name = CONTENDERS[contender][0].partition(":")
    made = getattr(importlib.import_module(f"scripts.contenders.{module}"), name)(make_workload(model, sizes))
    pipe.send(made.parameters)
    while True:
        try:
            what = pipe.recv()
        except EOFError:  # the benchmark is over
            return
        getattr(made, what)()
        pipe.send(0)
