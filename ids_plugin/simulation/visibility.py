"""How the line, the sensor's position and its checksum policy change which contacts are seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ids_plugin.schema.score import CLASSES
from ids_plugin.simulation.contacts import (
    BAD_CHECKSUM,
    ICMP,
    TCP,
    UNANSWERED,
    V6_LINK,
    V6_WIDE,
    Contacts,
    Sensor,
    take_contacts,
)
from ids_plugin.simulation.draws import I64, Bool, Generator, log_uniform_value, spread_bits
from ids_plugin.simulation.networks import Network

IPV4_ONLY_CLASSES = ("scan", "flood", "spreading", "brute_force", "inbound_noise")
"""Classes whose peers outside are never reached by IPv6: nobody guesses such addresses"""


def as_sensor_sees(network: Network, rng: Generator, batches: list[Contacts]) -> list[Contacts]:
    """The contacts as this network's line and the sensor's place on it let them be seen."""
    if rng.random() < 0.15:
        begin = rng.uniform(0, network.seconds)
        end = begin + log_uniform_value(rng, 30, 2400)
        batches = [during_outage(contacts, network.sensor, begin, end) for contacts in batches]
    if not network.is_public and rng.random() < 0.07:
        return [behind_nat(contacts, network.sensor, network.gateway) for contacts in batches]
    if network.has_ipv6:
        return [
            contacts
            if CLASSES[contacts.label] in IPV4_ONLY_CLASSES
            else with_ipv6(contacts, network.sensor)
            for contacts in batches
        ]
    return batches


def begun_before(contacts: Contacts, end: float) -> Contacts:
    """The contacts that begin before `end`."""
    return take_contacts(contacts, np.flatnonzero(contacts.time < end))


def without_self_contacts(contacts: Contacts) -> Contacts:
    """The contacts that reach the network: a host's contacts with itself don't."""
    return take_contacts(contacts, np.flatnonzero(contacts.orig != contacts.resp))


def during_outage(contacts: Contacts, sensor: Sensor, begin: float, end: float) -> Contacts:
    """The same contacts while nothing outside can be reached: asked in vain from inside, and
    nothing comes in.
    """
    is_inside, is_outside = (
        sensor.is_local(contacts.orig),
        ~sensor.is_local(contacts.resp) & (contacts.resp < V6_LINK),
    )
    is_dark = (contacts.time >= begin) & (contacts.time < end)
    remaining = take_contacts(contacts, np.flatnonzero(is_inside | ~is_dark))
    is_lost = (is_dark & is_outside)[is_inside | ~is_dark]
    return replace(remaining, ending=np.where(is_lost, UNANSWERED, remaining.ending))


def behind_nat(contacts: Contacts, sensor: Sensor, address: int) -> Contacts:
    """What is left of the contacts outside of a router that lends all its hosts one address."""
    orig_is_local, resp_is_local = sensor.is_local(contacts.orig), sensor.is_local(contacts.resp)
    crossing = (
        (orig_is_local != resp_is_local) & (contacts.orig < V6_LINK) & (contacts.resp < V6_LINK)
    )
    masked = replace(
        contacts,
        orig=np.where(orig_is_local, address, contacts.orig),
        resp=np.where(resp_is_local, address, contacts.resp),
    )
    return take_contacts(masked, np.flatnonzero(crossing))


def with_ipv6(contacts: Contacts, sensor: Sensor) -> Contacts:
    """The same contacts in a network that has IPv6: a fifth of the peers outside are reached by
    it.
    """
    orig_is_local, resp_is_local = sensor.is_local(contacts.orig), sensor.is_local(contacts.resp)
    outside = np.where(orig_is_local, contacts.resp, contacts.orig)
    uses_ipv6 = (
        (orig_is_local != resp_is_local)
        & (contacts.orig < V6_LINK)
        & (contacts.resp < V6_LINK)
        & (contacts.proto != ICMP)
        & (spread_bits(outside, sensor.salt) % 5 == 0)
    )

    def moved(codes: I64, is_local: Bool) -> I64:
        return np.where(uses_ipv6, V6_WIDE + np.where(is_local, codes & 0xFFFF, codes), codes)

    return replace(
        contacts, orig=moved(contacts.orig, orig_is_local), resp=moved(contacts.resp, resp_is_local)
    )


def with_refused_checksums(network: Network, rng: Generator, contacts: Contacts) -> Contacts:
    """The same contacts as a sensor sees them that refuses the checksums of some hosts
    (offloading).
    """
    is_refused = (
        (contacts.proto == TCP)
        & (spread_bits(contacts.orig, network.sensor.salt + 9) % 12 == 0)
        & (rng.random(len(contacts.time)) < 0.5)
    )
    return replace(contacts, ending=np.where(is_refused, BAD_CHECKSUM, contacts.ending))
