"""The programs that a run starts: clang, builds, extraction. They end when the run does, with all that they started.

A build may hang, leave daemons behind, start children in sessions of their own, or outlive a run that was
killed. So what may do that carries a mark in its environment, which its children inherit, and is found again
by it: in this run or in a later one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_MARK = "SECONDPASS_BUILD"
_SECONDS_TO_END = 10.0


class Stopped(Exception):  # not a SecondpassError: it must not become a project's failure
    """The run is given up: nothing is started any more, and what ran was killed."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended; its output is empty where that went into a file."""

    code: int
    output: str
    errors: str


class Processes:
    """Runs programs until `stop`. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[subprocess.Popen[str], str | None] = {}
        self._stopped = False

    def run(
        self,
        command: Sequence[str],
        *,
        seconds: float,
        directory: Path | None = None,
        variables: Mapping[str, str] | None = None,
        mark: str | None = None,
        log: IO[bytes] | None = None,
    ) -> Finished:
        """Run a program to its end.

        Args:
            command: the program and its arguments.
            seconds: the longest it may take.
            directory: where it runs.
            variables: added to the environment.
            mark: what it and all its children are found by, see `end_marked`.
            log: takes both outputs.

        Raises:
            Stopped: the run was given up before it ended.
            KeyboardInterrupt: Ctrl-C ended it.
            subprocess.TimeoutExpired: it took longer; it is gone, and so is everything with its mark.
            OSError: it does not start.
        """
        environment = os.environ | (variables or {}) | ({_MARK: mark} if mark else {})
        with self._lock:
            if self._stopped:
                raise Stopped
            process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log or subprocess.PIPE,
                stderr=log or subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C is for this process, which ends the others
            )
            self._running[process] = mark
        try:
            with process:
                try:
                    output, errors = process.communicate(timeout=seconds)
                except BaseException:
                    _end(process, mark)
                    raise
        finally:
            with self._lock:
                del self._running[process]
        if self._stopped:
            raise Stopped
        if process.returncode == -signal.SIGINT:  # Ctrl-C, before it had a session of its own
            raise KeyboardInterrupt
        return Finished(process.returncode, output or "", errors or "")

    def stop(self) -> None:
        """End everything that runs, and start nothing any more. A second call does no harm."""
        with self._lock:
            self._stopped = True
            running = dict(self._running)
        for process, mark in running.items():
            _end(process, mark)


def _end(process: subprocess.Popen[str], mark: str | None) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if mark:
        end_marked(mark)


def end_marked(mark: str) -> None:
    """Kill every process whose environment carries the mark, and those they start meanwhile."""
    wanted = os.fsencode(f"{_MARK}={mark}")
    end = time.monotonic() + _SECONDS_TO_END
    while time.monotonic() < end:
        found = [pid for pid in _processes() if _carries(pid, wanted)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.02)  # a process that is dying still carries it


def _processes() -> list[int]:
    try:
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    except FileNotFoundError:  # no Linux
        return []


def _carries(pid: int, wanted: bytes) -> bool:
    try:
        return pid != os.getpid() and wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
