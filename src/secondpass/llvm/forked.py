"""Code generation in a fork of this process, where LLVM's own options are in force that nothing takes back.

    image = forked.emitted(module, ["-regalloc=basic"], seconds=5)

A fork of a process that has LLVM loaded and the module read costs a few milliseconds; clang takes twenty before it
begins.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Sequence

from secondpass.llvm.fresh import begin_fork
from secondpass.llvm.module import Module


def emitted(module: Module, options: Sequence[str], seconds: float | None = None) -> bytes | None:
    """The object that a module becomes with options of LLVM's own, as they stand behind clang's `-mllvm`.

    This process must have no other thread, and no native code must have been made in it: some options are read once,
    for the first (`-regalloc`).

    Args:
        module: finished; it stays as it is.
        options: those that this LLVM does not have are passed over.
        seconds: of wall time; None for no limit.

    Returns:
        None where LLVM fails, ends its process or takes longer.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        _emit(theirs, module, options, seconds)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        try:
            image = pipe.read()
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(child, 0)
    return image if not status else None


def _emit(pipe: int, module: Module, options: Sequence[str], seconds: float | None) -> None:
    """What the fork does; it does not return."""
    code = 1
    try:
        begin_fork()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds or 0)  # 0 is none
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what LLVM says of options that do not go together
        module.library.set_options(options)
        with os.fdopen(pipe, "wb") as file:
            file.write(module.emit("obj"))
        code = 0
    finally:
        os._exit(code)
