"""What a payee hands to a watcher: what it can show of its channels, with its leave to show it, in a sealed file.

The file's content is JSON: a list of `core.watcher.Evidence`. A newer file replaces an older one: within a challenge
the contract takes the voucher with the higher nonce.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from penstock.core.codec import decode_part, encode
from penstock.core.errors import PenstockError, UsageError
from penstock.core.identity import Key, to_hex
from penstock.core.watcher import Evidence
from penstock.node import book
from penstock.node.book import ChannelRow, Rowed
from penstock.storage.sealed import seal, unseal

PURPOSE = "penstock hand-over"


def consented(journal: Rowed, key: Key, rows: Sequence[ChannelRow]) -> list[Evidence]:
    """What we can show of these channels, each with our signed leave. Those without a voucher are left out.

    Raises:
        UsageError: the key is not the payee's of one of them, or it is settled.
    """
    shown = []
    for row in rows:
        if row.settled:
            raise UsageError(f"channel {book.name_of(row)[:14]}... is settled", "hand over those that are not")
        evidence = book.evidence_of(journal, row.params.id)
        if evidence is None:
            continue
        if evidence.payee_key != key.address:
            raise UsageError(
                f"key {to_hex(key.address)} is not paid by channel {book.name_of(row)[:14]}...", "choose another --key"
            )
        shown.append(msgspec.structs.replace(evidence, consent=key.sign(evidence.answer.digest(row.params))))
    return shown


def hand_over(path: Path, passphrase: str, evidence: Sequence[Evidence]) -> None:
    """Seal it into the file.

    Raises:
        UsageError: the file cannot be written.
    """
    seal(path, PURPOSE, passphrase, encode(list(evidence)))


def take_over(path: Path, passphrase: str) -> list[Evidence]:
    """What somebody handed over, every signature, lock and preimage checked.

    Raises:
        UsageError: the file cannot be read, or the contract would not take what is in it.
    """
    try:
        evidence = decode_part(unseal(path, PURPOSE, passphrase), list[Evidence])
        for one in evidence:
            one.check()
            if not one.consent:
                raise UsageError("a payee's leave is missing")
    except UsageError:
        raise
    except PenstockError as error:
        raise UsageError(f"{path} holds what no contract would take: {error}", "ask for it again") from None
    return evidence
