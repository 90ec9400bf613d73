"""Every parser of bytes that come from outside, with the errors that it documents and the inputs to begin from."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from tests.fuzz import (
    answers,
    data,
    door,
    evidence,
    files,
    hops,
    links,
    mutate,
    node,
    said,
    signals,
    signed,
    talk,
    wire,
)
from tests.fuzz.budget import within

from penstock.core.errors import (
    BadFrame,
    BadMessage,
    BadSignature,
    BadTerms,
    BadVoucher,
    DeviceError,
    JournalError,
    LedgerError,
    OutOfRange,
    PeerRefused,
    PenstockError,
    UsageError,
)


class Target(NamedTuple):
    """`one(data)` may raise `errors` and nothing else; what it returns tells kinds of inputs apart.

    `signed` ones check signatures or derive keys: fewer runs are asked of them.
    """

    one: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    errors: tuple[type[PenstockError], ...]
    mutation: mutate.Mutation = mutate.tree
    signed: bool = False
    longest: int = 2048  # bytes of an input

    def run(self, data: bytes) -> str:
        """Try an input within its budget. Returns the kind of its outcome: the error without its numbers, or what the
        target made of it."""
        try:
            return str(within(self.one, data))
        except self.errors as error:
            if "\n" in error.line():
                raise AssertionError("an error is one line") from error
            words = _VARIES.sub("", str(error).partition(" '")[0])[:100]
            return f"{type(error).__name__} {words}"


_VARIES = re.compile(r"(/|0x)\S+|\d+")  # paths, keys and numbers

TARGETS = {
    "frame": Target(wire.frame, wire.frame_seeds, (BadFrame,), mutate.raw, longest=512),
    "hello": Target(wire.hello, wire.hello_seeds, (BadFrame, PeerRefused), mutate.raw),
    "proof": Target(wire.proof, wire.proof_seeds, (BadSignature,), mutate.raw, signed=True),
    "tls": Target(links.tls, links.tls_seeds, (), mutate.raw, signed=True, longest=4096),
    "link": Target(links.link, links.link_seeds, (), mutate.raw, signed=True),
    "message": Target(said.message, said.message_seeds, (BadMessage,)),
    "part": Target(said.part, said.part_seeds, (BadMessage,)),
    "row": Target(said.row, said.row_seeds, (JournalError,)),
    "offer": Target(said.offer, said.offer_seeds, (BadMessage, BadTerms)),
    "terms": Target(said.terms, said.terms_seeds, (BadMessage, BadTerms)),
    "voucher": Target(evidence.voucher, evidence.voucher_seeds, (BadMessage,), signed=True, longest=16_384),
    "watched": Target(
        evidence.watched,
        evidence.watched_seeds,
        (BadMessage, BadVoucher, BadSignature, OutOfRange),
        signed=True,
        longest=8192,
    ),
    "hops": Target(hops.hops, hops.hops_seeds, (BadMessage,), signed=True, longest=16_384),
    "talk": Target(talk.talk, talk.talk_seeds, (BadMessage,), signed=True, longest=16_384),
    "door": Target(door.door, door.door_seeds, (BadMessage,), signed=True, longest=16_384),
    "data": Target(data.data, data.data_seeds, (BadFrame,), mutate.raw, signed=True),
    "config": Target(files.config, files.config_seeds, (UsageError,), mutate.lines, longest=1024),
    "charges": Target(files.charges, files.charges_seeds, (UsageError,), mutate.lines, longest=1024),
    "key": Target(files.key, files.key_seeds, (UsageError,), signed=True),
    "seal": Target(files.seal, files.seal_seeds, (UsageError,), signed=True),
    "opening": Target(files.opening, files.opening_seeds, (UsageError,)),
    "manifest": Target(files.manifest, files.manifest_seeds, (UsageError,)),
    "register": Target(files.register, files.register_seeds, (DeviceError,), mutate.raw),
    "typed": Target(files.typed, files.typed_seeds, (), mutate.lines, longest=256),
    "answer": Target(answers.answer, answers.answer_seeds, ()),
    "returned": Target(answers.returned, answers.returned_seeds, (LedgerError,), mutate.raw, longest=512),
    "ledger": Target(answers.ledger, answers.ledger_seeds, (LedgerError,)),
    "node": Target(node.node, node.node_seeds, (), signed=True),
    "signals": Target(signals.signals, signals.signals_seeds, (), longest=4096),
    "ocmf": Target(signed.ocmf, signed.ocmf_seeds, (), signed=True, longest=8192),
}
