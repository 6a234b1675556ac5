// SPDX-License-Identifier: BSD-2-Clause
// The tree that leads from an mfn to its frame in the same few steps, however many frames there
// are.
#include "lib/string.h"
#include "mm/internal.h"

enum {
    TOP_SHIFT = 29, // an entry of mm.high_node: 2 TiB
    GIB_SHIFT = 18, // an entry of a node below it: 1 GiB
    MFN_BITS = 40,
};

static unsigned node_index(uint64_t mfn, unsigned shift)
{
    return (mfn >> shift) & (NODE_ENTRIES - 1);
}

// The node with an entry per GiB for mfn, NULL if there is none.
static struct frame_node *gib_node(uint64_t mfn)
{
    uint32_t index;

    if (likely(!(mfn >> TOP_SHIFT)))
        return node_at(0);
    if ((mfn >> MFN_BITS) || !mm.high_node)
        return NULL;
    index = node_at(mm.high_node)->entry[node_index(mfn, TOP_SHIFT)];
    return index ? node_at(index) : NULL;
}

frame_t *find_mfn_frame(mfn_t mfn)
{
    const struct frame_node *node = gib_node(mfn.v);
    frame_t *frame;
    uint32_t entry;

    if (unlikely(!node))
        return NULL;
    entry = node->entry[node_index(mfn.v, GIB_SHIFT)];
    if (entry & NODE_BLOCK)
        return frame_at(entry & ~NODE_BLOCK);
    if (unlikely(!entry))
        return NULL;
    entry = node_at(entry)->entry[node_index(mfn.v, FRAME_PAGE_ORDER)];
    if (entry & NODE_BLOCK)
        return frame_at(entry & ~NODE_BLOCK);
    if (unlikely(!entry))
        return NULL;
    frame = frame_at(entry + (mfn.v & (FRAME_PAGE_COUNT - 1)));
    frame -= frame->tail;
    return likely(frame->kind) ? frame : NULL;
}

frame_t *find_paddr_frame(paddr_t paddr)
{
    return find_mfn_frame(paddr_mfn(paddr));
}

uint32_t *tree_entry(uint64_t mfn)
{
    struct frame_node *node = gib_node(mfn);
    uint32_t entry = node ? node->entry[node_index(mfn, GIB_SHIFT)] : 0;

    if (!entry || (entry & NODE_BLOCK))
        return NULL;
    return &node_at(entry)->entry[node_index(mfn, FRAME_PAGE_ORDER)];
}

uint32_t tree_page_descriptor(uint64_t mfn)
{
    const uint32_t *entry = tree_entry(mfn);

    if (!entry || !*entry || (*entry & NODE_BLOCK))
        return 0;
    return *entry + (mfn & (FRAME_PAGE_COUNT - 1));
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

static int fill(uint32_t *entry, uint32_t (*get)(void))
{
    if (!*entry)
        *entry = get();
    return *entry ? 0 : -ENOMEM;
}

int tree_prepare(uint64_t mfn, unsigned order)
{
    uint32_t *entry;

    if (mfn >> TOP_SHIFT) {
        if (fill(&mm.high_node, node_get))
            return -ENOMEM;
        if (fill(&node_at(mm.high_node)->entry[node_index(mfn, TOP_SHIFT)], node_get))
            return -ENOMEM;
    }
    if (order >= GIB_SHIFT)
        return 0;
    entry = &gib_node(mfn)->entry[node_index(mfn, GIB_SHIFT)];
    if (fill(entry, node_get))
        return -ENOMEM;
    if (order >= FRAME_PAGE_ORDER)
        return 0;
    return fill(tree_entry(mfn), page_get);
}

void tree_set(uint64_t mfn, unsigned order, uint32_t index)
{
    uint32_t value = index ? index | NODE_BLOCK : 0;
    uint32_t *entry;

    if (order >= GIB_SHIFT) {
        gib_node(mfn)->entry[node_index(mfn, GIB_SHIFT)] = value;
        return;
    }
    entry = tree_entry(mfn);
    for (uint32_t i = 0; i < 1u << (order - FRAME_PAGE_ORDER); i++)
        entry[i] = value;
}

void tree_split_gib(uint64_t mfn, uint32_t index)
{
    uint32_t node = arena_alloc(ARENA_NODES);

    gib_node(mfn)->entry[node_index(mfn, GIB_SHIFT)] = node;
    tree_set(mfn, GIB_SHIFT - 1, index);
    tree_set(mfn + (UINT64_C(1) << (GIB_SHIFT - 1)), GIB_SHIFT - 1, index);
}

void tree_merge_gib(uint64_t mfn, uint32_t index)
{
    uint32_t *entry = &gib_node(mfn)->entry[node_index(mfn, GIB_SHIFT)];
    uint32_t node = *entry;

    *entry = index | NODE_BLOCK;
    arena_free(ARENA_NODES, node);
}

static bool node_empty(const uint32_t *entry)
{
    for (unsigned i = 0; i < NODE_ENTRIES; i++)
        if (entry[i])
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

static void prune_node(struct frame_node *gibs, uint64_t mfn)
{
    uint32_t *entry = &gibs->entry[node_index(mfn, GIB_SHIFT)];
    uint32_t node = *entry;

    if (!node || (node & NODE_BLOCK) || !node_empty(node_at(node)->entry))
        return;
    *entry = 0;
    arena_free(ARENA_NODES, node);
}

// Above 2 TiB: the 2 TiB's node, if it was made at all, and the one above.
static void prune_high(const struct frame_node *gibs, uint64_t mfn)
{
    struct frame_node *high = node_at(mm.high_node);
    uint32_t *entry = &high->entry[node_index(mfn, TOP_SHIFT)];

    if (!mm.high_node)
        return;
    if (gibs && node_empty(gibs->entry)) {
        arena_free(ARENA_NODES, *entry);
        *entry = 0;
    }
    if (node_empty(high->entry)) {
        arena_free(ARENA_NODES, mm.high_node);
        mm.high_node = 0;
    }
}

void tree_prune(uint64_t mfn)
{
    struct frame_node *gibs = gib_node(mfn);
    uint32_t *entry = tree_entry(mfn);

    if (entry && *entry && !(*entry & NODE_BLOCK) && page_empty(*entry)) {
        frame_page_free(*entry);
        *entry = 0;
    }
    if (gibs)
        prune_node(gibs, mfn);
    if (mfn >> TOP_SHIFT)
        prune_high(gibs, mfn);
}

bool tree_occupied(uint64_t mfn, unsigned order)
{
    uint64_t end = mfn + (UINT64_C(1) << order);
    const uint32_t *entry;

    for (; mfn < end; mfn += FRAME_PAGE_COUNT) {
        if (find_mfn_frame(MFN(mfn)))
            return true;
        entry = tree_entry(mfn);
        if (!entry || !*entry)
            continue;
        for (uint64_t m = mfn; m < MIN(end, mfn + FRAME_PAGE_COUNT); m++)
            if (find_mfn_frame(MFN(m)))
                return true;
    }
    return false;
}
