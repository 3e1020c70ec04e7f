"""What holds for every test: no network, no traces in the user's cache, no clock; and a sixth family for those that want one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # one of as many processes as there are cores: torch, not yet imported, shall not take them all
    os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("no clock", deadline=None)  # a busy machine fails no test
settings.load_profile("no clock")


class NetworkUsedError(AssertionError):
    """A test reached for the network; not an OSError, so that no fallback for a missing network can hide it."""


@pytest.fixture(scope="session", autouse=True)
def offline() -> Iterator[None]:
    """Nothing but local sockets, which worker processes need, can be connected or looked up."""

    def connect(self: socket.socket, address: Any) -> None:
        if self.family != getattr(socket, "AF_UNIX", None):
            raise NetworkUsedError(f"a connection to {address}")
        original(self, address)

    def look_up(*address: Any, **_: Any) -> None:
        raise NetworkUsedError(f"a look-up of {address}")

    original = socket.socket.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        patch.setattr(socket, "getaddrinfo", look_up)
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def sixth_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line in the table of families, as the house asks, and the toy is a model like any other."""
    from promptseg.models import FAMILIES

    monkeypatch.setitem(FAMILIES, "toy", "toy_family")
