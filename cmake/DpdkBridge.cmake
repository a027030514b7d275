# libextmem-dpdk-bridge: extmem's memory inside a running DPDK. A library of its own, over what libextmem exports; built only
# where pkg-config finds libdpdk (Debian: libdpdk-dev). EXTMEM_DPDK_BRIDGE says whether it is; extmem_dpdk_headers is what
# compiles with DPDK's headers.
set(EXTMEM_DPDK_BRIDGE OFF)
if(NOT TARGET extmem)
  return()
endif()
find_package(PkgConfig)
if(PkgConfig_FOUND)
  pkg_check_modules(LIBDPDK QUIET libdpdk)
endif()
if(NOT LIBDPDK_FOUND)
  message(STATUS "libdpdk-dev or pkg-config is not installed: no libextmem-dpdk-bridge")
  return()
endif()
set(EXTMEM_DPDK_BRIDGE ON)

# The package's flags without -march, which would differ from ours; its list of libraries has every driver's, we need three.
set(dpdk_options ${LIBDPDK_CFLAGS_OTHER})
list(FILTER dpdk_options EXCLUDE REGEX "^-march=")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND dpdk_options -mssse3)  # the least that its headers compile with
endif()
add_library(extmem_dpdk_headers INTERFACE)
target_include_directories(extmem_dpdk_headers SYSTEM INTERFACE ${LIBDPDK_INCLUDE_DIRS})
target_compile_options(extmem_dpdk_headers INTERFACE ${dpdk_options})
# rte_dev_dma_map, rte_pktmbuf_pool_create_extbuf and the walk over devices are still "experimental" in 22.11.
target_compile_definitions(extmem_dpdk_headers INTERFACE ALLOW_EXPERIMENTAL_API)
set(dpdk_libraries rte_eal rte_mempool rte_mbuf)

file(GLOB bridge_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/faces/dpdk_bridge/*.cpp)
add_library(extmem_dpdk_bridge SHARED ${bridge_sources})
set_target_properties(extmem_dpdk_bridge PROPERTIES
  EXPORT_NAME dpdk_bridge
  VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
  LINK_DEPENDS ${PROJECT_SOURCE_DIR}/src/extmem_dpdk_bridge.map)
target_link_options(extmem_dpdk_bridge PRIVATE
  LINKER:--version-script=${PROJECT_SOURCE_DIR}/src/extmem_dpdk_bridge.map LINKER:-z,now,-z,relro)
if(NOT EXTMEM_SANITIZE)
  target_link_options(extmem_dpdk_bridge PRIVATE LINKER:--no-undefined)
endif()
target_link_libraries(extmem_dpdk_bridge PUBLIC extmem PRIVATE ${dpdk_libraries})
add_library(extmem_dpdk_bridge_static STATIC ${bridge_sources})
target_link_libraries(extmem_dpdk_bridge_static PUBLIC extmem_static INTERFACE ${dpdk_libraries})
foreach(library IN ITEMS extmem_dpdk_bridge extmem_dpdk_bridge_static)
  set_target_properties(${library} PROPERTIES OUTPUT_NAME extmem-dpdk-bridge)
  target_include_directories(${library} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  # As every library of ours, but not optimised at link time: it is small, and calls into others.
  target_compile_options(${library} PRIVATE
    -fvisibility=hidden -fvisibility-inlines-hidden -ftls-model=initial-exec)
  target_link_libraries(${library} PRIVATE $<BUILD_INTERFACE:extmem_flags> $<BUILD_INTERFACE:extmem_dpdk_headers>)
endforeach()
add_library(extmem::dpdk_bridge ALIAS extmem_dpdk_bridge)
