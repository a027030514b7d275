"""What the tests of the preload library share: running a program on a heap, and looking at its statistics.

Each run's statistics must say that no byte came from the C library's malloc, and that nothing was freed wrongly.
A program that is not installed is a skipped test (tools/packages.txt has them all).
"""
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

EXTMEM = os.environ["EXTMEM"]
PROGRAMS = pathlib.Path(os.environ["EXTMEM_PROGRAMS"])
SOURCE = pathlib.Path(os.environ["EXTMEM_SOURCE"])


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="extmem-preload-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME")}
        self.environment["LC_ALL"] = "C.UTF-8"
        self.runs = 0

    def command(self, program, options=()):
        """The command line that runs a program on a heap, and where its statistics go."""
        self.runs += 1
        stats = self.folder / f"stats-{self.runs}.json"
        return [EXTMEM, "run", "--stats=json", "--stats-file", str(stats), *options, "--", *map(str, program)], stats

    def check_stats(self, path, bad_frees=0):
        stats = json.loads(path.read_text())
        self.assertEqual(stats["libc_bytes"], 0, stats)
        self.assertLessEqual(stats["bootstrap_bytes"], 4096, stats)
        self.assertEqual(stats["bad_frees"], bad_frees, stats)
        self.assertEqual(stats["total_bytes"],
                         stats["used_bytes"] + stats["free_bytes"] + stats["cached_bytes"] + stats["slab_free_bytes"])
        return stats

    def run_on_heap(self, *program, options=(), status=0, bad_frees=0, **more):
        command, stats = self.command(program, options)
        done = subprocess.run(command, cwd=self.folder, env=self.environment, timeout=280, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, **more)
        done.stderr = done.stderr.decode("utf-8", "replace")
        self.assertEqual(done.returncode, status, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        done.stats = self.check_stats(stats, bad_frees) if stats.exists() else None
        return done

    def need(self, *programs):
        for program in programs:
            if shutil.which(program) is None:
                self.skipTest(f"{program} is not installed")

    def free_port(self):
        """One that nobody takes meanwhile: the kernel gives those below 32768 to nobody who does not ask for them by number."""
        for port in random.sample(range(20000, 32000), 1000):
            with socket.socket() as s:
                try:
                    s.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    pass
        self.fail("no port is free")

    def start_server(self, *program, port, options=()):
        command, stats = self.command(program, options)
        log = open(self.folder / "server.log", "ab")
        self.addCleanup(log.close)
        server = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        self.addCleanup(lambda: server.poll() is None and server.kill())
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return server, stats
            except OSError:
                self.assertIsNone(server.poll(), (self.folder / "server.log").read_text(errors="replace"))
                time.sleep(0.05)
        self.fail("the server does not answer")

    def stop_server(self, server, stats, with_signal=signal.SIGTERM):
        server.send_signal(with_signal)
        self.assertEqual(server.wait(timeout=60), 0, (self.folder / "server.log").read_text(errors="replace")[-4000:])
        return self.check_stats(stats)

    def shared_backings(self):
        """Options for memory in shared mappings, which the kernel does not copy at a fork."""
        name = f"/extmem-preload-test-{os.getpid()}"
        self.addCleanup(pathlib.Path(f"/dev/shm{name}").unlink, missing_ok=True)
        return (["--backing", "memfd"], ["--backing", f"shm:{name}", "--size", "256M"],
                ["--backing", f"file:{self.folder}/heap", "--size", "256M"])


def main():
    program = unittest.main(argv=sys.argv[:1] + (sys.argv[1:] or []), exit=False, verbosity=2)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    if result.skipped and len(result.skipped) == result.testsRun:
        print(f"needs what is missing here: {result.skipped[0][1]}")  # a line that tools/test_summary looks for
        sys.exit(77)
    sys.exit(0)
