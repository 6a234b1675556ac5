# SPDX-License-Identifier: BSD-2-Clause
# Builds ACPICA, as it is in TREE, into OUT/acpica.a. Called by the Makefile once the sources are there.

# Left out is what only its own debugger needs.
SRCS := $(filter-out %/rsdump.c $(wildcard $(TREE)/drivers/acpi/acpica/db*.c),$(wildcard $(TREE)/drivers/acpi/acpica/*.c))
OBJS := $(SRCS:$(TREE)/drivers/acpi/acpica/%.c=$(OUT)/obj/%.o)

.DELETE_ON_ERROR:
.SUFFIXES:

$(OUT)/acpica.a: $(OBJS)
	$(if $(Q),@echo '  AR      $@')
	$(Q)rm -f $@ && ar rcs $@ $(OBJS)

$(OBJS): $(wildcard $(TREE)/drivers/acpi/acpica/*.h $(TREE)/include/acpi/*.h $(TREE)/include/acpi/*/*.h) \
         $(wildcard acpi/include/*/*.h acpi/include/*/*/*.h) $(OUT)/cflags

$(OUT)/obj/%.o: $(TREE)/drivers/acpi/acpica/%.c
	@mkdir -p $(@D)
	$(if $(Q),@echo '  CC      $(notdir $<)')
	$(Q)$(CC) $(CFLAGS) -w -c $< -o $@

# Changes when a flag or the compiler's version does. Debug or not, the objects are the same.
$(OUT)/cflags: FORCE
	$(Q)mkdir -p $(@D)
	$(Q)new=$$(printf '%s\n' '$(CC) $(CFLAGS)'; $(CC) --version | head -n 1); \
	    printf '%s\n' "$$new" | cmp -s - $@ || printf '%s\n' "$$new" >$@

.PHONY: FORCE
