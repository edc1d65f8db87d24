"""The compiled programs of a training. One run uses them, or several, which then share them.

A run asks for a call, as a generator that yields a request and receives the answer; see `drive`. So several runs can be
trained by one call, in parallel (`jax.vmap`), and each of them is written as if it were alone.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.data.corpus import Corpus
from experiments.machine import processes
from experiments.machine.stopping import Signals
from experiments.training import steps
from experiments.training.judgement import Judged

_FULL = 0.9  # of the memory of a device


class Train(NamedTuple):
    """Asks for the next steps of an epoch; see `steps.train`.

    Attributes:
      place: How far the run is: its epoch, and the steps done in it. The run that is furthest behind is served first.
    """

    place: tuple[int, int]
    state: steps.State
    sums: steps.Sums
    batches: steps.Batches
    first: int
    last: int


class Trained(NamedTuple):
    """The answer to `Train`.

    Attributes:
      state: The state after the steps.
      sums: The sums after them.
      bad: The index of a step that is not finite, or −1.
      seconds: The duration of the call.
      share: The part of it that is due to this run.
      compile_seconds: The seconds of a compilation before the call, of which each run has a part; mostly 0.
    """

    state: steps.State
    sums: steps.Sums
    bad: int
    seconds: float
    share: float
    compile_seconds: float


class Evaluate(NamedTuple):
    """Asks for the loss and the accuracy of parameters on a split, "validation" or "test"."""

    place: tuple[int, int]
    split: str
    params: Any


class Evaluated(NamedTuple):
    """The answer to `Evaluate`: mean loss in nats, accuracy, and the seconds of a compilation."""

    loss: float
    accuracy: float
    compile_seconds: float


class Judge(NamedTuple):
    """Asks for what parameters say of each example of a split; the answer is a `Judged`."""

    place: tuple[int, int]
    split: str
    params: Any


Request = Train | Evaluate | Judge


class Programs:
    """Compiles each program when it is first asked for, so that training starts earlier.

    Args:
      plan: What the programs are compiled for.
      corpus: The corpus. Its test split is read when it is first asked for.
      signals: A signal waits for the end of a training call, and abandons a compilation or an evaluation.
      parallel: How many runs a call trains in parallel, at most. Fewer if the memory of a device is too small for them.

    Attributes:
      parallel: How many a call trains.
    """

    def __init__(self, plan: steps.Plan, corpus: Corpus, signals: Signals, parallel: int = 1):
        self.parallel = parallel
        self._plan, self._corpus, self._signals = plan, corpus, signals
        self._train: Callable | None = None
        self._evaluate: dict[tuple[str, int], Callable] = {}
        self._judge: dict[str, Callable] = {}
        self._splits: dict[str, steps.Batches] = {}

    def answer(self, requests: Sequence[Any]) -> Sequence[Trained | Evaluated | Judged]:
        """Returns the answers to several requests `Train`, or to several `Evaluate` or `Judge` of a split: at most `parallel`.

        Raises:
          Stopped: There was a signal while a program was compiled or an evaluation ran.
        """
        if isinstance(requests[0], Evaluate):
            return self._signals.abandonable(self._evaluated, requests)
        if isinstance(requests[0], Judge):
            return self._signals.abandonable(self._judged, requests)
        compile_seconds = 0.0
        if self._train is None:
            self._train, compile_seconds = self._signals.abandonable(self._compiled_train, requests)
        started = time.monotonic()
        results = self._signals.finish(self._trained, requests)
        seconds = time.monotonic() - started
        times = seconds, seconds / len(requests), compile_seconds / len(requests)
        return [Trained(state, sums, int(bad), *times) for state, sums, bad in results]

    def _compiled_train(self, requests: Sequence[Train]) -> tuple[Callable, float]:
        if self.parallel == 1:
            return compiled(steps.train, self._plan, *_arguments(requests[0]))
        program, seconds = compiled(steps.train_in_parallel, self._plan, *_transposed(self._filled(requests)))
        if self._fits(program):
            return program, seconds
        self.parallel = -(-self.parallel // 2)
        program, more = self._compiled_train(requests[: self.parallel])
        return program, seconds + more

    def _fits(self, program: Any) -> bool:
        limit = (self._plan.devices[0].memory_stats() or {}).get("bytes_limit")
        used = program.memory_analysis()
        if limit is None or used is None:
            return True
        needed = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes + used.temp_size_in_bytes
        return needed <= _FULL * limit

    def _trained(self, requests: Sequence[Train]) -> list[tuple[steps.State, steps.Sums, Any]]:
        assert self._train is not None
        if self.parallel == 1:
            return [jax.block_until_ready(self._train(*_arguments(requests[0])))]
        found = []
        for first in range(0, len(requests), self.parallel):  # the memory may be too small for all that were asked for
            part = requests[first : first + self.parallel]
            found += jax.block_until_ready(self._train(*_transposed(self._filled(part))))[: len(part)]
        return found

    def _filled(self, requests: Sequence[Train]) -> list[Train]:
        """Adds copies that train no step: a program is compiled for a fixed number of runs."""
        first = requests[0]
        copies = [
            first._replace(state=_copied(first.state), sums=_copied(first.sums), first=0, last=0)
            for _ in range(self.parallel - len(requests))
        ]
        return [*requests, *copies]

    def _evaluated(self, requests: Sequence[Evaluate]) -> list[Evaluated]:
        key = requests[0].split, self.parallel
        params = tuple(request.params for request in requests)
        params += (params[0],) * (self.parallel - len(params))
        compile_seconds = 0.0
        batches = self._batches(key[0])
        if key not in self._evaluate:
            program, argument = (steps.evaluate, params[0]) if self.parallel == 1 else (steps.evaluate_in_parallel, params)
            self._evaluate[key], compile_seconds = compiled(program, self._plan, argument, batches)
        run = self._evaluate[key]
        found = [run(params[0], batches)] if self.parallel == 1 else run(params, batches)
        means = [sums.means() for sums in found[: len(requests)]]
        return [Evaluated(loss, accuracy, compile_seconds / len(requests)) for loss, accuracy in means]

    def _judged(self, requests: Sequence[Judge]) -> list[Judged]:
        split = requests[0].split
        batches = self._batches(split)
        if split not in self._judge:
            self._judge[split], _ = compiled(steps.judge, self._plan, requests[0].params, batches)
        run = self._judge[split]
        labels, slots = processes.gathered(batches.labels), processes.gathered(batches.slots)
        answers = [map(processes.gathered, run(request.params, batches)) for request in requests]
        return [Judged(*(array[slots >= 0] for array in (labels, *answer))) for answer in answers]

    def _batches(self, split: str) -> steps.Batches:
        if split not in self._splits:
            examples = self._corpus.test() if split == "test" else self._corpus.validation
            self._splits[split] = self._plan.split(examples.tokens, examples.labels)
        return self._splits[split]


def compiled(program: Any, *arguments: Any) -> tuple[Callable, float]:
    """Returns a program that is compiled for these arguments, and the seconds that it took."""
    started = time.monotonic()
    result = program.lower(*arguments).compile()
    return result, time.monotonic() - started


def _arguments(request: Train) -> tuple[Any, ...]:
    return request.state, request.sums, request.batches, request.first, request.last


def _transposed(requests: Sequence[Train]) -> tuple[tuple[Any, ...], ...]:
    return tuple(zip(*map(_arguments, requests), strict=True))


def _copied(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)
