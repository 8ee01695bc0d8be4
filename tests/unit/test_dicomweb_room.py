"""How much is held for answers at once: of all, of one person, of the disk; who waits, and what comes back."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Generator

import pytest

from dicomwatchd.series.grouping import Held, held_for_file, held_for_frames, held_for_inflated
from dicomwatchd.series.pixels import Frame
from dicomwatchd.web.dicomweb.errors import NoRoom, status_of
from dicomwatchd.web.dicomweb.room import Place, Room

MIB = 1024**2
MOST, WAIT = Held(100, 1000), 0.2


def run(scene: Callable[[Room], Awaitable[None]], free: int = 10**9) -> None:
    async def all_of_it() -> None:
        await scene(Room(MOST, lambda: free, WAIT))

    asyncio.run(all_of_it())


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", [Held(10, 0), Held(0, 100)])
def test_so_much_and_no_more(kind: Held) -> None:
    async def scene(room: Room) -> None:
        places = [await room.take(f"person {number}", kind) for number in range(10)]
        with pytest.raises(NoRoom) as refused:
            await room.take("another", kind)
        assert status_of(refused.value) == 503 and refused.value.retry_after_seconds
        await room.take("another", Held(0, 0))
        places.pop().give_back()
        await settled()
        await room.take("another", kind)

    run(scene)


def test_one_person_leaves_half_of_it_to_the_others() -> None:
    async def scene(room: Room) -> None:
        places = [await room.take("greedy", Held(0, 100)) for _ in range(5)]
        with pytest.raises(NoRoom):
            await room.take("greedy", Held(0, 100))
        places.append(await room.take("greedy", Held(10, 0)))
        others = [await room.take("other", Held(0, 100)) for _ in range(5)]
        assert places and others

    run(scene)


def test_one_alone_may_be_larger_than_all_the_room() -> None:
    async def scene(room: Room) -> None:
        place = await room.take("a", Held(0, 5000))
        for person in ("a", "b"):
            with pytest.raises(NoRoom):
                await room.take(person, Held(0, 1))
        place.give_back()
        await settled()
        place = await room.take("b", Held(0, 1))
        with pytest.raises(NoRoom):
            await room.take("a", Held(0, 5000))
        place.give_back()

    run(scene)


def test_the_disk_is_not_filled() -> None:
    async def scene(room: Room) -> None:
        with pytest.raises(NoRoom):
            await room.take("a", Held(0, 301))
        place = await room.take("a", Held(0, 300))
        with pytest.raises(NoRoom):
            await room.take("b", Held(0, 1))
        place.give_back()
        await settled()
        places = [await room.take("b", Held(0, 50)), await room.take("a", Held(0, 100))]
        with pytest.raises(NoRoom):
            await room.take("c", Held(0, 151))
        assert len(places) == 2

    run(scene, free=300)


def test_who_waits_gets_what_comes_back_from_another_thread() -> None:
    async def scene(room: Room) -> None:
        place = await room.take("a", Held(0, 1000))
        waiting = [asyncio.ensure_future(room.take("b", Held(0, 400))) for _ in range(2)]
        await settled()
        assert not any(one.done() for one in waiting)
        threading.Thread(target=place.give_back).start()
        first, second = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(first, Place) and isinstance(second, NoRoom), "he is one person"

    run(scene)


def test_it_is_given_back_once_however_it_ends() -> None:
    def chunks(ended: list[str]) -> Generator[bytes, None, None]:
        try:
            yield b"1"
            yield b"2"
        finally:
            ended.append("closed")

    def failing() -> Generator[bytes, None, None]:
        yield b"1"
        raise ValueError("torn")

    async def scene(room: Room) -> None:
        whole = Held(0, 1000)
        ended: list[str] = []
        taking = (await room.take("a", whole)).until_taken(chunks(ended))
        assert list(taking) == [b"1", b"2"]
        taking.close()  # type: ignore[attr-defined]
        await settled()
        taking = (await room.take("b", whole)).until_taken(chunks(ended))
        next(taking)
        taking.close()  # type: ignore[attr-defined]
        await settled()
        assert ended == ["closed", "closed"]
        taking = (await room.take("c", whole)).until_taken(chunks(ended))
        taking.close()  # type: ignore[attr-defined]  # before it was begun
        await settled()
        taking = (await room.take("d", whole)).until_taken(failing())
        with pytest.raises(ValueError, match="torn"):
            list(taking)
        await settled()
        lost = (await room.take("e", whole)).until_taken(chunks(ended))
        del lost, taking
        gc.collect()
        await settled()
        place = await room.take("f", Held(0, 600))
        with pytest.raises(NoRoom):
            await room.take("g", Held(0, 600))
        place.give_back()

    run(scene)


def frame(offset: int, length: int, *, number: int = 0) -> Frame:
    return Frame(((offset, length),), f"{number:064d}")


def test_what_is_held_for_frames() -> None:
    assert held_for_file(MIB) == (MIB, 0) and held_for_file(3 * MIB) == (0, 3 * MIB)
    small = [frame(number * MIB, MIB, number=number) for number in range(40)]
    assert held_for_frames(small[:1]) == (MIB, 0)
    assert held_for_frames(small) == (8 * MIB, 0), "those that are read together"
    middle, large = frame(50 * MIB, 20 * MIB), frame(90 * MIB, 40 * MIB)
    assert held_for_frames([middle]) == (20 * MIB, 0)
    assert held_for_frames([middle, large, *small]) == (20 * MIB, 40 * MIB)
    far = Frame(((0, 10), (100 * MIB, 10)), "0" * 64)
    assert held_for_frames([far]) == (0, 20)
    assert held_for_inflated(3 * MIB, [*small, *small]) == (0, 43 * MIB), "each once"
    assert held_for_inflated(MIB, small[:1]) == (2 * MIB, 0)
