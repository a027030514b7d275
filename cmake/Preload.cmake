# libextmem-preload.so (src/faces/preload): malloc's family on a heap, for LD_PRELOAD and `extmem run`. It holds its own copy of
# the layers below, so that a program may use libextmem.so too. A sanitizer brings a malloc of its own: no preloading then.
file(GLOB preload_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/faces/preload/*.cpp)
if(NOT preload_sources OR EXTMEM_SANITIZE OR NOT TARGET extmem_heap)
  return()
endif()
add_library(extmem_preload SHARED ${preload_sources})
set_target_properties(extmem_preload PROPERTIES
  OUTPUT_NAME extmem-preload
  NO_SONAME ON  # nobody links it
  LINK_DEPENDS ${PROJECT_SOURCE_DIR}/src/faces/preload/extmem-preload.map)
target_include_directories(extmem_preload PRIVATE ${PROJECT_SOURCE_DIR}/src)
# -fno-builtin: our malloc is the real one; the compiler must not turn it into calls of itself (calloc by malloc + memset).
target_compile_options(extmem_preload PRIVATE ${EXTMEM_CORE_OPTIONS} -fno-builtin-malloc -fno-builtin-calloc
  -fno-builtin-realloc -fno-builtin-free)
target_link_libraries(extmem_preload PRIVATE extmem_heap extmem_library_flags Threads::Threads ${CMAKE_DL_LIBS})
target_link_options(extmem_preload PRIVATE
  LINKER:--version-script=${PROJECT_SOURCE_DIR}/src/faces/preload/extmem-preload.map
  LINKER:-z,now,-z,relro,-z,nodelete LINKER:--no-undefined -static-libgcc)
if(EXTMEM_LTO)
  target_link_options(extmem_preload PRIVATE -flto=auto -ftls-model=initial-exec)
endif()
