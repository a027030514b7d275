#!/usr/bin/env python3
"""Programs of ours on a heap of extmem, by `extmem run`.

Usage: EXTMEM=… EXTMEM_PROGRAMS=… EXTMEM_PLUGIN=… EXTMEM_SOURCE=. tests/preload/preload_test.py [CLASS...]
"""
import json
import os
import pathlib
import shutil
import subprocess

from preload_case import Case, EXTMEM, PROGRAMS, main


class Ours(Case):
    def passes(self, name, *arguments, **options):
        done = self.run_on_heap(PROGRAMS / f"preload_{name}", *arguments, **options)
        self.assertIn(b"passed", done.stdout)
        self.assertIsNotNone(done.stats)
        return done


class Interface(Ours):
    def test_every_function(self):
        self.passes("interface")

    def test_every_function_with_tags(self):
        self.passes("interface", options=["--tags"])

    def test_every_function_on_little_address_space(self):
        import resource
        self.passes("interface", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)))

    def test_a_program_on_very_little_address_space(self):
        import resource
        done = self.run_on_heap("python3", "-c", "print(len([i for i in range(100000)]))",
                                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20)))
        self.assertEqual(done.stdout.strip(), b"100000")

    def test_a_c_program_loads_no_library_with_it(self):
        done = self.run_on_heap("cat", "/proc/self/maps")
        libraries = {line.split()[-1] for line in done.stdout.decode().splitlines() if ".so" in line}
        of_heap = [name for name in libraries if "libextmem-preload" in name]
        without = subprocess.run(["cat", "/proc/self/maps"], env=self.environment, stdout=subprocess.PIPE, text=True,
                                 check=True).stdout
        self.assertEqual(sorted(name for name in libraries if name not in without), of_heap)


    def test_a_program_that_may_have_little_data(self):
        import resource
        done = self.run_on_heap("python3", "-c", "print(len([i for i in range(100000)]))",
                                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (200 << 20, 200 << 20)))
        self.assertEqual(done.stdout.strip(), b"100000")
        done = self.run_on_heap("true", status=3,
                                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (20 << 20, 20 << 20)))
        self.assertIn("ulimit -d", done.stderr)


class Operators(Ours):
    def test_every_operator(self):
        self.passes("operators")

    def test_those_of_the_program_are_called_by_the_others(self):
        self.passes("own_new")
        self.passes("own_new", options=["--tags"])

    def test_tags_are_of_who_asks(self):
        done = self.passes("operators", options=["--tags"])
        self.assertNotIn("libextmem-preload.so", [tag["tag"] for tag in done.stats["tags"]])


class Threads(Ours):
    def test_threads(self):
        self.passes("threads", os.environ["EXTMEM_PLUGIN"])

    def test_threads_with_tags(self):
        self.passes("threads", os.environ["EXTMEM_PLUGIN"], options=["--tags"])


class Fork(Ours):
    def test_the_child_has_a_copy(self):
        self.passes("fork")

    def test_the_child_has_a_copy_of_transparent_hugepages(self):
        self.passes("fork", options=["--backing", "thp"])

    def test_the_child_has_a_copy_of_hugepages(self):
        free = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
        if not free.exists() or int(free.read_text()) < 48:
            self.skipTest("fewer than 48 hugepages of 2 MiB are free")
        self.passes("fork", options=["--backing", "hugetlb:2M", "--size", "16M", "--fallback", "anon"])

    def test_the_child_has_a_copy_of_shared_mappings(self):
        for options in self.shared_backings():
            with self.subTest(options=options):
                self.passes("fork", 8, options=options)

    def test_the_locks_of_streams_stay_the_parents(self):
        for options in ([], *self.shared_backings()):
            with self.subTest(options=options):
                self.passes("fork_streams", options=options)

    def test_a_stack_on_the_heap_is_refused_where_it_would_be_shared(self):
        self.passes("fork_stack")
        for options in self.shared_backings():
            with self.subTest(options=options):
                done = self.run_on_heap(PROGRAMS / "preload_fork_stack", options=options, status=95)
                self.assertIn("stack", done.stderr)

    def test_many_keys_of_threads_are_refused_where_the_library_would_clear_them(self):
        self.passes("fork_keys")
        for options in self.shared_backings():
            with self.subTest(options=options):
                done = self.run_on_heap(PROGRAMS / "preload_fork_keys", options=options, status=95)
                self.assertIn("32 keys", done.stderr)

    def test_pseudo_terminals_and_daemons_have_a_copy(self):
        program = """
import ctypes, os, sys, time
data = bytearray(b"before" * 100000)
pid, fd = os.forkpty()
if pid == 0:
    assert data == b"before" * 100000
    data[:] = b"child." * 100000
    os._exit(7)
assert os.waitpid(pid, 0)[1] >> 8 == 7 and data == b"before" * 100000
pid = os.fork()
if pid == 0:
    if ctypes.CDLL(None).daemon(1, 1) != 0: os._exit(1)
    data[:] = b"daemon" * 100000
    open("done.tmp", "w").write(str(sum(data)))
    os.rename("done.tmp", "done")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
while not os.path.exists("done"): time.sleep(0.01)
assert data == b"before" * 100000 and open("done").read() == str(sum(b"daemon" * 100000))
os.remove("done")
"""
        for options in self.shared_backings():
            with self.subTest(options=options):
                self.run_on_heap("python3", "-c", program, options=options)

    def test_what_was_never_written_is_not_copied(self):
        program = """
import json
import os
pid = os.fork()
if pid == 0:
    resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    os._exit(0 if resident < 100 << 20 else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
        for options in (["--backing", "memfd", "--size", "256M"], ["--backing", f"file:{self.folder}/heap", "--size", "256M"]):
            with self.subTest(options=options):
                self.run_on_heap("python3", "-c", program, options=options)

    def test_a_copy_that_cannot_be_had_is_enomem(self):
        program = """
import os, resource, sys
now = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (now + (16 << 20), resource.RLIM_INFINITY))
try:
    os.fork()
except OSError as e:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    pid = os.fork()
    if pid == 0: os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    sys.exit(e.errno)
"""
        for options in self.shared_backings():
            with self.subTest(options=options):
                done = self.run_on_heap("python3", "-c", program, options=options, status=12)
                self.assertIn("no copy of the heap's memory", done.stderr)

    def test_fork_is_refused_in_a_named_domain(self):
        self.environment["EXTMEM_RUNTIME_DIR"] = f"/dev/shm/extmem-preload-test-{os.getpid()}"
        os.mkdir(self.environment["EXTMEM_RUNTIME_DIR"], 0o700)
        self.addCleanup(shutil.rmtree, self.environment["EXTMEM_RUNTIME_DIR"], ignore_errors=True)
        program = "import os,sys\ntry:\n  os.fork()\nexcept OSError as e:\n  sys.exit(e.errno)"
        options = ["--domain", "forks"]
        done = self.run_on_heap("python3", "-c", program, options=options, status=95)
        self.assertIn("fork refused", done.stderr)
        done = self.run_on_heap("python3", "-c", program.replace("os.fork", "os.forkpty"), options=options, status=95)
        self.assertIn("forkpty refused", done.stderr)
        # What shares until exec works.
        done = self.run_on_heap("python3", "-c", "import subprocess; print(subprocess.check_output(['echo', 'ok']))",
                                options=options)
        self.assertIn(b"ok", done.stdout)


class Limit(Ours):
    def test_a_full_heap_is_enomem(self):
        self.passes("limit", options=["--limit", "64M", "--size", "8M", "--step", "8M"])

    def test_a_full_file_is_enomem(self):
        self.passes("limit", options=["--backing", f"file:{self.folder}/heap", "--size", "64M"])


class BadFrees(Ours):
    def test_are_told_and_ignored(self):
        done = self.passes("bad_frees", bad_frees=3)
        self.assertEqual(done.stderr.count("ignored: "), 3, done.stderr)


class Large(Ours):
    def test_what_is_not_touched_takes_no_memory(self):
        self.passes("large", "lean")

    def test_with_tags(self):
        self.passes("large", "lean", options=["--tags"])

    def test_contents_on_other_backings(self):
        for options in ([], ["--backing", "thp"], ["--backing", "memfd"], ["--prefault", "--step", "8M"],
                        ["--node", "0"], ["--limit", "160M"]):
            with self.subTest(options=options):
                self.passes("large", options=options)


class ManyThreads(Ours):
    def test_five_thousand_at_once(self):
        if subprocess.run([PROGRAMS / "preload_many_threads"], stdout=subprocess.DEVNULL).returncode == 77:
            self.skipTest("the machine does not allow 5000 threads")
        self.passes("many_threads")


class Libraries(Ours):
    def test_one_that_prefers_its_own_symbols(self):
        plain = subprocess.run([PROGRAMS / "preload_deepbind"], stdout=subprocess.PIPE, env=self.environment)
        self.assertEqual(plain.stdout, b"deepbind: passed\n")
        self.passes("deepbind")
        done = self.run_on_heap(EXTMEM, "record", "-o", self.folder / "trace", "--", PROGRAMS / "preload_deepbind")
        self.assertEqual(done.stdout, b"deepbind: passed\n")
        replay = subprocess.run([EXTMEM, "replay", "--json", self.folder / "trace"], stdout=subprocess.PIPE, check=True)
        self.assertGreaterEqual(json.loads(replay.stdout)["objects"], 2000)
        self.assertEqual(json.loads(replay.stdout)["unknown_frees"], 0)


class Backings(Ours):
    def test_each_runs_a_program(self):
        name = f"/extmem-test-{os.getpid()}"
        self.addCleanup(lambda: pathlib.Path("/dev/shm" + name).unlink(missing_ok=True))
        for options in (["--backing", "anon"], ["--backing", "thp"], ["--backing", "memfd"],
                        ["--backing", f"shm:{name}", "--size", "256M"],
                        ["--backing", f"file:{self.folder}/heap", "--size", "256M"],
                        ["--backing", "anon", "--prefault", "--size", "16M", "--step", "16M"],
                        ["--backing", "hugetlb:2M", "--fallback", "thp"], ["--node", "interleave"],
                        ["--node", "0"]):
            with self.subTest(options=options):
                self.passes("interface", options=options)

    def test_what_cannot_be_had_is_an_error(self):
        self.run_on_heap("true", options=["--backing", "file:/no/such/folder/heap", "--size", "1M"], status=3)
        self.run_on_heap("true", options=["--backing", "file:/tmp/x"], status=2)
        self.run_on_heap("true", options=["--backing", "tape"], status=2)
        self.run_on_heap("true", options=["--size", "12Q"], status=2)
        self.run_on_heap("true", options=["--size", "2G", "--limit", "1G"], status=2)
        self.run_on_heap("true", options=["--node", "4000"], status=3)
        self.run_on_heap("true", options=["--backing", "shm:extmem", "--size", "1M"], status=2)
        self.run_on_heap("true", options=["--backing", "shm:/a/b", "--size", "1M"], status=2)
        self.run_on_heap("no-such-program", status=127)
        self.run_on_heap(self.folder, status=126)

    def test_a_path_that_did_not_become_memory_leaves_no_file(self):
        for backing, size in ((f"file:{self.folder}/heap", "60T"), (f"dax:{self.folder}/heap", "1M")):
            self.run_on_heap("true", options=["--backing", backing, "--size", size], status=3)
            self.assertFalse((self.folder / "heap").exists(), backing)


class Descriptors(Ours):
    def test_those_of_the_program_stay_open(self):
        for options in (["--backing", "anon"], ["--backing", "memfd"]):
            self.passes("closed_descriptors", options=[*options, "--step", "64M"])

    def test_the_statistics_find_standard_error(self):
        done = subprocess.run([EXTMEM, "run", "--stats", "--step", "64M", "--", PROGRAMS / "preload_closed_descriptors"],
                              env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
        self.assertIn("heap malloc at exit", done.stderr)


class Refused(Ours):
    """Programs that the loader preloads nothing into are not run, so that nobody takes them for programs on a heap."""

    def refused(self, program, why):
        done = self.run_on_heap(program, status=126)
        self.assertIn(why, done.stderr)

    def test_statically_linked_and_scripts_for_such(self):
        (self.folder / "a.c").write_text("int main(void) { return 0; }")
        subprocess.run(["gcc", "-static", "a.c", "-o", "static"], cwd=self.folder, check=True)
        self.refused("./static", "statically linked")
        script = self.folder / "script"
        script.write_text(f"#! {self.folder}/static argument\n")
        script.chmod(0o755)
        self.refused("./script", f"its interpreter {self.folder}/static: it is statically linked")

    def test_rights_that_the_caller_has_not(self):
        if os.geteuid() != 0:
            self.skipTest("not root: cannot give a file to others")
        program = self.folder / "true"
        shutil.copy(shutil.which("true"), program)
        for user, group, mode, why in ((65534, 0, 0o4755, "set-user-ID"), (0, 65534, 0o2755, "set-group-ID")):
            os.chown(program, user, group)
            program.chmod(mode)
            self.refused(program, why)
        os.chown(program, 0, 0)
        program.chmod(0o6755)
        self.run_on_heap(program)

    def test_file_capabilities(self):
        if os.geteuid() != 0:
            self.skipTest("not root: cannot give capabilities to a file")
        import struct
        self.folder.chmod(0o755)
        program = self.folder / "true"
        shutil.copy(shutil.which("true"), program)
        try:  # CAP_NET_RAW, effective, revision 2
            os.setxattr(program, "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
        except OSError as error:
            self.skipTest(f"the file system holds no capabilities: {error}")
        self.run_on_heap(program)
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        done = subprocess.run([EXTMEM, "run", "--", program], env=self.environment, stderr=subprocess.PIPE, text=True, **nobody)
        self.assertIn("file capabilities", done.stderr)
        self.assertEqual(done.returncode, 126)

    def test_a_library_that_cannot_be_named(self):
        (self.folder / "with space").symlink_to(pathlib.Path(EXTMEM).parent.parent / "lib")
        self.environment["EXTMEM_LIBRARY_PATH"] = str(self.folder / "with space")
        done = self.run_on_heap("true", status=3)
        self.assertIn("with space/libextmem-preload.so: LD_PRELOAD cannot name a path with a space", done.stderr)

    def test_a_malloc_of_the_programs_own_is_told(self):
        done = self.passes("own_malloc")
        self.assertIn("calls the malloc in", done.stderr)
        self.assertTrue(done.stats["other_malloc"].endswith("preload_own_malloc"), done.stats)
        self.assertEqual(self.passes("own_malloc_new").stats["used_bytes"], 0)
        # One that passes on what it is asked is no other.
        done = self.run_on_heap(EXTMEM, "record", "-o", self.folder / "trace", "--", PROGRAMS / "preload_operators")
        self.assertEqual(done.stats["other_malloc"], "")
        self.assertNotIn("calls the malloc", done.stderr)
        for name in ("interface", "stub"):
            done = self.passes(name)
            self.assertEqual(done.stats["other_malloc"], "")
            self.assertNotIn("calls the malloc", done.stderr)


if __name__ == "__main__":
    main()
