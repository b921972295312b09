"""The engine in the box: a model directory, run by onnxruntime on the processor.

It reads a prompt once and answers it as often as it is asked, each answer under the grammar; an answer
with its feedback is read after the prompt's own cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from secondpass.engines.base import Completion
from secondpass.engines.grammar import FIRST_ANSWER, LONGEST_LIST, SECOND_ANSWER, Grammar, State
from secondpass.engines.onnx_network import Cache, Network
from secondpass.engines.processor import physical_cores
from secondpass.engines.sampling import Logits, Scores, Written, decode, log_probabilities
from secondpass.engines.search import Branch, Tree
from secondpass.errors import EngineError, PromptTooLong
from secondpass.model.manifest import NETWORK, SHIPPED, TOKENIZER, Manifest
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import Feedback, OptimizePrompt

_ANSWERS_SHARE, _END_SHARE = 6, 4
"""Of the context, the part that an abridged prompt leaves to answers; and of what it takes, the function's end."""


class OnnxEngine:
    """A model directory, loaded."""

    def __init__(self, network: Network, tokenizer: Tokenizer, grammar: Grammar) -> None:
        """Put the parts together; `load` makes them."""
        self.network = network
        self.tokenizer = tokenizer
        self.grammar = grammar

    @classmethod
    def load(
        cls,
        directory: Path = SHIPPED,
        *,
        words: Iterable[str] | None = None,
        longest_list: int = LONGEST_LIST,
        threads: int | None = None,
    ) -> Self:
        """Load a model.

        Args:
            directory: what `model.export` wrote; the model in the box where none is named.
            words: the elements a list may hold, such as those a loaded LLVM has; None for all the
                model knows.
            longest_list: elements of a list at most.
            threads: of one step; None for as many as this process has physical cores.

        Raises:
            ModelError: the directory lacks a file, is damaged, or is of another version.
            EngineError: the model does not know one of the words, or there is none.
        """
        manifest = Manifest.read(directory)
        tokenizer = Tokenizer.load(directory / TOKENIZER)
        texts = {tokenizer.decode([token]): token for token in range(tokenizer.size)}
        grammar = Grammar(texts, manifest.words if words is None else words, longest_list, tokenizer.code_ids())
        network = Network(directory / NETWORK, manifest, physical_cores() if threads is None else threads)
        return cls(network, tokenizer, grammar)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.network.manifest.name

    @property
    def context_length(self) -> int:
        """Tokens of prompt, answers and feedback together, at most."""
        return self.network.manifest.context_length

    @property
    def takes_feedback(self) -> bool:
        """Whether the model was trained to answer again after a feedback."""
        return self.network.manifest.takes_feedback

    @property
    def temperature(self) -> float:
        """At which the model's samples are best."""
        return self.network.manifest.temperature

    @property
    def writes_code(self) -> bool:
        """Whether the model was trained to write code after the counts."""
        return self.network.manifest.writes_code

    def start(self, prompt: OptimizePrompt, *, abridged: bool = False) -> OnnxSequence:
        """Read a prompt, once for all the answers to it; see `base.Engine`.

        Raises:
            PromptTooLong: it leaves no room for an answer, and was not to be abridged.
        """
        tokens = self.tokenizer.encode_prompt(prompt)
        most = self.context_length - self.context_length // _ANSWERS_SHARE
        if abridged and len(tokens) > most:
            end = most // _END_SHARE
            tokens = [*tokens[: most - end], *tokens[-end:]]
        return self.read(self.network.empty(1), tokens, FIRST_ANSWER)

    def read(self, before: Cache, tokens: Sequence[int], state: State, digest: int = 0) -> OnnxSequence:
        """Read tokens after others, which have that digest, up to the place where an answer in that state begins."""
        own, written, scores = self.begin(before, tokens, state)
        empty, opening, digest = self.network.empty(1), self.grammar.forced(state), _digest(digest, tokens)
        return OnnxSequence(self, before.joined(own), empty, written, scores, own.length, opening, digest)

    def begin(self, before: Cache, tokens: Sequence[int], state: State) -> tuple[Cache, Written, Scores]:
        """The same: the KV cache of what was read, the answer's opening, which is read along, and what may follow.

        Raises:
            PromptTooLong: an answer has no room after these tokens.
        """
        length = before.length + len(tokens)
        if length + state.shortest > self.context_length:
            raise PromptTooLong(length, self.context_length)
        # Whatever the answer will be, it begins with these: read them along.
        opening = self.grammar.forced(state)
        batch = np.array([[*tokens, *opening]], dtype=np.int64)
        logits, cache = self.network.step(batch, before, self.network.empty(1), last=len(opening) + 1)
        scores = log_probabilities(logits[0])
        written = Written(state)
        for token, row in zip(opening, scores, strict=False):
            written = written.append(self.grammar, token, float(row[token]))
        return cache, written, scores[-1]


@dataclass(frozen=True, slots=True, eq=False)
class OnnxSequence:
    """A prompt that was read, and as much of its answer as is written.

    Attributes:
        engine: whose it is.
        prefix: the KV cache up to the answer, or to its opening.
        own: the KV cache of what was appended after that.
        written: the answer so far.
        scores: log probabilities of the next token, (vocabulary,).
        prefilled_tokens: tokens the model had to read to make this sequence from the one before.
        opening: the tokens of the answer that are in `prefix`.
        digest: of all that was read. Samples are drawn by it too: were they drawn by the seed alone, the first ones of
            all functions would be unlucky together, and no mean over functions would say so.
    """

    engine: OnnxEngine
    prefix: Cache
    own: Cache
    written: Written
    scores: Scores
    prefilled_tokens: int
    opening: tuple[int, ...]
    digest: int

    @property
    def ended(self) -> bool:
        """Whether the answer is complete."""
        return self.written.state.ended

    @property
    def room(self) -> int:
        """Tokens the rest of the answer may have."""
        return self.engine.context_length - self.prefix.length - self.own.length

    def allowed(self) -> NDArray[np.int64]:
        """The token ids that may come next, ascending; none where the answer is complete."""
        return self.engine.grammar.allowed(self.written.state, self.room)

    def next_log_probabilities(self, *, allowed_only: bool = False) -> Scores:
        """The logarithm of each token's probability to come next; see `base.SteppedSequence`."""
        if not allowed_only:
            return self.scores
        masked, allowed = np.full_like(self.scores, -np.inf), self.allowed()
        masked[allowed] = self.scores[allowed]
        return masked

    def append(self, tokens: Iterable[int]) -> OnnxSequence:
        """The sequence with more of its answer written.

        Raises:
            EngineError: the grammar forbids one of the tokens.
        """
        read, grammar = tuple(tokens), self.engine.grammar
        if not read:
            return self
        self._check(read)
        batch = np.array([read], dtype=np.int64)
        logits, own = self.engine.network.step(batch, self.prefix, self.own, last=len(read))
        written, scores = self.written, self.scores
        for token, row in zip(read, log_probabilities(logits[0]), strict=True):
            written = written.append(grammar, token, float(scores[token]))
            scores = row
        digest = _digest(self.digest, read)
        return replace(self, own=own, written=written, scores=scores, prefilled_tokens=len(read), digest=digest)

    def answer(
        self,
        n: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        *,
        code: bool = False,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> list[Completion]:
        """Write answers, or the rest of the one begun; see `base.Sequence`.

        Raises:
            EngineError: n is not positive, the temperature or the seed is negative, `top_k` or `top_p` is out of
                its range, or the model writes no code.
            PromptTooLong: there is room for an answer, but not for one with code.
        """
        if n < 1 or temperature < 0:
            raise EngineError(f"{n} answers at temperature {temperature}: both must be positive (or the latter 0)")
        if seed < 0:
            raise EngineError(f"seed {seed}: it must not be negative")
        if (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
            raise EngineError(f"top_k {top_k}, top_p {top_p}: the first must be positive, the second above 0, up to 1")
        begun = self._with_code() if code else self.written
        if begun.state.ended:
            return [self._completion(begun)] * n
        branches = _Branches(self.engine.network, self.prefix, self.own)
        grammar = self.engine.grammar
        answers = decode(
            branches,
            grammar,
            begun,
            self.scores,
            self.room,
            n=n,
            temperature=temperature,
            seed=(seed, self.digest),
            top_k=top_k,
            top_p=top_p,
        )
        return [self._completion(written) for written in answers]

    def extend(self, completion: Completion, feedback: Feedback) -> OnnxSequence:
        """The sequence that goes on with an answer and the feedback on it, ready for the next answer.

        Raises:
            EngineError: the answer belongs to another sequence.
            PromptTooLong: what comes out leaves no room for an answer.
        """
        return self.engine.read(self.prefix, self._going_on(completion, feedback), SECOND_ANSWER, self.digest)

    def second_answers(self, said: Sequence[tuple[Completion, Feedback]]) -> list[Completion | None]:
        """The greedy answers after several feedbacks, side by side; see `base.Sequence`.

        Raises:
            EngineError: an answer belongs to another sequence.
        """
        found: list[Completion | None] = [None] * len(said)
        begun: dict[int, Branch] = {}
        for place, (completion, feedback) in enumerate(said):
            with suppress(PromptTooLong):
                own, written, scores = self.engine.begin(
                    self.prefix, self._going_on(completion, feedback), SECOND_ANSWER
                )
                begun[place] = Branch(written, own, scores)
        longest = max((it.own.length for it in begun.values()), default=0)
        room = self.room - longest
        if room < self.engine.grammar.ample:  # answers depend on the room that each has
            for place in begun:
                (found[place],) = self.extend(*said[place]).answer()
        elif begun:
            branches = list(begun.values())
            tree = Tree(self.engine.network, self.engine.grammar, self.prefix, branches[0], room)
            for place, path in zip(begun, tree.finish(branches)):
                found[place] = self._completion(path.written)
        return found

    def _going_on(self, completion: Completion, feedback: Feedback) -> tuple[int, ...]:
        """The tokens of an answer that are not read yet, and of the feedback on it."""
        opening = len(self.opening)
        if completion.tokens[:opening] != self.opening:
            raise EngineError("the answer to go on with belongs to another sequence")
        return (*completion.tokens[opening:], *self.engine.tokenizer.encode_feedback(feedback))

    def _with_code(self) -> Written:
        """What is written, in an answer that goes on to code after its counts."""
        engine = self.engine
        if not engine.writes_code:
            raise EngineError(
                f"the model {engine.name!r} was not trained to write code; "
                "ask for answers without code, or load a model that writes it"
            )
        begun = replace(self.written, state=self.written.state.with_code())
        if begun.state.shortest > self.room:
            raise PromptTooLong(engine.context_length - self.room, engine.context_length)
        return begun

    def tree(self) -> Tree:
        """The answers in the order of their probability; see `base.BranchingSequence`.

        Raises:
            EngineError: some of the answer is written already.
        """
        if self.own.length:
            raise EngineError("a tree of answers begins where none is begun; take the sequence before `append`")
        root = Branch(self.written, self.own, self.scores)
        return Tree(self.engine.network, self.engine.grammar, self.prefix, root, self.room)

    def completion(self, written: Written) -> Completion:
        """A complete answer of `tree`'s."""
        return self._completion(written)

    def _check(self, tokens: Iterable[int]) -> None:
        """Raise EngineError unless the answer may go on with these tokens."""
        grammar, state, room = self.engine.grammar, self.written.state, self.room
        for token in tokens:
            if token not in grammar.allowed(state, room):
                word = self.engine.tokenizer.decode([token])
                raise EngineError(f"an answer cannot go on with {word!r} ({state.place.name}, room for {room} tokens)")
            state, room = grammar.advance(state, token), room - 1

    def _completion(self, written: Written) -> Completion:
        return Completion(self.engine.tokenizer.decode(written.tokens), written.tokens, written.log_probability)


class _Branches:
    """`sampling.Branches` over one prefix."""

    def __init__(self, network: Network, prefix: Cache, own: Cache) -> None:
        self._network, self._prefix, self._own = network, prefix, own

    def select(self, rows: Sequence[int]) -> None:
        self._own = self._own.select(rows)

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        logits, self._own = self._network.step(tokens, self._prefix, self._own)
        return logits


def _digest(before: int, tokens: Sequence[int]) -> int:
    """Of tokens behind those with another digest."""
    data = before.to_bytes(8, "little") + np.array(tokens, dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
