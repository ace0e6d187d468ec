# migrate_ext: built by PGXS, against the PostgreSQL that PG_CONFIG names.
#
#   make                     a release build
#   make DEBUG_POINTS=1      debug points and assertions compiled in: what the tests need
#   make install             into that PostgreSQL (as a user who may write there)
#   make installcheck        all suites, each on throwaway servers of its own; not as root
#   make format              src/ through clang-format
#   make check-style         what CI refuses
#   make bench               the backfill against those who do the same; as root
#
# script/test does build, install and check in one go, in a folder of its own.

MODULE_big = migrate_ext
EXTENSION = migrate_ext
EXTVERSION = 1.0
PGFILEDESC = "migrate_ext - turns live tables into partitioned ones"

SOURCES = $(sort $(wildcard src/*.c))
OBJS = $(SOURCES:.c=.o)

# The install script is made of parts, in lexical order; those in src/sql/debug are for tests only.
SQL_PARTS = $(sort $(wildcard src/sql/*.sql)) \
	$(if $(DEBUG_POINTS),$(sort $(wildcard src/sql/debug/*.sql)))
DATA_built = $(EXTENSION)--$(EXTVERSION).sql
# From one version to the next; CONTRIBUTING.md tells what they must keep to.
DATA = $(sort $(wildcard src/sql/update/$(EXTENSION)--*--*.sql))

# Those switched off are what PostgreSQL's own headers and idioms trip.
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
	-Wno-declaration-after-statement -Werror
PG_CPPFLAGS = -Isrc
ifneq ($(DEBUG_POINTS),)
PG_CPPFLAGS += -DMIGRATE_EXT_DEBUG_POINTS -DUSE_ASSERT_CHECKING
endif

EXTRA_CLEAN = .build-mode .build-version results output_iso log regression.diffs regression.out tmp_check tmp_t* \
	$(REGRESS_INSTANCE) $(ISOLATION_INSTANCE)

# Our own installcheck, below: PGXS's expects a server that somebody else has made ready.
NO_INSTALLCHECK = 1

# No LLVM bitcode: nothing here is worth inlining into a query, and clang isn't asked for.
with_llvm ?= no
override with_llvm := $(with_llvm)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# ---------------------------------------------------------------------------------------------
# Build

# Every object depends on every header: a whole build takes seconds, a stale object takes hours.
$(OBJS): $(wildcard src/*.h) Makefile .build-mode
$(DATA_built): .build-mode

# Rewritten only when the mode differs, so that switching it builds everything anew.
.build-mode: FORCE
	@echo 'DEBUG_POINTS=$(DEBUG_POINTS)' | cmp -s - $@ || echo 'DEBUG_POINTS=$(DEBUG_POINTS)' > $@

# The same for the version, which one file knows; test/tools/upgrade.pl builds the next one.
.build-version: FORCE
	@echo '$(EXTVERSION)' | cmp -s - $@ || echo '$(EXTVERSION)' > $@

src/version.o: .build-version
src/version.o: override CPPFLAGS += -DMIGRATE_EXT_VERSION='"$(EXTVERSION)"'

$(EXTENSION)--$(EXTVERSION).sql: $(SQL_PARTS) Makefile
	@{ \
		printf '%s\n' '-- Built from src/sql: edit the parts, not this file.' \
			'\echo Use "CREATE EXTENSION migrate_ext" to load this file. \quit'; \
		for part in $(SQL_PARTS); do printf '\n-- %s\n\n' "$$part"; cat "$$part"; done; \
	} > $@

# ---------------------------------------------------------------------------------------------
# Tests. Narrowed down by REGRESS="setup name ...", ISOLATION="name ..." and
# PROVE_TESTS="test/t/name.pl ...".

# Not named tmp_check: that one belongs to the TAP tests.
REGRESS_INSTANCE = tmp_check_pg
ISOLATION_INSTANCE = tmp_check_iso_pg
TEST_CONF = $(srcdir)/test/postgresql.conf

# The encoding is set because the tests use names beyond ASCII, whatever the machine's locale.
temp_instance = --temp-config=$(TEST_CONF) --encoding=UTF8 --no-locale

installcheck: installcheck-regress installcheck-isolation installcheck-tap

installcheck-regress:
	$(pg_regress_installcheck) --temp-instance=./$(REGRESS_INSTANCE) $(temp_instance) \
		--dbname=$(CONTRIB_TESTDB) \
		$(if $(REGRESS),$(REGRESS),--schedule=$(srcdir)/test/regress_schedule)

# The driver wants its specs and expected files beside each other, hence an input folder of its own.
installcheck-isolation:
	$(top_builddir)/src/test/isolation/pg_isolation_regress \
		--inputdir=$(srcdir)/test/isolation --outputdir=output_iso --bindir='$(bindir)' \
		--temp-instance=./$(ISOLATION_INSTANCE) $(temp_instance) \
		--dbname=$(ISOLATION_TESTDB) --load-extension=$(EXTENSION) \
		$(if $(ISOLATION),$(ISOLATION),--schedule=$(srcdir)/test/isolation/schedule)

# The environment that PostgreSQL::Test::Cluster expects, in an empty folder tmp_check below TAP_FOLDER: another one for who runs
# at the same time. Up to 15 it knows TESTDIR alone.
TAP_FOLDER = .
define with_cluster
rm -rf '$(CURDIR)/$(TAP_FOLDER)/tmp_check'
$(MKDIR_P) '$(CURDIR)/$(TAP_FOLDER)/tmp_check'
TESTDIR='$(CURDIR)/$(TAP_FOLDER)' TESTDATADIR='$(CURDIR)/$(TAP_FOLDER)/tmp_check' TESTLOGDIR='$(CURDIR)/$(TAP_FOLDER)/tmp_check/log' \
	PATH="$(bindir):$$PATH" PGPORT='6$(DEF_PGPORT)' \
	PG_REGRESS='$(top_builddir)/src/test/regress/pg_regress'
endef

# run_tap.pl is prove with a count.
installcheck-tap:
	$(with_cluster) $(PERL) $(srcdir)/test/run_tap.pl -I $(top_srcdir)/src/test/perl -I $(srcdir)/test/t \
		$(if $(PROVE_TESTS),$(PROVE_TESTS),$(sort $(wildcard $(srcdir)/test/t/*.pl)))

# With programs of others: frameworks, exporters, packages. What they need: script/bootstrap --tools
installcheck-tools:
	$(with_cluster) $(PERL) $(srcdir)/test/run_tap.pl -I $(top_srcdir)/src/test/perl -I $(srcdir)/test/t \
		$(if $(PROVE_TESTS),$(PROVE_TESTS),$(sort $(wildcard $(srcdir)/test/tools/*.pl)))

# STRESS: the options of script/stress
stress:
	$(with_cluster) $(PERL) -I $(top_srcdir)/src/test/perl $(srcdir)/test/stress.pl $(STRESS)

# ---------------------------------------------------------------------------------------------
# Benchmarks, on a server of their own: script/bench --list names them

bench:
	$(srcdir)/script/bench $(BENCH)

# ---------------------------------------------------------------------------------------------
# Style

CLANG_FORMAT ?= clang-format

format:
	$(CLANG_FORMAT) -i $(SOURCES) $(wildcard src/*.h)

check-style:
	CLANG_FORMAT='$(CLANG_FORMAT)' $(srcdir)/script/check-style

.PHONY: FORCE bench stress installcheck installcheck-regress installcheck-isolation installcheck-tap \
	installcheck-tools format check-style
