// The decoder that lets a sweep pass over instructions: none that stores may be among them.
#include "crash/instruction.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <initializer_list>

namespace extmem::crash {
namespace {

bool nothing(std::initializer_list<unsigned char> bytes) {
  unsigned char code[16] = {};
  std::memcpy(code, bytes.begin(), bytes.size());
  return stores_nothing(code);
}

TEST(CrashInstruction, ThatStoresIsNeverPassedOver) {
  EXPECT_FALSE(nothing({0x89, 0x07}));              // mov [rdi], eax
  EXPECT_FALSE(nothing({0x66, 0x89, 0x07}));        // mov [rdi], ax
  EXPECT_FALSE(nothing({0x48, 0x89, 0x47, 0x08}));  // mov [rdi+8], rax
  EXPECT_FALSE(nothing({0x88, 0x07}));              // mov [rdi], al
  EXPECT_FALSE(nothing({0xc7, 0x07, 1, 0, 0, 0}));  // mov dword [rdi], 1
  EXPECT_FALSE(nothing({0xc6, 0x07, 1}));           // mov byte [rdi], 1
  EXPECT_FALSE(nothing({0x48, 0x01, 0x07}));        // add [rdi], rax
  EXPECT_FALSE(nothing({0x83, 0x07, 0x01}));        // add dword [rdi], 1
  EXPECT_FALSE(nothing({0x80, 0x27, 0x01}));        // and byte [rdi], 1
  EXPECT_FALSE(nothing({0xff, 0x07}));              // inc dword [rdi]
  EXPECT_FALSE(nothing({0xf7, 0x1f}));              // neg dword [rdi]
  EXPECT_FALSE(nothing({0xd1, 0x27}));              // shl dword [rdi], 1
  EXPECT_FALSE(nothing({0xf0, 0x0f, 0xb1, 0x37}));  // lock cmpxchg [rdi], esi
  EXPECT_FALSE(nothing({0x0f, 0xb1, 0x37}));        // cmpxchg [rdi], esi
  EXPECT_FALSE(nothing({0x0f, 0xc1, 0x37}));        // xadd [rdi], esi
  EXPECT_FALSE(nothing({0x87, 0x07}));              // xchg [rdi], eax
  EXPECT_FALSE(nothing({0x0f, 0xab, 0x07}));        // bts [rdi], eax
  EXPECT_FALSE(nothing({0x0f, 0x94, 0x07}));        // sete [rdi]
  EXPECT_FALSE(nothing({0x8f, 0x07}));              // pop qword [rdi]
  EXPECT_FALSE(nothing({0xf3, 0x48, 0xab}));        // rep stosq
  EXPECT_FALSE(nothing({0xf3, 0xa4}));              // rep movsb
  EXPECT_FALSE(nothing({0x0f, 0x11, 0x07}));        // movups [rdi], xmm0
  EXPECT_FALSE(nothing({0x0f, 0x29, 0x07}));        // movaps [rdi], xmm0
  EXPECT_FALSE(nothing({0x66, 0x0f, 0xd6, 0x07}));  // movq [rdi], xmm0
  EXPECT_FALSE(nothing({0x66, 0x0f, 0x7f, 0x07}));  // movdqa [rdi], xmm0
  EXPECT_FALSE(nothing({0xc5, 0xf8, 0x11, 0x07}));  // vmovups [rdi], xmm0
  EXPECT_FALSE(nothing({0x0f, 0x05}));              // syscall
  EXPECT_FALSE(nothing({0x0f, 0x0d, 0x0f}));        // prefetchw: unknown
}

TEST(CrashInstruction, ThatOnlyComputesIsPassedOver) {
  EXPECT_TRUE(nothing({0x8b, 0x07}));              // mov eax, [rdi]
  EXPECT_TRUE(nothing({0x48, 0x89, 0xf8}));        // mov rax, rdi
  EXPECT_TRUE(nothing({0x48, 0x8d, 0x47, 0x08}));  // lea rax, [rdi+8]
  EXPECT_TRUE(nothing({0x74, 0x05}));              // je
  EXPECT_TRUE(nothing({0x0f, 0x84, 0, 0, 0, 0}));  // je
  EXPECT_TRUE(nothing({0x83, 0x3f, 0x01}));        // cmp dword [rdi], 1
  EXPECT_TRUE(nothing({0x39, 0x07}));              // cmp [rdi], eax
  EXPECT_TRUE(nothing({0x85, 0xc0}));              // test eax, eax
  EXPECT_TRUE(nothing({0x48, 0x83, 0xc0, 0x01}));  // add rax, 1
  EXPECT_TRUE(nothing({0x03, 0x07}));              // add eax, [rdi]
  EXPECT_TRUE(nothing({0x55}));                    // push rbp
  EXPECT_TRUE(nothing({0x41, 0x54}));              // push r12
  EXPECT_TRUE(nothing({0xe8, 0, 0, 0, 0}));        // call
  EXPECT_TRUE(nothing({0xc3}));                    // ret
  EXPECT_TRUE(nothing({0x0f, 0xb6, 0x07}));        // movzx eax, byte [rdi]
  EXPECT_TRUE(nothing({0x0f, 0x94, 0xc0}));        // sete al
  EXPECT_TRUE(nothing({0xf3, 0x0f, 0x1e, 0xfa}));  // endbr64
}

}  // namespace
}  // namespace extmem::crash
