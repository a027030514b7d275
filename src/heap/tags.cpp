// Tags, and holders: the {participant, tag} pairs that an object's state names.
#include "base/error.hpp"
#include "heap/domain_state.hpp"

namespace extmem::heap {

Result<Tag> DomainState::intern_tag(std::string_view name) noexcept {
  EXTMEM_TRY_VOID(check_name(name));
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
  if (!guard.held())
    return guard.refused(EXTMEM_ERROR(EDEADLK, "tags cannot be made inside a walk over the directory"));
  std::uint32_t index = tags_.find(name);
  if (index == tags_.kNone) {
    auto tx = transaction(slot);
    index = tags_.insert(tx, name, ground_);
    if (index == tags_.kNone)
      return EXTMEM_ERROR(ENOSPC,
                          "no room for another tag: raise DomainOptions::max_tags (or its tmpfs is full)");
    tx.set(tags_[index].holders, 0);
    tx.commit();
  }
  const Tag tag{static_cast<std::uint16_t>(index + 1)};
  EXTMEM_TRY(holder, intern_holder_locked(slot, participants_.self(), tag));
  tag_holders_[tag.index] = holder;
  return tag;
}

Result<std::uint16_t> DomainState::intern_holder_locked(std::uint32_t slot, std::uint32_t participant,
                                                        Tag tag) noexcept {
  if (tag.index == 0)
    return participant == kOrphanOwner ? alloc::kHolderOrphan : alloc::untagged_holder(participant);
  TagName& name = tags_[tag.index - 1u];
  std::uint32_t left = holder_count_;
  for (std::uint32_t link = name.holders; link != 0 && link <= holder_count_ && left != 0;
       link = holders_[link - 1].next, --left) {
    if (holders_[link - 1].participant == participant) return static_cast<std::uint16_t>(link - 1);
  }
  auto tx = transaction(slot);
  const std::uint32_t index = directory_->holders.take(
      tx, [&](std::uint32_t i) -> auto& { return holders_[i].next; });
  if (index == shared::IndexList::kNone || !ground_.ensure_object(holders_[index])) {
    return EXTMEM_ERROR(ENOSPC, "no room for another (process, tag) pair: raise DomainOptions::max_tags");
  }
  HolderRecord& record = holders_[index];
  record.participant = participant;
  record.tag = tag.index;
  tx.set(record.next, name.holders);
  tx.set(name.holders, index + 1);
  tx.commit();
  return static_cast<std::uint16_t>(index);
}

Result<std::uint16_t> DomainState::intern_holder(Tag tag) noexcept {
  if (const std::uint16_t known = holder_of(tag); known != 0 || tag.index == 0) {
    return tag.index == 0 ? core_.untagged() : known;
  }
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
  if (!guard.held())
    return guard.refused(
        EXTMEM_ERROR(EDEADLK, "a tag cannot be used for the first time inside a walk over the directory"));
  EXTMEM_TRY(holder, intern_holder_locked(slot, participants_.self(), tag));
  tag_holders_[tag.index] = holder;
  return holder;
}

Result<const char*> DomainState::tag_name(Tag tag) noexcept {
  if (tag.index == 0) return "";
  if (tag.index > tags_.high()) return EXTMEM_ERROR(ENOENT, "no such tag in this domain");
  return static_cast<const char*>(tags_[tag.index - 1u].name.text);
}

Tag DomainState::holder_tag(std::uint16_t holder) const noexcept {
  if (holder < alloc::kFirstTagHolder || holder >= holder_count_) return {};
  const std::uint32_t tag = holders_[holder].tag;
  return tag > tags_.high() ? Tag{} : Tag{static_cast<std::uint16_t>(tag)};
}

std::uint32_t DomainState::holder_participant(std::uint16_t holder) const noexcept {
  if (holder >= alloc::kFirstTagHolder)
    return holder < holder_count_ ? holders_[holder].participant.get() : 0;
  if (holder == alloc::kHolderOrphan) return kOrphanOwner;
  return holder <= alloc::kHolderMemzone ? 0 : holder - 1u;
}

const char* DomainState::holder_name(std::uint16_t holder) const noexcept {
  const Tag tag = holder_tag(holder);
  if (tag.index == 0) return "";
  const Name& name = tags_[tag.index - 1u].name;
  return name.text[kMaxNameLength] == '\0' ? name.text : "";
}

}  // namespace extmem::heap
