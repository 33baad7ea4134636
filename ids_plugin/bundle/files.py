"""A bundle: the models that score together, everything needed to use them, and proof that nobody
touched them.

A directory, or a zip of it ending in `.idsb`: `manifest.json`, the files the manifest lists by
their SHA-256, and `signature` (Ed25519 over the id) where it was signed. The id is the SHA-256 over
the manifest without its id, so it covers every byte of every file. No pickle: ONNX, LightGBM's text
and JSON only."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ids_plugin.bundle.manifest import Manifest
from ids_plugin.config import read_bytes
from ids_plugin.errors import BundleError, UsageError
from ids_plugin.schema.window import EARLIER, Spec

FORMAT = 1
MANIFEST = "manifest.json"
SIGNATURE = "signature"
SUFFIX = ".idsb"
LARGEST = 64 << 20
"""Bytes a bundle may hold: what serves on a gateway is under 2 MB; more is a mistake or a zip
bomb."""
SHIPPED = Path(__file__).parents[1] / "bundles"


@dataclass(frozen=True)
class Bundle:
    """An intact bundle in memory."""

    manifest: Manifest
    files: Mapping[str, bytes] = field(repr=False)
    signature: bytes | None = field(default=None, repr=False)
    location: str = "bundle"
    """where it was read, for messages"""

    @property
    def id(self) -> str:
        """SHA-256 (hex) over the contents."""
        return self.manifest.id

    @property
    def family(self) -> str:
        return self.manifest.family

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes

    @property
    def baseline(self) -> dict[str, float]:
        """Feature → median of benign training windows, on the feature's own scale; features that
        were never known are left out."""
        return {name: float(seen.median) for name, seen in self.manifest.baseline.items()}

    def file(self, name: str) -> bytes:
        """Contents of one file.

        Raises:
            BundleError: the bundle has no such file.
        """
        if name not in self.files:
            raise BundleError(f"no {name} in the bundle", location=self.location)
        return self.files[name]

    def require(self, spec: Spec) -> None:
        """Refuses a bundle that was made for other windows than `spec`.

        Raises:
            BundleError: the fingerprints differ; the message names the columns that do.
        """
        schema = self.manifest.schema
        if schema.fingerprint == spec.fingerprint:
            return
        if schema.uniflow is not None:
            raise BundleError(
                "is for microcontrollers and classifies directions of connections, not flows",
                location=self.location,
                hint="docs/devices.md",
            )
        raise BundleError(
            f"made for other windows: {difference(schema.document, describe(spec))}",
            location=self.location,
            hint="train it again with this version, or install the version that made it",
        )


def describe(spec: Spec) -> dict[str, Any]:
    """What a manifest says of the windows: fingerprint, length, and the features in order with
    their units."""
    parts = ("flow", "step", "context", "summary")
    named = {part: [list(feature[:2]) for feature in getattr(spec, part)] for part in parts}
    return {"fingerprint": spec.fingerprint, "earlier": EARLIER, **named}


def difference(of_bundle: Mapping[str, Any], of_code: Mapping[str, Any]) -> str:
    """In words: the first thing in which two descriptions of windows differ, part by part."""
    if of_bundle.get("earlier") != of_code["earlier"]:
        return f"{of_bundle.get('earlier')} earlier flows instead of {of_code['earlier']}"
    for part in ("flow", "step", "context", "summary"):
        old = {str(name): str(unit) for name, unit in of_bundle.get(part, ())}
        new = {str(name): str(unit) for name, unit in of_code[part]}
        unknown, absent = (
            [name for name in old if name not in new],
            [name for name in new if name not in old],
        )
        units = [
            f"{name} in {old[name]} instead of {new[name]}"
            for name in old
            if name in new and old[name] != new[name]
        ]
        differences = (
            [f"column {name} is unknown here" for name in unknown]
            + [f"column {name} is missing" for name in absent]
            + units
        )
        if differences:
            return (
                f"{part}: "
                + "; ".join(differences[:5])
                + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
            )
        moved = [
            f"column {a} where {b} is expected" for a, b in zip(old, new, strict=True) if a != b
        ]
        if moved:
            return f"{part}: {moved[0]}"
    return "same columns, another fingerprint"


def seal(
    manifest: Manifest | Mapping[str, Any],
    files: Mapping[str, bytes],
    private_key: bytes | None = None,
) -> Bundle:
    """The bundle of `files` (name → contents).

    Args:
        manifest: all but `format`, `files` and `id`, which are filled in.
        files: name → contents.
        private_key: PEM Ed25519 key that signs it.

    Raises:
        BundleError: a key of the manifest is missing or has a value of another type.
        UsageError: the key is none.
    """
    described = manifest.document if isinstance(manifest, Manifest) else manifest
    hashes = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}
    document = {**described, "format": FORMAT, "files": hashes}
    whole: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    whole["id"] = _identity(whole)
    sealed = Manifest.read(whole)
    signature = None if private_key is None else _sign(sealed.id, private_key)
    return Bundle(sealed, dict(files), signature)


def sign(bundle: Bundle, private_key: bytes) -> Bundle:
    """The same bundle, signed with a PEM Ed25519 private key."""
    return Bundle(bundle.manifest, bundle.files, _sign(bundle.id, private_key), bundle.location)


def require_place(target: Path) -> None:
    """Refuses a place that no bundle can be written to, before the work is done that would make
    one.

    Raises:
        UsageError: a folder stands there that is neither empty nor a bundle.
    """
    if target.exists() and not (
        target.is_file() or (target / MANIFEST).is_file() or not any(target.iterdir())
    ):
        raise UsageError("is there already and is no bundle", location=str(target))


def write(bundle: Bundle, target: Path) -> None:
    """Writes a directory, or one file when `target` ends in `.idsb`: all of it or nothing.

    A bundle that stands there is replaced; anything else is left alone.

    Raises:
        UsageError: something that is no bundle stands at `target`, or it can't be written.
    """
    require_place(target)
    contents = _contents(bundle)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            made = Path(folder) / "new"
            if target.suffix == SUFFIX:
                made.write_bytes(pack(bundle))
            else:
                made.mkdir()
                for name, data in contents.items():
                    (made / name).write_bytes(data)
            if target.is_dir():
                target.rename(Path(folder) / "old")
            made.rename(target)
    except OSError as error:
        raise UsageError(
            f"can't write the bundle: {error.strerror}", location=str(target)
        ) from error


def read(
    source: Path | bytes,
    *,
    spec: Spec | None = None,
    public_key: bytes | None = None,
    where: str = "",
) -> Bundle:
    """Reads and checks a bundle: hashes always, its windows where `spec` is given, its signature
    where a key (PEM) is. `source` is its path, or what `pack` gave; `where` is then what messages
    call it.

    Raises:
        BundleError: it is absent, cut short, damaged, newer than this code, foreign, or not signed
            with that key.
    """
    where = where or str(source)
    if isinstance(source, bytes):
        contents = _read_packed(io.BytesIO(source), where)
    else:
        contents = _read_folder(source) if source.is_dir() else _read_packed(source, where)
    if MANIFEST not in contents:
        raise BundleError(f"no {MANIFEST}: not a bundle", location=where)
    manifest = _manifest(contents.pop(MANIFEST), where)
    signature = contents.pop(SIGNATURE, None)
    _check_files(manifest, contents, where)
    bundle = Bundle(manifest, contents, signature, where)
    if public_key is not None:
        _check_signature(bundle, public_key)
    if spec is not None:
        bundle.require(spec)
    return bundle


def pack(bundle: Bundle) -> bytes:
    """The bundle as one file."""
    contents, packed = _contents(bundle), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name), contents[name], zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def read_key(path: Path | str | None) -> bytes | None:
    """The PEM key (Ed25519) of a file that a setting or an option names; None where none is named.

    Raises:
        ConfigError: the file can't be read.
    """
    return read_bytes(path, "the key") if path else None


def find(name_or_path: str) -> Path:
    """Where a bundle is: a shipped one by its name, otherwise the path itself.

    Raises:
        BundleError: neither is there; the message lists the shipped ones.
    """
    if name_or_path in shipped():
        return SHIPPED / name_or_path
    path = Path(name_or_path)
    if path.exists():
        return path
    raise BundleError(
        "no such bundle", location=name_or_path, hint=f"shipped ones: {', '.join(shipped())}"
    )


def shipped() -> tuple[str, ...]:
    """Names of the bundles in the package, sorted."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{MANIFEST}")))


def _identity(manifest: Mapping[str, Any]) -> str:
    named = {key: value for key, value in manifest.items() if key != "id"}
    return hashlib.sha256(
        json.dumps(named, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def _contents(bundle: Bundle) -> dict[str, bytes]:
    document = bundle.manifest.document
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    contents = {MANIFEST: text.encode(), **bundle.files}
    return contents if bundle.signature is None else {**contents, SIGNATURE: bundle.signature}


def _read_folder(source: Path) -> dict[str, bytes]:
    try:
        files = [path for path in source.iterdir() if path.is_file()]
        _check_size(sum(path.stat().st_size for path in files), str(source))
        return {path.name: path.read_bytes() for path in files}
    except OSError as error:
        raise BundleError(f"can't be read: {error.strerror}", location=str(source)) from error


def _read_packed(source: Path | io.BytesIO, where: str) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(source) as archive:
            _check_size(sum(entry.file_size for entry in archive.infolist()), where)
            return {entry.filename: archive.read(entry) for entry in archive.infolist()}
    except OSError as error:
        raise BundleError(f"can't be read: {error.strerror}", location=where) from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, zlib.error) as error:
        raise BundleError("damaged or cut short", location=where) from error


def _check_size(size: int, where: str) -> None:
    if size > LARGEST:
        raise BundleError(
            f"{size} bytes, more than the {LARGEST} a bundle may have", location=where
        )


def _manifest(text: bytes, where: str) -> Manifest:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{MANIFEST} is damaged or cut short", location=where) from error
    if not isinstance(document, dict) or not isinstance(document.get("format"), int):
        raise BundleError(f"{MANIFEST} is not that of a bundle", location=where)
    if document["format"] > FORMAT:
        raise BundleError(
            f"format {document['format']} is newer than this version reads ({FORMAT})",
            location=where,
        )
    manifest = Manifest.read(document, location=where)
    if manifest.id != _identity(document):
        raise BundleError(
            f"{MANIFEST} was changed: its id doesn't fit its contents", location=where
        )
    return manifest


def _check_files(manifest: Manifest, files: Mapping[str, bytes], where: str) -> None:
    hashes = manifest.files
    for name in sorted({*hashes, *files}):
        if name not in files:
            raise BundleError(f"{name} is missing", location=where)
        if name not in hashes:
            raise BundleError(f"{name} is not in {MANIFEST}", location=where)
        if hashlib.sha256(files[name]).hexdigest() != hashes[name]:
            raise BundleError(f"{name} is damaged: its hash doesn't fit", location=where)


def _sign(identity: str, private_key: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private_key, password=None)
    except (ValueError, TypeError) as error:
        raise UsageError("the signing key is no unencrypted PEM private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError("the signing key is no Ed25519 key")
    return key.sign(identity.encode())


def _check_signature(bundle: Bundle, public_key: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if bundle.signature is None:
        raise BundleError("not signed, and a key is configured", location=bundle.location)
    key = None
    with contextlib.suppress(ValueError):
        key = load_pem_public_key(public_key)
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError("the configured key is no PEM Ed25519 public key")
    try:
        key.verify(bundle.signature, bundle.id.encode())
    except InvalidSignature as error:
        raise BundleError(
            "signed with another key, or changed after signing", location=bundle.location
        ) from error
