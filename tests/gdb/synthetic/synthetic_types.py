# SPDX-License-Identifier: BSD-2-Clause
# The kernel's structs and enums for tests without a kernel; check_types.py holds them against the real ones.
"""FakeTypes: layout.Types from the tables below, laid out as the C compiler does."""

from __future__ import annotations

from ktf.errors import KtfError
from ktf.kernel.layout import FieldDesc, Symbol, TypeDesc

# Members in order: "u4 next" an integer of 4 bytes, "u8 order:5 tail:7" bit-fields of one, "u4*512 entry" an array,
# "c*22 name" characters, "struct region*64 region" structs; "packed" alone: without gaps.
STRUCTS = {
    "frame_t": [
        "u8 kind:4 order:5 level:3 mfn:40 zero:5 tail:7",
        "u4 next",
        "u4 prev",
        "u4 refcount",
        "u4 mapcount",
        "u4 maps",
        "u4 slot",
    ],
    "mapping_t": [
        "u4 next",
        "u4 prev",
        "u4 at",
        "u4 attr:6 level:2 refs:24",
        "u4 offset:18 order:5 home:5 home_level:2 home_odd:1 home_1g:1",
    ],
    "space_t": [
        "u4 next",
        "u4 prev",
        "u4 root",
        "u4 id",
        "u8 cr3",
        "u8 tables",
        "u1 levels",
        "u1 live",
        "c*22 name",
        "u8 cpus",
        "struct recent_table*2 recent",
    ],
    "struct recent_table": ["u8 va", "u8 table", "u8 count", "u4 at", "u4 zero"],
    "struct arena_page": [
        "u8 zero",
        "u4 next",
        "u4 prev",
        "u8 zero2",
        "u4 magic:24 used:8",
        "u4 free",
    ],
    "struct frame_node": ["u8*1024 entry"],
    "struct table": [
        "u8 va",
        "u4 frame",
        "u4 parent",
        "u4 space",
        "u2 index",
        "u2 used",
        "u1 level",
        "u1 pins",
        "u2 stock",
        "u4 zero",
    ],
    "struct shadow": ["u4*512 entry"],
    "struct arena": [
        "u8 base",
        "u8 limit",
        "u4 unit",
        "u4 size",
        "u4 pages",
        "u4 boot",
        "u4 free",
        "u4 low",
        "u4 partial",
        "u4 empty",
    ],
    "struct order_list": ["u4 head", "u4 free", "u4 used", "u4 last_free", "u8 refs", "u8 zero"],
    "struct record_cache": ["u4 head", "u4 count"],
    "vaddr_t": ["u8 v"],
    "struct stack_info": ["vaddr_t bottom", "vaddr_t top", "c*16 name"],
    "struct mtrr": [
        "u8 cap",
        "u8 def_type",
        "u8*11 fixed",
        "u8*32 base",
        "u8*32 mask",
        "u8 limit",
        "u4 count",
        "u4 zero",
    ],
    "struct idt_gate": [
        "u2 offset_low",
        "u2 selector",
        "u1 ist",
        "u1 type",
        "u2 offset_middle",
        "u4 offset_high",
        "u4 reserved",
    ],
    "struct tss": [
        "packed",
        "u4 reserved0",
        "u8*3 rsp",
        "u8 reserved1",
        "u8*7 ist",
        "u8 reserved2",
        "u2 reserved3",
        "u2 io_map",
    ],
    "struct probe_fault": ["u8 vector", "u8 error", "u8 address"],
    "struct cpu_work": ["u8 fn", "u8 arg", "u4 given", "u4 done", "u4 waiter"],
    "struct percpu": [
        "u4 number",
        "u4 token",
        "u8 others",
        "u8 journal",
        "u4 held",
        "u4 apic_id",
        "u4 noise",
        "u4 reported",
        "u4 rest",
        "u4 unparked",
        "struct probe_fault probe",
        "struct cpu_work work",
    ],
    "struct region": ["u8 start", "u8 end", "u4 kind", "u4 zero"],
    "struct spinlock": ["u4 waiting", "u4 owner", "u8 sleepers", "u4 rank", "u4 inside"],
    "struct tlb_run": ["u8 mfn", "u8 pages"],
    "struct tlb_batch": [
        "u4 pending",
        "u4 all",
        "u4 count",
        "u4 tables",
        "u4 zero",
        "u4 records",
        "u8 cpus",
        "u8*32 va",
        "u8 runs",
        "struct tlb_run*32 run",
    ],
    "struct mm_cpu": ["u4 online", "u4 space", "u4 asked", "u4 flushed"],
    "struct journal_event": [
        "u8 seq",
        "u8 caller",
        "u8 va",
        "u8 kind:4 order:5 level:3 mfn:40 zero:5 tail:7",
        "u4 refcount",
        "u4 mapcount",
        "u4 op",
        "u4 count",
        "u8*2 zero2",
    ],
    "struct mm": [
        "u8 magic",
        "struct spinlock map_lock",
        "struct spinlock frame_lock",
        "struct arena*6 arena",
        "struct order_list*19 order",
        "struct record_cache records",
        "u4*8 high_node",
        "u4 space_list",
        "u4 free_slot",
        "u4 slot_count",
        "u4 free_slots",
        "u4 stock_slot",
        "u4 stock_count",
        "u4 next_space",
        "u4 live",
        "u4 busy",
        "u4 check_every",
        "u4 operations",
        "u4 checking",
        "u4 work",
        "u4 root_ready",
        "u8 window",
        "u8 phys_limit",
        "u4 levels",
        "u4 page_1g",
        "u4 epoch",
        "u4 region_count",
        "u8 boot_ticks",
        "u4 wb_kinds",
        "u4 boot_pages",
        "u8 frame_limit",
        "u8 journal_seq",
        "u4 journal_on",
        "u4 zero2",
        "u8*64*2 leaf_bits",
        "struct tlb_batch batch",
        "struct mm_cpu*64 cpu",
        "struct region*1088 region",
    ],
}

KINDS = (
    "NONE AVAILABLE TABLE METADATA RESERVED ACPI NVS BAD BOOT IMAGE TEXT RODATA DATA BSS LOW DEVICE"
).split()
ARENAS = "FRAMES MAPPINGS NODES TABLES SHADOWS SPACES".split()
OPS = (
    "NONE GET REF PUT MAP UNMAP PROTECT MAP_RANGE PUT_RANGE SPLIT MERGE SHOOTDOWN MAP_FRAMES PUT_FRAMES"
    " SPACE_CREATE SPACE_DESTROY"
).split()
ENUMS = {
    "idt_gate_type": {"IDT_GATE_INTERRUPT": 0x8E, "IDT_GATE_RING_3": 0x60},
    "journal_op": {**{f"JOURNAL_{o}": i for i, o in enumerate(OPS)}, "JOURNAL_OP_COUNT": 16},
    "frame_kind": {**{f"FRAME_{k}": i for i, k in enumerate(KINDS)}, "FRAME_KIND_COUNT": 16},
    "memtype": {
        **{f"MEMTYPE_{k}": i for i, k in enumerate("WB WT UCM UC WP WC".split())},
        "MEMTYPE_COUNT": 6,
    },
    "cache_type": {
        "CACHE_UC": 0,
        "CACHE_WC": 1,
        "CACHE_WT": 4,
        "CACHE_WP": 5,
        "CACHE_WB": 6,
        "CACHE_UC_MINUS": 7,
        "CACHE_MIXED": 8,
    },
    "mtrr_bits": {
        "MTRR_CAP_COUNT": 0xFF,
        "MTRR_CAP_FIXED": 1 << 8,
        "MTRR_DEF_TYPE": 0xFF,
        "MTRR_DEF_FIXED": 1 << 10,
        "MTRR_DEF_ENABLE": 1 << 11,
        "MTRR_MASK_VALID": 1 << 11,
    },
    "vattr": {
        "VATTR_R": 0,
        "VATTR_W": 1,
        "VATTR_X": 2,
        "VATTR_U": 4,
        "VATTR_WB": 64,
        "VATTR_WT": 8,
        "VATTR_UCM": 16,
        "VATTR_UC": 24,
        "VATTR_WP": 32,
        "VATTR_WC": 40,
        "VATTR_PERM": 7,
        "VATTR_TYPE_SHIFT": 3,
        "VATTR_TYPE": 56,
        "VATTR_ALL": 63,
    },
    "lock_rank": {
        "RANK_KMALLOC": 0,
        "RANK_MAP": 1,
        "RANK_FRAME": 2,
        "RANK_CONSOLE": 3,
        "RANK_COUNT": 4,
    },
    "mm_work": {"MM_GROW": 1, "MM_TRIM": 2, "MM_CHECK": 4, "MM_WORK": 7},
    "arena_id": {**{f"ARENA_{k}": i for i, k in enumerate(ARENAS)}, "ARENA_COUNT": 6},
}
CONSTANTS = {
    "ARENA_PAGE_OBJECTS": 0x4F424A,
    "ARENA_PAGE_EMPTY": 0x465245,
    "SPACE_LIVE": 0xA5,
    "VECTOR_USER_EXIT": 0x80,
    "IST_DOUBLE_FAULT": 1,
    "IST_NMI": 2,
    "IST_MACHINE_CHECK": 3,
    "JOURNAL_CPUS": 64,
    "JOURNAL_BYTES": 8 * 64,
    "STOCK_FRAME_PAGES": 4,
    "STOCK_NODES": 1,
    "STOCK_MAPPINGS": 48,
}
IMAGE = 0xFFFFFFFF80000000
MM_VA = IMAGE + 0x230000
# Variables besides mm: place, bytes.
SYMBOLS = {
    "rings": (IMAGE + 0x210000, 64 * 8 * 64),  # 8 events for each CPU
    "journal_ring": (IMAGE + 0x218000, 64 * 8),  # where each CPU's are
    "memtype_pat": (IMAGE + 0x220000, 8),
    "stacks": (IMAGE + 0x22C000, 272 * 32),
    "stack_count": (IMAGE + 0x22F000, 4),
    "mtrr": (IMAGE + 0x22F100, 640),
    "cpu_cr4": (IMAGE + 0x22F800, 8),
    "idt": (IMAGE + 0x23A000, 4096),
    "gdt": (IMAGE + 0x23B000, 4096),
    "tss": (IMAGE + 0x23C000, 64 * 104),
    "percpu": (IMAGE + 0x23DA00, 64 * 104),
    "vector_stubs": (IMAGE + 0x210000, 16 * 256),
    "smp_up": (IMAGE + 0x22F808, 4),
    "ipi_ready": (IMAGE + 0x22F818, 1),
    "boot_stack_bottom": (IMAGE + 0x23F800, 1),
    "boot_stack_top": (IMAGE + 0x23FC00, 1),
    "kernel_cr3": (IMAGE + 0x22F810, 8),
    "mm_init": (IMAGE + 0x211000, 256),
    "boot_l4": (0x202000, 4096),
    "cpu_park": (IMAGE + 0x213000, 64),
    "ap_long": (0x208000, 1),
    "ap_high": (IMAGE + 0x212000, 1),
    "image_text_start": (IMAGE + 0x210000, 1),
    "image_text_end": (IMAGE + 0x220000, 1),
    "image_rodata_start": (IMAGE + 0x220000, 1),
    "image_rodata_end": (IMAGE + 0x228000, 1),
    "image_data_start": (IMAGE + 0x228000, 1),
    "image_data_end": (IMAGE + 0x22C000, 1),
    "image_bss_start": (IMAGE + 0x22C000, 1),
    "image_bss_end": (IMAGE + 0x240000, 1),
}


class FakeTypes:
    """What a symbol file would say."""

    def __init__(self) -> None:
        self.made: dict[str, TypeDesc] = {}

    def struct(self, name: str) -> TypeDesc:
        """See layout.Types."""
        if name not in STRUCTS:
            raise KtfError(f"the symbols have no {name}")
        if name not in self.made:
            self.made[name] = self._make(name)
        return self.made[name]

    def _make(self, name: str) -> TypeDesc:
        fields: list[FieldDesc] = []
        at, align = 0, 1
        lines = STRUCTS[name]
        packed = lines[0] == "packed"
        for line in lines[packed:]:
            kind, _, members = line.rpartition(" ") if ":" not in line else line.partition(" ")
            desc, step = self._type(kind)
            step = 1 if packed else step
            align = max(align, step)
            at = -(-at // step) * step
            bit = 0
            for member in members.split():
                label, _, bits = member.partition(":")
                fields.append(FieldDesc(label, at * 8 + bit, int(bits or 0), desc))
                bit += int(bits or 0)
            at += desc.size
        return TypeDesc("struct", -(-at // align) * align, name, fields=tuple(fields))

    def _type(self, text: str) -> tuple[TypeDesc, int]:
        """A member's type and its alignment."""
        base, star, count = text.rpartition("*")
        if star:
            element, step = self._type(base)
            return TypeDesc("array", element.size * int(count), text, element=element), step
        if text == "c":
            return TypeDesc("char", 1, "char"), 1
        if text.startswith("struct ") or text == "vaddr_t":
            return self.struct(text), 8
        return TypeDesc("uint", int(text[1:]), text), int(text[1:])

    def enum(self, name: str) -> dict[str, int]:
        """See layout.Types."""
        if name not in ENUMS:
            raise KtfError(f"the symbols have no enum {name}")
        return dict(ENUMS[name])

    def constant(self, name: str) -> int:
        """See layout.Types."""
        for table in (CONSTANTS, *ENUMS.values()):
            if name in table:
                return table[name]
        raise KtfError(f"the symbols have no {name}")

    def symbol(self, name: str) -> Symbol | None:
        """See layout.Types."""
        if name == "mm":
            return Symbol(name, MM_VA, self.struct("struct mm").size)
        return Symbol(name, *SYMBOLS[name]) if name in SYMBOLS else None
