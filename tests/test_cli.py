"""The command line as a user meets it: documents, tables, and one clear line for what is wrong."""

import json
import os
import re
import subprocess

import pytest
from compiling import CODEC, SECONDPASS

from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.toolchain import find_clang

SMALL = "int f(int *p, int n) { int s = 0; for (int i = 0; i < n; i++) s += p[i] * 3; return s; }\n"


def secondpass(*arguments, cwd=None, **environment):
    command = [SECONDPASS, *map(str, arguments)]
    variables = os.environ | {name: str(value) for name, value in environment.items()}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=variables, check=False)


def fault(*arguments, **options):
    """The message of a command that must fail by the user's mistake."""
    run = secondpass(*arguments, **options)
    assert run.returncode == 2, (run.returncode, run.stdout, run.stderr)
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    return run.stderr


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.c"
    path.write_text(SMALL)
    return path


def test_optimize_prints_a_table_with_totals():
    run = secondpass("optimize", CODEC)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    for word in ("unoptimised", "-Oz", "ours", "total", "best list for the file"):
        assert word in run.stdout


def test_optimize_json_has_the_documented_fields(small):
    run = secondpass("optimize", small, "--samples", "2", "--json")
    document = json.loads(run.stdout)
    assert {"version", "llvm", "model", "objective", "input", "totals", "passes", "functions", "seconds"} <= set(
        document
    )
    assert document["llvm"] == load().version
    assert set(document["totals"]["instructions"]) == {"source", "oz", "best"}
    for name in ("bytes", "unwind_bytes", "relocations_bytes"):
        assert set(document["totals"][name]) == {"oz", "best"}
    (function,) = document["functions"]
    assert function["name"] == "f"
    answer = function["answers"][0]
    assert {"passes", "predicted", "actual", "valid", "verdict"} <= set(answer)
    assert set(answer["predicted"]) == {"source", "target"}


def test_what_the_bytes_leave_out_is_said(small):
    run = secondpass("optimize", small, CODEC, "--effort", 0, "--objective", "bytes")
    said = [line for line in run.stdout.splitlines() if line.startswith("beside these bytes, at -Oz -> ours: unwind ")]
    numbers = [[int(it.replace(",", "")) for it in re.findall(r"[\d,]+(?=,|$| ->)", line)] for line in said]
    one, other, both = numbers
    assert both == [sum(pair) for pair in zip(one, other)]
    assert min(both[0], both[2]) > 0  # unwind tables and relocations


def test_names_are_printed_as_they_are(tmp_path):
    path = tmp_path / "a[red]b[" / "c].c"
    path.parent.mkdir()
    path.write_text(SMALL)
    run = secondpass("optimize", path, "--effort", 0)
    assert (run.returncode, run.stderr) == (0, "")
    assert "a[red]b[/c].c" in run.stdout


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_files_harm_nothing(small, tmp_path, closed):
    out = tmp_path / "small.o"
    command = f'"$0" optimize "$1" --effort 0 --json -o "$2" {closed}'
    run = subprocess.run(["sh", "-c", command, SECONDPASS, small, out], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("{") or ">&-" in closed.replace("2>&-", "")
    assert out.read_bytes().startswith(b"\x7fELF")


def test_a_device_stays_a_device(small):
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe:
        command = [SECONDPASS, "optimize", small, "--effort", "0", "-o", f"/dev/fd/{writer}", "--emit", "obj"]
        run = subprocess.run(command, capture_output=True, pass_fds=[writer], check=False)
        os.close(writer)
        assert run.returncode == 0, run.stderr
        assert pipe.read(4) == b"\x7fELF"


def test_optimize_several_files_gives_one_document(small):
    document = json.loads(secondpass("optimize", small, CODEC, "--json").stdout)
    assert [it["input"] for it in document["inputs"]] == [str(small), str(CODEC)]
    total = sum(it["totals"]["instructions"]["best"] for it in document["inputs"])
    assert document["totals"]["instructions"]["best"] == total


@pytest.mark.parametrize("level", [1, 2, 3])
def test_each_effort_asks_the_model(small, level):
    run = secondpass("optimize", small, "--effort", level, "--json")
    assert (run.returncode, run.stderr) == (0, "")
    (function,) = json.loads(run.stdout)["functions"]
    assert len(function["answers"]) >= (1, 5, 1)[level - 1]


@pytest.mark.parametrize(
    ("suffix", "start"), [("ll", b"; ModuleID"), ("bc", b"BC\xc0\xde"), ("s", b"\t"), ("o", b"\x7fELF")]
)
def test_the_suffix_of_the_output_says_its_kind(small, tmp_path, suffix, start):
    out = tmp_path / f"result.{suffix}"
    assert secondpass("optimize", small, "--effort", 0, "-o", out).returncode == 0
    assert out.read_bytes().startswith(start)


@pytest.mark.parametrize("kind", ["ll", "bc", "obj", "asm"])
def test_optimize_writes_what_was_asked_for(small, kind, tmp_path):
    out = tmp_path / "result"
    assert secondpass("optimize", small, "-o", out, "--emit", kind).returncode == 0
    data = out.read_bytes()
    if kind == "obj":
        assert data.startswith(b"\x7fELF")
    elif kind == "asm":
        assert b"f:" in data
    else:
        with Module.parse(data) as module:
            assert [it.name for it in module.functions()] == ["f"]
    assert sorted(it.name for it in tmp_path.iterdir()) == ["result", "small.c"]


def test_flags_behind_the_dashes_reach_clang(tmp_path):
    path = tmp_path / "macro.c"
    path.write_text("int f(void) { return VALUE; }\n")
    assert "VALUE" in fault("optimize", path)
    assert secondpass("optimize", path, "--", "-DVALUE=3").returncode == 0


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("-fsanitize=address", "-fsanitize=address is asked for"),
        ("-fprofile-instr-generate", "-fprofile-instr-generate is asked for"),
        ("-MD", "dependencies are asked for"),
        ("-gsplit-dwarf", "-gsplit-dwarf is asked for"),
        ("-save-temps", "-save-temps is asked for"),
        ("-ox.o", "the output x.o is named"),
        ("-E", "-E is asked for"),
    ],
)
def test_flags_that_ask_for_more_than_code_are_refused(small, tmp_path, flag, said):
    before = sorted(tmp_path.iterdir())
    assert said in fault("optimize", small, "--effort", 0, "--", flag, cwd=tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_fails_costs_no_other_its_result(small, tmp_path):
    data, wrong = tmp_path / "data.c", tmp_path / "wrong.c"
    data.write_text("const unsigned char table[4] = {1, 2, 3, 4};\n")
    wrong.write_text("int f(\n")
    (tmp_path / "out").mkdir()
    run = secondpass("optimize", data, small, wrong, "--effort", 0, "-o", tmp_path / "out", "--emit", "bc")
    assert run.returncode == 2
    assert f"{data}: it defines no function" in run.stderr and f"{wrong}: clang does not compile it" in run.stderr
    assert [it.name for it in (tmp_path / "out").iterdir()] == ["small.bc"]
    assert "small.c" in run.stdout and "data.c" not in run.stdout


def test_standard_output_is_no_place_for_results(small, tmp_path):
    assert "name one" in fault("optimize", small, "--effort", 0, "-o", "-", cwd=tmp_path)


def test_a_file_at_fault_costs_the_others_nothing(small, tmp_path):
    broken, foreign = tmp_path / "broken.c", tmp_path / "foreign.ll"
    broken.write_text("int f( {")
    foreign.write_text('target triple = "pdp11-none-elf"\ndefine i32 @f() {\n  ret i32 1\n}\n')
    run = secondpass("optimize", foreign, small, broken, "--effort", 0, "--json")
    assert run.returncode == 2
    document = json.loads(run.stdout)
    assert [it["input"] for it in document["inputs"]] == [str(small)]
    assert [it.partition(": ")[0] for it in document["refused"]] == [str(foreign), str(broken)]
    assert all(f"secondpass: {it}" in run.stderr for it in document["refused"])


@pytest.mark.parametrize("name", ["a.CC", "a.c++", "a.cxx", "a.C"])
def test_sources_of_cpp_are_told_by_the_suffixes_that_clang_knows(tmp_path, name):
    path = tmp_path / name
    path.write_text("template <class T> T f(T x) { return x + 1; }\nint g(int x) { return f(x); }\n")
    run = secondpass("optimize", path, "--effort", 0, "-o", tmp_path / "a.o")
    assert (run.returncode, run.stderr) == (0, "")


def test_standard_output_by_its_path_may_be_a_pipe(small):
    run = secondpass("optimize", small, "--effort", 0, "--emit", "ll", "-o", "/dev/stdout")
    assert (run.returncode, run.stderr) == (0, "")
    assert "define " in run.stdout


def test_what_a_link_names_is_written(small, tmp_path):
    link, target = tmp_path / "link.o", tmp_path / "target.o"
    link.symlink_to(target)
    assert secondpass("optimize", small, "--effort", 0, "-o", link).returncode == 0
    assert link.is_symlink()
    assert target.read_bytes().startswith(b"\x7fELF")


@pytest.mark.parametrize("level", ["default<Oz>", "default<Os>"])
def test_levels_that_end_the_process_are_refused(small, level):
    assert f"has no pass '{level}'" in fault("explain", small, "--passes", f"sroa,{level}")


def test_the_table_says_what_is_gone_and_what_is_data(tmp_path):
    path = tmp_path / "gone.c"
    path.write_text(
        "static int once(int x) { return x * 3; }\nint f(int x) { return once(x); }\n"
        'const char *name(void) { return "secondpass"; }\n'
    )
    rows = [
        line.split("│")[1:-1] for line in secondpass("optimize", path, "--effort", 0).stdout.splitlines() if "│" in line
    ]
    table = {row[0].strip(): [it.strip() for it in row[1:]] for row in rows}
    assert list(table) == ["f", "name", "1 more, inlined or unused", "data, and between functions", "total"]
    for column in (-2, -1):
        assert sum(int(row[column] or 0) for row in list(table.values())[:-1]) == int(table["total"][column])


def test_flags_for_a_command_that_calls_no_clang_are_refused(tmp_path):
    assert "for clang, which tune does not call: leave -DX out" in fault("tune", tmp_path, "--out", "x", "--", "-DX")


def test_an_object_has_the_sections_that_clang_flags_ask_for(small, tmp_path):
    secondpass("optimize", small, "-o", tmp_path / "small.o", "--", "-ffunction-sections")
    assert b".text.f" in (tmp_path / "small.o").read_bytes()


def test_explain_shows_each_pass_and_the_minimal_list(small):
    document = json.loads(secondpass("explain", small, "--passes", "sroa,sroa,dce,instsimplify", "--json").stdout)
    assert [step["pass"] for step in document["steps"]] == ["", "sroa", "sroa", "dce", "instsimplify"]
    counts = [step["instructions"] for step in document["steps"]]
    assert counts[1] < counts[0]
    assert "sroa" in document["minimal"]
    assert len(document["minimal"]) < 4
    table = secondpass("explain", small, "--passes", "sroa,dce").stdout
    assert "minimal" in table
    assert "-Oz, for comparison" in table


def test_passes_lists_the_vocabulary_and_what_is_left_out():
    document = json.loads(secondpass("passes", "--json").stdout)
    assert all(entry["available"] for entry in document["vocabulary"]) == (load().major == 23)
    assert any(entry["name"] == "internalize" and entry["reason"] for entry in document["excluded"])
    assert "left out" in secondpass("passes").stdout


def test_doctor_is_content_with_a_good_installation():
    run = secondpass("doctor")
    assert run.returncode == 0, run.stdout
    assert run.stdout.count("ok ") == len(run.stdout.splitlines()) >= 7


def test_doctor_names_the_mend_when_the_library_is_missing(tmp_path):
    run = secondpass("doctor", SECONDPASS_LLVM=tmp_path)
    assert run.returncode == 2
    assert "SECONDPASS_LLVM" in run.stdout


def test_doctor_says_whether_the_clang_of_builds_fits_the_library(tmp_path):
    fits = secondpass("doctor", SECONDPASS_REAL_CC=find_clang())
    assert fits.returncode == 0
    assert re.match(rf"ok +SECONDPASS_REAL_CC .*clang version {load().major}\.", fits.stdout.splitlines()[-1])
    for name, said, mend in (
        ("clang", "clang version 16.0.6", "set SECONDPASS_LLVM to this clang's"),
        ("gcc", "gcc (Debian) 12.2.0", "is no clang"),
        ("armcc", f"clang version {load().major}.1.4", "is no clang by its name"),
    ):
        compiler = tmp_path / name
        compiler.write_text(f"#!/bin/sh\necho '{said}'\n")
        compiler.chmod(0o755)
        run = secondpass("doctor", SECONDPASS_REAL_CC=compiler)
        assert run.returncode == 2 and mend in run.stdout.splitlines()[-1]


def test_a_missing_file(tmp_path):
    assert "No such file" in fault("optimize", tmp_path / "absent.c")


def test_a_folder_as_input(tmp_path):
    folder = tmp_path / "folder.c"
    folder.mkdir()
    assert "directory" in fault("optimize", folder)


def test_c_that_does_not_compile_gets_clangs_message(tmp_path):
    path = tmp_path / "bad.c"
    path.write_text("int f(void) { return x; }\n")
    assert "bad.c:1:22: error: use of undeclared identifier 'x'" in fault("optimize", path)


def test_invalid_ir_gets_llvms_message_with_its_line(tmp_path):
    path = tmp_path / "bad.ll"
    path.write_text("define i32 @f() {\n  ret i32 %x\n}\n")
    message = fault("optimize", path)
    assert "bad.ll:2:11" in message
    assert "use of undefined value" in message
    assert len(message.splitlines()) == 1


def test_random_bytes_named_bitcode(tmp_path):
    path = tmp_path / "noise.bc"
    path.write_bytes(bytes(range(256)) * 8)
    assert "noise.bc" in fault("optimize", path)
    path.write_bytes(b"BC\xc0\xde" + bytes(range(256)) * 8)
    assert "noise.bc" in fault("optimize", path)


def test_a_module_without_functions(tmp_path):
    path = tmp_path / "empty.c"
    path.write_text("int x = 3;\n")
    assert "no function" in fault("optimize", path)


def test_a_target_the_library_lacks(tmp_path):
    path = tmp_path / "far.ll"
    path.write_text('target triple = "msp430-none-elf"\ndefine i32 @f() {\n  ret i32 0\n}\n')
    message = fault("optimize", path)
    assert "msp430" in message
    assert "SECONDPASS_LLVM" in message


def test_an_unknown_kind_of_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("hello")
    assert "not a kind of file" in fault("optimize", path)


@pytest.mark.parametrize(
    ("passes", "words"),
    [
        ("sroaa", "did you mean sroa"),
        ("internalize", "left out of the vocabulary"),
        ("sroa(", "not a pass manager"),
        ("", "empty"),
    ],
)
def test_explain_refuses_a_bad_list(small, passes, words):
    assert words in fault("explain", small, "--passes", passes)


@pytest.mark.parametrize(
    "options",
    [
        ["--samples", "0"],
        ["--temperature", "-1"],
        ["--samples", "3", "--temperature", "0"],
        ["--samples", "3", "--top-p", "0"],
        ["--samples", "3", "--top-p", "1.5"],
        ["--samples", "3", "--top-k", "0"],
        ["--effort", "4"],
        ["--effort", "1", "--samples", "3"],
        ["--top-k", "5"],
        ["--strategy", "priority", "--samples", "3", "--top-p", "0.9"],
        ["--strategy", "iterate", "--samples", "3", "--top-p", "0.9"],
        ["-o", "out.o", "CODEC"],
        ["--emit", "elf"],
    ],
)
def test_contradictory_options(small, options, tmp_path):
    arguments = [CODEC if it == "CODEC" else it for it in options]
    fault("optimize", small, *arguments, cwd=tmp_path)
    assert sorted(it.name for it in tmp_path.iterdir()) == ["small.c"]


def test_samples_are_cut_as_the_options_say(small):
    def lists(*options):
        run = secondpass("optimize", small, "--json", *options)
        assert run.returncode == 0, run.stderr
        answers = json.loads(run.stdout)["functions"][0]["answers"]
        return [it["passes"] for it in answers if it["origin"] != "finish"]

    greedy = lists("--strategy", "single")
    warm = "--samples", "5", "--temperature", "3"
    assert lists(*warm, "--top-k", "1") == greedy * 5 == lists(*warm, "--top-p", "0.01")
    assert lists(*warm) != greedy * 5


def test_flags_for_clang_make_no_sense_with_ir(tmp_path):
    path = tmp_path / "f.ll"
    path.write_text("define i32 @f() {\n  ret i32 0\n}\n")
    assert "no use for IR" in fault("optimize", path, "--", "-DX")


@pytest.mark.parametrize("out", ["absent/out.o", "folder", "small.c"])
def test_an_output_that_cannot_be_written(small, out, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "small.o").mkdir()
    fault("optimize", small, "-o", tmp_path / out)
    assert small.read_text() == SMALL


def test_a_closed_pipe_is_no_traceback():
    run = subprocess.run(f"{SECONDPASS} passes | head -1", shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in run.stderr
