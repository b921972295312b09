"""Command lines of real builds, read."""

import os
from pathlib import Path

import pytest

from secondpass.driver.command import read_command
from secondpass.errors import InputError
from secondpass.response_files import split


@pytest.mark.parametrize(
    ("line", "sources", "output"),
    [
        ("-Oz -c a.c", ["a.c"], ""),
        ("-c -Os -o out/a.o a.c", ["a.c"], "out/a.o"),
        ("-DX=1 -Iinc -I inc2 -isystem c.c -include pre.h -Oz -c src/a.cpp -MMD -MF a.d", ["src/a.cpp"], ""),
        ("-Oz a.c b.cc c.o -lm -L lib.c -Wl,-O1 -Xlinker x.c -T script.c -o prog", ["a.c", "b.cc"], "prog"),
        ("-Oz -c -xc a -x c++ b -x none c.c", ["a", "b", "c.c"], ""),
        ("-Oz -flto -fno-lto -c a.c", ["a.c"], ""),
        ("-Oz -mllvm -enable-machine-outliner -c a.i", ["a.i"], ""),
        ("-Oz --sysroot=/x --sysroot /y --param z=1 -Xclang -fno-pch-timestamp -c a.c", ["a.c"], ""),
        ("-Oz --target=thumbv7m-none-eabi -mcpu=cortex-m3 --config m.cfg --unwindlib=none -c a.c", ["a.c"], ""),
        ("-target armv7a-linux-gnueabihf -Oz --gcc-install-dir=/x -c a.c", ["a.c"], ""),
        ("-g -Oz -fPIC -pthread -std=gnu11 -fdata-sections -c ../x/a.C -Wp,-D_FORTIFY_SOURCE=2", ["../x/a.C"], ""),
    ],
)
def test_what_is_compiled_for_size_is_ours(line, sources, output):
    command = read_command(line.split())
    assert not command.untouched
    assert [str(it.path) for it in command.sources] == sources
    assert command.output == output


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "nothing is compiled"),
        ("--version", "--version"),
        ("-v", "-v"),
        ("a.o b.o -o prog", "nothing is compiled"),
        ("-Oz -c start.S", "nothing is compiled"),
        ("-Oz -x assembler-with-cpp -c a.c", "nothing is compiled"),
        ("-c a.c", "no optimisation"),
        ("-Oz -O2 -c a.c", "but -O2"),
        ("-Oz -E a.c", "-E"),
        ("-Oz -O6 -c a.c", "but -O6"),
        ("-Oz -c a.c -o", "-o lacks its word"),
        ("-Oz -c a.c -x", "-x lacks its word"),
        ("-Oz -c a.c -I", "-I lacks its word"),
        ("-Oz -c a.c -o no-such-folder/", "no file of its own"),
        ("-Oz -c a.c -fmemory-profile", "-fmemory-profile"),
        ("-Oz -c a.c -fenable-matrix", "-fenable-matrix"),
        ("-Oz -c a.c -Wp,-MD,x.d,-MT,a.o", "-Wp,-MD,x.d,-MT,a.o"),
        ("-Oz -c a.c -Wp,-MMD", "-Wp,-MMD"),
        ("-Oz -S a.c", "-S"),
        ("-Oz -MM a.c", "-MM"),
        ("-Oz -fsyntax-only a.c", "-fsyntax-only"),
        ("-Oz -c -", "standard input"),
        ("-Oz -x c -c -", "standard input"),
        ("-Oz -flto=thin -c a.c", "-flto"),
        ("-Oz -c -emit-llvm a.c", "-emit-llvm"),
        ("-Oz -fsanitize=address -c a.c", "-fsanitize=address"),
        ("-Oz --coverage -c a.c", "--coverage"),
        ("-Oz -c -o /dev/null a.c", "no file of its own"),
        ("-Oz -c -o a.o a.c b.c", "no file of its own"),
        ("-Oz -MD a.c -o a", "dependencies"),
        ("-Oz -x c a -o prog", "languages"),
        ("-Oz -c -- a.c", "-- is asked for"),
        ("-Oz -c a.c b.S", "b.S is no C or C++"),
        ("-Oz --compile a.c", "--compile"),
        ("-Oz -c --include a.h a.c", "--include"),
        ("-Oz -c a.c --output=b.o", "--output=b.o"),
        ("-Oz -c a.c --driver-mode=g++", "--driver-mode=g++"),
        ("-Oz -c a.c -fstack-usage", "-fstack-usage"),
        ("-Oz -c a.c -foptimization-record-file=x", "-foptimization-record-file=x"),
        ("-Oz -c a.c -Xclang -ast-dump", "-Xclang -ast-dump"),
        ("-Oz -o conftest conftest.c", "tries the compiler"),
        ("-Oz -c /b/CMakeFiles/CMakeScratch/TryCompile-x/testCCompiler.c", "tries the compiler"),
        ("-Oz -c meson-private/tmpx/testfile.c", "tries the compiler"),
    ],
)
def test_everything_else_is_left_to_clang_and_the_reason_is_known(line, reason):
    assert reason in read_command(line.split()).untouched


@pytest.mark.parametrize("level", ["", "-O2", "-O", "-Ofast"])
def test_every_level_is_ours_where_it_is_forced(level):
    assert read_command([*level.split(), "-c", "a.c"]).untouched
    assert not read_command([*level.split(), "-c", "a.c"], force=True).untouched


def test_response_files_are_read_as_gcc_reads_them(tmp_path):
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.write_text("-Oz '-DNAME=\"two words\"' a\\ b.c\n")
    outer.write_text(f"-c\n@{inner} -o x.o")
    command = read_command([f"@{outer}", "@no-such-file"])
    assert command.words == ("-c", "-Oz", '-DNAME="two words"', "a b.c", "-o", "x.o", "@no-such-file")
    assert [it.path for it in command.sources] == [Path("a b.c")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\\ b 'c\\'d' \"e\\\"f\"", ["a b", "c'd", 'e"f']),
        ("'-DS=\"zz\\t1\"'", ['-DS="zzt1"']),  # where a shell keeps the backslash
        ("''\n\t x\\", ["", "x"]),
        ("'never ended", ["never ended"]),
        ("", []),
    ],
)
def test_response_files_are_split_as_clang_splits_them(text, words):
    assert list(split(text)) == words


def test_a_response_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="binary: the response file is no text"):
        read_command([f"@{tmp_path / 'binary'}"])


def test_the_name_of_an_object_may_be_joined_to_its_option():
    command = read_command("-Oz -c a.c -ob/c.o".split())
    assert (command.output, command.without_files()) == ("b/c.o", ["-Oz"])


def test_the_compiler_for_cpp_takes_c_for_cpp():
    languages = [it.language for it in read_command("-Oz -c a.c b.i d.cc".split(), cxx=True).sources]
    assert languages == ["c++", "c++-cpp-output", "c++"]
    assert [it.language for it in read_command("-Oz -c -x c a.c".split(), cxx=True).sources] == ["c"]


def test_a_source_that_can_be_read_once_is_left_to_clang(tmp_path):
    os.mkfifo(tmp_path / "pipe.c")
    assert "can be read only once" in read_command(["-Oz", "-c", str(tmp_path / "pipe.c")]).untouched
    assert not read_command(["-Oz", "-c", "-x", "c", "/dev/null"]).untouched


@pytest.mark.parametrize("word", ["-coverage", "-frecord-command-line", "-grecord-gcc-switches", "-o-"])
def test_what_says_more_than_an_object_is_left_to_clang(word):
    assert read_command(["-Oz", "-c", "a.c", word]).untouched


def test_names_of_files_stay_as_they_are():
    (source,) = read_command("-Oz -c .//a.c".split()).sources
    assert source.word == ".//a.c"


def test_options_for_other_steps_lose_files_outputs_and_dependencies():
    command = read_command("-Oz -MMD -MF x.d -MTx.o -I inc -c -o x.o -xc x -Wp,-MD,y.d -DA".split())
    assert command.without_files() == "-Oz -MMD -MF x.d -MTx.o -I inc -MD -MF y.d -DA".split()
    assert command.without_dependencies() == "-Oz -I inc -DA".split()
    assert (command.value_of("-MF"), command.value_of("-MT"), command.value_of("-MQ")) == ("y.d", "x.o", "")
