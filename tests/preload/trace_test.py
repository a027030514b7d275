#!/usr/bin/env python3
"""`extmem record`, `replay` and `advise`: traces of programs of ours and of real ones, and damaged traces.

Usage: EXTMEM=… EXTMEM_PROGRAMS=… EXTMEM_SOURCE=. tests/preload/trace_test.py [CLASS...]
"""
import ctypes.util
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree as ElementTree

EXTMEM = os.environ["EXTMEM"]
PROGRAMS = pathlib.Path(os.environ["EXTMEM_PROGRAMS"])
TRACES = pathlib.Path(os.environ["EXTMEM_SOURCE"]) / "tests" / "preload" / "traces"


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="extmem-trace-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME")}

    def extmem(self, *arguments, status=0, **more):
        done = subprocess.run([EXTMEM, *map(str, arguments)], cwd=self.folder, env=self.environment, timeout=250,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
        if status is not None:
            self.assertEqual(done.returncode, status, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done

    def record(self, *program):
        done = self.extmem("record", "-o", "trace", "--", *program)
        return self.folder / "trace", done

    def replay(self, trace, *options, **more):
        return json.loads(self.extmem("replay", trace, "--json", *options, **more).stdout)

    def check(self, report):
        self.assertEqual((report["corruptions"], report["breaches"], report["failures"]), (0, 0, 0), report)
        done = sum(times["count"] for times in report["times"])
        self.assertEqual(done, report["operations"])


class Record(Case):
    def test_the_program_is_not_disturbed_and_the_trace_is_small(self):
        program = ["python3", "-c", "import json; print(len(json.dumps([{'n': i} for i in range(3000)])))"]
        plain = subprocess.run(program, stdout=subprocess.PIPE, check=True).stdout
        self.environment["PYTHONMALLOC"] = "malloc"
        trace, done = self.record(*program)
        self.assertEqual(done.stdout, plain)
        report = self.replay(trace)
        self.check(report)
        self.assertGreater(report["operations"], 10000)
        self.assertLess(trace.stat().st_size / report["operations"], 10)
        self.assertGreater(report["peak_live_bytes"], 100000)

    def test_what_it_knows_is_exact(self):
        # Known sizes, in an order of their own: the books must agree to the byte.
        program = self.folder / "known.c"
        program.write_text("""#include <stdlib.h>
int main(void) {
  void* p[1000];
  for (int i = 0; i < 1000; ++i) p[i] = malloc(100 + (size_t)i);
  for (int i = 0; i < 1000; i += 2) free(p[i]);
  for (int i = 1; i < 1000; i += 2) p[i] = realloc(p[i], 5000);
  for (int i = 1; i < 1000; i += 2) free(p[i]);
  free(calloc(7, 11));
  void* a = NULL;
  if (posix_memalign(&a, 256, 33) != 0) return 1;
  free(a);
  return 0;
}""")
        subprocess.run(["gcc", "-O0", "-fno-builtin", program, "-o", self.folder / "known"], check=True)
        trace, _ = self.record(self.folder / "known")
        report = self.replay(trace)
        self.check(report)
        counts = {times["operation"]: times["count"] for times in report["times"]}
        self.assertEqual(counts, {"malloc": 1000, "free": 1002, "realloc": 500, "calloc": 1, "memalign": 1})
        self.assertEqual(report["peak_live_bytes"], 500 * 5000)
        self.assertEqual(report["threads"], 1)

    def test_threads_and_children(self):
        trace, _ = self.record("sh", "-c", f"{PROGRAMS}/preload_operators; true")
        traces = sorted(self.folder.glob("trace*"))
        self.assertEqual(len(traces), 2, traces)  # the shell's and its child's
        reports = [self.replay(t) for t in traces]
        for report in reports:
            self.check(report)
        self.assertGreaterEqual(max(report["threads"] for report in reports), 5)

    def test_a_thread_is_one_to_its_very_end(self):
        # What destructors of thread-specific data free, and the C library behind the last of them.
        source = self.folder / "keys.c"
        source.write_text("""#include <pthread.h>
#include <stdlib.h>
enum { kKeys = 40 };
static pthread_key_t keys[kKeys];
static void* work(void* arg) {
  for (int i = 0; i < kKeys; ++i) pthread_setspecific(keys[i], malloc(10));
  return arg;
}
int main(void) {
  for (int i = 0; i < kKeys; ++i) pthread_key_create(&keys[i], free);
  for (int i = 0; i < 300; ++i) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL) != 0 || pthread_join(thread, NULL) != 0) return 1;
  }
  return 0;
}""")
        subprocess.run(["gcc", "-O0", "-fno-builtin", "-pthread", source, "-o", self.folder / "keys"], check=True)
        trace, _ = self.record(self.folder / "keys")
        report = self.replay(trace)
        self.check(report)
        self.assertEqual((report["threads"], report["unknown_frees"]), (301, 0))
        self.assertGreater(report["operations"], 300 * 40 * 2)
        self.assertLess(trace.stat().st_size / report["operations"], 10)

    def test_ends_without_destructors(self):
        for program in (["sh", "-c", "echo hi; ls -d / | cat"], ["python3", "-c", "import os; os.system('true'); os._exit(0)"],
                        ["python3", "-c", "import os; p = os.fork(); p or os._exit(0); os.waitpid(p, 0)"]):
            for old in self.folder.glob("trace*"):
                old.unlink()
            self.record(*program)
            for trace in self.folder.glob("trace*"):
                report = self.replay(trace)
                self.check(report)
                self.assertTrue(report["complete"], trace)
        # The child of a vfork shares its parent's memory, and ends first: its end is not the recording's.
        source = self.folder / "child.c"
        source.write_text("""#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) { for (int i = 0; i < 100; ++i) { free(malloc(10)); if (vfork() == 0) _exit(0); wait(0); } _Exit(0); }""")
        subprocess.run(["gcc", "-w", "-O0", "-fno-builtin", source, "-o", self.folder / "child"], check=True)
        report = self.replay(self.record(self.folder / "child")[0])
        self.assertEqual((report["operations"], report["complete"]), (200, True))

    def test_a_malloc_of_the_programs_own_is_told(self):
        _, done = self.record(PROGRAMS / "preload_own_malloc")
        self.assertIn(b"what that gives is not in the trace", done.stderr)
        self.assertNotIn(b"the malloc in", self.record(PROGRAMS / "preload_stub")[1].stderr)

    def test_a_program_that_allocates_nothing(self):
        program = self.folder / "nothing.c"
        program.write_text("int main(void) { return 0; }")
        subprocess.run(["gcc", "-O0", program, "-o", self.folder / "nothing"], check=True)
        done = self.extmem("record", "--json", "-o", "trace", "--", self.folder / "nothing")
        told = json.loads(done.stderr)
        self.assertEqual((told["operations"], told["threads"], told["complete"]), (0, 0, True))
        report = self.replay("trace")
        self.assertEqual((report["operations"], report["complete"]), (0, True))

    def test_a_killed_program_leaves_what_it_had_written(self):
        command = [EXTMEM, "record", "-o", "trace", "--", "python3", "-c",
                   "x = []\nwhile True: x.append(bytearray(len(x) % 5000)); x = x[-1000:]"]
        program = subprocess.Popen(command, cwd=self.folder, env=self.environment)
        trace = self.folder / "trace"
        for _ in range(600):
            time.sleep(0.05)
            if trace.exists() and trace.stat().st_size > 300000:
                break
        program.send_signal(signal.SIGKILL)
        program.wait()
        report = self.replay(trace)
        self.check(report)
        self.assertIn(b"did not end in good order", self.extmem("replay", trace).stdout)

    def test_a_program_that_closes_every_descriptor(self):
        done = self.extmem("record", "--json", "-o", "trace", "--", PROGRAMS / "preload_closed_descriptors")
        self.assertTrue(json.loads(done.stderr)["complete"], done.stderr)
        report = self.replay("trace")
        self.check(report)
        self.assertTrue(report["complete"])
        self.assertGreaterEqual(report["peak_live_bytes"], 6 * (40 << 20))

    def test_where_the_trace_cannot_be_written(self):
        done = self.extmem("record", "-o", "/no/such/folder/trace", "--", "echo", "ran", status=3)
        self.assertEqual(done.stdout, b"")
        self.assertIn(b"cannot write the trace", done.stderr)
        done = self.extmem("record", "-o", "/dev/full", "--", "perl", "-e", "print 7")
        self.assertEqual(done.stdout, b"7")
        self.assertIn(b"could not be written", done.stderr)
        self.assertIn(b"--output", self.extmem("record", "-o", "", "--", "echo", status=2).stderr)


class Replay(Case):
    LAYOUTS = ([], ["--style", "exact"], ["--placement", "low"], ["--placement", "high"], ["--region", "anon=64M"],
               ["--region", "memfd=8M", "--region", "thp=64M"], ["--threads", "1"], ["--contents", "ends"],
               ["--allocator", "process"])

    def test_every_trace_on_every_layout(self):
        for trace in sorted(TRACES.glob("*.trace")):
            for layout in self.LAYOUTS:
                with self.subTest(trace=trace.name, layout=layout):
                    self.check(self.replay(trace, *layout))

    def test_passes_do_the_whole_trace_each(self):
        for trace in sorted(TRACES.glob("*.trace")):
            for contents in ("full", "touch"):
                for layout in self.LAYOUTS[:2] + self.LAYOUTS[6:7]:
                    with self.subTest(trace=trace.name, contents=contents, layout=layout):
                        report = self.replay(trace, *layout, "--contents", contents, "--passes", 3)
                        self.assertEqual((report["corruptions"], report["breaches"], report["failures"]), (0, 0, 0), report)
                        self.assertEqual((len(report["pass_seconds"]), report["times"], report["samples"]), (3, [], []))
                        self.assertGreater(min(report["pass_seconds"]), 0)
        # What a pass leaves is freed: a hundred of them need no more memory than one.
        self.assertEqual(self.replay(TRACES / "perl.trace", "--region", "anon=4M", "--passes", 100)["failures"], 0)
        self.assertIn(b"a pass", self.extmem("replay", TRACES / "perl.trace", "--passes", 2).stdout)

    def test_other_allocators(self):
        found = [ctypes.util.find_library(name) for name in ("jemalloc", "mimalloc", "tcmalloc_minimal")]
        found = [name for name in found if name]
        if not found:
            self.skipTest("no other allocator is installed")
        for library in found:
            path = f"/usr/lib/x86_64-linux-gnu/{library}"
            report = self.replay(TRACES / "perl.trace", "--allocator", path, "--samples", "7")
            self.check(report)
            self.assertEqual(report["allocator"], path)
            self.assertLessEqual(len(report["samples"]), 8)
        self.extmem("replay", TRACES / "perl.trace", "--allocator", "/no/such/library.so", status=3)
        # What the loader ignores is not taken for an allocator, nor a library without a malloc.
        for library in ("/etc/passwd", PROGRAMS.parent / "lib" / "preload_plugin.so"):
            done = self.extmem("replay", TRACES / "perl.trace", "--allocator", library, status=3)
            self.assertIn(b"has no malloc", done.stderr)

    def test_the_c_librarys_memory_is_that_of_the_trace(self):
        # Not what the command has itself, such as the trace.
        for trace in sorted(TRACES.glob("*.trace")):
            report = self.replay(trace, "--allocator", "process")
            for sample in report["samples"]:
                self.assertLess(sample["used_bytes"], sample["live_bytes"] * 1.3 + (512 << 10), trace)
                self.assertEqual(sample["total_bytes"], sample["used_bytes"] + sample["free_bytes"])
            self.assertGreater(max(sample["used_bytes"] for sample in report["samples"]), report["peak_live_bytes"] / 2)

    def test_a_heap_that_is_too_small_fails_and_corrupts_nothing(self):
        report = self.replay(TRACES / "perl.trace", "--region", "anon=256K")
        self.assertGreater(report["failures"], 0)
        self.assertEqual((report["corruptions"], report["breaches"]), (0, 0))

    def test_the_picture(self):
        self.extmem("replay", TRACES / "perl.trace", "--svg", "memory.svg")
        root = ElementTree.parse(self.folder / "memory.svg").getroot()
        self.assertTrue(root.tag.endswith("svg"))
        self.assertEqual(len(root.findall(".//{http://www.w3.org/2000/svg}polyline")), 4)
        done = self.extmem("replay", TRACES / "perl.trace", "--svg", "no/such/memory.svg", status=3)
        self.assertIn(b"No such file or directory; say where it goes with --svg FILE", done.stderr)
        self.assertEqual(done.stdout, b"", "not after the replay")

    def test_bad_command_lines(self):
        for options in (["--region", "anon"], ["--region", "tape=1M"], ["--region", "anon=1Q"], ["--style", "odd"]):
            self.assertNotEqual(self.extmem("replay", TRACES / "perl.trace", *options, status=2).stderr, b"")
        self.assertIn(b"no trace", self.extmem("replay", "/etc/passwd", status=3).stderr)
        self.extmem("replay", "/no/such/file", status=3)
        self.assertIn(b"is a folder", self.extmem("replay", "/tmp", status=3).stderr)
        self.extmem("replay", TRACES / "perl.trace", "--svg", "/no/such/folder/file", status=3)
        for option in (["--region", "anon=1M"], ["--style", "exact"], ["--placement", "low"]):
            done = self.extmem("replay", TRACES / "perl.trace", "--allocator", "process", *option, status=2)
            self.assertIn(b"--allocator heap", done.stderr)
        self.assertIn(b"path of a library", self.extmem("replay", TRACES / "perl.trace", "--allocator", "jemalloc", status=2).stderr)

    def test_what_is_no_trace_is_not_read_to_its_end(self):
        for path in ("/dev/zero", "/dev/urandom", "/dev/null", "/etc/passwd"):
            self.assertIn(b"is no trace", self.extmem("advise", path, status=3).stderr)
        self.assertIn(b"cannot read /proc/self/mem", self.extmem("advise", "/proc/self/mem", status=3).stderr)

    def test_damaged_traces(self):
        seed = int(os.environ.get("EXTMEM_SEED", random.randrange(1 << 30)))
        print(f"seed {seed}", file=sys.stderr)
        chance = random.Random(seed)
        whole = (TRACES / "threads.trace").read_bytes()
        damaged = self.folder / "damaged"
        for round_ in range(30):
            data = bytearray(whole)
            if round_ % 3 == 0:
                data = data[:chance.randrange(len(data))]
            else:
                for _ in range(chance.choice((1, 5, 200))):
                    data[chance.randrange(64, len(data))] = chance.randrange(256)
            damaged.write_bytes(data)
            # Sizes that nobody meant may not be had; that is no crash.
            done = self.extmem("replay", damaged, "--contents", "ends", "--region", "anon=256M", status=None)
            self.assertIn(done.returncode, (0, 3), f"seed {seed} round {round_}: {done}")

    def chunk(self, thread, tsc, events):
        """A chunk of events: docs/trace.md."""
        return struct.pack("<IIIIQ", 0x4B4E4843, 1, thread, len(events), tsc) + events

    def test_more_threads_than_16_bits_count(self):
        # Each allocates 32 bytes in one chunk and frees them in another.
        trace = self.folder / "many"
        header = (TRACES / "perl.trace").read_bytes()[:64]
        count = 66000
        with open(trace, "wb") as out:
            out.write(header)
            start = struct.unpack_from("<Q", header, 16)[0]
            for thread in range(1, count + 1):
                address = struct.pack("<BBBB", 0x80 | (thread & 0x3F) << 1, 0x80 | thread >> 6 & 0x7F, 0x80 | thread >> 13 & 0x7F, 1)
                out.write(self.chunk(thread, start + thread * 10, b"\x09\x01\x20" + address))
            for thread in range(1, count + 1):
                address = struct.pack("<BBBB", 0x80 | (thread & 0x3F) << 1, 0x80 | thread >> 6 & 0x7F, 0x80 | thread >> 13 & 0x7F, 1)
                out.write(self.chunk(thread, start + (count + thread) * 10, b"\x00\x01" + address))
        report = self.replay(trace, "--threads", "4")
        self.check(report)
        self.assertEqual((report["threads"], report["operations"], report["objects"]), (count, 2 * count, count))

    def test_sizes_as_large_as_numbers_go(self):
        events = b"\x09\x01" + b"\xff" * 9 + b"\x01" + b"\x02"  # malloc(2^64 - 1)
        (self.folder / "huge").write_bytes((TRACES / "perl.trace").read_bytes()[:64] + self.chunk(1, 0, events))
        self.assertEqual(self.replay("huge", "--region", "anon=16M", "--svg", "huge.svg")["failures"], 1)
        ElementTree.parse(self.folder / "huge.svg")
        self.assertIn(b"no heap of up to 16 TiB", self.extmem("advise", "huge", status=3).stderr)

    def test_a_thread_of_damaged_chunks(self):
        trace = self.folder / "damaged"
        trace.write_bytes((TRACES / "perl.trace").read_bytes()[:64] + self.chunk(1, 0, b"\x07") * 300000)
        self.assertEqual(self.replay(trace)["operations"], 0)


class Advise(Case):
    def test_the_advice_is_enough_and_not_much_more(self):
        for trace in sorted(TRACES.glob("*.trace")):
            advice = json.loads(self.extmem("advise", trace, "--json").stdout)
            self.assertGreaterEqual(advice["heap_bytes"], advice["smallest_heap_bytes"])
            self.assertGreaterEqual(advice["smallest_heap_bytes"], advice["peak_live_bytes"])
            self.assertEqual(advice["hugepages_2m"] << 21, advice["heap_bytes"])
            self.assertGreater(len(advice["sites"]), 0)
            enough = self.replay(trace, "--threads", "1", "--region", f"anon={advice['smallest_heap_bytes']}")
            self.assertEqual(enough["failures"], 0)
            self.assertIn(b"hugepages", self.extmem("advise", trace).stdout)

    def test_a_known_need(self):
        program = self.folder / "known.c"
        program.write_text("""#include <stdlib.h>
int main(void) { for (int i = 0; i < 40; ++i) { if (malloc(1 << 20) == NULL) return 1; } return 0; }""")
        subprocess.run(["gcc", "-O0", "-fno-builtin", program, "-o", self.folder / "known"], check=True)
        trace, _ = self.record(self.folder / "known")
        advice = json.loads(self.extmem("advise", trace, "--json").stdout)
        self.assertEqual(advice["peak_live_bytes"], 40 << 20)
        self.assertLessEqual(advice["smallest_heap_bytes"], (40 << 20) * 65 // 64 + (1 << 20))
        self.assertEqual(advice["pages_4k_at_peak"], 40 * 256)

    def test_the_advice_holds_in_a_real_run(self):
        # Not a replay: the program itself, with no more memory than it is said to need, and with less.
        program = ["perl", "-e", '@x = map { "x" x ($_ % 3000) } 1..30000; @x = reverse sort @x; %h = map { $_ => 1 } 1..20000; print scalar(@x)']
        trace, _ = self.record(*program)
        advice = json.loads(self.extmem("advise", trace, "--json").stdout)

        def run(size):
            done = self.extmem("run", "--json", "--size", size, "--limit", size, "--", *program, status=None)
            return done.returncode, json.loads(done.stderr.splitlines()[-1])["refused"] if done.returncode == 0 else None, done.stdout
        self.assertEqual(run(advice["heap_bytes"]), (0, 0, b"30000"))
        self.assertEqual(run(advice["smallest_heap_bytes"]), (0, 0, b"30000"))
        self.assertNotEqual(run(advice["smallest_heap_bytes"] * 3 // 4 >> 12 << 12)[:2], (0, 0))

    def test_a_very_large_object(self):
        # 4 TiB in one object: counted by its ends, not page by page.
        header = (TRACES / "perl.trace").read_bytes()[:64]
        events = b"\x09\x01" + b"\x80" * 5 + b"\x80\x01" + b"\x02"
        (self.folder / "large").write_bytes(header + struct.pack("<IIIIQ", 0x4B4E4843, 1, 1, len(events), 0) + events)
        advice = json.loads(self.extmem("advise", "large", "--json").stdout)
        self.assertEqual(advice["peak_live_bytes"], 1 << 42)
        # Nor does its replay take the machine's memory.
        self.assertIn(b"--contents touch", self.extmem("replay", "large", status=3).stderr)
        self.assertEqual(self.replay("large", "--region", "anon=16M")["failures"], 1)
        self.assertEqual(advice["pages_4k_at_peak"], 1 << 30)

    def test_an_empty_trace(self):
        (self.folder / "empty").write_bytes((TRACES / "perl.trace").read_bytes()[:64])
        self.assertIn(b"no operations", self.extmem("advise", "empty", status=3).stderr)


if __name__ == "__main__":
    program = unittest.main(exit=False, verbosity=2)
    sys.exit(0 if program.result.wasSuccessful() else 1)
