"""`penstock key`: make and list the keys of this node."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from penstock.cli.config import home
from penstock.cli.output import AsJson, answer
from penstock.cli.passphrase import PassphraseFile, passphrase

app = typer.Typer(help="Make and list the keys that sign for this machine.", rich_markup_mode=None)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What to call the key: letters, digits, - and _.", show_default=False)],
    passphrase_file: PassphraseFile = None,
    devnet: Annotated[
        int | None,
        typer.Option(
            help="Take a devnet's funded key of this number, which everybody knows.", show_default=False, min=0
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and keep it in an encrypted file.

    The file is an Ethereum keystore (version 3) in the directory `keys` of $PENSTOCK_HOME, or of ~/.penstock. Keep
    the passphrase: without it the key, and the tokens that it holds, are lost.

    \b
    Example:
        penstock key new pole
        penstock key new pole --passphrase-file pole.pass --json
        penstock key new trial --devnet 0
    """
    from penstock.core.identity import GROUP_ORDER, Key, to_hex
    from penstock.storage import keystore

    keys = home().keys
    keystore.free(keys, name)
    words = passphrase(name, passphrase_file, confirm=True)
    if devnet is None:
        secret = (1 + secrets.randbelow(GROUP_ORDER - 1)).to_bytes(32, "big")
    else:
        from penstock.ledgers.devnet.manifest import dev_key

        secret = dev_key(devnet).secret
    path = keystore.create(keys, name, words, secret)
    address = to_hex(Key(secret).address)
    answer(
        {"name": name, "address": address, "file": str(path)},
        [f"key {name} has the address {address}", f"it is encrypted in {path}"],
        as_json=as_json,
    )


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the keys of this machine with their addresses.

    No passphrase is needed: an address is public.

    \b
    Example:
        penstock key list
    """
    from penstock.core.identity import to_hex
    from penstock.storage import keystore

    keys = home().keys
    rows = [(name, to_hex(address), str(path)) for name, address, path in keystore.listing(keys)]
    width = max((len(name) for name, _, _ in rows), default=0)
    answer(
        {"keys": [{"name": name, "address": address, "file": path} for name, address, path in rows]},
        [f"{name:{width}}  {address}  {path}" for name, address, path in rows]
        or [f"no keys in {keys}; make one: penstock key new NAME"],
        as_json=as_json,
    )
