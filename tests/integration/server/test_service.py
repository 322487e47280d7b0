"""The server as a process: killed, stopped, overloaded."""

from __future__ import annotations

import gzip
import random
import resource
import signal
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from gprof_lite.config import Address
from gprof_lite.errors import PrerequisiteError
from gprof_lite.server.options import ServerOptions
from gprof_lite.server.service import serve, serving
from gprof_lite.stop import StopToken

Start = Callable[[], tuple[subprocess.Popen[str], str]]
CPU = "process_cpu:cpu:nanoseconds:cpu:nanoseconds{}"
MIB = 1 << 20


def peak_rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def host_and_port(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_was_answered_with_200_survives_a_kill(start: Start, seed: int) -> None:
    # GIVEN a server under load from two clients, each push with a weight that tells it from all others
    process, url = start()
    answered: list[int] = []
    sent: list[int] = []

    def push(first: int) -> None:
        with requests.Session() as session:
            for number in range(first, 100_000, 2):
                sent.append(number)
                try:
                    response = session.post(f"{url}/ingest?name=x.inuse_space", data=f"main;f{number} {2**20 + number}")
                except requests.ConnectionError:
                    return
                if response.status_code == 200:
                    answered.append(number)

    clients = [threading.Thread(target=push, args=(first,)) for first in (0, 1)]
    for client in clients:
        client.start()

    # WHEN it is killed at some moment
    time.sleep(0.2 + random.Random(seed).random() / 2)
    process.kill()
    for client in clients:
        client.join()
    process.wait()

    # THEN a new server on the same directory has all that was answered, and at most the two in flight besides
    _, url = start()
    answer = requests.get(
        f"{url}/pyroscope/render", params={"query": "memory:inuse_space:bytes::{}", "maxNodes": "1000000"}
    )
    names = set(answer.json()["flamebearer"]["names"])
    assert answered
    assert {f"f{number}" for number in answered} <= names
    assert names - {"total", "main"} <= {f"f{number}" for number in sent}


def test_sigterm_ends_it_though_clients_are_slow(start: Start) -> None:
    # GIVEN clients that sent half a request, nothing at all, or do not read their answer
    process, url = start()
    requests.post(
        f"{url}/ingest?name=x.cpu", data="".join(f"main;{n:0300} 1\n" for n in range(8000))
    ).raise_for_status()
    clients = [socket.create_connection(host_and_port(url)) for _ in range(30)]
    for client in clients[:10]:
        client.sendall(b"POST /ingest?name=x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nhalf")
    for client in clients[10:14]:
        client.sendall(
            f"GET /pyroscope/render?query={CPU}&maxNodes=100000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        )
    assert requests.get(f"{url}/ready").text == "ready"

    # WHEN it is told to stop
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)

    # THEN it ends by itself within two seconds
    assert process.wait(timeout=10) == 0
    assert time.monotonic() - began < 2
    for client in clients:
        client.close()


def test_slow_clients_do_not_keep_others_waiting(url: str) -> None:
    # GIVEN more half requests than the server has threads
    clients = [socket.create_connection(host_and_port(url)) for _ in range(40)]
    for client in clients:
        client.sendall(b"POST /ingest?name=x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nhalf")

    # WHEN somebody else asks THEN there is an answer
    assert requests.get(f"{url}/ready", timeout=5).text == "ready"
    for client in clients:
        client.close()


def test_memory_is_bounded_whatever_is_sent(start: Start) -> None:
    # GIVEN a server and the usual ways to fill its memory
    process, url = start()
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(512)) + packer.flush()
    push = f"{url}/push.v1.PusherService/Push"
    proto, json_type = {"Content-Type": "application/proto"}, {"Content-Type": "application/json"}
    packed = {"Content-Encoding": "gzip"}

    # WHEN they are sent THEN each is refused with 4xx and words
    hundred = bytes(100_000_000)
    assert requests.post(push, data=hundred, headers=proto).status_code == 413
    assert requests.post(f"{url}/ingest?name=x", data=hundred).json()["code"] == "too_large"
    assert requests.post(f"{url}/ingest?name=x", data=(hundred[:MIB] for _ in range(100))).status_code == 413  # chunked
    assert requests.post(push, data=bomb, headers={**proto, **packed}).status_code == 413
    assert requests.post(f"{url}/ingest?name=x", data=bomb, headers=packed).status_code == 413
    assert requests.post(f"{url}/ingest?name=x&format=pprof", data=bomb).status_code == 413
    assert requests.post(push, data=b"\n\0" * (7 * MIB), headers=proto).status_code == 400
    assert requests.post(push, data=b"[" * (15 * MIB), headers=json_type).status_code == 400
    assert requests.post(push, data=b'{"series":[' + b"{}," * (5 * MIB), headers=json_type).status_code == 400
    assert (
        requests.post(f"{url}/ingest?name=x", data=b"a;" * (7 * MIB) + b" 1").status_code == 200
    )  # truncated, said so
    empty_samples = gzip.compress(b"\x12\0" * (2 * MIB))
    assert requests.post(f"{url}/ingest?name=x&format=pprof", data=empty_samples).status_code == 400
    many_lines = requests.post(f"{url}/ingest?name=x", data=b"a 1\n" * (4 * MIB))
    assert many_lines.status_code == 413

    # AND the server is well, and never took much
    assert requests.get(f"{url}/ready").text == "ready"
    assert peak_rss_bytes(process.pid) < 128 * MIB


def test_pushes_and_queries_at_once_lose_nothing(url: str) -> None:
    # GIVEN clients that push into two series, and one that queries all the while
    n_clients, n_pushes = 6, 40
    statuses: list[int] = []

    def push(client: int) -> None:
        with requests.Session() as session:
            for number in range(n_pushes):
                data = f"main;shared 1\nmain;own{client};n{number} 2\n"
                name = f"many.inuse_space{{half={client % 2}}}"
                statuses.append(session.post(f"{url}/ingest", params={"name": name}, data=data).status_code)

    def totals() -> int:
        answer = requests.get(f"{url}/pyroscope/render", params={"query": "memory:inuse_space:bytes::{}"})
        return int(answer.json()["flamebearer"]["numTicks"])

    clients = [threading.Thread(target=push, args=(client,)) for client in range(n_clients)]
    for thread in clients:
        thread.start()
    seen = [0]
    while any(thread.is_alive() for thread in clients):
        seen.append(totals())
    for thread in clients:
        thread.join()

    # THEN each push was taken, each query saw whole pushes and never less than the one before, and the sum is exact
    assert statuses == [200] * (n_clients * n_pushes)
    assert seen == sorted(seen)
    assert all(total % 3 == 0 for total in seen)
    assert totals() == 3 * n_clients * n_pushes


def test_a_client_that_asks_first_is_told_before_it_sends(url: str) -> None:
    # GIVEN a client that waits for "100 Continue" before a body that is too large
    with socket.create_connection(host_and_port(url)) as client:
        client.sendall(
            b"POST /ingest?name=x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        client.settimeout(5)

        # WHEN the answer comes THEN it is the refusal
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_a_port_in_use_is_said_in_words(tmp_path: Path, url: str) -> None:
    options = ServerOptions(listen=Address(*host_and_port(url)), server_data=tmp_path / "data")
    with StopToken() as stop, pytest.raises(PrerequisiteError, match="in use") as refused:
        serve(options, stop)
    assert "--listen" in refused.value.hint
    assert not (tmp_path / "data").exists()


def test_an_address_that_is_not_ours_is_said_in_words(tmp_path: Path) -> None:
    with (
        pytest.raises(PrerequisiteError, match="cannot listen there"),
        serving(ServerOptions(listen=Address("203.0.113.1", 0), server_data=tmp_path)),
    ):
        pass


def test_the_disk_being_full_is_an_answer(tmp_path: Path) -> None:
    # GIVEN a server that cannot write any more
    with serving(ServerOptions(listen=Address("127.0.0.1", 0), server_data=tmp_path)) as address:
        url = f"http://{address}/ingest?name=x"
        assert requests.post(url, data="main;a 1").status_code == 200
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = (tmp_path / "profiles.db-wal").stat().st_size
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

            # WHEN more is pushed THEN it is 503 with words
            answer = requests.post(url, data="".join(f"main;{n:0200} 1\n" for n in range(200)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert "cannot be stored" in answer.json()["message"]

        # AND it works again when there is room
        assert requests.post(url, data="main;b 1").status_code == 200
