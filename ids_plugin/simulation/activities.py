"""What clean networks do, look-alikes of attacks among it. Every activity: network and draws in, batches out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ids_plugin.simulation.networks import (
    Draw,
    Network,
    awake,
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
    DONE,
    F64,
    HALF_O,
    HALF_R,
    I64,
    ICMP,
    MIDSTREAM,
    ONGOING,
    REFUSED,
    RESET,
    SYN_RST,
    UDP,
    UNACKED,
    UNANSWERED,
    V6_GROUP,
    V6_LINK,
    Batch,
    batch,
    mix,
)

Activity = Callable[[Network, Draw], list[Batch]]

FAULTS = {
    UNANSWERED: 0.02,
    REFUSED: 0.008,
    ABORTED: 0.06,
    RESET: 0.03,
    ONGOING: 0.01,
    HALF_O: 0.006,
    HALF_R: 0.006,
    MIDSTREAM: 0.004,
    SYN_RST: 0.002,
}
"""How ordinary connections end when not well"""


def faults(net: Network) -> dict[int, float]:
    """How often ordinary connections end so, in this network."""
    return {ending: share * net.trouble for ending, share in FAULTS.items()}


def span_of(net: Network, n: int) -> tuple[F64, F64]:
    """Begin and end of the recording, for n subjects."""
    return np.zeros(n), np.full(n, net.seconds)


def _models(rng: Draw, hosts: I64, salt: int) -> tuple[int, I64]:
    """Number of models of a device type in this network, and every unit's."""
    count = int(rng.integers(1, 4))
    return count, mix(hosts, salt) % count


def _polling(
    net: Network,
    rng: Draw,
    hosts: I64,
    detail: str,
    period: tuple[float, float],
    ports: tuple[int, ...],
    services: tuple[str, ...],
) -> list[Batch]:
    """Devices that ask their cloud every so often: a model's own peer, port, rhythm and sizes."""
    if len(hosts) == 0:
        return []
    count, model = _models(rng, hosts, net.sensor.salt)
    rhythm, jitter = log_uniform(rng, *period, count), rng.choice([0.0, 0.02, 0.2, 0.6, 1.0], count)
    peers, kind = cloud(rng, count * 3).reshape(count, 3), rng.integers(0, len(ports), count)
    up, down, faults = (
        log_uniform(rng, 40, 4000, count),
        log_uniform(rng, 40, 9000, count),
        rng.choice([0.002, 0.02, 0.15], count),
    )
    habit = rng.choice([DONE, DONE, DONE, ABORTED, RESET, HALF_R], count)
    who, t = beats(rng, *span_of(net, len(hosts)), rhythm[model], jitter[model])
    m, n = model[who], len(who)
    peer = peers[m, np.where(rng.random(n) < 0.9, 0, rng.integers(0, 3, n))]
    ending = np.where(
        rng.random(n) < faults[m],
        rng.choice([UNANSWERED, REFUSED, ABORTED, RESET], n),
        np.where(rng.random(n) < 0.9, habit[m], DONE),
    )
    blocked = (rng.random(count) < 0.15)[m] & (peer != peers[m, 0])
    ending = np.where(blocked, UNANSWERED, ending)
    steady = rng.choice([0.0, 0.02, 0.3], count)[m]
    return [
        batch(
            rng,
            detail,
            t,
            hosts[who],
            peer,
            np.array(ports)[kind][m],
            service=np.array(services)[kind][m],
            ending=ending,
            up=up[m] * np.exp(steady * rng.standard_normal(n)),
            down=down[m] * np.exp(steady * rng.standard_normal(n)),
            span=log_uniform(rng, 0.02, 60, count)[m] * rng.uniform(0.7, 1.4, n),
        )
    ]


def cloud_polling(net: Network, rng: Draw) -> list[Batch]:
    """Bulbs, hubs, televisions and phones that poll their cloud, over TLS, plain HTTP or ports of their own."""
    own = int(rng.integers(1024, 65535))
    return [
        *_polling(
            net,
            rng,
            net.of("bulb", "hub", "camera"),
            "cloud_polling",
            (10, 3600),
            (443, 80, 8883, own),
            ("ssl", "http", "ssl", ""),
        ),
        *_polling(
            net,
            rng,
            net.of("tv", "console", "phone"),
            "telemetry",
            (60, 3600),
            (443, 80, 5223),
            ("ssl", "http", "ssl"),
        ),
        *_polling(
            net,
            rng,
            net.of("workstation", "server", "nas", "printer"),
            "telemetry",
            (300, 7200),
            (443, 80),
            ("ssl", "http"),
        ),
    ]


def resolve(net: Network, rng: Draw, batches: list[Batch]) -> list[Batch]:
    """DNS lookups before contacts with the outside, and a share that stays unanswered."""
    out = [b for b in batches if len(b.t)]
    t, orig, resp = (
        np.concatenate([getattr(b, name) for b in out]) for name in ("t", "orig", "resp")
    )
    local = net.sensor.local(orig)
    pick = np.flatnonzero(
        local
        & ~net.sensor.local(resp)
        & (resp < V6_LINK)
        & (rng.random(len(t)) < rng.choice([0.1, 0.3, 0.6]))
    )
    if len(pick) == 0:
        return []
    n = len(pick)
    gone = rng.random(n) < rng.choice([0.002, 0.02, 0.2])
    size = 22 + mix(resp[pick], 5) % 40
    return [
        batch(
            rng,
            "name_lookup",
            np.maximum(t[pick] - rng.uniform(0.005, 0.3, n), 0),
            orig[pick],
            net.resolver,
            53,
            proto=UDP,
            service="dns",
            ending=np.where(gone, UNANSWERED, DONE),
            up=size * np.where(gone, 1 + rng.integers(0, 2, n), 1),
            down=size + rng.integers(0, 300, n),
            rounds=np.where(gone & (rng.random(n) < 0.5), 2, 1),
            span=np.where(gone, 5.0, 0.0) * rng.uniform(0.99, 1.01, n),
        )
    ]


def time_keeping(net: Network, rng: Draw) -> list[Batch]:
    """NTP: every device its servers and rhythm."""
    hosts = net.hosts[rng.random(len(net.hosts)) < 0.8]
    servers = cloud(rng, 4)
    who, t = beats(
        rng,
        *span_of(net, len(hosts)),
        np.exp2(rng.integers(6, 12, len(hosts)).astype(np.float64)),
        rng.choice([0.0, 0.02, 0.1], len(hosts)),
    )
    n, times = len(who), rng.choice([1, 1, 1, 4, 6], len(hosts))[who]
    orig_port = np.where(mix(hosts, 3)[who] % 2 == 0, 123, rng.integers(1024, 65535, n))
    return [
        batch(
            rng,
            "time",
            t,
            hosts[who],
            servers[rng.integers(0, 4, n)],
            123,
            proto=UDP,
            service="ntp",
            up=48 * times,
            down=48 * times,
            rounds=times,
            ending=ends(rng, n, {UNANSWERED: float(rng.choice([0.005, 0.05, 0.3]))}),
            orig_port=orig_port,
            span=(times - 1) * 2.0,
        )
    ]


def leases(net: Network, rng: Draw) -> list[Batch]:
    """DHCP."""
    hosts = net.hosts
    who, t = beats(
        rng,
        *span_of(net, len(hosts)),
        log_uniform(rng, 1800, 43200, len(hosts)),
        np.full(len(hosts), 0.05),
    )
    lost, n = rng.random(len(who)) < 0.2, len(who)
    return [
        batch(
            rng,
            "dhcp",
            t,
            hosts[who],
            np.where(lost, 0xFFFFFFFF, net.gateway),
            67,
            proto=UDP,
            service="dhcp",
            orig_port=68,
            up=rng.integers(250, 400, n),
            down=rng.integers(250, 400, n),
            ending=np.where(lost, UNANSWERED, DONE),
        )
    ]


def discovery(net: Network, rng: Draw) -> list[Batch]:
    """mDNS, SSDP, LLMNR and NetBIOS: said to everybody, answered by nobody."""
    chatty = net.hosts[rng.random(len(net.hosts)) < 0.5]
    groups = np.array(
        [0xE00000FB, 0xEFFFFFFA, 0xE00000FC, V6_GROUP + 0xFB, net.base + net.width - 1]
    )
    ports = np.array([5353, 1900, 5355, 5353, 137])
    who, t = beats(
        rng,
        *span_of(net, len(chatty)),
        log_uniform(rng, 60, 3600, len(chatty)),
        np.full(len(chatty), 0.5),
    )
    g, n = rng.integers(0, 5, len(who)), len(who)
    times = rng.integers(1, 8, n)
    return [
        batch(
            rng,
            "discovery",
            t,
            np.where(g == 3, V6_LINK + (chatty[who] & 0xFFFF), chatty[who]),
            groups[g],
            ports[g],
            proto=UDP,
            service=np.where(ports[g] == 1900, "", "dns"),
            ending=UNANSWERED,
            orig_port=ports[g],
            rounds=times,
            up=times * rng.integers(40, 400, n),
        )
    ]


def neighbours(net: Network, rng: Draw) -> list[Batch]:
    """IPv6 neighbour and router solicitations, multicast reports."""
    hosts = net.hosts[rng.random(len(net.hosts)) < 0.5]
    who, t = beats(
        rng,
        *span_of(net, len(hosts)),
        log_uniform(rng, 120, 7200, len(hosts)),
        np.full(len(hosts), 0.8),
    )
    kinds, n = np.array([[135, 136], [133, 134], [143, 0]])[rng.integers(0, 3, len(who))], len(who)
    return [
        batch(
            rng,
            "neighbours",
            t,
            V6_LINK + (hosts[who] & 0xFFFF),
            V6_GROUP + rng.integers(1, 30, n),
            kinds[:, 1],
            proto=ICMP,
            ending=UNANSWERED,
            orig_port=kinds[:, 0],
            rounds=rng.integers(1, 8, n),
            up=rng.choice([0, 24, 72], n),
        )
    ]


def pings(net: Network, rng: Draw) -> list[Batch]:
    """Devices that ping the gateway or something outside to see whether they are connected."""
    hosts = net.hosts[rng.random(len(net.hosts)) < 0.15]
    target = np.where(rng.random(len(hosts)) < 0.5, net.gateway, cloud(rng, len(hosts)))
    who, t = beats(
        rng,
        *span_of(net, len(hosts)),
        log_uniform(rng, 30, 3600, len(hosts)),
        np.full(len(hosts), 0.05),
    )
    times, size = rng.integers(1, 6, len(hosts))[who], rng.choice([8, 32, 56, 56], len(hosts))[who]
    return [
        batch(
            rng,
            "ping",
            t,
            hosts[who],
            target[who],
            0,
            proto=ICMP,
            orig_port=8,
            up=size * times,
            down=size * times,
            rounds=times,
            span=times - 1.0,
            ending=ends(rng, len(who), {UNANSWERED: 0.05}),
        )
    ]


def messaging(net: Network, rng: Draw) -> list[Batch]:
    """MQTT sensors: connections that last, or one per reading; to a broker here or in the cloud."""
    hosts = net.of("sensor", "hub")
    if len(hosts) == 0:
        return []
    brokers = net.of("broker")
    broker = int(brokers[0]) if len(brokers) else int(cloud(rng, 1)[0])
    port = int(rng.choice([1883, 8883, 1884]))
    service = "ssl" if port == 8883 else "mqtt"
    lasting = mix(hosts, 7) % 2 == 0
    period = np.where(
        lasting, log_uniform(rng, 1200, 14400, len(hosts)), log_uniform(rng, 10, 900, len(hosts))
    )
    who, t = beats(rng, *span_of(net, len(hosts)), period, rng.choice([0.0, 0.1, 0.5], len(hosts)))
    n, keep = len(who), lasting[who]
    life = np.where(keep, period[who] * rng.uniform(0.5, 1.0, n), rng.uniform(0.05, 3, n))
    size = log_uniform(rng, 30, 600, len(hosts))[who]
    messages = np.where(keep, life / log_uniform(rng, 5, 120, len(hosts))[who] + 1, 2)
    return [
        batch(
            rng,
            "mqtt",
            t,
            hosts[who],
            broker,
            port,
            service=service,
            span=life,
            up=size * messages,
            down=4 + 4 * messages,
            rounds=messages,
            ending=ends(
                rng,
                n,
                faults(net)
                | {UNANSWERED: float(rng.choice([0.005, 0.08])), RESET: 0.08, ONGOING: 0.05},
            ),
        )
    ]


def cameras(net: Network, rng: Draw) -> list[Batch]:
    """Streams to a recorder over RTSP or UDP, and clips uploaded to the cloud when something moves."""
    hosts = net.of("camera")
    if len(hosts) == 0:
        return []
    recorders = net.of("recorder", "nas", "workstation")
    recorder = int(recorders[0]) if len(recorders) else int(cloud(rng, 1)[0])
    who, t = beats(
        rng,
        *span_of(net, len(hosts)),
        log_uniform(rng, 300, 7200, len(hosts)),
        np.full(len(hosts), 0.3),
    )
    n, life = len(who), log_uniform(rng, 20, 1800, len(who))
    volume = life * log_uniform(rng, 2e4, 6e5, len(hosts))[who]
    udp = (mix(hosts, 9) % 2 == 0)[who]
    stream = batch(
        rng,
        "camera_stream",
        t,
        np.where(udp, hosts[who], recorder),
        np.where(udp, recorder, hosts[who]),
        np.where(udp, 5004, 554),
        proto=np.where(udp, UDP, 0),
        up=np.where(udp, volume, 900),
        down=np.where(udp, 0, volume),
        span=life,
        ending=np.where(udp, UNANSWERED, ends(rng, n, faults(net) | {ABORTED: 0.3})),
    )
    clips = hosts[rng.random(len(hosts)) < 0.6]
    store = cloud(rng, 3)
    who, t = beats(
        rng,
        *span_of(net, len(clips)),
        log_uniform(rng, 200, 5400, len(clips)),
        np.full(len(clips), 1.0),
    )
    size = log_uniform(rng, 5e4, 2e7, len(who))
    upload = batch(
        rng,
        "camera_upload",
        t,
        clips[who],
        store[rng.integers(0, 3, len(who))],
        443,
        service="ssl",
        up=size,
        down=2000 + rng.integers(0, 4000, len(who)),
        span=size / log_uniform(rng, 1e5, 3e6, len(who)),
        ending=ends(rng, len(who), faults(net)),
    )
    return [stream, upload]


def browsing(net: Network, rng: Draw) -> list[Batch]:
    """People: sessions of pages, pages of many connections to many peers; QUIC; some fail, some linger."""
    hosts = net.of("workstation", "phone", "tv", "console")
    if len(hosts) == 0:
        return []
    who, t = beats(
        rng,
        *span_of(net, len(hosts)),
        log_uniform(rng, 600, 9000, len(hosts)) / net.activity,
        np.ones(len(hosts)),
    )
    awoken = awake(rng, net, t)
    who, t = who[awoken], t[awoken]
    page, t = bursts(rng, t, 1 + rng.geometric(0.15, len(t)), 180.0)
    who = who[page]
    part, t = bursts(rng, t, rng.geometric(0.22, len(t)), 1.5)
    who = who[part]
    n = len(t)
    popular = cloud(rng, 400)
    peer = np.where(
        rng.random(n) < 0.7,
        popular[np.minimum((rng.pareto(0.8, n) * 5).astype(np.int64), 399)],
        cloud(rng, n),
    )
    quic, plain = rng.random(n) < rng.choice([0.0, 0.15, 0.4]), rng.random(n) < 0.12
    lingering = rng.random(n) < 0.06
    span = np.where(lingering, log_uniform(rng, 60, 3600, n), log_uniform(rng, 0.05, 90, n))
    return [
        batch(
            rng,
            "browsing",
            t,
            hosts[who],
            peer,
            np.where(plain & ~quic, 80, 443),
            proto=np.where(quic, UDP, 0),
            service=np.where(quic, "quic", np.where(plain, "http", "ssl")),
            up=log_uniform(rng, 300, 12000, n),
            down=log_uniform(rng, 300, 2e6, n),
            span=span,
            rounds=np.where(lingering, 1 + span / 45, 0),
            ending=ends(
                rng, n, faults(net) | {UNANSWERED: 0.02 * net.trouble, ABORTED: 0.14, RESET: 0.06}
            ),
        )
    ]


def tunnels(net: Network, rng: Draw) -> list[Batch]:
    """Connections that last for hours with keep-alives: push services, VPN, remote desktops, shells, chat."""
    hosts = net.of("workstation", "phone", "server", "hub", "tv", "console", "nas")
    hosts = hosts[rng.random(len(hosts)) < 0.5]
    kinds = np.array(
        [
            [5223, 0],
            [5228, 0],
            [443, 0],
            [51820, 1],
            [1194, 1],
            [22, 0],
            [3389, 0],
            [6697, 0],
            [6667, 0],
            [8443, 0],
        ]
    )
    names = np.array(["ssl", "ssl", "ssl", "", "", "ssh", "rdp", "ssl", "irc", "ssl"])
    kind = rng.choice(10, len(hosts), p=[0.2, 0.2, 0.2, 0.08, 0.04, 0.1, 0.06, 0.04, 0.03, 0.05])
    peers = cloud(rng, len(hosts))
    who, t = beats(
        rng,
        *span_of(net, len(hosts)),
        log_uniform(rng, 900, 28800, len(hosts)),
        np.full(len(hosts), 0.7),
    )
    n, k = len(who), kind[who]
    life = np.minimum(log_uniform(rng, 60, 28800, n), net.seconds)
    messages = 1 + life / log_uniform(rng, 10, 600, len(hosts))[who]
    return [
        batch(
            rng,
            "lasting_connection",
            t,
            hosts[who],
            peers[who],
            kinds[k, 0],
            proto=kinds[k, 1],
            service=names[k],
            span=life,
            rounds=messages,
            up=messages * rng.integers(30, 400, n),
            down=messages * rng.integers(30, 900, n),
            ending=ends(rng, n, faults(net) | {ONGOING: 0.2, RESET: 0.15}),
        )
    ]


def _rush(net: Network, rng: Draw, rate: float) -> F64:
    """Times of visits while everybody comes at once, or a test puts load on a server."""
    begin, length = rng.uniform(0, net.seconds), one(rng, 20, 900)
    return rng.uniform(begin, begin + length, int(min(3000, length * rate * one(rng, 5, 60))))


def serving(net: Network, rng: Draw) -> list[Batch]:
    """Web and mail served to many clients, outside where the network is exposed, inside elsewhere; databases behind."""
    made = []
    for host in net.of("server", "mail", "nameserver", "directory", "nas")[:12]:
        outside = net.public or rng.random() < 0.3
        clients = cloud(rng, int(whole(rng, 20, 2000, 1)[0])) if outside else net.hosts
        port, service = (
            (80, "http"),
            (443, "ssl"),
            (8080, "http"),
            (25, "smtp"),
            (993, "ssl"),
            (53, "dns"),
            (445, "smb"),
            (389, "ldap_tcp"),
            (21, "ftp"),
        )[rng.integers(0, 9)]
        rate = one(rng, 0.001, 0.12) * net.activity
        _, t = beats(rng, np.zeros(1), np.full(1, net.seconds), np.full(1, 1 / rate), np.ones(1))
        if rng.random() < 0.2:
            t = np.concatenate([t, _rush(net, rng, rate)])
        visit, t = bursts(rng, t, rng.geometric(0.4, len(t)), 4.0)
        n = len(t)
        client = rng.choice(clients, visit.max() + 1 if n else 0)[visit]
        made.append(
            batch(
                rng,
                "serving",
                t,
                client,
                host,
                port,
                proto=UDP if port == 53 else 0,
                service=service,
                up=log_uniform(rng, 80, 4000, n),
                down=log_uniform(rng, 100, 3e5, n),
                span=log_uniform(rng, 0.01, 60, n),
                ending=ends(rng, n, faults(net) | {ABORTED: 0.1, RESET: 0.05, UNACKED: 0.004}),
            )
        )
    return made


def databases(net: Network, rng: Draw) -> list[Batch]:
    """Applications that ask a store all day: high, regular rates of alike connections inside."""
    stores, apps = net.of("database", "directory", "nas"), net.of("server", "workstation")
    if len(stores) == 0 or len(apps) == 0:
        return []
    apps = apps[:10]
    who, t = beats(
        rng,
        *span_of(net, len(apps)),
        log_uniform(rng, 5, 900, len(apps)),
        rng.choice([0.1, 1.0], len(apps)),
    )
    n = len(who)
    port = rng.choice([3306, 5432, 1433, 389, 445, 6379], len(apps))[who]
    return [
        batch(
            rng,
            "database",
            t,
            apps[who],
            stores[who % len(stores)],
            port,
            up=log_uniform(rng, 200, 3000, len(apps))[who] * rng.uniform(0.8, 1.2, n),
            down=log_uniform(rng, 200, 40000, n),
            span=log_uniform(rng, 0.003, 5, n),
            ending=ends(rng, n, faults(net)),
        )
    ]


def mail(net: Network, rng: Draw) -> list[Batch]:
    """Clients that fetch and send mail; a server that delivers to many others, some of which don't answer."""
    clients = net.of("workstation", "phone")[:40]
    provider = cloud(rng, 3)
    who, t = beats(
        rng,
        *span_of(net, len(clients)),
        rng.choice([300.0, 600.0, 900.0], len(clients)),
        np.full(len(clients), 0.05),
    )
    n = len(who)
    made = [
        batch(
            rng,
            "mail",
            t,
            clients[who],
            provider[rng.integers(0, 3, n)],
            rng.choice([993, 587, 143, 110], n),
            service="ssl",
            up=log_uniform(rng, 300, 5000, n),
            down=log_uniform(rng, 500, 50000, n),
            span=log_uniform(rng, 0.3, 20, n),
            ending=ends(rng, n, faults(net)),
        )
    ]
    for server in net.of("mail"):
        _, t = beats(
            rng, np.zeros(1), np.full(1, net.seconds), np.full(1, one(rng, 5, 120)), np.ones(1)
        )
        n = len(t)
        made.append(
            batch(
                rng,
                "mail_delivery",
                t,
                server,
                cloud(rng, n),
                25,
                service="smtp",
                up=log_uniform(rng, 800, 2e6, n),
                down=log_uniform(rng, 200, 800, n),
                span=log_uniform(rng, 0.5, 30, n),
                ending=ends(rng, n, faults(net) | {UNANSWERED: 0.12, REFUSED: 0.05}),
            )
        )
    return made


def naming(net: Network, rng: Draw) -> list[Batch]:
    """A recursive resolver asks many servers outside; a public one is asked by many."""
    made = []
    for host in net.of("nameserver", "directory")[:3]:
        for inwards in (False, True):
            _, t = beats(
                rng, np.zeros(1), np.full(1, net.seconds), np.full(1, one(rng, 1, 30)), np.ones(1)
            )
            n = len(t)
            others = cloud(rng, 300)[np.minimum((rng.pareto(0.7, n) * 4).astype(np.int64), 299)]
            size = rng.integers(25, 70, n)
            made.append(
                batch(
                    rng,
                    "resolving",
                    t,
                    others if inwards else host,
                    host if inwards else others,
                    53,
                    proto=UDP,
                    service="dns",
                    up=size,
                    down=size + rng.integers(0, 600, n),
                    ending=ends(rng, n, {UNANSWERED: 0.06}),
                )
            )
    return made


def peers(net: Network, rng: Draw) -> list[Batch]:
    """Games and file sharing: many peers on odd ports, many of them gone."""
    hosts = net.of("workstation", "console")
    hosts = hosts[rng.random(len(hosts)) < 0.12]
    made = []
    for host in hosts[:3]:
        begin = rng.uniform(0, net.seconds * 0.8)
        _, t = beats(
            rng,
            np.array([begin]),
            np.array([min(net.seconds, begin + one(rng, 300, 10800))]),
            np.full(1, one(rng, 0.5, 20)),
            np.ones(1),
        )
        n = len(t)
        swarm = cloud(rng, int(whole(rng, 30, 1500, 1)[0]))
        k = rng.integers(0, len(swarm), n)
        udp = rng.random(n) < rng.uniform(0.4, 0.95)
        ending = np.where(
            udp,
            ends(rng, n, {UNANSWERED: 0.4}),
            ends(rng, n, {UNANSWERED: 0.4, REFUSED: 0.1, RESET: 0.1, ABORTED: 0.1}),
        )
        size = np.where(
            rng.random(n) < 0.1, log_uniform(rng, 1e4, 1e7, n), log_uniform(rng, 60, 2000, n)
        )
        port = 1024 + mix(swarm, 11)[k] % 60000
        flip = udp & (rng.random(n) < 0.3)
        local_port = int(rng.integers(10000, 60000))
        made.append(
            batch(
                rng,
                "peer_to_peer",
                t,
                np.where(flip, swarm[k], host),
                np.where(flip, host, swarm[k]),
                np.where(flip, local_port, port),
                proto=np.where(udp, UDP, 0),
                orig_port=np.where(
                    flip, port, np.where(udp, local_port, rng.integers(32768, 61000, n))
                ),
                up=size * rng.uniform(0.2, 1, n),
                down=size,
                span=log_uniform(rng, 0.1, 120, n),
                ending=ending,
            )
        )
    return made


def printers(net: Network, rng: Draw) -> list[Batch]:
    """Printers: asked for their state over SNMP, now and then printed on."""
    machines, asking = net.of("printer"), net.of("workstation", "server", "monitor")
    pair = np.arange(min(40, len(machines) * len(asking)))
    if len(pair) == 0:
        return []
    who, t = beats(
        rng,
        *span_of(net, len(pair)),
        log_uniform(rng, 60, 3600, len(pair)),
        np.full(len(pair), 0.05),
    )
    n, printing = len(who), rng.random(len(who)) < 0.1
    size = rng.integers(60, 200, len(pair))[who]
    return [
        batch(
            rng,
            "printer",
            t,
            asking[who % len(asking)],
            machines[who % len(machines)],
            np.where(printing, 9100, 161),
            proto=np.where(printing, 0, UDP),
            service=np.where(printing, "", "snmp"),
            up=np.where(printing, log_uniform(rng, 1e4, 5e6, n), size),
            down=np.where(printing, 0, size + 10),
            ending=ends(rng, n, {UNANSWERED: 0.1}),
        )
    ]


def telephones(net: Network, rng: Draw) -> list[Batch]:
    """Telephones that register at their exchange and talk."""
    phones, exchange = net.of("voip"), int(cloud(rng, 1)[0])
    m = len(phones)
    who, t = beats(rng, *span_of(net, m), log_uniform(rng, 20, 600, m), np.full(m, 0.05))
    up, down = rng.integers(350, 900, m)[who], rng.integers(300, 700, m)[who]
    registered = batch(
        rng,
        "sip",
        t,
        phones[who],
        exchange,
        5060,
        proto=UDP,
        service="sip",
        orig_port=5060,
        up=up,
        down=down,
    )
    who, t = beats(rng, *span_of(net, m), log_uniform(rng, 1200, 14400, m), np.ones(m))
    life, n = log_uniform(rng, 10, 1800, len(who)), len(who)
    ports, gates = 2 * rng.integers(5000, 15000, n), exchange + rng.integers(0, 9, n)
    size = life * rng.choice([3000, 8600])
    talk = batch(
        rng,
        "call",
        t,
        phones[who],
        gates,
        ports,
        proto=UDP,
        up=size,
        down=size,
        rounds=life * 50,
        span=life,
    )
    return [registered, talk]


def updates(net: Network, rng: Draw) -> list[Batch]:
    """Software updates and media: few large downloads from well-connected peers."""
    hosts = net.hosts
    who, t = beats(
        rng,
        *span_of(net, len(hosts)),
        log_uniform(rng, 3600, 86400, len(hosts)),
        np.ones(len(hosts)),
    )
    part, t = bursts(rng, t, rng.geometric(0.3, len(t)), 20.0)
    who, n = who[part], len(t)
    servers, size = cloud(rng, 12), log_uniform(rng, 1e5, 8e8, len(t))
    return [
        batch(
            rng,
            "update",
            t,
            hosts[who],
            servers[rng.integers(0, 12, n)],
            rng.choice([80, 443], n),
            service="http",
            up=rng.integers(200, 2000, n),
            down=size,
            span=size / log_uniform(rng, 3e5, 3e7, n),
            ending=ends(rng, n, faults(net)),
        )
    ]


def meetings(net: Network, rng: Draw) -> list[Batch]:
    """Video calls: many datagrams both ways for minutes to hours, a few streams at once."""
    hosts = net.of("workstation", "phone", "tv")
    who, t = beats(
        rng,
        *span_of(net, len(hosts)),
        log_uniform(rng, 7200, 86400, len(hosts)),
        np.ones(len(hosts)),
    )
    awoken = awake(rng, net, t)
    stream, t = bursts(rng, t[awoken], rng.integers(1, 4, int(awoken.sum())), 2.0)
    who, n = who[awoken][stream], len(t)
    life = log_uniform(rng, 30, 5400, n)
    rate, port = (
        log_uniform(rng, 4e3, 4e5, n),
        np.array([3478, 8801, 10000, 19305])[rng.integers(0, 4, n)],
    )
    return [
        batch(
            rng,
            "meeting",
            t,
            hosts[who],
            cloud(rng, n),
            port,
            proto=UDP,
            up=life * rate,
            down=life * rate * rng.uniform(0.2, 5, n),
            rounds=life * 40,
            span=life,
        )
    ]


ACTIVITIES: tuple[Activity, ...] = (
    cloud_polling,
    time_keeping,
    leases,
    discovery,
    neighbours,
    pings,
    messaging,
    cameras,
    browsing,
    tunnels,
    serving,
    databases,
    mail,
    naming,
    peers,
    printers,
    telephones,
    updates,
    meetings,
)
