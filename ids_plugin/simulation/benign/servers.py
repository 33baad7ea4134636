"""What servers do: web and other services, databases, mail."""

from __future__ import annotations

import numpy as np

from ids_plugin.simulation.benign.common import fault_odds, recording_span
from ids_plugin.simulation.contacts import (
    ABORTED,
    REFUSED,
    RESET,
    SYN_ACK_UNANSWERED,
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
    log_uniform_integers,
    log_uniform_value,
    periodic_times,
    public_addresses,
)
from ids_plugin.simulation.networks import Network


def _rush_times(network: Network, rng: Generator, rate: float) -> F64:
    """Times of visits while everybody comes at once, or a test puts load on a server."""
    begin, length = rng.uniform(0, network.seconds), log_uniform_value(rng, 20, 900)
    return rng.uniform(
        begin, begin + length, int(min(3000, length * rate * log_uniform_value(rng, 5, 60)))
    )


def serving(network: Network, rng: Generator) -> list[Contacts]:
    """Web and mail served to many clients, outside where the network is exposed, inside elsewhere;
    databases behind.
    """
    batches = []
    for host in network.of_type("server", "mail", "nameserver", "directory", "nas")[:12]:
        outside = network.is_public or rng.random() < 0.3
        clients = (
            public_addresses(rng, int(log_uniform_integers(rng, 20, 2000, 1)[0]))
            if outside
            else network.hosts
        )
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
        rate = log_uniform_value(rng, 0.001, 0.12) * network.activity
        _, times = periodic_times(
            rng, np.zeros(1), np.full(1, network.seconds), np.full(1, 1 / rate), np.ones(1)
        )
        if rng.random() < 0.2:
            times = np.concatenate([times, _rush_times(network, rng, rate)])
        visit, times = burst_times(rng, times, rng.geometric(0.4, len(times)), 4.0)
        n = len(times)
        client = rng.choice(clients, visit.max() + 1 if n else 0)[visit]
        batches.append(
            make_contacts(
                rng,
                "serving",
                times,
                client,
                host,
                port,
                proto=UDP if port == 53 else 0,
                service=service,
                orig_bytes=log_uniform(rng, 80, 4000, n),
                resp_bytes=log_uniform(rng, 100, 3e5, n),
                duration=log_uniform(rng, 0.01, 60, n),
                ending=draw_endings(
                    rng,
                    n,
                    fault_odds(network) | {ABORTED: 0.1, RESET: 0.05, SYN_ACK_UNANSWERED: 0.004},
                ),
            )
        )
    return batches


def databases(network: Network, rng: Generator) -> list[Contacts]:
    """Applications that ask a store all day: high, regular rates of alike connections inside."""
    stores, apps = (
        network.of_type("database", "directory", "nas"),
        network.of_type("server", "workstation"),
    )
    if len(stores) == 0 or len(apps) == 0:
        return []
    apps = apps[:10]
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(apps)),
        log_uniform(rng, 5, 900, len(apps)),
        rng.choice([0.1, 1.0], len(apps)),
    )
    n = len(subject)
    port = rng.choice([3306, 5432, 1433, 389, 445, 6379], len(apps))[subject]
    return [
        make_contacts(
            rng,
            "database",
            times,
            apps[subject],
            stores[subject % len(stores)],
            port,
            orig_bytes=log_uniform(rng, 200, 3000, len(apps))[subject] * rng.uniform(0.8, 1.2, n),
            resp_bytes=log_uniform(rng, 200, 40000, n),
            duration=log_uniform(rng, 0.003, 5, n),
            ending=draw_endings(rng, n, fault_odds(network)),
        )
    ]


def mail(network: Network, rng: Generator) -> list[Contacts]:
    """Clients that fetch and send mail; a server that delivers to many others, some of which don't
    answer.
    """
    clients = network.of_type("workstation", "phone")[:40]
    provider = public_addresses(rng, 3)
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(clients)),
        rng.choice([300.0, 600.0, 900.0], len(clients)),
        np.full(len(clients), 0.05),
    )
    n = len(subject)
    batches = [
        make_contacts(
            rng,
            "mail",
            times,
            clients[subject],
            provider[rng.integers(0, 3, n)],
            rng.choice([993, 587, 143, 110], n),
            service="ssl",
            orig_bytes=log_uniform(rng, 300, 5000, n),
            resp_bytes=log_uniform(rng, 500, 50000, n),
            duration=log_uniform(rng, 0.3, 20, n),
            ending=draw_endings(rng, n, fault_odds(network)),
        )
    ]
    for server in network.of_type("mail"):
        _, times = periodic_times(
            rng,
            np.zeros(1),
            np.full(1, network.seconds),
            np.full(1, log_uniform_value(rng, 5, 120)),
            np.ones(1),
        )
        n = len(times)
        batches.append(
            make_contacts(
                rng,
                "mail_delivery",
                times,
                server,
                public_addresses(rng, n),
                25,
                service="smtp",
                orig_bytes=log_uniform(rng, 800, 2e6, n),
                resp_bytes=log_uniform(rng, 200, 800, n),
                duration=log_uniform(rng, 0.5, 30, n),
                ending=draw_endings(
                    rng, n, fault_odds(network) | {UNANSWERED: 0.12, REFUSED: 0.05}
                ),
            )
        )
    return batches
