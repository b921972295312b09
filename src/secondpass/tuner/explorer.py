"""The states a module can reach through passes, each computed once.

A pass list is a walk from the unoptimised module. Walks share their prefixes; a pass that changes
nothing leads back to the state it came from; two walks that meet go on as one. So most lists that a
search tries cost only their last passes, or nothing. States are told apart by what LLVM prints for
them. Passes run one at a time: LLVM keeps analyses between the passes of one pipeline, so in rare
cases the whole list does something else; what is reported in the end is compiled again in one piece
(`confirm`).
"""

from __future__ import annotations

import os
import signal
from collections import Counter, OrderedDict
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Self

from secondpass import ir
from secondpass.errors import LLVMError
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList, Words
from secondpass.llvm.vocabulary import BY_ADDRESS
from secondpass.prompt import Objective

_HELD_INSTRUCTIONS = 300_000
"""States whose modules are kept hold this many instructions together; others are computed again when needed."""
_GROWN, _GROWN_BY = 10, 1_000
"""A state of more than so many times the unoptimised instructions, and so many more, is left alone: passes that unroll
can go on until each takes seconds, and nothing small comes of it."""
RUNNING = "running: "
"""What a worker writes to stderr before each pass, so that its death can be laid at a list's door."""
_DEADLY = 2
"""Passes that must have killed a process at a state for all others to be kept away from it; and states at which one
must have killed a process to be kept away from all of them."""

_DRAWS = 5
"""How often a list with one of them is compiled before its value is believed."""

_pipelines: dict[str, str] = {}


def pipeline_of(word: str) -> str:
    """A single pass as a pipeline that runs on a module."""
    if word not in _pipelines:
        _pipelines[word] = str(PassList.of(word))
    return _pipelines[word]


def _announce(words: Sequence[str]) -> None:
    """Say which list is about to run."""
    os.write(2, f"\n{RUNNING}{' '.join(words)}\n".encode())


@dataclass(slots=True, eq=False)
class State:
    """One state of the module.

    Attributes:
        fingerprint: of its text.
        instructions: its count.
        source: the state it was first reached from, and the pass; None for the unoptimised module.
        following: states one pass away, as far as they are known.
        bytes: native size, once measured; -1 where code generation refuses it.
    """

    fingerprint: bytes
    instructions: int
    source: tuple[State, str] | None
    following: dict[str, State] = field(default_factory=dict[str, "State"])
    bytes: int | None = None


class Explorer:
    """The states of one module. Close it, or use `with`.

    Args:
        bitcode: the module.
        objective: what `value` measures.
        step_seconds: a pass that runs longer ends the process by SIGALRM; 0 for no limit.

    Raises:
        LLVMError: the bitcode does not parse.
    """

    def __init__(self, bitcode: bytes, objective: Objective, step_seconds: float = 0) -> None:
        self._objective = objective
        self._seconds = step_seconds
        self._modules: OrderedDict[State, Module] = OrderedDict()
        self._held = 0
        self._module = Module.parse(bitcode, "function")
        self._module.discard_value_names()
        self.root = State(self._module.fingerprint(), self._module.instruction_count, None)
        self._states: dict[bytes, State] = {self.root.fingerprint: self.root}
        self.steps = 0
        """Passes that were run."""
        self.runs: Counter[str] = Counter()
        self.effects: Counter[str] = Counter()
        """How often each pass was run, and how often it changed something."""
        self._deadly: dict[State, set[str]] = {}
        self._kills: Counter[str] = Counter()

    def close(self) -> None:
        """Give the modules back."""
        for module in self._modules.values():
            module.close()
        self._modules.clear()
        self._module.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def forbid(self, words: Words) -> None:
        """Never again run a list's last pass where the others lead to: it kills the process.

        Where several passes did, none is run; a pass that did so in several places is not run anywhere.
        """
        try:
            at = self._deadly.setdefault(self.walk(words[:-1]), set())
        except LLVMError:
            return  # what leads there is refused today: nobody will come by
        self._kills[words[-1]] += words[-1] not in at
        at.add(words[-1])

    def known(self, words: Iterable[str]) -> State | None:
        """The state a list leads to, if no pass has to run to tell."""
        state = self.root
        for word in words:
            following = state.following.get(word)
            if following is None:
                return None
            state = following
        return state

    def walk(self, words: Sequence[str]) -> State:
        """The state a list leads to.

        Raises:
            LLVMError: LLVM refuses a pass, or it is forbidden there.
        """
        return self._end(words)[0]

    def along(self, words: Sequence[str]) -> Iterator[tuple[State, Words]]:
        """Walk, and yield every state that a pass changed, with the passes that mattered up to there.

        Raises:
            LLVMError: LLVM refuses a pass, it is forbidden there, or the function has grown too much.
        """
        state, useful = self.root, ()
        for index, word in enumerate(words):
            following = state.following.get(word)
            if following is None:
                deadly = self._deadly.get(state, ())
                if word in deadly or len(deadly) >= _DEADLY or self._kills[word] >= _DEADLY:
                    raise LLVMError(f"pass '{word}' killed a process here")
                _announce(words[: index + 1])
                following = self._step(state, word)
            if following.instructions > _GROWN * self.root.instructions + _GROWN_BY:
                raise LLVMError(f"it grows from {self.root.instructions:,} to {following.instructions:,} instructions")
            if following is not state:
                state, useful = following, (*useful, word)
                yield state, useful

    @property
    def value_is_slow(self) -> bool:
        """Whether finding out a value takes native code generation."""
        return self._objective is Objective.BYTES

    def value(self, state: State) -> int | None:
        """What the objective says of a state; None where native code cannot be made of it."""
        if self._objective is Objective.INSTRUCTIONS:
            return state.instructions
        if state.bytes is None:
            module = self._module_of(state)
            try:
                with self._limit():
                    state.bytes = module.native_size
            except LLVMError:
                state.bytes = -1
        return state.bytes if state.bytes >= 0 else None

    def confirm(self, words: Sequence[str], seen: set[str] | None = None, draws: int = _DRAWS) -> int | None:
        """The value of a list compiled in one piece, as everybody else will; None where it fails.

        Of a list whose result depends on addresses it is the worst of several, each with others: a search keeps what is
        best, and would keep the luckiest.

        Args:
            words: the list.
            seen: digests of the normalised code that other lists leave. A list that leaves the same code as one of them
                fails; that of another one is added.
            draws: how often a list is compiled whose result depends on addresses.
        """
        values: list[int] = []
        effect = ""
        with ExitStack() as taken:
            for _ in range(draws if BY_ADDRESS & set(words) else 1):
                _announce(words)
                module = taken.enter_context(self._module.clone())
                try:
                    with self._limit():
                        module.run(PassList.of(*words))
                        module.verify()
                    if seen is not None and not effect:
                        effect = ir.digest(ir.normalise(module.to_text()))
                        if effect in seen:
                            return None
                    with self._limit():
                        counts = self._objective is Objective.INSTRUCTIONS
                        values.append(module.instruction_count if counts else module.native_size)
                except LLVMError:
                    return None
        if seen is not None:
            seen.add(effect)
        return max(values)

    def useful(self, words: Sequence[str]) -> Words:
        """A list less the passes that change nothing where they stand."""
        return self._end(words)[1]

    # Inside

    def _end(self, words: Sequence[str]) -> tuple[State, Words]:
        """Where a walk ends, and the passes that mattered."""
        return [(self.root, ()), *self.along(words)][-1]

    def _step(self, state: State, word: str) -> State:
        module = self._module_of(state).clone()
        self.steps += 1
        try:
            with self._limit():
                module.run(pipeline_of(word))
        except LLVMError:
            module.close()
            raise
        fingerprint = module.fingerprint()
        self.runs[word] += 1
        self.effects[word] += fingerprint != state.fingerprint
        reached = self._states.get(fingerprint)
        if reached is None:
            reached = State(fingerprint, module.instruction_count, (state, word))
            self._states[fingerprint] = reached
            self._hold(reached, module)
        else:
            module.close()
        state.following[word] = reached
        return reached

    def _module_of(self, state: State) -> Module:
        if state is self.root:
            return self._module
        module = self._modules.get(state)
        if module is not None:
            self._modules.move_to_end(state)
            return module
        assert state.source is not None
        source, word = state.source
        module = self._module_of(source).clone()
        with self._limit():
            module.run(pipeline_of(word))
        self.steps += 1
        self._hold(state, module)
        return module

    def _hold(self, state: State, module: Module) -> None:
        self._modules[state] = module
        self._held += state.instructions + 20
        while self._held > _HELD_INSTRUCTIONS and len(self._modules) > 4:
            oldest, dropped = self._modules.popitem(last=False)
            self._held -= oldest.instructions + 20
            dropped.close()

    @contextmanager
    def _limit(self) -> Generator[None]:
        """What runs longer ends the process: LLVM cannot be interrupted."""
        if not self._seconds:
            yield
            return
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
