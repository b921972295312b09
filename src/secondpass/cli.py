"""The `secondpass` command: arguments in, printed results out. It holds no logic of its own."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secondpass import __version__
from secondpass.errors import InputError, SecondpassError
from secondpass.prompt import Objective

EMITTED = ("ll", "bc", "obj", "asm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 2 for a user's mistake, 1 for a fault of ours, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    words, flags = _split(words)
    options = _parser().parse_args(words)
    options.flags = flags
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except SecondpassError as error:
        print(f"secondpass: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("secondpass: interrupted; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """What stands behind `--` is clang's."""
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="secondpass",
        description="Compiled code smaller than -Oz: a language model proposes pass lists, the compiler checks them.",
        epilog="Flags for clang stand behind `--`: secondpass optimize a.c -- -Iinclude -DNDEBUG",
    )
    parser.add_argument("--version", action="version", version=f"secondpass {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_optimize(commands.add_parser("optimize", help="make files smaller than -Oz does"))
    explain = commands.add_parser("explain", help="what each pass of a list does to a file")
    explain.add_argument("input", type=Path)
    explain.add_argument("--passes", required=True, metavar="LIST", help="a pipeline such as sroa,instcombine,licm")
    explain.set_defaults(run=_explain)
    passes = commands.add_parser("passes", help="the passes a list may use, and what is left out and why")
    passes.set_defaults(run=_passes)
    for command in (explain, passes):
        command.add_argument("--json", action="store_true", help="print one JSON document")
    commands.add_parser("doctor", help="check the installation").set_defaults(run=_doctor)
    return parser


def _add_optimize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="C, C++, LLVM IR text or bitcode")
    parser.add_argument("-o", dest="output", type=Path, metavar="OUT", help="output file; a folder for several inputs")
    parser.add_argument("--emit", choices=EMITTED, help="what to write (default: by OUT's suffix, else obj)")
    parser.add_argument(
        "--objective",
        choices=[str(it) for it in Objective],
        default=str(Objective.INSTRUCTIONS),
        help="what to make small",
    )
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="answers a function (default 1)")
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="0 is greedy (default: 0 for one sample, 2 for more)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the same seed gives the same answers")
    parser.add_argument(
        "--feedback",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="tell the model what the compiler found and let it try again",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_optimize)


def _optimize(options: argparse.Namespace) -> int:
    from secondpass import output, report
    from secondpass.engines.onnx import OnnxEngine
    from secondpass.llvm.library import load
    from secondpass.llvm.sandbox import Sandbox
    from secondpass.optimize import optimize
    from secondpass.strategies.answers import Sampling

    temperature = options.temperature if options.temperature is not None else 2.0 * (options.samples > 1)
    strategy = Sampling(options.samples, temperature, options.seed, options.feedback)
    targets = output.plan(options.inputs, options.output, options.emit)
    with Sandbox() as sandbox:
        engine = OnnxEngine.load(words=[entry.text for entry in load().vocabulary()])
        with _progress() as progress:
            results = [
                optimize(
                    path,
                    engine,
                    strategy,
                    sandbox,
                    objective=Objective(options.objective),
                    flags=options.flags,
                    progress=progress,
                )
                for path in options.inputs
            ]
    for result in results:
        if result.warnings:
            print(result.warnings, file=sys.stderr)
    for target, result in zip(targets, results):
        output.write(target, result, options.flags)
    if options.json:
        _print_json(report.result_document(results, engine.name, load().version))
    else:
        report.print_results(results, _console())
    return 0


def _explain(options: argparse.Namespace) -> int:
    from secondpass import report
    from secondpass.explain import explain
    from secondpass.llvm.library import load
    from secondpass.llvm.passes import PassList
    from secondpass.llvm.sandbox import Sandbox

    passes = PassList.parse(options.passes)
    if not len(passes):
        raise InputError("--passes: the list is empty; name passes such as sroa,simplifycfg")
    with Sandbox() as sandbox:
        explanation = explain(options.input, passes, sandbox, flags=options.flags)
    if options.json:
        _print_json(report.explanation_document(explanation, load().version))
    else:
        report.print_explanation(explanation, _console())
    return 0


def _passes(options: argparse.Namespace) -> int:
    from secondpass import report
    from secondpass.llvm.library import load

    if options.json:
        _print_json(report.vocabulary_document(load()))
    else:
        report.print_vocabulary(load(), _console())
    return 0


def _doctor(_options: argparse.Namespace) -> int:
    from secondpass.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok ' if finding.good else 'BAD'}  {finding.part:8} {finding.text}")
    return 0 if all(finding.good for finding in findings) else 2


def _print_json(document: dict[str, Any]) -> None:
    json.dump(document, sys.stdout, indent=1)
    print()


def _console() -> Any:
    from rich.console import Console

    # Into a pipe a table takes the width it needs: nothing is folded that a program might read.
    return Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=240)


@contextmanager
def _progress() -> Generator[Callable[[str, int, int], None] | None, None, None]:
    """A progress bar on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
