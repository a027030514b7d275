// extmem: named heaps over memory that you already own. This header includes all of the C++ interface.
#pragma once

#include "extmem/domain.hpp"
#include "extmem/function_ref.hpp"
#include "extmem/heap.hpp"
#include "extmem/heap_map.hpp"
#include "extmem/inspect.hpp"
#include "extmem/memory_resource.hpp"
#include "extmem/raii.hpp"
#include "extmem/region_pointer.hpp"
#include "extmem/result.hpp"
#include "extmem/ring.hpp"
#include "extmem/types.hpp"
