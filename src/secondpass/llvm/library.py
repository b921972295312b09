"""A loaded libLLVM: its version and targets, which passes it has, and what -Oz is in it.

One library a process: LLVM keeps global state, so another one is used in a process of its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

from secondpass.errors import LLVMError, ToolchainError
from secondpass.llvm import capi
from secondpass.llvm.passes import PassList
from secondpass.llvm.toolchain import SUPPORTED_MAJORS, find_toolchain
from secondpass.llvm.vocabulary import VOCABULARY, Entry

_LEVELS_OF_SIZE, _WITHOUT_THEM = ("default<Os>", "default<Oz>"), 23
"""Pipelines, and the first LLVM that ends the process at them."""


class Library:
    """libLLVM in this process. Get it with `load`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.capi = capi.CAPI(path)
        if self.major not in SUPPORTED_MAJORS:
            raise ToolchainError(
                f"{path}: LLVM {self.version} is not supported;"
                f" use a version from {SUPPORTED_MAJORS[0]} to {SUPPORTED_MAJORS[-1]}"
            )
        options = self.capi.LLVMCreatePassBuilderOptions()
        # What clang sets for -Oz; `default<O2>` would vectorise loops of functions without minsize.
        self.capi.LLVMPassBuilderOptionsSetLoopInterleaving(options, 0)
        self.capi.LLVMPassBuilderOptionsSetLoopVectorization(options, 0)
        self.capi.LLVMPassBuilderOptionsSetSLPVectorization(options, 0)
        self.pass_options = options
        self._machines: dict[tuple[bytes, int], int] = {}

    @cached_property
    def version(self) -> str:
        """Such as `23.1.4`."""
        parts = [ctypes.c_uint() for _ in range(3)]
        self.capi.LLVMGetVersion(*map(ctypes.byref, parts))
        return ".".join(str(part.value) for part in parts)

    @cached_property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.version.partition(".")[0])

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The back ends this build has, by LLVM's names, such as `x86-64`."""
        names: list[str] = []
        target = self.capi.LLVMGetFirstTarget()
        while target:
            names.append(self.capi.LLVMGetTargetName(target).decode())
            target = self.capi.LLVMGetNextTarget(target)
        return tuple(sorted(names))

    @cached_property
    def default_triple(self) -> str:
        """The target of a module that names none."""
        return self.capi.take_message(self.capi.LLVMGetDefaultTargetTriple())

    @property
    def oz_pipeline(self) -> str:
        """The pipeline `clang -Oz` runs, for functions marked `minsize optsize`.

        LLVM 23 dropped `default<Oz>`: the attributes alone make `default<O2>` small.
        """
        return "default<Oz>" if self.major < _WITHOUT_THEM else "default<O2>"

    def target_machine(self, triple: bytes, *, pic: bool) -> int:
        """The code generator for a triple, shared by all modules of this process.

        Raises:
            LLVMError: this build lacks the target.
        """
        key = (triple, capi.RELOC_PIC if pic else capi.RELOC_STATIC)
        if key not in self._machines:
            target, message = ctypes.c_void_p(), ctypes.c_void_p()
            failed = self.capi.LLVMGetTargetFromTriple(triple, ctypes.byref(target), ctypes.byref(message))
            if failed:
                self.capi.take_message(message.value)
                raise LLVMError(
                    f"target '{triple.decode()}' is not in this libLLVM (it has {', '.join(self.targets)}); "
                    "set SECONDPASS_LLVM to a libLLVM that has it"
                )
            machine = self.capi.LLVMCreateTargetMachine(
                target, triple, b"", b"", capi.CODEGEN_DEFAULT, key[1], capi.CODE_MODEL_DEFAULT
            )
            if not machine:
                raise LLVMError(f"target '{triple.decode()}' has no code generator in this libLLVM")
            self._machines[key] = machine
        return self._machines[key]

    def set_options(self, options: Sequence[str]) -> None:
        """Set options of LLVM's own, as they stand behind clang's `-mllvm`, for the rest of this process.

        LLVM keeps them in global variables. Those that this build does not have are passed over.
        """
        words = [b"secondpass", *map(str.encode, options)]
        self.capi.LLVMParseCommandLineOptions(len(words), (ctypes.c_char_p * len(words))(*words), b"")

    def demangled(self, symbol: str) -> str:
        """A C++ function's name as its source has it; any other symbol as it is."""
        demangle = getattr(self.capi, capi.DEMANGLE, None)
        if demangle is None or not symbol.startswith("_Z"):
            return symbol
        # What it allocates is freed as LLVM's messages are: both are malloc's.
        return self.capi.take_message(demangle(symbol.encode(), None, None, None)) or symbol

    def has_pass(self, text: str) -> bool:
        """Whether this LLVM knows a vocabulary element, parameters included."""
        return text in self._known_passes

    def missing_from(self, passes: PassList) -> tuple[str, ...]:
        """The elements of a list that this LLVM does not know."""
        return tuple(word for word in passes.words if self._refuses(word))

    def vocabulary(self) -> tuple[Entry, ...]:
        """The part of the vocabulary this LLVM has."""
        return tuple(entry for entry in VOCABULARY if entry.text in self._known_passes)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Its elements as a list has them."""
        return tuple(entry.text for entry in self.vocabulary())

    @cached_property
    def _known_passes(self) -> frozenset[str]:
        return frozenset(entry.text for entry in VOCABULARY if not self._refuses(entry.text))

    def _refuses(self, text: str) -> bool:
        """Ask LLVM itself, on an empty module: names and parameters differ by version."""
        if text in _LEVELS_OF_SIZE and self.major >= _WITHOUT_THEM:
            return True
        context = self.capi.LLVMContextCreate()
        module = self.capi.LLVMModuleCreateWithNameInContext(b"probe", context)
        error = self.capi.LLVMRunPasses(module, str(PassList.of(text)).encode(), None, self.pass_options)
        if error:
            self.capi.take_message(self.capi.LLVMGetErrorMessage(error), error=True)
        self.capi.LLVMDisposeModule(module)
        self.capi.LLVMContextDispose(context)
        return bool(error)


def load() -> Library:
    """The libLLVM in force (`toolchain.find_toolchain`), loaded once a process.

    Raises:
        ToolchainError: none is found, it does not load, or its version is not supported.
    """
    return _load(find_toolchain().library)


@cache
def _load(path: Path) -> Library:
    return Library(path)
