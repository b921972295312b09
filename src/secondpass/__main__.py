"""The command: `secondpass`, `python -m secondpass`, `secondpass-cc` and `secondpass-c++`.

A build calls the compiler driver thousands of times, so it does not wait for what other commands import.
"""

import sys
from pathlib import Path

DRIVERS = {"cc": "c", "c++": "c++"}


def main() -> int:
    """Run what was called, and return its exit code."""
    program, words = Path(sys.argv[0]).name, sys.argv[1:]
    if program.startswith("secondpass-"):
        words = [program.removeprefix("secondpass-"), *words]
    if words and words[0] in DRIVERS:
        from secondpass.driver.driver import main as drive

        return drive(DRIVERS[words[0]], words[1:])
    from secondpass.cli import main as run

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
