// The heap map as data: the pieces of each region, as long as there are not too many; else small neighbours become one.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "faces/cli/look.hpp"

namespace extmem::cli {

enum class PieceKind : std::uint8_t { free, span, slab, memzone, mixed };

struct Piece {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  PieceKind kind = PieceKind::free;
  std::uint64_t held = 0;
  std::uint64_t cached = 0;
  std::uint64_t free = 0;  ///< not in slabs; what is none of the three is free in slabs
  std::uint32_t object_size = 0;
  std::uint64_t object_count = 0;
  std::string zone;
  std::vector<std::pair<std::uint32_t, std::uint64_t>>
      tags;  ///< place in MapData::tags, and bytes held; the rest of it is of memzones
};

struct MapRegion {
  RegionInfo info;
  std::vector<Piece> pieces;
  std::vector<IovaRun> iovas;   ///< the first ones
  std::uint64_t iova_runs = 0;  ///< all of known IOVAs
};

struct MapTag {
  std::string name;
  std::uint64_t bytes = 0;
};

struct MapData {
  DomainLook look;
  std::vector<MapTag> tags;  ///< the untagged first
  std::vector<MapRegion> regions;
};

const char* piece_text(PieceKind kind);

/// `heap`: only that one; empty: all. Throws Failure.
MapData read_map(Inspector& inspector, const std::string& name, const std::string& heap,
                 const Console& console);

/// Makes at most `most` of the pieces, by joining small neighbours.
void join_pieces(std::vector<Piece>& pieces, std::size_t most);

/// One self-contained page: zoom, details, tags by colour, IOVA runs.
std::string map_page(const MapData& data);

}  // namespace extmem::cli
