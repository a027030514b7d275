#include "base/siphash.hpp"

#include <gtest/gtest.h>

namespace extmem::base {
namespace {

TEST(SipHash, IsThatOfTheReferenceImplementation) {
  // vectors.h of the authors: the key 00 01 … 0f, the message 00 … 07.
  EXPECT_EQ(siphash(0x0706050403020100u, 0x0f0e0d0c0b0a0908u, 0x0706050403020100u), 0x93f5f5799a932462u);
}

}  // namespace
}  // namespace extmem::base
