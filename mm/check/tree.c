// SPDX-License-Identifier: BSD-2-Clause
// The self-check's part on the tree that leads from an mfn to its frame: its nodes, and the pages
// of descriptors below them. It comes first, for who looks up a frame follows the tree blindly.
#include "mm/arena_internal.h"
#include "mm/check/internal.h"
#include "mm/frame_tree.h"

static uint32_t node_count(void)
{
    return (uint32_t)(mm.arena[ARENA_NODES].pages / (sizeof(struct frame_node) / PAGE_SIZE));
}

// The node that the entry for mfn leads to, whose own entries cover 2^order pages each.
static const uint64_t *node_below(struct check *c, uint64_t entry, uint64_t mfn, unsigned order)
{
    uint64_t first = mfn >> (order + NODE_SHIFT) << NODE_SHIFT;
    uint64_t byte = (uintptr_t)tree_below(entry, first) - VA_NODES;
    uint64_t node = byte / sizeof(struct frame_node);

    if (!(entry & NODE_BELOW) || byte % sizeof(struct frame_node) || node < NODE_ROOTS ||
        node >= node_count()) {
        check_blind(c, "A3", "the tree's entry 0x%lx for mfn 0x%lx leads to no node", entry, mfn);
        return NULL;
    }
    c->tree.nodes++;
    return node_at((uint32_t)node)->entry;
}

/* --- descriptors ------------------------------------------------------------------------------ */

static bool is_blank(const frame_t *f, uint64_t word)
{
    const uint64_t *words = (const void *)f;

    return words[0] == word && !(words[1] | words[2] | words[3]);
}

// The pages of a small block behind its first have tails, which say where its head is, and nothing
// else.
static void check_tails(struct check *c, const frame_t *head)
{
    for (uint64_t i = 1; i < frame_pages(head); i++) {
        const frame_t tail = {.tail = i & (FRAME_PAGE_COUNT - 1)};

        EXPECT(c, "A2", is_blank(head + i, frame_word(&tail)),
               "the descriptor of page %lu of frame 0x%lx is no tail of it, or holds more", i,
               (uint64_t)head->mfn);
    }
}

// Descriptor i of those that begin with page mfn; how many pages it stands for.
static uint64_t check_descriptor(struct check *c, const frame_t *f, uint64_t mfn, unsigned i)
{
    if (!f->kind) {
        EXPECT(c, "A2", is_blank(f, 0), "the descriptor of page 0x%lx, in no frame, is not blank",
               mfn + i);
        return 1;
    }
    c->tree.small++;
    if (f->mfn != mfn + i || f->order >= FRAME_PAGE_ORDER || (i & (frame_pages(f) - 1))) {
        check_fail(c, "A2", "page 0x%lx: its descriptor says mfn 0x%lx, order %u", mfn + i,
                   (uint64_t)f->mfn, f->order);
        return 1;
    }
    check_tails(c, f);
    return frame_pages(f);
}

static void check_page(struct check *c, uint64_t entry, uint64_t mfn)
{
    uint64_t byte = (uintptr_t)tree_descriptor(entry, mfn) - VA_FRAMES;
    const frame_t *first = frame_at((uint32_t)(byte / sizeof(frame_t)));

    // The arena's first page holds the heads of the rings.
    if (byte % PAGE_SIZE || !byte || byte / PAGE_SIZE >= mm.arena[ARENA_FRAMES].pages) {
        check_blind(c, "A3", "the tree's entry 0x%lx for mfn 0x%lx leads to no descriptors", entry,
                    mfn);
        return;
    }
    c->tree.pages++;
    for (unsigned i = 0; i < FRAME_PAGE_COUNT;)
        i += (unsigned)check_descriptor(c, first + i, mfn, i);
}

/* --- entries ---------------------------------------------------------------------------------- */

// An entry of 2^step pages that leads to a block with a descriptor of its own.
static void check_block(struct check *c, uint64_t entry, uint64_t mfn, unsigned step)
{
    const frame_t *f = frame_at((uint32_t)entry);

    if (entry <= ORDER_COUNT ||
        entry >= (uint64_t)mm.arena[ARENA_FRAMES].pages * FRAME_PAGE_COUNT) {
        check_blind(c, "A3", "the tree's entry 0x%lx for mfn 0x%lx leads to no descriptor", entry,
                    mfn);
        return;
    }
    EXPECT(c, "A2",
           f->order >= step && (f->order >= NODE_ORDER) == (step == NODE_ORDER) && mfn >= f->mfn &&
               mfn - f->mfn < frame_pages(f),
           "the tree leads from mfn 0x%lx to frame 0x%lx of order %u", mfn, (uint64_t)f->mfn,
           f->order);
}

static void check_lower(struct check *c, const uint64_t *entry, uint64_t mfn)
{
    for (unsigned i = 0; i < NODE_ENTRIES; i++, mfn += FRAME_PAGE_COUNT) {
        if (!entry[i])
            continue;
        if (entry[i] & NODE_BELOW) {
            check_page(c, entry[i], mfn);
            continue;
        }
        c->tree.lower++;
        check_block(c, entry[i], mfn, FRAME_PAGE_ORDER);
    }
}

// `count` entries of 512 MiB each.
static void check_upper(struct check *c, const uint64_t *entry, unsigned count, uint64_t mfn)
{
    for (unsigned i = 0; i < count; i++, mfn += UINT64_C(1) << NODE_ORDER) {
        const uint64_t *lower;

        if (!entry[i])
            continue;
        if (!(entry[i] & NODE_BELOW)) {
            check_block(c, entry[i], mfn, NODE_ORDER);
            continue;
        }
        lower = node_below(c, entry[i], mfn, FRAME_PAGE_ORDER);
        if (lower)
            check_lower(c, lower, mfn);
    }
}

// What lies above the root: its entries have 512 GiB each.
static void check_high(struct check *c, unsigned number)
{
    uint32_t node = mm.high_node[number];
    uint64_t mfn = (uint64_t)number << NODE_TOP_ORDER;

    if (!node)
        return;
    if (node < NODE_ROOTS || node >= node_count()) {
        check_blind(c, "A3", "mm.high_node[%u] is 0x%x, which is no node", number, node);
        return;
    }
    c->tree.nodes++;
    for (unsigned i = 0; i < NODE_ENTRIES; i++, mfn += UINT64_C(1) << NODE_HIGH_ORDER) {
        uint64_t entry = node_at(node)->entry[i];
        const uint64_t *upper = entry ? node_below(c, entry, mfn, NODE_ORDER) : NULL;

        EXPECT(c, "A3", !entry || mfn >> NODE_HIGH_ORDER >= NODE_ROOTS,
               "mfn 0x%lx has a node beside the root", mfn);
        if (upper)
            check_upper(c, upper, NODE_ENTRIES, mfn);
    }
}

/* --- nodes ------------------------------------------------------------------------------------ */

static bool node_is_free(const struct frame_node *node)
{
    uint64_t rest = node->entry[1] ^ NODE_FREE;

    for (unsigned i = 2; i < NODE_ENTRIES; i++)
        rest |= node->entry[i];
    return !rest;
}

// Each node is the root's, in the tree, or free.
static void check_nodes(struct check *c)
{
    const struct arena *a = &mm.arena[ARENA_NODES];
    uint32_t count = 0;

    for (uint64_t i = a->empty; i; i = node_at((uint32_t)i)->entry[0], count++) {
        if (i < NODE_ROOTS || i >= node_count() || count >= node_count()) {
            check_fail(c, "A3", "the list of free nodes leads to 0x%lx, or loops", i);
            break;
        }
        EXPECT(c, "A3", node_is_free(node_at((uint32_t)i)), "free node 0x%lx is not blank", i);
    }
    EXPECT(c, "A4", count == a->free, "%u nodes are free, the count says %u", count, a->free);
    EXPECT(c, "A3", NODE_ROOTS + c->tree.nodes + count == node_count(),
           "%lu nodes are in the tree, %u are free, of %u", NODE_ROOTS + c->tree.nodes, count,
           node_count());
}

void check_tree(struct check *c)
{
    check_upper(c, tree_root(), NODE_ROOTS * NODE_ENTRIES, 0);
    for (unsigned i = 0; i < NODE_HIGH_COUNT; i++)
        check_high(c, i);
    check_nodes(c);
}

// Entries that lead to a block lie within it, so as many as its size asks for are all of them.
// Those of 512 MiB are two at most, and check_place() looks at both.
void check_tree_sums(struct check *c)
{
    EXPECT(c, "A2", c->tree.small == c->small_frames,
           "%lu blocks of less than 512 KiB are in the tree, %lu on the rings", c->tree.small,
           c->small_frames);
    EXPECT(c, "A2", c->tree.lower == c->lower_entries,
           "%lu entries of 512 KiB lead to blocks, these have %lu", c->tree.lower,
           c->lower_entries);
}
