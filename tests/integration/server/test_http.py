"""The routes over real HTTP: codecs, headers, garbage."""

from __future__ import annotations

import gzip
import json
import random
import time
import uuid

import pytest
import requests

from gprof_lite.formats.connect_push import PushCodec, PushedSeries, encode_push
from gprof_lite.formats.pprof import encode_pprof
from gprof_lite.formats.pprof_messages import PprofProfile, PprofSample
from gprof_lite.formats.pprof_writer import write_pprof
from gprof_lite.model.profile import Profile, SampleType, Window

CPU = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"
PUSH = "/push.v1.PusherService/Push"


def now_ns() -> int:
    return time.time_ns()


def our_pprof(weight: int = 7) -> bytes:
    window = Window(now_ns() - 10**9, now_ns())
    return encode_pprof(Profile(SampleType.CPU, window, {("main", "work"): weight}, period=weight))


def body(service: str, codec: PushCodec, identifier: str = "", profile: bytes | None = None) -> bytes:
    labels = (("__name__", "process_cpu"), ("service_name", service))
    return encode_push([PushedSeries(labels, (profile or our_pprof(),), (identifier,))], codec)


def total(url: str, service: str, type_text: str = CPU) -> int:
    query = f'{type_text}{{service_name="{service}"}}'
    answer = requests.get(f"{url}/pyroscope/render", params={"query": query, "from": "now-1h", "until": "now"})
    answer.raise_for_status()
    return int(answer.json()["flamebearer"]["numTicks"])


@pytest.mark.parametrize("packed", [pytest.param(False, id="plain"), pytest.param(True, id="gzip")])
@pytest.mark.parametrize("codec", list(PushCodec))
def test_both_codecs_packed_and_plain(url: str, codec: PushCodec, packed: bool) -> None:
    # GIVEN a profile of our own writer WHEN it is pushed THEN it comes back with its weight
    service = f"codec-{codec.name}-{packed}"
    data = body(service, codec)
    headers = {"Content-Type": codec.value}
    if packed:
        data, headers["Content-Encoding"] = gzip.compress(data), "gzip"
    answer = requests.post(url + PUSH, data=data, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"{}" if codec is PushCodec.JSON else b"")
    assert total(url, service) == 7


def test_a_repeated_delivery_counts_once(url: str) -> None:
    # GIVEN one push with an ID, sent twice, and a third with the same ID and other content
    profile, identifier = our_pprof(), str(uuid.uuid4())
    for content in (profile, profile, our_pprof(100)):
        data = body("repeated", PushCodec.PROTO, identifier, content)
        requests.post(url + PUSH, data=data, headers={"Content-Type": "application/proto"}).raise_for_status()

    # WHEN it is rendered THEN the repetition is not counted, the other content is
    assert total(url, "repeated") == 107


def test_without_an_id_equal_profiles_count_twice(url: str) -> None:
    profile = our_pprof()
    for _ in range(2):
        data = body("twice", PushCodec.JSON, "", profile)
        requests.post(url + PUSH, data=data, headers={"Content-Type": "application/json"}).raise_for_status()
    assert total(url, "twice") == 14


def test_each_sample_type_and_each_set_of_sample_labels_is_a_series(url: str) -> None:
    # GIVEN a pprof with two sample types and labels on its samples
    samples = (
        PprofSample(("main", "a"), (1, 10), (("endpoint", "/a"), ("span_id", "0001"))),
        PprofSample(("main", "b"), (2, 20), (("endpoint", "/b"), ("bytes", 4096))),
        PprofSample(("main", "b"), (4, 40), (("endpoint", "/b"),)),
    )
    types = (("samples", "count"), ("cpu", "nanoseconds"))
    profile = write_pprof(PprofProfile(types, samples, 10, ("cpu", "nanoseconds"), now_ns(), 10**9))

    # WHEN it is pushed
    data = body("labelled", PushCodec.PROTO, str(uuid.uuid4()), profile)
    requests.post(url + PUSH, data=data, headers={"Content-Type": "application/proto"}).raise_for_status()

    # THEN both types are there, and the labels that name a kind of work select
    assert total(url, "labelled") == 70
    assert total(url, "labelled", "process_cpu:samples:count:cpu:nanoseconds") == 7
    query = f'{CPU}{{service_name="labelled",endpoint=~"/b|/c"}}'
    answer = requests.get(f"{url}/pyroscope/render", params={"query": query}).json()
    assert answer["flamebearer"]["numTicks"] == 60
    names = requests.get(f"{url}/pyroscope/labels", params={"query": '{service_name="labelled"}'}).json()
    assert "endpoint" in names
    assert not {"span_id", "bytes"} & set(names)


def test_series_are_listed_for_the_page(url: str) -> None:
    requests.post(f"{url}/ingest?name=listed.inuse_space{{zone=a}}", data="main;a 5").raise_for_status()
    entries = requests.get(f"{url}/api/v1/series", params={"from": "now-5m", "until": "now"}).json()
    labels = {"service_name": "listed", "zone": "a"}
    assert {"service_name": "listed", "type": "memory:inuse_space:bytes::", "labels": labels} in entries
    assert requests.get(f"{url}/api/v1/series", params={"from": "now-1y", "until": "now-1d"}).json() == []
    hosts = requests.get(f"{url}/pyroscope/label-values", params={"label": "zone", "from": "now-5m"}).json()
    assert hosts == ["a"]


def test_the_page_and_its_parts_are_served(url: str) -> None:
    page = requests.get(url + "/")
    assert page.headers["Content-Type"].startswith("text/html")
    script = requests.get(url + "/static/viewer.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    again = requests.get(url + "/static/viewer.js", headers={"If-None-Match": script.headers["ETag"]})
    assert again.status_code == 304
    for name in ("../app.py", "%2e%2e/app.py", "__init__.py", "nothing.js"):
        assert requests.get(f"{url}/static/{name}").status_code == 404


@pytest.mark.parametrize("path", ["/", "/ready", "/nope", "/static/viewer.css", "/api/v1/series", "/ingest"])
def test_every_answer_has_the_security_headers(url: str, path: str) -> None:
    headers = requests.get(url + path).headers
    assert "'unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"


def test_a_foreign_host_name_is_refused_on_every_route(url: str) -> None:
    for path in ("/", "/ready", "/pyroscope/render", "/nope"):
        assert requests.get(url + path, headers={"Host": "evil.example"}).status_code == 403
    assert requests.post(f"{url}/ingest?name=x", headers={"Origin": "http://evil.example"}).status_code == 403


def test_what_the_http_parser_refuses_has_words_too(url: str) -> None:
    answer = requests.get(url + "/ready", headers={"X-Long": "x" * 70_000})
    assert (answer.status_code, answer.json()["code"]) == (431, "invalid_argument")
    assert answer.headers["X-Frame-Options"] == "DENY"
    strange = requests.Request("POST", f"{url}/ingest?name=x", headers={"Transfer-Encoding": "strange"}).prepare()
    with requests.Session() as session:
        assert session.send(strange).status_code == 400


ROUTES = (
    ("POST", PUSH, ()),
    ("POST", "/ingest", ("name", "from", "until", "sampleRate", "format", "spyName", "units")),
    ("GET", "/pyroscope/render", ("query", "from", "until", "maxNodes", "format")),
    ("GET", "/pyroscope/label-values", ("label", "query", "from", "until")),
    ("GET", "/pyroscope/labels", ("query", "from", "until")),
    ("GET", "/api/v1/series", ("query", "from", "until")),
    ("GET", "/static/", ()),
    ("GET", "/api/v1/status/buildinfo", ()),
)
VALUES = (
    *("", "0", "-1", "now", "now-", "9" * 30, "1e308", "NaN"),
    *("x.cpu", "x.cpu{a=b}", "pprof", "lines", "jfr", "json"),
    *(CPU, CPU + "{", CPU + '{a=~"(a*)*b"}', CPU + '{a="\ud7ff"}'),
    *("\x00", "ä€😀", "a" * 3000, "'; DROP TABLE profiles; --", "%ff", "[]{}"),
)
TYPES = (
    *(
        "",
        "application/json",
        "application/proto",
        "application/json; charset=utf-16",
        "text/plain",
        "application/\x7f",
    ),
    *("multipart/form-data", "multipart/form-data; boundary=b", 'multipart/form-data; boundary="'),
)


def garbage(choose: random.Random) -> bytes:
    """Bytes of every kind, some of them almost right."""
    kinds = (
        lambda: choose.randbytes(choose.randrange(200)),
        lambda: b"main;a 1\nmain;b " + choose.randbytes(5),
        lambda: json.dumps({"series": [{"labels": [choose.choice((1, None, {}, "x"))], "samples": {}}]}).encode(),
        lambda: json.dumps(choose.choice(([], 1, None, {"series": None}, {"series": [[]]}, {"series": 5}))).encode(),
        lambda: damaged(choose, body("fuzz", PushCodec.PROTO)),
        lambda: damaged(choose, body("fuzz", PushCodec.JSON)),
        lambda: damaged(choose, gzip.decompress(our_pprof())),
        lambda: body("fuzz", PushCodec.PROTO, profile=damaged(choose, gzip.decompress(our_pprof()))),
        lambda: body("fuzz", PushCodec.JSON, profile=damaged(choose, our_pprof())),
        lambda: (
            b'--b\r\nContent-Disposition: form-data; name="profile"; filename="p"\r\n\r\n'
            + choose.randbytes(9)
            + b"\r\n--b--"
        ),
        lambda: b"--b\r\n\r\n--b--" + choose.randbytes(3),
        lambda: b"{" * 3000,
    )
    return choose.choice(kinds)()


def damaged(choose: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(choose.randrange(1, 6)):
        changed[choose.randrange(len(changed))] = choose.randrange(256)
    return bytes(changed[: choose.randrange(1, len(changed) + 1)] if choose.random() < 0.3 else changed)


@pytest.mark.parametrize(("method", "path", "names"), ROUTES, ids=[path for _, path, _ in ROUTES])
def test_garbage_is_refused_never_a_failure(url: str, method: str, path: str, names: tuple[str, ...]) -> None:
    # GIVEN requests of every wrong kind
    choose = random.Random(path)
    with requests.Session() as session:
        for number in range(300):
            parameters = {name: choose.choice(VALUES) for name in names if choose.random() < 0.6}
            if path == "/ingest" and number % 2:
                parameters["name"] = "fuzz.cpu"
            headers = {
                "Content-Type": choose.choice(TYPES),
                "Content-Encoding": choose.choice(("", "", "", "gzip", "br")),
            }
            target = url + path + (choose.choice(VALUES[:20]) if path == "/static/" else "")

            # WHEN it is sent THEN the answer is below 500, and a refusal has words
            answer = session.request(
                choose.choice((method, method, method, "PUT", "HEAD")),
                target,
                params=parameters,
                headers=headers,
                data=garbage(choose) if method == "POST" else None,
            )
            assert answer.status_code < 500, (parameters, headers, answer.text)
            if answer.status_code >= 400 and answer.request.method != "HEAD":
                assert answer.json()["message"], parameters
        assert session.get(f"{url}/ready").text == "ready"
