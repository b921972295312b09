"""The errors a user can meet: one small family, so that a caller can catch it whole.

A message names the input, says what was wrong and what to do about it. The command line prints
that message as its only line and exits with `exit_code`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


class SecondpassError(Exception):
    """Base of every error this package raises on purpose; the fault is in the input or the set-up."""

    exit_code = 2


class LLVMError(SecondpassError):
    """LLVM refused something: text that does not parse, a pass list it does not know, a target it lacks."""


class PassListError(SecondpassError):
    """A pass list that is not well formed, or that names a pass outside the vocabulary."""


class ToolchainError(SecondpassError):
    """The LLVM library, clang or the model cannot be found or is not usable."""


class InputError(SecondpassError):
    """An input file that cannot be read, compiled or optimised, or an output that cannot be written."""


class OzError(InputError):
    """A module of which LLVM's own -Oz makes nothing: it crashes, or finds a fault in what it has made."""


class SandboxError(SecondpassError):
    """The sandbox itself failed (not the code it ran): its server died or could not start."""

    exit_code = 1


class ModelError(SecondpassError):
    """A model, tokenizer or training file that is missing, broken or does not fit the others."""


class EngineError(SecondpassError):
    """An engine was asked for what it cannot do."""


class EngineStopped(EngineError):
    """An engine that stopped in the middle of many functions: it raised an error, or its process died."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        """Say what stopped it; the exit code is that of the error behind it, or 1."""
        super().__init__(message)
        self.exit_code = exit_code


class PromptTooLong(EngineError):
    """A prompt that leaves no room for an answer in the model's context.

    Attributes:
        tokens: length of the prompt.
        context_length: tokens the model reads and writes at most.
    """

    def __init__(self, tokens: int, context_length: int) -> None:
        """Say both lengths."""
        super().__init__(
            f"the prompt has {tokens} tokens and leaves no room for an answer in the model's context of "
            f"{context_length}; take a smaller function or a model with a longer context"
        )
        self.tokens = tokens
        self.context_length = context_length


class CorpusError(SecondpassError):
    """A corpus or label file that is missing, corrupt, in use, or made with other versions."""


class ClusterError(SecondpassError):
    """A Ray cluster that cannot be reached, whose nodes do not fit each other, or that fails every batch."""


def run_script(main: Callable[[], int | None]) -> int:
    """The exit code of a script's `main`; an error of this family is the script's only line, as on the command line."""
    try:
        return main() or 0
    except SecondpassError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
