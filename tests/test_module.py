"""Module: parsing, counting, the -Oz baseline, extraction, native code. Against clang and opt themselves."""

import random
import re
import subprocess

import pytest
from compiling import (
    CODEC,
    CODEC_CHECK,
    EXAMPLES,
    PROGRAM,
    clang,
    example_id,
    find_tool,
    linked_output,
    needs_linker,
    unoptimised,
    unoptimised_text,
)

from secondpass.errors import LLVMError
from secondpass.llvm import objects
from secondpass.llvm.module import FunctionSize, Module
from secondpass.llvm.passes import PassList
from secondpass.llvm.vocabulary import VOCABULARY

TWO_FUNCTIONS = """
define i32 @twice(i32 %x) {
  %sum = add i32 %x, %x
  ret i32 %sum
}

define i32 @abs(i32 %x) {
entry:
  %negative = icmp slt i32 %x, 0
  br i1 %negative, label %flip, label %done

flip:
  %flipped = sub i32 0, %x
  br label %done

done:
  %result = phi i32 [ %x, %entry ], [ %flipped, %flip ]
  ret i32 %result
}

declare void @elsewhere()
"""

each_example = pytest.mark.parametrize("path", EXAMPLES, ids=example_id)


@pytest.fixture
def codec():
    with Module.parse(unoptimised(CODEC), "codec.ll") as module:
        yield module


def names(module):
    return [function.name for function in module.functions()]


def definition(module, name):
    """The line that defines a global of the module, as LLVM prints it."""
    return next(line for line in module.to_text().splitlines() if re.match(rf"(@|define [^(]*@){name}\b", line))


# Reading


def test_text_is_read():
    with Module.parse(TWO_FUNCTIONS) as module:
        assert names(module) == ["twice", "abs"]


def test_bitcode_is_read():
    with Module.parse(TWO_FUNCTIONS) as module, Module.parse(module.to_bitcode()) as again:
        assert again.functions() == module.functions()


def test_printed_text_reads_back_to_itself(codec):
    with Module.parse(codec.to_text(), "codec.ll") as again:
        assert again.to_text() == codec.to_text()


def test_an_empty_text_is_a_module_without_functions():
    with Module.parse("") as module:
        assert (module.functions(), module.instruction_count) == ((), 0)


def test_text_that_does_not_parse_is_refused_with_file_line_and_column():
    with pytest.raises(LLVMError, match=r"broken\.ll:3:\d+: error: .*undefined value '%y'"):
        Module.parse("\ndefine i32 @f(i32 %x) {\n  ret i32 %y\n}\n", "broken.ll")


def test_text_that_does_not_verify_is_refused_with_the_reason():
    with pytest.raises(LLVMError, match="Instruction does not dominate all uses"):
        Module.parse("define i32 @f() {\n  %a = add i32 %b, 1\n  %b = add i32 %a, 1\n  ret i32 %a\n}\n")


@pytest.mark.parametrize("length", [0, 1, 3, 4, 16, 1000])
def test_random_bytes_are_refused_by_name(length):
    data = b"\xff" + random.Random(length).randbytes(length)
    with pytest.raises(LLVMError, match=r"noise\.bc"):
        Module.parse(data, "noise.bc")


@pytest.mark.parametrize("keep", [4, 20, 200, 1000])
def test_bitcode_that_is_cut_off_is_refused_by_name(codec, keep):
    with pytest.raises(LLVMError, match=r"short\.bc"):
        Module.parse(codec.to_bitcode()[:keep], "short.bc")


# Life


def test_a_closed_module_says_so():
    module = Module.parse(TWO_FUNCTIONS)
    module.close()
    with pytest.raises(ValueError, match="closed"):
        module.to_text()


def test_closing_twice_does_nothing():
    module = Module.parse(TWO_FUNCTIONS)
    module.close()
    module.close()


def test_a_clone_does_not_follow_the_original():
    with Module.parse(TWO_FUNCTIONS) as module, module.clone() as copy:
        copy.run("function(simplifycfg)")
        assert copy.instruction_count < module.instruction_count == 8


def test_a_clone_outlives_the_original():
    module = Module.parse(TWO_FUNCTIONS)
    copy = module.clone()
    module.close()
    assert names(copy) == ["twice", "abs"]


def test_an_unknown_pass_is_refused_by_name():
    with Module.parse(TWO_FUNCTIONS) as module, pytest.raises(LLVMError, match=r"'function\(sora\)'.*sora"):
        module.run("function(sora)")


def test_a_module_for_a_target_this_llvm_lacks_is_refused():
    with (
        Module.parse('target triple = "z80-unknown-elf"\n') as module,
        pytest.raises(LLVMError, match="'z80-unknown-elf'"),
    ):
        module.run_oz()


# Counting


def test_instructions_are_counted_by_function():
    with Module.parse(TWO_FUNCTIONS) as module:
        assert module.functions() == (FunctionSize("twice", 2), FunctionSize("abs", 6))


@each_example
def test_the_count_is_the_sum_of_the_functions(path):
    with Module.parse(unoptimised(path)) as module:
        assert module.instruction_count == sum(function.instructions for function in module.functions())


@each_example
def test_the_count_is_that_of_a_walk_over_all_instructions(path):
    with Module.parse(unoptimised(path)) as module:
        assert module.instruction_count == sum(module._walk_count(function) for function in module._defined())


@each_example
def test_the_count_is_the_one_that_opt_prints(path):
    command = [find_tool("opt"), "-passes=print<func-properties>", "--disable-output"]
    said = subprocess.run(command, input=unoptimised(path), capture_output=True, text=True, check=True).stderr
    with Module.parse(unoptimised(path)) as module:
        assert module.instruction_count == sum(map(int, re.findall(r"TotalInstructionCount: (\d+)", said)))


def test_debug_information_does_not_count():
    source = "int f(int x) { int y = x; return y + 1; }"
    with Module.parse(unoptimised_text(source)) as plain, Module.parse(unoptimised_text(source, "-g")) as debug:
        assert debug.instruction_count == plain.instruction_count


# The baseline


@each_example
def test_oz_leaves_as_many_instructions_as_clang(path):
    theirs = clang("-Oz", "-S", "-emit-llvm", "-o", "-", path)
    with Module.parse(unoptimised(path)) as ours, Module.parse(theirs) as expected:
        ours.run_oz()
        assert ours.functions() == expected.functions()


@each_example
def test_oz_leaves_as_many_bytes_as_clang(path):
    image = clang("-Oz", "-c", "-o", "-", path)
    with Module.parse(unoptimised(path)) as module:
        module.run_oz()
        assert module.native_size == objects.code_size(image)


@each_example
def test_oz_of_ir_made_without_optimisation_is_near_to_clangs(path):
    """Not equal: at -O0 clang writes no lifetimes, no type-based alias information and keeps frame pointers."""
    plain = clang("-O0", "-S", "-emit-llvm", "-o", "-", path)
    with Module.parse(plain) as ours, Module.parse(unoptimised(path)) as expected:
        ours.mark_for_size()
        ours.run_oz()
        expected.run_oz()
        assert ours.instruction_count == pytest.approx(expected.instruction_count, rel=0.05)


def test_marking_for_size_leaves_clangs_marks_alone(codec):
    before = codec.to_text()
    codec.mark_for_size()
    assert codec.to_text() == before


def test_marking_for_size_keeps_an_optnone_that_the_author_wrote():
    source = "__attribute__((optnone)) int plain(int x) { return x + 0; }\nint other(int x) { return x + 0; }"
    with Module.parse(unoptimised_text(source)) as module:
        before = dict(attributes(module))
        module.mark_for_size()
        assert attributes(module)["plain"] == before["plain"]
        assert "optnone" in before["plain"]


def test_marking_for_size_takes_optnone_off_where_every_function_has_it():
    with Module.parse(clang("-O0", "-S", "-emit-llvm", "-o", "-", CODEC)) as module:
        module.mark_for_size()
        assert not re.search(r"\b(optnone|noinline)\b", module.to_text())


def attributes(module):
    """The attributes of every defined function as text."""
    text = module.to_text()
    groups = dict(re.findall(r"^attributes (#\d+) = \{ (.*) \}$", text, re.MULTILINE))
    return {name: groups[group] for name, group in re.findall(r"^define .*@(\w+)\(.*(#\d+)", text, re.MULTILINE)}


# Extraction


def test_an_extracted_module_defines_the_one_function(codec):
    with codec.extract("run_command") as part:
        assert names(part) == ["run_command"]


def test_an_extracted_function_keeps_its_instructions(codec):
    expected = {function.name: function for function in codec.functions()}
    with codec.extract("run_command") as part:
        assert part.functions() == (expected["run_command"],)


def test_extraction_leaves_the_module_as_it_was(codec):
    before = codec.to_text()
    codec.extract("run_command").close()
    assert codec.to_text() == before


def test_several_functions_are_extracted_together(codec):
    with codec.extract("put", "put_head") as part:
        assert sorted(names(part)) == ["put", "put_head"]


def test_extracting_a_function_that_is_only_declared_is_refused():
    with Module.parse(TWO_FUNCTIONS) as module, pytest.raises(LLVMError, match="'elsewhere' is defined"):
        module.extract("elsewhere")


def test_an_extracted_recursive_function_calls_itself():
    source = "static int count(int n) { return n ? 1 + count(n & n - 1) : 0; }\nint user(int n) { return count(n); }"
    with Module.parse(unoptimised_text(source)) as module, module.extract("count") as part:
        assert "call i32 @count(" in part.to_text()


def extracted(source, function, *flags, language="c"):
    with Module.parse(unoptimised_text(source, *flags, language=language)) as module:
        return module.extract(function)


def test_a_static_function_extracted_is_not_removed_as_unused():
    with extracted("static int f(int x) { return x + 1; }\nint g(int x) { return f(x); }", "f") as part:
        part.run_oz()
        assert names(part) == ["f"]


def test_a_store_to_a_static_variable_survives_oz():
    with extracted("static int last;\nvoid set(int x) { last = x; }\nint get(void) { return last; }", "set") as part:
        part.run_oz()
        assert "store i32 %0, ptr @last" in part.to_text()


def test_a_load_of_a_static_variable_is_not_folded_to_its_initial_value():
    with extracted(
        "static int last = 7;\nvoid set(int x) { last = x; }\nint get(void) { return last; }", "get"
    ) as part:
        part.run_oz()
        assert "load i32, ptr @last" in part.to_text()


def test_a_static_variable_without_a_name_is_kept_like_others():
    text = "@0 = internal global i32 7\ndefine void @set() {\n store i32 1, ptr @0\n ret void\n}"
    with Module.parse(text) as module, module.extract("set") as part:
        part.run_oz()
        assert part.functions()[0].instructions == 2


def test_a_store_to_a_static_thread_local_survives_oz():
    with extracted(
        "static _Thread_local int last;\nvoid set(int x) { last = x; }\nint get(void) { return last; }", "set"
    ) as part:
        part.run_oz()
        assert part.functions()[0].instructions == 3


def test_a_static_constant_stays_one_that_the_optimiser_may_fold_away():
    with extracted("static const int table[] = {3, 5};\nint second(void) { return table[1]; }", "second") as part:
        part.run_oz()
        assert "ret i32 5" in part.to_text()
        assert "@table" not in part.to_text()


def test_string_literals_stay_private():
    with extracted('int puts(const char *);\nvoid hello(void) { puts("hello"); }', "hello") as part:
        assert definition(part, r"\.str").startswith("@.str = private unnamed_addr constant")


def test_what_the_function_does_not_use_goes():
    with extracted("int unused = 1;\nint printf(const char *, ...);\nint f(void) { return 2; }", "f") as part:
        assert not re.search("unused|printf", part.to_text())


def test_a_table_of_functions_keeps_its_entries_as_declarations():
    source = """
    static int one(void) { return 1; }
    static int two(void) { return 2; }
    int (*const table[])(void) = {one, two};
    int call(int i) { return table[i](); }
    """
    with extracted(source, "call") as part:
        assert re.search(r"@table = .*constant .*\[ptr @one, ptr @two\]", part.to_text())
        assert names(part) == ["call"]


def test_an_alias_gives_way_to_what_it_names():
    source = 'int f(int x) { return x + 1; }\nint g(int) __attribute__((alias("f")));\nint h(int x) { return g(x); }'
    with extracted(source, "h") as part:
        assert "call i32 @f(" in part.to_text()


def test_two_names_of_one_variable_stay_one_variable():
    text = """
    @value = internal global i32 0
    @other = internal alias i32, ptr @value
    define i32 @f() {
      store i32 1, ptr @value
      store i32 2, ptr @other
      %x = load i32, ptr @value
      ret i32 %x
    }
    """
    with Module.parse(text) as module, module.extract("f") as part:
        part.run_oz()
        assert "ret i32 2" in part.to_text()


def test_a_function_chosen_at_load_time_becomes_a_declaration():
    source = """
    static int slow(int x) { return x; }
    static int (*choose(void))(int) { return slow; }
    int fast(int) __attribute__((ifunc("choose")));
    int user(int x) { return fast(x); }
    """
    with extracted(source, "user") as part:
        part.verify()
        assert re.search(r"^declare .*@fast\(", part.to_text(), re.MULTILINE)


@pytest.mark.parametrize("attribute", ["used", "constructor"])
def test_a_function_that_must_stay_in_the_whole_program_goes_like_any_other(attribute):
    with extracted(
        f"__attribute__(({attribute})) static void kept(void) {{}}\nint f(void) {{ return 2; }}", "f"
    ) as part:
        assert "kept" not in part.to_text()


def test_assembly_of_the_whole_file_goes():
    with extracted('__asm__(".globl other\\nother: ret");\nint f(void) { return 2; }', "f") as part:
        assert "other" not in part.to_text()


def test_a_variadic_function_is_extracted():
    with Module.parse(unoptimised(CODEC)) as module, module.extract("write_values") as part:
        part.run_oz()
        assert re.search(r"define .*@write_values\(.*, \.\.\.\)", part.to_text())


def test_an_inline_function_of_a_group_is_extracted_without_the_group():
    source = "struct S { int n; int get() { static int calls; return n + ++calls; } };\nint f(S &s) { return s.get(); }"
    with extracted(source, "_ZN1S3getEv", language="c++") as part:
        part.run_oz()
        assert "comdat" not in part.to_text()
        assert names(part) == ["_ZN1S3getEv"]


def test_a_function_with_exceptions_is_extracted_with_its_personality():
    source = "struct D { ~D(); };\nvoid g();\nvoid f() { D d; try { g(); } catch (int) {} }"
    with extracted(source, "_Z1fv", "-fexceptions", "-fcxx-exceptions", language="c++") as part:
        part.run_oz()
        assert "personality ptr @__gxx_personality_v0" in part.to_text()


def test_addresses_of_labels_are_extracted_with_their_function():
    source = """
    int f(int i) {
        static const void *const labels[] = {&&one, &&two};
        goto *labels[i];
    one: return 1;
    two: return 2;
    }
    int g(void) { return f(1); }
    """
    with extracted(source, "f") as part:
        assert len(re.findall("blockaddress", part.to_text())) == 2


@each_example
def test_splitting_gives_every_function_once(path):
    with Module.parse(unoptimised(path)) as module:
        found = []
        for name, part in module.split():
            with part:
                assert names(part) == [name]
                found += part.functions()
        assert sorted(found, key=lambda it: it.name) == sorted(module.functions(), key=lambda it: it.name)


# Native code


def test_emitting_leaves_the_module_as_it_was(codec):
    before = codec.to_text()
    codec.emit("obj")
    assert codec.to_text() == before


def test_assembly_is_text_that_defines_the_functions():
    with Module.parse('target triple = "x86_64-linux-gnu"\n' + TWO_FUNCTIONS) as module:
        assert b"\ntwice:" in module.emit("asm")


def test_bytes_by_function_fit_into_the_whole(codec):
    codec.run_oz()
    size, _, functions = codec.native_sizes()
    assert 0 < sum(function.bytes for function in functions) <= size


def test_bytes_by_function_are_those_of_the_symbols(codec):
    codec.run_oz()
    image = clang("-Oz", "-c", "-o", "-", CODEC)
    expected = objects.function_sizes(image)
    assert {it.name: it.bytes for it in codec.native_sizes()[2]} == expected


def test_what_is_beside_the_bytes_is_what_the_section_table_says(tmp_path):
    source, made = tmp_path / "a.cpp", tmp_path / "a.o"
    source.write_text(
        "int g(); int counter = 3; static int f(int a) { return a + counter; }\n"
        "extern int (*const table[])(int); int (*const table[])(int) = {f, f};\n"
        "int h(int k) { try { return table[k & 1](g()); } catch (int) { return 2; } }\n"
    )
    made.write_bytes(clang("-Oz", "-g", "-fPIC", "-c", "-o", "-", source))
    said = subprocess.run([find_tool("llvm-readobj"), "-S", made], capture_output=True, text=True, check=True).stdout
    sizes = {name: int(size) for name, size in re.findall(r"Name: (\S+) .*?Size: (\d+)", said, re.DOTALL)}

    def of(*names):
        return sum(size for name, size in sizes.items() if name in names)

    unwind, data = (".eh_frame", ".gcc_except_table"), (".data", ".data.rel.ro", ".data.DW.ref.__gxx_personality_v0")
    relocations = [f".rela{it}" for it in (".text", *unwind, *data)]
    image = made.read_bytes()
    assert objects.beside(image) == objects.Beside(of(*unwind), of(*relocations))
    assert min(of(*unwind), of(".data.rel.ro"), of(*relocations), of(".rela.debug_info")) > 0
    assert objects.code_size(image) + objects.beside(image).unwind == objects.text_size(image) + of(*data)


@pytest.mark.parametrize("size", [objects.code_size, objects.text_size, objects.function_sizes])
def test_an_object_of_another_format_has_no_size(size):
    with pytest.raises(LLVMError, match="ELF and WebAssembly objects alone"):
        size(b"MZ")


@needs_linker
def test_an_emitted_object_links_and_runs(tmp_path, codec):
    codec.run_oz()
    assert run_check(codec, tmp_path) == check_output(tmp_path)


@needs_linker
@pytest.mark.parametrize("seed", range(4))
def test_random_pass_lists_do_not_change_what_the_codec_computes(tmp_path, codec, seed):
    words = random.Random(seed).sample([entry.text for entry in VOCABULARY], 15)
    codec.run(PassList.of(*words))
    assert run_check(codec, tmp_path) == check_output(tmp_path), words


@needs_linker
def test_the_program_of_several_files_prints_what_it_should(tmp_path, golden_program):
    objects = []
    for path in PROGRAM:
        with Module.parse(unoptimised(path)) as module:
            module.run_oz()
            objects.append(tmp_path / f"{path.stem}.o")
            objects[-1].write_bytes(module.emit("obj"))
    assert linked_output(tmp_path, *objects) == golden_program


@needs_linker
def test_the_program_built_by_clang_alone_prints_the_same(tmp_path, golden_program):
    assert linked_output(tmp_path, "-Oz", *PROGRAM) == golden_program


def run_check(module, folder):
    """The output of the codec's checks, linked with the codec as this module has it."""
    (folder / "codec.o").write_bytes(module.emit("obj"))
    return linked_output(folder, "-O1", CODEC_CHECK, folder / "codec.o")


def check_output(folder):
    return linked_output(folder, "-O1", CODEC_CHECK, CODEC)


# The vocabulary on a real module


@pytest.fixture(scope="module")
def exported():
    """What examples/codec.c offers to a linker."""
    with Module.parse(unoptimised(CODEC)) as module:
        return symbols(module)


def symbols(module):
    """The names a module defines for other object files."""
    lines = module.to_text().splitlines()
    defined = [
        line for line in lines if re.match(r"define (?!internal|private)|@\w+ = (?!internal|private|external)", line)
    ]
    return {re.search(r"@([\w.]+)", line)[1] for line in defined}


@pytest.mark.parametrize("word", [entry.text for entry in VOCABULARY])
def test_no_exported_symbol_disappears_under_a_word_of_the_vocabulary(codec, exported, word):
    codec.run(PassList.of(word))
    assert symbols(codec) >= exported


@pytest.mark.parametrize("word", [entry.text for entry in VOCABULARY])
def test_a_word_of_the_vocabulary_leaves_well_formed_ir(codec, word):
    codec.run(PassList.of(word))
    codec.verify()


@pytest.mark.parametrize(("flags", "pointer", "entry"), [([], 8, 24), (["-m32"], 4, 8)], ids=["x86-64", "i386"])
def test_a_table_of_addresses_counts_with_what_fills_it_in(flags, pointer, entry):
    image = clang(
        "-fPIC", "-Oz", "-c", "-x", "c", "-", "-o", "-", *flags, source=b"extern int a, b; int *t[] = {&a, &b};"
    )
    assert objects.text_size(image) == 0
    assert objects.loaded_size(image) == 2 * (pointer + entry)
