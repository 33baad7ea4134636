"""What devices do without people: polling of their clouds, MQTT, cameras, printers, telephones."""

from __future__ import annotations

import numpy as np

from ids_plugin.simulation.benign.common import fault_odds, recording_span
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
    I64,
    Generator,
    log_uniform,
    periodic_times,
    public_addresses,
    spread_bits,
)
from ids_plugin.simulation.networks import Network


def _draw_models(rng: Generator, hosts: I64, salt: int) -> tuple[int, I64]:
    """Number of models of a device type in this network, and every unit's."""
    count = int(rng.integers(1, 4))
    return count, spread_bits(hosts, salt) % count


def _polling(
    network: Network,
    rng: Generator,
    hosts: I64,
    detail: str,
    period: tuple[float, float],
    ports: tuple[int, ...],
    services: tuple[str, ...],
) -> list[Contacts]:
    """Devices that ask their cloud every so often: a model's own peer, port, rhythm and sizes."""
    if len(hosts) == 0:
        return []
    count, model = _draw_models(rng, hosts, network.sensor.salt)
    rhythm, jitter = log_uniform(rng, *period, count), rng.choice([0.0, 0.02, 0.2, 0.6, 1.0], count)
    peer_to_peer, port_index = (
        public_addresses(rng, count * 3).reshape(count, 3),
        rng.integers(0, len(ports), count),
    )
    up, down, fault_shares = (
        log_uniform(rng, 40, 4000, count),
        log_uniform(rng, 40, 9000, count),
        rng.choice([0.002, 0.02, 0.15], count),
    )
    usual_ending = rng.choice([DONE, DONE, DONE, ABORTED, RESET, HALF_CLOSED_BY_RESP], count)
    device, times = periodic_times(
        rng, *recording_span(network, len(hosts)), rhythm[model], jitter[model]
    )
    unit_model, n = model[device], len(device)
    peer = peer_to_peer[unit_model, np.where(rng.random(n) < 0.9, 0, rng.integers(0, 3, n))]
    ending = np.where(
        rng.random(n) < fault_shares[unit_model],
        rng.choice([UNANSWERED, REFUSED, ABORTED, RESET], n),
        np.where(rng.random(n) < 0.9, usual_ending[unit_model], DONE),
    )
    blocked = (rng.random(count) < 0.15)[unit_model] & (peer != peer_to_peer[unit_model, 0])
    ending = np.where(blocked, UNANSWERED, ending)
    size_spread = rng.choice([0.0, 0.02, 0.3], count)[unit_model]
    return [
        make_contacts(
            rng,
            detail,
            times,
            hosts[device],
            peer,
            np.array(ports)[port_index][unit_model],
            service=np.array(services)[port_index][unit_model],
            ending=ending,
            orig_bytes=up[unit_model] * np.exp(size_spread * rng.standard_normal(n)),
            resp_bytes=down[unit_model] * np.exp(size_spread * rng.standard_normal(n)),
            duration=log_uniform(rng, 0.02, 60, count)[unit_model] * rng.uniform(0.7, 1.4, n),
        )
    ]


def cloud_polling(network: Network, rng: Generator) -> list[Contacts]:
    """Bulbs, hubs, televisions and phones that poll their cloud, over TLS, plain HTTP or ports of
    their own.
    """
    own = int(rng.integers(1024, 65535))
    return [
        *_polling(
            network,
            rng,
            network.of_type("bulb", "hub", "camera"),
            "cloud_polling",
            (10, 3600),
            (443, 80, 8883, own),
            ("ssl", "http", "ssl", ""),
        ),
        *_polling(
            network,
            rng,
            network.of_type("tv", "console", "phone"),
            "telemetry",
            (60, 3600),
            (443, 80, 5223),
            ("ssl", "http", "ssl"),
        ),
        *_polling(
            network,
            rng,
            network.of_type("workstation", "server", "nas", "printer"),
            "telemetry",
            (300, 7200),
            (443, 80),
            ("ssl", "http"),
        ),
    ]


def mqtt_messaging(network: Network, rng: Generator) -> list[Contacts]:
    """MQTT sensors: connections that last, or one per reading; to a broker here or in the cloud."""
    hosts = network.of_type("sensor", "hub")
    if len(hosts) == 0:
        return []
    brokers = network.of_type("broker")
    broker = int(brokers[0]) if len(brokers) else int(public_addresses(rng, 1)[0])
    port = int(rng.choice([1883, 8883, 1884]))
    service = "ssl" if port == 8883 else "mqtt"
    is_lasting = spread_bits(hosts, 7) % 2 == 0
    period = np.where(
        is_lasting, log_uniform(rng, 1200, 14400, len(hosts)), log_uniform(rng, 10, 900, len(hosts))
    )
    subject, times = periodic_times(
        rng, *recording_span(network, len(hosts)), period, rng.choice([0.0, 0.1, 0.5], len(hosts))
    )
    n, stays_open = len(subject), is_lasting[subject]
    life = np.where(stays_open, period[subject] * rng.uniform(0.5, 1.0, n), rng.uniform(0.05, 3, n))
    size = log_uniform(rng, 30, 600, len(hosts))[subject]
    messages = np.where(stays_open, life / log_uniform(rng, 5, 120, len(hosts))[subject] + 1, 2)
    return [
        make_contacts(
            rng,
            "mqtt",
            times,
            hosts[subject],
            broker,
            port,
            service=service,
            duration=life,
            orig_bytes=size * messages,
            resp_bytes=4 + 4 * messages,
            data_packets=messages,
            ending=draw_endings(
                rng,
                n,
                fault_odds(network)
                | {UNANSWERED: float(rng.choice([0.005, 0.08])), RESET: 0.08, ONGOING: 0.05},
            ),
        )
    ]


def cameras(network: Network, rng: Generator) -> list[Contacts]:
    """Streams to a recorder over RTSP or UDP, and clips uploaded to the cloud when something
    moves.
    """
    hosts = network.of_type("camera")
    if len(hosts) == 0:
        return []
    recorders = network.of_type("recorder", "nas", "workstation")
    recorder = int(recorders[0]) if len(recorders) else int(public_addresses(rng, 1)[0])
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(hosts)),
        log_uniform(rng, 300, 7200, len(hosts)),
        np.full(len(hosts), 0.3),
    )
    n, life = len(subject), log_uniform(rng, 20, 1800, len(subject))
    volume = life * log_uniform(rng, 2e4, 6e5, len(hosts))[subject]
    udp = (spread_bits(hosts, 9) % 2 == 0)[subject]
    stream = make_contacts(
        rng,
        "camera_stream",
        times,
        np.where(udp, hosts[subject], recorder),
        np.where(udp, recorder, hosts[subject]),
        np.where(udp, 5004, 554),
        proto=np.where(udp, UDP, 0),
        orig_bytes=np.where(udp, volume, 900),
        resp_bytes=np.where(udp, 0, volume),
        duration=life,
        ending=np.where(
            udp, UNANSWERED, draw_endings(rng, n, fault_odds(network) | {ABORTED: 0.3})
        ),
    )
    clips = hosts[rng.random(len(hosts)) < 0.6]
    store = public_addresses(rng, 3)
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(clips)),
        log_uniform(rng, 200, 5400, len(clips)),
        np.full(len(clips), 1.0),
    )
    size = log_uniform(rng, 5e4, 2e7, len(subject))
    upload = make_contacts(
        rng,
        "camera_upload",
        times,
        clips[subject],
        store[rng.integers(0, 3, len(subject))],
        443,
        service="ssl",
        orig_bytes=size,
        resp_bytes=2000 + rng.integers(0, 4000, len(subject)),
        duration=size / log_uniform(rng, 1e5, 3e6, len(subject)),
        ending=draw_endings(rng, len(subject), fault_odds(network)),
    )
    return [stream, upload]


def printers(network: Network, rng: Generator) -> list[Contacts]:
    """Printers: asked for their state over SNMP, now and then printed on."""
    machines, asking = (
        network.of_type("printer"),
        network.of_type("workstation", "server", "monitor"),
    )
    pair = np.arange(min(40, len(machines) * len(asking)))
    if len(pair) == 0:
        return []
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(pair)),
        log_uniform(rng, 60, 3600, len(pair)),
        np.full(len(pair), 0.05),
    )
    n, printing = len(subject), rng.random(len(subject)) < 0.1
    size = rng.integers(60, 200, len(pair))[subject]
    return [
        make_contacts(
            rng,
            "printer",
            times,
            asking[subject % len(asking)],
            machines[subject % len(machines)],
            np.where(printing, 9100, 161),
            proto=np.where(printing, 0, UDP),
            service=np.where(printing, "", "snmp"),
            orig_bytes=np.where(printing, log_uniform(rng, 1e4, 5e6, n), size),
            resp_bytes=np.where(printing, 0, size + 10),
            ending=draw_endings(rng, n, {UNANSWERED: 0.1}),
        )
    ]


def telephones(network: Network, rng: Generator) -> list[Contacts]:
    """Telephones that register at their exchange and talk."""
    phones, exchange = network.of_type("voip"), int(public_addresses(rng, 1)[0])
    m = len(phones)
    subject, times = periodic_times(
        rng, *recording_span(network, m), log_uniform(rng, 20, 600, m), np.full(m, 0.05)
    )
    up, down = rng.integers(350, 900, m)[subject], rng.integers(300, 700, m)[subject]
    registered = make_contacts(
        rng,
        "sip",
        times,
        phones[subject],
        exchange,
        5060,
        proto=UDP,
        service="sip",
        orig_port=5060,
        orig_bytes=up,
        resp_bytes=down,
    )
    subject, times = periodic_times(
        rng, *recording_span(network, m), log_uniform(rng, 1200, 14400, m), np.ones(m)
    )
    life, n = log_uniform(rng, 10, 1800, len(subject)), len(subject)
    ports, gates = 2 * rng.integers(5000, 15000, n), exchange + rng.integers(0, 9, n)
    size = life * rng.choice([3000, 8600])
    talk = make_contacts(
        rng,
        "call",
        times,
        phones[subject],
        gates,
        ports,
        proto=UDP,
        orig_bytes=size,
        resp_bytes=size,
        data_packets=life * 50,
        duration=life,
    )
    return [registered, talk]
