# SPDX-License-Identifier: BSD-2-Clause
# The index of everything that can be done here; `make help` lists it.

# Variables (make NAME=value ...), shown by `make help`:
MEM      = 128M## RAM of the guest for run and debug
SMP      = 2## its CPUs
MACHINE  = pc## pc or q35
CPU      = max## QEMU's CPU model
UEFI     = 0## 1: boot under OVMF instead of the BIOS
CMDLINE  =## words for the kernel, e.g. "test=all" or "plant=P2" (by fw_cfg, the ISO stays as it is)
GDB_PORT = 1234## where `make debug` puts GDB's stub, on loopback
FUZZ_SECONDS = 60## how long `make fuzz` runs
BY       = watch## culprit: by write watches, or `journal`: by a check at its events
JOURNAL_EVENTS = 4096## the journal's last events that are there for sure, and places in each CPU's ring: a power of two, 64 to 8192
DEBUG    = 1## 0: without kmalloc's red zones, poison and callers, and without the checks of locks (bench builds it so)
ONLY     =## check: only tests whose name contains this, or matches it as a shell pattern; several divided by commas
SUITE    =## check: on a bare Debian of that release instead (bookworm, trixie, sid), the demo first; needs root
JOBS     =## check: tests at once (default: one per CPU)
ACPICA_SRC =## a Linux source tree whose ACPICA is built in, "none" (default: Debian's linux-source package, if there)
V        =## 1: show every command

BUILD   := build
CC      := gcc
LD      := ld
OBJCOPY := objcopy
PYTHON  := tests/python# Debian's, with our modules' folders
MKISO   := grub-mkrescue
Q       := $(if $(filter 1,$(V)),,@)

DIRS := lib arch/x86 boot mm mm/check mm/kmalloc kernel acpi tests/guest

# ACPICA is Debian's: of the kernel's source package only it and its headers are unpacked, into build/.
ACPICA         := $(BUILD)/acpica# its sources, objects and archive; builds may share them
ACPICA_PACKAGE := $(shell ls /usr/src/linux-source-*.tar.xz 2>/dev/null | sort -V | tail -n 1)
ACPICA_TREE    := $(or $(filter-out none,$(ACPICA_SRC)),$(if $(ACPICA_SRC),,$(ACPICA_PACKAGE:%=$(ACPICA)/src)))
ifneq ($(filter-out none,$(ACPICA_SRC)),)
$(if $(wildcard $(ACPICA_SRC)/drivers/acpi/acpica/*.c),,$(error ACPICA_SRC=$(ACPICA_SRC): no drivers/acpi/acpica there))
endif
ACPICA_STAMP   := $(if $(ACPICA_SRC),,$(ACPICA_TREE:%=%/from-$(notdir $(ACPICA_PACKAGE))))
ACPICA_LIB     := $(ACPICA_TREE:%=$(ACPICA)/acpica.a)
ACPICA_CFLAGS   = -Iacpi/include -isystem $(ACPICA_TREE)/include -D_LINUX -DBUILDING_ACPICA
ACPI_SRCS      := $(wildcard acpi/*.c tests/guest/acpi*.c)

SRCS := $(sort $(filter-out $(if $(ACPICA_TREE),acpi/absent.c,$(filter-out acpi/absent.c,$(ACPI_SRCS))), \
            $(wildcard $(DIRS:%=%/*.c) $(DIRS:%=%/*.S))))
OBJS := $(SRCS:%=$(BUILD)/obj/%.o)

WARN     := -Wall -Wextra -Werror
CFLAGS   := -I. -std=gnu11 -O2 -g -ffreestanding -fno-stack-protector -mcmodel=kernel -mno-red-zone \
            -mno-sse -mno-mmx -mgeneral-regs-only -fno-pic -fno-pie -fno-omit-frame-pointer \
            -DKTF_DEBUG=$(DEBUG) -DJOURNAL_EVENTS=$(JOURNAL_EVENTS) $(WARN) -Wmissing-prototypes
ASFLAGS  := -I. -g -mcmodel=kernel -fno-pic -fno-pie -D__ASSEMBLER__ $(WARN)
LDFLAGS  := -nostdlib -z max-page-size=4096 --build-id=none -z noexecstack --fatal-warnings
DEPFLAGS  = -MMD -MP -MF $(@:.o=.d)

# Host tests: mm/ and the page-table code built natively, on fake physical memory, with sanitizers. Each
# tests/host/test_NAME.c is a program; what stands beside it in other files is linked to all of them.
HOST_TESTS  := $(sort $(wildcard tests/host/test_*.c))
HOST_PROGS  := $(HOST_TESTS:tests/host/%.c=$(BUILD)/host/%)
HOST_SRCS   := $(sort $(filter-out $(HOST_TESTS),$(wildcard tests/host/*.c)) \
               $(wildcard mm/*.c mm/*/*.c arch/x86/memtype.c arch/x86/spinlock.c arch/x86/tlb.c lib/error.c lib/string.c))
HOST_OBJS   := $(HOST_SRCS:%=$(BUILD)/host/obj/%.o)
HOST_CFLAGS := -I. -std=gnu11 -DKTF_HOST -DKTF_DEBUG=$(DEBUG) -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all \
               -fno-omit-frame-pointer $(WARN) -Wmissing-prototypes

# One of them watches the memory order of each access: its mm/ is built to call a function of the test's at each.
TRACED        := $(BUILD)/host/test_memory_order
TRACED_OBJS   := $(HOST_SRCS:%=$(BUILD)/host/traced/%.o)
TRACED_CFLAGS := $(filter-out -fsanitize=% -fno-sanitize-recover=%,$(HOST_CFLAGS))

# The fuzzer: the same sources, built by clang, whose library chooses the bytes.
FUZZ_SRCS   := tests/fuzz/mm.c $(HOST_SRCS)
FUZZ_OBJS   := $(FUZZ_SRCS:%=$(BUILD)/fuzz/obj/%.o)
FUZZ_CFLAGS := $(filter-out -fsanitize=%,$(HOST_CFLAGS)) -fsanitize=fuzzer,address,undefined

# Builds inside of a target use every CPU, unless make was given a number of jobs.
AT_ONCE = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: bitflip stops culprit stress all iso host run debug demo check bench fuzz style packages clean help tools FORCE

all: $(BUILD)/kernel.elf iso ## the kernel (build/kernel.elf) and its bootable ISO (build/ktf.iso), BIOS and UEFI

iso: $(BUILD)/ktf.iso

# --- the kernel -----------------------------------------------------------------------------------------

# Says what to do when a tool is missing, before the first compile fails for the lack of it.
tools:
	$(Q)tools/packages.sh --have build

# Changes when a flag or a tool's version changes, and only then: an upgraded compiler builds all anew.
$(BUILD)/flags: FORCE | tools
	$(Q)mkdir -p $(@D)
	$(Q)new=$$(printf '%s\n' '$(CC) $(CFLAGS) $(ASFLAGS) $(LD) $(LDFLAGS) $(HOST_CFLAGS)'; \
	        for tool in '$(CC)' '$(LD)'; do $$tool --version | head -n 1; done); \
	    printf '%s\n' "$$new" | cmp -s - $@ || printf '%s\n' "$$new" >$@

# The same of the fuzzer, whose compiler the kernel does not need.
$(BUILD)/fuzz/flags: FORCE | tools
	$(Q)mkdir -p $(@D)
	$(Q)new=$$(printf '%s\n' '$(FUZZ_CFLAGS)'; clang --version | head -n 1); \
	    printf '%s\n' "$$new" | cmp -s - $@ || printf '%s\n' "$$new" >$@

# Changes when a source comes or goes, so that the kernel is linked again.
$(BUILD)/sources: FORCE
	$(Q)mkdir -p $(@D)
	$(Q)printf '%s\n' $(SRCS) $(HOST_SRCS) | cmp -s - $@ || printf '%s\n' $(SRCS) $(HOST_SRCS) >$@

$(BUILD)/obj/%.c.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(if $(Q),@echo '  CC      $<')
	$(Q)$(CC) $(CFLAGS) $(DEPFLAGS) -c $< -o $@

$(BUILD)/obj/%.S.o: %.S $(BUILD)/flags
	@mkdir -p $(@D)
	$(if $(Q),@echo '  AS      $<')
	$(Q)$(CC) $(ASFLAGS) $(DEPFLAGS) -c $< -o $@

$(BUILD)/kernel.elf: $(OBJS) $(ACPICA_LIB) boot/kernel.ld $(BUILD)/sources $(BUILD)/kernel.elf-gdb.py
	$(if $(Q),@echo '  LD      $@')
	$(if $(ACPICA_TREE),,@echo 'ACPI is not built in: no ACPICA (Debian: linux-source; "make packages" installs it)')
	$(Q)$(LD) -T boot/kernel.ld $(LDFLAGS) $(OBJS) $(ACPICA_LIB) -o $@

# The layer below ACPICA, and its tests, see ACPICA's headers.
$(ACPI_SRCS:%=$(BUILD)/obj/%.o): private CFLAGS += $(ACPICA_CFLAGS)
$(ACPI_SRCS:%=$(BUILD)/obj/%.o): | $(ACPICA_STAMP)

# Of another release's package nothing stays.
$(ACPICA)/src/from-%: /usr/src/%
	$(if $(Q),@echo '  UNPACK  $<')
	$(Q)rm -rf $(@D) && mkdir -p $(@D)
	$(Q)tar -xJf $< -C $(@D) --strip-components=1 --wildcards '*/drivers/acpi/acpica/*' '*/include/acpi/*'
	$(Q)touch $@

# Looks for itself what has changed.
$(ACPICA_LIB): FORCE | $(ACPICA_STAMP)
	$(Q)$(MAKE) --no-print-directory -f acpi/acpica.mk TREE=$(ACPICA_TREE) OUT=$(ACPICA) CC='$(CC)' Q=$(Q) \
	    CFLAGS='$(filter-out $(WARN) -Wmissing-prototypes -DKTF_DEBUG=% -DJOURNAL_EVENTS=% -I.,$(CFLAGS)) $(ACPICA_CFLAGS)'

# GDB loads this with the ELF (once its folder is on GDB's auto-load safe path) and by it the commands.
$(BUILD)/kernel.elf-gdb.py: Makefile
	@mkdir -p $(@D)
	$(Q)printf '%s\n' \
	    '# Generated: loads the commands when GDB opens kernel.elf.' \
	    'import gdb, os' \
	    '# GDB leaves this name as it is for a script that a script sources.' \
	    '__file__ = os.path.join(os.path.dirname(os.path.abspath(__file__)), "$(shell \
	        realpath -m --relative-to=$(BUILD) gdb/ktf-gdb.py)")' \
	    'gdb.execute("source " + os.path.normpath(__file__))' >$@

# The ISO's copy goes without DWARF: GRUB would load that into the guest's memory, too.
$(BUILD)/ktf.iso: $(BUILD)/kernel.elf boot/grub.cfg
	$(if $(Q),@echo '  ISO     $@')
	$(Q)rm -rf $(BUILD)/iso && mkdir -p $(BUILD)/iso/boot/grub
	$(Q)$(OBJCOPY) --strip-debug $< $(BUILD)/iso/boot/kernel.elf
	$(Q)cp boot/grub.cfg $(BUILD)/iso/boot/grub/grub.cfg
	$(Q)$(MKISO) --locales= --fonts= --themes= -o $@ $(BUILD)/iso >$(BUILD)/mkrescue.log 2>&1 || \
	    { cat $(BUILD)/mkrescue.log; exit 1; }

# --- host tests -----------------------------------------------------------------------------------------

host: $(HOST_PROGS) ## the host tests' programs, not run

$(BUILD)/host/obj/%.c.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(if $(Q),@echo '  HOSTCC  $<')
	$(Q)$(CC) $(HOST_CFLAGS) $(DEPFLAGS) -c $< -o $@

$(TRACED:$(BUILD)/host/%=$(BUILD)/host/obj/tests/host/%.c.o): private HOST_CFLAGS := $(TRACED_CFLAGS)

$(BUILD)/host/traced/%.c.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(if $(Q),@echo '  HOSTCC  $< (traced)')
	$(Q)$(CC) $(TRACED_CFLAGS) -fsanitize=thread $(DEPFLAGS) -c $< -o $@

$(TRACED): $(BUILD)/host/%: $(BUILD)/host/obj/tests/host/%.c.o $(TRACED_OBJS) $(BUILD)/sources
	$(if $(Q),@echo '  HOSTLD  $@')
	$(Q)$(CC) $(TRACED_CFLAGS) $< $(TRACED_OBJS) -o $@

$(filter-out $(TRACED),$(HOST_PROGS)): $(BUILD)/host/%: $(BUILD)/host/obj/tests/host/%.c.o $(HOST_OBJS) $(BUILD)/sources
	$(if $(Q),@echo '  HOSTLD  $@')
	$(Q)$(CC) $(HOST_CFLAGS) $< $(HOST_OBJS) -o $@

$(BUILD)/fuzz/obj/%.c.o: %.c $(BUILD)/fuzz/flags
	@mkdir -p $(@D)
	$(if $(Q),@echo '  FUZZCC  $<')
	$(Q)clang $(FUZZ_CFLAGS) $(DEPFLAGS) -c $< -o $@

$(BUILD)/fuzz/mm: $(FUZZ_OBJS) $(BUILD)/sources
	$(if $(Q),@echo '  FUZZLD  $@')
	$(Q)clang $(FUZZ_CFLAGS) $(FUZZ_OBJS) -o $@

-include $(FUZZ_OBJS:.o=.d) $(OBJS:.o=.d) $(HOST_OBJS:.o=.d) $(TRACED_OBJS:.o=.d) $(HOST_TESTS:%=$(BUILD)/host/obj/%.d)

# --- running --------------------------------------------------------------------------------------------

GUEST = '--mem=$(MEM)' '--smp=$(SMP)' '--machine=$(MACHINE)' '--cpu=$(CPU)' '--uefi=$(UEFI)'
run debug culprit: export CMDLINE := $(CMDLINE)

run: all ## boot the guest on this console (Ctrl-a x ends QEMU)
	$(Q)tools/packages.sh --have check
	$(Q)$(PYTHON) tools/qemu.py run $(GUEST)

debug: all ## boot the guest halted, with GDB attached and the commands loaded
	$(Q)tools/packages.sh --have check
	$(Q)$(PYTHON) tools/qemu.py debug $(GUEST) --port=$(GDB_PORT)

demo: packages ## the main job, shown: boot, attach GDB, frames and mappings, a planted bug, a triple fault
	$(Q)$(MAKE) --no-print-directory $(AT_ONCE) all
	$(Q)$(PYTHON) tools/demo.py

# With a PATH of the listed packages' commands: a build that calls another one fails here as it would on a fresh machine.
LISTED_PATH = PATH="$$($(PYTHON) tools/packages.py $(BUILD)/check/bin)"

ifneq ($(SUITE),)
check:
	$(Q)tools/packages.sh suite
	$(Q)$(PYTHON) tests/runner/suite.py '$(SUITE)' --only='$(ONLY)' --jobs='$(JOBS)'
else
check: packages ## every test; ends with `N passed, N failed`
	$(Q)tools/packages.sh style
	$(Q)$(LISTED_PATH) $(MAKE) --no-print-directory $(AT_ONCE) all host $(BUILD)/fuzz/mm
	$(Q)$(LISTED_PATH) $(MAKE) --no-print-directory $(AT_ONCE) ACPICA=$(ACPICA) BUILD=$(BUILD)/bench DEBUG=0 all
	$(Q)exec setpriv --pdeathsig TERM $(PYTHON) tests/runner/run.py --only='$(ONLY)' --jobs='$(JOBS)' # ends with make
endif

fuzz: packages ## the manager against its model, on bytes that libFuzzer chooses, for FUZZ_SECONDS
	$(Q)$(MAKE) --no-print-directory $(AT_ONCE) $(BUILD)/fuzz/mm
	$(Q)$(PYTHON) tests/fuzz/run.py --seconds='$(FUZZ_SECONDS)'

bench: packages ## count instructions: a table, build/bench.json, build/bench.svg (some minutes)
	$(Q)$(MAKE) --no-print-directory $(AT_ONCE) all
	$(Q)$(MAKE) --no-print-directory $(AT_ONCE) ACPICA=$(ACPICA) BUILD=$(BUILD)/bench DEBUG=0 all
	$(Q)BUILD=$(BUILD)/bench $(PYTHON) tests/bench/bench.py --out=$(BUILD)

STRESS_OPS   = 1000000## operations on each CPU of `make stress`
STRESS_SEEDS = 1 2 3 4 5 6 7 8 9 10## its seeds, one run each

stress: all ## all CPUs at random operations: STRESS_OPS on each of 4, one more watches; one run for each of STRESS_SEEDS
	$(Q)for seed in $(STRESS_SEEDS); do \
	    $(PYTHON) tests/runner/run.py --stress=$(STRESS_OPS),$$seed || exit 1; done

FLIPS = 20000## of `make bitflip`

bitflip: all ## one bit of the memory manager's structures broken at a time, FLIPS of them: ktf-pt-check must see each
	$(Q)tools/packages.sh --have check
	$(Q)$(PYTHON) tests/campaigns/bitflip.py --flips=$(FLIPS)

STOPS = 1000## of `make stops`

stops: all ## four CPUs at random operations, stopped at random STOPS times: ktf-pt-check must raise no false alarm
	$(Q)tools/packages.sh --have check
	$(Q)$(PYTHON) tests/campaigns/stops.py --stops=$(STOPS)

style: ## clang-format, black and mypy: they check, nothing is rewritten
	$(Q)tools/packages.sh style
	$(Q)$(PYTHON) tests/runner/style.py

culprit: all ## who broke a structure: CMDLINE says how it goes wrong, e.g. "crash=wild-store" (BY=journal: the other way)
	$(Q)tools/packages.sh --have check
	$(Q)$(PYTHON) tests/campaigns/culprit.py $(GUEST) --by=$(BY)

packages: ## install what is missing for all of this (Debian: apt-get; elsewhere: print what is needed)
	$(Q)tools/packages.sh build check acpi

clean: ## remove build/
	rm -rf $(BUILD)

help: ## this list
	@echo 'Targets:'
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
	    while IFS='|' read -r n t; do printf '  %-10s%s\n' $$n "$$t"; done
	@echo 'Variables:'
	@sed -n 's/^\([A-Z_]*\) *= *\(.*\)## *\(.*\)/\1|\2|\3/p' $(firstword $(MAKEFILE_LIST)) | \
	    while IFS='|' read -r n d t; do printf '  %-16s%s%s\n' $$n "$$t" "$${d:+ (default $$d)}"; done
