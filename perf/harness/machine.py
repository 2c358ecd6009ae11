"""Processes and what they cost: started pinned, measured through /proc, ended by their own process group."""

import ctypes
import os
import resource
import signal
import subprocess
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PROXY_CPU = 0
LOAD_CPU = 1

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Process:
    """One child with everything it forks, in a process group of its own, pinned to one CPU."""

    def __init__(self, command, cpu, directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, environment=None):
        def prepare():
            # The child must not outlive a killed harness.
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, {cpu})

        self.command = command
        self.log_path = os.path.join(directory, os.path.basename(command[0]) + ".stderr")
        with open(self.log_path, "ab") as log:
            self.child = subprocess.Popen(command, cwd=directory, stdin=stdin, stdout=stdout, stderr=log,
                                          start_new_session=True, preexec_fn=prepare, env=environment)

    @property
    def pid(self):
        return self.child.pid

    def alive(self):
        return self.child.poll() is None

    def log_tail(self, lines=8):
        """The last lines the process wrote to stderr."""
        with open(self.log_path, errors="replace") as log:
            return "".join(log.readlines()[-lines:])

    def signal(self, number):
        self.child.send_signal(number)

    def stop(self, grace_seconds=3.0):
        """Ends the child and its group: SIGTERM, then SIGKILL for what is left."""
        if self.child.stdin:
            self.child.stdin.close()
        self._signal_group(signal.SIGTERM)
        try:
            self.child.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            pass
        self._signal_group(signal.SIGKILL)
        self.child.wait()
        if self.child.stdout:
            self.child.stdout.close()

    def _signal_group(self, number):
        try:
            os.killpg(self.child.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def tree(self):
        """The process ids of the child and all its living descendants."""
        found, waiting = [], [self.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            waiting.extend(_children(pid))
        return found

    def cpu_seconds(self):
        """User and system time of the tree; descendants that have ended count through the parent that reaped them."""
        return sum(_cpu_ticks(pid) for pid in self.tree()) / TICKS_PER_SECOND

    def memory_bytes(self):
        """Resident memory of the tree; a page that several of its processes share counts once (PSS)."""
        return sum(_resident_bytes(pid) for pid in self.tree())

    def peak_bytes(self):
        """The most that was resident at any one moment, over the processes of the tree that live."""
        return sum(_peak_bytes(pid) for pid in self.tree())


class Children:
    """Every process started through here has ended when the `with` block is left, however it is left."""

    def __init__(self):
        self._running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A second signal must not cut this short.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(self._running):
            process.stop()

    def start(self, *arguments, **options):
        process = Process(*arguments, **options)
        self._running.append(process)
        return process

    def stop(self, process):
        process.stop()
        self._running.remove(process)


class Meter:
    """CPU time of one process over an interval, and how much of the machine others used meanwhile."""

    def __init__(self, process, bystanders):
        self._process = process
        self._ours = [process, *bystanders]

    def __enter__(self):
        self._begun = time.monotonic()
        self._busy = _machine_busy_seconds()
        self._ours_begun = self._ours_seconds()
        self._cpu = self._process.cpu_seconds()
        return self

    def __exit__(self, *_):
        self.cpu_seconds = self._process.cpu_seconds() - self._cpu
        foreign = _machine_busy_seconds() - self._busy - (self._ours_seconds() - self._ours_begun)
        self.seconds = time.monotonic() - self._begun
        self.foreign_share = max(0.0, foreign / (self.seconds * os.cpu_count()))

    def _ours_seconds(self):
        usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
        return (sum(usage.ru_utime + usage.ru_stime for usage in usages)
                + sum(process.cpu_seconds() for process in self._ours))


def pin_harness():
    """Keeps this process off the proxies' CPU."""
    os.sched_setaffinity(0, {LOAD_CPU})


def raise_file_limit():
    """Raises the soft limit of descriptors to the hard one; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _children(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found.extend(int(child) for child in file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # It ended while we looked.
    return found


def _cpu_ticks(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            # The name, in parentheses, may hold blanks: count fields behind it. utime is field 14 of proc(5).
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(field) for field in fields[11:15])


def _resident_bytes(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _peak_bytes(pid):
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _machine_busy_seconds():
    with open("/proc/stat") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND
