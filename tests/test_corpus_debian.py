"""Debian packages as projects. apt, Bear and dpkg are small programs of the tests' own; processes are real."""

import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="a corpus needs pyarrow: pip install secondpass[corpus]")

from secondpass.cli import main
from secondpass.corpus import commands
from secondpass.corpus.debian import Package, PackageError, check_machine, fetch_source, read_recipe
from secondpass.corpus.processes import Processes, Stopped, end_marked
from secondpass.corpus.store import Corpus
from secondpass.errors import InputError

# Recipes


def test_a_recipe_is_a_package_a_line(tmp_path):
    path = tmp_path / "recipe.txt"
    path.write_text("# ours\nzlib - test\n\nlua5.4 5.4.4-3+deb12u1\nlibcrypto++  # no split\ngrep 1:3.8-5 validation\n")
    assert read_recipe(path) == [
        Package("zlib", None, "test"),
        Package("lua5.4", "5.4.4-3+deb12u1"),
        Package("libcrypto++"),
        Package("grep", "1:3.8-5", "validation"),
    ]
    assert [it.specification for it in read_recipe(path)][:2] == ["zlib", "lua5.4=5.4.4-3+deb12u1"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("zlib - exam", "'zlib - exam' is not 'package [version|-] [train|validation|test]'"),
        ("zlib - test more", "is not 'package [version|-] [train|validation|test]'"),
        ("zlib test", "is not 'package [version|-] [train|validation|test]'"),
        ("../zlib", "'../zlib' cannot be the name of a source package"),
        ("sed - train", "'sed' stands there twice"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, said):
    path = tmp_path / "recipe.txt"
    path.write_text(f"# ours\nsed\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert said in str(caught.value)


def test_a_recipe_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.txt: cannot be read: No such file"):
        read_recipe(tmp_path / "absent.txt")
    (tmp_path / "latin.txt").write_bytes(b"zlib # f\xfcr\n")
    with pytest.raises(InputError, match=r"latin\.txt: cannot be read: "):
        read_recipe(tmp_path / "latin.txt")


def test_the_recipe_of_this_repository_is_well_formed():
    packages = read_recipe(Path(__file__).parent.parent / "data" / "corpus.txt")
    assert {it.split for it in packages} == {"train", "validation", "test"}


# A machine that builds packages: apt-get, bear and dpkg-buildpackage as far as the corpus uses them

APT_GET = """#!/bin/sh
echo "apt-get $*" >> {archive}/calls
for last; do :; done
name=${{last%%[=/]*}}
case "$*" in
*indextargets*) echo Packages; echo Sources ;;
*build-dep*) [ ! -e {archive}/slow-apt ] || . {archive}/slow-apt ;;
*source*)
    if [ ! -d {archive}/$name ]; then
        echo "E: Unable to find a source package for $name"
        exit 100
    elif [ -e {archive}/$name/only-in-release ] && [ "$last" = "${{last%/*}}" ]; then
        echo "E: Failed to fetch http://mirror/$name.dsc  404  Not Found"
        echo "E: Failed to fetch some archives."
        exit 100
    fi
    cp -r {archive}/$name $name-1.0
    printf 'Source: %s\\nVersion: 1.0-1\\n' $name > $name.dsc ;;
esac
"""
BEAR = """#!/bin/sh
while [ "$1" != -- ]; do [ "$1" != --output ] || database=$2; shift; done
shift
"$@"
code=$?
for file in *.c; do
    [ -e "$file" ] || continue
    entries="$entries${entries:+,}{\\"directory\\": \\"$PWD\\", \\"file\\": \\"$file\\", \\"arguments\\": [\\"gcc\\"]}"
done
echo "[$entries]" > "$database"
exit $code
"""
GCC = "#!/bin/sh\ncase $1 in -dumpversion) echo 12 ;; *) echo /absent ;; esac\n"


class Archive:
    """Source packages that the false apt-get has, and what was asked of it."""

    def __init__(self, folder):
        self.folder = folder

    def add(self, name, rules="true", code="int f(int x) { return x * 5; }\n"):
        package = self.folder / name
        shutil.rmtree(package, ignore_errors=True)
        (package / "debian").mkdir(parents=True)
        (package / "debian" / "rules").write_text(rules)
        if code:
            (package / f"{name}.c").write_text(code)
        return package

    @property
    def calls(self):
        return (self.folder / "calls").read_text().splitlines()

    def hang(self, name):
        """A build that never ends, with a grandchild in a session of its own."""
        note = f"echo $$ >> {self.folder}/{name}.pids; exec sleep 1000"
        self.add(name, f"setsid sh -c '{note}' & sh -c '{note}'")

    def pids(self, name, wanted=2):
        """The processes of that build, when they have started."""
        path = self.folder / f"{name}.pids"
        end = time.monotonic() + 120
        while time.monotonic() < end:
            pids = path.read_text().split() if path.exists() else []
            if len(pids) == wanted:
                return [int(pid) for pid in pids]
            time.sleep(0.01)
        raise AssertionError(f"the build of {name} did not start")


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A machine whose apt has the packages that a test adds."""
    archive, prefix = tmp_path / "archive", tmp_path / "prefix"
    archive.mkdir()
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib" / "any" / "bear").mkdir(parents=True)
    (prefix / "lib" / "any" / "bear" / "wrapper").touch()
    programs = {
        "apt-get": APT_GET.format(archive=archive),
        "bear": BEAR,
        "dpkg-buildpackage": "#!/bin/sh\nexec sh debian/rules\n",
        "dpkg": f'#!/bin/sh\necho "dpkg $*" >> {archive}/calls\n',
        "gcc": GCC,
        "g++": GCC,
    }
    for name, text in programs.items():
        (prefix / "bin" / name).write_text(text)
        (prefix / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{prefix}/bin:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # this apt and dpkg need no root
    return Archive(archive)


def build(tmp_path, *names, **options):
    """The reports, by package."""
    result = commands.debian(tmp_path / "out", names, None, **options)
    return {report.name: report for report in result.reports}


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, seconds=10):
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(map(alive, pids))


# What the machine must have


def test_who_is_not_root_is_refused(archive, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InputError, match="needs root: run it with sudo or in a container"):
        check_machine()


@pytest.mark.parametrize(
    ("program", "package"),
    [("bear", "bear"), ("dpkg-buildpackage", "dpkg-dev"), ("g++", "build-essential"), ("apt-get", "apt")],
)
def test_a_missing_program_is_named_with_its_package(archive, tmp_path, monkeypatch, program, package):
    (tmp_path / "prefix" / "bin" / program).unlink()
    monkeypatch.setenv("PATH", f"{tmp_path}/prefix/bin")
    with pytest.raises(InputError) as caught:
        check_machine()
    assert f"needs {program}: apt-get install {package}" in str(caught.value)


def test_apt_without_sources_is_refused(archive, tmp_path):
    (tmp_path / "prefix" / "bin" / "apt-get").write_text("#!/bin/sh\necho Packages\n")
    with pytest.raises(InputError, match="apt knows no source packages: add 'deb-src'"):
        build(tmp_path, "alpha")
    assert not (tmp_path / "out").exists()


def test_a_bear_without_wrapper_is_refused(archive, tmp_path):
    (tmp_path / "prefix" / "lib" / "any" / "bear" / "wrapper").unlink()
    with pytest.raises(InputError, match="version 3 is needed"):
        build(tmp_path, "alpha")


def test_a_disk_that_is_nearly_full_is_refused(archive, tmp_path, monkeypatch):
    free = collections.namedtuple("usage", "total used free")(100 << 30, 99 << 30, 1 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(InputError, match="only 1024 MiB are free on this disk and a build may need 2 GiB"):
        build(tmp_path, "alpha")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name packages, or a recipe with --list"),
        (["Zlib"], "'Zlib' cannot be the name of a Debian source package"),
        (["../up"], "'../up' cannot be the name"),
        (["zlib", "--minutes", "0"], "--minutes must be positive"),
        (["--list", "absent.txt"], "absent.txt: cannot be read"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(archive, tmp_path, capsys, arguments, said):
    assert main(["corpus", "debian", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Builds that go well, or not


def test_a_package_becomes_functions(archive, tmp_path, capsys):
    archive.add("alpha")
    assert main(["corpus", "debian", "alpha", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "1.0-1" in printed
    assert "1 of 1" in printed
    opened = Corpus(tmp_path / "out")
    (found,) = map(opened.record, opened.entries)
    assert (found.name, found.project, found.version, found.file) == ("f", "alpha", "1.0-1", "alpha.c")
    assert not (tmp_path / "out" / "sources" / "alpha").exists()


def test_what_an_apt_that_was_killed_left_is_finished_first(archive, tmp_path):
    archive.add("alpha")
    build(tmp_path, "alpha")
    steps = [call.split()[0] + " " + call.split()[-1] for call in archive.calls if "indextargets" not in call]
    assert steps[0] == "dpkg -a"
    assert [steps[at - 1] for at, call in enumerate(archive.calls[1:]) if "build-dep" in call] == ["dpkg -a"] * 2


def test_a_recipe_fixes_splits_and_versions(archive, tmp_path):
    archive.add("alpha")
    archive.add("beta", code="int g(int *p) { return *p; }\n")
    recipe = tmp_path / "recipe.txt"
    recipe.write_text("alpha 1.0-1 validation\nbeta - test\n")
    commands.debian(tmp_path / "out", ["alpha"], recipe)
    assert {it.project: it.split for it in Corpus(tmp_path / "out").entries.values()} == {
        "alpha": "validation",
        "beta": "test",
    }
    assert any(call.endswith("source --only-source alpha=1.0-1") for call in archive.calls)


def test_another_version_than_the_one_that_is_there_is_a_line_until_again(archive, tmp_path):
    archive.add("alpha")
    build(tmp_path, "alpha")
    recipe = tmp_path / "recipe.txt"
    recipe.write_text("alpha 0.9-1\n")
    (report,) = commands.debian(tmp_path / "out", [], recipe).reports
    assert report.failure.startswith("alpha=0.9-1: the corpus has a project alpha already, of version 1.0-1: --again")
    assert len(Corpus(tmp_path / "out")) == 1
    (report,) = commands.debian(tmp_path / "out", [], recipe, again=True).reports
    assert not report.failure
    assert archive.calls[-1].endswith("source --only-source alpha=0.9-1")


def test_files_and_a_package_of_one_name_are_kept_apart(archive, tmp_path, capsys):
    package = archive.add("alpha")
    out = tmp_path / "out"
    assert main(["corpus", "files", str(package / "alpha.c"), "--project", "alpha", "--out", str(out)]) == 0
    assert f"made from {package / 'alpha.c'}" in build(tmp_path, "alpha")["alpha"].failure
    archive.add("beta")
    build(tmp_path, "beta")
    capsys.readouterr()
    assert main(["corpus", "files", str(package / "alpha.c"), "--project", "beta", "--out", str(out)]) != 0
    assert "has a project beta already, made from a Debian package" in capsys.readouterr().err


def test_builds_do_not_see_the_environment_of_secondpass(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    archive.add("alpha", f'echo "$PATH" > {tmp_path}/path')
    build(tmp_path, "alpha")
    assert str(Path(sys.executable).parent) not in (tmp_path / "path").read_text()
    assert "/usr/bin" in (tmp_path / "path").read_text()


def test_an_unknown_package_is_a_line_and_the_others_are_built(archive, tmp_path, capsys):
    archive.add("alpha")
    assert main(["corpus", "debian", "nosuch", "alpha", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "FAILED: nosuch: no source package of that name: E: Unable to find a source package for nosuch" in printed
    assert "1 of 2 projects; 1 functions" in printed
    assert not any(call.split()[-1].startswith("nosuch/") for call in archive.calls)


def test_nothing_but_unknown_packages_is_a_failure(archive, tmp_path):
    assert main(["corpus", "debian", "nosuch", "--out", str(tmp_path / "out")]) == 1


def test_a_source_that_left_the_mirror_is_taken_from_the_release(archive, tmp_path):
    (archive.add("alpha") / "only-in-release").touch()
    assert build(tmp_path, "alpha")["alpha"].failure == ""
    assert any(call.split()[-1].startswith("alpha/") for call in archive.calls)


def test_a_source_is_fetched_from_the_release_where_the_newest_has_left_the_mirror(archive, tmp_path):
    (archive.add("alpha") / "only-in-release").touch()
    assert (fetch_source("alpha", tmp_path / "new" / "alpha") / "debian").is_dir()


def test_a_source_that_there_is_not_cannot_be_fetched(archive, tmp_path):
    with pytest.raises(PackageError, match="nosuch: its source cannot be fetched"):
        fetch_source("nosuch", tmp_path / "nosuch")


def test_a_version_that_left_the_mirror_is_a_line_with_the_reason(archive, tmp_path):
    (archive.add("alpha") / "only-in-release").touch()
    recipe = tmp_path / "recipe.txt"
    recipe.write_text("alpha 1.0-1\n")
    (report,) = commands.debian(tmp_path / "out", [], recipe).reports
    assert "alpha: apt-get ended with 100: E: Failed to fetch http://mirror/alpha.dsc  404  Not Found" in report.failure
    assert str(tmp_path / "out" / "logs" / "alpha.log") in report.failure


@pytest.mark.parametrize(
    ("rules", "code", "said"),
    [
        ("echo 'a.h:1: error: no such thing'; exit 3", "", "bear ended with 3: a.h:1: error: no such thing; see"),
        ("true", "", "alpha: its build ran no compiler that Bear saw; see"),
        ("true", "int f(void) { return x; }", "none of 1 translation units compiles (alpha.c: "),
        ("rm -r ../alpha.dsc; exit 1", "", "bear ended with 1: "),
        ("rm alpha.c; echo '[{' > alpha.c", "[{", "none of 1 translation units compiles"),
    ],
)
def test_a_build_that_fails_is_a_line_with_the_reason(archive, tmp_path, rules, code, said):
    archive.add("alpha", rules, code)
    failure = build(tmp_path, "alpha")["alpha"].failure
    assert said in failure
    assert "alpha.log" in failure


def test_a_database_that_bear_left_half_written_is_a_line(archive, tmp_path):
    archive.add("alpha")
    (tmp_path / "prefix" / "bin" / "bear").write_text(BEAR.replace("[$entries]", "[{"))
    assert "compile_commands.json: not a readable compile database" in build(tmp_path, "alpha")["alpha"].failure


def test_a_build_that_fails_after_its_compilers_ran_counts(archive, tmp_path):
    archive.add("alpha", "echo 'no documentation today'; exit 1")
    report = build(tmp_path, "alpha")["alpha"]
    assert (report.failure, report.functions) == ("", 1)


def test_a_failed_package_is_tried_again_and_a_done_one_is_not(archive, tmp_path):
    archive.add("alpha")
    archive.add("beta", "exit 1", "")
    assert build(tmp_path, "alpha", "beta")["beta"].failure
    archive.add("beta", code="int g(int *p) { return *p; }\n")
    before = len(archive.calls)
    assert build(tmp_path, "alpha", "beta")["beta"].failure == ""
    assert not any(call.split()[-1] == "alpha" for call in archive.calls[before:])
    assert build(tmp_path, "alpha", again=True)["alpha"].failure == ""
    assert archive.calls[-1].split()[-1] == "alpha"


def test_what_is_made_anew_in_vain_stays_as_it_was(archive, tmp_path):
    package = archive.add("alpha")
    build(tmp_path, "alpha")
    found = sorted(Corpus(tmp_path / "out").entries)
    shutil.rmtree(package)
    assert "no source package of that name" in build(tmp_path, "alpha", again=True)["alpha"].failure
    assert sorted(Corpus(tmp_path / "out").entries) == found
    assert build(tmp_path, "alpha")["alpha"].functions == 1


def test_functions_stay_while_units_that_are_gone_cannot_be_built(archive, tmp_path):
    package = archive.add("alpha")
    build(tmp_path, "alpha")
    shutil.rmtree(tmp_path / "out" / "units" / "alpha")
    shutil.rmtree(package)
    assert build(tmp_path, "alpha")["alpha"].failure
    assert len(Corpus(tmp_path / "out")) == 1


def test_a_package_that_is_refused_fixes_no_split(archive, tmp_path):
    archive.add("alpha")
    archive.add("beta", code="int g(int *p) { return *p; }\n")
    recipe = tmp_path / "recipe.txt"
    recipe.write_text("alpha 1.0-1 test\n")
    commands.debian(tmp_path / "out", [], recipe)
    recipe.write_text("alpha 0.9-1 train\nbeta - validation\n")
    alpha, beta = commands.debian(tmp_path / "out", [], recipe).reports
    assert alpha.failure
    assert not beta.failure
    assert {it.project: it.split for it in Corpus(tmp_path / "out").entries.values()} == {
        "alpha": "test",
        "beta": "validation",
    }


# Builds that hang, and runs that end


def test_a_build_that_hangs_is_ended_with_all_its_processes(archive, tmp_path):
    archive.hang("alpha")
    archive.add("beta")
    reports = build(tmp_path, "alpha", "beta", minutes=0.15)
    assert "alpha: bear took more than 0.15 minutes, --minutes allows more; see" in reports["alpha"].failure
    assert reports["beta"].failure == ""
    assert gone(archive.pids("alpha"), 0)


def test_what_a_build_leaves_running_is_ended(archive, tmp_path):
    archive.add("alpha", f"setsid sh -c 'echo $$ >> {archive.folder}/alpha.pids; exec sleep 1000' &\nsleep 0.5")
    assert build(tmp_path, "alpha")["alpha"].failure == ""
    assert gone(archive.pids("alpha", wanted=1), 0)


@pytest.fixture
def start(tmp_path):
    """Starts `secondpass corpus debian` in a process of its own."""
    script = (
        "import os, signal, sys\n"
        "os.geteuid = lambda: 0\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where the tests run in the background
        "from secondpass.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    started = []

    def begin(*names):
        command = [sys.executable, "-c", script, "corpus", "debian", *names, "--out", str(tmp_path / "out")]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()
    for name in ("alpha", "beta", "dependencies"):
        end_marked(str(tmp_path / "out" / "sources" / name))


def test_ctrl_c_ends_the_builds_that_run(archive, tmp_path, start):
    archive.hang("alpha")
    archive.hang("beta")
    process = start("alpha", "beta")
    pids = archive.pids("alpha") + archive.pids("beta")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert gone(pids, 0)
    assert list((tmp_path / "out").glob("units/*/units.json")) == []


def test_ctrl_c_ends_apt(archive, tmp_path, start):
    archive.add("alpha")
    (archive.folder / "slow-apt").write_text(f"echo $$ >> {archive.folder}/apt.pids; exec sleep 1000\n")
    process = start("alpha")
    pids = archive.pids("apt", wanted=1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert gone(pids, 0)
    assert not any("source" in call.split() for call in archive.calls)


def test_what_outlived_a_killed_run_is_ended_when_the_package_is_built_again(archive, tmp_path, start):
    archive.hang("alpha")
    process = start("alpha")
    pids = archive.pids("alpha")
    process.kill()
    process.communicate()
    assert all(map(alive, pids))
    archive.add("alpha")
    archive.add("beta", code="int g(int *p) { return *p; }\n")
    build(tmp_path, "beta")
    assert all(map(alive, pids))
    assert build(tmp_path, "alpha")["alpha"].failure == ""
    assert gone(pids, 0)


def test_a_full_disk_stops_the_run_and_what_runs(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # two builds at a time
    said = "cp: error writing 'a': No space left on device"
    archive.add("alpha", f'while [ ! -e {archive.folder}/beta.pids ]; do sleep 0.05; done; echo "{said}"; exit 1', "")
    archive.hang("beta")
    archive.add("gamma", f"touch {archive.folder}/gamma.built")
    with pytest.raises(InputError, match=rf"out: a disk is full \({said}\)"):
        build(tmp_path, "alpha", "beta", "gamma")
    assert gone([int(pid) for pid in (archive.folder / "beta.pids").read_text().split()], 0)
    assert not (archive.folder / "gamma.built").exists()
    assert not (tmp_path / "out" / "report.json").exists()  # it is no fault of theirs
    archive.add("alpha")
    assert build(tmp_path, "alpha")["alpha"].failure == ""


def test_a_disk_that_runs_low_stops_the_run(archive, tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    free = iter([90 << 30, 90 << 30])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, next(free, 1 << 20)))
    for name in ("alpha", "beta", "gamma"):
        archive.add(name)
    with pytest.raises(InputError, match="only 1 MiB are free"):
        build(tmp_path, "alpha", "beta", "gamma")


# Processes


def test_processes_that_were_stopped_start_nothing_any_more():
    processes = Processes()
    assert processes.run(["sh", "-c", "echo out; echo err >&2; exit 3"], seconds=30).code == 3
    processes.stop()
    processes.stop()
    with pytest.raises(Stopped):
        processes.run(["true"], seconds=30)


def test_the_output_of_a_program_is_kept():
    finished = Processes().run(["sh", "-c", "echo out $WORD; echo err >&2"], seconds=30, variables={"WORD": "x"})
    assert (finished.code, finished.output, finished.errors) == (0, "out x\n", "err\n")


def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path):
    script = f"sh -c 'echo $$ > {tmp_path}/pid; exec sleep 1000' & sleep 1000"
    with pytest.raises(subprocess.TimeoutExpired):
        Processes().run(["sh", "-c", script], seconds=5)
    assert gone([int((tmp_path / "pid").read_text())])


def test_a_mark_is_not_taken_for_a_longer_one(tmp_path):
    processes = [
        subprocess.Popen(["sleep", "1000"], env=os.environ | {"SECONDPASS_BUILD": f"{tmp_path}/{name}"})
        for name in ("lib", "lib2")
    ]
    try:
        end_marked(f"{tmp_path}/lib")
        assert processes[0].wait(10) == -signal.SIGKILL
        assert processes[1].poll() is None
    finally:
        for process in processes:
            process.kill()
            process.wait()


# The real thing


def has_sources():
    targets = ["apt-get", "indextargets", "--format", "$(CREATED_BY)"]
    return "Sources" in subprocess.run(targets, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="installs build dependencies: needs root")
@pytest.mark.skipif(
    any(shutil.which(it) is None for it in ("apt-get", "bear", "dpkg-buildpackage", "g++")),
    reason="needs apt-get install bear dpkg-dev build-essential",
)
def test_a_real_package_becomes_functions(tmp_path):
    if not has_sources():
        pytest.skip("apt knows no source packages: add deb-src and run apt-get update")
    out = tmp_path / "out"
    assert main(["corpus", "debian", "cjson", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())["cjson"]
    assert report["compiled"] == report["units"] > 1
    opened = Corpus(out)
    assert len(opened) > 80
    assert "cJSON_Parse" in {opened.record(key).name for key in opened.entries}
