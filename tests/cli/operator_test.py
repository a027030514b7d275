#!/usr/bin/env python3
"""An operator's day: heaps made from the shell, programs run on them, looked at, killed, cleaned up, taken away; in wrong orders, too.

Usage: EXTMEM=build/dev/bin/extmem EXTMEM_HOLDER=build/dev/bin/cli_holder EXTMEM_VERSION=0.1.0 EXTMEM_SOURCE=. tests/cli/operator_test.py [CLASS...]
"""
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import time
import unittest

from shell_case import EXTMEM, MIB, ShellCase

# Holds 20,000 objects of a kilobyte, says so, and waits.
PROGRAM = ["perl", "-e", '@x = map { "x" x 1000 } 1..20000; $| = 1; print "ready\\n"; <STDIN>; exit(length(join("", @x)) != 20000000)']


class Operator(ShellCase):
    def setUp(self):
        super().setUp()
        if not self.preloads():
            self.skipTest("needs a build without sanitizers: nothing can be preloaded with them")

    def program(self, *options):
        """A program on a heap."""
        process = subprocess.Popen([EXTMEM, "run", *options, "--", *PROGRAM], env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, cwd=self.folder)
        self.addCleanup(self.stop, process)
        self.assertEqual(process.stdout.readline(), b"ready\n", process.stderr.read() if process.poll() is not None else "")
        return process

    def stop(self, process):
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()

    def let_it_end(self, process):
        process.stdin.write(b"\n")
        process.stdin.flush()
        self.assertEqual(process.wait(60), 0)

    def regions(self):
        return self.json("ls", "net")["domains"][0]["regions"]

    def heap(self, name):
        return next(h for h in self.json("stat", "net")["heaps"] if h["heap"] == name)

    def test_the_whole_way(self):
        shm = f"extmem-operator-{os.getpid()}"
        self.addCleanup(lambda: pathlib.Path("/dev/shm", shm).unlink(missing_ok=True))
        self.extmem("domain", "create", "net")
        self.extmem("heap", "create", "net", "web")
        self.extmem("heap", "create", "net", "db")
        self.extmem("region", "add", "net", "web", "--size", "64M")
        self.extmem("region", "add", "net", "db", "--backing", f"file:{self.folder}/db", "--unlink", "--size", "112M")
        self.extmem("region", "add", "net", "db", "--backing", f"shm:/{shm}", "--unlink", "--size", "16M")
        web, db = self.program("--domain", "net", "--heap", "web"), self.program("--domain", "net", "--heap", "db", "--json")
        # The programs use what the operator made, and no more.
        self.assertEqual([(r["region"], r["heap"], r["bytes"]) for r in self.regions()],
                         [(1, "web", 64 * MIB), (2, "db", 112 * MIB), (3, "db", 16 * MIB)])
        for name, process in (("web", web), ("db", db)):
            heap = self.heap(name)
            self.assertGreater(heap["used_bytes"], 20_000_000)
            self.assertEqual({h["pid"] for h in heap["holders"]}, {process.pid})
            self.assertIn(str(process.pid), self.extmem("stat", "net", name).stdout)
        rows = self.json("top", "net", "--view", "processes", "--delay", "50ms")["rows"]
        self.assertEqual({(r["heap"], r["pid"], r["label"]) for r in rows}, {("web", web.pid, "perl"), ("db", db.pid, "perl")})
        self.assertIn("web", self.extmem("map", "net").stdout)
        self.assertIn("no memzone", self.extmem("zones", "net").stdout)
        self.assertTrue(self.json("verify", "net")["domains"][0]["sound"])
        # Nothing that is in use goes.
        for arguments, who in ((["region", "remove", "net", "1"], web), (["domain", "rm", "net"], web),
                               (["region", "drain", "net", "2", "--timeout", "100ms"], db)):
            with self.subTest(arguments=arguments):
                self.assertIn(str(who.pid), self.extmem(*arguments, status=3).stderr)
        self.assertIn("regions: 1", self.extmem("heap", "destroy", "net", "web", status=3).stderr)
        self.extmem("region", "undrain", "net", "2")

        web.kill()
        web.wait()
        self.assertEqual({p["pid"]: p["dead"] for p in self.json("ls", "net")["domains"][0]["processes"]}, {web.pid: True, db.pid: False})
        report = self.json("recover", "net")["domains"][0]
        self.assertEqual(report["participants"], 1)
        self.assertGreater(report["freed_bytes"], 20_000_000)
        self.assertEqual(self.heap("web")["used_bytes"], 0)
        self.assertTrue(self.json("verify", "net")["domains"][0]["sound"])
        # The other one never noticed.
        self.let_it_end(db)
        self.json("recover", "net")
        self.assertEqual(self.heap("db")["used_bytes"], 0)

        self.extmem("region", "remove", "net", "1", "--drain")
        self.extmem("region", "drain", "net", "2")
        for region in ("2", "3"):
            self.extmem("region", "remove", "net", region)
        for heap in ("web", "db"):
            self.extmem("heap", "destroy", "net", heap)
        self.extmem("domain", "rm", "net")
        self.assertEqual(list(self.runtime.iterdir()), [])
        self.assertFalse((self.folder / "db").exists())
        self.assertFalse(pathlib.Path("/dev/shm", shm).exists())

    def test_two_programs_on_one_heap(self):
        self.extmem("domain", "create", "net")
        self.extmem("heap", "create", "net", "both")
        self.extmem("region", "add", "net", "both", "--size", "128M")
        first, second = (self.program("--domain", "net", "--heap", "both") for _ in range(2))
        self.assertEqual({h["pid"] for h in self.heap("both")["holders"]}, {first.pid, second.pid})
        first.kill()
        first.wait()
        self.extmem("recover", "net")
        self.assertEqual({h["pid"] for h in self.heap("both")["holders"]}, {second.pid})
        self.let_it_end(second)

    def test_a_heap_without_enough_memory(self):
        self.extmem("domain", "create", "net")
        self.extmem("heap", "create", "net", "small")
        self.extmem("region", "add", "net", "small", "--size", "4M")
        done = self.extmem("run", "--domain", "net", "--heap", "small", "--", *PROGRAM, status=None)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("Out of memory", done.stderr)
        self.assertIn("it was there already, --size adds to it", done.stderr)
        self.assertEqual(len(self.regions()), 1)
        self.extmem("run", "--domain", "net", "--heap", "small", "--size", "64M", "--", "perl", "-e", 'my @x = map { "x" x 1000 } 1..20000')
        self.assertEqual([r["bytes"] for r in self.regions()], [4 * MIB, 64 * MIB])

    def test_a_heap_that_grows_keeps_to_its_limit(self):
        self.extmem("domain", "create", "net")
        self.extmem("heap", "create", "net", "grows", "--grow-step", "8M", "--grow-limit", "24M")
        self.extmem("run", "--domain", "net", "--heap", "grows", "--", "perl", "-e", 'my @x = map { "x" x 1000 } 1..9000')
        self.assertTrue(all(r["grown"] and r["bytes"] == 8 * MIB for r in self.regions()), self.regions())
        done = self.extmem("run", "--domain", "net", "--heap", "grows", "--", *PROGRAM, status=None)
        self.assertIn("Out of memory", done.stderr)
        self.assertLessEqual(sum(r["bytes"] for r in self.regions()), 24 * MIB)

    def test_a_heap_without_memory(self):
        self.extmem("domain", "create", "net")
        self.extmem("heap", "create", "net", "bare")
        error = self.error("run", "--domain", "net", "--heap", "bare", "--json", "--", "true", status=3, to_stderr=True, exact=False)
        self.assertIn("extmem region add", error["error"]["message"])
        self.assertEqual(self.regions(), [])

    def test_wrong_orders(self):
        for arguments in (["heap", "create", "net", "web"], ["region", "add", "net", "web", "--size", "1M"], ["region", "drain", "net", "1"],
                          ["heap", "destroy", "net", "web"], ["domain", "rm", "net"], ["recover", "net"], ["stat", "net"],
                          ["zones", "net"], ["map", "net"], ["top", "net", "--once"]):
            with self.subTest(arguments=arguments):
                self.assertIn('no domain "net"', self.error(*arguments, "--json", status=3)["error"]["message"])
        self.assertEqual(list(self.runtime.iterdir()), [], "nothing was made by asking")
        self.extmem("domain", "create", "net")
        self.assertIn("no heap", self.error("region", "add", "net", "web", "--size", "1M", "--json", status=3)["error"]["message"])
        self.extmem("heap", "create", "net", "web")
        self.extmem("region", "add", "net", "web", "--size", "1M")
        self.assertIn("regions: 1", self.extmem("heap", "destroy", "net", "web", status=3).stderr)
        self.extmem("region", "remove", "net", "1")
        for verb in ("remove", "drain", "undrain"):
            self.assertIn("no region 1", self.error("region", verb, "net", "1", "--json", status=3)["error"]["message"])

    def test_sizes_that_no_machine_has(self):
        self.extmem("domain", "create", "net")
        self.extmem("heap", "create", "net", "web")
        for size, statuses in (("16E", (2,)), ("18446744073709551616", (2,)), ("-1", (2,)), ("0", (2,)), ("1.5G", (2,)),
                               ("8000000T", (2, 3)), ("1000T", (2, 3))):
            with self.subTest(size=size):
                done = self.extmem("region", "add", "net", "web", f"--size={size}", status=None)
                self.assertIn(done.returncode, statuses, done.stderr)
                self.assertRegex(done.stderr, r"^extmem: region add: ")
        self.assertEqual(self.regions(), [])
        self.assertTrue(self.json("verify", "net")["domains"][0]["sound"])


class FullDisk(ShellCase):
    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("needs root: it mounts a small tmpfs")
        self.small = pathlib.Path(tempfile.mkdtemp(prefix="extmem-full-"))
        self.addCleanup(shutil.rmtree, self.small, ignore_errors=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "none", self.small], check=False).returncode != 0:
            self.skipTest("needs mount: a small tmpfs cannot be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", self.small], check=False)
        self.environment["EXTMEM_RUNTIME_DIR"] = str(self.small)

    def test_what_does_not_fit_is_refused_and_leaves_nothing(self):
        self.extmem("domain", "create", "net", "--small-metadata", "256K", "--large-metadata", "1M")
        self.extmem("heap", "create", "net", "web")
        error = self.error("region", "add", "net", "web", "--size", "64M", "--prefault", "--json", status=3)
        self.assertEqual(error["error"]["errno"], "ENOSPC")
        self.assertEqual(self.json("ls", "net")["domains"][0]["regions"], [])
        self.assertTrue(self.json("verify", "net")["domains"][0]["sound"])
        # Full to the last byte: what looks still does, what makes something says why it cannot.
        with open(self.small / "filler", "wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                pass
        self.extmem("ls", "net")
        self.extmem("stat", "net")
        error = self.error("domain", "create", "second", "--json", status=3)
        self.assertEqual(error["error"]["errno"], "ENOSPC")
        self.assertEqual(sorted(p.name for p in self.small.iterdir()), ["filler", "net"])
        (self.small / "filler").unlink()
        self.extmem("region", "add", "net", "web", "--size", "1M", "--prefault")

    def test_output_that_does_not_fit(self):
        self.extmem("domain", "create", "net", "--small-metadata", "256K", "--large-metadata", "1M")
        self.assertIn("No space left", self.extmem("map", "net", "-o", "/dev/full", "--format", "html", status=3).stderr)
        for command in (["ls"], ["stat", "net"], ["doctor"], ["map", "net", "--json"], ["completion", "bash"], ["ls", "nope", "--json"]):
            with self.subTest(command=command), open("/dev/full", "wb") as full:
                done = subprocess.run([EXTMEM, *command], stdout=full, stderr=subprocess.PIPE, env=self.environment, timeout=60, check=False)
                self.assertEqual(done.returncode, 3, done)
                self.assertIn(b"No space left", done.stderr)


class Hostile(ShellCase):
    """Control files that somebody wrote into: no command crashes, hangs, or follows them anywhere."""

    def test_damaged_control_files(self):
        seed = int(os.environ.get("EXTMEM_SEED", random.randrange(1 << 30)))
        chance = random.Random(seed)
        # With something of everything in it, held by nobody who would be harmed.
        self.extmem("domain", "create", "net", "--small-metadata", "256K", "--large-metadata", "1M")
        self.extmem("heap", "create", "net", "web")
        self.extmem("region", "add", "net", "web", "--size", "1M")
        self.holder(("open", "net"), ("alloc", "web", "tag", 100, 50), ("zone", "web", "zone", 4096)).kill()
        control = self.runtime / "net" / "control"
        size = control.stat().st_size
        whole = {}  # the file is sparse: its pages that hold something
        with open(control, "rb") as file:
            for at in range(0, min(size, 64 * MIB), 4096):
                page = file.read(4096)
                if page.strip(b"\0"):
                    whole[at] = page
        commands = (["ls", "net"], ["stat", "net"], ["zones", "net"], ["verify", "net"], ["map", "net"], ["map", "net", "--format", "html"],
                    ["top", "net", "--once", "--delay", "50ms"], ["complete", "heaps", "net"], ["complete", "regions", "net"])
        for round_ in range(16):
            damage = []
            with open(control, "r+b") as file:
                if round_ % 4 == 0:
                    file.truncate(chance.choice((0, 1, 63, 64, 4096, chance.randrange(max(whole) + 4096))))
                else:
                    for _ in range(chance.choice((1, 16, 400))):
                        damage.append(chance.choice(sorted(whole)) + chance.randrange(4096))
                        file.seek(damage[-1])
                        file.write(bytes([chance.choice((0, 1, 0x7f, 0xff, chance.randrange(256)))]))
            for command in commands:
                with self.subTest(seed=seed, round=round_, command=command):
                    done = self.extmem(*command, status=None)
                    self.assertIn(done.returncode, (0, 1, 3), done.stderr[-2000:])
                    if done.returncode == 3:
                        self.assertRegex(done.stderr, "^extmem: ")
            with open(control, "r+b") as file:
                file.truncate(size)
                for at in {at - at % 4096 for at in damage} | (set(whole) if not damage else set()):
                    file.seek(at)
                    file.write(whole[at])
        self.assertTrue(self.json("recover", "net")["domains"][0]["participants"], "mended again")

    def test_what_is_no_control_file(self):
        net = self.runtime / "net"
        net.mkdir(mode=0o700)
        control = net / "control"
        for make in (lambda p: p.mkdir(), lambda p: p.symlink_to("/etc/passwd"), os.mkfifo, lambda p: p.write_bytes(b""),
                     lambda p: p.write_bytes(os.urandom(100000))):
            make(control)
            for command in (["stat", "net"], ["heap", "create", "net", "x"], ["region", "add", "net", "x", "--size", "1M"], ["recover", "net"],
                            ["run", "--quiet", "--domain", "net", "--", "true"]):
                if command[0] == "run" and (not self.preloads() or control.stat().st_size == 0):
                    continue  # an empty one is what a maker leaves that was killed: `run` makes it anew
                with self.subTest(command=command, what=os.stat(control, follow_symlinks=False)):
                    start = time.monotonic()
                    done = self.extmem(*command, status=3)
                    self.assertRegex(done.stderr, r"^extmem: ")
                    self.assertLess(time.monotonic() - start, 30)
            if control.is_dir() and not control.is_symlink():
                control.rmdir()
            else:
                control.unlink()


if __name__ == "__main__":
    unittest.main(verbosity=2)
