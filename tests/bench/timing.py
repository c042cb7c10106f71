"""Interleaved medians: contestants take turns, and times of the same round are compared."""

import gc
import math
import random
import statistics
import time
from dataclasses import dataclass, field

ROUNDS, SECONDS = 9, 0.5
SLOW = {0.05: 5, 0.2: 3, 1.0: 1}  # seconds a call: the rounds for contestants that take longer
LEAST = 0.005  # seconds of one measurement, which repeats a shorter call
PAUSE = 0.003  # lets the previous contestant's spinning threads go to sleep


@dataclass
class Timing:
    """seconds: of one call, a number for each round. cpu: the time of all threads in all calls together."""

    repeat: int
    rounds: int
    seconds: list = field(default_factory=list)
    cpu: float = 0.0

    @property
    def median(self):
        return statistics.median(self.seconds)

    @property
    def cores(self):
        """How many cores it kept busy."""
        return self.cpu / (self.repeat * sum(self.seconds))


def measure(calls, rounds=ROUNDS, seconds=SECONDS, progress=lambda name: None):
    """{name: Timing} of {name: function}. Each round calls all of them, in shuffled order."""
    timings = {name: _warm_up(call, rounds) for name, call in calls.items()}
    shuffle = random.Random(0).shuffle
    gc.collect()
    gc.disable()
    start, done = time.perf_counter(), 0
    while done < rounds or time.perf_counter() - start < seconds:
        order = [name for name, timing in timings.items() if done < timing.rounds or timing.rounds == rounds]
        shuffle(order)
        for name in order:
            progress(f"round {done + 1}: {name}")
            time.sleep(PAUSE)
            _time(calls[name], timings[name])
        done += 1
    gc.enable()
    return timings


def ratios(timing, base):
    """Quartiles of timing / base over the rounds in which both took part: lower, median, upper."""
    each = [t / b for t, b in zip(timing.seconds, base.seconds, strict=False)]
    if len(each) == 1:
        return each * 3
    return statistics.quantiles(each, n=4, method="inclusive")


def _warm_up(call, rounds):
    for _ in range(2):
        start = time.perf_counter()
        call()
        estimate = time.perf_counter() - start
        if estimate > max(SLOW):
            break
    slow = [fewer for limit, fewer in SLOW.items() if estimate > limit]
    if slow:
        return Timing(1, min(slow + [rounds]))
    repeat = max(1, math.ceil(LEAST / estimate))
    for _ in range(repeat):
        call()
    return Timing(repeat, rounds)


def _time(call, timing):
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(timing.repeat):
        # The previous result is still alive, so that its memory can't be used again at once, as in a network.
        result = call()  # noqa: F841
    timing.seconds.append((time.perf_counter() - start) / timing.repeat)
    timing.cpu += time.process_time() - cpu
