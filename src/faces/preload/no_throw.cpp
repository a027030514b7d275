// What would throw in the C++ library's inline functions (std::string_view::substr beyond the end) ends the program instead. It cannot
// happen, but a call of the C++ library's own function would make every C program load that library, and two more with it: 1.3 MiB
// and a millisecond at each start.
#include <cstdlib>
#include <string_view>

namespace std {
void __throw_out_of_range_fmt(const char*, ...) { std::abort(); }  // NOLINT: the library's name for it
}  // namespace std
