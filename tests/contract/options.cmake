# What the suites share: the two faces and the two more ways of allocating.
target_sources(${name} PRIVATE ${folder}/cpp_face.cpp ${folder}/c_face.cpp ${folder}/way.cpp ${folder}/ground.cpp)
