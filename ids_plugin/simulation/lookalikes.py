"""What clean networks do that looks like an attack, and the noise of strangers at exposed doors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ids_plugin.simulation.activities import Activity, faults, span_of
from ids_plugin.simulation.networks import (
    Draw,
    Network,
    beats,
    bursts,
    cloud,
    ends,
    log_uniform,
    one,
    whole,
)
from ids_plugin.simulation.records import (
    ABORTED,
    BACKSCATTER,
    DONE,
    F64,
    GHOST,
    I64,
    ICMP,
    PROBED,
    REFUSED,
    RESET,
    TCP,
    UDP,
    UNANSWERED,
    Batch,
    Bool,
    batch,
    mix,
)


def backups(net: Network, rng: Draw) -> list[Batch]:
    """Large uploads that are wanted: to a store inside, or to the cloud; in one piece or in many."""
    hosts = net.of("workstation", "server", "nas", "database", "phone")
    hosts = hosts[rng.random(len(hosts)) < 0.25][:10]
    stores = net.of("nas")
    inside = len(stores) > 0 and rng.random() < 0.5
    store = int(stores[0]) if inside else int(cloud(rng, 1)[0])
    made = []
    for host in hosts:
        pieces = int(whole(rng, 1, 80, 1)[0])
        t = np.sort(
            rng.uniform(0, net.seconds) + rng.exponential(one(rng, 1, 120), pieces).cumsum()
        )
        t = t[t < net.seconds]
        size = one(rng, 1e5, 3e9) / pieces * rng.lognormal(0, rng.choice([0.05, 0.8]), len(t))
        port = int(rng.choice([445, 22, 873]) if inside else rng.choice([443, 443, 22]))
        made.append(
            batch(
                rng,
                "backup",
                t,
                host,
                store,
                port,
                service={443: "ssl", 22: "ssh", 445: "smb"}.get(port, ""),
                up=size + 500,
                down=size * 0.002 + 3000,
                span=size / one(rng, 2e5, 5e7) + 0.3,
                ending=ends(rng, len(t), faults(net)),
            )
        )
    return made


def monitoring(net: Network, rng: Draw) -> list[Batch]:
    """A monitor that asks many hosts and ports at a steady rhythm; what is down stays down for a while."""
    if len(net.hosts) < 4 or rng.random() < 0.4:
        return []
    monitor = int(
        rng.choice(
            net.of("monitor", "server", "workstation", "hub", "nas")
            if len(net.of("monitor", "server", "workstation", "hub", "nas"))
            else net.hosts
        )
    )
    checks = net.hosts[rng.permutation(len(net.hosts))[: int(rng.integers(3, 40))]]
    kinds = rng.choice(6, len(checks))
    port, proto = (
        np.array([0, 22, 80, 443, 161, 9100])[kinds],
        np.array([ICMP, 0, 0, 0, UDP, 0])[kinds],
    )
    who, t = beats(
        rng,
        *span_of(net, len(checks)),
        np.full(len(checks), float(rng.choice([30, 60, 120, 300, 600]))),
        np.full(len(checks), 0.03),
    )
    n = len(who)
    down = (rng.random(len(checks)) < 0.15)[who] | (
        np.abs(t - rng.uniform(0, net.seconds, len(checks))[who]) < one(rng, 60, 1200)
    ) & (rng.random(len(checks)) < 0.3)[who]
    failing = np.where(
        mix(checks, 13)[who] % 2 == 0, UNANSWERED, np.where(proto[who] == 0, REFUSED, UNANSWERED)
    )
    return [
        batch(
            rng,
            "monitoring",
            t,
            monitor,
            checks[who],
            port[who],
            proto=proto[who],
            orig_port=np.where(proto[who] == ICMP, 8, rng.integers(32768, 61000, n)),
            up=np.where(proto[who] == ICMP, 56, rng.choice([0, 80, 200], len(checks))[who]),
            down=np.where(proto[who] == ICMP, 56, rng.integers(40, 2000, len(checks))[who]),
            ending=np.where(down, failing, DONE),
        )
    ]


def inventory(net: Network, rng: Draw) -> list[Batch]:
    """An authorised scan of moderate breadth: known hosts and a few empty addresses, a handful of ports, unhurried."""
    if len(net.hosts) < 5 or rng.random() < 0.6:
        return []
    scanner = int(rng.choice(net.hosts))
    targets = np.concatenate(
        [
            rng.permutation(net.hosts)[: int(rng.integers(3, 25))],
            net.dead(rng, int(rng.integers(0, 4))),
        ]
    )
    ports = rng.choice(
        [22, 80, 443, 445, 161, 3389, 9100, 8080, 135], int(rng.integers(1, 6)), replace=False
    )
    where, port = (x.ravel() for x in np.meshgrid(targets, ports, indexing="ij"))
    t = rng.uniform(0, net.seconds * 0.9) + np.cumsum(
        rng.exponential(one(rng, 0.3, 20), len(where))
    )
    open_ = net.offers(where, port)
    known = np.isin(where, net.hosts)
    ending = np.where(
        open_,
        np.where(rng.random(len(t)) < 0.6, DONE, ABORTED),
        np.where(known & (not net.drops), REFUSED, UNANSWERED),
    )
    keep = t < net.seconds
    grabbed = rng.integers(0, 2, len(t)) * open_
    made = batch(
        rng,
        "inventory",
        t,
        scanner,
        where,
        port,
        proto=np.where(port == 161, UDP, 0),
        ending=ending,
        up=80 * grabbed,
        down=rng.integers(40, 900, len(where)) * grabbed,
    )
    return [
        batch(
            rng,
            "inventory",
            made.t[keep],
            scanner,
            where[keep],
            port[keep],
            proto=made.proto[keep],
            ending=ending[keep],
            up=made.up[keep],
            down=made.down[keep],
        )
    ]


def failed_logins(net: Network, rng: Draw) -> list[Batch]:
    """Somebody mistypes a password, or a job has an old one: a few short sessions, with pauses between."""
    servers = np.concatenate(
        [net.of("server", "nas", "database", "broker", "mail", "monitor", "sensor"), cloud(rng, 1)]
    )
    users = net.of("workstation", "server", "phone", "sensor", "hub")
    made = []
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
        t = rng.uniform(0, net.seconds * 0.95) + np.cumsum(rng.exponential(one(rng, 2, 300), tries))
        t = t[t < net.seconds]
        up, down = one(rng, 60, 2500), one(rng, 60, 3500)
        made.append(
            batch(
                rng,
                "failed_login",
                t,
                int(rng.choice(users)),
                int(rng.choice(servers)),
                port,
                service=service,
                up=up * rng.uniform(0.9, 1.1, len(t)),
                down=down * rng.uniform(0.9, 1.1, len(t)),
                span=log_uniform(rng, 1, 30, len(t)),
                ending=ends(rng, len(t), {RESET: 0.2, ABORTED: 0.2}),
            )
        )
    return made


def dead_services(net: Network, rng: Draw) -> list[Batch]:
    """Devices that keep asking for what is gone. Inside: a printer, a store, for hours. Outside: a cloud that had
    answered and will again; most back off or rest between bouts, the few that ask evenly don't wait for long, because
    such outages are short. Rarely an address that is gone for good is asked for ever."""
    made = []
    for _ in range(int(rng.poisson(3))):
        host, inside = int(rng.choice(net.hosts)), rng.random() < 0.6
        peer = int(net.dead(rng, 1)[0]) if inside else int(cloud(rng, 1)[0])
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
        begin = 0.0 if forever else rng.uniform(0, net.seconds)
        longest = 36_000 if inside else 1_200 if even else 7_200
        end = net.seconds if forever else min(begin + one(rng, 60, longest), net.seconds)
        t = begin + np.cumsum(_retries(rng, even))
        ending = UNANSWERED if rng.random() < 0.6 else REFUSED
        made.append(batch(rng, "dead_service", t[t < end], host, peer, port, ending=ending))
        if not forever and rng.random() < (0.8 if inside else 0.95):
            made += _around(net, rng, (begin, end), host, peer, port)
    return made


def _retries(rng: Draw, even: bool) -> F64:
    """(400) seconds between tries: even, or growing to a limit; a third rests for long after every few."""
    growth = 1.0 if even else float(rng.choice([1.3, 1.6, 2.0]))
    gaps = one(rng, 2, 300) * np.minimum(growth ** np.arange(400), 64) * rng.uniform(0.8, 1.2, 400)
    if rng.random() < 0.35:
        gaps[:: int(rng.integers(3, 20))] += one(rng, 300, 3600)
    return np.asarray(np.minimum(gaps, 3600))


def _around(
    net: Network, rng: Draw, outage: tuple[float, float], host: int, peer: int, port: int
) -> list[Batch]:
    """What the same two had to say before the outage, and after."""
    period, up, down = one(rng, 20, 900), one(rng, 60, 3000), one(rng, 60, 3000)
    begins, ends_ = np.array([0.0, outage[1]]), np.array([outage[0], net.seconds])
    who, t = beats(rng, begins, ends_, np.full(2, period), np.full(2, 0.2))
    made = []
    for name, kept in (("before_outage", t[who == 0][-200:]), ("after_outage", t[who == 1][:200])):
        fate = ends(rng, len(kept), faults(net))
        made.append(batch(rng, name, kept, host, peer, port, up=up, down=down, ending=fate))
    return made


def administration(net: Network, rng: Draw) -> list[Batch]:
    """Somebody, or a tool, logs in at many hosts in a row and does the same everywhere; a few are down."""
    doors = np.concatenate(
        [net.of("server", "database", "nas", "broker", "mail", "nameserver", "sensor", "monitor")]
    )
    admins = net.of("workstation", "server", "monitor", "hub")
    made = []
    for _ in range(int(rng.integers(0, 3)) if len(doors) > 2 and len(admins) else 0):
        targets = rng.permutation(doors)[: int(rng.integers(3, 40))]
        t = rng.uniform(0, net.seconds * 0.9) + np.cumsum(
            rng.exponential(one(rng, 0.2, 30), len(targets))
        )
        n, up, down = len(t), one(rng, 1500, 60000), one(rng, 2000, 60000)
        ending = ends(rng, n, {UNANSWERED: 0.06, REFUSED: 0.04, ABORTED: 0.05})
        made.append(
            batch(
                rng,
                "administration",
                t,
                int(rng.choice(admins)),
                targets,
                22,
                service="ssh",
                up=up * rng.lognormal(0, 0.2, n),
                down=down * rng.lognormal(0, 0.3, n),
                span=log_uniform(rng, 1, 120, n),
                ending=ending,
            )
        )
    return made


def jobs(net: Network, rng: Draw) -> list[Batch]:
    """Timers that log in somewhere and do the same again and again: copies over ssh, probes of a login page, ftp."""
    users = net.of("server", "workstation", "sensor", "hub", "nas", "camera")
    users = users[rng.random(len(users)) < 0.15][:12]
    if len(users) == 0:
        return []
    doors = np.where(
        rng.random(len(users)) < 0.6, rng.choice(net.hosts, len(users)), cloud(rng, len(users))
    )
    kinds = rng.integers(0, 5, len(users))
    port, service = (
        np.array([22, 80, 21, 3306, 8080])[kinds],
        np.array(["ssh", "http", "ftp", "mysql", "http"])[kinds],
    )
    who, t = beats(
        rng,
        *span_of(net, len(users)),
        log_uniform(rng, 8, 1800, len(users)),
        rng.choice([0.01, 0.1, 0.5], len(users)),
    )
    n = len(who)
    up, down, life = (
        log_uniform(rng, low, high, len(users))[who]
        for low, high in ((150, 8000), (150, 20000), (0.05, 20))
    )
    noise_ = rng.lognormal(0, 0.05, n)
    return [
        batch(
            rng,
            "job",
            t,
            users[who],
            doors[who],
            port[who],
            service=service[who],
            up=up * noise_,
            down=down * noise_,
            span=life * rng.uniform(0.8, 1.2, n),
            rounds=0,
            ending=ends(rng, n, faults(net)),
        )
    ]


def empty_checks(net: Network, rng: Draw) -> list[Batch]:
    """Devices and balancers that open a connection only to see that it opens, and close or reset it at once."""
    hosts = net.hosts[rng.random(len(net.hosts)) < 0.18][:14]
    far = rng.random(len(hosts)) < 0.5
    peers = np.where(far, cloud(rng, len(hosts)), rng.choice(net.hosts, len(hosts)))
    port, habit = (
        rng.choice([80, 443, 53, 8080, 22, 1883], len(hosts)),
        rng.choice([DONE, ABORTED, PROBED, RESET], len(hosts)),
    )
    who, t = beats(
        rng,
        *span_of(net, len(hosts)),
        log_uniform(rng, 10, 3600, len(hosts)),
        rng.choice([0.01, 0.3], len(hosts)),
    )
    down = in_outage(rng, net, t)
    ending = np.where(down, np.where(mix(peers, 19)[who] % 2 == 0, UNANSWERED, REFUSED), habit[who])
    return [batch(rng, "empty_check", t, hosts[who], peers[who], port[who], ending=ending)]


def in_outage(rng: Draw, net: Network, t: F64) -> Bool:
    """Which times fall into one of the spells in which nothing answers: none, or up to three."""
    out = np.zeros(len(t), dtype=np.bool_)
    for _ in range(int(rng.integers(0, 4))):
        begin = rng.uniform(0, net.seconds)
        out |= (t > begin) & (t < begin + one(rng, 20, 3600))
    return out


def log_shipping(net: Network, rng: Draw) -> list[Batch]:
    """Logs and measurements pushed to a collector all day: a trickle of uploads that is wanted."""
    hosts = net.of("server", "database", "hub", "sensor", "workstation")
    hosts = hosts[rng.random(len(hosts)) < 0.15][:15]
    store = net.of("nas", "monitor")
    peer = int(store[0]) if len(store) and rng.random() < 0.4 else int(cloud(rng, 1)[0])
    port = int(rng.choice([443, 443, 5044, 6514, 9200]))
    who, t = beats(
        rng,
        *span_of(net, len(hosts)),
        log_uniform(rng, 20, 1800, len(hosts)),
        rng.choice([0.02, 0.5, 1.0], len(hosts)),
    )
    n = len(who)
    up = log_uniform(rng, 800, 4e5, len(hosts))[who] * rng.lognormal(0, 0.6, n)
    return [
        batch(
            rng,
            "log_shipping",
            t,
            hosts[who],
            peer,
            port,
            service="ssl",
            up=up,
            down=rng.integers(150, 2500, n),
            span=up / 2e5 + 0.05,
            ending=ends(rng, n, faults(net)),
        )
    ]


def long_lookups(net: Network, rng: Draw) -> list[Batch]:
    """Reputation and mail checks that put long names into DNS questions."""
    hosts = net.of("workstation", "mail", "server", "nameserver")
    hosts = hosts[rng.random(len(hosts)) < 0.12][:8]
    who, t = beats(
        rng, *span_of(net, len(hosts)), log_uniform(rng, 20, 1200, len(hosts)), np.ones(len(hosts))
    )
    part, t = bursts(rng, t, rng.geometric(0.35, len(t)), 1.0)
    n, size = len(t), rng.integers(60, 150, len(t))
    return [
        batch(
            rng,
            "long_lookup",
            t,
            hosts[who[part]],
            net.resolver,
            53,
            proto=UDP,
            service="dns",
            up=size,
            down=size + rng.integers(16, 160, n),
            ending=ends(rng, n, {UNANSWERED: 0.03}),
        )
    ]


def speed_tests(net: Network, rng: Draw) -> list[Batch]:
    """Somebody measures the line: some parallel connections, each moving as much as it can, up or down."""
    hosts = net.of("workstation", "phone", "tv", "console")
    made = []
    for _ in range(int(rng.integers(0, 3)) if len(hosts) else 0):
        n = int(rng.integers(2, 17))
        t = rng.uniform(0, net.seconds) + np.sort(rng.uniform(0, 12, n))
        size = one(rng, 2e6, 4e8) * rng.lognormal(0, 0.2, n)
        upwards = t > np.median(t)
        made.append(
            batch(
                rng,
                "speed_test",
                t,
                int(rng.choice(hosts)),
                int(cloud(rng, 1)[0]),
                int(rng.choice([443, 8080])),
                proto=UDP if rng.random() < 0.3 else TCP,
                up=np.where(upwards, size, 3000),
                down=np.where(upwards, 2000, size),
                span=rng.uniform(8, 15, n),
                ending=ends(rng, n, {ABORTED: 0.2}),
            )
        )
    return made


LOOKALIKES: tuple[Activity, ...] = (
    backups,
    monitoring,
    inventory,
    failed_logins,
    dead_services,
    administration,
    jobs,
    empty_checks,
    log_shipping,
    long_lookups,
    speed_tests,
)


def unchecked(net: Network, rng: Draw, b: Batch) -> Batch:
    """The same contacts as a sensor sees them that refuses the checksums of some hosts (offloading)."""
    hit = (
        (b.proto == TCP)
        & (mix(b.orig, net.sensor.salt + 9) % 12 == 0)
        & (rng.random(len(b.t)) < 0.5)
    )
    return replace(b, ending=np.where(hit, GHOST, b.ending))


def noise(net: Network, rng: Draw) -> list[Batch]:
    """Strangers that try what is exposed: one or few ports each, ssh logins, UDP probes, pings, stray answers."""
    exposed = net.hosts if net.public else np.array([net.gateway])
    if not net.public and rng.random() < 0.6:
        return []
    exposed = exposed[:16]
    busiest = 1200 if net.public else 250
    strangers = int(min(whole(rng, 20, busiest, 1)[0] * max(1.0, net.seconds / 7200), 6000))
    ports = rng.choice(
        [22, 23, 80, 443, 445, 3389, 8080, 5555, 2323, 3306, 6379, 1433, 8443, 5900, 21, 25],
        strangers,
    )
    ports = np.where(rng.random(strangers) < 0.4, rng.integers(1, 65536, strangers), ports)
    address, start = cloud(rng, strangers), rng.uniform(0, net.seconds, strangers)
    tries = np.minimum(rng.geometric(0.4, strangers), 12)
    sweep = rng.random(strangers) < 0.3
    who, t = bursts(rng, start, tries, one(rng, 5, 600))
    n = len(who)
    port = np.where(sweep[who], rng.integers(1, 10000, n), ports[who])
    target = rng.choice(exposed, strangers)[who]
    opened = net.offers(target, port)
    kind = rng.random(strangers)[who]
    udp, ping = kind < 0.1, (kind >= 0.1) & (kind < 0.2)
    closed = UNANSWERED if net.drops else REFUSED
    tcp = np.where(
        opened,
        rng.choice([PROBED, DONE, ABORTED, RESET], n),
        np.where(rng.random(n) < 0.05, BACKSCATTER, closed),
    )
    ending = np.where(udp, UNANSWERED, np.where(ping, DONE, tcp))
    said = np.where(
        udp,
        rng.integers(8, 200, n),
        np.where(
            ping,
            rng.choice([8, 16, 56], n),
            opened * (rng.random(n) < 0.6) * log_uniform(rng, 20, 2000, n),
        ),
    )
    probes = batch(
        rng,
        "stranger",
        t,
        address[who],
        target,
        np.where(ping, 0, np.where(udp, rng.choice([53, 123, 161, 1900, 5060, 11211], n), port)),
        proto=np.where(udp, UDP, np.where(ping, ICMP, 0)),
        orig_port=np.where(ping, 8, rng.integers(1024, 65535, n)),
        up=said,
        down=np.where(udp, 0, np.where(ping, said, said * 2)),
        ending=ending,
        syn=rng.choice([0, 4, 20, -1], strangers)[who],
        rounds=1,
        attempts=1,
        label="inbound_noise",
    )
    more = (_stubborn_strangers, _stranger_logins, _volleys, _surveys)
    return [probes, *(made for activity in more for made in activity(net, rng, exposed))]


def _volleys(net: Network, rng: Draw, exposed: I64) -> list[Batch]:
    """Single strangers that knock a few dozen times in a row at one door, telephony, name and time servers among them:
    as quick as a flood begins, but over before it would be one."""
    count = int(rng.poisson(min(net.seconds / 3600, 24) * rng.choice([0.2, 1.0])))
    address, victim = cloud(rng, count), rng.choice(exposed, count)
    who, t = bursts(
        rng, rng.uniform(0, net.seconds, count), whole(rng, 8, 59, count), one(rng, 0.5, 40)
    )
    datagram = (mix(address, 21) % 2 == 0)[who]
    plain = np.array([5060, 53, 123, 389])[mix(address, 22) % 4]
    port = np.where(datagram, plain[who], 80 + mix(address, 23)[who] % 9000)
    opened = ~datagram & net.offers(victim[who], port)
    closed = np.where(datagram | net.drops, UNANSWERED, REFUSED)
    return [
        batch(
            rng,
            "volley",
            t,
            address[who],
            victim[who],
            port,
            proto=np.where(datagram, UDP, TCP),
            up=np.where(datagram, 20 + mix(address, 24)[who] % 600, 0),
            rounds=np.where(datagram, 1 + mix(address, 25)[who] % 4, 1),
            ending=np.where(opened, PROBED, closed),
            attempts=1,
            label="inbound_noise",
        )
    ]


def _surveys(net: Network, rng: Draw, exposed: I64) -> list[Batch]:
    """Measuring organisations: a hundred addresses of one block, each a probe or two, within minutes."""
    count = int(rng.poisson(min(net.seconds / 7200, 12) * rng.choice([0.1, 1.0])))
    base, victim, begin = (
        cloud(rng, count) & ~255,
        rng.choice(exposed, count),
        rng.uniform(0, net.seconds, count),
    )
    who, t = bursts(rng, begin, whole(rng, 20, 300, count), one(rng, 10, 400))
    n, port = len(who), rng.integers(1, 65536, len(who))
    opened = net.offers(victim[who], port)
    ending = np.where(opened, PROBED, UNANSWERED if net.drops else REFUSED)
    return [
        batch(
            rng,
            "survey",
            t,
            base[who] + rng.integers(1, 255, n),
            victim[who],
            port,
            ending=ending,
            rounds=1,
            attempts=1,
            syn=4,
            label="inbound_noise",
        )
    ]


def _stubborn_strangers(net: Network, rng: Draw, exposed: I64) -> list[Batch]:
    """Strangers that come back all day: to one closed port, or to another port each time."""
    guests = int(rng.integers(0, 12))
    address, single = cloud(rng, guests), rng.random(guests) < 0.4
    port, target = rng.integers(1, 65536, guests), rng.choice(exposed, guests)
    who, t = beats(
        rng,
        rng.uniform(0, net.seconds * 0.3, guests),
        np.full(guests, net.seconds),
        log_uniform(rng, 15, 3600, guests),
        np.ones(guests),
    )
    n = len(who)
    port = np.where(single[who], port[who], rng.integers(1, 65536, n))
    opened = net.offers(target[who], port)
    ending = np.where(opened, PROBED, UNANSWERED if net.drops else REFUSED)
    return [
        batch(
            rng,
            "stubborn_stranger",
            t,
            address[who],
            target[who],
            port,
            ending=ending,
            rounds=1,
            attempts=1,
            syn=rng.choice([0, 4, -1], guests)[who],
            label="inbound_noise",
        )
    ]


def _stranger_logins(net: Network, rng: Draw, exposed: I64) -> list[Batch]:
    doors = exposed[net.offers(exposed, np.full(len(exposed), 22))]
    if len(doors) == 0:
        return []
    guests = int(whole(rng, 2, 40, 1)[0])
    address = cloud(rng, guests)
    begin, period = rng.uniform(0, net.seconds, guests), log_uniform(rng, 4, 3600, guests)
    until = np.minimum(begin + period * whole(rng, 2, 400, guests), net.seconds)
    who, t = beats(rng, begin, until, period, np.ones(guests))
    n = len(who)
    style = mix(address, 17)[who] % 3
    return [
        batch(
            rng,
            "stranger_login",
            t,
            address[who],
            rng.choice(doors, n),
            22,
            service="ssh",
            up=np.array([900, 1700, 2100])[style] + rng.integers(0, 60, n),
            down=np.array([1200, 1600, 2300])[style] + rng.integers(0, 60, n),
            span=log_uniform(rng, 0.5, 12, n),
            ending=ends(rng, n, {ABORTED: 0.15, RESET: 0.05}),
            label="inbound_noise",
        )
    ]
