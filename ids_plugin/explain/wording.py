"""Numbers as an analyst reads them: natural units, phrases, and the one sentence that says what happened."""

from __future__ import annotations

import math
from collections.abc import Callable

from ids_plugin.schema.window import EarlierFlow, Feature

Values = dict[str, float | None]


def natural(feature: Feature, value: float) -> float | None:
    """The value off its log scale, rounded to what a person can use; None where it is unknown."""
    if math.isnan(value):
        return None
    plain = math.expm1(value) if feature.unit.startswith("log ") else value
    return round(plain) if feature.unit.startswith("log ") and plain >= 10 else round(plain, 3)


def natural_unit(feature: Feature) -> str:
    """The unit of what `natural` returns: the feature's own, off its log scale."""
    return feature.unit.removeprefix("log ")


def phrase(feature: Feature, value: float | None, expected: float | None) -> str:
    """`412 failed flows by the originator in 10 min, usually 2`."""
    usually = "" if expected is None else f", usually {amount(expected, feature.unit)}"
    return f"{feature.text}: {amount(value, feature.unit)}{usually}"


def amount(value: float | None, unit: str) -> str:
    """A number with its unit: `1.2 MB`, `3 min`, `412`."""
    if value is None:
        return "unknown"
    if unit == "0/1":
        return "yes" if value else "no"
    unit = unit.removeprefix("log ")
    if unit == "B":
        return _scaled(value, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1)))
    if unit == "s":
        return _scaled(value, (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)))
    if unit == "ms":
        return amount(value / 1000, "s")
    if unit == "0-1":
        return f"{100 * value:.0f} %"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def _scaled(value: float, steps: tuple[tuple[str, float], ...]) -> str:
    name, size = next((step for step in steps if value >= step[1]), steps[-1])
    return f"{value / size:.3g} {name}"


def sentence(label: str, flow: EarlierFlow, values: Values, usual: Values) -> str:
    """What, who, how often, compared with what: one sentence of names, counts and times.

    `values` and `usual` are table features in natural units, of this flow and of normal traffic.
    """
    return _SENTENCES.get(label, _other)(_Numbers(flow, values, usual))


class _Numbers:
    """The numbers of one flow, ready for a sentence."""

    def __init__(self, flow: EarlierFlow, values: Values, usual: Values) -> None:
        self.orig, self.resp = flow.orig_h, flow.resp_h
        self.port = (
            ""
            if flow.resp_p is None or flow.proto == "icmp"
            else f" port {flow.resp_p}/{flow.proto}"
        )
        self.flow = flow
        self._values, self._usual = values, usual

    def count(self, name: str, what: str = "") -> str:
        """`1 host`, `412 hosts`; the number alone without `what`."""
        number = round(self._values.get(name) or 0)
        return f"{number:,} {what if number == 1 else what + 's'}" if what else f"{number:,}"

    def size(self, name: str) -> str:
        return amount(self._values.get(name) or 0, "B")

    def number(self, name: str) -> float:
        return self._values.get(name) or 0.0

    def usually(self, name: str, unit: str = "") -> str:
        """The comparison with normal traffic; nothing where that has as much."""
        usual = self._usual.get(name)
        return (
            ""
            if usual is None or usual >= self.number(name)
            else f"; normal traffic shows {amount(usual, unit)}"
        )


def _scan(n: _Numbers) -> str:
    ports, hosts, services = (
        "pair_failed_ports_600s",
        "orig_acts_failed_peers_600s",
        "orig_acts_failed_services_600s",
    )
    if n.number(ports) > n.number(hosts):
        return f"{n.orig} tried {n.count(ports, 'port')} of {n.resp} without success in 10 min{n.usually(ports)}."
    told = f"{n.orig} tried {n.count(services, 'service')} of {n.count(hosts, 'host')} without success in 10 min"
    return f"{told}, last {n.resp}{n.port}{n.usually(services)}."


def _brute_force(n: _Numbers) -> str:
    logins = n.count("pair_logins_600s", "session")
    told = f"{n.orig} opened {logins} with the login service at {n.resp}{n.port} in 10 min"
    return f"{told}, {n.count('pair_logins_60s')} of them in the last minute{n.usually('pair_logins_600s')}."


def _flood(n: _Numbers) -> str:
    packets, flows, peers = (
        f"resp_acted_upon_{what}_60s" for what in ("packets", "flows", "peers")
    )
    told = f"{n.resp} received {n.count(packets, 'packet')} in {n.count(flows, 'flow')} from {n.count(peers, 'host')}"
    return f"{told} in 1 min, this one from {n.orig}{n.usually(packets)}."


def _command_and_control(n: _Numbers) -> str:
    contacts, failed, median = "pair_flows_3600s", "pair_failed_3600s", n.number("interval_median")
    every = f", about every {amount(median, 's')}" if median else ""
    vain = f", {n.count(failed)} of them in vain" if n.number(failed) else ""
    alike = (
        f", {amount(n.number('same_size'), '0-1')} of the last ones alike in size"
        if n.number("same_size")
        else ""
    )
    told = f"{n.orig} contacted {n.resp}{n.port} {n.count(contacts, 'time')} in 1 h"
    return f"{told}{every}{vain}{alike}{n.usually(contacts)}."


def _exfiltration(n: _Numbers) -> str:
    told = f"{n.orig} sent {n.size('pair_sent_3600s')} to {n.resp}{n.port} in 1 h in {n.count('pair_flows_3600s', 'flow')}"
    return (
        f"{told} and received {n.size('pair_received_3600s')}{n.usually('pair_sent_3600s', 'B')}."
    )


def _spreading(n: _Numbers) -> str:
    peers = "orig_acts_peers_600s"
    told = f"{n.orig} knocked at {n.count(peers, 'host')} in 10 min, last {n.resp}{n.port}"
    return f"{told}: {n.count('orig_acts_failed_peers_600s')} did not answer{n.usually(peers)}."


def _inbound_noise(n: _Numbers) -> str:
    told = f"{n.resp} was approached from outside by {n.count('resp_acted_upon_peers_3600s', 'host')} in 1 h"
    return f"{told} ({n.count('resp_acted_upon_flows_3600s', 'flow')}), this time by {n.orig}{n.port and ' at' + n.port}."


def _other(n: _Numbers) -> str:
    told = f"{n.orig} and {n.resp}{n.port} exchanged {n.count('pair_flows_3600s', 'flow')} in 1 h"
    return f"{told}, unlike normal traffic{n.usually('pair_flows_3600s')}."


_SENTENCES: dict[str, Callable[[_Numbers], str]] = {
    "scan": _scan,
    "brute_force": _brute_force,
    "flood": _flood,
    "command_and_control": _command_and_control,
    "exfiltration": _exfiltration,
    "spreading": _spreading,
    "inbound_noise": _inbound_noise,
}
