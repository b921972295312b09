"""Every function of libLLVM that we call, typed once, and nothing else.

Nearly all are LLVM's C API (llvm-c/*.h, LLVM 17 to 23). The two counting functions are C++ members
that libLLVM exports under stable mangled names; walking instructions through the C API from Python
costs a call an instruction, a third of the time of a short pass list. Where a build hides them,
`Module` walks.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path
from typing import Any

from secondpass.errors import ToolchainError

Handle = int | None
"""An opaque LLVM pointer; None is null."""

DIAGNOSTIC_HANDLER = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)

MODULE_INSTRUCTION_COUNT = "_ZNK4llvm6Module19getInstructionCountEv"
FUNCTION_INSTRUCTION_COUNT = "_ZNK4llvm8Function19getInstructionCountEv"
DEMANGLE = "__cxa_demangle"
"""Of the C++ library that libLLVM uses (cxxabi.h): its functions can be asked for under libLLVM's handle."""

# LLVMLinkage, LLVMVisibility (llvm-c/Core.h)
EXTERNAL, AVAILABLE_EXTERNALLY, LINKONCE_ODR, WEAK, WEAK_ODR, APPENDING, INTERNAL, PRIVATE = 0, 1, 3, 5, 6, 7, 8, 9
LINKONCE, EXTERNAL_WEAK = 2, 12
DEFAULT_VISIBILITY, HIDDEN = 0, 1
# LLVMUnnamedAddr
GLOBAL_UNNAMED = 2
# LLVMVerifierFailureAction (llvm-c/Analysis.h)
RETURN_STATUS = 2
# LLVMDiagnosticSeverity
SEVERITY_ERROR = 0
# LLVMCodeGenOptLevel, LLVMRelocMode, LLVMCodeModel, LLVMCodeGenFileType (llvm-c/TargetMachine.h)
CODEGEN_DEFAULT = 2
RELOC_STATIC, RELOC_PIC = 1, 2
CODE_MODEL_DEFAULT = 0
ASSEMBLY_FILE, OBJECT_FILE = 0, 1
# the attribute index that means the function itself
FUNCTION_INDEX = 0xFFFFFFFF

_P, _S, _U, _I, _Z = c_void_p, c_char_p, c_uint, c_int, c_size_t
_OUT = POINTER(c_void_p)

_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    # llvm-c/Core.h
    "LLVMGetVersion": (None, (POINTER(_U), POINTER(_U), POINTER(_U))),
    "LLVMDisposeMessage": (None, (_P,)),
    "LLVMContextCreate": (_P, ()),
    "LLVMContextDispose": (None, (_P,)),
    "LLVMContextSetDiagnosticHandler": (None, (_P, DIAGNOSTIC_HANDLER, _P)),
    "LLVMGetDiagInfoDescription": (_P, (_P,)),
    "LLVMGetDiagInfoSeverity": (_I, (_P,)),
    "LLVMModuleCreateWithNameInContext": (_P, (_S, _P)),
    "LLVMCloneModule": (_P, (_P,)),
    "LLVMContextSetDiscardValueNames": (None, (_P, _I)),
    "LLVMDisposeModule": (None, (_P,)),
    "LLVMPrintModuleToString": (_P, (_P,)),
    "LLVMPrintValueToString": (_P, (_P,)),
    "LLVMGetTarget": (_S, (_P,)),
    "LLVMSetTarget": (None, (_P, _S)),
    "LLVMGetDataLayoutStr": (_S, (_P,)),
    "LLVMSetDataLayout": (None, (_P, _S)),
    "LLVMGetAttributeCountAtIndex": (_U, (_P, _U)),
    "LLVMGetAttributesAtIndex": (None, (_P, _U, _OUT)),
    "LLVMIsStringAttribute": (_I, (_P,)),
    "LLVMCountParams": (_U, (_P,)),
    "LLVMGetModuleFlag": (_P, (_P, _S, _Z)),
    "LLVMGetFirstFunction": (_P, (_P,)),
    "LLVMGetNextFunction": (_P, (_P,)),
    "LLVMGetNamedFunction": (_P, (_P, _S)),
    "LLVMGetFirstGlobal": (_P, (_P,)),
    "LLVMGetNextGlobal": (_P, (_P,)),
    "LLVMGetNamedGlobal": (_P, (_P, _S)),
    "LLVMGetFirstGlobalAlias": (_P, (_P,)),
    "LLVMGetNextGlobalAlias": (_P, (_P,)),
    "LLVMAliasGetAliasee": (_P, (_P,)),
    "LLVMGetFirstGlobalIFunc": (_P, (_P,)),
    "LLVMGetNextGlobalIFunc": (_P, (_P,)),
    "LLVMEraseGlobalIFunc": (None, (_P,)),
    "LLVMGlobalGetValueType": (_P, (_P,)),
    "LLVMGetSection": (_S, (_P,)),
    "LLVMAddFunction": (_P, (_P, _S, _P)),
    "LLVMSetModuleInlineAsm2": (None, (_P, _S, _Z)),
    "LLVMReplaceAllUsesWith": (None, (_P, _P)),
    "LLVMDeleteGlobal": (None, (_P,)),
    "LLVMIsDeclaration": (_I, (_P,)),
    "LLVMIsGlobalConstant": (_I, (_P,)),
    "LLVMGetValueName2": (_P, (_P, POINTER(_Z))),
    "LLVMSetValueName2": (None, (_P, _S, _Z)),
    "LLVMGetLinkage": (_I, (_P,)),
    "LLVMSetLinkage": (None, (_P, _I)),
    "LLVMSetVisibility": (None, (_P, _I)),
    "LLVMGetVisibility": (_I, (_P,)),
    "LLVMGetUnnamedAddress": (_I, (_P,)),
    "LLVMGetNamedMetadata": (_P, (_P, _S, _Z)),
    "LLVMStripModuleDebugInfo": (_I, (_P,)),
    "LLVMGetFirstUse": (_P, (_P,)),
    "LLVMGetNextUse": (_P, (_P,)),
    "LLVMGetUser": (_P, (_P,)),
    "LLVMIsACallInst": (_P, (_P,)),
    "LLVMIsAConstantArray": (_P, (_P,)),
    "LLVMIsAGlobalValue": (_P, (_P,)),
    "LLVMIsAInvokeInst": (_P, (_P,)),
    "LLVMIsAAllocaInst": (_P, (_P,)),
    "LLVMGetAllocatedType": (_P, (_P,)),
    "LLVMGetCalledValue": (_P, (_P,)),
    "LLVMGetInstructionParent": (_P, (_P,)),
    "LLVMGetBasicBlockParent": (_P, (_P,)),
    "LLVMGetFirstBasicBlock": (_P, (_P,)),
    "LLVMGetNextBasicBlock": (_P, (_P,)),
    "LLVMGetFirstInstruction": (_P, (_P,)),
    "LLVMGetNextInstruction": (_P, (_P,)),
    "LLVMGetEnumAttributeKindForName": (_U, (_S, _Z)),
    "LLVMCreateEnumAttribute": (_P, (_P, _U, ctypes.c_uint64)),
    "LLVMCreateStringAttribute": (_P, (_P, _S, _U, _S, _U)),
    "LLVMAddAttributeAtIndex": (None, (_P, _U, _P)),
    "LLVMGetEnumAttributeAtIndex": (_P, (_P, _U, _U)),
    "LLVMRemoveEnumAttributeAtIndex": (None, (_P, _U, _U)),
    "LLVMRemoveStringAttributeAtIndex": (None, (_P, _U, _S, _U)),
    "LLVMCreateMemoryBufferWithMemoryRangeCopy": (_P, (_S, _Z, _S)),
    "LLVMGetBufferStart": (_P, (_P,)),
    "LLVMGetBufferSize": (_Z, (_P,)),
    "LLVMDisposeMemoryBuffer": (None, (_P,)),
    # llvm-c/Comdat.h, IRReader.h, BitWriter.h, Linker.h, Analysis.h, Error.h
    "LLVMGetComdat": (_P, (_P,)),
    "LLVMLinkModules2": (_I, (_P, _P)),
    "LLVMSetComdat": (None, (_P, _P)),
    "LLVMParseIRInContext": (_I, (_P, _P, _OUT, _OUT)),
    "LLVMWriteBitcodeToMemoryBuffer": (_P, (_P,)),
    "LLVMVerifyModule": (_I, (_P, _I, _OUT)),
    "LLVMGetErrorMessage": (_P, (_P,)),
    "LLVMDisposeErrorMessage": (None, (_P,)),
    # llvm-c/Transforms/PassBuilder.h
    "LLVMRunPasses": (_P, (_P, _S, _P, _P)),
    "LLVMCreatePassBuilderOptions": (_P, ()),
    "LLVMPassBuilderOptionsSetLoopInterleaving": (None, (_P, _I)),
    "LLVMPassBuilderOptionsSetLoopVectorization": (None, (_P, _I)),
    "LLVMPassBuilderOptionsSetSLPVectorization": (None, (_P, _I)),
    # llvm-c/Support.h
    "LLVMParseCommandLineOptions": (None, (_I, POINTER(_S), _S)),
    # llvm-c/Target.h, TargetMachine.h
    "LLVMGetModuleDataLayout": (_P, (_P,)),
    "LLVMABISizeOfType": (ctypes.c_uint64, (_P, _P)),
    "LLVMGetFirstTarget": (_P, ()),
    "LLVMGetNextTarget": (_P, (_P,)),
    "LLVMGetTargetName": (_S, (_P,)),
    "LLVMGetTargetFromTriple": (_I, (_S, _OUT, _OUT)),
    "LLVMGetDefaultTargetTriple": (_P, ()),
    "LLVMCreateTargetMachine": (_P, (_P, _S, _S, _S, _I, _I, _I)),
    "LLVMTargetMachineEmitToMemoryBuffer": (_I, (_P, _P, _I, _OUT, _OUT)),
}

_OPTIONAL: dict[str, tuple[Any, tuple[Any, ...]]] = {
    MODULE_INSTRUCTION_COUNT: (_U, (_P,)),
    FUNCTION_INSTRUCTION_COUNT: (_U, (_P,)),
    DEMANGLE: (_P, (_S, _P, _P, _P)),
}

# Backends that a libLLVM may have been built with, and the parts of each that emitting an object needs.
_TARGETS = (
    "AArch64 AMDGPU ARM AVR BPF Hexagon Lanai LoongArch M68k Mips MSP430 NVPTX PowerPC RISCV Sparc SystemZ VE"
    " WebAssembly X86 XCore Xtensa"
).split()
_TARGET_PARTS = ("TargetInfo", "Target", "TargetMC", "AsmPrinter", "AsmParser")


class CAPI:
    """The typed functions of one loaded libLLVM, as attributes under their C names."""

    def __init__(self, path: Path) -> None:
        try:
            # RTLD_LOCAL keeps the symbols of two libLLVMs in one process (numba's, a GPU driver's) apart.
            self._library = ctypes.CDLL(str(path), mode=ctypes.DEFAULT_MODE)
        except OSError as error:
            raise ToolchainError(f"{path}: cannot be loaded: {error}") from error
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self._library, name, None)
            if function is None:
                raise ToolchainError(f"{path}: not a libLLVM of version 17 to 23: it has no {name}")
            self._declare(name, function, result, arguments)
        for name, (result, arguments) in _OPTIONAL.items():
            function = getattr(self._library, name, None)
            if function is not None:
                self._declare(name, function, result, arguments)
        for target in _TARGETS:
            for part in _TARGET_PARTS:
                initialize = getattr(self._library, f"LLVMInitialize{target}{part}", None)
                if initialize is not None:
                    initialize.restype = None
                    initialize()

    def _declare(self, name: str, function: Any, result: Any, arguments: tuple[Any, ...]) -> None:
        function.restype = result
        function.argtypes = arguments
        setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"libLLVM function {name} is not declared in capi.py, or absent from this build")

    def take_message(self, pointer: Handle, *, error: bool = False) -> str:
        """Copy a C string LLVM allocated, and give it back."""
        if not pointer:
            return ""
        text = ctypes.string_at(pointer).decode("utf-8", "replace")
        (self.LLVMDisposeErrorMessage if error else self.LLVMDisposeMessage)(pointer)
        return text

    def take_buffer(self, buffer: Handle) -> bytes:
        """Copy the bytes of a memory buffer, and dispose of it."""
        data = ctypes.string_at(self.LLVMGetBufferStart(buffer), self.LLVMGetBufferSize(buffer))
        self.LLVMDisposeMemoryBuffer(buffer)
        return data
