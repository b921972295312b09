"""Sources with which a build system tries what the compiler can do, and which are no part of what is built."""

from __future__ import annotations

_FOLDERS = frozenset(("CMakeScratch", "CMakeTmp", "meson-private"))


def is_probe(path: str) -> bool:
    """Whether a file is written for a trial: by `configure` (conftest.c), CMake or Meson (in folders of their own).

    Args:
        path: with all its folders.
    """
    *folders, name = path.split("/")
    return name.startswith("conftest") or not _FOLDERS.isdisjoint(folders)
