# Two interface targets carry every flag:
#   extmem_flags          warnings and sanitizers; everything we compile
#   extmem_library_flags  that, and what a library needs that others load; every layer

add_library(extmem_flags INTERFACE)
target_compile_options(extmem_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wundef
  $<$<COMPILE_LANGUAGE:CXX>:-Wold-style-cast>
  $<$<OR:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:Clang>>:-Wmissing-declarations>
  $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety>)
# gcc 12 sees overlaps in std::string's own memcpy at -O2 that are not there (gcc bug 105651).
target_compile_options(extmem_flags INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>)
if(EXTMEM_WERROR)
  target_compile_options(extmem_flags INTERFACE -Werror)
endif()

if(EXTMEM_SANITIZE)
  # A finding ends the program, so that a test fails; frame pointers make the reports readable.
  # vptr checks need the type information that the layers are compiled without.
  set(sanitize -fsanitize=${EXTMEM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  if(EXTMEM_SANITIZE MATCHES "undefined")
    list(APPEND sanitize -fno-sanitize=vptr)
  endif()
  target_compile_options(extmem_flags INTERFACE ${sanitize})
  target_link_options(extmem_flags INTERFACE ${sanitize})
endif()
if(EXTMEM_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "EXTMEM_FUZZ needs clang: libFuzzer is part of it. Use the preset `fuzz`.")
  endif()
  target_compile_options(extmem_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

add_library(extmem_library_flags INTERFACE)
target_link_libraries(extmem_library_flags INTERFACE extmem_flags)
# initial-exec: no dynamic TLS (it would call malloc). Hidden: only what EXTMEM_API marks leaves the library.
target_compile_options(extmem_library_flags INTERFACE
  -fvisibility=hidden $<$<COMPILE_LANGUAGE:CXX>:-fvisibility-inlines-hidden> -ftls-model=initial-exec)

# Below the faces nothing throws and nothing asks for types at run time.
set(EXTMEM_CORE_OPTIONS $<$<COMPILE_LANGUAGE:CXX>:-fno-exceptions> $<$<COMPILE_LANGUAGE:CXX>:-fno-rtti>)

# Across the layers of libextmem.so. The objects are fat, so that libextmem.a can be made of them too; it is
# shipped without the optimiser's sections, which only this very compiler could read (cmake/Library.cmake).
if(EXTMEM_LTO)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    message(FATAL_ERROR "EXTMEM_LTO is for gcc only.")
  endif()
  target_compile_options(extmem_library_flags INTERFACE -flto=auto -ffat-lto-objects)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND PROJECT_IS_TOP_LEVEL)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()
