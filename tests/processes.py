"""Processes that tests start, wait for and look for."""

import os
import sys
import time
from pathlib import Path

SLOW = "constexpr int f() { int s = 0; for (int i = 0; i < 1000000000; i++) s ^= i; return s; }\nstatic_assert(f());\n"
"""C++ that takes clang minutes, with `-fconstexpr-steps=2000000000`."""

_HEARING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


def hearing_ctrl_c(command):
    """A command that hears SIGINT, although the tests may run in the background, where it is ignored."""
    return [sys.executable, "-c", _HEARING, *map(str, command)]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def running(*words):
    """The processes that have all of these in their command line, but for this one."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                line = (path / "cmdline").read_bytes()
            except OSError:
                continue
            if all(word.encode() in line for word in words) and int(path.name) != os.getpid():
                found.append(int(path.name))
    return found
