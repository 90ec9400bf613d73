"""Where a node keeps its things, and what it is told to do: `config.toml`, with flags over it.

    [ledger]                                  [key]
    url = "http://127.0.0.1:8545"             name = "pole"
    contract = "0x..."                        passphrase_file = "pole.pass"
    escrow = "0x..."
    chain_id = 31337
    confirmations = 5
    max_gwei = 500

    [supply]                                  [consume]
    listen = "127.0.0.1:7411"                 supplier = "127.0.0.1:7411"
    medium = "electricity"                    max_price = "0.50"
    price = "0.40"                            budget = "20"
    tick = "0.01"                             quantity = 17366
    package = 25                              line = "line"
    credit_ticks = 2                          feed = "10"
    mode = "pay-after"
    line = "line"
    power_w = 6600
    metrics = "127.0.0.1:9464"
    feed_price = "0.30"                       [grid]
    grid = "https://vtn.example/openadr3"     name = "site 7"
    grid_key = "grid.key"                     programs = ["night"]
    site_limit = 22000                        listen = "127.0.0.1:7412"

Every key may be left out; a command says which one it misses. Sums and prices are decimal strings in whole tokens (a
TOML float cannot hold 0.40), parsed with the token's decimals once the ledger has told them. Relative paths in the file
count from the file's own directory.
"""

from __future__ import annotations

import os
import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Meta

from penstock.core.errors import OutOfRange, UsageError
from penstock.core.identity import Address, parse_address
from penstock.core.medium import MEDIA, medium

MAX_FILE = 8_192  # bytes; tomllib takes time with the square of a dotted key: 16 s for one of 64 KiB

T = TypeVar("T")
S = TypeVar("S", bound="_Section")

_DECIMAL = r"^[0-9]{1,30}(\.[0-9]{1,30})?\Z"
_SCHEME = re.compile(r"https?://|entsoe:|nordpool:")  # no path, though it stands where one may
_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
_NODE = re.compile(rf"(?:(?P<account>0x[0-9A-Fa-f]{{40}})@)?(?P<endpoint>{_PORT.pattern})")

Money = Annotated[str, Meta(pattern=_DECIMAL, description='a sum in whole tokens, in quotes, such as "20.50"')]
PriceText = Annotated[
    str, Meta(pattern=_DECIMAL, description='a price in whole tokens (electricity: per kWh), in quotes, such as "0.40"')
]
Endpoint = Annotated[
    str, Meta(pattern=rf"^{_PORT.pattern}\Z", description='a host and a port, such as "127.0.0.1:7411"')
]
NodeText = Annotated[
    str,
    Meta(
        pattern=rf"^{_NODE.pattern}\Z",
        description='a host and a port, behind "0x...@" where no other account may answer: "10.0.0.1:7421"',
    ),
]
AddressText = Annotated[str, Meta(description="an address: 0x and 40 hexadecimal digits, in quotes")]
Text = Annotated[str, Meta(min_length=1, max_length=4096, description="a text in quotes, not empty")]
Source = Annotated[
    str,
    Meta(min_length=1, max_length=4096, description="a file with a price series, or the https:// address of one"),
]
Energy = Annotated[
    str, Meta(pattern=_DECIMAL, description='a number of those units that prices are for (kWh), in quotes: "7.5"')
]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://\S+\Z", description='an address such as "http://127.0.0.1:8545"')]
Seconds = Annotated[int, Meta(ge=120, le=30 * 86_400, description="a whole number of seconds in 120..2592000")]
Watts = Annotated[int, Meta(ge=0, le=10**9, description="a whole number of watts")]
Percent = Annotated[str, Meta(pattern=r"^[0-9]{1,3}(\.[0-9]{1,4})?%?\Z", description='percent, in quotes: "1.5"')]
Count = Annotated[int, Meta(ge=1, le=2**63 - 1, description="a whole number above 0")]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class LedgerSection(_Section, frozen=True):
    """`[ledger]`: the node's JSON-RPC address, the contracts of channels and of escrows, how many blocks above make a
    deposit there final, and the most that a unit of gas may cost."""

    url: HttpUrl | None = None
    contract: AddressText | None = None
    escrow: AddressText | None = None
    chain_id: Count | None = None
    confirmations: Annotated[int, Meta(ge=0, le=10_000, description="a whole number of blocks in 0..10000")] = 0
    max_gwei: Annotated[int, Meta(ge=1, le=10**6, description="a whole number of gwei in 1..1000000")] = 500


class KeySection(_Section, frozen=True):
    """`[key]`: which key signs, and the file that holds its passphrase; without one, the passphrase is asked for."""

    name: Text | None = None
    passphrase_file: Text | None = None


class SupplySection(_Section, frozen=True):
    """`[supply]`: what is sold, for how much, and the line that it flows through, or for data where it is forwarded to.
    `package` in the medium's unit; `credit_ticks` is 2 where it is left out, and 16 for data. `prices` is a series, in
    place of the one `price`. What begins with `feed_` is for what consumers feed in: where it has no tick or credit of
    its own, it has those of the supply; `feed_stake` is what is put into each channel to pay it with. `grid` is the
    server of the grid's operator, `grid_key` the file of our credentials there, and `site_limit` (W) our own, which
    always holds.
    """

    listen: Endpoint = "127.0.0.1:7411"
    name: Annotated[str, Meta(max_length=80, description="a text of at most 80 characters")] = ""
    medium: Annotated[str, Meta(description="one of " + ", ".join(MEDIA))] = "electricity"
    price: PriceText | None = None
    prices: Source | None = None
    prices_signer: AddressText | None = None
    tick: Money | None = None
    package: Count | None = None
    credit_ticks: Annotated[int, Meta(ge=1, le=65_535, description="a whole number of ticks in 1..65535")] | None = None
    mode: Annotated[Literal["pay-after", "pay-before"], Meta(description='"pay-after" or "pay-before"')] = "pay-after"
    line: Text | None = None
    power_w: Annotated[int, Meta(ge=1, le=10**9, description="a whole number of watts")] = 11_000
    speed: Annotated[float, Meta(gt=0, le=10**9, description="a number above 0: 1 is real time")] | None = None
    forward: Endpoint | None = None
    feed_price: PriceText | None = None
    feed_prices: Source | None = None
    feed_limit: Energy | None = None
    feed_tick: Money | None = None
    feed_credit: Annotated[int, Meta(ge=1, le=65_535, description="a whole number of ticks in 1..65535")] | None = None
    feed_power: Annotated[int, Meta(ge=1, le=10**9, description="a whole number of watts")] | None = None
    feed_stake: Money | None = None
    sign: Text | None = None
    metrics: Endpoint | None = None
    grid: HttpUrl | None = None
    grid_key: Text | None = None
    site_limit: Watts | None = None


class ConsumeSection(_Section, frozen=True):
    """`[consume]`: from whom, up to which price, sum and quantity (in the medium's unit), and our end of the line; for
    data, where applications connect to instead."""

    supplier: Endpoint | None = None
    medium: Annotated[str, Meta(description="one of " + ", ".join(MEDIA))] = "electricity"
    max_price: PriceText | None = None
    budget: Money | None = None
    deposit: Money | None = None
    hubs: list[NodeText] = []
    max_fee: Percent = "5"
    quantity: Count | None = None
    feed: Energy | None = None
    min_feed: PriceText | None = None
    line: Text | None = None
    listen: Endpoint | None = None


class HubSection(_Section, frozen=True):
    """`[hub]`: where it listens, whom it reaches, what it puts into a channel to each, and what it takes for lending.

    `fee` is a part of each tick, `holding` a part of what is locked for each hour, both in percent. An incoming lock
    expires `delta` seconds after the outgoing one, `period` is the challenge period of the channels that it opens, and
    `share` the most of one that is lent to one neighbour, in percent.
    """

    listen: Endpoint = "127.0.0.1:7421"
    reach: list[NodeText] = []
    lend: Money | None = None
    fee: Percent = "1"
    holding: Percent = "0.01"
    delta: Seconds = 1_800
    period: Seconds = 3_600
    share: Annotated[int, Meta(ge=1, le=100, description="a whole number of percent in 1..100")] = 75


class GridSection(_Section, frozen=True):
    """`[grid]`: what we are called at the operator's server (as our credentials, where it is left out), and what of it
    is for us: events of these programs, and for these targets.

    `token_url` goes before what the server says. With `listen` we are told of changes at once, at `callback` where the
    server reaches us under another URL. `currency` is what a whole token is worth one of.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128, description="a text of 1 to 128 characters")] | None = None
    programs: list[Text] = []
    targets: list[Text] = []
    token_url: HttpUrl | None = None
    listen: Endpoint | None = None
    callback: HttpUrl | None = None
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z", description='a currency of ISO 4217, such as "EUR"')] = "EUR"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    ledger: LedgerSection = LedgerSection()
    key: KeySection = KeySection()
    supply: SupplySection = SupplySection()
    consume: ConsumeSection = ConsumeSection()
    hub: HubSection = HubSection()
    grid: GridSection = GridSection()


_PATHS = (
    ("key", "passphrase_file"), ("supply", "line"), ("supply", "sign"), ("consume", "line"),
    ("supply", "prices"), ("supply", "feed_prices"), ("supply", "grid_key"),
)  # fmt: skip


class Home(NamedTuple):
    """The directory of a node: $PENSTOCK_HOME, or ~/.penstock."""

    path: Path

    @property
    def keys(self) -> Path:
        """The directory of its key files."""
        return self.path / "keys"

    @property
    def journal(self) -> Path:
        """The file of its journal."""
        return self.path / "journal.db"

    @property
    def config(self) -> Path:
        """Its configuration, which need not be there."""
        return self.path / "config.toml"


def home() -> Home:
    """This node's home; nothing is made.

    Raises:
        UsageError: neither $PENSTOCK_HOME nor a home directory of the user is known.
    """
    named = os.environ.get("PENSTOCK_HOME")
    try:
        return Home(Path(named).expanduser().absolute() if named else Path.home() / ".penstock")
    except RuntimeError:
        raise UsageError("your home directory is not known", "set PENSTOCK_HOME to a directory of yours") from None


def load(path: Path | None = None) -> Config:
    """The configuration in `path`, which must be there; without a path, the home's, which may be missing.

    Raises:
        UsageError: the file cannot be read, is no TOML, or a key of it is unknown or holds what it cannot.
    """
    chosen = path or home().config
    try:
        with chosen.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        if path is None:
            return Config()
        raise UsageError(f"there is no file {path}", "name a TOML file with the configuration") from None
    except OSError as error:
        raise UsageError(f"cannot read {chosen}: {error.strerror}", "check its owner and mode") from None
    return _decode(chosen, _parse(chosen, content))


def over(section: S, **flags: object) -> S:
    """`section` with the flags that were given (those not None) in place of the file's values.

    Raises:
        UsageError: a flag's value is not what its key holds; the message names the flag.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    values = msgspec.structs.asdict(section) | given
    try:
        changed = msgspec.convert({key: value for key, value in values.items() if value is not None}, type(section))
    except msgspec.ValidationError as error:
        key = _where(error)[-1]
        raise _unfit(f"--{key.replace('_', '-')}", values[key], type(section), key) from None
    _check(changed, "--", given)
    return changed


def need(value: T | None, section: str, key: str) -> T:
    """`value`, which the command cannot do without: `need(supply.price, "supply", "price")`.

    Raises:
        UsageError: it is None.
    """
    if value is None:
        flag = key.replace("_", "-")
        raise UsageError(
            f"{section}.{key} is not set", f"give --{flag}, or write {key} under [{section}] in {home().config}"
        )
    return value


def endpoint(text: str) -> tuple[str, int]:
    """Host and port from "127.0.0.1:7411" or "[::1]:7411". Port 0 stands for any free one.

    Raises:
        UsageError: it is neither.
    """
    found = _PORT.fullmatch(text)
    if found is None or int(found["port"]) > 65_535:
        raise UsageError(
            f"{text[:80]!r} is no address to connect to", 'give a host and a port, such as "127.0.0.1:7411"'
        )
    return found["host"].strip("[]"), int(found["port"])


class NodeAt(NamedTuple):
    """Where a node is, and whose it has to be (None: whoever answers there)."""

    host: str
    port: int
    account: Address | None

    @property
    def name(self) -> str:
        """HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def node_at(text: str) -> NodeAt:
    """A node from "127.0.0.1:7421", or "0x...@127.0.0.1:7421" where it has to be that account's.

    Raises:
        UsageError: it is neither. OutOfRange: the account has a wrong checksum.
    """
    found = _NODE.fullmatch(text)
    if found is None:
        return NodeAt(*endpoint(text), None)
    return NodeAt(*endpoint(found["endpoint"]), parse_address(found["account"]) if found["account"] else None)


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    import tomllib

    if len(content) > MAX_FILE:
        raise UsageError(f"{path} has more than {MAX_FILE} bytes", "name a TOML file with the configuration")
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}: not UTF-8 text", "save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        text = str(error)
        found = re.search(r"\(at line (\d+), column (\d+)\)", text)
        line = int(found[1]) if found else content.count(b"\n") + 1  # else the message is "(at end of document)"
        what = " ".join(text.split(" (at ")[0].split())
        raise UsageError(
            f"{path}, line {line}: {what}", 'write key = value, with texts in quotes: price = "0.40"'
        ) from None
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply", "name a TOML file with the configuration") from None


def _decode(path: Path, raw: dict[str, Any]) -> Config:
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise _refused(path, raw, error) from None
    for name in Config.__struct_fields__:
        _check(getattr(config, name), f"{path}: {name}.", raw.get(name, {}))
    for name, key in _PATHS:
        section = getattr(config, name)
        if (value := getattr(section, key)) is not None and not _SCHEME.match(value):
            try:
                full = str(path.absolute().parent / Path(value).expanduser())
            except RuntimeError:  # "~name", and there is nobody of that name
                raise UsageError(
                    f"{path}: {name}.{key} names nobody's home: {value[:60]!r}", "write the path out"
                ) from None
            config = msgspec.structs.replace(config, **{name: msgspec.structs.replace(section, **{key: full})})
    return config


def _check(section: _Section, before: str, given: dict[str, object]) -> None:
    """What the types cannot say: addresses with their checksum, ports, media.

    Only what was `given` is looked at. An error names the key after `before`.
    """
    for key in given:
        value = getattr(section, key)
        try:
            if key in ("contract", "escrow", "prices_signer"):
                parse_address(value)
            elif key == "medium":
                medium(value)
            elif key in ("listen", "supplier", "metrics", "forward"):
                endpoint(value)
            elif key in ("hubs", "reach"):
                for one in value:
                    node_at(one)
        except (OutOfRange, UsageError) as error:
            raise UsageError(f"{before}{key}: {error}", error.advice or _expected(type(section), key)) from None


def _refused(path: Path, raw: dict[str, Any], error: msgspec.ValidationError) -> UsageError:
    *sections, key = _where(error)
    if not sections:  # a section that is none of ours, or is no table
        known = ", ".join(f"[{name}]" for name in Config.__struct_fields__)
        if key in Config.__struct_fields__:
            return UsageError(f"{path}: {key} is not a section", f"write [{key}] on a line of its own, its keys below")
        return UsageError(f"{path}: there is no section or key {key!r} here", f"the sections are {known}")
    kind: type[_Section] = type(getattr(Config(), sections[0]))
    if key not in kind.__struct_fields__:
        keys = ", ".join(kind.__struct_fields__)
        return UsageError(f"{path}: [{sections[0]}] has no key {key!r}", f"its keys are {keys}")
    return _unfit(f"{path}: {sections[0]}.{key}", raw[sections[0]][key], kind, key)


def _unfit(named: str, value: object, kind: type[_Section], key: str) -> UsageError:
    shown = repr(value) if not isinstance(value, float) else f"the float {value}"
    return UsageError(f"{named} cannot be {shown[:60]}", f"write {_expected(kind, key)}")


def _expected(kind: type[_Section], key: str) -> str:
    """What a key holds, in words: the description at its type."""

    def described(hint: Any) -> str:
        for part in getattr(hint, "__metadata__", ()):
            if isinstance(part, Meta) and part.description:
                return part.description
        if isinstance(hint, types.UnionType) or not hasattr(hint, "__metadata__"):
            return next(filter(None, map(described, get_args(hint))), "")
        return ""

    return described(get_type_hints(kind, include_extras=True)[key])


def _where(error: msgspec.ValidationError) -> list[str]:
    """The path in msgspec's message: "... - at `$.supply.price`", the unknown field last where it is one."""
    text = str(error)
    found = re.search(r" - at `\$\.?(?P<path>[^`]*)`$", text)
    path = found["path"].split(".") if found and found["path"] else []
    unknown = re.match(r"Object contains unknown field `(?P<field>.*?)`( - at |$)", text, re.DOTALL)
    return [*path, unknown["field"]] if unknown else path
