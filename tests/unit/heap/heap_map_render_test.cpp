// The heap map's renderers, on walks that are made up: extreme sizes, hostile names, every format.
#include <gtest/gtest.h>

#include <string>

#include "synthetic_walk.hpp"
#include "xml_check.hpp"

namespace extmem::test {
namespace {

using namespace heap::map;  // NOLINT: the names under test

constexpr HeapMapFormat kSvg = HeapMapFormat::svg;
constexpr HeapMapFormat kText = HeapMapFormat::text;

std::size_t longest_line(std::string_view text) {
  std::size_t longest = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    longest = std::max(longest, count_columns(text.substr(at, end - at)));
    at = end + 1;
  }
  return longest;
}

std::string text_of(const Label& label) { return std::string(label.view()); }

TEST(HeapMapLabel, SpellsBytesAsPeopleReadThem) {
  const auto bytes = [](std::uint64_t n) { return text_of(Label().bytes(n)); };
  EXPECT_EQ(bytes(0), "0 B");
  EXPECT_EQ(bytes(1023), "1023 B");
  EXPECT_EQ(bytes(1024), "1 KiB");
  EXPECT_EQ(bytes(1025), "1.0 KiB");
  EXPECT_EQ(bytes(1536), "1.5 KiB");
  EXPECT_EQ(bytes(64 * kMiB), "64 MiB");
  EXPECT_EQ(bytes(kTiB + kTiB / 4), "1.2 TiB");
  EXPECT_EQ(bytes(~std::uint64_t{0}), "15.9 EiB");
}

TEST(HeapMapLabel, NeverRoundsAShareToNothingOrToAll) {
  const auto percent = [](std::uint64_t part, std::uint64_t whole) {
    return text_of(Label().percent(part, whole));
  };
  EXPECT_EQ(percent(0, 0), "0 %");
  EXPECT_EQ(percent(0, 9), "0 %");
  EXPECT_EQ(percent(1, 100000), "<1 %");
  EXPECT_EQ(percent(1, 2), "50 %");
  EXPECT_EQ(percent(99999, 100000), ">99 %");
  EXPECT_EQ(percent(7, 7), "100 %");
  EXPECT_EQ(percent(~std::uint64_t{0} / 4, ~std::uint64_t{0}), "25 %");
}

TEST(HeapMapLabel, NamesLoseControlCharactersAndBrokenUtf8) {
  const auto name = [](std::string_view s, std::size_t most = 64) { return text_of(Label().name(s, most)); };
  EXPECT_EQ(name("a\x1b[2Jb\n\x7f"), "a?[2Jb??");
  EXPECT_EQ(name("\xc2\x9b"
                 "31m"),
            "??31m");  // C1 control: CSI
  EXPECT_EQ(name("gr\xc3\xbc\xc3\x9f"), "grüß");
  EXPECT_EQ(name("\xc3"), "?");
  EXPECT_EQ(name("\xc0\xaf"), "??");       // overlong
  EXPECT_EQ(name("\xed\xa0\x80"), "???");  // surrogate
  EXPECT_EQ(name("\xe2\x80\xae"
                 "evil"),
            "???evil");                         // right-to-left override
  EXPECT_EQ(name("\xf4\x90\x80\x80"), "????");  // beyond Unicode
  EXPECT_EQ(name("abcdef", 4), "abc…");
  EXPECT_EQ(name("abcd", 4), "abcd");
  EXPECT_EQ(text_of(Label().name("grü", 64, true)), "gr?");
}

TEST(HeapMapWriter, StopsWhenTheSinkStops) {
  int calls = 0;
  auto sink = [&](std::string_view) { return ++calls < 2; };
  Writer out(sink);
  out.repeat("0123456789", 10000);
  EXPECT_FALSE(out.flush());
  EXPECT_TRUE(out.stopped());
  EXPECT_EQ(calls, 2);
}

TEST(HeapMapModel, ColumnsCoverTheRegionWithoutGapOrOverlap) {
  for (const std::uint64_t length :
       {std::uint64_t{64}, 8 * kKiB, 3 * kMiB + 4 * kKiB, 7 * kTiB, std::uint64_t{1} << 47}) {
    SyntheticDomain d;
    d.region(1, length, true, BackingKind::external);
    d.layout(kSvg);
    const Plot& plot = d.model().plots[0];
    EXPECT_EQ(Model::column_start(plot, 0), 0u);
    EXPECT_EQ(Model::column_start(plot, plot.columns), length);
    for (std::uint32_t i = 0; i < plot.columns; ++i) {
      EXPECT_LT(Model::column_start(plot, i), Model::column_start(plot, i + 1));
    }
  }
}

TEST(HeapMapModel, SharesSumUpToWhatTheWalkSaid) {
  SyntheticDomain d;
  const RegionId id = d.region(1, 10 * kMiB, false, BackingKind::anonymous);
  d.tag(1, 1);
  d.tag(2, 2);
  d.layout(kSvg);
  d.span(id, WalkKind::held_span, 0, 3 * kMiB + 4096, 1);
  d.slab(id, 3 * kMiB + 4096, 64 * kKiB, 48, 1.0, 0.0, 2);
  d.span(id, WalkKind::memzone, 4 * kMiB, kMiB, 0, "z");
  d.span(id, WalkKind::free_span, 5 * kMiB, 5 * kMiB);
  d.draw({.format = kSvg});
  const auto& bytes = d.model().plots[0].bytes;
  EXPECT_EQ(bytes[kTag0 + 1], 3 * kMiB + 4096);  // tag 2 holds more as add_tag said, so tag 1 is second
  EXPECT_EQ(bytes[kTag0], 64 * kKiB / 48 * 48);
  EXPECT_EQ(bytes[kSlabFree], 64 * kKiB % 48);
  EXPECT_EQ(bytes[kMemzone], kMiB);
  EXPECT_EQ(bytes[kFree], 5 * kMiB);
}

TEST(HeapMapModel, WithoutObjectsSlabsShowHowFullTheyAre) {
  SyntheticDomain d;
  d.model().objects = false;
  const RegionId id = d.region(1, kMiB, false, BackingKind::anonymous);
  d.layout(kSvg);
  WalkEntry entry{};
  entry.kind = WalkKind::slab;
  entry.region = id;
  entry.length = kMiB;
  entry.object_size = 1024;
  entry.object_count = 1024;
  entry.held_count = 300;
  d.model().add(entry);
  d.draw({.format = kSvg});
  EXPECT_EQ(d.model().plots[0].bytes[kOtherTags], 300u * 1024);
  EXPECT_EQ(d.model().plots[0].bytes[kSlabFree], 724u * 1024);
}

TEST(HeapMapModel, KeepsTheLargestRegionsAndSumsUpTheRest) {
  SyntheticDomain d;
  for (std::uint64_t i = 1; i <= 100; ++i) d.region(1, i * kMiB, false, BackingKind::anonymous);
  d.layout(kSvg);
  EXPECT_EQ(d.model().plot_count, kHeapMapMaxRegions);
  EXPECT_EQ(d.model().regions_left_out, 100 - kHeapMapMaxRegions);
  for (std::uint32_t i = 0; i < d.model().plot_count; ++i)
    EXPECT_GT(d.model().plots[i].info.length, 52 * kMiB);
  EXPECT_EQ(d.model().bytes_left_out, 52 * 53 / 2 * kMiB);
}

TEST(HeapMapModel, IgnoresEntriesOfUnknownRegionsAndBeyondTheEnd) {
  SyntheticDomain d;
  const RegionId id = d.region(1, kMiB, false, BackingKind::anonymous);
  d.layout(kSvg);
  d.span(RegionId{99, 1}, WalkKind::held_span, 0, kMiB, 1);
  d.span(id, WalkKind::held_span, 2 * kMiB, kMiB, 1);
  d.span(id, WalkKind::held_span, kMiB - 4096, ~std::uint64_t{0}, 0);
  d.draw({.format = kSvg});
  EXPECT_EQ(all_bytes(d.model().bytes), 4096u);
}

TEST(HeapMapSvg, IsWellFormedWithHostileNames) {
  SyntheticDomain d;
  make_gallery(d, kSvg);
  const std::string svg = d.draw({.format = kSvg, .title = "<script>&\"' \x01\xff"});
  EXPECT_EQ(xml_error(svg), "");
  EXPECT_EQ(svg.find("<script"), std::string::npos);
  EXPECT_EQ(svg.find("href"), std::string::npos) << "self-contained: nothing is linked";
  EXPECT_NE(svg.find("dma-buffer"), std::string::npos);
  EXPECT_NE(svg.find("&lt;&amp;&quot;&#39;&gt;"), std::string::npos);
  EXPECT_NE(svg.find("2 other tags"), std::string::npos);
}

TEST(HeapMapSvg, AnEmptyDomainGivesAPicture) {
  SyntheticDomain d;
  d.layout(kSvg);
  EXPECT_EQ(xml_error(d.draw({.format = kSvg})), "");
  EXPECT_NE(d.draw({.format = kText}).find("0 regions in 0 heaps"), std::string::npos);
}

TEST(HeapMapSvg, AMillionSpansInOneTiBGiveABoundedPicture) {
  SyntheticDomain d;
  const RegionId id = d.region(1, kTiB, true, BackingKind::external);
  d.heap(1, "big", kTiB);
  for (std::uint16_t tag = 0; tag < 20; ++tag) d.tag(tag, 100u + tag);
  d.layout(kSvg);
  for (std::uint64_t i = 0; i < 1'000'000; ++i) {
    const WalkKind kind = i % 3 == 0 ? WalkKind::free_span : WalkKind::held_span;
    d.span(id, kind, i * kMiB, kMiB, static_cast<std::uint16_t>(d.random()() % 20));
    d.iova(id, i * kMiB, kMiB, i * 2 * kMiB);
  }
  const std::string svg = d.draw({.format = kSvg});
  EXPECT_EQ(xml_error(svg), "");
  EXPECT_LT(svg.size(), 300'000u);
}

// The worst that a picture can be: as many regions and columns as there may be, no two neighbours alike.
TEST(HeapMapSvg, TheWorstCaseStaysBelowTheStatedBound) {
  for (const std::size_t regions : {std::size_t{12}, std::size_t{24}, kHeapMapMaxRegions}) {
    SyntheticDomain d;
    const std::string long_name(63, '&');
    for (std::size_t i = 0; i < regions; ++i)
      d.region(static_cast<std::uint32_t>(i + 1), kGiB, i % 2 == 0, BackingKind::external);
    for (std::size_t i = 0; i < regions; ++i)
      d.heap(static_cast<std::uint32_t>(i + 1), long_name.c_str(), kGiB);
    for (std::uint16_t tag = 0; tag < 12; ++tag) d.tag(tag, 100u + tag);
    d.layout(kSvg);
    for (std::size_t i = 0; i < regions; ++i) {
      Plot& plot = d.model().plots[i];
      for (std::uint32_t c = 0; c < plot.columns; ++c) {
        std::uint64_t at = Model::column_start(plot, c);
        const std::uint64_t end = Model::column_start(plot, c + 1);
        WalkEntry slab{};
        slab.kind = WalkKind::slab;
        slab.region = plot.info.id;
        slab.offset = at;
        slab.length = 4096;
        slab.object_size = 16u << (c % 12);
        d.model().add(slab);
        at += 4096;
        for (std::uint64_t k = 0; k < 13; ++k) {
          const std::uint64_t n = (end - at) / (14 - k) / 2 + d.random()() % ((end - at) / (14 - k));
          d.span(plot.info.id, k == 12 ? WalkKind::memzone : WalkKind::held_span, at, n,
                 static_cast<std::uint16_t>(k), long_name.c_str());
          at += n;
        }
        if (c % 3 != 0) d.iova(plot.info.id, Model::column_start(plot, c), 4096, c * kGiB);
      }
    }
    const std::string svg = d.draw({.format = kSvg, .title = long_name});
    EXPECT_EQ(xml_error(svg), "");
    EXPECT_LT(svg.size(), kHeapMapMaxBytes);
    RecordProperty("bytes_" + std::to_string(regions), std::to_string(svg.size()));
    const std::string text = d.draw({.format = kText, .width = 250, .colors = true});
    EXPECT_LT(text.size(), kHeapMapMaxBytes);
  }
}

TEST(HeapMapText, HonoursTheWidth) {
  for (const std::uint32_t width : {0u, 40u, 60u, 80u, 100u, 137u, 250u, 100000u}) {
    for (const bool ascii : {false, true}) {
      const HeapMapOptions options{.width = width, .ascii = ascii};
      SyntheticDomain d;
      make_gallery(d, kText, options);
      EXPECT_LE(longest_line(d.draw(options)), std::min(std::max(width, 40u), 250u)) << width;
    }
  }
}

TEST(HeapMapText, ColoursOnlyWhenAsked) {
  SyntheticDomain d;
  make_gallery(d, kText);
  EXPECT_EQ(d.draw({}).find('\x1b'), std::string::npos);
  const std::string colored = d.draw({.colors = true});
  EXPECT_NE(colored.find("\x1b[38;5;"), std::string::npos);
  // The colour never survives a line: what is printed next is not tinted.
  for (std::size_t at = 0; at < colored.size();) {
    const std::size_t end = colored.find('\n', at);
    const std::string line = colored.substr(at, end - at);
    const std::size_t last = line.rfind("\x1b[");
    at = end + 1;
    if (last == std::string::npos) continue;
    EXPECT_EQ(line.substr(last, 4), "\x1b[0m") << line;
  }
}

TEST(HeapMapText, AsciiMeansAsciiAndNamesCannotSteerTheTerminal) {
  SyntheticDomain d;
  make_gallery(d, kText);
  d.model().heaps[2].info.name[0] = '\xc3';
  for (const char c : d.draw({.ascii = true, .title = "grüße"})) {
    EXPECT_TRUE((c >= 0x20 && c < 0x7f) || c == '\n') << static_cast<int>(c);
  }
  EXPECT_TRUE(valid_utf8(d.draw({})));
}

}  // namespace
}  // namespace extmem::test
