"""An Elasticsearch server: one node, loopback."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.services.certificates import Certificates
from tests.services.server import QUICK_START, Server, built, free_port

HERE = Path(__file__).parent / "elasticsearch"
VERSION = "8.19.21"
DESCRIPTOR = f"""name=es-mini
description=stand-ins for modules that are not on Maven Central
version=1
elasticsearch.version={VERSION}
java.version=17
classname=esmini.Mini
extended.plugins=x-pack-core
"""
USER = "tester"


def distribution() -> Path:
    """The folder of the unpacked server with the plugin of stand-ins."""
    sources = [HERE / "pom.xml", HERE / "Mini.java"]
    return built(f"elasticsearch-{VERSION}", sources, _assemble) / f"elasticsearch-{VERSION}"


def _assemble(folder: Path) -> None:
    subprocess.run(
        ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "initialize", f"-Dto={folder}"], check=True
    )
    server, classes = folder / f"elasticsearch-{VERSION}", folder / "classes"
    plugin = server / "plugins/es-mini"
    plugin.mkdir(parents=True)
    jars = [*server.glob("lib/*.jar"), *server.glob("modules/x-pack-core/x-pack-core-*.jar")]
    javac = [
        "javac",
        "-nowarn",
        "-proc:none",
        "-implicit:none",
        "-cp",
        os.pathsep.join(map(str, jars)),
    ]
    subprocess.run(
        [*javac, "-d", str(classes), str(HERE / "Mini.java")], check=True, capture_output=True
    )
    subprocess.run(["jar", "cf", str(plugin / "es-mini.jar"), "-C", str(classes), "."], check=True)
    (plugin / "plugin-descriptor.properties").write_text(DESCRIPTOR)


class Elasticsearch(Server):
    """A server at `url`; with `security` the superuser is USER with the password in `password`.

    `tls` serves HTTPS with `certificates`; `settings` are added to elasticsearch.yml.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        security: bool = False,
        tls: bool = False,
        settings: Mapping[str, str] | None = None,
        heap: str = "1g",
        options: tuple[str, ...] = QUICK_START,
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.security, self.tls = security or tls, tls
        self.user, self.password = USER, secrets.token_hex(8)
        self.certificates = Certificates(self.folder / "config/certificates")
        self._transport = free_port()
        self._settings = dict(settings or {})
        self._home = distribution()
        self._java = " ".join([f"-Xms{heap} -Xmx{heap}", *options])

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def log(self) -> str:
        """What the server wrote."""
        paths = [self.folder / "start.log", self.folder / "logs/ids-tests.log"]
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    def _launch(self) -> int:
        self._configure()
        run = self._as_nobody()
        pid = self.folder / "elasticsearch.pid"
        pid.unlink(missing_ok=True)
        environment = os.environ | {
            "ES_JAVA_HOME": str(Path(shutil.which("javac") or "").resolve().parent.parent),
            "ES_PATH_CONF": f"{self.folder}/config",
            "ES_TMPDIR": f"{self.folder}/tmp",
            "ES_JAVA_OPTS": self._java,
            "HOME": str(self.folder),
        }
        command = [*run, str(self._home / "bin/elasticsearch"), "-d", "-p", str(pid)]
        starter = self._spawn(command, self.folder / "start.log", environment)
        if os.waitpid(starter, 0)[1]:
            raise RuntimeError(f"Elasticsearch didn't start:\n{self.log()[-5000:]}")
        return int(pid.read_text())

    def _ready(self) -> bool:
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=1s"
        )
        if self.security:
            login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {login}")
        trust = ssl.create_default_context(cafile=str(self.certificates.ca)) if self.tls else None
        try:
            with urllib.request.urlopen(request, timeout=5, context=trust):  # noqa: S310
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _configure(self) -> None:
        config = self.folder / "config"
        if (config / "elasticsearch.yml").exists():
            return
        shutil.copytree(self._home / "config", config, dirs_exist_ok=True)
        for name in ("data", "logs", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        settings = {
            "cluster.name": "ids-tests",
            "node.name": "n1",
            "path.data": f"{self.folder}/data",
            "path.logs": f"{self.folder}/logs",
            "network.host": "127.0.0.1",
            "http.port": str(self.port),
            "transport.port": str(self._transport),
            "discovery.type": "single-node",
            "xpack.security.enabled": str(self.security).lower(),
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        if self.tls:
            certificate, key = self.certificates.server
            settings |= {
                "xpack.security.http.ssl.enabled": "true",
                "xpack.security.http.ssl.certificate": str(certificate),
                "xpack.security.http.ssl.key": str(key),
            }
        if self.security:
            (config / "users").write_text(f"{self.user}:{_hashed(self.password)}\n")
            (config / "users_roles").write_text(f"superuser:{self.user}\n")
        lines = (settings | self._settings).items()
        (config / "elasticsearch.yml").write_text(
            "".join(f"{key}: {value}\n" for key, value in lines)
        )

    def _as_nobody(self) -> list[str]:
        """The server refuses to run as root: it gets another user id in a user namespace, or
        becomes nobody."""
        if os.getuid():
            return []
        namespace = ["unshare", "-U", "--map-user=1000", "--map-group=1000"]
        if not subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
            return namespace
        subprocess.run(["chown", "-R", "nobody", str(self.folder)], check=True)
        subprocess.run(["chmod", "-R", "a+rX", str(self._home)], check=True)
        return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


def _hashed(password: str) -> str:
    """As the file realm reads it: PBKDF2 with HMAC-SHA512, 1,000 rounds, 32 bytes."""
    salt = secrets.token_bytes(32)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 1000, 32)
    return f"{{PBKDF2}}1000${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"
