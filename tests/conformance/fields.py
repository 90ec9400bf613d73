"""Parameters and contents as named fields, each of which a kit changes alone, and back."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core.channel import ChannelParams, Domain
from penstock.core.escrow import EscrowDomain, EscrowParams

Fields = dict[str, Any]


def flat(params: ChannelParams | EscrowParams, *parts: msgspec.Struct) -> Fields:
    """All that a signature under these parameters commits to, by name."""
    fields: Fields = {**msgspec.structs.asdict(params), **msgspec.structs.asdict(params.domain)}
    del fields["domain"]
    for part in parts:
        fields |= msgspec.structs.asdict(part)
    return fields


def of(kind: type[Any], fields: Fields) -> Any:
    """The struct of that kind that fields make."""
    return kind(*(fields[name] for name in kind.__struct_fields__))


def channel_of(fields: Fields) -> ChannelParams:
    """The channel that fields are about."""
    made: ChannelParams = of(ChannelParams, {**fields, "domain": of(Domain, fields)})
    return made


def escrow_of(fields: Fields) -> EscrowParams:
    """The escrow that fields are about."""
    made: EscrowParams = of(EscrowParams, {**fields, "domain": of(EscrowDomain, fields)})
    return made
