// Named domains and the processes that share them.
#include "extmem/extmem_process.h"

#include <new>

#include "faces/c/convert.hpp"
#include "faces/c/handles.hpp"

using namespace extmem::faces::c;

int extmem_domain_open(const char* name, const extmem_open_options_t* options, extmem_domain_t** domain) {
  EXTMEM_C_REQUIRE_NAME(name);
  EXTMEM_C_REQUIRE_OUT(domain);
  extmem::OpenOptions converted;
  EXTMEM_C_TRY(convert(options, converted));
  auto opened = extmem::Domain::open(name, converted);
  if (!opened) return fail(opened.error());
  return put_domain(std::move(*opened), domain);
}

int extmem_domain_remove(const char* name, const char* directory) {
  EXTMEM_C_REQUIRE_NAME(name);
  return to_errno(extmem::Domain::remove(name, directory));
}

int extmem_domain_list(const char* directory, extmem_domain_visit_fn visit, void* arg) {
  EXTMEM_C_REQUIRE_VISITOR(visit);
  int stopped = 0;
  EXTMEM_C_TRY(to_errno(extmem::Domain::list(
      [&](const extmem::DomainInfo& info) {
        const extmem_domain_info_t converted = to_c(info);
        stopped = visit(&converted, arg);
        return stopped == 0;
      },
      directory)));
  return stopped;
}

int extmem_domain_is_named(extmem_domain_t* domain, bool* named) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(named);
  *named = domain->domain.is_named();
  return 0;
}

int extmem_domain_get_participant(extmem_domain_t* domain, uint32_t* participant) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(participant);
  *participant = domain->domain.participant();
  return 0;
}

int extmem_participant_walk(extmem_domain_t* domain, extmem_participant_visit_fn visit, void* arg) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_VISITOR(visit);
  int stopped = 0;
  EXTMEM_C_TRY(to_errno(domain->domain.walk_participants([&](const extmem::ParticipantInfo& info) {
    const extmem_participant_info_t converted = to_c(info);
    stopped = visit(&converted, arg);
    return stopped == 0;
  })));
  return stopped;
}

int extmem_domain_recover(extmem_domain_t* domain, extmem_recovery_report_t* report, size_t report_size) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_TRY(require_optional_report(report, report_size));
  const auto recovered = domain->domain.recover();
  if (!recovered) return fail(recovered.error());
  if (report != nullptr) store(to_c(*recovered), report, report_size);
  return 0;
}

int extmem_domain_poll(extmem_domain_t* domain) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  return to_errno(domain->domain.poll());
}

int extmem_object_hand_over(extmem_domain_t* domain, const void* p, uint32_t participant) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  return to_errno(domain->domain.hand_over(p, participant));
}

int extmem_region_attach(extmem_domain_t* domain, extmem_region_id_t region, void* base) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE(base != nullptr, "base is NULL; pass where the region's memory is mapped in this process");
  return to_errno(domain->domain.attach_region(from_c(region), base));
}

int extmem_region_attach_file(extmem_domain_t* domain, extmem_region_id_t region, int fd, uint64_t offset) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  return to_errno(domain->domain.attach_region_file(from_c(region), fd, offset));
}

int extmem_region_detach(extmem_domain_t* domain, extmem_region_id_t region) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  return to_errno(domain->domain.detach_region(from_c(region)));
}

int extmem_domain_place_backings(extmem_domain_t* domain, uint64_t lowest) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  return to_errno(domain->domain.place_backings(lowest));
}
