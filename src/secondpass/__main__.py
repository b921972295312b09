"""The command: `secondpass`, `python -m secondpass`, `secondpass-cc` and `secondpass-c++`.

A build calls the compiler driver thousands of times, so it does not wait for what other commands import.
"""

import os
import sys

DRIVERS = {"cc": "c", "c++": "c++"}


def main() -> int:
    """Run what was called, and return its exit code."""
    program, words = os.path.basename(sys.argv[0]), sys.argv[1:]
    if program.startswith("secondpass-"):
        words = [program.removeprefix("secondpass-"), *words]
    if words and words[0] in DRIVERS:
        from secondpass.driver.client import ask

        language, words = DRIVERS[words[0]], words[1:]
        code = ask(language, words)
        if code is not None:
            return code
        from secondpass.driver.driver import main as drive

        return drive(language, words)
    from secondpass.cli import main as run

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
