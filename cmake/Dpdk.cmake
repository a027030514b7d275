# libextmem-dpdk.so and .a: the functions of DPDK's memory API over libextmem. Made of src/faces/dpdk alone; it uses
# libextmem as any program does, and has its own copy of the functions of the layers that src/LAYERS names for it.
if(NOT EXTMEM_DPDK OR NOT TARGET extmem)
  return()
endif()

file(GLOB dpdk_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/faces/dpdk/*.cpp)
set(dpdk_map ${PROJECT_SOURCE_DIR}/src/faces/dpdk/extmem-dpdk.map)

add_library(extmem_dpdk_objects OBJECT ${dpdk_sources})
target_include_directories(extmem_dpdk_objects PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
# As system headers: they are C, and their macros have casts that our warnings for C++ would not let pass.
target_include_directories(extmem_dpdk_objects SYSTEM PRIVATE ${PROJECT_SOURCE_DIR}/include/extmem/dpdk)
target_compile_features(extmem_dpdk_objects PRIVATE cxx_std_20)
# The C functions are exported by the map, not one by one: nothing is hidden here. GNU names: processor sets.
target_compile_definitions(extmem_dpdk_objects PRIVATE _GNU_SOURCE)
target_compile_options(extmem_dpdk_objects PRIVATE -fvisibility-inlines-hidden -ftls-model=initial-exec)
target_link_libraries(extmem_dpdk_objects PRIVATE extmem_flags)

add_library(extmem_dpdk SHARED $<TARGET_OBJECTS:extmem_dpdk_objects>)
set_target_properties(extmem_dpdk PROPERTIES
  OUTPUT_NAME extmem-dpdk
  VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
  LINKER_LANGUAGE CXX
  LINK_DEPENDS ${dpdk_map})
target_link_options(extmem_dpdk PRIVATE LINKER:--version-script=${dpdk_map} LINKER:-z,now,-z,relro)
if(NOT EXTMEM_SANITIZE)
  target_link_options(extmem_dpdk PRIVATE LINKER:--no-undefined)
endif()
target_link_libraries(extmem_dpdk PRIVATE extmem
  $<BUILD_INTERFACE:extmem_shared> $<BUILD_INTERFACE:extmem_os> $<BUILD_INTERFACE:extmem_base>)

add_library(extmem_dpdk_static STATIC $<TARGET_OBJECTS:extmem_dpdk_objects>)
set_target_properties(extmem_dpdk_static PROPERTIES OUTPUT_NAME extmem-dpdk LINKER_LANGUAGE CXX)
target_link_libraries(extmem_dpdk_static PUBLIC extmem_static)

foreach(library IN ITEMS extmem_dpdk extmem_dpdk_static)
  target_include_directories(${library} INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include/extmem/dpdk>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/extmem/dpdk>)
  target_link_libraries(${library} PUBLIC Threads::Threads PRIVATE $<BUILD_INTERFACE:extmem_flags>)
  add_library(extmem::${library} ALIAS ${library})
endforeach()
