"""Module: LLVM IR in this process, from text or bitcode to counts, sizes and objects.

A module owns its LLVM handle and closes once; a clone shares the context and the context goes with
the last module in it. Using a closed module raises. Errors LLVM reports become `LLVMError` with
LLVM's own message.

A module does *not* protect the process: a pass that aborts takes it along. Lists of unknown origin
go through `llvm.sandbox`.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

from secondpass.errors import LLVMError
from secondpass.llvm import capi, objects
from secondpass.llvm.library import Library, load
from secondpass.llvm.passes import PassList

_SIZE_ATTRIBUTES = (b"minsize", b"optsize")
_INLINED = re.compile(r"^attributes #(\d+) = \{[^\n]*\balwaysinline\b", re.MULTILINE)
_USUAL_SECTIONS = (None, b"", b".text.startup")
"""Where functions lie that nobody chose a section for; clang chooses the last for constructors of variables."""
_FRAMES = ("llvm.returnaddress", "llvm.frameaddress", "llvm.addressofreturnaddress", "llvm.sponentry")
"""Intrinsics by which a function looks at its own frame."""
_APART = b"secondpass-apart"
"""An attribute that makes a function equal to no other one, for a while."""
_PREDECESSORS = re.compile(rb"; preds = .*")
_MADE = frozenset(
    """bcmp calloc fiprintf fputc fputs fwrite iprintf malloc memccpy memchr memcmp memcpy memmove mempcpy memrchr
    memset printf putchar puts siprintf snprintf sprintf stpcpy stpncpy strcat strchr strcpy strdup strlcat strlcpy
    strlen strncat strncmp strncpy strnlen strrchr vsnprintf vsprintf __memcpy_chk __memset_chk __memmove_chk
    __strcpy_chk __stpcpy_chk __sincospi_stret __sincospif_stret memset_pattern16""".split()
) | {
    name + width
    for name in """cabs cbrt ceil copysign cos cospi exp exp10 exp2 fabs floor fmax fmin hypot ldexp log log10 log2
        nearbyint pow rint round roundeven sin sinpi sincos sqrt tan tanh trunc""".split()
    for width in ("", "f", "l")
}
"""Functions of the C library that passes put in calls of (llvm/Transforms/Utils/BuildLibCalls.h)."""


@dataclass(frozen=True, slots=True)
class FunctionSize:
    """A defined function: its instructions, and its bytes where native code was made."""

    name: str
    instructions: int
    bytes: int | None = None


class _Context:
    """An LLVMContext, counted by the modules in it, with what LLVM had to say about them."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.errors: list[str] = []
        self.modules = 0
        self.handle = library.capi.LLVMContextCreate()
        # Without a handler LLVM prints the diagnostic and calls exit(1).
        self._handler = capi.DIAGNOSTIC_HANDLER(self._diagnose)
        library.capi.LLVMContextSetDiagnosticHandler(self.handle, self._handler, None)

    def _diagnose(self, info: int, _data: int) -> None:
        api = self.library.capi
        if api.LLVMGetDiagInfoSeverity(info) == capi.SEVERITY_ERROR:
            self.errors.append(api.take_message(api.LLVMGetDiagInfoDescription(info)))

    def take_errors(self) -> str:
        errors, self.errors = self.errors, []
        return "; ".join(errors)

    def release(self) -> None:
        self.modules -= 1
        if not self.modules:
            self.library.capi.LLVMContextDispose(self.handle)


class Module:
    """One LLVM module. Made by `parse`, `clone`, `extract` or `split`; closed by `close` or `with`."""

    def __init__(self, handle: int, context: _Context) -> None:
        self._handle: int | None = handle
        self._context = context
        context.modules += 1

    @classmethod
    def parse(cls, source: str | bytes, name: str = "module", library: Library | None = None) -> Self:
        """Read IR text or bitcode, and verify it.

        Args:
            source: text (str, or bytes in UTF-8) or bitcode.
            name: what messages call it, such as the file's path.
            library: the LLVM to use; the one in force when absent.

        Raises:
            LLVMError: it does not parse or verify; the message is LLVM's, with line and column.
        """
        library = library or load()
        context = _Context(library)
        try:
            module = cls._read(context, source.encode() if isinstance(source, str) else source, name)
        except LLVMError:
            library.capi.LLVMContextDispose(context.handle)
            raise
        try:
            module.verify()
        except LLVMError:
            module.close()
            raise
        return module

    @classmethod
    def _read(cls, context: _Context, data: bytes, name: str) -> Self:
        """A module in a context, from IR text or bitcode."""
        api = context.library.capi
        buffer = api.LLVMCreateMemoryBufferWithMemoryRangeCopy(data, len(data), encoded(name))
        handle, message = ctypes.c_void_p(), ctypes.c_void_p()
        failed = api.LLVMParseIRInContext(context.handle, buffer, ctypes.byref(handle), ctypes.byref(message))
        said = api.take_message(message.value)
        if failed or not handle.value:
            said = said or context.take_errors() or "not LLVM IR"
            raise LLVMError(said.strip() if name in said else f"{name}: {said.strip()}")
        return cls(handle.value, context)

    def discard_value_names(self) -> None:
        """Give values that passes make from now on no names, in every module of this context.

        States of a module that differ in such names alone then print the same.
        """
        self._api.LLVMContextSetDiscardValueNames(self._context.handle, True)

    def clone(self) -> Self:
        """A copy in the same context."""
        return type(self)(self._api.LLVMCloneModule(self._module), self._context)

    def close(self) -> None:
        """Give the memory back; a second call does nothing."""
        if self._handle is not None:
            self._api.LLVMDisposeModule(self._handle)
            self._handle = None
            self._context.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    # What is in it

    @property
    def library(self) -> Library:
        """The LLVM it lives in."""
        return self._context.library

    @property
    def triple(self) -> str:
        """The target it was compiled for; LLVM's default where it names none."""
        return self._api.LLVMGetTarget(self._module).decode() or self.library.default_triple

    @property
    def instruction_count(self) -> int:
        """The instructions of all defined functions, as LLVM's `instcount` counts them."""
        counter = getattr(self._api, capi.MODULE_INSTRUCTION_COUNT, None)
        if counter is not None:
            return counter(self._module)
        return sum(self._walk_count(function) for function in self._defined())

    def functions(self) -> tuple[FunctionSize, ...]:
        """The defined functions in order, with their instruction counts."""
        return tuple(FunctionSize(self._name(it), self._function_count(it)) for it in self._defined())

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """The defined functions in order, each as LLVM prints it."""
        for function in self._defined():
            pointer = self._api.LLVMPrintValueToString(function)
            yield self._name(function), ctypes.string_at(pointer)
            self._api.LLVMDisposeMessage(pointer)

    def has_attribute(self, name: str) -> bool:
        """Whether any defined function carries an attribute, such as `alwaysinline`."""
        return bool(self.with_attribute(name))

    def with_attribute(self, name: str) -> set[str]:
        """The names of the defined functions that carry an attribute."""
        return {self._name(function) for function in self._defined() if self._has(function, name.encode())}

    @property
    def may_be_outlined(self) -> bool:
        """Whether code generation may move code into functions of its own: they lie outside of any section that was
        chosen for the code, return plainly where it was to return by a thunk, and take along the mark without which a
        function may not be called through its address (-fcf-protection).
        """
        placed = any(self._api.LLVMGetSection(it) not in _USUAL_SECTIONS for it in self._defined())
        marks = self._flag(b"cf-protection-branch") is not None
        return not placed and not marks and not self.has_attribute("fn_ret_thunk_extern")

    @property
    def is_loaded(self) -> bool:
        """Whether it may become part of a library, whose symbols another one's may replace when both are loaded."""
        return self._flag(b"PIC Level") is not None and self._flag(b"PIE Level") is None

    @property
    def interposed(self) -> bool:
        """Whether any symbol may be replaced when the module is loaded (`-fsemantic-interposition`)."""
        return self._flag(b"SemanticInterposition") is not None

    @property
    def inlines_calls(self) -> bool:
        """Whether a call asks to be inlined, whatever the function says, as `flatten` makes all of a function's do."""
        text = self.to_text()
        groups = "|".join(_INLINED.findall(text))
        return bool(groups) and re.search(rf"^ .*\b(?:call|invoke) .* #(?:{groups})\b", text, re.MULTILINE) is not None

    def declares(self, name: str) -> bool:
        """Whether there is a function of that name, which the module need not define."""
        return bool(self._api.LLVMGetNamedFunction(self._module, name.encode()))

    @property
    def undefined(self) -> set[str]:
        """The functions and variables that it uses and others define, less what LLVM knows from the C library: calls of
        those come and go with any pass.
        """
        api = self._api
        declared = [
            (value, kind)
            for kind in ("Function", "Global")
            for value in self._values(kind)
            if api.LLVMIsDeclaration(value) and api.LLVMGetFirstUse(value)
        ]
        functions = {self._name(it): it for it, kind in declared if kind == "Function"}
        functions = {name: it for name, it in functions.items() if not name.startswith("llvm.")}
        variables = {self._name(it) for it, kind in declared if kind == "Global"}
        return variables | (functions.keys() - self._of_library(functions))

    @property
    def variables(self) -> int:
        """How many variables it defines that are no constants."""
        api = self._api
        return sum(
            1 for it in self._values("Global") if not (api.LLVMIsDeclaration(it) or api.LLVMIsGlobalConstant(it))
        )

    def _of_library(self, functions: Mapping[str, int]) -> set[str]:
        """Those that LLVM knows: it adds attributes to their declarations."""
        api, context = self._api, self._context
        with Module(api.LLVMModuleCreateWithNameInContext(b"declarations", context.handle), context) as alone:
            api.LLVMSetTarget(alone._module, api.LLVMGetTarget(self._module))
            api.LLVMSetDataLayout(alone._module, api.LLVMGetDataLayoutStr(self._module))
            made = {
                name: api.LLVMAddFunction(alone._module, encoded(name), api.LLVMGlobalGetValueType(function))
                for name, function in functions.items()
            }
            alone._run("inferattrs")
            return {name for name, function in made.items() if alone._attributes(function)}

    def _attributes(self, function: int) -> int:
        """How many attributes a function, its result and its parameters have."""
        indices = (capi.FUNCTION_INDEX, *range(self._api.LLVMCountParams(function) + 1))
        return sum(self._api.LLVMGetAttributeCountAtIndex(function, it) for it in indices)

    @property
    def native_size(self) -> int:
        """Bytes of code and data of the object this module becomes (`objects.code_size`).

        Raises:
            LLVMError: as `emit`; or the target is not ELF.
        """
        return objects.code_size(self.emit("obj"))

    def native_sizes(self) -> tuple[int, objects.Beside, tuple[FunctionSize, ...]]:
        """`native_size`, what the object has beside that, and the defined functions with the bytes each became.

        A function's bytes are None where it has no symbol of its own in the object.
        """
        image = self.emit("obj")
        sizes = objects.function_sizes(image)
        functions = tuple(FunctionSize(it.name, it.instructions, sizes.get(it.name)) for it in self.functions())
        return objects.code_size(image), objects.beside(image), functions

    # What can be done to it

    def verify(self) -> None:
        """Check LLVM's rules for well-formed IR.

        Raises:
            LLVMError: with the first thing that is wrong.
        """
        message = ctypes.c_void_p()
        broken = self._api.LLVMVerifyModule(self._module, capi.RETURN_STATUS, ctypes.byref(message))
        said = self._api.take_message(message.value)
        if broken:
            raise LLVMError(f"invalid IR: {said.strip()}")

    def run(self, passes: PassList | str) -> None:
        """Run a pass list on this module, in place.

        Raises:
            LLVMError: LLVM does not know a pass, or lacks the module's target.
        """
        self._run(str(passes))

    def run_oz(self) -> None:
        """Run what `clang -Oz` runs. The functions must be marked for size: clang does, or `mark_for_size`."""
        self._run(self.library.oz_pipeline)

    def mark_for_size(self) -> None:
        """Mark every function `minsize optsize`, as -Oz would have.

        A module made by -O0 has `optnone noinline` on every function, which stops every pass; both go.
        Where only some functions carry `optnone`, the author asked for it, and it stays.
        """
        functions = [it for it in self._defined() if not self._has(it, b"naked")]
        unoptimised = bool(functions) and all(self._has(it, b"optnone") for it in functions)
        for function in functions:
            if unoptimised:
                for attribute in (b"optnone", b"noinline"):
                    kind = self._attribute_kind(attribute)
                    self._api.LLVMRemoveEnumAttributeAtIndex(function, capi.FUNCTION_INDEX, kind)
            elif self._has(function, b"optnone"):
                continue
            for attribute in _SIZE_ATTRIBUTES:
                made = self._api.LLVMCreateEnumAttribute(self._context.handle, self._attribute_kind(attribute), 0)
                self._api.LLVMAddAttributeAtIndex(function, capi.FUNCTION_INDEX, made)

    def mark(self, names: Collection[str], values: Mapping[str, str], without: Collection[str] = ()) -> None:
        """Give functions attributes, and take others from them.

        Args:
            names: of the functions.
            values: by the attributes' names; a function that has another value gets this one.
            without: attributes without a value, such as `minsize`.
        """
        api = self._api
        made = [self._string_attribute(name.encode(), value.encode()) for name, value in values.items()]
        kinds = [self._attribute_kind(it.encode()) for it in without]
        for function in (it for it in self._defined() if self._name(it) in names):
            for attribute in made:
                api.LLVMAddAttributeAtIndex(function, capi.FUNCTION_INDEX, attribute)
            for kind in kinds:
                api.LLVMRemoveEnumAttributeAtIndex(function, capi.FUNCTION_INDEX, kind)

    def keep_own_library(self) -> bool:
        """Forbid passes to put in calls of library functions that this module has itself; whether there are any.

        Its own may be a function, a second name of one, or something else that is called so. A helper of `strlen` that
        counts characters would become a call of `strlen`, and the two call each other for ever: a loop without an end,
        of which a pass then makes nothing at all.
        """
        api = self._api
        functions = list(self._defined())
        every = {self._name(it): it for it in self._values("Function")}
        bodies = {self._name(it): it for it in functions}
        aliases = {self._name(it): api.LLVMAliasGetAliasee(it) for it in self._values("GlobalAlias")}
        second = {name: bodies[self._name(it)] for name, it in aliases.items() if self._name(it) in bodies}
        # LLVM makes no call of a name that is something else in the module; parts do not see what the name is.
        known = self._of_library(every | second)
        strange = _MADE & (every.keys() - known)
        for kind in ("Global", "GlobalIFunc", "GlobalAlias"):
            strange |= _MADE & {self._name(it) for it in self._values(kind)}
        own = known & (bodies.keys() | second.keys()) | strange
        for name in sorted(own):
            attribute = self._string_attribute(f"no-builtin-{name}".encode())
            for function in functions:
                api.LLVMAddAttributeAtIndex(function, capi.FUNCTION_INDEX, attribute)
        return bool(own)

    def merge_equal(self) -> bool:
        """Make calls of one function of all that are equal to it (`mergefunc`); whether there are any.

        A function stays as it is where another one may take its place when a library is loaded, which the others would
        follow; and where it looks at its own frame.
        """
        api, before = self._api, self.fingerprint()
        looked_at = any(self._name(it).startswith(_FRAMES) for it in self._values("Function"))
        frames = [it.encode() for it in _FRAMES]
        apart = {name for name, text in self.texts() if any(it in text for it in frames)} if looked_at else set[str]()
        if self.is_loaded:
            apart |= {self._name(it) for it in self._defined() if self._is_exported(it)}
        for name in apart:
            value = encoded(name)
            function = api.LLVMGetNamedFunction(self._module, value)
            api.LLVMAddAttributeAtIndex(function, capi.FUNCTION_INDEX, self._string_attribute(_APART, value))
        self._run("mergefunc")
        for function in self._defined():
            api.LLVMRemoveStringAttributeAtIndex(function, capi.FUNCTION_INDEX, _APART, len(_APART))
        return self.fingerprint() != before

    def _is_exported(self, function: int) -> bool:
        return (
            self._api.LLVMGetLinkage(function) == capi.EXTERNAL
            and self._api.LLVMGetVisibility(function) == capi.DEFAULT_VISIBILITY
        )

    def extract(self, *names: str) -> Self:
        """Those functions, with the declarations and variables they need, as a module of its own.

        What else the module defines becomes a declaration or goes. The functions, and the internal
        variables they write, become visible from outside: an optimiser must not conclude from their
        being alone that nobody else calls or reads them.

        Raises:
            LLVMError: the module defines no function of that name.
        """
        wanted = set(names)
        missing = wanted - {self._name(function) for function in self._defined()}
        if missing:
            raise LLVMError(f"no function '{min(missing)}' is defined in the module")
        return self._extracted(wanted, self._replaceable())

    def _extracted(self, wanted: set[str], replaceable: set[str]) -> Self:
        part = self.clone()
        part._keep_only(wanted, replaceable)
        return part

    def _replaceable(self) -> set[str]:
        """The functions in whose place the linker may put others."""
        return {self._name(it) for it in self._defined() if self._api.LLVMGetLinkage(it) in (capi.WEAK, capi.LINKONCE)}

    def split(self, *names: str) -> Iterator[tuple[str, Self]]:
        """Every defined function as a module of its own, or those named; the caller closes each.

        The module is halved again and again, so that the cost is the size times its logarithm, not
        the size times the number of functions.
        """
        yield from self._split(set(names), self._replaceable())

    def _split(self, names: set[str], replaceable: set[str]) -> Iterator[tuple[str, Self]]:
        """As `split`; of a half it is not seen any more what was `_replaceable` in the whole."""
        wanted = names or {self._name(function) for function in self._defined()}
        ordered = [name for function in self._defined() if (name := self._name(function)) in wanted]
        if len(ordered) > 8:
            for half in (ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]):
                with self._extracted(set(half), replaceable) as part:
                    yield from part._split(set(), replaceable)
        else:
            for name in ordered:
                yield name, self._extracted({name}, replaceable)

    # What it becomes

    def to_text(self) -> str:
        """The module as LLVM prints it."""
        return self._api.take_message(self._api.LLVMPrintModuleToString(self._module))

    def fingerprint(self) -> bytes:
        """Eight bytes that two modules share when LLVM prints the same text for them, predecessors left out:
        their order is that of the uses of each block, which passes change that change nothing else.
        """
        pointer = self._api.LLVMPrintModuleToString(self._module)
        text = _PREDECESSORS.sub(b"", ctypes.string_at(pointer))
        made = hashlib.blake2b(text, digest_size=8).digest()
        self._api.LLVMDisposeMessage(pointer)
        return made

    def to_bitcode(self) -> bytes:
        """The module as bitcode of the loaded LLVM's version."""
        return self._api.take_buffer(self._api.LLVMWriteBitcodeToMemoryBuffer(self._module))

    def emit(self, kind: Literal["obj", "asm"]) -> bytes:
        """Native code, as `clang` generates it from finished IR at -Oz. The module stays as it is.

        Raises:
            LLVMError: the library lacks the target, or code generation fails.
        """
        with self.clone() as copy:  # code generation rewrites the module it is given
            buffer, message = ctypes.c_void_p(), ctypes.c_void_p()
            file_type = capi.OBJECT_FILE if kind == "obj" else capi.ASSEMBLY_FILE
            failed = self._api.LLVMTargetMachineEmitToMemoryBuffer(
                self._machine, copy._module, file_type, ctypes.byref(message), ctypes.byref(buffer)
            )
            said = self._api.take_message(message.value) or self._context.take_errors()
            data = self._api.take_buffer(buffer.value) if not failed and buffer.value else b""
        if failed or said:
            raise LLVMError(f"code generation failed: {said or 'LLVM gave no reason'}")
        return data

    # Inside

    @property
    def _api(self) -> capi.CAPI:
        return self._context.library.capi

    @property
    def _module(self) -> int:
        if self._handle is None:
            raise ValueError("this module is closed")
        return self._handle

    @cached_property
    def _machine(self) -> int:
        return self.library.target_machine(self.triple.encode(), pic=self._flag(b"PIC Level") is not None)

    def _run(self, pipeline: str) -> None:
        error = self._api.LLVMRunPasses(self._module, pipeline.encode(), self._machine, self.library.pass_options)
        said = self._api.take_message(self._api.LLVMGetErrorMessage(error), error=True) if error else ""
        said = said or self._context.take_errors()
        if said:
            raise LLVMError(f"pass list '{pipeline}': {said}")

    def _keep_only(self, wanted: set[str], replaceable: set[str]) -> None:
        """Turn all but the wanted functions into declarations, and drop what is then unused."""
        api = self._api
        for variable in list(self._values("Global")):
            if api.LLVMGetLinkage(variable) == capi.APPENDING:  # llvm.used, llvm.global_ctors: roots of what goes
                api.LLVMDeleteGlobal(variable)
        for alias in list(self._values("GlobalAlias")):
            api.LLVMReplaceAllUsesWith(alias, api.LLVMAliasGetAliasee(alias))
            api.LLVMSetLinkage(alias, capi.INTERNAL)
        for ifunc in list(self._values("GlobalIFunc")):
            self._declare(ifunc)
        api.LLVMSetModuleInlineAsm2(self._module, b"", 0)
        replaced: list[str] = []
        for function in self._defined():
            api.LLVMSetComdat(function, None)
            if self._name(function) in wanted:
                local = api.LLVMGetLinkage(function) in (capi.INTERNAL, capi.PRIVATE)
                api.LLVMSetLinkage(function, capi.EXTERNAL)
                if local:
                    api.LLVMSetVisibility(function, capi.HIDDEN)
            elif self._name(function) in replaceable:
                replaced.append(self._name(function))
                api.LLVMSetLinkage(function, capi.AVAILABLE_EXTERNALLY)
            else:
                api.LLVMSetLinkage(function, capi.AVAILABLE_EXTERNALLY)
        linkages: dict[str, int] = {}
        # What was internal once stays local to the module, and so final, where any symbol may be replaced when loaded.
        dropped = capi.LINKONCE if self.interposed else capi.INTERNAL
        for variable in self._values("Global"):
            if not api.LLVMIsDeclaration(variable):
                linkage = api.LLVMGetLinkage(variable)
                api.LLVMSetComdat(variable, None)
                if linkage != capi.PRIVATE:
                    if not self._name(variable):
                        api.LLVMSetValueName2(variable, b"unnamed", 7)  # LLVM makes it unique
                    linkages[self._name(variable)] = linkage
                    if linkage != capi.INTERNAL:
                        api.LLVMSetLinkage(variable, dropped)
        self._run("globaldce,elim-avail-extern,globaldce,strip-dead-prototypes")
        for name in replaced:  # another file may have it, even as a second name of something that is here
            if function := api.LLVMGetNamedFunction(self._module, encoded(name)):
                api.LLVMSetLinkage(function, capi.EXTERNAL_WEAK)
        for name, linkage in linkages.items():
            variable = api.LLVMGetNamedGlobal(self._module, encoded(name))
            if not variable:
                continue
            if linkage != capi.INTERNAL:
                api.LLVMSetLinkage(variable, linkage)
            elif not api.LLVMIsGlobalConstant(variable):
                api.LLVMSetLinkage(variable, capi.EXTERNAL)
                api.LLVMSetVisibility(variable, capi.HIDDEN)

    def _flag(self, name: bytes) -> int | None:
        """A module flag's metadata."""
        return self._api.LLVMGetModuleFlag(self._module, name, len(name)) or None

    def _declare(self, ifunc: int) -> None:
        """Put a declared function in place of one whose body a resolver picks at load time."""
        api, name = self._api, encoded(self._name(ifunc))
        api.LLVMSetValueName2(ifunc, b"", 0)
        declared = api.LLVMAddFunction(self._module, name, api.LLVMGlobalGetValueType(ifunc))
        api.LLVMReplaceAllUsesWith(ifunc, declared)
        api.LLVMEraseGlobalIFunc(ifunc)

    def _values(self, kind: str) -> Iterator[int]:
        first, following = getattr(self._api, f"LLVMGetFirst{kind}"), getattr(self._api, f"LLVMGetNext{kind}")
        value = first(self._module)
        while value:
            yield value
            value = following(value)

    def _defined(self) -> Iterator[int]:
        return (it for it in self._values("Function") if not self._api.LLVMIsDeclaration(it))

    def _name(self, value: int) -> str:
        length = ctypes.c_size_t()
        start = self._api.LLVMGetValueName2(value, ctypes.byref(length))
        return ctypes.string_at(start, length.value).decode("utf-8", "surrogateescape")

    def _function_count(self, function: int) -> int:
        counter = getattr(self._api, capi.FUNCTION_INSTRUCTION_COUNT, None)
        return counter(function) if counter is not None else self._walk_count(function)

    def _walk_count(self, function: int) -> int:
        return sum(1 for block in self._blocks(function) for _ in self._instructions(block))

    def _blocks(self, function: int) -> Iterator[int]:
        block = self._api.LLVMGetFirstBasicBlock(function)
        while block:
            yield block
            block = self._api.LLVMGetNextBasicBlock(block)

    def _instructions(self, block: int) -> Iterator[int]:
        instruction = self._api.LLVMGetFirstInstruction(block)
        while instruction:
            yield instruction
            instruction = self._api.LLVMGetNextInstruction(instruction)

    def _string_attribute(self, name: bytes, value: bytes = b"") -> int:
        return self._api.LLVMCreateStringAttribute(self._context.handle, name, len(name), value, len(value))

    def _attribute_kind(self, name: bytes) -> int:
        return self._api.LLVMGetEnumAttributeKindForName(name, len(name))

    def _has(self, function: int, attribute: bytes) -> bool:
        kind = self._attribute_kind(attribute)
        return bool(self._api.LLVMGetEnumAttributeAtIndex(function, capi.FUNCTION_INDEX, kind))


def encoded(name: str) -> bytes:
    """A name as LLVM has it: any bytes."""
    return name.encode("utf-8", "surrogateescape")
