// A process that does with a named domain what its standard input says, and answers line by line.
//
// Commands are words between blanks; the answer is "ok ..." or "error ERRNO message". Domains and heaps are opened by
// name as a stranger would do it; pointers travel as RegionPtr bits. tests/contract/companion.hpp is the other end.
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "contract/companion/images.hpp"
#include "contract/companion/surroundings.hpp"
#include "contract/descriptors.hpp"
#include "contract/memory.hpp"
#include "extmem/domain.hpp"
#include "heap/live_domains.hpp"

namespace extmem::test {
namespace {

Domain domain;
Heap heap;

std::string refused(Error error) { return "error " + std::to_string(error.code()) + " " + error.message(); }
std::string refused(int code) { return "error " + std::to_string(code) + " " + std::strerror(code); }
std::string answer(const Result<void>& result) { return result ? "ok" : refused(result.error()); }
template <typename T, typename Tell>
std::string answer(const Result<T>& result, Tell tell) {
  if (!result) return refused(result.error());
  std::ostringstream out;
  out << "ok ";
  tell(out, *result);
  return out.str();
}
std::string answer_of(int failed) { return failed == 0 ? "ok" : refused(errno); }

void* at(std::uint64_t bits) { return domain.from_region_ptr(RegionPtr{bits}).value_or(nullptr); }

std::string open_domain(std::istream& in) {
  std::string name, directory, mode, flag;
  in >> name >> directory >> mode;
  OpenOptions options;
  options.directory = directory.c_str();
  if (mode == "only") options.mode = OpenMode::open_only;
  if (mode == "create") options.mode = OpenMode::create_only;
  while (in >> flag) {
    options.remove_when_last |= flag == "last";
    options.group |= flag == "group";
    options.same_address |= flag == "same";
  }
  auto opened = Domain::open(name, options);
  if (!opened) return refused(opened.error());
  domain = std::move(*opened);
  return "ok " + std::to_string(domain.participant());
}

std::string allocate(std::istream& in) {
  std::size_t size = 0, align = 0, seed = 0;
  std::string tag_name;
  in >> size >> align >> seed >> tag_name;
  AllocOptions options;
  options.align = align;
  if (!tag_name.empty()) {
    auto tag = domain.intern_tag(tag_name);
    if (!tag) return refused(tag.error());
    options.tag = *tag;
  }
  auto p = heap.allocate(size, options);
  if (!p) return refused(p.error());
  fill(*p, size, seed);
  return answer(domain.to_region_ptr(*p), [](auto& out, RegionPtr ptr) { out << ptr.bits; });
}

std::string check(std::istream& in) {
  std::uint64_t bits = 0;
  std::size_t size = 0, seed = 0;
  in >> bits >> size >> seed;
  void* const p = at(bits);
  if (p == nullptr) return refused(EFAULT);
  return is_filled(p, size, seed) ? "ok" : refused(EBADMSG);
}

std::string add(std::istream& in) {
  std::string kind, path;
  BackingSpec spec;
  std::string flag;
  in >> kind >> spec.length >> path >> flag;
  spec.unlink_on_remove = flag == "unlink";
  spec.kind = kind == "memfd"  ? BackingKind::memfd
              : kind == "file" ? BackingKind::file
              : kind == "shm"  ? BackingKind::shm
                               : BackingKind::anonymous;
  if (!path.empty()) spec.path = path.c_str();
  return answer(domain.add_backing(heap, spec),
                [](auto& out, RegionId id) { out << id.slot << ' ' << id.generation; });
}

RegionId region_from(std::istream& in) {
  RegionId id;
  in >> id.slot >> id.generation;
  return id;
}

/// A tmpfs of its own for this process: nobody else sees it, and it goes with the process.
std::string mount_tmpfs(std::istream& in) {
  std::string folder, size;
  in >> folder >> size;
  if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return refused(errno);
  return answer_of(::mount("extmem-test", folder.c_str(), "tmpfs", 0, ("mode=0700,size=" + size).c_str()));
}

std::string become(std::istream& in) {
  uid_t uid = 0;
  gid_t gid = 0;
  in >> uid >> gid;
  return answer_of(::setgroups(0, nullptr) != 0 || ::setresgid(gid, gid, gid) != 0 ||
                   ::setresuid(uid, uid, uid) != 0);
}

/// Takes addresses away, so that a region of another process cannot be mapped where that one has it.
std::string occupy(std::istream& in) {
  std::uintptr_t base = 0;
  std::size_t length = 0;
  in >> base >> length;
  const void* const p = ::mmap(reinterpret_cast<void*>(base), length, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
  return answer_of(p == MAP_FAILED);
}

std::string vacate(std::istream& in) {
  std::uintptr_t base = 0;
  std::size_t length = 0;
  in >> base >> length;
  return answer_of(::munmap(reinterpret_cast<void*>(base), length));
}

int received = -1;

/// Maps a region from the descriptor that came over a socket.
std::string attach_file(std::istream& in) {
  const RegionId region = region_from(in);
  std::uint64_t offset = 0;
  in >> offset;
  return answer(domain.attach_region_file(region, received, offset));
}

std::string user_data(std::istream&) {
  return answer(heap.info(), [](auto& out, const HeapInfo& info) { out << info.user_data; });
}

int answer_to_reclaiming = 0;

/// From now on this process answers `reclaiming` with that errno value.
std::string listen(std::istream& in) {
  static bool registered = false;
  in >> answer_to_reclaiming;
  if (registered) return "ok";
  registered = true;
  return answer(domain.add_listener(
      [](const RegionEvent& event, void*) {
        return event.kind == RegionEventKind::reclaiming ? answer_to_reclaiming : 0;
      },
      nullptr));
}

std::string stats(std::istream&) {
  return answer(heap.stats(), [](auto& out, const HeapStats& s) {
    out << s.used_count << ' ' << s.used_bytes << ' ' << s.total_bytes;
  });
}

std::string tag_count(std::istream& in) {
  std::string name;
  in >> name;
  std::vector<TagStats> all(heap.tag_stats({}).value_or(0));
  if (auto told = heap.tag_stats(all); !told) return refused(told.error());
  for (const TagStats& tag : all) {
    if (name == tag.name) return "ok " + std::to_string(tag.live_count);
  }
  return "ok 0";
}

std::string zone(std::istream& in, bool reserve) {
  std::string name;
  std::size_t length = 0;
  in >> name >> length;
  auto found = reserve ? domain.reserve_memzone(heap, name, length) : domain.find_memzone(name);
  return answer(found,
                [](auto& out, const MemzoneInfo& info) { out << info.ptr.bits << ' ' << info.length; });
}

std::string many(std::istream& in) {
  std::size_t count = 0, size = 0;
  in >> count >> size;
  for (std::size_t i = 0; i < count; ++i) {
    if (auto p = heap.allocate(size); !p) return refused(p.error());
  }
  return "ok";
}

std::string holders_of_removal(std::istream& in) {
  HolderReport report;
  if (auto removed = domain.remove_region(region_from(in), &report); !removed)
    return refused(removed.error());
  return "ok";
}

using Command = std::function<std::string(std::istream&)>;
const std::map<std::string, Command>& commands() {
  static const std::map<std::string, Command> all = {
      {"open", open_domain},
      {"close", [](std::istream&) { return heap = Heap(), domain = Domain(), std::string("ok"); }},
      {"heap",
       [](std::istream& in) {
         std::string name;
         in >> name;
         auto found = domain.find_heap(name);
         if (found) heap = *found;
         return found ? "ok" : refused(found.error());
       }},
      {"heap_new",
       [](std::istream& in) {
         std::string name;
         in >> name;
         auto made = domain.create_heap(name);
         if (made) heap = *made;
         return made ? "ok" : refused(made.error());
       }},
      {"allocate", allocate},
      {"many", many},
      {"allocate_in",
       [](std::istream& in) {
         AllocOptions options;
         options.region = region_from(in);
         std::size_t size = 0;
         in >> size;
         return answer(heap.allocate(size, options),
                       [](auto& out, void* p) { out << domain.to_region_ptr(p).value_or(RegionPtr{}).bits; });
       }},
      {"free",
       [](std::istream& in) {
         std::uint64_t bits = 0;
         in >> bits;
         void* const p = at(bits);
         return p == nullptr ? refused(EFAULT) : answer(domain.deallocate(p));
       }},
      {"check", check},
      {"address",
       [](std::istream& in) {
         std::uint64_t bits = 0;
         in >> bits;
         return answer(domain.from_region_ptr(RegionPtr{bits}),
                       [](auto& out, void* p) { out << reinterpret_cast<std::uintptr_t>(p); });
       }},
      {"hand_over",
       [](std::istream& in) {
         std::uint64_t bits = 0;
         std::uint32_t to = 0;
         in >> bits >> to;
         return answer(domain.hand_over(at(bits), to));
       }},
      {"add", add},
      {"remove", holders_of_removal},
      {"drain",
       [](std::istream& in) {
         return answer(domain.drain_region(region_from(in), std::chrono::seconds(5)));
       }},
      {"zone_reserve", [](std::istream& in) { return zone(in, true); }},
      {"zone_find", [](std::istream& in) { return zone(in, false); }},
      {"stats", stats},
      {"tag_count", tag_count},
      {"poll", [](std::istream&) { return answer(domain.poll()); }},
      {"recover",
       [](std::istream&) {
         return answer(domain.recover(), [](auto& out, const RecoveryReport& r) {
           out << r.participants << ' ' << r.freed_objects << ' ' << r.withheld_objects;
         });
       }},
      {"verify",
       [](std::istream&) { return answer(domain.verify(), [](auto& out, std::size_t n) { out << n; }); }},
      {"participants",
       [](std::istream&) {
         std::string list = "ok";
         auto told = domain.walk_participants([&](const ParticipantInfo& one) {
           list += " " + std::to_string(one.id) + (one.dead ? "dead" : "");
           return true;
         });
         return told ? list : refused(told.error());
       }},
      {"domains",
       [](std::istream& in) {
         std::string directory, list = "ok";
         in >> directory;
         auto told = Domain::list(
             [&](const DomainInfo& one) {
               list += std::string(" ") + one.name + "/" + std::to_string(one.participants);
               return true;
             },
             directory.c_str());
         return told ? list : refused(told.error());
       }},
      {"replace_descriptors", replace_descriptors},
      {"replaced_bytes", replaced_bytes},
      {"limit", limit},
      {"without_proc", without_proc},
      {"move_folder", move_folder},
      {"change_root", change_root},
      {"fork",  // and go on as the child
       [](std::istream&) {
         const pid_t child = ::fork();
         if (child > 0) {
           ::waitpid(child, nullptr, 0);
           ::_exit(0);
         }
         ::prctl(PR_SET_PDEATHSIG, SIGKILL);
         return answer_of(child < 0);
       }},
      {"mount", mount_tmpfs},
      {"become", become},
      {"occupy", occupy},
      {"vacate", vacate},
      {"remove_domain",
       [](std::istream& in) {
         std::string name, directory;
         in >> name >> directory;
         return answer(Domain::remove(name, directory.c_str()));
       }},
      {"user_data", user_data},
      {"receive",
       [](std::istream& in) {
         int socket = -1;
         in >> socket;
         if (received >= 0) ::close(received);
         received = receive_descriptor(socket);
         return answer_of(received < 0);
       }},
      {"attach_file", attach_file},
      {"listen", listen},
      {"region_base",
       [](std::istream& in) {
         return answer(domain.region_info(region_from(in)), [](auto& out, const RegionInfo& info) {
           out << reinterpret_cast<std::uintptr_t>(info.base);
         });
       }},
      {"attach",
       [](std::istream& in) {
         const RegionId region = region_from(in);
         std::uintptr_t base = 0;
         in >> base;
         return answer(domain.attach_region(region, reinterpret_cast<void*>(base)));
       }},
      {"end_now", [](std::istream&) { return heap::end_now(), std::string("ok"); }},
      {"end_by_exec", [](std::istream&) { return heap::end_by_exec(), std::string("ok"); }},
      {"exec", become_anew},
      {"child", have_child},
      {"copy_open", open_by_copy},
      {"copy_hold", hold_by_copy},
      {"copy_close", close_by_copy},
      {"leave_by_exit", [](std::istream&) { return std::exit(0), std::string(); }},
      {"die", [](std::istream&) { return ::raise(SIGKILL), std::string(); }},
  };
  return all;
}

}  // namespace
}  // namespace extmem::test

int main(int argc, char** argv) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (argc > 1) std::cout << "ok " << argv[1] << std::endl;  // what has become this reads no line before that
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream in(line);
    std::string word;
    in >> word;
    const auto found = extmem::test::commands().find(word);
    std::cout << (found == extmem::test::commands().end() ? "error 38 no such command: " + word
                                                          : found->second(in))
              << std::endl;
  }
}
