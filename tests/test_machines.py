"""What was learned for a family of machines is for them alone, and every machine has something."""

import pytest

from secondpass.driver.attributes import variations
from secondpass.driver.codegen import changed, names_of, usual
from secondpass.driver.machines import family, learned, learned_for

THUMB = "thumbv7m-none-eabi"


@pytest.mark.parametrize(
    ("triple", "expected"),
    [
        ("x86_64-unknown-linux-gnu", "x86"),
        ("i686-pc-linux-gnu", "x86"),
        (THUMB, "arm"),
        ("armv7-unknown-linux-gnueabihf", "arm"),
        ("riscv32-unknown-elf", "riscv"),
    ],
)
def test_machines_of_a_family_have_what_was_learned_for_it(triple, expected):
    assert family(triple) == expected and learned_for(triple) is learned()[expected]


@pytest.mark.parametrize(
    "triple", ["aarch64-unknown-linux-gnu", "arm64-apple-ios", "mipsel-unknown-elf", "avr", "wasm32"]
)
def test_the_rest_have_what_another_family_has(triple):
    assert family(triple) is None
    assert learned_for(triple) in learned().values() and learned_for(triple) is not learned()["x86"]


def test_arm_begins_elsewhere_than_x86():
    arm, x86 = learned()["arm"], learned()["x86"]
    assert usual(THUMB) == arm.first != x86.first and arm.changes != x86.changes
    assert not any("x86" in it for it in (*arm.first, *arm.changes))
    assert not any(it.processor for it in variations(THUMB))


@pytest.mark.parametrize("name", learned())
def test_what_ships_is_whole(name):
    it = learned()[name]
    assert len(names_of(it.first)) == len(it.first) and len(set(it.changes)) == len(it.changes) > 20
    assert not any("outline" in option for option in it.first)  # lists are compared with these
    assert all(changed(it.first, option) != it.first for option in it.changes)
