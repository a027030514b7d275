# One target per line of src/LAYERS, linked to exactly the layers named there.
#   extmem_<layer>   a static library, or an interface library while the folder holds headers only
# faces/cli becomes the command `extmem` instead, faces/{dpdk,dpdk_bridge,preload,record} libraries of their own
# (cmake/Library.cmake, cmake/Dpdk.cmake, cmake/DpdkBridge.cmake, cmake/Preload.cmake). '/' reads '_' in target names.
set(layers_file ${PROJECT_SOURCE_DIR}/src/LAYERS)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${layers_file})
file(STRINGS ${layers_file} layer_lines REGEX "^[^#]")

set(EXTMEM_LAYERS "")          # targets, lowest layer first
set(EXTMEM_LAYER_OBJECTS "")   # what the libraries are made of
foreach(line IN LISTS layer_lines)
  if(NOT line MATCHES "^([a-z_/]+):(.*)$")
    message(FATAL_ERROR "src/LAYERS: cannot read the line `${line}`; write `layer: layers it may include`.")
  endif()
  set(layer ${CMAKE_MATCH_1})
  string(REGEX MATCHALL "[a-z_/]+" allowed "${CMAKE_MATCH_2}")
  if(layer MATCHES "^faces/(cli|dpdk|dpdk_bridge|preload|record)$")
    continue()
  endif()
  string(REPLACE "/" "_" target "extmem_${layer}")
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${layer}/*.cpp)

  set(scope PUBLIC)
  if(sources)
    add_library(${target} STATIC ${sources})
    target_link_libraries(${target} PRIVATE extmem_library_flags)
    if(NOT layer MATCHES "^faces/")
      target_compile_options(${target} PRIVATE ${EXTMEM_CORE_OPTIONS})
    endif()
    list(APPEND EXTMEM_LAYER_OBJECTS $<TARGET_OBJECTS:${target}>)
  else()
    set(scope INTERFACE)
    add_library(${target} INTERFACE)
  endif()
  target_include_directories(${target} ${scope} ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_compile_features(${target} ${scope} cxx_std_20)
  foreach(other IN LISTS allowed)
    string(REPLACE "/" "_" other "extmem_${other}")
    target_link_libraries(${target} ${scope} ${other})
  endforeach()
  list(APPEND EXTMEM_LAYERS ${target})
endforeach()
