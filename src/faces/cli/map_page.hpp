// The constant parts of the heap map's page.
#pragma once

#include <string_view>

namespace extmem::cli {

std::string_view map_page_style();
std::string_view map_page_body();
std::string_view map_page_script();

}  // namespace extmem::cli
