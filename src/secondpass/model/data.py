"""Training examples: labelled functions as prompts and the answers a model should give, at once and after feedback.

    targets = choose(label, popularity, 4)
    example = optimize_example(function, tokenizer)
    again = feedback_example(function, first_answer, verdict, Form.FAST, tokenizer)

A function has several good lists, and which of them a search found first and how short it could make it is luck. Luck
cannot be learnt, so among lists of equal value the one that is good on most functions comes first, and the next best
lists may be taught beside it, each with a share that falls with what it gains. This module knows prompts and
token ids; it knows nothing of torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from secondpass import ir
from secondpass.corpus.store import Corpus, Entry
from secondpass.feedback import Verdict
from secondpass.llvm.jobs import Job
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList, Words
from secondpass.llvm.sandbox import Sandbox
from secondpass.model.dataset import Example, Ids
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import DOWN_TO, END, Answer, Form, Objective, OptimizePrompt
from secondpass.tuner.labels import Label
from secondpass.tuner.outcomes import Outcomes
from secondpass.tuner.search import OZ, Found

_SHARPNESS = 4
"""A list that gains half of what the best gains has a share of 1/2 to this power of the best's."""
_LEAST_SHARE = 0.05
"""Lists whose share would be less, against the best's, are not taught."""


@dataclass(frozen=True, slots=True)
class Target:
    """A list worth teaching.

    Attributes:
        passes: the list.
        value: the objective's value it reaches.
        share: how much it counts among the function's targets; they sum to 1.
        count: instructions it leaves: what an answer foresees, whatever the objective.
        code: the normalised IR it leaves; None where answers hold no code.
    """

    passes: PassList
    value: int
    share: float
    count: int
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A function with what the search found out about it.

    Attributes:
        function: its hash.
        ir: normalised IR.
        objective: of its targets.
        source: its instruction count.
        gain: how much smaller than -Oz the best list is, in units of the objective.
        targets: the lists worth teaching, the best first; never empty.
        counted: lists that need not be good, and what they leave: a model is taught their counts alone.
    """

    function: str
    ir: str
    objective: Objective
    source: int
    gain: int
    targets: tuple[Target, ...]
    counted: tuple[tuple[PassList, int], ...] = ()

    @property
    def best(self) -> Target:
        """The best list."""
        return self.targets[0]

    @property
    def prompt(self) -> OptimizePrompt:
        """What a model is asked."""
        return OptimizePrompt(self.ir, self.objective)


def popularity(labels: Iterable[Label]) -> Counter[Words]:
    """On how many functions each list is as good as the best one known, and better than -Oz."""
    return Counter(
        found.passes for label in labels if label.gain > 0 for found in label.found if found.value == label.best.value
    )


LIST_SECONDS = 60.0
"""For one list on one function, far more than it takes, so that a busy machine makes the same data as an idle one."""


def choose(label: Label, popular: Mapping[Words, int], most: int) -> list[tuple[Found, float]]:
    """The lists of a label worth teaching with their shares, the best first, popular ones first among equals.

    Args:
        label: of a function.
        popular: see `popularity`.
        most: lists wanted.
    """
    good = [it for it in label.found if it.value < label.oz] or [it for it in label.found if it.value == label.oz]
    good.sort(key=lambda it: (it.value, -popular.get(it.passes, 0), len(it.passes), it.passes))
    weights = [((label.oz - it.value) / label.gain) ** _SHARPNESS if label.gain else 1.0 for it in good[:most]]
    kept = [(it, weight) for it, weight in zip(good, weights) if weight >= _LEAST_SHARE]
    total = sum(weight for _, weight in kept)
    return [(it, weight / total) for it, weight in kept]


def widened(labels: Mapping[str, Label], outcomes: Outcomes) -> dict[str, Label]:
    """Labels with what some lists do on their functions, and labels from these alone where no search has been.

    Where nothing is known to beat -Oz, a label stays what it was.
    """
    found = dict(labels)
    for key, values in outcomes.values.items():
        old = labels.get(key, Label(key, outcomes.oz[key], (Found(OZ, outcomes.oz[key]),), 0))
        if key in labels and not (old.gain or ((values > 0) & (values < old.oz)).any()):
            continue
        known = {words: value for words, value in zip(outcomes.lists, values.tolist()) if value}
        known |= {it.passes: it.value for it in old.found}
        ranked = sorted((Found(*it) for it in known.items()), key=lambda it: (it.value, len(it.passes), it.passes))
        found[key] = replace(old, found=tuple(ranked), compiles=old.compiles + len(outcomes.lists))
    return found


def with_counted(functions: Iterable[Labelled], outcomes: Outcomes, most: int) -> list[Labelled]:
    """The same functions with lists drawn from a table, good or not, whose counts are to be foretold."""

    def counted(function: Labelled) -> tuple[tuple[PassList, int], ...]:
        if function.objective is not Objective.INSTRUCTIONS or function.function not in outcomes.values:
            return ()
        values = outcomes.values[function.function]
        rng = np.random.default_rng(list(bytes.fromhex(function.function)))
        drawn: list[int] = rng.permutation(np.flatnonzero(values))[:most].tolist()
        return tuple((PassList.of(*outcomes.lists[it]), int(values[it])) for it in drawn)

    return [replace(it, counted=counted(it)) for it in functions]


def read_labelled(
    corpus: Corpus,
    entries: Sequence[Entry],
    labels: Mapping[str, Label],
    objective: Objective,
    popular: Mapping[Words, int],
    most: int,
) -> list[Labelled]:
    """Functions with their targets, without code; counts are right for the objective instructions alone.

    Args:
        corpus: where the texts are.
        entries: functions that have a label.
        labels: by hash.
        objective: of the labels.
        popular: see `popularity`.
        most: targets a function.
    """
    texts = {key: corpus.text(key) for key in corpus.in_order_of_shards(it.hash for it in entries)}

    def labelled(entry: Entry) -> Labelled:
        label = labels[entry.hash]
        targets = tuple(
            Target(PassList.of(*found.passes), found.value, share, found.value)
            for found, share in choose(label, popular, most)
        )
        return Labelled(entry.hash, texts[entry.hash], objective, entry.source, label.gain, targets)

    return [labelled(entry) for entry in entries]


def compile_targets(corpus: Corpus, functions: Sequence[Labelled], sandbox: Sandbox, *, code: bool) -> list[Labelled]:
    """The same functions with the true instruction counts of their targets, and the code where wanted.

    A target that does not compile is left out, and so is a function without any.
    """
    order = {key: number for number, key in enumerate(corpus.in_order_of_shards({it.function for it in functions}))}
    waiting = {str(number): it for number, it in enumerate(sorted(functions, key=lambda it: order[it.function]))}
    done: dict[tuple[str, Objective], Labelled] = {}

    def jobs() -> Iterable[Job]:
        for name, it in waiting.items():
            yield Job(corpus.bitcode(it.function), tuple(str(target.passes) for target in it.targets), name, keep=code)

    for job, outcomes in sandbox.run(jobs()):
        function = waiting[job.name]
        kept = [(it, outcome) for it, outcome in zip(function.targets, outcomes) if outcome.ok]
        total = sum(it.share for it, _ in kept)
        targets = tuple(
            replace(it, share=it.share / total, count=outcome.instructions, code=_text(outcome.bitcode))
            for it, outcome in kept
        )
        if targets:
            done[function.function, function.objective] = replace(function, targets=targets)
    keys = ((it.function, it.objective) for it in functions)
    return [done[key] for key in keys if key in done]


def _text(bitcode: bytes | None) -> str | None:
    if bitcode is None:
        return None
    with Module.parse(bitcode, "function") as module:
        return ir.normalise(module.to_text())


def optimize_example(function: Labelled, tokenizer: Tokenizer) -> Example:
    """Task Optimize: the prompt, every target as an answer, and the lists whose counts alone are learnt."""
    prompt = tokenizer.encode_prompt(function.prompt)
    answers = [Answer(it.passes, function.source, it.count, code=it.code) for it in function.targets]
    example = _example(function, tokenizer, prompt, (), answers, [it.share for it in function.targets])
    end, down_to = tokenizer.id_of(END), tokenizer.id_of(DOWN_TO)
    counted = [tokenizer.encode_answer(Answer(passes, function.source, it)) for passes, it in function.counted]
    return replace(
        example,
        counted=tuple(_ids((*it, end)) for it in counted),
        given=tuple(it.index(down_to) + 1 for it in counted),
    )


def feedback_example(
    function: Labelled, first: Sequence[int], verdict: Verdict, form: Form, tokenizer: Tokenizer
) -> Example:
    """Task Feedback: the prompt, a model's answer and the feedback on it, and what to say then.

    That is the same list again and "I am sure!", where it does what the answer foresaw and is as good as the best one;
    otherwise "Let me try again." and every target that leaves less than the answer did, or every one where none does.

    Args:
        function: with its targets; with code where the answer has some.
        first: ids of the answer, without the end marker.
        verdict: the compiler's, checked for the form.
        form: of the feedback.
        tokenizer: the model's.
    """
    prompt = tokenizer.encode_prompt(function.prompt)
    said = (*first, *tokenizer.encode_feedback(verdict.feedback(form)))
    answer = verdict.answer
    if is_sure(verdict, function.best.count) and isinstance(answer, Answer):
        code = None if answer.code is None else verdict.compiled
        again = replace(answer, source=function.source, sure=True, code=code)
        return _example(function, tokenizer, prompt, said, [again], [1.0])
    reached = verdict.target
    better = [it for it in function.targets if reached is not None and it.count < reached] or function.targets
    total = sum(it.share for it in better)
    answers = [Answer(it.passes, function.source, it.count, False, it.code) for it in better]
    return _example(function, tokenizer, prompt, said, answers, [it.share / total for it in better])


def is_sure(verdict: Verdict, best: int) -> bool:
    """Whether a model may be sure of an answer: it foresaw the count, and no list is known to reach a smaller one."""
    return verdict.target_right and verdict.target is not None and verdict.target <= best


def _example(
    function: Labelled,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    said: Sequence[int],
    answers: Iterable[Answer],
    shares: Iterable[float],
) -> Example:
    end = tokenizer.id_of(END)
    return Example(
        function.function,
        _ids((*prompt, *said)),
        len(prompt),
        tuple(_ids((*tokenizer.encode_answer(it), end)) for it in answers),
        tuple(shares),
        function.gain,
    )


def _ids(tokens: Sequence[int]) -> Ids:
    return np.array(tokens, dtype=np.int32)
