# Libraries for LD_PRELOAD. A sanitizer brings a malloc of its own: no preloading then.
#   libextmem-preload.so (src/faces/preload)   malloc's family on a heap, for `extmem run`; with its own copy of the layers below,
#                                              so that a program may use libextmem.so too
#   libextmem-record.so (src/faces/record)     writes what a program allocates into a trace, for `extmem record`
if(EXTMEM_SANITIZE OR NOT TARGET extmem_heap)
  return()
endif()

function(extmem_preload_library target name layer)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${layer}/*.cpp)
  set(map ${PROJECT_SOURCE_DIR}/src/${layer}/${name}.map)
  add_library(${target} SHARED ${sources})
  set_target_properties(${target} PROPERTIES
    OUTPUT_NAME ${name}
    NO_SONAME ON  # nobody links it
    LINK_DEPENDS ${map})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  # The malloc here is the real one: the compiler must not turn it into calls of itself (calloc by malloc + memset).
  target_compile_options(${target} PRIVATE ${EXTMEM_CORE_OPTIONS}
    -fno-builtin-malloc -fno-builtin-calloc -fno-builtin-realloc -fno-builtin-free)
  target_link_libraries(${target} PRIVATE ${ARGN} extmem_library_flags Threads::Threads ${CMAKE_DL_LIBS})
  target_link_options(${target} PRIVATE
    LINKER:--version-script=${map} LINKER:-z,now,-z,relro,-z,nodelete LINKER:--no-undefined -static-libgcc
    LINKER:--as-needed)  # no C++ library for C programs: see no_throw.cpp
  if(EXTMEM_LTO)
    target_link_options(${target} PRIVATE -flto=auto -ftls-model=initial-exec)
  endif()
endfunction()

extmem_preload_library(extmem_preload extmem-preload faces/preload extmem_heap)
extmem_preload_library(extmem_record extmem-record faces/record extmem_os)
# Libraries that are loaded with RTLD_DEEPBIND would go past it, too.
target_sources(extmem_record PRIVATE ${PROJECT_SOURCE_DIR}/src/faces/preload/deepbind.cpp)
