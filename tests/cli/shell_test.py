#!/usr/bin/env python3
"""Tests of the commands that change what there is, and of doctor.

Usage: EXTMEM=build/dev/bin/extmem EXTMEM_HOLDER=build/dev/bin/cli_holder EXTMEM_VERSION=0.1.0 EXTMEM_SOURCE=. tests/cli/shell_test.py [CLASS...]
"""
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import time
import unittest

from shell_case import EXTMEM, MIB, ShellCase, plain


class Doctor(ShellCase):
    def test_says_what_there_is_and_how_each_lack_is_mended(self):
        data = self.json("doctor")
        self.assertTrue(data["works"])
        self.assertEqual({c["group"] for c in data["checks"]}, {"Kernel", "Memory", "Limits", "Devices", "Domains"})
        for check in data["checks"]:
            self.assertIn(check["state"], ("ok", "limited", "unknown"), check)
            if check["state"] == "limited":
                self.assertTrue(check["fix"] and check["matters"], check)
            if check["state"] == "ok":
                self.assertEqual(check["fix"], "", check)
        names = {c["name"] for c in data["checks"]}
        for name in ("version", "membarrier", "rseq", "userfaultfd", "hugetlbfs", "transparent hugepages", "NUMA", "locked memory",
                     "address space", "mappings of a process", "open files", "privileges", "physical addresses", "IOMMU",
                     "runtime directory", "its tmpfs"):
            self.assertIn(name, names)
        text = self.extmem("doctor").stdout
        for check in data["checks"]:
            self.assertIn(check["name"], text)
        self.assertIn("extmem works here", text)

    def test_hugepages_are_those_of_the_kernel(self):
        pools = list(pathlib.Path("/sys/kernel/mm/hugepages").glob("hugepages-*"))
        found = [c for c in self.json("doctor")["checks"] if c["name"].startswith("hugepages of")]
        self.assertEqual(len(found), len(pools))
        for pool in pools:
            total = (pool / "nr_hugepages").read_text().strip()
            self.assertTrue(any(f"of {total}" in c["found"] for c in found), (pool, found))

    def test_limits_are_those_of_the_process(self):
        def few():
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        found = {c["name"]: c for c in self.json("doctor", preexec_fn=few)["checks"]}
        self.assertEqual(found["open files"]["found"], "256")
        self.assertEqual(found["open files"]["state"], "limited")
        self.assertIn("prlimit --nofile=65536", found["open files"]["fix"])


class DoctorLacks(ShellCase):
    def check_mended(self, name, before, *doctor):
        """In a mount namespace of its own: the lack is there, its command is run as it stands, and it is gone."""
        if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
            self.skipTest("needs root and unshare(1): what mends is run")
        ask = f"{EXTMEM} doctor --json {' '.join(doctor)}"
        script = f"""set -e; {before}; {ask} > before.json || true
            fix=$(python3 -c 'import json; print(next(c for c in json.load(open("before.json"))["checks"] if c["name"] == "{name}")["fix"])')
            [ -n "$fix" ]; sh -c "$fix" > fixed.log 2>&1; {ask} > after.json || true"""
        done = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=self.folder, env=self.environment, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr + (self.folder / "before.json").read_text())
        before, after = (json.loads((self.folder / f"{when}.json").read_text())["checks"] for when in ("before", "after"))
        self.assertNotEqual(next(c for c in before if c["name"] == name)["state"], "ok")
        self.assertEqual(next(c for c in after if c["name"] == name)["state"], "ok", (before, after))

    def test_a_hugetlbfs_that_is_not_mounted(self):
        if "hugetlbfs" not in pathlib.Path("/proc/filesystems").read_text():
            self.skipTest("needs hugetlbfs: not in this kernel")
        self.check_mended("hugetlbfs", "umount -a -t hugetlbfs; mount -t tmpfs none /mnt")

    def test_a_tmpfs_without_room(self):
        small = self.folder / "small"
        (small / "in").mkdir(parents=True)
        self.check_mended("its tmpfs", f"mount -t tmpfs -o size=2m none {small}; mkdir -m 700 {small}/in", "--directory", str(small / "in"))

    def test_no_room_for_a_domains_metadata(self):
        def small():
            resource.setrlimit(resource.RLIMIT_AS, (1 << 34, 1 << 34))
        if "asan" in EXTMEM or "tsan" in EXTMEM:
            self.skipTest("sanitizers need address space themselves")
        data = self.json("doctor", status=1, preexec_fn=small)
        found = {c["name"]: c for c in data["checks"]}
        self.assertFalse(data["works"])
        self.assertEqual(found["address space"]["state"], "lacking")
        self.assertRegex(found["address space"]["fix"], r"^(ulimit -v unlimited|sudo prlimit --as=unlimited --pid \$\$|give the container CAP_SYS_RESOURCE, or that limit)$")

    def test_runtime_directories_that_will_not_do(self):
        others = self.runtime / "open"
        others.mkdir()
        others.chmod(0o777)
        (self.runtime / "file").write_text("")
        for directory, words in ((str(self.folder), "not on a tmpfs"), (str(others), "chmod 0700"), (str(self.runtime / "file"), "not a folder"),
                                 (str(self.runtime / "no" / "where"), "mkdir -p")):
            with self.subTest(directory=directory):
                data = self.json("doctor", "--directory", directory, status=1)
                check = next(c for c in data["checks"] if c["name"] == "runtime directory")
                self.assertEqual(check["state"], "lacking")
                self.assertIn(words, check["found"] + " " + check["fix"])
                self.assertNotIn("its tmpfs", {c["name"] for c in data["checks"]})
                self.assertIn("does not work as it should", self.extmem("doctor", "--directory", directory, status=1).stdout)


class Domains(ShellCase):
    def test_create_use_remove(self):
        self.assertIn("domain dom created", self.extmem("domain", "create", "dom").stdout)
        self.assertTrue((self.runtime / "dom" / "control").exists())
        self.assertIn("exists", self.extmem("domain", "create", "dom", status=3).stderr)
        user = self.holder(("open", "dom"))
        refused = self.extmem("domain", "rm", "dom", status=3).stderr
        self.assertIn("living processes", refused)
        self.assertIn(f"process {user.pid} (cli_holder)", refused)
        user.close()
        self.assertIn("domain dom removed", self.extmem("domain", "rm", "dom").stdout)
        self.assertEqual(list(self.runtime.iterdir()), [])
        self.assertIn("no domain", self.extmem("domain", "rm", "dom", status=3).stderr)

    def test_sizes_and_names_that_make_no_sense(self):
        for arguments in (["create"], ["create", "a/b"], ["create", ""], ["create", "x" * 64], ["create", "d", "--max-threads", "0"],
                          ["create", "d", "--small-metadata", "much"], ["rm"], ["burn", "d"], []):
            with self.subTest(arguments=arguments):
                done = self.extmem("domain", *arguments, status=2)
                self.assertEqual(done.stdout, "")
                self.assertNotEqual(done.stderr, "")
        self.assertEqual(list(self.runtime.iterdir()), [])

    def test_the_sizes_are_the_domains(self):
        self.extmem("domain", "create", "dom", "--max-heaps", "3", "--small-metadata", "1M")
        nodes = len(self.json("ls", "dom")["domains"][0]["heaps"])
        for i in range(3 - nodes):
            self.extmem("heap", "create", "dom", f"h{i}")
        self.assertIn("max_heaps", self.extmem("heap", "create", "dom", "more", status=3).stderr)

    def test_a_group_may_share_it(self):
        self.extmem("domain", "create", "dom", "--group", "--directory", str(self.runtime / "shared"))
        self.assertEqual((self.runtime / "shared" / "dom").stat().st_mode & 0o777, 0o770)


class Heaps(ShellCase):
    def test_create_and_destroy(self):
        self.extmem("domain", "create", "dom")
        self.assertEqual(self.json("heap", "create", "dom", "exact", "--style", "exact")["heap"], "exact")
        self.assertIn("exists", self.extmem("heap", "create", "dom", "exact", status=3).stderr)
        heaps = {h["heap"]: h for h in self.json("ls", "dom")["domains"][0]["heaps"]}
        self.assertEqual(heaps["exact"]["style"], "exact")
        self.extmem("region", "add", "dom", "exact", "--size", "1M")
        refused = self.extmem("heap", "destroy", "dom", "exact", status=3)
        self.assertIn("its regions: 1", refused.stderr)
        self.extmem("region", "remove", "dom", "1")
        self.json("heap", "destroy", "dom", "exact")
        self.assertIn("there are: node0", self.extmem("heap", "destroy", "dom", "exact", status=3).stderr)
        self.assertIn("EPERM", self.extmem("heap", "destroy", "dom", "node0", status=3).stderr)
        self.assertIn("no domain", self.extmem("heap", "create", "nodom", "x", status=3).stderr)

    def test_growth_is_followed_by_programs(self):
        self.extmem("domain", "create", "dom")
        self.extmem("heap", "create", "dom", "grows", "--grow-step", "2M", "--grow-limit", "8M")
        user = self.holder(("open", "dom"), ("alloc", "grows", "", MIB, 3))
        regions = self.json("ls", "dom")["domains"][0]["regions"]
        self.assertTrue(regions and all(r["grown"] for r in regions), regions)
        user.close()
        self.assertIn("--grow-limit", self.extmem("heap", "create", "dom", "half", "--grow-step", "2M", status=2).stderr)

    def test_what_a_dead_process_held(self):
        self.extmem("domain", "create", "dom")
        self.extmem("heap", "create", "dom", "keeps", "--on-death", "keep")
        self.extmem("region", "add", "dom", "keeps", "--size", "4M")
        user = self.holder(("open", "dom"), ("alloc", "keeps", "mine", 4096, 10))
        user.kill()
        report = self.json("recover", "dom")["domains"][0]
        self.assertEqual((report["participants"], report["kept_objects"], report["freed_objects"]), (1, 10, 0))
        holders = self.json("stat", "dom", "keeps")["heaps"][0]["holders"]
        self.assertEqual([(h["pid"], h["tag"], h["count"]) for h in holders], [(0, "mine", 10)])


class Regions(ShellCase):
    def setUp(self):
        super().setUp()
        self.extmem("domain", "create", "dom")
        self.extmem("heap", "create", "dom", "heap")

    def test_memory_outlives_the_command_and_serves_programs(self):
        path = self.runtime / "memory"
        for backing in ("anon", f"file:{path}"):
            with self.subTest(backing=backing):
                added = self.json("region", "add", "dom", "heap", "--backing", backing, "--size", "4M", "--prefault")
                self.assertEqual(added["bytes"], 4 * MIB)
                user = self.holder(("open", "dom"), ("alloc", "heap", "", MIB, 2))
                self.assertIn("in use", self.extmem("region", "remove", "dom", str(added["region"]), status=3).stderr)
                user.close()
                self.extmem("region", "remove", "dom", str(added["region"]))
        self.assertEqual(path.stat().st_size, 4 * MIB, "the file is its owner's")

    def test_a_program_that_leaves_last_takes_nothing_away(self):
        self.extmem("region", "add", "dom", "heap", "--size", "1M")
        self.holder(("open", "dom")).close()
        self.assertEqual(len(self.json("ls", "dom")["domains"][0]["regions"]), 1)

    def test_shm_and_unlink(self):
        name = f"extmem-test-{os.getpid()}"
        self.addCleanup(lambda: pathlib.Path("/dev/shm", name).unlink(missing_ok=True))
        self.extmem("region", "add", "dom", "heap", "--backing", f"shm:/{name}", "--size", "1M", "--unlink")
        self.assertTrue(pathlib.Path("/dev/shm", name).exists())
        self.extmem("region", "remove", "dom", "1")
        self.assertFalse(pathlib.Path("/dev/shm", name).exists())

    def test_nobodys_file_is_written_over(self):
        precious, link = self.folder / "precious", self.folder / "link"
        precious.write_text("a thesis")
        link.symlink_to(precious)
        shm = pathlib.Path("/dev/shm", f"extmem-test-{os.getpid()}")
        shm.write_text("somebody's")
        self.addCleanup(shm.unlink)
        for backing, path in ((f"file:{precious}", precious), (f"file:{link}", precious), (f"shm:/{shm.name}", shm)):
            for options in ([], ["--unlink"]):
                with self.subTest(backing=backing, options=options):
                    text = path.read_text()
                    error = self.error("region", "add", "dom", "heap", "--backing", backing, "--size", "1M", *options, "--json", status=3)["error"]
                    self.assertEqual(error["errno"], "EEXIST")
                    self.assertIn("--no-create", error["message"])
                    self.assertEqual(path.read_text(), text)
            if self.preloads():
                done = self.extmem("run", "--backing", backing, "--size", "1M", "--", "true", status=3)
                self.assertIn("would be written over", done.stderr)
                self.assertEqual(path.read_text(), text)
        # Memory of an earlier one is used again: by `run` as it is, by `region add` where that is said.
        memory = self.folder / "memory"
        for _ in range(2 if self.preloads() else 0):
            self.extmem("run", "--backing", f"file:{memory}", "--size", "5000001", "--", "true")
        memory.write_bytes(bytes(MIB))
        self.extmem("region", "add", "dom", "heap", "--backing", f"file:{memory}", "--size", "1M", "--no-create")

    def test_a_domain_takes_files_along_that_were_to_go(self):
        gone, stays = self.runtime / "gone", self.runtime / "stays"
        self.extmem("region", "add", "dom", "heap", "--backing", f"file:{gone}", "--size", "1M", "--unlink")
        self.extmem("region", "add", "dom", "heap", "--backing", f"file:{stays}", "--size", "1M")
        self.assertIn("EEXIST", self.extmem("region", "add", "dom", "heap", "--backing", f"file:{stays}", "--size", "1M", status=3).stderr)
        self.extmem("domain", "rm", "dom")
        self.assertEqual([p.name for p in self.runtime.iterdir()], ["stays"])

    def test_backings_that_would_be_gone_are_refused_with_the_reason(self):
        for backing, words in (("memfd", "as long as a process has it open"), ("memfd:x", "as long as"), ("hugetlb", "hugetlbfs"),
                               ("hugetlb:2M", "hugetlbfs"), ("magic", "give anon"), ("file:", "give anon"), ("shm:", "give anon")):
            with self.subTest(backing=backing):
                done = self.extmem("region", "add", "dom", "heap", "--backing", backing, "--size", "1M", status=2)
                self.assertIn(words, done.stderr)
        self.assertEqual(self.json("ls", "dom")["domains"][0]["regions"], [])

    def test_mistakes(self):
        for arguments, status, words in ((["add", "dom", "heap"], 2, "--size"), (["add", "dom", "heap", "--size", "0"], 2, "zero"),
                                         (["add", "dom", "heap", "--size", "1Q"], 2, "--size"), (["add", "dom", "nope", "--size", "1M"], 3, "there are: node0"),
                                         (["add", "nope", "heap", "--size", "1M"], 3, "no domain"), (["remove", "dom", "7"], 3, "no region 7"),
                                         (["remove", "dom", "x"], 2, "by its number"), (["drain", "dom", "1", "--timeout", "soon"], 2, "--timeout"),
                                         (["add", "dom", "heap", "--size", "1M", "--unlink"], 2, "no path"),
                                         (["add", "dom", "heap", "--size", "1M", "--backing", "file:/nowhere/x"], 3, "no such file"),
                                         (["add", "dom", "heap", "--size", "1M", "--backing", "shm:name"], 2, "slash")):
            with self.subTest(arguments=arguments):
                self.assertIn(words, self.extmem("region", *arguments, status=status).stderr)

    def test_drain_names_who_is_in_the_way(self):
        self.extmem("region", "add", "dom", "heap", "--size", "4M")
        user = self.holder(("open", "dom"), ("alloc", "heap", "mine", 5000, 3))
        data = self.json("region", "drain", "dom", "1", "--timeout", "300ms", status=3)
        self.assertFalse(data["done"])
        held = [h for h in data["holders"] if not h["mapping"]]
        self.assertEqual([(h["pid"], h["tag"], h["count"]) for h in held], [(user.pid, "mine", 3)])
        self.assertTrue(self.json("ls", "dom")["domains"][0]["regions"][0]["draining"])
        text = self.extmem("region", "drain", "dom", "1", "--timeout", "0", status=3).stderr
        self.assertIn(f"process {user.pid} holds", text)
        self.assertIn("goes on draining", text)
        self.json("region", "undrain", "dom", "1")
        self.assertFalse(self.json("ls", "dom")["domains"][0]["regions"][0]["draining"])

    def test_drain_waits_until_it_is_free_and_unmapped(self):
        self.extmem("region", "add", "dom", "heap", "--size", "4M")
        user = self.holder(("open", "dom"), ("alloc", "heap", "mine", 5000, 3))
        drain = subprocess.Popen([EXTMEM, "region", "remove", "dom", "1", "--drain", "--timeout", "2m"], env=self.environment, stdout=subprocess.PIPE)
        time.sleep(0.3)
        self.assertIsNone(drain.poll())
        user.tell("free")
        user.tell("poll")
        deadline = time.monotonic() + 100
        while drain.poll() is None and time.monotonic() < deadline:
            user.tell("poll")
            time.sleep(0.05)
        out, _ = drain.communicate(timeout=10)
        self.assertEqual(drain.returncode, 0, out)
        self.assertEqual(self.json("ls", "dom")["domains"][0]["regions"], [])

    def test_a_drain_ends_by_an_interrupt(self):
        self.extmem("region", "add", "dom", "heap", "--size", "4M")
        user = self.holder(("open", "dom"), ("alloc", "heap", "mine", 5000, 3))
        drain = self.terminal("region", "drain", "dom", "1", "--timeout", "5m")
        drain.wait_for("still held")  # the progress bar, after a second
        os.kill(drain.pid, signal.SIGINT)
        self.assertEqual(drain.end(), 3)
        self.assertIn(f"process {user.pid} holds", plain(drain.text))


class Recover(ShellCase):
    def test_says_what_was_freed(self):
        user = self.furnished()
        user.kill()
        listed = self.json("ls", "dom")["domains"][0]
        self.assertEqual([p["dead"] for p in listed["processes"]], [True])
        text = self.extmem("recover", "dom").stdout
        self.assertIn("1 dead process", text)
        self.assertIn("151 objects", text)
        self.assertIn("nothing to recover", self.extmem("recover", "dom").stdout)
        self.assertEqual(self.json("ls", "dom")["domains"][0]["processes"], [])

    def test_all_domains(self):
        for name in "abc":
            self.extmem("domain", "create", name)
        self.holder(("open", "b")).kill()
        data = self.json("recover", "--all")
        self.assertEqual([(d["domain"], d["participants"]) for d in sorted(data["domains"], key=lambda d: d["domain"])], [("a", 0), ("b", 1), ("c", 0)])
        self.assertIn("--all", self.extmem("recover", status=2).stderr)
        self.assertIn("--all", self.extmem("recover", "a", "--all", status=2).stderr)


class Unprivileged(ShellCase):
    """As nobody, where the tests run as root."""

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("not root: every other test is unprivileged")
        for folder in (self.folder, self.runtime):
            folder.chmod(0o700)
            os.chown(folder, 65534, 65534)
        program = self.folder / "bin" / "extmem"
        program.parent.mkdir(mode=0o755)
        shutil.copy2(EXTMEM, program)
        for library in (pathlib.Path(EXTMEM).parent.parent / "lib").glob("libextmem.so*"):
            shutil.copy2(library, program.parent, follow_symlinks=False)
        program.parent.chmod(0o755)
        self.environment["LD_LIBRARY_PATH"] = str(program.parent)
        self.nobody = {"user": 65534, "group": 65534, "extra_groups": [], "program": str(program)}

    def test_everything_but_physical_addresses(self):
        self.extmem("domain", "create", "mine", **self.nobody)
        self.extmem("heap", "create", "mine", "h", **self.nobody)
        self.extmem("region", "add", "mine", "h", "--size", "1M", **self.nobody)
        self.assertIn("EPERM", self.extmem("region", "add", "mine", "h", "--size", "1M", "--iova", "physical", "--allow-unstable-iova",
                                           status=3, **self.nobody).stderr)
        self.json("ls", "mine", **self.nobody)
        self.assertTrue(self.json("verify", "mine", **self.nobody)["domains"][0]["sound"])
        checks = {c["name"]: c for c in self.json("doctor", **self.nobody)["checks"]}
        self.assertEqual(checks["physical addresses"]["state"], "limited")
        self.assertEqual(checks["physical addresses"]["fix"], "sudo extmem ...")
        self.extmem("region", "remove", "mine", "1", **self.nobody)
        self.extmem("domain", "rm", "mine", **self.nobody)

    def test_others_domains_are_theirs(self):
        other = self.runtime.parent / (self.runtime.name + "-root")
        other.mkdir(mode=0o700)
        self.addCleanup(shutil.rmtree, other, ignore_errors=True)
        self.extmem("domain", "create", "roots", "--directory", str(other))
        done = self.extmem("ls", "--directory", str(other), status=3, **self.nobody)
        self.assertIn("ermission denied", done.stderr)
        done = self.extmem("heap", "create", "roots", "h", "--directory", str(other), status=3, **self.nobody)
        self.assertRegex(done.stderr, "EACCES|EPERM")
        self.extmem("domain", "create", "theirs", **self.nobody)
        self.assertEqual(self.json("ls", "theirs")["domains"][0]["trouble"], "", "root looks into all")


if __name__ == "__main__":
    unittest.main(verbosity=2)
