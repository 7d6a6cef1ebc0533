"""A Galera cluster of the tests' own: nodes on this machine, thrown away with their folders."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pymysql
from conftest import eventually
from mariadb import MariaDB
from ports import free_ports

PROVIDERS = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")
USER = "mysql"
"""Whom Debian's package makes."""
TIMEOUTS = "evs.keepalive_period=PT0.5S;evs.suspect_timeout=PT2S;evs.inactive_timeout=PT6S"
"""How soon the others go on without a node that is silent; five seconds if nobody says so."""
STUCK_SECONDS = 5.0
"""How long a node may have work and do none before whoever tends it kills it. With MariaDB 10.11.19
an applier has waited for a row of a COMMIT that waited to be certified: for ever, and all with it.
"""


class Cluster:
    """Nodes of MariaDB that all take writes; one may be killed and come back."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._peers = folder, free_ports(size)
        self.nodes: list[MariaDB] = []
        self._conflicts_before = 0
        """Those of nodes that were killed since, which count from nothing again."""

    def start(self) -> None:
        """Starts every node, the first one as the cluster's beginning."""
        for number, port in enumerate(free_ports(len(self._peers))):
            place = self._folder / str(number)
            place.mkdir()
            if os.geteuid() == 0:  # rsync gives root's rights away, and then reads nothing
                shutil.chown(place, USER)
            first = [] if self.nodes else ["--wsrep-new-cluster"]
            self.nodes.append(MariaDB(place, port, self._options(number), first, USER))
        eventually(lambda: self.assert_size(len(self._peers)))

    def database(self, name: str) -> list[str]:
        """Makes an empty database and returns its URL at each node, where it is by then."""
        self.nodes[0].database(name)
        for node in self.nodes:
            node.run("SET wsrep_sync_wait = 15", f"SHOW TABLES FROM {name}")
        return [node.url(name) for node in self.nodes]

    def assert_size(self, size: int, asked: int = 0) -> None:
        """Asserts that a node is one of so many and takes writes."""
        found = dict(self.nodes[asked].run("SHOW STATUS LIKE 'wsrep%'"))
        state = (found["wsrep_cluster_size"], found["wsrep_cluster_status"], found["wsrep_ready"])
        assert state == (str(size), "Primary", "ON")

    @contextmanager
    def tended(self) -> Iterator[list[int]]:
        """Kills and restarts nodes that stand still, as a cluster's operator does; gives the
        numbers of those it had to.
        """
        killed: list[int] = []
        stop = threading.Event()
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            tending = [
                pool.submit(self._tend, number, killed, stop) for number in range(len(self.nodes))
            ]
            try:
                yield killed
            finally:
                stop.set()
            for each in tending:
                each.result()

    def _tend(self, number: int, killed: list[int], stop: threading.Event) -> None:
        node, last, since = self.nodes[number], "", time.monotonic()
        while not stop.wait(0.5):
            try:
                state = dict(node.run("SHOW STATUS LIKE 'wsrep_l%'"))
            except pymysql.Error:  # it is away
                continue
            at = state["wsrep_last_committed"]
            if at != last or state["wsrep_local_recv_queue"] == "0":
                last, since = at, time.monotonic()
            elif time.monotonic() > since + STUCK_SECONDS:
                self.tell()
                self._conflicts_before += _conflicts(state)
                killed.append(number)
                node.stop(signal.SIGKILL)
                node.start()

    def tell(self) -> None:
        """Prints what the nodes are at; pytest shows it beside a test that failed."""
        transactions = "SELECT * FROM information_schema.innodb_trx"
        for number, node in enumerate(self.nodes):
            for question in ("SHOW STATUS LIKE 'wsrep%'", "SHOW FULL PROCESSLIST", transactions):
                with suppress(pymysql.Error):  # it is away
                    print(f"node {number}:", *node.run(question), sep="\n  ")

    @contextmanager
    def halted(self, number: int) -> Iterator[None]:
        """Has a node apply nothing, though it is of the cluster and answers still."""
        with closing(self.nodes[number].connect()) as connection:
            connection.cursor().execute("FLUSH TABLES WITH READ LOCK")
            yield

    def conflicts(self) -> int:
        """Returns how many transactions of the nodes another node was faster than, so far."""
        found = [dict(node.run("SHOW STATUS LIKE 'wsrep_local%'")) for node in self.nodes]
        return self._conflicts_before + sum(_conflicts(state) for state in found)

    def _options(self, number: int) -> list[str]:
        """Returns what makes a server a node: whom to ask, and where to listen."""
        provider = next(path for path in PROVIDERS if Path(path).exists())
        peer = f"127.0.0.1:{self._peers[number]}"
        copies, changes = (f"127.0.0.1:{port}" for port in free_ports(2))
        listening = f"gmcast.listen_addr=tcp://{peer};ist.recv_addr={changes}"
        return [
            "--wsrep-on=ON",
            f"--wsrep-provider={provider}",
            f"--wsrep-provider-options={listening};gcache.size=16M;{TIMEOUTS}",
            "--wsrep-cluster-address=gcomm://" + ",".join(f"127.0.0.1:{p}" for p in self._peers),
            f"--wsrep-node-address={peer}",
            f"--wsrep-node-name=node{number}",
            "--wsrep-sst-method=rsync",
            f"--wsrep-sst-receive-address={copies}",
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
        ]


def _conflicts(state: dict[str, str]) -> int:
    return int(state["wsrep_local_cert_failures"]) + int(state["wsrep_local_bf_aborts"])


@contextmanager
def clustered(size: int) -> Iterator[Cluster]:
    """Runs a cluster, in a folder that its user may enter."""
    with TemporaryDirectory(prefix="till-") as folder:
        Path(folder).chmod(0o755)
        cluster = Cluster(Path(folder), size)
        try:
            cluster.start()
            yield cluster
        finally:
            for node in cluster.nodes:
                node.stop(signal.SIGKILL)
