"""What files are, by their suffixes."""

from __future__ import annotations

TYPE_CHECKING = False  # the driver's client imports this, and `typing` takes 5 ms
if TYPE_CHECKING:
    from typing import Literal

    Language = Literal["c", "c++"]

SOURCES: dict[str, Language] = {
    ".c": "c",
    **dict.fromkeys(".cc .cp .cxx .cpp .c++ .C .CC .CP .CXX .CPP .C++".split(), "c++"),
}
"""The languages of sources, as clang's `-x` names them."""
LANGUAGES: dict[str, str] = {**SOURCES, ".i": "cpp-output", ".ii": "c++-cpp-output"}
"""Those of preprocessed sources too; a file with another suffix is compiled by clang alone, or linked."""
IR = (".ll", ".bc")
"""LLVM's IR, as text and as bitcode."""
