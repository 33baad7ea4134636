"""`ids-plugin feedback`: analysts' verdicts → allow-list proposals and labelled flows. Nothing is
applied by it."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ids_plugin import api
from ids_plugin.commands import Command, Console, counted
from ids_plugin.commands.options.access import access
from ids_plugin.commands.options.inputs import (
    InputTally,
    add_input_options,
    exit_code,
    input_options,
    interrupt_reads,
)
from ids_plugin.errors import UsageError
from ids_plugin.pipeline import BATCH
from ids_plugin.writing import writing

if TYPE_CHECKING:
    import polars as pl

    from ids_plugin.feedback.alert_sources import Alerts
    from ids_plugin.feedback.proposals import Proposal, Ruled
    from ids_plugin.feedback.verdict_tables import Verdicts
    from ids_plugin.schema.reject import Reject
    from ids_plugin.schema.verdict import Verdict

TAGS = {
    "true": ("True Positive",),
    "false": ("False Positive",),
    "benign": ("Benign", "Benign Positive"),
}
"""verdict → tags of Elastic Security that mean it, unless options say otherwise"""
MOST_DAYS = 3650
FILES = ("allow.toml", "labelled.parquet", "rejects.ndjson", "feedback.json")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `feedback`."""
    add_input_options(parser, least=0)
    parser.add_argument(
        "--verdicts",
        action="append",
        default=[],
        metavar="FILE",
        help="CSV: event.id,verdict,note,analyst,time; verdict is true, false or benign; "
        "repeatable",
    )
    parser.add_argument(
        "--space",
        metavar="NAME",
        help="verdicts also from Elastic Security's alerts in this space of Kibana (without "
        "--verdicts: default)",
    )
    for verdict, tags in TAGS.items():
        shown = ", ".join(tags)
        parser.add_argument(
            f"--{verdict}-tag",
            action="append",
            metavar="TAG",
            help=f"tag that means {verdict} (default: {shown})",
        )
    parser.add_argument(
        "--closed-means",
        choices=tuple(TAGS),
        help="verdict of an alert closed without tag or reason (default: none)",
    )
    parser.add_argument(
        "--alerts",
        action="append",
        default=[],
        metavar="DIR",
        help="what `scan --out DIR` made, instead of Elasticsearch's alerts; repeatable",
    )
    parser.add_argument(
        "--elasticsearch", dest="url", metavar="URL", help="such as https://host:9200"
    )
    parser.add_argument("--namespace", metavar="NAME", help="last part of the alerts' data stream")
    parser.add_argument(
        "--days",
        type=float,
        default=30,
        help="show what would have been hidden in the last so many",
    )
    parser.add_argument(
        "--expires-after",
        type=int,
        default=90,
        metavar="DAYS",
        help="of the proposals (default: 90)",
    )
    parser.add_argument(
        "--bundle",
        default="default",
        help="finds the alerts' flows among the INPUTs' (default: ours)",
    )
    parser.add_argument("--out", metavar="DIR", help=f"write {', '.join(FILES)} there")


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        InputError: verdicts, alerts or inputs that can't be read at all.
        UsageError: options that can't be, a place that can't be written to.
        MissingExtraError, ConfigError, ServiceError: Elasticsearch can't be asked, or doesn't
            answer.
    """
    from ids_plugin.feedback.alert_sources import Scans, Stream
    from ids_plugin.feedback.proposals import look_back, propose, render, rule

    if not (0 < args.days <= MOST_DAYS and 0 < args.expires_after <= MOST_DAYS):
        raise UsageError(f"--days and --expires-after go from 1 to {MOST_DAYS:,}")
    verdicts = _verdicts(args)
    alerts: Alerts = Scans(args.alerts) if args.alerts else Stream(access(args))
    ruled, unknown = rule(
        verdicts.verdicts, alerts.judged({verdict.alert for verdict in verdicts.verdicts})
    )
    rejects = [*verdicts.rejects, *map(_unknown, unknown)]
    newest = alerts.newest()
    proposals = propose(ruled, _expiry(newest, verdicts.verdicts, args.expires_after))
    if newest is not None and proposals:
        hosts = {proposal.table["host"] for proposal in proposals}
        look_back(proposals, alerts.since(newest - timedelta(days=args.days), hosts))
    unread: list[Reject] = []
    flows, contradicting = _labelled(args, ruled, console, unread)
    result = _result(verdicts, ruled, rejects, proposals, args.days)
    result["labels"] = _counted_labels(flows) | {"contradicting": contradicting}
    text = render(proposals, args.days)
    if args.out:
        _write(Path(args.out), text, flows, rejects, result)
    _report(console, result, proposals, rejects)
    if console.json:
        console.result(result)
    elif not args.out:
        console.out.write(text)
    return exit_code(unread, args.inputs, console)


def _verdicts(args: argparse.Namespace) -> Verdicts:
    from ids_plugin.feedback.indexed_alerts import Meanings, security_verdicts
    from ids_plugin.feedback.verdict_tables import Verdicts, read_table

    verdicts = Verdicts()
    for path in args.verdicts:
        verdicts.add(read_table(Path(path)))
    if args.space or not args.verdicts:
        meant = {verdict: getattr(args, f"{verdict}_tag") or tags for verdict, tags in TAGS.items()}
        tags = {tag.lower(): verdict for verdict, names in meant.items() for tag in names}
        if len(tags) < sum(len({tag.lower() for tag in names}) for names in meant.values()):
            raise UsageError("a tag can't mean two verdicts")
        verdicts.add(
            security_verdicts(
                access(args), args.space or "default", Meanings(tags, args.closed_means)
            )
        )
    return verdicts


def _unknown(verdict: Verdict) -> Reject:
    from ids_plugin.schema.reject import Reject

    detail = f"there is no alert {verdict.alert} where alerts are read from"
    return Reject(verdict.source, verdict.place, "unknown_alert", detail, verdict.description[:200])


def _expiry(newest: datetime | None, verdicts: Sequence[Verdict], days: int) -> date:
    """So many days after the newest thing that is known: the same files give the same proposals on
    any day."""
    known = [verdict.time for verdict in verdicts if verdict.time] + ([newest] if newest else [])
    return max(known).date() + timedelta(days=days) if known else date.min


def _labelled(
    args: argparse.Namespace, ruled: Sequence[Ruled], console: Console, unread: list[Reject]
) -> tuple[pl.DataFrame, int]:
    """Labelled flows, and how many contradict each other."""
    from ids_plugin.feedback.labels import Labels

    labels = Labels()
    labels.evidence(ruled)
    if args.inputs:
        bundle = api.load_bundle(args.bundle)
        others = sorted({ruling.case.bundle[:12] for ruling in ruled} - {bundle.id[:12]})
        if others:
            console.complain(
                f"alerts of bundle {', '.join(others)}, flows found with {bundle.id[:12]}: not "
                "all may be found"
            )
        options = input_options(args)
        interrupt_reads()
        tally = InputTally(console, "feedback")
        try:
            steps = api.watched(api.read_steps(args.inputs, options), tally)
            labels.traffic(api.iter_flows(steps, options, BATCH), ruled, bundle)
        finally:
            tally.close("record of the inputs")
        unread += tally.unread
    return labels.flows()


def _counted_labels(flows: pl.DataFrame) -> dict[str, Any]:
    by_label = {
        str(name): count for name, count in sorted(flows["label"].value_counts().iter_rows())
    }
    return {"flows": len(flows), "by_label": by_label}


def _result(
    verdicts: Verdicts,
    ruled: Sequence[Ruled],
    rejects: Sequence[Reject],
    proposals: Sequence[Proposal],
    days: float,
) -> dict[str, Any]:
    from ids_plugin.feedback.proposals import counts

    made = [proposal for proposal in proposals if not proposal.against]
    hidden = {case.group: case for proposal in made for case in proposal.hidden}
    touched = {case.group for proposal in made for case in (*proposal.hidden, *proposal.reduced)}
    judged = {ruling.case.group for ruling in ruled}
    contradictions = [
        {
            "event.id": ruling.case.alert,
            "holds": ruling.verdict.description,
            "overruled": [old.description for old in ruling.overruled],
        }
        for ruling in ruled
        if ruling.overruled
    ]
    return {
        "records": verdicts.records,
        "alerts": dict(sorted(Counter(ruling.verdict.verdict for ruling in ruled).items())),
        "without_verdict": dict(sorted(verdicts.silent.items())),
        "rejected": dict(sorted(Counter(reject.reason for reject in rejects).items())),
        "contradictions": contradictions,
        "days": days,
        "would_have_hidden": {**counts(list(hidden.values())), "unjudged": len(touched - judged)},
        "proposals": [proposal.to_dict() for proposal in made],
        "withheld": [proposal.to_dict() for proposal in proposals if proposal.against],
    }


def _write(
    folder: Path, text: str, flows: pl.DataFrame, rejects: Sequence[Reject], result: dict[str, Any]
) -> None:
    """All files or none."""
    from ids_plugin.sinks.ndjson import Ndjson

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
        try:
            (part / "allow.toml").write_text(text, "utf-8")
            flows.write_parquet(part / "labelled.parquet")
            with Ndjson(part / "rejects.ndjson") as lines:
                lines.write([reject._asdict() for reject in rejects])
            (part / "feedback.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
            for made in sorted(part.iterdir()):
                made.replace(folder / made.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _report(
    console: Console,
    result: dict[str, Any],
    proposals: Sequence[Proposal],
    rejects: Sequence[Reject],
) -> None:
    """What a person has to know; what may go wrong isn't kept back by --quiet."""
    for reject in rejects:
        console.complain(f"{reject.input}, {reject.place}: {reject.reason}: {reject.detail}")
    for contradiction in result["contradictions"]:
        console.complain(
            f"alert {contradiction['event.id']}: {contradiction['holds']}; overruled: "
            f"{', '.join(contradiction['overruled'])}"
        )
    for proposal in proposals:
        shown = ", ".join(
            f"{key} {value}"
            for key, value in proposal.table.items()
            if key not in ("note", "expires")
        )
        if proposal.against:
            named = ", ".join(ruling.case.alert for ruling in proposal.against)
            console.complain(f"withheld: {shown}: it might hide what was judged true: {named}")
        elif proposal.unjudged:
            unjudged = counted(len(proposal.unjudged), "alert")
            console.complain(
                f"{shown}: would have hidden all or part of {unjudged} nobody has judged"
            )
    verdict_counts = (
        ", ".join(f"{count:,} {verdict}" for verdict, count in result["alerts"].items()) or "none"
    )
    hidden, silent = result["would_have_hidden"], sum(result["without_verdict"].values())
    console.say(
        f"{counted(result['records'], 'record')} read; alerts judged: {verdict_counts}; "
        f"without a verdict: {silent:,}"
    )
    console.say(
        f"{counted(len(result['proposals']), 'proposal')} ({len(result['withheld']):,} withheld): "
        "in the last "
        f"{result['days']:g} days they would have hidden {counted(hidden['alerts'], 'alert')}"
    )
    console.say(
        f"{counted(result['labels']['flows'], 'labelled flow')}: "
        f"{_by(result['labels']['by_label'])}"
    )


def _by(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


PLUGIN = Command(
    "feedback",
    "Turn analysts' verdicts into allow-list proposals and labelled flows.",
    "example: ids-plugin feedback --alerts report/ --verdicts verdicts.csv --out feedback/",
    configure,
    run,
)
