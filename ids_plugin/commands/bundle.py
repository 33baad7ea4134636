"""`ids-plugin bundle`: what models there are, what they were trained on, whether they are intact;
sends them out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ids_plugin.commands import Command, Console
from ids_plugin.errors import BundleError

if TYPE_CHECKING:
    from ids_plugin.bundle import Bundle

PUSH_SECONDS = 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Actions of `bundle`."""
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, help="what to do with bundles"
    )
    for action, text, example in (
        ("list", "bundles that ship with the package", "list --json"),
        ("show", "what a bundle is and what it was trained on", "show default"),
        (
            "verify",
            "whether a bundle is intact, fits this version and is signed by the key given",
            "verify default",
        ),
        ("sign", "write a signed copy of a bundle", "sign default --key key.pem --out signed.idsb"),
        (
            "push",
            "send a signed bundle to all `ids-consumer detect`",
            "push signed.idsb --config ids.toml",
        ),
    ):
        shown = f"example: ids-plugin bundle {example}"
        options = actions.add_parser(action, help=text, description=text, epilog=shown)
        if action != "list":
            options.add_argument("bundle", metavar="BUNDLE", help="name, directory or .idsb file")
        if action == "verify":
            options.add_argument(
                "--key", metavar="PEM", help="public key (Ed25519) that must have signed it"
            )
        if action == "sign":
            options.add_argument(
                "--key", required=True, metavar="PEM", help="private key (Ed25519)"
            )
            options.add_argument(
                "--out", required=True, metavar="BUNDLE", help="where the signed bundle goes"
            )
        if action == "push":
            options.add_argument(
                "--config",
                metavar="FILE",
                help="settings (TOML): [kafka], [topics] and [detect] count",
            )
            options.add_argument(
                "--name",
                metavar="NAME",
                help="who is meant: those whose detect.bundle has it (default: ours)",
            )
            options.add_argument(
                "--withdraw",
                action="store_true",
                help="take back what was sent: each goes on with its configured one",
            )


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        BundleError: the bundle is damaged, foreign, unsigned where a key is given, or of another
            schema.
        ConfigError: the key can't be read, or the configuration can't be used.
        ServiceError: Kafka doesn't take it.
    """
    actions = {"list": _list, "show": _show, "verify": _verify, "sign": _sign, "push": _push}
    return actions[args.action](args, console)


def _list(_args: argparse.Namespace, console: Console) -> int:
    from ids_plugin.bundle import find, read, shipped

    rows = [{"name": name, **_facts(read(find(name)))} for name in shipped()]
    for row in rows:
        if console.json:
            console.result(row)
        else:
            print(
                f"{row['name']:<12} {row['family']:<12} {row['id'][:12]}  "
                f"{row['size'] / 1000:.0f} kB",
                file=console.out,
            )
    return 0


def _show(args: argparse.Namespace, console: Console) -> int:
    from ids_plugin.bundle import find, read
    from ids_plugin.bundle.card import card

    bundle = read(find(args.bundle))
    if console.json:
        console.result(bundle.manifest.document)
        return 0
    for name, value in card(bundle):
        print(f"{name:<16} {value}", file=console.out)
    return 0


def _verify(args: argparse.Namespace, console: Console) -> int:
    from ids_plugin.bundle import find, read, read_key
    from ids_plugin.schema import uniflow
    from ids_plugin.windows import spec

    public = read_key(args.key)
    bundle = read(find(args.bundle), public_key=public)
    if bundle.manifest.schema.fingerprint != uniflow.fingerprint():
        bundle.require(spec())
    if console.json:
        console.result({"intact": True, "signed": bundle.signature is not None, **_facts(bundle)})
    else:
        print(
            f"{bundle.id}: intact, fits this version, {_signed(bundle, public)}", file=console.out
        )
    return 0


def _sign(args: argparse.Namespace, console: Console) -> int:
    from ids_plugin.bundle import find, read, read_key, sign, write

    bundle = read(find(args.bundle))
    write(sign(bundle, read_key(args.key) or b""), Path(args.out))
    if console.json:
        console.result({"bundle": bundle.id, "out": args.out})
    console.say(f"wrote {args.out}: {bundle.id[:12]}, signed")
    return 0


def _push(args: argparse.Namespace, console: Console) -> int:
    from ids_plugin import config, kafka
    from ids_plugin.bundle import find, pack, read, read_key
    from ids_plugin.windows import spec

    settings = config.load(Path(args.config) if args.config else None)
    public_key = read_key(settings.detect.public_key)
    bundle = read(find(args.bundle), spec=spec(), public_key=public_key)
    if bundle.signature is None:
        raise BundleError(
            "not signed: nobody would take it", location=args.bundle, hint="ids-plugin bundle sign"
        )
    name = args.name or Path(settings.detect.bundle or "default").stem
    data = b"" if args.withdraw else pack(bundle)
    with (
        kafka.producer(settings, max_request_size=kafka.LARGEST_BUNDLE) as producer,
        kafka.reaching(settings),
    ):
        sent = producer.send(settings.topics.bundles, data, name.encode()).get(PUSH_SECONDS)
    what = "withdrawn from" if args.withdraw else "sent to"
    if console.json:
        console.result(
            {"bundle": bundle.id, "name": name, "withdrawn": args.withdraw, "offset": sent.offset}
        )
    console.say(f"{bundle.id[:12]}: {what} {name} on {settings.topics.bundles}")
    return 0


def _signed(bundle: Bundle, public: bytes | None) -> str:
    if public is not None:
        return "signed by the key given"
    return "signed (by whom wasn't asked: --key)" if bundle.signature else "not signed"


def _facts(bundle: Bundle) -> dict[str, Any]:
    size = sum(len(data) for data in bundle.files.values())
    return {"id": bundle.id, "family": bundle.family, "version": bundle.version, "size": size}


PLUGIN = Command(
    "bundle",
    "Show, verify, sign and send bundles of models.",
    "example: ids-plugin bundle show default",
    configure,
    run,
)
