"""The driver: clang first, then our object in place of clang's where it is smaller.

Clang's own object is made in any case, by the command as it came with -Oz at its end: its diagnostics, its exit code
and its dependency file are the build's, and whatever happens to us afterwards, the build has its object. What was made
before comes from the cache, by the preprocessed source and all that decides what becomes of it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from secondpass import __version__
from secondpass.driver.cache import Cache, Cached, key_of
from secondpass.driver.client import REAL, REAL_CXX, become, forced, names_own_file
from secondpass.driver.command import PREPROCESSED, Command, Source, read_command
from secondpass.driver.log import Record, write
from secondpass.errors import InputError, SecondpassError
from secondpass.files import has_place, write_whole

EFFORT = "SECONDPASS_EFFORT"
CODEGEN = "SECONDPASS_CODEGEN"
"""0 leaves code generation as -Oz has it."""
_USUAL_EFFORT = 0
_A_COMPILER = re.compile(r"(^|[/-])(clang|clang\+\+|gcc|g\+\+|cc|c\+\+|icx|icpx)(-[\d.]+)?$")
"""What a compiler is called: where every file can be executed, a source could be."""
_READS_MORE = re.compile(rb"\.(?i:incbin|include)|^\s*(export\s+)?import\b", re.MULTILINE)
"""What makes an object depend on files that preprocessing does not show: assembly, modules of C++."""
_FILE = re.compile(rb'^# \d+ "([^"<][^"]*)"', re.MULTILINE)
"""A file, in what a preprocessor says of lines."""
_OTHER_LLVM = "(Producer: "
"""How LLVM ends its message where it cannot read the bitcode of another version."""
_LINKERS = frozenset(("_GLOBAL_OFFSET_TABLE_",))
"""What a linker provides."""
_MEMORY = re.compile(r"(__aeabi_)?mem(cpy|move|set|clr|cmp)[48]?")
"""What code generation may call wherever there is a C library; compilers ask for these of all others too."""
_OVERRIDES = "CCC_OVERRIDE_OPTIONS"
"""The variable by which clang's driver changes its own command line."""
_OTHER_LEVEL = re.compile(r"(OptimizeSize|Optimize) differs|optimi[sz]ation level differs", re.IGNORECASE)
"""What clang says of a precompiled header that was made at another level."""
_COLUMNS = re.compile(rb"__builtin_(COLUMN|source_location)")
"""What asks where in its line it stands, which preprocessing does not keep."""
_COLOURS = ("-fcolor-diagnostics", "-fno-color-diagnostics", "-fdiagnostics-color", "-fno-diagnostics-color")


def main(language: str, words: Sequence[str]) -> int:
    """Do what a compiler does with these words.

    Args:
        language: `c` or `c++`, the driver's: which libraries are linked.
        words: the command line behind the driver's name. The first may be `--real-cc` with the compiler to use, or, as
            compiler launchers are called, the compiler itself.

    Returns:
        The exit code, clang's. Where all is clang's business, clang takes this process's place and nothing returns.
    """
    _open_standard_files()
    try:
        compiler, words = _compiler(language, words)
    except SecondpassError as error:  # there is no compiler to leave it to
        print(f"secondpass: {error}", file=sys.stderr)
        return error.exit_code
    try:
        command = read_command(words, cxx=language == "c++", force=forced())
        own = names_own_file(command.words) or bool(os.environ.get(_OVERRIDES))
        if command.untouched or own or not compiler.is_clang:
            return _leave_to(compiler, words)
        signal.signal(signal.SIGTERM, _end)
        with tempfile.TemporaryDirectory(prefix="secondpass-") as name:
            code = _Build(compiler, command, Path(name)).run()
            return code if code >= 0 else 128 - code  # as shells say it of one that was killed
    except _AsItCameError:
        return _leave_to(compiler, words)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # whatever is wrong with us, the build goes on
        _warn(f"{_text(error)}; clang does it alone")
        return _leave_to(compiler, words)


class _AsItCameError(Exception):
    """The command as it came is clang's: at -Oz it fails where another level may do, or its object has no place."""


def _open_standard_files() -> None:
    """Have something behind those that came closed; what is opened next would take their place."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


# The compiler behind us


@dataclass(frozen=True, slots=True)
class _Compiler:
    """The real compiler: its command, and whether it is a clang."""

    command: tuple[str, ...]
    is_clang: bool


def _compiler(language: str, words: Sequence[str]) -> tuple[_Compiler, list[str]]:
    """Which compiler to use, and the words without what says so."""
    words = list(words)
    if words[:1] == ["--real-cc"] and len(words) > 1:
        return _named(words[1]), words[2:]
    if words and _A_COMPILER.search(words[0]) and os.access(words[0], os.X_OK) and Path(words[0]).is_file():
        return _named(words[0]), words[1:]  # a launcher's words begin with the compiler
    named = os.environ.get(REAL_CXX if language == "c++" else REAL)
    return (_named(named) if named else _Compiler(usual_compiler(language), is_clang=True)), words


def _named(path: str) -> _Compiler:
    return _Compiler((path,), is_clang(path))


def is_clang(compiler: str) -> bool:
    """Whether a compiler is a clang, by its name; what is none is left alone."""
    return "clang" in Path(compiler).name or "clang" in Path(compiler).resolve().name


def usual_compiler(language: str) -> tuple[str, ...]:
    """The command of the clang of the LLVM in force.

    The one that comes along links by the system's linker, with the system's run-time libraries: its own linker knows
    fewer options, and its own libraries would be missing where programs run.
    """
    from secondpass.llvm.toolchain import find_clang, find_toolchain

    toolchain = find_toolchain()
    clang = find_clang(toolchain)
    if not toolchain.bundled:
        named = clang.name.replace("clang", "clang++", 1) if language == "c++" else clang.name
        return (str(clang.with_name(named)),)
    name = str(clang.with_name("clang++")) if language == "c++" else str(clang)
    runtime = ["-rtlib=libgcc", "-unwindlib=libgcc"]
    if any(Path("/usr/include/c++").glob("*/vector")):
        runtime.append("-stdlib=libstdc++")
    if Path("/usr/bin/ld.bfd").exists():
        runtime.append("-fuse-ld=bfd")
    return name, "--start-no-unused-arguments", *runtime, "--end-no-unused-arguments"


def _leave_to(compiler: _Compiler, words: Sequence[str]) -> int:
    """Become the compiler."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        become([*compiler.command, *words])
    except OSError as error:
        _warn(f"{compiler.command[0]}: cannot be run: {error.strerror}")
        return 1


def _end(number: int, _frame: object) -> None:
    """End by a signal as by an error: what was made on the way goes."""
    sys.exit(128 + number)


def _warn(text: str) -> None:
    print(f"secondpass: warning: {text}", file=sys.stderr)


# One command


@dataclass(frozen=True, slots=True)
class _Made:
    """An object, what is logged of it, and whether it is worth keeping: nothing failed."""

    image: bytes
    record: Record
    final: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """What an object depends on.

    Attributes:
        key: of all of it.
        files: what the source consists of.
    """

    key: str
    files: tuple[bytes, ...]

    @property
    def sources(self) -> str:
        """Digest of the files as they are, with the spaces and remarks that no preprocessor keeps."""
        return key_of(map(_digest, self.files))


class _Build:
    """A command that compiles for size.

    Args:
        compiler: the real one.
        command: what it asks for.
        folder: for what is of no use later.
    """

    def __init__(self, compiler: _Compiler, command: Command, folder: Path) -> None:
        self._compiler, self._command, self._folder = compiler, command, folder
        self._effort = level_of_effort(os.environ)
        self._codegen = os.environ.get(CODEGEN, "") != "0"
        self._level = "-Oz"
        self._unsaid = ""
        self._cache = Cache.of_environment()

    def run(self) -> int:
        """Compile every source, and link them where a program is asked for."""
        try:
            objects = {source.index: self._output(source) for source in self._command.sources}
            if not all(has_place(Path(it)) for it in objects.values()):
                raise _AsItCameError  # clang says what is wrong, if anything is
            codes = [self._compile(source, objects[source.index]) for source in self._command.sources]
            failed = next(filter(None, codes), 0)
            return failed if failed or self._command.compile_only else self._link(objects)
        finally:
            if self._cache.trouble:
                _warn(self._cache.trouble)
            self._cache.close()

    def _output(self, source: Source) -> str:
        if not self._command.compile_only:
            return str(self._folder / f"{source.index}-{source.path.stem}.o")
        return self._command.output or f"{source.path.stem}.o"

    def _link(self, objects: Mapping[int, str]) -> int:
        words = [objects.get(index, word) for index, word in enumerate(self._command.words)]
        quiet = "--start-no-unused-arguments", "--end-no-unused-arguments"  # some were for the compiler
        return subprocess.run([*self._compiler.command, quiet[0], *words, quiet[1]], check=False).returncode

    def _compile(self, source: Source, output: str) -> int:
        started = time.perf_counter()
        known = self._known(source, output) if self._cache.works else None
        found = self._cache.get(known.key) if known else None
        if found is not None and (not found.said or (known and found.sources == known.sources)):
            self._tell(source, found.said)
            write_whole(Path(output), found.image)
            record = replace(Record.of_json(found.record), cached=True)
        else:
            theirs = self._folder / "clang.o"
            begun = time.perf_counter()
            code, said = self._by_clang(source, output, theirs)
            if code and _OTHER_LEVEL.search(said):
                self._level = self._command.level or "-O0"
                code, said = self._by_clang(source, output, theirs)
            if code and self._command.level != "-Oz":
                raise _AsItCameError
            self._tell(source, said)
            if code:
                return code
            made = self._improved(source, theirs.read_bytes(), time.perf_counter() - begun)
            write_whole(Path(output), made.image)
            record = made.record
            if known and made.final:
                sources = known.sources if said else ""
                self._cache.put(known.key, Cached(made.image, said, record.to_json(), sources))
        place = str(Path(output).absolute()) if self._command.compile_only else ""
        seconds = round(time.perf_counter() - started, 3)
        with suppress(OSError):  # a log that cannot be written is no reason to fail a build
            write(replace(record, source=str(source.path.absolute()), output=place, seconds=seconds))
        return 0

    def _tell(self, source: Source, said: str) -> None:
        """Say what clang says of a source, once it is sure that clang will not say it again: when all are compiled, or
        where none can fail at -Oz alone.
        """
        self._unsaid += said
        if self._command.level == "-Oz" or source is self._command.sources[-1]:
            _say(self._unsaid)
            self._unsaid = ""

    def _by_clang(self, source: Source, output: str, made: Path) -> tuple[int, str]:
        """The object that clang -Oz makes, with everything else that the command writes; clang's code and messages."""
        run = self._clang(source, output, *self._colour(), self._level, "-c", "-o", str(made))
        sys.stdout.buffer.write(run.stdout)
        sys.stdout.flush()
        return run.returncode, run.stderr.decode("utf-8", "surrogateescape")

    def _improved(self, source: Source, theirs: bytes, seconds: float) -> _Made:
        """Our object where it is smaller than clang's, which took so long, or else clang's."""
        from secondpass.driver.smaller import apart, module_path, sizes, smaller
        from secondpass.llvm import objects

        record = Record(source="", effort=self._effort)
        try:
            before = objects.text_size(theirs)
            record = replace(record, before=before, after=before, functions=sizes(theirs, theirs))
            if not record.functions:
                return _Made(theirs, record, final=True)
            options = self._command.without_dependencies()
            asked = self._compiler.command, options, source.word, source.language, self._level
            fits = _fit_for(theirs, alone=self._is_alone())
            how = self._effort, self._folder, seconds
            made = apart(partial(smaller, *asked, *how, fits=fits), codegen=self._codegen)
            record = replace(record, note=made.note)
            after = objects.text_size(made.image)
            if after < before and fits(made.image):
                functions = sizes(theirs, made.image)
                record = replace(record, after=after, functions=functions, codegen=made.options)
                return _Made(made.image, record, final=True)
            return _Made(theirs, record, final=True)
        except Exception as error:  # whatever is wrong with us, the build has its object
            text = _text(error).removeprefix(f"{module_path(self._folder, source.word)}: ")
            _warn(f"{source.word}: {text}; the object is clang's")
            return _Made(theirs, replace(record, note=f"as clang made it: {text}"), final=False)

    def _is_alone(self) -> bool:
        """Whether the program may have no C library."""
        alone = "-ffreestanding", "-nostdlib", "-nodefaultlibs", "-nolibc"
        return any(it in self._command.words for it in alone)

    def _known(self, source: Source, output: str) -> _Known | None:
        """What the object depends on; None where that cannot be known, or the source cannot be preprocessed."""
        command = self._command
        if any(it.startswith(("-Wp,-M", "-Xpreprocessor", "-include-pch", "--config")) for it in command.words):
            return None
        if command.value_of("-MF") == "-":
            return None
        said = b""
        if source.language in PREPROCESSED:
            text = source.path.read_bytes()
        else:
            run = self._clang(source, output, "-Oz", "-E", "-o", "-")
            text, said = run.stdout if not run.returncode else b"", run.stderr
        if not text or _READS_MORE.search(text):
            return None
        files = tuple(sorted({os.fsencode(source.word), *_FILE.findall(text)}))
        kept = command.without_dependencies()
        debug = any(it.startswith("-g") and it != "-g0" for it in kept)
        facts = [*self._compiler.command, *kept, *self._colour(), source.language, str(self._effort)]
        facts += [str(self._codegen), __version__, _about(_library()), _about(shutil.which(self._compiler.command[0]))]
        facts += [platform.node() if any(it.endswith("=native") for it in kept) else ""]
        facts += [*command.shape, source.word if source.language in PREPROCESSED else ""]
        facts += [str(Path.cwd()), os.environ.get("PWD", "")] if debug else []
        exact = map(_digest, files if debug or _COLUMNS.search(text) else ())  # a debugger may check what it shows
        encoded = (it.encode("utf-8", "surrogateescape") for it in facts)
        return _Known(key_of([text, said, *encoded, *exact]), files)

    def _clang(self, source: Source, output: str, *last: str) -> subprocess.CompletedProcess[bytes]:
        """Run clang on a source with all the command's options, and these."""
        options = self._command.without_files() + self._dependencies(output)
        if not self._command.compile_only:  # some are for the linker
            options = ["--start-no-unused-arguments", *options, "--end-no-unused-arguments"]
        command = [*self._compiler.command, *options, *last, "-x", source.language, source.word]
        return subprocess.run(command, capture_output=True, check=False)

    def _dependencies(self, output: str) -> list[str]:
        """What clang would assume of the dependency file, did it see the object's name."""
        words: list[str] = []
        if not self._command.writes_dependencies:
            return words
        if not self._command.value_of("-MF"):
            words += ["-MF", re.sub(r"\.[^./]*$", "", output) + ".d"]
        if not self._command.value_of("-MT") and not self._command.value_of("-MQ"):
            words += ["-MQ", output]
        return words

    def _colour(self) -> list[str]:
        """Its standard error is a pipe of ours: clang is told what it would have seen."""
        chosen = any(it.startswith(_COLOURS) for it in self._command.words)
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not sys.stderr.isatty()
        return [] if chosen or plain else ["-fcolor-diagnostics"]


def level_of_effort(environment: Mapping[str, str]) -> int:
    """The level that a command's environment asks for.

    Raises:
        InputError: there is no such level.
    """
    from secondpass.effort import EFFORTS

    word = environment.get(EFFORT, str(_USUAL_EFFORT))
    if not word.isdecimal() or int(word) >= len(EFFORTS):
        raise InputError(f"{EFFORT}={word}: give a number from 0 to {len(EFFORTS) - 1}")
    return int(word)


def _fit_for(theirs: bytes, *, alone: bool) -> Callable[[bytes], bool]:
    """What says whether our object can take the place of clang's: it has no more data and asks for nothing more.

    A division may have become one of another kind, whose helper (`__aeabi_uidivmod`) a program without a compiler's
    library does not have. Functions of a C library that passes put in are looked at before (`optimize`).

    Args:
        theirs: clang's object.
        alone: whether there may be no C library. Where clang's object calls one of the functions for memory, there are
            the others too.
    """
    from secondpass.llvm import objects

    loaded, written, asked = objects.loaded_size(theirs), objects.written_size(theirs), objects.undefined(theirs)
    defined = objects.function_sizes(theirs).keys()
    has_memory = not alone or any(map(_MEMORY.fullmatch, asked))

    def fits(ours: bytes) -> bool:
        if objects.loaded_size(ours) > loaded or objects.written_size(ours) > written:
            return False
        more = objects.undefined(ours) - asked - _LINKERS
        if more & defined:
            return False
        return all(has_memory if _MEMORY.fullmatch(it) else not alone and not it.startswith("__") for it in more)

    return fits


@cache
def _library() -> Path:
    """The library in force, without loading it."""
    from secondpass.llvm.toolchain import find_toolchain

    return find_toolchain().library


def _about(file: str | Path | None) -> str:
    """A program's or library's path, its size and when it was written."""
    about = Path(file).stat() if file else None
    return f"{file} {about.st_size} {about.st_mtime_ns}" if about else ""


def _digest(file: bytes) -> bytes:
    """Of what is in a file."""
    try:
        return hashlib.sha256(Path(os.fsdecode(file)).read_bytes()).digest()
    except OSError:
        return b""


def _text(error: Exception) -> str:
    """An error in one line, with its kind where it is a fault of ours."""
    text = str(error).strip().replace("\n", " ")
    if _OTHER_LLVM in text:
        text += "; this clang is of another LLVM than the libLLVM in force: set SECONDPASS_LLVM to the one that it has"
    return text if isinstance(error, SecondpassError | OSError) else f"{type(error).__name__}: {text}"


def _say(text: str) -> None:
    if text:
        sys.stderr.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stderr.flush()
