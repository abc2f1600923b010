"""The clock of tests moves only by hand."""

import asyncio

from streamproc.testing.manual_clock import ManualClock


async def test_sleepers_wake_in_the_order_of_their_ends() -> None:
    clock, woken = ManualClock(0), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.now_us()))

    sleepers = [asyncio.ensure_future(sleeper(seconds)) for seconds in (2, 1, 3, 0)]
    await asyncio.sleep(0.01)
    assert woken == [(0, 0)]
    clock.advance(999_999)
    await asyncio.sleep(0)
    assert len(woken) == 1
    clock.advance(1_500_000)
    await asyncio.gather(*(s for s, seconds in zip(sleepers, (2, 1, 3, 0), strict=True) if seconds < 3))
    assert woken[1:] == [(1, 2_499_999), (2, 2_499_999)]
    assert clock.monotonic_s() == 2.499999
    sleepers[2].cancel()
    await asyncio.wait(sleepers)
    clock.advance(10_000_000)


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = ManualClock()
    sleeper = asyncio.ensure_future(clock.sleep(1))
    await asyncio.sleep(0)
    sleeper.cancel()
    await asyncio.wait([sleeper])
    clock.advance(2_000_000)
    assert repr(clock).endswith("0 sleeping>")
