"""Command and control: beacons, connections that last, and devices whose controller is gone."""

from __future__ import annotations

import numpy as np

from ids_plugin.simulation.contacts import (
    ABORTED,
    DONE,
    HALF_CLOSED_BY_RESP,
    ONGOING,
    REFUSED,
    RESET,
    UDP,
    UNANSWERED,
    Contacts,
    draw_endings,
    make_contacts,
)
from ids_plugin.simulation.draws import (
    F64,
    Generator,
    burst_times,
    log_uniform,
    log_uniform_value,
    periodic_times,
    public_addresses,
)
from ids_plugin.simulation.networks import Network


def _without_sleep(rng: Generator, times: F64, begin: float, end: float) -> F64:
    """Times of a controller's client that now and then sleeps for a while."""
    if rng.random() < 0.7:
        return times
    phase, cycle, duty = (
        rng.random(),
        log_uniform_value(rng, 300, max(600, (end - begin) / 2)),
        rng.uniform(0.3, 0.8),
    )
    return times[((times - begin) / cycle + phase) % 1 < duty]


def beacon(network: Network, rng: Generator, host: int, begin: float, end: float) -> list[Contacts]:
    """A controller that answers: short connections every so often, over plain TCP, TLS, HTTP, IRC
    or DNS.
    """
    style = rng.choice(["tcp", "ssl", "http", "irc", "dns"], p=[0.34, 0.2, 0.2, 0.14, 0.12])
    port = {
        "tcp": int(rng.integers(1, 65535)),
        "ssl": int(rng.choice([443, 443, 8443, 4443])),
        "http": int(rng.choice([80, 80, 8080, 8000])),
        "irc": int(rng.choice([6667, 6666, 7000, int(rng.integers(1024, 65535))])),
        "dns": 53,
    }[str(style)]
    period = log_uniform_value(
        rng,
        network.ranges.period[0],
        min(network.ranges.period[1], max(network.ranges.period[0] * 2, (end - begin) / 6)),
    )
    _, times = periodic_times(
        rng,
        np.array([begin]),
        np.array([end]),
        np.array([period]),
        np.array([rng.uniform(*network.ranges.jitter)]),
    )
    times = _without_sleep(rng, times, begin, end)[:6000]
    n, peer_to_peer = len(times), public_addresses(rng, int(rng.choice([1, 1, 1, 2, 5])))
    peer = peer_to_peer[
        np.minimum(
            (np.linspace(0, len(peer_to_peer), n, endpoint=False) + (rng.random(n) < 0.1)).astype(
                np.int64
            ),
            len(peer_to_peer) - 1,
        )
    ]
    up, down, size_spread = (
        log_uniform_value(rng, 20, 1500),
        log_uniform_value(rng, 20, 2500),
        float(rng.choice([0.0, 0.01, 0.1, 0.3])),
    )
    habit = int(rng.choice([DONE, DONE, RESET, HALF_CLOSED_BY_RESP, ABORTED]))
    other = draw_endings(
        rng,
        n,
        {
            UNANSWERED: log_uniform_value(rng, 0.01, 0.4),
            RESET: log_uniform_value(rng, 0.01, 0.15),
            REFUSED: log_uniform_value(rng, 0.005, 0.15),
        },
    )
    ending = np.where(other == DONE, habit, other)
    if style == "dns":
        ending = np.where(ending == DONE, DONE, UNANSWERED) if habit == DONE else np.full(n, DONE)
    command = np.where(rng.random(n) < 0.04, log_uniform(rng, 2, 60, n), 1.0)
    return [
        make_contacts(
            rng,
            f"beacon_{style}",
            times,
            host,
            peer,
            port,
            proto=UDP if style == "dns" else 0,
            service="" if style == "tcp" else str(style),
            ending=ending,
            orig_bytes=up * np.exp(size_spread * rng.standard_normal(n)),
            resp_bytes=down * command * np.exp(size_spread * rng.standard_normal(n)),
            duration=log_uniform_value(rng, 0.05, 60) * rng.uniform(0.8, 1.2, n)
            if style != "dns"
            else 0.0,
            label="command_and_control",
        )
    ]


def lasting_control(
    network: Network, rng: Generator, host: int, begin: float, end: float
) -> list[Contacts]:
    """Connections to a controller that stay open for minutes to hours with keep-alives, and come
    back after resets.
    """
    mean = log_uniform_value(rng, 60, 20000)
    _, times = periodic_times(
        rng,
        np.array([begin]),
        np.array([end]),
        np.array([mean]),
        np.array([float(rng.choice([0.1, 1.0]))]),
    )
    n = len(times)
    life = np.minimum(np.append(np.diff(times), end - begin) * rng.uniform(0.6, 1.0, n), mean * 3)
    pings = 1 + life / log_uniform_value(rng, 5, 300)
    peer, port = (
        int(public_addresses(rng, 1)[0]),
        int(
            rng.choice(
                [
                    23,
                    443,
                    6667,
                    6697,
                    48101,
                    int(rng.integers(1, 65535)),
                    int(rng.integers(1024, 65535)),
                ]
            )
        ),
    )
    sessions = make_contacts(
        rng,
        "lasting_control",
        times,
        host,
        peer,
        port,
        service={6667: "irc", 443: "ssl"}.get(port, ""),
        duration=life,
        orig_bytes=pings * rng.integers(2, 120) + 40,
        resp_bytes=pings * rng.integers(2, 160) + 60,
        data_packets=pings,
        ending=draw_endings(
            rng, n, {RESET: 0.3, HALF_CLOSED_BY_RESP: 0.2, ABORTED: 0.1, ONGOING: 0.2}
        ),
        label="command_and_control",
    )
    is_lost = rng.random(n) < 0.4
    _, retry_times = burst_times(
        rng,
        times[is_lost] + life[is_lost],
        rng.geometric(0.25, int(is_lost.sum())),
        log_uniform_value(rng, 1, 60),
    )
    return [
        sessions,
        make_contacts(
            rng,
            "reconnecting",
            retry_times,
            host,
            peer,
            port,
            ending=rng.choice([UNANSWERED, UNANSWERED, REFUSED, RESET], len(retry_times)),
            orig_bytes=0,
            label="command_and_control",
        ),
    ]


def dead_controller(
    network: Network, rng: Generator, host: int, begin: float, end: float
) -> list[Contacts]:
    """The controller is gone, and the device keeps trying it for hours, evenly and without growing
    tired.
    """
    period = log_uniform_value(rng, 2, 300)
    _, times = periodic_times(
        rng,
        np.array([begin]),
        np.array([end]),
        np.array([period]),
        np.array([rng.uniform(*network.ranges.jitter)]),
    )
    times = times[:5000]
    n = len(times)
    peer_to_peer = public_addresses(rng, int(rng.integers(1, 3)))
    ports = rng.choice(
        [23, 80, 443, 6667, int(rng.integers(1, 1024)), int(rng.integers(1024, 65535))],
        len(peer_to_peer),
    )
    which = np.where(rng.random(n) < 0.9, 0, rng.integers(0, len(peer_to_peer), n))
    unanswered_ending = REFUSED if rng.random() < 0.2 else UNANSWERED
    is_answered = (rng.random(n) < log_uniform_value(rng, 1e-4, 0.6)) & (
        unanswered_ending == UNANSWERED
    )
    return [
        make_contacts(
            rng,
            "dead_controller",
            times,
            host,
            peer_to_peer[which],
            ports[which],
            ending=np.where(is_answered, HALF_CLOSED_BY_RESP, unanswered_ending),
            orig_bytes=log_uniform_value(rng, 20, 400),
            resp_bytes=log_uniform_value(rng, 20, 400),
            attempts=int(rng.choice([0, 0, 1, 3])),
            duration=0.0,
            label="command_and_control",
        )
    ]
