"""A local network inside this machine: a namespace for each name, joined by a bridge, with a route to nowhere else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from penstock.core.errors import UsageError

PREFIX = "10.98.0"  # in namespaces that nobody else is in


class Lan:
    """Namespaces by name; each has an address on the network."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._own = f"pen{os.getpid()}"

    def address(self, name: str) -> str:
        """Where that one is on the network."""
        return f"{PREFIX}.{self._names.index(name) + 1}"

    def within(self, name: str) -> list[str]:
        """What a command has to begin with to run in that one's namespace."""
        return ["ip", "netns", "exec", self._space(name)]

    async def routes(self, name: str) -> list[str]:
        """Every route that there is from that one."""
        return (await _ip("-n", self._space(name), "route", "show")).splitlines()

    def _space(self, name: str) -> str:
        return f"{self._own}-{name}"

    async def make(self) -> None:
        """
        Raises:
            UsageError: this machine, or this user, cannot make it.
        """
        switch = self._space("lan")
        await _ip("netns", "add", switch)
        await _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        await _ip("-n", switch, "link", "set", "bridge", "up")
        for number, name in enumerate(self._names):
            space, port = self._space(name), f"port{number}"
            await _ip("netns", "add", space)
            await _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            await _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            await _ip("-n", space, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
            for link in ("eth0", "lo"):
                await _ip("-n", space, "link", "set", link, "up")

    async def remove(self) -> None:
        """Take all of it away, as far as it is there."""
        listed = (await _ip("netns", "list")).split()
        for space in map(self._space, ("lan", *self._names)):
            if space in listed:
                await _ip("netns", "delete", space)


async def _ip(*arguments: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            "ip", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError:
        raise UsageError("there is no command `ip` here", "install iproute2") from None
    out, error = await process.communicate()
    if process.returncode:
        raise UsageError(
            f"a network of its own cannot be made here: {error.decode(errors='replace').strip()[:200]}",
            "run this as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN",
        )
    return out.decode(errors="replace")


@asynccontextmanager
async def lan(names: Sequence[str]) -> AsyncIterator[Lan]:
    """A network that is taken away in the end.

    Raises:
        UsageError: this machine, or this user, cannot make it.
    """
    made = Lan(names)
    try:
        await made.make()
        yield made
    finally:
        await made.remove()
