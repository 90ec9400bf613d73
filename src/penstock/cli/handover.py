"""`penstock channel handover`: give a watcher what it needs to answer in our place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.node import ConfigFile, KeyName
from penstock.cli.output import AsJson, answer
from penstock.cli.passphrase import PassphraseFile

SharedFile = Annotated[
    Path | None,
    typer.Option(
        "--shared-passphrase-file",
        help="File whose first line is the passphrase that you and the watcher share. Without it you are asked.",
        show_default=False,
    ),
]


def handover(
    file: Annotated[Path, typer.Argument(help="The file to write; an older one is replaced.", show_default=False)],
    channels: Annotated[
        list[str] | None, typer.Argument(help="Channels; left out: all that pay us.", show_default=False)
    ] = None,
    config: ConfigFile = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    shared_passphrase_file: SharedFile = None,
    as_json: AsJson = False,
) -> None:
    """Write what somebody needs to answer a stale close for us: vouchers, preimages, and our signed leave.

    The file is encrypted. Whoever opens it can pay us, and nobody else: `penstock watch FILE` does it while we sleep.
    Hand over again after every session that brought a newer voucher.

    \b
    Example:
        penstock channel handover pole.handover --key pole --shared-passphrase-file shared
    """
    from penstock.cli.node import open_key, read_journal, settings
    from penstock.cli.passphrase import passphrase
    from penstock.core.errors import UsageError
    from penstock.core.watcher import worth
    from penstock.node import book
    from penstock.node.handover import consented, hand_over

    journal = read_journal()
    if channels:
        rows = [book.channel_named(journal, name) for name in channels]
    else:
        rows = [row for row in book.channels(journal) if row.earns and not row.settled]
    read = settings(config, None, None, None, key, passphrase_file)
    shown = consented(journal, open_key(read.key), rows)
    if not shown:
        raise UsageError("there is no voucher to hand over", "channels that pay us bring them")
    hand_over(file, passphrase("the watcher's file", shared_passphrase_file, confirm=True), shown)
    total = sum(worth(one.filing) for one in shown)
    answer(
        {"file": str(file), "channels": len(shown), "worth": total},
        [f"{file}: {'one channel' if len(shown) == 1 else f'{len(shown)} channels'}, {total:,} token units"],
        as_json=as_json,
    )
