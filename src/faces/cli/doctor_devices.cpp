// What drivers in user space need: physical addresses, an IOMMU, VFIO, privileges.
#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include "faces/cli/doctor.hpp"
#include "faces/cli/format.hpp"

namespace extmem::cli::doctor {
namespace {

namespace fs = std::filesystem;

std::size_t entries(const fs::path& folder) {
  std::error_code ignored;
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder, ignored)) ++count;
  return count;
}

/// Whether the frame number of a page that is surely present can be read: without privilege it is shown as 0.
bool pagemap_readable() {
  const int fd = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  volatile int present = 1;
  const auto page =
      reinterpret_cast<std::uintptr_t>(&present) / static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  std::uint64_t entry = 0;
  const ssize_t got = ::pread(fd, &entry, sizeof entry, static_cast<off_t>(page * sizeof entry));
  ::close(fd);
  return got == static_cast<ssize_t>(sizeof entry) && (entry & ((std::uint64_t{1} << 55) - 1)) != 0;
}

void check_privileges(Checks& checks) {
  struct Named {
    unsigned number;
    const char* name;
  };
  std::string has;
  for (const Named& c : {Named{21, "CAP_SYS_ADMIN"}, Named{14, "CAP_IPC_LOCK"}, Named{23, "CAP_SYS_NICE"},
                         Named{19, "CAP_SYS_PTRACE"}, Named{17, "CAP_SYS_RAWIO"}}) {
    if (has_capability(c.number)) has += fmt::format("{}{}", has.empty() ? "" : ", ", c.name);
  }
  checks.push_back({"Devices",
                    "privileges",
                    State::ok,
                    fmt::format("{}; {}", ::geteuid() == 0 ? "root" : fmt::format("user {}", ::geteuid()),
                                has.empty() ? "no capability" : has),
                    {},
                    {}});
}

void check_pagemap(Checks& checks) {
  Check check{"Devices", "physical addresses", State::ok, "/proc/self/pagemap shows them", {}, {}};
  if (!pagemap_readable()) {
    check.state = State::limited;
    check.found = "/proc/self/pagemap hides them from this user";
    check.matters = "physical IOVAs, for devices without an IOMMU";
    check.fix = ::geteuid() == 0 ? "give the container CAP_SYS_ADMIN" : "sudo extmem ...";
  }
  checks.push_back(check);
}

void check_iommu(Checks& checks) {
  const std::size_t units = entries("/sys/class/iommu");
  const std::size_t groups = entries("/sys/kernel/iommu_groups");
  Check check{"Devices", "IOMMU",
              State::ok, fmt::format("{}, {}", plural(units, "unit"), plural(groups, "group")),
              {},        {}};
  if (groups == 0) {
    check.state = State::limited;
    check.found = "none, or not switched on";
    check.matters = "devices that are to see virtual addresses; without one they see physical memory";
    check.fix = "switch it on in the firmware, and boot with intel_iommu=on iommu=pt (AMD: iommu=pt)";
  }
  checks.push_back(check);

  const bool there = ::access("/dev/vfio/vfio", F_OK) == 0;
  const bool ours = ::access("/dev/vfio/vfio", R_OK | W_OK) == 0;
  Check vfio{"Devices", "VFIO", State::ok, "/dev/vfio/vfio can be opened", {}, {}};
  if (!ours) {
    vfio.state = State::limited;
    vfio.found = there ? "/dev/vfio/vfio is closed to this user" : "the driver is not loaded";
    vfio.matters = "drivers in user space behind an IOMMU";
    vfio.fix = there ? as_root() + "chmod 0666 /dev/vfio/vfio" : as_root() + "modprobe vfio-pci";
  } else if (first_line("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode") == "Y") {
    vfio.found += ", also without an IOMMU";
  }
  checks.push_back(vfio);
}

}  // namespace

void check_devices(Checks& checks) {
  check_privileges(checks);
  check_pagemap(checks);
  check_iommu(checks);
}

}  // namespace extmem::cli::doctor
