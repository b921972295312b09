"""Settings of all tests, and the corpus that several of them read."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from compiling import CODEC, CODEC_CHECK, PROGRAM, SECONDPASS
from hypothesis import HealthCheck, settings

# The tests share their cores with whatever else runs: time says nothing about an example.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """The example programs as a corpus of three projects, one a split, and their labels; made by the commands."""
    pytest.importorskip("pyarrow", reason="needs secondpass[corpus]")
    folder = tmp_path_factory.mktemp("labelled")
    corpus, labels = folder / "corpus", folder / "labels.parquet"
    projects = {"train": PROGRAM[1:], "validation": PROGRAM[:1], "test": [CODEC]}
    for split, files in projects.items():
        _run("corpus", "files", *files, "--project", f"for-{split}", "--split", split, "--out", corpus)
    _run("tune", corpus, "--budget", "30", "--out", labels)
    return SimpleNamespace(corpus=corpus, labels=labels)


@pytest.fixture(scope="session")
def golden_program():
    """What the program of several files prints."""
    return (CODEC_CHECK.parent / "program.txt").read_text()


def _run(*words: str | Path) -> None:
    subprocess.run([SECONDPASS, *map(str, words)], check=True, capture_output=True)
