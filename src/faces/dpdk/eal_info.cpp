// What can be asked about the process and its options, and the messages between processes that are not there.
#include <rte_eal.h>
#include <rte_eal_memconfig.h>
#include <rte_errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "faces/dpdk/eal.hpp"

using namespace extmem::dpdk;

namespace {

// DPDK begins to look for room here; a program that passes it on gets what it expects.
constexpr std::uint64_t kDefaultBaseAddress = 0x100000000;

bool is_name(const char* name) {
  return name != nullptr && name[0] != '\0' && ::strnlen(name, RTE_MP_MAX_NAME_LEN) < RTE_MP_MAX_NAME_LEN;
}

bool is_message(const rte_mp_msg* msg) {
  return msg != nullptr && is_name(msg->name) && msg->len_param >= 0 &&
         msg->len_param <= RTE_MP_MAX_PARAM_LEN && msg->num_fds >= 0 && msg->num_fds <= RTE_MP_MAX_FD_NUM;
}

int no_channel(bool arguments_are_good) { return fail(arguments_are_good ? ENOTSUP : EINVAL); }

}  // namespace

extern "C" {

enum rte_proc_type_t rte_eal_process_type(void) { return options().process; }
int rte_eal_has_hugepages(void) { return options().no_huge ? 0 : 1; }
int rte_eal_has_pci(void) { return 0; }
int rte_eal_create_uio_dev(void) { return options().create_uio_dev ? 1 : 0; }
int rte_eal_iopl_init(void) { return 0; }
enum rte_intr_mode rte_eal_vfio_intr_mode(void) { return options().vfio_intr; }
void rte_eal_vfio_get_vf_token(rte_uuid_t vf_token) { rte_uuid_copy(vf_token, options().vfio_vf_token); }
enum rte_iova_mode rte_eal_iova_mode(void) { return initialized() ? options().iova_mode : RTE_IOVA_DC; }

uint64_t rte_eal_get_baseaddr(void) {
  return options().base_virtaddr != 0 ? options().base_virtaddr : kDefaultBaseAddress;
}

const char* rte_eal_mbuf_user_pool_ops(void) {
  const char* name = options().mbuf_pool_ops.data();
  return name[0] != '\0' ? name : nullptr;
}

int rte_sys_gettid(void) { return static_cast<int>(::syscall(SYS_gettid)); }

bool rte_mp_disable(void) { return true; }

int rte_mp_action_register(const char* name, rte_mp_t action) {
  return no_channel(is_name(name) && action != nullptr);
}
void rte_mp_action_unregister(const char*) {}
int rte_mp_sendmsg(struct rte_mp_msg* msg) { return no_channel(is_message(msg)); }

int rte_mp_request_sync(struct rte_mp_msg* req, struct rte_mp_reply* reply, const struct timespec* ts) {
  if (reply != nullptr) *reply = {};
  return no_channel(is_message(req) && reply != nullptr && ts != nullptr);
}

int rte_mp_request_async(struct rte_mp_msg* req, const struct timespec* ts, rte_mp_async_reply_t clb) {
  return no_channel(is_message(req) && ts != nullptr && clb != nullptr);
}

int rte_mp_reply(struct rte_mp_msg* msg, const char* peer) {
  return no_channel(is_message(msg) && peer != nullptr);
}

bool rte_mcfg_get_single_file_segments(void) { return options().single_file_segments; }

}  // extern "C"
