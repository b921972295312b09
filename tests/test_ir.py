"""The normal form of IR: what of a function's text the model sees, and the identity made from it."""

import re
import time

import pytest
from compiling import CODEC, EXAMPLES, GOLDEN, example_id, unoptimised, unoptimised_text

from secondpass import ir
from secondpass.llvm.module import Module

NOISE = {
    "a comment": r";",
    "metadata": r"![\w.]+|#dbg",
    "an attribute group": r"#\d",
    "the alignment of memory": r", align",
    "an attribute that says nothing of the optimisation": r"\b(noundef|dso_local|local_unnamed_addr|hidden)\b",
}


def functions(path, *flags):
    """The text of every function of a file, each printed as a module of its own."""
    with Module.parse(unoptimised(path, *flags)) as module:
        for _, part in module.split():
            with part:
                yield part.to_text()


def one_function(source, name, language="c"):
    with Module.parse(unoptimised_text(source, language=language)) as module, module.extract(name) as part:
        return part.to_text()


each_example = pytest.mark.parametrize("path", EXAMPLES, ids=example_id)


@each_example
def test_one_function_is_left(path):
    assert {ir.normalise(text).count("define ") for text in functions(path)} == {1}


@each_example
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("flags", [(), ("-g",)], ids=["plain", "with debug information"])
def test_noise_is_left_out(path, noise, flags):
    assert [
        found[0] for text in functions(path, *flags) if (found := re.search(NOISE[noise], ir.normalise(text)))
    ] == []


@each_example
def test_every_instruction_is_left(path):
    with Module.parse(unoptimised(path)) as module:
        for _, part in module.split():
            with part:
                lines = ir.normalise(part.to_text()).splitlines()
                written = [line for line in lines if re.match(r"  (?! |\])", line)]
                assert len(written) == part.instruction_count


@each_example
def test_normalising_twice_changes_nothing(path):
    texts = [ir.normalise(text) for text in functions(path)]
    assert [ir.normalise(text) for text in texts] == texts


@each_example
def test_the_normal_form_is_the_same_after_a_round_through_bitcode(path):
    with Module.parse(unoptimised(path)) as module:
        for _, part in module.split():
            with part, Module.parse(part.to_bitcode()) as again:
                assert ir.normalise(again.to_text()) == ir.normalise(part.to_text())


def test_debug_information_changes_nothing():
    plain, debug = (list(map(ir.normalise, functions(CODEC, *flags))) for flags in ((), ("-g",)))
    assert debug == plain


def test_struct_types_are_left_where_the_function_names_them():
    source = (
        "struct a { int x, y; };\nstruct b { char c[9]; };\nint f(struct a *p, struct b *q) { return p->y + (q != 0); }"
    )
    assert re.findall(r"^%.* = type .*", ir.normalise(one_function(source, "f")), re.MULTILINE) == [
        "%struct.a = type { i32, i32 }"
    ]


def test_struct_types_inside_struct_types_are_left():
    source = "struct c { int z; };\nstruct b { struct c c; };\nstruct a { struct b b; };\n"
    source += "int f(struct a *p) { return p->b.c.z; }"
    assert re.findall(r"^%(.*) = type .*", ir.normalise(one_function(source, "f")), re.MULTILINE) == [
        "struct.a",
        "struct.b",
        "struct.c",
    ]


def test_the_alignment_of_a_parameter_goes():
    text = one_function("struct a { int x[9]; };\nvoid f(struct a *p, struct a *q) { *p = *q; }", "f")
    assert "ptr align 4 %" in text
    assert re.findall(r"call .*memcpy.*", ir.normalise(text)) == [
        "call void @llvm.memcpy.p0.p0.i64(ptr %5, ptr %6, i64 36, i1 false)"
    ]


def test_text_without_a_function_is_empty():
    assert ir.normalise("@x = global i32 0\ndeclare void @f()\n") == ""


def test_the_text_ends_in_one_newline():
    assert re.search(r"[^\n]\n\Z", ir.normalise(one_function("int f(void) { return 1; }", "f")))


def test_a_quoted_text_that_looks_like_noise_survives():
    source = 'void f(int *p) { __asm__ volatile("lea %0, %%eax ; ! nop #1, align 8, !tbaa !5 hidden x" : : "m"(*p)); }'
    assert '"lea $0, %eax ; ! nop #1, align 8, !tbaa !5 hidden x"' in ir.normalise(one_function(source, "f"))


def test_a_quoted_name_survives():
    text = 'define void @f() {\n  call void @"a ; b, align 4"() #0 ; said\n  ret void\n}\n'
    assert ir.normalise(text) == 'define void @f() {\n  call void @"a ; b, align 4"()\n  ret void\n}\n'


def test_a_comment_after_a_quoted_semicolon_goes():
    text = 'define void @f() {\n  call void asm "x;y", ""() ; z "q"\n  ret void\n}\n'
    assert ir.normalise(text) == 'define void @f() {\n  call void asm "x;y", ""()\n  ret void\n}\n'


def test_a_long_text_full_of_semicolons_takes_no_longer_than_another():
    def seconds(character):
        text = f'@s = constant [400000 x i8] c"{character * 400_000}"\ndefine void @f() {{\n  ret void\n}}\n'
        started = time.perf_counter()
        assert ir.normalise(text) == "define void @f() {\n  ret void\n}\n"
        return time.perf_counter() - started

    assert seconds(";") < 20 * seconds("x") + 0.1


def test_a_function_with_exceptions_keeps_its_personality():
    source = "struct D { ~D(); };\nvoid g();\nvoid f() { D d; g(); }"
    with (
        Module.parse(unoptimised_text(source, "-fexceptions", language="c++")) as module,
        module.extract("_Z1fv") as part,
    ):
        assert "define void @_Z1fv() personality ptr @__gxx_personality_v0 {\n" in ir.normalise(part.to_text())


@pytest.mark.parametrize("name", ["reverse_bits", "sift_down", "skip"])
def test_the_normal_form_of_a_function_is_the_one_on_file(name):
    with Module.parse(unoptimised(CODEC)) as module, module.extract(name) as part:
        assert ir.normalise(part.to_text()) == (GOLDEN / f"{name}.ll").read_text()


def test_the_identity_of_a_function_is_the_one_on_file():
    # Labels made on other machines and in other years find their function by it.
    assert ir.digest((GOLDEN / "skip.ll").read_text()) == "67f15074ee4b3f6a2e440ea9"


def test_functions_of_different_text_have_different_identities():
    texts = {ir.normalise(text) for path in EXAMPLES for text in functions(path)}
    assert len({ir.digest(text) for text in texts}) == len(texts)


def test_an_identity_is_24_hexadecimal_digits():
    assert re.fullmatch("[0-9a-f]{24}", ir.digest(""))


# Near-duplicates

SUM = "struct p { int x, y; };\nint f(struct p *p, int n) { int s = 0; while (n) s += p[n--].y * 3; return g(s); }"
DECLARED = "int g(int); int h(int); long j(int);\n"


def group(source, name="f", language="c"):
    return ir.group(ir.normalise(one_function(DECLARED + source, name, language)))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (SUM.replace("int f", "int total"), "total"),
        (SUM.replace("s +=", "sum +=").replace("int s", "int sum").replace("(s)", "(sum)"), "f"),
        (SUM.replace("struct p", "struct point"), "f"),
        (SUM.replace("int x, y", "int width, height").replace(".y", ".height"), "f"),
        (SUM.replace("* 3", "* 1000"), "f"),
        (SUM.replace("s = 0", "s = -7"), "f"),
        (SUM.replace("g(s)", "h(s)"), "f"),
    ],
    ids=["its name", "a variable", "a struct", "fields", "a factor", "a start", "what it calls"],
)
def test_copies_that_differ_in_names_and_constants_are_near_duplicates(source, name):
    assert source != SUM
    assert group(source, name) == group(SUM)


@pytest.mark.parametrize(
    "source",
    [
        SUM.replace("* 3", "/ 3"),
        SUM.replace("p[n--].y * 3", "3 * p[n--].y"),
        SUM.replace("g(s)", "g(n)"),
        SUM.replace("int n", "long n"),
        SUM.replace("s = 0", "s = n"),
        SUM.replace("g(s)", "j(s)"),
        SUM.replace("g(s)", "__builtin_popcount(s)"),
        SUM.replace("return", "if (s) return s; return"),
    ],
    ids=[
        "an operation",
        "the order of operands",
        "what is passed on",
        "a type",
        "a start that is a value",
        "the type of what it calls",
        "an intrinsic",
        "a branch",
    ],
)
def test_functions_that_differ_in_more_are_no_near_duplicates(source):
    assert source != SUM
    assert group(source) != group(SUM)


def test_another_intrinsic_makes_another_function():
    popcount, zeros, ones = (
        group(f"int f(int x) {{ return {it}; }}")
        for it in ("__builtin_popcount(x)", "__builtin_bitreverse32(x)", "__builtin_popcount(x + 1)")
    )
    assert len({popcount, zeros, ones}) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x * 1.5", "x * 2.5"),
        ("x * 1.5", "x * 1.1e-30"),
        ("x * 1.5", "x * __builtin_inf()"),
        ("x * 1.5", 'x * __builtin_nan("")'),
        ("x * (_Float16)1.5", "x * (_Float16)1.1"),
        ("x * (float)1.5", "x * 1e30f"),
        ("(long)x << 2", "(long)x << 33"),
        ("x > 3", "x > -3"),
    ],
)
def test_constants_of_every_kind_are_equal_in_near_duplicates(one, other):
    assert group(f"double f(float x) {{ return {one}; }}") == group(f"double f(float x) {{ return {other}; }}")


BLOCKS = """define i32 @f(i1 %c, i32 %x) {
entry:
  br i1 %c, label %then, label %exit
then:
  call void asm sideeffect "nop 1, %al", ""()
  br label %exit
exit:
  %r = phi i32 [ %x, %entry ], [ 3, %then ]
  ret i32 %r
}
"""


@pytest.mark.parametrize(
    "changes",
    [
        {"entry": "start", "then": "bb.1", "exit": "7"},
        {"then": "true", "exit": "false"},
        {"then": '"a 1"'},
        {"%x": "%0"},
    ],
)
def test_labels_and_value_names_count_for_nothing(changes):
    text = BLOCKS
    for old, new in changes.items():
        text = text.replace(old, new)
    assert text != BLOCKS
    assert ir.group(text) == ir.group(BLOCKS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[ %x, %entry ], [ 3, %then ]", "[ 3, %entry ], [ %x, %then ]"),
        ("label %then, label %exit", "label %exit, label %then"),
        ("i32 %r\n", "i32 %x\n"),
        ("nop 1", "nop 2"),
        ("%al", "%bl"),
    ],
)
def test_the_wiring_of_blocks_and_values_and_assembly_count(old, new):
    text = BLOCKS.replace(old, new)
    assert text != BLOCKS
    assert ir.group(text) != ir.group(BLOCKS)
