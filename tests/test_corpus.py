"""Corpora: from files, compile databases and Csmith to functions by hash; resumed, damaged and mended."""

import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from compiling import SECONDPASS
from processes import SLOW, hearing_ctrl_c, running, wait_for

from secondpass import ir
from secondpass.cli import main
from secondpass.llvm.module import Module

pytest.importorskip("pyarrow", reason="a corpus needs pyarrow: pip install secondpass[corpus]")

from secondpass.corpus import store
from secondpass.corpus.build import Source, collect
from secondpass.corpus.disk import check_said, full_disk_is_clear
from secondpass.corpus.extraction import Record
from secondpass.corpus.processes import Processes
from secondpass.corpus.store import Corpus, build_index, fix_splits, shard_path, split_of, write_shard
from secondpass.corpus.units import Command, Project, compile_units, meaningful
from secondpass.errors import CorpusError, InputError

NESTED = f"%t = type {'{' * 200_000}i32{'}' * 200_000}\n"
"""A type nested so deeply that LLVM's parser overflows its stack."""

SOURCES = {
    "sums.c": """
        int sum(int *p, int n) { int s = 0; for (int i = 0; i < n; i++) s += p[i] * 3; return s; }
        int total(int *q, int k) { int t = 7; for (int j = 0; j < k; j++) t += q[j] * 5; return t; }
        static int square(int x) { return x * x - 1; }
        int third(int x) { return square(x) / 3; }
    """,
    "greater.cpp": """
        struct P { int x; ~P(); };
        int twice(P *p) { return p->x * 2; }
        template <class T> T greater(T a, T b) { return a < b ? b : a; }
        int positive(int a) { return greater(a, 0); }
    """,
    "text.ll": """
        target triple = "x86_64-unknown-linux-gnu"
        define i32 @added(i32 %x, i32 %y) {
          %z = add i32 %x, %y
          ret i32 %z
        }
        define void @no_code() {
          call void asm sideeffect "no such instruction", ""()
          ret void
        }
    """,
    "folder/bitcode.bc": """
        target triple = "x86_64-unknown-linux-gnu"
        define i64 @shifted(i64 %x) {
          %y = shl i64 %x, 7
          %z = xor i64 %y, %x
          ret i64 %z
        }
    """,
    "bad.c": "int bad(void) { return x; }\n",
    "deadly.ll": NESTED,
    "notes.txt": "no source",
}


def corpus(*arguments):
    """`secondpass corpus`, in this process; its exit code."""
    return main(["corpus", *map(str, arguments)])


def fault(capsys, *arguments):
    """The message of a command that must fail by the user's mistake."""
    capsys.readouterr()
    assert corpus(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("secondpass: ")
    assert len(said.splitlines()) == 1
    return said


def hashes(out):
    return sorted(Corpus(out).entries)


def names(out):
    opened = Corpus(out)
    return sorted(opened.record(key).name for key in opened.entries)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    for name, text in SOURCES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".bc":
            with Module.parse(text) as module:
                path.write_bytes(module.to_bitcode())
        else:
            path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def made(sources, tmp_path_factory):
    """A corpus of those files; nobody changes it."""
    out = tmp_path_factory.mktemp("made")
    command = [SECONDPASS, "corpus", "files", sources, "--project", "mixed", "--split", "train", "--out", out]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    (out / "printed.txt").write_text(run.stdout)
    return out


@pytest.fixture
def copied(made, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(made, tmp_path / "corpus")


# What a corpus of files holds


def test_functions_are_named_by_project_file_and_language(made):
    opened = Corpus(made)
    found = {(it.name, it.file, it.language) for it in map(opened.record, opened.entries)}
    assert found == {
        ("sum", "sums.c", "c"),
        ("square", "sums.c", "c"),
        ("third", "sums.c", "c"),
        ("_Z5twiceP1P", "greater.cpp", "c++"),
        ("_Z8positivei", "greater.cpp", "c++"),
        ("_Z7greaterIiET_S0_S0_", "greater.cpp", "c++"),
        ("added", "text.ll", "ir"),
        ("shifted", "folder/bitcode.bc", "ir"),
    }
    assert {opened.record(key).project for key in opened.entries} == {"mixed"}


def test_sizes_are_those_of_the_module(made):
    opened = Corpus(made)
    for key, entry in opened.entries.items():
        with Module.parse(opened.bitcode(key)) as module:
            assert len(module.functions()) == 1
            assert module.instruction_count == entry.source
            module.run_oz()
            assert module.instruction_count == entry.oz
            assert module.native_size == entry.oz_bytes > 0


def test_a_function_is_found_by_the_hash_of_its_text(made):
    opened = Corpus(made)
    for key, entry in opened.entries.items():
        text = opened.text(key)
        with Module.parse(opened.bitcode(key)) as module:
            assert ir.normalise(module.to_text()) == text
        assert ir.digest(text) == key
        assert (ir.group(text), len(text)) == (entry.group, entry.characters)
        record = opened.record(key)
        assert (record.hash, record.text, record.bitcode) == (key, text, opened.bitcode(key))
        shared = {name: value for name, value in asdict(entry).items() if name in asdict(record)}
        assert len(shared) > 5 and shared.items() <= asdict(record).items()


def test_an_unknown_hash_is_a_key_error(made):
    with pytest.raises(KeyError):
        Corpus(made).bitcode("0" * 24)


def test_the_same_function_under_two_names_is_kept_once(made):
    assert {"sum", "total"} & set(names(made)) == {"sum"}


def test_ir_is_marked_for_size(made):
    opened = Corpus(made)
    for key in opened.entries:
        with Module.parse(opened.bitcode(key)) as module:
            assert module.has_attribute("minsize")


def test_what_does_not_compile_is_a_line_with_the_reason(made):
    report = json.loads((made / "report.json").read_text())["mixed"]
    assert (report["units"], report["compiled"], report["failure"]) == (6, 4, "")
    bad, deadly, no_code = report["problems"]
    assert bad.startswith("bad.c: ")
    assert "use of undeclared identifier 'x'" in bad
    assert deadly.startswith("deadly.ll: ")
    assert no_code.startswith("text.ll: no_code: -Oz: ")
    printed = (made / "printed.txt").read_text()
    assert "4 of 6" in printed
    assert "3 left out: bad.c: " in printed
    assert "8 functions" in printed


def test_a_module_that_kills_llvm_costs_itself_alone(made):
    (deadly,) = (unit for unit in Project.load(made / "units" / "mixed").units if unit.file == "deadly.ll")
    assert deadly.error.startswith("crash: ")


def test_flags_behind_the_dashes_reach_clang(tmp_path):
    path = tmp_path / "macro.c"
    path.write_text("int f(void) { return VALUE; }\n")
    assert corpus("files", path, "--out", tmp_path / "out", "--", "-DVALUE=31") == 0
    opened = Corpus(tmp_path / "out")
    assert ["ret i32 31" in opened.text(key) for key in opened.entries] == [True]


def test_a_corpus_does_not_feed_on_itself(tmp_path, capsys):
    (tmp_path / "one.c").write_text("int one(int x) { return x - 1; }\n")
    for name in ("first", "second"):
        assert corpus("files", tmp_path, "--out", tmp_path / "out", "--project", name) == 0
        assert "1 of 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("absent.c", "no such file or folder"),
        ("absent", "no such file or folder"),
        ("notes.txt", "not a kind of file that functions come from"),
        ("bad.c", "no translation unit that compiles among 1: bad.c: "),
        ("deadly.ll", "no translation unit that compiles among 1: deadly.ll: crash"),
        ("nothing", "no translation unit that compiles among 0"),
    ],
)
def test_files_without_functions_are_refused(sources, tmp_path, capsys, path, said):
    (tmp_path / "nothing").mkdir()
    path = tmp_path / path if path == "nothing" else sources / path
    message = fault(capsys, "files", path, "--out", tmp_path / "out")
    assert str(path) in message
    assert said in message


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", ""])
def test_a_project_is_named_like_a_file(sources, tmp_path, capsys, name):
    said = fault(capsys, "files", sources / "sums.c", "--out", tmp_path / "out", f"--project={name}")
    assert "--project" in said or "cannot be the name" in said
    assert not (tmp_path / "out").exists()


def test_an_out_folder_that_is_a_file_is_refused(sources, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert "out: cannot be written to" in fault(capsys, "files", sources / "sums.c", "--out", tmp_path / "out")


# Compile databases


@pytest.fixture
def project(tmp_path):
    """A project with a header beside it, and what writes its compile database."""
    folder = tmp_path / "project"
    (folder / "include").mkdir(parents=True)
    (folder / "build").mkdir()
    (folder / "include" / "scale.h").write_text("#define SCALED(x) ((x) * SCALE)\n")
    (folder / "one.c").write_text('#include "scale.h"\nint one(int *p, int i) { return SCALED(p[i]); }\n')
    (folder / "two.c").write_text("char two(int i) { return TEXT[i]; }\n")

    def write(*entries):
        (folder / "build" / "compile_commands.json").write_text(json.dumps(entries))
        return folder / "build" / "compile_commands.json"

    return SimpleNamespace(folder=folder, write=write, out=tmp_path / "out")


ONE = {
    "directory": ".",
    "file": "../one.c",
    "arguments": "gcc -O3 -g -I ../include -DSCALE=3 -fsanitize=address -c ../one.c -o one.o".split(),
}
OF_GCC = " ".join(f"-fsuch-flag-has-gcc-alone-{number}" for number in range(30))
TWO = {"directory": "..", "file": "two.c", "command": f"g++-12 -O0 '-DTEXT=\"a b\"' {OF_GCC} -c two.c"}
GONE = {"directory": "..", "file": "gone.c", "command": "cc -c gone.c"}


def test_a_database_is_compiled_as_its_commands_say(project):
    assert corpus("compdb", project.write(ONE, TWO), "--out", project.out, "--project", "p") == 0
    opened = Corpus(project.out)
    found = {it.name: it for it in map(opened.record, opened.entries)}
    assert {(it.name, it.file, it.language) for it in found.values()} == {
        ("one", "one.c", "c"),
        ("_Z3twoi", "two.c", "c++"),
    }
    assert "mul nsw i32 %9, 3" in found["one"].text
    assert "asan" not in found["one"].text
    assert {len(it.text.splitlines()) > 6 for it in found.values()} == {True}  # no pass has touched them


@pytest.mark.parametrize("order", [1, -1])
def test_of_near_duplicates_the_same_one_is_kept_whatever_the_order_of_the_build(project, order):
    for name, factor in (("a.c", 3), ("b.c", 5)):
        (project.folder / name).write_text(f"int scaled(int *p, int i) {{ return p[i] * {factor}; }}\n")
    commands = [{"directory": "..", "file": it, "command": f"cc -c {it}"} for it in ("a.c", "b.c")]
    assert corpus("compdb", project.write(*commands[::order]), "--out", project.out) == 0
    (key,) = (opened := Corpus(project.out)).entries
    assert opened.record(key).file == "a.c"


def test_response_files_count_from_the_commands_folder(project):
    (project.folder / "flags").write_text("-O3 -I include '-DSCALE=5 + 2'\n")
    command = {"directory": "..", "file": "one.c", "command": "cc @flags -c one.c"}
    assert corpus("compdb", project.write(command), "--out", project.out, "--project", "p") == 0
    (key,) = (opened := Corpus(project.out)).entries
    assert "add nsw i32 %10, 2" in opened.record(key).text


def test_a_source_that_vanished_is_a_line(project, capsys):
    absent = {"directory": "/absent/folder", "file": "lost.c", "command": "cc -c lost.c"}
    assert corpus("compdb", project.write(GONE, ONE, absent), "--out", project.out) == 0
    assert "1 of 3" in capsys.readouterr().out
    (report,) = json.loads((project.out / "report.json").read_text()).values()
    gone, lost = report["problems"]
    assert "gone.c: " in gone
    assert "no such file" in gone
    assert lost.startswith("/absent/folder/lost.c: ")


def test_a_database_of_vanished_sources_is_refused(project, capsys):
    said = fault(capsys, "compdb", project.write(GONE, GONE | {"file": "lost.c"}), "--out", project.out)
    assert "compile_commands.json: no translation unit that compiles among 2: " in said
    assert "no such file" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"file": "a.c"}', "a compile database is a list of commands, this is not"),
        ("[{,}]", "not a readable compile database"),
        ('[{"file": "a.c", "directory": "."}]', "entry 0 is not a compiler command"),
        ('[{"directory": ".", "command": "cc a.c"}]', "'file' is missing"),
        ('[{"file": "a.c", "command": "cc \'"}]', "No closing quotation"),
        ('[{"file": "a.c", "arguments": "cc a.c"}]', "its arguments are not a list of words"),
        ('[{"file": "a.c", "arguments": []}]', "its arguments are not a list of words"),
        ("[3]", "entry 0 is not a compiler command"),
        ("[]", "no translation unit that compiles among 0"),
    ],
)
def test_what_is_no_database_is_refused(tmp_path, capsys, text, said):
    path = tmp_path / "compile_commands.json"
    path.write_text(text)
    message = fault(capsys, "compdb", path, "--out", tmp_path / "out")
    assert str(path) in message
    assert said in message


def test_a_database_that_is_absent_is_refused(tmp_path, capsys):
    assert "absent.json: not a readable compile database" in fault(
        capsys, "compdb", tmp_path / "absent.json", "--out", tmp_path / "out"
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("-O2 -Os -O -Ofast -g -ggdb3 -gdwarf-4", ""),
        ("-fsanitize=address,undefined -fno-sanitize=all -fprofile-arcs --coverage -pg -flto=auto", ""),
        ("-c -S a.c -o a.o -oa.o -MD -MF a.d -MT a -MFa.d -MJ a.json -pipe -save-temps=obj -fsyntax-only", ""),
        ("-L lib -Llib -l m -lm -Wl,-z,now -z now -T link.ld -shared -static -Xlinker -x -Xassembler -x", ""),
        ("-Wall -Werror=format -pedantic -fdiagnostics-color=always -mllvm -inline-threshold=9", ""),
        ("-Iinclude -I include -isystem /sys -iquote q -idirafter d", "same"),
        ("-DA -D B=2 -UC -U D -include x.h -imacros y.h -Wp,-D_FORTIFY_SOURCE=2", "same"),
        ("-std=gnu99 -x c++ -fPIC -fno-strict-aliasing -funsigned-char -pthread -march=x86-64-v2", "same"),
        ("-B tools -imultiarch x86_64-linux-gnu -iframework frameworks -iwithsysroot inc", "same"),
        ("--sysroot /root -isysroot /root -target x86_64-linux-gnu -Xclang -fno-pch-timestamp", "same"),
        ("-g -Ia -O2 b.c -DN=1 -o b.o -W -fPIC", "-Ia -DN=1 -fPIC"),
    ],
)
def test_flags_that_say_what_the_source_means_are_kept(given, kept):
    assert " ".join(meaningful(given.split(), "a.c")) == (given if kept == "same" else kept)


@pytest.mark.parametrize(
    ("command", "language"),
    [
        ("cc a.c", "c"),
        ("/usr/bin/x86_64-linux-gnu-g++-12 a.c", "c++"),
        ("g++ a.c", "c++"),
        ("cc a.cc", "c++"),
        ("cc a.C", "c++"),
        ("cc -x c++ a.c", "c++"),
        ("cc -xc++ a.c", "c++"),
        ("g++ -x c a.c", "c"),
        ("cc a.S", None),
        ("cc a.f90", None),
        ("cc -x assembler-with-cpp a.c", None),
    ],
)
def test_the_language_is_told_by_flag_compiler_and_suffix(command, language):
    words = command.split()
    assert Command(Path(), words[-1], tuple(words)).language == language


def test_a_file_that_two_commands_compile_is_one_unit(project):
    commands = [
        Command(project.folder, "two.c", ("cc", '-DTEXT="a"')),
        Command(project.folder / "build", "../two.c", ("cc", '-DTEXT="b"')),
    ]
    (unit,) = compile_units(commands, project.folder, project.out)
    assert (unit.file, unit.error) == ("two.c", None)


# Csmith


needs_csmith = pytest.mark.skipif(
    shutil.which("csmith") is None, reason="needs Csmith: apt-get install csmith libcsmith-dev"
)


@needs_csmith
def test_the_same_seeds_give_the_same_functions(tmp_path):
    for name in ("one", "other"):
        assert corpus("csmith", "--count", "2", "--seed", "7", "--out", tmp_path / name) == 0
    one, other = Corpus(tmp_path / "one"), Corpus(tmp_path / "other")
    assert one.entries == other.entries != {}
    assert {it.split for it in one.entries.values()} == {"train"}
    assert {one.record(key).file for key in one.entries} == {"7.c", "8.c"}
    assert [one.text(key) for key in one.entries] == [other.text(key) for key in one.entries]


def test_csmith_wants_a_positive_count(tmp_path, capsys):
    assert "--count must be positive" in fault(capsys, "csmith", "--count", "0", "--out", tmp_path / "out")


def test_a_machine_without_csmith_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install csmith" in fault(capsys, "csmith", "--count", "1", "--out", tmp_path / "out")


# Statistics


def test_statistics_as_a_table(made, capsys):
    assert corpus("stats", made) == 0
    printed = capsys.readouterr().out
    for word in ("all", "train", "validation", "test", "c++", "ir", "mixed", "tokens of 8 functions"):
        assert word in printed


def test_statistics_as_a_document(made, capsys):
    assert corpus("stats", made, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    parts = {part["name"]: part for part in document["parts"]}
    assert {name: part["functions"] for name, part in parts.items()} == {
        "all": 8,
        "train": 8,
        "validation": 0,
        "test": 0,
        "c": 3,
        "c++": 3,
        "ir": 2,
    }
    sizes = sorted(entry.source for entry in Corpus(made).entries.values())
    assert parts["all"]["source"] == {"median": (sizes[3] + sizes[4]) / 2, "ninety": sizes[6], "most": sizes[7]}
    assert [part["name"] for part in document["projects"]] == ["mixed"]
    assert document["sample"] == 8
    lengths = [parts[language]["tokens"]["most"] for language in ("c", "c++", "ir")]
    assert min(lengths) > 0
    assert parts["all"]["tokens"]["most"] == document["projects"][0]["tokens"]["most"] == max(lengths)


def test_statistics_as_a_picture(made, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install secondpass[report]")
    assert corpus("stats", made, "--picture", tmp_path / "sizes.png") == 0
    assert (tmp_path / "sizes.png").read_bytes().startswith(b"\x89PNG")
    for name in ("sizes.xyz", "absent/sizes.png"):
        assert f"{name}: the picture cannot be written" in fault(
            capsys, "stats", made, "--picture", tmp_path / name, "--json"
        )


def test_statistics_of_a_corpus_without_functions(tmp_path, recwarn):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install secondpass[report]")
    (tmp_path / "empty.c").write_text("int x = 3;\n")
    assert corpus("files", tmp_path / "empty.c", "--out", tmp_path / "out") == 0
    assert corpus("stats", tmp_path / "out", "--picture", tmp_path / "empty.svg") == 0
    assert [str(it.message) for it in recwarn if "matplotlib" in it.filename or "corpus" in it.filename] == []


# Splits and near-duplicates across projects


def record(number, project, group=None, source=9):
    """A function made up: what is tested with it does not look at code."""
    group = number if group is None else group
    identity = (f"{number:024x}", f"{group:024x}")
    return Record(*identity, project, "1", "a.c", f"f{number}", "c", b"BC", "text", source, 5, 7)


def made_up(out, records):
    """A corpus of made-up functions."""
    for project in sorted({it.project for it in records}):
        write_shard(shard_path(out, project), [it for it in records if it.project == project])
    build_index(out)
    return Corpus(out)


@pytest.mark.parametrize("held_out", ["test", "validation"])
@pytest.mark.parametrize(("training", "other"), [("a", "z"), ("z", "a")])
def test_what_training_and_held_out_projects_share_is_held_out(tmp_path, held_out, training, other):
    fix_splits(tmp_path, {training: "train", other: held_out})
    records = [record(10, training, 1), record(11, training, 2), record(20, other, 2), record(21, other, 3)]
    found = {int(it.hash, 16): (it.project, it.split) for it in made_up(tmp_path, records).entries.values()}
    assert found == {10: (training, "train"), 20: (other, held_out), 21: (other, held_out)}


def test_no_near_duplicates_are_in_two_splits(tmp_path):
    records = [record(100 * p + it, f"project{p}", (p * it) % 200) for p in range(40) for it in range(20)]
    entries = list(made_up(tmp_path, records).entries.values())
    assert len({entry.split for entry in entries}) == 3
    assert len({entry.group for entry in entries}) == len(entries)
    assert {entry.group for entry in entries} == {it.group for it in records}


def test_projects_fall_into_splits_by_their_names():
    drawn = [split_of(f"project{number}", {}) for number in range(2000)]
    assert [number for number, split in enumerate(drawn[:60]) if split != "train"] == [1, 7, 8, 16, 17, 20, 45, 46, 50]
    assert 0.08 < drawn.count("test") / 2000 < 0.12
    assert 0.03 < drawn.count("validation") / 2000 < 0.07


def test_a_fixed_split_is_kept_and_can_be_changed(tmp_path):
    for split in ("validation", "test"):
        fix_splits(tmp_path, {"p": split})
        fix_splits(tmp_path, {"q": "train"})
        assert [it.split for it in made_up(tmp_path, [record(1, "p")]).entries.values()] == [split]


def test_a_function_of_two_projects_counts_once(copied, tmp_path):
    path = tmp_path / "copy.c"
    path.write_text(SOURCES["sums.c"].replace("third", "drittel").replace("* 3", "* 33"))
    assert corpus("files", path, "--project", "copy", "--split", "test", "--out", copied) == 0
    opened = Corpus(copied)
    assert len(opened) == 8
    assert {it.project for it in opened.select("test")} == {"copy"}
    assert "drittel" in names(copied)
    assert "third" not in names(copied)


def test_selecting_by_split_and_size(tmp_path):
    fix_splits(tmp_path, {"a": "train", "b": "test", "c": "validation"})
    records = [record(10 * n + it, project, source=it + 1) for n, project in enumerate("abc") for it in range(3)]
    opened = made_up(tmp_path, records)
    assert [it.project for it in opened.select("train", "test")] == ["a"] * 3 + ["b"] * 3
    assert [it.source for it in opened.select(largest=2)] == [1, 2] * 3
    keys = [it.hash for it in opened.select()]
    assert [opened.entries[key].project for key in opened.in_order_of_shards(reversed(keys))] == list("aaabbbccc")


# Going on, and again


def stamps(out, project="mixed"):
    return [path.stat().st_mtime_ns for path in (out / "units" / project / "units.json", shard_path(out, project))]


def test_a_project_that_is_done_is_not_made_again(copied, sources):
    before = stamps(copied), hashes(copied)
    assert corpus("files", sources, "--project", "mixed", "--out", copied) == 0
    assert (stamps(copied), hashes(copied)) == before


def test_what_was_left_out_is_still_said_when_nothing_is_made(copied, sources, capsys):
    assert corpus("files", sources, "--project", "mixed", "--out", copied) == 0
    assert "3 left out: bad.c: " in capsys.readouterr().out


def test_again_makes_a_project_anew(copied, sources):
    units, shard = stamps(copied)
    found = hashes(copied)
    assert corpus("files", sources, "--project", "mixed", "--again", "--out", copied) == 0
    assert all(now > before for now, before in zip(stamps(copied), (units, shard)))
    assert hashes(copied) == found


def test_what_is_made_anew_in_vain_stays_as_it_was(copied, sources, tmp_path, capsys):
    found, before = hashes(copied), (copied / "units/mixed/units.json").read_bytes()
    empty = tmp_path / "empty"
    empty.mkdir()
    fault(capsys, "files", empty, "--project", "mixed", "--again", "--out", copied)
    assert (hashes(copied), (copied / "units/mixed/units.json").read_bytes()) == (found, before)
    opened = Corpus(copied)
    assert all(map(opened.record, opened.entries))


def test_a_refused_command_fixes_no_split(copied, sources, capsys):
    before = store.fixed_splits(copied)
    fault(capsys, "files", sources / "sums.c", "--project", "mixed", "--split", "test", "--out", copied)
    assert store.fixed_splits(copied) == before == {"mixed": "train"}


def test_a_command_that_is_refused_keeps_what_is_said_of_the_project(copied, sources, capsys):
    before = (copied / "report.json").read_text()
    fault(capsys, "files", sources / "sums.c", "--project", "mixed", "--out", copied)
    assert (copied / "report.json").read_text() == before


def test_cpp_functions_of_one_name_are_one_only_where_they_are_alike(tmp_path):
    """Equal names and counts: functions of one unit alone, and templates of two programs of one project."""
    text = """
        namespace app {{ static int scale(int x) {{ return (x {one} 3) {other} x; }} }}
        template <class T> struct S {{ T get(T x) {{ return x {other} 77; }} }};
        inline int alike(int x) {{ return x % 1000 / 7; }}
        int use{name}(int x) {{ return app::scale(x) + S<int>().get(x) + alike(x); }}
    """
    for name, one, other in (("a", "*", "^"), ("b", "-", "/")):
        (tmp_path / f"{name}.cpp").write_text(text.format(name=name, one=one, other=other))
    assert corpus("files", tmp_path, "--project", "two", "--out", tmp_path / "out") == 0
    found = [it for it in names(tmp_path / "out") if not it.startswith("_Z4use")]
    assert found == ["_Z5alikei", *["_ZN1SIiE3getEi"] * 2, *["_ZN3appL5scaleEi"] * 2]


def test_a_corpus_of_many_projects_keeps_few_files_open(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_OPEN_FILES", 3)
    opened = made_up(tmp_path, [record(number, f"p{number}", number) for number in range(12)])
    files = len(list(Path("/proc/self/fd").iterdir()))
    texts = [opened.text(key) for key in opened.entries]
    assert len(list(Path("/proc/self/fd").iterdir())) <= files + 3
    assert [opened.text(key) for key in opened.entries] == texts


def test_a_name_that_is_no_utf_8_costs_no_function(tmp_path):
    path = tmp_path / "odd.ll"
    path.write_text('target triple = "x86_64-unknown-linux-gnu"\ndefine i32 @"\\FFx"(i32 %x) {\n  ret i32 %x\n}\n')
    assert corpus("files", path, "--project", "odd", "--out", tmp_path / "corpus") == 0
    opened = Corpus(tmp_path / "corpus")
    assert [opened.record(key).name for key in opened.entries] == ["\ufffdx"]


def test_a_shard_whose_units_are_gone_does_not_count(copied, sources):
    """What a run leaves that `--again` began and that was killed."""
    found = hashes(copied)
    (copied / "units" / "mixed" / "units.json").unlink()
    write_shard(shard_path(copied, "mixed"), [record(1, "mixed", 1)])
    assert corpus("files", sources, "--project", "mixed", "--out", copied) == 0
    assert hashes(copied) == found


def test_a_lost_shard_is_made_from_the_units(copied, sources):
    units, found = stamps(copied)[0], hashes(copied)
    shard_path(copied, "mixed").unlink()
    assert corpus("files", sources, "--project", "mixed", "--out", copied) == 0
    assert (stamps(copied)[0], hashes(copied)) == (units, found)


def test_another_project_of_the_same_name_is_refused(copied, sources, capsys):
    said = fault(capsys, "files", sources / "sums.c", "--project", "mixed", "--out", copied)
    assert f"made from {sources}" in said
    assert "--again" in said


def start(out, *arguments):
    """A corpus command in a process and session of its own."""
    command = [SECONDPASS, "corpus", arguments[0], "--out", out, *arguments[1:]]
    return subprocess.Popen(hearing_ctrl_c(command), stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("appears", ["units/.mixed.new", "units/mixed/units.json", "functions"])
def test_a_killed_run_goes_on_to_the_same_functions(made, sources, tmp_path, appears):
    out = tmp_path / "killed"
    process = start(out, "files", sources, "--project", "mixed")
    wait_for(lambda: (out / appears).exists() or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert corpus("files", sources, "--project", "mixed", "--split", "train", "--out", out) == 0
    assert Corpus(out).entries == Corpus(made).entries


def test_ctrl_c_ends_the_compilers_and_leaves_no_half_project(tmp_path):
    path = tmp_path / "slow.cpp"
    path.write_text(SLOW)
    process = start(tmp_path / "out", "files", path, "--project", "p", "--", "-fconstexpr-steps=2000000000")
    wait_for(lambda: len(running(str(path))) > 1 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert running(str(path)) == []
    assert not (tmp_path / "out" / "units" / "p" / "units.json").exists()


def test_a_program_that_ctrl_c_ends_before_it_has_a_session_interrupts_all():
    with pytest.raises(KeyboardInterrupt):
        Processes().run(["sh", "-c", "kill -INT $$"], seconds=60)


INTERRUPTED = """
import signal, sys
from pathlib import Path
from secondpass.corpus.build import Source, collect
from secondpass.corpus.processes import Processes

signal.signal(signal.SIGINT, signal.default_int_handler)
for _ in range(100):
    processes = Processes()
    make = lambda: processes.run(["sh", "-c", "kill -INT $PPID; sleep 1000"], seconds=1000)
    try:
        collect(Path(sys.argv[1]), [Source("p", make)], 1, processes)
    except KeyboardInterrupt:
        print("ended")
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_ctrl_c_is_heard_while_a_project_starts(tmp_path):
    """The signal comes when threads and children are being started, where a lock may be held or nobody wakes."""
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.count("ended") == 100, done.stderr


def test_a_second_command_is_refused_while_the_first_lives(copied, sources, capsys):
    with (copied / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another corpus command is adding to it" in fault(
            capsys, "files", sources, "--project", "mixed", "--out", copied
        )
    assert corpus("files", sources, "--project", "mixed", "--out", copied) == 0


def test_a_project_whose_extraction_dies_costs_itself_alone(copied):
    units = copied / "units"
    shutil.copytree(units / "mixed", units / "other")
    for project in ("mixed", "other"):
        saved = Project.load(units / project)
        replace(saved, name=project).save(units / project)
    unit = Project.load(units / "other").compiled[0]
    (units / "other" / unit.bitcode).write_text(NESTED)
    sources = [Source(name, lambda name=name: Project.load(units / name)) for name in ("other", "mixed")]
    (other, mixed), functions = collect(copied, sources, 2, Processes())
    assert "other: extraction ended with -" in other.failure
    assert (mixed.failure, mixed.functions, functions) == ("", 8, 8)
    assert json.loads((copied / "report.json").read_text())["other"]["failure"] == other.failure


def test_a_lost_module_costs_itself_alone(copied):
    units = copied / "units" / "mixed"
    lost = next(unit for unit in Project.load(units).units if unit.file == "sums.c")
    (units / lost.bitcode).unlink()
    shard_path(copied, "mixed").unlink()
    (report,), functions = collect(copied, [Source("mixed", lambda: Project.load(units))], 1, Processes())
    assert functions == 5
    assert any(line.startswith("sums.c: ") for line in report.problems)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"file": "\ud800.c", "arguments": ["cc"]}, "entry 0 is not a compiler command with "),
        ({"file": "a.c", "directory": "\ud800", "arguments": ["cc"]}, "entry 0 is not a compiler command with "),
        ({"file": "a.c", "arguments": ["cc", "@rsp"]}, "entry 0: @rsp: the response file is no text: it holds a zero"),
    ],
)
def test_what_no_file_can_be_called_is_named_with_its_entry(tmp_path, capsys, entry, said):
    (tmp_path / "rsp").write_bytes(b"-DX \0")
    database = tmp_path / "compile_commands.json"
    database.write_text(json.dumps([entry]))
    assert f"{database}: {said}" in fault(capsys, "compdb", database, "--project", "p", "--out", tmp_path / "out")


def test_a_folder_whose_name_is_no_utf_8_needs_a_project_named(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xfcr"))
    folder.mkdir()
    (folder / "one.c").write_text("int one(int x) { return x % 7 + 1; }\n")
    command = [SECONDPASS, "corpus", "files", folder, "--out", tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "cannot be the name of a project; name it with --project" in run.stderr
    assert corpus("files", folder, "--project", "named", "--out", tmp_path / "out") == 0
    assert names(tmp_path / "out") == ["one"]


def test_a_corpus_reached_by_a_link_does_not_feed_on_itself(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    (real / "one.c").write_text("int one(int x) { return x % 7 + 1; }\n")
    for project in ("a", "b"):
        assert corpus("files", real, "--project", project, "--split", "train", "--out", link / "out") == 0
        assert len(Project.load(real / "out" / "units" / project).units) == 1


def test_units_that_cannot_be_read_are_named(copied, sources, capsys):
    (copied / "units" / "mixed" / "units.json").write_text('{"name": ')
    assert corpus("files", sources, "--project", "mixed", "--out", copied) == 1
    printed = capsys.readouterr().out
    assert "FAILED: " in printed
    assert "units.json: cannot be read" in printed
    assert "--again" in printed


# Damage

GARBAGE = b"PAR1" + bytes(range(256)) * 8


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def overwrite(path):
    path.write_bytes(GARBAGE)


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[300] ^= 4
    path.write_bytes(data)


each_damage = pytest.mark.parametrize("damage", [truncate, overwrite, flip_a_bit])


@each_damage
def test_a_corrupt_shard_is_named_with_the_mend(copied, damage):
    shard = shard_path(copied, "mixed")
    damage(shard)
    opened = Corpus(copied)
    with pytest.raises(CorpusError, match=r"mixed\.parquet: cannot be read .*delete it and run"):
        list(map(opened.record, opened.entries))


@pytest.mark.parametrize("damage", [truncate, overwrite])
def test_no_index_is_made_of_a_corrupt_shard(copied, damage):
    damage(shard_path(copied, "mixed"))
    with pytest.raises(CorpusError, match=r"mixed\.parquet: cannot be read .*delete it and run"):
        build_index(copied)


@each_damage
def test_the_same_command_mends_a_corrupt_shard(copied, made, sources, damage):
    damage(shard_path(copied, "mixed"))
    assert corpus("files", sources, "--project", "mixed", "--out", copied) == 0
    assert Corpus(copied).entries == Corpus(made).entries
    assert len(names(copied)) == 8


@each_damage
def test_adding_a_project_mends_the_corrupt_shard_of_another(copied, tmp_path, damage):
    damage(shard_path(copied, "mixed"))
    (tmp_path / "one.c").write_text("int one(int x) { return x % 7 + 1; }\n")
    assert corpus("files", tmp_path / "one.c", "--project", "new", "--out", copied) == 0
    assert len(names(copied)) == 9


def test_a_corrupt_shard_without_units_is_named(copied, tmp_path, capsys):
    overwrite(shard_path(copied, "mixed"))
    shutil.rmtree(copied / "units" / "mixed")
    (tmp_path / "one.c").write_text("int one(int x) { return x % 7 + 1; }\n")
    said = fault(capsys, "files", tmp_path / "one.c", "--project", "new", "--out", copied)
    assert "mixed.parquet: cannot be read" in said
    assert "delete it and run the corpus command that made it again" in said


def test_a_lost_shard_is_named(copied):
    shard_path(copied, "mixed").unlink()
    opened = Corpus(copied)
    with pytest.raises(CorpusError, match=r"mixed\.parquet: cannot be read"):
        opened.text(next(iter(opened.entries)))


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_shard_that_is_not_the_indexed_one_is_named(tmp_path, left):
    opened = made_up(tmp_path, [record(it, "p") for it in range(3)])
    write_shard(shard_path(tmp_path, "p"), [record(it, "p") for it in range(10, 10 + left)])
    with pytest.raises(CorpusError, match=r"p\.parquet: changed since the index was made"):
        opened.text(f"{2:024x}")


@pytest.mark.parametrize("damage", [truncate, overwrite])
def test_a_corrupt_index_is_named(tmp_path, damage):
    made_up(tmp_path, [record(it, "p") for it in range(3)])
    damage(tmp_path / "index.parquet")
    with pytest.raises(CorpusError, match=r"index\.parquet: cannot be read .*run secondpass corpus again"):
        Corpus(tmp_path)


VERSIONS = {
    "normal form": ("NORMAL_FORM_VERSION", 1, "made with normal form 1, not 2"),
    "LLVM": ("load", lambda: SimpleNamespace(version="19.1.0"), r"made with LLVM 19\.1\.0, not"),
}


@pytest.mark.parametrize("what", VERSIONS)
def test_a_corpus_of_another_version_is_refused_with_the_reason(tmp_path, monkeypatch, what):
    name, value, said = VERSIONS[what]
    with monkeypatch.context() as other:
        other.setattr(store, name, value)
        made_up(tmp_path, [record(it, "p") for it in range(3)])
    with pytest.raises(CorpusError, match=said):
        Corpus(tmp_path)
    with pytest.raises(CorpusError, match=rf"p\.parquet: {said}"):
        build_index(tmp_path)


def test_shards_of_another_version_are_made_again(copied, made, tmp_path, monkeypatch):
    with monkeypatch.context() as other:
        other.setattr(store, "NORMAL_FORM_VERSION", 1)
        write_shard(shard_path(copied, "mixed"), [record(1, "mixed")])
        build_index(copied)
    (tmp_path / "one.c").write_text("int one(int x) { return x % 7 + 1; }\n")
    assert corpus("files", tmp_path / "one.c", "--project", "new", "--split", "validation", "--out", copied) == 0
    assert {it for it in Corpus(copied).entries.values() if it.project == "mixed"} == set(Corpus(made).entries.values())


def of_another_llvm(out, monkeypatch):
    """Give the project's shard another LLVM's version; its bytes."""
    with monkeypatch.context() as other:
        other.setattr(store, "load", lambda: SimpleNamespace(version="19.1.7"))
        write_shard(shard_path(out, "mixed"), [record(1, "mixed")])
    return shard_path(out, "mixed").read_bytes()


def test_shards_of_another_llvm_stay_and_are_named(copied, sources, tmp_path, monkeypatch, capsys):
    """Its clang made the units: what this LLVM reads of them, if anything, is not what its own clang would make."""
    before = of_another_llvm(copied, monkeypatch)
    (tmp_path / "one.c").write_text("int one(int x) { return x % 7 + 1; }\n")
    for paths in ((tmp_path / "one.c", "--project", "new"), (sources, "--project", "mixed")):
        said = fault(capsys, "files", *paths, "--out", copied)
        assert "mixed.parquet: made with LLVM 19.1.7, not " in said
        assert "make this project anew with --again, or name another --out" in said
    assert shard_path(copied, "mixed").read_bytes() == before
    assert not (copied / "units" / "new").exists()


def test_a_project_of_another_llvm_is_made_anew_when_asked(copied, made, sources, monkeypatch):
    of_another_llvm(copied, monkeypatch)
    assert corpus("files", sources, "--project", "mixed", "--again", "--out", copied) == 0
    assert Corpus(copied).entries == Corpus(made).entries


def test_a_shard_stays_where_nothing_can_be_had_from_its_units(copied, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as other:
        other.setattr(store, "NORMAL_FORM_VERSION", 1)
        write_shard(shard_path(copied, "mixed"), [record(1, "mixed")])
    before = shard_path(copied, "mixed").read_bytes()
    for path in (copied / "units" / "mixed").glob("*.bc"):
        path.write_bytes(b"no bitcode")
    (tmp_path / "one.c").write_text("int one(int x) { return x % 7 + 1; }\n")
    fault(capsys, "files", tmp_path / "one.c", "--project", "new", "--out", copied)
    assert shard_path(copied, "mixed").read_bytes() == before
    reported = json.loads((copied / "report.json").read_text())["mixed"]
    assert (reported["failure"], reported["functions"]) == ("", 8)


@pytest.mark.parametrize("command", ["stats", "tune"])
def test_a_folder_without_a_corpus_is_refused(tmp_path, capsys, command):
    arguments = [command, str(tmp_path)] if command == "tune" else ["corpus", command, str(tmp_path)]
    assert main(arguments) == 2
    assert "no corpus there" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", '{"mixed": "exam"}', "[]"])
def test_a_spoilt_table_of_splits_is_named(copied, sources, capsys, text):
    (copied / "splits.json").write_text(text)
    assert "splits.json: cannot be read" in fault(capsys, "files", sources, "--project", "mixed", "--out", copied)


# A full disk


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 96 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", folder]).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_fills_up_ends_the_run_with_the_reason(tiny_disk, tmp_path, capsys):
    sources = tmp_path / "sources"
    sources.mkdir()
    for number in range(30):
        (sources / f"f{number}.c").write_text(f"int f{number}(int x) {{ return x + {number}; }}\n")
    said = fault(capsys, "files", sources, "--out", tiny_disk / "out")
    assert said.startswith(f"secondpass: {tiny_disk}/out")
    assert "a disk is full (" in said
    assert "No space left on device" in said
    assert "start the same command again" in said
    assert not (tiny_disk / "out" / "units" / "sources" / "units.json").exists()


def test_a_disk_that_is_full_when_functions_are_written_ends_the_run(tiny_disk, sources, capsys):
    arguments = ("files", sources / "sums.c", "--out", tiny_disk / "out")
    assert corpus(*arguments) == 0
    shutil.rmtree(tiny_disk / "out" / "functions")
    with (tiny_disk / "fill").open("wb", buffering=0) as fill, pytest.raises(OSError, match="No space left"):
        for _ in itertools.repeat(None):
            fill.write(bytes(1024))
    assert "a disk is full (" in fault(capsys, *arguments)
    assert list((tiny_disk / "out" / "functions").glob("*")) == []
    (tiny_disk / "fill").unlink()
    assert corpus(*arguments) == 0


@pytest.mark.parametrize(
    "said",
    [
        "error: unable to open output file 'a.bc': 'No space left on device'",
        "LLVM ERROR: IO failure on output stream: No space left on device",
        "making all\ncp: error writing 'b': No space left on device\nmake: *** [all] Error 1",
        "/tmp/a.s: Fatal error: can't write 344 bytes to section .text of b.o: 'No space left on device'",
        "E: Write error - write (28: No space left on device)",
        "OSError: [Errno 122] Disk quota exceeded",
    ],
)
def test_a_program_that_failed_of_a_full_disk_is_recognised(tmp_path, said):
    with pytest.raises(InputError, match="a disk is full"):
        check_said(tmp_path, said)


@pytest.mark.parametrize(
    "said",
    [
        "a.c:3:9: error: use of undeclared identifier 'x'",
        '    3 |   error(x, "cannot write: No space left on device");',
        "checking for No space left on device... yes",
    ],
)
def test_other_failures_are_not_taken_for_a_full_disk(tmp_path, said):
    check_said(tmp_path, said)


def test_other_system_errors_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), full_disk_is_clear(tmp_path):
        (tmp_path / "absent").read_text()
