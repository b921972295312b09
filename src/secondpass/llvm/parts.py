"""A module taken apart into its functions, to be optimised one by one, and put together again.

    with Parts(module) as parts:
        for level in parts.levels:
            for name in level:
                parts.put(name, optimised(parts.source(name)))
        whole = parts.assemble()

A list that is good for one function is bad for another, and LLVM runs one list on a whole module. So each function
goes alone, callees first: with the bodies of the small functions it calls beside it, to be inlined but not emitted
(`available_externally`). What only a whole module can decide is decided before and after: a static function with a
single call is inlined beforehand, as -Oz would; symbols that are local to the module are visible while it is in
pieces and local again when it is whole.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from secondpass.errors import LLVMError
from secondpass.llvm import capi, debug_info
from secondpass.llvm.module import Module, encoded

CLEAN_UP = ("elim-avail-extern", "globaldce")
"""The passes that have to run behind a list on a part: they drop the bodies that were there to be inlined."""

_INLINABLE = 100
"""Instructions of the largest callee whose body a part gets: at -Oz none of this size is inlined."""
_APART = ".apart"
"""Behind the names of symbols that are local when the module is whole."""
_LOCAL = (capi.INTERNAL, capi.PRIVATE)
_BINDING = (capi.EXTERNAL, capi.AVAILABLE_EXTERNALLY, capi.LINKONCE_ODR, capi.WEAK_ODR, *_LOCAL)
"""Linkages under which the body that is there does what the one that will be linked does."""
_KEPT = ("llvm.used", "llvm.compiler.used")
_MERGED = (capi.AVAILABLE_EXTERNALLY, capi.LINKONCE_ODR, capi.WEAK_ODR)
"""Those under which the linker may take another body, that does the same but need not promise the same."""
_ALIKE = (
    b"denormal_fpenv",
    b"null_pointer_is_valid",
    b"optdebug",
    b"optnone",
    b"safestack",
    b"sanitize_address",
    b"sanitize_alloc_token",
    b"sanitize_hwaddress",
    b"sanitize_memory",
    b"sanitize_memtag",
    b"sanitize_numerical_stability",
    b"sanitize_realtime",
    b"sanitize_realtime_blocking",
    b"sanitize_thread",
    b"sanitize_type",
    b"shadowcallstack",
    b"speculative_load_hardening",
    b"strictfp",
)
"""Attributes in which a caller and what is inlined into it have to agree (llvm/IR/Attributes.td: CompatRule)."""
_DEEP_FRAME = 1024
"""Bytes of local variables that LLVM, too, inlines into no recursive function."""

_BODY = re.compile(r"^define [^\n]*?@([-\w.$]+|\"[^\"]*\")\(.*?^}", re.MULTILINE | re.DOTALL)
"""A function in IR text, with its name."""
_ALIAS = re.compile(
    r"""^(@(?:[-\w.$]+|"[^"]*"))\ =\ (?:[\w()]+\ )*alias\ (.*),\ ptr\ @([-\w.$]+|"[^"]*")$""", re.MULTILINE | re.VERBOSE
)
"""An alias in IR text: its name, its type, its target's name."""


class Parts:
    """The functions of a module. Close it, or use `with`.

    Args:
        module: unoptimised, with its functions marked for size. It is left as it is.

    Raises:
        LLVMError: the module cannot be taken apart; the message says why.
    """

    def __init__(self, module: Module) -> None:
        self._whole = _Whole.copy_of(module)
        try:
            self._whole.refuse()
            if self._whole.has_debug_info:
                with self._whole as before:
                    self._whole = _Whole.parse(debug_info.named(before.to_text()))
            self._aliases = self._whole.aliases()
            if self._aliases:
                with self._whole as before:
                    self._whole = _Whole.parse(before.without_aliases(self._aliases))
            pinned = self._whole.pin({it.target for it in self._aliases})
            self._whole.inline_single_calls()
            self._symbols = self._whole.expose() | pinned
            self._inside = {it.name or name: name for name, it in self._symbols.items()}
            whole_only = self._whole.with_labels()
            calls = self._whole.calls()
            self._callees = {name: its - whole_only for name, its in calls.items() if name not in whole_only}
            self._sizes = {it.name: it.instructions for it in self._whole.functions()}
            self._bodies: dict[str, bytes] = {}
            with self._whole.with_short_units() as short:
                for name, part in short.split(*self._callees) if self._callees else ():
                    self._bodies[name] = part.as_part(name, self._symbols[name].linkage)
        except BaseException:
            self.close()
            raise
        outside = {name: self._symbols[name].name or name for name in self._callees}
        self.names: Set[str] = set(outside.values())
        """The functions' names."""
        self.is_complete = not whole_only
        """Whether they are all; those whose labels have addresses stay in the whole: no part could name a block."""
        self.levels = tuple(tuple(outside[it] for it in level) for level in levels(self._callees))
        """The functions' names: those of a level call none of a later one, unless they call each other in a circle."""

    def close(self) -> None:
        """Give the memory back."""
        self._whole.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def source(self, name: str, counted: Set[str] | None = None) -> bytes:
        """A function alone, as it is now, with the bodies of the functions it may inline: bitcode.

        Args:
            name: of the function.
            counted: callees whose bodies stay where they are still called, even behind `CLEAN_UP`, so that the size
                of the part holds theirs. Such a part is for measuring, and without debug information; `put` wants one
                without these.
        """
        name = self._inside[name]
        with _Whole.parse(self._bodies[name], name) as part:
            for callee in sorted(self._inlinable(name)):
                elsewhere = self._symbols[callee].linkage == capi.AVAILABLE_EXTERNALLY
                part.lend(callee, self._bodies[callee], emitted=callee in (counted or ()) and not elsewhere)
            if counted is not None:
                part.strip_debug_info()
            return part.to_bitcode()

    def instructions(self, name: str) -> int:
        """What is in `source(name)`: the function's instructions as it is now, and those of what it may inline."""
        name = self._inside[name]
        return sum(self._sizes[it] for it in (name, *self._inlinable(name)))

    def _inlinable(self, name: str) -> set[str]:
        callees = self._callees[name] - {name}
        return {it for it in callees if self._symbols[it].linkage in _BINDING and self._sizes[it] <= _INLINABLE}

    def put(self, name: str, bitcode: bytes) -> None:
        """Take the optimised form of `source(name)`, after `CLEAN_UP`, for the function from now on.

        Raises:
            LLVMError: the bitcode does not parse, or does not define the function.
        """
        outside, name = name, self._inside[name]
        with _Whole.parse(bitcode, name) as part:
            sizes = {it.name: it.instructions for it in part.functions()}
            if name not in sizes:
                raise LLVMError(f"the optimised form of '{outside}' does not define it")
            if part.has_debug_info:  # of its callees too, which callers of this one need not have once more each
                with part.with_merged_nodes() as less:
                    bitcode = less.to_bitcode()
        self._bodies[name], self._sizes[name] = bitcode, sizes[name]

    def assemble(self) -> Module:
        """The module with every function as it is now; the caller closes it.

        Raises:
            LLVMError: LLVM cannot link the parts.
        """
        whole = _Whole.copy_of(self._whole)
        try:
            whole.replace(self._bodies, self._symbols)
            if whole.has_debug_info:
                with whole as linked:
                    whole = linked.with_merged_nodes(named=False)
            if self._aliases:
                with whole as linked:
                    whole = _Whole.parse(linked.with_aliases(self._aliases))
            whole.run(",".join(CLEAN_UP))
            whole.verify()
        except BaseException:
            whole.close()
            raise
        return whole


@dataclass(frozen=True, slots=True)
class _Symbol:
    """What a symbol was before the module was taken apart; its name, if it has another one meanwhile."""

    linkage: int
    visibility: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class _Alias:
    """A second name: as text has it (`@x`, `@"y z"`), its line, whether it is of a function, and the first name."""

    name: str
    line: str
    of_function: bool
    target: str

    @property
    def declaration(self) -> str:
        """A line that makes it a symbol of another module."""
        return f"declare void {self.name}()" if self.of_function else f"{self.name} = external global i8"


class _Whole(Module):
    """A module with the operations that taking it apart needs."""

    @classmethod
    def copy_of(cls, module: Module) -> Self:
        """A copy in the same context."""
        return cls(module._api.LLVMCloneModule(module._module), module._context)

    def refuse(self) -> None:
        """Raise LLVMError where parts could not be put together again."""
        if len(debug_info.units(self.to_text())) > 1:
            raise LLVMError("it has debug information of several sources: compile without -g, or each source by itself")
        if next(self._values("GlobalIFunc"), None):
            raise LLVMError("it has ifuncs, which need their resolvers beside them")
        aliases = list(self._values("GlobalAlias"))
        if aliases and self.interposed:
            raise LLVMError("it has aliases, and any symbol may be replaced when it is loaded")
        for alias in aliases:
            looked_at = any(self._looks_at(user, alias) for user in self._users(alias))
            if looked_at and self._api.LLVMGetLinkage(alias) not in _BINDING:
                raise LLVMError(f"its weak alias '{self._name(alias)}' is used otherwise than by a call")
            if self._means_another(alias, self._api.LLVMAliasGetAliasee(alias)):
                raise LLVMError(f"what its alias '{self._name(alias)}' is of may be replaced under its first name")
        if self.inlines_calls:
            raise LLVMError("it has calls that must be inlined, of functions that need not be")
        labels = self.with_labels()
        if labels and any(self._api.LLVMGetSection(it) for it in self._defined()):
            raise LLVMError("it has computed gotos, which change the order of functions, and functions in sections")
        for body in _BODY.finditer(self.to_text()) if labels else ():
            if set(re.findall(r"blockaddress\(@([^,]+),", body[0])) - {body[1]}:
                raise LLVMError("a function has the address of another one's block")

    def _looks_at(self, user: int, value: int) -> bool:
        """Whether a use is more than a direct call, or than being kept; a table may be read while it is optimised."""
        if self._api.LLVMIsAConstantArray(user):
            return any(self._name(it) not in _KEPT for it in self._users(user))
        return not self._is_call(user, value)

    def _means_another(self, alias: int, target: int) -> bool:
        """Whether a second name may be of another body than the first one, which it would be replaced by: the linker
        may choose among bodies of the first name, or the loader among libraries, and not of the second.
        """
        api = self._api
        linkage = api.LLVMGetLinkage(target) if api.LLVMIsAGlobalValue(target) else capi.EXTERNAL
        if linkage not in _BINDING:
            return True
        if not self.is_loaded or linkage in _LOCAL or not api.LLVMIsAGlobalValue(target):
            return False
        seen = api.LLVMGetLinkage(alias) not in _LOCAL and api.LLVMGetVisibility(alias) == capi.DEFAULT_VISIBILITY
        return api.LLVMGetVisibility(target) == capi.DEFAULT_VISIBILITY and not seen

    def with_labels(self) -> set[str]:
        """The functions that have the address of a block taken, as computed goto does."""
        # LLVM 23 keeps no uses of a block's address, so it is looked for in the text.
        return {_unquoted(name) for name in re.findall(r"blockaddress\(@([^,]+),", self.to_text())}

    @property
    def has_debug_info(self) -> bool:
        """Whether there is a compile unit."""
        name = b"llvm.dbg.cu"
        return bool(self._api.LLVMGetNamedMetadata(self._module, name, len(name)))

    def strip_debug_info(self) -> None:
        """Take debug information away."""
        self._api.LLVMStripModuleDebugInfo(self._module)

    def with_short_units(self) -> Self:
        """A copy whose compile units list nothing."""
        return self.parse(debug_info.without_lists(self.to_text())) if self.has_debug_info else self.copy_of(self)

    def with_merged_nodes(self, *, named: bool = True) -> Self:
        """A copy with the debug information of all that was linked as one; whether types keep the names they got.

        Raises:
            LLVMError: LLVM does not take it.
        """
        text = debug_info.merged(self.to_text())
        made = self.parse(text if named else debug_info.without_names(text))
        if not made.has_debug_info:  # what is not valid is dropped in silence
            made.close()
            raise LLVMError("the debug information of its parts cannot be put together")
        return made

    def aliases(self) -> list[_Alias]:
        """The second names of functions and variables, as the module's text has them.

        Raises:
            LLVMError: one is of a part of a variable.
        """
        kinds = "Function", "Global", "GlobalAlias"
        names = {self._name(it) for kind in kinds for it in self._values(kind)}
        found = [_Alias(it[1], it[0], it[2].endswith(")"), _unquoted(it[3])) for it in _ALIAS.finditer(self.to_text())]
        if len(found) != sum(1 for _ in self._values("GlobalAlias")) or any(it.target not in names for it in found):
            raise LLVMError("it has an alias of something else than a function or a variable")
        return found

    def without_aliases(self, aliases: Sequence[_Alias]) -> str:
        """The text with declarations in the place of aliases; what may not be replaced at link time is called by its
        first name, so that it can be inlined.
        """
        for alias in list(self._values("GlobalAlias")):
            if self._api.LLVMGetLinkage(alias) in _BINDING:
                self._api.LLVMReplaceAllUsesWith(alias, self._api.LLVMAliasGetAliasee(alias))
        declared = "".join(it.declaration + "\n" for it in aliases)
        return _ALIAS.sub("", self.to_text()) + declared

    def with_aliases(self, aliases: Sequence[_Alias]) -> str:
        """The text with the aliases again."""
        names = "|".join(re.escape(it.name) for it in aliases)
        declared = re.compile(rf"^(?:declare [^\n]*(?:{names})\([^\n]*|(?:{names}) = external [^\n]*)\n", re.MULTILINE)
        return declared.sub("", self.to_text()) + "".join(it.line + "\n" for it in aliases)

    def pin(self, names: Set[str]) -> dict[str, _Symbol]:
        """Keep functions and variables whatever becomes of their uses; what they were, by name."""
        pinned: dict[str, _Symbol] = {}
        for value in (*self._values("Function"), *self._values("Global")):
            if self._name(value) in names and not self._api.LLVMIsDeclaration(value):
                linkage = self._api.LLVMGetLinkage(value)
                pinned[self._name(value)] = _Symbol(linkage, self._api.LLVMGetVisibility(value))
                self._api.LLVMSetLinkage(value, capi.EXTERNAL)
                if linkage in _LOCAL:
                    self._api.LLVMSetVisibility(value, capi.HIDDEN)
        return pinned

    def inline_single_calls(self) -> None:
        """Inline static functions that are called in one place and used nowhere else, where -Oz would do it too.

        `always-inline` asks less than the inliner of -Oz. One that may use other instructions or fewer builtins than
        its caller stays, and one with much on its stack stays out of functions that call themselves, if through others:
        each of their frames would hold it.
        """
        api = self._api
        kind = self._attribute_kind(b"alwaysinline")
        marked: list[int] = []
        callees = self.calls()
        for function in self._defined():
            users = list(self._users(function))
            if (
                api.LLVMGetLinkage(function) in _LOCAL
                and len(users) == 1
                and (caller := self._caller(users[0], function))
                and self._demands(function) == self._demands(self._function(caller))
                and not (self._frame(function) > _DEEP_FRAME and _calls_itself(caller, callees))
                and not self._has(function, b"noinline")
                and not self._has(function, b"alwaysinline")
            ):
                made = api.LLVMCreateEnumAttribute(self._context.handle, kind, 0)
                api.LLVMAddAttributeAtIndex(function, capi.FUNCTION_INDEX, made)
                marked.append(function)
        self.run("always-inline,globaldce")
        for function in self._defined():
            if function in marked:  # one that calls itself stays
                api.LLVMRemoveEnumAttributeAtIndex(function, capi.FUNCTION_INDEX, kind)

    def expose(self) -> dict[str, _Symbol]:
        """Make local symbols visible, so that parts share them; all functions' and these as they were, by name."""
        api = self._api
        symbols: dict[str, _Symbol] = {}
        for kind in ("Function", "Global"):
            for value in self._values(kind):
                linkage = api.LLVMGetLinkage(value)
                local = linkage == capi.INTERNAL or (linkage == capi.PRIVATE and self._has_identity(value, kind))
                if api.LLVMIsDeclaration(value) or (kind == "Global" and not local):
                    continue
                if not self._name(value):
                    api.LLVMSetValueName2(value, b"unnamed", 7)  # LLVM makes it unique
                before = ""
                if local:  # under its own name a part would take it for what libraries have by that name
                    before = self._name(value)
                    self._rename(value, before + _APART)
                symbols[self._name(value)] = _Symbol(linkage, api.LLVMGetVisibility(value), before)
                if local:
                    api.LLVMSetLinkage(value, capi.EXTERNAL)
                    api.LLVMSetVisibility(value, capi.HIDDEN)
        return symbols

    def calls(self) -> dict[str, set[str]]:
        """For each defined function the defined functions it calls directly."""
        callees: dict[str, set[str]] = {self._name(function): set() for function in self._defined()}
        for function in self._defined():
            for user in self._users(function):
                if caller := self._caller(user, function):
                    callees[caller].add(self._name(function))
        return callees

    def as_part(self, name: str, linkage: int) -> bytes:
        """As bitcode, with variables that other parts see defined elsewhere; closes the module.

        What the linker may replace stays so, function and variables: nothing may be concluded from what is there.

        Args:
            name: of the function that it defines.
            linkage: which that has in the whole module.
        """
        with self:
            if linkage not in _BINDING or linkage in _MERGED:
                kept = capi.WEAK_ODR if linkage in _MERGED else capi.WEAK  # weak, not linkonce: it has no users here
                self._api.LLVMSetLinkage(self._function(name), kept)
            for variable in self._values("Global"):
                linkage = self._api.LLVMGetLinkage(variable)
                defined = not self._api.LLVMIsDeclaration(variable)
                if defined and linkage in _BINDING and linkage != capi.PRIVATE:
                    self._api.LLVMSetLinkage(variable, capi.AVAILABLE_EXTERNALLY)
            return self.to_bitcode()

    def lend(self, name: str, body: bytes, *, emitted: bool) -> None:
        """Link a function's body, to be inlined; whether it is emitted too, where it is still called."""
        self._link(body, name)
        self._api.LLVMSetLinkage(self._function(name), capi.LINKONCE_ODR if emitted else capi.AVAILABLE_EXTERNALLY)

    def replace(self, bodies: Mapping[str, bytes], symbols: Mapping[str, _Symbol]) -> None:
        """Give functions other bodies, and symbols what they were."""
        api = self._api
        comdats = {name: api.LLVMGetComdat(self._function(name)) for name in bodies}
        for name in bodies:
            api.LLVMSetComdat(self._function(name), None)
            api.LLVMSetLinkage(self._function(name), capi.AVAILABLE_EXTERNALLY)
        self.run("elim-avail-extern")
        for linked in self._as_one(bodies):
            self._take(linked)
        for name, symbol in symbols.items():
            value = self._function(name) or api.LLVMGetNamedGlobal(self._module, encoded(name))
            api.LLVMSetVisibility(value, capi.DEFAULT_VISIBILITY)  # the only one that local symbols may have
            api.LLVMSetLinkage(value, symbol.linkage)
            api.LLVMSetVisibility(value, symbol.visibility)
            if comdats.get(name):
                api.LLVMSetComdat(value, comdats[name])
            if symbol.name:  # which a library's function may have by now: then it keeps a number behind it
                self._rename(value, symbol.name)

    # Inside

    def _link(self, bitcode: bytes, name: str) -> None:
        self._take(self._read(self._context, bitcode, name))

    def _take(self, other: Self) -> None:
        """Link another module of the same context into this one; it is gone then."""
        handle, other._handle = other._module, None
        other._context.release()
        if self._api.LLVMLinkModules2(self._module, handle):
            raise LLVMError(f"a part cannot be linked: {self._context.take_errors()}")

    def _as_one(self, bodies: Mapping[str, bytes]) -> Iterator[Self]:
        """The modules of bitcode, linked in their order, each with its neighbour and so on: linking takes as long as
        both modules are large, and were each linked into the whole, twice the functions would take four times as long.
        """
        linked: list[tuple[int, Self]] = []

        def join() -> None:
            count, last = linked.pop()
            before, module = linked[-1]
            module._take(last)
            linked[-1] = (before + count, module)

        try:
            for name, body in bodies.items():
                linked.append((1, self._read(self._context, body, name)))
                while len(linked) > 1 and linked[-1][0] >= linked[-2][0]:
                    join()
            while len(linked) > 1:
                join()
            while linked:
                yield linked.pop()[1]
        finally:
            for _, module in linked:
                module.close()

    def _rename(self, value: int, name: str) -> None:
        self._api.LLVMSetValueName2(value, encoded(name), len(encoded(name)))

    def _function(self, name: str) -> int:
        return self._api.LLVMGetNamedFunction(self._module, encoded(name))

    def _has_identity(self, value: int, kind: str) -> bool:
        """Whether a copy of it would not do: a function, or a variable that is written or whose address counts."""
        return kind == "Function" or not (
            self._api.LLVMIsGlobalConstant(value) and self._api.LLVMGetUnnamedAddress(value) == capi.GLOBAL_UNNAMED
        )

    def _demands(self, function: int) -> set[int]:
        """Attributes that say what a function is compiled for and with; LLVM makes equal ones once."""
        api, index = self._api, capi.FUNCTION_INDEX
        found = (ctypes.c_void_p * api.LLVMGetAttributeCountAtIndex(function, index))()
        api.LLVMGetAttributesAtIndex(function, index, found)
        named = (api.LLVMGetEnumAttributeAtIndex(function, index, kind) for kind in self._alike)
        return {it for it in found if it and api.LLVMIsStringAttribute(it)} | {it for it in named if it}

    @cached_property
    def _alike(self) -> list[int]:
        """The kinds of `_ALIKE` that this LLVM has."""
        return [kind for it in _ALIKE if (kind := self._attribute_kind(it))]

    def _frame(self, function: int) -> int:
        """Bytes of a function's local variables."""
        api = self._api
        layout, size = api.LLVMGetModuleDataLayout(self._module), 0
        for block in self._blocks(function):
            for instruction in self._instructions(block):
                if api.LLVMIsAAllocaInst(instruction):
                    size += api.LLVMABISizeOfType(layout, api.LLVMGetAllocatedType(instruction))
        return size

    def _users(self, value: int) -> Iterator[int]:
        use = self._api.LLVMGetFirstUse(value)
        while use:
            yield self._api.LLVMGetUser(use)
            use = self._api.LLVMGetNextUse(use)

    def _caller(self, user: int, function: int) -> str:
        """The function in which a user calls another directly; empty where it does something else with it."""
        if not self._is_call(user, function):
            return ""
        return self._name(self._api.LLVMGetBasicBlockParent(self._api.LLVMGetInstructionParent(user)))

    def _is_call(self, user: int, function: int) -> bool:
        """Whether a user of a function, or of a second name, calls it directly."""
        api = self._api
        return bool(api.LLVMIsACallInst(user) or api.LLVMIsAInvokeInst(user)) and (
            api.LLVMGetCalledValue(user) == function
        )


def levels(callees: Mapping[str, Set[str]]) -> Iterator[tuple[str, ...]]:
    """Functions level by level, callees first; of those that call each other in a circle one has to come before."""
    depth: dict[str, int] = {}
    for root in callees:
        stack: list[tuple[str, Iterator[str]]] = [(root, iter(sorted(callees[root])))] if root not in depth else []
        depth.setdefault(root, 0)
        while stack:
            name, rest = stack[-1]
            callee = next(rest, None)
            if callee is None:
                stack.pop()
                if stack:
                    depth[stack[-1][0]] = max(depth[stack[-1][0]], depth[name] + 1)
            elif callee not in depth:
                depth[callee] = 0
                stack.append((callee, iter(sorted(callees[callee]))))
            elif callee not in (it for it, _ in stack):
                depth[name] = max(depth[name], depth[callee] + 1)
    for level in range(max(depth.values(), default=-1) + 1):
        yield tuple(name for name in callees if depth[name] == level)


def _calls_itself(name: str, callees: Mapping[str, Set[str]]) -> bool:
    """Whether a function does, if through others."""
    reached: set[str] = set()
    waiting = list(callees[name])
    while waiting:
        callee = waiting.pop()
        if callee not in reached:
            reached.add(callee)
            waiting += callees[callee]
    return name in reached


def _unquoted(name: str) -> str:
    """A name out of IR text, where it is quoted and bytes are escaped if it holds what names seldom hold."""
    if not name.startswith('"'):
        return name
    raw = re.sub(rb"\\([0-9A-Fa-f]{2})", lambda it: bytes([int(it[1], 16)]), name[1:-1].encode())
    return raw.decode("utf-8", "surrogateescape")
