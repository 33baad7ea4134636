"""Verdicts become proposals: the narrowest, none that hides what was judged true, each with its
effect."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime
from typing import Any

from ids_plugin.alerts import parse
from ids_plugin.feedback.case import Case, case
from ids_plugin.feedback.proposals import Proposal, Ruled, look_back, propose, render, rule
from ids_plugin.schema.verdict import Verdict
from tests.support.factories import Row, behaviour, flow, fold, frame, scores

EXPIRES = date(2026, 6, 1)


def cases(rows: list[Row], label: str) -> list[Case]:
    """The alerts of some flows, whose folds are 30 min apart where their flows are."""
    documents, _ = fold(frame(rows), scores([label] * len(rows), [0.9] * len(rows)))
    found: dict[str, Case] = {}
    for document in documents:
        alert = case(document)
        earlier = found.get(alert.group)
        found[alert.group] = alert if earlier is None else earlier.merged(alert)
    return list(found.values())


def verdict(alert: str, said: str = "false", **more: Any) -> Verdict:
    when = datetime(2026, 3, more.pop("day", 3), tzinfo=UTC)
    return Verdict(
        alert, said, more.get("note", ""), more.get("analyst", "anna"), when, "v.csv", "line 2"
    )


def ruled(alerts: list[Case], *said: str) -> list[Ruled]:
    given = [verdict(one.alert, text) for one, text in zip(alerts, said, strict=False)]
    return rule(given, {one.alert: one for one in alerts})[0]


def proposed(alerts: list[Case], *said: str) -> list[Proposal]:
    proposals = propose(ruled(alerts, *said), EXPIRES)
    look_back(proposals, alerts)
    return proposals


def test_the_newest_verdict_holds_and_the_others_are_shown() -> None:
    (alert,) = cases(behaviour("brute_force"), "brute_force")
    by_id = {alert.alert: alert, "its closing document": alert}
    given = [
        verdict("its closing document", "true", day=9, analyst="bert"),
        verdict(alert.alert, "false", day=4),
        verdict(alert.alert, "true", day=3),
        verdict(alert.alert, "benign", day=5)._replace(time=None),
        verdict("nowhere"),
    ]
    (one,), unknown = rule(given, by_id)
    assert one.verdict.description == "true by bert on 2026-03-09"
    assert [old.description for old in one.overruled] == [
        "false by anna on 2026-03-04",
        "benign by anna",
    ]
    assert [one.alert for one in unknown] == ["nowhere"]


def test_a_proposal_is_as_narrow_as_the_alert() -> None:
    (alert,) = cases(behaviour("brute_force"), "brute_force")
    (one,) = proposed([alert], "false")
    assert one.table == {
        "host": "10.0.0.66", "role": "actor", "cidr": "10.0.0.2/32", "port": 22, "class": "brute_force",  # noqa: E501
        "note": "false by anna on 2026-03-03", "expires": "2026-06-01",
    }  # fmt: skip
    (several,) = proposed(cases(behaviour("scan"), "scan"), "benign")
    assert set(several.table) == {"host", "role", "class", "note", "expires"}
    (ipv6,) = proposed(
        cases([flow(0, "2001:db8::1", "2001:db8::2", local_orig=True)], "other"), "false"
    )
    assert (ipv6.table["host"], ipv6.table["cidr"]) == ("2001:db8::1", "2001:db8::2/128")


def test_alerts_alike_lead_to_one_proposal_and_others_to_their_own() -> None:
    alerts = cases(
        [flow(0), flow(4000), flow(8000, resp_p=8443), flow(12_000, resp_h="10.0.0.10")], "scan"
    )
    proposals = proposed(alerts, "false", "benign", "false", "false")
    assert [(one.table["cidr"], one.table["port"], len(one.led_by)) for one in proposals] == [
        ("10.0.0.9/32", 443, 2),
        ("10.0.0.9/32", 8443, 1),
        ("10.0.0.10/32", 443, 1),
    ]


def test_what_might_hide_an_attack_is_withheld() -> None:
    alerts = cases([flow(0), flow(4000), flow(4001, resp_p=22), flow(8000, resp_p=22)], "scan")
    narrow, wide = proposed(alerts, "false", "true", "false")
    assert [one.case for one in narrow.against] == [one.case for one in wide.against] == [alerts[1]]
    text = render([narrow, wide], 30)
    assert parse(text, "allow.toml").entries == ()
    assert text.count("WITHHELD") == 2
    assert f"#   {alerts[1].alert} " in text


def test_another_victim_of_a_flood_holds_nothing_back() -> None:
    floods = cases(behaviour("flood"), "flood")
    others = cases(
        [{**row, "resp_h": "10.0.0.8", "uid": f"D{row['uid']}"} for row in behaviour("flood")],
        "flood",
    )
    (one,) = proposed([*floods, *others], "false", "true")
    assert one.against == ()


def test_the_effect_is_told_and_what_nobody_has_judged() -> None:
    alerts = cases(
        [flow(0), flow(4000), flow(8000), flow(8001, resp_p=22), flow(12_000, resp_p=80)], "scan"
    )
    (one,) = proposed(alerts, "false")
    assert one.effect() == {
        "alerts": 2, "flows": 2, "by_class": {"scan": 2}, "by_severity": {"medium": 2}, "in_part": 1, "unjudged": 2,  # noqa: E501
        "examples": [
            {"event.id": alert.alert, "severity": "medium", "message": alert.message}
            for alert in (alerts[1], alerts[2], alerts[0])
        ],
    }  # fmt: skip
    text = render([one], 7)
    assert (
        "In the last 7 days it would have hidden 2 alerts of class scan (2 medium), 2 flows in "
        "them." in text
    )
    assert "Of 1 more it would have hidden some of the flows." in text
    assert "WARNING: nobody has judged 2 of these" in text


def test_nothing_that_others_wrote_becomes_an_entry() -> None:
    (alert,) = cases(behaviour("brute_force"), "brute_force")
    note = 'x"\n[[allow]]\nport = 22\r\u2028\x07\ud800 \\u0000 #' + "y" * 300
    given = [verdict(alert.alert, note=note, analyst="a\nport = 1")]
    text = render(propose(rule(given, {alert.alert: alert})[0], EXPIRES), 30)
    (entry,) = tomllib.loads(text)["allow"]
    assert set(entry) == {"host", "role", "cidr", "port", "class", "note", "expires"}
    assert entry["note"].startswith(
        'false by a port = 1 on 2026-03-03: x" [[allow]] port = 22 \\u0000 #yyy'
    )
    assert len(entry["note"]) == 160


def test_the_order_in_which_documents_come_changes_nothing() -> None:
    documents, _ = fold(frame(behaviour("brute_force")), scores(["brute_force"] * 60, [0.9] * 60))
    opened, closed = map(case, documents)
    effects = []
    for order in ([opened, closed], [closed, opened], [closed, opened, closed]):
        (one,) = propose(ruled([opened.merged(closed)], "false"), EXPIRES)
        look_back([one], order)
        effects.append(one.effect())
    assert effects[0] == effects[1] == effects[2]
    assert (effects[0]["alerts"], effects[0]["flows"]) == (1, 60)
