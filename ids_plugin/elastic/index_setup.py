"""What our data streams need in an Elasticsearch: installed, renewed, and never another's touched.

One object a file in dashboards/elasticsearch, in the folder named after the kind of object, under
its name there. An object that says `managed_by: ids-plugin` is ours. A lifecycle policy is renewed
only for a newer version of it: how long documents are kept is the site's to change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from ids_plugin.config import Elasticsearch as Settings
from ids_plugin.elastic.client import JSON, connect
from ids_plugin.elastic.streams import (
    ALERTS,
    LEDGER,
    MANAGED_BY,
    VERSION,
    asking,
    backing,
    stream,
)
from ids_plugin.errors import ServiceError

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

KINDS = {
    "ilm_policy": "_ilm/policy",
    "ingest_pipeline": "_ingest/pipeline",
    "component_template": "_component_template",
    "index_template": "_index_template",
}
"""folder → path of the API, in the order in which they build on each other"""

PRIORITY = 500
"""of our index templates; the stock ones have 100, Fleet's 200"""

SINCE: Mapping[str, Mapping[int, int]] = {
    "lifecycle": {8: 11},
    "data_stream_options": {8: 19, 9: 1},
}
"""parts of an index template → the first release of a major version that knows them"""

TAG = "_geoip_database_unavailable"
"""how a tag begins that Elasticsearch gives to a document while it has no GeoIP database"""


class Step(NamedTuple):
    """One object: what was done with it, or would be."""

    kind: str
    name: str
    action: str
    """create, update, roll over, keep (nothing to do) or skip (this server has no such thing)"""
    why: str = ""


class Server(NamedTuple):
    """What an Elasticsearch has."""

    version: tuple[int, int]
    ilm: bool
    geoip: bool = False
    """it can look addresses up"""


def install(settings: Settings, *, dry_run: bool = False) -> Iterator[Step]:
    """Installs one object after the other and yields a step for each; `dry_run`: changes nothing.

    Raises:
        MissingExtraError, ConfigError: as `connect`.
        ServiceError: a step can't be done: which, why, what to do. What was done before it stays.
    """
    client = connect(settings)
    streams = [stream(name, settings.namespace) for name in (ALERTS, LEDGER)]
    server = _server(client, settings)
    for kind in KINDS:
        for path in sorted(_folder().joinpath(kind).iterdir(), key=lambda file: file.name):
            name, made = path.name.removesuffix(".json"), json.loads(path.read_text("utf-8"))
            if kind == "ingest_pipeline":
                server, step = _pipeline(client, settings, name, made, server, dry_run)
                yield step
            else:
                yield _object(client, settings, kind, name, _fitted(made, server), server, dry_run)
    for name in streams:
        yield _stream(client, settings, name, dry_run)


def _folder() -> Any:
    return resources.files("ids_dashboards").joinpath("elasticsearch")


def _server(client: Elasticsearch, settings: Settings) -> Server:
    from elasticsearch import ApiError, NotFoundError

    with asking(settings):
        numbers = client.info()["version"]["number"].split(".")
        try:
            _request(client, "GET", "_ilm/policy/ids_plugin.alert")
        except NotFoundError:
            ilm = True
        except ApiError as error:
            if error.meta.status not in (400, 405, 410):
                raise
            ilm = False
        else:
            ilm = True
    return Server((int(numbers[0]), int(numbers[1])), ilm)


def _fitted(made: dict[str, Any], server: Server) -> dict[str, Any]:
    """The object without what this server doesn't know."""
    template = made.get("template", {})
    major, minor = server.version
    for part, since in SINCE.items():
        if minor < since.get(major, 0):
            template.pop(part, None)
    settings = template.get("settings", {}).get("index", {})
    if not server.ilm:
        settings.pop("lifecycle", None)
    if not server.geoip:
        settings.pop("default_pipeline", None)
    return made


def _pipeline(
    client: Elasticsearch,
    settings: Settings,
    name: str,
    made: dict[str, Any],
    server: Server,
    dry_run: bool,
) -> tuple[Server, Step]:
    """The pipeline that looks addresses up, where the server has the processor for it.

    Without databases documents pass with a tag; Elasticsearch fetches them by itself once there is
    such a pipeline.
    """
    from elasticsearch import BadRequestError

    kind = "ingest_pipeline"
    body = {"pipeline": made, "docs": [{"_source": {"source": {"ip": "1.1.1.1"}}}]}
    with asking(settings, f"ingest pipeline {name}"):
        try:
            answer = _request(client, "POST", "_ingest/pipeline/_simulate", body)
        except BadRequestError as error:
            if "No processor type exists" not in str(error.body):
                raise
            return server, Step(kind, name, "skip", "this server has no GeoIP processor")
    server = server._replace(geoip=True)
    step = _object(client, settings, kind, name, made, server, dry_run)
    if step.action != "keep" and TAG in str(answer):
        step = step._replace(
            why=f"{step.why}; its GeoIP databases aren't there yet".removeprefix("; ")
        )
    return server, step


def _object(
    client: Elasticsearch,
    settings: Settings,
    kind: str,
    name: str,
    made: dict[str, Any],
    server: Server,
    dry_run: bool,
) -> Step:
    """
    Raises:
        ServiceError: it can't be read or written, is another's, or another's template would win.
    """
    title = f"{kind.replace('_', ' ')} {name}"
    if kind == "ilm_policy" and not server.ilm:
        return Step(kind, name, "skip", "no ILM here: the data streams' own lifecycle does it")
    with asking(settings, title):
        existing = _existing_object(client, kind, name)
        action, why = _action_needed(existing, made, f"{settings.url}: {title}")
        if not dry_run and action != "keep":
            _request(client, "PUT", f"{KINDS[kind]}/{name}", made)
        if kind == "index_template":
            _check_site_types(client, made, f"{settings.url}: {title}")
            if action == "keep" or not dry_run:
                _check_priority(client, name, f"{settings.url}: {title}")
    return Step(kind, name, action, why)


def _existing_object(client: Elasticsearch, kind: str, name: str) -> dict[str, Any] | None:
    """The object as it is there."""
    from elasticsearch import NotFoundError

    try:
        answer: Any = _request(client, "GET", f"{KINDS[kind]}/{name}")
    except NotFoundError:
        return None
    if kind == "ilm_policy":
        return {"policy": answer[name]["policy"]}
    if kind == "ingest_pipeline":
        return dict(answer[name])
    existing: dict[str, Any] = answer[f"{kind}s"][0][kind]
    return existing


def _action_needed(
    existing: dict[str, Any] | None, made: dict[str, Any], location: str
) -> tuple[str, str]:
    """What is to be done with an object, and why.

    Raises:
        ServiceError: it is another's, or of a newer version of ours.
    """
    if existing is None:
        return "create", ""
    meta, own_version = (
        existing.get("policy", existing).get("_meta") or {},
        made.get("policy", made)["_meta"]["version"],
    )
    if meta.get("managed_by") != MANAGED_BY:
        raise ServiceError(
            "there is one that isn't ours", location=location, hint="rename or remove it"
        )
    version = meta.get("version", 0)
    if version > own_version:
        what = f"it is of version {version}, ours is {own_version}"
        raise ServiceError(what, location=location, hint="install a newer ids-plugin")
    if version < own_version:
        return "update", f"version {version} → {own_version}"
    changed = [] if "policy" in made else list(_differences(existing, made))
    if changed:
        return "update", "it says something else: " + ", ".join(changed[:3]) + (
            ", …" if changed[3:] else ""
        )
    return "keep", ""


def _differences(existing: Any, made: Any, name: str = "") -> Iterator[str]:
    """Dotted names of what `made` says and is not said there; defaults that the server adds don't
    matter."""
    if isinstance(made, Mapping):
        known = existing if isinstance(existing, Mapping) else {}
        for key, value in made.items():
            yield from _differences(known.get(key), value, f"{name}.{key}" if name else key)
    elif existing != made:
        yield name


def _check_priority(client: Elasticsearch, name: str, location: str) -> None:
    """
    Raises:
        ServiceError: another's template has the last word on our data streams.
    """
    answer: Any = _request(client, "POST", f"_index_template/_simulate_index/{name}-check")
    if answer["template"].get("mappings", {}).get("_meta", {}).get("managed_by") == MANAGED_BY:
        return
    templates: Any = _request(client, "GET", "_index_template")
    takers = [
        entry["name"]
        for entry in templates["index_templates"]
        if entry["index_template"].get("priority", 0) > PRIORITY
        and any(
            fnmatchcase(f"{name}-check", pattern)
            for pattern in entry["index_template"]["index_patterns"]
        )
    ]
    raise ServiceError(
        "a template of another product has a higher priority "
        f"and takes our data streams: {', '.join(takers)}",
        location=location,
        hint=f"its priority has to be below {PRIORITY}, or its patterns narrower",
    )


def _check_site_types(client: Elasticsearch, made: Mapping[str, Any], location: str) -> None:
    """
    Raises:
        ServiceError: the site's own component template gives a field of ours another type, so that
            panels would fail.
    """
    *parts, custom = made["composed_of"]
    site_types = dict(_types(_existing_object(client, "component_template", custom) or {}))
    for part in parts:
        own_part = json.loads(
            _folder().joinpath("component_template", f"{part}.json").read_text("utf-8")
        )
        for field, kind in _types(own_part):
            if site_types.get(field, kind) != kind:
                what = (
                    f"component template {custom} makes {field} {site_types[field]}, ours is {kind}"
                )
                raise ServiceError(what, location=location, hint="take the field out of it")


def _types(template: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Dotted name and type of every field that a component template has."""
    todo = list(template.get("template", {}).get("mappings", {}).get("properties", {}).items())
    while todo:
        name, node = todo.pop()
        if "type" in node and "properties" not in node:
            yield name, node["type"]
        todo += [
            (f"{name}.{inner}", inner_node)
            for inner, inner_node in node.get("properties", {}).items()
        ]


def _stream(client: Elasticsearch, settings: Settings, name: str, dry_run: bool) -> Step:
    """
    Raises:
        ServiceError: it can't be read, made or rolled over.
    """
    with asking(settings, f"data stream {name}"):
        indices = backing(client, name)
        if indices and not all(".ds-" in index.name for index in indices):
            raise ServiceError(
                f"an index or alias of this name is in the way: {indices[-1].name}",
                location=f"{settings.url}: data stream {name}",
                hint="rename or remove it",
            )
        if not indices:
            action, why = "create", ""
        elif indices[-1].version is None:
            action, why = "roll over", "it wasn't made from our template"
        elif indices[-1].version < VERSION:
            action, why = "roll over", f"version {indices[-1].version} → {VERSION}"
        else:
            action, why = "keep", ""
        if not dry_run and action == "create":
            _request(client, "PUT", f"_data_stream/{name}")
        if not dry_run and action == "roll over":
            _request(client, "POST", f"{name}/_rollover")
    return Step("data_stream", name, action, why)


def _request(
    client: Elasticsearch, method: str, path: str, body: Mapping[str, Any] | None = None
) -> Any:
    return client.perform_request(method, f"/{path}", headers=JSON, body=body).body
