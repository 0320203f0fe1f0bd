"""The composition root of the API: the only place that knows which class does what."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

import falcon
from falcon import Request, Response

from config.settings import Settings, SettingsError
from todo_api.active_requests import ActiveRequests
from todo_api.admin_server import AdminServer
from todo_api.api_description import ApiDescription
from todo_api.auth import TokenVerifier, Verifier
from todo_api.batch import TodoBatch
from todo_api.breaker import GuardedPublisher
from todo_api.conventions import OptionsWithoutContent, StrictPaths
from todo_api.core.cache import PageCache
from todo_api.core.command_log import Publisher
from todo_api.core.command_log.connect import make_publisher, make_relayed_publisher
from todo_api.core.command_log.kafka_security import KafkaSecurity
from todo_api.core.ids import uuid7
from todo_api.core.operation_id import OperationIds
from todo_api.core.sticky_ids import StickyIds
from todo_api.core.store import ReadStore
from todo_api.core.tracing import Tracing, make_tracing
from todo_api.cors import Cors
from todo_api.cursors import CursorSigner
from todo_api.group_commit import GroupCommit
from todo_api.health import Health, Monitor, Readiness, Ready
from todo_api.hit_path import HitPath
from todo_api.if_applied import IfApplied
from todo_api.instance import FIGURES, add_figures
from todo_api.instrumented_pages import InstrumentedPages, InstrumentedSource
from todo_api.instrumented_publisher import InstrumentedPublisher
from todo_api.intake import CommandIntake
from todo_api.jwks import PublicKeys
from todo_api.operations import FateReader, OperationItem
from todo_api.overload import LoadShedder
from todo_api.page_source import PageSource, StateSource
from todo_api.page_table import PageTable
from todo_api.pages import Pages
from todo_api.problem_pages import ProblemTypeItem, ProblemTypes
from todo_api.problems import add_problem_handlers
from todo_api.reports import (
    active_report,
    breaker_report,
    dependency_report,
    overload_report,
    page_report,
    pool_report,
    publish_report,
)
from todo_api.request_body import UnreadBody
from todo_api.request_ids import RequestIdHeader
from todo_api.request_trace import RequestTrace
from todo_api.server_timing import ServerTiming, timed
from todo_api.service import Part, Service
from todo_api.shortcut import Shortcut
from todo_api.telemetry import Telemetry
from todo_api.todos import TodoCollection, TodoItem, TodoReader
from todo_api.version_alias import VersionAlias
from todo_api.web_pages import FIGURE_PAGES, PUBLIC_PAGES, add_web_pages
from todo_api.write_path import WritePath

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# How often PostgreSQL is asked for the generation while Redis cannot tell.
_STORE_POLL_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Collaborators:
    """Everything the resources work with. Tests bring their own."""

    pages: Pages
    todos: TodoReader
    fates: FateReader
    publisher: Publisher
    verifier: Verifier
    readiness: Readiness
    cursors: CursorSigner
    operation_ids: OperationIds
    telemetry: Telemetry
    tracing: Tracing
    new_todo_id: Callable[[], UUID] = uuid7
    has_server_timing: bool = False


def create_app(
    collaborators: Collaborators, *, has_admin_port: bool = False
) -> falcon.App[Request, Response]:
    """Return the app over ready collaborators. Opens nothing.

    With an admin port it does not tell what ``create_admin_app`` tells there.
    """
    app = _new_app(collaborators)
    if collaborators.has_server_timing:
        collaborators = _timed(collaborators)
    intake = _intake(collaborators)
    verifier = collaborators.verifier
    if_applied = IfApplied(verifier, collaborators.operation_ids)
    app.add_route(
        "/todos",
        TodoCollection(
            pages=collaborators.pages,
            todos=collaborators.todos,
            cursors=collaborators.cursors,
            verifier=verifier,
            if_applied=if_applied,
            intake=intake,
        ),
    )
    app.add_route("/todos/batch", TodoBatch(verifier=verifier, intake=intake))
    app.add_route(
        "/todos/{todo_id}",
        TodoItem(todos=collaborators.todos, verifier=verifier, if_applied=if_applied, intake=intake),
    )
    app.add_route(
        "/operations/{operation_id}",
        OperationItem(
            fates=collaborators.fates, verifier=verifier, operation_ids=collaborators.operation_ids
        ),
    )
    figures = FIGURES | FIGURE_PAGES
    app.add_route("/openapi.json", ApiDescription(without=figures if has_admin_port else frozenset()))
    app.add_route("/problems", ProblemTypes())
    app.add_route("/problems/{name}", ProblemTypeItem())
    app.add_route("/health", Health())
    app.add_route("/ready", Ready(collaborators.readiness))
    add_web_pages(app, PUBLIC_PAGES if has_admin_port else PUBLIC_PAGES | FIGURE_PAGES)
    if not has_admin_port:
        add_figures(app, collaborators.telemetry, collaborators.readiness)
    return app


def create_admin_app(collaborators: Collaborators) -> falcon.App[Request, Response]:
    """Return what the admin port serves: probes, and figures that are not for the public. Opens nothing."""
    app = _new_app(collaborators)
    app.add_route("/health", Health())
    app.add_route("/ready", Ready(collaborators.readiness))
    add_web_pages(app, FIGURE_PAGES)
    add_figures(app, collaborators.telemetry, collaborators.readiness)
    return app


def _new_app(collaborators: Collaborators) -> falcon.App[Request, Response]:
    app: falcon.App[Request, Response] = falcon.App()
    if collaborators.has_server_timing:
        app.add_middleware(ServerTiming())
    # The first sees all of a request: it is asked first before the others and last after them.
    for middleware in (
        collaborators.telemetry,
        RequestTrace(collaborators.tracing),
        StrictPaths(),
        OptionsWithoutContent(),
        RequestIdHeader(),
        UnreadBody(),
    ):
        app.add_middleware(middleware)
    add_problem_handlers(app)
    return app


def build(settings: Settings) -> Service:
    """Return the process that ``settings`` describe. Opens nothing: that is for ``Service.start``, after the fork."""
    cursors = CursorSigner(_derived_key(settings, b"cursor"))
    keys = _public_keys(settings)
    store = ReadStore(settings.database_url, pool_size=settings.db_pool_size // settings.processes)
    cache = PageCache(
        settings.redis_url,
        pool_size=settings.redis_pool_size // settings.processes,
        ttl_s=settings.cache_ttl_sec,
    )
    telemetry = Telemetry(
        read_state=lambda: pages.state, read_progress=lambda: cache.progress(settings.kafka_partitions)
    )
    pages = PageTable(
        StateSource(cache, store, store_poll_s=_STORE_POLL_S),
        InstrumentedSource(PageSource(cache, store, cursors, list_max=settings.list_max), telemetry),
        poll_s=settings.cache_poll_ms / 1000,
        pages_max=settings.page_table_max,
        bytes_max=settings.page_table_bytes,
        stale_max_s=settings.cache_ttl_sec,
    )
    tracing = _tracing(settings)
    group_commit = GroupCommit(_publisher(settings))
    publisher = GuardedPublisher(group_commit)
    instrumented = InstrumentedPublisher(publisher, telemetry, tracing)
    monitor = Monitor(
        {"pages": pages.ping, "postgres": store.ping, "redis": cache.ping, "log": publisher.probe}
    )
    readiness = Readiness(monitor, settings.ready_requires, lambda: publisher.state.condition)
    collaborators = Collaborators(
        pages=InstrumentedPages(pages, telemetry),
        todos=store,
        fates=store,
        publisher=instrumented,
        verifier=TokenVerifier(
            algorithms=settings.jwt_algorithms,
            secret=settings.jwt_secret if keys is None else None,
            keys=keys,
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
        ),
        readiness=readiness,
        cursors=cursors,
        operation_ids=OperationIds(_derived_key(settings, b"operation")),
        telemetry=telemetry,
        tracing=tracing,
        new_todo_id=_new_todo_id(settings),
        has_server_timing=settings.server_timing == "on",
    )
    has_admin_port = settings.admin_port is not None
    app: WSGIApplication = create_app(collaborators, has_admin_port=has_admin_port)
    if not tracing.is_on and not collaborators.has_server_timing:
        app = WritePath(
            app,
            verifier=collaborators.verifier,
            intake=_intake(collaborators),
            telemetry=telemetry,
        )
    parts = [
        Part("tracing", tracing.start, tracing.stop),
        Part("telemetry", telemetry.start, telemetry.stop),
        Part("store", store.start, store.stop),
        Part("cache", lambda: None, lambda _timeout_s: cache.close()),
        Part("publisher", publisher.start, publisher.close),
        Part("pages", pages.start, pages.stop),
        Part("monitor", monitor.start, monitor.close),
    ]
    if keys is not None:
        parts.append(Part("public keys", keys.start, keys.close))
    admin = AdminServer(create_admin_app(collaborators)) if has_admin_port else None
    if admin is not None:
        parts.append(Part("admin port", admin.start, admin.stop))
    active = ActiveRequests(app)
    shedder = LoadShedder(active, write_wait_s=group_commit.wait_s)
    telemetry.add_reports(
        page_report(pages),
        pool_report(store),
        breaker_report(publisher),
        publish_report(instrumented),
        dependency_report(monitor),
        overload_report(shedder),
        active_report(active),
    )
    hit_path = HitPath(VersionAlias(shedder, "/v1"), pages.hot)
    layered: WSGIApplication = hit_path
    shortcut: Shortcut | None = hit_path.shortcut
    if settings.cors_allow_origins:
        # No shortcut: its answers would lack the headers of this layer.
        layered, shortcut = Cors(layered, settings.cors_allow_origins), None
    return Service(
        layered,
        parts,
        readiness.drain,
        telemetry.join,
        None if admin is None else admin.listen_on,
        shortcut,
    )


def _timed(collaborators: Collaborators) -> Collaborators:
    return replace(
        collaborators,
        pages=timed("pages", collaborators.pages, "get"),
        todos=timed("db", collaborators.todos, "read_todo", "state_with"),
        fates=timed("db", collaborators.fates, "read_fate"),
        publisher=timed("log", collaborators.publisher, "publish", "publish_many"),
    )


def _intake(collaborators: Collaborators) -> CommandIntake:
    return CommandIntake(collaborators.publisher, collaborators.operation_ids, collaborators.new_todo_id)


def _new_todo_id(settings: Settings) -> Callable[[], UUID]:
    # It makes a request to the broker of each partition, kafka-python one of all of them: docs/adr/0025.
    if settings.command_log == "kafka" and settings.kafka_client == "librdkafka":
        return StickyIds(settings.kafka_partitions).new
    return uuid7


def _publisher(settings: Settings) -> Publisher:
    if settings.publisher_socket is not None:
        return make_relayed_publisher(
            settings.command_log, topic=settings.kafka_todo_topic, socket=Path(settings.publisher_socket)
        )
    return make_publisher(
        settings.command_log,
        brokers=settings.kafka_brokers,
        topic=settings.kafka_todo_topic,
        partitions=settings.kafka_partitions,
        redis_url=settings.redis_url,
        kafka_client=settings.kafka_client,
        security=KafkaSecurity(**settings.kafka_security),
    )


def _tracing(settings: Settings) -> Tracing:
    try:
        return make_tracing("todo-api", settings.otel_exporter_otlp_endpoint)
    except ImportError as ex:
        raise SettingsError(
            "settings:\n  - OTEL_EXPORTER_OTLP_ENDPOINT needs an extra: pip install 'todo-api[otel]'"
        ) from ex


def _public_keys(settings: Settings) -> PublicKeys | None:
    if settings.jwt_jwks_url is None:
        return None
    if find_spec("cryptography") is None:
        raise SettingsError("settings:\n  - JWT_JWKS_URL needs an extra: pip install 'todo-api[jwks]'")
    return PublicKeys(settings.jwt_jwks_url)


def _derived_key(settings: Settings, purpose: bytes) -> bytes:
    """Return a key that all processes with these settings share, and that serves this purpose alone."""
    secret = settings.jwt_secret or settings.database_url
    return hmac.digest(secret.encode(errors="surrogateescape"), b"todo-api " + purpose, hashlib.sha256)
