#include "faces/cli/top_model.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "faces/cli/exit_code.hpp"

namespace extmem::cli {
namespace {

std::string key_of(const TopRow& row) {
  return row.domain + '\0' + row.heap + '\0' + row.label + '\0' + std::to_string(row.pid);
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

}  // namespace

void TopModel::add(const DomainLook& domain, TopView view) {
  ++sums_.domains;
  sums_.heaps += domain.heaps.size();
  sums_.dead += domain.dead();
  sums_.processes += domain.processes.size() - domain.dead();
  for (const HeapLook& heap : domain.heaps) {
    sums_.total += heap.stats.total_bytes;
    sums_.held += heap.stats.used_bytes;
    TopRow row;
    row.domain = domain.name;
    row.heap = heap.info.name;
    row.stable = heap.stable;
    if (view == TopView::heaps) {
      row.bytes = heap.stats.used_bytes;
      row.count = heap.stats.used_count;
      row.total = heap.stats.total_bytes;
      rows_.push_back(row);
    } else if (view == TopView::tags) {
      for (const TagStats& tag : heap.tags) {
        row.label = tag.name[0] == '\0' ? "(untagged)" : tag.name;
        row.bytes = tag.live_bytes;
        row.count = tag.live_count;
        if (row.bytes != 0 || tag.name[0] != '\0') rows_.push_back(row);
      }
    } else {
      const std::size_t first = rows_.size();
      for (std::size_t i = 0; i < heap.holders.count; ++i) {
        const Holder& holder = heap.holders.holders[i];
        row.pid = holder.pid;
        row.label = holder.memzone ? "(memzones)" : holder.pid == 0 ? "(nobody)" : "?";
        for (const ParticipantInfo& p : domain.processes) {
          if (p.pid == holder.pid && holder.pid != 0) row.label = p.name;
        }
        const auto same =
            std::find_if(rows_.begin() + static_cast<std::ptrdiff_t>(first), rows_.end(),
                         [&](const TopRow& r) { return r.pid == row.pid && r.label == row.label; });
        TopRow& to = same != rows_.end() ? *same : rows_.emplace_back(row);
        to.bytes += holder.bytes;
        to.count += holder.count;
      }
    }
  }
}

void TopModel::look(TopView view) {
  if (view != view_) before_.clear();
  view_ = view;
  rows_.clear();
  troubles_.clear();
  sums_ = {};
  const std::vector<std::string> names = wanted_.empty() ? domain_names(options_) : wanted_;
  std::erase_if(inspectors_, [&](const auto& one) {
    return std::find(names.begin(), names.end(), one.first) == names.end();
  });
  for (const std::string& name : names) {
    try {
      if (!inspectors_.contains(name)) inspectors_.emplace(name, open_inspector(options_, name, console_));
      add(look_at(inspectors_.at(name), name, {true, view != TopView::heaps, false, false}), view);
    } catch (const Failure& failure) {
      inspectors_.erase(name);  // removed, and perhaps made anew: opened again at the next look
      troubles_.emplace_back(failure.what());
    }
  }
  if (!wanted_.empty() && sums_.domains == 0) throw Failure(kImpossible, troubles_.front());
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(now - at_).count();
  std::map<std::string, Before> seen;
  for (TopRow& row : rows_) {
    const std::string key = key_of(row);
    if (const auto old = before_.find(key); old != before_.end() && seconds > 0) {
      row.byte_rate = (static_cast<double>(row.bytes) - static_cast<double>(old->second.bytes)) / seconds;
      row.count_rate = (static_cast<double>(row.count) - static_cast<double>(old->second.count)) / seconds;
    }
    seen[key] = {row.bytes, row.count};
  }
  before_ = std::move(seen);
  at_ = now;
}

std::vector<TopRow> TopModel::rows(TopSort sort, bool reversed, const std::string& filter) const {
  std::vector<TopRow> shown_rows;
  const std::string wanted = lower(filter);
  for (const TopRow& row : rows_) {
    const std::string text = row.domain + "/" + row.heap + "/" + row.label + "/" + std::to_string(row.pid);
    if (lower(text).find(wanted) != std::string::npos) shown_rows.push_back(row);
  }
  const auto before = [&](const TopRow& a, const TopRow& b) {
    switch (sort) {
      case TopSort::bytes:
        if (a.bytes != b.bytes) return a.bytes > b.bytes;
        break;
      case TopSort::rate:
        if (a.byte_rate != b.byte_rate) return a.byte_rate > b.byte_rate;
        break;
      case TopSort::count:
        if (a.count != b.count) return a.count > b.count;
        break;
      case TopSort::name:
        break;
    }
    return key_of(a) < key_of(b);
  };
  std::sort(shown_rows.begin(), shown_rows.end(), before);
  if (reversed) std::reverse(shown_rows.begin(), shown_rows.end());
  return shown_rows;
}

}  // namespace extmem::cli
