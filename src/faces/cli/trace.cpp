#include "faces/cli/trace.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <queue>
#include <unordered_map>

#include "faces/cli/impossible.hpp"

namespace extmem::cli {

using record::ChunkHeader;
using record::ChunkKind;
using record::Op;

namespace {

/// What a thread did, read as it is needed.
class Cursor {
 public:
  struct Step {
    std::uint64_t tsc = 0;
    std::uint64_t old_address = 0;  // free, beginning of a realloc
    std::uint64_t address = 0;
    std::uint64_t size = 0;
    std::uint32_t site = 0;
    Op op = Op::free;
    std::uint8_t align_log2 = 0;
    bool failed = false;
    bool end_of_realloc = false;
  };

  void add(const ChunkHeader& header, const std::uint8_t* data) {
    chunks_.push_back({header.tsc, data, data + header.bytes});
  }
  /// The next step; false: none is left.
  bool next(Step& step) {
    if (second_half_) {
      step = pending_;
      second_half_ = false;
      return true;
    }
    for (;;) {
      while (at_ == end_) {
        if (chunk_ == chunks_.size()) return false;
        const Chunk& chunk = chunks_[chunk_++];
        at_ = chunk.begin;
        end_ = chunk.end;
        tsc_ = std::max(tsc_, chunk.tsc);
        address_ = 0;
        site_ = 0;
      }
      if (decode(step)) return true;
      at_ = end_;  // damaged: the rest of the chunk cannot be understood
    }
  }

 private:
  struct Chunk {
    std::uint64_t tsc;
    const std::uint8_t* begin;
    const std::uint8_t* end;
  };

  bool number(std::uint64_t& value) { return record::get_varint(at_, end_, value); }
  bool address(std::uint64_t& value) {
    std::uint64_t coded = 0;
    if (!number(coded)) return false;
    address_ += static_cast<std::uint64_t>(record::unzigzag(coded));
    value = address_ << record::kAddressShift;
    return true;
  }
  bool decode(Step& step) {
    const std::uint8_t first = *at_++;
    const auto op = static_cast<Op>(first & record::kOpMask);
    step = Step{};
    step.op = op;
    step.failed = (first & record::kFailed) != 0;
    std::uint64_t time = 0;
    if (op > Op::memalign || !number(time)) return false;
    tsc_ += time;
    step.tsc = tsc_;
    if (op == Op::free) return address(step.old_address);
    std::uint64_t duration = 0;
    if (op == Op::realloc && (!number(duration) || !address(step.old_address))) return false;
    if (op == Op::memalign) {
      if (at_ == end_) return false;
      step.align_log2 = std::min<std::uint8_t>(*at_++, 63);
    }
    if (!number(step.size)) return false;
    if (!step.failed && !address(step.address)) return false;
    if ((first & record::kSameSite) == 0) {
      std::uint64_t site = 0;
      if (!number(site)) return false;
      site_ = static_cast<std::uint32_t>(site);
    }
    step.site = site_;
    if (op == Op::realloc) {
      pending_ = step;
      tsc_ += duration;
      pending_.tsc = tsc_;
      pending_.end_of_realloc = true;
      second_half_ = true;
    }
    return true;
  }

  std::vector<Chunk> chunks_;
  std::size_t chunk_ = 0;
  const std::uint8_t* at_ = nullptr;
  const std::uint8_t* end_ = nullptr;
  std::uint64_t tsc_ = 0;
  std::uint64_t address_ = 0;
  std::uint32_t site_ = 0;
  Step pending_;
  bool second_half_ = false;
};

/// Puts the threads' steps in order and follows every object.
class Merger {
 public:
  Merger(Trace& trace, std::vector<Cursor>& cursors)
      : trace_(trace), cursors_(cursors), resizing_(cursors.size()) {}

  void run() {
    struct Head {
      std::uint64_t tsc;
      std::uint32_t thread;
      bool operator<(const Head& other) const {
        return tsc != other.tsc ? tsc > other.tsc : thread > other.thread;  // the earliest on top
      }
    };
    std::priority_queue<Head> heads;
    std::vector<Cursor::Step> steps(cursors_.size());
    for (std::uint32_t t = 0; t < cursors_.size(); ++t) {
      if (cursors_[t].next(steps[t])) heads.push({steps[t].tsc, t});
    }
    while (!heads.empty()) {
      const std::uint32_t t = heads.top().thread;
      heads.pop();
      take(t, steps[t]);
      if (cursors_[t].next(steps[t])) heads.push({steps[t].tsc, t});
    }
  }

 private:
  struct Live {
    std::uint32_t object = 0;
    std::uint64_t size = 0;
  };
  static constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

  void take(std::uint32_t thread, const Cursor::Step& step) {
    TraceOp op;
    op.size = step.size;
    op.tsc = step.tsc - std::min(step.tsc, trace_.header.start_tsc);
    op.site = step.site;
    op.thread = thread;
    op.op = step.op;
    op.align_log2 = step.align_log2;
    if (step.op == Op::free) {
      const auto found = live_.find(step.old_address);
      if (found == live_.end()) {
        ++trace_.unknown_frees;
        return;
      }
      op.object = found->second.object;
      bytes_ -= found->second.size;
      live_.erase(found);
    } else if (step.op == Op::realloc && !step.end_of_realloc) {
      const auto found = live_.find(step.old_address);
      resizing_[thread] = Live{kNone, 0};
      if (found == live_.end()) return;
      resizing_[thread] = found->second;
      live_.erase(found);
      return;
    } else {
      if (step.failed) {
        ++trace_.failed;
        if (step.op == Op::realloc && resizing_[thread].object != kNone)
          live_[step.old_address] = resizing_[thread];
        return;
      }
      if (const auto there = live_.find(step.address); there != live_.end()) {
        ++trace_.lost_frees;  // its free was not seen: it comes before this
        bytes_ -= there->second.size;
        TraceOp lost = op;
        lost.op = Op::free;
        lost.object = there->second.object;
        lost.size = 0;
        trace_.ops.push_back(lost);
        live_.erase(there);
      }
      const bool resized = step.op == Op::realloc && resizing_[thread].object != kNone;
      if (step.op == Op::realloc && !resized) op.op = Op::malloc;  // of what was not seen
      op.object = resized ? resizing_[thread].object : trace_.objects++;
      if (resized) bytes_ -= resizing_[thread].size;
      bytes_ += step.size;
      live_[step.address] = Live{op.object, step.size};
    }
    trace_.ops.push_back(op);
    if (bytes_ > trace_.peak_bytes) {
      trace_.peak_bytes = bytes_;
      trace_.peak_op = trace_.ops.size() - 1;
      trace_.peak_objects = live_.size();
    }
  }

  Trace& trace_;
  std::vector<Cursor>& cursors_;
  std::vector<Live> resizing_;
  std::unordered_map<std::uint64_t, Live> live_;
  std::uint64_t bytes_ = 0;
};

struct Module {
  std::uint64_t begin = 0, end = 0, offset = 0;
  std::string name;
};

void read_modules(const std::uint8_t* p, const std::uint8_t* end, std::vector<Module>& modules) {
  for (;;) {
    Module module;
    std::uint64_t length = 0;
    if (!record::get_varint(p, end, module.begin) || !record::get_varint(p, end, module.end) ||
        !record::get_varint(p, end, module.offset) || !record::get_varint(p, end, length) ||
        length > static_cast<std::uint64_t>(end - p))
      return;
    module.name.assign(reinterpret_cast<const char*>(p), length);
    p += length;
    const auto slash = module.name.rfind('/');
    if (slash != std::string::npos) module.name.erase(0, slash + 1);
    if (module.name.empty()) module.name = "program";
    modules.push_back(std::move(module));
  }
}

}  // namespace

double Trace::seconds_at(std::uint64_t tsc) const {
  const std::uint64_t last = ops.empty() ? 0 : ops.back().tsc;
  return last == 0 ? 0 : seconds * static_cast<double>(tsc) / static_cast<double>(last);
}

Trace read_trace(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Impossible(fmt::format("{}: {}", path, std::strerror(errno)));
  if (std::filesystem::is_directory(path)) throw Impossible(path + " is a folder: name the trace in it");
  Trace trace;
  std::string bytes;
  // Piece by piece: what does not begin as a trace (a device, say) need not have an end.
  for (std::size_t more = sizeof trace.header; file; more = std::size_t{1} << 20) {
    const std::size_t had = bytes.size();
    bytes.resize(had + more);
    errno = 0;
    file.read(bytes.data() + had, static_cast<std::streamsize>(more));
    bytes.resize(had + static_cast<std::size_t>(file.gcount()));
    if (file.bad())
      throw Impossible(fmt::format("cannot read {}: {}", path, std::strerror(errno == 0 ? EIO : errno)));
    if (had != 0) continue;
    if (bytes.size() < sizeof trace.header) throw Impossible(path + " is no trace: it is too short");
    std::memcpy(&trace.header, bytes.data(), sizeof trace.header);
    if (trace.header.magic != record::kTraceMagic)
      throw Impossible(path + " is no trace of this version of extmem: make one with extmem record");
  }
  trace.file_bytes = bytes.size();
  trace.header.program[sizeof trace.header.program - 1] = '\0';

  std::vector<Cursor> cursors;
  std::map<std::uint32_t, std::size_t> cursor_of;  // by thread number
  std::map<std::uint32_t, std::uint64_t> calls;
  std::vector<Module> modules;
  std::uint64_t end_tsc = 0;
  std::uint64_t end_ns = 0;
  std::size_t at = std::max<std::size_t>(trace.header.bytes, sizeof trace.header);
  while (at <= bytes.size() && bytes.size() - at >= sizeof(ChunkHeader)) {
    ChunkHeader header;
    std::memcpy(&header, bytes.data() + at, sizeof header);
    const std::size_t room = bytes.size() - at - sizeof header;
    if (header.magic != record::kChunkMagic || header.bytes > room) {
      ++at;  // damaged, or cut by a kill: the next chunk says where it begins
      continue;
    }
    const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data()) + at + sizeof header;
    const std::uint8_t* end = data + header.bytes;
    switch (header.kind) {
      case ChunkKind::events: {
        const auto [found, added] = cursor_of.try_emplace(header.thread, cursors.size());
        if (added) cursors.emplace_back();
        cursors[found->second].add(header, data);
        break;
      }
      case ChunkKind::sites: {
        std::uint64_t id = 0;
        std::uint64_t address = 0;
        while (record::get_varint(data, end, id) && record::get_varint(data, end, address))
          calls[static_cast<std::uint32_t>(id)] = address;
        break;
      }
      case ChunkKind::modules:
        read_modules(data, end, modules);
        break;
      case ChunkKind::end:
        if (header.bytes >= 16) {
          std::memcpy(&end_tsc, data, 8);
          std::memcpy(&end_ns, data + 8, 8);
          trace.complete = true;
        }
        break;
    }
    at += sizeof header + header.bytes;
  }
  trace.threads = static_cast<std::uint32_t>(cursors.size());
  Merger(trace, cursors).run();
  for (const auto& [id, call] : calls) {
    const std::uint64_t address = call;  // clang 14 lets no lambda have a name of a structured binding
    const auto in = std::find_if(modules.begin(), modules.end(),
                                 [&](const Module& m) { return address >= m.begin && address < m.end; });
    trace.sites[id] = in == modules.end()
                          ? fmt::format("{:#x}", address)
                          : fmt::format("{}+{:#x}", in->name, address - in->begin + in->offset);
  }
  if (trace.complete && end_tsc > trace.header.start_tsc && !trace.ops.empty()) {
    const double all = static_cast<double>(end_ns - std::min(end_ns, trace.header.start_ns)) / 1e9;
    trace.seconds = all * static_cast<double>(trace.ops.back().tsc) /
                    static_cast<double>(end_tsc - trace.header.start_tsc);
  }
  return trace;
}

}  // namespace extmem::cli
