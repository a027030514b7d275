# Every test there is, found by its place. A folder that does not exist, or is empty, is simply absent.
#   tests/unit/<layer>/*_test.cpp             -> unit_<layer>, linked to that layer alone   label unit
#   tests/<kind>/*_test.cpp                   -> <kind>, linked to the static library       label <kind>
#   tests/fuzz/*_fuzz.cpp                     -> one libFuzzer program each (preset fuzz)   label fuzz
#   examples/*.{c,cpp}                        -> one program each, run with no arguments    label examples
#   include/extmem/*                          -> each compiled alone (tests/headers)        label headers
#   tests/{cli,consumer,lint,...}/CMakeLists.txt -> whatever they add
# The kinds are in EXTMEM_TEST_KINDS. A folder that needs more than this (a helper program, say)
# has an options.cmake, read after its target was made.

if(EXTMEM_FUZZ)
  # The corpus is committed; the run is short unless EXTMEM_FUZZ_SECONDS says otherwise.
  set(EXTMEM_FUZZ_SECONDS 20 CACHE STRING "How long ctest runs each fuzz target, in seconds")
  file(GLOB fuzzers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/fuzz/*_fuzz.cpp)
  foreach(source IN LISTS fuzzers)
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} ${source})
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
    target_link_libraries(${name} PRIVATE extmem_static extmem_flags)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    set(found ${PROJECT_BINARY_DIR}/fuzz/${name})
    file(MAKE_DIRECTORY ${found}/corpus)
    set(corpus "")
    if(IS_DIRECTORY ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
      set(corpus ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
    endif()
    add_test(NAME fuzz.${name} COMMAND ${name} -max_total_time=${EXTMEM_FUZZ_SECONDS} -timeout=20
      -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix=${found}/ ${found}/corpus ${corpus})
    math(EXPR limit "${EXTMEM_FUZZ_SECONDS} * 2 + 60")
    set_tests_properties(fuzz.${name} PROPERTIES LABELS fuzz TIMEOUT ${limit})
  endforeach()
endif()
if(NOT EXTMEM_TESTS)
  return()
endif()

find_package(GTest REQUIRED)
include(GoogleTest)

set(EXTMEM_TEST_KINDS contract model stress regression crash)
foreach(kind IN ITEMS unit dpdk ${EXTMEM_TEST_KINDS})
  add_custom_target(build_${kind})  # builds the tests of one kind
endforeach()

# One GoogleTest program of `sources`, one ctest per case. Ctest asks the program for its cases when it runs,
# so that a program which cannot start is a failed test and not a failed build.
function(extmem_gtest name label library)
  add_executable(${name} ${ARGN})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE ${library} extmem_flags GTest::gmock GTest::gtest_main Threads::Threads)
  if(CMAKE_BUILD_TYPE STREQUAL "Debug" AND label MATCHES "unit|contract|regression")
    # Optimising GoogleTest's macros takes more than half of a build's time and makes no short test faster.
    target_compile_options(${name} PRIVATE -O0)
  endif()
  gtest_discover_tests(${name} TEST_PREFIX ${name}. DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS ${label} TIMEOUT 300)
  add_dependencies(build_${label} ${name})
  get_filename_component(folder ${ARGV3} DIRECTORY)
  include(${folder}/options.cmake OPTIONAL)
endfunction()

if(EXTMEM_UNIT_TESTS)
  foreach(target IN LISTS EXTMEM_LAYERS)
    string(REGEX REPLACE "^extmem_" "" name ${target})
    string(REPLACE "faces_" "faces/" layer ${name})
    file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/unit/${layer}/*_test.cpp)
    if(sources)
      extmem_gtest(unit_${name} unit ${target} ${sources})
    endif()
  endforeach()
endif()

if(TARGET extmem_static)
  foreach(kind IN LISTS EXTMEM_TEST_KINDS)
    file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/${kind}/*_test.cpp)
    if(sources)
      extmem_gtest(${kind} ${kind} extmem_static ${sources})
    endif()
  endforeach()

  file(GLOB examples CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/*.c ${PROJECT_SOURCE_DIR}/examples/*.cpp)
  foreach(source IN LISTS examples)
    get_filename_component(name ${source} NAME_WE)
    get_filename_component(language ${source} LAST_EXT)
    string(REPLACE "." "_" language ${language})
    set(target example_${name}${language})
    add_executable(${target} ${source})
    target_link_libraries(${target} PRIVATE extmem extmem_flags)
    if(EXTMEM_SANITIZE)  # the runtime for the library's C++ comes with the C++ linker only
      set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX)
    endif()
    add_test(NAME examples.${name}${language} COMMAND ${target} WORKING_DIRECTORY ${PROJECT_BINARY_DIR})
    # Exit status 77: the example says that this machine lacks what it shows.
    set_tests_properties(examples.${name}${language} PROPERTIES LABELS examples TIMEOUT 120 SKIP_RETURN_CODE 77)
  endforeach()
endif()

file(GLOB folders CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/*/CMakeLists.txt)
foreach(file IN LISTS folders)
  get_filename_component(folder ${file} DIRECTORY)
  add_subdirectory(${folder})
endforeach()
