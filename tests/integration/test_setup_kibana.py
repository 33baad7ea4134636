"""`ids-plugin setup kibana` against a server that records what it is asked and answers as Kibana
documents it.

Kibana can't be had here: that requests are Kibana's is shown, that a whole Kibana takes the objects
isn't.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ids_plugin import cli
from ids_plugin.commands.doctor import findings as doctor_findings
from ids_plugin.commands.doctor.kibana import AREA
from ids_plugin.config import load
from ids_plugin.elastic.kibana_objects import ndjson, objects
from ids_plugin.elastic.kibana_rules import rules
from ids_plugin.elastic.kibana_setup import EXTERNAL_ALERTS, RULES_PATH
from tests.services.certificates import Certificates
from tests.services.server import free_port
from tests.support.kibana_server import Asked, Kibana, Proxy, Said

KEYS = {(one["type"], one["id"]) for one in objects()}
RULE_IDS = {one["rule_id"] for one in rules()}
WORD = "correct-horse"
EXPORT, IMPORT, STATUS = (
    "POST /api/saved_objects/_export",
    "POST /api/saved_objects/_import",
    "GET /api/status",
)
SPACES = "GET /api/spaces/space"
PRIVILEGES = "GET /api/detection_engine/privileges"
ERROR_PAGE = (
    "<html><head><title>502 Bad Gateway</title><style>b {}</style></head><body>nginx</body></html>"
)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def kibana() -> Iterator[Kibana]:
    with Kibana() as server:
        yield server


def setup(server: Kibana | str, *options: str) -> int:
    url = server if isinstance(server, str) else server.url
    return cli.main(["setup", "kibana", "--url", url, "--json", *options])


def actions(capsys: pytest.CaptureFixture[str]) -> dict[str, set[str]]:
    """Action → kinds and names, of the last run."""
    found: dict[str, set[str]] = {}
    for step in json.loads(capsys.readouterr().out):
        found.setdefault(step["action"], set()).add(f"{step['kind']} {step['name']}")
    return found


def installed(server: Kibana, space: str = "default") -> bool:
    keys = {(one["type"], one["id"]) for one in objects(space=space)}
    return server.objects[space].keys() == keys and server.rules[space].keys() == RULE_IDS


def test_everything_is_there_after_the_first_run_and_the_second_changes_nothing(
    kibana: Kibana, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup(kibana) == 0
    assert actions(capsys).keys() == {"create"}
    assert installed(kibana)
    before = kibana.changes()
    assert before == ["POST /api/saved_objects/_import", *[f"POST {RULES_PATH}"] * len(RULE_IDS)]
    assert setup(kibana) == 0
    assert actions(capsys).keys() == {"keep"}
    assert kibana.changes() == before


def test_requests_are_those_of_kibanas_reference(kibana: Kibana) -> None:
    assert setup(kibana) == 0
    asked = {f"{one.method} {one.path}": one for one in kibana.asked}
    form = asked[IMPORT]
    assert form.query == {"overwrite": "true"}
    assert form.headers["kbn-xsrf"]
    assert form.headers["content-type"].startswith("multipart/form-data; boundary=")
    ((name, (file, content)),) = form.form.items()
    assert (name, file.rpartition(".")[2], content) == ("file", "ndjson", ndjson(objects()))
    wanted = {
        "objects": [{"type": one["type"], "id": one["id"]} for one in objects()],
        "excludeExportDetails": True,
    }
    assert asked[EXPORT].json == wanted
    created = [one for one in kibana.asked if (one.method, one.path) == ("POST", RULES_PATH)]
    assert [one.json for one in created] == rules()
    assert all(
        one.headers["content-type"] == "application/json" and one.headers["kbn-xsrf"]
        for one in created
    )
    looked = [one.query for one in kibana.asked if (one.method, one.path) == ("GET", RULES_PATH)]
    assert looked == [
        *({"rule_id": one["rule_id"]} for one in rules()),
        {"rule_id": EXTERNAL_ALERTS},
    ]
    assert all("authorization" not in one.headers for one in kibana.asked)


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(
    kibana: Kibana, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup(kibana, "--dry-run") == 0
    said = capsys.readouterr()
    assert {step["action"] for step in json.loads(said.out)} == {"create"}
    assert f"would create detection rule {rules()[0]['name']}" in said.err
    assert kibana.changes() == []


def test_what_was_changed_by_hand_is_named_and_renewed(
    kibana: Kibana, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(kibana)
    capsys.readouterr()
    dashboard = next(key for key in KEYS if key[0] == "dashboard")
    stored = kibana.objects["default"][dashboard]
    stored["attributes"] = {
        **stored["attributes"],
        "title": "Mine",
        "panelsJSON": "[]",
        "version": 1,
    }
    assert setup(kibana, "--dry-run") == 0
    (step,) = [one for one in json.loads(capsys.readouterr().out) if one["action"] != "keep"]
    assert (step["action"], (step["kind"], step["name"])) == ("update", dashboard)
    assert step["why"].startswith("differs in attributes.")
    assert "attributes.title" in step["why"]
    assert setup(kibana) == 0
    assert actions(capsys)["update"] == {" ".join(dashboard)}
    assert [line.split(b'"id":"')[1].split(b'"')[0].decode() for line in _last_import(kibana)] == [
        dashboard[1]
    ]
    assert kibana.objects["default"][dashboard]["attributes"]["title"] != "Mine"


def _last_import(kibana: Kibana) -> list[bytes]:
    last = next(one for one in reversed(kibana.asked) if one.path.endswith("_import"))
    return last.form["file"][1].splitlines()


def test_objects_that_kibana_migrated_are_compared_as_far_as_they_can_be(
    kibana: Kibana, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(kibana)
    capsys.readouterr()
    for one in kibana.objects["default"].values():
        one["typeMigrationVersion"] = "10.2.0"
        one["attributes"]["added_by_kibana"] = {"a": 1}
    assert setup(kibana, "--dry-run") == 0
    assert actions(capsys).keys() == {"keep"}
    kibana.objects["default"][next(iter(KEYS))]["attributes"]["title"] = "another"
    assert setup(kibana, "--dry-run") == 0
    assert "Kibana keeps it in a newer form" in capsys.readouterr().err


def test_what_a_site_changed_of_a_rule_stays(
    kibana: Kibana, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(kibana)
    capsys.readouterr()
    rule = kibana.rules["default"][rules()[0]["rule_id"]]
    theirs: dict[str, Any] = {
        "enabled": False, "interval": "5m", "from": "now-2h", "index": ["*:logs-ids_plugin.alert-*"], "max_signals": 50,  # noqa: E501
        "exceptions_list": [{"id": "a", "list_id": "b", "type": "rule_default", "namespace_type": "single"}],  # noqa: E501
        "actions": [{"id": "mail", "action_type_id": ".email"}], "alert_suppression": {"group_by": ["host.ip"]},  # noqa: E501
        "tags": ["Team: night", *rules()[0]["tags"]],
    }  # fmt: skip
    rule.update(theirs)
    assert setup(kibana) == 0
    assert actions(capsys).keys() == {"keep"}
    rule["query"] = "event.kind : *"
    rule["note"] = "shorter"
    assert setup(kibana) == 0
    said = capsys.readouterr()
    assert f"update detection rule {rule['name']}: differs in query, note" in said.err
    assert _last(kibana, "PATCH").json == {
        part: rules()[0][part] for part in ("rule_id", "query", "note")
    }
    assert {part: rule[part] for part in theirs} == theirs
    assert rule["query"] == rules()[0]["query"]
    rule["tags"] = ["Team: night"]
    assert setup(kibana) == 0
    assert rule["tags"] == theirs["tags"]


def _last(kibana: Kibana, method: str) -> Asked:
    return next(one for one in reversed(kibana.asked) if one.method == method)


def test_another_products_rule_and_managed_objects_are_left_alone(
    kibana: Kibana, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(kibana)
    mine = kibana.rules["default"][rules()[0]["rule_id"]]
    mine.update(immutable=True, query="theirs")
    assert setup(kibana) == 4
    assert (
        f"detection rule {mine['name']}: there is a prebuilt one with its rule_id"
        in capsys.readouterr().err
    )
    assert mine["query"] == "theirs"
    key = sorted(KEYS)[0]
    kibana.objects["default"][key].update(managed=True)
    assert setup(kibana) == 4
    assert (
        f"{key[0]} {key[1]}: there is one that a package of Kibana's manages"
        in capsys.readouterr().err
    )


def test_what_is_not_ours_stays(kibana: Kibana) -> None:
    theirs: dict[str, Any] = {
        "type": "dashboard",
        "id": "theirs",
        "attributes": {"title": "Theirs"},
    }
    kibana.objects["default"] = {("dashboard", "theirs"): theirs}
    kibana.rules["default"] = {"theirs": {"rule_id": "theirs", "name": "Theirs"}}
    assert setup(kibana) == 0
    assert kibana.objects["default"][("dashboard", "theirs")] == theirs
    assert kibana.rules["default"]["theirs"] == {"rule_id": "theirs", "name": "Theirs"}
    assert b'"theirs"' not in b"".join(one.body for one in kibana.asked)


def test_a_space_gets_its_own(kibana: Kibana) -> None:
    assert setup(kibana, "--space", "soc") == 0
    assert installed(kibana, "soc")
    assert "default" not in kibana.objects
    about = {one.path for one in kibana.asked} - {"/api/status", "/api/spaces/space"}
    assert about
    assert all(path.startswith("/s/soc/api/") for path in about)


def test_a_space_that_does_not_exist_is_named(
    kibana: Kibana, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kibana itself takes objects for any space, and nobody finds them."""
    assert setup(kibana, "--space", "sco") == 4
    said = capsys.readouterr().err
    assert f"{kibana.url} space sco: space: there is no space called sco (make it under " in said
    assert "we see default, soc" in said
    assert kibana.changes() == []
    kibana.spaces.append("sco")
    assert setup(kibana, "--space", "sco") == 0


def test_objects_that_another_space_has_are_imported_as_copies(
    kibana: Kibana, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids are unique over all spaces: Kibana gives a second copy an id of its own, and finds it
    again by its origin."""

    def copies(asked: Asked) -> Said:
        lines = [json.loads(line) for line in asked.form["file"][1].splitlines()]
        results = [
            {"type": one["type"], "id": one["id"], "destinationId": f"new-{at}", "overwrite": True}
            for at, one in enumerate(lines)
        ]
        return Said(200, {"success": True, "successCount": len(results), "successResults": results})

    kibana.instead[IMPORT] = copies
    assert setup(kibana, "--only", "objects") == 0
    told = json.loads(capsys.readouterr().out)
    assert {one["action"] for one in told} == {"update"}
    assert told[0]["why"] == "as new-0: another space has this id"


@pytest.mark.parametrize(
    ("only", "objects_too", "rules_too"), [("objects", True, False), ("rules", False, True)]
)
def test_one_part_alone(kibana: Kibana, only: str, objects_too: bool, rules_too: bool) -> None:
    assert setup(kibana, "--only", only) == 0
    assert (bool(kibana.objects), bool(kibana.rules)) == (objects_too, rules_too)


def test_a_base_path_is_kept() -> None:
    with Kibana("/tools/kibana") as kibana:
        assert setup(kibana.url + "/", "--space", "soc") == 0
        assert installed(kibana, "soc")
        assert all(one.path.startswith("/tools/kibana/") for one in kibana.asked)


def test_a_wrong_base_path_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with Kibana("/kibana") as kibana:
        assert setup(f"http://127.0.0.1:{kibana.port}") == 4
    assert (
        "status: Kibana answers 404 (does the URL lack, or have too much of, Kibana's base path"
        in (capsys.readouterr().err)
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_a_private_authority(
    certificates: Certificates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Kibana(certificate=certificates.server) as kibana:
        assert setup(kibana, "--ca-file", str(certificates.ca)) == 0
        assert installed(kibana)
        capsys.readouterr()
        assert setup(kibana) == 4
        assert (
            "its certificate isn't trusted: unable to get local issuer certificate (check the CA "
            "file" in (capsys.readouterr().err)
        )
        other = Certificates(tmp_path / "other")
        assert setup(kibana, "--ca-file", str(other.ca)) == 4
        assert "its certificate isn't trusted" in capsys.readouterr().err
        assert setup(f"http://127.0.0.1:{kibana.port}", "--ca-file", str(certificates.ca)) == 4
        assert "it hangs up" in capsys.readouterr().err
    with Kibana() as kibana:
        assert setup(f"https://127.0.0.1:{kibana.port}", "--ca-file", str(certificates.ca)) == 4
        assert "no TLS connection" in capsys.readouterr().err


def test_a_ca_file_that_is_none(
    kibana: Kibana, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for path in (tmp_path / "ca.pem", tmp_path / "absent.pem"):
        assert setup(kibana, "--ca-file", str(path)) == 2
        assert f"{path}: the CA file can't be used: " in capsys.readouterr().err


def test_a_proxy_of_the_environment_is_used(
    kibana: Kibana, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:{WORD}@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("http_proxy", f"http://me:{WORD}@127.0.0.1:{proxy.port}")
        assert setup(kibana) == 0
        assert installed(kibana)
        assert len(proxy.asked) == len(kibana.asked)
        login = "Basic " + base64.b64encode(f"me:{WORD}".encode()).decode()
        assert {given for _, _, given in proxy.asked} == {login}
        assert all(target.startswith(f"{kibana.url}/api/") for _, target, _ in proxy.asked)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        before = len(proxy.asked)
        assert setup(kibana) == 0
        assert len(proxy.asked) == before


def test_tls_goes_through_a_proxy_in_a_tunnel(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy() as proxy, Kibana(certificate=certificates.server) as kibana:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        assert setup(kibana, "--ca-file", str(certificates.ca), "--only", "objects") == 0
        assert {(method, target) for method, target, _ in proxy.asked} == {
            ("CONNECT", f"127.0.0.1:{kibana.port}")
        }


def test_a_proxy_that_is_away_is_named_without_its_password(
    kibana: Kibana, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    monkeypatch.setenv("http_proxy", f"http://me:{WORD}@127.0.0.1:{port}")
    assert setup(kibana) == 4
    said = capsys.readouterr().err
    assert f"can't be reached: connection refused, through the proxy 127.0.0.1:{port} (" in said
    assert WORD not in said


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ({"api-key": "id:key"}, "ApiKey " + base64.b64encode(b"id:key").decode()),
        ({"api-key": "aWQ6a2V5"}, "ApiKey aWQ6a2V5"),
        ({"password": "wörd"}, "Basic " + base64.b64encode("me:wörd".encode()).decode()),
    ],
)
def test_who_we_are(kibana: Kibana, tmp_path: Path, given: dict[str, str], header: str) -> None:
    ((name, secret),) = given.items()
    (tmp_path / "secret").write_text(secret + "\n")
    user = ("--username", "me") if name == "password" else ()
    assert setup(kibana, f"--{name}-file", str(tmp_path / "secret"), *user) == 0
    assert {one.headers["authorization"] for one in kibana.asked} == {header}


def test_settings_come_from_the_file_and_the_environment(
    kibana: Kibana, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "ids.toml"
    config.write_text(
        f"[kibana]\nurl = '{kibana.url}'\nspace = 'soc'\npackets_url = "
        f"'https://arkime/?id={{{{value}}}}'"
    )
    monkeypatch.setenv("IDS_KIBANA_API_KEY", "a:b")
    assert cli.main(["setup", "kibana", "--config", str(config)]) == 0
    assert installed(kibana, "soc")
    assert {one.headers["authorization"] for one in kibana.asked} == {
        "ApiKey " + base64.b64encode(b"a:b").decode()
    }
    assert b"https://arkime/?id={{value}}" in kibana.asked[3].body


def test_no_secret_is_ever_shown(
    kibana: Kibana, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").write_text(WORD)
    kibana.instead[STATUS] = Said(
        401, {"statusCode": 401, "error": "Unauthorized", "message": "no such user"}
    )
    options = ("--username", "me", "--password-file", str(tmp_path / "secret"))
    assert setup(kibana, *options, "--debug") == 4
    said = capsys.readouterr()
    assert "status: 401: no such user (check the API key, or user name and password)" in said.err
    for text in (WORD, base64.b64encode(f"me:{WORD}".encode()).decode()):
        assert text not in said.err + said.out


def error(kind: str, **more: Any) -> Said:
    failed = {
        "type": "dashboard",
        "id": "ids_plugin-triage",
        "title": "Triage",
        "error": {"type": kind, **more},
    }
    return Said(
        200, {"success": False, "successCount": 0, "successResults": [], "errors": [failed]}
    )


def forbidden(message: str) -> Said:
    return Said(403, {"statusCode": 403, "error": "Forbidden", "message": message})


FAILURES: dict[str, tuple[str, Said, tuple[str, str]]] = {
    "a proxy": (STATUS, Said(502, ERROR_PAGE), ("status: 502: 502 Bad Gateway nginx: a proxy "
                                                "answers", "check the pr")),
    "starting": (STATUS, Said(503, "Kibana is not ready yet"), ("status: 503: Kibana is not "
                                                                "ready", "it starts")),
    "unavailable": (
        STATUS,
        Said(503, {"version": {"number": "8.19.2"}, "status": {"overall": {"level": "critical", "summary": "no ES"}}}),  # noqa: E501
        ("status: it is critical: no ES", "see Kibana's log"),
    ),
    "red": (
        STATUS,
        Said(200, {"version": {"number": "7.10.2"}, "status": {"overall": {"state": "red", "title": "Red"}}}),  # noqa: E501
        ("status: it is red: Red", "see Kibana's log"),
    ),
    "OpenSearch Dashboards": (
        STATUS,
        Said(200, {"version": {"number": "2.19.1"}, "status": {"overall": {"state": "green"}}}),
        ("status: it is OpenSearch Dashboards 2.19.1", "are for Kibana"),
    ),
    "too old": (
        STATUS,
        Said(200, {"version": {"number": "8.0.1-SNAPSHOT"}, "status": {"overall": {"level": "available"}}}),  # noqa: E501
        ("saved objects: Kibana is 8.0.1, the objects need 8.", "upgrade Kibana"),
    ),
    "anonymous": (
        STATUS,
        Said(200, {"status": {"overall": {"level": "available"}}}),
        ("status: it doesn't know us", "give an API key"),
    ),
    "Elasticsearch": (
        STATUS,
        Said(400, {"error": "no handler found"}, {"X-Elastic-Product": "Elasticsearch"}),
        ("status: that is Elasticsearch", "give Kibana's URL"),
    ),
    "a login page": (
        STATUS,
        Said(302, "", {"Location": "https://login.example/?next=/api/status"}),
        ("status: 302: it sends us to https://login.example/", "if that is a login page"),
    ),
    "another web server": (STATUS, Said(200, "<h1>Hello</h1>"), ("what answers there (200) isn't "
                                                                 "Kibana", "check")),
    "no right to export": (EXPORT, forbidden("no export"), ("at saved objects: 403: no "
                                                            "export", "docs/kibana.md")),
    "no right to see a type": (
        EXPORT,
        Said(400, {"statusCode": 400, "message": "Error fetching", "attributes": {"objects": [
            {"type": "lens", "id": "a", "error": {"statusCode": 403, "message": "Unable to bulk_get "  # noqa: E501
                                                                                "lens"}}]}}),
        ("looking at saved objects: 403: Unable to bulk_get lens", "docs/kibana.md"),
    ),
    "an export that fails otherwise": (
        EXPORT,
        Said(400, {"statusCode": 400, "message": "Can't export more than 10 objects"}),
        ("looking at saved objects: 400: Can't export more than 10", "check the URL"),
    ),
    "no right to import": (
        IMPORT, forbidden("Unable to bulk_create dashboard"),
        ("import of saved objects: 403: Unable to bulk_create dashboard", "docs/kibana.md"),
    ),
    "too large": (IMPORT, Said(413, ""), ("import of saved objects: "
                                          "413", "raise savedObjects.maxImportPayloadBytes")),
    "conflict": (IMPORT, error("conflict"), ("dashboard ids_plugin-triage: there is "
                                             "another", "rename or remove")),
    "ambiguous": (
        IMPORT, error("ambiguous_conflict", destinations=[{"id": "a"}, {"id": "b"}]),
        ("dashboard ids_plugin-triage: several copies could be meant: a, b", "remove all but one"),
    ),
    "unsupported": (IMPORT, error("unsupported_type"), ("this Kibana has no such "
                                                        "type", "upgrade Kibana")),
    "references": (
        IMPORT, error("missing_references", references=[{"type": "index-pattern", "id": "x"}]),
        ("it refers to what isn't there: index-pattern x", "run it again"),
    ),
    "unknown": (
        IMPORT, error("unknown", statusCode=403, message="Unable to create dashboard"),
        ("dashboard ids_plugin-triage: 403: Unable to create dashboard", "docs/kibana.md"),
    ),
    "a read-only cluster": (
        IMPORT, error("unknown", statusCode=403, message="cluster_block_exception: blocked by: "
                                                         "[FORBIDDEN]"),
        ("403: cluster_block_exception: blocked by", "Elasticsearch is read-only: free disk space"),
    ),
    "success is false and that is all": (IMPORT, Said(200, {"success": False}), ("it gives no "
                                                                                 "reason", "see Kib")),  # noqa: E501
    "no Security": (
        PRIVILEGES, Said(404, {"statusCode": 404, "message": "Not Found"}),
        ("detection rules: this Kibana has no Elastic Security", "--only objects"),
    ),
    "no right to rules": (PRIVILEGES, forbidden("no"), ("detection rules: 403: "
                                                        "no", "--only objects")),
    "no encryption key": (
        PRIVILEGES, Said(200, {"is_authenticated": True, "has_encryption_key": False}),
        ("detection rules: Kibana has no key to encrypt them "
         "with", "xpack.encryptedSavedObjects.encryptionKey"),
    ),
    "no right to write a rule": (
        f"POST {RULES_PATH}", Said(403, {"message": "may not", "status_code": 403}),
        (f"detection rule {rules()[0]['name']}: 403: may not", "docs/kibana.md"),
    ),
    "a rule that is refused": (
        f"POST {RULES_PATH}", Said(400, {"message": "[request body]: risk_score: "
                                                    "Required", "status_code": 400}),
        (f"detection rule {rules()[0]['name']}: 400: [request body]: "
         "risk_score", "Kibana's version"),
    ),
    "a rule that somebody else changes": (
        f"POST {RULES_PATH}", Said(409, {"message": "version conflict", "status_code": 409}),
        (f"detection rule {rules()[0]['name']}: 409: version conflict", "run it again"),
    ),
    "no right to read rules": (f"GET {RULES_PATH}", forbidden("no"), ("detection rule "
                                                                      f"{rules()[0]['name']}: "
                                                                      "403", "docs/")),
}  # fmt: skip
"""request, what is answered, and words of what is said: step and cause, what to do"""


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_names_step_cause_and_remedy_and_a_second_run_completes(
    kibana: Kibana, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    request, said, words = FAILURES[name]
    kibana.instead[request] = said
    assert setup(kibana) == 4
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count(f"ids-plugin: {kibana.url}: ") == 1
    for word in words:
        assert word in shown.err
    if "detection" in request:
        assert kibana.objects["default"].keys() == KEYS, "steps done stay done"
    del kibana.instead[request]
    assert setup(kibana) == 0
    assert installed(kibana)


ODD: list[Any] = [
    "",
    "<p>Hello</p>",
    [],
    [1],
    {},
    None,
    7,
    {"status": {"overall": "green"}},
    {"attributes": 1},
    {"a": [{}]},
]


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    "request_",
    [STATUS, SPACES, EXPORT, IMPORT, PRIVILEGES, f"GET {RULES_PATH}", f"POST {RULES_PATH}"],
)
def test_answers_that_make_no_sense_are_no_defect_of_ours(
    kibana: Kibana, request_: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for body in ODD:
        kibana.instead[request_] = Said(status, body)
        code = setup(kibana, "--space", "soc")
        said = capsys.readouterr().err
        assert "defect" not in said, (body, said)
        harmless = request_ in (EXPORT, PRIVILEGES) and status == 200
        assert code == 4 or harmless, (body, said)


def test_of_an_import_that_fails_in_part_the_rest_is_done(
    kibana: Kibana, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = sorted(KEYS)[0]

    def part(asked: Asked) -> Said:
        usual = kibana._import(asked, "default").body
        del kibana.objects["default"][refused]
        results = [one for one in usual["successResults"] if (one["type"], one["id"]) != refused]
        failed = {
            "type": refused[0],
            "id": refused[1],
            "error": {"type": "unknown", "statusCode": 500, "message": "full"},
        }
        return Said(
            200,
            {
                "success": False,
                "successCount": len(results),
                "successResults": results,
                "errors": [failed],
            },
        )

    kibana.instead[IMPORT] = part
    assert setup(kibana) == 4
    said = capsys.readouterr().err
    assert said.count("create ") == len(KEYS) - 1
    assert f"{refused[0]} {refused[1]}: 500: full" in said
    del kibana.instead[IMPORT]
    assert setup(kibana) == 0
    assert actions(capsys)["keep"] == {" ".join(key) for key in KEYS - {refused}}
    assert installed(kibana)


@pytest.mark.parametrize(("version", "absent"), [("8.9.0", {"investigation_fields", "required_fields"}),  # noqa: E501
                                                 ("8.14.3", {"required_fields"}), ("9.2.0", set())])  # fmt: skip  # noqa: E501
def test_a_rule_has_only_the_parts_that_this_kibana_knows(
    kibana: Kibana, version: str, absent: set[str]
) -> None:
    kibana.version = version
    assert setup(kibana, "--only", "rules") == 0
    for made in rules():
        assert made.keys() - kibana.rules["default"][made["rule_id"]].keys() == absent


def test_elastics_own_rule_that_would_lift_alerts_twice_is_pointed_at(
    kibana: Kibana, capsys: pytest.CaptureFixture[str]
) -> None:
    external = {
        "rule_id": EXTERNAL_ALERTS,
        "name": "External Alerts",
        "enabled": True,
        "exceptions_list": [],
    }
    kibana.rules["default"] = {EXTERNAL_ALERTS: external}
    assert setup(kibana, "--only", "rules") == 0
    assert (
        "look at detection rule External Alerts: Elastic's own, it is on" in capsys.readouterr().err
    )
    for change in ({"enabled": False}, {"exceptions_list": [{"list_id": "a"}]}):
        kibana.rules["default"][EXTERNAL_ALERTS] = {**external, **change}
        assert setup(kibana) == 0
        assert "look" not in capsys.readouterr().err
    assert all(EXTERNAL_ALERTS not in one.body.decode() for one in kibana.asked)


def test_one_that_never_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IDS_KIBANA_TIMEOUT_SECONDS", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert setup(f"http://127.0.0.1:{silent.getsockname()[1]}") == 4
    assert "no answer in time (is it overloaded, or does a firewall drop" in capsys.readouterr().err


def test_doctor_says_what_a_configured_kibana_lacks(
    kibana: Kibana, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found() -> list[tuple[str, str]]:
        asked = doctor_findings.Asked(load(None))
        return [(one.state, one.what) for one in doctor_findings.findings([AREA], asked)]

    assert found() == [("skipped", "no Kibana is configured: section [kibana]")]
    monkeypatch.setenv("IDS_KIBANA_URL", kibana.url)
    ((state, what),) = found()
    assert state == "warning"
    assert what.startswith("not installed or out of date: ")
    assert kibana.changes() == []
    assert setup(kibana) == 0
    assert found() == [("ok", f"{kibana.url} has our dashboards and rules")]
    kibana.instead[STATUS] = Said(401, {"message": "who?"})
    assert found() == [("failure", f"{kibana.url}: status: 401: who?")]


def test_a_kibana_that_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert setup(f"http://127.0.0.1:{free_port()}") == 4
    assert (
        "can't be reached: connection refused (check the URL and whether Kibana runs)"
        in capsys.readouterr().err
    )
    assert setup("http://no-such-host.invalid:5601") == 4
    assert "can't be reached: " in capsys.readouterr().err
