// Domains and tags.
#include <new>

#include "extmem/extmem.h"
#include "faces/c/convert.hpp"
#include "faces/c/handles.hpp"

using namespace extmem::faces::c;

int extmem::faces::c::put_domain(Domain&& made, extmem_domain_t** domain) noexcept {
  auto* handle = new (std::nothrow) extmem_domain{std::move(made), {}};
  if (handle == nullptr) return fail(ENOMEM, "malloc has no memory for the domain's handle");
  *domain = handle;
  return 0;
}

int extmem_domain_create(const extmem_domain_options_t* options, extmem_domain_t** domain) {
  EXTMEM_C_REQUIRE_OUT(domain);
  extmem::DomainOptions converted;
  EXTMEM_C_TRY(convert(options, converted));
  auto created = extmem::Domain::create(converted);
  if (!created) return fail(created.error());
  return put_domain(std::move(*created), domain);
}

int extmem_domain_close(extmem_domain_t* domain) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  delete domain;
  return 0;
}

int extmem_domain_verify(extmem_domain_t* domain, extmem_breach_fn report, void* arg, size_t* breaches) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(breaches);
  const auto found = domain->domain.verify([report, arg](const extmem::Breach& breach) {
    if (report == nullptr) return;
    const extmem_breach_t converted = to_c(breach);
    report(&converted, arg);
  });
  if (!found) return fail(found.error());
  *breaches = *found;
  return 0;
}

int extmem_domain_get_metadata_bytes(extmem_domain_t* domain, uint64_t* bytes) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(bytes);
  *bytes = domain->domain.metadata_resident_bytes();
  return 0;
}

int extmem_tag_intern(extmem_domain_t* domain, const char* name, extmem_tag_t* tag) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_NAME(name);
  EXTMEM_C_REQUIRE_OUT(tag);
  const auto interned = domain->domain.intern_tag(name);
  if (!interned) return fail(interned.error());
  *tag = interned->index;
  return 0;
}

int extmem_tag_get_name(extmem_domain_t* domain, extmem_tag_t tag, const char** name) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE_OUT(name);
  const auto found = domain->domain.tag_name(extmem::Tag{tag});
  if (!found) return fail(found.error());
  *name = *found;
  return 0;
}
