"""A bundle: the models that score together, everything needed to use them, and proof that nobody touched them.

A directory, or a zip of it ending in `.idsb`: `manifest.json`, the files the manifest lists by their SHA-256, and
`signature` (Ed25519 over the id) where it was signed. The id is the SHA-256 over the manifest without its id, so it
covers every byte of every file. No pickle: ONNX, LightGBM's text and JSON only.
"""

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

from ids_plugin.config import read_bytes
from ids_plugin.errors import BundleError, UsageError
from ids_plugin.schema.window import EARLIER, Spec

FORMAT = 1
MANIFEST = "manifest.json"
SIGNATURE = "signature"
SUFFIX = ".idsb"
LARGEST = 64 << 20
"""Bytes a bundle may hold: what serves on a gateway is under 2 MB; more is a mistake or a zip bomb."""
REQUIRED = ("id", "files", "family", "version", "classes", "schema", "members")
SHIPPED = Path(__file__).parents[1] / "bundles"

Manifest = dict[str, Any]


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
        return str(self.manifest["id"])

    @property
    def family(self) -> str:
        return str(self.manifest["family"])

    @property
    def version(self) -> str:
        return str(self.manifest["version"])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.manifest["classes"])

    @property
    def usual(self) -> dict[str, float]:
        """Feature → median of benign training windows, on the feature's own scale; unknown ones left out."""
        return {
            name: float(seen["median"]) for name, seen in self.manifest.get("reference", {}).items()
        }

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
        if self.manifest["schema"]["fingerprint"] == spec.fingerprint:
            return
        if "uniflow" in self.manifest["schema"]:
            told = "is for microcontrollers and classifies directions of connections, not flows"
            raise BundleError(told, location=self.location, hint="docs/devices.md")
        raise BundleError(
            f"made for other windows: {difference(self.manifest['schema'], describe(spec))}",
            location=self.location,
            hint="train it again with this version, or install the version that made it",
        )


def describe(spec: Spec) -> dict[str, Any]:
    """What a manifest says of the windows: fingerprint, length, and the features in order with their units."""
    parts = ("flow", "step", "context", "summary")
    named = {part: [list(feature[:2]) for feature in getattr(spec, part)] for part in parts}
    return {"fingerprint": spec.fingerprint, "earlier": EARLIER, **named}


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """In words: the first thing in which two descriptions of windows differ, part by part."""
    if theirs.get("earlier") != ours["earlier"]:
        return f"{theirs.get('earlier')} earlier flows instead of {ours['earlier']}"
    for part in ("flow", "step", "context", "summary"):
        old = {str(name): str(unit) for name, unit in theirs.get(part, ())}
        new = {str(name): str(unit) for name, unit in ours[part]}
        unknown, absent = [n for n in old if n not in new], [n for n in new if n not in old]
        units = [
            f"{n} in {old[n]} instead of {new[n]}" for n in old if n in new and old[n] != new[n]
        ]
        said = (
            [f"column {n} is unknown here" for n in unknown]
            + [f"column {n} is missing" for n in absent]
            + units
        )
        if said:
            return (
                f"{part}: "
                + "; ".join(said[:5])
                + (f"; and {len(said) - 5} more" if len(said) > 5 else "")
            )
        moved = [
            f"column {a} where {b} is expected" for a, b in zip(old, new, strict=True) if a != b
        ]
        if moved:
            return f"{part}: {moved[0]}"
    return "same columns, another fingerprint"


def seal(
    manifest: Mapping[str, Any], files: Mapping[str, bytes], private_key: bytes | None = None
) -> Bundle:
    """The bundle of `files` (name → contents): hashes and id filled in, signed where a PEM key is given."""
    hashes = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}
    whole: Manifest = json.loads(
        json.dumps({**manifest, "format": FORMAT, "files": hashes}, allow_nan=False)
    )
    whole["id"] = _identity(whole)
    signature = None if private_key is None else _sign(whole["id"], private_key)
    return Bundle(whole, dict(files), signature)


def sign(bundle: Bundle, private_key: bytes) -> Bundle:
    """The same bundle, signed with a PEM Ed25519 private key."""
    return Bundle(bundle.manifest, bundle.files, _sign(bundle.id, private_key), bundle.location)


def require_place(target: Path) -> None:
    """Refuses a place that no bundle can be written to, before the work is done that would make one.

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
    """Reads and checks a bundle: hashes always, its windows where `spec` is given, its signature where a key (PEM) is.
    `source` is its path, or what `pack` gave; `where` is then what messages call it.

    Raises:
        BundleError: it is absent, cut short, damaged, newer than this code, foreign, or not signed with that key.
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
    text = json.dumps(bundle.manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    contents = {MANIFEST: text.encode(), **bundle.files}
    return contents if bundle.signature is None else {**contents, SIGNATURE: bundle.signature}


def _read_folder(source: Path) -> dict[str, bytes]:
    try:
        found = [path for path in source.iterdir() if path.is_file()]
        _check_size(sum(path.stat().st_size for path in found), str(source))
        return {path.name: path.read_bytes() for path in found}
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
        manifest = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{MANIFEST} is damaged or cut short", location=where) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise BundleError(f"{MANIFEST} is not that of a bundle", location=where)
    if manifest["format"] > FORMAT:
        raise BundleError(
            f"format {manifest['format']} is newer than this version reads ({FORMAT})",
            location=where,
        )
    absent = [key for key in REQUIRED if key not in manifest]
    if absent:
        raise BundleError(f"{MANIFEST} lacks {', '.join(absent)}", location=where)
    if manifest["id"] != _identity(manifest):
        raise BundleError(
            f"{MANIFEST} was changed: its id doesn't fit its contents", location=where
        )
    return manifest


def _check_files(manifest: Manifest, files: Mapping[str, bytes], where: str) -> None:
    hashes: dict[str, str] = manifest["files"]
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
