"""`penstock journal`: check the journal, back it up while the node runs, and put a backup in its place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli.output import AsJson, answer

SHOWN = 20  # problems that are printed; JSON has more
MOST = 1_000

app = typer.Typer(help="Check the journal, back it up, and restore it.", rich_markup_mode=None)


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="A backup; left out: our journal.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Read every row of the journal, and see that they agree.

    The file must be whole, every row readable, and every signature, lock and chain of ticks what a ledger would take;
    sessions must name channels that are there. It only reads, also beside a running node. The exit code is 1 if
    anything is wrong. Some thousand channels are checked in a second.

    \b
    Example:
        penstock journal check
        penstock journal check /mnt/backup/pole-0412
    """
    from itertools import islice

    from penstock.cli.config import home
    from penstock.core.errors import JournalError
    from penstock.core.session import Role
    from penstock.node import book, upkeep
    from penstock.storage.copies import damage
    from penstock.storage.sqlite import SqliteJournal

    path = file or home().journal
    journal = SqliteJournal.open_readonly(path)
    found = damage(path) or list(islice(upkeep.problems(journal), MOST))
    document: dict[str, Any] = {"file": str(path), "problems": found}
    if not found:
        paid = [row.role is Role.SUPPLIER for row in book.each_channel(journal)]
        document |= {
            "channels": {"pay_us": sum(paid), "we_pay": len(paid) - sum(paid)},
            "unfinished_sessions": sum(len(book.unfinished(journal, role)) for role in Role),
            "restored_at": upkeep.restored_at(journal),
        }
    if found and not as_json:
        answer(document, found[:SHOWN], as_json=False)
    if found:
        more = "" if len(found) < MOST else " or more"
        raise JournalError(
            f"journal {path} has {len(found)}{more} problems, the first: {found[0]}", "restore a backup; keep this file"
        )
    channels = document["channels"]
    lines = [
        f"{path}: nothing is wrong",
        f"{channels['pay_us']} channels pay us, through {channels['we_pay']} we pay; "
        f"unfinished sessions: {document['unfinished_sessions']}",
        *(f"restored from a backup at {at}" for at in document["restored_at"]),
    ]
    answer(document, lines, as_json=as_json)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not be there yet.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Copy the journal to FILE, also while the node runs.

    The copy is the journal as it is at one moment, checked, on the disk when the command ends, and readable by its
    owner only. Keep it so: whoever reads a consumer's journal can pay out its open locks. Back up after each opening
    of a channel and after each session, or every few minutes: what comes later than the backup is not in it.

    \b
    Example:
        penstock journal backup /mnt/backup/pole-$(date +%m%d-%H%M)
    """
    from penstock.cli.config import home
    from penstock.storage.copies import back_up

    size = back_up(home().journal, file)
    answer({"file": str(file), "bytes": size}, [f"{file}: {size:,} bytes"], as_json=as_json)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="The backup.", show_default=False)],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of a journal that is there, which is kept aside.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a backup this node's journal. No node may be running.

    A backup does not know what was signed after it. So that nobody is cheated, and you are not: channels that you pay
    through are used no more. Their suppliers close them, or you do with `penstock channel close`; either way you get
    back what is left. Channels that pay you go on: their consumers bring what is missing with their next session or
    their close, and until then `penstock channel close` wants --anyway. Never restore where the journal is only old
    in your eyes: what it has and the backup has not is lost.

    \b
    Example:
        penstock journal restore /mnt/backup/pole-0412-1800
        penstock journal restore /mnt/backup/pole-0412-1800 --replace
    """
    from penstock.cli.config import home
    from penstock.core.ports import Journal
    from penstock.node import upkeep
    from penstock.node.clock import now
    from penstock.storage.copies import put_back

    retired = 0

    async def mark(journal: Journal) -> None:
        nonlocal retired
        retired = await upkeep.retire(journal, now())

    path = home().journal
    kept = asyncio.run(put_back(file, path, replace, mark))
    document: dict[str, Any] = {"file": str(path), "kept": str(kept) if kept else None, "retired": retired}
    lines = [f"{path} is what {file} was"]
    if kept:
        lines.append(f"the journal that was there is {kept}")
    if retired:
        lines.append(f"channels that we pay through and that are used no more: {retired}; `penstock channel list`")
    answer(document, lines, as_json=as_json)
