"""How long a workload ran, what that cost in GPU time, and when it has to stop."""

from dataclasses import dataclass

NS_PER_MS = 1_000_000
NS_PER_SECOND = 1_000_000_000


@dataclass(slots=True)
class Meter:
    """Accumulates running and idle-but-held time over pauses, on a monotonic clock given as `now`.

    All times are nanoseconds; `allowance_ms` is GPU-milliseconds (running time x GPUs), None for
    no limit.
    """

    gpus: int
    allowance_ms: int | None = None
    deadline_seconds: float | None = None
    running_ns: int = 0
    idle_ns: int = 0
    running_since: int | None = None
    idle_since: int | None = None

    def start(self, now: int) -> None:
        """Running from `now`; idle holding ends. Repeating it changes nothing."""
        self.release(now)
        if self.running_since is None:
            self.running_since = now

    def stop(self, now: int, *, is_holding: bool) -> None:
        """Not running from `now`; `is_holding` says whether the GPUs stay held meanwhile."""
        self.running_ns = self.total_running_ns(now)
        self.running_since = None
        if is_holding and self.gpus and self.idle_since is None:
            self.idle_since = now

    def release(self, now: int) -> None:
        """The GPUs are no longer held idle."""
        self.idle_ns = self.total_idle_ns(now)
        self.idle_since = None

    def total_running_ns(self, now: int) -> int:
        return self.running_ns + (now - self.running_since if self.running_since is not None else 0)

    def total_idle_ns(self, now: int) -> int:
        return self.idle_ns + (now - self.idle_since if self.idle_since is not None else 0)

    def running_ms(self, now: int) -> int:
        return self.total_running_ns(now) // NS_PER_MS

    def used_gpu_ms(self, now: int) -> int:
        """GPU-milliseconds as measured, even where they passed the allowance."""
        return self.total_running_ns(now) * self.gpus // NS_PER_MS

    def gpu_ms(self, now: int) -> int:
        """GPU-milliseconds as accounted: never above the allowance."""
        used = self.used_gpu_ms(now)
        return used if self.allowance_ms is None else min(used, self.allowance_ms)

    def gpu_idle_held_ms(self, now: int) -> int:
        return self.total_idle_ns(now) * self.gpus // NS_PER_MS

    def until_allowance_ns(self, now: int) -> int | None:
        """Running nanoseconds left before the allowance is used up; None when nothing limits."""
        if self.allowance_ms is None or self.gpus == 0:
            return None
        return self.allowance_ms * NS_PER_MS // self.gpus - self.total_running_ns(now)

    def until_deadline_ns(self, now: int) -> int | None:
        """Running nanoseconds left before the deadline; None without one."""
        if self.deadline_seconds is None:
            return None
        return int(self.deadline_seconds * NS_PER_SECOND) - self.total_running_ns(now)
