"""The `secondpass` command: arguments in, printed results out. It holds no logic of its own."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from secondpass import __version__
from secondpass.corpus import SPLITS
from secondpass.errors import InputError, SecondpassError
from secondpass.progress import progress_bar
from secondpass.prompt import Form, Objective
from secondpass.strategies import NAMES

EMITTED = ("ll", "bc", "obj", "asm")
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What a disk or its owner refuses, wherever it comes up: no fault of ours."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 2 for a user's mistake, 1 for a fault of ours, 130 after Ctrl-C.
    """
    _open_standard_files()
    words = list(sys.argv[1:] if arguments is None else arguments)
    words, flags = _split(words)
    options = _parser().parse_args(words)
    options.flags = flags
    if flags and options.run not in (_optimize, _explain, _corpus_files):
        print(
            f"secondpass: what stands behind -- is for clang, which {words[0]} does not call: leave {flags[0]} out",
            file=sys.stderr,
        )
        return 2
    if not hasattr(options, "interrupted"):
        options.interrupted = "nothing was written"
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except SecondpassError as error:
        print(f"secondpass: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"secondpass: interrupted; {options.interrupted}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        print(f"secondpass: {error.filename or 'a file'} cannot be written: {error.strerror}", file=sys.stderr)
        return 2


def _open_standard_files() -> None:
    """Send what nobody takes nowhere: the number of a closed one would go to the next file that is opened."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(opened, True)
            setattr(sys, name, os.fdopen(opened, mode))


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
        epilog="Flags for clang stand behind `--`: secondpass optimize a.c -- -Iinclude -DNDEBUG. "
        "As a compiler: CC='secondpass cc' CXX='secondpass c++', which take what clang takes.",
    )
    parser.add_argument("--version", action="version", version=f"secondpass {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_optimize(commands.add_parser("optimize", help="make files smaller than -Oz does"))
    _add_corpus(commands.add_parser("corpus", help="collect functions of real programs to learn from"))
    _add_tune(commands.add_parser("tune", help="search the best pass list of every function of a corpus"))
    _add_data(commands.add_parser("data", help="make training data of labelled functions"))
    _add_train(commands.add_parser("train", help="train a model, on two cores or on many GPUs"))
    _add_evaluate(commands.add_parser("evaluate", help="measure models on functions that were held out"))
    built = commands.add_parser("report", help="what `secondpass cc` did in a build (its log: SECONDPASS_LOG)")
    built.add_argument("log", type=Path)
    built.add_argument("--html", type=Path, metavar="PAGE", help="write it as one HTML page too")
    built.set_defaults(run=_report)
    explain = commands.add_parser("explain", help="what each pass of a list does to a file")
    explain.add_argument("input", type=Path)
    explain.add_argument("--passes", required=True, metavar="LIST", help="a pipeline such as sroa,instcombine,licm")
    explain.set_defaults(run=_explain)
    passes = commands.add_parser("passes", help="the passes a list may use, and what is left out and why")
    passes.set_defaults(run=_passes)
    for command in (built, explain, passes):
        command.add_argument("--json", action="store_true", help="print one JSON document")
    commands.add_parser("doctor", help="check the installation").set_defaults(run=_doctor)
    return parser


def _add_optimize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="C, C++, LLVM IR text or bitcode")
    parser.add_argument("-o", dest="output", type=Path, metavar="OUT", help="output file; a folder for several inputs")
    parser.add_argument(
        "--emit",
        choices=EMITTED,
        help="what to write (default: by OUT's suffix, else obj); without -o it goes to the current folder",
    )
    parser.add_argument(
        "--objective",
        choices=[str(it) for it in Objective],
        default=str(Objective.INSTRUCTIONS),
        help="what to make small",
    )
    parser.add_argument(
        "--effort",
        type=int,
        metavar="N",
        help="instead of what follows: 0 the coreset, 1 an answer a function, 2 ten, 3 a search",
    )
    parser.add_argument(
        "--coreset", type=int, metavar="N", help="also try the N lists that serve most functions (50 at most)"
    )
    parser.add_argument(
        "--strategy",
        choices=NAMES,
        metavar="NAME",
        help=f"which answers to ask for: {', '.join(NAMES)} (default: feedback for one answer, sample for more)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="answers a function; steps for iterate (default 1); compiles for search (default 100)",
    )
    parser.add_argument("--temperature", type=float, metavar="T", help="of samples (default: the model's)")
    parser.add_argument("--top-k", type=int, metavar="K", help="samples take one of the K most probable tokens a step")
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="and of these one of the fewest that hold the share P of probability"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the same seed gives the same answers")
    parser.add_argument("--form", choices=[str(it) for it in Form], help="of the feedback (default: fast)")
    parser.add_argument("--budget-seconds", type=float, metavar="T", help="longest time for a function's answers")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_optimize)


def _add_corpus(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(required=True, metavar="SOURCE")
    debian = kinds.add_parser("debian", help="Debian source packages, built the way Debian builds them (needs root)")
    debian.add_argument("packages", nargs="*", metavar="PACKAGE")
    debian.add_argument("--list", type=Path, metavar="FILE", help="a recipe: package [version|-] [split] a line")
    debian.add_argument("--minutes", type=float, default=12, metavar="N", help="longest build (default 12)")
    compdb = kinds.add_parser("compdb", help="a project that has a compile_commands.json")
    compdb.add_argument("database", type=Path, metavar="compile_commands.json")
    files = kinds.add_parser("files", help="C and C++ files and LLVM IR, or folders of them")
    files.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    for kind in (compdb, files):
        kind.add_argument("--project", metavar="NAME", help="what to call it (default: the folder's name)")
        kind.add_argument("--project-version", default="-", metavar="V")
        kind.add_argument("--split", choices=SPLITS, help="where it belongs (default: by a hash of its name)")
    csmith = kinds.add_parser("csmith", help="synthetic programs of Csmith")
    csmith.add_argument("--count", type=int, required=True, metavar="N")
    csmith.add_argument("--seed", type=int, default=1, metavar="S", help="of the first program (default 1)")
    for kind in (debian, compdb, files, csmith):
        kind.add_argument("--out", type=Path, required=True, metavar="DIR", help="the corpus, new or to be added to")
        kind.set_defaults(interrupted="finished projects are kept, the same command goes on")
        kind.add_argument("--again", action="store_true", help="make these projects anew, even where they are done")
    debian.set_defaults(run=_corpus_debian)
    compdb.set_defaults(run=_corpus_compdb)
    files.set_defaults(run=_corpus_files)
    csmith.set_defaults(run=_corpus_csmith)
    stats = kinds.add_parser("stats", help="what a corpus holds")
    stats.add_argument("corpus", type=Path, metavar="DIR")
    stats.add_argument("--picture", type=Path, metavar="FILE", help="draw it too (.png or .svg)")
    stats.add_argument("--json", action="store_true", help="print one JSON document")
    stats.set_defaults(run=_corpus_stats)


def _add_tune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", type=Path, metavar="DIR")
    parser.add_argument(
        "--objective",
        choices=[str(it) for it in Objective],
        default=str(Objective.INSTRUCTIONS),
        help="what to make small",
    )
    parser.add_argument("--budget", type=int, default=150, metavar="N", help="compiles a function (default 150)")
    parser.add_argument("--patience", type=int, default=0, metavar="N", help="stop after N that improve nothing")
    parser.add_argument("--split", action="append", choices=SPLITS, help="only this split (may be repeated)")
    parser.add_argument("--largest", type=int, metavar="N", help="only functions of up to N instructions, unoptimised")
    parser.add_argument("--functions", type=int, metavar="N", help="only the first N by hash")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--workers", type=int, default=0, metavar="W", help="processes (default: one a core)")
    parser.add_argument("--out", type=Path, metavar="LABELS", help="default: DIR/labels-OBJECTIVE.parquet")
    parser.add_argument("--resume", action="store_true", help="go on with labels that are there")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster, host:port or auto (secondpass[ray])")
    parser.set_defaults(run=_tune, interrupted="what was found is kept, --resume goes on")


def _add_data(parser: argparse.ArgumentParser) -> None:
    tasks = parser.add_subparsers(required=True, metavar="TASK")
    outcomes = tasks.add_parser("outcomes", help="what the coreset does on every function, to be taught too")
    outcomes.add_argument("corpus", type=Path, metavar="CORPUS")
    outcomes.add_argument("--out", type=Path, required=True, metavar="FILE", help="goes on where it was left")
    outcomes.add_argument("--objective", choices=[str(it) for it in Objective], default="instructions")
    outcomes.add_argument("--coreset", type=int, default=50, metavar="N", help="lists to try (default 50)")
    outcomes.add_argument("--largest", type=int, default=600, metavar="N", help="instructions (default 600)")
    outcomes.add_argument("--workers", type=int, default=0, metavar="W", help="processes (default: one a core)")
    outcomes.set_defaults(run=_data_outcomes, interrupted="what was found is kept, the same command goes on")
    optimize = tasks.add_parser("optimize", help="prompts, and the lists a model should answer")
    optimize.add_argument("corpus", type=Path, metavar="CORPUS")
    optimize.add_argument("labels", type=Path, nargs="+", metavar="LABELS", help="one file an objective")
    optimize.add_argument("--tokenizer", type=Path, metavar="FILE", help="default: learnt from the training functions")
    optimize.add_argument("--vocabulary", type=int, default=4096, metavar="N", help="tokens of one that is learnt")
    optimize.add_argument("--code", action="store_true", help="answers hold the optimised IR too")
    optimize.add_argument(
        "--outcomes", type=Path, action="append", metavar="FILE", help="of `data outcomes`: one file an objective"
    )
    optimize.add_argument(
        "--counted", type=int, default=0, metavar="N", help="lists a function whose counts alone are taught (default 0)"
    )
    optimize.set_defaults(run=_data_optimize)
    feedback = tasks.add_parser("feedback", help="a model's own answers, the compiler's feedback, what to say then")
    feedback.add_argument("corpus", type=Path, metavar="CORPUS")
    feedback.add_argument("labels", type=Path, metavar="LABELS", help="for the objective instructions")
    feedback.add_argument("--model", type=Path, required=True, metavar="DIR", help="exported, or a checkpoint")
    feedback.add_argument("--form", choices=[str(it) for it in Form], required=True)
    feedback.add_argument("--no-code", action="store_true", help="answers hold no IR, whatever the form")
    feedback.add_argument("--temperature", type=float, default=0.0, metavar="T", help="of its answers (default 0)")
    feedback.add_argument("--samples", type=int, default=1, metavar="N", help="answers a function (default 1)")
    feedback.add_argument("--seed", type=int, default=0, metavar="S")
    feedback.add_argument("--functions", type=int, metavar="N", help="only the first N training functions by hash")
    feedback.add_argument("--improved", action="store_true", help="only functions on which something beats -Oz")
    feedback.add_argument("--workers", type=int, default=0, metavar="W", help="processes (default: one a core)")
    feedback.set_defaults(run=_data_feedback)
    for task in (optimize, feedback):
        task.add_argument("--out", type=Path, required=True, metavar="DIR")
        task.add_argument("--context", type=int, default=2048, metavar="N", help="tokens of the longest example")
        task.add_argument("--answers", type=int, default=4, metavar="N", help="lists taught a function (default 4)")
    feedback.add_argument("--outcomes", type=Path, metavar="FILE", help="of `data outcomes`, for the labels' objective")


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "fields", nargs="*", metavar="FIELD=VALUE", help="change the preset: steps=2000 peak_rate=1e-3 ..."
    )
    parser.add_argument("--preset", default="tiny", metavar="NAME", help="tiny, small, base or paper-7b (default tiny)")
    parser.add_argument(
        "--data", type=Path, action="append", metavar="DIR", help="what `secondpass data` wrote (may be repeated)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="checkpoints and the log")
    parser.add_argument("--resume", action="store_true", help="go on with the training at DIR")
    parser.add_argument("--from", dest="start_from", type=Path, metavar="CHECKPOINT", help="weights to begin with")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="compile greedy answers in validations")
    parser.add_argument("--name", help="what reports call the model (default: its preset)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of the matrix products (default: torch's; fewer on busy cores)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what the training needs, and do nothing")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="of the dry run (default 1)")
    parser.set_defaults(run=_train, interrupted="checkpoints are kept, --resume goes on from the last one")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", type=Path, metavar="CORPUS")
    parser.add_argument("labels", type=Path, metavar="LABELS", help="for the objective instructions")
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="[NAME=]DIR",
        help="exported models, the first model first (default: the one in the box)",
    )
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N functions by hash")
    parser.add_argument("--answers", type=int, default=100, metavar="N", help="in the sampling figures (default 100)")
    parser.add_argument(
        "--temperatures", type=float, nargs="+", metavar="T", help="of the sampling figures (default 0.2 to 1.6)"
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        metavar="PART",
        help="only these: table, correlations, distributions, tasks, sampling, iteration, compiles, functions",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--workers", type=int, default=0, metavar="W", help="processes (default: one a core)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the report; keeps every answer")
    parser.set_defaults(run=_evaluate, interrupted="what was measured is kept, the same command goes on")


def _corpus_debian(options: argparse.Namespace) -> int:
    from secondpass.corpus import commands

    with progress_bar() as progress:
        result = commands.debian(
            options.out, options.packages, options.list, minutes=options.minutes, again=options.again, progress=progress
        )
    return _print_collection(result)


def _corpus_compdb(options: argparse.Namespace) -> int:
    from secondpass.corpus import commands

    with progress_bar() as progress:
        result = commands.compdb(options.out, options.database, _project(options), progress=progress)
    return _print_collection(result)


def _corpus_files(options: argparse.Namespace) -> int:
    from secondpass.corpus import commands

    with progress_bar() as progress:
        result = commands.files(options.out, options.paths, options.flags, _project(options), progress=progress)
    return _print_collection(result)


def _corpus_csmith(options: argparse.Namespace) -> int:
    from secondpass.corpus import commands

    with progress_bar() as progress:
        result = commands.csmith(options.out, options.count, options.seed, again=options.again, progress=progress)
    return _print_collection(result)


def _project(options: argparse.Namespace) -> Any:
    from secondpass.corpus.commands import Named

    return Named(options.project, options.project_version, options.split, options.again)


def _print_collection(result: Any) -> int:
    from secondpass.report import collected as report

    report.print_collection(result, _console())
    return 1 if all(it.failure for it in result.reports) else 0


def _corpus_stats(options: argparse.Namespace) -> int:
    from secondpass.corpus.statistics import draw, statistics
    from secondpass.corpus.store import Corpus
    from secondpass.report import collected as report

    with progress_bar() as progress:
        found = statistics(Corpus(options.corpus), progress)
    if options.picture:
        draw(found, options.picture)
    if options.json:
        _print_json(report.statistics_document(found))
    else:
        report.print_statistics(found, _console())
    return 0


def _tune(options: argparse.Namespace) -> int:
    from secondpass.report import learnt as report
    from secondpass.tuner import commands

    with progress_bar() as progress:
        result = commands.tune_corpus(
            commands.Request(
                options.corpus,
                Objective(options.objective),
                options.budget,
                options.patience,
                tuple(options.split or ()),
                options.largest,
                options.functions,
                options.seed,
                options.workers,
                options.out,
                options.resume,
                options.ray,
            ),
            progress,
        )
    report.print_tuning(result, _console())
    return 0


def _data_outcomes(options: argparse.Namespace) -> int:
    from secondpass.model import commands
    from secondpass.report import learnt as report

    request = commands.OutcomesRequest(
        corpus=options.corpus,
        out=options.out,
        objective=Objective(options.objective),
        coreset=options.coreset,
        largest=options.largest,
        workers=options.workers,
    )
    with progress_bar() as progress:
        found = commands.make_outcomes(request, progress)
    report.print_outcomes(found, _console())
    return 0


def _data_optimize(options: argparse.Namespace) -> int:
    from secondpass.model import commands
    from secondpass.report import learnt as report

    request = commands.OptimizeRequest(
        corpus=options.corpus,
        labels=tuple(options.labels),
        out=options.out,
        tokenizer=options.tokenizer,
        vocabulary=options.vocabulary,
        context=options.context,
        answers=options.answers,
        counted=options.counted,
        outcomes=tuple(options.outcomes or ()),
        code=options.code,
    )
    with progress_bar() as progress:
        made = commands.make_optimize(request, progress)
    report.print_made(made, _console())
    return 0


def _data_feedback(options: argparse.Namespace) -> int:
    from secondpass.model import commands
    from secondpass.report import learnt as report

    request = commands.FeedbackRequest(
        corpus=options.corpus,
        labels=options.labels,
        out=options.out,
        model=options.model,
        form=Form(options.form),
        code=not options.no_code,
        temperature=options.temperature,
        samples=options.samples,
        seed=options.seed,
        context=options.context,
        answers=options.answers,
        outcomes=options.outcomes,
        functions=options.functions,
        improved=options.improved,
        workers=options.workers,
    )
    with progress_bar() as progress:
        made = commands.make_feedback(request, progress)
    report.print_made(made, _console())
    return 0


def _train(options: argparse.Namespace) -> int:
    from secondpass.model.presets import override, preset
    from secondpass.report import learnt as report

    if options.dry_run:
        from secondpass.model.dry_run import dry_run

        found = dry_run(override(preset(options.preset), options.fields), options.devices)
        report.print_estimate(found, _console())
        return 0
    if not options.data or options.out is None:
        raise InputError("train needs --data and --out")
    from secondpass.model.train import TrainRequest, train

    request = TrainRequest(
        data=tuple(options.data),
        out=options.out,
        preset=options.preset,
        overrides=tuple(options.fields),
        resume=options.resume,
        start_from=options.start_from,
        corpus=options.corpus,
        name=options.name,
        threads=options.threads,
    )
    # Under torchrun one of the processes speaks for all.
    if int(os.environ.get("RANK", "0")):
        train(request)
        return 0
    with progress_bar() as progress:
        trained = train(request, progress)
    report.print_training(trained, _console())
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from secondpass.evaluate import evaluation
    from secondpass.report import learnt as report

    request = evaluation.Request(
        corpus=options.corpus,
        labels=options.labels,
        out=options.out,
        models=evaluation.named(options.models or ()),
        split=options.split,
        limit=options.limit,
        answers=options.answers,
        temperatures=tuple(options.temperatures or evaluation.TEMPERATURES),
        seed=options.seed,
        workers=options.workers,
        parts=tuple(options.parts or evaluation.PARTS),
    )
    with progress_bar() as progress:
        found = evaluation.evaluate(request, progress)
    report.print_evaluation(found, _console())
    return 0


def _optimize(options: argparse.Namespace) -> int:
    from secondpass.commands import Request, optimize_files
    from secondpass.llvm.library import load
    from secondpass.report import optimized as report

    request = Request(
        inputs=tuple(options.inputs),
        output=options.output,
        emit=options.emit,
        objective=Objective(options.objective),
        effort=options.effort,
        coreset=options.coreset,
        strategy=options.strategy,
        samples=options.samples,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        seed=options.seed,
        form=Form(options.form) if options.form else None,
        budget_seconds=options.budget_seconds,
        flags=tuple(options.flags),
    )
    if len(options.inputs) > 1 and (options.output or options.emit):
        options.interrupted = "files that were finished are written"
    with progress_bar() as progress:
        done = optimize_files(request, progress)
    for said in (*(f"secondpass: {it}" for it in done.refused), *(it.warnings for it in done.results if it.warnings)):
        print(said, file=sys.stderr)
    if options.json and done.results:
        _print_json(report.result_document(done, load().version))
    elif done.results:
        report.print_results(done.results, _console())
    return max((it.exit_code for it in done.refused), default=0)


def _report(options: argparse.Namespace) -> int:
    from secondpass.driver import summary
    from secondpass.report import built as report

    found = summary.read_log(options.log)
    if options.html is not None:
        summary.write_page(found, options.html)
    if options.json:
        _print_json(report.build_document(found))
    else:
        report.print_build(found, _console())
    return 0


def _explain(options: argparse.Namespace) -> int:
    from secondpass.explain import explain
    from secondpass.llvm.library import load
    from secondpass.llvm.passes import PassList
    from secondpass.llvm.sandbox import Sandbox
    from secondpass.report import explained as report

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
    from secondpass.llvm.library import load
    from secondpass.report import vocabulary as report

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

    # Into a pipe a table takes the width it needs: nothing is folded that a program might read. Names of files and
    # functions are printed as they are.
    if sys.stdout.isatty():
        return Console(soft_wrap=True, markup=False, emoji=False)
    return Console(width=240, markup=False, emoji=False)
