"""Symbols as tables and pages show them."""

import pytest

from secondpass.llvm.symbols import readable

LONG = "std::__1::basic_string<char, std::__1::char_traits<char>, std::__1::allocator<char>>"
MANGLED = "NSt3__112basic_stringIcNS_11char_traitsIcEENS_9allocatorIcEEEE"


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("main", "main"),
        ("_Z", "_Z"),
        ("_ZNK1a1S1fEi", "a::S::f(int) const"),
        ("_ZN12_GLOBAL__N_11fEv", "(anonymous namespace)::f()"),
        ("_Z1fB5cxx11v", "f()"),
        (f"_Z1f{MANGLED}", "f(std::__1::basic_string<…>)"),
        (f"_ZN12_GLOBAL__N_11fE{MANGLED}i{MANGLED}", "(anonymous namespace)::f(…)"),
        (f"_ZlsRK{MANGLED}S6_", "operator<<(…)"),
        (f"_ZNK1SclE{MANGLED}{MANGLED}", "S::operator()(…) const"),
        (f"_ZNK1SptE{MANGLED}{MANGLED}", "S::operator->(…) const"),
    ],
)
def test_readable_names_are_those_of_the_source_without_what_is_long(symbol, name):
    assert readable(symbol) == name
