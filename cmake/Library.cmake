# libextmem.so, libextmem.a (both made of the layers' objects) and the command `extmem`.
find_package(Threads REQUIRED)

if(EXTMEM_LAYER_OBJECTS)
  add_library(extmem SHARED ${EXTMEM_LAYER_OBJECTS})
  set_target_properties(extmem PROPERTIES
    VERSION ${PROJECT_VERSION}
    # Until 1.0 a minor version may break the ABI, so it is part of the SONAME.
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
    LINKER_LANGUAGE CXX
    LINK_DEPENDS ${PROJECT_SOURCE_DIR}/src/extmem.map)
  target_link_options(extmem PRIVATE
    LINKER:--version-script=${PROJECT_SOURCE_DIR}/src/extmem.map LINKER:-z,now,-z,relro)
  if(NOT EXTMEM_SANITIZE)  # sanitized objects get their runtime from the program
    target_link_options(extmem PRIVATE LINKER:--no-undefined)
  endif()

  add_library(extmem_static STATIC ${EXTMEM_LAYER_OBJECTS})
  set_target_properties(extmem_static PROPERTIES OUTPUT_NAME extmem LINKER_LANGUAGE CXX)

  if(EXTMEM_LTO)
    target_link_options(extmem PRIVATE -flto=auto -ftls-model=initial-exec)
    add_custom_command(TARGET extmem_static POST_BUILD VERBATIM
      COMMAND ${CMAKE_OBJCOPY} --wildcard --remove-section ".gnu.lto_*" $<TARGET_FILE:extmem_static>)
  endif()

  foreach(library IN ITEMS extmem extmem_static)
    target_include_directories(${library} PUBLIC
      $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
    target_compile_features(${library} PUBLIC cxx_std_20)
    target_link_libraries(${library} PUBLIC Threads::Threads PRIVATE $<BUILD_INTERFACE:extmem_flags>)
    add_library(extmem::${library} ALIAS ${library})
  endforeach()
endif()

file(GLOB cli_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/faces/cli/*.cpp)
if(EXTMEM_CLI AND cli_sources AND TARGET extmem)
  find_package(CLI11 REQUIRED)
  find_package(fmt REQUIRED)
  set(CURSES_NEED_WIDE TRUE)  # `top`
  find_package(Curses REQUIRED)
  # `run` checks its options as the preload library will read them.
  add_executable(extmem_cli ${cli_sources} ${PROJECT_SOURCE_DIR}/src/faces/preload/settings.cpp)
  set_target_properties(extmem_cli PROPERTIES OUTPUT_NAME extmem)
  target_include_directories(extmem_cli PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(extmem_cli PRIVATE EXTMEM_LIBDIR="${CMAKE_INSTALL_LIBDIR}")  # where `run` looks
  target_link_libraries(extmem_cli PRIVATE extmem CLI11::CLI11 fmt::fmt extmem_flags ${CURSES_LIBRARIES})
  target_link_options(extmem_cli PRIVATE LINKER:--as-needed)  # CMake names more of curses than it needs
  target_include_directories(extmem_cli SYSTEM PRIVATE ${CURSES_INCLUDE_DIRS})
endif()
