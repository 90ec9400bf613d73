"""Prove what `proofs/*.vy` says about the channel contract, for all inputs, and that seeded faults break the proofs.

    python -m tests.verification.prove [--halmos PATH] [--only TEXT]

Each proof is run once on the contract as it is, and once for each of its faults, in which a piece of the contract's
text is another: there halmos must come up with a counterexample. Fails where one of these is not so. A check that
halmos gets to no end with is only searched for a counterexample for a while, which proves nothing but finds its faults.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .proving import SOURCE, build

PROOFS = Path(__file__).parent / "proofs"
SOLVER_SECONDS = 60  # for one question of a proof
PROOF_SECONDS = 200  # for a whole one
SEARCH_SECONDS = 20  # for one that does not get to an end
PASSED, COUNTEREXAMPLE, GAVE_UP = 0, 1, 2  # halmos' own exit codes for a check
LATE, BROKEN = -1, -2  # ours: no answer in time; no answer that can be read

Fault = tuple[str, str]  # a piece of the contract's text, and what stands there instead


@dataclass(frozen=True)
class Proof:
    """One check. `width`: how many bits sums of tokens have in it; the contract knows 96."""

    contract: str
    check: str
    faults: tuple[Fault, ...]
    width: int = 96
    ends: bool = True  # whether halmos gets to an end with it

    @property
    def name(self) -> str:
        return f"{self.contract.capitalize()}{self.width}"

    def text(self) -> str:
        """The check and what it needs, without the other checks."""
        parts = "\n\n\n".join((PROOFS / f"{name}.vy").read_text() for name in ("head", self.contract)).split("\n\n\n")
        kept = [part for part in parts if "\ndef check_" not in part or f"\ndef {self.check}(" in part]
        sums = {"max_value(Sum)": str(2**self.width - 1), "Sum": f"uint{self.width}"}
        text = "\n\n\n".join(kept)
        for name, instead in sums.items():
            text = text.replace(name, instead)
        return text


WORDS = (
    Proof("words", "check_a_flag_is_one_bit", (("return word | (1 << (bit", "return word ^ (1 << (bit"),)),
    Proof("words", "check_a_deadline_touches_nothing_else", (("(closes_at << CLOSES_AT)", "(closes_at << 193)"),)),
    Proof(
        "words",
        "check_a_filing_is_read_as_it_was_written",
        (
            ("capped: uint256 = min(amount, UINT96)", "capped: uint256 = amount"),
            ("(self.filings[id] & (UINT96 << 96)) | capped", "capped"),
        ),
    ),
    Proof("words", "check_a_credit_leaves_the_counter", (("+= amount << 64", "+= amount << 63"),)),
    Proof("words", "check_a_debit_leaves_the_counter", (("account >> 64 < amount", "account >> 63 < amount"),)),
    Proof(
        "words",
        "check_a_proof_is_read_field_by_field",
        (
            ("expiry=(head >> 56) & UINT64", "expiry=(head >> 56) & UINT40"),
            ("if place == 0:\n        proof.tree", "if place >= 0:\n        proof.tree"),
        ),
    ),
    Proof("words", "check_a_sibling_stands_on_its_side", (("if place & 1 == 0:", "if place & 1 != 0:"),)),
    Proof(
        "words",
        "check_a_signature_has_one_form",
        ((" and s <= HALF_ORDER", ""), ("found == signer and found != 0", "found == signer")),
    ),
    Proof("words", "check_locks_are_kept_field_by_field", (("(serial << 136)", "(serial << 135)"),)),
    Proof("words", "check_an_event_tells_each_field", (("(nonce << 96)", "(nonce << 97)"),)),
)
SUMS = (
    Proof("sums", "check_a_balance_is_within_the_pot", (("min(credit - debit, pot)", "credit - debit"),)),
    Proof("sums", "check_what_was_drawn_stays_counted", (("max(total, drawn & UINT96)", "total"),)),
    Proof(
        "sums",
        "check_an_open_lock_never_pays_twice",
        (("    if credit <= debit:\n        return 0", "    if credit <= debit:\n        return pot"),),
    ),
    Proof(
        "sums",
        "check_the_worst_case_grows_with_what_is_asked",
        (("return min(max(total, drawn & UINT96), pot", "return min(pot - total % (pot + 1), pot"),),
    ),
    Proof("sums", "check_a_payout_borrows_from_neither_side", ()),
)
CHANNELS = (
    Proof("channels", "check_a_deposit_is_what_arrived", (("now != before + amount", "now < before + amount"),)),
    Proof(
        "channels",
        "check_a_withdrawal_is_taken_from_the_account",
        (("if not extcall IERC20(TOKEN).transfer(", "if not not extcall IERC20(TOKEN).transfer("),),
    ),
    Proof("channels", "check_opening_conserves", (("account >> 64 < place >> 160", "account >> 63 < place >> 160"),)),
    Proof("channels", "check_opening_with_keys_conserves", (("used = self.channels[id] != 0", "used = False"),)),
    Proof("channels", "check_beginning_to_close_conserves", (("self.paid[id] |= claimed", "self.paid[id] = claimed"),)),
)
# With sums of 16 bits: at 96 the solver does not get to an end.
LIVES = (
    Proof(
        "channels", "check_adding_conserves", (("word += amount << 96 if partner else amount", "word += amount"),), 16
    ),
    Proof(
        "channels",
        "check_a_claim_conserves",
        (("min(voucher.amount, (word & UINT96) - (drawn & UINT96))", "voucher.amount"),),
        16,
    ),
    Proof(
        "channels",
        "check_a_row_of_claims_conserves",
        (("(word >> CLOSES_AT) ^ PLAIN | form.params.terms & TWO_WAY) == 0", "(word >> CLOSES_AT) ^ PLAIN) == 0"),),
        16,
    ),
    Proof("channels", "check_filing_conserves", (("(word & ~claimed) | (1 << PAID)", "word & ~claimed"),), 16),
    Proof(
        "channels", "check_a_release_conserves", (("word &= ~(1 << (ITSELF + ", "word &= ~(1 << (FILED - 3 + "),), 16
    ),
)
SEARCHES = (
    Proof(
        "channels",
        "check_a_row_of_closes_conserves",
        (("            | unsafe_mul(claimed, form.params.terms & TWO_WAY)\n", ""),),
        16,
        ends=False,
    ),
    Proof(
        "channels",
        "check_withdrawing_together_conserves",
        (("self._share(consent.params, totals - drawn)", "self._share(consent.params, totals)"),),
        16,
        ends=False,
    ),
    Proof(
        "channels",
        "check_closing_together_conserves",
        (("if total > pot or (closing and total != pot):", "if total > pot:"),),
        16,
        ends=False,
    ),
    Proof(
        "channels",
        "check_finishing_conserves",
        (("(total | ((pot - total) << 96)) - drawn)", "(total | ((pot - total) << 96)))"),),
        16,
        ends=False,
    ),
    Proof(
        "channels",
        "check_settling_is_never_stuck",
        (("return min(max(total, drawn & UINT96), pot - (drawn >> 96))", "return min(total, pot)"),),
        16,
        ends=False,
    ),
    Proof(
        "channels",
        "check_settling_conserves",
        (
            (
                "amounts: uint256 = (least | ((pot - most) << 96)) - drawn",
                "amounts: uint256 = least | ((pot - most) << 96)",
            ),
        ),
        16,
        ends=False,
    ),
)
ALL = (*WORDS, *SUMS, *CHANNELS, *LIVES, *SEARCHES)


@dataclass(frozen=True)
class Answer:
    """What halmos says of one check."""

    code: int
    paths: int
    seconds: float

    @property
    def verdict(self) -> str:
        known = {
            PASSED: "proven",
            COUNTEREXAMPLE: "counterexample",
            GAVE_UP: "solver gave up",
            LATE: "no answer in time",
        }
        return known.get(self.code, f"failed ({self.code})")


class Prover:
    """halmos, over contracts that are built in a folder of its own."""

    def __init__(self, halmos: Path, root: Path) -> None:
        self._halmos, self._root = halmos, root
        # halmos calls Foundry's compiler before it reads what was built.
        forge = root / "bin/forge"
        forge.parent.mkdir()
        forge.write_text("#!/bin/sh\nexit 0\n")
        forge.chmod(0o755)
        self._path = f"{forge.parent}:{halmos.parent}:{os.environ['PATH']}"

    def ask(self, proof: Proof, source: str, limit: float) -> Answer:
        """Run one check over a source of the contract, for `limit` seconds at most."""
        build(proof.name, proof.text(), source, self._root)
        answer = self._root / "answer.json"
        answer.unlink(missing_ok=True)
        command = [str(self._halmos), "--root", str(self._root), "--contract", proof.name, "--no-status"]
        command += ["--match-test", rf"^{proof.check}\(", "--storage-layout", "generic", "--json-output", str(answer)]
        command += ["--solver-timeout-assertion", f"{SOLVER_SECONDS}s", "--solver-threads", "1", "--early-exit"]
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            env={**os.environ, "PATH": self._path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            return Answer(LATE, 0, limit)
        seconds = time.monotonic() - began
        if not answer.exists():
            return Answer(BROKEN, 0, seconds)
        found: list[dict[str, Any]] = next(iter(json.loads(answer.read_text())["test_results"].values()), [])
        if len(found) != 1 or found[0]["num_bounded_loops"]:
            return Answer(BROKEN, 0, seconds)
        return Answer(found[0]["exitcode"], found[0]["num_paths"][0], seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--halmos", type=Path, default=Path(".venv/verify/bin/halmos"))
    parser.add_argument("--only", default="", help="checks with this text in their names")
    given = parser.parse_args()
    source, failed = SOURCE.read_text(), 0
    with tempfile.TemporaryDirectory() as folder:
        prover = Prover(given.halmos.absolute(), Path(folder))
        for proof in ALL:
            if given.only not in proof.check:
                continue
            answer = prover.ask(proof, source, PROOF_SECONDS if proof.ends else SEARCH_SECONDS)
            failed += answer.code not in ((PASSED,) if proof.ends else (PASSED, GAVE_UP, LATE))
            said = f"{proof.check:50} {proof.width:>3} bits  {answer.paths:>4} paths {answer.seconds:6.1f} s"
            print(f"{said}  {answer.verdict}", flush=True)
            for before, after in proof.faults:
                assert source.count(before) == 1, f"the contract has no single {before!r}"
                broken = prover.ask(proof, source.replace(before, after), PROOF_SECONDS)
                failed += broken.code != COUNTEREXAMPLE
                print(f"    {before!r} as {after!r}: {broken.verdict}, {broken.seconds:.1f} s", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
