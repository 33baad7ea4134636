"""Real daemons of the lab, each configured in the run's scratch folder and seen by its own
namespace alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.lab.stage import Stage

USER, PASSWORD = "lab", "s3nsible-harbour"
"""The account of the SSH and FTP servers and of the broker."""


def prepare(stage: Stage) -> None:
    """Writes keys, the certificate, accounts and pages that the daemons share."""
    folder = stage.folder
    folder.chmod(0o755)
    (folder / "home").mkdir()
    (folder / "home").chmod(0o777)
    Path("/run/sshd").mkdir(exist_ok=True)
    _quietly("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "hostkey"))
    curve = (
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=lab",
    )
    files = ("-keyout", str(folder / "key.pem"), "-out", str(folder / "crt.pem"))
    _quietly("openssl", "req", "-x509", *curve, *files)
    (folder / "both.pem").write_text(
        (folder / "key.pem").read_text() + (folder / "crt.pem").read_text()
    )
    crypted = subprocess.run(
        ["openssl", "passwd", "-6", PASSWORD], check=True, capture_output=True, text=True
    ).stdout
    passwd = Path("/etc/passwd").read_text() + f"{USER}:x:3000:3000::{folder}/home:/bin/sh\n"
    (folder / "passwd").write_text(passwd)
    (folder / "shadow").write_text(
        f"root:*:19000:0:99999:7:::\n{USER}:{crypted.strip()}:19000:0:99999:7:::\n"
    )
    (folder / "shadow").chmod(0o600)
    _quietly("mosquitto_passwd", "-b", "-c", str(folder / "mqtt.pw"), USER, PASSWORD)
    pages = folder / "www"
    pages.mkdir()
    for number in range(12):
        (pages / f"page{number}.html").write_bytes(b"<p>lab</p>" * (60 + 400 * number))


def _quietly(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def accounts(stage: Stage) -> dict[str, Path]:
    """The account files that a login daemon sees in place of the machine's."""
    return {"/etc/passwd": stage.folder / "passwd", "/etc/shadow": stage.folder / "shadow"}


def sshd(stage: Stage) -> None:
    """OpenSSH with one password account; under PAM, by the seed, a wrong password costs two
    seconds."""
    config = stage.folder / "sshd.conf"
    delays = "yes" if stage.rng("sshd").random() < 0.5 else "no"
    config.write_text(
        f"HostKey {stage.folder}/hostkey\nUsePAM {delays}\nPasswordAuthentication "
        "yes\nPermitRootLogin yes\n"
        "StrictModes no\n"
        "MaxStartups 60\nLoginGraceTime 20\nUseDNS no\nPidFile none\nPrintMotd no\nPrintLastLog "
        "no\n"
        "Subsystem sftp internal-sftp\n"
    )
    stage.spawn(["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], accounts(stage))


def vsftpd(stage: Stage) -> None:
    """FTP with the same account."""
    config = stage.folder / "vsftpd.conf"
    config.write_text(
        "listen=YES\nlisten_ipv6=NO\nbackground=NO\nlocal_enable=YES\nwrite_enable=YES\nanonymous_enable=NO\n"
        "isolate=NO\nisolate_network=NO\nseccomp_sandbox=NO\npam_service_name=vsftpd\nxferlog_enable=NO\n"
        f"local_root={stage.folder}/home\npasv_min_port=40000\npasv_max_port=40100\n"
    )
    config.chmod(0o600)
    stage.spawn(["/usr/sbin/vsftpd", str(config)], accounts(stage))


def nginx(stage: Stage, name: str) -> None:
    """A web server with a few pages."""
    config = stage.folder / f"nginx-{name}.conf"
    temporary = "".join(
        f"{kind}_temp_path {stage.folder}/nginx-{name}-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"user root; worker_processes 1; daemon off; pid {stage.folder}/nginx-{name}.pid; "
        "error_log stderr;\n"
        "events { worker_connections 512; }\n"
        f"http {{ access_log off; {temporary} server {{ listen 80; root {stage.folder}/www; }} }}\n"
    )
    stage.spawn(["/usr/sbin/nginx", "-c", str(config), "-e", "stderr"])


def mosquitto(stage: Stage) -> None:
    """The MQTT broker with a password file."""
    config = stage.folder / "mosquitto.conf"
    config.write_text(
        f"listener 1883 0.0.0.0\nallow_anonymous false\npassword_file {stage.folder}/mqtt.pw\n"
        "user root\npersistence false\nlog_dest stderr\n"
    )
    stage.spawn(["/usr/sbin/mosquitto", "-c", str(config)])


def dnsmasq(stage: Stage, address: str, upstream: str) -> None:
    """Resolver and DHCP server of the local network."""
    names = [
        f"--address=/{name}/{host}" for name, host in stage.names.items() if name.endswith(".lan")
    ]
    low, high = stage.network.subnet.network_address + 2, stage.network.subnet.network_address + 190
    stage.spawn(
        [
            *(
                "/usr/sbin/dnsmasq",
                "-k",
                "--conf-file=/dev/null",
                "--user=root",
                "--group=root",
                "--no-hosts",
            ),
            *(
                "--no-resolv",
                "--bind-interfaces",
                f"--listen-address={address}",
                f"--server={upstream}",
            ),
            *(
                "--cache-size=20",
                "--pid-file=",
                f"--dhcp-leasefile={stage.folder}/leases",
                "--dhcp-authoritative",
            ),
            *(f"--dhcp-range={low},{high},10m", "--no-ping", "--log-facility=-", *names),
        ]
    )
