"""What is a second answer worth after Short, Long and Fast Feedback, all on the same first answers?

    python benchmarks/feedback_forms.py build/corpus data/labels-instructions.parquet \
        --models src/secondpass/model/shipped build/fast build/long --limit 1000

The first model writes a greedy answer, with code where it can; the compiler checks it; every other model reads the same
answer (without code where it writes none itself) with the feedback of the form that it was trained on, and answers
again. Functions are the first of the split by hash whose prompt has no more than `--longest` tokens. Prints what the
answers gain over -Oz, with -Oz as back-up, what the models say and write, and what a second answer costs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from feedback import interval
from numpy.typing import NDArray

from secondpass.corpus import SPLITS
from secondpass.corpus.store import Corpus
from secondpass.engines import load_engine
from secondpass.engines.base import Completion
from secondpass.errors import PromptTooLong, run_script
from secondpass.evaluate.cases import Case, read_cases
from secondpass.feedback import Verdict, check_all
from secondpass.llvm.sandbox import Sandbox
from secondpass.model.data import LIST_SECONDS, is_sure
from secondpass.model.manifest import SHIPPED, Manifest
from secondpass.progress import progress_bar
from secondpass.prompt import Answer, Form, Objective, OptimizePrompt
from secondpass.tuner.labels import read_labels
from secondpass.workers import answer_all


@dataclass(frozen=True, slots=True)
class Said:
    """An answer and what came of it.

    Attributes:
        verdict: the compiler's, checked for Long Feedback.
        tokens: read and written for it.
        seconds: to read and write them.
    """

    verdict: Verdict
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Told:
    """One function's answers: the first one, and the second one of each model that had room for it."""

    key: str
    first: Said
    seconds: Mapping[str, Said]


@dataclass(frozen=True, slots=True)
class Models:
    """What a process loads; called there.

    Attributes:
        first: the directory of the model that answers first.
        others: those that answer again, by name.
    """

    first: Path
    others: Mapping[str, Path]

    def __call__(self) -> Callable[[Case], Told]:
        """Load the models; what has a function answered."""
        first = load_engine(self.first, threads=1)
        others = {
            name: (Manifest.read(path).feedback_form, load_engine(path, threads=1))
            for name, path in self.others.items()
        }
        return partial(told, first, others, Sandbox(1, LIST_SECONDS, reproducible=True))


def told(first: Any, others: Mapping[str, tuple[Form, Any]], sandbox: Sandbox, case: Case) -> Told:
    """Have a function answered by the engines."""
    prompt = OptimizePrompt(case.text)
    began = time.perf_counter()
    sequence = first.start(prompt)
    (completion,) = sequence.answer(code=first.writes_code)
    seconds = time.perf_counter() - began
    said = judged(completion, case, sandbox, sequence.prefilled_tokens, seconds)
    found: dict[str, Said] = {}
    for name, (form, engine) in others.items():
        code = form is not Form.FAST and engine.writes_code
        answer, verdict = completion, said.verdict
        if not code and isinstance(verdict.answer, Answer) and verdict.code is not None:  # it is written last
            verdict = replace(verdict, answer=replace(verdict.answer, code=None), code_fault=None, bleu=None)
            answer = replace(completion, text=verdict.answer.render())
        if isinstance(verdict.answer, Answer):
            answer = replace(answer, tokens=tuple(engine.tokenizer.encode_answer(verdict.answer)))
        with suppress(PromptTooLong):
            before = engine.start(prompt)
            began = time.perf_counter()
            after = before.extend(answer, verdict.feedback(form))
            (again,) = after.answer(code=code)
            seconds = time.perf_counter() - began
            found[name] = judged(again, case, sandbox, after.prefilled_tokens, seconds)
    return Told(case.key, said, found)


def judged(completion: Completion, case: Case, sandbox: Sandbox, read: int, seconds: float) -> Said:
    """An answer with its verdict."""
    (verdict,) = check_all([Answer.parse(completion.text)], case.bitcode, sandbox, Form.LONG)
    return Said(verdict, read + len(completion.tokens), seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--first", type=Path, default=SHIPPED, help="exported (default: the one in the box)")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="exported, that take feedback")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--limit", type=int, help="so many functions")
    parser.add_argument("--longest", type=int, default=400, help="tokens of a function's prompt")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    corpus = Corpus(options.corpus)
    labels = read_labels(options.labels, Objective.INSTRUCTIONS, corpus)
    tokenizer = load_engine(options.first).tokenizer
    cases = [
        case
        for case in read_cases(corpus, labels, options.split)
        if len(tokenizer.encode_prompt(OptimizePrompt(case.text))) <= options.longest
    ][: options.limit]
    models = Models(options.first, {path.name: path for path in options.models})
    if len(models.others) < len(options.models):
        parser.error("two models have the same name")
    with progress_bar() as progress:
        found: dict[str, Told] = {}
        for told in answer_all("a model", models, cases, options.workers, lambda case: case.key):
            found[told.key] = told
            if progress is not None:
                progress("answers", len(found), len(cases))
    print(f"{len(cases)} functions of the split '{options.split}', of {options.longest} tokens at most")
    show(cases, [found[case.key] for case in cases], list(models.others))
    return 0


def show(cases: Sequence[Case], found: Sequence[Told], names: Sequence[str]) -> None:
    """Print the tables."""
    oz, label = (np.array([getattr(case, name) for case in cases]) for name in ("oz", "best"))
    firsts = [it.first for it in found]
    plain = left(firsts, oz)
    groups = np.arange(len(cases)), np.unique([case.project for case in cases], return_inverse=True)[1]
    print("\n| answer | alone | both | more, 95 % | by projects | better | worse alone | it is sure | rightly |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    print(f"| the first | {share(plain, oz, label)} | | | | | | | |")
    reached: dict[str, NDArray[np.int64]] = {}
    for name in names:
        again = [it.seconds.get(name) for it in found]
        alone = left(again, oz)
        reached[name] = both = np.minimum(plain, alone)
        more = " | ".join(between(plain - both, oz - label, it) for it in groups)
        sure = [(it, case) for it, case in zip(found, cases, strict=True) if says_so(it.seconds.get(name))]
        rightly = [it for it, case in sure if is_sure(it.first.verdict, case.best)]
        worse = sum(1 for it, now, before in zip(again, alone, plain, strict=True) if it and now > before)
        print(
            f"| second, {name} | {share(alone, oz, label)} | {share(both, oz, label)} | {more} "
            f"| {(both < plain).sum()} | {worse} | {len(sure)} | {len(rightly)} |"
        )
    for one, other in combinations(names, 2):
        more = ", by projects ".join(between(reached[one] - reached[other], oz - label, it) for it in groups)
        print(f"\nBoth answers, {other} more than {one}: {more}")
    print("\n| answer | answers | right before | right after | code parses | BLEU | tokens | s |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    print_answers("the first", firsts)
    for name in names:
        print_answers(f"second, {name}", [said for it in found if (said := it.seconds.get(name))])


def left(said: Sequence[Said | None], oz: NDArray[np.int64]) -> NDArray[np.int64]:
    """What each answer leaves of its function, -Oz at most."""
    reached = (it.verdict.target if it else None for it in said)
    return np.array([other if it is None else min(it, other) for it, other in zip(reached, oz.tolist(), strict=True)])


def share(reached: NDArray[np.int64], oz: NDArray[np.int64], label: NDArray[np.int64]) -> str:
    """What is gained over -Oz, of what the labels gain."""
    return f"{(oz - reached).sum() / (oz - label).sum():.1%}"


def between(more: NDArray[np.int64], possible: NDArray[np.int64], groups: NDArray[np.int64]) -> str:
    """`interval`, as a table has it."""
    return "{:+.1%} to {:+.1%}".format(*interval(more, possible, groups))


def says_so(said: Said | None) -> bool:
    """Whether an answer says that the one before was right."""
    return said is not None and isinstance(said.verdict.answer, Answer) and bool(said.verdict.answer.sure)


def print_answers(name: str, said: Sequence[Said]) -> None:
    """Print a row of what answers say and cost."""
    verdicts = [it.verdict for it in said]
    written = [it for it in verdicts if it.code is not None]
    code = " | "
    if written:
        parses = np.mean([it.code_fault is None for it in written])
        bleu = np.mean([it.bleu for it in written if it.bleu is not None])
        code = f"{parses:.1%} | {bleu:.2f}"
    before, after = (np.mean([getattr(it, which) for it in verdicts]) for which in ("source_right", "target_right"))
    tokens, seconds = (np.mean([getattr(it, which) for it in said]) for which in ("tokens", "seconds"))
    print(f"| {name} | {len(said)} | {before:.1%} | {after:.1%} | {code} | {tokens:.0f} | {seconds:.2f} |")


if __name__ == "__main__":
    sys.exit(run_script(main))
