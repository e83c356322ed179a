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

TOOLS    := ojo-cat ojo-top
EXAMPLES := $(patsubst examples/%.c,%,$(sort $(wildcard examples/[0-9]*.c)))
CAT_OBJECTS := $(patsubst tools/%.c,$(BUILD)/tools/%.o,$(sort $(wildcard tools/ojo-cat.c tools/export_*.c)))

# What each tool or example needs beyond libc and pthread; without it, it is left out, by name.
# NEEDS_name := a command that succeeds if the dependency is there; WANTS_name: what to install
BPF_CC         ?= clang
NEEDS_bpf      := { command -v $(BPF_CC) && echo '\#include <bpf/libbpf.h>' | $(CC) -E -x c -; }
NEEDS_7_kernel := $(NEEDS_bpf)
WANTS_7_kernel := clang, libbpf-dev
WANTS_ojo-top  := clang, libbpf-dev, libncurses-dev
NEEDS_ojo-top  := $(NEEDS_bpf) && echo '\#include <curses.h>' | $(CC) -E -x c -
AVAILABLE  = $(foreach name,$(1),$(if $(NEEDS_$(name)),$(if $(shell { $(NEEDS_$(name)); } >/dev/null 2>&1 && echo y),$(name)),$(name)))
PROGRAMS  := $(call AVAILABLE,$(TOOLS) $(EXAMPLES))
LEFT_OUT  := $(filter-out $(PROGRAMS),$(TOOLS) $(EXAMPLES))

TEST_PROGRAMS := unit api types golden reader interleave stress crash recorder kill_steps faults process
TEST_SCRIPTS  := compile.sh examples.sh cat.sh transport.sh model.sh defects.sh fuzz.sh bench.sh readme.sh top.sh
ASAN_PROGRAMS := unit api reader stress recorder faults process
TSAN_PROGRAMS := stress recorder

ASAN_FLAGS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
TSAN_FLAGS := -O1 -g -fsanitize=thread -fno-omit-frame-pointer

# The core tests built in other ways, NAME.WAY each: for another processor, run by qemu-user; with another libc; and by
# the paths that ojo.h takes elsewhere. The waits are short and the loads light (WAY_ENV): the native build does all.
AARCH64_CC   ?= aarch64-linux-gnu-gcc
QEMU_AARCH64 ?= qemu-aarch64
MUSL_CC      ?= musl-gcc
WAY_FLAGS    := -DOJO__WAIT_MS=1000 -DOJO__IDLE_MS=500
WAY_ENV      := OJO_STRESS_EVENTS=$${OJO_STRESS_EVENTS:-50000} OJO_STRESS_SECONDS=$${OJO_STRESS_SECONDS:-0.5} \
                OJO_CRASH_RUNS=$${OJO_CRASH_RUNS:-18}
CORE_PROGRAMS     := unit api types reader stress crash
AARCH64_PARTS     := $(CORE_PROGRAMS:%=%.aarch64)
MUSL_PARTS        := $(CORE_PROGRAMS:%=%.musl)
# Of the core tests those that the macro can matter to; reader.c has no tracer in it.
PORTABLE_PARTS    := unit.no_tsc api.no_tsc stress.no_tsc \
                     api.no_tmpfs stress.no_tmpfs crash.no_tmpfs \
                     api.no_atfork stress.no_atfork crash.no_atfork \
                     unit.portable api.portable types.portable stress.portable crash.portable \
                     unit.static api.static
FLAGS_no_tsc    := -DOJO_NO_TSC
FLAGS_no_tmpfs  := -DOJO_NO_TMPFS
FLAGS_no_atfork := -DOJO_NO_ATFORK
FLAGS_portable  := -DOJO_NO_TSC -DOJO_NO_TMPFS -DOJO_NO_ATFORK
FLAGS_static    := -DOJO_STATIC -static
FLAGS_aarch64   := -static
CC_aarch64      := $(AARCH64_CC)
CC_musl         := $(MUSL_CC)
RUN_aarch64     := OJO_EMULATED=1 exec $(QEMU_AARCH64)

# Only what is there: a missing source is reported by tests/run, as a failure, not by make.
have      = $(foreach name,$(1),$(if $(wildcard tests/$(name).c),$(BUILD)/tests/$(name)$(2)))
asan_works = $(shell grep -qx yes $(BUILD)/asan.works 2>/dev/null && echo yes)
tsan_works = $(shell grep -qx yes $(BUILD)/tsan.works 2>/dev/null && echo yes)
WORKS     := asan tsan aarch64 musl static
way_works  = $(shell grep -qx yes $(BUILD)/$(1).works 2>/dev/null && echo yes)

# What did not work may have been installed since.
ifeq ($(MAKELEVEL),0)
$(foreach w,$(WORKS),$(if $(shell grep -sx no $(BUILD)/$(w).works),$(shell rm -f $(BUILD)/$(w).works)))
endif

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all bpf help install uninstall demo bench bench-quick test test-asan test-tsan test-aarch64 test-musl test-portable test-long fuzz fuzz-afl golden clean
.PHONY: bench-built tests-built asan-built tsan-built aarch64-built musl-built portable-built

all: $(PROGRAMS:%=$(BUILD)/%) ## build every tool and example whose dependencies are installed (default)
	@echo 'built in $(BUILD)/: $(strip $(PROGRAMS))'
	@$(if $(LEFT_OUT),echo 'left out because something is not installed:$(foreach n,$(LEFT_OUT), $(n) ($(WANTS_$(n))))',:)

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16
	@echo 'variables: CC CFLAGS CPPFLAGS LDFLAGS BPF_CC PREFIX DESTDIR; V=1 shows the commands'

# ---- tools and examples

$(BUILD)/tools/%.o: tools/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) -c -o $@ $<

$(BUILD)/ojo-cat: $(CAT_OBJECTS)
	$(call say,LINK,$@) $(LINK) -o $@ $^ -pthread

# The kernel side is in it. The screen needs the library for UTF-8 terminals.
$(BUILD)/ojo-top: tools/ojo-top.c $(BUILD)/ojo_bpf.o
	@mkdir -p $(BUILD)/tools
	$(call say,CC,$@) $(COMPILE) -DOJO_TOP_OBJECT='"$(BUILD)/ojo_bpf.o"' -MF $(BUILD)/tools/ojo-top.d $(LDFLAGS) -o $@ $< -lbpf -lncursesw -ltinfo -pthread

$(EXAMPLES:%=$(BUILD)/%): $(BUILD)/%: examples/%.c
	@mkdir -p $(BUILD)/examples
	$(call say,CC,$@) $(COMPILE) $(FLAGS_$*) -MF $(BUILD)/examples/$*.d $(LDFLAGS) -o $@ $< $(LIBS_$*) -pthread

$(BUILD)/7_kernel: $(BUILD)/ojo_bpf.o
FLAGS_7_kernel := -DKERNEL_SIDE='"$(BUILD)/ojo_bpf.o"'
LIBS_7_kernel  := -lbpf

# ---- the kernel side of ojo_bpf.h: one object, which the loader fits to the kernel that runs

bpf: $(BUILD)/ojo_bpf.o ## compile the kernel side of ojo_bpf.h: build/ojo_bpf.o (needs clang and libbpf-dev)

$(BUILD)/ojo_bpf.o: ojo_bpf.h
	@mkdir -p $(@D)
	@command -v $(BPF_CC) >/dev/null || { echo '$@ needs clang (BPF_CC=$(BPF_CC) is not there)' >&2; exit 1; }
	$(call say,BPF,$@) $(BPF_CC) -target bpf -x c -O2 -g -Wall -I/usr/include/$(shell gcc -dumpmachine) -c -o $@ $<

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

INSTALLED := $(filter $(TOOLS),$(PROGRAMS))

INSTALLED_BPF := $(if $(filter ojo-top,$(INSTALLED)),$(BUILD)/ojo_bpf.o)

install: $(INSTALLED:%=$(BUILD)/%) $(INSTALLED_BPF) ## install the headers, the tools and their man pages under DESTDIR/PREFIX
	mkdir -p $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(INSTALLED:%=$(BUILD)/%) $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(wildcard ojo.h ojo_reader.h ojo_bpf.h) $(DESTDIR)$(PREFIX)/include/
	install -m 644 $(INSTALLED:%=tools/%.1) $(DESTDIR)$(PREFIX)/share/man/man1/
	$(if $(INSTALLED_BPF),install -D -m 644 $(INSTALLED_BPF) $(DESTDIR)$(PREFIX)/lib/ojo/ojo_bpf.o)

uninstall: ## remove what install put there
	rm -f $(TOOLS:%=$(DESTDIR)$(PREFIX)/bin/%) $(TOOLS:%=$(DESTDIR)$(PREFIX)/share/man/man1/%.1)
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/include/,ojo.h ojo_reader.h ojo_bpf.h) $(DESTDIR)$(PREFIX)/lib/ojo/ojo_bpf.o

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

# The tests of ojo_bpf.h.
have_bpf    := $(shell $(NEEDS_bpf) >/dev/null 2>&1 && echo yes)
KERNEL_RUN   = $(if $(have_bpf),$(BUILD)/tests/kernel,skip:kernel:clang_or_libbpf_is_missing)

.PHONY: kernel-built
kernel-built: $(if $(have_bpf),$(BUILD)/tests/kernel $(BUILD)/ojo_bpf.o)
$(BUILD)/tests/kernel: tests/kernel.c $(BUILD)/ojo_bpf.o
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) -MF $@.d $(LDFLAGS) -o $@ $< -lbpf -pthread

# "yes" if a program under the sanitizer compiles and runs here, else "no".
$(BUILD)/asan.works: SANITIZER := address,undefined
$(BUILD)/tsan.works: SANITIZER := thread
$(BUILD)/asan.works $(BUILD)/tsan.works:
	@mkdir -p $(@D)
	@echo 'int main(void) { return 0; }' > $@.c
	@if $(CC) $(CFLAGS) -fsanitize=$(SANITIZER) $(LDFLAGS) -o $@.run $@.c -pthread >/dev/null 2>&1 && $@.run >/dev/null 2>&1; \
	then echo yes; else echo no; fi > $@
	@rm -f $@.c $@.run

# A part of another way is a script, which runs the program of the same name in ways/ as that way needs.
$(BUILD)/tests/ways/%: WAY = $(subst .,,$(suffix $*))
.SECONDEXPANSION: # for $$(basename): ways/unit.musl is made of unit.c
$(BUILD)/tests/ways/%: tests/$$(basename $$*).c
	@mkdir -p $(@D)
	$(call say,CC,$@) $(or $(CC_$(WAY)),$(CC)) $(STANDARD) $(WARNINGS) -I. $(CPPFLAGS) $(CFLAGS) -MMD -MP -MF $@.d $(WAY_FLAGS) $(FLAGS_$(WAY)) $(LDFLAGS) -o $@ $< -pthread

$(addprefix $(BUILD)/tests/,$(AARCH64_PARTS) $(MUSL_PARTS) $(PORTABLE_PARTS)): $(BUILD)/tests/%: $(BUILD)/tests/ways/%
	@{ echo '#!/bin/sh'; echo 'export $(WAY_ENV)'; \
	echo '$(or $(RUN_$(subst .,,$(suffix $*))),exec) $< "$$@"'; } > $@ && chmod +x $@

# "yes" if a program built that way runs here.
$(BUILD)/aarch64.works $(BUILD)/musl.works $(BUILD)/static.works: $(BUILD)/%.works:
	@mkdir -p $(@D)
	@echo 'int main(void) { return 0; }' > $@.c
	@if $(or $(CC_$*),$(CC)) $(CFLAGS) $(FLAGS_$*) $(LDFLAGS) -o $@.run $@.c -pthread >/dev/null 2>&1 && \
	sh -c '$(or $(RUN_$*),exec) $@.run' >/dev/null 2>&1; then echo yes; else echo no; fi > $@
	@rm -f $@.c $@.run

tests-built: $(PROGRAMS:%=$(BUILD)/%) $(call have,$(TEST_PROGRAMS)) kernel-built
asan-built: $(call have,$(ASAN_PROGRAMS),.asan) $(BUILD)/ojo-cat.asan
tsan-built: $(call have,$(TSAN_PROGRAMS),.tsan)
aarch64-built: $(AARCH64_PARTS:%=$(BUILD)/tests/%) $(BUILD)/ojo-cat
musl-built: $(MUSL_PARTS:%=$(BUILD)/tests/%) $(BUILD)/ojo-cat
portable-built: $(addprefix $(BUILD)/tests/,$(filter-out $(STATIC_PARTS),$(PORTABLE_PARTS))) $(BUILD)/ojo-cat

ASAN_PARTS = $(if $(asan_works),$(ASAN_PROGRAMS:%=$(BUILD)/tests/%.asan),$(ASAN_PROGRAMS:%=skip:%.asan:$(CC)_has_no_address_sanitizer_here))
TSAN_PARTS = $(if $(tsan_works),$(TSAN_PROGRAMS:%=$(BUILD)/tests/%.tsan),$(TSAN_PROGRAMS:%=skip:%.tsan:$(CC)_has_no_thread_sanitizer_here))
AARCH64_RUN = $(if $(call way_works,aarch64),$(AARCH64_PARTS:%=$(BUILD)/tests/%),$(AARCH64_PARTS:%=skip:%:$(AARCH64_CC)_or_$(QEMU_AARCH64)_is_missing))
MUSL_RUN   = $(if $(call way_works,musl),$(MUSL_PARTS:%=$(BUILD)/tests/%),$(MUSL_PARTS:%=skip:%:$(MUSL_CC)_is_missing))
STATIC_PARTS = $(if $(call way_works,static),,$(filter %.static,$(PORTABLE_PARTS))) # that can't be built
PORTABLE_RUN = $(addprefix $(BUILD)/tests/,$(filter-out $(STATIC_PARTS),$(PORTABLE_PARTS))) $(STATIC_PARTS:%=skip:%:$(CC)_links_no_static_program_here)
RUN_TESTS  = CC='$(CC)' BUILD='$(BUILD)' tests/run

test: tests-built $(WORKS:%=$(BUILD)/%.works) ## run every test that can run here
	$(Q)$(if $(asan_works),$(MAKE) --no-print-directory asan-built)
	$(Q)$(if $(tsan_works),$(MAKE) --no-print-directory tsan-built)
	$(Q)$(MAKE) --no-print-directory portable-built
	$(Q)$(if $(call way_works,aarch64),$(MAKE) --no-print-directory aarch64-built)
	$(Q)$(if $(call way_works,musl),$(MAKE) --no-print-directory musl-built)
	$(Q)$(RUN_TESTS) $(TEST_PROGRAMS:%=$(BUILD)/tests/%) $(KERNEL_RUN) $(TEST_SCRIPTS:%=tests/%) $(PORTABLE_RUN) $(AARCH64_RUN) $(MUSL_RUN) $(ASAN_PARTS) $(TSAN_PARTS)

test-asan: $(BUILD)/asan.works ## run the tests under address and undefined-behaviour sanitizers
	$(Q)$(if $(asan_works),$(MAKE) --no-print-directory asan-built)
	$(Q)$(RUN_TESTS) $(ASAN_PARTS)

test-tsan: $(BUILD)/tsan.works ## run the stress test under the thread sanitizer
	$(Q)$(if $(tsan_works),$(MAKE) --no-print-directory tsan-built)
	$(Q)$(RUN_TESTS) $(TSAN_PARTS)

test-aarch64: $(BUILD)/aarch64.works ## run the core tests for aarch64, under qemu-aarch64
	$(Q)$(if $(call way_works,aarch64),$(MAKE) --no-print-directory aarch64-built)
	$(Q)$(RUN_TESTS) $(AARCH64_RUN)

test-musl: $(BUILD)/musl.works ## run the core tests with musl
	$(Q)$(if $(call way_works,musl),$(MAKE) --no-print-directory musl-built)
	$(Q)$(RUN_TESTS) $(MUSL_RUN)

test-portable: $(BUILD)/static.works ## run the core tests without TSC, tmpfs, pthread_atfork, and as a static copy
	$(Q)$(MAKE) --no-print-directory portable-built
	$(Q)$(RUN_TESTS) $(PORTABLE_RUN)

LONG_RUNS ?= 3000

test-long: $(BUILD)/tests/crash $(BUILD)/tests/recorder $(BUILD)/ojo-cat ## kill recording programs: 1,000 times in each of three ways, a flight recorder 200 times
	$(Q)OJO_CRASH_RUNS=$(LONG_RUNS) OJO_TEST_SECONDS=7200 $(RUN_TESTS) $(BUILD)/tests/crash
	$(Q)OJO_CRASH_RUNS=200 OJO_TEST_SECONDS=7200 $(RUN_TESTS) $(BUILD)/tests/recorder

FUZZ_SECONDS ?= 1800

fuzz: ## fuzz the reader, ojo-cat and recovery with libFuzzer: FUZZ_SECONDS (1800) on two processors
	$(Q)CC='$(CC)' BUILD='$(BUILD)' tests/fuzz.sh libfuzzer $(FUZZ_SECONDS)

fuzz-afl: ## the same with AFL++
	$(Q)CC='$(CC)' BUILD='$(BUILD)' tests/fuzz.sh afl $(FUZZ_SECONDS)

# bench/ measures; `make test` runs each part once, briefly. A rival whose library is not installed is left out: its
# program then has nothing in it but a line that says so.
BENCH         := $(BUILD)/bench
BENCH_BUILT   := $(addprefix $(BENCH)/,hot latency sustained reader memory growth make_trace pool pool.private)
HAVE_BPF      := $(shell $(NEEDS_bpf) >/dev/null 2>&1 && echo y)
BENCH_BUILT   += $(if $(HAVE_BPF),$(BENCH)/kernel $(BUILD)/ojo_bpf.o)
RIVALS_BUILT  := $(addprefix $(BENCH)/rivals/,plain lttng spdlog)
HAVE_LTTNG     = $(shell echo '#include <lttng/tracepoint.h>' | $(CC) -E -x c - >/dev/null 2>&1 && echo y)
HAVE_SPDLOG    = $(shell echo '#include <spdlog/async.h>' | $(CXX) -E -x c++ - >/dev/null 2>&1 && echo y)
TRANSFERS     := $(addprefix $(BENCH)/transfer/,off fprintf fwrite write ring)
TRANSFERS     += $(if $(wildcard bench/rivals/lttng.c),$(if $(HAVE_LTTNG),$(BENCH)/transfer/lttng))
TRANSFERS     += $(if $(wildcard bench/rivals/spdlog.c),$(if $(HAVE_SPDLOG),$(BENCH)/transfer/spdlog))
LIBS_lttng     = $(if $(HAVE_LTTNG),$(BENCH)/rivals/lttng_events.o -llttng-ust -ldl)
LIBS_spdlog    = $(BENCH)/rivals/spdlog_logger.o $(if $(HAVE_SPDLOG),-lspdlog -lfmt) -lstdc++

$(BENCH)/hot: $(BENCH)/hot_disabled.o
$(BENCH)/%.o: bench/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) -MF $@.d -c -o $@ $<
$(BENCH)/rivals/lttng_events.o: bench/rivals/lttng_events.c # its macros don't pass our warnings
	@mkdir -p $(@D)
	$(call say,CC,$@) $(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -MF $@.d -Ibench/rivals -c -o $@ $<
$(BENCH)/rivals/spdlog_logger.o: bench/rivals/spdlog_logger.cc
	@mkdir -p $(@D)
	$(call say,CXX,$@) $(CXX) -std=c++17 $(CPPFLAGS) $(CFLAGS) -DSPDLOG_COMPILED_LIB -DSPDLOG_FMT_EXTERNAL -MMD -MP -MF $@.d -c -o $@ $<
$(BENCH)/pool.private: bench/pool.c
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) -DOJO_NO_TMPFS -MF $@.d $(LDFLAGS) -o $@ $< -pthread
$(BENCH)/kernel: bench/kernel.c
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) -MF $@.d $(LDFLAGS) -o $@ $< -lbpf -pthread
$(BENCH)/rivals/plain: bench/rivals/plain.c
$(BENCH)/rivals/lttng: bench/rivals/lttng.c $(if $(HAVE_LTTNG),$(BENCH)/rivals/lttng_events.o)
$(BENCH)/rivals/spdlog: bench/rivals/spdlog.c $(BENCH)/rivals/spdlog_logger.o
$(RIVALS_BUILT):
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) -MF $@.d $(LDFLAGS) -o $@ $< $(LIBS_$(@F)) -pthread
$(BENCH)/transfer/off: examples/4_transport.c
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) -DOJO_DISABLE -MF $@.d $(LDFLAGS) -o $@ $< -pthread
$(addprefix $(BENCH)/transfer/,fprintf fwrite write ring): RIVAL_HEADER = rivals/plain.h
$(BENCH)/transfer/lttng: RIVAL_HEADER = rivals/lttng.h
$(BENCH)/transfer/lttng: $(BENCH)/rivals/lttng_events.o
$(BENCH)/transfer/spdlog: RIVAL_HEADER = rivals/spdlog.h
$(BENCH)/transfer/spdlog: $(BENCH)/rivals/spdlog_logger.o
$(filter-out %/off,$(TRANSFERS)): $(BENCH)/transfer/%: examples/4_transport.c bench/transport_rival.h
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) -Ibench -include bench/transport_rival.h -DRIVAL=$* -DRIVAL_HEADER='"$(RIVAL_HEADER)"' -MF $@.d $(LDFLAGS) \
	  -o $@ $< $(LIBS_$*) -pthread
$(BENCH)/%: bench/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@) $(COMPILE) -MF $@.d $(LDFLAGS) -o $@ $(filter %.c %.o,$^) -pthread

bench-built: $(BENCH_BUILT) $(RIVALS_BUILT) $(TRANSFERS) $(BUILD)/4_transport $(BUILD)/ojo-cat
bench: bench-built ## measure what README.md states, beside rivals: ten minutes, 8 GB of disk; into bench/results
	$(Q)CC='$(CC)' CFLAGS='$(CFLAGS)' BUILD='$(BUILD)' bench/run
bench-quick: bench-built ## the same, roughly, in under a minute
	$(Q)CC='$(CC)' CFLAGS='$(CFLAGS)' BUILD='$(BUILD)' BENCH_QUICK=1 bench/run

golden: tests-built ## regenerate tests/golden/ from what the code does now; review the difference
	$(BUILD)/tests/golden --write

clean: ## remove build/
	rm -rf $(BUILD)

-include $(wildcard $(BUILD)/tools/*.d $(BUILD)/examples/*.d $(BUILD)/tests/*.d $(BUILD)/tests/ways/*.d $(BUILD)/bench/*.d $(BUILD)/bench/*/*.d)
