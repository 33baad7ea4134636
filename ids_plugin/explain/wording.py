"""Numbers as an analyst reads them: natural units, phrases, and the one sentence that says what
happened."""

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


def sentence(label: str, flow: EarlierFlow, values: Values, baseline: Values) -> str:
    """What, who, how often, compared with what: one sentence of names, counts and times.

    `values` and `baseline` are table features in natural units, of this flow and of normal traffic.
    """
    return _SENTENCES.get(label, _other)(_FlowNumbers(flow, values, baseline))


class _FlowNumbers:
    """The numbers of one flow, ready for a sentence."""

    def __init__(self, flow: EarlierFlow, values: Values, baseline: Values) -> None:
        self.orig, self.resp = flow.orig_h, flow.resp_h
        has_port = flow.resp_p is not None and flow.proto != "icmp"
        self.port = f" port {flow.resp_p}/{flow.proto}" if has_port else ""
        self._values, self._baseline = values, baseline

    def count(self, name: str, what: str = "") -> str:
        """`1 host`, `412 hosts`; the number alone without `what`."""
        number = round(self._values.get(name) or 0)
        return f"{number:,} {what if number == 1 else what + 's'}" if what else f"{number:,}"

    def size(self, name: str) -> str:
        """Bytes with their unit: `1.2 MB`."""
        return amount(self._values.get(name) or 0, "B")

    def number(self, name: str) -> float:
        """The value of a feature, 0 where it is unknown."""
        return self._values.get(name) or 0.0

    def comparison(self, name: str, unit: str = "") -> str:
        """The comparison with normal traffic; empty where normal traffic has as much."""
        baseline = self._baseline.get(name)
        if baseline is None or baseline >= self.number(name):
            return ""
        return f"; normal traffic shows {amount(baseline, unit)}"


def _scan(flow: _FlowNumbers) -> str:
    failed_ports = "pair_failed_ports_600s"
    failed_hosts = "orig_acts_failed_peers_600s"
    failed_services = "orig_acts_failed_services_600s"
    if flow.number(failed_ports) > flow.number(failed_hosts):
        ports = flow.count(failed_ports, "port")
        comparison = flow.comparison(failed_ports)
        return f"{flow.orig} tried {ports} of {flow.resp} without success in 10 min{comparison}."
    services, hosts = flow.count(failed_services, "service"), flow.count(failed_hosts, "host")
    comparison = flow.comparison(failed_services)
    return (
        f"{flow.orig} tried {services} of {hosts} without success in 10 min, "
        f"last {flow.resp}{flow.port}{comparison}."
    )


def _brute_force(flow: _FlowNumbers) -> str:
    sessions = flow.count("pair_logins_600s", "session")
    last_minute = flow.count("pair_logins_60s")
    return (
        f"{flow.orig} opened {sessions} with the login service at {flow.resp}{flow.port} "
        f"in 10 min, "
        f"{last_minute} of them in the last minute{flow.comparison('pair_logins_600s')}."
    )


def _flood(flow: _FlowNumbers) -> str:
    packets = flow.count("resp_acted_upon_packets_60s", "packet")
    flows = flow.count("resp_acted_upon_flows_60s", "flow")
    peers = flow.count("resp_acted_upon_peers_60s", "host")
    comparison = flow.comparison("resp_acted_upon_packets_60s")
    return (
        f"{flow.resp} received {packets} in {flows} from {peers} in 1 min, "
        f"this one from {flow.orig}{comparison}."
    )


def _command_and_control(flow: _FlowNumbers) -> str:
    contacts = "pair_flows_3600s"
    sentence = f"{flow.orig} contacted {flow.resp}{flow.port} {flow.count(contacts, 'time')} in 1 h"
    median_s = flow.number("interval_median")
    if median_s:
        sentence += f", about every {amount(median_s, 's')}"
    if flow.number("pair_failed_3600s"):
        sentence += f", {flow.count('pair_failed_3600s')} of them in vain"
    same_size = flow.number("same_size")
    if same_size:
        sentence += f", {amount(same_size, '0-1')} of the last ones alike in size"
    return f"{sentence}{flow.comparison(contacts)}."


def _exfiltration(flow: _FlowNumbers) -> str:
    sent, received = flow.size("pair_sent_3600s"), flow.size("pair_received_3600s")
    flows = flow.count("pair_flows_3600s", "flow")
    comparison = flow.comparison("pair_sent_3600s", "B")
    return (
        f"{flow.orig} sent {sent} to {flow.resp}{flow.port} in 1 h in {flows} "
        f"and received {received}{comparison}."
    )


def _spreading(flow: _FlowNumbers) -> str:
    hosts = flow.count("orig_acts_peers_600s", "host")
    unanswered = flow.count("orig_acts_failed_peers_600s")
    comparison = flow.comparison("orig_acts_peers_600s")
    return (
        f"{flow.orig} knocked at {hosts} in 10 min, last {flow.resp}{flow.port}: "
        f"{unanswered} did not answer{comparison}."
    )


def _inbound_noise(flow: _FlowNumbers) -> str:
    hosts = flow.count("resp_acted_upon_peers_3600s", "host")
    flows = flow.count("resp_acted_upon_flows_3600s", "flow")
    port = f" at{flow.port}" if flow.port else ""
    return (
        f"{flow.resp} was approached from outside by {hosts} in 1 h ({flows}), "
        f"this time by {flow.orig}{port}."
    )


def _other(flow: _FlowNumbers) -> str:
    flows = flow.count("pair_flows_3600s", "flow")
    comparison = flow.comparison("pair_flows_3600s")
    return (
        f"{flow.orig} and {flow.resp}{flow.port} exchanged {flows} in 1 h, "
        f"unlike normal traffic{comparison}."
    )


_SENTENCES: dict[str, Callable[[_FlowNumbers], str]] = {
    "scan": _scan,
    "brute_force": _brute_force,
    "flood": _flood,
    "command_and_control": _command_and_control,
    "exfiltration": _exfiltration,
    "spreading": _spreading,
    "inbound_noise": _inbound_noise,
}
