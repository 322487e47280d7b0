"""The server's routes, as one WSGI application.

    POST /push.v1.PusherService/Push    profiles in, Connect protocol      push.py
    POST /ingest                        profiles in, older SDKs            ingest.py
    GET  /pyroscope/render              merged profile                     query.py
    GET  /pyroscope/label-values        values of one label
    GET  /pyroscope/labels              names of labels
    GET  /api/v1/series                 what there is, for the page
    GET  /, /static/...                 the page                           assets.py
    GET  /ready, /api/v1/status/buildinfo

Errors are ``{"code", "message"}`` with the status of Pyroscope's recorded answers.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, cast
from wsgiref.types import StartResponse, WSGIEnvironment

from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Map, RequestRedirect, Rule
from werkzeug.wrappers import Request, Response

from gprof_lite import __version__
from gprof_lite.clock import Clock
from gprof_lite.formats.connect_push import PushCodec
from gprof_lite.model.profile import SERVICE
from gprof_lite.server.assets import INDEX, load_assets
from gprof_lite.server.bodies import read_body
from gprof_lite.server.guard import Guard, add_security_headers
from gprof_lite.server.ingest import describe_losses, read_ingest
from gprof_lite.server.moment import parse_moment
from gprof_lite.server.options import ServerOptions
from gprof_lite.server.push import read_push
from gprof_lite.server.query import Query, Range, render_answer
from gprof_lite.server.refusal import Refusal, invalid
from gprof_lite.server.selector import Selector, parse_query, parse_selector
from gprof_lite.server.series import Series
from gprof_lite.server.store import NewProfile, Store

logger = logging.getLogger(__name__)

DEFAULT_MAX_NODES: Final = 8192
MAX_MAX_NODES: Final = 1_000_000
DEFAULT_RANGE_S: Final = 3600
_FOREVER_NS: Final = 2**63 - 1

_ROUTES: Final = (
    ("/push.v1.PusherService/Push", "POST", "push"),
    ("/ingest", "POST", "ingest"),
    ("/pyroscope/render", "GET", "render"),
    ("/pyroscope/label-values", "GET", "label_values"),
    ("/pyroscope/labels", "GET", "label_names"),
    ("/api/v1/series", "GET", "series"),
    ("/api/v1/status/buildinfo", "GET", "build_info"),
    ("/ready", "GET", "ready"),
    ("/static/<name>", "GET", "asset"),
    ("/", "GET", "page"),
)


class App:
    """WSGI application over one store. May be called from several threads."""

    def __init__(self, store: Store, options: ServerOptions, clock: Clock) -> None:
        self._store = store
        self._options = options
        self._clock = clock
        self._guard = Guard(options.listen.host, options.server_names)
        self._assets = load_assets()
        # One body at a time is unpacked and decoded: that bounds the memory, and one interpreter runs no faster anyway.
        self._ingest_turn = threading.Lock()
        self._routes = Map(
            [Rule(path, methods=[method], endpoint=name) for path, method, name in _ROUTES],
            strict_slashes=False,
            merge_slashes=False,
        )
        self._handlers: dict[str, Callable[..., Response]] = {
            "push": self._push,
            "ingest": self._ingest,
            "render": self._render,
            "label_values": self._label_values,
            "label_names": self._label_names,
            "series": self._series,
            "build_info": self._build_info,
            "ready": self._ready,
            "asset": self._asset,
            "page": self._page,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        try:
            response = self._answer(request)
        except Refusal as exc:
            response = _refused(exc)
        except sqlite3.Error as exc:
            logger.error("database failed", extra={"error": str(exc), "path": request.path})
            response = _refused(Refusal("unavailable", f"the database cannot be used: {exc}"))
        return add_security_headers(response)(environ, start_response)

    def _answer(self, request: Request) -> Response:
        self._guard.check(request)
        try:
            name, arguments = self._routes.bind_to_environ(request.environ).match()
        except MethodNotAllowed as exc:
            allowed = ", ".join(sorted(exc.valid_methods or ()))
            raise Refusal("method_not_allowed", f"{request.path} takes {allowed}") from exc
        except (NotFound, RequestRedirect) as exc:
            raise Refusal("not_found", f"there is nothing at {request.path[:200]}") from exc
        except HTTPException as exc:
            raise invalid(f"the request cannot be read: {exc.description}") from exc
        return self._handlers[name](request, **arguments)

    # --- in ----------------------------------------------------------------------------------------------------------

    def _push(self, request: Request) -> Response:
        try:
            codec = PushCodec(request.mimetype)
        except ValueError as exc:
            accepted = " or ".join(codec.value for codec in PushCodec)
            raise Refusal("unsupported_media_type", f"content type: expected {accepted}") from exc
        with self._ingest_turn:
            pushed = read_push(self._body(request), codec, self._clock.utc_ns())
            self._keep(pushed.profiles)
        if pushed.losses.total:  # the protocol has no place in its answer for that
            logger.warning("parts of a push were left out", extra={"losses": describe_losses(pushed.losses)})
        if codec is PushCodec.PROTO:
            return Response(b"", content_type=codec.value)
        return _json({})

    def _ingest(self, request: Request) -> Response:
        with self._ingest_turn:
            body = self._body(request)
            ingested = read_ingest(request.args, request.headers.get("Content-Type", ""), body, self._clock.utc_ns())
            self._keep(ingested.profiles)
        if not ingested.losses.total:
            return Response(b"", content_type="text/plain; charset=utf-8")
        return _json({"dropped": dict(ingested.losses.counts), "message": describe_losses(ingested.losses)})

    def _body(self, request: Request) -> bytes:
        encoding = request.headers.get("Content-Encoding", "")
        return read_body(cast(Any, request.environ["wsgi.input"]), encoding, self._options.max_body_bytes)

    def _keep(self, profiles: Iterable[NewProfile]) -> None:
        kept = tuple(profiles)
        for profile in kept:
            self._check_time(profile)
        if kept:
            self._store.put(kept)

    def _check_time(self, profile: NewProfile) -> None:
        ahead_s = (profile.time_ns - self._clock.utc_ns()) / 1e9
        if -self._options.accept_past_s <= ahead_s <= self._options.accept_future_s:
            return
        direction = f"{ahead_s:.0f} s ahead of" if ahead_s > 0 else f"{-ahead_s:.0f} s behind"
        raise invalid(
            f"profile of service {profile.series.label(SERVICE)!r} is outside of ingestion window (its time is "
            f"{direction} ours; accepted: {self._options.accept_past_s:.0f} s behind to "
            f"{self._options.accept_future_s:.0f} s ahead)"
        )

    # --- out ---------------------------------------------------------------------------------------------------------

    def _render(self, request: Request) -> Response:
        text = request.args.get("query", "")
        if not text:
            raise invalid("'query' is required")
        selector = parse_query(text)
        if selector.type is None:  # parse_query has refused that; said again for the type checker
            raise invalid("'query' needs a profile type")
        if request.args.get("format", "json") != "json":
            raise invalid("format: only json is supported")
        span = self._range(request, default_from_s=DEFAULT_RANGE_S)
        max_nodes = _max_nodes(request.args.get("maxNodes") or request.args.get("max-nodes"))
        rendered = self._query().render(selector, span)
        return _json(render_answer(rendered, selector.type, span, max_nodes))

    def _label_values(self, request: Request) -> Response:
        label = request.args.get("label", "")
        if not label:
            raise invalid("label parameter is required")
        return _json(sorted({value for series in self._selected(request) if (value := series.label(label))}))

    def _label_names(self, request: Request) -> Response:
        return _json(sorted({name for series in self._selected(request) for name in series.all_labels()}))

    def _series(self, request: Request) -> Response:
        return _json(
            [
                {"service_name": series.label(SERVICE), "type": str(series.type), "labels": dict(series.labels)}
                for series in self._selected(request)
            ]
        )

    def _selected(self, request: Request) -> list[Series]:
        text = request.args.get("query", "")
        selector = parse_selector(text) if text else Selector(None)
        return self._query().series(selector, self._range(request, default_from_s=None))

    def _range(self, request: Request, *, default_from_s: int | None) -> Range:
        """The range that is asked for; ``default_from_s`` None: without one, everything."""
        now_ns = self._clock.utc_ns()
        from_text, until_text = request.args.get("from", ""), request.args.get("until", "")
        earliest_ns = 0 if default_from_s is None else now_ns - default_from_s * 10**9
        from_ns = parse_moment(from_text, now_ns) if from_text else earliest_ns
        latest_ns = _FOREVER_NS if default_from_s is None else now_ns
        until_ns = parse_moment(until_text, now_ns) if until_text else latest_ns
        if until_ns < from_ns:
            raise invalid("'until' is before 'from'")
        return Range(from_ns, until_ns)

    def _query(self) -> Query:
        return Query(self._store.readers, self._clock)

    def _ready(self, _: Request) -> Response:
        return Response("ready", content_type="text/plain")

    def _build_info(self, _: Request) -> Response:
        blank = dict.fromkeys(("revision", "branch", "buildUser", "buildDate", "goVersion"), "")
        return _json({"status": "success", "data": {"version": __version__, **blank}})

    def _page(self, request: Request) -> Response:
        return self._asset(request, INDEX)

    def _asset(self, request: Request, name: str) -> Response:
        asset = self._assets.get(name)
        if asset is None:
            raise Refusal("not_found", f"there is no file {name[:100]!r}")
        response = Response(asset.data, content_type=asset.content_type)
        response.set_etag(asset.etag)
        response.headers["Cache-Control"] = "no-cache"
        return response.make_conditional(request)


def _max_nodes(text: str | None) -> int:
    if text is None:
        return DEFAULT_MAX_NODES
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise invalid(f"maxNodes {text[:40]!r} is not a whole number")
    return min(int(text) or DEFAULT_MAX_NODES, MAX_MAX_NODES)


def _json(document: object) -> Response:
    text = json.dumps(document, separators=(",", ":"))
    return Response(text, content_type="application/json", headers={"Cache-Control": "no-store"})


def _refused(exc: Refusal) -> Response:
    response = _json({"code": exc.code, "message": exc.message})
    response.status_code = exc.status
    return response
