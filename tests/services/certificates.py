"""A certificate authority of our own, and what it signed: a server on loopback and a client."""

from __future__ import annotations

import datetime
import ipaddress
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = datetime.timedelta(days=1)


class Certificates:
    """PEM files, made when first asked for; another instance is another, mutually unknown
    authority."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self._files["ca.crt"]

    @property
    def server(self) -> tuple[Path, Path]:
        """Certificate and key of 127.0.0.1 and localhost."""
        return self._files["server.crt"], self._files["server.key"]

    @property
    def server_pem(self) -> Path:
        """Key and certificate of the server in one file."""
        return self._files["server.pem"]

    @property
    def client(self) -> tuple[Path, Path]:
        """Certificate and key of a client."""
        return self._files["client.crt"], self._files["client.key"]

    @cached_property
    def _files(self) -> dict[str, Path]:
        self._folder.mkdir(parents=True, exist_ok=True)
        authority = ec.generate_private_key(ec.SECP256R1())
        texts = {
            "ca.crt": certificate("ids-plugin tests", authority, "ids-plugin tests", authority)
        }
        for name in ("server", "client"):
            key = ec.generate_private_key(ec.SECP256R1())
            texts[f"{name}.crt"] = certificate(name, key, "ids-plugin tests", authority)
            texts[f"{name}.key"] = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        texts["server.pem"] = texts["server.key"] + texts["server.crt"]
        paths = {name: self._folder / name for name in texts}
        for name, path in paths.items():
            path.write_bytes(texts[name])
        return paths


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey
) -> bytes:
    """A certificate in PEM, valid from yesterday for a month; an authority's where key and signer
    are the same."""
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 30 * DAY)
        .add_extension(x509.BasicConstraints(ca=key is signer, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
