#!/usr/bin/env python3
"""What `extmem run` tells: the line at the start, statistics at exit, errors; and a heap in a domain, seen from outside.

Usage: EXTMEM=… EXTMEM_PROGRAMS=… EXTMEM_SOURCE=. tests/preload/report_test.py [CLASS...]
"""
import json
import os
import pathlib
import shutil
import subprocess
import time

from preload_case import EXTMEM, PROGRAMS, Case, main

PAUSE, NANOSLEEP = 34, 230  # system calls of x86-64


class Reports(Case):
    def test_one_line_says_what_was_taken(self):
        done = self.run_on_heap("sh", "-c", "sh -c true; exec ls -d /")
        lines = [line for line in done.stderr.splitlines() if line.startswith("extmem:")]
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertIn("64 MiB of anonymous memory", lines[0])

    def test_text_to_standard_error_even_where_the_program_closes_it(self):
        done = subprocess.run([EXTMEM, "run", "--stats", "--", "ls", "-d", "/"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, env=self.environment, check=True)
        self.assertIn("0 bytes by the C library's malloc", done.stderr)

    def test_the_file_is_where_the_command_was_started(self):
        (self.folder / "elsewhere").mkdir()
        subprocess.run([EXTMEM, "run", "--stats=json", "--stats-file", "here.json", "--", "sh", "-c",
                        "cd elsewhere && exec perl -e 1"], cwd=self.folder, env=self.environment, check=True)
        self.check_stats(self.folder / "here.json")

    def test_ends_without_destructors(self):
        for program in (["python3", "-c", "import os; os.system('true'); os._exit(0)"], ["sh", "-c", "echo hi; ls -d / | cat"]):
            done = self.run_on_heap(*program)
            self.assertGreater(done.stats["peak_bytes"], 0)
        # The child of a vfork shares its parent's memory, and ends first: only the parent tells.
        source = self.folder / "child.c"
        source.write_text("""#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) { char* volatile p = malloc(300000); if (vfork() == 0) _exit(0); wait(0); p = realloc(p, 5 << 20); _Exit(p == 0); }""")
        subprocess.run(["gcc", "-w", source, "-o", self.folder / "child"], check=True)
        self.assertGreaterEqual(self.run_on_heap("./child").stats["used_bytes"], 5 << 20)

    def test_a_file_alone_means_text(self):
        subprocess.run([EXTMEM, "run", "--stats-file", "stats", "--", "true"], cwd=self.folder, env=self.environment, check=True)
        self.assertIn("in use", (self.folder / "stats").read_text())

    def test_a_file_that_cannot_be_written_is_told_before_the_program_runs(self):
        done = subprocess.run([EXTMEM, "run", "--stats-file", "/no/such/folder/stats", "--", "touch", "ran"], cwd=self.folder,
                              env=self.environment, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 3)
        self.assertIn("cannot write the statistics to /no/such/folder/stats", done.stderr)
        self.assertFalse((self.folder / "ran").exists())

    def test_a_full_disk_is_told(self):
        done = subprocess.run([EXTMEM, "run", "--stats-file", "/dev/full", "--", "true"], env=self.environment, stderr=subprocess.PIPE,
                              text=True, check=True)
        self.assertIn("cannot write the statistics to /dev/full: No space left on device", done.stderr)

    def test_plain_memory_is_not_called_hugepages(self):
        done = self.run_on_heap("true", options=["--fallback", "thp"])
        self.assertNotIn("hugepages", done.stderr)

    def test_quiet(self):
        done = self.run_on_heap("true", options=["--quiet"])
        self.assertEqual(done.stderr, "")

    def test_json_is_json_whatever_the_names(self):
        done = subprocess.run([EXTMEM, "run", "--json", "--heap", b'a\xffb"\xc3\xa9\x01', "--", "true"], cwd=self.folder, env=self.environment,
                              stderr=subprocess.PIPE, check=True)
        self.assertEqual(json.loads(done.stderr.splitlines()[-1].decode("utf-8"))["heap"], 'a\ufffdb"\u00e9\x01')

    def test_memory_that_cannot_be_had_is_told_as_json(self):
        done = subprocess.run([EXTMEM, "run", "--json", "--backing", "file:/proc/nowhere", "--size", "1M", "--", "true"], cwd=self.folder,
                              env=self.environment, stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, 3)
        text = done.stderr.splitlines()
        error = json.loads(text[-1])["error"]
        self.assertEqual(error["exit_code"], 3)
        self.assertIn(error["message"].encode(), text[0])

    def test_tags_are_the_calling_libraries(self):
        done = self.run_on_heap("python3", "-c", "import sqlite3; sqlite3.connect(':memory:').execute('select 1')",
                                options=["--tags"])
        names = " ".join(tag["tag"] for tag in done.stats["tags"])
        self.assertIn("libsqlite3", names)


class SharedDomain(Case):
    def setUp(self):
        super().setUp()
        self.environment["EXTMEM_RUNTIME_DIR"] = f"/dev/shm/extmem-preload-test-{os.getpid()}"
        os.mkdir(self.environment["EXTMEM_RUNTIME_DIR"], 0o700)
        self.addCleanup(shutil.rmtree, self.environment["EXTMEM_RUNTIME_DIR"], ignore_errors=True)

    def extmem(self, *arguments):
        """What the command answers, from outside."""
        done = subprocess.run([EXTMEM, *arguments, "--json"], env=self.environment, check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)

    def start(self, *program, options=(), until):
        """A program that runs on, once its process is called `until`."""
        command, _ = self.command(program, ["--domain", "seen", "--quiet", *options])
        running = subprocess.Popen(command, env=self.environment, cwd=self.folder)
        self.addCleanup(lambda: (running.kill(), running.wait()))
        for _ in range(600):
            if pathlib.Path(f"/proc/{running.pid}/comm").read_text().strip() == until:
                maps = pathlib.Path(f"/proc/{running.pid}/maps").read_text()
                if "/seen/control" in maps:
                    return running
            self.assertIsNone(running.poll())
            time.sleep(0.05)
        self.fail(f"{program} does not get to {until}")

    def wait_until_in(self, running, system_call):
        """Until the program has done what it does before it waits in this system call."""
        for _ in range(1200):
            if pathlib.Path(f"/proc/{running.pid}/syscall").read_text().startswith(f"{system_call} "):
                return
            self.assertIsNone(running.poll())
            time.sleep(0.05)
        self.fail(f"process {running.pid} does not get to system call {system_call}")

    def test_programs_that_a_process_was_before_exec_are_gone(self):
        running = self.start("sh", "-c", "exec env env env sleep 60", until="sleep")
        for _ in range(600):  # it has joined, and cleaned up what it was before, in a moment
            processes = [(one["pid"], one["dead"]) for one in self.extmem("ls")["domains"][0]["processes"]]
            if processes == [(running.pid, False)]:
                break
            time.sleep(0.1)
        self.assertEqual(processes, [(running.pid, False)])
        self.assertEqual(self.extmem("recover", "seen")["domains"][0]["participants"], 0)
        running.kill()
        running.wait()
        self.assertEqual(self.extmem("recover", "seen")["domains"][0]["participants"], 1)

    def test_a_program_that_opens_the_domain_itself_is_no_reason_to_take_its_heap_away(self):
        command, _ = self.command([EXTMEM, "recover", "seen", "--json"], ["--domain", "seen"])
        for _ in range(2):  # two copies of the library in one process
            done = subprocess.run(command, env=self.environment, check=True, stdout=subprocess.PIPE)
        self.assertEqual(json.loads(done.stdout)["domains"][0]["participants"], 0)

    def keeping_heap(self):
        self.extmem("domain", "create", "seen")
        self.extmem("heap", "create", "seen", "kept", "--on-death", "keep", "--grow-step", "16M", "--grow-limit", "256M")
        return ["--heap", "kept"]

    def recovered(self, **expected):
        """What a recovery says of a heap that keeps: whether it freed, and kept."""
        done = self.extmem("recover", "seen")["domains"][0]
        self.assertEqual({key: done[f"{key}_objects"] != 0 for key in expected}, expected, done)

    def test_a_program_that_ends_by_itself_leaves_nothing_in_a_heap_that_keeps(self):
        options = ["--domain", "seen", *self.keeping_heap(), "--quiet"]
        perl = "use POSIX; my @a = map { 'x' x $_ } 1 .. 500; "
        for program, status in ((["perl", "-e", perl], 0), (["perl", "-e", perl + "exit(3)"], 3),
                                (["perl", "-e", perl + "POSIX::_exit(4)"], 4), (["sh", "-c", "exit 5"], 5),
                                (["sh", "-c", "exec sh -c 'exit 0'"], 0), ([PROGRAMS / "preload_exits", "quick"], 7),
                                ([PROGRAMS / "preload_exits", "late"], 0)):
            with self.subTest(program=program):
                command, _ = self.command(program, options)
                done = subprocess.run(command, env=self.environment, cwd=self.folder, stderr=subprocess.PIPE, check=False)
                self.assertEqual((done.returncode, done.stderr), (status, b""))
                self.recovered(freed=True, kept=False)

    def test_a_heap_keeps_what_a_killed_program_held(self):
        options = self.keeping_heap()
        for program, until, freed in ((["sleep", "60"], "sleep", False),
                                      ([PROGRAMS / "preload_exits", "children"], "preload_exits", True)):  # its shell's
            with self.subTest(program=program):
                running = self.start(*program, options=options, until=until)
                self.wait_until_in(running, PAUSE if freed else NANOSLEEP)
                running.kill()
                running.wait()
                self.recovered(freed=freed, kept=True)
        command, _ = self.command([PROGRAMS / "preload_exits", "abort"], ["--domain", "seen", "--quiet", *options])
        self.assertLess(subprocess.run(command, env=self.environment, cwd=self.folder, check=False).returncode, 0)
        self.recovered(freed=False, kept=True)

    def test_others_see_the_heap(self):
        done = self.run_on_heap("python3", "-c", "print(sum(len(str(i)) for i in range(100000)))",
                                options=["--domain", "seen", "--backing", "memfd"])
        self.assertEqual(done.stdout.strip(), str(sum(len(str(i)) for i in range(100000))).encode())
        self.assertIn("in the domain seen", done.stderr)
        command, _ = self.command([PROGRAMS / "preload_large", "alone"], ["--domain", "seen", "--heap", "large"])
        subprocess.run(command, env=self.environment, check=True, stdout=subprocess.DEVNULL)
        self.assertNotIn("cannot be had", done.stderr)


# ---- real programs ----------------------------------------------------------------------------------------------


if __name__ == "__main__":
    main()
