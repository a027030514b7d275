#include "faces/cli/map_data.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "faces/cli/exit_code.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

constexpr std::size_t kMostPieces = 40000;  // of all regions
constexpr std::size_t kLeastPieces = 500;   // of each
constexpr std::size_t kMostIovas = 5000;    // of each region

void add_tag(Piece& piece, std::uint32_t tag, std::uint64_t bytes) {
  for (auto& [known, sum] : piece.tags) {
    if (known != tag) continue;
    sum += bytes;
    return;
  }
  piece.tags.emplace_back(tag, bytes);
}

void join(Piece& to, const Piece& from) {
  if (to.kind != PieceKind::mixed) {
    to.kind = PieceKind::mixed;
    to.object_size = 0;
    to.object_count = 1;
    to.zone.clear();
  }
  to.bytes += from.bytes;
  to.held += from.held;
  to.cached += from.cached;
  to.free += from.free;
  to.object_count += from.kind == PieceKind::mixed ? from.object_count : 1;
  for (const auto& [tag, bytes] : from.tags) add_tag(to, tag, bytes);
}

/// Turns what a walk meets into pieces.
class Reader {
 public:
  Reader(MapData& data, std::size_t most) : data_(data), most_(most) {
    for (std::size_t i = 0; i < data.regions.size(); ++i) place_[data.regions[i].info.id.slot] = i;
  }

  void name_tag(Tag tag, const char* name) {
    tags_[tag.index] = static_cast<std::uint32_t>(data_.tags.size());
    data_.tags.push_back({name, 0});
  }

  void add(const WalkEntry& entry) {
    const auto at = place_.find(entry.region.slot);
    if (at == place_.end()) return;
    std::vector<Piece>& pieces = data_.regions[at->second].pieces;
    const bool inside = !pieces.empty() && entry.offset < pieces.back().offset + pieces.back().bytes;
    switch (entry.kind) {
      case WalkKind::region:
        return;
      case WalkKind::free_span:
        begin(pieces, entry, PieceKind::free).free = entry.length;
        return;
      case WalkKind::held_span:
        return hold(begin(pieces, entry, PieceKind::span), entry);
      case WalkKind::slab: {
        Piece& piece = begin(pieces, entry, PieceKind::slab);
        piece.object_size = entry.object_size;
        piece.object_count = entry.object_count;
        return;
      }
      case WalkKind::memzone:
        if (inside) return hold(pieces.back(), entry);  // an object of a slab
        begin(pieces, entry, PieceKind::memzone).zone = entry.name != nullptr ? entry.name : "";
        return hold(pieces.back(), entry);
      case WalkKind::object:
        if (!inside) return;
        if (entry.held) hold(pieces.back(), entry);
        if (entry.cached) pieces.back().cached += entry.length;
        return;
    }
  }

 private:
  Piece& begin(std::vector<Piece>& pieces, const WalkEntry& entry, PieceKind kind) const {
    if (pieces.size() >= 2 * most_) join_pieces(pieces, most_);
    Piece& piece = pieces.emplace_back();
    piece.offset = entry.offset;
    piece.bytes = entry.length;
    piece.kind = kind;
    return piece;
  }
  void hold(Piece& piece, const WalkEntry& entry) {
    piece.held += entry.length;
    if (entry.kind == WalkKind::memzone) return;  // nobody's tag
    const auto known = tags_.find(entry.tag.index);
    const std::uint32_t tag = known == tags_.end() ? 0 : known->second;
    add_tag(piece, tag, entry.length);
    data_.tags[tag].bytes += entry.length;
  }

  MapData& data_;
  std::size_t most_;
  std::map<std::uint32_t, std::size_t> place_;
  std::map<std::uint32_t, std::uint32_t> tags_;
};

}  // namespace

const char* piece_text(PieceKind kind) {
  switch (kind) {
    case PieceKind::free:
      return "free";
    case PieceKind::span:
      return "span";
    case PieceKind::slab:
      return "slab";
    case PieceKind::memzone:
      return "memzone";
    case PieceKind::mixed:
      return "mixed";
  }
  return "mixed";
}

void join_pieces(std::vector<Piece>& pieces, std::size_t most) {
  if (pieces.size() <= most || most == 0) return;
  const Piece& last = pieces.back();
  for (std::uint64_t step = std::max<std::uint64_t>((last.offset + last.bytes) / most, 1);
       pieces.size() > most; step *= 2) {
    std::vector<Piece> joined;
    for (Piece& piece : pieces) {
      if (!joined.empty() && joined.back().bytes + piece.bytes <= step) {
        join(joined.back(), piece);
      } else {
        joined.push_back(std::move(piece));
      }
    }
    pieces = std::move(joined);
  }
}

MapData read_map(Inspector& inspector, const std::string& name, const std::string& heap,
                 const Console& console) {
  MapData data;
  data.look = look_at(inspector, name, {});
  if (!heap.empty()) {
    std::erase_if(data.look.heaps, [&](const HeapLook& h) { return heap != h.info.name; });
    if (data.look.heaps.empty())
      throw Failure(kImpossible, fmt::format("no heap \"{}\" in this domain: `extmem ls DOMAIN` lists them",
                                             shown(heap, console.unicode())));
  }
  for (const RegionInfo& region : data.look.regions) {
    for (const HeapLook& h : data.look.heaps) {
      if (h.info.id == region.heap_id) data.regions.push_back({region, {}, {}, 0});
    }
  }
  data.tags.push_back({"", 0});
  const std::size_t most =
      std::max(kMostPieces / std::max<std::size_t>(data.regions.size(), 1), kLeastPieces);
  Reader reader(data, most);
  need(inspector.walk_tags([&](Tag tag, const char* tag_name) {
    reader.name_tag(tag, tag_name);
    return true;
  }),
       "cannot read the tags");
  for (HeapLook& h : data.look.heaps) {
    WalkOptions walk;
    walk.objects = true;
    bool stable = true;
    const auto walked = inspector.walk(
        h.info.id,
        [&](const WalkEntry& entry) {
          reader.add(entry);
          return true;
        },
        walk, &stable);
    if (!walked && walked.error().code() != ENOENT) throw Failure("cannot read the heap", walked.error());
    h.stable = h.stable && stable;
  }
  for (MapRegion& region : data.regions) {
    join_pieces(region.pieces, most);
    const auto walked = inspector.walk_iova_runs(region.info.id, [&](const IovaRun& run) {
      if (region.iovas.size() < kMostIovas) region.iovas.push_back(run);
      if (run.iova != kBadIova) ++region.iova_runs;
      return true;
    });
    // Gone, or changed all the time: drawn without.
    if (!walked && walked.error().code() != ENOENT && walked.error().code() != EAGAIN)
      throw Failure("cannot read the IOVAs", walked.error());
  }
  return data;
}

}  // namespace extmem::cli
