"""Checks of Elasticsearch: access, privileges, templates, data streams, blocks and disks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ids_plugin.commands.doctor.findings import Area, Asked, State
from ids_plugin.errors import ServiceError

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

Found = tuple[State, str, str]
PRIVILEGES = ("create_doc", "auto_configure", "read", "view_index_metadata", "delete")
"""needed on the data streams"""
DISK_FULL_SHARE, DISK_FILLING_SHARE = 0.95, 0.85
"""share of a disk from which Elasticsearch makes indices read-only, and takes no new shards"""


def check(asked: Asked) -> Iterator[Found]:
    """
    Raises:
        ConfigError, MissingExtraError, ServiceError: it can't be reached, or refuses us.
    """
    from ids_plugin.elastic.client import connect
    from ids_plugin.elastic.streams import asking

    settings = asked.config.elasticsearch
    client = connect(settings)
    try:
        with asking(settings):
            version = client.info()["version"]["number"]
        yield State.OK, f"{settings.url} answers: Elasticsearch {version}", ""
        yield from _privileges(client, asked)
        made = list(_templates(asked))
        yield from made
        if not any(state is State.FAILURE for state, _, _ in made):
            yield from _streams_take_writes(asked)
        yield from _blocks(client, asked)
        yield from _disks(client)
    finally:
        client.close()


def _streams(asked: Asked) -> list[str]:
    from ids_plugin.elastic.streams import ALERTS, LEDGER, stream

    return [stream(name, asked.config.elasticsearch.namespace) for name in (ALERTS, LEDGER)]


def _request(client: Elasticsearch, method: str, path: str, body: Any = None) -> Any:
    """What it answers; None where it doesn't let us ask, or knows no such thing."""
    from elasticsearch import ApiError

    headers = {"accept": "application/json", "content-type": "application/json"}
    try:
        return client.perform_request(method, path, headers=headers, body=body).body
    except ApiError as error:
        if error.meta.status in (400, 403, 404, 405, 410):
            return None
        raise


def _privileges(client: Elasticsearch, asked: Asked) -> Iterator[Found]:
    names = _streams(asked)
    body = {"index": [{"names": names, "privileges": list(PRIVILEGES)}]}
    answer = _request(client, "POST", "/_security/user/_has_privileges", body)
    if answer is None:
        yield State.SKIPPED, "rights can't be asked for: security is off, or it is another's", ""
        return
    lacking = {
        name: [right for right, has in sorted(answer["index"][name].items()) if not has]
        for name in names
    }
    for name, rights in lacking.items():
        if rights:
            what = f"{answer.get('username', 'we')} may not {', '.join(rights)} on {name}"
            yield State.FAILURE, what, "add these index privileges to its role, or to the API key"
    if not any(lacking.values()):
        yield State.OK, f"{answer.get('username', 'we')} may write our data streams", ""


def _templates(asked: Asked) -> Iterator[Found]:
    from ids_plugin.elastic.index_setup import install

    settings = asked.config.elasticsearch
    hint = f"ids-plugin setup elasticsearch --url {settings.url} --namespace {settings.namespace}"
    try:
        steps = list(install(settings, dry_run=True))
    except ServiceError as error:
        if "403" not in error.message:
            raise
        yield (
            State.SKIPPED,
            "templates can't be looked at with these rights; the data streams tell",
            "",
        )
        return
    due = [
        f"{step.kind.replace('_', ' ')} {step.name}"
        for step in steps
        if step.action not in ("keep", "skip")
    ]
    if due:
        yield State.FAILURE, f"not installed or out of date: {', '.join(due)}", hint
    else:
        yield State.OK, "templates and data streams are as we need them", ""


def _streams_take_writes(asked: Asked) -> Iterator[Found]:
    from ids_plugin.elastic.streams import ALERTS, LEDGER
    from ids_plugin.sinks.elasticsearch import Elasticsearch as Sink

    for name in (ALERTS, LEDGER):
        sink = Sink(asked.config.elasticsearch, name)
        problem = sink.problem()
        sink.close()
        if problem:
            yield State.FAILURE, problem, ""


def _blocks(client: Elasticsearch, asked: Asked) -> Iterator[Found]:
    answer = _request(
        client,
        "GET",
        f"/{','.join(_streams(asked))}/_settings?ignore_unavailable=true&flat_settings=true",
    )
    for index, index_settings in sorted((answer or {}).items()):
        for block in ("read_only", "read_only_allow_delete", "write"):
            if str(index_settings["settings"].get(f"index.blocks.{block}", "false")) == "true":
                hint = f"free disk space, then set index.blocks.{block} of {index} to null"
                yield State.FAILURE, f"{index} is read-only: index.blocks.{block}", hint
    cluster = _request(client, "GET", "/_cluster/settings?flat_settings=true") or {}
    for block in ("read_only", "read_only_allow_delete"):
        for kind, index_settings in sorted(cluster.items()):
            if str(index_settings.get(f"cluster.blocks.{block}", "false")) == "true":
                hint = f"set the {kind} setting cluster.blocks.{block} to null"
                yield State.FAILURE, f"the cluster is read-only: cluster.blocks.{block}", hint


def _disks(client: Elasticsearch) -> Iterator[Found]:
    answer = _request(client, "GET", "/_nodes/stats/fs?filter_path=nodes.*.name,nodes.*.fs.total")
    if not answer:
        yield (
            State.SKIPPED,
            "disks can't be looked at with these rights (cluster privilege monitor)",
            "",
        )
        return
    for node in answer["nodes"].values():
        total = node["fs"]["total"]
        used = 1 - total["available_in_bytes"] / total["total_in_bytes"]
        what = f"disk of node {node['name']}: {used:.0%} used"
        if used >= DISK_FULL_SHARE:
            yield (
                State.FAILURE,
                f"{what}: indices become read-only",
                "free disk space, or delete old indices",
            )
        elif used >= DISK_FILLING_SHARE:
            yield (
                State.WARNING,
                what,
                "free disk space: at 85 % no new shards, at 95 % indices become read-only",
            )
        else:
            yield State.OK, what, ""


AREA = Area("elasticsearch", frozenset({"deliver"}), check)
