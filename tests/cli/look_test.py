#!/usr/bin/env python3
"""Tests of the commands that look: ls, stat, zones, verify, top; and of all JSON.

Usage: EXTMEM=build/dev/bin/extmem EXTMEM_HOLDER=build/dev/bin/cli_holder EXTMEM_VERSION=0.1.0 EXTMEM_SOURCE=. tests/cli/look_test.py [CLASS...]
"""
import json
import os
import signal
import subprocess
import time
import unittest

from shell_case import EXTMEM, MIB, ShellCase, plain


class JsonSchema(ShellCase):
    def test_every_member_that_is_listed_comes_and_no_other(self):
        """What comes is checked by self.json; here, that all that is listed was seen once."""
        seen = {}

        def look(*arguments, status=0):
            data = self.json(*arguments, status=status)
            seen.setdefault(data["command"], set()).update(data["seen"])
            return data
        user = self.furnished()
        look("version")
        look("doctor")
        for command in ("ls", "stat", "zones", "map"):
            look(command, "dom")
        look("top", "dom", "--delay", "50ms")
        look("verify", "dom")
        look("domain", "create", "other")
        look("heap", "create", "other", "h")
        region = look("region", "add", "other", "h", "--size", "2M")["region"]
        second = self.holder(("open", "other"), ("alloc", "h", "t", 100, 1))
        look("region", "drain", "other", str(region), "--timeout", "0", status=3)
        look("region", "undrain", "other", str(region))
        look("region", "remove", "other", str(region), status=3)
        second.kill()
        look("recover", "other")
        look("region", "remove", "other", str(region))
        look("heap", "destroy", "other", "h")
        look("domain", "rm", "other")
        look("completion", "bash")
        look("demo", "--seconds", "0.1")
        user.close()
        if not self.preloads():
            seen |= {name: set(self.SCHEMAS[name]) for name in ("run", "record", "replay", "advise")}
        else:
            for arguments in (["run", "--tags"], ["record", "-o", "trace"]):
                done = self.extmem(*arguments, "--json", "--", "perl", "-e", "print 7")
                self.assertEqual(done.stdout, "7")
                data = self.check_document(json.loads(done.stderr.splitlines()[-1]))
                seen.setdefault(data["command"], set()).update(data["seen"])
            look("replay", "trace")
            look("replay", "trace", "--passes", "2")
            look("advise", "trace")
        seen["Errors"] = self.error("stat", "nope", "--json", status=3)["seen"]
        if not self.extmem("demo", "--seconds", "0.1", "--json").stdout.count("page_size"):
            seen["demo"] |= {m for m in self.SCHEMAS["demo"] if "hugepages" in m}  # a kernel without any
        seen["demo"].add("notes[]")  # there need be none
        self.assertEqual(set(seen), set(self.SCHEMAS))
        for command, listed in self.SCHEMAS.items():
            breaches = {m for m in listed if ".breaches[]" in m}  # of a damaged domain: class Verify
            self.assertEqual(set(listed) - breaches - seen[command], set(), f"{command}: listed, but never seen")


class JsonErrors(ShellCase):
    def test_a_failure_is_a_document_too(self):
        nope = self.error("stat", "nope", "--json", status=3)
        self.assertEqual(nope["command"], "stat")
        self.assertIn("no domain", nope["error"]["message"])
        self.extmem("domain", "create", "dom")
        self.assertEqual(self.error("domain", "create", "dom", "--json", status=3)["error"]["errno"], "EEXIST")
        self.assertEqual(self.error("heap", "create", "dom", "x" * 64, "--json", status=2)["command"], "heap create")
        for arguments in (["heap", "destroy", "dom", "nope"], ["region", "drain", "dom", "7"], ["zones", "nope"], ["map", "nope"], ["top", "nope"],
                          ["recover", "nope"], ["replay", "/no/trace"], ["advise", "/no/trace"], ["demo", "--svg", "/no/where"],
                          ["region", "add", "dom", "nope", "--size", "1M"], ["domain", "rm", "nope"]):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.error(*arguments, "--json", status=3)["command"],
                                 " ".join(arguments[:2 if arguments[0] in ("heap", "region", "domain") else 1]))

    def test_a_command_line_that_makes_no_sense(self):
        for arguments, command in ((["ls", "--nothing"], "ls"), (["heap", "crate"], "heap"), (["crate"], ""), ([], ""), (["stat"], "stat"),
                                   (["region", "add", "dom"], "region add"), (["top", "--sort", "x"], "top"), (["doctor", "x"], "doctor"),
                                   (["version", "x"], "version"), (["completion", "tcsh"], "completion"), (["demo", "--seconds", "soon"], "demo"),
                                   (["verify"], "verify"), (["recover"], "recover"), (["replay"], "replay"), (["advise"], "advise")):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.error(*arguments, "--json", status=2)["command"], command)

    def test_what_a_program_prints_is_its_own(self):
        for command in ("run", "record"):
            self.error(command, "--json", "--nothing", "--", "true", status=2, to_stderr=True)
            self.error(command, "--json", status=2, to_stderr=True)
            if self.preloads():
                self.assertEqual(self.error(command, "--json", "--", "/no/program", status=127, to_stderr=True)["error"]["errno"], "ENOENT")
        # The program's own --json is nobody else's.
        self.assertNotIn("{", self.extmem("run", "--nothing", "--", "true", "--json", status=2).stderr)


class Ls(ShellCase):
    def test_nothing(self):
        self.assertIn("no domain", self.extmem("ls").stdout)
        self.assertEqual(self.json("ls")["domains"], [])
        self.assertIn("no domain", self.extmem("ls", "--directory", str(self.folder / "none")).stdout)

    def test_a_domain_with_everything(self):
        user = self.furnished()
        domain = self.json("ls", "dom")["domains"][0]
        self.assertEqual(domain["trouble"], "")
        self.assertEqual([(p["pid"], p["dead"]) for p in domain["processes"]], [(user.pid, False)])
        heap = next(h for h in domain["heaps"] if h["heap"] == "packets")
        self.assertEqual((heap["total_bytes"], heap["regions"], heap["stable"]), (8 * MIB, 1, True))
        self.assertGreater(heap["used_bytes"], MIB)
        region, zone = domain["regions"][0], domain["zones"][0]
        self.assertEqual((region["kind"], region["bytes"], region["iova_runs"]), ("memfd", 8 * MIB, 1))
        self.assertEqual((zone["zone"], zone["heap"], zone["bytes"], zone["iova_known"]), ("journal", "packets", 65536, True))
        text = self.extmem("ls", "dom").stdout
        for word in ("domain dom", "Heaps", "packets", "Regions", "memfd", "Processes", str(user.pid), "Memzones", "journal"):
            self.assertIn(word, text)

    def test_looking_disturbs_nobody(self):
        user = self.furnished()
        control = (self.runtime / "dom" / "control").stat().st_mtime_ns
        self.extmem("ls", "-a")
        self.extmem("stat", "dom")
        self.assertEqual((self.runtime / "dom" / "control").stat().st_mtime_ns, control)
        self.assertEqual(len(self.json("ls", "dom")["domains"][0]["processes"]), 1, "who looks is no participant")
        user.tell("free")

    def test_many_domains(self):
        for i in range(40):
            self.extmem("domain", "create", f"domain-{i:02}", "--small-metadata", "64K", "--large-metadata", "1M")
        data = self.json("ls")
        self.assertEqual([d["domain"] for d in data["domains"]], [f"domain-{i:02}" for i in range(40)])
        self.assertEqual(self.extmem("ls").stdout.count("domain-"), 40)

    def test_what_cannot_be_looked_at_is_told_and_the_rest_is_shown(self):
        self.extmem("domain", "create", "good")
        (self.runtime / "bad").mkdir(mode=0o700)
        (self.runtime / "bad" / "control").write_bytes(b"no control segment" * 10000)
        done = self.extmem("ls", status=3)
        self.assertIn("good", done.stdout)
        self.assertIn("bad", done.stderr)
        self.assertIn("EUCLEAN", done.stderr)
        self.assertIn("no domain", self.extmem("ls", "nope", status=3).stderr)

    def test_a_narrow_terminal_leaves_columns_out(self):
        self.furnished()
        narrow = self.terminal("ls", "dom", size=(24, 60))
        self.assertEqual(narrow.end(), 0)
        wide = self.terminal("ls", "dom", size=(24, 140))
        self.assertEqual(wide.end(), 0)
        self.assertIn("largest free", plain(wide.text))
        self.assertNotIn("largest free", plain(narrow.text))

    def test_colours_only_on_a_terminal_and_not_with_no_color(self):
        self.furnished()
        self.assertNotIn("\x1b", self.extmem("ls", "dom").stdout)
        for environment, arguments, colours in (({}, [], True), ({"NO_COLOR": "1"}, [], False), ({}, ["--no-color"], False), ({"TERM": "dumb"}, [], False)):
            terminal = self.terminal("ls", "dom", *arguments, environment=environment)
            self.assertEqual(terminal.end(), 0)
            self.assertEqual("\x1b[" in terminal.text, colours, (environment, arguments))


class Stat(ShellCase):
    def test_figures_add_up(self):
        user = self.furnished()
        heap = self.json("stat", "dom", "packets")["heaps"][0]
        self.assertTrue(heap["stable"])
        self.assertEqual(heap["total_bytes"], heap["used_bytes"] + heap["free_bytes"] + heap["cached_bytes"] + heap["slab_free_bytes"])
        tags = {t["tag"]: t for t in heap["tags"]}
        self.assertEqual({name: t["count"] for name, t in tags.items()}, {"": 50, "rx-ring": 100, "big": 1})
        self.assertEqual(tags["rx-ring"]["bytes"], 100 * 2048)
        self.assertEqual({(h["pid"], h["tag"]) for h in heap["holders"]}, {(user.pid, ""), (user.pid, "rx-ring"), (user.pid, "big"), (0, "")})
        text = self.extmem("stat", "dom").stdout
        for word in ("heap packets", "heap node0", "rx-ring", "(untagged)", "memzones", str(user.pid)):
            self.assertIn(word, text)
        self.assertIn("no heap", self.extmem("stat", "dom", "nope", status=3).stderr)
        self.extmem("stat", status=2)


class Zones(ShellCase):
    def test_lists_and_filters(self):
        user = self.furnished()
        user.tell("heap", "other")
        self.assertEqual([z["zone"] for z in self.json("zones", "dom")["zones"]], ["journal"])
        self.assertEqual(self.json("zones", "dom", "--heap", "other")["zones"], [])
        self.assertIn("no memzone", self.extmem("zones", "dom", "--heap", "other").stdout)
        self.assertIn("no heap", self.extmem("zones", "dom", "--heap", "nope", status=3).stderr)
        zone = self.json("zones", "dom")["zones"][0]
        self.assertIn(hex(zone["iova"]), self.extmem("zones", "dom").stdout)

    def test_a_thousand(self):
        user = self.furnished()
        for i in range(1000):
            user.tell("zone", "packets", f"zone-{i}", 64)
        self.assertEqual(len(self.json("zones", "dom")["zones"]), 1001)
        self.assertIn("and 951 more", self.extmem("ls", "dom").stdout)


class Verify(ShellCase):
    def test_sound_domains(self):
        self.furnished()
        self.extmem("domain", "create", "two")
        self.assertEqual([d["sound"] for d in self.json("verify", "--all")["domains"]], [True, True])
        self.assertIn("every invariant holds", self.extmem("verify", "dom").stdout)
        self.assertIn("--all", self.extmem("verify", status=2).stderr)
        self.assertIn("no domain", self.extmem("verify", "nope", status=3).stderr)

    def test_a_busy_domain(self):
        user = self.furnished()
        user.tell("churn", "packets", 20)
        for _ in range(5):
            done = subprocess.run([EXTMEM, "verify", "dom"], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
            self.assertIn(done.returncode, (0, 3), done.stdout + done.stderr)  # 3: it changed all the time

    def test_breaches_are_found_and_end_with_1(self):
        user = self.furnished()
        user.kill()
        self.extmem("recover", "dom")
        # A tag's name is changed behind the domain's back: it is not found by its name any more.
        control = self.runtime / "dom" / "control"
        data = control.open("r+b")
        at = 0
        while (block := data.read(1 << 20)) and (found := block.find(b"rx-ring\0")) < 0:
            at += len(block)
        self.assertGreaterEqual(found, 0)
        data.seek(at + found)
        data.write(b"sx")
        data.close()
        done = self.json("verify", "dom", status=1)["domains"][0]
        self.assertFalse(done["sound"])
        self.assertGreaterEqual(done["breach_count"], 1)
        self.assertIn("a tag is found by its name", [b["what"] for b in done["breaches"]])
        self.assertIn("a tag is found by its name", self.extmem("verify", "dom", status=1).stdout)


class Stopped(ShellCase):
    def test_a_stopped_process_is_waited_for_by_nobody_who_looks(self):
        user = self.furnished()
        os.kill(user.pid, signal.SIGSTOP)
        start = time.monotonic()
        self.json("ls", "dom")
        self.json("stat", "dom")
        self.json("zones", "dom")
        self.json("map", "dom")
        self.json("verify", "dom")
        self.json("top", "dom", "--delay", "100ms")
        self.extmem("map", "dom")
        self.assertLess(time.monotonic() - start, 60)
        os.kill(user.pid, signal.SIGCONT)
        user.tell("free")


class Names(ShellCase):
    def test_control_characters_reach_neither_terminal_nor_json(self):
        evil = b"\x1b[31mred\x07\xff\xe2\x80\xae\xc2\x9b"
        user = self.holder(("open", b"d\x1b]0;x\x07"), ("heap", evil), ("region", evil, 4 * MIB), ("alloc", evil, b"tag\x1b[2J", 100, 3),
                           ("zone", evil, "zone\u202e\u00e9\x7f", 64))
        name = os.fsdecode(b"d\x1b]0;x\x07")
        domain = self.json("ls")["domains"][0]
        self.assertEqual(domain["domain"], "d\x1b]0;x\x07")
        self.assertEqual(next(h["heap"] for h in domain["heaps"] if h["regions"]), "\x1b[31mred\x07\ufffd\u202e\x9b")
        for arguments in (["ls"], ["ls", "-a"], ["stat", name], ["zones", name], ["verify", name], ["map", name], ["map", name, "--format", "html"],
                          ["map", name, "--format", "svg"], ["top", name, "--once", "--delay", "50ms", "--view", "tags"],
                          ["recover", name], ["domain", "rm", name]):
            with self.subTest(arguments=arguments):
                done = self.extmem(*arguments, status=3 if arguments[0] == "domain" else 0)
                for bad in ("\x1b", "\x07", "\x7f", "\u202e", "\x9b", "\udcff"):
                    self.assertNotIn(bad, done.stdout + done.stderr)
        self.assertIn("zone\\xe2\\x80\\xae\u00e9\\x7f", self.extmem("zones", name).stdout)
        self.assertTrue(self.extmem("zones", name, environment={"LC_ALL": "C"}).stdout.isascii())
        user.close()


class Top(ShellCase):
    def test_text_and_json_where_it_is_not_live(self):
        user = self.furnished()
        text = self.extmem("top", "--delay", "100ms").stdout
        self.assertIn("packets", text)
        for view, label in (("heaps", ""), ("tags", "rx-ring"), ("processes", "cli_holder")):
            data = self.json("top", "dom", "--view", view, "--delay", "50ms")
            self.assertIn(label, {r["label"] for r in data["rows"]})
        rows = self.json("top", "--view", "tags", "--sort", "objects", "--delay", "50ms")["rows"]
        self.assertEqual([r["label"] for r in rows][:2], ["rx-ring", "(untagged)"])
        self.assertEqual([r["label"] for r in self.json("top", "--view", "tags", "--filter", "RX", "--delay", "50ms")["rows"]], ["rx-ring"])
        self.assertEqual([r["pid"] for r in self.json("top", "--view", "processes", "--delay", "50ms", "--filter", "holder")["rows"]], [user.pid])
        self.assertIn("no domain", self.extmem("top", "nope", status=3).stderr)
        for arguments in (["--delay", "0"], ["--view", "all"], ["--sort", "x"], ["-n", "0"]):
            self.extmem("top", *arguments, status=2)

    def test_rates(self):
        user = self.furnished()
        user.tell("alloc", "packets", "grow", 8192, 1)
        top = subprocess.Popen([EXTMEM, "top", "dom", "--view", "tags", "--filter", "grow", "--delay", "2s", "-n", "2", "--json"], env=self.environment,
                               stdout=subprocess.PIPE, text=True)
        grown = 0
        while top.poll() is None and grown < 5 * MIB:  # also while it is slow to begin
            user.tell("alloc", "packets", "grow", 8192, 4)
            grown += 4 * 8192
            time.sleep(0.2)
        out, _ = top.communicate(timeout=120)
        documents, decoder = [], json.JSONDecoder()
        while out.strip():
            document, end = decoder.raw_decode(out.lstrip())
            documents.append(document)
            out = out.lstrip()[end:]
        self.assertEqual(len(documents), 2)
        rates = [r["bytes_per_second"] for d in documents for r in d["rows"]]
        self.assertTrue(any(rate > 0 for rate in rates), rates)
        self.assertLessEqual(sum(rates) * 2, grown * 1.05, "it samples every two seconds, or less often")


class TopLive(ShellCase):
    def test_keys(self):
        user = self.furnished()
        for i in range(60):
            user.tell("alloc", "packets", f"tag-{i:02}", 64, i + 1)
        top = self.terminal("top", "--delay", "200ms", size=(24, 110))
        top.wait_for("packets.*", redraw=True)
        top.wait_for("heaps by bytes", redraw=True)
        top.press("t")
        top.wait_for("tags by bytes", redraw=True)
        top.wait_for("big", redraw=True)
        top.press("c")
        top.wait_for("by objects", redraw=True)
        top.press("n")
        top.wait_for("by name", redraw=True)
        top.press("/tag-4")
        top.wait_for("filter: tag-4", redraw=True)
        top.press("\r")
        top.wait_for("only \"tag-4", redraw=True)
        top.wait_for("tag-49", redraw=True)
        top.text = ""
        top.wait_for("tag-49", redraw=True)
        self.assertNotIn("rx-ring", plain(top.text))
        top.press("/\x15\r")
        top.press("p")
        top.wait_for("processes by", redraw=True)
        top.wait_for("cli_holder", redraw=True)
        top.press(" ")
        top.wait_for("PAUSED", redraw=True)
        top.press(" +")
        top.wait_for("every 0.4 s", redraw=True)
        top.press("\t")
        top.wait_for("heaps by", redraw=True)
        top.press("\x1b[B\x1b[6~\x1b[A")
        top.press("q")
        self.assertEqual(top.end(), 0)
        self.assertIn("\x1b[?1049l", top.text, "the screen is given back")

    def test_it_follows_what_happens(self):
        user = self.furnished()
        top = self.terminal("top", "dom", "--view", "tags", "--delay", "200ms")
        top.wait_for("rx-ring", redraw=True)
        user.tell("alloc", "packets", "newcomer", 100000, 5)
        top.wait_for("newcomer", redraw=True)
        os.kill(top.pid, signal.SIGINT)
        self.assertEqual(top.end(), 0)

    def test_narrow_tiny_and_resized_terminals(self):
        self.furnished()
        for size in ((24, 40), (6, 24), (2, 10), (1, 1)):
            with self.subTest(size=size):
                top = self.terminal("top", "--delay", "100ms", size=size)
                time.sleep(0.5)
                top.resize(24, 90)
                top.wait_for("packets", redraw=True)
                top.resize(3, 12)
                time.sleep(0.3)
                top.press("q")
                self.assertEqual(top.end(), 0)

    def test_without_colours_and_without_a_terminal_that_can(self):
        self.furnished()
        top = self.terminal("top", environment={"NO_COLOR": "1"})
        top.wait_for("packets", redraw=True)
        self.assertNotRegex(top.text, r"\x1b\[3[0-7]m")
        top.press("q")
        self.assertEqual(top.end(), 0)
        # curses itself leaks the screen that it could not make.
        top = self.terminal("top", environment={"TERM": "nonsense", "ASAN_OPTIONS": "detect_leaks=0"})
        self.assertEqual(top.end(), 3)
        self.assertIn("--once", top.text)

    def test_the_domain_goes(self):
        user = self.furnished()
        top = self.terminal("top", "dom", "--delay", "100ms")
        top.wait_for("packets", redraw=True)
        user.close()
        self.extmem("domain", "rm", "dom")
        self.assertEqual(top.end(), 3)
        self.assertRegex(plain(top.text), "no domain|was removed")


if __name__ == "__main__":
    unittest.main(verbosity=2)
