"""What the README shows: its Python runs, and its commands have the options that it gives them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from compiling import CODEC, ROOT, SECONDPASS, unoptimised

README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = "\n".join(re.findall(r"^    (.*)$", README, re.MULTILINE)).replace("\\\n", " ")


def _commands() -> list[list[str]]:
    """The words of every command of ours, from `secondpass` on, but those of the compiler, which are clang's."""
    found = re.findall(r"(?:^|[\s/])(secondpass [a-z].*?)(?= && |$)", SHELL, re.MULTILINE)
    commands = [shlex.split(it, comments=True) for it in found]
    return [it for it in commands if it[1] not in ("cc", "c++")]


@cache
def _help(command: str) -> str:
    run = [SECONDPASS, *command.split(), "--help"]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda it: it.splitlines()[-1])
def test_its_python_runs(program: str, tmp_path: Path) -> None:
    shutil.copy(CODEC, tmp_path)
    (tmp_path / "a.ll").write_text(unoptimised(CODEC))
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.match(r"\d+ \d+", done.stdout)


@pytest.mark.parametrize("words", _commands(), ids=shlex.join)
def test_its_commands_have_their_options(words: list[str]) -> None:
    words = words[: words.index("--")] if "--" in words else words
    command = " ".join(words[1:3] if words[1] in ("corpus", "data") else words[1:2])
    options = {it.partition("=")[0] for it in words if re.match(r"--?[a-z]", it)}
    described = re.findall(r"^ +(-.*?)(?:  |$)", _help(command), re.MULTILINE)
    assert options <= set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", " ".join(described)))


def test_it_shows_python_and_every_command() -> None:
    assert len(PROGRAMS) == 2
    listed = re.findall(r"^    ([a-z]+) ", _help(""), re.MULTILINE)
    assert {words[1] for words in _commands()} == set(listed)
