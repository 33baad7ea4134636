"""Everyday traffic, and things that look like attacks and are none."""

from __future__ import annotations

import ftplib
import random
import socket
import struct
from contextlib import AbstractContextManager, suppress

from tests.lab import servers, wire
from tests.lab.daemons import PASSWORD, USER
from tests.lab.network import Host
from tests.lab.stage import Stage
from tests.lab.world import POOL

DAILY: dict[str, tuple[str, ...]] = {
    "resolver": (),
    "broker": ("clock",),
    "server": ("clock", "update_check"),
    "nas": ("clock", "announce"),
    "recorder": ("clock", "subscriber"),
    "exposed": ("clock", "update_check"),
    "sensor": ("telemetry", "clock", "lease"),
    "camera": ("camera", "cloud_poll", "clock", "lease"),
    "gadget": ("cloud_poll", "announce", "lease", "cloud_line"),
    "workstation": ("browse", "intranet", "lease", "announce", "clock"),
    "laptop": ("browse", "cloud_poll", "lease", "announce"),
    "admin": ("browse", "monitor", "ssh_session"),
}
"""What hosts of a role do all the time, whatever else they are made to do."""


def _gap(stage: Stage, rng: random.Random, mean: float) -> None:
    stage.sleep(min(rng.expovariate(1 / (mean * stage.busy)), 4 * mean * stage.busy))


def _usual(
    stage: Stage, name: str, me: Host, resp: list[Host | str], proto: str, ports: list[int]
) -> AbstractContextManager[None]:
    return stage.activity("benign", "", name, [me], resp, proto, ports)


def _look_up(stage: Stage, rng: random.Random, name: str) -> None:
    wire.dns(stage.one("resolver").address, name, rng)
    if rng.random() < 0.3:
        wire.dns(stage.one("resolver").address, name, rng, kind=28)


def _weigh(stage: Stage, size: int) -> int:
    return int(size * stage.weight)


def telemetry(stage: Stage, me: Host, rng: random.Random) -> None:
    """A sensor that publishes to the broker: one long connection, or one a reading."""
    broker, interval = stage.one("broker"), rng.uniform(2, 15)
    short, qos = rng.random() < 0.3, rng.random() < 0.5
    payload = b'{"temperature": 21.5, "humidity": 40}' * rng.randint(1, 4)
    stage.sleep(rng.uniform(0, 4))
    with _usual(stage, "telemetry", me, [broker], "tcp", [1883]):
        while True:
            with suppress(OSError):
                client = wire.Mqtt(broker.address, 1883, me.name, USER, PASSWORD)
                for number in range(1, 2 if short else rng.randint(10, 40)):
                    client.publish(f"lab/{me.name}", payload, number if qos else 0)
                    stage.sleep(0.1 if short else interval * rng.uniform(0.9, 1.1))
                client.close()
            stage.sleep(interval if short else rng.uniform(1, 5))


def subscriber(stage: Stage, me: Host, rng: random.Random) -> None:
    """A dashboard that listens to all topics."""
    broker = stage.one("broker")
    stage.sleep(1)
    with _usual(stage, "dashboard", me, [broker], "tcp", [1883]), suppress(OSError):
        client = wire.Mqtt(broker.address, 1883, me.name, USER, PASSWORD)
        client.subscribe("lab/#")
        client.link.settimeout(0.2)
        while True:
            with suppress(TimeoutError):
                client.link.recv(65536)
            stage.sleep(rng.uniform(0.5, 1.5))


def camera(stage: Stage, me: Host, rng: random.Random) -> None:
    """A stream to the recorder: control over TCP, pictures over UDP as RTP sends them."""
    recorder, rate, size = stage.one("recorder"), rng.uniform(8, 25), rng.randint(500, 1200)
    with _usual(stage, "camera stream", me, [recorder], "udp", [5004]):
        while True:
            with (
                suppress(OSError),
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link,
                wire.connect(recorder.address, 554) as control,
            ):
                control.sendall(b"SETUP rtsp://recorder/1 RTSP/1.0\r\nCSeq: 1\r\n\r\n")
                control.recv(64)
                for number in range(int(rng.uniform(60, 200) * rate)):
                    header = struct.pack("!BBHII", 0x80, 96, number & 0xFFFF, number * 3000, 7)
                    link.sendto(
                        header + wire.filler(size + rng.randint(-200, 100)),
                        (recorder.address, 5004),
                    )
                    stage.sleep(1 / rate)
            stage.sleep(rng.uniform(1, 8))


def clock(stage: Stage, me: Host, rng: random.Random) -> None:
    """NTP to the local server or to the pool."""
    server = POOL if rng.random() < 0.4 else stage.one("resolver").address
    while True:
        stage.sleep(rng.uniform(1, 30))
        if server == POOL:
            _look_up(stage, rng, "pool.ntp.example")
        wire.ntp(server)
        stage.sleep(rng.choice((16, 32, 64)))


def lease(stage: Stage, me: Host, rng: random.Random) -> None:
    """DHCP renewals."""
    while True:
        stage.sleep(rng.uniform(5, 120))
        with suppress(OSError):
            wire.dhcp_renew(stage.one("resolver").address, me.address, rng)
        stage.sleep(rng.uniform(60, 180))


def announce(stage: Stage, me: Host, rng: random.Random) -> None:
    """mDNS and SSDP announcements."""
    while True:
        stage.sleep(rng.uniform(3, 60))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link, suppress(OSError):
            link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(me.address))
            for _ in range(rng.randint(1, 3)):
                if rng.random() < 0.5:
                    link.sendto(
                        wire.dns_question("_services._dns-sd._udp.local", 12, 0),
                        ("224.0.0.251", 5353),
                    )
                else:
                    search = b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\n\r\n'  # noqa: E501
                    link.sendto(search, ("239.255.255.250", 1900))
                stage.sleep(1)


def browse(stage: Stage, me: Host, rng: random.Random) -> None:
    """A person who reads web pages: names, pages, what belongs to them, and time to think."""
    while True:
        _gap(stage, rng, 8)
        site = rng.choice(stage.sites)
        with suppress(OSError):
            _look_up(stage, rng, f"www{rng.randrange(40)}.example.com")
            tls = rng.random() < 0.7
            for _ in range(rng.randint(1, 4)):
                paths = [
                    f"/{_weigh(stage, rng.randint(300, 60000))}/x" for _ in range(rng.randint(1, 6))
                ]
                wire.http(site, 443 if tls else 80, paths, tls=tls)
                stage.sleep(rng.uniform(0.05, 0.5))
            if rng.random() < 0.4:
                other = rng.choice(stage.sites)
                _look_up(stage, rng, f"cdn{rng.randrange(20)}.example.net")
                wire.http(
                    other, 443, [f"/{_weigh(stage, rng.randint(1000, 200000))}/img"], tls=True
                )


def intranet(stage: Stage, me: Host, rng: random.Random) -> None:
    """Pages of the local web server, and now and then a file over FTP."""
    server = stage.one("server")
    with _usual(stage, "intranet pages", me, [server], "tcp", [80]):
        while True:
            _gap(stage, rng, 20)
            with suppress(OSError):
                _look_up(stage, rng, "server.lan")
                pages = [f"/page{rng.randrange(14)}.html" for _ in range(rng.randint(1, 5))]
                wire.http(server.address, 80, pages)
                if rng.random() < 0.2:
                    _upload(server.address, rng.randint(2_000, 100_000))


def _upload(address: str, size: int) -> None:
    ftp = ftplib.FTP
    with suppress(EOFError, *ftplib.all_errors), ftp(address, USER, PASSWORD, timeout=6) as link:
        with link.transfercmd(f"STOR file-{size}") as data:
            data.sendall(wire.filler(size))
        link.voidresp()


def cloud_poll(stage: Stage, me: Host, rng: random.Random) -> None:
    """A device that asks its cloud at intervals, with little jitter: as regular as a beacon."""
    cloud, interval = rng.choice(stage.clouds), rng.uniform(5, 40)
    jitter, size, tls = rng.uniform(0.01, 0.3), rng.randint(50, 900), rng.random() < 0.8
    name = f"api{rng.randrange(9)}.cloud.example"
    stage.sleep(rng.uniform(0, interval))
    with _usual(stage, "cloud poll", me, [cloud], "tcp", [443 if tls else 80]):
        while True:
            with suppress(OSError):
                if rng.random() < 0.5:
                    _look_up(stage, rng, name)
                body = wire.filler(size) if rng.random() < 0.5 else None
                wire.http(cloud, 443 if tls else 80, [f"/{size}/status"], tls=tls, body=body)
            stage.pause(rng, interval, jitter)


def cloud_line(stage: Stage, me: Host, rng: random.Random) -> None:
    """A long connection to a cloud's broker, kept alive."""
    cloud = rng.choice(stage.clouds)
    while True:
        with suppress(OSError):
            client = wire.Mqtt(cloud, 8883, me.name, USER, PASSWORD, tls=True)
            for _ in range(rng.randint(3, 30)):
                stage.sleep(rng.uniform(5, 20))
                client.ping()
                client.link.recv(64)
            client.close()
        stage.sleep(rng.uniform(1, 10))


def update_check(stage: Stage, me: Host, rng: random.Random) -> None:
    """Asks for updates."""
    while True:
        _gap(stage, rng, 60)
        with suppress(OSError):
            _look_up(stage, rng, "updates.example.org")
            wire.http(
                rng.choice(stage.sites), 80, [f"/{rng.randint(500, 30000)}/index" for _ in range(3)]
            )


def monitor(stage: Stage, me: Host, rng: random.Random) -> None:
    """Monitoring: at intervals one connection to every service it knows, and a ping to some
    hosts."""
    services = [
        ("server", 80),
        ("server", 22),
        ("nas", 21),
        ("broker", 1883),
        ("exposed", 80),
        ("recorder", 554),
    ]
    services = rng.sample(services, rng.randint(3, 6))
    interval = rng.uniform(15, 45)
    with _usual(
        stage,
        "monitoring",
        me,
        [stage.one(role) for role, _ in services],
        "tcp",
        [p for _, p in services],
    ):
        while True:
            stage.sleep(interval * rng.uniform(0.95, 1.05))
            for role, port in services:
                with suppress(OSError), wire.connect(stage.one(role).address, port) as link:
                    if port in {21, 22}:
                        link.recv(64)
                stage.sleep(0.05)
            for host in rng.sample(stage.local(), 3):
                _ping(host.address, rng)


def _ping(address: str, rng: random.Random) -> None:
    number = rng.randrange(65536)
    body = struct.pack("!BBHHH", 8, 0, 0, number, 1) + wire.filler(56)
    words = sum(struct.unpack(f"!{len(body) // 2}H", body))
    check = ~((words & 0xFFFF) + (words >> 16)) & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as link:
        link.settimeout(1)
        link.sendto(body[:2] + struct.pack("!H", check) + body[4:], (address, 0))
        with suppress(OSError):
            link.recv(2048)


def _ssh(stage: Stage, me: Host, target: Host, password: str, command: str, limit: float) -> str:
    options = [
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "PubkeyAuthentication=no",
    ]
    options += ["-o", "ConnectTimeout=5", "-o", "NumberOfPasswordPrompts=1", "-o", "LogLevel=ERROR"]
    return stage.tool(
        ["sshpass", "-p", password, "ssh", *options, f"{USER}@{target.address}", command], limit
    )


def ssh_session(stage: Stage, me: Host, rng: random.Random) -> None:
    """Work over SSH with the right password."""
    while True:
        _gap(stage, rng, 40)
        target = stage.one(rng.choice(("server", "nas", "exposed")))
        _ssh(
            stage,
            me,
            target,
            PASSWORD,
            f"for i in 1 2 3; do ls /usr/bin | head -{rng.randint(5, 300)}; sleep 1; done",
            20,
        )


def mistyped(stage: Stage, me: Host, rng: random.Random, *, tries: int = 3) -> None:
    """A person who mistypes the password a few times, then gets in."""
    target = stage.one("server")
    with _usual(stage, "mistyped password", me, [target], "tcp", [22]):
        for number in range(tries):
            _ssh(stage, me, target, PASSWORD[:-1] + str(number), "true", 15)
            stage.sleep(rng.uniform(2, 6))
        _ssh(stage, me, target, PASSWORD, "uptime; sleep 3", 20)


def mqtt_misconfigured(
    stage: Stage, me: Host, rng: random.Random, *, tries: int = 8, wait: float = 15.0
) -> None:
    """A device with an old password that keeps asking the broker, slowly."""
    broker = stage.one("broker")
    with _usual(stage, "old MQTT password", me, [broker], "tcp", [1883]):
        for _ in range(tries):
            with suppress(OSError):
                wire.Mqtt(broker.address, 1883, me.name, USER, "old-password").close()
            stage.sleep(wait * rng.uniform(0.9, 1.1))


def backup(
    stage: Stage, me: Host, rng: random.Random, *, files: int = 6, size: int = 1_500_000
) -> None:
    """A backup to the storage host over FTP: much goes up, in a row."""
    nas = stage.one("nas")
    with _usual(stage, "backup", me, [nas], "tcp", [21, *range(40000, 40101)]):
        for _ in range(files):
            _upload(nas.address, int(size * rng.uniform(0.3, 1.7)))
            stage.sleep(rng.uniform(0.5, 4))


def cloud_backup(
    stage: Stage, me: Host, rng: random.Random, *, files: int = 4, size: int = 600_000
) -> None:
    """Pictures or clips to a cloud the host knows."""
    cloud = rng.choice(stage.clouds)
    with _usual(stage, "cloud backup", me, [cloud], "tcp", [443]):
        for _ in range(3):
            with suppress(OSError):
                wire.http(cloud, 443, ["/400/list"], tls=True)
            stage.sleep(rng.uniform(1, 4))
        for _ in range(files):
            with suppress(OSError):
                wire.http(
                    cloud,
                    443,
                    ["/100/put"],
                    tls=True,
                    body=wire.filler(int(size * rng.uniform(0.3, 1.7))),
                )
            stage.sleep(rng.uniform(1, 8))


def update(stage: Stage, me: Host, rng: random.Random, *, size: int = 4_000_000) -> None:
    """A software update: index, then a large download."""
    site = rng.choice(stage.sites)
    with _usual(stage, "software update", me, [site], "tcp", [80]), suppress(OSError):
        _look_up(stage, rng, "updates.example.org")
        wire.http(site, 80, ["/2000/release", "/90000/packages"])
        for _ in range(rng.randint(2, 6)):
            wire.http(site, 80, [f"/{int(size * rng.uniform(0.1, 1))}/package"])
            stage.sleep(rng.uniform(0.2, 2))


def inventory(
    stage: Stage, me: Host, rng: random.Random, *, hosts: int = 8, wait: float = 1.5
) -> None:
    """The administrator's inventory: few hosts, few ports, slowly; some are closed."""
    ports = rng.sample([22, 80, 443, 1883, 21, 8080, 554], 3)
    targets = rng.sample([host for host in stage.local() if host is not me], hosts)
    with _usual(stage, "inventory", me, list(targets), "tcp", ports):
        for target in targets:
            for port in ports:
                with suppress(OSError), wire.connect(target.address, port, timeout=2):
                    pass
                stage.sleep(wait * rng.uniform(0.5, 1.5))


def poller(
    stage: Stage, me: Host, rng: random.Random, *, rate: float = 4.0, seconds: float = 60.0
) -> None:
    """A chatty controller that asks devices several times a second over short connections."""
    devices = stage.role("gadget", "camera")
    with _usual(stage, "chatty poller", me, list(devices), "tcp", [80]):
        for number in range(int(rate * seconds)):
            with suppress(OSError):
                wire.http(
                    devices[number % len(devices)].address, 80, [f"/{rng.randint(20, 200)}/state"]
                )
            stage.sleep(rng.uniform(0.5, 1.5) / rate)


def page_burst(stage: Stage, me: Host, rng: random.Random, *, count: int = 150) -> None:
    """A heavy page or a load test: many connections to the local web server in a few seconds, all
    answered."""
    server = stage.one("server")
    with _usual(stage, "burst of pages", me, [server], "tcp", [80]):
        for _ in range(count):
            with suppress(OSError):
                wire.http(server.address, 80, [f"/page{rng.randrange(12)}.html"])
            stage.sleep(rng.uniform(0.005, 0.05))


def printer_off(
    stage: Stage, me: Host, rng: random.Random, *, tries: int = 15, wait: float = 8.0
) -> None:
    """A host that keeps asking for a printer that is switched off or refuses."""
    base = stage.network.subnet.network_address
    printer = str(base + rng.choice((200, 230)))
    port = rng.choice((9100, 631))
    with _usual(stage, "printer switched off", me, [printer], "tcp", [port]):
        for _ in range(tries):
            with suppress(OSError), wire.connect(printer, port, timeout=3):
                pass
            stage.sleep(wait * rng.uniform(0.8, 1.2))


def cloud_down(
    stage: Stage, me: Host, rng: random.Random, *, tries: int = 5, wait: float = 12.0
) -> None:
    """A cloud that does not answer for a while, then does."""
    cloud = stage.outsider(rng, answers=False)
    with _usual(stage, "cloud outage", me, [cloud], "tcp", [443]):
        for number in range(tries * 2):
            if number == tries:
                stage.network.own(stage.one("internet"), cloud)
            with suppress(OSError):
                wire.http(cloud, 443, ["/200/status"], tls=True)
            stage.sleep(wait * rng.uniform(0.8, 1.2))


def call(
    stage: Stage, me: Host, rng: random.Random, *, seconds: float = 40.0, rate: float = 30.0
) -> None:
    """A call: UDP both ways with somebody outside."""
    peer = rng.choice(stage.sites)
    stage.start(
        stage.one("internet"), lambda: servers.udp_sink(stage, peer, 3478, 2), "call server"
    )
    stage.sleep(0.2)
    with (
        _usual(stage, "video call", me, [peer], "udp", [3478]),
        suppress(OSError),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link,
    ):
        for _ in range(int(seconds * rate)):
            link.sendto(wire.filler(rng.randint(100, 900)), (peer, 3478))
            stage.sleep(1 / rate)


def names(stage: Stage, me: Host, rng: random.Random, *, count: int = 120) -> None:
    """Many lookups in a row, some without an answer: a mail server or a crawler."""
    resolver = stage.one("resolver")
    with _usual(stage, "burst of lookups", me, [resolver], "udp", [53]):
        for _ in range(count):
            prefix = "nx" if rng.random() < 0.3 else "mx"
            wire.dns(
                resolver.address,
                f"{prefix}{rng.randrange(10**6)}.example.net",
                rng,
                rng.choice((1, 16, 28)),
            )
            stage.sleep(rng.expovariate(8))


def copy(stage: Stage, me: Host, rng: random.Random, *, seconds: int = 4) -> None:
    """A measured bulk transfer inside the network (iperf3)."""
    other = rng.choice(
        [host for host in stage.role("workstation", "nas", "server") if host is not me]
    )
    stage.start(other, lambda: _listen_iperf(stage), "iperf3 server")
    with _usual(stage, "bulk transfer", me, [other], "tcp", [5201]):
        stage.sleep(0.7)
        stage.tool(
            ["iperf3", "-c", other.address, "-t", str(seconds), "-b", "4M", "-P", "2"], seconds + 8
        )


def _listen_iperf(stage: Stage) -> None:
    stage.tool(["iperf3", "-s", "-1"], 40)


def mirror(
    stage: Stage, me: Host, rng: random.Random, *, files: int = 12, size: int = 300_000
) -> None:
    """A folder mirrored to the storage host by lftp, over one control connection and several for
    data."""
    nas, folder = stage.one("nas"), stage.folder / f"mirror-{me.name}"
    folder.mkdir(exist_ok=True)
    for number in range(files):
        (folder / f"{me.name}-{number}").write_bytes(wire.filler(int(size * rng.uniform(0.2, 1.8))))
    script = f"set net:timeout 5; set net:max-retries 1; open -u {USER},{PASSWORD} {nas.address}; mirror -R {folder}"  # noqa: E501
    with _usual(stage, "folder mirrored", me, [nas], "tcp", [21, *range(40000, 40101)]):
        stage.note(f"lftp: {stage.tool(['lftp', '-c', script], 60)[-200:]!r}")


def health(
    stage: Stage, me: Host, rng: random.Random, *, count: int = 80, wait: float = 3.0
) -> None:
    """A shell loop that asks a local service whether it lives, by curl; sometimes it doesn't find
    the page."""
    server = stage.one(rng.choice(("server", "exposed")))
    with _usual(stage, "health check", me, [server], "tcp", [80]):
        for _ in range(count):
            stage.tool(
                ["curl", "-s", "-m", "3", f"http://{server.address}/page{rng.randrange(14)}.html"],
                4,
            )
            stage.sleep(wait * rng.uniform(0.95, 1.05))
