"""From a contract's balance to the wallet, as `channel withdraw` and `escrow withdraw` do it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from penstock.cli.money import shown, sum_of
from penstock.cli.node import open_key, run
from penstock.cli.output import answer
from penstock.cli.standing import mined_rows
from penstock.core.errors import OutOfFunds

if TYPE_CHECKING:
    from penstock.cli.config import Config
    from penstock.cli.node import LateEscrows, LateLedger


def take_home(read: Config, late: LateLedger | LateEscrows, amount: str | None, *, as_json: bool) -> None:
    """Withdraw `amount` (whole tokens; None is all) of what the configured key has in the contract, and say so.

    Raises:
        UsageError: no sum, or no such key. OutOfFunds: the contract holds less. LedgerError: as the ledger says.
    """

    async def work(_asked: asyncio.Event) -> tuple[dict[str, Any], list[str]]:
        signer = open_key(read.key)
        try:
            ledger = await late()
            token = await ledger.token()
            held = (await ledger.holdings(signer.address)).balance
            wanted = sum_of(amount, token, "AMOUNT") if amount is not None else held
            if wanted > held or held == 0:
                raise OutOfFunds(f"the contract holds {shown(held, token)} for this key", "what settles brings more")
            mined = await ledger.withdraw(signer, wanted)
            left = await ledger.holdings(signer.address)
        finally:
            await late.disconnect()
        document = {
            "withdrawn": wanted,
            "wallet": left.wallet,
            "balance": left.balance,
            "transactions": mined_rows(mined),
        }
        return document, [f"withdrew {shown(wanted, token)}; the wallet has {shown(left.wallet, token)} now"]

    document, lines = run(work)
    answer(document, lines, as_json=as_json)
