"""What an analyst needs of ours in a Kibana: installed, renewed, and never another's touched.

Saved objects are ours by their ids, detection rules by their `rule_id`. A rule's switch, and where
and how often it looks, are the site's to change; its exceptions and actions we don't know at all.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ids_plugin.config import Kibana as Settings
from ids_plugin.elastic.kibana_api import DEFAULT_SPACE, Answer, Kibana, refusal
from ids_plugin.elastic.kibana_objects import SavedObject, ndjson
from ids_plugin.elastic.kibana_rules import Rule
from ids_plugin.errors import ServiceError

Key = tuple[str, str]
"""type and id of a saved object"""
Version = tuple[int, ...]

IMPORT_FILE_NAME = "ids_plugin.ndjson"
RULES_PATH = "/api/detection_engine/rules"
EXTERNAL_ALERTS = "eb079c62-4481-4d6e-9643-3ca499df7aaa"
"""`rule_id` of Elastic's rule that lifts every document with `event.kind: alert`"""

SITE_OWNED_PARTS = frozenset({"enabled", "index", "interval", "from", "max_signals"})
"""what of a rule that is there stays as it is; tags are added to its own"""

OLDEST_KIBANA = (4,)
"""Kibana began here; OpenSearch Dashboards, made from it, counts anew"""

RULE_PARTS_SINCE: Mapping[str, Version] = {
    "investigation_fields": (8, 11),
    "required_fields": (8, 15),
}
"""parts of a rule that older Kibanas refuse"""


class Step(NamedTuple):
    """One object or rule: what was done with it, or would be."""

    kind: str
    name: str
    action: str
    """create, update, keep (nothing to do) or look (at what isn't ours)"""
    why: str = ""


def install(
    settings: Settings,
    saved: Sequence[SavedObject],
    rules: Sequence[Rule],
    *,
    dry_run: bool = False,
) -> Iterator[Step]:
    """Installs one object after the other and yields a step for each; `dry_run`: changes nothing.

    Raises:
        ConfigError, MissingExtraError: as `Kibana`.
        ServiceError: a step can't be done: which, why, what to do. What was done before it stays.
    """
    kibana = Kibana(settings)
    version = _version(kibana)
    if settings.space != DEFAULT_SPACE:
        _find_space(kibana)
    if saved:
        yield from _objects(kibana, saved, version, dry_run)
    if rules:
        yield from _rules(kibana, rules, version, dry_run)


def _error(kibana: Kibana, step: str, what: str, hint: str) -> ServiceError:
    space = kibana.settings.space
    where = kibana.settings.url + ("" if space == DEFAULT_SPACE else f" space {space}")
    return ServiceError(f"{step}: {what}", location=where, hint=hint)


def _refused(kibana: Kibana, step: str, answer: Answer) -> ServiceError:
    what, then = refusal(answer)
    return _error(kibana, step, what, then)


@contextlib.contextmanager
def _reading(kibana: Kibana, step: str, answer: Answer) -> Iterator[None]:
    """In the block an answer is taken apart, and nothing else.

    Raises:
        ServiceError: it isn't made as Kibana's are.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        what = f"its answer ({answer.status}) makes no sense: {answer.message}".rstrip(": ")
        raise _error(kibana, step, what, "does something stand between us and Kibana?") from error


def _version(kibana: Kibana) -> Version:
    """
    Raises:
        ServiceError: it isn't available, doesn't know us, or isn't Kibana.
    """
    step = "status"
    answer = kibana.request("GET", "/api/status", in_space=False)
    if 300 <= answer.status < 400 and "location" in answer.headers:
        hint = (
            "give the address that it leads to; if that is "
            "a login page, a proxy before Kibana wants one"
        )
        raise _error(
            kibana, step, f"{answer.status}: it sends us to {answer.headers['location']}", hint
        )
    status = answer.body if isinstance(answer.body, dict) else {}
    if "status" not in status:
        raise _no_kibana(kibana, step, answer)
    with _reading(kibana, step, answer):
        overall = status["status"]["overall"]
        level = overall.get("level") or overall["state"]
    if level in ("unavailable", "critical", "red"):
        what = (
            f"it is {level}: "
            f"{overall.get('summary') or overall.get('title') or 'it gives no reason'}"
        )
        raise _error(
            kibana, step, what, "see Kibana's log; it mostly is Elasticsearch that it misses"
        )
    if "version" not in status:
        raise _error(
            kibana, step, "it doesn't know us", "give an API key, or user name and password"
        )
    with _reading(kibana, step, answer):
        version = _numbers(status["version"]["number"])
    if version < OLDEST_KIBANA:
        what = f"it is OpenSearch Dashboards {_dotted(version)}"
        raise _error(
            kibana,
            step,
            what,
            "the objects and rules are for Kibana; there is no version of them for it",
        )
    return version


def _no_kibana(kibana: Kibana, step: str, answer: Answer) -> ServiceError:
    if "x-elastic-product" in answer.headers:
        return _error(kibana, step, "that is Elasticsearch", "give Kibana's URL: mostly port 5601")
    if answer.status in (401, 403, 429) or answer.status >= 500:
        return _refused(kibana, step, answer)
    if "kbn-name" in answer.headers:
        hint = "does the URL lack, or have too much of, Kibana's base path (server.basePath)?"
        return _error(kibana, step, f"Kibana answers {answer.status}", hint)
    return _error(
        kibana,
        step,
        f"what answers there ({answer.status}) isn't Kibana",
        "check the URL and its base path",
    )


def _numbers(version: str) -> Version:
    return tuple(int(part) for part in version.partition("-")[0].split("."))


def _find_space(kibana: Kibana) -> None:
    """Kibana takes objects for a space that doesn't exist, where nobody finds them.

    Raises:
        ServiceError: there is no such space, or it isn't shown to us.
    """
    step, name = "space", kibana.settings.space
    answer = kibana.request("GET", "/api/spaces/space", in_space=False)
    if answer.status != 200:
        raise _refused(kibana, step, answer)
    with _reading(kibana, step, answer):
        names = sorted(str(space["id"]) for space in answer.body)
    if name not in names:
        hint = (
            "make it under Stack Management → Spaces, or give "
            f"us the right to see it; we see {', '.join(names)}"
        )
        raise _error(kibana, step, f"there is no space called {name}", hint)


def _objects(
    kibana: Kibana, saved: Sequence[SavedObject], version: Version, dry_run: bool
) -> Iterator[Step]:
    """
    Raises:
        ServiceError: objects can't be looked at or imported, or one is another's.
    """
    step = "saved objects"
    needed = max(
        _numbers(item[part])
        for item in saved
        for part in ("coreMigrationVersion", "typeMigrationVersion")
    )
    if version < needed:
        what = f"Kibana is {_dotted(version)}, the objects need {_dotted(needed)} or newer"
        raise _error(kibana, step, what, "upgrade Kibana, or install the rules alone: --only rules")
    existing = _exported(kibana, [_key(item) for item in saved])
    steps = {_key(item): _action_needed(kibana, item, existing.get(_key(item))) for item in saved}
    due = [item for item in saved if steps[_key(item)].action != "keep"]
    if due and not dry_run:
        yield from _imported(kibana, due, steps)
        steps = {key: item for key, item in steps.items() if item.action == "keep"}
    yield from steps.values()


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _key(item: Mapping[str, Any]) -> Key:
    return item["type"], item["id"]


def _exported(kibana: Kibana, keys: Sequence[Key]) -> dict[Key, SavedObject]:
    """Those of the objects that are there, as Kibana keeps them.

    Raises:
        ServiceError: we may not look.
    """
    step = "looking at saved objects"
    wanted = list(keys)
    while wanted:
        asked = {
            "objects": [{"type": kind, "id": name} for kind, name in wanted],
            "excludeExportDetails": True,
        }
        answer = kibana.request("POST", "/api/saved_objects/_export", asked)
        if answer.status == 200:
            with _reading(kibana, step, answer):
                lines = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
                return {_key(item): item for item in map(json.loads, lines.splitlines())}
        with _reading(kibana, step, answer):
            failed = _failed(answer)
        if failure := next(
            (item for item in failed.values() if item.get("statusCode") != 404), None
        ):
            raise _refused(
                kibana, step, Answer(int(failure.get("statusCode", answer.status)), failure, {})
            )
        if not failed.keys() & set(wanted):
            raise _refused(kibana, step, answer)
        wanted = [key for key in wanted if key not in failed]
    return {}


def _failed(answer: Answer) -> dict[Key, dict[str, Any]]:
    """Objects that an export couldn't give, and why."""
    attributes = answer.body.get("attributes", {}) if isinstance(answer.body, dict) else {}
    return {_key(item): item.get("error", {}) for item in attributes.get("objects", ())}


def _action_needed(kibana: Kibana, made: SavedObject, existing: SavedObject | None) -> Step:
    """
    Raises:
        ServiceError: what is there belongs to another.
    """
    kind, name = _key(made)
    if existing is None:
        return Step(kind, name, "create")
    if existing.get("managed"):
        raise _error(
            kibana, f"{kind} {name}", "there is one that a package of Kibana's manages", "remove it"
        )
    differs = list(_differences(_opened(existing), _opened(made)))
    newer = _numbers(existing.get("typeMigrationVersion", "0")) > _numbers(
        made["typeMigrationVersion"]
    )
    why = _shown(differs) + (
        ", which may be because Kibana keeps it in a newer form" if differs and newer else ""
    )
    return Step(kind, name, "update" if differs else "keep", why)


def _shown(differs: Sequence[str]) -> str:
    more = f" and {len(differs) - 3} more" if len(differs) > 3 else ""
    return f"differs in {', '.join(differs[:3])}{more}" if differs else ""


def _opened(item: Mapping[str, Any]) -> dict[str, Any]:
    """What of an object is said by us, with JSON in strings read."""
    refers = sorted(item.get("references", ()), key=lambda reference: str(reference["name"]))
    return {"attributes": _unpacked(item["attributes"]), "references": refers}


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unpacked(inner) for name, inner in value.items()}
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _differences(existing: Any, made: Any, place: str = "") -> Iterator[str]:
    """Places of what `made` says and `there` doesn't; what Kibana adds doesn't matter."""
    if isinstance(made, dict) and isinstance(existing, dict):
        for name, value in made.items():
            yield from _differences(existing.get(name), value, f"{place}.{name}" if place else name)
    elif isinstance(made, list) and isinstance(existing, list) and len(made) == len(existing):
        for number, (left, right) in enumerate(zip(existing, made, strict=True)):
            yield from _differences(left, right, f"{place}.{number}")
    elif existing != made:
        yield place


def _imported(
    kibana: Kibana, due: Sequence[SavedObject], steps: Mapping[Key, Step]
) -> Iterator[Step]:
    """Imports objects and tells of those that are in.

    Raises:
        ServiceError: some aren't.
    """
    step = "import of saved objects"
    answer = kibana.upload(
        "/api/saved_objects/_import", IMPORT_FILE_NAME, ndjson(due), overwrite="true"
    )
    if answer.status != 200 or not isinstance(answer.body, dict):
        raise _refused(kibana, step, answer)
    with _reading(kibana, step, answer):
        done = [_done(steps[_key(item)], item) for item in answer.body.get("successResults") or ()]
        errors = [_import_error(item) for item in answer.body.get("errors") or ()]
    yield from done
    if errors or not answer.body.get("success"):
        what = (
            "; ".join(f"{kind} {name}: {why}" for kind, name, why, _ in errors[:3])
            or "it gives no reason"
        )
        more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
        hint = errors[0][3] if errors else "see Kibana's log"
        raise _error(kibana, step, what + more, hint)


def _done(step: Step, result: Mapping[str, Any]) -> Step:
    """What was done, with the id that an object got in place of its own."""
    copy = result.get("destinationId")
    if not copy:
        return step
    action = "update" if result.get("overwrite") else step.action
    return step._replace(action=action, why=f"as {copy}: another space has this id")


def _import_error(entry: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Type, id, what is wrong, and what to do about it."""
    kind, name = _key(entry)
    error = entry.get("error", {})
    match error.get("type"):
        case "conflict":
            return kind, name, "there is another with its id", "rename or remove that one"
        case "ambiguous_conflict":
            could = ", ".join(reference["id"] for reference in error.get("destinations", ()))
            return (
                kind,
                name,
                f"several copies could be meant: {could}",
                "remove all but one of them",
            )
        case "unsupported_type":
            return (
                kind,
                name,
                "this Kibana has no such type",
                "its solution or version lacks it; upgrade Kibana",
            )
        case "missing_references":
            lacks = ", ".join(
                f"{reference['type']} {reference['id']}"
                for reference in error.get("references", ())
            )
            return (
                kind,
                name,
                f"it refers to what isn't there: {lacks}",
                "run it again: everything is imported anew",
            )
    what, then = refusal(Answer(int(error.get("statusCode", 500)), error, {}))
    return kind, name, what, then


def _rules(
    kibana: Kibana, rules: Iterable[Rule], version: Version, dry_run: bool
) -> Iterator[Step]:
    """
    Raises:
        ServiceError: there is no Elastic Security, or a rule can't be read or written, or is
            another's.
    """
    _check_rules_are_possible(kibana)
    for made in rules:
        fitted = {
            name: value for name, value in made.items() if version >= RULE_PARTS_SINCE.get(name, ())
        }
        yield _rule(kibana, fitted, dry_run)
    external = _existing_rule(kibana, EXTERNAL_ALERTS, "detection rule External Alerts")
    if external and external.get("enabled") and not external.get("exceptions_list"):
        why = (
            "Elastic's own, it is on and lifts our alerts a second "
            "time; docs/rules.md says how to keep it from that"
        )
        yield Step("detection_rule", "External Alerts", "look", why)


def _check_rules_are_possible(kibana: Kibana) -> None:
    """
    Raises:
        ServiceError: there can be no rules, for which reason.
    """
    step, alone = "detection rules", "or leave them out: --only objects"
    answer = kibana.request("GET", "/api/detection_engine/privileges")
    if answer.status == 404:
        raise _error(kibana, step, "this Kibana has no Elastic Security", f"turn it on, {alone}")
    if answer.status != 200 or not isinstance(answer.body, dict):
        what, then = refusal(answer)
        raise _error(kibana, step, what, f"{then}; {alone}")
    if not answer.body.get("has_encryption_key", True):
        hint = f"set xpack.encryptedSavedObjects.encryptionKey in kibana.yml, {alone}"
        raise _error(kibana, step, "Kibana has no key to encrypt them with", hint)


def _existing_rule(kibana: Kibana, rule_id: str, step: str) -> Rule | None:
    """The rule as it is there.

    Raises:
        ServiceError: we may not look.
    """
    answer = kibana.request("GET", RULES_PATH, rule_id=rule_id)
    if answer.status == 404:
        return None
    return _answered_rule(kibana, rule_id, step, answer)


def _answered_rule(kibana: Kibana, rule_id: str, step: str, answer: Answer) -> Rule:
    """
    Raises:
        ServiceError: it says something else.
    """
    if answer.status != 200:
        raise _refused(kibana, step, answer)
    with _reading(kibana, step, answer):
        if answer.body["rule_id"] != rule_id:
            raise ValueError(rule_id)
    rule: Rule = answer.body
    return rule


def _rule(kibana: Kibana, made: Rule, dry_run: bool) -> Step:
    """
    Raises:
        ServiceError: it can't be read or written, or is Elastic's.
    """
    name = str(made["name"])
    step = f"detection rule {name}"
    existing = _existing_rule(kibana, made["rule_id"], step)
    if existing is None:
        if not dry_run:
            _write(kibana, "POST", made, step)
        return Step("detection_rule", name, "create")
    if existing.get("immutable"):
        raise _error(kibana, step, "there is a prebuilt one with its rule_id", "remove it")
    tags = existing.get("tags") or []
    own_parts = {
        part: value for part, value in made.items() if part not in SITE_OWNED_PARTS | {"version"}
    }
    own_parts["tags"] = [*tags, *(tag for tag in made["tags"] if tag not in tags)]
    changed = {
        part: value
        for part, value in own_parts.items()
        if any(_differences(existing.get(part), value, part))
    }
    if changed and not dry_run:
        _write(kibana, "PATCH", {"rule_id": made["rule_id"], **changed}, step)
    return Step("detection_rule", name, "update" if changed else "keep", _shown(list(changed)))


def _write(kibana: Kibana, method: str, body: Rule, step: str) -> None:
    _answered_rule(kibana, body["rule_id"], step, kibana.request(method, RULES_PATH, body))
