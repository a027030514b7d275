"""A worker process and the conversation with it (bench/harness.hpp states the lines)."""

import os
import select
import subprocess
import time


PRIORITY = -15


def raise_priority():
    """Lets this process go before other programs of the machine, where that is allowed; says whether it was.

    The kernel may share the CPUs between sessions first and between processes second (autogroup), so the session
    is raised too; a worker has one of its own.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    except PermissionError:
        return False
    try:
        with open("/proc/self/autogroup", "w", encoding="ascii") as f:
            f.write(str(PRIORITY))
    except OSError:
        pass
    return True


class Skipped(Exception):
    """The allocator cannot do this case; the text says why."""


class Failed(Exception):
    """The worker broke; the text says how."""


class Worker:
    """One allocator doing one case, from its start until close()."""

    def __init__(self, path, case, options):
        arguments = case.arguments() + ["--ms", str(options.ms), "--warm-ms", str(options.warm_ms)]
        self.version = ""
        self._limit = options.limit_s
        self._buffer = b""
        self._process = subprocess.Popen(
            [path, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, preexec_fn=raise_priority)
        try:
            self._until("ready")
        except BaseException:
            self.close()
            raise

    def sample(self):
        """Takes one sample: ({name: value}, share of its time in which nothing disturbed it)."""
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; what it said last tells why
        return self._until("done")

    def close(self):
        """Ends the worker: politely, and after a while not."""
        try:
            self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._process.stderr.close()

    def _line(self, deadline):
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                self._process.kill()
                raise Failed(f"no answer within {self._limit} s")
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                code = self._process.wait()
                said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
                how = f"signal {-code}" if code < 0 else f"exit status {code}"
                raise Failed(f"ended with {how}" + (f": {said[-1]}" if said else ""))
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode(errors="replace")

    def _until(self, last):
        deadline = time.monotonic() + self._limit
        results = {}
        while True:
            word, _, rest = self._line(deadline).partition(" ")
            if word == "skip":
                raise Skipped(rest)
            if word == "fail":
                raise Failed(rest)
            if word == "version":
                self.version = rest
            elif word == "result":
                name, value = rest.split()
                results[name] = float(value)
            elif word == last:
                return results, float(rest or 1)
