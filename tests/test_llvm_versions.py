"""Other libLLVMs by SECONDPASS_LLVM: the oldest and newest wheels beside the bundled one, and Debian's.

One library a process: each is asked for all its facts in a process of its own.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from compiling import ROOT

from secondpass.errors import ToolchainError
from secondpass.llvm.toolchain import Toolchain, find_clang, find_toolchain
from secondpass.llvm.vocabulary import VOCABULARY

DEBIAN = Path("/usr/lib/x86_64-linux-gnu")
WHEELS = ROOT / "build" / "llvm"
LIBRARIES = {
    "bundled": ("", "23.1.4"),
    "wheel 22": (WHEELS / "22.1.8", "22.1.8"),
    "Debian 19": (DEBIAN / "libLLVM.so.19.1", "19.1."),
    "wheel 18": (WHEELS / "18.1.8", "18.1.8"),
}
# Elements that came after, by the version that first has them.
LATER = {
    "wheel 22": {"gvn<no-scalar-pre;no-load-pre>"},
    "Debian 19": {
        "drop-unnecessary-assumes",
        "gvn<no-scalar-pre;no-load-pre>",
        "loop-term-fold",
        "simplifycfg<forward-switch-cond;switch-range-to-icmp;switch-to-arithmetic;no-keep-loops>",
    },
}
LATER["wheel 18"] = LATER["Debian 19"] | {
    "flatten-cfg",
    "simplifycfg<bonus-inst-threshold=4;speculate-unpredictables>",
}

# Text that every version from 17 on reads: none of the newer attributes and flags.
SOURCE = """
target datalayout = "e-m:e-i64:64-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

@seen = internal global i32 0
@limit = internal constant i32 100

define internal i32 @square(i32 %x) #0 {
  %slot = alloca i32, align 4
  store i32 %x, ptr %slot, align 4
  %a = load i32, ptr %slot, align 4
  %b = load i32, ptr %slot, align 4
  %product = mul nsw i32 %a, %b
  ret i32 %product
}

define i32 @sum_of_squares(ptr %data, i64 %count) #0 {
entry:
  %sum = alloca i32, align 4
  %i = alloca i64, align 8
  store i32 0, ptr %sum, align 4
  store i64 0, ptr %i, align 8
  br label %test

test:
  %at = load i64, ptr %i, align 8
  %more = icmp ult i64 %at, %count
  br i1 %more, label %body, label %done

body:
  %element = getelementptr inbounds i32, ptr %data, i64 %at
  %value = load i32, ptr %element, align 4
  %squared = call i32 @square(i32 %value)
  %before = load i32, ptr %sum, align 4
  %after = add nsw i32 %before, %squared
  store i32 %after, ptr %sum, align 4
  %next = add i64 %at, 1
  store i64 %next, ptr %i, align 8
  br label %test

done:
  %result = load i32, ptr %sum, align 4
  store i32 %result, ptr @seen, align 4
  ret i32 %result
}

define i32 @last() #0 {
  %last = load i32, ptr @seen, align 4
  %most = load i32, ptr @limit, align 4
  %small = icmp slt i32 %last, %most
  %clamped = select i1 %small, i32 %last, i32 %most
  ret i32 %clamped
}

attributes #0 = { minsize nounwind optsize }
"""

SCRIPT = """
import json, sys
from secondpass.errors import LLVMError
from secondpass.llvm.jobs import Job
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox

source = sys.stdin.read()
library = load()
facts = {
    "version": library.version,
    "targets": library.targets,
    "words": [entry.text for entry in library.vocabulary()],
    "oz": library.oz_pipeline,
}
with Module.parse(source) as module:
    facts["counts"] = {it.name: it.instructions for it in module.functions()}
    facts["count"] = module.instruction_count
    facts["walked"] = sum(map(module._walk_count, module._defined()))
    facts["bytes"] = module.native_size
    facts["parts"] = sorted(name for name, part in module.split())
    with Module.parse(module.to_bitcode()) as again:
        facts["bitcode count"] = again.instruction_count
    with module.clone() as copy:
        copy.run_oz()
        facts["count after"], facts["bytes after"] = copy.instruction_count, copy.native_size
with Module.parse(source.replace("x86_64-unknown", "aarch64-unknown")) as module:
    try:
        facts["aarch64"] = module.native_size
    except LLVMError as error:
        facts["aarch64"] = str(error)
try:
    Module.parse("define nothing", "bad.ll")
except LLVMError as error:
    facts["error"] = str(error)
lists = ["", library.oz_pipeline, "function(licm)", "function(sora)"]
lists += [str(PassList.of(word)) for word in facts["words"]]
with Sandbox(workers=1, timeout=30) as sandbox:
    outcomes = sandbox.compile(Job(source.encode(), tuple(lists), bytes=True))
facts["sandbox"] = [(outcome.status, outcome.message, outcome.instructions, outcome.bytes) for outcome in outcomes]
print(json.dumps(facts))
"""


@functools.cache
def facts(name):
    """What a library says of itself and does to `SOURCE`."""
    path, _ = LIBRARIES[name]
    if path and not path.exists():
        mend = "make llvm-versions" if path.is_relative_to(ROOT) else "apt-get install libllvm19"
        pytest.skip(f"{path} is not there: {mend}")
    environment = os.environ | {"SECONDPASS_LLVM": str(path)}
    command = [sys.executable, "-c", SCRIPT]
    finished = subprocess.run(command, input=SOURCE, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


each_library = pytest.mark.parametrize("name", LIBRARIES)


@each_library
def test_the_named_library_is_the_one_in_force(name):
    assert facts(name)["version"].startswith(LIBRARIES[name][1])


@each_library
def test_a_library_has_the_x86_back_end(name):
    assert "x86-64" in facts(name)["targets"]


@each_library
def test_a_library_lacks_the_elements_that_came_later(name):
    assert {entry.text for entry in VOCABULARY} - set(facts(name)["words"]) == LATER.get(name, set())


@each_library
def test_oz_is_the_pipeline_of_the_version(name):
    assert facts(name)["oz"] == ("default<O2>" if name == "bundled" else "default<Oz>")


@each_library
def test_a_library_counts_by_hand(name):
    assert facts(name)["counts"] == {"square": 6, "sum_of_squares": 20, "last": 5}


@each_library
@pytest.mark.parametrize("how", ["walked", "bitcode count"])
def test_a_library_counts_the_same_in_every_way(name, how):
    assert facts(name)[how] == facts(name)["count"] == 31


@each_library
def test_oz_leaves_fewer_instructions(name):
    assert facts(name)["count after"] < 31 * 2 / 3


@each_library
def test_oz_leaves_fewer_bytes(name):
    assert 0 < facts(name)["bytes after"] < facts(name)["bytes"]


@each_library
def test_a_library_splits_a_module(name):
    assert facts(name)["parts"] == ["last", "square", "sum_of_squares"]


@each_library
def test_a_library_names_the_place_of_an_error(name):
    assert facts(name)["error"].startswith("bad.ll:1:8: error: ")


def test_a_library_with_all_back_ends_makes_code_for_another_machine():
    assert facts("Debian 19")["aarch64"] > 0


@pytest.mark.parametrize("name", ["bundled", "wheel 22", "wheel 18"])
def test_a_library_with_one_back_end_says_what_it_lacks(name):
    assert facts(name)["aarch64"].startswith("target 'aarch64-unknown-linux-gnu' is not in this libLLVM (it has x86, ")


@each_library
def test_the_sandbox_runs_the_same_library(name):
    found = facts(name)
    unoptimised, oz = found["sandbox"][:2]
    assert unoptimised == ["ok", "", found["count"], found["bytes"]]
    assert oz == ["ok", "", found["count after"], found["bytes after"]]


@each_library
def test_the_sandbox_survives_what_the_library_does_not(name):
    assert facts(name)["sandbox"][2][0] == "crash"


@each_library
def test_the_sandbox_reports_an_unknown_pass(name):
    assert facts(name)["sandbox"][3][0] == "invalid"


@each_library
def test_every_element_runs(name):
    found = facts(name)
    outcomes = dict(zip(found["words"], found["sandbox"][4:], strict=True))
    assert {word: outcome for word, outcome in outcomes.items() if outcome[0] != "ok"} == {}


def test_a_library_too_old_is_refused_by_name():
    path = DEBIAN / "libLLVM-14.so.1"
    if not path.exists():
        pytest.skip(f"{path} is not there: apt-get install libllvm14")
    said = load_error(path)
    assert said == f"{path}: not a libLLVM of version 17 to 23: it has no LLVMGetVersion"


def test_a_file_that_is_no_library_is_refused_by_name(tmp_path):
    path = tmp_path / "libLLVM.so"
    path.write_text("no library")
    assert load_error(path).startswith(f"{path}: cannot be loaded: ")


def test_a_prefix_without_a_library_is_refused_by_name(tmp_path):
    assert load_error(tmp_path).startswith(f"SECONDPASS_LLVM={tmp_path}: no libLLVM there; name the shared library")


def test_the_library_beside_debians_prefix_is_found_and_no_plug_in_is_taken_for_it(tmp_path, monkeypatch):
    prefix, beside = tmp_path / "llvm-19", tmp_path / sysconfig.get_config_var("MULTIARCH")
    (prefix / "lib").mkdir(parents=True)
    (prefix / "lib" / "LLVMPolly.so").touch()
    beside.mkdir()
    (beside / "libLLVM-18.so").touch()
    monkeypatch.setenv("SECONDPASS_LLVM", str(prefix))
    with pytest.raises(ToolchainError, match="no libLLVM there"):
        find_toolchain()
    (beside / "libLLVM-19.so").touch()
    found = find_toolchain()
    assert (found.library, found.prefix) == (beside / "libLLVM-19.so", prefix)


def test_the_bundled_clang_goes_by_its_plain_name():
    assert find_clang().name == "clang"  # beside it is clang++, which programs' builds ask for


def test_of_several_clangs_the_one_of_the_librarys_version_is_taken(tmp_path):
    def program(name, version):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\necho clang version {version}.1.0\n")
        path.chmod(0o755)
        return path

    toolchain = Toolchain(tmp_path / "lib64" / "libLLVM-17.so", tmp_path, bundled=False)
    program("clang", 20)
    if not shutil.which("clang-17"):
        with pytest.raises(ToolchainError, match="no clang for"):
            find_clang(toolchain)
    assert find_clang(toolchain, major=20) == tmp_path / "bin" / "clang"
    right = program("clang-17", 17)
    assert find_clang(toolchain) == right


def load_error(path):
    """What loading a library raises, as its message."""
    script = "from secondpass.errors import ToolchainError\nfrom secondpass.llvm.library import load\n"
    script += "try:\n    load()\nexcept ToolchainError as error:\n    print(error)\n"
    environment = os.environ | {"SECONDPASS_LLVM": str(path)}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
