"""How a provider is talked to that is away, hangs, or comes back: by one at a time, and for so long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from dicomwatchd.errors import DicomwatchdError, Permanent, Transient
from dicomwatchd.web.login.conversations import Conversations, Kept, Waiting
from tests.pieces import FakeClock


class Source:
    """Answers when it is let, with what it is told."""

    def __init__(self) -> None:
        self.asked = 0
        self.let = asyncio.Event()
        self.answer: str | DicomwatchdError = "first"

    async def fetch(self) -> str:
        self.asked += 1
        await self.let.wait()
        if isinstance(self.answer, DicomwatchdError):
            raise self.answer
        return self.answer


def kept(source: Source, clock: FakeClock) -> Kept[str]:
    return Kept(source.fetch, clock, good_seconds=100, rest_seconds=5)


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def test_all_who_come_meanwhile_get_what_one_has_fetched() -> None:
    async def test() -> None:
        source, clock, few = Source(), FakeClock(), Waiting(3)
        found = kept(source, clock)
        assert found.last is None
        waiting = [asyncio.create_task(found.current(few)) for _ in range(3)]
        await turns()
        with pytest.raises(Transient):
            await asyncio.wait_for(found.current(few), 5)  # the fourth is told at once
        waiting.append(asyncio.create_task(found.current(Waiting(1))))  # who waits elsewhere is not
        await turns()
        source.let.set()
        assert await asyncio.gather(*waiting) == ["first"] * 4 and source.asked == 1
        clock.advance(99)
        assert await found.current(few) == "first" and source.asked == 1
        source.answer = "second"
        clock.advance(2)
        assert await found.current(few) == "second" and source.asked == 2

    run(test)


def test_after_a_failure_nobody_asks_for_a_while() -> None:
    async def test() -> None:
        source, clock, few = Source(), FakeClock(), Waiting(3)
        found = kept(source, clock)
        source.let.set()
        source.answer = Transient("it is away", code="oidc")
        for seconds in (None, pytest.approx(3, abs=0.5)):
            with pytest.raises(Transient) as raised:
                await found.current(few)
            assert raised.value.retry_after_seconds == seconds and source.asked == 1
            clock.advance(2)
        source.answer = Permanent("it is another one")
        clock.advance(2)
        with pytest.raises(Permanent):
            await found.current(few)
        assert source.asked == 2
        clock.advance(5)
        source.answer = "first"
        assert await found.current(few) == "first"

    run(test)


def test_each_who_gets_a_failure_has_one_of_his_own() -> None:
    """With the traceback of one request and not of all; what has caused it stays, for the log."""

    async def test() -> None:
        source, few = Source(), Waiting(9)
        found = kept(source, FakeClock())
        source.let.set()
        cause = OSError()
        source.answer = Permanent("it is another one", code="oidc", hint="look")
        source.answer.__cause__ = cause
        together = await asyncio.gather(*(found.current(few) for _ in range(3)), return_exceptions=True)
        afterwards = await asyncio.gather(*(found.current(few) for _ in range(3)), return_exceptions=True)
        failures = [one for one in (*together, *afterwards) if isinstance(one, Permanent)]
        assert len({id(one) for one in failures}) == 6 and source.asked == 1
        assert {(one.message, one.code, one.hint) for one in failures} == {("it is another one", "oidc", "look")}
        assert all(one.__cause__ is cause for one in failures)

    run(test)


def test_what_is_old_is_known_and_not_handed_out_when_it_cannot_be_fetched_anew() -> None:
    async def test() -> None:
        source, clock, few = Source(), FakeClock(), Waiting(3)
        found = kept(source, clock)
        source.let.set()
        assert await found.current(few) == "first"
        clock.advance(101)
        source.answer = Transient("it is away")
        with pytest.raises(Transient):
            await found.current(few)
        assert found.last == "first"

    run(test)


def test_whoever_leaves_takes_nothing_from_those_who_wait() -> None:
    async def test() -> None:
        source, few = Source(), Waiting(2)
        found = kept(source, FakeClock())
        first, second = (asyncio.create_task(found.current(few)) for _ in range(2))
        await turns()
        first.cancel()
        await turns()
        third = asyncio.create_task(found.current(few))  # in the place of the first
        await turns()
        source.let.set()
        assert [await second, await third] == ["first"] * 2 and source.asked == 1

    run(test)


def test_so_many_conversations_and_each_for_so_long() -> None:
    async def test() -> None:
        conversations, short = Conversations(2, 60), Conversations(1, 0.05)
        let = asyncio.Event()

        async def talk(within: Conversations) -> None:
            async with within.one():
                await let.wait()

        first, second = (asyncio.create_task(talk(conversations)) for _ in range(2))
        await turns()
        with pytest.raises(Transient):
            await asyncio.wait_for(talk(conversations), 5)
        for _ in range(2):  # who has given up has left
            with pytest.raises(Transient):
                await asyncio.wait_for(talk(short), 30)
        let.set()
        await asyncio.gather(first, second, talk(short))
        await talk(conversations)

    run(test)
