"""The normal form of IR: what of a function's text the model sees, and the identity made from it."""

import re

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
    assert ir.digest((GOLDEN / "skip.ll").read_text()) == "6d5332c80a06eece760c4f6b"


def test_functions_of_different_text_have_different_identities():
    texts = {ir.normalise(text) for path in EXAMPLES for text in functions(path)}
    assert len({ir.digest(text) for text in texts}) == len(texts)


def test_an_identity_is_24_hexadecimal_digits():
    assert re.fullmatch("[0-9a-f]{24}", ir.digest(""))
