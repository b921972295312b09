"""What a compiler's command line asks for: which files, in which language, to what; and whether it is our business.

Only what has to be known is read: the options that take a word of their own, so that it is not taken for a file,
and those that decide whether and how a file is compiled. Everything else is clang's.
Sources: clang's and GCC's manuals.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from secondpass.probes import is_probe
from secondpass.response_files import expanded
from secondpass.suffixes import LANGUAGES

_WITH_WORD = frozenset(
    """
    -o -x -I -D -U -L -l -T -u -z -F -A -B -G -e -include -imacros -isystem -iquote -idirafter -isysroot -iprefix
    -iwithprefix -iwithprefixbefore -iframework -cxx-isystem -isystem-after -ivfsoverlay -include-pch -MF -MT -MQ -MJ
    -Xclang -Xpreprocessor -Xassembler -Xlinker -Xanalyzer -mllvm -target -arch -framework -rpath -install_name --param
    --sysroot -gcc-toolchain -working-directory --serialize-diagnostics -serialize-diagnostics -dumpbase -dumpdir
    -aux-info -wrapper -specs -fplugin -resource-dir -stdlib++-isystem --config -std-default -mthread-model -Xarch_host
    """.split()
)
"""Options whose value is the next word."""

_AS_CXX = {"c": "c++", "cpp-output": "c++-cpp-output"}
PREPROCESSED = ("cpp-output", "c++-cpp-output")
"""The languages whose sources no preprocessor reads."""

_ALONE = re.compile(
    r"""
    -(E|S|M|MM|v|\#\#\#|fsyntax-only|emit-llvm|emit-ast|pg|p|save-temps.*|gsplit-dwarf.*|ftime-trace.*)
    | -(fsanitize|fprofile|fcs-profile|fplugin|fpass-plugin|fembed-bitcode|fmodule|fxray|finstrument-functions).*
    | -(coverage|[fg]record-(command-line|gcc-switches))
    | -(ftest-coverage|arch|MJ|print-.*|dump.*|fopenmp.*|cc1|cc1as|serialize-diagnostics|Xarch_.*|ccc-print-.*)
    | -(fmemory-profile|fproc-stat-report|fpseudo-probe|fexperimental-sanitize|fdebug-info-for-profiling|forder-file).*
    | -(fropi|frwpi|mcmodel=(medium|large))
    | -(P|d[A-Z]+|save-stats.*|emit-interface-stubs|frandomize-layout-seed-file.*|fbasic-block-sections=list=.*)
    | -(fenable-matrix|Wp,-M.*)
    | -(fauto-profile|fprebuilt-module|fstack-usage|fsave-optimization|foptimization-record|fcallgraph-info).*
    | --(?!((start|end)-no-unused-arguments|(sysroot|param|config)(=.*)?
           |(target|gcc-toolchain|gcc-install-dir|gcc-triple|std|stdlib|rtlib|unwindlib)=.*)$).*
    """,
    re.VERBOSE,
)
"""Whatever asks for something else than an object, for more than an object, or for code that must stay as written; and
what begins with two dashes, but for a few: the long spellings are many, and some take a word of their own."""
_ACTIONS = re.compile(r"-(fsyntax-only|ast-.*|emit-.*|load|add-plugin|plugin|E|S|dump-.*|print-.*)")
"""What makes something else of a source, said to clang's inner compiler (`-Xclang`)."""
_DEPENDENCIES = frozenset(("-MD", "-MMD", "-MF", "-MT", "-MQ", "-MG", "-MP"))


@dataclass(frozen=True, slots=True)
class Source:
    """A file to compile: where it stands among the words, its name there, and its language, as `-x` names it."""

    index: int
    word: str
    language: str

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.word)


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, read.

    Attributes:
        words: all of them, response files put in.
        sources: what is to be compiled.
        compile_only: whether `-c` is there: objects are wanted, not a program.
        output: the word of `-o`, if there.
        level: the last optimisation level: `-Oz`, `-O2`, `-O`; empty where there is none.
        untouched: why clang alone does all of it; empty where there is something for us to do.
    """

    words: tuple[str, ...]
    sources: tuple[Source, ...]
    compile_only: bool
    output: str
    level: str
    untouched: str

    def without_files(self) -> list[str]:
        """The options alone, but those that say what is made of the files: `-c`, `-o`, `-x` and the files."""
        return _kept(self.words, lambda it: it not in ("", "-c") and not it.startswith(("-x", "-o")))

    def without_dependencies(self) -> list[str]:
        """`without_files`, without those that write dependency files."""
        joined = "-MF", "-MT", "-MQ", "-Wp,-M"
        return _kept(self.without_files(), lambda it: it not in _DEPENDENCIES and not it.startswith(joined))

    @property
    def writes_dependencies(self) -> bool:
        """Whether a dependency file is written beside the object."""
        return any(it in ("-MD", "-MMD") for it in self.words)

    @property
    def shape(self) -> tuple[str, ...]:
        """Of what clang's warnings depend on besides `without_dependencies`: whether it links, and which options say
        something of dependencies, whatever their files are.
        """
        names = {option for _, option, _ in _items(self.words)}
        return ("-c" if self.compile_only else "", *sorted(names & _DEPENDENCIES))

    def value_of(self, name: str) -> str:
        """The last value of an option such as `-MF`, empty where it is not there."""
        found = ""
        for index, option, value in _items(self.words):
            if option == name and value is not None:
                found = value
            elif option.startswith(name) and value is None:
                found = self.words[index][len(name) :]
        return found


def read_command(words: Sequence[str], *, cxx: bool = False, force: bool = False) -> Command:
    """Read a command line, without the compiler's name.

    Args:
        words: as they came.
        cxx: whether the compiler is the one for C++, which takes C files for C++.
        force: whether every optimisation level is our business, not `-Oz` and `-Os` alone.

    Raises:
        InputError: a response file cannot be read.
    """
    words = tuple(it for word in expanded(words, Path.cwd()) for it in _as_options(word))
    sources, others, language, level, output, flto = list[Source](), list[str](), "", "", "", False
    untouched = ""
    for index, option, value in _items(words):
        word = words[index]
        if not option:
            kind = language or LANGUAGES.get(Path(word).suffix, "")
            if cxx and not language:
                kind = _AS_CXX.get(kind, kind)
            if word == "-":
                untouched = untouched or "the source is standard input"
            elif kind not in LANGUAGES.values():
                others.append(word)
            elif not Path(word).is_file() and Path(word).exists() and word != os.devnull:
                untouched = untouched or f"{word} can be read only once"
            else:
                sources.append(Source(index, word, kind))
        elif value is None and option in _WITH_WORD:
            untouched = untouched or f"{option} lacks its word"
        elif option == "-x" or (option.startswith("-x") and value is None):
            named = value if value is not None else word[2:]
            language = "" if named == "none" else named
        elif option.startswith("-o"):
            output = word[2:] if value is None else value
        elif option == "-Xclang" and (_ACTIONS.fullmatch(value or "") or _ALONE.fullmatch(value or "")):
            untouched = untouched or f"-Xclang {value} is asked for"
        elif re.fullmatch(r"-O(\d+|s|z|fast|g)?", option):
            level = option
        elif option.startswith("-flto"):
            flto = True
        elif option == "-fno-lto":
            flto = False
        elif _ALONE.fullmatch(option):
            untouched = untouched or f"{option} is asked for"
    return Command(
        words,
        tuple(sources),
        "-c" in words,
        output,
        level,
        untouched or _reason(words, sources, others, level, output, flto=flto, force=force),
    )


def _as_options(word: str) -> tuple[str, ...]:
    """A word; dependencies asked of the preprocessor as clang's driver takes them."""
    found = re.fullmatch(r"-Wp,(-MM?D),([^,]+)", word)
    return (found[1], "-MF", found[2]) if found else (word,)


def _reason(
    words: Sequence[str],
    sources: Sequence[Source],
    others: Sequence[str],
    level: str,
    output: str,
    *,
    flto: bool,
    force: bool,
) -> str:
    """Why there is nothing to do for us in a command that asks for an object or a program."""
    compile_only = "-c" in words
    if not sources:
        return "nothing is compiled"
    if compile_only and others:
        return f"{others[0]} is no C or C++"
    if all(is_probe(str(Path.cwd() / it.path)) for it in sources):
        return "a build system tries the compiler"
    if flto:
        return "link-time optimisation (-flto) is asked for"
    if not compile_only and any(it.startswith("-x") for it in words):
        return "languages are named (-x) while a program is linked"
    if level not in ("-Os", "-Oz") and not force:
        return f"neither -Oz nor -Os is asked for, but {level or 'no optimisation'}"
    if output == "-":
        return "the object goes to standard output"
    is_folder = output.endswith("/") or (Path(output).exists() and not Path(output).is_file())
    if compile_only and output and (len(sources) > 1 or is_folder):
        return f"-o {output} is no file of its own"
    if not compile_only and any(it in ("-MD", "-MMD") for it in words):
        return "dependencies are written while a program is linked"
    return ""


def _items(words: Sequence[str]) -> Iterator[tuple[int, str, str | None]]:
    """Every option and every file: its index, the option (empty for a file), the next word where it takes one."""
    index = 0
    while index < len(words):
        word = words[index]
        if not word.startswith("-") or word == "-":
            yield index, "", None
        elif word in _WITH_WORD and index + 1 < len(words):
            yield index, word, words[index + 1]
            index += 1
        else:
            yield index, word, None
        index += 1


def _kept(words: Sequence[str], wanted: Callable[[str], bool]) -> list[str]:
    """The items whose option is wanted, each with its word."""
    kept = list[str]()
    for index, option, value in _items(words):
        if wanted(option):
            kept += words[index : index + (1 if value is None else 2)]
    return kept
