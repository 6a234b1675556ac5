// SPDX-License-Identifier: BSD-2-Clause
// The tree that leads from an mfn to its frame in the same few steps, however many frames there
// are.
#include "mm/frame_tree.h"

#include "lib/string.h"
#include "mm/arena_internal.h"
#include "mm/inject.h"

static bool is_high(uint64_t mfn)
{
    return mfn >> NODE_ORDER >= NODE_ROOTS * NODE_ENTRIES;
}

// Where the entry for mfn's 512 MiB is; NULL if there is no node for it.
static uint64_t *upper_entry(uint64_t mfn)
{
    uint32_t high;
    uint64_t entry;

    if (!is_high(mfn))
        return tree_root() + (mfn >> NODE_ORDER);
    high = mfn >> NODE_MFN_BITS ? 0 : mm.high_node[mfn >> NODE_TOP_ORDER];
    if (!high)
        return NULL;
    entry = node_at(high)->entry[mfn >> NODE_HIGH_ORDER & (NODE_ENTRIES - 1)];
    return entry ? tree_below(entry, mfn >> NODE_ORDER) : NULL;
}

frame_t *tree_find_high(uint64_t mfn)
{
    const uint64_t *entry = upper_entry(mfn);

    return entry ? tree_find_from(*entry, mfn) : NULL;
}

/* --- entries: what they lead to --------------------------------------------------------------- */

// To the node whose entries cover 2^order pages each, for the pages around mfn.
static uint64_t to_node(uint32_t node, uint64_t mfn, unsigned order)
{
    uint64_t first = mfn >> (order + NODE_SHIFT) << NODE_SHIFT;

    return ((uintptr_t)node_at(node) - first * sizeof(uint64_t)) | NODE_BELOW;
}

static uint32_t node_of(uint64_t entry, uint64_t mfn, unsigned order)
{
    uint64_t first = mfn >> (order + NODE_SHIFT) << NODE_SHIFT;

    return (uint32_t)((const struct frame_node *)tree_below(entry, first) - node_at(0));
}

static uint64_t to_page(uint32_t index, uint64_t mfn)
{
    uint64_t first = ROUND_DOWN(mfn, FRAME_PAGE_COUNT);

    return ((uintptr_t)frame_at(index) - first * sizeof(frame_t)) | NODE_BELOW;
}

// Where the entry for mfn's 512 KiB is; NULL if there is no node for it.
static uint64_t *lower_entry(uint64_t mfn)
{
    const uint64_t *entry = upper_entry(mfn);

    return entry && *entry & NODE_BELOW ? tree_below(*entry, mfn >> FRAME_PAGE_ORDER) : NULL;
}

uint32_t tree_page_descriptor(uint64_t mfn)
{
    const uint64_t *entry = lower_entry(mfn);

    return entry && *entry & NODE_BELOW ? frame_index(tree_descriptor(*entry, mfn)) : 0;
}

/* --- made and set ----------------------------------------------------------------------------- */

int tree_setup(void)
{
    int err = 0;

    for (unsigned i = 0; i < NODE_ROOTS && !err; i++)
        err = arena_grow(ARENA_NODES);
    return err;
}

// A node from stock, at boot also by growing; 0 if there is none.
static uint32_t node_get(void)
{
    if (inject_failure() || (mm.arena[ARENA_NODES].free <= reserve(RESERVE_NODES) &&
                             (mm.live || arena_grow(ARENA_NODES))))
        return 0;
    return arena_alloc(ARENA_NODES);
}

static uint32_t page_get(void)
{
    if (inject_failure() || (mm.arena[ARENA_FRAMES].free <= reserve(RESERVE_FRAME_PAGES) &&
                             (mm.live || arena_grow(ARENA_FRAMES))))
        return 0;
    return frame_page_alloc();
}

// A node whose entries cover 2^order pages each, if nothing is there yet.
static int fill(uint64_t *entry, uint64_t mfn, unsigned order)
{
    uint32_t node = *entry ? 0 : node_get();

    if (node)
        *entry = to_node(node, mfn, order);
    return *entry ? 0 : -ENOMEM;
}

static int prepare_high(uint64_t mfn)
{
    uint32_t *high = &mm.high_node[mfn >> NODE_TOP_ORDER];

    if (!*high)
        *high = node_get();
    if (!*high)
        return -ENOMEM;
    return fill(&node_at(*high)->entry[mfn >> NODE_HIGH_ORDER & (NODE_ENTRIES - 1)], mfn,
                NODE_ORDER);
}

int tree_prepare(uint64_t mfn, unsigned order)
{
    uint64_t *entry;
    uint32_t page;

    if (is_high(mfn) && prepare_high(mfn))
        return -ENOMEM;
    if (order >= NODE_ORDER)
        return 0;
    if (fill(upper_entry(mfn), mfn, FRAME_PAGE_ORDER))
        return -ENOMEM;
    entry = lower_entry(mfn);
    if (order >= FRAME_PAGE_ORDER || *entry)
        return 0;
    page = page_get();
    if (page)
        *entry = to_page(page, mfn);
    return page ? 0 : -ENOMEM;
}

void tree_set(uint64_t mfn, unsigned order, uint32_t index)
{
    unsigned step = order >= NODE_ORDER ? NODE_ORDER : FRAME_PAGE_ORDER;
    uint64_t *entry = order >= NODE_ORDER ? upper_entry(mfn) : lower_entry(mfn);

    for (uint32_t i = 0; i < 1u << (order - step); i++)
        entry[i] = index;
}

void tree_set_page(uint64_t mfn, uint32_t index)
{
    *lower_entry(mfn) = to_page(index, mfn);
}

void tree_split(uint64_t mfn, uint32_t index)
{
    *upper_entry(mfn) = to_node(arena_alloc(ARENA_NODES), mfn, FRAME_PAGE_ORDER);
    tree_set(mfn, NODE_ORDER - 1, index);
    tree_set(mfn + (UINT64_C(1) << (NODE_ORDER - 1)), NODE_ORDER - 1, index);
}

void tree_merge(uint64_t mfn, uint32_t index)
{
    uint64_t *entry = upper_entry(mfn);
    uint32_t node = node_of(*entry, mfn, FRAME_PAGE_ORDER);

    *entry = index;
    arena_free(ARENA_NODES, node);
}

/* --- given back ------------------------------------------------------------------------------- */

static bool node_empty(uint32_t node)
{
    for (unsigned i = 0; i < NODE_ENTRIES; i++)
        if (node_at(node)->entry[i])
            return false;
    return true;
}

static bool page_empty(uint32_t index)
{
    for (unsigned i = 0; i < FRAME_PAGE_COUNT; i++)
        if (frame_at(index + i)->kind)
            return false;
    return true;
}

// Frees the node that the entry leads to, whose entries cover 2^order pages each, if it is empty.
static void prune_node(uint64_t *entry, uint64_t mfn, unsigned order)
{
    uint32_t node;

    if (!entry || !(*entry & NODE_BELOW))
        return;
    node = node_of(*entry, mfn, order);
    if (!node_empty(node))
        return;
    *entry = 0;
    arena_free(ARENA_NODES, node);
}

static void prune_high(uint64_t mfn)
{
    uint32_t *high = &mm.high_node[mfn >> NODE_TOP_ORDER];

    if (!*high)
        return;
    prune_node(&node_at(*high)->entry[mfn >> NODE_HIGH_ORDER & (NODE_ENTRIES - 1)], mfn,
               NODE_ORDER);
    if (node_empty(*high)) {
        arena_free(ARENA_NODES, *high);
        *high = 0;
    }
}

void tree_prune(uint64_t mfn)
{
    uint64_t *entry = lower_entry(mfn);
    uint32_t index = tree_page_descriptor(ROUND_DOWN(mfn, FRAME_PAGE_COUNT));

    if (index && page_empty(index)) {
        frame_page_free(index);
        *entry = 0;
    }
    prune_node(upper_entry(mfn), mfn, FRAME_PAGE_ORDER);
    if (is_high(mfn))
        prune_high(mfn);
}

bool tree_occupied(uint64_t mfn, unsigned order)
{
    uint64_t end = mfn + (UINT64_C(1) << order);

    for (; mfn < end; mfn += FRAME_PAGE_COUNT) {
        if (find_mfn_frame(MFN(mfn)))
            return true;
        if (!tree_page_descriptor(mfn))
            continue;
        for (uint64_t m = mfn; m < MIN(end, mfn + FRAME_PAGE_COUNT); m++)
            if (find_mfn_frame(MFN(m)))
                return true;
    }
    return false;
}
