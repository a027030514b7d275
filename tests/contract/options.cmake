# What the suites share: the two faces and the two more ways of allocating.
target_sources(${name} PRIVATE ${folder}/cpp_face.cpp ${folder}/c_face.cpp ${folder}/way.cpp ${folder}/ground.cpp)

# The other process of the tests that need two: a program of its own, so that its addresses are its own too.
add_executable(contract_companion ${folder}/companion/main.cpp ${folder}/companion/images.cpp
  ${folder}/companion/surroundings.cpp)
target_include_directories(contract_companion PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
target_link_libraries(contract_companion PRIVATE extmem_static extmem_flags GTest::gtest ${CMAKE_DL_LIBS})
target_compile_definitions(contract_companion PRIVATE EXTMEM_COMPANION="$<TARGET_FILE:contract_companion>"
  EXTMEM_SHARED_LIBRARY="$<TARGET_FILE:extmem>")
add_dependencies(contract_companion extmem)
add_dependencies(${name} contract_companion)
target_compile_definitions(${name} PRIVATE EXTMEM_COMPANION="$<TARGET_FILE:contract_companion>")
