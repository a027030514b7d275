// `extmem top` on a terminal.
#pragma once

#include "faces/cli/top_model.hpp"

namespace extmem::cli {

struct TopSettings {
  TopView view = TopView::heaps;
  TopSort sort = TopSort::bytes;
  bool reversed = false;
  double delay = 1;
  std::string filter;
};

/// "+1.2 MiB/s", "-3.0 KiB/s"; "0" where nothing changed.
std::string rate_text(double bytes_per_second);
const char* view_text(TopView view);
const char* sort_text(TopSort sort);

/// Runs until the user ends it. Throws Failure where the terminal is not up to it, or nothing can be looked at.
void run_top_screen(TopModel& model, TopSettings settings, const Console& console);

}  // namespace extmem::cli
