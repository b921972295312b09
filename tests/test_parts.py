"""Modules taken apart and put together: the same symbols, the same behaviour, each function as it was chosen."""

import random
import re

import pytest
from compiling import (
    CODEC,
    CODEC_CHECK,
    LIBSTDCXX,
    PROGRAM,
    clang,
    linked_output,
    needs_linker,
    unoptimised,
    unoptimised_text,
)

from secondpass.errors import LLVMError
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.parts import CLEAN_UP, Parts, levels
from secondpass.llvm.passes import PassList
from secondpass.llvm.vocabulary import VOCABULARY
from secondpass.module_lists import candidates
from secondpass.prompt import Objective
from secondpass.tuner.coreset import coreset

STATIC = """
static const char *const names[] = {"zero", "one", "two"};
static int calls;
static int once(int x) { for (int i = 0; i < 3; i++) x = x * 7 + i; return x; }
static int twice(int x) { calls++; return x * x + 1; }
int count(void) { return calls; }
const char *name(int i) { return names[i % 3]; }
const char *const *all(void) { return names; }
int work(int x) { return once(x) + twice(x) + twice(x + 1); }
"""
ODR = """
struct Shape { virtual int area() const { return 1; } virtual ~Shape() {} };
struct Square final : Shape { int side; Square(int s) : side(s) {} int area() const override { return side * side; } };
template <class T> inline T larger(T a, T b) { return a < b ? b : a; }
__attribute__((weak)) int scale() { return 3; }
int measure(const Shape &shape) { return larger(shape.area(), scale()); }
int square(int side) { return measure(Square(side)); }
"""


OZ = ("default<O2>",)


def optimised(parts, list_of):
    """Every function through a list, callees first; the names in that order."""
    done = []
    for level in parts.levels:
        for name in level:
            with Module.parse(parts.source(name)) as part:
                part.run(PassList.of(*list_of(name), *CLEAN_UP))
                parts.put(name, part.to_bitcode())
            done.append(name)
    return done


def rebuilt(text, list_of=lambda name: OZ):
    """A module, taken apart, optimised function by function and put together."""
    with Module.parse(text) as module, Parts(module) as parts:
        optimised(parts, list_of)
        return parts.assemble()


def random_lists(seed):
    rng, words = random.Random(seed), [entry.text for entry in VOCABULARY]
    return lambda name: rng.sample(words, 8)


def linkages(text):
    """Of the functions a module defines, by name."""
    return {name: word for word, name in re.findall(r"^define (\w+).*?@(\w+)\(", text, re.MULTILINE)}


@needs_linker
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_program_put_together_from_parts_prints_what_it_should(tmp_path, golden_program, seed):
    objects = []
    for path in PROGRAM:
        with rebuilt(unoptimised(path), *([] if seed is None else [random_lists(seed)])) as module:
            objects.append(tmp_path / f"{path.stem}.o")
            objects[-1].write_bytes(module.emit("obj"))
    assert linked_output(tmp_path, *objects) == golden_program


@needs_linker
def test_the_codec_computes_the_same_from_parts(tmp_path):
    with rebuilt(unoptimised(CODEC)) as module:
        (tmp_path / "codec.o").write_bytes(module.emit("obj"))
    ours = linked_output(tmp_path, "-O1", CODEC_CHECK, tmp_path / "codec.o")
    assert ours == linked_output(tmp_path, "-O1", CODEC_CHECK, CODEC)


def test_local_symbols_are_local_again_and_there_once():
    with rebuilt(unoptimised_text(STATIC)) as module:
        text = module.to_text()
    assert text.count("@names = internal") == 1
    assert text.count("@calls = internal") == 1
    assert "hidden" not in text
    assert {it[1] for it in re.findall(r"^define (\w+ )?.*@(\w+)\(", text, re.MULTILINE)} <= {
        *("count", "name", "all", "work", "twice")
    }


def test_a_static_function_with_one_call_is_inlined():
    with Module.parse(unoptimised_text(STATIC)) as module, Parts(module) as parts:
        assert sorted(name for level in parts.levels for name in level) == ["all", "count", "name", "twice", "work"]


@pytest.mark.parametrize(
    "differs",
    [
        'target("avx2")',
        'no_builtin("printf")',
        "no_sanitize_address",
        "noinline",
    ],
)
def test_what_is_compiled_for_something_else_than_its_caller_is_not_inlined(differs):
    flags = ("-fsanitize=address",) if "sanitize" in differs else ()
    source = f"""
    extern void use(int);
    static __attribute__(({differs})) void once(int n) {{ use(n * 3); }}
    static void alike(int n) {{ use(n * 5); }}
    void outer(int n) {{ once(n); alike(n); }}
    """
    with Module.parse(unoptimised_text(source, *flags)) as module, Parts(module) as parts:
        assert {"once", "outer"} == parts.names & {"once", "alike", "outer"}


def test_bodies_that_another_file_has_are_inlined_and_not_left():
    source = """
    inline int limited(int x) { return x < 0 ? 0 : x > 255 ? 255 : x; }
    inline int large(int x) { for (int i = 0; i < 9; i++) x += use(x, i, x * i, "%s") ^ x; return x; }
    int both(int x) { return limited(x) + large(x); }
    """
    with rebuilt(unoptimised_text("int use(int, int, int, const char *);" + source)) as module:
        assert linkages(module.to_text()).keys() == {"both"}
        assert "limited" not in module.undefined


WEAK = """
__attribute__((weak)) const int limit = 5;
__attribute__((weak)) int wanted = 0;
__attribute__((weak)) void hook(void) {}
__attribute__((weak)) int ident(int x) { return x; }
int squared(void) { return limit * limit + wanted; }
int hooked(int n) { hook(); return ident(n) + 1; }
"""
STRONG = """
#include <stdio.h>
extern int squared(void), hooked(int);
const int limit = 42;
int wanted = 7, hooks;
void hook(void) { hooks++; }
int ident(int x) { return x * 100; }
int main(void) { int h = hooked(3); printf("%d %d %d\\n", squared(), h, hooks); }
"""


@needs_linker
def test_what_the_linker_may_replace_is_not_known(tmp_path):
    (tmp_path / "strong.c").write_text(STRONG)
    with rebuilt(unoptimised_text(WEAK)) as module:
        module.run("simplifycfg,instcombine<no-verify-fixpoint>,adce")  # as whole modules are treated at last
        (tmp_path / "weak.o").write_bytes(module.emit("obj"))
        assert linkages(module.to_text())["hook"] == "weak"
    assert linked_output(tmp_path, tmp_path / "strong.c", tmp_path / "weak.o") == "1771 301 1\n"


def test_merged_functions_promise_no_more_than_their_source():
    source = "inline int same(int *p) { return *p; }\nint both(int *p) { return same(p) + same(p + 1); }"
    with Module.parse(unoptimised_text(source, language="c++")) as module, Parts(module) as parts:
        (name,) = (it for it in parts.names if "same" in it)
        with Module.parse(parts.source(name)) as part:
            part.run(PassList.of("sroa", "function-attrs"))
            text = part.to_text()
    assert linkages(text)[name] == "weak_odr"
    assert "memory(" not in text


DEEP = """
void sink(char *, int);
int next(void);
static void report(int l) { char buffer[60000]; sink(buffer, l); buffer[3] = l; sink(buffer + 7, l); }
static int through(int d);
int parse(int d) { int t = next(), s = 0; if (t < 0) report(d); while (t-- > 0) s += through(d); return s; }
static int through(int d) { return parse(d + 1) * 3 + next(); }
"""


def test_what_needs_much_of_the_stack_stays_out_of_recursive_functions():
    with rebuilt(unoptimised_text(DEEP)) as module:
        assert {it.name for it in module.functions()} == {"parse", "report"}  # the small one is inlined
    plain = DEEP.replace("s += through(d)", "s += next()")
    with rebuilt(unoptimised_text(plain)) as module:
        assert {it.name for it in module.functions()} == {"parse"}


def test_nothing_changes_but_what_is_put_in():
    with Module.parse(unoptimised_text(STATIC)) as module, Parts(module) as parts:
        with parts.assemble() as before:
            counted = {it.name: it.instructions for it in before.functions()}
        with Module.parse(parts.source("twice")) as part:
            part.run(PassList.of("sroa", *CLEAN_UP))
            smaller = part.instruction_count
            parts.put("twice", part.to_bitcode())
        with parts.assemble() as after:
            assert {it.name: it.instructions for it in after.functions()} == counted | {"twice": smaller}
        assert smaller < counted["twice"]


def test_callees_come_first_and_are_there_to_be_inlined():
    with Module.parse(unoptimised_text(STATIC)) as module, Parts(module) as parts:
        order = optimised(parts, lambda name: OZ)
        assert order.index("twice") < order.index("work")
        text = Module.parse(parts.source("work")).to_text()
    assert re.search(r"^define available_externally hidden .*@twice\.apart\(", text, re.MULTILINE)
    assert "define i32 @count" not in text


def test_inline_functions_of_cpp_keep_their_linkage_and_groups():
    source = unoptimised_text(ODR, language="c++")
    with rebuilt(source) as module, Module.parse(source) as plain:
        plain.run_oz()
        ours, theirs = module.to_text(), plain.to_text()
    assert linkages(ours) == linkages(theirs)
    assert all("comdat" in line for line in ours.splitlines() if line.startswith("define linkonce_odr"))
    assert re.search(r"call .*@_Z5scalev\(", ours), "a weak function may be another one when it is linked"


def nodes(text, kind):
    """The metadata nodes of a kind, by name."""
    return dict(re.findall(rf"^(!\d+) = (?:distinct )?!{kind}\((.*)\)$", text, re.MULTILINE))


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("path", [CODEC, *PROGRAM], ids=lambda path: path.name)
def test_debug_information_is_whole_again_and_there_once(path, seed):
    before = unoptimised(path, "-g")
    with rebuilt(before, *([] if seed is None else [random_lists(seed)])) as module:
        text = module.to_text()
    assert len(nodes(text, "DICompileUnit")) == 1
    functions = re.findall(r"^define [^@]*@(\w+)\(.* !dbg (!\d+)", text, re.MULTILINE)
    subprograms = nodes(text, "DISubprogram")
    assert functions
    assert len({node for _, node in functions}) == len(functions)
    assert all(f'ame: "{name}"' in subprograms[node] for name, node in functions)
    for kind in ("DICompositeType", "DIGlobalVariable"):  # what they hold is numbered anew
        ours, theirs = ([re.sub(r"!\d+", "!", it) for it in nodes(it, kind).values()] for it in (text, before))
        assert len(ours) == len(set(nodes(text, kind).values()))
        assert set(ours) <= set(theirs)


def test_a_type_lists_its_members_though_parts_had_none():
    source = "struct Pair { int first, second; struct Pair *next; };\n" + "".join(
        f"int {name}(struct Pair *p) {{ return p->{name} + p->next->{name}; }}\n" for name in ("first", "second")
    )
    with rebuilt(unoptimised_text(source, "-g")) as module:
        text = module.to_text()
    (pair,) = nodes(text, "DICompositeType").values()
    assert "elements: !" in pair
    assert "identifier" not in pair
    assert re.findall(r'DW_TAG_member, name: "(\w+)"', text) == ["first", "second", "next"]


def test_debug_information_of_several_sources_is_refused():
    text = unoptimised_text(STATIC, "-g")
    (unit,) = nodes(text, "DICompileUnit")
    number = 1 + max(int(it) for it in re.findall(r"^!(\d+) = ", text, re.MULTILINE))
    again = re.search(rf"^{unit} = (.*)$", text, re.MULTILINE)[1].replace('producer: "', 'producer: "other ')
    two = text.replace(f"!llvm.dbg.cu = !{{{unit}}}", f"!llvm.dbg.cu = !{{{unit}, !{number}}}")
    with Module.parse(f"{two}\n!{number} = {again}\n") as module, pytest.raises(LLVMError, match="several sources"):
        Parts(module)


ALIASES = r"""
#include <cstdio>
struct A { int x; A(int v); ~A(); virtual int f(); };
A::A(int v) : x(v * 3) { std::printf("A%d ", v); }
A::~A() { std::printf("~A%d ", x); }
int A::f() { return x + 1; }
struct B : A { B(int v) : A(v + 1) {} int f() override { return A::f() * 2; } };
template <class T> struct C { T t; C(T v); ~C() { std::printf("~C "); } };
template <class T> C<T>::C(T v) : t(v) {}
template struct C<int>;
struct D : C<int> { D(); ~D(); };
D::D() : C(1) {}
D::~D() {}
extern "C" {
int base(int x) { return x * x + 1; }
int other(int) __attribute__((alias("base")));
int replaceable(int) __attribute__((weak, alias("base")));
int table[4] = {1, 2, 3, 4};
extern int view[4] __attribute__((alias("table")));
}
int main() {
    B b(2); A a(5); C<int> c(4);
    std::printf("%d %d %d %d %d %d\n", b.f(), a.f(), c.t, other(3), replaceable(4), view[2]);
}
"""


@needs_linker
def test_second_names_of_functions_and_variables_stay(tmp_path):
    source = tmp_path / "aliases.cpp"
    source.write_text(ALIASES)
    text = unoptimised(source, "-stdlib=libstdc++")
    with rebuilt(text) as module:
        (tmp_path / "aliases.o").write_bytes(module.emit("obj"))
        ours = module.to_text()
    assert sorted(re.findall(r"^@(\S+) = .*alias", ours, re.MULTILINE)) == sorted(
        re.findall(r"^@(\S+) = .*alias", text, re.MULTILINE)
    )
    assert re.search(r"(call|invoke) .*@replaceable\(", ours), "a weak alias may be another function when it is linked"
    assert not re.search(r"(call|invoke) .*@other\(", ours), "one that is not can be inlined"
    output = linked_output(tmp_path, tmp_path / "aliases.o", *LIBSTDCXX)
    assert output == linked_output(tmp_path, source, *LIBSTDCXX)
    assert "20 16 4 10 17 3" in output


@pytest.mark.parametrize(
    ("source", "flags", "reason"),
    [
        (
            "static int one(void) { return 1; } static int (*which(void))(void) { return one; }"
            ' int f(void) __attribute__((ifunc("which")));',
            (),
            "ifuncs",
        ),
    ],
)
def test_what_cannot_be_taken_apart_is_refused_with_the_reason(source, flags, reason):
    with Module.parse(unoptimised_text(source, *flags)) as module, pytest.raises(LLVMError, match=reason):
        Parts(module)


GOTO = """
static int twice(int x) { return x + x; }
int add(int x, int y) { int z = x; return twice(z) + twice(y); }
int run(const char *code) {
    static const void *const to[] = {&&more, &&less, &&end};
    int value = 1;
    goto *to[*code++];
more: value = add(value, 3); goto *to[*code++];
less: value = twice(value) - 1; goto *to[*code++];
end: return value;
}
"""


@pytest.mark.parametrize("flags", [(), ("-g",)])
def test_a_function_with_computed_goto_stays_and_the_others_do_not(flags):
    with Module.parse(unoptimised_text(GOTO, *flags)) as module, Parts(module) as parts:
        assert parts.names == {"twice", "add"}
        assert not parts.is_complete
        optimised(parts, lambda name: OZ)
        with parts.assemble() as whole:
            counted = {it.name: it.instructions for it in whole.functions()}
            whole.run(PassList.of(*OZ))
            after = {it.name: it.instructions for it in whole.functions()}
    with Module.parse(unoptimised_text(GOTO, *flags)) as module:
        before = {it.name: it.instructions for it in module.functions()}
    assert counted["add"] < before["add"]
    assert counted["run"] == before["run"] > after["run"]


def test_a_module_of_computed_goto_alone_has_no_parts():
    source = "int f(int x) { static void *to[] = {&&a, &&b}; goto *to[x]; a: return 1; b: return 2; }"
    with Module.parse(unoptimised_text(source)) as module, Parts(module) as parts:
        assert not parts.names
        with parts.assemble() as whole:
            assert [it.name for it in whole.functions()] == ["f"]


def test_a_part_that_lost_its_function_is_refused():
    with Module.parse(unoptimised_text(STATIC)) as module, Parts(module) as parts:
        other = parts.source("count")
        with pytest.raises(LLVMError, match="'work' does not define it"):
            parts.put("work", other)


def test_levels_put_callees_first_even_behind_circles():
    calls = {"main": {"a", "z"}, "a": {"b"}, "b": {"c", "a"}, "c": set(), "z": {"c"}}
    order = [name for level in levels(calls) for name in level]
    assert sorted(order) == sorted(calls)
    for caller, callee in (("main", "a"), ("b", "c"), ("z", "c"), ("main", "z")):
        assert order.index(callee) < order.index(caller)


def test_a_second_name_of_a_library_function_is_never_called_by_the_first(tmp_path):
    source = """
    #include <stddef.h>
    size_t my_strlen(const char *s) { size_t n = 0; while (*s++) n++; return n; }
    size_t strlen(const char *) __attribute__((alias("my_strlen")));
    void puts(const char *s) { (void)s; }
    extern int printf(const char *, ...);
    void greet(void) { printf("hello\\n"); }
    """
    with Module.parse(unoptimised_text(source)) as module:
        assert module.keep_own_library()
        text = module.to_text()
    assert {'"no-builtin-strlen"', '"no-builtin-puts"'} <= set(re.findall(r'"no-builtin-\w+"', text))
    assert '"no-builtin-printf"' not in text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            'int a; extern int b __attribute__((weak, alias("a"))); int f(void) { a = 1; b = 2; return a; }',
            "weak alias 'b' is used otherwise than by a call",
        ),
        (
            'void g(void) {} void h(void) __attribute__((weak, alias("g"))); int f(void) { return h != g; }',
            "weak alias 'h' is used otherwise than by a call",
        ),
        (
            'void g(void) {} void h(void) __attribute__((weak, alias("g")));'
            " static void (*const t[])(void) = {h, g}; int f(void) { return t[0] == g; }",
            "weak alias 'h' is used otherwise than by a call",
        ),
        (
            '__attribute__((weak)) int g(void) { return 1; } int h(void) __attribute__((alias("g")));'
            " int f(void) { return h(); }",
            "what its alias 'h' is of may be replaced under its first name",
        ),
        (
            "__attribute__((weak)) extern const int a; const int a = 3;"
            ' extern const int b __attribute__((alias("a"))); int f(void) { return a + b; }',
            "what its alias 'b' is of may be replaced under its first name",
        ),
    ],
)
def test_second_names_that_may_be_of_something_else_keep_a_module_whole(source, reason):
    with Module.parse(unoptimised_text(source)) as module, pytest.raises(LLVMError, match=reason):
        Parts(module)


HIDDEN = """
int api(int x) { return x * 3; }
extern int inside(int) __attribute__((alias("api"), visibility("hidden")));
int use(int x) { return inside(x) + 2; }
"""


def test_a_hidden_name_of_what_a_library_exports_stays():
    with (
        Module.parse(unoptimised_text(HIDDEN, "-fPIC")) as library,
        pytest.raises(LLVMError, match="its alias 'inside' is of may be replaced"),
    ):
        Parts(library)
    for flag in ("-fPIE", "-fno-pic"):  # of a program nothing is replaced when it is loaded
        with rebuilt(unoptimised_text(HIDDEN, flag)) as program:
            assert "@use" in program.to_text()


@pytest.mark.parametrize(
    "caller", ["__attribute__((flatten)) int f(int x) { return", "int f(int x) { [[clang::always_inline]] return"]
)
def test_calls_that_must_be_inlined_are(caller):
    """Of functions that say nothing of it themselves, and are too large for -Oz to inline."""
    body = "".join(f"x = x * {it} ^ (x >> {it});" for it in range(3, 23))
    text = f"int large(int x) {{ {body} return x; }} {caller} large(x); }}\nint g(int x) {{ return large(x); }}"
    with Module.parse(unoptimised_text(text)) as module:
        assert module.inlines_calls
        with pytest.raises(LLVMError, match="it has calls that must be inlined"):
            Parts(module)
        oz = PassList.of(load().oz_pipeline)
        alone = candidates(module, dict.fromkeys(coreset(Objective.INSTRUCTIONS, 3), ""))
        for passes in (form for it in alone for form in (it.passes, oz + it.of)):
            with module.clone() as copy:
                copy.run(passes)
                (f,) = re.findall(r"^define [^\n]*@f\(.*?^}", copy.to_text(), re.MULTILINE | re.DOTALL)
            assert "@large" not in f


def test_among_many_functions_one_that_may_be_replaced_stays_so():
    """More than are taken out at once: halves are taken apart again."""
    many = "".join(f"int f{it}(int x) {{ return first(x) * {it}; }}\n" for it in range(12))
    weak = "".join(f"__attribute__((weak)) int {it}(int x) {{ return x; }}\n" for it in ("first", "second"))
    source = f"{weak} int same(void) {{ return first == second; }}\n{many}"
    with Module.parse(unoptimised_text(source)) as module:
        found = {name: part.to_text() for name, part in module.split()}
    assert len(found) == 15
    for name in ("first", "second"):
        assert re.search(rf"^declare extern_weak [^\n]*@{name}\(", found["same"], re.MULTILINE)


def test_a_function_that_may_be_replaced_may_be_a_second_name_of_another():
    source = "void real(void); __attribute__((weak)) void hook(void) {} int f(void) { return hook == real; }"
    with rebuilt(unoptimised_text(source)) as module:
        assert "icmp eq ptr @hook, @real" in module.to_text()


REPLACED = """
const int table[3] = {5, 6, 7};
int second(void) { return table[1]; }
int sum(const char *p) { int s = 0; while (*p) s += *p++ * table[2]; return s; }
"""
REPLACES = """
#include <stdio.h>
const int table[3] = {77, 78, 1};
int second(void), sum(const char *);
int main(void) { printf("%d %d\\n", second(), sum("ab")); }
"""


@needs_linker
def test_a_constant_that_may_be_replaced_when_it_is_loaded_is_not_known(tmp_path):
    (tmp_path / "program.c").write_text(REPLACES)
    library = tmp_path / "libreplaced.so"
    with rebuilt(unoptimised_text(REPLACED, "-fPIC", "-fsemantic-interposition")) as module:
        (tmp_path / "replaced.o").write_bytes(module.emit("obj"))
    clang("-shared", "-nostdlib", tmp_path / "replaced.o", "-o", library)
    assert linked_output(tmp_path, tmp_path / "program.c", library, f"-Wl,-rpath,{tmp_path}") == "78 195\n"


EQUAL = """
int large(int x);
int one(int x) { int s = 0; for (int i = 0; i < x; i++) s += large(s ^ i) * 3; return s; }
int two(int x) { int s = 0; for (int i = 0; i < x; i++) s += large(s ^ i) * 3; return s; }
"""
FRAMES = "void *one(int x) { large(x); return __builtin_return_address(0); }"


@pytest.mark.parametrize(
    ("source", "flags", "merged"),
    [
        (EQUAL, (), True),
        (EQUAL, ("-fPIE",), True),
        (EQUAL, ("-fPIC", "-fvisibility=hidden"), True),
        (EQUAL, ("-fPIC",), False),
        (f"int large(int); {FRAMES} {FRAMES.replace('one', 'two')}", (), False),
    ],
)
def test_equal_functions_are_merged_but_where_one_of_them_has_an_identity(source, flags, merged):
    with Module.parse(unoptimised_text(source, *flags)) as module:
        module.run_oz()
        before = module.to_text()
        assert module.merge_equal() is merged
        after = module.to_text()
        assert ("call i32 @one(" in after) is merged
        assert (after == before) is not merged
        assert "secondpass" not in after
