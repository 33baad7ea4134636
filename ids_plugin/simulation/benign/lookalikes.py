"""What clean networks do that looks like an attack."""

from __future__ import annotations

import numpy as np

from ids_plugin.simulation.benign.common import fault_odds, recording_span
from ids_plugin.simulation.contacts import (
    ABORTED,
    DONE,
    ICMP,
    PROBED,
    REFUSED,
    RESET,
    TCP,
    UDP,
    UNANSWERED,
    Contacts,
    draw_endings,
    make_contacts,
)
from ids_plugin.simulation.draws import (
    F64,
    Bool,
    Generator,
    burst_times,
    log_uniform,
    log_uniform_integers,
    log_uniform_value,
    periodic_times,
    public_addresses,
    spread_bits,
)
from ids_plugin.simulation.networks import Network


def backups(network: Network, rng: Generator) -> list[Contacts]:
    """Large uploads that are wanted: to a store inside, or to the cloud; in one piece or in
    many.
    """
    hosts = network.of_type("workstation", "server", "nas", "database", "phone")
    hosts = hosts[rng.random(len(hosts)) < 0.25][:10]
    stores = network.of_type("nas")
    inside = len(stores) > 0 and rng.random() < 0.5
    store = int(stores[0]) if inside else int(public_addresses(rng, 1)[0])
    batches = []
    for host in hosts:
        pieces = int(log_uniform_integers(rng, 1, 80, 1)[0])
        times = np.sort(
            rng.uniform(0, network.seconds)
            + rng.exponential(log_uniform_value(rng, 1, 120), pieces).cumsum()
        )
        times = times[times < network.seconds]
        size = (
            log_uniform_value(rng, 1e5, 3e9)
            / pieces
            * rng.lognormal(0, rng.choice([0.05, 0.8]), len(times))
        )
        port = int(rng.choice([445, 22, 873]) if inside else rng.choice([443, 443, 22]))
        batches.append(
            make_contacts(
                rng,
                "backup",
                times,
                host,
                store,
                port,
                service={443: "ssl", 22: "ssh", 445: "smb"}.get(port, ""),
                orig_bytes=size + 500,
                resp_bytes=size * 0.002 + 3000,
                duration=size / log_uniform_value(rng, 2e5, 5e7) + 0.3,
                ending=draw_endings(rng, len(times), fault_odds(network)),
            )
        )
    return batches


def monitoring(network: Network, rng: Generator) -> list[Contacts]:
    """A monitor that asks many hosts and ports at a steady rhythm; what is down stays down for a
    while.
    """
    if len(network.hosts) < 4 or rng.random() < 0.4:
        return []
    monitor = int(
        rng.choice(
            network.of_type("monitor", "server", "workstation", "hub", "nas")
            if len(network.of_type("monitor", "server", "workstation", "hub", "nas"))
            else network.hosts
        )
    )
    monitored = network.hosts[rng.permutation(len(network.hosts))[: int(rng.integers(3, 40))]]
    kinds = rng.choice(6, len(monitored))
    port, proto = (
        np.array([0, 22, 80, 443, 161, 9100])[kinds],
        np.array([ICMP, 0, 0, 0, UDP, 0])[kinds],
    )
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(monitored)),
        np.full(len(monitored), float(rng.choice([30, 60, 120, 300, 600]))),
        np.full(len(monitored), 0.03),
    )
    n = len(subject)
    is_down = (rng.random(len(monitored)) < 0.15)[subject] | (
        np.abs(times - rng.uniform(0, network.seconds, len(monitored))[subject])
        < log_uniform_value(rng, 60, 1200)
    ) & (rng.random(len(monitored)) < 0.3)[subject]
    failing = np.where(
        spread_bits(monitored, 13)[subject] % 2 == 0,
        UNANSWERED,
        np.where(proto[subject] == 0, REFUSED, UNANSWERED),
    )
    return [
        make_contacts(
            rng,
            "monitoring",
            times,
            monitor,
            monitored[subject],
            port[subject],
            proto=proto[subject],
            orig_port=np.where(proto[subject] == ICMP, 8, rng.integers(32768, 61000, n)),
            orig_bytes=np.where(
                proto[subject] == ICMP, 56, rng.choice([0, 80, 200], len(monitored))[subject]
            ),
            resp_bytes=np.where(
                proto[subject] == ICMP, 56, rng.integers(40, 2000, len(monitored))[subject]
            ),
            ending=np.where(is_down, failing, DONE),
        )
    ]


def inventory(network: Network, rng: Generator) -> list[Contacts]:
    """An authorised scan of moderate breadth: known hosts and a few empty addresses, a handful of
    ports, unhurried.
    """
    if len(network.hosts) < 5 or rng.random() < 0.6:
        return []
    scanner = int(rng.choice(network.hosts))
    target_hosts = np.concatenate(
        [
            rng.permutation(network.hosts)[: int(rng.integers(3, 25))],
            network.unused_addresses(rng, int(rng.integers(0, 4))),
        ]
    )
    ports = rng.choice(
        [22, 80, 443, 445, 161, 3389, 9100, 8080, 135], int(rng.integers(1, 6)), replace=False
    )
    targets, port = (x.ravel() for x in np.meshgrid(target_hosts, ports, indexing="ij"))
    times = rng.uniform(0, network.seconds * 0.9) + np.cumsum(
        rng.exponential(log_uniform_value(rng, 0.3, 20), len(targets))
    )
    is_open = network.offers(targets, port)
    is_known = np.isin(targets, network.hosts)
    ending = np.where(
        is_open,
        np.where(rng.random(len(times)) < 0.6, DONE, ABORTED),
        np.where(is_known & (not network.drops_silently), REFUSED, UNANSWERED),
    )
    keep = times < network.seconds
    banners_read = rng.integers(0, 2, len(times)) * is_open
    probes = make_contacts(
        rng,
        "inventory",
        times,
        scanner,
        targets,
        port,
        proto=np.where(port == 161, UDP, 0),
        ending=ending,
        orig_bytes=80 * banners_read,
        resp_bytes=rng.integers(40, 900, len(targets)) * banners_read,
    )
    return [
        make_contacts(
            rng,
            "inventory",
            probes.time[keep],
            scanner,
            targets[keep],
            port[keep],
            proto=probes.proto[keep],
            ending=ending[keep],
            orig_bytes=probes.orig_bytes[keep],
            resp_bytes=probes.resp_bytes[keep],
        )
    ]


def failed_logins(network: Network, rng: Generator) -> list[Contacts]:
    """Somebody mistypes a password, or a job has an old one: a few short sessions, with pauses
    between.
    """
    servers = np.concatenate(
        [
            network.of_type("server", "nas", "database", "broker", "mail", "monitor", "sensor"),
            public_addresses(rng, 1),
        ]
    )
    users = network.of_type("workstation", "server", "phone", "sensor", "hub")
    batches = []
    for _ in range(int(rng.integers(0, 4)) if len(users) else 0):
        tries = int(rng.integers(2, 9))
        port, service = (
            (22, "ssh"),
            (22, "ssh"),
            (21, "ftp"),
            (143, "imap"),
            (1883, "mqtt"),
            (23, ""),
            (3389, "rdp"),
        )[rng.integers(0, 7)]
        times = rng.uniform(0, network.seconds * 0.95) + np.cumsum(
            rng.exponential(log_uniform_value(rng, 2, 300), tries)
        )
        times = times[times < network.seconds]
        up, down = log_uniform_value(rng, 60, 2500), log_uniform_value(rng, 60, 3500)
        batches.append(
            make_contacts(
                rng,
                "failed_login",
                times,
                int(rng.choice(users)),
                int(rng.choice(servers)),
                port,
                service=service,
                orig_bytes=up * rng.uniform(0.9, 1.1, len(times)),
                resp_bytes=down * rng.uniform(0.9, 1.1, len(times)),
                duration=log_uniform(rng, 1, 30, len(times)),
                ending=draw_endings(rng, len(times), {RESET: 0.2, ABORTED: 0.2}),
            )
        )
    return batches


def dead_services(network: Network, rng: Generator) -> list[Contacts]:
    """Devices that keep asking for what is gone. Inside: a printer, a store, for hours. Outside: a
    cloud that had answered and will again; most back off or rest between bouts, the few that ask
    evenly don't wait for long, because such outages are short. Rarely an address that is gone for
    good is asked for ever."""
    batches = []
    for _ in range(int(rng.poisson(3))):
        host, inside = int(rng.choice(network.hosts)), rng.random() < 0.6
        peer = (
            int(network.unused_addresses(rng, 1)[0]) if inside else int(public_addresses(rng, 1)[0])
        )
        port = int(
            rng.choice(
                [
                    80,
                    443,
                    445,
                    1883,
                    554,
                    514,
                    8883,
                    9100,
                    139,
                    631,
                    5000,
                    int(rng.integers(1024, 49152)),
                ]
            )
        )
        forever = not inside and rng.random() < 0.03
        even = forever or rng.random() < (0.4 if inside else 0.25)
        begin = 0.0 if forever else rng.uniform(0, network.seconds)
        longest = 36_000 if inside else 1_200 if even else 7_200
        end = (
            network.seconds
            if forever
            else min(begin + log_uniform_value(rng, 60, longest), network.seconds)
        )
        times = begin + np.cumsum(_retry_gaps(rng, even))
        ending = UNANSWERED if rng.random() < 0.6 else REFUSED
        batches.append(
            make_contacts(rng, "dead_service", times[times < end], host, peer, port, ending=ending)
        )
        if not forever and rng.random() < (0.8 if inside else 0.95):
            batches += _contacts_around_outage(network, rng, (begin, end), host, peer, port)
    return batches


def _retry_gaps(rng: Generator, even: bool) -> F64:
    """(400) seconds between tries: even, or growing to a limit; a third rests for long after every
    few.
    """
    growth = 1.0 if even else float(rng.choice([1.3, 1.6, 2.0]))
    gaps = (
        log_uniform_value(rng, 2, 300)
        * np.minimum(growth ** np.arange(400), 64)
        * rng.uniform(0.8, 1.2, 400)
    )
    if rng.random() < 0.35:
        gaps[:: int(rng.integers(3, 20))] += log_uniform_value(rng, 300, 3600)
    return np.asarray(np.minimum(gaps, 3600))


def _contacts_around_outage(
    network: Network,
    rng: Generator,
    outage_span: tuple[float, float],
    host: int,
    peer: int,
    port: int,
) -> list[Contacts]:
    """What the same two had to say before the outage, and after."""
    period, up, down = (
        log_uniform_value(rng, 20, 900),
        log_uniform_value(rng, 60, 3000),
        log_uniform_value(rng, 60, 3000),
    )
    span_begins, span_ends = (
        np.array([0.0, outage_span[1]]),
        np.array([outage_span[0], network.seconds]),
    )
    subject, times = periodic_times(
        rng, span_begins, span_ends, np.full(2, period), np.full(2, 0.2)
    )
    batches = []
    for name, part_times in (
        ("before_outage", times[subject == 0][-200:]),
        ("after_outage", times[subject == 1][:200]),
    ):
        ending = draw_endings(rng, len(part_times), fault_odds(network))
        batches.append(
            make_contacts(
                rng,
                name,
                part_times,
                host,
                peer,
                port,
                orig_bytes=up,
                resp_bytes=down,
                ending=ending,
            )
        )
    return batches


def administration(network: Network, rng: Generator) -> list[Contacts]:
    """Somebody, or a tool, logs in at many hosts in a row and does the same everywhere; a few are
    down.
    """
    servers = np.concatenate(
        [
            network.of_type(
                "server", "database", "nas", "broker", "mail", "nameserver", "sensor", "monitor"
            )
        ]
    )
    admins = network.of_type("workstation", "server", "monitor", "hub")
    batches = []
    for _ in range(int(rng.integers(0, 3)) if len(servers) > 2 and len(admins) else 0):
        targets = rng.permutation(servers)[: int(rng.integers(3, 40))]
        times = rng.uniform(0, network.seconds * 0.9) + np.cumsum(
            rng.exponential(log_uniform_value(rng, 0.2, 30), len(targets))
        )
        n, up, down = (
            len(times),
            log_uniform_value(rng, 1500, 60000),
            log_uniform_value(rng, 2000, 60000),
        )
        ending = draw_endings(rng, n, {UNANSWERED: 0.06, REFUSED: 0.04, ABORTED: 0.05})
        batches.append(
            make_contacts(
                rng,
                "administration",
                times,
                int(rng.choice(admins)),
                targets,
                22,
                service="ssh",
                orig_bytes=up * rng.lognormal(0, 0.2, n),
                resp_bytes=down * rng.lognormal(0, 0.3, n),
                duration=log_uniform(rng, 1, 120, n),
                ending=ending,
            )
        )
    return batches


def scheduled_jobs(network: Network, rng: Generator) -> list[Contacts]:
    """Timers that log in somewhere and do the same again and again: copies over ssh, probes of a
    login page, ftp.
    """
    clients = network.of_type("server", "workstation", "sensor", "hub", "nas", "camera")
    clients = clients[rng.random(len(clients)) < 0.15][:12]
    if len(clients) == 0:
        return []
    servers = np.where(
        rng.random(len(clients)) < 0.6,
        rng.choice(network.hosts, len(clients)),
        public_addresses(rng, len(clients)),
    )
    kinds = rng.integers(0, 5, len(clients))
    port, service = (
        np.array([22, 80, 21, 3306, 8080])[kinds],
        np.array(["ssh", "http", "ftp", "mysql", "http"])[kinds],
    )
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(clients)),
        log_uniform(rng, 8, 1800, len(clients)),
        rng.choice([0.01, 0.1, 0.5], len(clients)),
    )
    n = len(subject)
    up, down, life = (
        log_uniform(rng, low, high, len(clients))[subject]
        for low, high in ((150, 8000), (150, 20000), (0.05, 20))
    )
    variation = rng.lognormal(0, 0.05, n)
    return [
        make_contacts(
            rng,
            "job",
            times,
            clients[subject],
            servers[subject],
            port[subject],
            service=service[subject],
            orig_bytes=up * variation,
            resp_bytes=down * variation,
            duration=life * rng.uniform(0.8, 1.2, n),
            data_packets=0,
            ending=draw_endings(rng, n, fault_odds(network)),
        )
    ]


def empty_checks(network: Network, rng: Generator) -> list[Contacts]:
    """Devices and balancers that open a connection only to see that it opens, and close or reset it
    at once.
    """
    hosts = network.hosts[rng.random(len(network.hosts)) < 0.18][:14]
    far = rng.random(len(hosts)) < 0.5
    peer_to_peer = np.where(
        far, public_addresses(rng, len(hosts)), rng.choice(network.hosts, len(hosts))
    )
    port, habit = (
        rng.choice([80, 443, 53, 8080, 22, 1883], len(hosts)),
        rng.choice([DONE, ABORTED, PROBED, RESET], len(hosts)),
    )
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(hosts)),
        log_uniform(rng, 10, 3600, len(hosts)),
        rng.choice([0.01, 0.3], len(hosts)),
    )
    down = is_in_outage(rng, network, times)
    ending = np.where(
        down,
        np.where(spread_bits(peer_to_peer, 19)[subject] % 2 == 0, UNANSWERED, REFUSED),
        habit[subject],
    )
    return [
        make_contacts(
            rng,
            "empty_check",
            times,
            hosts[subject],
            peer_to_peer[subject],
            port[subject],
            ending=ending,
        )
    ]


def is_in_outage(rng: Generator, network: Network, times: F64) -> Bool:
    """Which times fall into one of the spells in which nothing answers: none, or up to three."""
    out = np.zeros(len(times), dtype=np.bool_)
    for _ in range(int(rng.integers(0, 4))):
        begin = rng.uniform(0, network.seconds)
        out |= (times > begin) & (times < begin + log_uniform_value(rng, 20, 3600))
    return out


def log_shipping(network: Network, rng: Generator) -> list[Contacts]:
    """Logs and measurements pushed to a collector all day: a trickle of uploads that is wanted."""
    hosts = network.of_type("server", "database", "hub", "sensor", "workstation")
    hosts = hosts[rng.random(len(hosts)) < 0.15][:15]
    store = network.of_type("nas", "monitor")
    peer = int(store[0]) if len(store) and rng.random() < 0.4 else int(public_addresses(rng, 1)[0])
    port = int(rng.choice([443, 443, 5044, 6514, 9200]))
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(hosts)),
        log_uniform(rng, 20, 1800, len(hosts)),
        rng.choice([0.02, 0.5, 1.0], len(hosts)),
    )
    n = len(subject)
    up = log_uniform(rng, 800, 4e5, len(hosts))[subject] * rng.lognormal(0, 0.6, n)
    return [
        make_contacts(
            rng,
            "log_shipping",
            times,
            hosts[subject],
            peer,
            port,
            service="ssl",
            orig_bytes=up,
            resp_bytes=rng.integers(150, 2500, n),
            duration=up / 2e5 + 0.05,
            ending=draw_endings(rng, n, fault_odds(network)),
        )
    ]


def long_lookups(network: Network, rng: Generator) -> list[Contacts]:
    """Reputation and mail checks that put long names into DNS questions."""
    hosts = network.of_type("workstation", "mail", "server", "nameserver")
    hosts = hosts[rng.random(len(hosts)) < 0.12][:8]
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(hosts)),
        log_uniform(rng, 20, 1200, len(hosts)),
        np.ones(len(hosts)),
    )
    part, times = burst_times(rng, times, rng.geometric(0.35, len(times)), 1.0)
    n, size = len(times), rng.integers(60, 150, len(times))
    return [
        make_contacts(
            rng,
            "long_lookup",
            times,
            hosts[subject[part]],
            network.resolver,
            53,
            proto=UDP,
            service="dns",
            orig_bytes=size,
            resp_bytes=size + rng.integers(16, 160, n),
            ending=draw_endings(rng, n, {UNANSWERED: 0.03}),
        )
    ]


def speed_tests(network: Network, rng: Generator) -> list[Contacts]:
    """Somebody measures the line: some parallel connections, each moving as much as it can, up or
    down.
    """
    hosts = network.of_type("workstation", "phone", "tv", "console")
    batches = []
    for _ in range(int(rng.integers(0, 3)) if len(hosts) else 0):
        n = int(rng.integers(2, 17))
        times = rng.uniform(0, network.seconds) + np.sort(rng.uniform(0, 12, n))
        size = log_uniform_value(rng, 2e6, 4e8) * rng.lognormal(0, 0.2, n)
        upwards = times > np.median(times)
        batches.append(
            make_contacts(
                rng,
                "speed_test",
                times,
                int(rng.choice(hosts)),
                int(public_addresses(rng, 1)[0]),
                int(rng.choice([443, 8080])),
                proto=UDP if rng.random() < 0.3 else TCP,
                orig_bytes=np.where(upwards, size, 3000),
                resp_bytes=np.where(upwards, 2000, size),
                duration=rng.uniform(8, 15, n),
                ending=draw_endings(rng, n, {ABORTED: 0.2}),
            )
        )
    return batches
