"""The main job: a file in, never larger than -Oz, and the program still does what it did."""

import subprocess
import time
from pathlib import Path

import pytest
from compiling import CODEC, EXAMPLES, PROGRAM, SECONDPASS, clang, example_id, needs_linker

from secondpass.engines.onnx import OnnxEngine
from secondpass.errors import InputError
from secondpass.llvm import objects
from secondpass.llvm.module import Module
from secondpass.llvm.sandbox import Sandbox
from secondpass.optimize import optimize
from secondpass.prompt import Objective
from secondpass.strategies.sampling import Sample
from secondpass.strategies.single import Feedback
from secondpass.tuner.coreset import coreset


@pytest.fixture(scope="module")
def engine():
    return OnnxEngine.load()


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as pool:
        yield pool


def oz_by_clang(path):
    """Instructions and bytes of what `clang -Oz` makes of a file."""
    with Module.parse(clang("-Oz", "-emit-llvm", "-c", "-o", "-", path)) as module:
        return module.instruction_count, objects.code_size(clang("-Oz", "-c", "-o", "-", path))


@pytest.mark.parametrize("path", EXAMPLES, ids=example_id)
def test_the_result_is_never_larger_than_clang_oz(path, engine, sandbox):
    result = optimize(path, engine, Feedback(), sandbox)
    instructions, size = oz_by_clang(path)
    assert (result.oz.instructions, result.oz.bytes) == (instructions, size)
    assert result.best.instructions <= instructions
    with Module.parse(result.bitcode) as module:
        assert module.instruction_count == result.best.instructions


def test_samples_make_some_file_smaller_than_oz(engine, sandbox):
    result = optimize(CODEC, engine, Sample(5, 1.0), sandbox)
    assert result.best.instructions < result.oz.instructions
    assert result.origin != "-Oz"


def test_the_objective_bytes_never_adds_bytes(engine, sandbox):
    result = optimize(CODEC, engine, Feedback(), sandbox, objective=Objective.BYTES)
    assert result.best.bytes <= result.oz.bytes
    with Module.parse(result.bitcode) as module:
        assert module.native_size == result.best.bytes


def test_every_function_is_reported_with_its_answers(engine, sandbox):
    result = optimize(CODEC, engine, Sample(3, 1.0), sandbox)
    with Module.parse(clang("-Oz", "-Xclang", "-disable-llvm-passes", "-emit-llvm", "-c", "-o", "-", CODEC)) as module:
        assert [it.name for it in result.functions] == [it.name for it in module.functions()]
    assert sum(it.source.instructions for it in result.functions) == result.source.instructions
    assert sum(it.best.instructions for it in result.functions if it.best) == result.best.instructions
    for function in result.functions:
        assert function.note or len(function.attempts) == 3


def test_the_same_seed_gives_the_same_result(engine, sandbox):
    first, second = (optimize(CODEC, engine, Sample(3, 1.0, seed=7), sandbox) for _ in range(2))
    assert first.passes == second.passes
    assert first.bitcode == second.bitcode


def test_a_function_too_long_for_the_model_is_said_to_be_so(engine, sandbox, tmp_path):
    body = "\n".join(f"  x = x * {number} + g(x ^ {number});" for number in range(3, 400))
    path = tmp_path / "long.c"
    path.write_text(f"int g(int);\nint f(int x) {{\n{body}\n  return x;\n}}\nint h(int x) {{ return g(x) + 1; }}\n")
    result = optimize(path, engine, Feedback(), sandbox)
    notes = {it.name: it.note for it in result.functions}
    assert "token" in notes["f"]
    assert not notes["h"]


def test_functions_that_must_be_inlined_are_inlined(engine, sandbox, tmp_path):
    path = tmp_path / "inline.c"
    path.write_text(
        "static inline __attribute__((always_inline)) int twice(int x) { return 2 * x; }\n"
        "int f(int *p, int n) { int s = 0; for (int i = 0; i < n; i++) s += twice(p[i]); return s; }\n"
    )
    result = optimize(path, engine, Sample(5, 1.0), sandbox)
    with Module.parse(result.bitcode) as module:
        assert [it.name for it in module.functions()] == ["f"]


def test_ir_without_size_attributes_gets_a_true_oz_baseline(engine, sandbox, tmp_path):
    path = tmp_path / "codec.ll"
    path.write_bytes(clang("-O0", "-S", "-emit-llvm", "-o", "-", CODEC))
    result = optimize(path, engine, Feedback(), sandbox)
    assert result.oz.instructions < result.source.instructions / 2


def test_a_module_on_which_oz_takes_too_long_is_said_and_kept(engine, tmp_path):
    loop = "for (int i = 0; i < n; i++) for (int j = 0; j < i; j++) if (a[i] > b[j]) a[i] += b[i - j]"
    source = f"void f(int *a, int *b, int n) {{ {' '.join(f'{loop} * {number};' for number in range(400))} }}"
    path = tmp_path / "slow.bc"
    flags = ("-Oz", "-Xclang", "-disable-llvm-passes", "-emit-llvm", "-c", "-x", "c", "-o", path, "-")
    clang(*flags, source=source.encode())
    before = path.read_bytes()
    started = time.perf_counter()
    with Module.parse(before) as module:
        read = time.perf_counter()
        module.run_oz()
    # Long enough to read the module, too short for -Oz: that takes some three hundred times as long.
    patience = ((read - started) * (time.perf_counter() - read)) ** 0.5
    with (
        Sandbox(workers=1, timeout=patience) as impatient,
        pytest.raises(InputError, match="-Oz fails: took longer than"),
    ):
        optimize(path, engine, Feedback(), impatient)
    assert path.read_bytes() == before


def test_lists_for_which_there_was_no_time_are_said_to_be_so(sandbox, tmp_path, monkeypatch):
    path = tmp_path / "small.c"
    path.write_text("int f(int x) { return x * 2 + 1; }\n")
    lists = coreset(Objective.INSTRUCTIONS, 10)
    assert optimize(path, None, Feedback(), sandbox, coreset=lists).note == ""
    late = optimize(path, None, Feedback(), sandbox, coreset=lists, seconds=1e-9)
    assert late.note == "some lists were not tried; there are 1e-09 s for all of them"
    assert late.best == late.oz
    monkeypatch.setattr("secondpass.optimize._MODULE", 0.0)  # for the functions there is
    assert "some lists were not tried" in optimize(path, None, Feedback(), sandbox, coreset=lists, seconds=60).note


def test_the_next_best_modules_come_the_best_first(sandbox):
    lists = coreset(Objective.INSTRUCTIONS, 10)
    result = optimize(CODEC.parent / "program" / "vm.c", None, Feedback(), sandbox, coreset=lists, runners_up=4)
    sizes = []
    for bitcode in result.runners_up:
        with Module.parse(bitcode) as module:
            sizes.append(module.instruction_count)
    assert len(sizes) == 4
    assert [result.best.instructions, *sizes] == sorted([result.best.instructions, *sizes])


@needs_linker
def test_a_program_of_several_files_runs_as_the_one_built_by_clang(tmp_path):
    objects = tmp_path / "ours"
    objects.mkdir()
    options = ["--samples", "5", "--emit", "obj", "-o", objects]
    subprocess.run([SECONDPASS, "optimize", *PROGRAM, *options], check=True, capture_output=True)
    ours, theirs = tmp_path / "ours.exe", tmp_path / "theirs.exe"
    clang(*sorted(objects.glob("*.o")), "-o", ours)
    clang("-Oz", *PROGRAM, "-o", theirs)
    run = [subprocess.run([program], capture_output=True, check=False) for program in (ours, theirs)]
    assert run[0].stdout == run[1].stdout
    assert run[0].returncode == run[1].returncode
    assert len(run[0].stdout.splitlines()) > 10
    sizes = [Path(program).stat().st_size for program in (ours, theirs)]
    assert all(sizes)


STAYS_WHOLE = """
__attribute__((weak)) int first(int x) { return x; }
int second(int) __attribute__((alias("first")));
"""


def test_where_bytes_count_nothing_that_oz_makes_a_constant_of_stays_a_variable(sandbox, tmp_path):
    # The lists are smaller than -Oz here, and leave the table of weights a variable: no object of theirs could be used.
    table = "static int weights[8] = {3, 1, 4, 1, 5, 9, 2, 6};\nint weight(int i) { return weights[i & 7]; }\n"
    path = tmp_path / "table.c"
    path.write_text(CODEC.read_text() + table + STAYS_WHOLE)
    lists = [it for it in coreset(Objective.BYTES, 50) if "globalopt" not in it.words]
    lists = [it for it in lists if not any(word.startswith("default") for word in it.words)][:3]
    result = optimize(path, None, Feedback(), sandbox, objective=Objective.BYTES, coreset=lists)
    with Module.parse(result.bitcode) as module:
        assert module.variables == 0
