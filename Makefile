# SPDX-License-Identifier: MIT
# ojo: three headers need no build; this one builds the tools, the examples and the tests.
# `make help` lists the targets. Everything lands in build/.

CFLAGS  ?= -O2 -g
PREFIX  ?= /usr/local
DESTDIR ?=

BUILD    := build
STANDARD ?= -std=c11
WARNINGS := -Wall -Wextra -Wpedantic -Wconversion -Wshadow
COMPILE   = $(CC) $(STANDARD) $(WARNINGS) -I. $(CPPFLAGS) $(CFLAGS) -MMD -MP
LINK      = $(CC) $(CFLAGS) $(LDFLAGS)

ifneq ($(V),1)
Q := @
say = @echo '  $(1) $(2)';
endif

TOOLS    := ojo-cat
EXAMPLES := $(patsubst examples/%.c,%,$(sort $(wildcard examples/[0-9]*.c)))
CAT_OBJECTS := $(patsubst tools/%.c,$(BUILD)/tools/%.o,$(sort $(wildcard tools/ojo-cat.c tools/export_*.c)))

# What each tool or example needs beyond libc and pthread; without it, it is left out, by name.
# NEEDS_name := a command that succeeds if the dependency is there
AVAILABLE  = $(foreach name,$(1),$(if $(NEEDS_$(name)),$(if $(shell $(NEEDS_$(name)) >/dev/null 2>&1 && echo y),$(name)),$(name)))
PROGRAMS  := $(call AVAILABLE,$(TOOLS) $(EXAMPLES))
LEFT_OUT  := $(filter-out $(PROGRAMS),$(TOOLS) $(EXAMPLES))

TEST_PROGRAMS := unit api types golden reader stress crash kill_steps faults process
TEST_SCRIPTS  := compile.sh examples.sh cat.sh transport.sh readme.sh
ASAN_PROGRAMS := unit api reader stress faults process
TSAN_PROGRAMS := stress

ASAN_FLAGS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
TSAN_FLAGS := -O1 -g -fsanitize=thread -fno-omit-frame-pointer

# Only what is there: a missing source is reported by tests/run, as a failure, not by make.
have      = $(foreach name,$(1),$(if $(wildcard tests/$(name).c),$(BUILD)/tests/$(name)$(2)))
asan_works = $(shell grep -qx yes $(BUILD)/asan.works 2>/dev/null && echo yes)
tsan_works = $(shell grep -qx yes $(BUILD)/tsan.works 2>/dev/null && echo yes)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all help install uninstall demo bench test test-asan test-tsan golden clean tests-built asan-built tsan-built

all: $(PROGRAMS:%=$(BUILD)/%) ## build every tool and example whose dependencies are installed (default)
	@echo 'built in $(BUILD)/: $(PROGRAMS)'
	@$(if $(LEFT_OUT),echo 'left out because a dependency is missing: $(LEFT_OUT)',:)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14
	@echo 'variables: CC CFLAGS CPPFLAGS LDFLAGS PREFIX DESTDIR; V=1 shows the commands'

# ---- tools and examples

$(BUILD)/tools/%.o: tools/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) -c -o $@ $<

$(BUILD)/ojo-cat: $(CAT_OBJECTS)
	$(call say,LINK,$@) $(LINK) -o $@ $^ -pthread

$(EXAMPLES:%=$(BUILD)/%): $(BUILD)/%: examples/%.c
	@mkdir -p $(BUILD)/examples
	$(call say,CC,$@) $(COMPILE) -MF $(BUILD)/examples/$*.d $(LDFLAGS) -o $@ $< -pthread

# ---- demo

DEMO       := $(BUILD)/demo
DEMO_BYTES ?= 50M

demo: $(BUILD)/4_transport $(BUILD)/ojo-cat ## transfer 50 MB with 1 % loss, and show what ojo-cat makes of its trace
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	@say() { printf '\n==== %s\n' "$$*"; }; show() { echo "\$$ $$*"; sh -c "$$*"; }; set -e; \
	say 'a file goes over UDP on the loopback interface; 1 % of the packets get lost'; \
	show "OJO_DIR=$(DEMO) $(BUILD)/4_transport --bytes $(DEMO_BYTES) --loss 1"; \
	say 'who talked to whom: each end wrote a trace'; \
	show "$(BUILD)/ojo-cat --flows $(DEMO)"; \
	client=$$($(BUILD)/ojo-cat --flows $(DEMO) 2>/dev/null | sed -n 's/.* client .* trace \([0-9a-f]*\).*/\1/p'); \
	say "how much of what, at the client's end"; \
	show "$(BUILD)/ojo-cat --stats --category Packet --trace $$client $(DEMO) | sed '/^flow/,\$$d'"; \
	say 'events, as a spreadsheet or a script takes them'; \
	show "$(BUILD)/ojo-cat -f csv --trace $$client $(DEMO) | sed -n '1p;1000,1006p'"; \
	say 'packets that got lost, as flow:number'; \
	show "$(BUILD)/ojo-cat -f csv --category Packet --trace $$client $(DEMO) | grep ',PACKET_LOST_[DT]' | cut -d , -f 2,6 | tr , : | head -n 3 | tee $(DEMO)/lost"; \
	say 'what became of the first one'; \
	show "$(BUILD)/ojo-cat --packet $$(head -n 1 $(DEMO)/lost) $(DEMO) | sed -n '/^\$$/q;p'"; \
	say 'the congestion window'; \
	show "$(BUILD)/ojo-cat --plot CWND_UPDATED --trace $$client $(DEMO)"; \
	printf '\nThe traces are in $(DEMO). Go on with: $(BUILD)/ojo-cat --help\n'

# ---- install

install: $(BUILD)/ojo-cat ## install the headers, ojo-cat and its man page under DESTDIR/PREFIX
	mkdir -p $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(BUILD)/ojo-cat $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(wildcard ojo.h ojo_reader.h ojo_bpf.h) $(DESTDIR)$(PREFIX)/include/
	install -m 644 tools/ojo-cat.1 $(DESTDIR)$(PREFIX)/share/man/man1/

uninstall: ## remove what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/ojo-cat $(DESTDIR)$(PREFIX)/share/man/man1/ojo-cat.1
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/include/,ojo.h ojo_reader.h ojo_bpf.h)

# ---- tests

$(BUILD)/tests/%: tests/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) -MF $@.d $(LDFLAGS) -o $@ $< -pthread

$(BUILD)/tests/%.asan: tests/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) $(ASAN_FLAGS) -MF $@.d $(LDFLAGS) -o $@ $< -pthread

$(BUILD)/tests/%.tsan: tests/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) $(TSAN_FLAGS) -MF $@.d $(LDFLAGS) -o $@ $< -pthread

$(BUILD)/ojo-cat.asan: $(wildcard tools/ojo-cat.c tools/export_*.c tools/*.h) ojo.h ojo_reader.h
	@mkdir -p $(@D)
	$(call say,CC,$@) $(CC) $(STANDARD) $(WARNINGS) -I. $(CPPFLAGS) $(CFLAGS) $(ASAN_FLAGS) $(LDFLAGS) -o $@ $(filter %.c,$^) -pthread

# "yes" if a program under the sanitizer compiles and runs here, else "no".
$(BUILD)/asan.works: SANITIZER := address,undefined
$(BUILD)/tsan.works: SANITIZER := thread
$(BUILD)/asan.works $(BUILD)/tsan.works:
	@mkdir -p $(@D)
	@echo 'int main(void) { return 0; }' > $@.c
	@if $(CC) $(CFLAGS) -fsanitize=$(SANITIZER) $(LDFLAGS) -o $@.run $@.c -pthread >/dev/null 2>&1 && $@.run >/dev/null 2>&1; \
	then echo yes; else echo no; fi > $@
	@rm -f $@.c $@.run

tests-built: $(PROGRAMS:%=$(BUILD)/%) $(call have,$(TEST_PROGRAMS))
asan-built: $(call have,$(ASAN_PROGRAMS),.asan) $(BUILD)/ojo-cat.asan
tsan-built: $(call have,$(TSAN_PROGRAMS),.tsan)

ASAN_PARTS = $(if $(asan_works),$(ASAN_PROGRAMS:%=$(BUILD)/tests/%.asan),$(ASAN_PROGRAMS:%=skip:%.asan:$(CC)_has_no_address_sanitizer_here))
TSAN_PARTS = $(if $(tsan_works),$(TSAN_PROGRAMS:%=$(BUILD)/tests/%.tsan),$(TSAN_PROGRAMS:%=skip:%.tsan:$(CC)_has_no_thread_sanitizer_here))
RUN_TESTS  = CC='$(CC)' BUILD='$(BUILD)' tests/run

test: tests-built $(BUILD)/asan.works $(BUILD)/tsan.works ## run every test that can run here
	$(Q)$(if $(asan_works),$(MAKE) --no-print-directory asan-built)
	$(Q)$(if $(tsan_works),$(MAKE) --no-print-directory tsan-built)
	$(Q)$(RUN_TESTS) $(TEST_PROGRAMS:%=$(BUILD)/tests/%) $(TEST_SCRIPTS:%=tests/%) $(ASAN_PARTS) $(TSAN_PARTS)

test-asan: $(BUILD)/asan.works ## run the tests under address and undefined-behaviour sanitizers
	$(Q)$(if $(asan_works),$(MAKE) --no-print-directory asan-built)
	$(Q)$(RUN_TESTS) $(ASAN_PARTS)

test-tsan: $(BUILD)/tsan.works ## run the stress test under the thread sanitizer
	$(Q)$(if $(tsan_works),$(MAKE) --no-print-directory tsan-built)
	$(Q)$(RUN_TESTS) $(TSAN_PARTS)

$(BUILD)/bench/figures: bench/figures.c
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) -MF $@.d $(LDFLAGS) -o $@ $< -pthread

bench: $(BUILD)/bench/figures $(BUILD)/ojo-cat ## measure what README.md states: two minutes, 6 GB of disk
	$(Q)CC='$(CC)' BUILD='$(BUILD)' bench/figures.sh

golden: tests-built ## regenerate tests/golden/ from what the code does now; review the difference
	$(BUILD)/tests/golden --write

clean: ## remove build/
	rm -rf $(BUILD)

-include $(wildcard $(BUILD)/tools/*.d $(BUILD)/examples/*.d $(BUILD)/tests/*.d $(BUILD)/bench/*.d)
