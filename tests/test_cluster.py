"""The tuner on a Ray cluster: a real one, of two nodes on this machine, one of which is killed."""

import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from compiling import ROOT

from secondpass import __version__
from secondpass.corpus.commands import Named, files
from secondpass.corpus.store import Corpus
from secondpass.llvm.jobs import Job, Status
from secondpass.llvm.sandbox import Sandbox
from secondpass.prompt import Objective
from secondpass.tuner.cluster import Cluster, ClusterError
from secondpass.tuner.knowledge import Knowledge
from secondpass.tuner.labels import LabelStore
from secondpass.tuner.search import Budget
from secondpass.tuner.tune import tune
from secondpass.tuner.work import Settings

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("ray", "pyarrow"))), reason="needs Ray: pip install 'secondpass[ray]'"
)

SMALL = b"define i32 @f(i32 %x) {\n  %dead = mul i32 %x, 3\n  %y = add i32 %x, 1\n  ret i32 %y\n}"
CLEAN = "function(dce)"
CRASH = "trigger-crash-module"
SECONDS, MEMORY = 60, 1 << 30
START_SECONDS = 150
"""Far more than a node takes to start, on a machine however busy."""

KILLER = '''
import os, signal, time
from pathlib import Path

def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

def kill_ray_worker(module, item):
    """Called in a fork of the sandbox's worker, which is below its server, below Ray's worker."""
    os.kill(parent(parent(os.getppid())), signal.SIGKILL)
    time.sleep(60)

def sleep(module, item):
    time.sleep(float(item))
'''


# Nodes


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def processes_of(session):
    """Every process that a node consists of; the node's first process began the session."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(path.name))
    return found


def sandboxes_of(session):
    """The servers of the sandboxes that a node's Ray workers have; each is in a session of its own."""
    found = []
    for pid in processes_of(session):
        with suppress(FileNotFoundError, ProcessLookupError):
            below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            found += [it for it in below if b"secondpass.llvm.worker" in Path(f"/proc/{it}/cmdline").read_bytes()]
    return found


def kill_node(node):
    while pids := processes_of(node.pid):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.poll()
        time.sleep(0.02)


class Nodes:
    """Nodes of one cluster, each a `ray start` of its own."""

    def __init__(self, folder, path):
        self.address = f"127.0.0.1:{free_port()}"
        self.folder, self.started = folder, []
        # A dead node is noticed within seconds, not half a minute.
        health = {"RAY_health_check_period_ms": "500", "RAY_health_check_initial_delay_ms": "500"}
        self._environment = {**os.environ, **health, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(path)}

    def start(self, *options):
        """Start a node of one CPU; it joins some time later."""
        command = [Path(sys.executable).with_name("ray"), "start", "--block", "--num-cpus=1"]
        limits = ["--object-store-memory=100000000", "--disable-usage-stats"]
        with (self.folder / f"node{len(self.started)}.log").open("wb") as log:
            node = subprocess.Popen(
                [*command, *limits, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        self.started.append(node)
        return node

    def start_head(self):
        place = [f"--port={self.address.partition(':')[2]}", f"--temp-dir={self.folder}"]
        return self.start("--head", "--include-dashboard=false", "--node-ip-address=127.0.0.1", *place)

    def start_other(self):
        return self.start(f"--address={self.address}", "--node-ip-address=127.0.0.1")

    def wait_for(self, node):
        """Wait until a node has joined."""
        log = self.folder / f"node{self.started.index(node)}.log"
        end = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None and time.monotonic() < end, f"the node does not start:\n{log.read_text()}"
            time.sleep(0.1)

    def close(self):
        for node in self.started:
            kill_node(node)
            node.wait()


@pytest.fixture(scope="module")
def nodes():
    """A cluster whose head node is up."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # the paths of Ray's sockets must be short
    (folder / "killer.py").write_text(KILLER)
    nodes = Nodes(folder, folder)
    try:
        nodes.wait_for(nodes.start_head())
        yield nodes
    finally:
        nodes.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def killer(nodes):
    """A module with work that does harm, known to this process and to the nodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(nodes.folder)
        import killer

        yield killer


@pytest.fixture(scope="module")
def cluster(nodes):
    """A connection that many tests use one after the other; some time after it was made, another node joins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", nodes.address)
        connected = Cluster("auto", SECONDS, MEMORY)
    nodes.start_other()
    with connected:
        yield connected


# Jobs


def test_a_list_that_crashes_costs_only_itself(cluster):
    jobs = [Job(SMALL, (CLEAN, CRASH, ""), name=str(i)) for i in range(20)]
    outcomes = {job.name: [(it.status, it.instructions) for it in found] for job, found in cluster.run(jobs)}
    assert outcomes == {str(i): [(Status.OK, 2), (Status.CRASH, 0), (Status.OK, 3)] for i in range(20)}


def test_a_job_that_kills_its_ray_worker_every_time_has_crashed_and_the_rest_goes_on(cluster, killer, capfd):
    good = [Job(SMALL, (CLEAN,), name=str(i)) for i in range(6)]
    bad = Job(SMALL, ("one", "two"), name="bad", each=killer.kill_ray_worker)
    outcomes = {job.name: [it.status for it in found] for job, found in cluster.run([*good[:3], bad, *good[3:]])}
    assert outcomes == {**{str(i): [Status.OK] for i in range(6)}, "bad": [Status.CRASH] * 2}
    assert capfd.readouterr() == ("", "")


def test_jobs_are_taken_as_the_cluster_has_room(cluster):
    taken = []

    def endless():
        while True:
            taken.append(None)
            yield Job(SMALL, (CLEAN,))

    for _ in zip(range(10), cluster.run(endless()), strict=False):
        pass
    assert len(taken) < 300


def test_leaving_early_leaves_a_cluster_that_works(cluster, killer):
    large = b";" * 100_000 + b"\n" + SMALL  # a batch of its own
    running = cluster.run([Job(large, (CLEAN,)), *[Job(large, ("300",), each=killer.sleep)] * 6])
    next(running)
    running.close()
    started = time.monotonic()
    ((_, (outcome,)),) = cluster.run([Job(SMALL, (CLEAN,))])
    assert outcome.instructions == 2
    assert time.monotonic() - started < 60


def test_an_error_of_the_job_source_reaches_the_caller(cluster):
    def failing():
        yield Job(SMALL, (CLEAN,))
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(cluster.run(failing()))


# A node dies


def tuned(corpus, path, runner, progress=None):
    """The labels of a whole corpus: what is best and next best, by function."""
    lists = [("sroa", "instcombine<no-verify-fixpoint>", "simplifycfg"), ("default<O2>", "gvn")]
    knowledge = Knowledge().extended(lists, dict.fromkeys(lists, 1.0))
    settings = Settings(Objective.INSTRUCTIONS, knowledge, Budget(20), seed=1)
    with LabelStore(path, Objective.INSTRUCTIONS) as store:
        report = tune(corpus, list(corpus.entries), store, settings, runner, progress)
        assert report.failed == {}
        return {key: (label.oz, label.found) for key, label in store.labels.items()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus")
    files(out, [ROOT / "examples" / "program"], (), Named("program"))
    return Corpus(out)


@pytest.fixture(scope="module")
def interrupted(corpus, cluster, nodes, tmp_path_factory):
    """A run in the middle of which a node is killed that joined after the connection: its labels, and when it died."""
    node = nodes.started[1]
    nodes.wait_for(node)
    died = []

    def progress(what, done, total):
        if not died and sandboxes_of(node.pid):  # it is at work
            kill_node(node)
            died.append((what, done))

    return tuned(corpus, tmp_path_factory.mktemp("labels") / "ray.parquet", cluster, progress), died


def test_a_node_that_joins_later_is_put_to_work(interrupted):
    _, died = interrupted
    assert len(died) == 1


def test_every_function_is_labelled_though_a_node_dies_in_the_middle(interrupted, corpus):
    labels, died = interrupted
    assert all(0 < done < len(corpus) for _, done in died)
    assert set(labels) == set(corpus.entries)


def test_the_labels_are_those_of_a_run_on_this_machine_alone(interrupted, corpus, tmp_path):
    with Sandbox(2, SECONDS, MEMORY) as sandbox:
        assert interrupted[0] == tuned(corpus, tmp_path / "local.parquet", sandbox)


# The connection


@contextmanager
def listening(answer):
    """A server that is no Ray."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_an_address_where_nothing_listens_is_refused_at_once():
    address, started = f"127.0.0.1:{free_port()}", time.monotonic()
    with pytest.raises(ClusterError, match=rf"^Ray cluster {address}: cannot be reached \(ConnectionRefusedError"):
        Cluster(address, SECONDS, MEMORY)
    assert time.monotonic() - started < 15


def test_a_server_that_is_not_ray_is_refused_at_once():
    started = time.monotonic()
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address, pytest.raises(ClusterError, match="is not Ray"):
        Cluster(address, SECONDS, MEMORY)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("address", ["", "local", "ray://127.0.0.1:10001", "127.0.0.1", "127.0.0.1:port"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(ClusterError, match="give the head node's HOST:PORT, or auto"):
        Cluster(address, SECONDS, MEMORY)


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install 'secondpass\[ray\]'"):
        Cluster("auto", SECONDS, MEMORY)


def connecting(script, **environment):
    """What a Python process says that runs a script."""
    return subprocess.run(
        [sys.executable, "-c", f"from secondpass.tuner.cluster import Cluster\n{script}"],
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, **environment},
        check=False,
    )


def test_nodes_with_another_version_are_refused(nodes, tmp_path):
    source = tmp_path / "secondpass"
    shutil.copytree(ROOT / "src" / "secondpass", source, ignore=shutil.ignore_patterns("shipped", "__pycache__"))
    (source / "__init__.py").write_text('__version__ = "99.0"')
    result = connecting(f"Cluster({nodes.address!r}, 1, 1 << 30)", PYTHONPATH=str(tmp_path))
    message = f"of the Ray cluster has secondpass {__version__}, this run needs 99.0: install the same secondpass"
    assert message in result.stderr.splitlines()[-1]


def test_a_closed_connection_cannot_be_used(nodes):
    script = f"""
with Cluster({nodes.address!r}, 1, 1 << 30) as cluster:
    pass
next(cluster.run([]))"""
    said = connecting(script).stderr
    assert said.splitlines()[-1].endswith("ClusterError: the connection to the Ray cluster is closed")


def test_a_process_has_one_connection(nodes, cluster):
    with pytest.raises(ClusterError, match="connected to a Ray cluster already"):
        Cluster(nodes.address, SECONDS, MEMORY)
