#!/usr/bin/env python3
"""Tests of `extmem map`: text, SVG, JSON, and the page in a real browser.

Usage: as shell_test.py. EXTMEM_SCREENSHOT=FILE.png keeps a picture of the page.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import unittest
import xml.etree.ElementTree as ElementTree

from shell_case import MIB, ShellCase

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


class Map(ShellCase):
    def test_text(self):
        self.furnished()
        text = self.extmem("map", "dom").stdout
        for word in ("domain dom", "heap packets", "region 1", "memfd", "8 MiB", "rx-ring", "big", "journal", "held by"):
            self.assertIn(word, text)
        self.assertNotIn("\x1b", text)
        self.assertTrue(self.extmem("map", "dom", environment={"LC_ALL": "C"}).stdout.isascii())
        terminal = self.terminal("map", "dom", size=(24, 70))
        self.assertEqual(terminal.end(), 0)
        self.assertIn("\x1b[38;5;", terminal.text)
        self.assertLessEqual(max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in terminal.text.splitlines()), 70)

    def test_svg_to_a_file(self):
        self.furnished()
        done = self.extmem("map", "dom", "-o", "map.svg")
        self.assertIn("map.svg", done.stdout)
        root = ElementTree.parse(self.folder / "map.svg").getroot()
        self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg")
        self.assertIn("rx-ring", (self.folder / "map.svg").read_text(encoding="utf-8"))

    def test_one_heap_only(self):
        user = self.furnished()
        user.tell("heap", "other")
        user.tell("region", "other", MIB)
        self.assertEqual(len(self.json("map", "dom")["regions"]), 2)
        self.assertEqual(len(self.json("map", "dom", "--heap", "other")["regions"]), 1)
        self.assertNotIn("packets", self.extmem("map", "dom", "--heap", "other").stdout)
        for form in ("text", "svg", "html", "json"):
            self.assertRegex(self.extmem("map", "dom", "--heap", "nope", "--format", form, status=3).stderr, "no heap")

    def test_json_tiles_the_regions_and_knows_who_holds_what(self):
        self.furnished()
        data = self.json("map", "dom")
        self.assertEqual(data, {**self.json("map", "dom", "--format", "json")})
        held = {t["tag"]: t["bytes"] for t in data["tags"]}
        self.assertEqual(held["rx-ring"], 100 * 2048)
        self.assertEqual(held["big"], MIB)
        stat = next(h for h in self.json("stat", "dom")["heaps"] if h["heap"] == "packets")
        region = data["regions"][0]
        self.assertEqual(sum(p["held"] for p in region["pieces"]), stat["used_bytes"])
        self.assertEqual(sum(p["cached"] for p in region["pieces"]), stat["cached_bytes"])
        at = 0
        for piece in region["pieces"]:
            self.assertEqual(piece["offset"], at)
            self.assertEqual(sum(t["bytes"] for t in piece["tags"]), 0 if piece["what"] == "memzone" else piece["held"])
            at += piece["bytes"]
        self.assertEqual(at, region["bytes"])
        self.assertEqual([(r["offset"], r["bytes"], r["known"]) for r in region["iovas"]], [(0, 8 * MIB, True)])
        self.assertIn("journal", {p["zone"] for p in region["pieces"]})

    def test_many_pieces_are_joined_and_nothing_is_lost(self):
        user = self.holder(("open", "dom"), ("heap", "h"), ("region", "h", 512 * MIB))
        for i in range(50):
            user.tell("alloc", "h", f"tag-{i % 7}", 40000 if i % 2 else 100, 1000 if i % 2 == 0 else 200)
        user.tell("alloc", "h", "span", 70000, 3000)
        for _ in range(60):
            user.tell("heap", f"more-{_}")
            user.tell("region", f"more-{_}", 4 * MIB)
            user.tell("alloc", f"more-{_}", "", 4000, 800 + _)
        data = self.json("map", "dom")
        region = data["regions"][0]
        self.assertIn("mixed", {p["what"] for p in region["pieces"]})
        stat = next(h for h in self.json("stat", "dom")["heaps"] if h["heap"] == "h")
        self.assertEqual(sum(p["held"] for p in region["pieces"]), stat["used_bytes"])
        self.assertEqual(sum(p["bytes"] for p in region["pieces"]), 512 * MIB)
        self.assertLess(len(region["pieces"]), 1000)
        self.assertEqual(len(data["regions"]), 61)
        self.assertLess(len(self.extmem("map", "dom", "--format", "html").stdout), 8 << 20)

    def test_files_that_cannot_be_written_and_contradictions(self):
        self.furnished()
        self.assertIn("No such file", self.extmem("map", "dom", "-o", "/nowhere/map.html", status=3).stderr)
        if os.path.exists("/dev/full"):
            self.assertIn("/dev/full", self.extmem("map", "dom", "--format", "svg", "-o", "/dev/full", status=3).stderr)
        self.assertIn("contradict", self.extmem("map", "dom", "--json", "--format", "svg", status=2).stderr)
        self.extmem("map", "dom", "--format", "png", status=2)
        self.extmem("map", status=2)
        self.assertIn("no domain", self.extmem("map", "nope", status=3).stderr)


# What a user does, by the events that a browser sends; the answers go into the page for --dump-dom.
ACTS = r"""
<script>
const done = {};
const canvas = document.querySelector('section[data-slot="1"] canvas');
const box = canvas.getBoundingClientRect();
const place = part => ({clientX: box.left + box.width * part, clientY: box.top + 40, bubbles: true, cancelable: true});
const texts = () => [...canvas.parentElement.querySelectorAll('.range span')].map(e => e.textContent);
const tip = () => document.getElementById('tip').hidden ? null : document.getElementById('tip').innerText;
const region = regions[0];
const partOf = what => { const p = region.r.pieces.find(what); return (p[0] + p[1] / 2) / region.r.bytes; };
const pixel = part => { const g = canvas.getContext('2d'); const r = canvas.width / canvas.clientWidth;
  return [...g.getImageData(Math.round(canvas.clientWidth * part * r), Math.round(70 * r), 1, 1).data]; };
done.ready = document.documentElement.dataset.ready;
done.title = document.title;
done.heading = document.getElementById('title').textContent;
done.whole = texts();
done.rows = document.querySelectorAll('#heaps tr').length;
done.legend = [...document.querySelectorAll('#legend button')].map(b => b.textContent);
const big = partOf(p => p[9] !== undefined && data.tags[p[9]][0] === 'big');
done.bigColor = pixel(big);
done.bigSwatch = getComputedStyle([...document.querySelectorAll('#legend button')].find(b => b.textContent.startsWith('big')).firstChild).backgroundColor;
canvas.dispatchEvent(new PointerEvent('pointermove', place(big)));
done.big = tip();
canvas.dispatchEvent(new PointerEvent('pointermove', place(partOf(p => p[2] === 2 && data.tags[p[9] || 0][0] === 'rx-ring'))));
done.slab = tip();
canvas.dispatchEvent(new PointerEvent('pointermove', place(partOf(p => p[8] === 'journal'))));
done.zone = tip();
canvas.dispatchEvent(new PointerEvent('pointerleave', place(0)));
done.left = tip();
const press = key => canvas.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
done.steps = [];
for (const p of region.r.pieces) { press('n'); done.steps.push(tip()); }
press('p');
done.back = tip();
press('Escape');
done.escaped = tip();
press('Enter');
done.middle = tip();
press('Enter');
for (let i = 0; i < 10; ++i) canvas.dispatchEvent(new WheelEvent('wheel', {...place(big), deltaY: -100}));
done.zoomed = texts();
canvas.dispatchEvent(new PointerEvent('pointermove', place(big)));
done.bigAgain = tip();
canvas.dispatchEvent(new PointerEvent('pointerdown', place(0.5)));
canvas.dispatchEvent(new PointerEvent('pointermove', place(0.25)));
canvas.dispatchEvent(new PointerEvent('pointerup', place(0.25)));
done.dragged = texts();
canvas.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft', bubbles: true, cancelable: true}));
done.arrow = texts();
for (let i = 0; i < 100; ++i) canvas.dispatchEvent(new KeyboardEvent('keydown', {key: '+', bubbles: true, cancelable: true}));
done.deepest = region.to - region.from;
canvas.dispatchEvent(new MouseEvent('dblclick', place(0.5)));
done.reset = texts();
[...document.querySelectorAll('#legend button')].find(b => b.textContent.startsWith('rx-ring')).click();
done.dimmed = pixel(big);
done.pressed = document.querySelector('#legend button[aria-pressed=true]').textContent;
document.querySelector('#legend button[aria-pressed=true]').click();
document.getElementById('heap').value = String(data.heaps.find(h => h.name === 'other').id);
document.getElementById('heap').onchange();
done.hidden = [...document.querySelectorAll('section')].map(s => s.hidden);
const pre = document.createElement('pre');
pre.id = 'done';
pre.textContent = JSON.stringify(done);
document.body.append(pre);
</script>
"""


@unittest.skipUnless(CHROMIUM, "NO BROWSER: chromium is not installed, so nobody looked at the page")
class MapPage(ShellCase):
    def browse(self, *arguments):
        user_data = self.folder / f"browser-{len(list(self.folder.iterdir()))}"
        done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
                               "--disable-component-update", "--no-first-run", "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage",
                               "--enable-logging=stderr", f"--user-data-dir={user_data}", "--window-size=1200,900", *arguments],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=240, env={**self.environment, "HOME": str(self.folder)}, check=False)
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace")[-2000:])
        log = done.stderr.decode(errors="replace")
        self.assertFalse([line for line in log.splitlines() if "CONSOLE" in line and "willReadFrequently" not in line], "errors of the page")
        return done.stdout.decode("utf-8")

    def test_in_a_real_browser(self):
        user = self.furnished()
        user.tell("heap", "other")
        user.tell("region", "other", MIB)
        user.tell("alloc", "other", "<script>alert(1)</script>&amp;\"'", 100, 10)
        page = self.folder / "map.html"
        self.extmem("map", "dom", "-o", str(page))
        text = page.read_text(encoding="utf-8")
        self.assertNotRegex(text, r"(?i)https?://|src=|href=|url\(|@import|fetch\(|XMLHttp", "it loads nothing")
        self.assertNotIn("<script>alert", text)
        if picture := os.environ.get("EXTMEM_SCREENSHOT"):
            self.browse(f"--screenshot={picture}", f"file://{page}")
        acted = self.folder / "acted.html"
        acted.write_text(text.replace("</body>", ACTS + "</body>"), encoding="utf-8")
        dom = self.browse("--dump-dom", f"file://{acted}")
        found = re.search(r'<pre id="done">(.*?)</pre>', dom, re.DOTALL)
        self.assertTrue(found, dom[-2000:])
        import html
        done = json.loads(html.unescape(found[1]))
        self.assertEqual(done["ready"], "yes")
        self.assertEqual((done["title"], done["heading"]), ("extmem map: dom", "extmem: domain dom"))
        self.assertEqual(done["whole"], ["0x0", "whole region", hex(8 * MIB)])
        self.assertGreaterEqual(done["rows"], 4)
        legend = " ".join(done["legend"])
        for word in ("big 1 MiB", "rx-ring 200 KiB", "(untagged)", "cached", "IOVA runs", "<script>alert(1)"):
            self.assertIn(word, legend)
        # Tags by colour: what is drawn has the colour that the legend says.
        self.assertEqual([int(n) for n in re.findall(r"\d+", done["bigSwatch"])][:3], done["bigColor"][:3])
        self.assertNotEqual(done["dimmed"][:3], done["bigColor"][:3])
        self.assertIn("rx-ring", done["pressed"])
        # Details under the pointer, with the IOVA.
        for word in ("span", "big: 1 MiB", "region 1", "IOVA run 0x", "this byte 0x"):
            self.assertIn(word, done["big"])
        for word in ("slab", "objects of 2 KiB", "rx-ring: "):
            self.assertIn(word, done["slab"])
        self.assertIn("memzone journal", done["zone"])
        self.assertIsNone(done["left"])
        # The same without a pointer, piece by piece.
        self.assertEqual(len(done["steps"]), len(set(done["steps"])))
        for word in ("big: 1 MiB", "memzone journal", "rx-ring: "):
            self.assertEqual(sum(word in step for step in done["steps"]) >= 1, True, (word, done["steps"]))
        self.assertEqual((done["back"], done["escaped"]), (done["steps"][-2], None))
        self.assertIn("region 1", done["middle"])
        # Zoom about the pointer: what was under it still is.
        self.assertIn("shown", done["zoomed"][1])
        self.assertIn("big: 1 MiB", done["bigAgain"])
        self.assertNotEqual(done["dragged"], done["zoomed"])
        self.assertNotEqual(done["arrow"], done["dragged"])
        self.assertEqual(done["deepest"], 1024)
        self.assertEqual(done["reset"], done["whole"])
        self.assertEqual(done["hidden"], [True, False])

    def ask(self, page, script, *arguments):
        """What a script finds in the page."""
        asking = self.folder / "asking.html"
        asking.write_text(page.read_text(encoding="utf-8").replace("</body>", f"<script>const found = {{}};{script}\n"
                          "document.body.innerHTML = ''; const pre = document.createElement('pre'); pre.id = 'found';"
                          "pre.textContent = JSON.stringify(found); document.body.append(pre);</script></body>"), encoding="utf-8")
        dom = self.browse(*arguments, "--dump-dom", f"file://{asking}")
        return json.loads(re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)[1])

    def test_light_and_dark(self):
        self.furnished()
        page = self.folder / "map.html"
        self.extmem("map", "dom", "-o", str(page))
        script = """const c = document.querySelector('canvas'), r = regions[0].r;
            const p = r.pieces.filter(p => p[2] === 0).sort((a, b) => b[1] - a[1])[0];
            const d = c.getContext('2d').getImageData(Math.floor((p[0] + p[1] / 2) / r.bytes * c.width), 40, 1, 1).data;
            found.free = [...d].slice(0, 3); const s = getComputedStyle(document.body); found.paper = s.backgroundColor; found.ink = s.color;"""
        light, dark = (self.ask(page, script, f"--blink-settings=preferredColorScheme={scheme}") for scheme in (1, 0))

        def shade(color):
            numbers = [int(n) for n in re.findall(r"\d+", color)][:3] if isinstance(color, str) else color
            return sum(numbers) / 3
        self.assertGreater(shade(light["paper"]) - shade(light["ink"]), 150)
        self.assertGreater(shade(dark["ink"]) - shade(dark["paper"]), 150)
        self.assertGreater(shade(light["free"]), 200)
        self.assertLess(shade(dark["free"]), 70)

    def test_a_hundred_thousand_pieces(self):
        self.furnished()
        page = self.folder / "map.html"
        self.extmem("map", "dom", "-o", str(page))
        found = self.ask(page, """const r = regions[0]; r.r.pieces = []; r.r.bytes = 1e5 * 65536; r.whole();
            for (let i = 0; i < 1e5; ++i) r.r.pieces.push([i * 65536, 65536, 1, 65536, 0, 0, 0, 0, 0, i % 7 % data.tags.length, 65536]);
            const time = (n, act) => { const start = performance.now(); for (let i = 0; i < n; ++i) act(i); return (performance.now() - start) / n; };
            found.draw = time(5, () => r.draw()); r.zoom(0.001, r.r.bytes / 2); found.near = time(5, () => r.draw());
            found.tip = time(100, i => showTip(r, i * 5e7, 10, 10)); found.text = document.getElementById('tip').textContent;""")
        # A frame, with room for a slow machine.
        self.assertLess(found["draw"], 500, found)
        self.assertLess(found["near"], 100, found)
        self.assertLess(found["tip"], 50, found)
        self.assertIn("64 KiB", found["text"])

    def test_an_empty_domain(self):
        self.extmem("domain", "create", "empty")
        page = self.folder / "empty.html"
        self.extmem("map", "empty", "-o", str(page))
        self.assertIn("There is no region to draw", self.browse("--dump-dom", f"file://{page}"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
