"""Attributes of functions: each takes what suits it, and no program does anything else for it."""

import random
import re
import subprocess
from functools import partial

import pytest
from compiling import CODEC, LIBSTDCXX, clang, find_tool, linked_output, needs_linker, unoptimised, unoptimised_text

from secondpass.driver import attributes
from secondpass.driver.attributes import free, suited
from secondpass.driver.machines import learned_for
from secondpass.driver.smaller import smaller
from secondpass.llvm import objects
from secondpass.llvm.forked import emitted
from secondpass.llvm.module import Module

X86 = "x86_64-unknown-linux-gnu"
ASSEMBLY = 'int f(int x) { __asm__ volatile("" : : : "rbp"); return x; } int g(void) { return 1; }'
THROWS = r"""
#include <cstdio>
struct Counted { int &n; ~Counted() { n++; } };
__attribute__((noinline)) int deep(int n, int &ended) {
    Counted it{ended};
    volatile int kept[20] = {n};
    if (n == 0) throw 7;
    return deep(n - 1, ended) + kept[0];
}
__attribute__((noinline)) int caught(int a, int b, int c, int d, int e, int f, int g, int n) {
    int ended = 0;
    try { return deep(n, ended) + a * b * c; } catch (int it) { return it + ended + a + b + c + d + e + f + g; }
}
int main(int argc, char **) {
    for (int n = 0; n < 5; n++) std::printf("%d\n", caught(n, 2, 3, 4, 5, argc, 7, n));
}
"""


@pytest.fixture
def codec():
    with Module.parse(unoptimised(CODEC)) as module:
        module.run_oz()
        yield module


def text_sizes(module):
    return objects.text_sizes(module.emit("obj"))


@pytest.mark.parametrize("flags", [[], ["-m32"], ["-ffunction-sections"], ["-g"]])
def test_a_function_counts_with_its_entry_in_the_unwind_table(tmp_path, flags):
    source, made = tmp_path / "a.cpp", tmp_path / "a.o"
    source.write_text(
        "int g(int); struct A { ~A(); }; static int s(int);\n"
        "int h(int k) { A a; try { return g(k) + s(k) + s(k + 1); } catch (int) { return 2; } }\n"
        "__attribute__((noinline)) static int s(int a) { return g(a) * 3; }\n"
        "__attribute__((nothrow)) int t(int a) { return a; }\n"
    )
    made.write_bytes(clang("-Oz", *flags, "-c", "-o", "-", source))
    tool = [find_tool("llvm-objdump"), "--dwarf=frames", made]
    said = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
    lengths = [4 + int(it, 16) for it in re.findall(r"^\w+ (\w+) \w+ FDE", said, re.MULTILINE)]
    image = made.read_bytes()
    sizes = objects.function_sizes(image)
    unwind = {name: size - sizes[name] for name, size in objects.text_sizes(image).items()}
    assert sorted(unwind.values()) == sorted(lengths) and len(lengths) == 3
    assert unwind["_Z1hi"] == max(lengths)  # it alone has a landing pad


def test_each_function_gets_the_variation_that_suits_it(codec):
    chosen = suited(codec, text_sizes)
    assert chosen is not None
    with Module.parse(chosen) as module:
        best, image = text_sizes(module), module.emit("obj")
    for variation in (None, *attributes.variations(X86)):
        with codec.clone() as changed:
            if variation:
                variation.change(changed, free(codec))
            sizes = text_sizes(changed)
            assert all(best[name] <= size for name, size in sizes.items())
            assert objects.text_size(image) < objects.text_size(changed.emit("obj"))


def test_where_no_function_is_better_off_nothing_changes(codec):
    before = codec.fingerprint()
    assert suited(codec, lambda _: {it.name: 10 for it in codec.functions()}) is None
    assert suited(codec, lambda _: None) is None
    assert codec.fingerprint() == before
    of_codec = iter([{"crc32": 10, "gone": 10}, *[{"crc32": 11, "new": 1}] * len(attributes.variations(X86))])
    assert suited(codec, lambda _: next(of_codec)) is None


def test_what_is_for_one_machine_is_tried_on_no_other():
    narrow = unoptimised_text("int f(int *x) { return *x; }", "--target=i686-linux-gnu")
    tried = []
    with Module.parse(narrow) as module:
        suited(module, lambda it: tried.append(it.to_text()) or {"f": 10})
    general = attributes.variations("i686-unknown-linux-gnu")
    assert len(tried) == 1 + len(general) <= 1 + len(attributes.variations(X86)) and len(general) > 1
    assert len({tuple(re.findall('"tune-cpu"="[^"]*"', it)) for it in tried}) == 1  # clang's own
    assert any('"frame-pointer"="all"' in it for it in tried)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (ASSEMBLY, {"g"}),
        ("__attribute__((naked)) void f(void) {} int g(void) { return 1; }", {"g"}),
        ("__attribute__((optnone, noinline)) int f(void) { return 1; } int asm_(void) { return f(); }", {"asm_"}),
        ("void *b[5]; int f(int x) { return __builtin_setjmp(b) ? x : 0; } int g(void) { return 1; }", set()),
    ],
)
def test_functions_that_may_count_on_their_frame_are_left_alone(source, names):
    with Module.parse(unoptimised_text(source)) as module:
        assert free(module) == names


def test_only_functions_that_are_free_are_changed():
    tried = []

    def sizes(module):
        tried.append(module.to_text())
        return dict.fromkeys("fg", 10 if len(tried) == 1 else 5)

    with Module.parse(unoptimised_text(ASSEMBLY)) as module:
        chosen = suited(module, sizes)
    assert chosen is not None and len(tried) == 1 + len(attributes.variations(X86))
    with Module.parse(chosen) as made:
        texts = [*tried, made.to_text()]
    assert {attributes_of(it, "f") for it in texts} == {attributes_of(tried[0], "f")}
    assert len({attributes_of(it, "g") for it in texts}) == len(tried)
    assert '"frame-pointer"="all"' in attributes_of(texts[-1], "g")


def attributes_of(text, name):
    """A function's attributes in a module's text."""
    (group,) = re.findall(rf"^define .*@{name}\(.*\).* #(\d+)", text, re.MULTILINE)
    return re.search(rf"^attributes #{group} = (.*)$", text, re.MULTILINE)[1]


def test_no_more_is_tried_than_there_is_time_for(codec):
    sizes, over = [], iter([False, True])
    assert suited(codec, lambda it: sizes.append(text_sizes(it)) or sizes[-1], lambda: next(over)) is not None
    assert len(sizes) == 2


def test_objects_of_other_kinds_have_functions_without_unwind_tables():
    plain = clang("-Oz", "-fno-asynchronous-unwind-tables", "-c", "-o", "-", CODEC)
    assert b".eh_frame" not in plain
    assert objects.text_sizes(plain) == objects.function_sizes(plain)


def test_second_names_of_a_function_take_what_it_takes():
    source = b'int f(int x) { return x; } extern int g(int) __attribute__((alias("f")));'
    sizes = objects.text_sizes(clang("-Oz", "-c", "-o", "-", "-x", "c", "-", source=source))
    assert sizes["f"] == sizes["g"] > 20


@needs_linker
@pytest.mark.parametrize("seed", range(3))
def test_exceptions_pass_through_frames_of_all_kinds(tmp_path, seed):
    source = tmp_path / "a.cpp"
    source.write_text(THROWS)
    expected = linked_output(tmp_path, "-Oz", source, *LIBSTDCXX)
    assert len(expected.split()) == 5
    rng = random.Random(seed)
    with Module.parse(clang("-Oz", "-stdlib=libstdc++", "-c", "-emit-llvm", "-o", "-", source)) as module:
        for name in sorted(free(module)):
            rng.choice(attributes.variations(X86)).change(module, {name})
        (tmp_path / "a.o").write_bytes(emitted(module, learned_for(X86).first if seed else ()))
    assert linked_output(tmp_path, tmp_path / "a.o", *LIBSTDCXX) == expected


def test_a_file_is_smaller_for_it(tmp_path, monkeypatch):
    work = partial(smaller, [str(find_tool("clang"))], [], str(CODEC), "c", "-Oz", 0, tmp_path, 0.5, codegen=True)
    made = work()
    monkeypatch.setattr(attributes, "variations", lambda _: ())
    assert objects.text_size(made.image) < objects.text_size(work().image) * 0.99


def test_the_variations_that_ship_hold_for_every_processor_and_machine():
    assert len(set(attributes.variations(X86))) == len(attributes.variations(X86)) > 2
    assert all(set(it.without) <= {"minsize", "optsize"} for it in attributes.variations(X86))
    assert any(it.processor for it in attributes.variations(X86))
    assert not any(it.processor for it in attributes.variations("riscv64"))
